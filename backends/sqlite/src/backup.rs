//! Copies of the file, made before a migration.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::Result;

use crate::{create_private, failed, sync_directory, with_suffix};

/// A copy in the making. Let the engine write to [`Backup::part`], an empty file that only its
/// owner may read, and then [`finish`](Backup::finish); dropped before that, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Backup {
    part: PathBuf,
    path: PathBuf,
}

impl Backup {
    pub(crate) fn begin(path: PathBuf, store: &Path) -> Result<Self> {
        Self::begin_in(with_suffix(&path, ".part"), path, store)
    }

    /// With another name until it is finished.
    pub(crate) fn begin_in(part: PathBuf, path: PathBuf, store: &Path) -> Result<Self> {
        // What an earlier attempt left; nobody else makes one while the store is locked.
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("an unfinished backup cannot be removed", &part, error));
            }
            _ => {}
        }
        create_private(&part, store)
            .map_err(|error| failed("the backup cannot be made", &part, error))?;
        Ok(Self { part, path })
    }

    /// Where to write the copy.
    pub(crate) fn part(&self) -> &Path {
        &self.part
    }

    /// Makes the copy durable and gives it its name. The engine must have closed it.
    ///
    /// # Errors
    /// `Exhausted`, `Unavailable`.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        let failed = |error| failed("the backup cannot be finished", &self.part, error);
        File::open(&self.part).and_then(|file| file.sync_all()).map_err(failed)?;
        fs::rename(&self.part, &self.path).map_err(failed)?;
        sync_directory(&self.path)?;
        Ok(self.path.clone())
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.part)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.part.display(), %error, "an unfinished backup stays");
        }
    }
}
