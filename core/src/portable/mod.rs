//! The portable form: everything a store holds as JSON Lines, for export, import and reading with
//! other tools. docs/portable-format.md describes it.
//!
//! [`Writer`] streams items out, [`Reader`] streams them in. The first line names the format, the
//! last one counts the items and proves with a SHA-256 that nothing before it was lost or altered.
//! The same items in the same order give the same bytes.

mod line;
mod reader;
mod writer;

use std::collections::BTreeMap;

use crate::command::Image;
use crate::domain::{AuditEntry, MetricPoint};
use crate::error::Entity;
use crate::schema::Table;

pub use reader::Reader;
pub use writer::Writer;

/// The version of the format that this build writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The longest line, in bytes, line feed included: 32 MiB. A policy of 4 MiB fits even if JSON
/// escapes every character of it in six.
pub const MAX_LINE: usize = 32 * 1024 * 1024;

/// The order in which an export writes the tables: what is referred to comes first.
pub const ORDER: [Table; 10] = [
    Table::Settings,
    Table::Users,
    Table::PreAuthKeys,
    Table::Nodes,
    Table::Presence,
    Table::Routes,
    Table::ApiKeys,
    Table::Policies,
    Table::DnsRecords,
    Table::Sessions,
];

/// One line between the first and the last.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An entity.
    Image(Image),
    /// A measurement.
    Metric(MetricPoint),
    /// A line of the audit trail.
    Audit(AuditEntry),
}

impl Item {
    /// What kind of thing the line holds.
    #[must_use]
    pub fn entity(&self) -> Entity {
        match self {
            Self::Image(image) => image.entity(),
            Self::Metric(_) => Entity::Metric,
            Self::Audit(_) => Entity::Audit,
        }
    }
}

/// What the last line says of all the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many items of each kind; kinds without any are absent.
    pub counts: BTreeMap<Entity, u64>,
    /// The digest of the state that was exported, if the exporter knew it.
    pub state_digest: Option<[u8; 32]>,
    /// Of all bytes before the last line.
    pub sha256: [u8; 32],
}

impl Summary {
    /// How many items there are in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests;
