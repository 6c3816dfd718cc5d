//! The thread on which commits are stored while the writer decides the next batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::runtime::Runtime;

use crate::error::Result;
use crate::threads::{self, Waits};

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// Stores commits, and frees the states that they replaced, in order. The thread ends when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct CommitThread(mpsc::Sender<Job>);

impl CommitThread {
    /// # Errors
    /// `Unavailable`.
    pub(crate) async fn start(waits: Waits) -> Result<Self> {
        let (jobs, work) = mpsc::channel::<Job>();
        threads::start("ghostwire-disk", waits, move |runtime| {
            for job in work {
                // The receiver of a job that panicked sees its channel closed.
                let _ = catch_unwind(AssertUnwindSafe(|| job(runtime)));
            }
        })
        .await?;
        Ok(Self(jobs))
    }

    /// Does the job after those before it.
    pub(crate) fn run(&self, job: impl FnOnce(&Runtime) + Send + 'static) {
        // Fails only if the thread is gone; then the job, and with it its channel, is dropped.
        let _ = self.0.send(Box::new(job));
    }
}
