//! What the backends that keep one local SQLite file share about it: whether the path will do,
//! whose file it is, who has it open, and where a copy of it goes ([`StoreFile`]); its connections,
//! transactions and log ([`Database`]); what SQLite's errors mean ([`sqlite_error`]).
//!
//! It links no SQLite itself: a backend brings the crate that it calls SQLite by, as a [`Connection`].
//!
//! It reads the file's header itself, before any engine opens the file, because an engine would
//! answer a foreign or damaged file with whatever it makes of it.
//!
//! # A trap
//! SQLite locks its file with POSIX record locks, and closing *any* descriptor of a file drops all
//! of the process's locks on it. So nothing here opens the file while an engine has it open:
//! [`StoreFile::open`] takes the lock on a file of its own first and reads the header only then,
//! and everything after that goes by name. Do the same: open the engine after the [`StoreFile`],
//! close it before.

mod asked;
mod backup;
mod check;
mod compact;
mod connection;
mod database;
mod errors;
mod lock;
mod making;
mod names;
mod opened;
mod options;
mod pool;
mod private;
mod read;
mod replacement;
mod reserve;
mod room;
#[cfg(target_os = "linux")]
mod volume;
mod wal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ghostwire_store_core::backend::{FileInfo, Filesystem};
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

pub use asked::{Asked, Wanted};
use backup::Backup;
pub use check::require_file_name;
pub use compact::{Compact, compact};
pub use connection::{Connection, Role, check_structure, connect};
pub use database::{Database, Leased, Reader, WriterGuard};
pub use errors::sqlite_error;
use lock::{Lock, is_absent};
use making::Making;
pub use names::{
    COPY_FILE, ENGINE_FILES, EXPORT_PREFIX, KEY_FILE, KEYRING_FILE, KEYRING_FILES, LOCK_FILE,
    NATIVE_FILE, NATIVE_LOCK_FILE, NATIVE_OPENING_FILE, NEW_NATIVE_FILE, RESERVE_FILE, ROOT_FILE,
    SCRATCH_PREFIX, SOCKET_FILE, TEST_DIRECTORY, VERDICT_FILE, files_of, is_beside, is_unfinished,
    native_files_of, new_native_files_of, possible_stores_of, resolved,
};
use opened::OpenedFiles;
pub use opened::unconfirmed;
pub use options::FileOptions;
pub use pool::{PoolLimits, PoolMeter};
pub use private::{create_private, create_private_directory, directory_of};
use reserve::Reserve;
use room::{filesystem, free_bytes, is_full};
pub(crate) use wal::Inside;
pub use wal::{Interrupt, LogKeeper, LogLimits};

/// A parser of what lies beside the file, for the fuzz target.
#[cfg(fuzzing)]
#[doc(hidden)]
pub use wal::fuzzing;

/// Whose file it is: what SQLite calls the application id, at offset 68 of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// The backend's name in configuration.
    pub name: &'static str,
    /// The number in the header. Set it in the new file's first transaction, before the switch to
    /// WAL: whatever is only in the WAL is not seen here.
    pub application_id: u32,
}

impl FileKind {
    /// The zqlite backend's files: `GWZQ`.
    pub const ZQLITE: Self = Self { name: "zqlite", application_id: 0x4757_5A51 };
    /// The libsql backend's files: `GWLS`.
    pub const LIBSQL: Self = Self { name: "libsql", application_id: 0x4757_4C53 };

    /// A zqlite store on the native engine: a file that only says so, beside the library's. `GWZN` is in no
    /// header.
    pub const ZQLITE_NATIVE: Self =
        Self { name: "zqlite with the native engine", application_id: 0x4757_5A4E };

    /// Every kind of SQLite file there is.
    pub const ALL: [Self; 2] = [Self::ZQLITE, Self::LIBSQL];
}

/// What is in the file of a store on the native engine.
pub const NATIVE_MARKER: &[u8] = b"ghostwire-store: zqlite, native engine, 1\n\
    The store is in the files beside this one whose names go on with `.native`.\n";

/// How to open it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read and write; make a new file if there is none.
    Create,
    /// Read and write a file that exists.
    Existing,
    /// Read a file that exists. Several readers may; a writer excludes them.
    ReadOnly,
}

