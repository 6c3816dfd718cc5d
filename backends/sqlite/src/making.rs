//! What is left of a store whose making failed: nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::Result;

use crate::lock::is_absent;
use crate::names::{LOCK_FILE, RESERVE_FILE, files_of, native_files_of, new_native_files_of};
use crate::{FileKind, with_suffix};

/// The files that making a store may bring and that were not there. Dropped before the store is whole,
/// it removes them; drop it while the lock is held and no engine has them open.
#[derive(Debug)]
pub(crate) struct Making(Vec<PathBuf>);

impl Making {
    /// Of a store whose own file is not there, and whose lock is held.
    pub(crate) fn begin(store: &Path, kind: FileKind, lock_is_new: bool) -> Result<Self> {
        let mut brought = Vec::new();
        let native = (kind == FileKind::ZQLITE_NATIVE)
            .then(|| native_files_of(store).chain(new_native_files_of(store)));
        let native = native.into_iter().flatten();
        for file in files_of(store).chain(native).chain([with_suffix(store, RESERVE_FILE)]) {
            if is_absent(&file)? {
                brought.push(file);
            }
        }
        // The last one: until then it keeps others out.
        brought.extend(lock_is_new.then(|| with_suffix(store, LOCK_FILE)));
        Ok(Self(brought))
    }

    /// The store is whole.
    pub(crate) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        for file in &self.0 {
            if let Err(error) = fs::remove_file(file)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %file.display(), %error, "what was begun of a store stays");
            }
        }
    }
}
