//! An open file: its connections, and what is known of it in memory.

mod reading;
mod succession;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use ghostwire_store_core::backend::{Budget, Commit, Head, Row, Scan, ScanPage};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::RowKey;
use ghostwire_store_sqlite::{Compact, StoreFile};

use crate::before_leak::Contents;
use crate::engine::connect::Connect;
use crate::engine::{Batch, Engine, SeriesRange, Snapshot};
use crate::envelope::{Envelope, Kind, older, version_of};
use crate::head::Stored;
use crate::inner::locked;
use crate::plan::{self, Current, Plan};
use crate::resealing::{Slice, plan_slice, recounted};
use crate::series::directory::Entry;
use crate::series::memtable::Limits;
use crate::series::scan::Page;
use crate::series::versions::{Version, Versions};
use crate::series::{self, SeriesPlan};
use crate::signing;
use crate::slots::{Slot, Slots, Unread};
use crate::tags::{Run, Tags, read_blocks};
use crate::verify::{Opened, verify};
pub(crate) use reading::read_data_block;
use reading::{StoredDataBlocks, check_last_block, read_directory, read_journal, replay};

/// The engine is declared, and so dropped, before the file's lock.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) envelope: Envelope,
    /// Written together with the file, so that a snapshot and the slots belong together.
    pub(crate) slots: parking_lot::RwLock<Slots>,
    /// Empty from the first commit on.
    pub(crate) unread: Mutex<Unread>,
    /// Read and replaced by who has the slots, and then for a moment.
    pub(crate) tags: RwLock<Tags>,
    pub(crate) versions: Versions,
    /// The head as it was read or written last. Sealing it again would give other bytes.
    pub(crate) head: Mutex<Vec<u8>>,
    /// What is to be counted under once the pin was asked: a rotation because of a leak is under way, and
    /// the sums are under the inventory's key from before. `None` otherwise.
    pub(crate) successor: Option<Envelope>,
    /// A commit ended in the unknown: what is in memory may not be what is stored.
    pub(crate) lost: AtomicBool,
    /// The records were counted by versions anew, as sealing anew did not find all of them.
    pub(crate) has_recounted: AtomicBool,
    pub(crate) file: Arc<StoreFile>,
}

impl Open {
    /// Connects to a store that was made, and learns from what is stored where it stands. The envelope
    /// is one for heads.
    pub(crate) fn begin(
        file: &Arc<StoreFile>,
        connect: &Connect,
        envelope: &Envelope,
    ) -> Result<(Self, Stored)> {
        Self::begin_unnamed(file, connect, envelope)
            .map_err(|error| error.with("path", file.path().display()))
    }

    fn begin_unnamed(
        file: &Arc<StoreFile>,
        connect: &Connect,
        envelope: &Envelope,
    ) -> Result<(Self, Stored)> {
        let engine = connect.open(file, envelope)?;
        let mut snapshot = engine.snapshot()?;
        let head = snapshot.head().to_vec();
        let mut stored = envelope.open_head(&head)?;
        let current = envelope.of_database(stored.head.side);
        let before_rotation = current.before_rotation(&head)?;
        let (envelope, successor) = match before_rotation {
            Some(before) => (before, Some(current)),
            None => (current, None),
        };
        if stored.resealing.counts.total() != stored.records() {
            stored.resealing = recounted(&mut *snapshot, &envelope, &stored)?;
        }
        let envelope = envelope.knowing(Contents::read(&mut *snapshot, &envelope, &stored)?);
        let (slots, unread) = Slots::read(&mut *snapshot, &envelope, &stored)?;
        let blocks = read_blocks(&mut *snapshot, &envelope, &stored)?;
        check_last_block(&mut *snapshot, &envelope, &stored.head)?;
        let directory = read_directory(&mut *snapshot, &envelope, &stored)?;
        let entries = read_journal(&mut *snapshot)?;
        let (memtable, journal) = replay(&envelope, &stored, &entries)?;
        signing::check(&mut *snapshot, &envelope, &stored)?;
        signing::warn_of_unreadable_signers(&mut *snapshot, &envelope);
        drop(snapshot);
        let tags = Tags { blocks, journal };
        let open = Self {
            engine,
            envelope,
            successor,
            slots: parking_lot::RwLock::new(slots),
            unread: Mutex::new(unread),
            tags: RwLock::new(tags),
            versions: Versions::new(Version { commit: stored.commits, memtable, directory }),
            head: Mutex::new(head),
            lost: AtomicBool::new(false),
            has_recounted: AtomicBool::new(false),
            file: Arc::clone(file),
        };
        Ok((open, stored))
    }

