//! Which states are kept by readers. A view that somebody keeps keeps its memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::view::Published;

/// So many replaced states are remembered. Beyond that the newest are not: what matters is the oldest.
const REMEMBERED: usize = 64;

/// States that were replaced and may still be kept, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct KeptViews(Mutex<VecDeque<(Instant, Weak<Published>)>>);

impl KeptViews {
    /// This state was replaced just now.
    pub(crate) fn replaced(&self, state: &Arc<Published>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.front().is_some_and(|(_, state)| state.strong_count() == 0) {
            kept.pop_front();
        }
        if kept.len() == REMEMBERED {
            kept.retain(|(_, state)| state.strong_count() > 0);
        }
        if kept.len() < REMEMBERED {
            kept.push_back((Instant::now(), Arc::downgrade(state)));
        }
    }

    /// How long ago the oldest state that is still kept was replaced; zero if none is.
    pub(crate) fn oldest(&self) -> Duration {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(_, state)| state.strong_count() > 0);
        kept.front().map_or(Duration::ZERO, |(replaced, _)| replaced.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::UnflushedAudit;
    use crate::state::State;

    fn state() -> Arc<Published> {
        let audit = UnflushedAudit::default();
        Arc::new(Published::new(State::default(), audit, Duration::ZERO))
    }

    #[test]
    fn the_oldest_kept_state_counts_and_only_that() {
        let kept = KeptViews::default();
        assert_eq!(kept.oldest(), Duration::ZERO);
        let (old, new) = (state(), state());
        kept.replaced(&old);
        kept.replaced(&new);
        assert!(kept.oldest() > Duration::ZERO);
        drop(old);
        assert!(kept.oldest() > Duration::ZERO);
        drop(new);
        assert_eq!(kept.oldest(), Duration::ZERO);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_begins_with_the_oldest() {
        let kept = KeptViews::default();
        let held: Vec<_> = (0..REMEMBERED + 10).map(|_| state()).collect();
        held.iter().for_each(|state| kept.replaced(state));
        let remembered = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(remembered.len(), REMEMBERED);
        let oldest = remembered.front().and_then(|(_, state)| state.upgrade());
        assert!(
            oldest.is_some_and(|oldest| held.first().is_some_and(|it| Arc::ptr_eq(it, &oldest)))
        );
    }
}
