//! The lock that keeps others out: an advisory one on a file beside the store's.
//!
//! Its text is a line with the process id of the last holder, for people, and once a store was made
//! a line that says which one. That stays when the store's file is lost, and then keeps anybody from
//! making an empty one in its place unnoticed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::{Access, failed, private_options};

/// The first line has this many bytes, so that writing it leaves the second one alone.
const HOLDER: usize = 20;

/// Held until dropped. The file itself stays: removing it would let two processes lock two files
/// of the same name.
#[derive(Debug)]
pub(crate) struct Lock(Option<File>);

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
                        return Ok(Self(None));
                    }
                }
            }
            Err(error) => {
                return Err(failed("the store's lock cannot be opened", lock_path, error));
            }
        };
        let outcome =
            if access == Access::ReadOnly { file.try_lock_shared() } else { file.try_lock() };
        match outcome {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, store_path)),
            Err(TryLockError::Error(error)) => {
                return Err(failed("the store's file system has no locks", lock_path, error));
            }
        }
        // Only for people; the lock is what counts. One reader of several would mislead them.
        let holder = match access {
            Access::ReadOnly => String::new(),
            _ => std::process::id().to_string(),
        };
        let noted = write_at(&file, 0, &format!("{holder:<0$}\n", HOLDER - 1));
        if let Err(error) = noted {
            tracing::debug!(path = %lock_path.display(), %error, "the lock does not say whose it is");
        }
        Ok(Self(Some(file)))
    }

    pub(crate) fn is_held(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it says already that this store is here. Without a lock there is nowhere to say it.
    pub(crate) fn names(&self, store: StoreId) -> bool {
        let line = line_of(store);
        self.0.as_ref().is_none_or(|file| noted(file).as_deref() == Some(line.trim()))
    }

    /// Says, durably, that this store is here.
    pub(crate) fn note(&self, store: StoreId) -> io::Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        let line = line_of(store);
        write_at(file, HOLDER as u64, &line)?;
        file.set_len((HOLDER + line.len()) as u64)?;
        file.sync_all()
    }
}

fn line_of(store: StoreId) -> String {
    format!("store {store}\n")
}

/// A child that this process is starting has a copy of every open file until it runs its program,
/// and a lock ends with the last copy. So it is given back, not only closed.
impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0
            && let Err(error) = file.unlock()
        {
            tracing::debug!(%error, "the lock ends when its file is closed");
        }
    }
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

fn held(file: &mut File, store_path: &Path) -> Error {
    let mut holder = String::new();
    let line = HOLDER as u64;
    let readable = file.rewind().and_then(|()| file.take(line).read_to_string(&mut holder));
    let holder = holder.trim().parse::<u32>().ok().filter(|_| readable.is_ok());
    let message = if holder == Some(std::process::id()) {
        "this process has this store open already; close it first"
    } else {
        "another process has this store open; stop it first"
    };
    let error = Error::new(ErrorKind::Busy, message).with("path", store_path.display());
    match holder {
        Some(pid) => error.with("pid", pid),
        None => error,
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
        let copy = lock.0.as_ref().unwrap().try_clone().unwrap();
        drop(lock);
        take().unwrap();
        drop(copy);
    }
}
