//! Recording calls and their times.

use std::sync::atomic::AtomicU64;

use super::checker::{Entry, History, Model};
use crate::prelude::*;

/// The outcome of a call.
#[derive(Debug)]
pub(super) enum Outcome<A> {
    Answered(A),
    /// It may have happened, or happen later.
    Unknown,
    /// It is certain that it did not happen, for a reason that has nothing to do with its rules.
    Nothing,
}

impl<A> Outcome<A> {
    /// `refused` says what a refusal by the rules means.
    pub(super) fn of<T>(
        result: Result<T>,
        done: impl FnOnce(T) -> A,
        refused: impl FnOnce(&Error) -> A,
    ) -> Self {
        match result {
            Ok(value) => Self::Answered(done(value)),
            Err(error) => match error.kind() {
                OutcomeUnknown => Self::Unknown,
                Unavailable | Exhausted | Busy => Self::Nothing,
                _ => Self::Answered(refused(&error)),
            },
        }
    }
}

/// The calls of one history. Moments are drawn from a counter that all histories share.
#[derive(Debug)]
pub(super) struct Log<M: Model> {
    moments: Arc<AtomicU64>,
    entries: Mutex<History<M>>,
}

impl<M: Model> Log<M> {
    pub(super) fn new(moments: Arc<AtomicU64>) -> Self {
        Self { moments, entries: Mutex::default() }
    }

    pub(super) async fn call(
        &self,
        call: M::Call,
        outcome: impl Future<Output = Outcome<M::Answer>>,
    ) {
        let began = self.moment();
        let outcome = outcome.await;
        let ended = self.moment();
        let answer = match outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Unknown => None,
            // If its effect were seen nevertheless, no order would explain that.
            Outcome::Nothing => return,
        };
        self.add(Entry { call, answer, began, ended });
    }

    /// The next moment, for a caller that records an entry itself.
    pub(super) fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn add(&self, entry: Entry<M::Call, M::Answer>) {
        self.entries.lock().expect("entries are only pushed").push(entry);
    }

    pub(super) fn into_history(self) -> History<M> {
        let mut history = self.entries.into_inner().expect("entries are only pushed");
        history.sort_by_key(|entry| entry.began);
        history
    }
}
