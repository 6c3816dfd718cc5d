//! The backend itself: opening, committing, reading, migrating, closing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, Head, Row, Scan,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Schema, Table};
use ghostwire_store_local_file::{Access, FileKind, StoreFile};

use crate::link::{Link, Role, integer, set_up_engine, text};
use crate::meta;
use crate::shape::{Shapes, add_columns, create_table};

/// The name in configuration, logs and `BackendInfo`.
const NAME: &str = "libsql";
/// So many read connections are kept open between reads.
const IDLE_READERS: usize = 4;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct LibsqlOptions {
    /// The file. Its directory must exist.
    pub path: PathBuf,
    /// The identity of the store if it is made now; random bytes.
    pub store_id: StoreId,
    /// Make the file if there is none. Otherwise that is `NotFound`.
    pub create: bool,
    /// Only read; several processes may do that at once, beside no writer.
    pub read_only: bool,
    /// The schema of a store that is made now; `None` is the current one. An older one is for
    /// tests of migrations.
    pub schema: Option<Schema>,
    /// Have SQLite check the structure of the whole file when it is opened. Without that, a
    /// damaged page may hide rows until [`Backend::verify`] runs. It reads the file once: about a
    /// second for a gigabyte.
    pub check_structure: bool,
}

impl LibsqlOptions {
    /// Reads and writes `path`, makes it with `store_id` if there is none, and checks it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store_id: StoreId) -> Self {
        Self {
            path: path.into(),
            store_id,
            create: true,
            read_only: false,
            schema: None,
            check_structure: true,
        }
    }
}

/// Sets up the SQLite that libsql and `libsql-rusqlite` share the way libsql needs it. Call it
/// before anything else in the process uses that SQLite; calling it again does nothing.
///
/// # Errors
/// `Unsupported` if something used it already.
pub async fn prepare_process() -> Result<()> {
    set_up_engine()
}

/// A store in a local SQLite file.
#[derive(Debug)]
pub struct LibsqlBackend {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    engine: String,
    read_only: bool,
    /// Shared by commits and reads; taken alone to close, reopen and migrate.
    open: RwLock<Option<Open>>,
    counters: Counters,
}

/// What an open store holds. Dropped in this order: readers first, so that the last connection to
/// close, which checkpoints, is the writer's; the lock last.
#[derive(Debug)]
struct Open {
    readers: Mutex<Vec<Link>>,
    writer: Mutex<Writer>,
    shapes: Shapes,
    _sidecars: Sidecars,
    file: StoreFile,
}

/// The files that SQLite makes beside a store to read its log. A reader leaves none behind.
#[derive(Debug, Default)]
struct Sidecars(Vec<PathBuf>);

impl Sidecars {
    /// Those that are not there yet.
    fn missing(path: &Path) -> Self {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let files = [beside("-wal"), beside("-shm")];
        Self(files.into_iter().filter(|file| !file.exists()).collect())
    }
}

impl Drop for Sidecars {
    fn drop(&mut self) {
        for file in &self.0 {
            // Nothing was written: no writer can be there while a reader holds the lock.
            if let Err(error) = std::fs::remove_file(file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::debug!(db.system.name = NAME, file = %file.display(), %error, "stays");
            }
        }
    }
}