/// Free bytes that nobody has counted yet.
const UNCOUNTED: u64 = u64::MAX;

/// A store's file that this process may use and no other does. Dropping it lets others in.
#[derive(Debug)]
pub struct StoreFile {
    /// Dropped first, while the lock is held.
    making: Mutex<Option<Making>>,
    path: PathBuf,
    kind: FileKind,
    is_new: bool,
    access: Access,
    files: OpenedFiles,
    log: LogKeeper,
    /// Bytes that hold nothing, or [`UNCOUNTED`].
    free: AtomicU64,
    connections: Arc<PoolMeter>,
    /// `None` if the file is only read.
    reserve: Option<Reserve>,
    lock: Lock,
}

impl StoreFile {
    /// Checks the path, takes the lock, checks the header, and makes the file if there is none and
    /// `access` says so. A new file is empty and only its owner may read it; unless
    /// `StoreFile::note_store` says that the store is whole, it is gone again when this is dropped.
    ///
    /// What root makes belongs to the owner of the store's file or, for a new store, of its directory.
    ///
    /// # Errors
    /// - `NotFound`: the directory does not exist, or there is no store and `access` would not
    ///   make one, or there was a store and its file is gone.
    /// - `InvalidArgument`: the path is a directory or some other thing that is no file, or is not
    ///   UTF-8, the file is not one of this kind, it or one of SQLite's beside it has several names (hard
    ///   links), one of those is no regular file, or another file has the lock's name.
    /// - `Unsupported`: the file is mounted by itself, or is on a file system of the network.
    /// - `PermissionDenied`, `ReadOnly`: the file system does not let this process. Reading needs the
    ///   lock, too, unless there is none and nobody can make one.
    /// - `Busy`: somebody has the file open already, this process included. One that said it is
    ///   about to release it is waited for first, up to 10 seconds.
    /// - `Corrupt`: the file is shorter than its header says.
    /// - `Unavailable`: any other trouble with the disk.
    pub fn open(path: &Path, kind: FileKind, access: Access) -> Result<Self> {
        Self::open_unnamed(path, kind, access).map_err(|error| error.during("file.open"))
    }

    fn open_unnamed(path: &Path, kind: FileKind, access: Access) -> Result<Self> {
        let path = locate(path, access)?;
        let lock_path = with_suffix(&path, LOCK_FILE);
        // What is no store gets no lock, and another program's lock no line of ours. Where a lock
        // says who had it, this process may have the store open: see the trap above.
        if lock::is_blank(&lock_path)? && !is_absent(&path)? {
            let looked = check::content(&path, kind, access);
            // Otherwise somebody began to make a store there meanwhile.
            if lock::is_blank(&lock_path)? {
                looked?;
            }
        }
        let mut lock = Lock::take(&lock_path, &path, access)?;
        // Somebody may have made or removed it before the lock was held.
        let (_, exists) = check::resolve(&path, access)?;
        let making = (!exists).then(|| Making::begin(&path, kind, lock.is_new())).transpose()?;
        let is_new = !exists || check::content(&path, kind, access)?;
        if is_new {
            check::nothing_was_here(&path, exists)?;
        }
        if exists {
            check::permissions(&path, access)?;
        } else {
            create_private(&path, directory_of(&path))
                .map_err(|error| failed("the file cannot be made", &path, error))?;
            sync_directory(&path)?;
        }
        // SQLite locks the index as it does the file. While the lock is shared another engine of this
        // process may have it open, and would lose what it locked.
        let index = with_suffix(&path, "-shm");
        let indexed = match lock.is_exclusive() {
            true => wal::Indexed::read(&index),
            false => wal::Indexed::UNREAD,
        };
        lock.share(&lock_path, &path)?;
        let files = OpenedFiles::of(&path, lock.is_held())?;
        let found = wal::survey(&with_suffix(&path, "-wal"), &indexed)
            .map_err(|error| failed("the store's log cannot be read", &path, error))?;
        let log = LogKeeper::new(&path, found, indexed.index);
        if access == Access::ReadOnly {
            lock.keep(wal::Sign::of(&found, index, indexed));
        }
        let reserve = (access != Access::ReadOnly).then(|| Reserve::beside(&path));
        if access != Access::ReadOnly {
            replacement::remove_leftover(&path);
        }
        let making = Mutex::new(making);
        let connections = Arc::default();
        let free = AtomicU64::new(UNCOUNTED);
        Ok(Self {
            making,
            path,
            kind,
            is_new,
            access,
            files,
            log,
            free,
            connections,
            reserve,
            lock,
        })
    }

