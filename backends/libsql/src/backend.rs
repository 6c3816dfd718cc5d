//! The backend itself: opening, committing, reading, migrating, closing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, Compacted, Head, Row, Scan,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_core::threads::may_block;
use ghostwire_store_sqlite::{Access, FileKind, StoreFile};

use crate::check::{check_beside, check_order, check_structure, verify};
use crate::commit::{fill, transaction};
use crate::compact::compact;
use crate::layout::{add_columns, check_layout, create_table};
use crate::link::{Link, Role, set_up_engine, text};
use crate::opening::{Connected, Sidecar, connect, create};
use crate::range::End;
use crate::shape::Shapes;
use crate::{LibsqlOptions, NAME, meta};

/// So many read connections are kept open between reads.
const IDLE_READERS: usize = 4;

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
    counters: Mutex<BackendCounters>,
}

/// What an open store holds. Dropped in this order: readers first, so that the last connection to
/// close, which checkpoints, is the writer's; the lock last.
#[derive(Debug)]
struct Open {
    readers: Mutex<Vec<Link>>,
    writer: Mutex<Writer>,
    shapes: Shapes,
    _sidecar: Sidecar,
    file: StoreFile,
}

#[derive(Debug, Default)]
struct Writer {
    /// `None` after a commit of which nobody knows how it ended; reopening makes a new one.
    link: Option<Link>,
    /// The one of that commit, until there is a new one. While there is a connection, SQLite knows
    /// where the commits end that were synchronised. Without any it would read the log and find
    /// those, too, that were written and not synchronised: they could be acknowledged, then lost.
    failed: Option<Link>,
    /// See [`Connected::last`].
    last: Option<Link>,
    scratch: Vec<u8>,
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
        if let Some(limits) = options.log_limits {
            file.log().set_limits(limits);
        }
        let path = file.path().to_owned();
        let named = |error: Error| error.with("path", path.display());
        let schema = options.schema.unwrap_or_else(Schema::current);
        if file.is_new() {
            create(&path, options.store_id, schema).map_err(named)?;
        }
        let sidecar = if options.read_only { Sidecar::missing(&path) } else { Sidecar::default() };
        let connected = file.undisturbed(connect(&path, options.read_only));
        let mut connected = connected.map_err(named)?;
        let (link, head) = (&mut connected.link, connected.head);
        if options.check_structure && !file.is_new() {
            file.undisturbed(check_structure(link)).map_err(named)?;
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
        file.watch_log()?;
        if !options.read_only {
            file.log().settle(link).map_err(named)?;
            file.note_store(head.store);
        }
        let Connected { link, last, shapes, .. } = connected;
        let writer = Mutex::new(Writer { link: Some(link), last, ..Writer::default() });
        let open = Open { readers: Mutex::default(), writer, shapes, _sidecar: sidecar, file };
        let shared = Shared {
            path,
            engine: format!("libsql 0.10 (SQLite {version})"),
            read_only: options.read_only,
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
        blocking(move || compact(&options)).await.map_err(|error| error.during("libsql.compact"))
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

/// Does what may block, within the caller's span.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let span = tracing::Span::current();
    may_block(move || span.in_scope(work)).await
}

impl Shared {
    fn read_inline<T>(&self, read: impl FnOnce(&mut Link, &Shapes) -> Result<T>) -> Result<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        let _inside = open.file.log().enter();
        let idle = lock(&open.readers).pop();
        let mut link = match idle {
            Some(link) => link,
            None => self.open_reader(&open.file)?,
        };
        let result = read(&mut link, &open.shapes);
        // After an error a transaction may be open.
        if result.is_ok() && link.is_idle() {
            let mut readers = lock(&open.readers);
            if readers.len() < IDLE_READERS {
                readers.push(link);
            }
        }
        open.file.undisturbed(result)
    }

    /// Reads everything by a connection of its own, which owes nothing to a cache.
    fn verify_inline(&self) -> Result<(usize, u64)> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        let _inside = open.file.log().enter();
        let mut link = self.open_reader(&open.file)?;
        let verified = snapshot(&mut link, |link| verify(link, &open.shapes));
        let found = open.file.undisturbed(verified)?;
        open.file.require_in_place()?;
        Ok(found)
    }

    /// Another connection for reading, on the file that the writing one has.
    fn open_reader(&self, file: &StoreFile) -> Result<Link> {
        let role = if self.read_only { Role::ReadOnly } else { Role::Reader };
        file.require_in_place()?;
        let link = Link::open(&self.path, role)?;
        file.require_in_place()?;
        Ok(link)
    }

