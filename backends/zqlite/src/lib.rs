//! The zqlite backend: one local file whose rows are opaque.
//!
//! All lookups happen in memory, so the file needs no index and no column: a row of the state is
//! one blob under a slot number that says nothing, and a commit is one blob under its serial. The
//! file shows neither names nor addresses as columns. `envelope` is the one place through which
//! every blob passes on its way to and from the file; sealing will happen there. **Until it does,
//! blobs are framed with a checksum: damage is detected, tampering is not, and whoever reads the
//! file reads its content.** [`BackendInfo::sealed`] says so.
//!
//! What stores the blobs is an `Engine`. The embedded one is the SQLite that the `libsql` crate
//! links too.
//!
//! # Example
//! ```
//! use ghostwire_store_core::backend::Backend;
//! use ghostwire_store_core::domain::StoreId;
//! use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("control.db");
//! let random = [7; 16]; // Draw them.
//! let options = ZqliteOptions::new(path, StoreId::from_bytes(random)).create(true);
//! let backend = ZqliteBackend::open(options).await?;
//! assert_eq!(backend.head().await?.serial.get(), 0);
//! backend.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A trap: libsql must come first
//! A process that uses both this crate and the `libsql` crate must build its first
//! `libsql::Database` **before** its first [`ZqliteBackend`]: libsql configures the SQLite that
//! both share, and panics if that is in use already. The `ghostwire-store` facade sees to it;
//! programs that use this crate directly see to it themselves.
//!
//! # What is in the file
//! | table | key | blob |
//! |---|---|---|
//! | `meta` | 1 | the head: store, serial, last block, checkpoint, schema, number of rows |
//! | `blocks` | serial | the block, its frame in a column beside it |
//! | `rows` | slot | table, key and body of a row of the state |
//! | `series` | table and key | body of a row of metrics, audit or writer positions |
//!
//! The number of rows in the head shows a row that got lost. A damaged write-ahead log looks to
//! SQLite like one that ends where the damage begins; the store then stands where it stood before,
//! whole but older, which only a pin outside the file can show.

mod engine;
mod envelope;
mod head;
mod plan;
mod slots;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, Head, Row, Scan,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Schema};
use ghostwire_store_local_file::{Access, FileKind, StoreFile};

use engine::embedded::Embedded;
use engine::{Batch, Engine, SeriesRange};
use envelope::Envelope;
use head::Stored;
use slots::Slots;

/// What stores the blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The SQLite that is linked into the program.
    #[default]
    Embedded,
    /// The ZQLite library, loaded at run time.
    Native,
}

/// Which file to open, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ZqliteOptions {
    /// The file.
    pub path: PathBuf,
    /// What stores the blobs.
    pub engine: EngineChoice,
    /// The identity that a new store gets; one that exists keeps its own.
    pub store: StoreId,
    /// Whether to make a new store if there is none.
    pub create: bool,
    /// Whether to leave the file as it is.
    pub read_only: bool,
    /// The schema of a new store; older ones are for tests.
    pub schema: Schema,
}

impl ZqliteOptions {
    /// An existing file, to read and write, with the embedded engine.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store: StoreId) -> Self {
        Self {
            path: path.into(),
            engine: EngineChoice::default(),
            store,
            create: false,
            read_only: false,
            schema: Schema::current(),
        }
    }

    /// Chooses what stores the blobs.
    #[must_use]
    pub fn engine(self, engine: EngineChoice) -> Self {
        Self { engine, ..self }
    }

    /// Whether to make a new store if there is none.
    #[must_use]
    pub fn create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Whether to leave the file as it is.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// The schema of a new store.
    #[must_use]
    pub fn schema(self, schema: Schema) -> Self {
        Self { schema, ..self }
    }
}

/// A store in one local file.
#[derive(Debug)]
pub struct ZqliteBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: ZqliteOptions,
    engine_name: String,
    /// What can be told without waiting for the file. `None` once closed.
    status: Mutex<Option<Status>>,
    /// Taken for writing by whoever changes or closes the connections. `None` once closed.
    open: RwLock<Option<Open>>,
    counters: Counters,
}

