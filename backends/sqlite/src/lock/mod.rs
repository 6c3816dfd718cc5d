//! The lock that keeps others out: an advisory one on a file beside the store's.
//!
//! Its text is a line with the process id of the last holder, for people, and whether that is about to
//! give it back; and once a store was made a line that says which one. That stays when the store's file
//! is lost, and then keeps anybody from making an empty one in its place unnoticed.

mod text;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::opened::{is_named, require_one_name};
use crate::private::{create_private, directory_of};
use crate::wal::Sign;
use crate::{Access, failed};
use text::{CLOSING, HOLDER, Text, holder_line, store_line, write_at};

/// So long is waited for a store that is being closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// So long a reader waits for another that has the lock alone, which takes no time.
const GLANCE: Duration = Duration::from_millis(250);

/// Held until it is given back, or dropped. The file itself stays: removing it would let two
/// processes lock two files of the same name.
#[derive(Debug)]
pub(crate) struct Lock {
    /// `None` once it was given back, and where there is none to be had.
    file: Mutex<Option<File>>,
    access: Access,
    /// Where a writer would make one, if there is none.
    absent: Option<PathBuf>,
    is_new: bool,
    is_exclusive: bool,
    /// What a reader puts back, when nobody else has the store open.
    sign: Option<Sign>,
}

impl Lock {
    /// A reader that nobody else is beside has it alone until it [shares](Lock::share) it.
    pub(crate) fn take(lock_path: &Path, store_path: &Path, access: Access) -> Result<Self> {
        let began = Instant::now();
        loop {
            let Some((file, is_new)) = open(lock_path, store_path, access)? else {
                tracing::warn!(
                    path = %lock_path.display(),
                    "reading a store without a lock: nobody can write its directory"
                );
                let absent = Some(lock_path.to_owned());
                let (file, is_new, is_exclusive) = (Mutex::new(None), false, false);
                return Ok(Self { file, access, absent, is_new, is_exclusive, sign: None });
            };
            let is_exclusive = lock(&file, access, began)
                .map_err(|refused| refused.explained(lock_path, store_path))?;
            // Who held it may have removed the file, with the store that could not be made.
            if is_named(&file, lock_path)? {
                note_holder(&file, access, "");
                let (file, absent) = (Mutex::new(Some(file)), None);
                return Ok(Self { file, access, absent, is_new, is_exclusive, sign: None });
            }
        }
    }

    /// Whether nobody else has the store open, this process included.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// Lets other readers in, if this is one.
    pub(crate) fn share(&mut self, lock_path: &Path, store_path: &Path) -> Result<()> {
        if self.access == Access::ReadOnly && std::mem::take(&mut self.is_exclusive) {
            let file = self.file();
            if let Some(file) = file.as_ref() {
                // The one lock is given back before the other is taken.
                let shared = file.try_lock_shared().map_err(|error| Refused::by(file, error));
                shared.map_err(|refused| refused.explained(lock_path, store_path))?;
            }
        }
        Ok(())
    }

    pub(crate) fn is_held(&self) -> bool {
        self.file().is_some()
    }

    /// What is to be put back when it is given back.
    pub(crate) fn keep(&mut self, sign: Option<Sign>) {
        self.sign = sign;
    }

    /// Whether its file was made now.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Refuses, where nothing keeps a writer out, once one came: it makes a lock before anything else.
    pub(crate) fn require_no_writer(&self) -> Result<()> {
        match &self.absent {
            Some(path) if !is_absent(path)? => Err(Error::new(
                ErrorKind::Busy,
                "somebody began to write to the store while it was read without a lock, so what was \
                 read may be of two moments; try again",
            )
            .with("lock", path.display())),
            _ => Ok(()),
        }
    }

    /// Whether it says already that this database is here. Without a lock there is nowhere to say it.
    pub(crate) fn names(&self, side: SideId) -> bool {
        let line = store_line(side);
        self.file().as_ref().is_none_or(|file| noted(file).as_deref() == Some(line.trim()))
    }

    /// Says, durably, that this database is here.
    pub(crate) fn note(&self, side: SideId) -> io::Result<()> {
        let file = self.file();
        let Some(file) = file.as_ref() else { return Ok(()) };
        let line = store_line(side);
        write_at(file, HOLDER as u64, &line)?;
        file.set_len((HOLDER + line.len()) as u64)?;
        file.sync_all()
    }

    /// Lets whoever wants the lock wait for it a while.
    pub(crate) fn announce_release(&self) {
        if let Some(file) = self.file().as_ref() {
            note_holder(file, self.access, CLOSING);
        }
    }

