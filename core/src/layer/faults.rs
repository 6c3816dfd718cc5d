//! Making commits fail, or wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing is stored; `Unavailable`.
    Before,
    /// Everything is stored, and the answer is lost; `OutcomeUnknown`. A commit that would have
    /// been refused anyway is refused.
    After,
    /// Nothing is stored, but the caller cannot tell; `OutcomeUnknown`.
    Lost,
    /// Nothing is stored; `Exhausted`.
    DiskFull,
}

/// Faults to come, of every [`Chaos`](super::Chaos) that shares them.
#[derive(Debug)]
pub struct Faults {
    commits: Mutex<VecDeque<(usize, FaultKind)>>,
    reopens: AtomicUsize,
    holds: watch::Sender<usize>,
    held: AtomicUsize,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            commits: Mutex::default(),
            reopens: AtomicUsize::new(0),
            holds: watch::Sender::new(0),
            held: AtomicUsize::new(0),
        }
    }
}

impl Faults {
    /// Lets `count` commits fail, after those that are to fail already.
    pub fn fail_next_commits(&self, count: usize, kind: FaultKind) {
        if count > 0 {
            locked(&self.commits).push_back((count, kind));
        }
    }

    /// Lets the next `count` calls of `reopen` fail with `Unavailable`.
    pub fn fail_next_reopens(&self, count: usize) {
        self.reopens.fetch_add(count, Ordering::Relaxed);
    }

    /// Forgets the failures that are still to come.
    pub fn clear(&self) {
        locked(&self.commits).clear();
        self.reopens.store(0, Ordering::Relaxed);
    }

    /// Lets commits wait until the returned guard, and every other one, is dropped. One that is
    /// cancelled while it waits stores nothing.
    #[must_use = "commits go on as soon as it is dropped"]
    pub fn hold_commits(&self) -> CommitHold {
        self.holds.send_modify(|holds| *holds += 1);
        CommitHold { holds: self.holds.clone() }
    }

    /// How many commits are waiting because of [`Faults::hold_commits`].
    #[must_use]
    pub fn held_commits(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    pub(crate) async fn before_commit(&self) -> Option<FaultKind> {
        let mut holds = self.holds.subscribe();
        if *holds.borrow_and_update() > 0 {
            let _waiting = Waiting::begin(&self.held);
            // Fails only if the sender is gone, which `self` owns.
            let _ = holds.wait_for(|holds| *holds == 0).await;
        }
        let mut commits = locked(&self.commits);
        let (count, kind) = commits.front_mut()?;
        let kind = *kind;
        *count -= 1;
        if *count == 0 {
            commits.pop_front();
        }
        Some(kind)
    }

    pub(crate) fn reopen_fails(&self) -> bool {
        self.reopens
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
            .is_ok()
    }
}

/// While it lives, commits wait.
#[derive(Debug)]
pub struct CommitHold {
    holds: watch::Sender<usize>,
}

impl Drop for CommitHold {
    fn drop(&mut self) {
        self.holds.send_modify(|holds| *holds = holds.saturating_sub(1));
    }
}

/// Counts a commit for as long as it waits, also if it is cancelled.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(held: &'a AtomicUsize) -> Self {
        held.fetch_add(1, Ordering::AcqRel);
        Self(held)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A list of faults is changed in steps that do not fail.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