    fn commit_inline(&self, commit: &Commit) -> Result<usize> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let open = open.as_ref().ok_or_else(closed)?;
        self.check_writable()?;
        let mut writer = lock(&open.writer);
        open.file.log().require_trusted()?;
        let Writer { link, failed, scratch, .. } = &mut *writer;
        let rows = open.file.commit(commit.frees(), || {
            transaction(&open.file, link, failed, |link| fill(link, &open.shapes, commit, scratch))
        })?;
        if let Some(link) = link {
            open.file.log().after_commit(link);
        }
        Ok(rows)
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
        open.file.require_in_place()?;
        let mut writer = lock(&open.writer);
        let log = open.file.log();
        let is_trusted = log.is_trusted();
        if !is_trusted {
            // Every commit is synchronised, but which pages were moved is not known. So all
            // connections go first, and the log is read anew and moved as a whole.
            lock(&open.readers).clear();
            (writer.link, writer.failed) = (None, None);
            writer.last = None;
            log.all_closed();
        }
        if let Some(link) = writer.link.take() {
            writer.failed = Some(link);
        }
        let connected = connect(&self.path, self.read_only)?;
        open.file.require_in_place()?;
        log.connected();
        if !is_trusted {
            open.file.watch_log()?;
        }
        let Connected { link, last, shapes, head } = connected;
        lock(&open.readers).clear();
        writer.failed = None;
        writer.last = last;
        let settled = match writer.link.insert(link) {
            link if !is_trusted => log.settle(link),
            _ => Ok(()),
        };
        drop(writer);
        // Also if nothing can be written yet: what is there can be read.
        open.shapes = shapes;
        settled.map(|()| head)
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
        let Writer { link: slot, failed, last, .. } = &mut *writer;
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
        transaction(&open.file, slot, failed, |link| {
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
            // A table of that name may have been there, and another one.
            check_layout(link, to)?;
            link.run(&format!("PRAGMA user_version = {}", to.version))?;
            meta::move_head(link, head.serial, &Head { schema: to, ..head })
        })?;
        // Statements that were prepared before describe the old columns. As after a failed commit,
        // the old connection stays until there is a new one, and with it the log.
        *failed = slot.take();
        open.file.require_in_place()?;
        let connected = connect(&self.path, false)?;
        open.file.require_in_place()?;
        open.file.log().connected();
        *failed = None;
        *slot = Some(connected.link);
        *last = connected.last;
        open.shapes = connected.shapes;
        Ok(())
    }

    fn close_inline(&self) -> Result<()> {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(open) = open else { return Ok(()) };
        // Before the log is deleted.
        let in_place = open.file.require_in_place();
        lock(&open.readers).clear();
        let mut writer = lock(&open.writer);
        let Writer { link, failed, last, .. } = &mut *writer;
        if !self.read_only
            && let Some(link) = link.as_mut().or(failed.as_mut())
            && let Err(error) =
                open.file.log().finish(|| link.run("PRAGMA wal_checkpoint(TRUNCATE)"))
        {
            // The WAL holds every commit durably; the next to open it carries on from there.
            tracing::warn!(db.system.name = NAME, %error, "the WAL stays as it is");
        }
        if open.file.log().is_trusted() {
            *last = None;
        }
        in_place
    }
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
        let file = open.as_ref().and_then(|open| open.as_ref()).map(|open| &open.file);
        BackendInfo {
            name: NAME,
            engine: shared.engine.clone(),
            location: Some(shared.path.display().to_string()),
            durable: true,
            shared: false,
            sealed: false,
            bytes: file.map(StoreFile::total_bytes),
            log: file.map(|file| file.log().info()),
            counters: *lock(&shared.counters),
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
                Ok(rows)
            })
            .await?;
        lock(&self.shared.counters).scans += 1;
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

    async fn reopen(&self) -> Result<Head> {
        self.shared.reopen_inline().map_err(|error| error.during("libsql.reopen"))
    }

    async fn verify(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let verified = blocking(move || shared.verify_inline()).await;
        let (rows, blocks) = verified.map_err(|error| error.during("libsql.verify"))?;
        tracing::debug!(db.system.name = NAME, rows, blocks, "verified");
        Ok(())
    }

    fn announce_close(&self) {
        // Nothing may block here. Whoever holds it alone is the writer, which announces it, too.
        if let Ok(open) = self.shared.open.try_read()
            && let Some(open) = open.as_ref()
        {
            open.file.announce_release();
        }
    }

    async fn close(&self) -> Result<()> {
        self.shared.close_inline().map_err(|error| error.during("libsql.close"))
    }
}
