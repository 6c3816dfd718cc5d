//! Pages of rows: data blocks merged with the memtable.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ghostwire_store_core::backend::{Row, Scan};
use ghostwire_store_core::error::Result;
use ghostwire_store_core::schema::RowKey;

use super::data_block;
use super::memtable::Memtable;
use super::merge::{Merge, Source};
use super::sorted_run::SortedRun;

/// A page in the making. It is given the data blocks one by one, in its order.
#[derive(Debug)]
pub(crate) struct Page<'s> {
    scan: &'s Scan,
    /// The oldest source is the data block.
    merge: Merge,
    rows: Vec<(RowKey, Range<usize>)>,
    /// The bodies: one buffer for all of them.
    bodies: Vec<u8>,
}

impl<'s> Page<'s> {
    pub(crate) fn new(scan: &'s Scan, memtable: &Memtable) -> Self {
        let range = &scan.range;
        let to = range.to.as_ref().map(RowKey::as_bytes);
        let mut sources = memtable.sources(range.table.number(), range.from.as_bytes(), to);
        sources.push(Source::whole(Arc::new(SortedRun::default())));
        let merge = Merge::new(sources, scan.reverse);
        Self { scan, merge, rows: Vec::new(), bodies: Vec::new() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rows.len() >= self.scan.limit
    }

    /// Takes what is up to the end of this data block.
    pub(crate) fn take(&mut self, key: &[u8], content: &[u8]) -> Result<()> {
        let range = &self.scan.range;
        let table = range.table.number();
        let run = data_block::read(table, key, content)?;
        let to = range.to.as_ref().map(RowKey::as_bytes);
        let span = run.span(table, range.from.as_bytes(), to);
        self.merge.replace_oldest(Source { run: Arc::new(run), span });
        while !self.is_full() && !self.merge.is_oldest_exhausted() {
            self.take_one()?;
        }
        Ok(())
    }

    /// Adds the next row; says whether there was one.
    fn take_one(&mut self) -> Result<bool> {
        let Some(image) = self.merge.next() else { return Ok(false) };
        if let Some(body) = image.body {
            let start = self.bodies.len();
            self.bodies.extend_from_slice(body);
            self.rows.push((RowKey::from_bytes(image.key)?, start..self.bodies.len()));
        }
        Ok(true)
    }

    /// The page, with what is behind the last data block.
    pub(crate) fn finish(mut self) -> Result<Vec<Row>> {
        while !self.is_full() && self.take_one()? {}
        let bodies = Bytes::from(self.bodies);
        let row = |(key, body)| Row { key, body: bodies.slice(body) };
        Ok(self.rows.into_iter().map(row).collect())
    }
}
