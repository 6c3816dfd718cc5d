//! Why nothing may be written, or a step not be taken.

use super::step::{Place, Seen};
use crate::error::{Error, ErrorKind};

/// Why nothing may be written, or a step not be taken; each with what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No side answers.
    NobodyThere,
    /// The records of both do not belong together.
    Strangers(Seen, Seen),
    /// Both were written, each without the other.
    Diverged(Seen, Seen),
    /// One has a commit that the other one should have, and has not.
    Forked(Place, Place),
    /// The other side has to be seen before this one may be written.
    NeedsOther(Seen),
    /// It cannot be opened as a store by itself.
    NoStore(Seen),
    /// The step is not for this pair.
    NotNow(Seen, Seen),
    /// The target is not empty.
    NotEmpty(Seen),
    /// The way back has ended: the target is the network.
    NoWayBack,
    /// What is asked for may only be done by who has reason to.
    NoGrounds(Seen),
}

impl Refusal {
    /// As whoever asked is told.
    #[must_use]
    pub fn error(self) -> Error {
        let describe = |error: Error, name: &'static str, seen: &Seen| {
            error.with(name, format_args!("{}: {}", seen.side, seen.record))
        };
        let both =
            |error: Error, a: &Seen, b: &Seen| describe(describe(error, "side", a), "other", b);
        match self {
            Self::NobodyThere => Error::new(
                ErrorKind::Unavailable,
                "neither database of the migration answers; bring one of them back",
            ),
            Self::Strangers(a, b) => both(
                Error::new(
                    ErrorKind::Restricted,
                    "the two databases are not both ends of one migration; name the other one that this \
                     one says, or an empty one to begin with",
                ),
                &a,
                &b,
            ),
            Self::Diverged(a, b) => both(
                Error::corrupt(
                    "both databases were written, each without the other; keep both files, compare what \
                     each has, and discard one",
                ),
                &a,
                &b,
            )
            .with("position", a.place.position)
            .with("other_position", b.place.position),
            Self::Forked(a, b) => Error::corrupt(
                "the two databases have different histories: one was put back to an earlier state, or written \
                 elsewhere; keep both files, compare what each has, and discard one",
            )
            .with("position", a.position)
            .with("commit", a.commit)
            .with("other_position", b.position)
            .with("other_commit", b.commit),
            Self::NeedsOther(seen) => describe(
                Error::new(
                    ErrorKind::Unavailable,
                    "this database may only be written once the other side of its migration was seen: \
                     bring that back, or say that it is down for good",
                ),
                "side",
                &seen,
            ),
            Self::NoStore(seen) => describe(
                Error::new(
                    ErrorKind::Restricted,
                    "this database is one end of a migration and not the network; open the other side, \
                     or discard this one",
                ),
                "side",
                &seen,
            ),
            Self::NotNow(a, b) => both(
                Error::new(
                    ErrorKind::Restricted,
                    "the migration is at another stage; see its status for what can follow",
                ),
                &a,
                &b,
            ),
            Self::NotEmpty(seen) => describe(
                Error::new(
                    ErrorKind::Restricted,
                    "the target is not empty; discard what is there, or name another one",
                ),
                "target",
                &seen,
            )
            .with("position", seen.place.position),
            Self::NoWayBack => Error::new(
                ErrorKind::Restricted,
                "the target is the network now, and the migration cannot be aborted; go back first, or \
                 finish it",
            ),
            Self::NoGrounds(seen) => describe(
                Error::new(
                    ErrorKind::Restricted,
                    "this database may go on without the other one only in a process that was in sync \
                     with both, by grant of a witness, or by command",
                ),
                "side",
                &seen,
            ),
        }
    }
}
