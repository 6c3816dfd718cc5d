//! States that are signed: on request, and by itself for whoever takes them away.

use std::fmt::{self, Debug};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use crate::backend::{Attestation, AttestedState, Backend};
use crate::block::BlockHash;
use crate::domain::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::threads::{self, Waits, may_block};
use crate::writer::Shared;

/// Takes away what a store attests by itself. What stays in the store proves nothing to anybody outside of
/// it, so without one nothing is signed but on request.
pub trait AttestationSink: Debug + Send + Sync + 'static {
    /// Keeps one, which is newer than those before. May block.
    ///
    /// # Errors
    /// Are logged. The next one is tried as if nothing had happened.
    fn publish(&self, attestation: &Attestation) -> Result<()>;
}

/// Where a store's attestations go, and how often.
#[derive(Debug, Clone)]
pub struct AttestationOptions {
    /// Who takes them.
    pub sink: Arc<dyn AttestationSink>,
    /// While the store changes: the least time from one to the next. One follows at the end, and one each
    /// time that everything was verified.
    pub every: Duration,
    /// How long closing waits for the last one. The digest of a million nodes of which all have changed
    /// takes about two seconds.
    pub patience_at_end: Duration,
}

impl AttestationOptions {
    /// Every ten minutes, and five seconds at the end.
    #[must_use]
    pub fn new(sink: Arc<dyn AttestationSink>) -> Self {
        Self { sink, every: Duration::from_secs(600), patience_at_end: Duration::from_secs(5) }
    }
}

/// What attests one store.
pub(crate) struct Attester {
    backend: Arc<dyn Backend>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    options: Option<AttestationOptions>,
    /// The last block of the state that was published last, and who signed it.
    published: Mutex<Option<(BlockHash, String)>>,
}

impl Debug for Attester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attester").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Attester {
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        options: Option<AttestationOptions>,
    ) -> Self {
        Self { backend, shared, clock, options, published: Mutex::default() }
    }

    /// Signs the digest of the state that is published now.
    pub(crate) async fn attest(&self, time: Timestamp) -> Result<Attestation> {
        let state = self.shared.published.load().state.clone();
        let (shared, hashed) = (self.shared.clone(), state.clone());
        // Hashing a large state takes seconds of CPU.
        let digest = may_block(move || Ok(shared.digests.digest(&hashed))).await?;
        let attested = AttestedState {
            epoch: self.shared.head.load().epoch,
            position: state.position(),
            serial: state.serial(),
            hash: state.hash(),
            time,
            digest,
        };
        self.backend.attest(&attested).await
    }

    /// Gives the state to who takes it away, unless he has it already, by the keys that sign now. Nobody waits
    /// for that to succeed.
    pub(crate) async fn publish(&self) {
        let Some(options) = &self.options else { return };
        let hash = self.shared.published.load().state.hash();
        let signer = self.backend.info().signer.unwrap_or_default();
        let last = self.last().clone();
        if last.as_ref().is_some_and(|last| *last == (hash, signer)) {
            return;
        }
        let published = async {
            let (attestation, sink) = (self.attest(self.clock.now()).await?, options.sink.clone());
            let published = (attestation.state.hash, attestation.signer.clone());
            if last.is_some_and(|(_, signer)| signer != published.1) {
                tracing::info!(
                    signer = published.1,
                    "the state is attested by other keys from now on"
                );
            }
            may_block(move || sink.publish(&attestation)).await?;
            Ok::<_, Error>(published)
        };
        match published.await {
            Ok(published) => *self.last() = Some(published),
            Err(error) => tracing::warn!(%error, "the state cannot be attested"),
        }
    }

    /// Does so before the backend is closed, and does not hold that up for long.
    pub(crate) async fn publish_at_end(&self) {
        let Some(AttestationOptions { patience_at_end, .. }) = self.options else { return };
        if timeout(patience_at_end, self.publish()).await.is_err() {
            let waited_ms = patience_at_end.as_millis();
            tracing::warn!(waited_ms, "the last state is not attested: that takes too long");
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<(BlockHash, String)>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a store without keys, if somebody is to take what it signs.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(crate) fn require_keys(&self) -> Result<()> {
        if self.options.is_none() || self.backend.info().signer.is_some() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            "the state of this store is to be attested, and it has no keys to sign with",
        )
        .with("help", "only a sealed zqlite store signs: seal it, or take `attestation_file` out"))
    }

    /// Starts a thread that publishes from time to time until the store ends, if somebody takes that.
    ///
    /// # Errors
    /// `Unavailable` if the system gives no thread.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<()> {
        let Some(AttestationOptions { every, .. }) = self.options else { return Ok(()) };
        let attester = self.clone();
        threads::start("ghostwire-store-attest", Waits::Timers, move |runtime| {
            runtime.block_on(async {
                let mut progress = attester.shared.progress.subscribe();
                let end = progress.wait_for(|progress| progress.end.is_some());
                let mut end = pin!(end);
                while timeout(every, end.as_mut()).await.is_err() {
                    attester.publish().await;
                }
            });
        })
        .await
    }
}
