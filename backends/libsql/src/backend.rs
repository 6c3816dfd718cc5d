//! The backend itself: opening, committing, reading, migrating, closing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, Compacted, ConnectionObserver, Head, Row, Scan,
    ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::threads::may_block;
use ghostwire_store_sqlite::{
    Asked, Connection, FileKind, StoreFile, Wanted, check_structure, compact,
};

use crate::check::{Opened, check_beside, check_order, check_state, verify};
use crate::commit::{adopt, fill};
use crate::layout::{carry_forward, check_layout};
use crate::link::Link;
use crate::opening::Open;
use crate::process::set_up_engine;
use crate::range::End;
use crate::shape::Shapes;
use crate::{LibsqlOptions, NAME, blocks, meta};

/// A store in a local SQLite file.
#[derive(Debug)]
pub struct LibsqlBackend {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    path: PathBuf,
    engine: String,
    read_only: bool,
    /// What can be told without waiting for the connections. `None` once closed.
    file: Mutex<Option<Arc<StoreFile>>>,
    /// Shared by commits and reads; taken alone to close, reopen and migrate. `None` once closed.
    open: RwLock<Option<Open>>,
    counters: Mutex<BackendCounters>,
}

/// A panic elsewhere left nothing half-done that the file's transactions do not undo.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

const VERSION: &str = "SELECT CAST(sqlite_version() AS BLOB)";

impl LibsqlBackend {
    /// Opens the store that `options` name.
    ///
    /// # Errors
    /// - `NotFound`, `InvalidArgument`, `PermissionDenied`: the path will not do, or the file is not
    ///   one of this backend's.
    /// - `Busy`: another process, or this one, has it open.
    /// - `Corrupt`: it is damaged.
    /// - `SchemaMismatch`: a newer release wrote it and does not admit this one.
    /// - `Unavailable`, `Exhausted`, `ReadOnly`: trouble with the disk.
    pub async fn open(options: LibsqlOptions) -> Result<Self> {
        blocking(move || Self::open_inline(&options))
            .await
            .map_err(|error| error.during("libsql.open"))
    }

    fn open_inline(options: &LibsqlOptions) -> Result<Self> {
        set_up_engine()?;
        let LibsqlOptions { file: options, check_structure: checks } = options;
        let file = options.open(FileKind::LIBSQL)?;
        let path = file.path().to_owned();
        let named = |error: Error| error.with("path", path.display());
        let (schema, first) = (options.schema, Head::genesis(options.store, options.schema));
        file.fill_new(|link: &mut Link| meta::create(link, &first, schema)).map_err(named)?;
        let (open, head) = file.undisturbed(Open::begin(&file))?;
        if *checks && !file.is_new() {
            open.database.read(check_structure).map_err(named)?;
        }
        // Before its log is moved: of a store that is refused it has to stay, and loading is too late.
        if file.log().was_left() && !options.read_only {
            open.database.read(|link| check_state(link, &open.shapes)).map_err(named)?;
        }
        let version = open.database.read(|link| link.blob(VERSION))?;
        tracing::debug!(
            db.system.name = NAME,
            path = %path.display(),
            serial = head.serial.get(),
            schema = head.schema.version,
            created = file.is_new(),
            "opened"
        );
        file.opened(head.side, || open.database.settle()).map_err(named)?;
        let shared = Shared {
            path,
            engine: format!("libsql 0.10 (SQLite {})", String::from_utf8_lossy(&version)),
            read_only: options.read_only,
            file: Mutex::new(Some(file)),
            open: RwLock::new(Some(open)),
            counters: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Gives the free pages of a store that nobody has open back to the disk: the store is written
    /// anew, checked, and put in its own place in one step. Its identity, blocks and rows stay.
    ///
    /// # Errors
    /// As [`LibsqlBackend::open`]; `Exhausted` if the disk has no room for a copy beside the store;
    /// `Busy` if another program has it open.
    pub async fn compact(options: LibsqlOptions) -> Result<Compacted> {
        let open = |file: &Arc<StoreFile>| Open::begin(file).map(|(open, _)| open);
        blocking(move || {
            set_up_engine()?;
            compact(&options.file.path, FileKind::LIBSQL, open)
        })
        .await
        .map_err(|error| error.during("libsql.compact"))
    }

    /// Lets the file grow to so many pages: a disk that is full.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: u32) -> Result<()> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        let database = &open.as_ref().ok_or_else(closed)?.database;
        database.writer()?.run(&format!("PRAGMA max_page_count = {pages}"))
    }

    /// Reads what is stored at one moment, on one of the threads that may block, with a connection of its
    /// own.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&mut Link, &Shapes) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            shared.with_open(|open| open.database.read_once(|link| read(link, &open.shapes)))
        };
        blocking(read).await.map_err(|error| error.during(operation))
    }
}

