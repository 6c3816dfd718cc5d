//! A backend that is counted and timed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Budget, Commit, ConnectionObserver, Head,
    Scan, ScanPage,
};
use crate::block::{EncodedBlock, Serial};
use crate::error::Result;
use crate::position::Epoch;
use crate::schema::Schema;

/// Up to how many seconds, inclusive, a call may take to be counted in each of the first
/// [`Durations::counts`].
pub const DURATION_BOUNDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// The failure of a call that was dropped before it ended.
const CANCELLED: &str = "cancelled";

/// Counts and times every call of a backend, and describes it to `tracing`. It changes no answer.
///
/// Each call is a span `backend.call` on level DEBUG, and each failed one an event in it. Their
/// fields have the stable names of OpenTelemetry: `db.system.name`, `db.operation.name`,
/// `db.collection.name` (a scan's table), `db.operation.batch.size` (a commit's rows, where they
/// are more than one) and `error.type` ([`ErrorKind::name`](crate::ErrorKind::name)). Neither keys
/// nor bodies nor the texts of errors are among them.
///
/// Clones share what they count, so one can be kept to be asked while the store has the other:
///
/// ```
/// use std::sync::Arc;
///
/// use ghostwire_store_core::backend::{Backend, Commit};
/// use ghostwire_store_core::domain::StoreId;
/// use ghostwire_store_core::layer::Observe;
/// use ghostwire_store_core::position::Position;
/// use ghostwire_store_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let observe = Observe::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
/// let backend: Arc<dyn Backend> = Arc::new(observe.clone());
/// backend.commit(&Commit::default()).await?;
/// backend.commit(&Commit { expected: Position::new(9), ..Commit::default() }).await.unwrap_err();
///
/// let commits = &observe.snapshot().operations["commit"];
/// assert_eq!((commits.calls, commits.failures["conflict"]), (2, 1));
/// assert_eq!(commits.durations.counts.iter().sum::<u64>(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Observe {
    inner: Arc<dyn Backend>,
    system: &'static str,
    observations: Arc<Mutex<Observations>>,
}

/// What was observed so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Observations {
    /// By the name of the operation: `head`, `migrate`, `scan`, `blocks`, `commit`, `confirm`,
    /// `probe`, `adopt`, `reopen`, `verify`, `attest`, `close`. An operation that was never called is missing.
    pub operations: BTreeMap<&'static str, OperationStats>,
}

/// What was observed of one operation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct OperationStats {
    /// Calls that ended, whichever way.
    pub calls: u64,
    /// Those that failed, by [`ErrorKind::name`](crate::ErrorKind::name). `cancelled` are those
    /// that were dropped before they ended: what became of them is not known.
    pub failures: BTreeMap<&'static str, u64>,
    /// How long all of them took.
    pub durations: Durations,
}

/// A histogram of durations.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Durations {
    /// How many were longer than the bound before, and no longer than the bound of
    /// [`DURATION_BOUNDS`] at the same place. The last are those longer than every bound.
    pub counts: [u64; DURATION_BOUNDS.len() + 1],
    /// All of them together, in seconds.
    pub sum: f64,
}

impl Durations {
    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = DURATION_BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum += seconds;
    }
}

impl Observe {
    /// On top of `inner`, with nothing counted yet.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        let system = inner.info().name;
        Self { inner, system, observations: Arc::default() }
    }

    /// What was counted until now, by this handle and its clones.
    #[must_use]
    pub fn snapshot(&self) -> Observations {
        locked(&self.observations).clone()
    }

    fn span(&self, operation: &'static str) -> tracing::Span {
        tracing::debug_span!(
            "backend.call",
            "db.system.name" = self.system,
            "db.operation.name" = operation,
            "db.collection.name" = Empty,
            "db.operation.batch.size" = Empty,
            "error.type" = Empty,
        )
    }

    async fn observe<T>(
        &self,
        operation: &'static str,
        span: tracing::Span,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut call = Call {
            observations: &self.observations,
            span,
            operation,
            began: Instant::now(),
            failure: Some(CANCELLED),
        };
        let outcome = work.instrument(call.span.clone()).await;
        call.failure = outcome.as_ref().err().map(|error| error.kind().name());
        outcome
    }
}

/// A call under way. It is counted when it is dropped, so also if its future is.
struct Call<'a> {
    observations: &'a Mutex<Observations>,
    span: tracing::Span,
    operation: &'static str,
    began: Instant,
    failure: Option<&'static str>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let elapsed = self.began.elapsed();
        if let Some(failure) = self.failure {
            self.span.record("error.type", failure);
            self.span.in_scope(|| {
                tracing::debug!("error.type" = failure, "a call of the backend failed");
            });
        }
        let mut observations = locked(self.observations);
        let stats = observations.operations.entry(self.operation).or_default();
        stats.calls += 1;
        if let Some(failure) = self.failure {
            *stats.failures.entry(failure).or_default() += 1;
        }
        stats.durations.add(elapsed);
    }
}

#[async_trait]
impl Backend for Observe {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn head(&self) -> Result<Head> {
        self.observe("head", self.span("head"), self.inner.head()).await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.observe("migrate", self.span("migrate"), self.inner.migrate(target)).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let span = self.span("scan");
        span.record("db.collection.name", scan.range.table.name());
        self.observe("scan", span, self.inner.scan(scan)).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.observe("blocks", self.span("blocks"), self.inner.blocks(after, limit)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let span = self.span("commit");
        // One row is no batch.
        if commit.rows.len() > 1 {
            span.record("db.operation.batch.size", commit.rows.len());
        }
        self.observe("commit", span, self.inner.commit(commit)).await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.observe("maintain", self.span("maintain"), self.inner.maintain(budget)).await
    }

    async fn confirm(&self) -> Result<()> {
        self.observe("confirm", self.span("confirm"), self.inner.confirm()).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.observe("probe", self.span("probe"), self.inner.probe(epoch)).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.observe("adopt", self.span("adopt"), self.inner.adopt(head)).await
    }

    async fn reopen(&self) -> Result<Head> {
        self.observe("reopen", self.span("reopen"), self.inner.reopen()).await
    }

    async fn verify(&self) -> Result<()> {
        self.observe("verify", self.span("verify"), self.inner.verify()).await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        self.observe("attest", self.span("attest"), self.inner.attest(state)).await
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        self.inner.observe_connections(observer);
    }

    fn announce_close(&self) {
        self.inner.announce_close();
    }

    async fn close(&self) -> Result<()> {
        self.observe("close", self.span("close"), self.inner.close()).await
    }
}

/// Counting does not panic halfway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
