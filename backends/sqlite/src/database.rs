//! The connections of an open store: one that writes, and some that read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::observe::synced;

use crate::connection::{Connection, Role, check_structure, checkpoint, connect, use_log};
use crate::errors::is_interrupted;
use crate::pool::{Lease, Pool};
use crate::wal::{Checkpoint, Checkpointer, Mode};
use crate::{Access, Inside, StoreFile, Wanted, file_to_read, has_log, with_suffix};

/// The connections of an open store. They are dropped in this order, and before the file's lock is.
#[derive(Debug)]
pub struct Database<C> {
    readers: Pool<C>,
    /// `None` if the file is only read.
    writer: Option<Mutex<Writer<C>>>,
    /// A reader that is closed after the writer: whichever connection is closed last moves the log into
    /// the file and removes it, unless it only reads. So the log of a store that is refused stays: it
    /// may be what is wrong. [`Database::close`] drops it first.
    last: Option<Mutex<C>>,
    _index: LeftoverIndex,
    file: Arc<StoreFile>,
}

/// The connection that writes.
#[derive(Debug)]
struct Writer<C> {
    connection: C,
    /// How a transaction of its ended is not known.
    is_lost: bool,
}

/// How a transaction ended.
enum Outcome<T> {
    Stored(T),
    /// Nothing of it is stored.
    Refused(Error),
    /// All of it is stored, or nothing.
    Unknown(Error),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked with it left nothing half-done that a transaction does not undo.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: Connection> Database<C> {
    /// Connects to a store that was made. `moment` reads numbers of the head that never fall: a log of
    /// an earlier moment than its file is refused.
    ///
    /// # Errors
    /// `Corrupt`; `Unsupported` if the file system cannot hold a log; those of SQLite.
    pub fn open<const N: usize>(
        file: &Arc<StoreFile>,
        moment: impl Fn(&mut C) -> Result<[u64; N]>,
    ) -> Result<Self> {
        Self::connect(file, moment).map_err(|error| file.explain_full(error))
    }

    fn connect<const N: usize>(
        file: &Arc<StoreFile>,
        moment: impl Fn(&mut C) -> Result<[u64; N]>,
    ) -> Result<Self> {
        let path = file.path();
        let is_read_only = file.access() == Access::ReadOnly;
        let index = if is_read_only { LeftoverIndex::of(path) } else { LeftoverIndex::default() };
        check_log(path, &moment)?;
        let reader = || {
            let mut reader = connect(path, Role::Reader)?;
            moment(&mut reader).map(|_| reader)
        };
        // A journal that came back with the power is rolled back first, which a reader cannot do.
        let reads_first = !is_read_only && has_log(path) && !has_journal(path);
        let mut last = reads_first.then(reader).transpose()?;
        let mut writer = None;
        if !is_read_only {
            let mut connection = connect(path, Role::Writer)?;
            use_log(&mut connection)?;
            last = Some(last.map_or_else(reader, Ok)?);
            file.log().connected();
            writer = Some(Mutex::new(Writer { connection, is_lost: false }));
        }
        Ok(Self {
            readers: Pool::new(file.connections().clone()),
            writer,
            last: last.map(Mutex::new),
            _index: index,
            file: Arc::clone(file),
        })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Arc<StoreFile> {
        &self.file
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// Those of SQLite; `Corrupt` if the path no longer names the file; `Busy` if all of them stay in use.
    pub fn reader(&self) -> Result<Reader<'_, C>> {
        self.lease(false).map(Leased::enter)
    }

    /// A connection for reading that has not begun to, so that locks may be taken between the two: nobody is
    /// waited for any more but at the gate. A fresh one owes nothing to a cache.
    ///
    /// # Errors
    /// As [`Database::reader`].
    pub fn lease(&self, is_fresh: bool) -> Result<Leased<'_, C>> {
        let connect = || self.connect_reader();
        let lease = match is_fresh {
            true => self.readers.acquire_new(connect)?,
            false => self.readers.acquire(connect)?,
        };
        Ok(Leased { lease, file: &self.file })
    }

    /// Runs `read` on a connection for reading, as [`StoreFile::undisturbed`] has it.
    pub fn read<T>(&self, read: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let mut reader = self.reader()?;
        let read = reader.connection().and_then(read);
        self.file.undisturbed(read)
    }

    /// As [`Database::read`], of what is stored at one moment.
    pub fn read_once<T>(&self, read: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let read = self.reader()?.at_one_moment(read);
        self.file.undisturbed(read)
    }

    /// A connection for reading that owes nothing to a cache.
    pub fn fresh_reader(&self) -> Result<Reader<'_, C>> {
        self.lease(true).map(Leased::enter)
    }