    /// Moves the head alone, and signs where the store then stands.
    pub(crate) fn write_signed(&self, stored: Stored) -> Result<Stored> {
        let (mut sealer, mut after) = (self.envelope.sealer(None)?, stored.moved_to(stored.head));
        let mut batch = Batch::new(self.stored_head(), Vec::new());
        let mut snapshot = self.engine.writer_snapshot()?;
        signing::write_former_signers(&mut *snapshot, &mut sealer, &self.envelope, &mut batch)?;
        drop(snapshot);
        signing::sign(&mut sealer, &mut batch, &mut after)?;
        batch.head = sealer.seal_head(&after)?;
        self.write(&batch).map(|()| after)
    }

    /// Whether the newest signature is of where the store stands, and sealed as everything is by now. A plain
    /// store needs none.
    pub(crate) fn is_signed(&self, stored: &Stored) -> Result<bool> {
        if !self.envelope.is_sealed() {
            return Ok(true);
        }
        let mut snapshot = self.engine.writer_snapshot()?;
        let signed = signing::check(&mut *snapshot, &self.envelope, stored)?;
        let mut is_newest = true;
        snapshot.frames(Kind::Signature, 0, usize::MAX >> 1, &mut |_, frame| {
            is_newest &= version_of(frame) == self.envelope.version();
            Ok(())
        })?;
        Ok(signed == Some(stored.commits) && is_newest)
    }

    /// The head as it is stored, unless somebody else moved it.
    pub(crate) fn stored_head(&self) -> Vec<u8> {
        locked(&self.head).clone()
    }

    fn tags(&self) -> RwLockReadGuard<'_, Tags> {
        self.tags.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// After an outcome that is not known nothing here is to be trusted until it was read again.
    pub(crate) fn write(&self, batch: &Batch<'_>) -> Result<()> {
        self.noting(self.engine.write(batch))?;
        locked(&self.head).clone_from(&batch.head);
        Ok(())
    }

    /// Moves the head alone.
    pub(crate) fn write_head(&self, stored: &Stored) -> Result<()> {
        let head = self.envelope.sealer(None)?.seal_head(stored)?;
        self.write(&Batch::new(self.stored_head(), head))
    }

    /// Writes as a batch is written, and changes nothing.
    pub(crate) fn probe(&self) -> Result<()> {
        self.noting(self.engine.probe(&self.stored_head()))
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
    pub(crate) fn slots(&self) -> Result<parking_lot::RwLockReadGuard<'_, Slots>> {
        let slots = self.slots.read();
        self.require_known().map(|()| slots)
    }

    pub(crate) fn scan_state(&self, scan: &Scan) -> Result<ScanPage> {
        // First, so that no writer waits for who waits for a connection.
        let reserved = self.engine.reserve(false)?;
        let (mut snapshot, found) = {
            let slots = self.slots()?;
            (reserved.begin()?, slots.scan(scan))
        };
        let mut bodies: Vec<Option<Bytes>> = {
            let mut unread = locked(&self.unread);
            found.iter().map(|(_, slot)| unread.take(slot.number)).collect()
        };
        let stored = self.head_of(&*snapshot)?;
        let (table, mut reader) = (scan.range.table, self.envelope.reader_of(&stored));
        let unknown = found.iter().zip(&bodies).filter(|(_, body)| body.is_none());
        let slots: Vec<u64> = unknown.map(|((_, slot), _)| slot.number).collect();
        let mut wanted = found.iter().zip(&mut bodies).filter(|(_, body)| body.is_none());
        snapshot
            .rows(&slots, &mut |number, stored| {
                let (row, tag) = reader.open_placed(Kind::Row, number, stored)?;
                match wanted.next() {
                    Some(((key, slot), body))
                        if row.is(table.number(), key.as_bytes()) && tag == slot.tag =>
                    {
                        *body = Some(Bytes::copy_from_slice(row.body));
                        Ok(())
                    }
                    _ => Err(older(Kind::Row, number)),
                }
            })
            .map_err(|error| error.with("table", table.name()))?;
        let row = |((key, _), body): ((RowKey, Slot), Option<Bytes>)| Row {
            key,
            body: body.unwrap_or_default(),
        };
        let rows = found.into_iter().zip(bodies).map(row).collect();
        Ok(page(&stored.head, rows))
    }