    /// Tells what [`StoreFile::open`] would refuse for an existing store that is to be written, but
    /// for its being in use, and changes nothing. Call it while this process has the store not open.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub fn probe(path: &Path, kind: FileKind) -> Result<()> {
        let probe = || {
            let path = locate(path, Access::Existing)?;
            lock::existing(&with_suffix(&path, LOCK_FILE), Access::Existing)?;
            check::content(&path, kind, Access::Existing)?;
            check::writable_engine_files(&path)
        };
        probe().map_err(|error| error.during("file.open"))
    }

    /// Call it with what was read. Who reads without a lock is told once a writer came, instead of
    /// being given what may be of two moments.
    ///
    /// # Errors
    /// `Busy`; that of the file system if it cannot be told; otherwise that of `read`.
    pub fn undisturbed<T>(&self, read: Result<T>) -> Result<T> {
        self.lock.require_no_writer()?;
        read
    }

    /// Refuses once the path names something else than the file that was opened, or the file got
    /// another name, or the same happened to the log or the lock beside it; from then on for good.
    /// Call it before anything is opened by its name, and after.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; that of the file system if it cannot be told.
    pub fn require_in_place(&self) -> Result<()> {
        self.files.require()
    }

    /// Whether the file itself was found somewhere else once, and is in its place.
    pub(crate) fn was_away_and_is_back(&self) -> bool {
        self.files.was_away_and_is_back()
    }

    /// Call it after a commit and before it is acknowledged. A commit into files that the path does
    /// not lead to any more succeeds, and nobody will find it.
    ///
    /// # Errors
    /// `OutcomeUnknown`, because of what [`StoreFile::require_in_place`] gives.
    pub(crate) fn confirm_commit(&self) -> Result<()> {
        self.files.require().map_err(unconfirmed)
    }

    /// Call it when the engine has opened the file, and again if it closed its last connection, which
    /// deletes the log, and opened the file anew: the log that is there then is the one it writes.
    ///
    /// # Errors
    /// As [`StoreFile::require_in_place`].
    fn watch_log(&self) -> Result<()> {
        match self.is_native() {
            true => self.files.watch_database(),
            false => self.files.watch_log(self.access != Access::ReadOnly),
        }
    }

    fn is_native(&self) -> bool {
        self.kind == FileKind::ZQLITE_NATIVE
    }

    /// Call it when the store is stored durably: from then on it stays, and no new one is made here
    /// without a word, whatever becomes of the file.
    fn note_store(&self, side: SideId) {
        if self.access == Access::ReadOnly {
            return;
        }
        if let Some(making) = &mut *self.making.lock().unwrap_or_else(PoisonError::into_inner) {
            making.keep();
        }
        if self.lock.names(side) {
            return;
        }
        let write = || {
            // After everything that making the store did to the directory.
            sync_directory(&self.path)?;
            self.lock
                .note(side)
                .map_err(|error| failed("the lock cannot be written", &self.path, error))
        };
        // A store on a full disk can be opened all the same.
        if let Err(error) = write() {
            tracing::warn!(
                path = %self.path.display(), %error, "the lock does not say which store this is"
            );
        }
    }

    /// Makes the store in a new file, in one transaction; in another file it does nothing.
    ///
    /// # Errors
    /// Those of `fill` and of SQLite.
    pub fn fill_new<C: Connection>(&self, fill: impl FnOnce(&mut C) -> Result<()>) -> Result<()> {
        match self.is_new {
            true => {
                connection::create(self, self.kind, fill).map_err(|error| self.explain_full(error))
            }
            false => Ok(()),
        }
    }

    /// To be called when what is read at opening was found whole: makes it durable.
    ///
    /// # Errors
    /// As [`StoreFile::require_in_place`], and those of `settle`.
    pub fn opened(&self, side: SideId, settle: impl FnOnce() -> Result<()>) -> Result<()> {
        self.watch_log()?;
        settle()?;
        self.note_store(side);
        Ok(())
    }

    /// Replaces everything that is connected to the file. What `begin` made stays also if it cannot be
    /// written yet: it can be read.
    ///
    /// # Errors
    /// Those of `begin` and `settle`; as [`StoreFile::require_in_place`].
    pub fn reopen<O>(
        &self,
        open: &mut Option<O>,
        begin: impl FnOnce() -> Result<O>,
        settle: impl FnOnce(&O) -> Result<()>,
    ) -> Result<()> {
        self.require_in_place()?;
        // The old connections go last. While there is one, SQLite knows where the commits end that
        // were synchronised. Without any it would read the log and find those, too, that were
        // written and not synchronised: they could be acknowledged and then lost.
        //
        // After a checkpoint that failed every commit is synchronised, but which pages were moved is
        // not known. Then they go first, so that the log is read anew and moved as a whole.
        //
        // The native engine has one process at a time for a store.
        let is_trusted = self.log.is_trusted() && !self.is_native();
        if !is_trusted {
            *open = None;
            self.log.all_closed();
        }
        let opened = begin()?;
        self.require_in_place()?;
        let settled = match is_trusted {
            true => Ok(()),
            false => self.watch_log().and_then(|()| settle(&opened)),
        };
        *open = Some(opened);
        settled
    }

    /// To be called before waiting for all reads to end: ends those that take longer than a page does.
    pub fn end_long_reads(&self) {
        self.log.end_long_reads();
    }

    /// Whether the file was just made, or was empty.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// How it was opened.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// Where it is: absolute, without symbolic links, UTF-8.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What keeps its log short.
    #[must_use]
    pub fn log(&self) -> &LogKeeper {
        &self.log
    }

    /// The connections that read it.
    #[must_use]
    pub fn connections(&self) -> &Arc<PoolMeter> {
        &self.connections
    }

    /// Stores a commit with `store`. If the disk is full and the commit frees something, gives up
    /// the room that is kept for this and tries once more.
    ///
    /// # Errors
    /// Those of `store`.
    pub(crate) fn commit<T>(&self, frees: bool, mut store: impl FnMut() -> Result<T>) -> Result<T> {
        let stored = store();
        let Some(reserve) = &self.reserve else { return stored };
        match &stored {
            Ok(_) => reserve.restore(),
            Err(error) if frees && *error.kind() == ErrorKind::Exhausted && reserve.give_up() => {
                return store();
            }
            Err(_) => {}
        }
        stored
    }

    /// Says of a write that failed that there was no room for it, if so: SQLite does not know of quotas.
    /// Nothing of such a write is in a file.
    fn explain_full(&self, error: Error) -> Error {
        match errors::is_failed_write(&error) {
            true => self.explain(error),
            false => error,
        }
    }

    /// Says of any write that failed that there was no room for it, if so. Nothing of such a write is in a file.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        if is_full(&self.path) {
            return Error::new(
                ErrorKind::Exhausted,
                "the disk is full, or the quota used up; make room on it",
            )
            .because(error);
        }
        error
    }

    /// Whether others are kept out. Only what is read in a directory that nobody can write goes
    /// without a lock.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.is_held()
    }

    /// Says that the file is about to be released: others may wait for it instead of being refused.
    pub fn announce_release(&self) {
        self.lock.announce_release();
    }

    /// Lets others in. Call it when the engine is closed, before that is told to anybody: a value
    /// of this type may be shared, and dropping one of several does nothing.
    pub fn release(&self) {
        self.lock.release();
    }

    /// Bytes on disk, the engine's side files included.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        // The index of the log is no content, and comes and goes with connections.
        files_of(&self.path)
            .chain(native_files_of(&self.path))
            .filter(|file| !file.as_os_str().as_encoded_bytes().ends_with(b"-shm"))
            .filter_map(|file| fs::metadata(file).ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> FileInfo {
        let free = self.free.load(Ordering::Relaxed);
        let (displaced, displaced_part) = self.files.displaced().unzip();
        FileInfo { free: (free != UNCOUNTED).then_some(free), displaced, displaced_part }
    }

    /// So many bytes of it hold nothing.
    pub(crate) fn note_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::Relaxed);
    }

    /// The room on the file system that it is on, where that is known.
    #[must_use]
    pub fn filesystem(&self) -> Option<Filesystem> {
        filesystem(&self.path).ok().flatten()
    }

    /// Where a copy of the file as of schema `version` goes: `<path>.v<version>.bak`, or if that
    /// exists `<path>.v<version>.bak.1`, `.2` and so on.
    fn backup_path(&self, version: u32) -> Result<PathBuf> {
        let first = with_suffix(&self.path, &format!(".v{version}.bak"));
        let mut path = first.clone();
        // There is a free one: a directory does not hold 2^64 files.
        for number in 1u64.. {
            if is_absent(&path)? {
                break;
            }
            path = with_suffix(&first, &format!(".{number}"));
        }
        Ok(path)
    }

    /// Copies the file as of schema `version`, beside itself; `copy` fills an empty file.
    ///
    /// # Errors
    /// `PermissionDenied`, `ReadOnly`, `Exhausted`, `Unavailable`; those of `copy`.
    pub fn back_up(&self, version: u32, copy: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let backup = self.begin_backup(version)?;
        copy(backup.part())?;
        backup.finish()
    }

    fn begin_backup(&self, version: u32) -> Result<Backup> {
        Backup::begin(self.backup_path(version)?, &self.path)
    }
}