    /// Runs `read` on what is stored at one moment, and owes nothing to a cache.
    ///
    /// # Errors
    /// As [`Database::reader`]; those of `read`.
    pub fn read_afresh<T>(&self, read: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let read = self.fresh_reader()?.at_one_moment(read);
        self.file.undisturbed(read)
    }

    /// As [`check_structure`], which reads the whole file at one moment. Beside writers that would keep the
    /// log growing: once it is long this is broken off, which is no error, and what is not checked is logged.
    /// So it is when nobody waits for it any more.
    ///
    /// # Errors
    /// As [`Database::reader`] and [`check_structure`]; `Unavailable` if nobody waits.
    pub fn check_structure(&self, wanted: &Wanted) -> Result<()> {
        let mut connection = self.connect_reader()?;
        let inside = self.file.log().enter_until_held(connection.interrupter());
        let interrupt = connection.interrupter();
        let checked = wanted.interrupting(interrupt, || check_structure(&mut connection));
        drop((connection, inside));
        wanted.require()?;
        match checked {
            Err(error) if is_interrupted(&error) => {
                tracing::info!(
                    path = %self.file.path().display(),
                    "SQLite's check of its structures was broken off, because it keeps the log from being \
                     moved or the store from being closed; every record is read all the same. Verify \
                     again while less is written"
                );
                Ok(())
            }
            checked => self.file.undisturbed(checked),
        }
    }

    /// On the file that the other connections have, and no other.
    fn connect_reader(&self) -> Result<C> {
        let role = if self.writer.is_some() { Role::Reader } else { Role::ReadOnly };
        self.file.require_in_place()?;
        let path = self.file.path();
        let reader = connect(path, role).map_err(|error| error.with("path", path.display()))?;
        self.file.require_in_place()?;
        Ok(reader)
    }

