//! What a commit means for the file: which records it writes, and with which bytes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::block::RowChange;
use ghostwire_store_core::error::Result;
use ghostwire_store_core::schema::{RowKey, Table};

use crate::before_leak::take_out;
use crate::engine::{Batch, Engine, Snapshot, Write};
use crate::envelope::{Envelope, Kind, Placed, Sealer, Tag, frame_of};
use crate::head::Stored;
use crate::series::SeriesPlan;
use crate::series::directory::{Changes, Directory, LeafChange, following};
use crate::series::versions::Version;
use crate::signing;
use crate::slots::{Move, Slot, Slots};
use crate::tags::{Tags, toggle_block};

/// Where the store stands, as far as it is in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) stored: &'a Stored,
    /// The head that it was read from.
    pub(crate) head: &'a [u8],
    pub(crate) slots: &'a Slots,
    pub(crate) tags: &'a Tags,
    pub(crate) version: &'a Version,
}

/// A commit, ready to be written.
#[derive(Debug)]
pub(crate) struct Plan<'c> {
    pub(crate) batch: Batch<'c>,
    /// What to tell the slots once it is written.
    pub(crate) moves: Vec<Move>,
    /// What to tell the tags then.
    pub(crate) tags: NewTags,
    /// Where the store stands then.
    pub(crate) stored: Stored,
    /// The series then, if they change.
    pub(crate) version: Option<Version>,
}

/// How the tags of blocks and journal entries change.
#[derive(Debug, Default)]
pub(crate) struct NewTags {
    block: Option<[Tag; 2]>,
    journal: Option<Tag>,
}

impl NewTags {
    /// To be called once the commit is stored.
    pub(crate) fn apply(self, tags: &mut Tags, stored: &Stored) {
        self.block.into_iter().for_each(|block| tags.blocks.push(block));
        self.journal.into_iter().for_each(|entry| tags.journal.push(entry));
        tags.blocks.cut(stored.head.oldest_block.get());
        tags.journal.cut(stored.series.first);
    }
}

pub(crate) fn plan<'c>(
    (envelope, engine): (&Envelope, &dyn Engine),
    current: Current<'_>,
    commit: &'c Commit,
    series: Option<SeriesPlan>,
) -> Result<Plan<'c>> {
    let Current { stored, head, .. } = current;
    let mut batch = Batch::new(head.to_vec(), Vec::new());
    batch.frees = commit.frees();
    let mut planner = Planner {
        envelope,
        sealer: envelope.sealer(commit.block.as_ref())?,
        current,
        after: stored.moved_to(stored.head.after(commit)?),
        batch,
        tags: NewTags::default(),
        engine,
        before: None,
    };
    planner.write_block(commit)?;
    let moves = planner.write_rows(commit)?;
    planner.purge_blocks()?;
    let version = series.map(|series| planner.write_series(series)).transpose()?;
    let Planner { mut sealer, mut after, mut batch, tags, .. } = planner;
    if after.head.checkpoint > stored.head.checkpoint {
        signing::sign(&mut sealer, &mut batch, &mut after)?;
    }
    batch.head = sealer.seal_head(&after)?;
    Ok(Plan { batch, moves, tags, stored: after, version })
}

/// A plan in the making.
struct Planner<'p, 'c> {
    envelope: &'p Envelope,
    sealer: Sealer<'p>,
    current: Current<'p>,
    after: Stored,
    batch: Batch<'c>,
    tags: NewTags,
    engine: &'p dyn Engine,
    /// What is stored, while versions of it are asked for.
    before: Option<Box<dyn Snapshot + 'p>>,
}

