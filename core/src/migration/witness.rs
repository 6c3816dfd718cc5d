//! Who may go on without the other side, where no process is trusted to know.

use async_trait::async_trait;

use crate::domain::{SideId, StoreId};
use crate::error::Result;
use crate::position::Epoch;

/// A register outside of both databases, which grants each epoch of a network to one side at most. It needs no
/// clock: a grant holds for ever. The same side is granted the same epoch again, so that a grant which nobody
/// followed up is not lost.
#[async_trait]
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// Tells whether the epoch is this side's. Whoever asks first gets it.
    ///
    /// # Errors
    /// `Unavailable` if it does not answer; then nothing is granted as far as the caller knows.
    async fn grant(&self, network: StoreId, epoch: Epoch, side: SideId) -> Result<bool>;
}
