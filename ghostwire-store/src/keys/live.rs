//! Changes of a keyring whose store is open.
//!
//! The order of a rotation is keyring, commit, pin, keyring: the new version is durable before anything is
//! sealed under it, and what the old one still has to prove is given up last. Broken off anywhere, the next
//! change or opening completes it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ghostwire_store_core::domain::Timestamp;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::keys::{DataKeyInfo, KeyManager, KeyringInfo, RecipientInfo, Rotation};
use ghostwire_store_crypto::keyring::{
    Fingerprint, Keyring, Leaving, Recipient, Rotation as Reason,
};
use ghostwire_store_crypto::root::{KeySource, Place};
use ghostwire_store_crypto::{Result as CryptoResult, SystemRandom};
use ghostwire_store_zqlite::ZqliteBackend;
use tokio::sync::MutexGuard;

use super::{Keys, now};
use crate::config::Config;

/// The keys of a store that is open.
pub(crate) struct LiveKeys {
    config: Config,
    /// Instead of the configured place.
    source: Mutex<Option<Arc<dyn KeySource>>>,
    backend: Arc<ZqliteBackend>,
    read_only: bool,
    /// Held by who changes the keyring.
    changing: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for LiveKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveKeys").field("backend", &self.backend).finish_non_exhaustive()
    }
}

/// What a rotation that was broken off has become.
struct Completed {
    keyring: Keyring,
    because_of_leak: bool,
}

impl LiveKeys {
    pub(crate) fn new(
        config: &Config,
        source: Option<Arc<dyn KeySource>>,
        backend: Arc<ZqliteBackend>,
        read_only: bool,
    ) -> Self {
        let (config, source) = (config.clone(), Mutex::new(source));
        Self { config, source, backend, read_only, changing: tokio::sync::Mutex::new(()) }
    }

    fn keys(&self) -> Result<Keys<'_>> {
        let keys = Keys::of(&self.config)
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, "the store is not sealed"))?
            // One that was put back would give a number to another key.
            .at_least(self.backend.keyring_generation());
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(match source {
            Some(source) => keys.source(source),
            None => keys,
        })
    }

    /// The keyring for who may change it, and nobody else in this process.
    async fn to_change(&self) -> Result<(Keys<'_>, MutexGuard<'_, ()>)> {
        if self.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
        }
        let alone = self.changing.lock().await;
        self.keys().map(|keys| (keys, alone))
    }

    /// Completes a rotation that was broken off when the store was opened; `None` if there is none. Where
    /// there is none, no root secret is asked for.
    pub(crate) async fn complete_rotation(&self) -> Result<Option<Keyring>> {
        if !self.backend.is_rotating() {
            return Ok(None);
        }
        let (keys, _alone) = self.to_change().await?;
        Ok(self.complete(&keys).await?.map(|completed| completed.keyring))
    }

    async fn complete(&self, keys: &Keys<'_>) -> Result<Option<Completed>> {
        let keyring = keys.open().await?;
        let Some(because_of_leak) = keyring.leaving().map(|it| Leaving::authority(it).is_some())
        else {
            return Ok(None);
        };
        let keyring = self.finish(keys, keyring).await?;
        Ok(Some(Completed { keyring, because_of_leak }))
    }

    /// After the keyring with a new version is durable: the commit, the pin, and the keyring without what
    /// was in force before.
    async fn finish(&self, keys: &Keys<'_>, rotating: Keyring) -> Result<Keyring> {
        self.backend.take_up(rotating).await?;
        let finished = keys.finish_rotation().await?;
        self.backend.take_up(finished.clone()).await?;
        Ok(finished)
    }

    /// Rotates by `change`.
    async fn rotate_by(
        &self,
        keys: &Keys<'_>,
        change: impl FnOnce(&Keyring) -> CryptoResult<Keyring> + Send + 'static,
    ) -> Result<Keyring> {
        self.backend.require_room_for_version()?;
        let rotating = keys.change(change).await?;
        let drawn = rotating.active().map(|key| key.version()).ok();
        self.finish(keys, rotating).await.map_err(|error| match drawn {
            Some(version) => error.with("drawn_version", version).with(
                "help",
                format!(
                    "version {version} is in the keyring already, and the next opening or change completes the \
                     rotation: do not begin another; `rotate --from` its predecessor may be repeated"
                ),
            ),
            None => error,
        })
    }

    /// What [`KeyManager::rotate`] does. One that was broken off is completed instead, if it was for the
    /// same reason or a graver one.
    pub(crate) async fn rotate_data_key(&self, rotation: Rotation) -> Result<Keyring> {
        let (keys, _alone) = self.to_change().await?;
        if let Some(completed) = self.complete(&keys).await?
            && (completed.because_of_leak || rotation == Rotation::Routine)
        {
            return Ok(completed.keyring);
        }
        let (now, reason) = (now(), reason(rotation));
        self.rotate_by(&keys, move |keyring| keyring.rotate(reason, now, &SystemRandom)).await
    }

    /// What [`KeyManager::rotate_from`] does.
    pub(crate) async fn rotate_data_key_from(
        &self,
        from: u32,
        rotation: Rotation,
    ) -> Result<Keyring> {
        let (keys, alone) = self.to_change().await?;
        let completed = self.complete(&keys).await?;
        let keyring = keys.open().await?;
        let active = keyring.active().map_err(|error| keys.error(error))?.version();
        if active == from {
            drop(alone);
            return self.rotate_data_key(rotation).await;
        }
        let is_left = active > from;
        let because_of_leak = completed.is_some_and(|completed| completed.because_of_leak);
        match (is_left, rotation) {
            (true, Rotation::Routine) => Ok(keyring),
            (true, Rotation::Leaked) if because_of_leak => Ok(keyring),
            _ => Err(Error::new(
                ErrorKind::Restricted,
                "another version of the data key seals than the one to rotate from",
            )
            .with("version", active)
            .with("from", from)
            .with(
                "help",
                "nothing was drawn. `gwstore keys list` says since when each version is there and who signs; \
                 if that was no rotation because of this leak, rotate from the version that seals now",
            )),
        }
    }

    pub(crate) async fn remove(&self, fingerprint: &str) -> Result<Keyring> {
        let (keys, _alone) = self.to_change().await?;
        let completed = self.complete(&keys).await?;
        let keyring = keys.open().await?;
        let named = |it: &Fingerprint| it.to_string() == fingerprint;
        let members = || keyring.members().iter().map(|member| member.recipient().fingerprint());
        let Some(leaves) = members().find(named) else {
            let message = match completed {
                Some(_) => {
                    "the keyring is not sealed to this recipient; a rotation that was broken off is completed \
                     now, which may have been its removal"
                }
                None => "the keyring is not sealed to this recipient",
            };
            return Err(Error::new(ErrorKind::NotFound, message)
                .with("recipient", fingerprint)
                .with("known", members().map(|it| it.to_string()).collect::<Vec<_>>().join(", ")));
        };
        let now = now();
        let change = move |keyring: &Keyring| keyring.remove_recipient(leaves, now, &SystemRandom);
        self.rotate_by(&keys, change).await
    }

    pub(crate) async fn destroy_version(&self, version: u32) -> Result<Keyring> {
        let (keys, _alone) = self.to_change().await?;
        self.complete(&keys).await?;
        let keyring = keys.open().await?;
        if version >= keyring.next_version() || version == 0 {
            return Err(Error::new(
                ErrorKind::NotFound,
                "there never was such a version of the data key",
            )
            .with("version", version)
            .with("next", keyring.next_version()));
        }
        // What it says of the version that seals, and of one that is destroyed already.
        keyring.destroy(version).map_err(|error| keys.error(error))?;
        self.backend.require_unused(version).await?;
        let destroyed = keys.change(move |keyring| keyring.destroy(version)).await?;
        self.backend.take_up(destroyed.clone()).await?;
        Ok(destroyed)
    }
}

