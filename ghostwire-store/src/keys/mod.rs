//! The keyring of a sealed store: where it lies, what unlocks it, how it is made and changed.
//!
//! The functions of a keyring itself, from one generation to the next, are those of
//! `ghostwire-store-crypto`; here they meet the configuration, the files and the clock.

mod error;
mod live;
mod root;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostwire_store_core::domain::{Clock, StoreId, SystemClock};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::{HashKey, HashKeys};
use ghostwire_store_core::threads::may_block;
use ghostwire_store_crypto::keyring::{
    Expected, Header, Identity, Keyring, KeyringFile, Recipient, Stretch, Unlock,
};
use ghostwire_store_crypto::root::{KeySource, RootSecret};
use ghostwire_store_crypto::{Result as CryptoResult, Secret, SystemRandom, on_cleared_stack};
use ghostwire_store_sqlite::{create_private, directory_of, failed, is_beside, with_suffix};

use crate::config::{BackendChoice, Config, ZqliteOptions};
use crate::hash_key::{hash_key_is_absent, read_versions};

pub use ghostwire_store_crypto as crypto;
pub(crate) use live::LiveKeys;
pub use root::write_identity;

/// The keyring of the store that a configuration opens.
#[derive(Debug, Clone)]
pub struct Keys<'c> {
    config: &'c Config,
    options: &'c ZqliteOptions,
    source: Option<Arc<dyn KeySource>>,
    /// The least generation that is not older than the store.
    least: u64,
}

impl<'c> Keys<'c> {
    /// `None` if the store is not sealed.
    #[must_use]
    pub fn of(config: &'c Config) -> Option<Self> {
        match &config.backend {
            BackendChoice::Zqlite(options) if options.sealed => {
                Some(Self { config, options, source: None, least: 0 })
            }
            _ => None,
        }
    }

    /// Takes the root secret from here instead of the configured place: a key management service, or
    /// the identity of another recipient.
    #[must_use]
    pub fn source(mut self, source: Arc<dyn KeySource>) -> Self {
        self.source = Some(source);
        self
    }

    /// Refuses a keyring of an earlier generation.
    pub(crate) fn at_least(mut self, generation: u64) -> Self {
        self.least = generation;
        self
    }

