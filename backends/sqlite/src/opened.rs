//! Whether a path still names what was opened there.
//!
//! A file that is open stays a file after it was moved or removed: writes to it succeed, and nobody
//! finds them at the path again. While a file is open nothing else gets its number, so that the
//! device and the number tell whether a path names it.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use ghostwire_store_core::backend::{Displaced, FilePart};
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::{NATIVE_FILE, failed, with_suffix};

/// Tells a file from every other one that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    number: u64,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    identity: Identity,
    /// Hard links.
    names: u64,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The path names nothing.
    Gone,
    /// The path names something else.
    Replaced,
    /// So many paths name it.
    Named(u64),
}

impl Named {
    /// What `path` names, without following it if it is a symbolic link: whoever opens the store
    /// by such a link takes the lock beside its target.
    fn look(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(error),
            },
        }
    }

    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        let identity = Identity { device: metadata.dev(), number: metadata.ino() };
        Self { identity, names: metadata.nlink() }
    }

    /// Elsewhere a file that is open cannot be moved or removed.
    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Self {
        Self { identity: Identity { device: 0, number: 0 }, names: 1 }
    }
}

/// How what a path names now differs from the file that was opened there.
fn change(opened: Identity, found: Option<Named>) -> Option<Change> {
    match found {
        None => Some(Change::Gone),
        Some(found) if found.identity != opened => Some(Change::Replaced),
        Some(found) if found.names > 1 => Some(Change::Named(found.names)),
        Some(_) => None,
    }
}

/// A file that was opened.
#[derive(Debug)]
struct Opened {
    part: FilePart,
    path: PathBuf,
    identity: Identity,
}

impl Opened {
    /// The file that `path` names. `None` if it names none.
    fn find(part: FilePart, path: PathBuf) -> Result<Option<Self>> {
        let found = look(&path)?;
        Ok(found.map(|Named { identity, .. }| Self { part, path, identity }))
    }

    fn change(&self) -> Result<Option<Change>> {
        Ok(change(self.identity, look(&self.path)?))
    }
}

fn look(path: &Path) -> Result<Option<Named>> {
    Named::look(path).map_err(|error| failed("the store's file cannot be looked up", path, error))
}

/// Whether `path` names this file.
pub(crate) fn is_named(file: &File, path: &Path) -> Result<bool> {
    let metadata = file
        .metadata()
        .map_err(|error| failed("an open file of the store cannot be looked up", path, error))?;
    let identity = Named::of(&metadata).identity;
    Ok(look(path)?.is_some_and(|named| named.identity == identity))
}

/// Refuses a file that has several names: SQLite names the log after the path by which the file is
/// opened, and so does the lock, so that whoever opens another one knows of neither.
pub(crate) fn require_one_name(path: &Path) -> Result<()> {
    match look(path)? {
        Some(Named { names, .. }) if names > 1 => Err(Error::invalid(
            "the file has several names (hard links), and each would have a log and a lock of its \
             own; remove all but one, and make copies with `cp`",
        )
        .with("path", path.display())
        .with("names", names)),
        _ => Ok(()),
    }
}

/// The files of an open store, as they were when they were opened.
#[derive(Debug)]
pub(crate) struct OpenedFiles {
    store: Opened,
    lock: Option<Opened>,
    log: Mutex<Option<Opened>>,
    /// The first change that was found. Who moves a file back may have let others write to it, so
    /// it is not forgotten.
    changed: OnceLock<(FilePart, PathBuf, Change)>,
}

impl OpenedFiles {
    /// Of a store whose lock, if there is one, is held.
    pub(crate) fn of(path: &Path, is_locked: bool) -> Result<Self> {
        let gone = |path: &Path| lost(FilePart::Store, path, Change::Gone);
        let store = Opened::find(FilePart::Store, path.to_owned())?.ok_or_else(|| gone(path))?;
        let lock = match is_locked {
            true => {
                let lock = with_suffix(path, ".lock");
                require_one_name(&lock)?;
                let gone = lost(FilePart::Lock, &lock, Change::Gone);
                Some(Opened::find(FilePart::Lock, lock)?.ok_or(gone)?)
            }
            false => None,
        };
        Ok(Self { store, lock, log: Mutex::default(), changed: OnceLock::new() })
    }

    /// Takes the log that is there for the one that the engine has open.
    pub(crate) fn watch_log(&self, must_exist: bool) -> Result<()> {
        let path = with_suffix(&self.store.path, "-wal");
        let gone = lost(FilePart::Log, &path, Change::Gone);
        let found = Opened::find(FilePart::Log, path)?;
        if must_exist && found.is_none() {
            return Err(gone);
        }
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = found;
        self.require()
    }

