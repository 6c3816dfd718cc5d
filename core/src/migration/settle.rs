//! What follows from how a commit ended that went to both sides.

use crate::error::{Error, ErrorKind};

/// How a commit ended on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is stored, by this sending or an earlier one.
    Stored,
    /// It surely is not.
    NotStored,
    /// Nobody knows.
    Unknown,
    /// Another epoch holds there.
    Fenced,
    /// Something else was stored in its place.
    Conflict,
}

impl Outcome {
    /// What an error of a commit means.
    #[must_use]
    pub fn of(error: &ErrorKind) -> Self {
        match error {
            ErrorKind::Fenced { .. } => Self::Fenced,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unavailable
            | ErrorKind::Busy
            | ErrorKind::ReadOnly
            | ErrorKind::Exhausted
            | ErrorKind::InvalidArgument
            | ErrorKind::SchemaMismatch { .. } => Self::NotStored,
            _ => Self::Unknown,
        }
    }

    /// How it ended if it was sent again, and that ended so. What was sent first may still arrive: that
    /// a later sending was refused does not say that none is stored.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        match (self, later) {
            (Self::Stored, _) => Self::Stored,
            (Self::Unknown, Self::NotStored) => Self::Unknown,
            (_, later) => later,
        }
    }
}

/// Whether a side that gave this error is there: it is slow, or has no room, or what it was asked may still arrive. So
/// nobody goes on without it.
pub(crate) fn is_there(error: &Error) -> bool {
    use ErrorKind::{Busy, Conflict, Exhausted, OutcomeUnknown};
    matches!(error.kind(), Busy | Conflict | Exhausted | OutcomeUnknown)
}

/// What to do about a commit that was sent to both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Both have it: publish it, and answer.
    Stored,
    /// Neither has it, and neither will: answer with the error.
    NotStored,
    /// Send it again, unchanged, to the sides that are named, and nothing else to either until both
    /// have it: no side can take it back. Callers wait for that, at most to their deadline, and are told
    /// then that the outcome is unknown.
    Again([bool; 2]),
    /// Somebody has taken over: answer nothing, and look at both records anew.
    Fenced,
    /// Somebody else writes to a side that this process holds.
    Corrupt,
}

/// What to do about a commit, by its outcomes on both sides.
#[must_use]
pub fn settle(outcomes: [Outcome; 2]) -> Verdict {
    if outcomes.contains(&Outcome::Fenced) {
        return Verdict::Fenced;
    }
    if outcomes.contains(&Outcome::Conflict) {
        return Verdict::Corrupt;
    }
    match outcomes {
        [Outcome::Stored, Outcome::Stored] => Verdict::Stored,
        [Outcome::NotStored, Outcome::NotStored] => Verdict::NotStored,
        _ => Verdict::Again(outcomes.map(|outcome| outcome != Outcome::Stored)),
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Conflict, Fenced, NotStored, Stored, Unknown};
    use super::*;

    #[test]
    fn an_answer_needs_both_sides() {
        for (outcomes, verdict) in [
            ([Stored, Stored], Verdict::Stored),
            ([NotStored, NotStored], Verdict::NotStored),
            ([Stored, NotStored], Verdict::Again([false, true])),
            ([Unknown, Stored], Verdict::Again([true, false])),
            ([Unknown, NotStored], Verdict::Again([true, true])),
            ([Unknown, Unknown], Verdict::Again([true, true])),
            ([Fenced, Stored], Verdict::Fenced),
            ([Conflict, Fenced], Verdict::Fenced),
            ([Stored, Conflict], Verdict::Corrupt),
        ] {
            assert_eq!(settle(outcomes), verdict, "{outcomes:?}");
            let [first, second] = outcomes;
            let turned = match verdict {
                Verdict::Again([first, second]) => Verdict::Again([second, first]),
                same => same,
            };
            assert_eq!(settle([second, first]), turned, "{outcomes:?} the other way round");
        }
    }

    #[test]
    fn only_what_surely_was_not_stored_counts_as_that() {
        assert_eq!(Outcome::of(&ErrorKind::Exhausted), NotStored);
        assert_eq!(Outcome::of(&ErrorKind::OutcomeUnknown), Unknown);
        assert_eq!(Outcome::of(&ErrorKind::Corrupt), Unknown);
        assert_eq!(Outcome::of(&ErrorKind::Fenced { epoch: 2 }), Fenced);
        assert_eq!(Unknown.then(NotStored), Unknown);
        assert_eq!(NotStored.then(NotStored), NotStored);
        assert_eq!(Unknown.then(Stored), Stored);
        assert_eq!(Stored.then(NotStored), Stored);
    }
}
