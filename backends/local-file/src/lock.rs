//! The lock that keeps others out: an advisory one on a file beside the store's.
//!
//! Its text is a line with the process id of the last holder, for people, and whether that is about to
//! give it back; and once a store was made a line that says which one. That stays when the store's file is lost, and then keeps anybody from
//! making an empty one in its place unnoticed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::{Access, failed, private_options};

/// The first line has this many bytes, so that writing it leaves the second one alone.
const HOLDER: usize = 20;

/// So long is waited for a store that is being closed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a holder writes behind its process id before it gives the lock back.
const CLOSING: &str = "closing";

/// Held until it is given back, or dropped. The file itself stays: removing it would let two
/// processes lock two files of the same name.
#[derive(Debug)]
pub(crate) struct Lock {
    /// `None` once it was given back, and where there is none to be had.
    file: Mutex<Option<File>>,
    access: Access,
}

impl Lock {
    pub(crate) fn take(lock_path: &Path, store_path: &Path, access: Access) -> Result<Self> {
        if fs::symlink_metadata(lock_path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Error::invalid(
                "the lock beside the store is not a regular file; remove it",
            )
            .with("path", lock_path.display()));
        }
        let mut file = match open(lock_path) {
            Ok(file) => file,
            Err(error) if access == Access::ReadOnly && is_denied(&error) => {
                match File::open(lock_path) {
                    Ok(file) => file,
                    Err(_) => {
                        tracing::warn!(
                            path = %lock_path.display(),
                            "reading a store without a lock: the directory cannot be written"
                        );
                        return Ok(Self { file: Mutex::new(None), access });
                    }
                }
            }
            Err(error) => {
                return Err(failed("the store's lock cannot be opened", lock_path, error));
            }
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome =
                if access == Access::ReadOnly { file.try_lock_shared() } else { file.try_lock() };
            match outcome {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let holder = Holder::read(&mut file);
                    if !holder.is_closing || Instant::now() >= deadline {
                        return Err(holder.keeps_out(store_path));
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(failed("the store's file system has no locks", lock_path, error));
                }
            }
        }
        note_holder(&file, access, "");
        Ok(Self { file: Mutex::new(Some(file)), access })
    }

    pub(crate) fn is_held(&self) -> bool {
        self.file().is_some()
    }

    /// Whether it says already that this store is here. Without a lock there is nowhere to say it.
    pub(crate) fn names(&self, store: StoreId) -> bool {
        let line = line_of(store);
        self.file().as_ref().is_none_or(|file| noted(file).as_deref() == Some(line.trim()))
    }

    /// Says, durably, that this store is here.
    pub(crate) fn note(&self, store: StoreId) -> io::Result<()> {
        let file = self.file();
        let Some(file) = file.as_ref() else { return Ok(()) };
        let line = line_of(store);
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
        if let Some(file) = self.file().take()
            && let Err(error) = file.unlock()
        {
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

/// Says whose the lock is: for people, and for those who may wait. The lock is what counts. One
/// reader of several would mislead.
fn note_holder(file: &File, access: Access, state: &str) {
    let holder = match access {
        Access::ReadOnly => String::new(),
        _ => format!("{} {state}", std::process::id()),
    };
    if let Err(error) = write_at(file, 0, &format!("{holder:<0$}\n", HOLDER - 1)) {
        tracing::debug!(%error, "the lock does not say whose it is");
    }
}

fn line_of(store: StoreId) -> String {
    format!("store {store}\n")
}

fn open(path: &Path) -> io::Result<File> {
    private_options().read(true).write(true).create(true).truncate(false).open(path)
}

fn write_at(mut file: &File, at: u64, text: &str) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    file.write_all(text.as_bytes())
}

/// What the lock at `path` says of the store that was made beside it.
pub(crate) fn last_store(path: &Path) -> Option<String> {
    File::open(path).ok().as_ref().and_then(noted)
}

/// Whatever stands there, even half of it, was written when there was a store.
fn noted(mut file: &File) -> Option<String> {
    const LONGEST: u64 = 100;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(HOLDER as u64)).ok()?;
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Who has the lock, as far as its file tells.
struct Holder {
    pid: Option<u32>,
    is_closing: bool,
}

impl Holder {
    fn read(file: &mut File) -> Self {
        let (mut text, line) = (String::new(), HOLDER as u64);
        if file.rewind().and_then(|()| file.take(line).read_to_string(&mut text)).is_err() {
            text.clear();
        }
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok());
        Self { pid, is_closing: pid.is_some() && words.next() == Some(CLOSING) }
    }

    fn keeps_out(&self, store_path: &Path) -> Error {
        let message = match (self.pid == Some(std::process::id()), self.is_closing) {
            (_, true) => "the store is still being closed; try again later",
            (true, false) => "this process has this store open already; close it first",
            (false, false) => "another process has this store open; stop it first",
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
