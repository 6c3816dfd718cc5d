//! The sample network of `examples/sample-network.jsonl`, and what makes it.
//!
//! It is made by carrying commands out on an empty state, as a store would, from fixed numbers and
//! times: the file is the same on every machine. A test compares it with the committed one.

mod machines;
mod people;
mod series;
mod world;

use std::io;

use ghostwire_store::portable::{ORDER, Summary, Writer};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::digest::state_digest;
use ghostwire_store_core::secrets::HashKey;

use world::World;

/// The committed file, which the demonstration loads.
pub(super) const FILE: &[u8] = include_bytes!("../../../../examples/sample-network.jsonl");

/// Its policies, which the demonstration swaps.
pub(super) const POLICIES: [&str; 2] =
    [include_str!("policy-1.hujson"), include_str!("policy-2.hujson")];

/// What hashed the sample's credentials. Public, so it protects nothing: no network may use it.
pub(super) const HASH_KEY: &[u8; 32] = b"ghostwire-store sample hash key!";

/// The secret part of every credential in the sample.
pub(super) const SECRET: &str = "not-a-secret";

/// When the sample network was set up.
const BEGIN: &str = "2026-01-05T06:00:00Z";

/// When the hour of metrics begins; it ends, and the sample with it, an hour later.
const METRICS_FROM: &str = "2026-01-05T08:00:00Z";

/// When the sample ends.
pub(super) const END: &str = "2026-01-05T09:00:00Z";

fn hash_key() -> HashKey {
    HashKey::new(*HASH_KEY)
}

/// Writes the sample network in the portable form.
pub(super) fn write(to: impl io::Write) -> Result<Summary> {
    let mut world = World::new(BEGIN.parse()?);
    let people = people::add(&mut world)?;
    machines::add(&mut world, &people)?;
    people::work(&mut world, &people)?;
    if world.now() >= METRICS_FROM.parse()? {
        return Err(Error::new(ErrorKind::Unexpected, "the sample is not set up in time")
            .with("at", world.now()));
    }
    let points = series::metrics(&world, METRICS_FROM.parse()?)?;
    series::sign_ins(&mut world, &people, METRICS_FROM.parse()?)?;
    let mut writer = Writer::new(to)?;
    for table in ORDER {
        for image in world.state.images_of(table) {
            writer.image(&image)?;
        }
    }
    for point in &points {
        writer.metric(point)?;
    }
    let digest = *state_digest(&world.state).as_bytes();
    for entry in world.audit() {
        writer.audit(&entry)?;
    }
    writer.finish(Some(digest)).map(|(_, summary)| summary)
}
