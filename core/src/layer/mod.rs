//! Layers: each is a [`Backend`] on top of another one, and keeps its promises.

mod chaos;
mod deadline;
mod faults;
mod observe;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Budget, Commit, ConnectionObserver, Head,
    Scan, ScanPage,
};
use crate::block::{EncodedBlock, Serial};
use crate::error::Result;
use crate::position::Epoch;
use crate::schema::Schema;

pub use chaos::Chaos;
pub use deadline::{Deadline, Deadlines};
pub use faults::{CommitHold, FaultKind, Faults};
pub use observe::Observe;

/// A backend on top of another one, which answers what it does not answer itself: whatever is a
/// layer is a [`Backend`]. Its methods are called as those of `dyn Backend`: on a layer's own type they
/// are ambiguous where both traits are in scope.
///
/// ```
/// use async_trait::async_trait;
/// use ghostwire_store_core::backend::{Backend, BackendInfo};
/// use ghostwire_store_core::domain::StoreId;
/// use ghostwire_store_core::layer::Layer;
/// use ghostwire_store_memory::MemoryBackend;
///
/// /// Calls itself by another name.
/// #[derive(Debug)]
/// struct Renamed(MemoryBackend);
///
/// #[async_trait]
/// impl Layer for Renamed {
///     fn inner(&self) -> &dyn Backend {
///         &self.0
///     }
///
///     fn info(&self) -> BackendInfo {
///         BackendInfo { name: "renamed", ..self.0.info() }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let backend: Box<dyn Backend> =
///     Box::new(Renamed(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
/// assert_eq!(backend.info().name, "renamed");
/// assert_eq!(backend.head().await?.serial.get(), 0);
/// # Ok(())
/// # }
/// ```
#[async_trait]
#[allow(missing_docs, reason = "each is the method of Backend with its name")]
pub trait Layer: Send + Sync + std::fmt::Debug + 'static {
    /// What it lies on.
    fn inner(&self) -> &dyn Backend;

    fn info(&self) -> BackendInfo {
        self.inner().info()
    }

    async fn head(&self) -> Result<Head> {
        self.inner().head().await
    }

    fn lagging_answers(&self) -> u64 {
        self.inner().lagging_answers()
    }

    async fn revision(&self) -> Result<Option<u64>> {
        self.inner().revision().await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.inner().migrate(target).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.inner().scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.inner().blocks(after, limit).await
    }

    async fn await_change(&self, at_most: Duration) -> Result<()> {
        self.inner().await_change(at_most).await
    }

    async fn take_turn(&self) -> Result<bool> {
        self.inner().take_turn().await
    }

    async fn end_turn(&self) -> Result<()> {
        self.inner().end_turn().await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.inner().commit(commit).await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.inner().maintain(budget).await
    }

    async fn confirm(&self) -> Result<()> {
        self.inner().confirm().await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.inner().probe(epoch).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.inner().adopt(head).await
    }

    async fn reopen(&self) -> Result<Head> {
        self.inner().reopen().await
    }

    async fn verify(&self) -> Result<()> {
        self.inner().verify().await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        self.inner().attest(state).await
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        self.inner().observe_connections(observer);
    }

    fn announce_close(&self) {
        self.inner().announce_close();
    }

    async fn close(&self) -> Result<()> {
        self.inner().close().await
    }
}

#[async_trait]
impl<L: Layer> Backend for L {
    fn info(&self) -> BackendInfo {
        Layer::info(self)
    }

    async fn head(&self) -> Result<Head> {
        Layer::head(self).await
    }

    fn lagging_answers(&self) -> u64 {
        Layer::lagging_answers(self)
    }

    async fn revision(&self) -> Result<Option<u64>> {
        Layer::revision(self).await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        Layer::migrate(self, target).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        Layer::scan(self, scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        Layer::blocks(self, after, limit).await
    }

    async fn await_change(&self, at_most: Duration) -> Result<()> {
        Layer::await_change(self, at_most).await
    }

    async fn take_turn(&self) -> Result<bool> {
        Layer::take_turn(self).await
    }

    async fn end_turn(&self) -> Result<()> {
        Layer::end_turn(self).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        Layer::commit(self, commit).await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        Layer::maintain(self, budget).await
    }

    async fn confirm(&self) -> Result<()> {
        Layer::confirm(self).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        Layer::probe(self, epoch).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        Layer::adopt(self, head).await
    }

    async fn reopen(&self) -> Result<Head> {
        Layer::reopen(self).await
    }

    async fn verify(&self) -> Result<()> {
        Layer::verify(self).await
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        Layer::attest(self, state).await
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        Layer::observe_connections(self, observer);
    }

    fn announce_close(&self) {
        Layer::announce_close(self);
    }

    async fn close(&self) -> Result<()> {
        Layer::close(self).await
    }
}
