//! The one implementation of [`Store`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Store, StoreInfo, WeakStore, watch};
use crate::backend::{Attestation, KeyRange};
use crate::block::Serial;
use crate::changes::{ChangeStream, LogPosition};
use crate::command::{Restore, Restored, Transaction};
use crate::digest::Digests;
use crate::domain::{Actor, InstanceId};
use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::health::Health;
use crate::keys::StoreKeys;
use crate::repository::*;
use crate::schema::Table;
use crate::series;
use crate::state::Reply;
use crate::threads::may_block;
use crate::view::View;
use crate::writer::{Committed, Request};

#[async_trait]
impl Store for StoreHandle {
    fn users(&self) -> &dyn UserRepository {
        self
    }

    fn nodes(&self) -> &dyn NodeRepository {
        self
    }

    fn presence(&self) -> &dyn PresenceRepository {
        self
    }

    fn instances(&self) -> &dyn InstanceRepository {
        self
    }

    fn routes(&self) -> &dyn RouteRepository {
        self
    }

    fn api_keys(&self) -> &dyn ApiKeyRepository {
        self
    }

    fn preauth_keys(&self) -> &dyn PreAuthKeyRepository {
        self
    }

    fn policies(&self) -> &dyn PolicyRepository {
        self
    }

    fn dns(&self) -> &dyn DnsRepository {
        self
    }

    fn sessions(&self) -> &dyn SessionRepository {
        self
    }

    fn sign_ins(&self) -> &dyn SignInRepository {
        self
    }

    fn settings(&self) -> &dyn SettingRepository {
        self
    }

    fn metrics(&self) -> &dyn MetricRepository {
        self
    }

    fn audit(&self) -> &dyn AuditRepository {
        self
    }

    fn clock(&self) -> &dyn ClockRepository {
        self
    }

    fn consumers(&self) -> &dyn ConsumerRepository {
        self
    }

    fn keys(&self) -> Result<StoreKeys> {
        StoreKeys::of(self)
    }

    fn view(&self) -> View {
        self.current_view()
    }

    async fn fresh_view(&self) -> Result<View> {
        self.newest_view().await
    }

    fn watch(&self, after: Serial) -> ChangeStream {
        watch::stream(&self.core, after, None)
    }

    fn watch_from(&self, LogPosition { serial, hash }: LogPosition) -> ChangeStream {
        watch::stream(&self.core, serial, Some(hash))
    }

    async fn transact(&self, transaction: Transaction) -> Result<Committed<Vec<Reply>>> {
        let committed = self.commit(transaction.into()).await?;
        let value = expect_reply!(committed.value, All)?;
        Ok(Committed { value, serial: committed.serial })
    }

    async fn restore(&self, restore: Restore) -> Result<Committed<Restored>> {
        let committed = self.commit(restore.into()).await?;
        let value = expect_reply!(committed.value, Restored)?;
        Ok(Committed { value, serial: committed.serial })
    }

    fn acting_as(&self, actor: Actor) -> Arc<dyn Store> {
        Arc::new(Self { actor: Arc::new(actor), ..self.clone() })
    }

    fn as_instance(&self, instance: InstanceId) -> Arc<dyn Store> {
        Arc::new(Self { instance: Some(instance), ..self.clone() })
    }

    fn downgrade(&self) -> WeakStore {
        WeakStore::of(self)
    }

    async fn digests(&self) -> Result<Digests> {
        const OPERATION: &str = "store.digests";
        let view = self.open_view(OPERATION)?;
        let computed = async {
            let range = KeyRange::all(Table::Audit);
            let unflushed = view.unflushed_audit();
            let audit =
                series::AuditReader::new(self.backend(), unflushed, range, false, usize::MAX);
            // Hashing a large state takes seconds of CPU.
            let (shared, hashed) = (self.core.shared.clone(), view.clone());
            let state = may_block(move || Ok(shared.digests.digest(&hashed))).await?;
            let metrics = series::metrics_digest(self.backend()).await?;
            let audit = series::audit_digest(audit).await?;
            self.until_shown().await?;
            Ok(Digests { state, metrics, audit })
        };
        computed.await.map_err(|error: Error| error.during(OPERATION))
    }

    async fn attest(&self) -> Result<Attestation> {
        const OPERATION: &str = "store.attest";
        self.open_view(OPERATION)?;
        let attested = async { self.core.attester.attest(self.now()?).await };
        attested.await.map_err(|error| error.during(OPERATION))
    }

    async fn checkpoint(&self) -> Result<Serial> {
        self.flush().await
    }

    async fn verify(&self) -> Result<()> {
        const OPERATION: &str = "store.verify";
        self.open_view(OPERATION)?;
        self.verify_stored().await.map_err(|error| error.during(OPERATION))?;
        self.core.attester.publish().await;
        Ok(())
    }

    async fn probe(&self) -> Result<Duration> {
        let begun = Instant::now();
        let probed = self.send(0, Request::Probe).await;
        probed.map_err(|error| error.during("store.probe")).map(|()| begun.elapsed())
    }

    fn health(&self) -> Health {
        self.assess_health()
    }

    async fn check_health(&self) -> Health {
        self.probe_for_health().await;
        self.assess_health()
    }

    fn info(&self) -> StoreInfo {
        self.info_of(&self.current_view())
    }

    async fn close(&self) -> Result<()> {
        self.core.begin_closing();
        let mut progress = self.core.shared.progress.subscribe();
        // Fails only if the sender is gone, which `self` has.
        let ended = progress.wait_for(|progress| progress.end.is_some()).await;
        let end = ended.ok().and_then(|progress| progress.end.clone());
        end.map_or(Ok(()), |end| end.outcome()).map_err(|error| error.during("store.close"))
    }
}

impl StoreHandle {
    /// What the store is and does, as of a view.
    pub(crate) fn info_of(&self, view: &View) -> StoreInfo {
        let counters = &self.core.shared.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let head = self.core.head();
        StoreInfo {
            backend: self.core.backend.info(),
            store: head.store,
            side: head.side,
            lineage: head.lineage,
            epoch: head.epoch,
            position: view.position(),
            serial: view.serial(),
            dirty_rows: read(&counters.dirty_rows),
            commands: read(&counters.commands),
            rejected: read(&counters.rejected),
            groups: read(&counters.groups),
            checkpoints: read(&counters.checkpoints),
            recoveries: read(&counters.recoveries),
            imported_hash_checks: self.core.imported_hashes.checked(),
            migration: self
                .core
                .options
                .seat
                .as_ref()
                .map(|seat| seat.migration_info(view.position())),
        }
    }
}
