//! A pin in a file of two slots.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::keyring::{io, sync_directory_of};
use crate::pin::Pin;
use crate::pin::mark::{Mark, PinKey};
use crate::pin::slots::{SLOT, Slots, Step, advance, filled, newest};

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
    /// A slot whose writing failed. What can be read of it may be in memory alone, so it is written
    /// again before anything else.
    unfinished: Option<(usize, Box<[u8; SLOT]>)>,
}

/// A program that is being started has a copy of every open file for a moment, and with it the lock, unless
/// it is given up by name.
impl Drop for FilePin {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
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

    /// The mark of a pin that nobody has open to move it, beside others who look; `None` if it has
    /// none, or there is no file.
    ///
    /// # Errors
    /// `Locked` if a store uses it; as [`Pin::read`].
    pub fn look(path: &Path, key: &PinKey) -> Result<Option<Mark>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io("open the pin", path))?,
        };
        held(path, file.try_lock_shared())?;
        let slots = read_slots(&mut file).map_err(io("read the pin", path));
        // See `Drop`.
        let _ = file.unlock();
        Ok(newest(key, &slots?)?.map(|(_, mark)| mark))
    }

    /// Whether the file at `other` lies on the device where a pin at `path` does, or would: no place for
    /// its pin. `None` where that cannot be told.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(unix)]
    pub fn shares_device(path: &Path, other: &Path) -> Result<Option<bool>> {
        use std::os::unix::fs::MetadataExt as _;

        use crate::keyring::directory_of;
        let ours = match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::metadata(directory_of(path))
            }
            found => found,
        };
        let ours = ours.map_err(io("look at the pin", path))?;
        let theirs = std::fs::metadata(other).map_err(io("look at", other))?;
        Ok(Some(ours.dev() == theirs.dev()))
    }

    /// Whether the file at `other` lies on the device where a pin at `path` does, or would: no place for
    /// its pin. `None` where that cannot be told.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn shares_device(_: &Path, _: &Path) -> Result<Option<bool>> {
        Ok(None)
    }

    fn locked(path: &Path, file: File, key: PinKey) -> Result<Self> {
        held(path, file.try_lock())?;
        Ok(Self { path: path.to_owned(), file, key, fenced: false, unfinished: None })
    }

    fn slots(&mut self) -> Result<Slots> {
        if let Some((slot, bytes)) = self.unfinished.take() {
            self.write(slot, bytes)?;
        }
        read_slots(&mut self.file).map_err(io("read the pin", &self.path))
    }

    fn write(&mut self, slot: usize, bytes: Box<[u8; SLOT]>) -> Result<()> {
        let at = if slot == 0 { 0 } else { SLOT as u64 };
        let written = self
            .file
            .seek(SeekFrom::Start(at))
            .and_then(|_| self.file.write_all(bytes.as_slice()))
            .and_then(|()| self.file.sync_data());
        written.map_err(|error| {
            self.unfinished = Some((slot, bytes));
            io("write the pin", &self.path)(error)
        })
    }
}

fn held(path: &Path, locked: Result<(), TryLockError>) -> Result<()> {
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => Error::Locked { path: path.to_owned() },
        TryLockError::Error(error) => io("lock the pin", path)(error),
    })
}

/// A file that was cut short reads as if zeros followed: of the slots that are left the newest counts.
fn read_slots(file: &mut File) -> std::io::Result<Slots> {
    let mut slots = [[0; SLOT]; 2];
    file.seek(SeekFrom::Start(0))?;
    for slot in &mut slots {
        let mut rest = slot.as_mut_slice();
        loop {
            match file.read(rest)? {
                0 => break,
                length => rest = rest.split_at_mut(length).1,
            }
        }
    }
    Ok(slots)
}

impl Pin for FilePin {
    fn read(&mut self) -> Result<Option<Mark>> {
        let slots = self.slots()?;
        Ok(newest(&self.key, &slots)?.map(|(_, mark)| mark))
    }

    fn rekey(&mut self, key: PinKey) {
        self.key = key;
    }

    fn replace(&mut self, to: &Mark) -> Result<()> {
        self.slots()?;
        // Once the first is durable it is the one that counts, and the other is only in the way.
        self.write(0, Box::new(filled(&self.key, to)))?;
        self.write(1, Box::new([0; SLOT]))
    }

    fn advance(&mut self, from: Option<&Mark>, to: &Mark) -> Result<()> {
        let commit = |mark: Option<&Mark>| mark.map(|mark| mark.commit);
        if self.fenced {
            return Err(Error::Fenced { holds: None, expected: commit(from) });
        }
        let slots = self.slots()?;
        match advance(&self.key, &slots, from, to) {
            Ok(Step::Write { slot, bytes }) => self.write(slot, Box::new(bytes)),
            Ok(Step::Done) => Ok(()),
            Err(error) => {
                self.fenced = matches!(error, Error::Fenced { .. });
                Err(error)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::signature::SignerId;

    fn mark(commit: u64) -> Mark {
        Mark {
            store: [7; 16],
            epoch: 0,
            commit,
            serial: commit,
            head: [1; 32],
            anchor: [2; 32],
            signer: SignerId::NONE,
        }
    }

    /// What a failed write left in memory is not taken for what is on the disk.
    #[test]
    fn a_write_that_failed_is_done_again_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let key = PinKey::of_plain_store(&Secret::take(&mut [5; 32]), &[7; 16]).unwrap();
        let mut pin = FilePin::create(&path, key.clone()).unwrap();
        pin.advance(None, &mark(1)).unwrap();
        let writable = std::mem::replace(&mut pin.file, File::open(&path).unwrap());
        let refused = pin.advance(Some(&mark(1)), &mark(2)).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused}");
        assert!(matches!(pin.read(), Err(Error::Io { .. })));
        pin.file = writable;
        assert_eq!(pin.read().unwrap(), Some(mark(2)));
        pin.advance(Some(&mark(2)), &mark(3)).unwrap();
        drop(pin);
        assert_eq!(FilePin::look(&path, &key).unwrap(), Some(mark(3)));
    }

    #[test]
    fn many_may_look_and_nobody_while_it_is_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let key = PinKey::of_plain_store(&Secret::take(&mut [5; 32]), &[7; 16]).unwrap();
        assert_eq!(FilePin::look(&path, &key).unwrap(), None);
        let mut pin = FilePin::create(&path, key.clone()).unwrap();
        pin.advance(None, &mark(1)).unwrap();
        assert!(matches!(FilePin::look(&path, &key), Err(Error::Locked { .. })));
        drop(pin);
        let looker = File::open(&path).unwrap();
        looker.try_lock_shared().unwrap();
        assert_eq!(FilePin::look(&path, &key).unwrap(), Some(mark(1)));
        let other = PinKey::of_plain_store(&Secret::take(&mut [5; 32]), &[8; 16]).unwrap();
        assert!(matches!(FilePin::look(&path, &other), Err(Error::OtherPinKey { .. })));
    }
}
