//! The native engine: the ZQLite library, in a process of its own.
//!
//! The library stores opaque values by a number. While a store is open no number is given twice, so that
//! what a reader still needs is not replaced. A record is cut into as many values as it takes, each with a
//! header that says which part of which record it is; the head is the value of row 1. Where which record
//! lies is held in memory, and read from the headers at opening.
//!
//! The library has one connection, and no snapshots. So a snapshot here is the index of its moment, and
//! what is removed while somebody may still read it is kept in memory until he is done.

mod index;
mod kept;
mod options;
mod snapshot;
mod write;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{
    Access, NATIVE_FILE, NATIVE_LOCK_FILE, NEW_NATIVE_FILE, StoreFile, Wanted, directory_of,
    failed, native_files_of, new_native_files_of, with_suffix,
};
use ghostwire_store_zqlite_native::child::HEAD;
use ghostwire_store_zqlite_native::{Change, Host, NotStored, Session, admission};

use super::embedded::{First, write::changed_elsewhere};
use super::{Batch, Engine, Reserved, Snapshot};
use crate::envelope::Kind;
use crate::inner::locked;
use crate::signing::SIGNATURE;
use index::{Header, Index};
use kept::Kept;
pub use options::NativeOptions;
use snapshot::NativeSnapshot;

#[derive(Debug)]
pub(crate) struct Native {
    shared: Mutex<Shared>,
    file: Arc<StoreFile>,
    host: Host,
    name: String,
}

/// What one thread at a time has.
#[derive(Debug)]
struct Shared {
    /// `None` once it was lost; another one takes its place.
    session: Option<Session>,
    /// A commit ended in the unknown: everything has to be read anew.
    is_unknown: bool,
    index: Index,
    head: Arc<[u8]>,
    /// The next row's number.
    next: u64,
    /// How many batches were written.
    version: u64,
    /// Snapshots by their version.
    live: BTreeMap<u64, usize>,
    kept: Kept,
}

/// Makes the store in a new file; in another one it does nothing.
pub(crate) fn create(
    file: &StoreFile,
    options: &NativeOptions,
    first: impl FnOnce() -> Result<First>,
) -> Result<()> {
    if !file.is_new() {
        return Ok(());
    }
    let host = admitted(file, options)?;
    let path = file.path();
    // A process of an earlier attempt may still be at it.
    let locked = Session::lock(&host, &with_suffix(path, NATIVE_LOCK_FILE))?;
    for leftover in new_native_files_of(path) {
        match fs::remove_file(&leftover) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("what is left of a store cannot be removed", &leftover, error));
            }
            _ => {}
        }
    }
    let First { head, signature } = first()?;
    let head = index::value(Header::HEAD, &head);
    let record = Header { kind: Kind::Signature, number: SIGNATURE, ..Header::HEAD };
    let signature = signature.map(|signature| index::value(record, &signature));
    let values = [Some((HEAD, &head)), signature.as_ref().map(|it| (HEAD + 1, it))];
    let changes = values.into_iter().flatten().map(|(id, value)| Change::Put(id, value));
    let mut session = locked.open(&with_suffix(path, NEW_NATIVE_FILE), true, false)?;
    session.write(&[], changes).map_err(|error| not_stored(error, file))?;
    session.close()?;
    // The database last, and after it the file that says that there is a store.
    let mark = || -> std::io::Result<()> {
        let mut pairs: Vec<_> = new_native_files_of(path).zip(native_files_of(path)).collect();
        pairs.reverse();
        for (new, whole) in pairs {
            if fs::symlink_metadata(&whole).is_ok() {
                return Err(std::io::ErrorKind::AlreadyExists.into());
            }
            match fs::rename(&new, &whole) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::open(directory_of(path))?.sync_all()?;
        let mut marker = File::options().write(true).open(path)?;
        marker.write_all(ghostwire_store_sqlite::NATIVE_MARKER)?;
        marker.sync_all()?;
        File::open(directory_of(path))?.sync_all()
    };
    mark().map_err(|error| failed("a new store cannot be written", path, error))
}

fn database(file: &StoreFile) -> std::path::PathBuf {
    with_suffix(file.path(), NATIVE_FILE)
}

/// The library, if its self-test says that it is fit for this store.
fn admitted(file: &StoreFile, options: &NativeOptions) -> Result<Host> {
    let mut host = Host::new(options.program.clone(), &options.library)?;
    host.deadline = options.deadline;
    let program = &host.program.path;
    let admitted = admission::require(file.path(), &host.library, host.sha256, program);
    admitted.map_err(|error| error.with("path", file.path().display()))?;
    Ok(host)
}

fn not_stored(error: NotStored, file: &StoreFile) -> Error {
    match error {
        NotStored::Conflict => changed_elsewhere(),
        NotStored::Undone(error) if *error.kind() == ErrorKind::Unavailable => file.explain(error),
        NotStored::Undone(error) | NotStored::Unknown(error) => error,
    }
}