#[derive(Debug)]
struct Writer {
    /// `None` after a commit of which nobody knows how it ended; reopening makes a new one.
    link: Option<Link>,
    /// The one of that commit, until there is a new one. While there is a connection, SQLite knows
    /// where the commits end that were synchronised. Without any it would read the log and find
    /// those, too, that were written and not synchronised: they could be acknowledged, then lost.
    failed: Option<Link>,
    scratch: Vec<u8>,
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

fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// A panic elsewhere left nothing half-done that the file's transactions do not undo.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

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
        let access = match (options.read_only, options.create) {
            (true, _) => Access::ReadOnly,
            (false, true) => Access::Create,
            (false, false) => Access::Existing,
        };
        let file = StoreFile::open(&options.path, FileKind::LIBSQL, access)?;
        let path = file.path().to_owned();
        let named = |error: Error| error.with("path", path.display());
        let schema = options.schema.unwrap_or_else(Schema::current);
        if file.is_new() {
            create(&path, options.store_id, schema).map_err(named)?;
        }
        let sidecars =
            if options.read_only { Sidecars::missing(&path) } else { Sidecars::default() };
        let (link, shapes, head) = connect(&path, options.read_only).map_err(named)?;
        let mut link = link;
        if options.check_structure && !file.is_new() {
            check_structure(&mut link, "quick_check").map_err(named)?;
        }
        let mut version = String::new();
        link.query("SELECT CAST(sqlite_version() AS BLOB)", Vec::new(), |row| {
            version = text(row, 0)?;
            Ok(())
        })?;
        tracing::debug!(
            db.system.name = NAME,
            path = %path.display(),
            serial = head.serial.get(),
            schema = head.schema.version,
            created = file.is_new(),
            "opened"
        );
        if !options.read_only {
            settle(&mut link).map_err(named)?;
        }
        let writer = Mutex::new(Writer { link: Some(link), failed: None, scratch: Vec::new() });
        let open = Open { readers: Mutex::default(), writer, shapes, _sidecars: sidecars, file };
        let shared = Shared {
            path,
            engine: format!("libsql 0.10 (SQLite {version})"),
            read_only: options.read_only,
            open: RwLock::new(Some(open)),
            counters: Counters::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Lets the file grow to so many pages: a disk that is full.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: u32) -> Result<()> {
        let open = self.shared.open.read().unwrap_or_else(PoisonError::into_inner);
        let mut writer = lock(&open.as_ref().ok_or_else(closed)?.writer);
        let link = writer.link.as_mut().ok_or_else(closed)?;
        link.run(&format!("PRAGMA max_page_count = {pages}"))
    }

    /// Reads on one of the threads that may block, with a connection of its own.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl FnOnce(&mut Link, &Shapes) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.read_inline(read)).await.map_err(|error| error.during(operation))
    }
}

/// Runs `work` where it may block, or right here if there is no runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = tracing::Span::current();
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn_blocking(move || span.in_scope(work)).await.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Unavailable, "a read was broken off").because(error))
            })
        }
        Err(_) => work(),
    }
}

/// Makes the tables of a new file in one transaction; only then switches to WAL, because the
/// file's owner is looked up in the file itself.
fn create(path: &Path, store: StoreId, schema: Schema) -> Result<()> {
    let mut link = Link::open(path, Role::Writer)?;
    link.run("PRAGMA page_size = 4096")?;
    link.run("PRAGMA encoding = 'UTF-8'")?;
    link.run("BEGIN EXCLUSIVE")?;
    link.run(&format!("PRAGMA application_id = {}", FileKind::LIBSQL.application_id))?;
    link.run(&format!("PRAGMA user_version = {}", schema.version().version))?;
    meta::create(&mut link, &Head::genesis(store, schema), schema)?;
    link.run("COMMIT")
}

/// Connects and learns what is there.
fn connect(path: &Path, read_only: bool) -> Result<(Link, Shapes, Head)> {
    let role = if read_only { Role::ReadOnly } else { Role::Writer };
    let mut link = Link::open(path, role)?;
    if !read_only {
        let mut mode = String::new();
        // A pragma's result is text of SQLite's own.
        link.run("PRAGMA journal_mode = WAL")?;
        link.query(
            "SELECT CAST(journal_mode AS BLOB) FROM pragma_journal_mode",
            Vec::new(),
            |row| {
                mode = text(row, 0)?;
                Ok(())
            },
        )?;
        if mode != "wal" {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the file system cannot hold a database in WAL mode; use a local one",
            )
            .with("journal_mode", mode));
        }
        link.run("PRAGMA journal_size_limit = 67108864")?;
    }
    let head = meta::head(&mut link)?;
    let mut version = None;
    link.query("SELECT user_version FROM pragma_user_version", Vec::new(), |row| {
        version = Some(integer(row, 0)?);
        Ok(())
    })?;
    if version != Some(i64::from(head.schema.version)) {
        return Err(Error::corrupt("the file's header and its tables tell different schemas")
            .with("tables", head.schema.version));
    }
    Schema::current().steps_from(head.schema)?;
    let shapes = Shapes::read(&mut link, head.schema)?;
    Ok((link, shapes, head))
}