/// The engine is declared, and so dropped, before the file's lock.
#[derive(Debug)]
struct Open {
    engine: Box<dyn Engine>,
    envelope: Envelope,
    /// Written together with the file, so that a snapshot and the slots belong together.
    slots: RwLock<Slots>,
    /// A commit ended in the unknown: what is in memory may not be what is stored.
    lost: AtomicBool,
    file: Arc<StoreFile>,
}

#[derive(Debug, Clone)]
struct Status {
    stored: Stored,
    file: Arc<StoreFile>,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    failed_commits: AtomicU64,
    blocks: AtomicU64,
    block_bytes: AtomicU64,
    rows: AtomicU64,
    scans: AtomicU64,
}

impl ZqliteBackend {
    /// Opens the file, and reads every row of the state once to check it and to know where it is.
    /// The work is done on a thread of tokio's blocking pool, where there is one.
    ///
    /// # Errors
    /// Those of [`StoreFile::open`]; `Corrupt` if what is stored is damaged; `Unsupported` if the
    /// engine is not part of this build.
    pub async fn open(options: ZqliteOptions) -> Result<Self> {
        blocking(move || Self::open_blocking(options)).await
    }

    /// What [`ZqliteBackend::open`] does, on the calling thread.
    ///
    /// # Errors
    /// As there.
    pub fn open_blocking(options: ZqliteOptions) -> Result<Self> {
        let inner = Inner::open(options).map_err(|error| error.during("zqlite.open"))?;
        Ok(Self(Arc::new(inner)))
    }

    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        blocking(move || work(&inner)).await
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work() };
    match runtime.spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            Err(Error::new(ErrorKind::Unavailable, "the work on the file was abandoned")
                .because(error))
        }
    }
}