/// Does what may block, within the caller's span.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = tracing::Span::current();
    may_block(move || span.in_scope(work)).await
}

impl Opened for Shared {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        work(open.as_ref().ok_or_else(closed)?)
    }
}

/// A store that is read as long as somebody waits for it.
struct WhileWanted<'s> {
    shared: &'s Shared,
    wanted: Wanted,
}

impl Opened for WhileWanted<'_> {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.wanted.require()?;
        self.shared.with_open(work)
    }

    fn wanted(&self) -> Wanted {
        self.wanted.clone()
    }
}

impl Shared {
    /// Once nobody reads or commits.
    fn alone(&self) -> RwLockWriteGuard<'_, Option<Open>> {
        if let Some(file) = lock(&self.file).as_ref() {
            file.end_long_reads();
        }
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commit_inline(&self, commit: &Commit) -> Result<usize> {
        let mut scratch = Vec::new();
        self.with_open(|open| {
            open.database
                .write(commit.frees(), |link| fill(link, &open.shapes, commit, &mut scratch))
        })
    }

    pub(crate) fn reopen_inline(&self) -> Result<Head> {
        let file = lock(&self.file).clone().ok_or_else(closed)?;
        let mut open = self.alone();
        let mut found = Err(closed());
        let begin = || {
            let (open, head) = Open::begin(&file)?;
            found = Ok(head);
            Ok(open)
        };
        file.reopen(&mut open, begin, |open| open.database.settle())?;
        found
    }

    fn migrate_inline(&self, target: Schema) -> Result<()> {
        let mut open = self.alone();
        let Open { database, shapes } = open.as_ref().ok_or_else(closed)?;
        let stored = shapes.stored;
        let steps = target.steps_from(stored)?;
        if steps.is_empty() {
            return Ok(());
        }
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
        }
        let file = Arc::clone(database.file());
        let backup = file.back_up(stored.version, |copy| database.copy_to(copy))?;
        let to = target.version();
        tracing::info!(
            db.system.name = NAME,
            from = stored.version,
            to = to.version,
            backup = %backup.display(),
            "migrating the schema"
        );
        database.write(false, |link| {
            let head = shapes.meta.head(link)?;
            if head.schema != stored {
                return Err(Error::new(ErrorKind::Conflict, "another program migrated the file"));
            }
            for table in target.tables() {
                for sql in carry_forward(table, stored.version, target) {
                    link.run(&sql)?;
                }
            }
            meta::rebuild(link, &Head { schema: to, ..head })?;
            // A table of that name may have been there, and another one.
            check_layout(link, to)?;
            link.run(&format!("PRAGMA user_version = {}", to.version))
        })?;
        // Statements that were prepared before describe the old columns.
        let begin = || Open::begin(&file).map(|(open, _)| open);
        file.reopen(&mut open, begin, |open| open.database.settle())
    }

    fn close_inline(&self) -> Result<()> {
        let open = self.alone().take();
        let file = lock(&self.file).take();
        let closed = open.map_or(Ok(()), |open| open.database.close());
        // Last, and for others who still look at the file, too.
        if let Some(file) = file {
            file.release();
        }
        closed
    }
}

#[async_trait]
impl Backend for LibsqlBackend {
    fn info(&self) -> BackendInfo {
        let shared = &self.shared;
        let file = lock(&shared.file).clone();
        BackendInfo {
            name: NAME,
            engine: shared.engine.clone(),
            location: Some(shared.path.display().to_string()),
            durable: true,
            shared: false,
            sealed: false,
            pinned: false,
            signer: None,
            resealed: None,
            bytes: file.as_ref().map(|file| file.total_bytes()),
            file: file.as_ref().map(|file| file.info()),
            filesystem: file.as_ref().and_then(|file| file.filesystem()),
            clock_ahead_ms: None,
            pool: file.as_ref().map(|file| file.connections().info()),
            log: file.as_ref().map(|file| file.log().info()),
            counters: *lock(&shared.counters),
        }
    }