    /// The keyring's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.options.keyring_path()
    }

    /// Whether there is no keyring. One that cannot be looked up may be there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn is_absent(&self) -> Result<bool> {
        is_absent(&self.path())
    }

    /// Whether the keyring's store is still to be made.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn is_unused(&self) -> Result<bool> {
        Ok(!is_absent(&self.unused_mark())?)
    }

    /// What anybody can read of the keyring.
    ///
    /// # Errors
    /// `Crypto` if it is not there or is none.
    pub fn header(&self) -> Result<Header> {
        let path = self.path();
        Keyring::header(&self.read()?).map_err(|error| error::of(&path, error))
    }

    /// The keyring, open.
    ///
    /// # Errors
    /// `Crypto` with what is wrong with the keyring or the root secret, and what to do.
    pub async fn open(&self) -> Result<Keyring> {
        let bytes = self.read()?;
        let root = self.root_secret().await?;
        let (path, expected) = (self.path(), self.expected());
        let opened = blocking(move || Keyring::open(&bytes, root.unlock(), &expected));
        let keyring = opened.await?.map_err(|error| error::of(&path, error))?;
        if !keyring.is_locked() {
            tracing::warn!(
                keyring = %path.display(),
                "the keys cannot be kept out of the swap: the process may lock too little memory; raise \
                 RLIMIT_MEMLOCK (LimitMEMLOCK= of systemd), or use no swap or an encrypted one"
            );
        }
        Ok(keyring)
    }

    /// Makes the keyring of a store that is still to be made, which gets this identity. In development a
    /// root secret is made beside the store if none is there and no place for one is configured.
    ///
    /// # Errors
    /// `AlreadyExists` if there is a keyring; otherwise as [`Keys::open`].
    pub async fn create(&self, store: StoreId) -> Result<Keyring> {
        self.check_places()?;
        let path = self.path();
        let file = self.lock()?;
        if !self.is_absent()? {
            let kind = ErrorKind::AlreadyExists { constraint: "keyring" };
            let error = Error::new(kind, "there is a keyring already; it was left as it is");
            return Err(error.with("keyring", path.display()));
        }
        let root = match self.source {
            None => self.root_to_begin_with()?,
            Some(_) => self.root_secret().await?,
        };
        // First, so that a keyring without it says that its store was lost.
        self.mark_unused()?;
        let now = now();
        let made = blocking(move || {
            let (recipient, stretch) = recipient_of(&root)?;
            let first = Keyring::first(*store.as_bytes(), recipient, stretch, now, &SystemRandom)?;
            let expected = Expected { store: Some(*store.as_bytes()), generation: 1 };
            let bytes = first.seal(&SystemRandom)?;
            file.replace(None, &bytes, |read| Keyring::open(read, root.unlock(), &expected))
        });
        made.await?.map_err(|error| error::of(&path, error))
    }

    /// Whether it could be made, as far as that can be told without making anything.
    pub(crate) async fn check_new(&self) -> Result<()> {
        self.check_places()?;
        self.check_root().await
    }

    /// Replaces the keyring with what `change` makes of it, by which the one that is there can be opened
    /// still. Nobody else changes it meanwhile.
    ///
    /// # Errors
    /// `Busy` if another process changes it; what `change` says; otherwise as [`Keys::open`]. The
    /// keyring is what it was, then.
    pub async fn change(
        &self,
        change: impl FnOnce(&Keyring) -> CryptoResult<Keyring> + Send + 'static,
    ) -> Result<Keyring> {
        let file = self.lock()?;
        let root = self.root_secret().await?;
        self.replace(file, root, None, change).await
    }

    /// Seals the keyring to another root secret, which `new` gives, and no longer to the one before. The
    /// configuration has to name its place from then on.
    ///
    /// # Errors
    /// As [`Keys::change`].
    pub async fn change_root(&self, new: &dyn KeySource) -> Result<Keyring> {
        let file = self.lock()?;
        let root = self.root_secret().await?;
        let new = root::ask(new).await.map_err(|error| error::of(&self.path(), error))?;
        let (recipient, stretch, new) = blocking(move || {
            recipient_of(&new).map(|(recipient, stretch)| (recipient, stretch, new))
        })
        .await?
        .map_err(|error| error::of(&self.path(), error))?;
        let change = move |keyring: &Keyring| keyring.change_root(recipient, stretch);
        self.replace(file, root, Some(new), change).await
    }

    /// Draws a new key that hashes credentials from the next opening on. The others verify still, and what
    /// they hashed is hashed anew when it is used; sessions expire.
    ///
    /// # Errors
    /// `Restricted` if the configuration names a file for the hash key: that of the keyring hashes nothing
    /// then. Otherwise as [`Keys::change`].
    pub async fn rotate_hash_key(&self) -> Result<Keyring> {
        if let Some(file) = &self.config.secret_key_file {
            let message =
                "credentials are hashed with the key in a file, and not with that in the keyring";
            return Err(Error::new(ErrorKind::Restricted, message)
                .with("secret_key_file", file.display())
                .with("source", self.config.origin_of(&self.config.store_key("secret_key_file")))
                .with(
                    "help",
                    "append a line of 64 hex digits to that file (`openssl rand -hex 32`), and open the \
                     store anew: the last line hashes, the others verify",
                ));
        }
        let now = now();
        self.change(move |keyring| keyring.rotate_hash_key(now, &SystemRandom)).await
    }

    /// The end of a rotation: head and pin are under what is new.
    pub(crate) async fn finish_rotation(&self) -> Result<Keyring> {
        self.change(Keyring::finish_rotation).await
    }

    pub(crate) fn error(&self, error: crypto::Error) -> Error {
        error::of(&self.path(), error)
    }

    /// Takes the hash key of a store that had no keyring into it, and removes its file once the keyring
    /// is durable and was read back. Gives the keyring as it is then; `None` if there is no such file, or
    /// the configuration names it, since others may use it.
    ///
    /// # Errors
    /// As [`Keys::change`] and [`read_hash_key`](crate::read_hash_key).
    pub async fn take_hash_key(&self) -> Result<Option<Keyring>> {
        let Some(path) = self.hash_key_beside()? else { return Ok(None) };
        let mut versions = read_versions(&path)?;
        let (now, versions): (u64, Vec<Secret>) =
            (now(), versions.iter_mut().map(|key| Secret::take(key)).collect());
        let changed = self
            .change(move |keyring| {
                let is_new = |key: &Secret| keyring.hash_keys().iter().all(|it| it.key() != key);
                let mut next = keyring.clone();
                for key in versions.into_iter().filter(is_new) {
                    next = next.take_hash_key(key, now)?;
                }
                Ok(next)
            })
            .await?;
        fs::remove_file(&path)
            .and_then(|()| sync(directory_of(&path)))
            .map_err(|error| failed("the hash key's file cannot be removed", &path, error))?;
        tracing::info!(secret_key_file = %path.display(), "the hash key is in the keyring now");
        Ok(Some(changed))
    }

    /// The hash key's file that an unsealed store has beside it, if it is there and no other is named.
    pub(crate) fn hash_key_beside(&self) -> Result<Option<PathBuf>> {
        if self.config.secret_key_file.is_some() {
            return Ok(None);
        }
        let Some(path) = self.config.secret_key_path() else { return Ok(None) };
        Ok((!hash_key_is_absent(&path)?).then_some(path))
    }

    /// The error of a store whose keyring is not there.
    pub(crate) fn missing(&self) -> Error {
        error::missing(&self.path())
    }

    /// The keyring's store is there.
    pub(crate) fn mark_used(&self) -> Result<()> {
        let mark = self.unused_mark();
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("the mark of an unused keyring cannot be removed", &mark, error))
            }
            _ => Ok(()),
        }
    }

    fn mark_unused(&self) -> Result<()> {
        let mark = self.unused_mark();
        let made = create_private(&mark, self.like()).and_then(|_| sync(directory_of(&mark)));
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("the keyring's directory cannot be written", &mark, error)
                    .with("help", "the directory has to exist; `keyring_file` may name another"))
            }
            _ => Ok(()),
        }
    }

    fn unused_mark(&self) -> PathBuf {
        with_suffix(&self.path(), ".unused")
    }

    /// What a file that is made belongs to.
    fn like(&self) -> &Path {
        let store = self.options.path.as_path();
        if store.exists() { store } else { directory_of(store) }
    }

    fn expected(&self) -> Expected {
        Expected { store: None, generation: self.least }
    }

    fn lock(&self) -> Result<KeyringFile> {
        let path = self.path();
        KeyringFile::lock(&path, self.like()).map_err(|error| error::of(&path, error))
    }

    fn read(&self) -> Result<Vec<u8>> {
        let path = self.path();
        let read = KeyringFile::read(&path).map_err(|error| error::of(&path, error))?;
        read.ok_or_else(|| error::missing(&path))
    }

    /// Refuses files for the keyring and the root secret that the store uses for something else.
    fn check_places(&self) -> Result<()> {
        let store = self.options.path.as_path();
        let root = &self.options.root;
        for (key, file, usual) in [
            ("keyring_file", &self.options.keyring_file, self.options.keyring_path()),
            ("root_secret_file", &root.secret_file, self.options.development_root_path()),
            ("root_passphrase_file", &root.passphrase_file, self.options.development_root_path()),
        ] {
            if let Some(file) = file
                && *file != usual
                && is_beside(store, file)
            {
                return Err(Error::invalid(
                    "this names a file that the store uses itself; name another",
                )
                .with("key", self.config.store_key(key))
                .with("file", file.display())
                .with("path", store.display()));
            }
        }
        Ok(())
    }

    async fn replace(
        &self,
        file: KeyringFile,
        root: RootSecret,
        new_root: Option<RootSecret>,
        change: impl FnOnce(&Keyring) -> CryptoResult<Keyring> + Send + 'static,
    ) -> Result<Keyring> {
        let (path, bytes, expected) = (self.path(), self.read()?, self.expected());
        let replaced = blocking(move || {
            let keyring = Keyring::open(&bytes, root.unlock(), &expected)?;
            let next = change(&keyring)?;
            if next.generation() == keyring.generation() {
                return Ok(keyring);
            }
            let expected = Expected { store: Some(*next.store()), generation: next.generation() };
            let unlock: Unlock<'_> = new_root.as_ref().unwrap_or(&root).unlock();
            let check = |read: &[u8]| Keyring::open(read, unlock, &expected);
            file.replace(keyring.file_hash(), &next.seal(&SystemRandom)?, check)
        });
        replaced.await?.map_err(|error| error::of(&path, error))
    }
}

/// Whom a keyring is sealed to so that this opens it.
fn recipient_of(root: &RootSecret) -> CryptoResult<(Recipient, Option<Stretch>)> {
    let of = |identity: &Identity| identity.recipient().clone();
    match root {
        RootSecret::Identity(identity) => Ok((of(identity), None)),
        RootSecret::Passphrase(passphrase) => {
            let stretch = Stretch::draw(&SystemRandom)?;
            Ok((of(&stretch.identity(passphrase.expose())?), Some(stretch)))
        }
    }
}

/// The hash keys in a keyring.
pub(crate) fn hash_keys(keyring: &Keyring) -> Result<HashKeys> {
    on_cleared_stack(|| {
        HashKeys::new(keyring.hash_keys().iter().map(|key| HashKey::new(*key.key().expose())))
    })
}

/// Away from the threads that others wait on: a passphrase takes a second.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    may_block(move || Ok(work())).await
}

/// For people: since when a key is used.
fn now() -> u64 {
    u64::try_from(SystemClock.now().as_micros()).unwrap_or_default()
}

fn is_absent(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(failed("the keyring cannot be looked up", path, error)),
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
