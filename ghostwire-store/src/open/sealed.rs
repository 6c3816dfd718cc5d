//! The keyring of a store that is about to be opened: made before a new store, and never beside one that
//! is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostwire_store_core::backend::{Backend, Budget, Compacted, Resealed};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::keys::Rotation;
use ghostwire_store_core::secrets::HashKeys;
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_sqlite::{
    COPY_FILE, KEYRING_FILE, directory_of, has_log, is_beside, with_suffix,
};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

use super::{Beneath, NO_STORE, Opener, prepare_process};
use crate::config;
use crate::hash_key::{read_hash_key, write_versions};
use crate::keys::{self, Keys, LiveKeys};
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

    /// Whether a store that is to be made here would find its keys. Makes nothing.
    pub(crate) async fn check_keys_of_new(&self) -> Result<()> {
        let (Some(keys), config::BackendChoice::Zqlite(options)) =
            (self.keys(), &self.config.backend)
        else {
            return Ok(());
        };
        if keys.is_absent()? {
            return match has_log(&options.path) {
                true => Err(self.without_keyring(&keys, options).await),
                false => keys.check_new().await,
            };
        }
        if !has_log(&options.path) && !keys.is_unused()? {
            return Err(lost_store(&keys, options));
        }
        keys.open().await.map(drop)
    }

    /// The keyring, if it was changed since this one was read: whoever had the store open before may have
    /// done that.
    pub(super) async fn newer(&self, unlocked: &Unlocked) -> Result<Option<Keyring>> {
        let Some(keys) = self.keys() else { return Ok(None) };
        if keys.header()?.generation <= unlocked.keyring.generation() {
            return Ok(None);
        }
        keys.open().await.map(Some)
    }

    /// Opens a store whose file may have to be waited for. Its keyring was read before; if that was changed
    /// meanwhile it is read again, with the file in hand.
    pub(super) async fn open_zqlite(
        &self,
        wanted: ZqliteOptions,
        unlocked: &mut Option<Unlocked>,
    ) -> Result<ZqliteBackend> {
        /// Somebody may change it again between two attempts, but hardly again and again.
        const ATTEMPTS: usize = 8;
        let mut opened = ZqliteBackend::open(wanted.clone()).await;
        for _ in 0..ATTEMPTS {
            let Some(unlocked) = unlocked else { break };
            let newer = match (self.newer(unlocked).await, &opened) {
                (Ok(Some(newer)), _) => newer,
                (Err(error), Ok(backend)) => {
                    let _ = backend.close().await;
                    return Err(error);
                }
                _ => break,
            };
            unlocked.keyring = newer.clone();
            match opened {
                Ok(backend) if self.read_only => return Ok(backend),
                Ok(backend) => {
                    return match backend.take_up(newer).await {
                        Ok(()) => Ok(backend),
                        Err(error) => {
                            let _ = backend.close().await;
                            Err(error)
                        }
                    };
                }
                Err(_) => opened = ZqliteBackend::open(wanted.clone().sealed(newer)).await,
            }
        }
        opened
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

    /// Draws a new data key for a sealed store that nobody has open, which seals from then on. Call it again
    /// if it was broken off: it completes what was begun. What is sealed already is sealed anew while the
    /// store is open, or by [`Opener::reseal`].
    ///
    /// # Errors
    /// `Unsupported` if the store is not sealed; `Busy` if somebody has it open or changes its keyring;
    /// `Restricted` if records are sealed under too many versions; otherwise those of opening.
    pub async fn rotate_data_key(&self, rotation: Rotation) -> Result<Keyring> {
        self.with_keys(async |keys| keys.rotate_data_key(rotation).await).await
    }

    /// As [`Opener::rotate_data_key`], if this version of the data key seals; it may be repeated when it is
    /// not known how it ended.
    ///
    /// # Errors
    /// `Restricted` if another version seals that is not known to follow from such a rotation; otherwise as
    /// [`Opener::rotate_data_key`].
    pub async fn rotate_data_key_from(&self, from: u32, rotation: Rotation) -> Result<Keyring> {
        self.with_keys(async |keys| keys.rotate_data_key_from(from, rotation).await).await
    }

    /// Lets a recipient, by his fingerprint, no longer open the keyring of a store that nobody has open, and
    /// rotates as after a leak. He keeps what he could read.
    ///
    /// # Errors
    /// `NotFound`; `Restricted` for the root; otherwise as [`Opener::rotate_data_key`].
    pub async fn remove_recipient(&self, fingerprint: &str) -> Result<Keyring> {
        self.with_keys(async |keys| keys.remove(fingerprint).await).await
    }

    /// Destroys a version of the data key of a store that nobody has open, after every record's frame was
    /// read. Whoever has an older copy of the keyring has it still.
    ///
    /// # Errors
    /// `Restricted` if a record names it, or it is the one that seals; `NotFound`; otherwise as
    /// [`Opener::rotate_data_key`].
    pub async fn destroy_data_key(&self, version: u32) -> Result<Keyring> {
        self.with_keys(async |keys| keys.destroy_version(version).await).await
    }

    /// Seals everything in a store that nobody has open under the newest data key; `progress` is told after
    /// each slice. Broken off, it goes on where it was.
    ///
    /// # Errors
    /// `Unsupported` if the store is not sealed; `Exhausted` if the disk is full; otherwise those of
    /// opening.
    pub async fn reseal(&self, mut progress: impl FnMut(Resealed)) -> Result<Resealed> {
        /// Nobody waits: fewer, larger commits.
        const BUDGET: Budget = Budget { time: Duration::from_millis(100), bytes: 4 << 20 };
        let beneath = self.with_backend().await?;
        let resealed = async {
            let backend = &beneath.backend;
            if let Some(keys) = &beneath.keys {
                keys.complete_rotation().await?;
            }
            while backend.maintain(BUDGET).await? {
                backend.info().resealed.into_iter().for_each(&mut progress);
            }
            backend.info().resealed.ok_or_else(not_sealed)
        };
        let resealed = resealed.await;
        beneath.backend.close().await?;
        resealed
    }

    /// The copies beside a sealed store, such as a migration makes, that cannot be read any more once this
    /// version of the data key is destroyed; those that cannot be looked at are among them.
    ///
    /// # Errors
    /// `Crypto` if the keyring cannot be opened.
    pub async fn copies_sealed_under(&self, version: u32) -> Result<Vec<PathBuf>> {
        let (keys, path) = self.sealed_place()?;
        prepare_process().await?;
        let keyring = keys.open().await?;
        let mut sealed = Vec::new();
        for copy in copies_beside(path) {
            let options = ZqliteOptions::new(&copy, NO_STORE).read_only(true);
            let is_free = match ZqliteBackend::open(options.sealed(keyring.clone())).await {
                Ok(backend) => {
                    let unused = backend.require_unused(version).await;
                    // It was only read.
                    let _ = backend.close().await;
                    unused.is_ok()
                }
                Err(_) => false,
            };
            if !is_free {
                sealed.push(copy);
            }
        }
        Ok(sealed)
    }

    /// The files beside a sealed store that show its content, or its hash key, to whoever reads them: copies
    /// of while it was plain, what a conversion left that was broken off, the key's file. The store's file
    /// and its log show none: a conversion writes them anew.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn plaintext_beside(&self) -> Result<Vec<PathBuf>> {
        let (keys, path) = self.sealed_place()?;
        prepare_process().await?;
        let mut plain = Vec::new();
        for copy in copies_beside(path) {
            let options = ZqliteOptions::new(&copy, NO_STORE).read_only(true);
            match ZqliteBackend::open(options).await {
                // It was only read.
                Ok(backend) => {
                    let _ = backend.close().await;
                    plain.push(copy);
                }
                Err(error) if *error.kind() == ErrorKind::Crypto => {}
                // It may be.
                Err(_) => plain.push(copy),
            }
        }
        let unfinished = with_suffix(path, COPY_FILE);
        plain.extend(Some(unfinished).filter(|path| path.exists()));
        plain.extend(keys.hash_key_beside()?);
        Ok(plain)
    }

    /// The backend of a sealed store, to be written.
    async fn with_backend(&self) -> Result<Beneath> {
        if self.keys().is_none() {
            return Err(not_sealed());
        }
        self.clone().create(false).read_only(false).open_beneath(None).await
    }

    async fn with_keys<T>(&self, work: impl AsyncFnOnce(&LiveKeys) -> Result<T>) -> Result<T> {
        let beneath = self.with_backend().await?;
        let done = match &beneath.keys {
            Some(keys) => work(keys).await,
            None => Err(not_sealed()),
        };
        let closed = beneath.backend.close().await;
        let done = done?;
        closed.map(|()| done)
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
        prepare_process().await?;
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
        prepare_process().await?;
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
            let (option, help) = match self.config.backend.kind() {
                config::BackendKind::Zqlite => {
                    ("sealed", format!("leave {} = false out", self.config.store_key("sealed")))
                }
                _ => (
                    "backend",
                    "export the store (`gwstore export FILE`), choose the backend zqlite, and import it \
                     into a new store (`gwstore import portable FILE --create`), which is sealed"
                        .to_owned(),
                ),
            };
            Error::new(
                ErrorKind::Unsupported,
                "only a zqlite store can be sealed, and the configuration has to say that it is",
            )
            .with("backend", self.config.backend.kind())
            .with("source", self.config.origin_of(&self.config.store_key(option)))
            .with("help", help)
        })
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

/// Copies of a store that migrations left beside it.
fn copies_beside(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let is_copy = |found: &Path| {
        let found = found.file_name().and_then(|found| found.to_str());
        let suffix = found.and_then(|found| found.strip_prefix(name)).unwrap_or_default();
        suffix.starts_with(".v") && suffix.contains(".bak") && !suffix.contains(".bak-")
    };
    let entries = fs::read_dir(directory_of(path)).into_iter().flatten().flatten();
    let mut copies: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| is_copy(path)).collect();
    copies.sort();
    copies
}

fn not_sealed() -> Error {
    Error::new(ErrorKind::Unsupported, "the store is not sealed, so it has no keys").with(
        "help",
        "only zqlite stores with zqlite.sealed = true have keys; `gwstore seal` seals one",
    )
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