    fn lock_writer(&self) -> Result<MutexGuard<'_, Writer<C>>> {
        match &self.writer {
            Some(writer) => Ok(lock(writer)),
            None => Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only")),
        }
    }

    /// The connection that writes, for something else: it knows the pages that it wrote last. Nothing
    /// can be written while it is held.
    ///
    /// # Errors
    /// `ReadOnly`.
    pub fn writer(&self) -> Result<WriterGuard<'_, C>> {
        self.lock_writer().map(WriterGuard)
    }

    /// Runs `work` in a transaction, which is durable when this returns. If the disk is full and the
    /// transaction frees something, it is run once more with the room that is kept for this.
    ///
    /// # Errors
    /// - `OutcomeUnknown`: nobody knows whether it was stored. Until the store was opened anew every
    ///   further one is `Unavailable`.
    /// - Those of `work` and of SQLite: nothing was stored.
    pub fn write<T>(&self, frees: bool, mut work: impl FnMut(&mut C) -> Result<T>) -> Result<T> {
        let mut writer = self.lock_writer()?;
        // With the lock: whoever had it before may have found the log not to be trusted.
        self.file.log().require_trusted()?;
        let done = self.file.commit(frees, || self.write_once(&mut writer, &mut work))?;
        self.file.log().after_commit(&mut self.mover(&mut writer.connection));
        drop(writer);
        self.readers.prune();
        Ok(done)
    }

    /// Writes and synchronises as [`Database::write`] does, and leaves everything as it is, if `check` admits
    /// it.
    ///
    /// # Errors
    /// Those of [`Database::write`].
    pub fn probe(&self, mut check: impl FnMut(&mut C) -> Result<()>) -> Result<()> {
        self.write(false, |connection| {
            check(connection)?;
            // SQLite writes the page with this number anew, though it stays what it is.
            let [number] = connection.integers("SELECT user_version FROM pragma_user_version")?;
            let [free] = connection.integers(
                "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size",
            )?;
            self.file.note_free(u64::try_from(free).unwrap_or(0));
            connection.run(&format!("PRAGMA user_version = {number}"))
        })
    }

    fn write_once<T>(
        &self,
        writer: &mut Writer<C>,
        work: impl FnOnce(&mut C) -> Result<T>,
    ) -> Result<T> {
        if writer.is_lost {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "how an earlier commit ended is not known; reopen the store first",
            ));
        }
        let explain = |error| self.file.explain_full(error);
        let outcome = match transaction(&mut writer.connection, explain, work) {
            Outcome::Stored(done) => self.file.confirm_commit().map(|()| done),
            Outcome::Refused(error) => return Err(error),
            Outcome::Unknown(error) => Err(Error::new(
                ErrorKind::OutcomeUnknown,
                "it cannot be told whether the commit was stored; reopen the store",
            )
            .because(error)),
        };
        writer.is_lost = outcome.is_err();
        outcome
    }

    /// Makes durable what an earlier process may have written to the log, and died before it was
    /// synchronised, and moves what can be moved. Until then a loss of power may take back what is
    /// read.
    ///
    /// # Errors
    /// `Unavailable` and others of the disk. A full one is no error: the log is durable. `Busy` after
    /// a checkpoint that failed, while another program keeps SQLite from reading the log anew.
    pub fn settle(&self) -> Result<()> {
        match &self.writer {
            Some(writer) => self.file.log().settle(&mut self.mover(&mut lock(writer).connection)),
            None => Ok(()),
        }
    }

    fn mover<'w>(&'w self, writer: &'w mut C) -> Mover<'w, C> {
        Mover { writer, file: &self.file }
    }

    /// Bytes of pages that hold something, of the file with all that is in its log.
    pub fn bytes_in_use(&self) -> Result<u64> {
        let [bytes] = self.lock_writer()?.connection.integers(
            "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, \
             pragma_freelist_count, pragma_page_size",
        )?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Copies everything into an empty file, which is not durable yet.
    pub fn copy_to(&self, copy: &Path) -> Result<()> {
        // The store's path is UTF-8, and the copy is beside it.
        let name = copy.to_string_lossy().replace('\'', "''");
        self.lock_writer()?.connection.run(&format!("VACUUM INTO '{name}'"))
    }

    /// Moves the log into the file and removes it. If that fails, or what was read is damaged, the log
    /// stays: it holds every commit durably, and the next opening goes on from there.
    ///
    /// # Errors
    /// As [`StoreFile::require_in_place`], whatever became of the log.
    pub fn close(self) -> Result<()> {
        // Before the log is removed.
        let in_place = self.file.require_in_place();
        drop(self.readers);
        let Some(writer) = self.writer else { return in_place };
        let Writer { mut connection, .. } =
            writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        let finished = match self.file.was_away_and_is_back() {
            // Somebody else may have written to it meanwhile, and the log would overwrite that.
            true => in_place.clone(),
            false => self.file.log().finish(|| connection.run("PRAGMA wal_checkpoint(TRUNCATE)")),
        };
        match finished {
            Ok(()) => drop(self.last),
            Err(error) => {
                tracing::warn!(path = %self.file.path().display(), %error, "the log stays as it is");
                drop(connection);
                drop(self.last);
            }
        }
        in_place
    }
}

/// Tells how long it takes: SQLite appends the pages to its log and synchronises that, and nothing else.
fn commit<C: Connection>(connection: &mut C) -> Result<()> {
    let began = Instant::now();
    let committed = connection.run_prepared("COMMIT");
    synced(began.elapsed());
    committed
}