impl Inner {
    fn open(options: ZqliteOptions) -> Result<Self> {
        if options.engine == EngineChoice::Native {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this release has no native engine for zqlite; set the engine to `embedded`",
            ));
        }
        let access = match (options.read_only, options.create) {
            (true, _) => Access::ReadOnly,
            (false, true) => Access::Create,
            (false, false) => Access::Existing,
        };
        let began = Instant::now();
        let file = Arc::new(StoreFile::open(&options.path, FileKind::ZQLITE, access)?);
        let (open, stored) = Open::begin(&options, file.clone(), access == Access::Create)?;
        open.engine.settle()?;
        tracing::debug!(
            db.system.name = "zqlite",
            db.namespace = %file.path().display(),
            serial = stored.head.serial.get(),
            rows = stored.rows,
            elapsed_ms = began.elapsed().as_millis(),
            "opened"
        );
        Ok(Self {
            engine_name: open.engine.describe(),
            options,
            status: Mutex::new(Some(Status { stored, file })),
            open: RwLock::new(Some(open)),
            counters: Counters::default(),
        })
    }

    fn status(&self) -> Result<Status> {
        locked(&self.status).clone().ok_or_else(closed)
    }

    fn head(&self) -> Result<Head> {
        self.status().map(|status| status.stored.head)
    }

    fn set_stored(&self, stored: Stored) {
        if let Some(status) = locked(&self.status).as_mut() {
            status.stored = stored;
        }
    }

    /// Runs `work` on the connections, unless what is in memory may not be what is stored.
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.with_file(|open| match open.lost.load(Ordering::Acquire) {
            false => work(open),
            true => Err(not_reopened()),
        })
    }

    /// Runs `work`, which goes by the file alone, on the connections.
    fn with_file<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        let open: RwLockReadGuard<'_, _> = self.open.read().unwrap_or_else(PoisonError::into_inner);
        work(open.as_ref().ok_or_else(closed)?)
    }

    fn commit(&self, commit: &Commit) -> Result<()> {
        if self.options.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
        }
        self.with_open(|open| {
            let mut slots = open.slots.write().unwrap_or_else(PoisonError::into_inner);
            // Read and replaced with the slots, so that two commits cannot both build on it.
            let stored = self.status()?.stored;
            let plan = plan::plan(&stored, &slots, &open.envelope, commit)?;
            open.write(&plan.batch)?;
            slots.apply(plan.moves);
            self.set_stored(plan.stored);
            Ok(())
        })
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<Row>> {
        if scan.range.to.as_ref().is_some_and(|to| *to <= scan.range.from) {
            return Ok(Vec::new());
        }
        match scan.range.table.is_state() {
            true => self.with_open(|open| open.scan_state(scan)),
            false => self.with_file(|open| open.scan_series(scan)),
        }
    }

    fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let head = self.head()?;
        if after >= head.serial || limit == 0 {
            return Ok(Vec::new());
        }
        head::require_kept(after, &head)?;
        self.with_file(|open| {
            let mut snapshot = open.engine.snapshot()?;
            // Read again: a commit may have purged since.
            let head = open.envelope.open_head(&snapshot.head()?)?.head;
            head::require_kept(after, &head)?;
            let mut blocks: Vec<EncodedBlock> = Vec::new();
            let mut next = after.next();
            snapshot.blocks(next.get(), head.serial.get(), limit, &mut |serial, frame, body| {
                if serial != next.get() {
                    return Err(missing_block(next));
                }
                let block = open.envelope.open_block(serial, frame, body)?;
                if blocks.last().is_some_and(|last| last.hash != block.previous) {
                    return Err(broken_chain(next));
                }
                next = next.next();
                blocks.push(block);
                Ok(())
            })?;
            let wanted = (limit as u64).min(head.serial.get() - after.get());
            if (blocks.len() as u64) < wanted {
                return Err(missing_block(next));
            }
            Ok(blocks)
        })
    }

    fn migrate(&self, target: Schema) -> Result<()> {
        let stored = self.status()?.stored;
        let steps = target.steps_from(stored.head.schema)?;
        if steps.is_empty() {
            return Ok(());
        }
        if self.options.read_only {
            return Err(Error::new(
                ErrorKind::ReadOnly,
                "the store's schema is older than this version's, and it was opened to be read \
                 only; open it once to be written",
            ));
        }
        self.with_open(|open| {
            let backup = open.file.begin_backup(stored.head.schema.version)?;
            open.engine.copy_to(backup.part())?;
            let backup = backup.finish()?;
            // Rows say themselves which schema wrote them, and are fitted when they are read.
            let mut after = stored;
            after.head.schema = target.version();
            let batch =
                Batch::new(open.envelope.seal_head(&stored), open.envelope.seal_head(&after));
            open.write(&batch)?;
            self.set_stored(after);
            tracing::info!(
                db.system.name = "zqlite",
                from = stored.head.schema.version,
                to = after.head.schema.version,
                backup = %backup.display(),
                "migrated"
            );
            Ok(())
        })
    }

    fn reopen(&self) -> Result<Head> {
        let file = self.status()?.file;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // The old connections go last. While there is one, SQLite knows where the commits end that
        // were synchronised. Without any it would read the log and find those, too, that were
        // written and not synchronised: they could be acknowledged and then lost.
        let (opened, stored) = Open::begin(&self.options, file, false)?;
        *open = Some(opened);
        self.set_stored(stored);
        Ok(stored.head)
    }

    fn close(&self) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let status = locked(&self.status).take();
        let outcome = match open.take() {
            Some(open) => open.engine.close(),
            None => Ok(()),
        };
        // The last handles on the file, so that its lock goes last.
        drop(status);
        outcome
    }

    fn info(&self) -> BackendInfo {
        let file = locked(&self.status).as_ref().map(|status| Arc::clone(&status.file));
        BackendInfo {
            name: "zqlite",
            engine: self.engine_name.clone(),
            location: Some(self.options.path.display().to_string()),
            durable: true,
            shared: false,
            sealed: false,
            bytes: file.map(|file| file.total_bytes()),
            counters: self.counters.read(),
        }
    }
}

impl Open {
    /// Connects, and learns from what is stored where the store stands.
    fn begin(
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
        drop(snapshot);
        let open = Self {
            engine,
            envelope,
            slots: RwLock::new(slots),
            lost: AtomicBool::new(false),
            file,
        };
        Ok((open, stored))
    }

