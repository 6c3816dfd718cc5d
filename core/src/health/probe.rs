//! The probe behind health checks: one for all who ask, with a deadline, and not more often than useful.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Span;

use super::rules::ProbeFact;
use super::told;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::Queue;
use crate::options::HealthOptions;
use crate::writer::Request;

/// Probes the store for whoever asks.
#[derive(Debug)]
pub(crate) struct Prober {
    options: HealthOptions,
    /// The probe that the writer has accepted. It outlives those who waited for it.
    accepted: tokio::sync::Mutex<Option<Accepted>>,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Accepted {
    begun: Instant,
    answer: oneshot::Receiver<Result<()>>,
}

#[derive(Debug, Default)]
struct Shown {
    last: Option<LastProbe>,
    /// Since when somebody wants a newer one.
    pending_since: Option<Instant>,
}

/// A probe that has ended.
#[derive(Debug, Clone)]
pub(crate) struct LastProbe {
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    pub(crate) error: Option<Error>,
}

impl Prober {
    pub(crate) fn new(options: HealthOptions) -> Self {
        Self { options, accepted: tokio::sync::Mutex::default(), shown: Mutex::default() }
    }

    /// Sees to it that there is a probe of late. Waits no longer than the deadline; a probe that is under
    /// way then goes on.
    pub(crate) async fn refresh(&self, queue: &Queue) {
        let _ = timeout(self.options.probe_deadline, self.probe(queue)).await;
    }

    async fn probe(&self, queue: &Queue) {
        let mut accepted = self.accepted.lock().await;
        if accepted.is_none() {
            if self.is_fresh() {
                return;
            }
            let begun = *self.shown().pending_since.get_or_insert_with(Instant::now);
            match queue.send(0, Span::none(), Request::Probe).await {
                Ok(Some(answer)) => *accepted = Some(Accepted { begun, answer }),
                // The store is being closed, and says so itself.
                Ok(None) => self.shown().pending_since = None,
                Err(error) => self.show(begun, Err(error)),
            }
        }
        if let Some(Accepted { begun, answer }) = accepted.as_mut() {
            let outcome = answer.await.unwrap_or_else(|_| Err(stopped()));
            self.show(*begun, outcome);
            *accepted = None;
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // What is in there is whole at any time.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self) -> bool {
        self.shown()
            .last
            .as_ref()
            .is_some_and(|last| last.at.elapsed() < self.options.probe_interval)
    }

    fn show(&self, begun: Instant, outcome: Result<()>) {
        let last = LastProbe { at: Instant::now(), took: begun.elapsed(), error: outcome.err() };
        *self.shown() = Shown { last: Some(last), pending_since: None };
    }

    pub(crate) fn last(&self) -> Option<LastProbe> {
        self.shown().last.clone()
    }

    /// What the newest one says, whether it has ended or not. `None` if nothing is known yet.
    pub(crate) fn judge(&self) -> Option<ProbeFact> {
        let shown = self.shown();
        let pending = shown.pending_since.map(|since| since.elapsed());
        fact(shown.last.as_ref(), pending, self.options.probe_deadline)
    }
}

fn fact(
    last: Option<&LastProbe>,
    pending: Option<Duration>,
    deadline: Duration,
) -> Option<ProbeFact> {
    match (last, pending) {
        (_, Some(time)) if time >= deadline => Some(ProbeFact::Overdue(time)),
        (Some(LastProbe { error: Some(error), .. }), _) => Some(ProbeFact::Refused(told(error))),
        (Some(_), _) => Some(ProbeFact::Stored),
        (None, _) => None,
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the writer stopped before it answered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_until_a_newer_one_is_overdue() {
        let deadline = Duration::from_secs(2);
        let probed = |error| LastProbe { at: Instant::now(), took: Duration::ZERO, error };
        let (stored, refused) = (probed(None), probed(Some(stopped())));
        let (young, old) = (Some(deadline / 2), Some(deadline));
        let refusal = Some(ProbeFact::Refused(told(&stopped())));
        let cases = [
            (None, None, None),
            (None, young, None),
            (Some(&stored), None, Some(ProbeFact::Stored)),
            (Some(&stored), young, Some(ProbeFact::Stored)),
            (Some(&refused), young, refusal),
            (Some(&stored), old, old.map(ProbeFact::Overdue)),
            (None, old, old.map(ProbeFact::Overdue)),
        ];
        for (last, pending, expected) in cases {
            assert_eq!(fact(last, pending, deadline), expected);
        }
    }
}
