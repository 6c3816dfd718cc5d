//! The portable form: everything a store holds as JSON Lines, for export, import and reading with
//! other tools. docs/portable-format.md describes it.
//!
//! [`Writer`] streams items out, [`Reader`] streams them in. The first line names the format, the
//! last one counts the items, proves with a SHA-256 that nothing before it was lost or damaged, and,
//! if its writer had a hash key, with a [`Mac`] who wrote it.
//! The same items in the same order under the same key give the same bytes.

mod line;
mod reader;
mod writer;

use std::collections::BTreeMap;

use crate::command::EntityRecord;
use crate::domain::{AuditEntry, MetricPoint};
use crate::error::{EntityKind, Error, Result};
use crate::schema::Table;
use crate::secrets::HashKey;

pub use reader::Reader;
pub use writer::Writer;

/// The newest version of the format: that of files with a [`Mac`]. Those without one have version 1.
pub const FORMAT_VERSION: u32 = 2;

/// The version of files without a [`Mac`].
const WITHOUT_MAC: u32 = 1;

/// Keeps codes of files apart from hashes of credentials.
const MAC_PURPOSE: &str = "portable form";

/// The longest line, in bytes, line feed included: 32 MiB. A policy of 4 MiB fits even if JSON
/// escapes every character of it in six.
pub const MAX_LINE: usize = 32 * 1024 * 1024;

/// The order in which an export writes the tables: what is referred to comes first.
pub const ORDER: [Table; Table::STATE.len()] = Table::RESTORED;

/// One line between the first and the last.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An entity of the state.
    Entity(EntityRecord),
    /// A point of a metric.
    Metric(MetricPoint),
    /// A line of the audit trail.
    Audit(AuditEntry),
}

impl Item {
    /// What kind of thing the line holds.
    #[must_use]
    pub fn entity(&self) -> EntityKind {
        match self {
            Self::Entity(image) => image.entity(),
            Self::Metric(_) => EntityKind::Metric,
            Self::Audit(_) => EntityKind::Audit,
        }
    }
}

/// What the last line says of all the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many items of each kind; kinds without any are absent.
    pub counts: BTreeMap<EntityKind, u64>,
    /// The digest of the state that was exported, if the exporter knew it.
    pub state_digest: Option<[u8; 32]>,
    /// Of all bytes before the last line.
    pub sha256: [u8; 32],
    /// Proof of who wrote the file, if its writer had a hash key.
    pub mac: Option<Mac>,
}

/// A code for the SHA-256 of a file that only a holder of a hash key can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac {
    /// Tells which hash key the file was signed with.
    pub key_id: [u8; 4],
    /// HMAC-SHA-256 under that key.
    pub hmac_sha256: [u8; 32],
}

impl Mac {
    fn of(sha256: &[u8; 32], key: &HashKey) -> Self {
        Self { key_id: key.id(), hmac_sha256: key.code(MAC_PURPOSE, sha256) }
    }
}

impl Summary {
    /// How many items there are in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Whether a holder of `key` wrote the file. If not, nobody knows who did.
    ///
    /// # Errors
    /// `Corrupt` if the file claims it, and it is not so: somebody else edited it.
    pub fn is_by_holder_of(&self, key: &HashKey) -> Result<bool> {
        let Some(mac) = self.mac.filter(|mac| mac.key_id == key.id()) else { return Ok(false) };
        if key.is_code(MAC_PURPOSE, &self.sha256, &mac.hmac_sha256) {
            return Ok(true);
        }
        Err(Error::corrupt("the file was edited by somebody who does not have this hash key")
            .with("key_id", data_encoding::HEXLOWER.encode(&mac.key_id))
            .during("portable.read"))
    }
}

#[cfg(test)]
mod tests;
