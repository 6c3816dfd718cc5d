//! A backend whose calls end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Layer;
use crate::backend::{Backend, Budget, Commit, Head, Scan, ScanPage};
use crate::block::{EncodedBlock, Serial};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Epoch;

/// How long calls of a backend may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For establishing connections: `reopen`.
    pub connect: Duration,
    /// For `head`, `scan` and `blocks`.
    pub read: Duration,
    /// For `commit`, turns, `confirm`, `probe`, `adopt` and `close`.
    pub commit: Duration,
}

impl Default for Deadlines {
    /// 5, 10 and 10 seconds.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(5), read: seconds(10), commit: seconds(10) }
    }
}

/// Ends the calls of a backend that waits for others, such as a server behind a network that was cut: a
/// read that takes too long is `Unavailable`, a commit `OutcomeUnknown`. `migrate` and `verify` take as long
/// as there is to do, and end by the deadlines that the backend has for its own statements. The call's future is dropped,
/// by which the backend closes the connection that it used.
///
/// It cannot end what blocks its thread, which is how files are written: there nothing is to be won, since
/// whoever waits for a disk that hangs waits in the system.
///
/// ```
/// use std::sync::Arc;
///
/// use ghostwire_store_core::backend::{Backend, Commit};
/// use ghostwire_store_core::domain::StoreId;
/// use ghostwire_store_core::layer::{Deadline, Deadlines};
/// use ghostwire_store_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
/// let backend: Box<dyn Backend> = Box::new(Deadline::new(memory, Deadlines::default()));
/// backend.commit(&Commit::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Deadline {
    inner: Arc<dyn Backend>,
    deadlines: Deadlines,
}

impl Deadline {
    /// On top of `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>, deadlines: Deadlines) -> Self {
        Self { inner, deadlines }
    }

    async fn within<T>(
        &self,
        operation: &'static str,
        (deadline, kind): (Duration, ErrorKind),
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
            Err(Error::new(kind, "the backend did not answer in time")
                .with("deadline_ms", deadline.as_millis())
                .during(operation))
        })
    }

    fn read(&self) -> (Duration, ErrorKind) {
        (self.deadlines.read, ErrorKind::Unavailable)
    }

    fn write(&self) -> (Duration, ErrorKind) {
        (self.deadlines.commit, ErrorKind::OutcomeUnknown)
    }
}

#[async_trait]
impl Layer for Deadline {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn head(&self) -> Result<Head> {
        self.within("backend.head", self.read(), self.inner.head()).await
    }

    async fn revision(&self) -> Result<Option<u64>> {
        self.within("backend.revision", self.read(), self.inner.revision()).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.within("backend.scan", self.read(), self.inner.scan(scan)).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.within("backend.blocks", self.read(), self.inner.blocks(after, limit)).await
    }

    async fn take_turn(&self) -> Result<bool> {
        let limit = (self.deadlines.commit, ErrorKind::Unavailable);
        self.within("backend.take_turn", limit, self.inner.take_turn()).await
    }

    async fn end_turn(&self) -> Result<()> {
        let limit = (self.deadlines.commit, ErrorKind::Unavailable);
        self.within("backend.end_turn", limit, self.inner.end_turn()).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.within("backend.commit", self.write(), self.inner.commit(commit)).await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.within("backend.maintain", self.write(), self.inner.maintain(budget)).await
    }

    async fn confirm(&self) -> Result<()> {
        let limit = (self.deadlines.commit, ErrorKind::Unavailable);
        self.within("backend.confirm", limit, self.inner.confirm()).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.within("backend.probe", self.write(), self.inner.probe(epoch)).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.within("backend.adopt", self.write(), self.inner.adopt(head)).await
    }

    async fn close(&self) -> Result<()> {
        let limit = (self.deadlines.commit, ErrorKind::Unavailable);
        self.within("backend.close", limit, self.inner.close()).await
    }

    async fn reopen(&self) -> Result<Head> {
        let limit = (self.deadlines.connect, ErrorKind::Unavailable);
        self.within("backend.reopen", limit, self.inner.reopen()).await
    }
}