    async fn head(&self) -> Result<Head> {
        self.read("libsql.head", |link, shapes| shapes.meta.head(link)).await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.shared.migrate_inline(target).map_err(|error| error.during("libsql.migrate"))
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let table = scan.range.table;
        let page = self
            .read("libsql.scan", move |link, shapes| {
                let start = Instant::now();
                let Head { position, serial, .. } = shapes.meta.head(link)?;
                let page = |rows| ScanPage { rows, position, serial };
                let Some(shape) = shapes.of(table) else { return Ok(page(Vec::new())) };
                let query = shape.scan(&scan.range, scan.reverse, scan.limit);
                let Some((sql, parameters)) = query else { return Ok(page(Vec::new())) };
                let mut scratch = Vec::new();
                let mut rows: Vec<Row> = Vec::with_capacity(scan.limit.min(4096));
                link.query(&sql, parameters, |row| {
                    let row = shape.read(row, &mut scratch)?;
                    check_order(table, rows.last().map(|last| &last.key), &row.key, scan.reverse)?;
                    rows.push(row);
                    Ok(())
                })?;
                // The state is read as a whole, where order suffices.
                if !table.is_state() {
                    let ends: &[End] = match (rows.len() < scan.limit, scan.reverse) {
                        (true, _) => &[End::From, End::To],
                        (false, false) => &[End::From],
                        (false, true) => &[End::To],
                    };
                    check_beside(link, shape, &scan.range, ends)?;
                }
                tracing::debug!(
                    db.system.name = NAME,
                    db.operation.name = "scan",
                    db.collection.name = table.name(),
                    db.response.returned_rows = rows.len(),
                    micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
                    "scanned"
                );
                Ok(page(rows))
            })
            .await?;
        lock(&self.shared.counters).scans += 1;
        Ok(page)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.read("libsql.blocks", move |link, shapes| {
            let head = shapes.meta.head(link)?;
            blocks::blocks(link, &head, after, limit)
        })
        .await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let start = Instant::now();
        let _span = tracing::debug_span!(
            "libsql.commit",
            db.system.name = NAME,
            db.operation.name = "commit",
            db.operation.batch.size = commit.rows.len(),
            position = commit.expected.get(),
        )
        .entered();
        let stored = self.shared.commit_inline(commit);
        lock(&self.shared.counters).count(commit, stored.as_ref().ok().copied());
        match stored {
            Ok(rows) => {
                let bytes = commit.block.as_ref().map_or(0, |block| block.bytes.len());
                tracing::debug!(
                    block_bytes = bytes,
                    rows,
                    prunes = commit.prune.len(),
                    micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
                    "committed"
                );
                Ok(())
            }
            Err(error) => {
                tracing::debug!("error.type" = error.kind().name(), "the commit failed");
                Err(error.during("libsql.commit"))
            }
        }
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        let probed = self.shared.with_open(|open| {
            open.database.probe(|link| open.shapes.meta.head(link)?.require_epoch(epoch))
        });
        probed.map_err(|error| error.during("libsql.probe"))
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        let adopted = self
            .shared
            .with_open(|open| open.database.write(false, |link| adopt(link, &open.shapes, head)));
        adopted.map_err(|error| error.during("libsql.adopt"))
    }

    async fn reopen(&self) -> Result<Head> {
        self.shared.reopen_inline().map_err(|error| error.during("libsql.reopen"))
    }

    async fn verify(&self) -> Result<()> {
        // Dropped with this future, should nobody wait for it any more.
        let asked = Asked::default();
        let (shared, wanted) = (Arc::clone(&self.shared), asked.wanted());
        let verified = blocking(move || verify(&WhileWanted { shared: &shared, wanted })).await;
        drop(asked);
        let (_, rows, blocks) = verified.map_err(|error| error.during("libsql.verify"))?;
        tracing::debug!(db.system.name = NAME, rows, blocks, "verified");
        Ok(())
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        if let Some(file) = lock(&self.shared.file).as_ref() {
            file.connections().observe(observer);
        }
    }

    fn announce_close(&self) {
        if let Some(file) = lock(&self.shared.file).as_ref() {
            file.announce_release();
        }
    }

    async fn close(&self) -> Result<()> {
        self.shared.close_inline().map_err(|error| error.during("libsql.close"))
    }
}
