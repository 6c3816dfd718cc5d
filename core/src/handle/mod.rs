//! The handle on an open store: what the repositories and [`Store`](crate::Store) are built on.

mod follow;
mod health;
mod queue;
mod refresh;
mod shown;
mod verify;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{Instrument, Span};

use crate::attest::Attester;
use crate::backend::{Backend, Head, KeyRange};
use crate::block::{RowChange, Serial};
use crate::clock::{ClockGuard, Reading, Verdict};
use crate::command::{Command, Submission};
use crate::domain::{Actor, Instance, InstanceId, Timestamp};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::health::Prober;
use crate::imported::ImportedHashes;
use crate::keys::KeyManager;
use crate::observe::{CommandCall, Event, Recorder, spans};
use crate::options::{Materialize, StoreOptions};
use crate::secrets::HashKeys;
use crate::series::count_rows;
use crate::state::{Reply, State};
use crate::view::View;
use crate::writer::{Answer, Committed, End, Request, SeriesRows, Shared, weight};

pub(crate) use follow::follow;
pub(crate) use queue::Queue;
pub(crate) use refresh::Refreshes;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) attester: Arc<Attester>,
    pub(crate) imported_hashes: ImportedHashes,
    pub(crate) queue: Queue,
    pub(crate) options: StoreOptions,
    pub(crate) is_shared: bool,
    pub(crate) guard: ClockGuard,
    pub(crate) prober: Prober,
    pub(crate) refreshes: Refreshes,
    /// Which instances of the control plane have said by this store that they are there.
    pub(crate) own_instances: Mutex<BTreeSet<InstanceId>>,
}

impl Core {
    /// Where the store stood when it was opened, or moved to another database.
    pub(crate) fn head(&self) -> Arc<Head> {
        self.shared.head.load_full()
    }

    /// What manages its keys, and when rows are written: those of the database that is served.
    pub(crate) fn keys(&self) -> Option<Arc<dyn KeyManager>> {
        match &self.options.seat {
            Some(seat) => seat.sitting().keys.clone(),
            None => self.options.keys.clone(),
        }
    }

    pub(crate) fn materialize(&self) -> Materialize {
        if self.is_shared {
            return Materialize::Commit;
        }
        self.options
            .seat
            .as_ref()
            .map_or(self.options.materialize, |seat| seat.sitting().materialize)
    }

    pub(crate) fn note_own_instance(&self, id: InstanceId) {
        self.own_instances.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
    }

    /// Instances that live, and have never said so by this store.
    pub(crate) fn instances_elsewhere(&self, state: &State, now: Timestamp) -> Vec<Arc<Instance>> {
        let own = self.own_instances.lock().unwrap_or_else(PoisonError::into_inner);
        let is_elsewhere = |it: &&Arc<Instance>| {
            now.since(it.last_seen) <= Instance::LOST_AFTER && !own.contains(&it.id)
        };
        state.instances().iter().filter(is_elsewhere).cloned().collect()
    }

    fn require_open(&self) -> Result<()> {
        if self.shared.closing.has_begun() { Err(self.refusal()) } else { Ok(()) }
    }

    /// Why nothing is accepted any more.
    pub(crate) fn refusal(&self) -> Error {
        let message = match &self.shared.progress.borrow().end {
            Some(End::Overtaken(error)) => return error.clone(),
            Some(End::Failed(_)) => "the store stopped by a fault of its own; open it again",
            _ => "the store is closed",
        };
        Error::new(ErrorKind::Unavailable, message)
    }

    pub(crate) fn begin_closing(&self) {
        if self.shared.closing.begin() {
            self.backend.announce_close();
        }
    }
}

/// The last handle is gone: the writer ends once it has served what was accepted.
impl Drop for Core {
    fn drop(&mut self) {
        if !self.shared.closing.has_begun() {
            self.backend.announce_close();
        }
    }
}

/// The one implementation of [`Store`] and of every repository.
#[derive(Debug, Clone)]
pub(crate) struct StoreHandle {
    pub(crate) core: Arc<Core>,
    pub(crate) actor: Arc<Actor>,
    /// Who holds the connections that come through this handle.
    pub(crate) instance: Option<InstanceId>,
}

/// Writes are bounded by the queue, which gives `Busy` when it is full. Dropping a future takes nothing
/// back: a request that was accepted is served.
impl StoreHandle {
    pub(crate) fn of(core: Arc<Core>) -> Self {
        let actor = Arc::new(core.options.actor.clone());
        Self { core, actor, instance: None }
    }

