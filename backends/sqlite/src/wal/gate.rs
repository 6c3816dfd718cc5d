//! Where this process's own readers can be held out for a moment.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Has a connection's statement end with an error. Does nothing while it runs none.
pub type Interrupt = Arc<dyn Fn() + Send + Sync>;

/// Lets readers in, unless somebody holds it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    /// How many hold it, or wait for that.
    holders: usize,
    /// Of those inside who take long.
    interrupts: Vec<Weak<dyn Fn() + Send + Sync>>,
}

/// A reader that is inside; dropping it lets it out.
#[must_use]
pub(crate) struct Inside<'g> {
    gate: &'g Gate,
    _interrupt: Option<Interrupt>,
}

/// Nobody is inside.
#[derive(Debug)]
#[must_use]
pub(super) struct Held<'g>(&'g Gate);

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes in, as soon as nobody holds the gate. Nobody may wait here who is inside already. Whoever
    /// takes longer than a page does brings what ends it when somebody wants to hold the gate.
    pub(super) fn enter(&self, interrupt: Option<Interrupt>) -> Inside<'_> {
        let mut state = self
            .changed
            .wait_while(self.state(), |state| state.holders > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.inside += 1;
        state.interrupts.extend(interrupt.as_ref().map(Arc::downgrade));
        Inside { gate: self, _interrupt: interrupt }
    }

    /// Lets nobody in and waits until everybody is out; gives up after `patience`.
    pub(super) fn hold(&self, patience: Duration) -> Option<Held<'_>> {
        /// Who is interrupted before its statement begins does not notice, and is told again.
        const AGAIN: Duration = Duration::from_millis(1);
        let until = Instant::now() + patience;
        let mut state = self.state();
        state.holders += 1;
        let held = Held(self);
        loop {
            state.interrupt();
            let left = until.saturating_duration_since(Instant::now());
            (state, _) = self
                .changed
                .wait_timeout_while(state, left.min(AGAIN), |state| state.inside > 0)
                .unwrap_or_else(PoisonError::into_inner);
            if state.inside == 0 || left.is_zero() {
                break;
            }
        }
        let is_empty = state.inside == 0;
        drop(state);
        is_empty.then_some(held)
    }
}

impl State {
    fn interrupt(&mut self) {
        self.interrupts.retain(|interrupt| {
            let interrupt = interrupt.upgrade();
            interrupt.inspect(|interrupt| interrupt()).is_some()
        });
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("inside", &self.inside)
            .field("holders", &self.holders)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inside")
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.inside -= 1;
        if state.inside == 0 {
            self.gate.changed.notify_all();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state().holders -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_is_held_once_everybody_is_out_and_then_lets_nobody_in() {
        let gate = Gate::default();
        let inside = gate.enter(None);
        assert!(gate.hold(SHORT).is_none());
        // Whoever gave up left it open.
        drop(gate.enter(None));
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| gate.hold(LONG).is_some());
            drop(inside);
            assert!(holder.join().is_ok_and(|held| held));
        });
        let held = gate.hold(SHORT);
        assert!(held.is_some());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| drop(gate.enter(None)));
            assert_eq!(gate.state().inside, 0);
            drop(held);
            assert!(reader.join().is_ok());
        });
    }

    #[test]
    fn who_takes_long_is_interrupted_until_it_ends() {
        let gate = Gate::default();
        let (tell, told) = std::sync::mpsc::channel();
        let inside = gate.enter(Some(Arc::new(move || {
            tell.send(()).ok();
        })));
        assert!(told.try_recv().is_err());
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| gate.hold(LONG).is_some());
            // The first one may have come too early.
            assert!((0..3).all(|_| told.recv().is_ok()));
            drop(inside);
            assert!(holder.join().is_ok_and(|held| held));
        });
        told.try_iter().for_each(drop);
        drop(gate.hold(SHORT));
        assert!(told.recv().is_err(), "who has ended is not interrupted");
    }
}
