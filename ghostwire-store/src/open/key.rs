//! The hash key of a store: read, made with a new store, or missed.

use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::{HashKey, HashKeys};
use ghostwire_store_sqlite::{directory_of, is_beside};

use super::Opener;
use super::place::is_missing;
use crate::hash_key::{NewKey, hash_key_is_absent, is_cut_short, read_hash_key};

/// The hash key of a store that is about to be opened.
#[derive(Debug)]
pub(super) enum Key {
    Known(HashKeys),
    /// Written, and without its name yet.
    New(NewKey),
    /// That of a store that is there, in this file.
    OfStore(PathBuf),
    /// In the store's keyring.
    InKeyring,
}

#[cfg(feature = "zqlite")]
impl Key {
    /// A key for another purpose, from this one. It stays the same when newer versions are drawn.
    pub(super) fn subkey(&self, purpose: &str) -> Result<[u8; 32]> {
        match self {
            Self::Known(keys) => Ok(keys.first().subkey(purpose)),
            Self::New(key) => Ok(key.key().subkey(purpose)),
            Self::OfStore(path) => Ok(read_hash_key(path)?.first().subkey(purpose)),
            Self::InKeyring => Err(Error::invalid("the store's keys are in its keyring")),
        }
    }
}

impl Opener<'_> {
    /// The key, as far as it can be told before the store is opened. That of a store that is to be made
    /// is read or written now, so that a key that cannot be had leaves no store without one.
    pub(super) fn key_before(&self) -> Result<Key> {
        if self.is_key_in_keyring() {
            return Ok(Key::InKeyring);
        }
        let Some(path) = self.config.secret_key_path() else {
            return ephemeral_key(self.entropy.as_ref()).map(|key| Key::Known(key.into()));
        };
        self.check_key_place()?;
        let store = match self.config.backend.path() {
            Some(store) if self.may_make() && is_missing(store) => store,
            // In a database, which tells when the store is made.
            None if self.only_new => &path,
            _ => return Ok(Key::OfStore(path)),
        };
        if hash_key_is_absent(&path)? {
            return NewKey::begin(&path, directory_of(store), self.entropy.as_ref()).map(Key::New);
        }
        read_hash_key(&path).map(Key::Known)
    }

    /// The key of a store that is open. A new one is given its name after the store, so that a key
    /// without a store says that one was lost, and is made only where nothing was stored: another in
    /// place of a lost or misplaced key would make every credential fail, and hide why.
    pub(super) async fn key_after(
        &self,
        key: Key,
        backend: &dyn Backend,
    ) -> Result<Option<HashKeys>> {
        let path = match key {
            Key::Known(key) => return Ok(Some(key)),
            Key::New(key) => return key.publish().map(|key| Some(key.into())),
            Key::OfStore(path) => path,
            Key::InKeyring => return Ok(None),
        };
        let head = backend.head().await?;
        // Where others may have opened it, one of them may have made the key.
        let has_key = backend.info().shared && head.credential_key.is_some();
        let is_unused = head.serial == Serial::ZERO && !has_key;
        if !hash_key_is_absent(&path)? {
            return read_hash_key(&path).map(Some).map_err(|error| {
                match is_unused && is_cut_short(&path) {
                    true => error.with(
                        "help",
                        "nothing was stored with it yet: unless another store uses it, remove it \
                         and start again, which makes a new one",
                    ),
                    false => error,
                }
            });
        }
        if is_unused && self.may_make() {
            let like = self.config.backend.path().unwrap_or_else(|| directory_of(&path));
            let key = NewKey::begin(&path, like, self.entropy.as_ref())?.publish()?;
            return Ok(Some(key.into()));
        }
        if self.allow_missing_key {
            tracing::warn!(
                secret_key_file = %path.display(),
                "the store's hash key is not there: no API key, pre-auth key or session can be checked"
            );
            return Ok(None);
        }
        Err(missing_key(&path))
    }

    /// Whether the store's keyring has its hash key, too. A file that is named may be other stores' as
    /// well, and holds.
    pub(super) fn is_key_in_keyring(&self) -> bool {
        self.config.is_sealed() && self.config.secret_key_file.is_none()
    }

    /// Refuses a key where the store keeps something else.
    pub(super) fn check_key_place(&self) -> Result<()> {
        let (Some(key), Some(store)) = (&self.config.secret_key_file, self.config.backend.path())
        else {
            return Ok(());
        };
        if !is_beside(store, key) {
            return Ok(());
        }
        Err(Error::invalid("secret_key_file names a file that the store uses itself; name another")
            .with("secret_key_file", key.display())
            .with("path", store.display()))
    }
}

fn missing_key(path: &Path) -> Error {
    Error::new(
        ErrorKind::Crypto,
        "the store's hash key is not there, and without it no API key, pre-auth key or session is valid",
    )
    .with("secret_key_file", path.display())
    .with(
        "help",
        "put the key's file back, or name its place as secret_key_file. If it is lost for good, export the \
         store without a key file and import it into a new one, and issue the credentials anew",
    )
}

fn ephemeral_key(entropy: &dyn Entropy) -> Result<HashKey> {
    let mut key = [0; 32];
    entropy.fill(&mut key)?;
    Ok(HashKey::new(key))
}
