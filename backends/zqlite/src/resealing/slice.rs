//! One slice of what is sealed anew.

use std::ops::ControlFlow::{Break, Continue};
use std::ops::Range;
use std::time::Instant;

use ghostwire_store_core::backend::Budget;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use super::{Cursor, Stage};
use crate::before_leak::{BeforeLeak, take_out};
use crate::engine::{Batch, Engine, Snapshot, Write};
use crate::envelope::{Envelope, Kind, Part, Sealer, Tag, frame_of, missing, older, version_of};
use crate::head::Stored;
use crate::plan::Current;
use crate::series::directory::{Changes, Directory, LeafChange};
use crate::series::versions::Version;
use crate::slots::{Move, Slot};
use crate::tags::{Tags, toggle_block};

/// Records sealed anew, ready to be written.
#[derive(Debug)]
pub(crate) struct Slice {
    pub(crate) batch: Batch<'static>,
    /// Where the store stands once it is written.
    pub(crate) stored: Stored,
    pub(crate) moves: Vec<Move>,
    pub(crate) tags: Retagged,
    /// The series then, if their directory changes.
    pub(crate) version: Option<Version>,
    /// Whether there is anything to write. A cursor that only moved over records that are sealed under the
    /// newest version rides along with the next commit.
    pub(crate) writes: bool,
}

/// Tags of blocks and journal entries that were sealed anew.
#[derive(Debug, Default)]
pub(crate) struct Retagged {
    blocks: Vec<(u64, [Tag; 2])>,
    journal: Vec<(u64, Tag)>,
}

impl Retagged {
    /// To be called once the slice is stored.
    pub(crate) fn apply(self, tags: &mut Tags) {
        self.blocks.into_iter().for_each(|(serial, own)| tags.blocks.replace(serial, own));
        self.journal.into_iter().for_each(|(number, tag)| tags.journal.replace(number, tag));
    }
}

/// Seals the next records anew. `None` if all are sealed under the newest version, or the store is plain.
/// Each gets on by a record at least, whatever the budget.
pub(crate) fn plan_slice(
    engine: &dyn Engine,
    envelope: &Envelope,
    standing: Current<'_>,
    budget: &Budget,
) -> Result<Option<Slice>> {
    let stored = standing.stored;
    let Some(version) = envelope.version() else { return Ok(None) };
    let resealing = stored.resealing.towards(version);
    if resealing.is_complete(version) || resealing.cursor.stage == Stage::Done {
        return Ok(None);
    }
    let mut slicer = Slicer {
        envelope,
        standing,
        sealer: envelope.sealer(None)?,
        version,
        after: Stored { resealing, ..stored.moved_to(stored.head) },
        batch: Batch::new(standing.head.to_vec(), Vec::new()),
        moves: Vec::new(),
        tags: Retagged::default(),
        directory: None,
        ends: Instant::now() + budget.time,
        bytes: usize::try_from(budget.bytes).unwrap_or(usize::MAX),
        begin: resealing.cursor,
    };
    {
        // It is not in the way of readers, and nobody can write meanwhile.
        let mut snapshot = engine.writer_snapshot()?;
        slicer.fill(&mut *snapshot)?;
    }
    slicer.finish().map(Some)
}

struct Slicer<'s> {
    envelope: &'s Envelope,
    standing: Current<'s>,
    sealer: Sealer<'s>,
    version: u32,
    after: Stored,
    batch: Batch<'static>,
    moves: Vec<Move>,
    tags: Retagged,
    directory: Option<Directory>,
    ends: Instant,
    bytes: usize,
    /// Where it begins.
    begin: Cursor,
}

