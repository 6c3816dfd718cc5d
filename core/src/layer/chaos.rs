//! A backend that fails when told to.

use std::sync::Arc;

use async_trait::async_trait;

use super::{FaultKind, Faults, Layer};
use crate::backend::{Backend, Commit, Head};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Epoch;

/// Makes the commits of a backend fail or wait, to prove what is built on it. Without a fault it
/// changes nothing.
///
/// ```
/// use std::sync::Arc;
///
/// use ghostwire_store_core::ErrorKind;
/// use ghostwire_store_core::backend::{Backend, Commit};
/// use ghostwire_store_core::domain::StoreId;
/// use ghostwire_store_core::layer::{Chaos, FaultKind};
/// use ghostwire_store_memory::MemoryBackend;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend = Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
/// backend.faults().fail_next_commits(1, FaultKind::DiskFull);
/// let error = backend.commit(&Commit::default()).await.unwrap_err();
/// assert_eq!(*error.kind(), ErrorKind::Exhausted);
/// backend.commit(&Commit::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Chaos {
    inner: Arc<dyn Backend>,
    faults: Arc<Faults>,
}

impl Chaos {
    /// On top of `inner`, with faults of its own.
    #[must_use]
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self::with(inner, Arc::default())
    }

    /// On top of `inner`, with faults that others may share.
    #[must_use]
    pub fn with(inner: Arc<dyn Backend>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    /// What makes commits fail.
    #[must_use]
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }
}

impl Chaos {
    async fn write(
        &self,
        operation: &'static str,
        write: impl Future<Output = Result<()>> + Send,
    ) -> Result<()> {
        let (kind, message) = match self.faults.before_commit().await {
            None => return write.await,
            Some(FaultKind::Before) => {
                (ErrorKind::Unavailable, "the backend cannot be reached (an injected fault)")
            }
            Some(FaultKind::DiskFull) => {
                (ErrorKind::Exhausted, "the disk is full (an injected fault)")
            }
            Some(FaultKind::Lost) => (
                ErrorKind::OutcomeUnknown,
                "the connection died before the commit arrived (an injected fault)",
            ),
            Some(FaultKind::After) => {
                write.await?;
                let message = "the connection died during the commit (an injected fault)";
                (ErrorKind::OutcomeUnknown, message)
            }
        };
        Err(Error::new(kind, message).during(operation))
    }
}

#[async_trait]
impl Layer for Chaos {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.write("chaos.commit", self.inner.commit(commit)).await
    }

    /// Fails as a commit would, and counts as one.
    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.write("chaos.probe", self.inner.probe(epoch)).await
    }

    async fn reopen(&self) -> Result<Head> {
        if self.faults.reopen_fails() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the backend cannot be reached (an injected fault)",
            )
            .during("chaos.reopen"));
        }
        self.inner.reopen().await
    }
}