/// Makes durable what an earlier process may have written, and died before it was synchronised.
/// Until then a loss of power may take back what is read.
fn settle(link: &mut Link) -> Result<()> {
    match link.run("PRAGMA wal_checkpoint(PASSIVE)") {
        // The log is synchronised before anything is moved out of it.
        Err(error) if *error.kind() == ErrorKind::Exhausted => Ok(()),
        settled => settled,
    }
}

/// Runs one of SQLite's own checks: `quick_check` or `integrity_check`.
fn check_structure(link: &mut Link, check: &'static str) -> Result<()> {
    let mut findings = Vec::new();
    // What it reports may quote damaged text.
    let sql = format!("SELECT CAST({check} AS BLOB) FROM pragma_{check}");
    link.query(&sql, Vec::new(), |row| {
        findings.push(text(row, 0).unwrap_or_default());
        Ok(())
    })?;
    match findings.as_slice() {
        [only] if only == "ok" => Ok(()),
        findings => Err(Error::corrupt("the file is damaged; restore it from a backup")
            .with("check", check)
            .with("finding", findings.first().map_or("none", String::as_str))),
    }
}

/// Ends a transaction that failed. Tells whether the connection can be used again.
fn roll_back(link: &mut Link) -> bool {
    if !link.is_idle()
        && let Err(error) = link.run("ROLLBACK")
    {
        tracing::warn!(db.system.name = NAME, %error, "a transaction could not be rolled back");
    }
    link.is_idle()
}

/// Whether an error of `COMMIT` says that nothing was stored.
fn was_surely_refused(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::Exhausted | ErrorKind::ReadOnly)
}

/// Runs `work` in a transaction that is stored as a whole or not at all.
fn transaction<T>(
    slot: &mut Option<Link>,
    failed: &mut Option<Link>,
    work: impl FnOnce(&mut Link) -> Result<T>,
) -> Result<T> {
    let link = slot.as_mut().ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "an earlier commit failed; reopen the store first")
    })?;
    link.execute("BEGIN IMMEDIATE", Vec::new())?;
    let (error, is_usable) = match work(link) {
        Err(error) => (error, roll_back(link)),
        Ok(done) => match link.execute("COMMIT", Vec::new()) {
            Ok(_) => return Ok(done),
            Err(error) if was_surely_refused(&error) => (error, roll_back(link)),
            Err(error) => {
                roll_back(link);
                let unknown = Error::new(
                    ErrorKind::OutcomeUnknown,
                    "it cannot be told whether the commit was stored; reopen the store",
                );
                (unknown.because(error), false)
            }
        },
    };
    if !is_usable {
        *failed = slot.take();
    }
    Err(error)
}

/// Writes everything that `commit` names; to be called in a transaction. Tells how many rows.
fn fill(link: &mut Link, shapes: &Shapes, commit: &Commit, scratch: &mut Vec<u8>) -> Result<usize> {
    let before = meta::head(link)?;
    let head = before.after(commit)?;
    if let Some(block) = &commit.block {
        meta::insert_block(link, block)?;
    }
    for range in &commit.prune {
        if let Some((sql, parameters)) = shapes.of(range.table)?.prune(range) {
            link.execute(&sql, parameters)?;
        }
    }
    let rows = fold(link, shapes, commit, scratch)?;
    if head.oldest_block > before.oldest_block {
        meta::purge_blocks(link, head.oldest_block)?;
    }
    if head != before {
        meta::move_head(link, before.serial, &head)?;
    }
    Ok(rows)
}

/// Writes the row images in the order of their keys; of two for one key, the later one.
fn fold(link: &mut Link, shapes: &Shapes, commit: &Commit, scratch: &mut Vec<u8>) -> Result<usize> {
    let mut changes: Vec<_> = commit.rows.iter().collect();
    changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    let is_last = |index: usize| {
        let key = |at: usize| changes.get(at).map(|change| (change.table, &change.key));
        key(index) != key(index + 1)
    };
    let mut kept: Vec<_> = changes
        .iter()
        .enumerate()
        .filter(|(index, _)| is_last(*index))
        .map(|(_, row)| *row)
        .collect();
    // Deletions and writes of different keys commute.
    kept.sort_by_key(|change| (change.table, change.body.is_some()));
    for run in kept.chunk_by(|a, b| (a.table, a.body.is_some()) == (b.table, b.body.is_some())) {
        let Some(first) = run.first() else { continue };
        let shape = shapes.of(first.table)?;
        let sql = if first.body.is_some() { &shape.insert } else { &shape.delete };
        let values = run.iter().map(|change| match &change.body {
            Some(body) => shape.row_values(&change.key, body, scratch),
            None => shape.key_values(&change.key),
        });
        link.execute_each(sql, values)?;
    }
    Ok(kept.len())
}