    /// After an outcome that is not known nothing here is to be trusted until it was read again.
    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        let outcome = self.engine.write(batch);
        if outcome.as_ref().is_err_and(|error| *error.kind() == ErrorKind::OutcomeUnknown) {
            self.lost.store(true, Ordering::Release);
        }
        outcome
    }

    fn scan_state(&self, scan: &Scan) -> Result<Vec<Row>> {
        let (mut snapshot, found) = {
            let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
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

    fn scan_series(&self, scan: &Scan) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let table = scan.range.table;
        let range = SeriesRange::of(&scan.range);
        let mut snapshot = self.engine.snapshot()?;
        snapshot.series(&range, scan.reverse, scan.limit, &mut |key, stored| {
            let body = self.envelope.open_series(table.number(), key, stored)?;
            rows.push(Row { key: RowKey::from_bytes(key)?, body: Bytes::copy_from_slice(body) });
            Ok(())
        })?;
        Ok(rows)
    }

    fn verify(&self) -> Result<()> {
        let mut snapshot = self.engine.fresh_snapshot()?;
        snapshot.check()?;
        let stored = self.envelope.open_head(&snapshot.head()?)?;
        Slots::read(&mut *snapshot, &self.envelope, &stored)?;
        snapshot.every_series(&mut |table, key, body| {
            self.envelope.open_series(table, key, body).map(drop)
        })?;
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
        Ok(())
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

fn not_reopened() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "a commit failed and it is not known what is stored; reopen the backend first",
    )
}

fn missing_block(serial: Serial) -> Error {
    Error::corrupt("a block is missing; restore the store from a backup").with("serial", serial)
}

fn broken_chain(serial: Serial) -> Error {
    Error::corrupt("a block does not belong to its neighbours; restore the store from a backup")
        .with("serial", serial)
}

/// Whoever panicked with the lock held changed nothing halfway: what is behind it is replaced as a
/// whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counters {
    fn read(&self) -> BackendCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BackendCounters {
            commits: read(&self.commits),
            failed_commits: read(&self.failed_commits),
            blocks: read(&self.blocks),
            block_bytes: read(&self.block_bytes),
            rows: read(&self.rows),
            scans: read(&self.scans),
        }
    }

    fn committed(&self, commit: &Commit) {
        let add = |counter: &AtomicU64, count: usize| {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        };
        add(&self.commits, 1);
        add(&self.rows, commit.rows.len());
        if let Some(block) = &commit.block {
            add(&self.blocks, 1);
            add(&self.block_bytes, block.bytes.len());
        }
    }
}

#[async_trait]
impl Backend for ZqliteBackend {
    fn info(&self) -> BackendInfo {
        self.0.info()
    }

    async fn head(&self) -> Result<Head> {
        self.0.head()
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.0.migrate(target).map_err(|error| error.during("zqlite.migrate"))
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Row>> {
        let began = Instant::now();
        let table = scan.range.table;
        let rows = self
            .in_background(move |inner| inner.scan(&scan))
            .await
            .map_err(|error| error.during("zqlite.scan"))?;
        self.0.counters.scans.fetch_add(1, Ordering::Relaxed);
        tracing::trace!(
            db.system.name = "zqlite",
            db.operation.name = "scan",
            db.collection.name = table.name(),
            db.response.returned_rows = rows.len(),
            elapsed_us = began.elapsed().as_micros(),
            "scanned"
        );
        Ok(rows)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.in_background(move |inner| inner.blocks(after, limit))
            .await
            .map_err(|error| error.during("zqlite.blocks"))
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let began = Instant::now();
        match self.0.commit(commit) {
            Ok(()) => {
                self.0.counters.committed(commit);
                tracing::debug!(
                    db.system.name = "zqlite",
                    db.operation.name = "commit",
                    db.operation.batch.size = commit.rows.len(),
                    serial = commit.block.as_ref().map(|block| block.serial.get()),
                    block_bytes = commit.block.as_ref().map(|block| block.bytes.len()),
                    elapsed_us = began.elapsed().as_micros(),
                    "committed"
                );
                Ok(())
            }
            Err(error) => {
                self.0.counters.failed_commits.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    db.system.name = "zqlite",
                    db.operation.name = "commit",
                    error.type = error.kind().name(),
                    %error,
                    "commit failed"
                );
                Err(error.during("zqlite.commit"))
            }
        }
    }

    async fn reopen(&self) -> Result<Head> {
        self.0.reopen().map_err(|error| error.during("zqlite.reopen"))
    }

    async fn verify(&self) -> Result<()> {
        self.in_background(|inner| inner.with_open(Open::verify))
            .await
            .map_err(|error| error.during("zqlite.verify"))
    }

    async fn close(&self) -> Result<()> {
        self.0.close().map_err(|error| error.during("zqlite.close"))
    }
}

#[cfg(test)]
mod tests;
