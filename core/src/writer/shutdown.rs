//! How a store ends: it is closed, its last handle is dropped, or the writer panics.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc};

use super::{Request, Writer};
use crate::attest::Attester;
use crate::error::{Error, ErrorKind, Result};

/// Whether closing has begun. From then on nothing more is accepted.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    begun: AtomicBool,
    begins: Notify,
}

impl Closing {
    /// Begins it. Tells whether it had not begun yet.
    pub(crate) fn begin(&self) -> bool {
        let is_first = !self.begun.swap(true, Ordering::AcqRel);
        self.begins.notify_one();
        is_first
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until it begins. Only the writer waits.
    pub(super) async fn begins(&self) {
        self.begins.notified().await;
    }
}

/// How a store ended. Its files are free by then.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Everything that was accepted is served. The error is that of the last flush or of closing
    /// the backend.
    Closed(Result<()>),
    /// The writer panicked.
    Failed(Error),
    /// Another copy of the store runs, and nothing is answered any more.
    Overtaken(Error),
}

impl End {
    /// What `close` gives.
    pub(crate) fn outcome(&self) -> Result<()> {
        match self {
            Self::Closed(outcome) => outcome.clone(),
            Self::Failed(error) | Self::Overtaken(error) => Err(error.clone()),
        }
    }
}

impl Writer {
    /// Serves the queue to the end, frees the backend, and tells how it went.
    pub(crate) async fn serve_all(
        mut self,
        mut queue: mpsc::Receiver<Request>,
        attester: &Attester,
    ) {
        let served = AssertUnwindSafe(self.run(&mut queue)).catch_unwind().await;
        self.shared.closing.begin();
        if served.is_err() {
            tracing::error!("the writer panicked; the store ends");
            self.end_companions();
            self.give_up(&mut queue).await;
        }
        if self.stopped.is_none() {
            attester.publish_at_end().await;
        }
        let backend = self.backend.clone();
        let closing = AssertUnwindSafe(async move { backend.close().await }).catch_unwind().await;
        let closed = closing.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Unexpected,
                "the backend panicked while it was closed; what was acknowledged is stored. End \
                 this process before the store is opened again, and report it",
            ))
        });
        let end = match served {
            Ok(flushed) => match self.stopped.take() {
                None => End::Closed(flushed.and(closed)),
                Some(error) => End::Overtaken(error),
            },
            Err(_) => {
                if let Err(error) = closed {
                    tracing::error!(%error, "the backend cannot be closed");
                }
                End::Failed(Error::new(
                    ErrorKind::Unexpected,
                    "the store's writer panicked, as the process's error output says; what was \
                     acknowledged is stored. Close the store and open it again, and report it",
                ))
            }
        };
        tracing::info!(
            name: "store_closed",
            serial = self.state().serial().get(),
            error = end.outcome().err().map(tracing::field::display),
            "the store is closed"
        );
        self.shared.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// While the files are still this store's.
    pub(super) fn end_companions(&self) {
        self.companions.iter().for_each(|companion| companion.end());
    }

    /// After a panic: refuses what waits, none of which was stored, and lets the commit in flight end.
    /// Its callers cannot be told how.
    async fn give_up(&mut self, queue: &mut mpsc::Receiver<Request>) {
        queue.close();
        let batch = self.batch.take().into_iter().flat_map(|batch| batch.into_requests());
        let mut waiting: Vec<_> = batch.chain(self.waiting.drain(..)).collect();
        waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        let error = Error::new(
            ErrorKind::Unavailable,
            "the store stopped before it came to this; nothing of it was stored. Open it again",
        );
        waiting.into_iter().for_each(|request| request.refuse(&error));
        self.followers.drain(..).for_each(|(_, answer)| answer.send(Err(error.clone())));
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.ended().await;
        }
    }
}
