//! Waiting until the state shows what was read from the backend.

use std::sync::atomic::Ordering;

use super::StoreHandle;
use crate::error::Result;
use crate::options::Materialize;
use crate::writer::Request;

impl StoreHandle {
    /// Waits until the state shows every block whose rows may have been read so far: rows that are
    /// written with their block can be read from its commit on, which is before it is published.
    ///
    /// Nothing is waited for, and nothing read, while no such commit is in flight.
    pub(crate) async fn until_shown(&self) -> Result<()> {
        let core = &self.core;
        if core.is_shared {
            return self.refresh().await;
        }
        if core.materialize() != Materialize::Commit {
            // Rows are written later, of blocks that were published.
            return Ok(());
        }
        let known = core.shared.submitted.load(Ordering::SeqCst);
        if core.shared.progress.borrow().serial.get() >= known {
            return Ok(());
        }
        // A backend's head may lag behind its scans. The writer answers between commits, and first
        // finds out about one of unknown outcome.
        self.send(0, Request::Refresh).await
    }
}
