//! A database that nobody waits for longer than they want to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, oneshot};
use tokio::time::{Instant, timeout};

use super::hand_over::Gate;
use crate::backend::{Backend, Budget, Commit, Head, Scan, ScanPage};
use crate::block::{EncodedBlock, Serial};
use crate::error::ErrorKind::{self, Busy, OutcomeUnknown};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::position::Epoch;
use crate::threads::Waits;
use crate::writer::CommitThread;

/// Closing may take so many times as long as any other call.
const CLOSES_IN: u32 = 12;

/// The side that follows. Calls are made on a thread of its own, one after the other: a file on a disk that hangs
/// blocks that thread, and none of those who call. Whoever does not wait any longer has not taken back what was begun,
/// and nothing else is begun before it has ended.
#[derive(Debug, Clone)]
pub(super) struct Detached {
    inner: Arc<dyn Backend>,
    waits: Waits,
    limit: Duration,
    line: Arc<Line>,
}

#[derive(Debug, Default)]
struct Line {
    thread: OnceCell<CommitThread>,
    /// From when on the call that was begun takes too long.
    is_late_from: Mutex<Option<Instant>>,
    /// It was opened anew when nobody waited for that any longer, and nothing was written since.
    reopened: Mutex<Option<Head>>,
}

impl Line {
    fn take_reopened(&self) -> Option<Head> {
        self.reopened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep_reopened(&self, head: Head) {
        *self.reopened.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }

    fn set(&self, is_late_from: Option<Instant>) {
        *self.is_late_from.lock().unwrap_or_else(PoisonError::into_inner) = is_late_from;
    }

    fn is_late(&self) -> bool {
        let from = *self.is_late_from.lock().unwrap_or_else(PoisonError::into_inner);
        from.is_some_and(|from| Instant::now() >= from)
    }
}

/// Dropped, the next call may be begun.
struct Begun<'l>(&'l Line);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Dropped, nobody waits any longer, and what was not begun will not be.
struct Waiting(Arc<Gate>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Detached {
    pub(super) fn new(inner: Arc<dyn Backend>, limit: Duration) -> Self {
        let waits = if inner.info().shared { Waits::Everything } else { Waits::Timers };
        Self { inner, waits, limit, line: Arc::default() }
    }

    /// The same database, whose calls may take this long.
    pub(super) fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// `unknown` is what it means that a call was begun and does not end in time.
    pub(super) async fn call<T, F>(&self, unknown: ErrorKind, call: impl Call<F>) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let thread = self.thread().await?;
        if self.line.is_late() {
            return Err(late());
        }
        let waiting = Waiting(Arc::default());
        let (line, writes) = (self.line.clone(), unknown == OutcomeUnknown);
        let ended = self.begin(thread, waiting.0.clone(), move |inner| {
            if writes {
                line.take_reopened();
            }
            call(inner)
        });
        match timeout(self.limit, ended).await {
            Ok(ended) => ended.unwrap_or_else(|_| Err(panicked())),
            Err(_) if waiting.0.close() => Err(late()),
            Err(_) => {
                Err(Error::new(unknown, "the other side of the migration does not answer in time"))
            }
        }
    }

    async fn thread(&self) -> Result<&CommitThread> {
        self.line.thread.get_or_try_init(|| CommitThread::start(self.waits)).await
    }

    fn begin<T, F>(
        &self,
        thread: &CommitThread,
        gate: Arc<Gate>,
        call: impl Call<F>,
    ) -> oneshot::Receiver<Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>>,
    {
        let (answer, answered) = oneshot::channel();
        let (inner, line, limit) = (self.inner.clone(), self.line.clone(), self.limit);
        thread.run(move |runtime| {
            if gate.pass().is_err() {
                return;
            }
            line.set(Instant::now().checked_add(limit));
            let begun = Begun(&line);
            let outcome = runtime.block_on(call(inner));
            drop(begun);
            let _ = answer.send(outcome);
        });
        answered
    }
}

pub(super) trait Call<F>: FnOnce(Arc<dyn Backend>) -> F + Send + 'static {}

impl<F, C: FnOnce(Arc<dyn Backend>) -> F + Send + 'static> Call<F> for C {}

/// It is slow, and not lost.
fn late() -> Error {
    Error::new(
        Busy,
        "the other side of the migration has not answered yet what it was asked before",
    )
}

fn panicked() -> Error {
    Error::new(OutcomeUnknown, "a call of the other side of the migration panicked")
}

#[async_trait]
impl Layer for Detached {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn head(&self) -> Result<Head> {
        self.call(Busy, |it| async move { it.head().await }).await
    }

    async fn revision(&self) -> Result<Option<u64>> {
        self.call(Busy, |it| async move { it.revision().await }).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.call(Busy, |it| async move { it.scan(scan).await }).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.call(Busy, move |it| async move { it.blocks(after, limit).await }).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let commit = commit.clone();
        self.call(OutcomeUnknown, |it| async move { it.commit(&commit).await }).await
    }

    async fn confirm(&self) -> Result<()> {
        self.call(OutcomeUnknown, |it| async move { it.confirm().await }).await
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.call(OutcomeUnknown, move |it| async move { it.maintain(budget).await }).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        let line = self.line.clone();
        let probed = self.call(Busy, move |it| async move {
            // It writes, and may fail as a commit does.
            line.take_reopened();
            it.probe(epoch).await
        });
        probed.await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        let head = *head;
        self.call(OutcomeUnknown, move |it| async move { it.adopt(&head).await }).await
    }

    /// A large one may take longer than anybody waits. Whoever asks next is told what came of it.
    async fn reopen(&self) -> Result<Head> {
        if !self.line.is_late()
            && let Some(head) = self.line.take_reopened()
        {
            return Ok(head);
        }
        let line = self.line.clone();
        let reopened = self.call(Busy, |it| async move {
            line.take_reopened();
            let head = it.reopen().await?;
            line.keep_reopened(head);
            Ok(head)
        });
        let head = reopened.await?;
        self.line.take_reopened();
        Ok(head)
    }

    /// It is closed in any case, after what was begun has ended. What is in its log may take a while.
    async fn close(&self) -> Result<()> {
        let Ok(thread) = self.thread().await else { return self.inner.close().await };
        let (line, is_late) = (self.line.clone(), self.line.is_late());
        let ended = self.begin(thread, Arc::default(), |it| async move {
            line.take_reopened();
            it.close().await
        });
        if is_late {
            return Err(late());
        }
        timeout(self.limit.saturating_mul(CLOSES_IN), ended)
            .await
            .map_or_else(|_| Err(late()), |ended| ended.unwrap_or_else(|_| Err(panicked())))
    }
}
