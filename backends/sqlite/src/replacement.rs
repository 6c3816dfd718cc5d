//! A smaller copy of the file that takes its place.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::Compacted;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::backup::Backup;
use crate::lock::{self, is_absent};
use crate::names::{COPY_FILE, LOCK_FILE, files_of};
use crate::{Access, StoreFile, failed, free_bytes, sync_directory, with_suffix};

/// A copy takes little more than the pages in use.
const MARGIN: u64 = 1024 * 1024;

/// A copy in the making, `<path>.compact.part`, which only its owner may read. Let the engine fill it and check
/// it, close every connection to the store, and then [`finish`](Replacement::finish); dropped before
/// that, it leaves the store as it was. Wherever that is broken off, one whole store has the name.
#[derive(Debug)]
pub(crate) struct Replacement<'f> {
    file: &'f StoreFile,
    copy: Backup,
    lock: CopyLock,
    before: u64,
}

/// Removes what a run that was broken off left of its copy. Nobody else makes one while the store is
/// locked.
pub(crate) fn remove_leftover(store: &Path) {
    let copy = with_suffix(store, COPY_FILE);
    let lock = with_suffix(&copy, LOCK_FILE);
    // What is no lock was left by somebody else.
    let lock =
        lock::existing(&lock, Access::ReadOnly).is_ok_and(|lock| lock.is_some()).then_some(lock);
    for file in files_of(&copy).chain(lock) {
        match fs::remove_file(&file) {
            Ok(()) => {
                tracing::info!(path = %file.display(), "removed: a compaction was broken off")
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %file.display(), %error, "a leftover copy stays"),
        }
    }
}

impl StoreFile {
    /// Begins a copy of a store that has so many bytes in use.
    ///
    /// # Errors
    /// `Exhausted` if the disk has no room for it; `PermissionDenied`, `ReadOnly`, `Unavailable`.
    pub(crate) fn begin_replacement(&self, in_use: u64) -> Result<Replacement<'_>> {
        let needed = in_use.saturating_add(MARGIN);
        if let Some(free) = free_bytes(self.path())?.filter(|free| *free < needed) {
            return Err(Error::new(
                ErrorKind::Exhausted,
                "the disk has no room for the copy that takes the store's place; make some",
            )
            .with("path", self.path().display())
            .with("bytes_needed", needed)
            .with("bytes_free", free));
        }
        let before = self.total_bytes();
        let part = with_suffix(self.path(), COPY_FILE);
        let copy = Backup::begin_in(part, self.path().to_owned(), self.path())?;
        let lock = with_suffix(copy.part(), LOCK_FILE);
        let lock = CopyLock(is_absent(&lock)?.then_some(lock));
        Ok(Replacement { file: self, copy, lock, before })
    }
}

impl Replacement<'_> {
    /// Where to write the copy.
    pub(crate) fn part(&self) -> &Path {
        self.copy.part()
    }

    /// Makes the copy durable and gives it the store's name.
    ///
    /// # Errors
    /// `Busy` if another program has the store open, or its log was not moved into it: SQLite would
    /// take that for the copy's. `Corrupt` if the store is not in its place any more. `Exhausted`,
    /// `Unavailable`.
    pub(crate) fn finish(self) -> Result<Compacted> {
        let Self { file, copy, lock, before } = self;
        drop(lock);
        file.require_in_place()?;
        file.log().require_unused()?;
        for suffix in ["-wal", "-shm"] {
            let beside = with_suffix(file.path(), suffix);
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(
                        "a file beside the store cannot be removed",
                        &beside,
                        error,
                    ));
                }
                _ => {}
            }
        }
        // Before the copy has the name: a log that came back with the power would be taken for its.
        sync_directory(file.path())?;
        copy.finish()?;
        Ok(Compacted { before, after: file.total_bytes() })
    }
}

/// The lock of whoever opened the copy to check it; nobody else knows of the copy. `None` if something
/// of that name was there before.
#[derive(Debug)]
struct CopyLock(Option<PathBuf>);

impl Drop for CopyLock {
    fn drop(&mut self) {
        if let Some(lock) = &self.0
            && let Err(error) = fs::remove_file(lock)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %lock.display(), %error, "the lock of a copy stays");
        }
    }
}