/// The path with something appended to its last name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where the store is, or may be made, without symbolic links; on a file system that will do.
fn locate(path: &Path, access: Access) -> Result<PathBuf> {
    let (path, exists) = check::resolve(path, access)?;
    if path.to_str().is_none() {
        return Err(Error::invalid(
            "the store's path is not UTF-8, and SQLite takes no other; rename the file or directory",
        )
        .with("path", path.display()));
    }
    #[cfg(target_os = "linux")]
    volume::require_local(directory_of(&path), exists.then_some(&path))?;
    #[cfg(not(target_os = "linux"))]
    let _ = exists;
    // Also beside a store that is to be made.
    check::engine_files(&path)?;
    Ok(path)
}

/// Makes the directory entries beside `path` durable.
fn sync_directory(path: &Path) -> Result<()> {
    #[cfg(unix)]
    if let Some(directory) = path.parent() {
        fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| failed("the directory cannot be synchronised", directory, error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// An error of the file system, as the kind that says what to do.
#[must_use]
pub fn failed(what: &'static str, path: &Path, error: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, advice) = match error.kind() {
        Io::PermissionDenied => (
            ErrorKind::PermissionDenied,
            "; let this process's user read and write the file and its directory",
        ),
        Io::ReadOnlyFilesystem => (ErrorKind::ReadOnly, "; the file system is read-only"),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Exhausted, "; make room on the disk"),
        Io::InvalidFilename => {
            (ErrorKind::InvalidArgument, "; the file system does not take this name: shorten it")
        }
        Io::NotFound => (ErrorKind::NotFound, ""),
        Io::AlreadyExists => (ErrorKind::AlreadyExists { constraint: "path" }, ""),
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("{what}{advice}")).with("path", path.display()).because(error)
}

/// Whether a log of commits lies beside a store's file. One that cannot be looked up may hold some.
#[must_use]
pub fn has_log(path: &Path) -> bool {
    match fs::metadata(with_suffix(path, "-wal")) {
        Ok(metadata) => metadata.len() > 0,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The name by which SQLite opens a store's file only to read it, where nobody writes. Unless a log
/// of commits lies beside the file, that is a URI which says that the file does not change, so that
/// SQLite makes no files beside it, and can read where nothing may be made.
fn file_to_read(path: &Path) -> PathBuf {
    if has_log(path) { path.to_owned() } else { file_without_log(path) }
}

/// The name by which SQLite reads a store's file as if no log lay beside it.
fn file_without_log(path: &Path) -> PathBuf {
    use std::fmt::Write;
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

#[cfg(test)]
mod tests;
