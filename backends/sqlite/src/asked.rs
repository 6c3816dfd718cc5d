//! Work that ends once nobody waits for it any more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use crate::Interrupt;

/// Whoever waits for something. Dropping it ends what is [wanted](Asked::wanted) by it.
#[derive(Debug, Default)]
pub struct Asked(Wanted);

/// Tells who does the work whether anybody waits for it.
#[derive(Debug, Clone, Default)]
pub struct Wanted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_gone: bool,
    /// Of the statement that runs.
    interrupt: Option<Interrupt>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("is_gone", &self.is_gone).finish_non_exhaustive()
    }
}

impl Asked {
    /// For whoever does the work.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.0.clone()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_gone = true;
        if let Some(interrupt) = &state.interrupt {
            interrupt();
        }
    }
}

impl Wanted {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses to go on with what nobody waits for.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn require(&self) -> Result<()> {
        match self.state().is_gone {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::Unavailable, "nobody waits for this any more")),
        }
    }

    /// Runs a statement that takes long and is interrupted when nobody waits any more. One that had not begun by
    /// then runs to its end.
    pub(crate) fn interrupting<T>(
        &self,
        interrupt: Interrupt,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.state().interrupt = Some(interrupt);
        let ran = self.require().and_then(|()| run());
        self.state().interrupt = None;
        ran
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_statement_is_interrupted_when_nobody_waits_for_it() {
        let interrupted = Arc::new(AtomicUsize::new(0));
        let counted = interrupted.clone();
        let interrupt: Interrupt = Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let asked = Asked::default();
        let wanted = asked.wanted();
        wanted.interrupting(interrupt.clone(), || Ok(())).unwrap();
        let give_up = move || {
            drop(asked);
            Ok(())
        };
        wanted.interrupting(interrupt.clone(), give_up).unwrap();
        assert_eq!(interrupted.load(Ordering::Relaxed), 1);
        // And no other is begun.
        let mut ran = false;
        let refused = wanted.interrupting(interrupt, || {
            ran = true;
            Ok(())
        });
        assert!(refused.unwrap_err().to_string().contains("nobody waits") && !ran);
        wanted.require().unwrap_err();
    }
}
