//! A thread for what the writer need not wait for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::runtime::Runtime;

use crate::error::Result;
use crate::threads::{self, Waits};

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// Stores commits while the writer carries out the next commands, and takes apart what those
/// replaced: one after the other. The thread ends with this.
pub(crate) struct Disk(mpsc::Sender<Job>);

impl Disk {
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn start(waits: Waits) -> Result<Self> {
        let (jobs, work) = mpsc::channel::<Job>();
        threads::start("ghostwire-disk", waits, move |runtime| {
            for job in work {
                // Whoever waits for it notices that nothing comes.
                let _ = catch_unwind(AssertUnwindSafe(|| job(runtime)));
            }
        })
        .await?;
        Ok(Self(jobs))
    }

    /// Does it when everything before is done.
    pub(super) fn run(&self, job: impl FnOnce(&Runtime) + Send + 'static) {
        // If the thread were gone there would be nobody to tell; what the job owns is dropped.
        let _ = self.0.send(Box::new(job));
    }
}
