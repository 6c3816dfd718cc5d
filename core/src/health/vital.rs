//! The signs by which others see how the writer does. It only stores numbers here; errors are rare.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::told;
use crate::block::Serial;
use crate::error::Error;

/// What the writer was doing when something went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) at: Instant,
    pub(crate) operation: &'static str,
    pub(crate) error: Error,
}

/// A commit that was not stored.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) at: Instant,
    pub(crate) error: Error,
}

/// How the store's own commits went.
#[derive(Debug, Clone, Default)]
pub(crate) struct Commits {
    pub(crate) stored: u64,
    /// Why the last one was not stored, if it was not.
    pub(crate) refused: Option<Refused>,
}

/// What is known of the writer without asking it.
#[derive(Debug)]
pub(crate) struct Vital {
    /// Odd while the writer decides a command or encodes a block, which is all that could keep it busy for
    /// ever: what else it does waits for the queue or the backend.
    beat: AtomicU64,
    /// The beat that was last seen, and since when.
    seen: Mutex<(u64, Instant)>,
    is_poisoned: AtomicBool,
    fenced: Mutex<Option<Error>>,
    failing: Mutex<Option<Failing>>,
    /// How many commits were stored.
    commits: AtomicU64,
    /// Why the last one was not, if it was not.
    refused: Mutex<Option<Refused>>,
    is_refused: AtomicBool,
    checkpoint: AtomicU64,
    checkpoint_at: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in there is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vital {
    /// Of a store whose tables are complete up to `checkpoint`; with everything, if `is_flushed`.
    pub(crate) fn new(checkpoint: Serial, is_flushed: bool) -> Self {
        let now = Instant::now();
        Self {
            beat: AtomicU64::new(0),
            seen: Mutex::new((0, now)),
            is_poisoned: AtomicBool::new(false),
            fenced: Mutex::default(),
            failing: Mutex::default(),
            commits: AtomicU64::new(0),
            refused: Mutex::default(),
            is_refused: AtomicBool::new(false),
            checkpoint: AtomicU64::new(checkpoint.get()),
            checkpoint_at: Mutex::new(is_flushed.then_some(now)),
        }
    }

    /// Says that the writer is at work while `work` runs. Only the writer calls it.
    pub(crate) fn at_work<T>(&self, work: impl FnOnce() -> T) -> T {
        self.begin_work();
        let done = work();
        self.end_work();
        done
    }

    /// The writer is at work until [`end_work`](Vital::end_work). If it panics meanwhile it ends, which is told
    /// otherwise.
    pub(crate) fn begin_work(&self) {
        self.beat();
    }

    pub(crate) fn end_work(&self) {
        self.beat();
    }

    fn beat(&self) {
        // One thread writes it.
        let beat = self.beat.load(Ordering::Relaxed).wrapping_add(1);
        self.beat.store(beat, Ordering::Relaxed);
    }

    /// For how long at least the writer has been at one piece of work.
    pub(crate) fn at_work_for(&self, now: Instant) -> Option<Duration> {
        let beat = self.beat.load(Ordering::Relaxed);
        let mut seen = lock(&self.seen);
        if seen.0 != beat {
            *seen = (beat, now);
        }
        (beat % 2 == 1).then(|| now.saturating_duration_since(seen.1))
    }

    pub(crate) fn poison(&self, is_poisoned: bool) {
        self.is_poisoned.store(is_poisoned, Ordering::Relaxed);
    }

    /// Why nothing is written until the backend was reopened.
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.is_poisoned.load(Ordering::Relaxed).then(|| {
            let failing = lock(&self.failing);
            let last = failing.as_ref().map(|failing| told(&failing.error));
            last.unwrap_or_else(|| "how the last commit ended is not known".to_owned())
        })
    }

    pub(crate) fn fence(&self, error: &Error) {
        lock(&self.fenced).get_or_insert_with(|| error.clone());
    }

    pub(crate) fn fenced(&self) -> Option<String> {
        lock(&self.fenced).as_ref().map(told)
    }

    /// Remembers what went wrong.
    pub(crate) fn note(&self, operation: &'static str, error: &Error) {
        let failing = Failing { at: Instant::now(), operation, error: error.clone() };
        *lock(&self.failing) = Some(failing);
    }

    pub(crate) fn failing(&self) -> Option<Failing> {
        lock(&self.failing).clone()
    }

    /// A commit was stored. Only the writer calls it, often.
    pub(crate) fn commit_stored(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        if self.is_refused.swap(false, Ordering::Relaxed) {
            *lock(&self.refused) = None;
        }
    }

    /// A commit was not stored, and that is certain. Only the writer calls it.
    pub(crate) fn commit_refused(&self, error: &Error) {
        *lock(&self.refused) = Some(Refused { at: Instant::now(), error: error.clone() });
        self.is_refused.store(true, Ordering::Relaxed);
    }

    pub(crate) fn commits(&self) -> Commits {
        let stored = self.commits.load(Ordering::Relaxed);
        Commits { stored, refused: lock(&self.refused).clone() }
    }

    /// The tables are complete up to here.
    pub(crate) fn checkpointed(&self, checkpoint: Serial) {
        self.checkpoint.store(checkpoint.get(), Ordering::Relaxed);
        *lock(&self.checkpoint_at) = Some(Instant::now());
    }

    pub(crate) fn checkpoint(&self) -> (Serial, Option<Instant>) {
        (Serial::new(self.checkpoint.load(Ordering::Relaxed)), *lock(&self.checkpoint_at))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_of_work_is_timed_from_when_it_was_first_seen() {
        let vital = Vital::new(Serial::ZERO, true);
        let begun = Instant::now();
        let later = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(vital.at_work_for(later(0)), None);
        vital.at_work(|| {
            assert_eq!(vital.at_work_for(later(1)), Some(Duration::ZERO));
            assert_eq!(vital.at_work_for(later(9)), Some(Duration::from_secs(8)));
        });
        assert_eq!(vital.at_work_for(later(10)), None);
        // Many pieces, each of them short, are no long one.
        vital.at_work(|| assert_eq!(vital.at_work_for(later(11)), Some(Duration::ZERO)));
        vital.at_work(|| assert_eq!(vital.at_work_for(later(99)), Some(Duration::ZERO)));
    }
}
