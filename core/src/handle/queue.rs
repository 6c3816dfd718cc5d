//! The way to the writer.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::Span;

use crate::command::LIGHT;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Event, QueueReading, Recorder};
use crate::options::WriterOptions;
use crate::writer::{Answer, Origin, Request};

/// Bounded in requests, and in the bytes that they own until they are answered. Light requests are
/// bounded by their number alone: they are many, and to count their bytes would take time.
#[derive(Debug)]
pub(crate) struct Queue {
    requests: mpsc::Sender<Request>,
    /// In units of [`UNIT`].
    bytes: Arc<Semaphore>,
    options: WriterOptions,
    recorder: Option<Arc<dyn Recorder>>,
}

/// A semaphore gives at most 2^32 permits at once, fewer than there may be bytes.
const UNIT: u64 = 1024;

impl Queue {
    pub(crate) fn new(
        options: &WriterOptions,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(options.queue_capacity);
        let bytes = Arc::new(Semaphore::new(units(options.queue_bytes) as usize));
        (Self { requests, bytes, options: options.clone(), recorder }, receiver)
    }

    /// What waits, and what may.
    pub(crate) fn reading(&self) -> QueueReading {
        let limit = u64::from(units(self.options.queue_bytes)) * UNIT;
        let free = self.bytes.available_permits() as u64 * UNIT;
        QueueReading {
            size: (self.requests.max_capacity() - self.requests.capacity()) as u64,
            limit: self.requests.max_capacity() as u64,
            bytes: limit.saturating_sub(free),
            bytes_limit: limit,
        }
    }

    /// Enqueues a request that owns `weight` bytes, in a span. Gives where its answer will arrive; `None`
    /// if the store takes no more.
    ///
    /// # Errors
    /// `Busy` if there is no room within the queue's timeout; then it was not accepted.
    pub(crate) async fn send<T>(
        &self,
        weight: usize,
        span: Span,
        make: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<Option<oneshot::Receiver<Result<T>>>> {
        let mut timeout = self.options.queue_timeout;
        let mut room = None;
        if weight > LIGHT {
            let began = Instant::now();
            room = Some(self.room_for(weight).await?);
            timeout = timeout.saturating_sub(began.elapsed());
        }
        let queued_at = self.recorder.is_some().then(Instant::now);
        let (answer, answered) = Answer::new(room, Origin::new(span, queued_at));
        match self.requests.send_timeout(make(answer), timeout).await {
            Ok(()) => Ok(Some(answered)),
            Err(SendTimeoutError::Closed(_)) => Ok(None),
            Err(SendTimeoutError::Timeout(_)) => Err(self
                .busy("the write queue stayed full; try again later")
                .with("queue_capacity", self.options.queue_capacity)),
        }
    }

    /// Enqueues a light request if there is room right now. Its answer is dropped.
    pub(crate) fn try_send<T>(&self, make: impl FnOnce(Answer<T>) -> Request) {
        let queued_at = self.recorder.is_some().then(Instant::now);
        let (answer, _) = Answer::new(None, Origin::new(Span::none(), queued_at));
        let _ = self.requests.try_send(make(answer));
    }

    async fn room_for(&self, weight: usize) -> Result<OwnedSemaphorePermit> {
        // What is heavier than all that is allowed has the queue to itself.
        let wanted = units(weight as u64).min(units(self.options.queue_bytes));
        let acquire = self.bytes.clone().acquire_many_owned(wanted);
        // It is never closed.
        if let Ok(Ok(room)) = tokio::time::timeout(self.options.queue_timeout, acquire).await {
            return Ok(room);
        }
        Err(self
            .busy("what waits to be written stayed too large; try again later, or with less")
            .with("queue_bytes", self.options.queue_bytes)
            .with("bytes", weight))
    }

    fn busy(&self, message: &'static str) -> Error {
        if let Some(recorder) = &self.recorder {
            recorder.record(&Event::QueueFull);
        }
        Error::new(ErrorKind::Busy, message)
            .with("waited", format_args!("{:?}", self.options.queue_timeout))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}
