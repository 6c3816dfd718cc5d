//! Moving a store to another backend while it is open, and back.
//!
//! The configuration names the target as `migration.target`. [`Opener::open`](crate::Opener::open) then opens
//! both stores, and their records say which one is served. [`Migrations`] begins the move and takes it on, as
//! the admin socket and `gwstore migrate` do.
//!
//! ```no_run
//! # async fn example(config: ghostwire_store::config::Config) -> ghostwire_store::Result<()> {
//! use ghostwire_store::Opener;
//!
//! let (store, migrations) = Opener::new(&config).open_movable().await?;
//! migrations.start("ops").await?;
//! // Once `status` says `mirror`, the target is served without anybody's noticing.
//! migrations.advance("ops").await?;
//! # drop(store);
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::Store;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::MigrationId;
use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::HashKeys;
use ghostwire_store_core::store::WeakStore;
use serde::{Deserialize, Serialize};

use crate::Opener;
use crate::config::{Config, MigrationStage};
use crate::open::{Anew, is_empty_schema, is_left_alone};

#[doc(inline)]
pub use ghostwire_store_core::migration::{
    CopyOptions, CopyStatus, MoveOptions, Running, SideStatus, Stage, Status,
};
use ghostwire_store_core::migration::{Migration, Seat, check_start};

/// What moves an open store to another backend. Clones share it.
#[derive(Debug, Clone)]
pub struct Migrations(Arc<Inner>);

struct Inner {
    config: Config,
    entropy: Arc<dyn Entropy>,
    #[cfg(feature = "zqlite")]
    key_source: Option<Arc<dyn crate::keys::crypto::root::KeySource>>,
    store: WeakStore,
    seat: Arc<Seat>,
    hash_keys: Option<Arc<HashKeys>>,
    /// Somebody begins one. The target may take its time to answer.
    starting: tokio::sync::Mutex<()>,
    current: tokio::sync::Mutex<Option<Arc<Migration>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migrations").field("seat", &self.seat).finish_non_exhaustive()
    }
}

/// What a move would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Backend and place of the store as it is.
    pub source: Place,
    /// Backend and place of what it moves to.
    pub target: Place,
    /// Whether the target has to be made.
    pub makes_target: bool,
    /// How many nodes there are.
    pub nodes: u64,
    /// How many bytes the source has.
    pub bytes: Option<u64>,
    /// Why it cannot begin; nothing if it can.
    pub refused: Option<String>,
}

/// A backend and where it stores.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Place {
    /// The store's name in the configuration.
    pub store: String,
    /// Its backend.
    pub backend: String,
    /// Its place.
    pub location: Option<String>,
    /// Whether what it stores is sealed.
    pub sealed: bool,
}

pub(crate) fn move_options(config: &Config) -> MoveOptions {
    let migration = &config.migration;
    let share = u32::try_from(migration.copy_share).unwrap_or(100);
    MoveOptions {
        max_kept_bytes: migration.max_kept_mib.saturating_mul(1024 * 1024),
        max_stall: Duration::from_millis(migration.max_stall_ms),
        synchronous: migration.synchronous,
        mirror_timeout: Duration::from_millis(migration.mirror_timeout_ms),
        copy: CopyOptions { share, ..CopyOptions::default() },
    }
}

/// The name by which an error has the store that the network has moved to.
const MOVED_TO: &str = "moved_to";

/// Whether this error says that there is no migration since the network has moved already.
#[must_use]
pub fn has_moved(error: &Error) -> bool {
    error.context().iter().any(|(key, _)| *key == MOVED_TO)
}

impl Migrations {
    pub(crate) fn of(
        opener: &Opener<'_>,
        store: &Arc<dyn Store>,
        (seat, hash_keys): (Arc<Seat>, Option<Arc<HashKeys>>),
    ) -> Self {
        let (config, entropy) = opener.parts();
        seat.set_renewal(Arc::new(Anew::new(opener, hash_keys.clone(), &seat)));
        Self(Arc::new(Inner {
            config: config.clone(),
            entropy,
            #[cfg(feature = "zqlite")]
            key_source: opener.source_of_keys(),
            store: store.downgrade(),
            seat,
            hash_keys,
            starting: tokio::sync::Mutex::default(),
            current: tokio::sync::Mutex::default(),
        }))
    }

    /// Goes on with the migration whose other side stands beside the store.
    pub(crate) async fn attach(&self, store: &dyn Store) -> Result<()> {
        let migration = Migration::attach(store, move_options(&self.0.config)).await?;
        *self.0.current.lock().await = Some(migration);
        Ok(())
    }

    /// The file of the store that is served.
    #[cfg(all(feature = "admin", unix))]
    pub(crate) fn served_path(&self) -> Option<std::path::PathBuf> {
        let info = self.0.seat.info();
        info.file.and(info.location).map(Into::into)
    }

    fn store(&self) -> Result<Arc<dyn Store>> {
        self.0
            .store
            .upgrade()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the store was closed"))
    }

