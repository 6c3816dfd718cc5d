//! A backend that is asked again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{Backend, BackendInfo, Commit, Head, Row, Scan};
use crate::block::{EncodedBlock, Serial};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Schema;

/// How often to ask again, and how long to wait before.
///
/// The wait is random, between nothing and a bound that doubles with every attempt ('full
/// jitter'): callers that failed together do not come back together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often `head`, `scan`, `blocks`, `migrate` and `reopen` are tried again.
    pub retries: u32,
    /// How often a commit is tried again of which it is certain that nothing was stored. None for
    /// those who want to see every commit that fails.
    pub commit_retries: u32,
    /// The longest wait before the first retry.
    pub first_delay: Duration,
    /// The longest wait before any of them.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Four retries, which wait for less than two seconds in all; the same for commits.
    fn default() -> Self {
        Self {
            retries: 4,
            commit_retries: 4,
            first_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
        }
    }
}

impl RetryPolicy {
    /// The longest wait before the retry of this number, counted from 0.
    fn longest(&self, retry: u32) -> Duration {
        let factor = 2u32.saturating_pow(retry);
        self.first_delay.saturating_mul(factor).min(self.max_delay)
    }
}

/// Asks a backend again that is busy or out of reach for a moment.
///
/// `head`, `scan`, `blocks`, `migrate` and `reopen` may be repeated as often as one likes: they
/// change nothing, or nothing more the second time. So they are, after `Unavailable`, `Busy` and
/// `Timeout`.
///
/// A commit may not. Of one that failed with `OutcomeUnknown` or `Timeout` it cannot be told
/// whether it was stored; sent again blindly, it would conflict with itself, and its callers would
/// be told 'no' although they had their way. The writer settles that by reopening and comparing.
/// Only `Unavailable` and `Busy` say for certain that nothing was stored; then a commit is
/// repeated, up to [`RetryPolicy::commit_retries`]. `Conflict` is an answer, and is passed on; after
/// a repetition it may be the commit's own doing, and is `OutcomeUnknown`.
///
/// Nothing is repeated once it was closed. It sleeps on tokio's clock, so it needs a runtime that
/// has one.
///
/// ```
/// use std::sync::Arc;
///
/// use ghostwire_store_core::ErrorKind;
/// use ghostwire_store_core::backend::{Backend, Commit};
/// use ghostwire_store_core::domain::StoreId;
/// use ghostwire_store_core::entropy::SystemEntropy;
/// use ghostwire_store_core::layer::{Chaos, FaultKind, Retry, RetryPolicy};
/// use ghostwire_store_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let chaos = Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
/// let faults = chaos.faults().clone();
/// let backend = Retry::new(Arc::new(chaos), RetryPolicy::default(), Arc::new(SystemEntropy));
///
/// faults.fail_next_commits(1, FaultKind::Before);
/// backend.commit(&Commit::default()).await?; // the second attempt
///
/// faults.fail_next_commits(1, FaultKind::Lost);
/// let error = backend.commit(&Commit::default()).await.unwrap_err();
/// assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Retry {
    inner: Arc<dyn Backend>,
    policy: RetryPolicy,
    entropy: Arc<dyn Entropy>,
    closed: Arc<AtomicBool>,
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Retry");
        debug.field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Retry {
    /// On top of `inner`. The waits are drawn from `entropy`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, policy: RetryPolicy, entropy: Arc<dyn Entropy>) -> Self {
        Self { inner, policy, entropy, closed: Arc::default() }
    }

    /// A random part of the longest wait before this retry.
    fn delay(&self, retry: u32) -> Duration {
        let longest = self.policy.longest(retry);
        // Without random numbers it is better to wait too long than not at all.
        let Ok(random) = draw::<4>(self.entropy.as_ref()) else { return longest };
        longest.mul_f64(f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX))
    }

    async fn again<T, F: Future<Output = Result<T>>>(
        &self,
        operation: &'static str,
        retries: u32,
        may_repeat: impl Fn(&Error) -> bool,
        call: impl Fn() -> F,
    ) -> Result<T> {
        let mut retry = 0;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let is_closed = || self.closed.load(Ordering::Acquire);
            if retry >= retries || !may_repeat(&error) || is_closed() {
                return Err(error);
            }
            let delay = self.delay(retry);
            tracing::debug!(
                "db.operation.name" = operation,
                "error.type" = error.kind().name(),
                retry = retry + 1,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "a call of the backend failed, and is tried again"
            );
            tokio::time::sleep(delay).await;
            if is_closed() {
                return Err(error);
            }
            retry += 1;
        }
    }

    /// For what may be repeated whatever became of it.
    async fn freely<T, F: Future<Output = Result<T>>>(
        &self,
        operation: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T> {
        self.again(operation, self.policy.retries, Error::is_retryable, call).await
    }
}

/// Whether a commit that gave this error was certainly not stored. `Timeout` is not among these.
fn was_surely_not_stored(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Busy)
}

#[async_trait]
impl Backend for Retry {
    fn info(&self) -> BackendInfo {
        self.inner.info()
    }

    async fn head(&self) -> Result<Head> {
        self.freely("head", || self.inner.head()).await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.freely("migrate", || self.inner.migrate(target)).await
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Row>> {
        self.freely("scan", || self.inner.scan(scan.clone())).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.freely("blocks", || self.inner.blocks(after, limit)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let retries = self.policy.commit_retries;
        let attempts = AtomicU32::new(0);
        let stored = self
            .again("commit", retries, was_surely_not_stored, || {
                attempts.fetch_add(1, Ordering::Relaxed);
                self.inner.commit(commit)
            })
            .await;
        match stored {
            // It may be this very commit that is in its way, if an earlier answer was wrong.
            Err(error) if *error.kind() == ErrorKind::Conflict && attempts.into_inner() > 1 => {
                Err(Error::new(
                    ErrorKind::OutcomeUnknown,
                    "a repeated commit is in conflict, maybe with itself; compare the block",
                )
                .because(error))
            }
            stored => stored,
        }
    }

    async fn reopen(&self) -> Result<Head> {
        self.freely("reopen", || self.inner.reopen()).await
    }

    /// Reads everything, which takes long: whoever asked may ask again.
    async fn verify(&self) -> Result<()> {
        self.inner.verify().await
    }

    fn announce_close(&self) {
        self.inner.announce_close();
    }

    /// Is not repeated: what could not be written then is found when the place is opened again.
    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        self.inner.close().await
    }
}
