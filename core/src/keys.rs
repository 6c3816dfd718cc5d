//! The keys of a sealed store, while it is open. Which keys there are and what is done to them is the
//! business of whoever opened it; here is how it is asked for.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Resealed;
use crate::domain::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::StoreHandle;
use crate::writer::Request;

/// Why the data key is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// As planned. What is sealed is sealed anew meanwhile, and the older version opens it until then.
    Routine,
    /// Somebody may know the key. What he forges with it is refused at once: whatever proves that the store
    /// is what it was gets new keys, too.
    Leaked,
}

/// What is known of a keyring; no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyringInfo {
    /// How often it was changed; the first is 1.
    pub generation: u64,
    /// The version that a rotation under way leaves.
    pub rotating_from: Option<u32>,
    /// In ascending order; the last one seals.
    pub data_keys: Vec<DataKeyInfo>,
    /// Whom it is sealed to.
    pub recipients: Vec<RecipientInfo>,
}

/// A version of the data key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DataKeyInfo {
    /// Its number; numbers are never used again.
    pub version: u32,
    /// Since when it is there.
    pub since: Option<Timestamp>,
}

/// Somebody who can open the keyring.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecipientInfo {
    /// By which he is named.
    pub fingerprint: String,
    /// What he is for.
    pub label: String,
    /// Whether it is the root secret, which unlocks the store.
    pub root: bool,
}

/// What changes the keys of an open store. Whoever opens a sealed store hands it in, as
/// [`StoreOptions::keys`](crate::options::StoreOptions::keys). Each change is durable when it returns, in
/// keyring and store; broken off, it is completed by the next change or opening.
#[async_trait]
#[allow(missing_docs, reason = "each is the method of StoreKeys with its name")]
pub trait KeyManager: Send + Sync + std::fmt::Debug {
    async fn list(&self) -> Result<KeyringInfo>;
    async fn rotate(&self, rotation: Rotation) -> Result<KeyringInfo>;
    async fn rotate_from(&self, from: u32, rotation: Rotation) -> Result<KeyringInfo>;
    async fn add_recipient(&self, recipient: &str, label: &str) -> Result<KeyringInfo>;
    async fn remove_recipient(&self, fingerprint: &str) -> Result<KeyringInfo>;
    async fn change_root(&self, identity_file: &Path) -> Result<KeyringInfo>;
    async fn destroy(&self, version: u32) -> Result<KeyringInfo>;
}

/// The keys of an open store, as [`Store::keys`](crate::Store::keys) gives them.
#[derive(Debug, Clone)]
pub struct StoreKeys {
    manager: Arc<dyn KeyManager>,
    handle: StoreHandle,
}

impl StoreKeys {
    pub(crate) fn of(handle: &StoreHandle) -> Result<Self> {
        match handle.core.keys() {
            Some(manager) => Ok(Self { manager, handle: handle.clone() }),
            None => Err(Error::new(
                ErrorKind::Unsupported,
                "the store is not sealed, or was opened without what manages its keys",
            )
            .with("backend", handle.core.backend.info().name)
            .with(
                "help",
                "only zqlite stores with zqlite.sealed = true have keys; `gwstore seal` seals one",
            )),
        }
    }

    /// The keyring as it is stored.
    ///
    /// # Errors
    /// `Crypto` if it cannot be opened.
    pub async fn list(&self) -> Result<KeyringInfo> {
        self.manager.list().await.map_err(|error| error.during("keys.list"))
    }

    /// A new version of the data key, which seals at once. What the older ones sealed is sealed anew between
    /// commits, as [`StoreKeys::progress`] tells, and read meanwhile.
    ///
    /// # Errors
    /// `Busy` if another process changes the keyring; `Restricted` if too many versions have records;
    /// `Crypto`; those of any write.
    pub async fn rotate(&self, rotation: Rotation) -> Result<KeyringInfo> {
        self.changed("keys.rotate", self.manager.rotate(rotation).await).await
    }

    /// As [`StoreKeys::rotate`], if this version is the one that seals. It may be repeated when it is not
    /// known how it ended: a rotation from that version that was made already is not made twice.
    ///
    /// # Errors
    /// `Restricted` if another version seals that is not known to follow from such a rotation: nothing is
    /// drawn then. Otherwise as [`StoreKeys::rotate`].
    pub async fn rotate_from(&self, from: u32, rotation: Rotation) -> Result<KeyringInfo> {
        self.changed("keys.rotate", self.manager.rotate_from(from, rotation).await).await
    }

    /// Lets somebody else open the keyring, by his line `age1pq1…`.
    ///
    /// # Errors
    /// `InvalidArgument` for another line; `Restricted` if he can; as [`StoreKeys::rotate`].
    pub async fn add_recipient(&self, recipient: &str, label: &str) -> Result<KeyringInfo> {
        let changed = self.manager.add_recipient(recipient, label).await;
        changed.map_err(|error| error.during("keys.add-recipient"))
    }

    /// Lets somebody no longer open it, and rotates as after a leak. He keeps what he could read.
    ///
    /// # Errors
    /// `NotFound`, `Restricted` for the root; as [`StoreKeys::rotate`].
    pub async fn remove_recipient(&self, fingerprint: &str) -> Result<KeyringInfo> {
        let changed = self.manager.remove_recipient(fingerprint).await;
        self.changed("keys.remove-recipient", changed).await
    }

    /// Unlocks it by the identity in this file from now on; the configuration has to name it. Older copies
    /// of the keyring still open by the one before.
    ///
    /// # Errors
    /// As [`StoreKeys::rotate`].
    pub async fn change_root(&self, identity_file: &Path) -> Result<KeyringInfo> {
        let changed = self.manager.change_root(identity_file).await;
        changed.map_err(|error| error.during("keys.change-root"))
    }

    /// Destroys a version that no record is sealed under any more. What only it sealed, in backups too, is
    /// lost to whoever has no older copy of the keyring.
    ///
    /// # Errors
    /// `Restricted` if a record names it, or it seals; `NotFound`; as [`StoreKeys::rotate`].
    pub async fn destroy(&self, version: u32) -> Result<KeyringInfo> {
        let changed = self.manager.destroy(version).await;
        changed.map_err(|error| error.during("keys.destroy"))
    }

    /// How far everything is sealed under the newest version.
    #[must_use]
    pub fn progress(&self) -> Option<Resealed> {
        self.handle.core.backend.info().resealed
    }

    /// Has the writer ask the backend for what is left to do. What is changed is changed, also where that
    /// cannot be.
    async fn changed(
        &self,
        operation: &'static str,
        changed: Result<KeyringInfo>,
    ) -> Result<KeyringInfo> {
        if self.handle.send(0, Request::Wake).await.is_err() {
            tracing::debug!("the writer does not listen any more");
        }
        changed.map_err(|error| error.during(operation))
    }
}
