//! Whether what the wall clock says can be right.
//!
//! A clock that is ahead for one moment would date everything until that moment has passed, and
//! with that end every login and key. So the wall clock is compared with a monotonic clock.
//! It may be set back at any time: times in a store do not follow it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::domain::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::options::ClockOptions;

/// What the two clocks say at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// The wall clock.
    wall: Timestamp,
    /// The monotonic clock, which counts from a moment of its own.
    elapsed: i64,
}

impl Reading {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        // In this order: if the process is stopped in between, the wall clock looks slow, not fast.
        let wall = clock.now();
        Self { wall, elapsed: micros(clock.elapsed()) }
    }

    /// How far the wall clock is ahead of the other one.
    fn offset(self) -> i64 {
        self.wall.as_micros() - self.elapsed
    }
}

/// Whether a reading can be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// It is later than it can be.
    Ahead {
        /// How much later.
        by: Duration,
        /// What it is at most, as far as can be told.
        latest: Timestamp,
    },
}

/// Compares each reading with those before.
#[derive(Debug)]
pub(crate) struct ClockGuard {
    /// How far the wall clock was ahead of the other one when it was right.
    offset: AtomicI64,
    /// How far it may be ahead of that, in microseconds.
    bound: AtomicI64,
    max_step: i64,
}

impl ClockGuard {
    /// Judges the first reading of a process by the time of the store's last commit, if it has one.
    ///
    /// # Errors
    /// `Unavailable` if the clock is further ahead than `max_gap`.
    pub(crate) fn start(
        reading: Reading,
        last: Option<Timestamp>,
        options: &ClockOptions,
    ) -> Result<Self> {
        let (max_step, max_gap) = (micros(options.max_step), micros(options.max_gap));
        let (mut offset, mut bound) = (reading.offset(), max_step);
        if let Some(last) = last.filter(|_| !options.accept) {
            if last.since(reading.wall) > options.max_step {
                // No measure yet: many machines start with a clock that is set later.
                (offset, bound) = (last.as_micros() - reading.elapsed, max_gap);
            } else if let Verdict::Ahead { by, latest } = judge(reading.wall, last, max_gap) {
                return Err(ahead(by, latest, reading.wall).with(
                    "help",
                    "if the clock is right and the store was not used for so long, run \
                     `gwstore clock accept`; otherwise set the clock",
                ));
            }
        }
        Ok(Self { offset: offset.into(), bound: bound.into(), max_step })
    }

    /// Judges a reading. The time of the store's last commit is asked for only in doubt.
    pub(crate) fn judge(&self, reading: Reading, last: impl FnOnce() -> Timestamp) -> Verdict {
        let known = self.offset.load(Ordering::Relaxed);
        let offset = reading.offset();
        if offset <= known {
            return Verdict::Right;
        }
        let latest = Timestamp::from_micros(known.saturating_add(reading.elapsed));
        let latest = latest.unwrap_or(Timestamp::EPOCH);
        let bound = self.bound.load(Ordering::Relaxed);
        let mut verdict = judge(reading.wall, latest, bound);
        if let Verdict::Ahead { .. } = verdict {
            // Another process may have written since.
            verdict = judge(reading.wall, latest.max(last()), bound);
        }
        if verdict == Verdict::Right {
            self.advance(offset);
        }
        verdict
    }

    /// Takes a reading as right, whatever was known.
    pub(crate) fn accept(&self, reading: Reading) {
        self.offset.store(reading.offset(), Ordering::Relaxed);
        self.bound.store(self.max_step, Ordering::Relaxed);
    }

    /// Takes a reading as right that is ahead of what was known.
    fn advance(&self, offset: i64) {
        self.offset.fetch_max(offset, Ordering::Relaxed);
        self.bound.store(self.max_step, Ordering::Relaxed);
    }
}

impl Verdict {
    /// The time for reads, which cannot wait until a clock is set: the wall clock or, if that is ahead,
    /// the latest that it can be.
    pub(crate) fn time(self, reading: Reading) -> Timestamp {
        match self {
            Self::Right => reading.wall,
            Self::Ahead { latest, .. } => latest,
        }
    }

    /// What the wall clock says.
    ///
    /// # Errors
    /// `Unavailable` if that is later than it can be.
    pub(crate) fn require(self, reading: Reading) -> Result<Timestamp> {
        match self {
            Self::Right => Ok(reading.wall),
            Self::Ahead { by, latest } => Err(ahead(by, latest, reading.wall).with(
                "help",
                "set the clock; if it is right, as after a virtual machine was paused, open the \
                 store anew",
            )),
        }
    }
}

fn judge(wall: Timestamp, latest: Timestamp, bound: i64) -> Verdict {
    let by = wall.since(latest);
    if micros(by) <= bound { Verdict::Right } else { Verdict::Ahead { by, latest } }
}

