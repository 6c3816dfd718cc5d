//! A pin in a file of two slots.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::keyring::{io, sync_directory_of};
use crate::pin::Pin;
use crate::pin::mark::{Mark, PinKey};
use crate::pin::slots::{SLOT, Slots, Step, advance, newest};

/// A pin in a file, locked as long as it is used. It belongs on another device than the store: what
/// brings back an older state of a disk brings back both.
#[derive(Debug)]
pub struct FilePin {
    path: PathBuf,
    file: File,
    key: PinKey,
    /// Once fenced, always: a clone of this store runs, and which of them is right is not to be
    /// guessed.
    fenced: bool,
}

impl FilePin {
    /// Makes an empty one.
    ///
    /// # Errors
    /// `Io` if there is a file already.
    pub fn create(path: &Path, key: PinKey) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        let file = options.open(path).map_err(io("create the pin", path))?;
        let mut pin = Self::locked(path, file, key)?;
        let written = pin.file.write_all(&[0; 2 * SLOT]).and_then(|()| pin.file.sync_all());
        written.map_err(io("write the pin", path))?;
        sync_directory_of(path)?;
        Ok(pin)
    }

    /// Opens one that exists; `None` if it does not.
    ///
    /// # Errors
    /// `Locked` if another process uses it; `Io`.
    pub fn open(path: &Path, key: PinKey) -> Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            file => Self::locked(path, file.map_err(io("open the pin", path))?, key).map(Some),
        }
    }

    /// Whether the file at `other` lies on the same device, which is no place for its pin; `None`
    /// where that cannot be told.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(unix)]
    pub fn shares_device_with(&self, other: &Path) -> Result<Option<bool>> {
        use std::os::unix::fs::MetadataExt as _;
        let ours = self.file.metadata().map_err(io("look at the pin", &self.path))?;
        let theirs = std::fs::metadata(other).map_err(io("look at", other))?;
        Ok(Some(ours.dev() == theirs.dev()))
    }

    /// Whether the file at `other` lies on the same device, which is no place for its pin; `None`
    /// where that cannot be told.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(not(unix))]
    pub fn shares_device_with(&self, _other: &Path) -> Result<Option<bool>> {
        Ok(None)
    }

    fn locked(path: &Path, file: File, key: PinKey) -> Result<Self> {
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), file, key, fenced: false }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(io("lock the pin", path)(error)),
        }
    }

    /// A file that was cut short reads as if zeros followed: of the slots that are left the newest
    /// counts.
    fn slots(&mut self) -> Result<Slots> {
        let mut slots = [[0; SLOT]; 2];
        let mut read = || {
            self.file.seek(SeekFrom::Start(0))?;
            for slot in &mut slots {
                let mut rest = slot.as_mut_slice();
                loop {
                    match self.file.read(rest)? {
                        0 => break,
                        length => rest = rest.split_at_mut(length).1,
                    }
                }
            }
            Ok(())
        };
        read().map_err(io("read the pin", &self.path))?;
        Ok(slots)
    }

    fn write(&mut self, slot: usize, bytes: &[u8; SLOT]) -> Result<()> {
        let at = if slot == 0 { 0 } else { SLOT as u64 };
        self.file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.write_all(bytes))
            .and_then(|()| self.file.sync_data())
            .map_err(io("write the pin", &self.path))
    }
}

impl Pin for FilePin {
    fn read(&mut self) -> Result<Option<Mark>> {
        let slots = self.slots()?;
        Ok(newest(&self.key, &slots)?.map(|(_, mark)| mark))
    }

    fn advance(&mut self, from: Option<&Mark>, to: &Mark) -> Result<()> {
        let commit = |mark: Option<&Mark>| mark.map(|mark| mark.commit);
        if self.fenced {
            return Err(Error::Fenced { holds: None, expected: commit(from) });
        }
        let slots = self.slots()?;
        match advance(&self.key, &slots, from, to) {
            Ok(Step::Write { slot, bytes }) => self.write(slot, &bytes),
            Ok(Step::Done) => Ok(()),
            Err(error) => {
                self.fenced = matches!(error, Error::Fenced { .. });
                Err(error)
            }
        }
    }
}
