//! What is to be known of a keyring without opening it.

use std::fmt;
use std::path::PathBuf;

use ghostwire_store::Result;
use ghostwire_store::config::Config;
use serde_json::{Value, json};

/// What a keyring's header says.
pub(crate) struct Summary {
    path: PathBuf,
    generation: u64,
    versions: Vec<u32>,
    recipients: Vec<String>,
    has_passphrase: bool,
}

impl Summary {
    pub(crate) fn object(&self) -> Value {
        json!({
            "path": self.path,
            "generation": self.generation,
            "data_key_versions": self.versions,
            "recipients": self.recipients,
            "passphrase": self.has_passphrase,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.versions.iter().map(u32::to_string).collect();
        write!(
            f,
            "{}, generation {}, data key versions {}, sealed to {}",
            self.path.display(),
            self.generation,
            versions.join(", "),
            self.recipients.join(", "),
        )
    }
}

#[cfg(feature = "zqlite")]
mod sealed {
    use ghostwire_store::Opener;
    use ghostwire_store::keys::Keys;

    use super::{Config, PathBuf, Result, Summary};

    /// Of the configured store's keyring; `None` if the store has none.
    pub(crate) fn header(config: &Config) -> Result<Option<Summary>> {
        let Some(keys) = Keys::of(config) else { return Ok(None) };
        let header = keys.header()?;
        Ok(Some(Summary {
            path: keys.path(),
            generation: header.generation,
            versions: header.versions,
            recipients: header.recipients.iter().map(ToString::to_string).collect(),
            has_passphrase: header.passphrase.is_some(),
        }))
    }

    /// What is plain beside the configured store; `None` if that is not sealed.
    pub(crate) async fn plaintext_beside(config: &Config) -> Result<Option<Vec<PathBuf>>> {
        match Keys::of(config) {
            Some(_) => Opener::new(config).plaintext_beside().await.map(Some),
            None => Ok(None),
        }
    }

    /// The keyring and the root secret of a sealed store, as far as they have files of their own.
    pub(crate) fn files(config: &Config) -> Vec<PathBuf> {
        let Some(keys) = Keys::of(config) else { return Vec::new() };
        [Some(keys.path()), keys.development_root()].into_iter().flatten().collect()
    }

    /// Whether the store has its hash key in its keyring, and whether that is still to be used.
    pub(crate) fn is_unused(config: &Config) -> Result<Option<bool>> {
        match Keys::of(config).filter(|_| config.secret_key_file.is_none()) {
            Some(keys) => Ok(Some(keys.is_absent()? || keys.is_unused()?)),
            None => Ok(None),
        }
    }

    /// The keyring that is there without its store.
    pub(crate) fn lost(config: &Config) -> Option<PathBuf> {
        let keys = Keys::of(config)?;
        let is_lost = !keys.is_absent().unwrap_or(true) && !keys.is_unused().unwrap_or(true);
        is_lost.then(|| keys.path())
    }
}

#[cfg(feature = "zqlite")]
pub(crate) use sealed::{files, header, is_unused, lost, plaintext_beside};

#[cfg(not(feature = "zqlite"))]
mod plain {
    use super::{Config, PathBuf, Result, Summary};

    pub(crate) fn header(_: &Config) -> Result<Option<Summary>> {
        Ok(None)
    }

    pub(crate) async fn plaintext_beside(_: &Config) -> Result<Option<Vec<PathBuf>>> {
        std::future::ready(Ok(None)).await
    }

    pub(crate) fn files(_: &Config) -> Vec<PathBuf> {
        Vec::new()
    }

    pub(crate) fn is_unused(_: &Config) -> Result<Option<bool>> {
        Ok(None)
    }

    pub(crate) fn lost(_: &Config) -> Option<PathBuf> {
        None
    }
}

#[cfg(not(feature = "zqlite"))]
pub(crate) use plain::{files, header, is_unused, lost, plaintext_beside};
