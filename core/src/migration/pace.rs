//! Fewer commits of the side that is written, while the one that follows falls behind.
//!
//! The follower takes one commit after the other, and each has to be durable there. A store that answers a thousand
//! heartbeats a second one by one makes more commits than that, and would never be caught up with. The same writes in
//! a quarter of the commits can be: whoever writes waits a little longer, and shares a commit with others.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many commits the follower may lack before anybody waits.
const FREE: u64 = 16;
/// From so many on nobody waits for longer: four times as long as the follower takes for a commit.
const MOST: u64 = 4 * FREE;
/// So long a commit waits in any case at most. A follower that takes longer for one is not caught up with by this.
const LONGEST: Duration = Duration::from_millis(8);
/// What so many commits took says how long one takes, and what fewer took does not.
const TELLING: u64 = 8;
/// So long what was seen of the follower holds.
const HOLDS: Duration = Duration::from_secs(1);

/// How far apart the commits begin.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How long the follower takes for a commit.
    each: Duration,
    /// How far apart, and until when.
    apart: Option<(Duration, Instant)>,
    /// When the last one began.
    last: Option<Instant>,
}

/// How far apart commits are to begin while the follower lacks `lag` and takes `each` for one of them.
fn apart(lag: u64, each: Duration) -> Duration {
    if lag < FREE || each >= LONGEST {
        return Duration::ZERO;
    }
    let lag = u32::try_from(lag.min(MOST)).unwrap_or(u32::MAX);
    (each.saturating_mul(lag) / FREE as u32).min(LONGEST)
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The follower took this long for so many commits, and lacks so many still.
    pub(super) fn follows(&self, commits: u64, took: Duration, lag: u64) {
        let mut state = self.lock();
        if commits >= TELLING {
            state.each = took / u32::try_from(commits).unwrap_or(u32::MAX);
        }
        state.apart = Some((apart(lag, state.each), Instant::now() + HOLDS));
    }

    /// Waits until the next commit may begin.
    pub(super) async fn turn(&self) {
        let now = Instant::now();
        let due = self.next(now);
        if due > now {
            tokio::time::sleep_until(due).await;
        }
    }

    fn next(&self, now: Instant) -> Instant {
        let mut state = self.lock();
        let apart = state.apart.filter(|(_, until)| now < *until).map(|(apart, _)| apart);
        let due = state.last.zip(apart).map_or(now, |(last, apart)| (last + apart).max(now));
        state.last = Some(due);
        due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn commits_wait_for_a_follower_that_lags_and_not_for_long() {
        assert_eq!(apart(FREE - 1, MILLI), Duration::ZERO);
        assert_eq!(apart(FREE, MILLI), MILLI);
        assert_eq!(apart(2 * FREE, MILLI), 2 * MILLI);
        assert_eq!(apart(MOST, MILLI), 4 * MILLI);
        assert_eq!(apart(u64::MAX, MILLI), 4 * MILLI);
        assert_eq!(apart(MOST, 3 * MILLI), LONGEST);
        // It would be behind all the same.
        assert_eq!(apart(MOST, LONGEST), Duration::ZERO);
    }

    #[test]
    fn what_was_seen_of_a_follower_holds_until_it_has_everything_or_is_not_heard_of() {
        let (pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.next(now), now);
        assert_eq!(pace.next(now), now);
        pace.follows(64, 64 * MILLI, MOST);
        assert_eq!(pace.next(now), now + 4 * MILLI);
        assert_eq!(pace.next(now), now + 8 * MILLI);
        // Whoever comes later than that does not wait.
        assert_eq!(pace.next(now + 20 * MILLI), now + 20 * MILLI);
        assert_eq!(pace.next(now + 21 * MILLI), now + 24 * MILLI);
        pace.follows(64, 64 * MILLI, 0);
        assert_eq!(pace.next(now + 24 * MILLI), now + 24 * MILLI);
        // What little was sent took long for another reason.
        pace.follows(1, 60_000 * MILLI, FREE);
        assert_eq!(pace.next(now + 24 * MILLI), now + 25 * MILLI);
        pace.follows(64, 64 * MILLI, MOST);
        let later = now + 2 * HOLDS;
        assert_eq!((pace.next(later), pace.next(later)), (later, later));
    }
}
