//! The sample network of `examples/sample-network.jsonl`.

use std::io;

use ghostwire_store::Result;
use ghostwire_store::portable::{Item, Reader, Summary, Writer};

/// The committed file, which the demonstration loads.
pub(super) const FILE: &[u8] = include_bytes!("../../../../examples/sample-network.jsonl");

/// Its policies, which the demonstration swaps.
pub(super) const POLICIES: [&str; 2] =
    [include_str!("policy-1.hujson"), include_str!("policy-2.hujson")];

/// What hashed the sample's credentials. Public, so it protects nothing: no network may use it.
pub(super) const HASH_KEY: &[u8; 32] = b"ghostwire-store sample hash key!";

/// The secret part of every credential in the sample.
pub(super) const SECRET: &str = "not-a-secret";

/// When the sample ends.
pub(super) const END: &str = "2026-01-05T09:00:00Z";

/// Writes the sample network as an export of this build would.
pub(super) fn write(to: impl io::Write) -> Result<Summary> {
    let mut reader = Reader::new(FILE)?;
    let mut writer = Writer::new(to)?;
    for item in &mut reader {
        match item? {
            Item::Entity(image) => writer.image(&image)?,
            Item::Metric(point) => writer.metric(&point)?,
            Item::Audit(entry) => writer.audit(&entry)?,
        }
    }
    let digest = reader.summary().and_then(|summary| summary.state_digest);
    writer.finish(digest).map(|(_, summary)| summary)
}
