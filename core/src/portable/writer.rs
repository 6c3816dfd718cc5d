//! Writing the portable form.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::line::{End, Header};
use super::{FORMAT_VERSION, Item, MAX_LINE, Mac, Summary, WITHOUT_MAC};
use crate::command::EntityRecord;
use crate::domain::{AuditEntry, MetricPoint};
use crate::error::{EntityKind, Error, Result};
use crate::schema::Schema;
use crate::secrets::HashKey;

/// Writes the portable form to `W`, which had better be buffered: each line is one write.
///
/// Without [`Writer::finish`] the output is incomplete, and [`Reader`](super::Reader) refuses it.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    line: Vec<u8>,
    hash: Sha256,
    counts: BTreeMap<EntityKind, u64>,
    key: Option<Arc<HashKey>>,
}

impl<W: io::Write> Writer<W> {
    /// Writes the first line of a file that does not prove who wrote it.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub fn new(to: W) -> Result<Self> {
        Self::begin(to, None)
    }

    /// Writes the first line of a file whose last one proves that a holder of `key` wrote it.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub fn authenticated(to: W, key: Arc<HashKey>) -> Result<Self> {
        Self::begin(to, Some(key))
    }

    fn begin(to: W, key: Option<Arc<HashKey>>) -> Result<Self> {
        let ghostwire_store = if key.is_some() { FORMAT_VERSION } else { WITHOUT_MAC };
        let schema = Schema::current().version().version;
        let (line, hash, counts) = (Vec::new(), Sha256::new(), BTreeMap::new());
        let mut writer = Self { to, line, hash, counts, key };
        writer.put(&Header { ghostwire_store, schema })?;
        Ok(writer)
    }

    /// Writes an item.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written; `InvalidArgument` if its line would be longer than
    /// [`MAX_LINE`].
    pub fn item(&mut self, item: &Item) -> Result<()> {
        match item {
            Item::Entity(image) => self.image(image),
            Item::Metric(point) => self.metric(point),
            Item::Audit(entry) => self.audit(entry),
        }
    }

    /// Writes an entity.
    ///
    /// # Errors
    /// As for [`Writer::item`].
    pub fn image(&mut self, image: &EntityRecord) -> Result<()> {
        self.put(image)?;
        self.count(image.entity());
        Ok(())
    }

    /// Writes a measurement.
    ///
    /// # Errors
    /// As for [`Writer::item`].
    pub fn metric(&mut self, point: &MetricPoint) -> Result<()> {
        self.put(&Keyed::Metric(point))?;
        self.count(EntityKind::Metric);
        Ok(())
    }

    /// Writes a line of the audit trail.
    ///
    /// # Errors
    /// As for [`Writer::item`].
    pub fn audit(&mut self, entry: &AuditEntry) -> Result<()> {
        self.put(&Keyed::Audit(entry))?;
        self.count(EntityKind::Audit);
        Ok(())
    }

    /// Writes the last line and flushes. Making a file durable is the caller's part.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be written.
    pub fn finish(mut self, state_digest: Option<[u8; 32]>) -> Result<(W, Summary)> {
        let sha256 = std::mem::take(&mut self.hash).finalize().into();
        let counts = std::mem::take(&mut self.counts);
        let mac = self.key.as_deref().map(|key| Mac::of(&sha256, key));
        let summary = Summary { counts, state_digest, sha256, mac };
        self.put(&End::of(&summary))?;
        self.to.flush().map_err(unwritable)?;
        Ok((self.to, summary))
    }

    fn count(&mut self, entity: EntityKind) {
        let count = self.counts.entry(entity).or_default();
        *count = count.saturating_add(1);
    }

    fn put(&mut self, value: &impl Serialize) -> Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value).map_err(|error| {
            Error::new(crate::error::ErrorKind::Unexpected, "an item has no JSON form")
                .because(error)
                .during("portable.write")
        })?;
        self.line.push(b'\n');
        if self.line.len() > MAX_LINE {
            return Err(Error::invalid("an item is too long for the portable form")
                .with("bytes", self.line.len())
                .with("limit", MAX_LINE)
                .during("portable.write"));
        }
        self.to.write_all(&self.line).map_err(unwritable)?;
        self.hash.update(&self.line);
        Ok(())
    }
}

/// A series' item in the one-key form that images have by themselves.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Keyed<'a> {
    Metric(&'a MetricPoint),
    Audit(&'a AuditEntry),
}

fn unwritable(error: io::Error) -> Error {
    Error::new(crate::error::ErrorKind::Unavailable, "the portable form cannot be written")
        .because(error)
        .during("portable.write")
}
