//! What the backend does by itself, a slice at a time: while the writer is idle, and between commits now and
//! then. Nobody waits for more than a slice.

use std::time::{Duration, Instant};

use super::Writer;
use super::in_flight::guarded;
use crate::backend::Budget;
use crate::error::ErrorKind;

/// How long commits go on between two slices: a slice and its synchronisation take a tenth of that.
const BETWEEN_COMMITS: Duration = Duration::from_millis(50);
/// How long the first attempt after a failed one waits, and the last.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Whether the backend has something to do, and when it is asked next.
#[derive(Debug)]
pub(super) struct Upkeep {
    is_left: bool,
    last: Option<Instant>,
    /// Since the last attempt failed.
    backoff: Option<Duration>,
    /// Whether a flush comes before the next slice.
    yields: bool,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { is_left: true, last: None, backoff: None, yields: false }
    }
}

impl Upkeep {
    /// When the next slice may begin; `None` if there is none.
    fn due(&self, pause: Duration) -> Option<Instant> {
        let pause = self.backoff.unwrap_or(pause);
        self.is_left.then(|| self.last.map_or_else(Instant::now, |last| last + pause))
    }

    fn is_due(&self, pause: Duration) -> bool {
        self.due(pause).is_some_and(|due| due <= Instant::now())
    }
}

impl Writer {
    /// The backend has been given something to do.
    pub(super) fn wake_upkeep(&mut self) {
        self.upkeep = Upkeep::default();
    }

    fn may_keep_up(&self) -> bool {
        !self.closing && !self.poisoned && self.refusal().is_none()
    }

    /// How long an idle writer may wait before the next slice; `None` if there is none.
    pub(super) fn until_upkeep(&self) -> Option<Duration> {
        let due = self.upkeep.due(Duration::ZERO).filter(|_| self.may_keep_up())?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    /// Whether a flush that is to be done is done first: while no slice is due, and after each.
    pub(super) fn upkeep_yields(&mut self) -> bool {
        let is_due = self.until_upkeep() == Some(Duration::ZERO);
        std::mem::take(&mut self.upkeep.yields) || !is_due
    }

    /// Between two commits.
    pub(super) async fn keep_up_between_commits(&mut self) {
        if self.upkeep.is_due(BETWEEN_COMMITS) && self.may_keep_up() {
            self.keep_up().await;
        }
    }

    /// Does one slice. Whatever comes of it, nothing that is acknowledged depends on it.
    pub(super) async fn keep_up(&mut self) {
        if !self.upkeep.is_due(Duration::ZERO) {
            return;
        }
        self.upkeep.yields = true;
        let backend = self.backend.clone();
        let outcome = guarded(async { backend.maintain(Budget::default()).await }).await;
        self.upkeep.last = Some(Instant::now());
        match outcome {
            Ok(is_left) => (self.upkeep.is_left, self.upkeep.backoff) = (is_left, None),
            Err(error) => {
                let [first, longest] = BACKOFF;
                let backoff = self.upkeep.backoff.map_or(first, |backoff| backoff * 2);
                self.upkeep.backoff = Some(backoff.min(longest));
                tracing::warn!(%error, "the backend's upkeep failed; it is tried again later");
                self.shared.vital.note("maintain", &error);
                // One that does not know where it stands says so until it is reopened.
                if matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Unavailable)
                    && let Err(error) = backend.reopen().await
                {
                    tracing::error!(%error, "the backend cannot be reopened");
                    self.poison(true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_waits_for_its_pause_and_a_failed_one_for_longer() {
        let mut upkeep = Upkeep::default();
        assert!(upkeep.is_due(BETWEEN_COMMITS));
        let last = Instant::now();
        upkeep.last = Some(last);
        assert_eq!(upkeep.due(BETWEEN_COMMITS), Some(last + BETWEEN_COMMITS));
        upkeep.backoff = Some(BACKOFF[1]);
        assert_eq!(upkeep.due(Duration::ZERO), Some(last + BACKOFF[1]));
        upkeep.is_left = false;
        assert_eq!(upkeep.due(Duration::ZERO), None);
    }
}
