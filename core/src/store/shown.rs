//! What was read from the backend, and when the state shows it.

use std::sync::atomic::Ordering;

use super::StoreHandle;
use crate::error::Result;
use crate::options::Materialize;
use crate::writer::Request;

impl StoreHandle {
    /// Waits until the state shows every block whose rows may have been read so far: rows that are
    /// written with their block can be read from its commit on, which is before it is published.
    ///
    /// Nothing is waited for, and nothing read, while no such commit is under way.
    pub(crate) async fn until_shown(&self) -> Result<()> {
        let core = &self.core;
        if core.options.materialize != Materialize::Commit && !core.is_shared {
            // Rows are written later, of blocks that were published.
            return Ok(());
        }
        let mut progress = core.shared.progress.subscribe();
        let known = core.shared.storing.load(Ordering::SeqCst);
        if progress.borrow_and_update().serial.get() >= known && !core.is_shared {
            return Ok(());
        }
        let stored = core.backend.head().await?.serial;
        loop {
            let awaited = progress.wait_for(|progress| {
                progress.serial >= stored
                    || progress.end.is_some()
                    || progress.suspect
                    || core.is_shared
            });
            let found = awaited.await.map_err(|_| core.refusal())?.clone();
            if found.serial >= stored {
                return Ok(());
            }
            if found.end.is_some() {
                return Err(core.refusal());
            }
            // Nobody publishes a commit of unknown outcome, or one of another process, unasked.
            self.send(0, Request::Refresh).await?;
        }
    }
}
