//! An open file: its connections, and what is known of it in memory.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use ghostwire_store_core::backend::{Commit, Row, Scan};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_local_file::StoreFile;

use crate::engine::embedded::Embedded;
use crate::engine::{Batch, Engine, SeriesRange, Snapshot};
use crate::envelope::Envelope;
use crate::head::Stored;
use crate::options::ZqliteOptions;
use crate::series::fold::Chunks;
use crate::series::pending::{Limits, Pending};
use crate::series::run::Run;
use crate::series::scan::Page;
use crate::series::versions::Versions;
use crate::series::{self, Replay, SeriesPlan, chunk, journal};
use crate::slots::Slots;

/// The engine is declared, and so dropped, before the file's lock.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) envelope: Envelope,
    /// Written together with the file, so that a snapshot and the slots belong together.
    pub(crate) slots: RwLock<Slots>,
    pub(crate) versions: Versions,
    /// A commit ended in the unknown: what is in memory may not be what is stored.
    pub(crate) lost: AtomicBool,
    pub(crate) file: Arc<StoreFile>,
}

impl Open {
    /// Connects, and learns from what is stored where the store stands.
    pub(crate) fn begin(
        options: &ZqliteOptions,
        file: Arc<StoreFile>,
        create: bool,
    ) -> Result<(Self, Stored)> {
        let envelope = Envelope::new();
        let initial = || envelope.seal_head(&Stored::empty(options.store, options.schema));
        let engine: Box<dyn Engine> = Box::new(Embedded::open(
            &file,
            options.read_only,
            create.then_some(&initial as &dyn Fn() -> Vec<u8>),
        )?);
        let mut snapshot = engine.snapshot()?;
        let stored = envelope.open_head(&snapshot.head()?)?;
        let envelope = Envelope::of_store(stored.head.store);
        let slots = Slots::read(&mut *snapshot, &envelope, &stored)?;
        let head = &stored.head;
        if head.oldest_block <= head.serial {
            let serial = head.serial.get();
            let mut last = None;
            snapshot.blocks(serial, serial, 1, &mut |serial, frame, body| {
                last = Some(envelope.open_block(serial, frame, body)?);
                Ok(())
            })?;
            let last = last.ok_or_else(|| missing_block(head.serial))?;
            if last.hash != head.hash || last.id != head.block || last.time != head.time {
                return Err(broken_chain(head.serial));
            }
        }
        let pending = read_journal(&mut *snapshot, &envelope, &stored)?;
        drop(snapshot);
        let open = Self {
            engine,
            envelope,
            slots: RwLock::new(slots),
            versions: Versions::new(pending),
            lost: AtomicBool::new(false),
            file,
        };
        Ok((open, stored))
    }

