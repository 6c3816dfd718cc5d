//! Which memtable and which directory belong to which snapshot of the file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::directory::Directory;
use super::memtable::Memtable;

/// The series as of some commit, as far as they are in memory.
#[derive(Debug)]
pub(crate) struct Version {
    /// The head's count of commits when it came about. It holds for later heads until the next version.
    pub(crate) commit: u64,
    pub(crate) memtable: Memtable,
    pub(crate) directory: Directory,
}

/// The version as it is now, and during a commit also as it will be after it: whichever of the two the
/// file shows, a reader finds what belongs to it, and waits for nobody.
#[derive(Debug)]
pub(crate) struct Versions(Mutex<Known>);

#[derive(Debug)]
struct Known {
    current: Arc<Version>,
    next: Option<Arc<Version>>,
}

impl Versions {
    pub(crate) fn new(version: Version) -> Self {
        Self(Mutex::new(Known { current: Arc::new(version), next: None }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Arc<Version> {
        self.known().current.clone()
    }

    /// The version that a snapshot has whose head counts so many commits, unless it is an older one.
    pub(crate) fn get(&self, commits: u64) -> Option<Arc<Version>> {
        let known = self.known();
        [known.next.as_ref(), Some(&known.current)]
            .into_iter()
            .flatten()
            .find(|version| version.commit <= commits)
            .cloned()
    }

    /// A commit is about to be written. Whether it was shows later.
    pub(crate) fn announce(&self, next: Version) {
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
