//! The keyring of a store that is about to be opened: made before a new store, and never beside one that
//! is there.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::{Backend, Commit, Compacted};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::HashKeys;
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_sqlite::{KEYRING_FILE, has_log, is_beside, with_suffix};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

use super::{NO_STORE, Opener};
use crate::config;
use crate::hash_key::{read_hash_key, write_versions};
use crate::keys::{self, Keys};
use crate::open::place::is_missing;

/// A keyring, and what has to go again if the store that it was made for cannot be made.
#[derive(Debug)]
pub(super) struct Unlocked {
    pub(super) keyring: Keyring,
    made: Vec<PathBuf>,
}

impl Opener<'_> {
    /// How the store that is opened is sealed; `None` if it is plain.
    pub(super) fn keys(&self) -> Option<Keys<'_>> {
        let keys = Keys::of(self.config)?;
        Some(match &self.key_source {
            Some(source) => keys.source(source.clone()),
            None => keys,
        })
    }

    /// The keyring of the store; a new one, of a store of this identity, if both are still to be made.
    pub(super) async fn unlock(
        &self,
        options: &config::ZqliteOptions,
        store: StoreId,
    ) -> Result<Option<Unlocked>> {
        let Some(keys) = self.keys() else { return Ok(None) };
        let keyring = keys.path();
        if keyring != with_suffix(&options.path, KEYRING_FILE) && is_beside(&options.path, &keyring)
        {
            return Err(Error::invalid(
                "keyring_file names a file that the store uses itself; name another",
            )
            .with("keyring_file", keyring.display())
            .with("path", options.path.display()));
        }
        let is_new = is_missing(&options.path) && !has_log(&options.path);
        let made = Vec::new();
        if is_new && !self.may_make() {
            // The backend says what is not there.
            return Ok(None);
        }
        if keys.is_absent()? {
            if !is_new {
                return Err(self.without_keyring(&keys, options).await);
            }
            let root = keys.development_root().filter(|root| !root.exists());
            let path = keys.path();
            let made = [".lock", ".unused", ""].map(|it| with_suffix(&path, it));
            let made: Vec<_> = made.into_iter().filter(|path| !path.exists()).chain(root).collect();
            let created = keys.create(store).await;
            return match created {
                Ok(keyring) => Ok(Some(Unlocked { keyring, made })),
                Err(error) => {
                    remove(&made);
                    Err(error)
                }
            };
        }
        if is_new && !keys.is_unused()? {
            return Err(lost_store(&keys, options));
        }
        Ok(Some(Unlocked { keyring: keys.open().await?, made }))
    }

    /// After the backend was opened, or was not.
    pub(super) fn settle<T>(
        &self,
        options: &config::ZqliteOptions,
        unlocked: Option<&Unlocked>,
        opened: Result<T>,
    ) -> Result<T> {
        let (Some(unlocked), Some(keys)) = (unlocked, self.keys()) else { return opened };
        match opened {
            Ok(opened) if self.read_only => Ok(opened),
            Ok(opened) => keys.mark_used().map(|()| opened),
            Err(error) => {
                // What is left of a store may be sealed under it already.
                if is_missing(&options.path) && !has_log(&options.path) {
                    remove(&unlocked.made);
                }
                Err(error)
            }
        }
    }

    /// The hash keys of a sealed store that was opened, unless the configuration names a file for them.
    /// One that it had while it was plain is taken into the keyring.
    pub(super) async fn hash_keys_of(&self, keyring: &Keyring) -> Result<Option<HashKeys>> {
        let Some(keys) = self.keys().filter(|_| self.is_key_in_keyring()) else { return Ok(None) };
        match (keys.hash_key_beside()?, self.read_only) {
            (None, _) => keys::hash_keys(keyring).map(Some),
            (Some(path), true) => read_hash_key(&path).map(Some),
            (Some(_), false) => match keys.take_hash_key().await? {
                Some(keyring) => keys::hash_keys(&keyring).map(Some),
                None => keys::hash_keys(keyring).map(Some),
            },
        }
    }

    /// Draws a new data key for a sealed store, which seals from then on; what is sealed already stays
    /// under the version that it has. Nobody may have the store open. Call it again if it was broken
    /// off: it completes what was begun.
    ///
    /// # Errors
    /// `Unsupported` if the store is not sealed; `Busy` if somebody has it open or changes its keyring;
    /// otherwise those of opening.
    pub async fn rotate_data_key(&self) -> Result<Keyring> {
        let keys = self.keys().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the store is not sealed, so there is no key to rotate",
            )
        })?;
        let opener = self.clone().create(false).read_only(false);
        // Nobody else has it open, and it is whole: otherwise the keyring is left as it is.
        opener.open_backend().await?.close().await?;
        if keys.open().await?.leaving().is_none() {
            keys.rotate().await?;
        }
        opener.write_head().await?;
        let finished = keys.open().await?.finish_rotation();
        let finished = finished.map_err(|error| keys.error(error))?;
        // The version before is given up for the head only once the head is known to be under the new one.
        if let Some(path) = self.config.backend.path() {
            let options = ZqliteOptions::new(path, NO_STORE).read_only(true).sealed(finished);
            ZqliteBackend::open(options).await?.close().await?;
        }
        keys.finish_rotation().await
    }

    /// Seals a plain store that nobody has open, as the configuration then says: makes its keyring if
    /// there is none, writes the store anew under it, puts that in its place in one step, and takes the
    /// hash key into the keyring. Copies beside it, such as `.v<N>.bak`, stay plain, and so does what the
    /// disk keeps of the old file. Broken off, it can be called again.
    ///
    /// # Errors
    /// `Unsupported` for another backend, or if the configuration says that the store is plain;
    /// `Restricted` if it is sealed already; `Exhausted` if the disk has no room for a copy; `Busy`;
    /// otherwise those of opening.
    pub async fn seal(&self) -> Result<Compacted> {
        let (keys, path) = self.sealed_place()?;
        let plain = ZqliteOptions::new(path, NO_STORE);
        let backend = ZqliteBackend::open(plain.clone().read_only(true)).await;
        let backend = backend.map_err(|error| match error.kind() {
            ErrorKind::Crypto => {
                Error::new(ErrorKind::Restricted, "the store is sealed already").because(error)
            }
            _ => error,
        })?;
        let head = backend.head().await;
        backend.close().await?;
        let side = head?.side;
        let keyring = match keys.is_absent()? {
            true => keys.create(StoreId::from_bytes(*side.as_bytes())).await?,
            false => keys.open().await?,
        };
        let sealed = ZqliteBackend::seal(plain.sealed(keyring)).await?;
        keys.mark_used()?;
        keys.take_hash_key().await?;
        Ok(sealed)
    }

    /// Makes a sealed store that nobody has open plain: writes its hash key to `<path>.key`, unless the
    /// configuration names a file for it, and the store anew. The configuration has to say
    /// `zqlite.sealed = false` from then on. The keyring stays.
    ///
    /// # Errors
    /// `AlreadyExists` if there is such a file with another key; otherwise as [`Opener::seal`].
    pub async fn unseal(&self) -> Result<Compacted> {
        let (keys, path) = self.sealed_place()?;
        let keyring = keys.open().await?;
        if self.is_key_in_keyring()
            && let Some(key) = self.config.secret_key_path()
        {
            let versions = keyring.hash_keys().iter().map(|key| key.key().expose());
            write_versions(&key, versions, path, self.entropy.as_ref())?;
        }
        ZqliteBackend::unseal(ZqliteOptions::new(path, NO_STORE).sealed(keyring)).await
    }

    /// The keyring and the file of a store that is sealed, or is to be.
    fn sealed_place(&self) -> Result<(Keys<'_>, &Path)> {
        self.config.check()?;
        self.keys().zip(self.config.backend.path()).ok_or_else(|| {
            let (key, help) = match self.config.backend.kind() {
                config::BackendKind::Zqlite => (
                    "sealed",
                    "leave sealed = false out of the configuration of this store",
                ),
                _ => (
                    "backend",
                    "export the store (`gwstore export FILE`), choose the backend zqlite, and import it \
                     into a new store (`gwstore import portable FILE --create`), which is sealed",
                ),
            };
            Error::new(
                ErrorKind::Unsupported,
                "only a zqlite store can be sealed, and the configuration has to say that it is",
            )
            .with("backend", self.config.backend.kind())
            .with("source", self.config.origin_of(&self.config.store_key(key)))
            .with("help", help)
        })
    }

    /// Writes the head anew, and so under the newest key.
    async fn write_head(&self) -> Result<()> {
        let backend = self.open_backend().await?;
        let written = async {
            let head = backend.head().await?;
            backend.commit(&Commit::on(&head)).await
        };
        let written = written.await;
        let closed = backend.close().await;
        written.and(closed)
    }

    /// Why a store that is there cannot be opened without a keyring.
    async fn without_keyring(&self, keys: &Keys<'_>, options: &config::ZqliteOptions) -> Error {
        let plain = ZqliteOptions::new(&options.path, NO_STORE).read_only(true);
        match ZqliteBackend::open(plain).await {
            Ok(backend) => {
                // It was only read.
                let _ = backend.close().await;
                Error::new(
                    ErrorKind::Crypto,
                    "the store is plain, and the configuration says that it is sealed",
                )
                .with("path", options.path.display())
                .with("source", self.config.origin_of(&self.config.store_key("sealed")))
                .with("help", "seal it with `gwstore seal`, or set zqlite.sealed = false to go on with the plain store")
            }
            Err(error) if *error.kind() == ErrorKind::Crypto => keys.missing(),
            Err(error) => error,
        }
    }
}

fn lost_store(keys: &Keys<'_>, options: &config::ZqliteOptions) -> Error {
    Error::new(ErrorKind::NotFound, "here lies the keyring of a store, and its file is gone")
        .with("path", options.path.display())
        .with("keyring", keys.path().display())
        .with(
            "help",
            "restore the file; or, to begin anew, move the keyring away, and what else `gwstore doctor` \
             finds there",
        )
}

/// What was made for nothing.
fn remove(made: &[PathBuf]) {
    for path in made {
        if let Err(error) = fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file that is of no use stays");
        }
    }
}
