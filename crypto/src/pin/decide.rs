//! What a pin says about a store that is opened.

use crate::pin::mark::Mark;
use crate::signature::SignerId;

/// Where a store stands when it is opened, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The store's id.
    pub store: [u8; 16],
    /// Who may write.
    pub epoch: u64,
    /// How many commits there were.
    pub commit: u64,
    /// SHA-256 of the stored head: [`Mark::head`].
    pub head: [u8; 32],
    /// Whether the head says that the store has a pin.
    pub pinned: bool,
    /// The head of the mark that somebody accepted to give up ([`Mark::head`] of it).
    pub overridden: Option<[u8; 32]>,
    /// Whose signatures the store has.
    pub signers: Signers,
}

/// Whose signatures a store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signers {
    /// Those of its keyring; zeros if nothing signs it.
    pub current: SignerId,
    /// Those before a rotation that is under way.
    pub before: Option<SignerId>,
    /// Whether it was signed at most once: its pin may be of a time when nothing was.
    pub since_now: bool,
}

impl Signers {
    fn have(&self, signer: SignerId) -> bool {
        let was_none = self.since_now && signer == SignerId::NONE;
        signer == self.current || self.before == Some(signer) || was_none
    }
}

/// What became of the block that a mark names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// The store has a block of that serial, with this
    /// [`PinKey::anchor`](crate::pin::PinKey::anchor).
    Is([u8; 32]),
    /// It has none.
    Missing,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Serve: the store has no pin, and none is there.
    Unpinned,
    /// Serve, after the first mark was made: the head does not know of a pin yet.
    First,
    /// Serve: both agree.
    Equal,
    /// Advance the pin, then serve: the store was stopped between a commit and its mark. Nobody was
    /// told of what is ahead.
    Ahead {
        /// By how many commits.
        by: u64,
    },
    /// Advance the pin, then serve: somebody accepted that the store was put back, and was
    /// interrupted before the new mark.
    Accepted,
    /// Refuse: commits are missing that the pin knows.
    RolledBack {
        /// By how many.
        by: u64,
    },
    /// Refuse: commits are missing, and the pin knows of a later epoch.
    Superseded {
        /// The pin's epoch.
        epoch: u64,
    },
    /// Refuse: the store has another history than the one that the pin knows.
    Forked,
    /// Refuse: the head says that there is a pin, and there is none.
    Missing,
    /// Refuse: the pin is another store's.
    OtherStore,
    /// Refuse: the pin is of a time when other keys signed the store than its keyring has.
    OtherSigner,
}

impl Verdict {
    /// Whether the store may be served, once the pin stands where it does.
    #[must_use]
    pub const fn serves(self) -> bool {
        use Verdict::{Accepted, Ahead, Equal, First, Unpinned};
        matches!(self, Unpinned | First | Equal | Ahead { .. } | Accepted)
    }

    /// The name that tools print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unpinned => "unpinned",
            Self::First => "first",
            Self::Equal => "equal",
            Self::Ahead { .. } => "ahead",
            Self::Accepted => "accepted",
            Self::RolledBack { .. } => "rolled back",
            Self::Superseded { .. } => "superseded",
            Self::Forked => "forked",
            Self::Missing => "missing",
            Self::OtherStore => "other store",
            Self::OtherSigner => "other signer",
        }
    }
}

/// Compares a store with its pin. `configured` says whether a pin is to be kept at all; `anchor` is
/// that of the store's block with the mark's serial.
#[must_use]
pub fn decide(store: &Standing, configured: bool, mark: Option<&Mark>, anchor: Anchor) -> Verdict {
    let Some(mark) = mark else {
        return match (store.pinned, configured) {
            (true, _) => Verdict::Missing,
            (false, true) => Verdict::First,
            (false, false) => Verdict::Unpinned,
        };
    };
    if mark.store != store.store {
        return Verdict::OtherStore;
    }
    if !store.signers.have(mark.signer) {
        return Verdict::OtherSigner;
    }
    if store.epoch < mark.epoch {
        return Verdict::Superseded { epoch: mark.epoch };
    }
    if store.epoch > mark.epoch && store.overridden == Some(mark.head) {
        return Verdict::Accepted;
    }
    match store.commit.checked_sub(mark.commit) {
        None => Verdict::RolledBack { by: mark.commit - store.commit },
        Some(0) if store.epoch == mark.epoch && store.head == mark.head => Verdict::Equal,
        Some(by) if by > 0 && anchor == Anchor::Is(mark.anchor) => Verdict::Ahead { by },
        Some(_) => Verdict::Forked,
    }
}
