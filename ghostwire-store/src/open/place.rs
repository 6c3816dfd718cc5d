//! Where a new store is to be.

use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{create_private_directory, directory_of, failed, require_file_name};

use super::Opener;
use crate::hash_key::hash_key_is_absent;

impl Opener<'_> {
    /// Before a store may be made: refuses to make one beside the key of one that was lost, and
    /// makes the store's own directory, but not the one above it: a path with a typo is an error.
    ///
    /// `has_key` says that the key is to be there: of the network that the store becomes a copy of.
    pub(super) fn prepare(&self, has_key: bool) -> Result<MadeDirectory> {
        let path = self.config.backend.path().filter(|path| self.may_make() && is_missing(path));
        let Some(path) = path else { return Ok(MadeDirectory(None)) };
        require_file_name(path)?;
        // One that was configured by name may be meant for a new store, too.
        let is_its_own =
            !has_key && self.config.secret_key_file.is_none() && !self.is_key_in_keyring();
        let key = self.config.secret_key_path().filter(|_| is_its_own);
        if let Some(key) = key
            && !hash_key_is_absent(&key)?
        {
            return Err(Error::new(
                ErrorKind::NotFound,
                "here lies the hash key of a store, and its file is gone",
            )
            .with("path", path.display())
            .with("secret_key_file", key.display())
            .with(
                "help",
                "restore the file; or, to begin anew, remove the key (or name it as `secret_key_file` to \
                 go on using it), and what else `gwstore doctor` finds there",
            ));
        }
        let directory = directory_of(path);
        match create_private_directory(directory) {
            Ok(()) => Ok(MadeDirectory(Some(directory.to_owned()))),
            // Whatever it is, opening tells whether it will do.
            Err(_) if directory.symlink_metadata().is_ok() => Ok(MadeDirectory(None)),
            Err(error) => {
                let is_deep = error.kind() == std::io::ErrorKind::NotFound;
                let error = failed("the store's directory cannot be made", directory, error);
                Err(match is_deep {
                    true => {
                        error.with("help", "make the directory above it first, or correct the path")
                    }
                    false => error,
                })
            }
        }
    }
}

/// A directory that was made for a store. Dropped, it is gone again if nothing is in it.
#[derive(Debug)]
pub(super) struct MadeDirectory(Option<PathBuf>);

impl MadeDirectory {
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for MadeDirectory {
    fn drop(&mut self) {
        if let Some(directory) = &self.0
            && let Err(error) = std::fs::remove_dir(directory)
        {
            tracing::debug!(path = %directory.display(), %error, "the directory stays");
        }
    }
}

/// Whether there is no store at this path, or an empty file. What cannot be looked up may be one.
pub(super) fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).map_or_else(
        |error| error.kind() == std::io::ErrorKind::NotFound,
        |metadata| metadata.is_file() && metadata.len() == 0,
    )
}