impl Shared {
    fn read_inline<T>(&self, read: impl FnOnce(&mut Link, &Shapes) -> Result<T>) -> Result<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        let idle = lock(&open.readers).pop();
        let mut link = match idle {
            Some(link) => link,
            None => {
                let role = if self.read_only { Role::ReadOnly } else { Role::Reader };
                Link::open(&self.path, role)?
            }
        };
        let result = read(&mut link, &open.shapes);
        // After an error a transaction may be open.
        if result.is_ok() && link.is_idle() {
            let mut readers = lock(&open.readers);
            if readers.len() < IDLE_READERS {
                readers.push(link);
            }
        }
        result
    }

    fn commit_inline(&self, commit: &Commit) -> Result<usize> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        self.check_writable()?;
        let mut writer = lock(&open.writer);
        let Writer { link, failed, scratch } = &mut *writer;
        transaction(link, failed, |link| fill(link, &open.shapes, commit, scratch))
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
        }
        Ok(())
    }

    fn reopen_inline(&self) -> Result<Head> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_mut().ok_or_else(closed)?;
        let mut writer = lock(&open.writer);
        if let Some(link) = writer.link.take() {
            writer.failed = Some(link);
        }
        let (link, shapes, head) = connect(&self.path, self.read_only)?;
        lock(&open.readers).clear();
        writer.failed = None;
        writer.link = Some(link);
        open.shapes = shapes;
        Ok(head)
    }

    fn migrate_inline(&self, target: Schema) -> Result<()> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_mut().ok_or_else(closed)?;
        let stored = open.shapes.stored;
        let steps = target.steps_from(stored)?;
        if steps.is_empty() {
            return Ok(());
        }
        self.check_writable()?;
        lock(&open.readers).clear();
        let mut writer = lock(&open.writer);
        let Writer { link: slot, failed, .. } = &mut *writer;
        let link = slot.as_mut().ok_or_else(closed)?;
        let backup = open.file.begin_backup(stored.version)?;
        let part = backup.part().to_str().ok_or_else(|| {
            Error::invalid("the store's path must be UTF-8").with("path", backup.part().display())
        })?;
        link.run_with("VACUUM INTO ?1", vec![part.to_owned().into()])?;
        let backup = backup.finish()?;
        let to = target.version();
        tracing::info!(
            db.system.name = NAME,
            from = stored.version,
            to = to.version,
            backup = %backup.display(),
            "migrating the schema"
        );
        transaction(slot, failed, |link| {
            let head = meta::head(link)?;
            if head.schema != stored {
                return Err(Error::new(ErrorKind::Conflict, "another program migrated the file"));
            }
            for table in Table::ALL {
                for sql in add_columns(table, stored.version, target) {
                    link.run(&sql)?;
                }
                link.run(&create_table(table, target))?;
            }
            link.run(&format!("PRAGMA user_version = {}", to.version))?;
            meta::move_head(link, head.serial, &Head { schema: to, ..head })
        })?;
        // Statements that were prepared before describe the old columns.
        *slot = None;
        let (link, shapes, _) = connect(&self.path, false)?;
        *slot = Some(link);
        open.shapes = shapes;
        Ok(())
    }

    fn close_inline(&self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open {
            lock(&open.readers).clear();
            if let Some(link) = lock(&open.writer).link.as_mut()
                && !self.read_only
                && let Err(error) = link.run("PRAGMA wal_checkpoint(TRUNCATE)")
            {
                // The WAL holds every commit durably; the next to open it carries on from there.
                tracing::warn!(db.system.name = NAME, %error, "the WAL stays as it is");
            }
        }
    }
}

fn verify(link: &mut Link, shapes: &Shapes) -> Result<(usize, u64)> {
    check_structure(link, "integrity_check")?;
    let mut scratch = Vec::new();
    let mut rows = 0;
    for shape in shapes.all() {
        let mut last: Option<RowKey> = None;
        link.query(&shape.select_all(), Vec::new(), |row| {
            let row = shape.read(row, &mut scratch)?;
            check_order(shape.table, last.as_ref(), &row.key, false)?;
            last = Some(row.key);
            rows += 1;
            Ok(())
        })?;
    }
    Ok((rows, meta::verify_blocks(link)?))
}