fn reason(rotation: Rotation) -> Reason {
    match rotation {
        Rotation::Routine => Reason::Routine,
        Rotation::Leaked => Reason::Leaked,
    }
}

#[async_trait]
impl KeyManager for LiveKeys {
    async fn list(&self) -> Result<KeyringInfo> {
        self.keys()?.open().await.map(|keyring| info(&keyring))
    }

    async fn rotate(&self, rotation: Rotation) -> Result<KeyringInfo> {
        self.rotate_data_key(rotation).await.map(|keyring| info(&keyring))
    }

    async fn rotate_from(&self, from: u32, rotation: Rotation) -> Result<KeyringInfo> {
        self.rotate_data_key_from(from, rotation).await.map(|keyring| info(&keyring))
    }

    async fn add_recipient(&self, recipient: &str, label: &str) -> Result<KeyringInfo> {
        let (keys, _alone) = self.to_change().await?;
        let recipient: Recipient = recipient.parse().map_err(|error| keys.error(error))?;
        let label = label.to_owned();
        let changed = keys.change(move |keyring| keyring.add_recipient(recipient, &label)).await?;
        self.backend.take_up(changed.clone()).await?;
        Ok(info(&changed))
    }

    async fn remove_recipient(&self, fingerprint: &str) -> Result<KeyringInfo> {
        self.remove(fingerprint).await.map(|keyring| info(&keyring))
    }

    async fn change_root(&self, identity_file: &Path) -> Result<KeyringInfo> {
        let (keys, _alone) = self.to_change().await?;
        let new: Arc<dyn KeySource> = Arc::new(Place::File(PathBuf::from(identity_file)));
        let changed = keys.change_root(new.as_ref()).await?;
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(new);
        self.backend.take_up(changed.clone()).await?;
        Ok(info(&changed))
    }

    async fn destroy(&self, version: u32) -> Result<KeyringInfo> {
        self.destroy_version(version).await.map(|keyring| info(&keyring))
    }
}

fn info(keyring: &Keyring) -> KeyringInfo {
    let since = |micros: u64| {
        i64::try_from(micros).ok().and_then(|micros| Timestamp::from_micros(micros).ok())
    };
    KeyringInfo {
        generation: keyring.generation(),
        rotating_from: keyring.leaving().map(Leaving::version),
        data_keys: keyring
            .data_keys()
            .iter()
            .map(|key| DataKeyInfo { version: key.version(), since: since(key.since()) })
            .collect(),
        recipients: keyring
            .members()
            .iter()
            .map(|member| RecipientInfo {
                fingerprint: member.recipient().fingerprint().to_string(),
                label: member.label().to_owned(),
                root: member.is_root(),
            })
            .collect(),
    }
}