    /// Plans a commit. The slots are those of what is stored.
    pub(crate) fn plan<'c>(
        &self,
        stored: &Stored,
        slots: &Slots,
        commit: &'c Commit,
        limits: Limits,
    ) -> Result<Plan<'c>> {
        let version = self.versions.current();
        let series = self.plan_series(stored, &version, commit, limits)?;
        let (tags, head) = (self.tags(), self.stored_head());
        let (tags, head, version) = (&*tags, &head[..], &*version);
        let current = Current { stored, head, slots, tags, version };
        plan::plan((&self.envelope, &*self.engine), current, commit, series)
    }

    /// Plans what is sealed anew next; `None` if nothing is to be.
    pub(crate) fn plan_slice(
        &self,
        stored: &Stored,
        slots: &Slots,
        budget: &Budget,
    ) -> Result<Option<Slice>> {
        let (tags, head, version) = (self.tags(), self.stored_head(), self.versions.current());
        let standing = Current { stored, head: &head, slots, tags: &tags, version: &version };
        plan_slice(&*self.engine, &self.envelope, standing, budget)
    }

    /// What `commit` does to the series. Data blocks are only read if it changes some.
    fn plan_series(
        &self,
        stored: &Stored,
        version: &Version,
        commit: &Commit,
        limits: Limits,
    ) -> Result<Option<SeriesPlan>> {
        let (directory, reader) = (&version.directory, self.envelope.reader_of(stored));
        let mut data_blocks = StoredDataBlocks { open: self, directory, reader, snapshot: None };
        series::plan(&stored.series, &version.memtable, commit, limits, &mut data_blocks)
    }

    /// Writes a commit, and keeps the version of the series that belongs to it.
    pub(crate) fn write_series(&self, batch: &Batch<'_>, version: Option<Version>) -> Result<()> {
        if let Some(version) = version {
            self.versions.announce(version);
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
        let (mut snapshot, stored, version) = self.series_snapshot()?;
        if scan.limit == 0 {
            return Ok(page(&stored.head, Vec::new()));
        }
        let (range, mut reader) = (SeriesRange::of(&scan.range), self.envelope.reader_of(&stored));
        let mut found = Page::new(scan, &version.memtable);
        let data_blocks: &mut dyn Iterator<Item = &Entry> = match scan.reverse {
            false => &mut version.directory.range(&range),
            true => &mut version.directory.range_reversed(&range),
        };
        for entry in data_blocks {
            let content = |content: &[u8]| found.take(entry.key(), content);
            read_data_block(&mut *snapshot, &mut reader, entry, content)?;
            if found.is_full() {
                break;
            }
        }
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

    /// A snapshot, its head, and the series of that moment.
    fn series_snapshot(&self) -> Result<(Box<dyn Snapshot + '_>, Stored, Arc<Version>)> {
        /// A commit may land between the two, but hardly again and again.
        const ATTEMPTS: usize = 1000;
        for _ in 0..ATTEMPTS {
            let snapshot = self.engine.snapshot()?;
            let stored = self.head_of(&*snapshot)?;
            if let Some(version) = self.versions.get(stored.commits) {
                return Ok((snapshot, stored, version));
            }
        }
        Err(Error::corrupt("the file was changed by somebody who does not hold its lock"))
    }

    /// At most `limit` blocks after `after`, by a snapshot of its own, which may have to be a fresh one.
    pub(crate) fn blocks(
        &self,
        after: Serial,
        limit: usize,
        is_fresh: bool,
    ) -> Result<Vec<EncodedBlock>> {
        let first = after.next().get();
        // First, so that no writer waits for who waits for a connection.
        let reserved = self.engine.reserve(is_fresh)?;
        let (mut snapshot, tags) = {
            // Blocks that are sealed anew change their tags: both have to be of one moment. While a commit is
            // on its way to the disk, which may take long, the chain alone tells what belongs to the head.
            let slots = self.slots.try_read();
            let snapshot = reserved.begin()?;
            // After a commit of unknown outcome they are not to be trusted.
            let tags = match slots.is_some() && self.require_known().is_ok() {
                true => self.tags().blocks.part(first, limit),
                false => Run::new(first),
            };
            drop(slots);
            (snapshot, tags)
        };
        let stored = self.head_of(&*snapshot)?;
        let (mut chain, wanted) = Chain::after(&stored.head, after, limit)?;
        let mut blocks = Vec::new();
        let last = stored.head.serial.get();
        let mut reader = self.envelope.reader_of(&stored);
        snapshot.blocks(first, last, wanted, &mut |stored| {
            let block = reader.open_block(stored, tags.get(stored.serial))?;
            chain.follow(Serial::new(stored.serial), &block)?;
            blocks.push(block);
            Ok(())
        })?;
        if blocks.len() < wanted { Err(chain.missing()) } else { Ok(blocks) }
    }

    /// Reads and checks the journal, the directory, and what stands beside the blocks. Gives the head.
    pub(crate) fn check_small(&self) -> Result<Stored> {
        let mut snapshot = self.engine.fresh_snapshot()?;
        let stored = self.head_of(&*snapshot)?;
        let entries = read_journal(&mut *snapshot)?;
        read_blocks(&mut *snapshot, &self.envelope, &stored)?;
        read_directory(&mut *snapshot, &self.envelope, &stored)?;
        signing::check(&mut *snapshot, &self.envelope, &stored)?;
        signing::former_signers(&mut *snapshot, &self.envelope)?;
        drop(snapshot);
        replay(&self.envelope, &stored, &entries)?;
        Ok(stored)
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