impl Slicer<'_> {
    fn fill(&mut self, snapshot: &mut dyn Snapshot) -> Result<()> {
        loop {
            let is_through = match self.after.resealing.cursor.stage {
                Stage::Rows => self.rows(snapshot)?,
                Stage::Directory => self.directory(snapshot)?,
                Stage::Blocks => self.blocks(snapshot)?,
                Stage::Journal => self.journal(snapshot)?,
                Stage::Done => return self.end(),
            };
            if !is_through {
                return Ok(());
            }
            let stage = self.after.resealing.cursor.stage.next();
            self.after.resealing.cursor = Cursor { stage, number: 0 };
        }
    }

    /// Nothing older comes behind the cursor: what is new has a higher number, or the newest version.
    fn end(&mut self) -> Result<()> {
        if self.after.resealing.is_complete(self.version) {
            self.after.resealing.cursor = Cursor::default();
            if !self.after.before_leak.is_over() {
                return Err(Error::corrupt(
                    "records under a data key that leaked went without being replaced; restore the store \
                     from a backup",
                ));
            }
            self.after.before_leak = BeforeLeak::default();
        }
        Ok(())
    }

    /// Whether the slice is full. Each gets somewhere, whatever it may cost.
    fn is_spent(&self) -> bool {
        let has_moved = !self.batch.writes.is_empty() || self.after.resealing.cursor != self.begin;
        has_moved && (self.batch.bytes.len() >= self.bytes || Instant::now() >= self.ends)
    }

    fn move_to(&mut self, number: u64) {
        self.after.resealing.cursor.number = number;
    }

    fn is_current(&self, stored: &[u8]) -> bool {
        version_of(stored) == Some(self.version)
    }

    /// One that is stored is sealed anew.
    fn recount(&mut self, kind: Kind, number: u64, stored: &[u8]) {
        take_out(self.envelope, &mut self.after, kind, number, stored);
        self.after.resealing.counts.add(self.version);
    }

    /// The bytes that were made since.
    fn made(&self, start: usize) -> Range<usize> {
        start..self.batch.bytes.len()
    }

    fn rows(&mut self, snapshot: &mut dyn Snapshot) -> Result<bool> {
        let (mut reader, slots) =
            (self.envelope.reader_of(self.standing.stored), self.standing.slots);
        let mut is_through = true;
        snapshot.every_row(Some(self.after.resealing.cursor.number), &mut |number, stored| {
            if self.is_spent() {
                is_through = false;
                return Ok(Break(()));
            }
            self.move_to(number);
            if self.is_current(stored) {
                return Ok(Continue(()));
            }
            let (row, before) = reader.open_placed(Kind::Row, number, stored)?;
            let (table, key) = (Table::from_number(row.table)?, RowKey::from_bytes(row.key)?);
            let known = slots.get(table, &key);
            if known != Some(Slot { number, tag: before }) {
                return Err(older(Kind::Row, number));
            }
            let start = self.batch.bytes.len();
            let tag = self.sealer.seal_placed(Kind::Row, number, &row, &mut self.batch.bytes)?;
            let body = self.made(start);
            self.batch.writes.push(Write::PutRow { slot: number, body });
            for tag in [before, tag] {
                self.envelope.toggle(&mut self.after.inventory.rows, Kind::Row, number, tag);
            }
            self.recount(Kind::Row, number, stored);
            self.moves.push(Move { table, key, slot: Some(Slot { number, tag }) });
            Ok(Continue(()))
        })?;
        Ok(is_through)
    }

    /// A leaf is done once all that it names is.
    fn directory(&mut self, snapshot: &mut dyn Snapshot) -> Result<bool> {
        let directory = &self.standing.version.directory;
        let (mut reader, mut changes) =
            (self.envelope.reader_of(self.standing.stored), Changes::new());
        let mut is_through = true;
        while let Some(leaf) = directory.leaf_after(self.after.resealing.cursor.number) {
            let mut is_touched = false;
            for entry in leaf.entries() {
                if self.is_spent() {
                    is_through = false;
                    break;
                }
                let number = entry.number;
                snapshot.chunk(number, &mut |stored| {
                    if self.is_current(stored) {
                        return Ok(());
                    }
                    let (rows, before) = reader.open_placed(Kind::Chunk, number, stored)?;
                    if before != entry.tag || !rows.is(entry.table(), entry.key()) {
                        return Err(older(Kind::Chunk, number));
                    }
                    let start = self.batch.bytes.len();
                    let into = &mut self.batch.bytes;
                    let tag = self.sealer.seal_placed(Kind::Chunk, number, &rows, into)?;
                    let body = self.made(start);
                    self.batch.writes.push(Write::PutChunk { number, body });
                    self.recount(Kind::Chunk, number, stored);
                    changes.insert((entry.table(), entry.key().to_vec()), Some((number, tag)));
                    is_touched = true;
                    Ok(())
                })?;
            }
            if !is_through {
                break;
            }
            if !is_touched && let Some(first) = leaf.entries().first() {
                let mut is_current = false;
                snapshot.record(Kind::Directory, leaf.number(), &mut |stored| {
                    is_current = self.is_current(stored);
                    Ok(())
                })?;
                if !is_current {
                    let place = (first.table(), first.key().to_vec());
                    changes.insert(place, Some((first.number, first.tag)));
                }
            }
            self.move_to(leaf.number());
        }
        self.write_directory(snapshot, changes)?;
        Ok(is_through)
    }

    fn write_directory(&mut self, snapshot: &mut dyn Snapshot, changes: Changes) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let Self { sealer, batch, after, .. } = self;
        let mut seal = |number, content: &[u8]| {
            let start = batch.bytes.len();
            let tag = sealer.seal(Kind::Directory, number, &[content], &mut batch.bytes)?;
            batch.writes.push(Write::PutLeaf { number, body: start..batch.bytes.len() });
            Ok(tag)
        };
        let next_leaf = &mut after.directory.next_leaf;
        let directory = &self.standing.version.directory;
        let (directory, written) = directory.with(changes, next_leaf, &mut seal)?;
        for LeafChange { number, before, after } in written {
            // The same entries with other tags are as long, so that no leaf comes or goes.
            let (Some(before), Some(after)) = (before, after) else {
                return Err(Error::new(ErrorKind::Unexpected, "sealing a leaf anew divided it"));
            };
            for tag in [before, after] {
                let leaves = &mut self.after.inventory.leaves;
                self.envelope.toggle(leaves, Kind::Directory, number, tag);
            }
            snapshot.record(Kind::Directory, number, &mut |stored| {
                self.recount(Kind::Directory, number, stored);
                Ok(())
            })?;
        }
        self.directory = Some(directory);
        Ok(())
    }

    fn blocks(&mut self, snapshot: &mut dyn Snapshot) -> Result<bool> {
        let head = &self.standing.stored.head;
        let mut reader = self.envelope.reader_of(self.standing.stored);
        let oldest = head.oldest_block.get();
        let mut serial = oldest.max(self.after.resealing.cursor.number.saturating_add(1));
        while serial <= head.serial.get() {
            if self.is_spent() {
                return Ok(false);
            }
            let mut is_there = false;
            snapshot.blocks(serial, serial, 1, &mut |stored| {
                is_there = true;
                if self.is_current(stored.changes) && self.is_current(stored.audit) {
                    return Ok(());
                }
                let before = self.standing.tags.blocks.get(serial);
                let block = reader.open_block(stored, before)?;
                let before = before.ok_or_else(|| missing(Kind::Block, serial))?;
                let framed = self.sealer.seal_block(&block, &mut self.batch.bytes)?;
                let (Part::Made(changes), Part::Made(audit)) = (framed.changes, framed.audit)
                else {
                    return Err(Error::new(ErrorKind::Unexpected, "a sealed block is plain"));
                };
                let frame = frame_of(framed.tags);
                self.batch.writes.push(Write::ReplaceBlock { serial, frame, changes, audit });
                for tags in [before, framed.tags] {
                    toggle_block(self.envelope, &mut self.after.inventory.blocks, serial, tags);
                }
                self.recount(Kind::Block, serial, stored.changes);
                self.recount(Kind::Audit, serial, stored.audit);
                self.tags.blocks.push((serial, framed.tags));
                Ok(())
            })?;
            if !is_there {
                return Err(missing(Kind::Block, serial));
            }
            self.move_to(serial);
            serial += 1;
        }
        Ok(true)
    }

    fn journal(&mut self, snapshot: &mut dyn Snapshot) -> Result<bool> {
        let series = &self.standing.stored.series;
        let mut reader = self.envelope.reader_of(self.standing.stored);
        let mut number = series.first.max(self.after.resealing.cursor.number.saturating_add(1));
        while number < series.next {
            if self.is_spent() {
                return Ok(false);
            }
            let known = self.standing.tags.journal.get(number);
            let before = known.ok_or_else(|| missing(Kind::Journal, number))?;
            snapshot.record(Kind::Journal, number, &mut |stored| {
                if self.is_current(stored) {
                    return Ok(());
                }
                let content = reader.open_current(Kind::Journal, number, before, stored)?;
                let start = self.batch.bytes.len();
                let into = &mut self.batch.bytes;
                let tag = self.sealer.seal(Kind::Journal, number, &[content], into)?;
                let body = self.made(start);
                self.batch.writes.push(Write::ReplaceJournal { number, body });
                for tag in [before, tag] {
                    let journal = &mut self.after.inventory.journal;
                    self.envelope.toggle(journal, Kind::Journal, number, tag);
                }
                self.recount(Kind::Journal, number, stored);
                self.tags.journal.push((number, tag));
                Ok(())
            })?;
            self.move_to(number);
            number += 1;
        }
        Ok(true)
    }

    fn finish(self) -> Result<Slice> {
        let Self { mut sealer, mut batch, after, moves, tags, directory, standing, .. } = self;
        // A store whose last record was sealed anew says so at once.
        let writes = !batch.writes.is_empty() || after.resealing.cursor.stage == Stage::Done;
        let version = directory.map(|directory| {
            let memtable = standing.version.memtable.clone();
            Version { commit: after.commits, memtable, directory }
        });
        if writes {
            batch.head = sealer.seal_head(&after)?;
        }
        let stored = match writes {
            true => after,
            false => Stored { resealing: after.resealing, ..*standing.stored },
        };
        Ok(Slice { batch, stored, moves, tags, version, writes })
    }
}