impl Native {
    /// Connects to a store that was made.
    pub(crate) fn open(file: &Arc<StoreFile>, options: &NativeOptions) -> Result<Self> {
        let host = admitted(file, options)?;
        let mut session = Self::session(file, &host)?;
        let index = Index::read(&mut session)?;
        let head = read_head(&mut session)?.into();
        let name = format!("native ({})", session.loaded().version);
        let next = index.next();
        let shared = Shared {
            session: Some(session),
            is_unknown: false,
            index,
            head,
            next,
            version: 0,
            live: BTreeMap::new(),
            kept: Kept::default(),
        };
        Ok(Self { shared: Mutex::new(shared), file: Arc::clone(file), host, name })
    }

    fn session(file: &StoreFile, host: &Host) -> Result<Session> {
        let database = database(file);
        // The library would make one.
        let is_file =
            fs::symlink_metadata(&database).is_ok_and(|it| it.is_file() && it.nlink() == 1);
        if !is_file {
            return Err(Error::corrupt(
                "the ZQLite library's database beside the store's file is missing, no regular file, or has \
                 several names; restore the store from a backup",
            )
            .with("database", database.display()));
        }
        let locked = Session::lock(host, &with_suffix(file.path(), NATIVE_LOCK_FILE))?;
        locked.open(&database, false, file.access() == Access::ReadOnly)
    }

    /// Runs `work` on the library's process. One that was lost since is replaced, if what is stored is
    /// still what it was.
    fn with<T>(&self, shared: &mut Shared, work: impl FnOnce(&mut Session) -> T) -> Result<T> {
        if shared.is_unknown {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "it is not known what is stored; reopen the store",
            ));
        }
        if shared.session.as_ref().is_none_or(Session::is_lost) {
            shared.session = None;
            let mut session = Self::session(&self.file, &self.host)?;
            if *read_head(&mut session)? != *shared.head {
                shared.is_unknown = true;
                return Err(changed_elsewhere());
            }
            tracing::warn!(
                db.system.name = "zqlite",
                child = session.child(),
                "the ZQLite library's process was lost, and another one was started"
            );
            shared.session = Some(session);
        }
        match &mut shared.session {
            Some(session) => Ok(work(session)),
            None => Err(Error::new(ErrorKind::Unexpected, "there is no library's process")),
        }
    }

    /// What is stored now, for as long as the snapshot lives.
    fn begin(&self) -> NativeSnapshot<'_> {
        let mut shared = locked(&self.shared);
        let version = shared.version;
        *shared.live.entry(version).or_default() += 1;
        let (index, head) = (shared.index.clone(), Arc::clone(&shared.head));
        NativeSnapshot::new(self, index, head, version)
    }

    /// Moves the head to itself, durably.
    fn touch(&self, head: &[u8]) -> Result<()> {
        self.write(&Batch::new(head.to_vec(), head.to_vec()))
    }
}

fn read_head(session: &mut Session) -> Result<Vec<u8>> {
    let mut head = None;
    session.read(&[HEAD], |_, value| {
        let value = value.and_then(|value| index::content(Header::HEAD, value));
        head = value.map(<[u8]>::to_vec);
        Ok(())
    })?;
    head.ok_or_else(|| {
        Error::corrupt("the store has no head, or one of another engine; restore it from a backup")
    })
}

impl Engine for Native {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        let mut shared = locked(&self.shared);
        self.write_locked(&mut shared, batch)
    }

    fn probe(&self, head: &[u8]) -> Result<()> {
        self.touch(head)
    }

    fn settle(&self) -> Result<()> {
        if self.file.access() == Access::ReadOnly {
            return Ok(());
        }
        let head = Arc::clone(&locked(&self.shared).head);
        self.touch(&head)
    }

    fn reserve(&self, _is_fresh: bool) -> Result<Box<dyn Reserved<'_> + '_>> {
        Ok(Box::new(Place(self)))
    }

    /// The interface has nothing for that. Whatever is read is checked by its seal, and everything is read.
    fn check_structure(&self, wanted: &Wanted) -> Result<()> {
        wanted.require()
    }

    fn writer_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(self.begin()))
    }

    fn bytes_in_use(&self) -> Result<u64> {
        let lengths = native_files_of(self.file.path()).filter_map(|file| fs::metadata(file).ok());
        Ok(lengths.map(|metadata| metadata.len()).sum())
    }

    /// As a store of the embedded engine, which needs no library.
    fn copy_to(&self, path: &Path) -> Result<()> {
        super::embedded::write_copy(path, &mut self.begin())
    }

    fn close(self: Box<Self>) -> Result<()> {
        match locked(&self.shared).session.take() {
            Some(session) => session.close(),
            None => Ok(()),
        }
    }
}

/// The engine, until a snapshot is taken: nobody has to wait for that.
struct Place<'e>(&'e Native);

impl<'e> Reserved<'e> for Place<'e> {
    fn begin(self: Box<Self>) -> Result<Box<dyn Snapshot + 'e>> {
        Ok(Box::new(self.0.begin()))
    }
}
