//! Who follows the commits of a store, and how far behind each is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Event, Recorder};
use crate::block::Serial;

/// The watchers of a store.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Positions>);

#[derive(Debug, Default)]
struct Positions {
    next: u64,
    /// The serial that each was told last.
    told: BTreeMap<u64, Arc<AtomicU64>>,
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One begins after a serial.
    pub(crate) fn join(
        watchers: Arc<Self>,
        after: Serial,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> Watcher {
        let told = Arc::new(AtomicU64::new(after.get()));
        let mut positions = watchers.lock();
        let number = positions.next;
        positions.next += 1;
        positions.told.insert(number, told.clone());
        drop(positions);
        Watcher { watchers, number, told, recorder, reason: "dropped" }
    }

    /// How many there are, and how many commits the last of them is behind.
    pub(crate) fn behind(&self, serial: Serial) -> (u64, u64) {
        let positions = self.lock();
        let lag = |told: &Arc<AtomicU64>| serial.get().saturating_sub(told.load(Ordering::Relaxed));
        (positions.told.len() as u64, positions.told.values().map(lag).max().unwrap_or(0))
    }
}

/// One watcher, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    watchers: Arc<Watchers>,
    number: u64,
    told: Arc<AtomicU64>,
    recorder: Option<Arc<dyn Recorder>>,
    reason: &'static str,
}

impl Watcher {
    /// It was told the commit with this serial.
    pub(crate) fn told(&self, serial: Serial) {
        self.told.store(serial.get(), Ordering::Relaxed);
    }

    /// Why it ends, unless its caller drops it.
    pub(crate) fn ends(&mut self, reason: &'static str) {
        self.reason = reason;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.lock().told.remove(&self.number);
        if let Some(recorder) = &self.recorder {
            recorder.record(&Event::WatchEnded { reason: self.reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_watcher_counts_until_it_leaves() {
        let watchers = Arc::new(Watchers::default());
        let at = |serial| Serial::new(serial);
        assert_eq!(watchers.behind(at(9)), (0, 0));
        let slow = Watchers::join(watchers.clone(), at(2), None);
        let fast = Watchers::join(watchers.clone(), at(2), None);
        fast.told(at(9));
        assert_eq!(watchers.behind(at(9)), (2, 7));
        drop(slow);
        assert_eq!(watchers.behind(at(9)), (1, 0));
    }
}
