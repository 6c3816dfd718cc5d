//! The keyring's file: replaced as a whole or not at all, by one process at a time.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::keyring::LONGEST_FILE;

/// The right to replace a keyring, as long as it lives. Reading needs none: whoever reads finds one
/// generation or the next.
#[derive(Debug)]
pub struct KeyringFile {
    path: PathBuf,
    like: PathBuf,
    lock: File,
}

/// By name: a program that is being started has a copy of every open file for a moment.
impl Drop for KeyringFile {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl KeyringFile {
    /// Takes the lock beside the keyring, `<path>.lock`, which is made if it is missing. The
    /// keyring need not exist. What is made belongs to whoever owns `like`, such as the store, if
    /// this process may give it away.
    ///
    /// # Errors
    /// `Locked` if another process has it. `Io`.
    pub fn lock(path: &Path, like: &Path) -> Result<Self> {
        let at = beside(path, ".lock");
        let lock = open_lock(&at, like).map_err(io("open the lock", &at))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), like: like.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: at }),
            Err(TryLockError::Error(error)) => Err(io("lock", &at)(error)),
        }
    }

    /// The file's bytes; `None` if there is none.
    ///
    /// # Errors
    /// `Corrupt` if it is too long to be one. `Io`.
    pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io("open the keyring", path))?,
        };
        let mut bytes = Vec::new();
        let most = u64::try_from(LONGEST_FILE).unwrap_or(u64::MAX);
        file.take(most + 1).read_to_end(&mut bytes).map_err(io("read the keyring", path))?;
        if bytes.len() > LONGEST_FILE {
            return Err(Error::corrupt("keyring", "it is too long"));
        }
        Ok(Some(bytes))
    }

    /// Replaces the keyring whose SHA-256 is `expected` (`None`: there must be none) with `bytes`.
    /// They are written beside it, synced, read back and given to `check`, which opens them; only
    /// then do they take its place. Whatever fails before that, the keyring that was there is still
    /// there.
    ///
    /// # Errors
    /// `Refused` if the keyring is another one than expected; what `check` says; `Io`.
    pub fn replace<T>(
        &self,
        expected: Option<&[u8; 32]>,
        bytes: &[u8],
        check: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let found = Self::read(&self.path)?.map(|found| sha256(&[&found]));
        if found.as_ref() != expected {
            let why = "it is not the one that was read; read it again and repeat the change";
            return Err(Error::Refused { what: "replace the keyring", why });
        }
        let new = beside(&self.path, ".new");
        let replaced = self.replace_by(&new, bytes, check);
        if replaced.is_err() {
            // It is sealed, and the next one to write does the same.
            let _ = fs::remove_file(&new);
        }
        replaced
    }

    fn replace_by<T>(
        &self,
        new: &Path,
        bytes: &[u8],
        check: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        // Of somebody who was killed while writing: nobody else has the lock.
        match fs::remove_file(new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", new)(error));
            }
            _ => {}
        }
        let mut file = private(OpenOptions::new().write(true).create_new(true))
            .open(new)
            .map_err(io("create", new))?;
        give(&file, &self.like);
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", new))?;
        drop(file);
        let read = Self::read(new)?.unwrap_or_default();
        if read != bytes {
            return Err(Error::corrupt("keyring", "it was not read back as it was written"));
        }
        let checked = check(&read)?;
        fs::rename(new, &self.path).map_err(io("rename the new keyring to", &self.path))?;
        sync_directory_of(&self.path)?;
        Ok(checked)
    }
}

/// One that is there stays whose it is: its owner may have put a link there, to what is not theirs.
fn open_lock(at: &Path, like: &Path) -> std::io::Result<File> {
    match private(OpenOptions::new().write(true).create_new(true)).open(at) {
        Ok(made) => {
            give(&made, like);
            Ok(made)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(at)
        }
        Err(error) => Err(error),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(ending);
    path.with_file_name(name)
}

/// Files are for their owner alone, though what is in them is sealed.
#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Root may look after the store of a service, which has to read what root made.
#[cfg(unix)]
fn give(file: &File, like: &Path) {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    if let (Ok(wanted), Ok(found)) = (fs::metadata(like), file.metadata())
        && wanted.uid() != found.uid()
    {
        // Who may not give it away is not root, and keeps it.
        let _ = fchown(file, Some(wanted.uid()), Some(wanted.gid()));
    }
}

#[cfg(not(unix))]
fn give(_: &File, _: &Path) {}

/// So that a new name survives the loss of power.
#[cfg(unix)]
pub(crate) fn sync_directory_of(path: &Path) -> Result<()> {
    let directory = directory_of(path);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io("sync the directory", directory))
}

#[cfg(unix)]
pub(crate) fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.unwrap_or(Path::new("."))
}

#[cfg(not(unix))]
pub(crate) fn sync_directory_of(_: &Path) -> Result<()> {
    Ok(())
}

pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::Io { doing, path, error }
}
