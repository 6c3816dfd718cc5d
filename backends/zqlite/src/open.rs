//! An open file: its connections, and what is known of it in memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use ghostwire_store_core::backend::{Commit, Head, Row, Scan, ScanPage};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{Access, Compact, StoreFile};

use crate::engine::embedded::Embedded;
use crate::engine::{Batch, Engine, SeriesRange, Snapshot};
use crate::envelope::{Envelope, sum_of};
use crate::head::{Stored, Sums};
use crate::series::compaction::DataBlocks;
use crate::series::memtable::{Limits, Memtable};
use crate::series::scan::Page;
use crate::series::sorted_run::SortedRun;
use crate::series::versions::Versions;
use crate::series::{self, Replaced, Replay, SeriesPlan, data_block, journal};
use crate::slots::Slots;
use crate::tally::Tally;
use crate::verify::{Opened, verify};

/// The engine is declared, and so dropped, before the file's lock.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) envelope: Envelope,
    /// Written together with the file, so that a snapshot and the slots belong together.
    pub(crate) slots: RwLock<Slots>,
    pub(crate) versions: Versions,
    /// Of the check that is under way.
    pub(crate) tally: Mutex<Option<Tally>>,
    /// A commit ended in the unknown: what is in memory may not be what is stored.
    pub(crate) lost: AtomicBool,
    pub(crate) file: Arc<StoreFile>,
}

impl Open {
    /// Connects to a store that was made, and learns from what is stored where it stands.
    pub(crate) fn begin(file: &Arc<StoreFile>) -> Result<(Self, Stored)> {
        Self::begin_unnamed(file).map_err(|error| error.with("path", file.path().display()))
    }

    fn begin_unnamed(file: &Arc<StoreFile>) -> Result<(Self, Stored)> {
        let envelope = Envelope::new();
        let moment = |head: &[u8]| envelope.open_head(head).map(|stored| stored.moment());
        let engine: Box<dyn Engine> = Box::new(Embedded::open(file, moment)?);
        let mut snapshot = engine.snapshot()?;
        let mut stored = envelope.open_head(snapshot.head())?;
        let envelope = Envelope::of_database(stored.head.side);
        let (slots, rows) = Slots::read(&mut *snapshot, &envelope, &stored)?;
        let head = stored.head;
        if head.oldest_block <= head.serial {
            let serial = head.serial.get();
            let (mut chain, _) = Chain::after(&head, Serial::new(serial - 1), 1)?;
            snapshot.blocks(serial, serial, 1, &mut |serial, frame, body| {
                let block = envelope.open_block(serial, frame, body)?;
                chain.follow(Serial::new(serial), &block)
            })?;
            chain.require_whole()?;
        }
        check_no_newer_block(&mut *snapshot, &head)?;
        let data_block_keys = check_data_block_keys(&mut *snapshot, &envelope, &stored)?;
        let memtable = replay(&envelope, &stored, &read_journal(&mut *snapshot)?)?;
        // A file of a build that kept no sums is read once.
        let data_blocks = (stored.sums.is_none() && file.access() != Access::ReadOnly)
            .then(|| check_data_blocks(&mut *snapshot, &envelope))
            .transpose()?;
        drop(snapshot);
        if let Some(data_blocks) = data_blocks {
            let with_sums =
                Stored { sums: Some(Sums { rows, data_blocks, data_block_keys }), ..stored };
            let (before, after) = (envelope.seal_head(&stored), envelope.seal_head(&with_sums));
            engine.write(&Batch::new(before, after))?;
            stored = with_sums;
        }
        let open = Self {
            engine,
            envelope,
            slots: RwLock::new(slots),
            versions: Versions::new(memtable),
            tally: Mutex::default(),
            lost: AtomicBool::new(false),
            file: Arc::clone(file),
        };
        Ok((open, stored))
    }

    /// After an outcome that is not known nothing here is to be trusted until it was read again.
    pub(crate) fn write(&self, batch: &Batch<'_>) -> Result<()> {
        self.noting(self.engine.write(batch))
    }

