//! Room on the disk that is kept for the day when it is full.
//!
//! Pruning frees pages of the file, but is a commit like others, and a commit needs room in the log
//! first. So a full disk could not be relieved by retention. A file beside the store holds a few MiB
//! and is removed when a commit that frees something finds no room.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::read::fill;
use crate::{RESERVE_FILE, create_private, with_suffix};

/// As many pages as the log has before it is moved into the file, which may have to grow by them.
const BYTES: u64 = 4 * 1024 * 1024;
/// Whether it can be made again is tried once in so many commits.
const COMMITS_PER_TRY: u32 = 64;

/// The room, while there is some.
#[derive(Debug)]
pub(crate) struct Reserve {
    store: PathBuf,
    path: PathBuf,
    /// Commits since it was given up or could not be made; 0 while it is there.
    missing_for: AtomicU32,
}

impl Reserve {
    /// Of the store at this path, which is written.
    pub(crate) fn beside(store: &Path) -> Self {
        let path = with_suffix(store, RESERVE_FILE);
        let reserve = Self { store: store.to_owned(), path, missing_for: AtomicU32::new(0) };
        reserve.make();
        reserve
    }

    fn make(&self) {
        let made = match found(&self.path) {
            Ok(Found::Room) => Ok(()),
            // The last room is for what is to be stored.
            Ok(Found::Nothing | Found::Less) if !self.has_plenty() => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Ok(Found::Nothing) => set_aside(&self.path, &self.store),
            // What is broken off leaves less.
            Ok(Found::Less) => {
                fs::remove_file(&self.path).and_then(|()| set_aside(&self.path, &self.store))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &made {
            tracing::debug!(path = %self.path.display(), %error, "no room is kept for a full disk");
        }
        self.missing_for.store(u32::from(made.is_err()), Ordering::Relaxed);
    }

    /// Gives the room back to the disk. Tells whether there was some.
    pub(crate) fn give_up(&self) -> bool {
        if self.missing_for.swap(1, Ordering::Relaxed) > 0 {
            return false;
        }
        match fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!(
                    path = %self.path.display(),
                    "the disk is full; the room that was kept for it is used to free pages. Make room"
                );
                true
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the kept room stays unused");
                false
            }
        }
    }

    /// To be called after a commit: keeps room again once there is plenty.
    pub(crate) fn restore(&self) {
        if self.missing_for.load(Ordering::Relaxed) == 0 {
            return;
        }
        let commits = self.missing_for.fetch_add(1, Ordering::Relaxed);
        if commits.is_multiple_of(COMMITS_PER_TRY) {
            self.make();
        }
    }

    fn has_plenty(&self) -> bool {
        crate::free_bytes(&self.path).is_ok_and(|free| free > Some(4 * BYTES))
    }
}

/// What has the name.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Room,
    /// The beginning of it.
    Less,
}

/// Looks at what is there. Another file of this name is an error, and stays.
fn found(path: &Path) -> io::Result<Found> {
    let length = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(io::Error::other("something else has this name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; 4096];
    fill(&mut File::open(path)?, &mut bytes)?;
    match length {
        _ if length > BYTES || bytes != [0; 4096] => {
            Err(io::Error::other("another file has this name"))
        }
        BYTES => Ok(Found::Room),
        _ => Ok(Found::Less),
    }
}

/// Makes a file whose blocks are set aside, not only promised.
#[cfg(target_os = "linux")]
fn set_aside(path: &Path, store: &Path) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let file = create_private(path, store)?;
    fallocate(&file, FallocateFlags::empty(), 0, BYTES).map_err(|error| {
        // Half of it would be of no use, and in the way.
        let _ = fs::remove_file(path);
        error.into()
    })
}

#[cfg(not(target_os = "linux"))]
fn set_aside(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn it_is_there_until_it_is_given_up_and_comes_back_with_room() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store.db");
        fs::write(&store, "").unwrap();
        let reserve = Reserve::beside(&store);
        let metadata = || fs::metadata(&reserve.path);
        if metadata().is_err() {
            // This file system cannot set room aside.
            assert!(!reserve.give_up());
            return;
        }
        assert_eq!(metadata().unwrap().len(), BYTES);
        assert!(metadata().unwrap().blocks() * 512 >= BYTES);
        assert!(reserve.give_up());
        assert!(metadata().is_err() && !reserve.give_up());
        (0..=COMMITS_PER_TRY).for_each(|_| reserve.restore());
        assert_eq!(metadata().is_ok(), crate::free_bytes(&reserve.path).unwrap() > Some(4 * BYTES));
    }

    #[test]
    fn another_file_of_its_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store.db");
        let path = with_suffix(&store, RESERVE_FILE);
        let other = directory.path().join("other");
        fs::write(&store, "").unwrap();
        fs::write(&other, "mine").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let keep = || assert!(!Reserve::beside(&store).give_up());
        keep();
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        for content in [b"mine".to_vec(), vec![1; 4 * 1024 * 1024], vec![0; 5 * 1024 * 1024]] {
            fs::write(&path, &content).unwrap();
            keep();
            assert!(fs::read(&path).unwrap() == content);
        }
    }
}