    /// Gives it back. A child that this process is starting has a copy of every open file until it
    /// runs its program, and a lock ends with the last copy: so closing the file is not enough.
    pub(crate) fn release(&self) {
        let Some(file) = self.file().take() else { return };
        if let Some(sign) = &self.sign
            && file.try_lock().is_ok()
            && let Err(error) = sign.put_back()
        {
            tracing::debug!(%error, "the index of the log does not tell any more what is missing");
        }
        if let Err(error) = file.unlock() {
            tracing::debug!(%error, "the lock ends when its file is closed");
        }
    }

    /// The file is replaced as a whole.
    fn file(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.release();
    }
}

/// Why a lock is not to be had.
enum Refused {
    HeldBy(Text),
    Failed(io::Error),
}

impl Refused {
    fn by(file: &File, error: TryLockError) -> Self {
        match error {
            // What cannot be read tells of nobody.
            TryLockError::WouldBlock => {
                Self::HeldBy(Text::read(file).ok().flatten().unwrap_or_default())
            }
            TryLockError::Error(error) => Self::Failed(error),
        }
    }

    fn explained(self, lock_path: &Path, store_path: &Path) -> Error {
        match self {
            Self::HeldBy(holder) => holder.keeps_out(store_path),
            Self::Failed(error) => failed("the store's file system has no locks", lock_path, error),
        }
    }
}

/// Locks a file, also for a reader exclusively if it can be: the value says so. Waits for a holder that
/// is about to give it back.
fn lock(file: &File, access: Access, began: Instant) -> std::result::Result<bool, Refused> {
    loop {
        // Elsewhere than with flock(2) an exclusive lock does not become a shared one.
        let tried = match access == Access::ReadOnly && cfg!(not(unix)) {
            true => Err(TryLockError::WouldBlock),
            false => file.try_lock(),
        };
        let outcome = match tried {
            Err(TryLockError::WouldBlock) if access == Access::ReadOnly => {
                file.try_lock_shared().map(|()| false)
            }
            outcome => outcome.map(|()| true),
        };
        let refused = match outcome {
            Ok(is_exclusive) => return Ok(is_exclusive),
            Err(error) => Refused::by(file, error),
        };
        let patience = match &refused {
            Refused::HeldBy(holder) if holder.is_waited_for() => PATIENCE,
            // It may be a reader that is about to share it.
            Refused::HeldBy(_) if access == Access::ReadOnly => GLANCE,
            _ => Duration::ZERO,
        };
        if began.elapsed() >= patience {
            return Err(refused);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Opens the lock's file, and makes it if it is not there, which the second value says. `None` if it
/// is to be read only, there is none, and nobody can make one.
fn open(lock_path: &Path, store_path: &Path, access: Access) -> Result<Option<(File, bool)>> {
    let like = if is_absent(store_path)? { directory_of(store_path) } else { store_path };
    loop {
        if let Some(file) = existing(lock_path, access)? {
            return Ok(Some((file, false)));
        }
        let error = match create_private(lock_path, like) {
            Ok(file) => return Ok(Some((file, true))),
            // Somebody else made it in between.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => error,
        };
        if access != Access::ReadOnly || !is_denied(&error) {
            return Err(failed("the store's lock cannot be made", lock_path, error));
        }
        if nobody_can_write(directory_of(lock_path), &error) {
            return Ok(None);
        }
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the store has no lock, this process cannot make one, and without it nothing keeps a \
             writer out; run this as the store's user, or read a copy",
        )
        .with("path", lock_path.display())
        .because(error));
    }
}

/// Opens the lock's file as `access` needs it. `None` if it is not there.
pub(crate) fn existing(path: &Path, access: Access) -> Result<Option<File>> {
    let invalid = |what| Err(Error::invalid(what).with("path", path.display()));
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return invalid("the lock beside the store is not a regular file; remove it"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("the store's lock cannot be looked up", path, error)),
    }
    require_one_name(path)?;
    let opened = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if access == Access::ReadOnly && is_denied(&error) => File::open(path),
        opened => opened,
    };
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_open(path, error)),
    };
    match Text::read(&file) {
        Ok(Some(_)) => Ok(Some(file)),
        Ok(None) => invalid(
            "beside the store's path lies another file where its lock would be, and was left as it \
             is; name the store otherwise, or move that file away",
        ),
        Err(error) => Err(failed("the store's lock cannot be read", path, error)),
    }
}

/// Whether there is no lock of this name, or a file with nothing in it.
pub(crate) fn is_blank(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("the store's lock cannot be looked up", path, error)),
    }
}

/// Whose the lock is says who can use the store.
fn cannot_open(path: &Path, error: io::Error) -> Error {
    #[cfg(unix)]
    if error.kind() == io::ErrorKind::PermissionDenied
        && let Ok(metadata) = fs::symlink_metadata(path)
    {
        use std::os::unix::fs::MetadataExt;
        return Error::new(
            ErrorKind::PermissionDenied,
            "the store's lock belongs to another user, and without it a store is neither read nor \
             written; run this as that user, or give the lock to the store's user with `chown`",
        )
        .with("path", path.display())
        .with("owner", metadata.uid())
        .because(error);
    }
    failed("the store's lock cannot be opened", path, error)
}