    /// Writes as a batch is written, and changes nothing.
    pub(crate) fn probe(&self, head: &[u8]) -> Result<()> {
        self.noting(self.engine.probe(head))
    }

    /// Remembers that nobody knows what is stored.
    fn noting(&self, outcome: Result<()>) -> Result<()> {
        if outcome.as_ref().is_err_and(|error| *error.kind() == ErrorKind::OutcomeUnknown) {
            self.lost.store(true, Ordering::Release);
        }
        outcome
    }

    /// Refuses while what is in memory may not be what is stored.
    pub(crate) fn require_known(&self) -> Result<()> {
        match self.lost.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Unavailable,
                "a commit failed and it is not known what is stored; reopen the backend first",
            )),
        }
    }

    /// The slots, while nothing is written.
    pub(crate) fn slots(&self) -> Result<RwLockReadGuard<'_, Slots>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        self.require_known().map(|()| slots)
    }

    pub(crate) fn scan_state(&self, scan: &Scan) -> Result<ScanPage> {
        let (mut snapshot, found) = {
            let slots = self.slots()?;
            (self.engine.snapshot()?, slots.scan(scan))
        };
        let mut rows = Vec::with_capacity(found.len());
        let mut wanted = found.iter();
        let slots: Vec<u64> = found.iter().map(|(_, slot)| *slot).collect();
        snapshot
            .rows(&slots, &mut |slot, stored| {
                let row = self.envelope.open_row(slot, stored)?;
                match wanted.next() {
                    Some((key, _)) if row.is(scan.range.table, key) => {
                        rows.push(Row { key: key.clone(), body: Bytes::copy_from_slice(row.body) });
                        Ok(())
                    }
                    _ => Err(Error::corrupt("a slot holds another row than it did")
                        .with("table", scan.range.table.name())
                        .with("slot", slot)),
                }
            })
            .map_err(|error| error.with("table", scan.range.table.name()))?;
        Ok(page(&self.head_of(&*snapshot)?.head, rows))
    }

    /// What `commit` does to the series. Data blocks are only read if it changes some.
    pub(crate) fn plan_series(
        &self,
        stored: &Stored,
        commit: &Commit,
        limits: Limits,
    ) -> Result<Option<(SeriesPlan, Replaced)>> {
        let mut data_blocks =
            StoredDataBlocks { open: self, snapshot: None, read: Replaced::default() };
        let current = self.versions.current();
        let plan = series::plan(&stored.series, &current, commit, limits, &mut data_blocks)?;
        plan.map(|plan| data_blocks.replaced(plan)).transpose()
    }

    /// Writes a commit, and keeps the memtable that belongs to it.
    pub(crate) fn write_series(&self, batch: &Batch<'_>, memtable: Option<Memtable>) -> Result<()> {
        if let Some(memtable) = memtable {
            self.versions.announce(memtable);
        }
        let outcome = self.write(batch);
        match &outcome {
            Ok(()) => self.versions.advance(),
            // Either version may be what is stored.
            Err(error) if *error.kind() == ErrorKind::OutcomeUnknown => {}
            Err(_) => self.versions.withdraw(),
        }
        outcome
    }

    pub(crate) fn scan_series(&self, scan: &Scan) -> Result<ScanPage> {
        let (mut snapshot, stored, memtable) = self.series_snapshot()?;
        if scan.limit == 0 {
            return Ok(page(&stored.head, Vec::new()));
        }
        let table = scan.range.table.number();
        let mut found = Page::new(scan, &memtable);
        snapshot.data_blocks(&SeriesRange::of(&scan.range), scan.reverse, &mut |key, stored| {
            found.take(key, self.envelope.open_data_block(table, key, stored)?)?;
            Ok(if found.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(page(&stored.head, found.finish()?))
    }

    /// A page of no rows.
    pub(crate) fn empty_page(&self) -> Result<ScanPage> {
        let snapshot = self.engine.snapshot()?;
        Ok(page(&self.head_of(&*snapshot)?.head, Vec::new()))
    }

    pub(crate) fn head_of(&self, snapshot: &dyn Snapshot) -> Result<Stored> {
        self.envelope.open_head(snapshot.head())
    }

    /// A snapshot, its head, and the memtable of that moment.
    fn series_snapshot(&self) -> Result<(Box<dyn Snapshot + '_>, Stored, Arc<Memtable>)> {
        /// A commit may land between the two, but hardly again and again.
        const ATTEMPTS: usize = 1000;
        for _ in 0..ATTEMPTS {
            let snapshot = self.engine.snapshot()?;
            let stored = self.head_of(&*snapshot)?;
            if let Some(memtable) = self.versions.get(stored.series.next) {
                return Ok((snapshot, stored, memtable));
            }
        }
        Err(Error::corrupt("the file was changed by somebody who does not hold its lock"))
    }

    /// At most `limit` blocks after `after`.
    pub(crate) fn blocks(
        &self,
        snapshot: &mut dyn Snapshot,
        after: Serial,
        limit: usize,
    ) -> Result<Vec<EncodedBlock>> {
        let head = self.head_of(snapshot)?.head;
        let (mut chain, wanted) = Chain::after(&head, after, limit)?;
        let mut blocks = Vec::new();
        let (first, last) = (after.next().get(), head.serial.get());
        snapshot.blocks(first, last, wanted, &mut |serial, frame, body| {
            let block = self.envelope.open_block(serial, frame, body)?;
            chain.follow(Serial::new(serial), &block)?;
            blocks.push(block);
            Ok(())
        })?;
        if blocks.len() < wanted { Err(chain.missing()) } else { Ok(blocks) }
    }

    /// Reads and checks the journal, and that there are no blocks but those of the head, which it gives.
    pub(crate) fn check_journal(&self) -> Result<Head> {
        let mut snapshot = self.engine.fresh_snapshot()?;
        let stored = self.head_of(&*snapshot)?;
        let entries = read_journal(&mut *snapshot)?;
        check_no_newer_block(&mut *snapshot, &stored.head)?;
        let before = stored.head.oldest_block.get().saturating_sub(1);
        snapshot.blocks(0, before, 1, &mut |serial, _, _| {
            Err(Error::corrupt("a block is there that was purged; restore from a backup")
                .with("serial", serial))
        })?;
        drop(snapshot);
        replay(&self.envelope, &stored, &entries)?;
        Ok(stored.head)
    }
}

impl Opened for Open {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        work(self)
    }
}

impl Compact for Open {
    /// The head counts rows and data blocks, and names the journal's entries.
    type Content = Stored;

    fn settle(&self) -> Result<()> {
        self.engine.settle()
    }

    fn verify(&self) -> Result<Stored> {
        verify(self)
    }

    fn bytes_in_use(&self) -> Result<u64> {
        self.engine.bytes_in_use()
    }

    fn copy_to(&self, copy: &Path) -> Result<()> {
        self.engine.copy_to(copy)
    }

    fn close(self) -> Result<()> {
        self.engine.close()
    }
}

fn page(head: &Head, rows: Vec<Row>) -> ScanPage {
    ScanPage { rows, position: head.position, serial: head.serial }
}

/// Reads the keys of all data blocks in the order in which data blocks are searched for. Were one damaged, a
/// search would go past data blocks. Gives the sum over them.
fn check_data_block_keys(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<u64> {
    let (mut count, mut total) = (0, 0u64);
    let mut before: Option<(u8, Vec<u8>)> = None;
    snapshot.every_data_block_key(&mut |table, key| {
        if before.as_ref().is_some_and(|(of, before)| (*of, &before[..]) >= (table, key)) {
            return Err(Error::corrupt(
                "data blocks are out of order; restore the store from a backup",
            )
            .with("table", table));
        }
        before = Some((table, key.to_vec()));
        count += 1;
        total = total.wrapping_add(envelope.sum_of_location(table, key));
        Ok(())
    })?;
    let differs = stored.sums.is_some_and(|sums| sums.data_block_keys != total);
    if count != stored.series.data_blocks || differs {
        return Err(Error::corrupt(
            "data blocks are missing, too many or others; restore from a backup",
        )
        .with("data_blocks", count)
        .with("expected", stored.series.data_blocks));
    }
    Ok(total)
}

/// Reads every data block: each begins at or behind its key and ends before the next one's. Gives the sum
/// over them.
fn check_data_blocks(snapshot: &mut dyn Snapshot, envelope: &Envelope) -> Result<u64> {
    let (mut total, mut before) = (0u64, SortedRun::default());
    snapshot.every_data_block(None, &mut |table, key, body| {
        before = read_data_block(envelope, &before, table, key, body)?;
        total = total.wrapping_add(sum_of(body));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(total)
}

/// The rows of a data block, which has to begin behind those of the one before it.
pub(crate) fn read_data_block(
    envelope: &Envelope,
    before: &SortedRun,
    table: u8,
    key: &[u8],
    stored: &[u8],
) -> Result<SortedRun> {
    let rows = data_block::read(table, key, envelope.open_data_block(table, key, stored)?)?;
    if before.last().is_some_and(|last| last.table_key() >= (table, key)) {
        return Err(Error::corrupt("two data blocks overlap; restore the store from a backup")
            .with("table", table));
    }
    Ok(rows)
}

/// A block that the head does not know of, because its page is an older one.
fn check_no_newer_block(snapshot: &mut dyn Snapshot, head: &Head) -> Result<()> {
    let next = head.serial.next().get();
    snapshot.blocks(next, i64::MAX.unsigned_abs(), 1, &mut |serial, _, _| {
        Err(Error::corrupt("a block is newer than the store's head; restore from a backup")
            .with("serial", serial))
    })
}

/// The entries of the journal as they are stored, and their numbers.
fn read_journal(snapshot: &mut dyn Snapshot) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut entries = Vec::new();
    snapshot.journal(&mut |number, stored| {
        entries.push((number, stored.to_vec()));
        Ok(())
    })?;
    Ok(entries)
}

/// The memtable, from the journal.
fn replay(envelope: &Envelope, stored: &Stored, entries: &[(u64, Vec<u8>)]) -> Result<Memtable> {
    let mut replay = Replay::new(stored.series);
    for (number, stored) in entries {
        let entry = journal::read(envelope.open_journal(*number, stored)?)
            .map_err(|error| error.with("record", "journal").with("number", number))?;
        replay.take(*number, entry)?;
    }
    replay.finish()
}

/// The data blocks that the next commit finds, read when the first is asked for.
struct StoredDataBlocks<'o> {
    open: &'o Open,
    snapshot: Option<Box<dyn Snapshot + 'o>>,
    /// Those whose rows were asked for.
    read: Replaced,
}

impl<'o> StoredDataBlocks<'o> {
    fn snapshot(&mut self) -> Result<&mut (dyn Snapshot + 'o)> {
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.open.engine.writer_snapshot()?,
        };
        Ok(&mut **self.snapshot.insert(snapshot))
    }

    /// What `plan` replaces. Data blocks that it removes whole were not read before.
    fn replaced(mut self, plan: SeriesPlan) -> Result<(SeriesPlan, Replaced)> {
        for (table, key) in &plan.edits.removed {
            if !self.read.has(*table, key) {
                let mut sum = 0;
                self.snapshot()?.data_block(*table, key, &mut |stored| {
                    sum = sum_of(stored);
                    Ok(())
                })?;
                self.read.add(*table, key, sum);
            }
        }
        let replaced = self.read.only(&plan.edits);
        Ok((plan, replaced))
    }
}

impl DataBlocks for StoredDataBlocks<'_> {
    fn keys(
        &mut self,
        table: u8,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.snapshot()?.data_block_keys(&SeriesRange { table, from, to }, limit, &mut |key| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        Ok(keys)
    }

    fn rows(&mut self, table: u8, key: &[u8]) -> Result<SortedRun> {
        let (envelope, mut rows, mut sum) = (&self.open.envelope, SortedRun::default(), 0);
        self.snapshot()?.data_block(table, key, &mut |stored| {
            rows = data_block::read(table, key, envelope.open_data_block(table, key, stored)?)?;
            sum = sum_of(stored);
            Ok(())
        })?;
        self.read.add(table, key, sum);
        Ok(rows)
    }
}
