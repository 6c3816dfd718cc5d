//! Looks at the health of what is served: tells each change of state once, and the service manager that
//! the process lives.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::health::{Condition, Health};
use ghostwire_store::http::Source;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::notify;
use super::served::{Served, summary};

const INTERVAL: Duration = Duration::from_secs(1);
/// While opening the store gets somewhere, the service manager is asked for so much more time.
pub(super) const LONGER: Duration = Duration::from_secs(30);
/// What comes before rows are read, such as a copy of the file, tells nothing of how far it is; so long it
/// is waited for.
const STILL: Duration = Duration::from_secs(600);

/// How far opening the store is.
#[derive(Debug)]
struct Opening {
    rows: u64,
    moved_at: Instant,
}

impl Opening {
    /// Whether it has got somewhere of late.
    fn moves(&mut self, rows: u64, now: Instant) -> bool {
        if rows != self.rows {
            *self = Self { rows, moved_at: now };
        }
        now.duration_since(self.moved_at) < STILL
    }
}

/// What was told last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    state: Option<Condition>,
    ready: bool,
    reason: Option<String>,
}

impl Told {
    fn of(health: &Health) -> Self {
        // How many rows were read is no change.
        let is_loading = health.state == Condition::Loading;
        let reason = health.reason.clone().filter(|_| !is_loading);
        Self { state: Some(health.state), ready: health.ready, reason }
    }
}

/// Goes on until the store has ended by itself, and gives its health then.
pub(super) async fn watch(served: Arc<Served>) -> Health {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watchdog = notify::watchdog_interval();
    let mut alive_at: Option<Instant> = None;
    let mut told = Told::default();
    let mut opening = Opening { rows: 0, moved_at: Instant::now() };
    loop {
        ticks.tick().await;
        // A probe at its own intervals: nobody else need ask. It is not waited for longer than its deadline.
        let health = served.check_health().await;
        tell_change(&health, &mut told);
        match health.state {
            Condition::Loading => {
                let moves = opening.moves(health.loaded_rows.unwrap_or(0), Instant::now());
                notify::opening(&summary(&health), moves.then_some(LONGER));
            }
            Condition::Stopped => return health,
            _ => {}
        }
        // An fsync that takes long is no reason to be killed; a writer that is stuck is.
        let is_due = watchdog
            .is_some_and(|every| alive_at.is_none_or(|at| at.elapsed() + INTERVAL >= every));
        if is_due && health.is_live() {
            notify::alive();
            alive_at = Some(Instant::now());
        }
    }
}

/// One event for each change.
fn tell_change(health: &Health, told: &mut Told) {
    let now = Told::of(health);
    if now == *told {
        return;
    }
    let state = health.state.name();
    let reason = health.reason.as_deref().unwrap_or_default();
    let next_step = health.next_step.unwrap_or_default();
    if health.ready || health.state == Condition::Loading {
        tracing::info!(name: "state", state, reason, "the store is {state}");
    } else {
        tracing::warn!(name: "state", state, reason, next_step, "the store is {state}");
    }
    // The first one comes with `READY=1`, or while it is opened.
    if told.state.is_some_and(|state| state != Condition::Loading) {
        notify::status(&summary(health));
    }
    *told = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_that_stands_still_gets_no_more_time() {
        let begun = Instant::now();
        let mut opening = Opening { rows: 0, moved_at: begun };
        let almost = STILL - INTERVAL;
        assert!(opening.moves(0, begun + almost));
        assert!(!opening.moves(0, begun + STILL));
        assert!(opening.moves(1, begun + STILL));
        assert!(opening.moves(1, begun + STILL + almost));
        assert!(!opening.moves(1, begun + STILL + STILL));
    }
}
