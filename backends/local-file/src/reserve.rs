//! Room on the disk that is kept for the day when it is full.
//!
//! Pruning frees pages of the file, but is a commit like others, and a commit needs room in the log
//! first. So a full disk could not be relieved by retention. A file beside the store holds a few MiB
//! and is removed when a commit that frees something finds no room.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{RESERVE_FILE, with_suffix};

/// As many pages as the log has before it is moved into the file, which may have to grow by them.
const BYTES: u64 = 4 * 1024 * 1024;
/// Whether it can be made again is tried once in so many commits.
const COMMITS_PER_TRY: u32 = 64;

/// The room, while there is some.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Commits since it was given up or could not be made; 0 while it is there.
    missing_for: AtomicU32,
}

impl Reserve {
    /// Of the store at this path, which is written.
    pub(crate) fn beside(store: &Path) -> Self {
        let reserve =
            Self { path: with_suffix(store, RESERVE_FILE), missing_for: AtomicU32::new(0) };
        reserve.make();
        reserve
    }

    fn make(&self) {
        let made = match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() == BYTES => Ok(()),
            _ => set_aside(&self.path),
        };
        if let Err(error) = &made {
            // Half of it would be of no use, and in the way.
            let _ = fs::remove_file(&self.path);
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
        let has_plenty = || crate::free_bytes(&self.path).is_ok_and(|free| free > Some(4 * BYTES));
        if commits.is_multiple_of(COMMITS_PER_TRY) && has_plenty() {
            self.make();
        }
    }
}

/// Makes a file whose blocks are set aside, not only promised.
#[cfg(target_os = "linux")]
fn set_aside(path: &Path) -> std::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let file = crate::private_options().write(true).create(true).truncate(true).open(path)?;
    Ok(fallocate(&file, FallocateFlags::empty(), 0, BYTES)?)
}

#[cfg(not(target_os = "linux"))]
fn set_aside(_: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
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
        let reserve = Reserve::beside(&directory.path().join("store.db"));
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
}