/// Runs `work` in a transaction. `explain` tells a full disk from one that fails.
fn transaction<C: Connection, T>(
    connection: &mut C,
    explain: impl Fn(Error) -> Error,
    work: impl FnOnce(&mut C) -> Result<T>,
) -> Outcome<T> {
    if let Err(error) = connection.run_prepared("BEGIN IMMEDIATE") {
        return Outcome::Refused(explain(error));
    }
    let (error, is_refused) = match work(connection) {
        Err(error) => (explain(error), true),
        Ok(done) => match commit(connection) {
            Ok(()) => return Outcome::Stored(done),
            Err(error) => {
                let error = explain(error);
                let refused = [ErrorKind::Busy, ErrorKind::Exhausted, ErrorKind::ReadOnly];
                let is_refused = refused.contains(error.kind());
                (error, is_refused)
            }
        },
    };
    if !connection.is_idle()
        && let Err(source) = connection.run_prepared("ROLLBACK")
    {
        tracing::warn!(%error, %source, "a failed transaction cannot be rolled back");
    }
    match is_refused && connection.is_idle() {
        true => Outcome::Refused(error),
        false => Outcome::Unknown(error),
    }
}

/// The connection that writes, to the keeper of the log.
struct Mover<'w, C> {
    writer: &'w mut C,
    file: &'w StoreFile,
}

impl<C: Connection> Checkpointer for Mover<'_, C> {
    fn checkpoint(&mut self, mode: Mode) -> Result<Checkpoint> {
        checkpoint(self.writer, mode).map_err(|error| self.file.explain_full(error))
    }
}

/// A connection for reading that has not begun to.
#[derive(Debug)]
pub struct Leased<'d, C> {
    lease: Lease<'d, C>,
    file: &'d StoreFile,
}

impl<'d, C: Connection> Leased<'d, C> {
    /// Waits only while readers are held out.
    #[must_use]
    pub fn enter(self) -> Reader<'d, C> {
        Reader { lease: self.lease, _inside: self.file.log().enter() }
    }
}

/// A connection for reading. When it is dropped its transaction ends, and then it leaves the gate that
/// holds readers out.
#[derive(Debug)]
pub struct Reader<'d, C: Connection> {
    lease: Lease<'d, C>,
    _inside: Inside<'d>,
}

impl<C: Connection> Reader<'_, C> {
    /// The connection.
    pub fn connection(&mut self) -> Result<&mut C> {
        self.lease.connection()
    }

    /// Runs `read` on what is stored at one moment.
    pub fn at_one_moment<T>(&mut self, read: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let connection = self.connection()?;
        connection.run_prepared("BEGIN DEFERRED")?;
        read(connection)
    }
}

impl<C: Connection> Drop for Reader<'_, C> {
    fn drop(&mut self) {
        self.lease.retain_if(|connection| {
            connection.is_idle() || connection.run_prepared("ROLLBACK").is_ok()
        });
    }
}

/// The connection that writes.
#[derive(Debug)]
pub struct WriterGuard<'d, C>(MutexGuard<'d, Writer<C>>);

impl<C> std::ops::Deref for WriterGuard<'_, C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0.connection
    }
}

impl<C> std::ops::DerefMut for WriterGuard<'_, C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0.connection
    }
}

/// Whether SQLite's rollback journal lies beside the file, which makes a store and sees it switched to a
/// log.
fn has_journal(path: &Path) -> bool {
    std::fs::metadata(with_suffix(path, "-journal")).is_ok_and(|journal| journal.len() > 0)
}

/// Refuses a log that is older than the file: SQLite would lay the log's pages over newer ones, and
/// the store would be in a state that never was. A file is never ahead of a log of its own.
fn check_log<C: Connection, const N: usize>(
    path: &Path,
    moment: impl Fn(&mut C) -> Result<[u64; N]>,
) -> Result<()> {
    if !has_log(path) {
        return Ok(());
    }
    let read = |role| connect(path, role).and_then(|mut connection| moment(&mut connection));
    // What cannot be read without the log was perhaps being written when a checkpoint was broken
    // off, and is written again from the log.
    let Ok(file) = read(Role::WithoutLog) else { return Ok(()) };
    let store = match read(Role::ReadOnly) {
        Ok(store) => store,
        Err(error) if *error.kind() == ErrorKind::Corrupt => return Err(error),
        Err(_) => return Ok(()),
    };
    if store.iter().zip(file).all(|(store, file)| *store >= file) {
        return Ok(());
    }
    Err(Error::corrupt(
        "the file is newer than the log beside it, or the log was cut short; restore both from one \
         backup",
    )
    .with("log", format_args!("{store:?}"))
    .with("file", format_args!("{file:?}")))
}