    /// After an outcome that is not known nothing here is to be trusted until it was read again.
    pub(crate) fn write(&self, batch: &Batch<'_>) -> Result<()> {
        let outcome = self.engine.write(batch);
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

    pub(crate) fn scan_state(&self, scan: &Scan) -> Result<Vec<Row>> {
        let (mut snapshot, found) = {
            let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
            self.require_known()?;
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
        Ok(rows)
    }

    /// What `commit` does to the series. Chunks are only read if it changes some.
    pub(crate) fn plan_series(
        &self,
        stored: &Stored,
        commit: &Commit,
        limits: Limits,
    ) -> Result<Option<SeriesPlan>> {
        let mut chunks = StoredChunks { open: self, snapshot: None };
        series::plan(&stored.series, &self.versions.current(), commit, limits, &mut chunks)
    }

    /// Writes a commit, and `pending` with it.
    pub(crate) fn write_series(&self, batch: &Batch<'_>, pending: Option<Pending>) -> Result<()> {
        if let Some(pending) = pending {
            self.versions.announce(pending);
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

    pub(crate) fn scan_series(&self, scan: &Scan) -> Result<Vec<Row>> {
        if scan.limit == 0 {
            return Ok(Vec::new());
        }
        let (mut snapshot, pending) = self.series_snapshot()?;
        let table = scan.range.table.number();
        let mut page = Page::new(scan, &pending);
        snapshot.chunks(&SeriesRange::of(&scan.range), scan.reverse, &mut |key, stored| {
            page.take(key, self.envelope.open_chunk(table, key, stored)?)?;
            Ok(if page.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        page.finish()
    }

    /// A snapshot and what was pending then.
    fn series_snapshot(&self) -> Result<(Box<dyn Snapshot + '_>, Arc<Pending>)> {
        /// A commit may land between the two, but hardly again and again.
        const ATTEMPTS: usize = 1000;
        for _ in 0..ATTEMPTS {
            let mut snapshot = self.engine.snapshot()?;
            let stored = self.envelope.open_head(&snapshot.head()?)?;
            if let Some(pending) = self.versions.get(stored.series.next) {
                return Ok((snapshot, pending));
            }
        }
        Err(Error::corrupt("the file was changed by somebody who does not hold its lock"))
    }

    pub(crate) fn verify(&self) -> Result<()> {
        let mut snapshot = self.engine.fresh_snapshot()?;
        snapshot.check()?;
        let stored = self.envelope.open_head(&snapshot.head()?)?;
        Slots::read(&mut *snapshot, &self.envelope, &stored)?;
        read_journal(&mut *snapshot, &self.envelope, &stored)?;
        self.verify_chunks(&mut *snapshot, &stored)?;
        let head = stored.head;
        let mut next = head.oldest_block;
        let mut previous = None;
        let last = i64::MAX.unsigned_abs();
        snapshot.blocks(0, last, usize::MAX, &mut |serial, frame, body| {
            let block = self.envelope.open_block(serial, frame, body)?;
            if serial != next.get() {
                return Err(missing_block(next));
            }
            if previous.is_some_and(|hash| hash != block.previous) {
                return Err(broken_chain(next));
            }
            previous = Some(block.hash);
            next = next.next();
            Ok(())
        })?;
        if next != head.serial.next() {
            return Err(missing_block(next));
        }
        if previous.is_some_and(|hash| hash != head.hash) {
            return Err(broken_chain(head.serial));
        }
        self.file.require_in_place()
    }

    /// Reads every chunk: each begins at or behind its key and ends before the next one's.
    fn verify_chunks(&self, snapshot: &mut dyn Snapshot, stored: &Stored) -> Result<()> {
        let (mut count, mut before) = (0, Run::default());
        snapshot.every_chunk(&mut |table, key, body| {
            let rows = chunk::read(table, key, self.envelope.open_chunk(table, key, body)?)?;
            if before.last().is_some_and(|last| last.place() >= (table, key)) {
                return Err(Error::corrupt("two chunks overlap; restore the store from a backup")
                    .with("table", table));
            }
            count += 1;
            before = rows;
            Ok(())
        })?;
        if count != stored.series.chunks {
            return Err(Error::corrupt("chunks are missing or too many; restore from a backup")
                .with("chunks", count)
                .with("expected", stored.series.chunks));
        }
        Ok(())
    }
}

/// What is pending, from the journal.
fn read_journal(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Pending> {
    let mut replay = Replay::new(stored.series);
    snapshot.journal(&mut |number, stored| {
        let entry = journal::read(envelope.open_journal(number, stored)?)
            .map_err(|error| error.with("record", "journal").with("number", number))?;
        replay.take(number, entry)
    })?;
    replay.finish()
}

/// The chunks that the next commit finds, read when the first is asked for.
struct StoredChunks<'o> {
    open: &'o Open,
    snapshot: Option<Box<dyn Snapshot + 'o>>,
}

impl<'o> StoredChunks<'o> {
    fn snapshot(&mut self) -> Result<&mut (dyn Snapshot + 'o)> {
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.open.engine.writer_snapshot()?,
        };
        Ok(&mut **self.snapshot.insert(snapshot))
    }
}

impl Chunks for StoredChunks<'_> {
    fn keys(
        &mut self,
        table: u8,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let mut keys = Vec::new();
        self.snapshot()?.chunk_keys(&SeriesRange { table, from, to }, limit, &mut |key| {
            keys.push(key.to_vec());
            Ok(())
        })?;
        Ok(keys)
    }

    fn rows(&mut self, table: u8, key: &[u8]) -> Result<Run> {
        let (envelope, mut rows) = (&self.open.envelope, Run::default());
        self.snapshot()?.chunk(table, key, &mut |stored| {
            rows = chunk::read(table, key, envelope.open_chunk(table, key, stored)?)?;
            Ok(())
        })?;
        Ok(rows)
    }
}

pub(crate) fn missing_block(serial: Serial) -> Error {
    Error::corrupt("a block is missing; restore the store from a backup").with("serial", serial)
}

pub(crate) fn broken_chain(serial: Serial) -> Error {
    Error::corrupt("a block does not belong to its neighbours; restore the store from a backup")
        .with("serial", serial)
}