/// A row that is out of order lies in a damaged page.
fn check_order(table: Table, last: Option<&RowKey>, key: &RowKey, reverse: bool) -> Result<()> {
    if last.is_none_or(|last| if reverse { key < last } else { key > last }) {
        return Ok(());
    }
    Err(Error::corrupt("a table's rows are out of order; restore the file from a backup")
        .with("table", table.name())
        .with("key", format_args!("{key:?}")))
}

/// Runs `read` on one state of the file.
fn snapshot<T>(link: &mut Link, read: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
    link.execute("BEGIN DEFERRED", Vec::new())?;
    let result = read(link)?;
    link.execute("COMMIT", Vec::new())?;
    Ok(result)
}

#[async_trait]
impl Backend for LibsqlBackend {
    fn info(&self) -> BackendInfo {
        let shared = &self.shared;
        // This may be called where nothing may block, and a migration holds the lock for long.
        let open = shared.open.try_read().ok();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &shared.counters;
        BackendInfo {
            name: NAME,
            engine: shared.engine.clone(),
            location: Some(shared.path.display().to_string()),
            durable: true,
            shared: false,
            sealed: false,
            bytes: open.as_ref().and_then(|open| open.as_ref()).map(|open| open.file.total_bytes()),
            counters: BackendCounters {
                commits: count(&counters.commits),
                failed_commits: count(&counters.failed_commits),
                blocks: count(&counters.blocks),
                block_bytes: count(&counters.block_bytes),
                rows: count(&counters.rows),
                scans: count(&counters.scans),
            },
        }
    }

    async fn head(&self) -> Result<Head> {
        self.read("libsql.head", |link, _| meta::head(link)).await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.shared.migrate_inline(target).map_err(|error| error.during("libsql.migrate"))
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Row>> {
        let table = scan.range.table;
        let rows = self
            .read("libsql.scan", move |link, shapes| {
                let start = Instant::now();
                let shape = shapes.of(table)?;
                let query = shape.scan(&scan.range, scan.reverse, scan.limit);
                let Some((sql, parameters)) = query else { return Ok(Vec::new()) };
                let mut scratch = Vec::new();
                let mut rows: Vec<Row> = Vec::with_capacity(scan.limit.min(4096));
                link.query(&sql, parameters, |row| {
                    let row = shape.read(row, &mut scratch)?;
                    check_order(table, rows.last().map(|last| &last.key), &row.key, scan.reverse)?;
                    rows.push(row);
                    Ok(())
                })?;
                tracing::debug!(
                    db.system.name = NAME,
                    db.operation.name = "scan",
                    db.collection.name = table.name(),
                    db.response.returned_rows = rows.len(),
                    micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
                    "scanned"
                );
                Ok(rows)
            })
            .await?;
        add(&self.shared.counters.scans, 1);
        Ok(rows)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.read("libsql.blocks", move |link, _| {
            snapshot(link, |link| meta::blocks(link, after, limit))
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
            serial = commit.expected.get(),
        )
        .entered();
        let counters = &self.shared.counters;
        match self.shared.commit_inline(commit) {
            Ok(rows) => {
                let bytes = commit.block.as_ref().map_or(0, |block| block.bytes.len());
                add(&counters.commits, 1);
                add(&counters.blocks, usize::from(commit.block.is_some()));
                add(&counters.block_bytes, bytes);
                add(&counters.rows, rows);
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
                add(&counters.failed_commits, 1);
                tracing::debug!("error.type" = error.kind().name(), "the commit failed");
                Err(error.during("libsql.commit"))
            }
        }
    }

    async fn reopen(&self) -> Result<Head> {
        self.shared.reopen_inline().map_err(|error| error.during("libsql.reopen"))
    }

    async fn verify(&self) -> Result<()> {
        let (rows, blocks) = self
            .read("libsql.verify", |link, shapes| snapshot(link, |link| verify(link, shapes)))
            .await?;
        tracing::debug!(db.system.name = NAME, rows, blocks, "verified");
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.shared.close_inline();
        Ok(())
    }
}
