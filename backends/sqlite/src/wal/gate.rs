//! Where this process's own readers can be held out for a moment.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lets readers in, unless somebody holds it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    is_held: bool,
}

/// A reader that is inside; dropping it lets it out.
#[derive(Debug)]
#[must_use]
pub(crate) struct Inside<'g>(&'g Gate);

/// Nobody is inside.
#[derive(Debug)]
#[must_use]
pub(super) struct Held<'g>(&'g Gate);

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes in, as soon as nobody holds the gate. Nobody may wait here who is inside already.
    pub(super) fn enter(&self) -> Inside<'_> {
        let mut state = self
            .changed
            .wait_while(self.state(), |state| state.is_held)
            .unwrap_or_else(PoisonError::into_inner);
        state.inside += 1;
        Inside(self)
    }

    /// Lets nobody in and waits until everybody is out; gives up after `patience`.
    pub(super) fn hold(&self, patience: Duration) -> Option<Held<'_>> {
        self.state().is_held = true;
        let held = Held(self);
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), patience, |state| state.inside > 0)
            .unwrap_or_else(PoisonError::into_inner);
        let is_empty = state.inside == 0;
        drop(state);
        is_empty.then_some(held)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.inside -= 1;
        if state.inside == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state().is_held = false;
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
        let inside = gate.enter();
        assert!(gate.hold(SHORT).is_none());
        // Whoever gave up left it open.
        drop(gate.enter());
        std::thread::scope(|scope| {
            let holder = scope.spawn(|| gate.hold(LONG).is_some());
            drop(inside);
            assert!(holder.join().is_ok_and(|held| held));
        });
        let held = gate.hold(SHORT);
        assert!(held.is_some());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| drop(gate.enter()));
            assert_eq!(gate.state().inside, 0);
            drop(held);
            assert!(reader.join().is_ok());
        });
    }
}
