//! The other side of a migration while it cannot be opened.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, Head, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::{Occupant, Seat};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;

use super::{Opener, materialize};
use crate::config::{BackendChoice, Config};

/// Stands beside a store for a database that cannot be opened: every call gives the reason. Reopened, it tries
/// again, and has the database stand in its place.
pub(super) struct Absent {
    config: Config,
    /// The database that it has to be.
    peer: SideId,
    entropy: Arc<dyn Entropy>,
    #[cfg(feature = "zqlite")]
    key_source: Option<Arc<dyn crate::keys::crypto::root::KeySource>>,
    seat: OnceLock<Weak<Seat>>,
    reason: Mutex<Error>,
}

impl std::fmt::Debug for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Absent").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Absent {
    pub(super) fn new(opener: &Opener<'_>, peer: SideId, reason: Error) -> Self {
        let (config, entropy) = opener.parts();
        Self {
            config: config.clone(),
            peer,
            entropy,
            #[cfg(feature = "zqlite")]
            key_source: opener.source_of_keys(),
            seat: OnceLock::new(),
            reason: Mutex::new(reason),
        }
    }

    /// Where it stands.
    pub(super) fn stands_at(&self, seat: &Arc<Seat>) {
        let _ = self.seat.set(Arc::downgrade(seat));
    }

    fn reason(&self) -> Error {
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Error::new(ErrorKind::Unavailable, "the other side of the migration cannot be opened")
            .with("side", self.peer)
            .because(reason)
    }

    async fn open(&self) -> Result<(Occupant, Head)> {
        let opener = Opener::new(&self.config).create(false).entropy(self.entropy.clone());
        #[cfg(feature = "zqlite")]
        let opener = match &self.key_source {
            Some(source) => opener.key_source(source.clone()),
            None => opener,
        };
        let (beneath, _) = opener.open_side().await?;
        let backend = beneath.backend.clone();
        match self.checked(&backend).await {
            Ok(head) => {
                let keys = beneath.manager(false).await;
                let materialize = materialize(&self.config.backend);
                Ok((Occupant { backend, keys, materialize }, head))
            }
            Err(error) => {
                // Its files must not stay locked.
                let _ = backend.close().await;
                Err(error)
            }
        }
    }

    async fn checked(&self, backend: &Arc<dyn Backend>) -> Result<Head> {
        let head = backend.head().await?;
        if head.side != self.peer {
            return Err(Error::new(
                ErrorKind::Restricted,
                "this database is not the other side of the migration; put that one back in its place",
            )
            .with("side", head.side)
            .with("expected", self.peer)
            .with("location", backend.info().location.unwrap_or_default()));
        }
        backend.migrate(Schema::current()).await?;
        backend.head().await
    }
}

#[async_trait]
impl Backend for Absent {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            name: self.config.backend.kind().name(),
            engine: String::new(),
            location: self.config.backend.location(),
            durable: true,
            shared: matches!(self.config.backend, BackendChoice::Postgres(_)),
            sealed: self.config.is_sealed(),
            pinned: false,
            signer: None,
            resealed: None,
            bytes: None,
            file: None,
            filesystem: None,
            clock_ahead_ms: None,
            pool: None,
            log: None,
            counters: BackendCounters::default(),
        }
    }

    async fn head(&self) -> Result<Head> {
        Err(self.reason())
    }

    async fn migrate(&self, _: Schema) -> Result<()> {
        Err(self.reason())
    }

    async fn scan(&self, _: Scan) -> Result<ScanPage> {
        Err(self.reason())
    }

    async fn blocks(&self, _: Serial, _: usize) -> Result<Vec<EncodedBlock>> {
        Err(self.reason())
    }

    async fn commit(&self, _: &Commit) -> Result<()> {
        Err(self.reason())
    }

    async fn probe(&self, _: Epoch) -> Result<()> {
        Err(self.reason())
    }

    async fn adopt(&self, _: &Head) -> Result<()> {
        Err(self.reason())
    }

    async fn reopen(&self) -> Result<Head> {
        let Some(seat) = self.seat.get().and_then(Weak::upgrade) else { return Err(self.reason()) };
        match self.open().await {
            Ok((occupant, head)) => {
                seat.take_place_of(self, occupant).await?;
                tracing::info!(
                    name: "migration_opened_again",
                    side = %self.peer,
                    "the other side of the migration was opened"
                );
                Ok(head)
            }
            Err(error) => {
                *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = error;
                Err(self.reason())
            }
        }
    }

    async fn verify(&self) -> Result<()> {
        Err(self.reason())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