impl<'c> Planner<'_, 'c> {
    /// A record is sealed.
    fn came(&mut self) {
        let version = self.envelope.version();
        version.into_iter().for_each(|version| self.after.resealing.counts.add(version));
    }

    /// A record that is stored is replaced or deleted. Under which version it is sealed is looked up only
    /// while there are several.
    fn went(&mut self, kind: Kind, number: u64) -> Result<()> {
        if self.envelope.version().is_none() {
            return Ok(());
        }
        // Before this commit: what it brings itself is not stored yet.
        let Stored { resealing, before_leak, .. } = self.current.stored;
        if let Some(version) = resealing.counts.single().filter(|_| before_leak.is_over()) {
            self.after.resealing.counts.take(version);
            return Ok(());
        }
        let before = match self.before.take() {
            Some(before) => before,
            None => self.engine.writer_snapshot()?,
        };
        let (envelope, after) = (self.envelope, &mut self.after);
        self.before.insert(before).record(kind, number, &mut |stored| {
            take_out(envelope, after, kind, number, stored);
            Ok(())
        })
    }

    fn write_block(&mut self, commit: &'c Commit) -> Result<()> {
        let Some(block) = &commit.block else { return Ok(()) };
        let framed = self.sealer.seal_block(block, &mut self.batch.bytes)?;
        let serial = block.serial.get();
        toggle_block(self.envelope, &mut self.after.inventory.blocks, serial, framed.tags);
        self.tags.block = Some(framed.tags);
        self.came();
        self.came();
        self.batch.writes.push(Write::Block {
            serial,
            frame: frame_of(framed.tags),
            changes: framed.changes,
            audit: framed.audit,
        });
        Ok(())
    }

    fn purge_blocks(&mut self) -> Result<()> {
        let oldest = self.after.head.oldest_block;
        if oldest > self.current.stored.head.oldest_block {
            // A commit may purge the block that it brings.
            let own = self.tags.block.map(|tags| (self.after.head.serial.get(), tags));
            let own = own.filter(|(serial, _)| *serial < oldest.get());
            let tags = self.current.tags;
            for (serial, tags) in tags.blocks.before(oldest.get()) {
                toggle_block(self.envelope, &mut self.after.inventory.blocks, serial, tags);
                self.went(Kind::Block, serial)?;
                self.went(Kind::Audit, serial)?;
            }
            if let Some((serial, tags)) = own {
                toggle_block(self.envelope, &mut self.after.inventory.blocks, serial, tags);
                for version in [self.envelope.version(); 2].into_iter().flatten() {
                    self.after.resealing.counts.take(version);
                }
            }
            self.batch.writes.push(Write::PurgeBlocks { before: oldest.get() });
        }
        Ok(())
    }

    fn write_rows(&mut self, commit: &'c Commit) -> Result<Vec<Move>> {
        let mut moves = Vec::new();
        // The rows that this commit prunes first.
        let mut gone: HashSet<(Table, &RowKey)> = HashSet::new();
        let slots = self.current.slots;
        let pruned: Vec<_> = commit
            .prune
            .iter()
            .filter(|range| range.table.is_state())
            .flat_map(|range| slots.range(range).map(|(key, slot)| (range.table, key, slot)))
            .collect();
        for (table, key, slot) in pruned {
            if gone.insert((table, key)) {
                moves.push(Move { table, key: key.clone(), slot: None });
                self.delete_row(slot)?;
            }
        }
        // Of the images of one row only the last is written. Rows in order are there once.
        let key = |row: &'c RowChange| (row.table, &row.key);
        let mut last: HashMap<(Table, &RowKey), usize> = HashMap::new();
        let of_state = || commit.rows.iter().filter(|row| row.table.is_state());
        if !of_state().is_sorted_by(|a, b| key(a) < key(b)) {
            last.extend(of_state().enumerate().map(|(index, row)| (key(row), index)));
        }
        let bytes = |row: &RowChange| row.body.as_ref().map_or(0, |body| body.len() + 160);
        self.batch.bytes.reserve(of_state().map(bytes).sum());
        for (index, change) in of_state().enumerate() {
            let (table, key) = (change.table, &change.key);
            if last.get(&(table, key)).is_some_and(|last| *last != index) {
                continue;
            }
            let present = match gone.contains(&(table, key)) {
                true => None,
                false => slots.get(table, key),
            };
            let slot = match (&change.body, present) {
                (Some(body), present) => Some(self.put_row(table, key, body, present)?),
                (None, Some(slot)) => {
                    self.delete_row(slot)?;
                    None
                }
                (None, None) => continue,
            };
            moves.push(Move { table, key: key.clone(), slot });
        }
        Ok(moves)
    }

    /// Into the slot that it has, or a new one.
    fn put_row(
        &mut self,
        table: Table,
        key: &RowKey,
        body: &[u8],
        present: Option<Slot>,
    ) -> Result<Slot> {
        let number = match present {
            Some(slot) => slot.number,
            None => {
                self.after.rows += 1;
                following(&mut self.after.next_slot)?
            }
        };
        let start = self.batch.bytes.len();
        let tag = self.sealer.seal_row(number, table, key, body, &mut self.batch.bytes)?;
        let rows = &mut self.after.inventory.rows;
        if let Some(before) = present {
            self.envelope.toggle(rows, Kind::Row, number, before.tag);
        }
        self.envelope.toggle(rows, Kind::Row, number, tag);
        if present.is_some() {
            self.went(Kind::Row, number)?;
        }
        self.came();
        self.batch.writes.push(Write::PutRow { slot: number, body: self.made(start) });
        Ok(Slot { number, tag })
    }

    fn delete_row(&mut self, slot: Slot) -> Result<()> {
        self.batch.writes.push(Write::DeleteRow { slot: slot.number });
        self.after.rows = self.after.rows.saturating_sub(1);
        self.envelope.toggle(&mut self.after.inventory.rows, Kind::Row, slot.number, slot.tag);
        self.went(Kind::Row, slot.number)
    }

    /// The bytes that were made since.
    fn made(&self, start: usize) -> Range<usize> {
        start..self.batch.bytes.len()
    }

    fn write_series(&mut self, series: SeriesPlan) -> Result<Version> {
        let before = self.current.stored.series;
        self.after.series = series.head;
        let start = self.batch.bytes.len();
        let (number, entry) = (before.next, &series.entry[..]);
        let tag = self.sealer.seal(Kind::Journal, number, &[entry], &mut self.batch.bytes)?;
        self.envelope.toggle(&mut self.after.inventory.journal, Kind::Journal, number, tag);
        self.tags.journal = Some(tag);
        self.came();
        self.batch.writes.push(Write::Journal { number, body: self.made(start) });
        let directory = &self.current.version.directory;
        let mut changes = Changes::new();
        for (table, key) in series.edits.removed {
            if let Some(entry) = directory.get(table, &key) {
                self.went(Kind::Chunk, entry.number)?;
                self.batch.writes.push(Write::DeleteChunk { number: entry.number });
            }
            changes.insert((table, key), None);
        }
        for data_block in series.edits.put {
            let (table, key) = (data_block.table, data_block.key);
            let number = match directory.get(table, &key) {
                Some(entry) if !changes.contains_key(&(table, key.clone())) => {
                    self.went(Kind::Chunk, entry.number)?;
                    entry.number
                }
                _ => following(&mut self.after.directory.next_chunk)?,
            };
            let start = self.batch.bytes.len();
            let placed = Placed { table, key: &key, body: &data_block.content };
            let tag =
                self.sealer.seal_placed(Kind::Chunk, number, &placed, &mut self.batch.bytes)?;
            self.batch.writes.push(Write::PutChunk { number, body: self.made(start) });
            self.came();
            changes.insert((table, key), Some((number, tag)));
        }
        if series.head.first > before.first {
            // Whether or not it cuts its own entry: that one is not among the tags.
            let tags = self.current.tags;
            for (number, tag) in tags.journal.before(series.head.first) {
                self.envelope.toggle(&mut self.after.inventory.journal, Kind::Journal, number, tag);
                self.went(Kind::Journal, number)?;
            }
            self.batch.writes.push(Write::CutJournal { before: series.head.first });
        }
        let directory = self.write_directory(changes)?;
        Ok(Version { commit: self.after.commits, memtable: series.memtable, directory })
    }

    fn write_directory(&mut self, changes: Changes) -> Result<Directory> {
        let Self { sealer, batch, after, .. } = self;
        let mut seal = |number, content: &[u8]| {
            let start = batch.bytes.len();
            let tag = sealer.seal(Kind::Directory, number, &[content], &mut batch.bytes)?;
            batch.writes.push(Write::PutLeaf { number, body: start..batch.bytes.len() });
            Ok(tag)
        };
        let next_leaf = &mut after.directory.next_leaf;
        let (directory, written) =
            self.current.version.directory.with(changes, next_leaf, &mut seal)?;
        for LeafChange { number, before, after } in written {
            let leaves = &mut self.after.inventory.leaves;
            for tag in [before, after].into_iter().flatten() {
                self.envelope.toggle(leaves, Kind::Directory, number, tag);
            }
            if before.is_some() {
                self.went(Kind::Directory, number)?;
            }
            match after {
                Some(_) => self.came(),
                None => self.batch.writes.push(Write::DeleteLeaf { number }),
            }
        }
        self.after.directory.leaves = directory.leaves() as u64;
        Ok(directory)
    }
}
