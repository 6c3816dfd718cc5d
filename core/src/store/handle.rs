//! The handle on an open store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tracing::Instrument;

use super::queue::Queue;
use super::{Store, StoreInfo, watch};
use crate::backend::{Backend, KeyRange};
use crate::block::{RowChange, Serial};
use crate::changes::{ChangeStream, Place};
use crate::clock::{ClockGuard, Reading, Verdict};
use crate::command::{Command, Restore, Restored, Submission, Transaction};
use crate::digest::Digests;
use crate::domain::{ActorName, Timestamp};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::imported::ImportedHashes;
use crate::options::StoreOptions;
use crate::repository::*;
use crate::schema::Table;
use crate::secrets::HashKey;
use crate::series;
use crate::state::Reply;
use crate::threads::may_block;
use crate::view::View;
use crate::writer::{Answer, Committed, End, Request, SeriesBatch, Shared, weight};

#[derive(Debug)]
pub(super) struct Core {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) shared: Arc<Shared>,
    pub(super) imported_hashes: ImportedHashes,
    pub(super) queue: Queue,
    pub(super) options: StoreOptions,
    pub(super) is_shared: bool,
    pub(super) guard: ClockGuard,
}

impl Core {
    fn require_open(&self) -> Result<()> {
        if self.shared.closing.has_begun() { Err(self.refusal()) } else { Ok(()) }
    }

    /// Why nothing is accepted any more.
    pub(super) fn refusal(&self) -> Error {
        let message = match &self.shared.progress.borrow().end {
            Some(End::Failed(_)) => "the store stopped by a fault of its own; open it again",
            _ => "the store is closed",
        };
        Error::new(ErrorKind::Unavailable, message)
    }

    fn begin_closing(&self) {
        if self.shared.closing.begin() {
            self.backend.announce_close();
        }
    }
}

/// Nobody has a handle any more, so the writer ends once it has served what was accepted.
impl Drop for Core {
    fn drop(&mut self) {
        if !self.shared.closing.has_begun() {
            self.backend.announce_close();
        }
    }
}

/// The one implementation of [`Store`] and of every repository.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    pub(super) core: Arc<Core>,
    pub(super) actor: ActorName,
}