/// The index that SQLite makes beside a store to read its log, where it was not before. A reader leaves
/// none behind. Where there is no log, SQLite is told that the file does not change, and makes nothing:
/// what appears later is a writer's.
#[derive(Debug, Default)]
struct LeftoverIndex(Option<PathBuf>);

impl LeftoverIndex {
    fn of(path: &Path) -> Self {
        let has_log = file_to_read(path) == path;
        let index = with_suffix(path, "-shm");
        Self((has_log && crate::lock::is_absent(&index).unwrap_or(false)).then_some(index))
    }
}

impl Drop for LeftoverIndex {
    fn drop(&mut self) {
        if let Some(index) = &self.0
            && let Err(error) = std::fs::remove_file(index)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %index.display(), %error, "the index of a log stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A connection of which some statements fail.
    #[derive(Default)]
    struct Fake {
        fails: Vec<(&'static str, ErrorKind)>,
        is_busy: bool,
        log: &'static [u8],
    }

    impl Connection for Fake {
        fn open(_: &Path, _: bool) -> Result<Self> {
            Ok(Self::default())
        }

        fn set_busy_timeout(&self, _: Duration) -> Result<()> {
            Ok(())
        }

        fn run(&mut self, sql: &str) -> Result<()> {
            if let Some((_, kind)) = self.fails.iter().find(|(statement, _)| *statement == sql) {
                return Err(Error::new(kind.clone(), "as it was told"));
            }
            self.is_busy = sql.starts_with("BEGIN");
            Ok(())
        }

        fn run_prepared(&mut self, sql: &str) -> Result<()> {
            self.run(sql)
        }

        fn integers<const N: usize>(&mut self, _: &str) -> Result<[i64; N]> {
            Ok([0; N])
        }

        fn blob(&mut self, _: &str) -> Result<Vec<u8>> {
            Ok(self.log.to_vec())
        }

        fn interrupter(&self) -> crate::Interrupt {
            Arc::new(|| {})
        }

        fn is_idle(&self) -> bool {
            !self.is_busy
        }
    }

    fn outcome(fails: &[(&'static str, ErrorKind)], is_damaged: bool) -> (&'static str, bool) {
        let mut fake = Fake { fails: fails.to_vec(), ..Fake::default() };
        let work = |_: &mut Fake| match is_damaged {
            true => Err(Error::corrupt("x")),
            false => Ok(()),
        };
        let outcome = match transaction(&mut fake, |error| error, work) {
            Outcome::Stored(()) => "stored",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        (outcome, fake.is_idle())
    }

    #[test]
    fn a_transaction_is_stored_or_refused_or_nobody_knows() {
        use ErrorKind::{Busy, Corrupt, Exhausted, ReadOnly, Unavailable, Unexpected};
        assert_eq!(outcome(&[], false), ("stored", true));
        assert_eq!(outcome(&[], true), ("refused", true));
        assert_eq!(outcome(&[("BEGIN IMMEDIATE", Unavailable)], false), ("refused", true));
        for kind in [Busy, Exhausted, ReadOnly] {
            assert_eq!(outcome(&[("COMMIT", kind.clone())], false), ("refused", true), "{kind:?}");
        }
        for kind in [Corrupt, Unavailable, Unexpected] {
            assert_eq!(outcome(&[("COMMIT", kind.clone())], false), ("unknown", true), "{kind:?}");
        }
        let no_way_back = ("ROLLBACK", Unavailable);
        assert_eq!(outcome(std::slice::from_ref(&no_way_back), true), ("unknown", false));
        assert_eq!(outcome(&[("COMMIT", Exhausted), no_way_back], false), ("unknown", false));
    }

    #[test]
    fn a_file_system_without_a_log_is_unsupported() {
        let with = |log| use_log(&mut Fake { log, ..Fake::default() });
        assert!(with(b"wal").is_ok());
        assert!(with(b"delete").is_err_and(|error| *error.kind() == ErrorKind::Unsupported));
    }
}
