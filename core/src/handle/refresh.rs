//! Finding out what other processes have committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::Span;

use super::{Core, StoreHandle};
use crate::backend::Head;
use crate::error::{Error, ErrorKind, Result};
use crate::view::Published;
use crate::writer::{Answer, Request};

/// Asks one question at a time, for all who want to know.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    sent: AtomicU64,
    last: tokio::sync::Mutex<Answered>,
}

/// What the last question came to.
#[derive(Debug)]
struct Answered {
    number: u64,
    outcome: Result<()>,
}

impl Default for Answered {
    fn default() -> Self {
        Self { number: 0, outcome: Ok(()) }
    }
}

impl Refreshes {
    /// Asks, or joins those who wait for a question that was sent after this was called. If who asks gives
    /// up, the next one asks.
    async fn join(&self, ask: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let sent_before = self.sent.load(Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.number > sent_before {
            return last.outcome.clone();
        }
        let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let outcome = ask().await;
        *last = Answered { number, outcome: outcome.clone() };
        outcome
    }
}

impl StoreHandle {
    /// Has the state be one that holds everything that was durable when this was called.
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.core.refresh().await
    }
}

impl Core {
    pub(crate) async fn refresh(&self) -> Result<()> {
        self.require_open()?;
        self.refreshes.join(async || self.ask().await).await
    }

    /// Looks where the backend stands. What may lag behind feeds the state, and does not make it fresh.
    async fn ask(&self) -> Result<()> {
        let lagging = self.backend.lagging_answers();
        self.look(lagging).await?;
        if self.backend.lagging_answers() == lagging {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the database server that answers is a standby, and what it has may be old; connect to the primary",
        ))
    }

    /// Reads where the backend stands. The writer has to do something only if that is not where the state
    /// stands: then it catches up, or publishes the commit that it has in flight.
    async fn look(&self, lagging: u64) -> Result<()> {
        let before = self.shared.published.load_full();
        if self.shared.vital.poisoned().is_some() {
            return self.have_writer(Request::Refresh).await;
        }
        let asked_at = self.options.clock.elapsed();
        let head = self.backend.head().await?;
        let published = self.shared.published.load_full();
        if !self.is_expected(&head, &before, &published) {
            // The writer finds out what is wrong, and does what follows.
            return self.have_writer(Request::Refresh).await;
        }
        if head.position > published.state.position() {
            let follow = |answer| Request::Follow(head.position, answer);
            return self.have_writer(follow).await;
        }
        if self.backend.lagging_answers() == lagging {
            self.note_fresh(&published, asked_at);
        }
        Ok(())
    }

    async fn have_writer(&self, request: impl FnOnce(Answer<()>) -> Request) -> Result<()> {
        let sent = self.queue.send(0, Span::none(), request).await?;
        let answered = sent.ok_or_else(|| self.refusal())?;
        answered.await.map_err(|_| {
            Error::new(ErrorKind::OutcomeUnknown, "the writer stopped; reopen the store")
        })?
    }

    /// Whether a head is of this store, in the epoch that it was opened in, and has everything that was
    /// published before it was read.
    fn is_expected(&self, head: &Head, before: &Published, published: &Published) -> bool {
        let identity = |head: &Head| (head.store, head.side, head.lineage, head.epoch);
        let (state, known) = (&published.state, &before.state);
        let contradicts = head.serial == state.serial() && head.hash != state.hash();
        identity(head) == identity(&self.head())
            && !head.filling
            && head.position >= known.position()
            && head.serial >= known.serial()
            && !contradicts
    }

    /// A published state still held everything at a moment.
    fn note_fresh(&self, published: &Arc<Published>, at: Duration) {
        if at <= published.fresh_at {
            return;
        }
        let (state, audit) = (published.state.clone(), published.audit.clone());
        let fresher = Arc::new(Published::new(state, audit, at).after(published));
        // Unless the writer has published a later one meanwhile.
        self.shared.published.compare_and_swap(published, fresher);
        if self.options.recorder.is_some() {
            self.shared.observed.views.replaced(published);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn whoever_comes_while_a_question_is_open_shares_the_next_one() {
        let refreshes = Arc::new(Refreshes::default());
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let join = || {
            let (refreshes, asked, answers) = (refreshes.clone(), asked.clone(), answers.clone());
            tokio::spawn(async move {
                let ask = async || {
                    asked.fetch_add(1, Ordering::SeqCst);
                    answers.acquire().await.unwrap().forget();
                    Ok(())
                };
                refreshes.join(ask).await
            })
        };
        let first = join();
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..10).map(|_| join()).collect();
        // One that gives up leaves it to the next.
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        answers.add_permits(10);
        for other in others {
            other.await.unwrap().unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        join().await.unwrap().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