fn ahead(by: Duration, latest: Timestamp, wall: Timestamp) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the clock jumped ahead; nothing is written under a clock that may be wrong",
    )
    .with("clock", wall)
    .with("expected", latest)
    .with("ahead_seconds", by.as_secs())
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const DAY: i64 = 24 * HOUR;

    fn reading(wall: i64, elapsed: i64) -> Reading {
        Reading { wall: at(wall), elapsed }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + micros).unwrap()
    }

    fn start(wall: i64, last: Option<i64>) -> Result<ClockGuard> {
        ClockGuard::start(reading(wall, 0), last.map(at), &ClockOptions::default())
    }

    fn ask(guard: &ClockGuard, wall: i64, elapsed: i64) -> Verdict {
        guard.judge(reading(wall, elapsed), || Timestamp::EPOCH)
    }

    fn ahead_by(verdict: Verdict) -> (i64, Timestamp) {
        match verdict {
            Verdict::Ahead { by, latest } => (micros(by), latest),
            Verdict::Right => panic!("it is right"),
        }
    }

    #[test]
    fn a_step_of_more_than_an_hour_is_refused_and_those_after_it_are_not() {
        let guard = start(0, Some(0)).unwrap();
        assert_eq!(ask(&guard, 5, 5), Verdict::Right);
        let jumped = ask(&guard, 100 * DAY, 10);
        assert_eq!(ahead_by(jumped), (100 * DAY - 10, at(10)));
        assert_eq!(jumped.time(reading(100 * DAY, 10)), at(10));
        let error = jumped.require(reading(100 * DAY, 10)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        // Time passes all the same.
        assert_eq!(ahead_by(ask(&guard, 100 * DAY, DAY)).1, at(DAY));
        assert_eq!(ask(&guard, DAY, DAY), Verdict::Right);
        assert_eq!(ask(&guard, DAY + HOUR, DAY), Verdict::Right);
    }

    #[test]
    fn the_bound_itself_is_allowed() {
        let guard = start(0, None).unwrap();
        assert_eq!(ask(&guard, HOUR + 7, 7), Verdict::Right);
        // It is the new measure.
        assert_eq!(ahead_by(ask(&guard, 2 * HOUR + 8, 7)).0, HOUR + 1);
    }

    #[test]
    fn a_machine_that_slept_has_not_jumped() {
        let guard = start(0, Some(0)).unwrap();
        assert_eq!(ask(&guard, 400 * DAY, 400 * DAY), Verdict::Right);
    }

    #[test]
    fn a_clock_that_was_set_back_and_forth_is_right() {
        let guard = start(0, Some(0)).unwrap();
        assert_eq!(ask(&guard, -50 * DAY, 10), Verdict::Right);
        assert_eq!(ask(&guard, 20, 20), Verdict::Right);
        assert_eq!(ahead_by(ask(&guard, 2 * HOUR, 20)).1, at(20));
    }

    #[test]
    fn at_the_beginning_the_last_commit_counts() {
        assert!(start(30 * DAY, Some(0)).is_ok());
        let error = start(30 * DAY + 1, Some(0)).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("gwstore clock accept"), "{error}");
        let accept = ClockOptions { accept: true, ..ClockOptions::default() };
        let guard = ClockGuard::start(reading(90 * DAY, 0), Some(at(0)), &accept).unwrap();
        assert_eq!(ask(&guard, 90 * DAY + 1, 1), Verdict::Right);
        assert!(start(900 * DAY, None).is_ok(), "a new store has no time yet");
    }

    #[test]
    fn a_clock_that_is_set_after_the_start_may_reach_the_present() {
        let guard = start(-10_000 * DAY, Some(0)).unwrap();
        assert_eq!(ask(&guard, -10_000 * DAY + 1, 1), Verdict::Right);
        assert_eq!(ahead_by(ask(&guard, 31 * DAY, 2)).1, at(2));
        assert_eq!(ask(&guard, 20 * DAY, 3), Verdict::Right);
        // From then on it is known.
        assert_eq!(ahead_by(ask(&guard, 20 * DAY + 2 * HOUR, 3)).1, at(20 * DAY));
    }

    #[test]
    fn a_clock_that_is_a_little_behind_at_the_start_is_known_all_the_same() {
        let guard = start(-HOUR, Some(0)).unwrap();
        assert_eq!(ahead_by(ask(&guard, HOUR, 5)).1, at(5 - HOUR));
    }

    #[test]
    fn what_another_process_wrote_counts() {
        let guard = start(0, Some(0)).unwrap();
        let wall = reading(10 * DAY, 5);
        assert_eq!(guard.judge(wall, || at(10 * DAY - HOUR)), Verdict::Right);
    }

    #[test]
    fn a_clock_can_be_accepted() {
        let guard = start(0, Some(0)).unwrap();
        assert_ne!(ask(&guard, DAY, 0), Verdict::Right);
        guard.accept(reading(DAY, 0));
        assert_eq!(ask(&guard, DAY + 1, 1), Verdict::Right);
    }
}
