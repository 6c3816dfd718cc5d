//! What is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use ghostwire_store_core::backend::{Commit, Head, KeyRange, Row, Scan, ScanPage};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Schema, Table};

type Rows = BTreeMap<RowKey, Bytes>;

#[derive(Debug)]
pub(crate) struct Content {
    head: Head,
    tables: BTreeMap<Table, Rows>,
    /// From `head.oldest_block` to `head.serial`, without gaps.
    blocks: VecDeque<EncodedBlock>,
    /// Counts what was stored.
    revision: u64,
}

impl Content {
    pub(crate) fn new(store: StoreId, schema: Schema) -> Self {
        let head = Head::genesis(store, schema);
        Self { head, tables: BTreeMap::new(), blocks: VecDeque::new(), revision: 0 }
    }

    pub(crate) fn head(&self) -> Head {
        self.head
    }

    pub(crate) fn migrate(&mut self, target: Schema) -> Result<()> {
        if !target.steps_from(self.head.schema)?.is_empty() {
            self.head.schema = target.version();
        }
        Ok(())
    }

    /// Checks everything first, so that a refused commit changes nothing.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<()> {
        let head = self.head.after(commit)?;
        if commit.revision.is_some_and(|revision| revision != self.revision) {
            return Err(Error::new(ErrorKind::Conflict, "something else was stored since"));
        }
        self.revision += 1;
        for range in &commit.prune {
            if let Some(bounds) = bounds(range)
                && let Some(rows) = self.tables.get_mut(&range.table)
            {
                rows.extract_if(bounds, |_, _| true).for_each(drop);
            }
        }
        for change in &commit.rows {
            let rows = self.tables.entry(change.table).or_default();
            match &change.body {
                // Copied, since it may be a slice that would keep its whole block alive.
                Some(body) => rows.insert(change.key.clone(), Bytes::copy_from_slice(body)),
                None => rows.remove(&change.key),
            };
        }
        self.blocks.extend(commit.block.clone());
        while self.blocks.front().is_some_and(|block| block.serial < head.oldest_block) {
            self.blocks.pop_front();
        }
        self.head = head;
        Ok(())
    }

    pub(crate) fn adopt(&mut self, head: &Head) -> Result<()> {
        let head = self.head.adopt(head)?;
        // What is only flushed is not counted by the head.
        if self.tables.values().any(|rows| !rows.is_empty()) {
            return Err(Error::new(ErrorKind::Restricted, "the store has rows; name an empty one"));
        }
        self.head = head;
        Ok(())
    }

    pub(crate) fn scan(&self, scan: &Scan) -> ScanPage {
        let Head { position, serial, .. } = self.head;
        ScanPage { rows: self.rows(scan), position, serial }
    }

    fn rows(&self, scan: &Scan) -> Vec<Row> {
        let (Some(bounds), Some(rows)) = (bounds(&scan.range), self.tables.get(&scan.range.table))
        else {
            return Vec::new();
        };
        let row = |(key, body): (&RowKey, &Bytes)| Row { key: key.clone(), body: body.clone() };
        let range = rows.range(bounds);
        if scan.reverse {
            range.rev().take(scan.limit).map(row).collect()
        } else {
            range.take(scan.limit).map(row).collect()
        }
    }

    pub(crate) fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let (chain, wanted) = Chain::after(&self.head, after, limit)?;
        let skipped = chain.next().get().saturating_sub(self.head.oldest_block.get());
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        Ok(self.blocks.iter().skip(skipped).take(wanted).cloned().collect())
    }

    /// The head and the blocks up to it, to be checked while commits go on.
    pub(crate) fn chain(&self) -> (Head, Vec<EncodedBlock>) {
        (self.head, self.blocks.iter().cloned().collect())
    }
}

/// Checks the blocks that a head has.
pub(crate) fn verify(head: &Head, blocks: Vec<EncodedBlock>) -> Result<()> {
    let mut chain = Chain::whole(head)?;
    for stored in blocks {
        let block = EncodedBlock::parse(stored.bytes)?;
        chain.follow(stored.serial, &block)?;
    }
    chain.require_whole()
}

/// `None` for an empty range, which `BTreeMap::range` would answer with a panic.
fn bounds(range: &KeyRange) -> Option<(Bound<RowKey>, Bound<RowKey>)> {
    let to = match &range.to {
        Some(to) if *to <= range.from => return None,
        Some(to) => Bound::Excluded(to.clone()),
        None => Bound::Unbounded,
    };
    Some((Bound::Included(range.from.clone()), to))
}