/// Whether nobody, not only this process, can write a directory in which making a file failed so.
fn nobody_can_write(directory: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
        || fs::metadata(directory).is_ok_and(|metadata| metadata.permissions().readonly())
}

/// Whether there is nothing of this name. What cannot be looked up may be there.
pub(crate) fn is_absent(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("a file of the store cannot be looked up", path, error)),
    }
}

/// Says whose the lock is: for people, and for those who may wait. The lock is what counts.
fn note_holder(file: &File, access: Access, state: &str) {
    let pid = (access != Access::ReadOnly).then(std::process::id);
    if let Err(error) = write_at(file, 0, &holder_line(pid, state)) {
        tracing::debug!(%error, "the lock does not say whose it is");
    }
}

/// What the lock at `path` says of the store that was made beside it.
pub(crate) fn last_store(path: &Path) -> Result<Option<String>> {
    Ok(existing(path, Access::ReadOnly)?.as_ref().and_then(noted))
}

fn noted(file: &File) -> Option<String> {
    Text::read(file).ok()??.store
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl Text {
    fn is_waited_for(&self) -> bool {
        self.pid.is_some() && self.is_closing
    }

    fn keeps_out(&self, store_path: &Path) -> Error {
        let message = match (self.pid, self.is_waited_for()) {
            (_, true) => "the store is still being closed; try again later",
            (Some(pid), false) if pid == std::process::id() => {
                "this process has this store open already; close it first"
            }
            (Some(_), false) => "another process has this store open; stop it first",
            (None, false) => {
                "another process has this store open, and does not say which, as those do that only \
                 read: try again later, or look for it with `fuser` or `lsof` on the lock beside it"
            }
        };
        let error = Error::new(ErrorKind::Busy, message).with("path", store_path.display());
        match self.pid {
            Some(pid) => error.with("pid", pid),
            None => error,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_file_does_not_keep_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let (lock_path, store_path) =
            (directory.path().join("store.db.lock"), directory.path().join("store.db"));
        let take = || Lock::take(&lock_path, &store_path, Access::Create);
        let lock = take().unwrap();
        assert_eq!(*take().unwrap_err().kind(), ErrorKind::Busy);
        let copy = lock.file().as_ref().unwrap().try_clone().unwrap();
        drop(lock);
        take().unwrap();
        drop(copy);
    }

    /// Otherwise the next one would make a file of its own, and both would hold a lock.
    #[test]
    fn a_lock_whose_file_was_removed_while_it_was_waited_for_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let (lock_path, store_path) =
            (directory.path().join("store.db.lock"), directory.path().join("store.db"));
        let take = || Lock::take(&lock_path, &store_path, Access::Create);
        let first = take().unwrap();
        first.announce_release();
        std::thread::scope(|scope| {
            let second = scope.spawn(take);
            // It waits, or has not begun; either way it may hold only what has the name.
            fs::remove_file(&lock_path).unwrap();
            first.release();
            let second = second.join().unwrap().unwrap();
            assert_eq!(*take().unwrap_err().kind(), ErrorKind::Busy);
            assert!(second.is_held());
        });
    }

    #[test]
    fn a_reader_has_the_lock_alone_until_it_shares_it() {
        let directory = tempfile::tempdir().unwrap();
        let (lock_path, store_path) =
            (directory.path().join("store.db.lock"), directory.path().join("store.db"));
        let take = |access| Lock::take(&lock_path, &store_path, access);
        let mut first = take(Access::ReadOnly).unwrap();
        assert_eq!(first.is_exclusive(), cfg!(unix));
        first.share(&lock_path, &store_path).unwrap();
        let second = take(Access::ReadOnly).unwrap();
        assert!(!first.is_exclusive() && !second.is_exclusive());
        assert_eq!(*take(Access::Existing).unwrap_err().kind(), ErrorKind::Busy);
    }

    #[test]
    fn a_lock_that_is_about_to_be_given_back_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (lock_path, store_path) =
            (directory.path().join("store.db.lock"), directory.path().join("store.db"));
        let take = || Lock::take(&lock_path, &store_path, Access::Create);
        let lock = take().unwrap();
        lock.announce_release();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send(take()).unwrap());
            // Whoever waits has not been refused.
            assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
            lock.release();
            let next = receiver.recv().unwrap().unwrap();
            // It is no longer being closed.
            assert_eq!(*take().unwrap_err().kind(), ErrorKind::Busy);
            // Nor does a holder of before speak for it.
            lock.announce_release();
            assert_eq!(*take().unwrap_err().kind(), ErrorKind::Busy);
            drop(next);
        });
        take().unwrap();
    }
}