/// Bounded by a queue that gives `Busy`, and by nothing the caller does: a request that was
/// accepted is served even if nobody waits for it any longer.
impl StoreHandle {
    /// Sends a request that owns so many bytes.
    pub(super) async fn send<T>(
        &self,
        weight: usize,
        make: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T> {
        self.core.require_open()?;
        let sent = self.core.queue.send(weight, make).await?;
        let answered = sent.ok_or_else(|| self.core.refusal())?;
        answered.await.map_err(|_| {
            Error::new(ErrorKind::OutcomeUnknown, "the writer stopped; reopen the store")
        })?
    }

    fn submission(&self, command: Command) -> Result<Submission> {
        Ok(Submission {
            at: self.now()?,
            actor: self.actor.clone(),
            seed: draw(self.entropy())?,
            command,
        })
    }

    async fn commit(&self, operation: &'static str, command: Command) -> Result<Committed> {
        let span = tracing::debug_span!("store.write", db.operation.name = operation);
        let committed = async {
            let submission = Box::new(self.submission(command)?);
            let weight = submission.command.weight();
            self.send(weight, |answer| Request::Submit(submission, answer)).await
        };
        committed.instrument(span).await.map_err(|error| error.during(operation))
    }

    pub(crate) async fn run(
        &self,
        operation: &'static str,
        command: impl Into<Command> + Send,
    ) -> Result<Reply> {
        self.commit(operation, command.into()).await.map(|committed| committed.value)
    }

    /// For what a caller should not wait for and may be lost, such as the time of a last use.
    pub(crate) fn run_in_background(&self, command: impl Into<Command>) {
        let Ok(submission) = self.submission(command.into()) else { return };
        self.core.queue.try_send(|answer| Request::Submit(Box::new(submission), answer));
    }

    pub(crate) async fn append_series(
        &self,
        operation: &'static str,
        batch: SeriesBatch,
    ) -> Result<()> {
        self.send(weight(&batch.rows), |answer| Request::Series(batch, answer))
            .await
            .map_err(|error| error.during(operation))
    }

    pub(crate) async fn prune_series(
        &self,
        operation: &'static str,
        ranges: Vec<KeyRange>,
    ) -> Result<()> {
        // A commit for each part, so that writers get their turn.
        const RANGES_PER_COMMIT: usize = 1000;
        for part in ranges.chunks(RANGES_PER_COMMIT) {
            self.replace_series(operation, part.to_vec(), Vec::new()).await?;
        }
        Ok(())
    }

    /// Removes the rows in these ranges, and brings in others, in one commit.
    pub(crate) async fn replace_series(
        &self,
        operation: &'static str,
        ranges: Vec<KeyRange>,
        rows: Vec<RowChange>,
    ) -> Result<()> {
        self.send(weight(&rows), |answer| Request::Replace(ranges, rows, answer))
            .await
            .map_err(|error| error.during(operation))
    }

    pub(crate) fn new_id<I>(
        &self,
        operation: &'static str,
        make: fn(Timestamp, [u8; 10]) -> I,
    ) -> Result<I> {
        let id = || -> Result<I> { Ok(make(self.command_time()?, draw(self.entropy())?)) };
        id().map_err(|error| error.during(operation))
    }

    pub(crate) fn new_ids<I>(
        &self,
        operation: &'static str,
        count: usize,
        make: fn(Timestamp, [u8; 10]) -> I,
    ) -> Result<Vec<I>> {
        let ids = || -> Result<Vec<I>> {
            let at = self.command_time()?;
            (0..count).map(|_| Ok(make(at, draw(self.entropy())?))).collect()
        };
        ids().map_err(|error| error.during(operation))
    }

    /// The time that a command of now will have: a clock that was set back makes no older ids.
    fn command_time(&self) -> Result<Timestamp> {
        Ok(self.now()?.max(self.stored_time()))
    }

    /// What the clock says.
    ///
    /// # Errors
    /// `Unavailable` if that is later than it can be.
    pub(crate) fn now(&self) -> Result<Timestamp> {
        let reading = self.reading();
        self.judge(reading).require(reading)
    }

    /// What the clock says, or if that is later than it can be, the latest that it can be. Nothing
    /// that is stored may depend on it.
    pub(crate) fn now_at_most(&self) -> Timestamp {
        let reading = self.reading();
        self.judge(reading).time(reading)
    }

    /// What the clock says, whether or not that can be.
    pub(crate) fn wall_clock(&self) -> Timestamp {
        self.core.options.clock.now()
    }

    /// Takes what the clock says as right.
    pub(crate) fn accept_clock(&self) {
        self.core.guard.accept(self.reading());
    }

    fn reading(&self) -> Reading {
        Reading::of(self.core.options.clock.as_ref())
    }

    /// The time of the last durable commit.
    fn stored_time(&self) -> Timestamp {
        self.core.shared.published.load().state.time()
    }

    fn judge(&self, reading: Reading) -> Verdict {
        self.core.guard.judge(reading, || self.stored_time())
    }

    /// How many bytes of rows one part of a call over many entities takes.
    pub(crate) fn part_bytes(&self) -> u64 {
        self.core.options.writer.full_block() as u64
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        self.core.options.entropy.as_ref()
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.core.backend.as_ref()
    }

    pub(crate) fn imported_hashes(&self) -> &ImportedHashes {
        &self.core.imported_hashes
    }

    pub(crate) fn hash_key(&self) -> Result<&HashKey> {
        self.core.options.hash_key.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::Crypto,
                "the store was opened without a hash key; configure `secret_key_file`",
            )
        })
    }

    /// The last durable state, unless the store was closed.
    pub(crate) fn open_view(&self, operation: &'static str) -> Result<View> {
        self.core.require_open().map_err(|error| error.during(operation))?;
        Ok(self.current_view())
    }

    fn current_view(&self) -> View {
        View::new(self.core.shared.published.load_full(), self.core.is_shared)
    }

    /// A view that is fresh enough to trust that a revoked credential is revoked.
    pub(crate) async fn credential_view(&self, operation: &'static str) -> Result<View> {
        let view = self.open_view(operation)?;
        if view.age() <= self.core.options.max_view_age {
            return Ok(view);
        }
        self.fresh_view().await.map_err(|error| error.during(operation))
    }
}

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

    fn view(&self) -> View {
        self.current_view()
    }

    async fn fresh_view(&self) -> Result<View> {
        const OPERATION: &str = "store.fresh_view";
        if self.core.is_shared {
            self.send(0, Request::Refresh).await.map_err(|error| error.during(OPERATION))?;
        }
        self.open_view(OPERATION)
    }

    fn watch(&self, after: Serial) -> ChangeStream {
        let progress = self.core.shared.progress.subscribe();
        watch::stream(self.core.backend.clone(), progress, after, None)
    }

    fn watch_from(&self, Place { serial, hash }: Place) -> ChangeStream {
        let progress = self.core.shared.progress.subscribe();
        watch::stream(self.core.backend.clone(), progress, serial, Some(hash))
    }

    async fn transact(&self, transaction: Transaction) -> Result<Committed<Vec<Reply>>> {
        let committed = self.commit("store.transact", Command::Transaction(transaction)).await?;
        let value = expect_reply!(committed.value, All)?;
        Ok(Committed { value, serial: committed.serial })
    }

    async fn restore(&self, restore: Restore) -> Result<Committed<Restored>> {
        let committed = self.commit("store.restore", Command::Restore(restore)).await?;
        let value = expect_reply!(committed.value, Restored)?;
        Ok(Committed { value, serial: committed.serial })
    }

    fn acting_as(&self, actor: ActorName) -> Arc<dyn Store> {
        Arc::new(Self { core: self.core.clone(), actor })
    }

    async fn digests(&self) -> Result<Digests> {
        const OPERATION: &str = "store.digests";
        let view = self.open_view(OPERATION)?;
        let computed = async {
            let range = KeyRange::all(Table::Audit);
            let unfolded = view.unfolded_audit();
            let audit =
                series::AuditReader::new(self.backend(), unfolded, range, false, usize::MAX);
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

    async fn checkpoint(&self) -> Result<Serial> {
        self.send(0, Request::Checkpoint).await.map_err(|error| error.during("store.checkpoint"))
    }

    async fn verify(&self) -> Result<()> {
        const OPERATION: &str = "store.verify";
        self.open_view(OPERATION)?;
        self.send(0, Request::Verify).await.map_err(|error| error.during(OPERATION))
    }

    fn info(&self) -> StoreInfo {
        let counters = &self.core.shared.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        StoreInfo {
            backend: self.core.backend.info(),
            serial: self.current_view().serial(),
            fold_debt: read(&counters.fold_debt),
            commands: read(&counters.commands),
            rejected: read(&counters.rejected),
            groups: read(&counters.groups),
            checkpoints: read(&counters.checkpoints),
            recoveries: read(&counters.recoveries),
            imported_hash_checks: self.core.imported_hashes.checked(),
        }
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
