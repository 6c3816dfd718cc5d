//! The probe behind health checks: one for all who ask, with a deadline, and not more often than useful.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Span;

use super::rules::ProbeFact;
use super::{Commits, Vital, told};
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
    /// How many commits had been stored by then.
    pub(crate) commits: u64,
}

impl Prober {
    pub(crate) fn new(options: HealthOptions) -> Self {
        Self { options, accepted: tokio::sync::Mutex::default(), shown: Mutex::default() }
    }

    /// Sees to it that there is a probe of late. Waits no longer than the deadline; a probe that is under
    /// way then goes on.
    pub(crate) async fn refresh(&self, queue: &Queue, vital: &Vital) {
        let _ = timeout(self.options.probe_deadline, self.probe(queue, vital)).await;
    }

    async fn probe(&self, queue: &Queue, vital: &Vital) {
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
                Err(error) => self.show(begun, Err(error), vital),
            }
        }
        if let Some(Accepted { begun, answer }) = accepted.as_mut() {
            let outcome = answer.await.unwrap_or_else(|_| Err(stopped()));
            self.show(*begun, outcome, vital);
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

    fn show(&self, begun: Instant, outcome: Result<()>, vital: &Vital) {
        let (at, commits) = (Instant::now(), vital.commits().stored);
        let took = at.saturating_duration_since(begun);
        let last = LastProbe { at, took, error: outcome.err(), commits };
        *self.shown() = Shown { last: Some(last), pending_since: None };
    }

    pub(crate) fn last(&self) -> Option<LastProbe> {
        self.shown().last.clone()
    }

    /// What the newest probe or commit says, whether it has ended or not. `None` if nothing is known of
    /// late.
    pub(crate) fn judge(&self, vital: &Vital) -> Option<ProbeFact> {
        self.settle(vital);
        let shown = self.shown();
        let pending = shown.pending_since.map(|since| since.elapsed());
        fact(shown.last.as_ref(), pending, &vital.commits(), &self.options, Instant::now())
    }

    /// Takes the answer to a probe that nobody waits for any more, and forgets one that never was accepted.
    fn settle(&self, vital: &Vital) {
        let Ok(mut accepted) = self.accepted.try_lock() else { return };
        match accepted.as_mut() {
            Some(Accepted { begun, answer }) => {
                if let Ok(outcome) = answer.try_recv() {
                    self.show(*begun, outcome, vital);
                    *accepted = None;
                }
            }
            None => {
                let mut shown = self.shown();
                let oldest = oldest(&self.options);
                shown.pending_since = shown.pending_since.filter(|since| since.elapsed() <= oldest);
            }
        }
    }
}

/// What is older says nothing of now.
fn oldest(options: &HealthOptions) -> Duration {
    options.probe_interval.saturating_mul(3).saturating_add(options.probe_deadline)
}

fn fact(
    last: Option<&LastProbe>,
    pending: Option<Duration>,
    commits: &Commits,
    options: &HealthOptions,
    now: Instant,
) -> Option<ProbeFact> {
    if let Some(time) = pending.filter(|time| *time >= options.probe_deadline) {
        return Some(ProbeFact::Overdue(time));
    }
    let is_of_late = |at: Instant| now.saturating_duration_since(at) <= oldest(options);
    let last = last.filter(|last| is_of_late(last.at));
    let refused = commits.refused.as_ref().filter(|refused| is_of_late(refused.at));
    match (last, refused) {
        (last, Some(refused)) if last.is_none_or(|last| last.at < refused.at) => {
            Some(ProbeFact::Refused(told(&refused.error)))
        }
        (Some(LastProbe { error: Some(error), commits: before, .. }), _)
            if *before == commits.stored =>
        {
            Some(ProbeFact::Refused(told(error)))
        }
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
    use crate::health::vital::Refused;

    const OPTIONS: HealthOptions = HealthOptions {
        probe_interval: Duration::from_secs(5),
        probe_deadline: Duration::from_secs(2),
    };

    fn probed(at: Instant, error: Option<Error>) -> LastProbe {
        LastProbe { at, took: Duration::ZERO, error, commits: 7 }
    }

    #[test]
    fn an_answer_counts_until_a_newer_one_is_overdue() {
        let (deadline, now) = (OPTIONS.probe_deadline, Instant::now());
        let (stored, refused) = (probed(now, None), probed(now, Some(stopped())));
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
        let commits = Commits { stored: 7, refused: None };
        for (last, pending, expected) in cases {
            assert_eq!(fact(last, pending, &commits, &OPTIONS, now), expected);
        }
    }

    #[test]
    fn what_is_old_says_nothing() {
        let then = Instant::now();
        let of = |last: &LastProbe, seconds| {
            let now = then + Duration::from_secs(seconds);
            fact(Some(last), None, &Commits { stored: 7, refused: None }, &OPTIONS, now)
        };
        for last in [probed(then, None), probed(then, Some(stopped()))] {
            assert!(of(&last, 17).is_some());
            assert_eq!(of(&last, 18), None);
        }
    }

    #[test]
    fn the_newer_of_probe_and_commit_counts() {
        let then = Instant::now();
        let later = then + Duration::from_secs(1);
        let refusal = Some(ProbeFact::Refused(told(&stopped())));
        let refused = |at| Some(Refused { at, error: stopped() });
        let of = |last: Option<&LastProbe>, stored, refused| {
            fact(last, None, &Commits { stored, refused }, &OPTIONS, later)
        };
        // A commit was stored since the probe was refused.
        assert_eq!(of(Some(&probed(then, Some(stopped()))), 8, None), Some(ProbeFact::Stored));
        assert_eq!(of(Some(&probed(then, None)), 7, refused(later)), refusal);
        assert_eq!(of(None, 7, refused(later)), refusal);
        assert_eq!(of(Some(&probed(later, None)), 7, refused(then)), Some(ProbeFact::Stored));
    }
}