    fn target(&self) -> Result<Config> {
        let Some(name) = &self.0.config.migration.target else {
            return Err(Error::new(
                ErrorKind::Restricted,
                "the configuration names no target, so the process would not know the other store when it is \
                 started again",
            )
            .with("key", "migration.target")
            .with(
                "help",
                "declare the other store under `stores`, name it as migration.target, and start the process \
                 anew",
            ));
        };
        self.0.config.for_store(name)
    }

    fn require_stage(&self, wanted: MigrationStage) -> Result<()> {
        let furthest = self.0.config.migration.stage;
        if furthest >= wanted {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Restricted,
            "the configuration does not let the migration go so far",
        )
        .with("key", "migration.stage")
        .with("furthest", furthest)
        .with("asked_for", wanted))
    }

    async fn current(&self) -> Option<Arc<Migration>> {
        let mut current = self.0.current.lock().await;
        if current.as_ref().is_some_and(|migration| migration.has_ended()) {
            *current = None;
        }
        current.clone()
    }

    async fn require_current(&self) -> Result<Arc<Migration>> {
        let current = self.current().await;
        if current.is_none() {
            self.refuse_after_move(ErrorKind::NotFound).await?;
        }
        current.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no migration of this store is under way")
                .with("help", "`gwstore migrate start` begins one")
        })
    }

    /// Where the source was left for good, and the configuration still has the network move.
    async fn refuse_after_move(&self, kind: ErrorKind) -> Result<()> {
        let Ok(target) = self.target() else { return Ok(()) };
        let served = self.0.seat.info();
        let is_there = target.backend.is_at(served.name, served.location.as_deref());
        if !is_there || !is_left_alone(&self.0.seat.head().await?) {
            return Ok(());
        }
        Err(Error::new(kind, "the network has moved to the target for good")
            .with(MOVED_TO, &target.store)
            .with(
                "help",
                "name that one as `store`, leave migration.target out, and start the process anew",
            ))
    }

    /// What a move would do, and whether it could begin. Nothing changes, and nothing is made.
    ///
    /// # Errors
    /// `Restricted` if no target is configured, or if the network has moved there already; `Unavailable`.
    pub async fn plan(&self) -> Result<Plan> {
        let (store, target) = (self.store()?, self.target()?);
        self.refuse_after_move(ErrorKind::Restricted).await?;
        let info = store.info();
        let path = target.backend.path();
        let is_missing = path.is_some_and(|path| {
            std::fs::metadata(path).is_ok_and(|file| file.len() == 0)
                || path.symlink_metadata().is_err()
        });
        let (makes_target, refused) = match self.makes_target(&target, is_missing).await {
            Ok(makes_target) => (makes_target, None),
            Err(error) => (is_missing, Some(error)),
        };
        Ok(Plan {
            source: Place {
                store: self.0.config.store.clone(),
                backend: info.backend.name.to_owned(),
                location: info.backend.location,
                sealed: info.backend.sealed,
            },
            target: Place {
                store: target.store.clone(),
                backend: target.backend.kind().name().to_owned(),
                location: target.backend.location(),
                sealed: target.is_sealed(),
            },
            makes_target,
            nodes: store.view().nodes().len() as u64,
            bytes: info.backend.bytes,
            refused: refused.map(|error| error.to_string()),
        })
    }

    /// What is kept for whoever follows the log is each database's own, and would not be there after a move.
    async fn require_no_consumers(&self) -> Result<()> {
        let consumers = self.store()?.consumers().list().await?;
        let names = consumers.iter().map(|consumer| consumer.name.as_str());
        let others: Vec<_> = names
            .filter(|name| !name.starts_with("migration-") && !name.starts_with("holding-"))
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Restricted,
            "consumers of the log are registered, and would not be in the other database",
        )
        .with("consumers", others.join(", "))
        .with(
            "help",
            "remove them (`gwstore consumers remove`), and register them anew after the move",
        ))
    }

    /// Whether the target has to be made.
    ///
    /// # Errors
    /// Why the migration cannot begin.
    async fn makes_target(&self, target: &Config, is_missing: bool) -> Result<bool> {
        self.require_stage(MigrationStage::Mirror)?;
        self.require_no_consumers().await?;
        let is_part = self.0.seat.head().await?.membership.is_some();
        if is_part || self.current().await.is_some() {
            return Err(Error::new(ErrorKind::Busy, "a migration of this store is under way")
                .with("help", "`gwstore migrate status` tells where it stands"));
        }
        Migration::check_writers(self.store()?.as_ref()).await?;
        let opener = self.opener(target);
        opener.require_key(self.0.hash_keys.as_deref())?;
        if is_missing {
            #[cfg(feature = "zqlite")]
            opener.check_keys_of_new().await?;
            return Ok(true);
        }
        let backend = match opener.create(false).read_only(true).open_backend().await {
            Ok(backend) => backend,
            Err(error) if is_empty_schema(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        let head = backend.head().await;
        backend.close().await?;
        check_start(&self.0.seat.head().await?, &head?).map(|()| false)
    }

    fn opener<'c>(&self, config: &'c Config) -> Opener<'c> {
        let opener = Opener::new(config).entropy(self.0.entropy.clone());
        #[cfg(feature = "zqlite")]
        let opener = match &self.0.key_source {
            Some(source) => opener.key_source(source.clone()),
            None => opener,
        };
        opener
    }

    /// Begins to copy the store to the configured target, which is made if it is not there.
    ///
    /// # Errors
    /// `Busy` if a migration is under way; `Restricted` for a target that is not empty or is the same
    /// database; `Crypto` if the target does not have the store's hash key; those of opening it.
    pub async fn start(&self, by: &str) -> Result<Status> {
        let (store, target) = (self.store()?, self.target()?);
        self.refuse_after_move(ErrorKind::Restricted).await?;
        self.require_stage(MigrationStage::Mirror)?;
        self.require_no_consumers().await?;
        let _starting = self.0.starting.try_lock().map_err(|_| {
            Error::new(ErrorKind::Busy, "somebody else is beginning a migration of this store")
        })?;
        if self.current().await.is_some() {
            return Err(Error::new(ErrorKind::Busy, "a migration of this store is under way")
                .with("help", "`gwstore migrate status` tells where it stands"));
        }
        let other = self.opener(&target).open_target(self.0.hash_keys.as_deref()).await?;
        let backend = other.backend.clone();
        let begun = async {
            let mut id = [0; 16];
            self.0.entropy.fill(&mut id)?;
            let id = MigrationId::from_bytes(id);
            Migration::launch(store.as_ref(), other, id, move_options(&self.0.config)).await
        };
        let begun = match begun.await {
            Ok(migration) => {
                // It goes on if whoever asked for it does not wait any longer.
                *self.0.current.lock().await = Some(migration.clone());
                migration.has_begun().await.map(|()| migration)
            }
            Err(error) => Err(error),
        };
        let migration = match begun {
            Ok(migration) => migration,
            Err(error) => {
                // Its files must not stay locked.
                let _ = backend.close().await;
                return Err(error.during("migration.start"));
            }
        };
        tracing::info!(name: "migration_started", by, target = target.store, "a migration began");
        migration.status().await
    }

    /// Where the migration stands.
    ///
    /// # Errors
    /// `NotFound` if none is under way, which [`has_moved`] tells more of; `Unavailable`.
    pub async fn status(&self) -> Result<Status> {
        self.require_current().await?.status().await
    }

    /// Serves from the target; from then on the source follows. Whoever writes meanwhile waits.
    ///
    /// # Errors
    /// As [`Migration::advance`](ghostwire_store_core::migration::Migration::advance); `Restricted` if the
    /// configuration does not let it go so far.
    pub async fn advance(&self, by: &str) -> Result<Status> {
        self.require_stage(MigrationStage::TargetReads)?;
        let migration = self.require_current().await?;
        self.require_no_consumers().await?;
        migration.advance(by).await.map_err(|error| error.during("migration.advance"))
    }

    /// Serves from the source again.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub async fn back(&self, by: &str) -> Result<Status> {
        let migration = self.require_current().await?;
        self.require_no_consumers().await?;
        migration.back(by).await.map_err(|error| error.during("migration.back"))
    }

    /// Aborts it: the target cannot be opened as a store then.
    ///
    /// # Errors
    /// `Restricted` once the target is served; as [`advance`](Self::advance).
    pub async fn abort(&self, by: &str) -> Result<()> {
        let migration = self.require_current().await?;
        migration.abort(by).await.map_err(|error| error.during("migration.abort"))
    }

    /// Leaves the source for good: there is no way back.
    ///
    /// # Errors
    /// `Restricted` while the source is served; as [`advance`](Self::advance).
    pub async fn finish(&self, by: &str) -> Result<()> {
        self.require_stage(MigrationStage::TargetOnly)?;
        let migration = self.require_current().await?;
        migration.finish(by).await.map_err(|error| error.during("migration.finish"))
    }
}

#[cfg(all(feature = "admin", unix))]
#[async_trait::async_trait]
impl ghostwire_store_admin::Migrations for Migrations {
    async fn migrate(
        &self,
        request: ghostwire_store_admin::protocol::MigrateRequest,
        by: &str,
    ) -> Result<serde_json::Value> {
        use ghostwire_store_admin::protocol::MigrateRequest;
        let value = |of: serde_json::Result<serde_json::Value>| {
            of.map_err(|error| {
                Error::new(ErrorKind::Unexpected, "an answer has no JSON form").because(error)
            })
        };
        match request {
            MigrateRequest::Plan => value(serde_json::to_value(self.plan().await?)),
            MigrateRequest::Status => value(serde_json::to_value(self.status().await?)),
            MigrateRequest::Start => value(serde_json::to_value(self.start(by).await?)),
            MigrateRequest::Advance => value(serde_json::to_value(self.advance(by).await?)),
            MigrateRequest::Back => value(serde_json::to_value(self.back(by).await?)),
            MigrateRequest::Abort => self.abort(by).await.map(|()| serde_json::Value::Null),
            MigrateRequest::Finish => self.finish(by).await.map(|()| serde_json::Value::Null),
        }
    }
}
