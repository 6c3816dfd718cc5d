//! Which memtable belongs to which snapshot of the file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memtable::Memtable;

/// The memtable as it is now, and during a commit also as it will be after it: whichever of the two the
/// file shows, a reader finds what belongs to it, and waits for nobody.
#[derive(Debug)]
pub(crate) struct Versions(Mutex<Known>);

#[derive(Debug)]
struct Known {
    current: Arc<Memtable>,
    next: Option<Arc<Memtable>>,
}

impl Versions {
    pub(crate) fn new(memtable: Memtable) -> Self {
        Self(Mutex::new(Known { current: Arc::new(memtable), next: None }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Arc<Memtable> {
        self.known().current.clone()
    }

    /// The version that the head of a snapshot names, unless it is an older one.
    pub(crate) fn get(&self, next: u64) -> Option<Arc<Memtable>> {
        let known = self.known();
        [Some(&known.current), known.next.as_ref()]
            .into_iter()
            .flatten()
            .find(|memtable| memtable.next == next)
            .cloned()
    }

    /// A commit is about to be written. Whether it was shows later.
    pub(crate) fn announce(&self, next: Memtable) {
        self.known().next = Some(Arc::new(next));
    }

    /// The commit was written.
    pub(crate) fn advance(&self) {
        let mut known = self.known();
        if let Some(next) = known.next.take() {
            known.current = next;
        }
    }

    /// The commit was surely not written.
    pub(crate) fn withdraw(&self) {
        self.known().next = None;
    }
}
