//! The file into which a store attests its state by itself.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use ghostwire_store_core::attest::AttestationSink;
use ghostwire_store_core::backend::Attestation;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{create_private, directory_of, failed, is_beside, with_suffix};

const TITLE: &[u8] = b"ghostwire-store attestation ";

/// Has the newest attestation, whole.
#[derive(Debug)]
pub(super) struct AttestationFile {
    path: PathBuf,
}

impl AttestationFile {
    /// In this file, which is not there yet, or is an attestation.
    ///
    /// # Errors
    /// `InvalidArgument` for one of the store's own; `Restricted` if something else is there.
    pub(super) fn new(path: &Path, store: &Path, key: &str) -> Result<Self> {
        if is_beside(store, path) {
            return Err(Error::invalid(
                "this names a file that the store uses itself; name another",
            )
            .with("key", key)
            .with("file", path.display())
            .with("path", store.display()));
        }
        let file = Self { path: path.to_owned() };
        file.require_replaceable().map(|()| file)
    }

    /// Another file may be anything, a key, or somebody's only copy.
    fn require_replaceable(&self) -> Result<()> {
        let mut beginning = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(TITLE.len() as u64).read_to_end(&mut beginning));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok(_) if beginning == TITLE || beginning.is_empty() => Ok(()),
            Ok(_) => Err(Error::new(
                ErrorKind::Restricted,
                "the file for attestations is there already, and is something else; name another",
            )
            .with("file", self.path.display())),
            Err(error) => {
                Err(failed("the file for attestations cannot be looked at", &self.path, error))
            }
        }
    }

    fn part(&self) -> PathBuf {
        with_suffix(&self.path, ".part")
    }

    /// Removes what a kill left of one that was being written. Nobody else writes any: the store is locked.
    pub(super) fn remove_part(&self) -> Result<()> {
        match fs::remove_file(self.part()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("what is left of an attestation cannot be removed", &self.part(), error))
            }
            _ => Ok(()),
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let (part, directory) = (self.part(), directory_of(&self.path));
        let mut file = create_private(&part, directory)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        sync(directory)
    }
}

impl AttestationSink for AttestationFile {
    fn publish(&self, attestation: &Attestation) -> Result<()> {
        self.require_replaceable()?;
        self.remove_part()?;
        self.replace(&attestation.text)
            .map_err(|error| failed("the attestation cannot be written", &self.path, error))
    }
}

#[cfg(unix)]
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}