    /// Sends a request that owns `weight` bytes, and waits for its answer.
    pub(crate) async fn send<T>(
        &self,
        weight: usize,
        make: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T> {
        self.send_in(&Span::none(), weight, make).await
    }

    /// The same for a write, whose span the commit is linked to.
    async fn send_in<T>(
        &self,
        span: &Span,
        weight: usize,
        make: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T> {
        self.core.require_open()?;
        let sent = self.core.queue.send(weight, span.clone(), make).await?;
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

    pub(crate) async fn commit(&self, command: Command) -> Result<Committed> {
        let (operation, told_name) = (command.name(), command.told_name());
        let span = spans::write(&command, self.namespace());
        let committed = async {
            let submission = Box::new(self.submission(command)?);
            let weight = submission.command.weight();
            self.send_in(&span, weight, |answer| Request::Submit(submission, answer)).await
        };
        let committed = self.observed(told_name, &span, committed).await;
        committed.map_err(|error| error.during(operation))
    }

    /// What the store is called, where somebody wants to know.
    fn namespace(&self) -> Option<&str> {
        self.core.options.recorder.as_deref().and_then(Recorder::namespace)
    }

    /// Does a write in its span, and tells how long it took.
    async fn observed<T>(
        &self,
        operation: &'static str,
        span: &Span,
        write: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let recorder = self.core.options.recorder.as_deref();
        let call = recorder.map(|recorder| CommandCall::begin(recorder, operation));
        let outcome = match span.is_disabled() {
            true => write.await,
            false => write.instrument(span.clone()).await,
        };
        spans::ended(span, &outcome);
        if let Some(call) = call {
            call.end(&outcome);
        }
        outcome
    }

    pub(crate) async fn run(&self, command: impl Into<Command> + Send) -> Result<Reply> {
        self.commit(command.into()).await.map(|committed| committed.value)
    }

    /// For writes that are not waited for and may be lost, such as the time of a last use.
    pub(crate) fn run_in_background(&self, command: impl Into<Command>) {
        let Ok(submission) = self.submission(command.into()) else { return };
        self.core.queue.try_send(|answer| Request::Submit(Box::new(submission), answer));
    }

    pub(crate) async fn append_series(
        &self,
        operation: &'static str,
        batch: SeriesRows,
    ) -> Result<()> {
        let span = spans::write_series(operation, self.namespace());
        let weight = weight(&batch.rows);
        let sent = self.send_in(&span, weight, |answer| Request::Append(batch, answer));
        let appended = self.observed(operation, &span, sent).await;
        appended.map_err(|error| error.during(operation))
    }

    pub(crate) async fn prune_series(
        &self,
        operation: &'static str,
        ranges: Vec<KeyRange>,
    ) -> Result<()> {
        // A commit for each part, so that writers get their turn.
        const RANGES_PER_COMMIT: usize = 1000;
        for part in ranges.chunks(RANGES_PER_COMMIT) {
            let recorder = self.core.options.recorder.as_ref();
            // Nobody else tells how many there were. What cannot be counted is removed all the same.
            let counted = match recorder {
                Some(_) => count_rows(self.backend(), part).await.ok(),
                None => None,
            };
            self.replace_series(operation, part.to_vec(), Vec::new()).await?;
            if let (Some(recorder), Some(points)) = (recorder, counted) {
                recorder.record(&Event::SeriesRemoved { points });
            }
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
        let span = spans::write_series(operation, self.namespace());
        let (began, removed) = (Instant::now(), ranges.len());
        let sent =
            self.send_in(&span, weight(&rows), |answer| Request::Replace(ranges, rows, answer));
        let replaced = self.observed(operation, &span, sent).await;
        if let Some(recorder) = &self.core.options.recorder {
            let error = replaced.as_ref().err().map(|error| error.kind().name());
            let took = began.elapsed();
            recorder.record(&Event::SeriesReplaced { took, ranges: removed, error });
        }
        replaced.map_err(|error| error.during(operation))
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
    pub(crate) fn command_time(&self) -> Result<Timestamp> {
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

    /// What the clock says, but no later than it can be. For reads only: nothing that is stored may
    /// depend on it.
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

    pub(crate) fn hash_keys(&self) -> Result<&HashKeys> {
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
        if self.core.options.recorder.is_some() {
            self.core.shared.observed.reads.count();
        }
        Ok(self.current_view())
    }

    pub(crate) fn current_view(&self) -> View {
        let clock = self.core.is_shared.then(|| self.core.options.clock.clone());
        View::new(self.core.shared.published.load_full(), clock)
    }

    /// A view that is fresh enough to trust that a revoked credential is revoked.
    pub(crate) async fn credential_view(&self, operation: &'static str) -> Result<View> {
        let view = self.open_view(operation)?;
        if !self.core.is_shared || view.age() < self.core.options.max_view_age {
            return Ok(view);
        }
        self.newest_view().await
    }

    /// Flushes every dirty row; gives the serial up to which the tables are then complete.
    pub(crate) async fn flush(&self) -> Result<Serial> {
        self.send(0, Request::Checkpoint).await.map_err(|error| error.during("store.checkpoint"))
    }

    /// A view that also holds what other processes had committed when this was called.
    pub(crate) async fn newest_view(&self) -> Result<View> {
        const OPERATION: &str = "store.fresh_view";
        if self.core.is_shared {
            self.refresh().await.map_err(|error| error.during(OPERATION))?;
        }
        self.open_view(OPERATION)
    }
}