    /// Takes the library's database that is there for the one that the native engine has open.
    pub(crate) fn watch_database(&self) -> Result<()> {
        let path = with_suffix(&self.store.path, NATIVE_FILE);
        let gone = lost(FilePart::Store, &path, Change::Gone);
        let found = Opened::find(FilePart::Store, path)?.ok_or(gone)?;
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        self.require()
    }

    /// Whether such a change was found, at what, and whether everything is where it was by now. Looks for no new one.
    pub(crate) fn displaced(&self) -> Option<(Displaced, FilePart)> {
        let (part, ..) = self.changed.get()?;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let mut opened =
            [Some(&self.store), log.as_ref(), self.lock.as_ref()].into_iter().flatten();
        let is_back = opened.all(|opened| matches!(opened.change(), Ok(None)));
        Some((if is_back { Displaced::Back } else { Displaced::Away }, *part))
    }

    /// Whether the file itself was found somewhere else once, and is in its place.
    pub(crate) fn was_away_and_is_back(&self) -> bool {
        let is_store = |(part, ..): &(FilePart, PathBuf, Change)| *part == FilePart::Store;
        self.changed.get().is_some_and(is_store) && matches!(self.store.change(), Ok(None))
    }

    /// Refuses once a path named something else than what was opened.
    pub(crate) fn require(&self) -> Result<()> {
        if self.changed.get().is_none() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            for opened in [Some(&self.store), log.as_ref(), self.lock.as_ref()] {
                let Some(opened) = opened else { continue };
                if let Some(change) = opened.change()? {
                    let found = (opened.part, opened.path.clone(), change);
                    // Somebody else may have found one at the same time.
                    let _ = self.changed.set(found);
                    break;
                }
            }
        }
        match self.changed.get() {
            None => Ok(()),
            Some((part, path, change)) => Err(lost(*part, path, *change)),
        }
    }
}

fn lost(part: FilePart, path: &Path, change: Change) -> Error {
    let (what, advice) = match part {
        FilePart::Store => (
            "file",
            "stop this process, put the file back or restore a backup without a `-wal` file \
             beside it, and open it again",
        ),
        FilePart::Log => ("log", "close the store, which moves what the log held into the file"),
        FilePart::Lock => (
            "lock",
            "another process may have the store open, too: stop this one, look for the other, and \
             open it again",
        ),
    };
    let error = match change {
        Change::Gone => Error::corrupt(format!(
            "the store's {what} was removed or moved away while it was open"
        ))
        .with("help", advice),
        Change::Replaced => Error::corrupt(format!(
            "the store's {what} was replaced by another one while it was open"
        ))
        .with("help", advice),
        Change::Named(names) => Error::corrupt(format!(
            "the store's {what} got another name (a hard link) while it was open, by which others \
             may open it; remove that name, and open the store again"
        ))
        .with("names", names),
    };
    error.with("path", path.display())
}

/// What a commit gives of which it cannot be told whether anybody will find it again.
#[must_use]
pub fn unconfirmed(error: Error) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the commit was written, but maybe not to where the store's path leads",
    )
    .because(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn named(device: u64, number: u64, names: u64) -> Option<Named> {
        Some(Named { identity: Identity { device, number }, names })
    }

    #[test]
    fn a_file_is_its_device_and_number_and_has_one_name() {
        let opened = Identity { device: 1, number: 7 };
        assert_eq!(change(opened, named(1, 7, 1)), None);
        assert_eq!(change(opened, None), Some(Change::Gone));
        assert_eq!(change(opened, named(1, 8, 1)), Some(Change::Replaced));
        assert_eq!(change(opened, named(2, 7, 1)), Some(Change::Replaced));
        assert_eq!(change(opened, named(1, 7, 3)), Some(Change::Named(3)));
        assert_eq!(change(opened, named(1, 8, 3)), Some(Change::Replaced));
    }

    #[test]
    fn every_refusal_says_which_file_and_what_to_do() {
        for part in [FilePart::Store, FilePart::Log, FilePart::Lock] {
            for change in [Change::Gone, Change::Replaced, Change::Named(2)] {
                let text = lost(part, Path::new("/data/store.db"), change).to_string();
                assert!(text.contains("path=/data/store.db"), "{text}");
                let advice = ["open it again", "open the store again", "close the store"];
                assert!(advice.iter().any(|advice| text.contains(advice)), "{text}");
            }
        }
    }
}
