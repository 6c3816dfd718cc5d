//! When to move a log into the file, and when to say that it cannot be.

use std::time::Duration;

/// How long own readers may take to end before holding them out is given up. Those that come wait
/// as long, and so does the commit.
pub(super) const PATIENCE: Duration = Duration::from_millis(10);
/// The same once the log is half as long as it may get: then that is worse than a wait.
const LAST_PATIENCE: Duration = Duration::from_millis(250);

/// What a frame takes with a page of 4,096 bytes.
const FRAME: u64 = 4096 + 24;

/// When something is done about a log. Bytes of it that are in use, beyond which:
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// a commit is followed by a checkpoint. With four times as many the mean stays the same and the
    /// longest wait doubles.
    pub checkpoint: u64,
    /// this process's own readers are held out, for a moment, so that a checkpoint can move all of
    /// it. Those that take long are broken off.
    pub hold_out: u64,
    /// it counts as held by somebody, and a warning says so.
    pub warn: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { checkpoint: 1000 * FRAME, hold_out: 16 * 1024 * 1024, warn: 64 * 1024 * 1024 }
    }
}

/// What a checkpoint came to, as SQLite tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Somebody was in the way.
    pub(crate) busy: bool,
    /// Frames in the log.
    pub(crate) frames: u64,
    /// Those of them that are in the file.
    pub(crate) moved: u64,
}

impl Checkpoint {
    /// From the columns of `PRAGMA wal_checkpoint`; a number below 0 is none.
    pub(crate) fn of_columns(busy: i64, frames: i64, moved: i64) -> Self {
        let number = |column| u64::try_from(column).unwrap_or(0);
        Self { busy: busy != 0, frames: number(frames), moved: number(moved) }
    }

    /// Whether the next commit can begin the log anew.
    fn is_complete(&self) -> bool {
        !self.busy && self.moved == self.frames
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// A checkpoint that waits for nobody.
    Move,
    /// A checkpoint without readers of this process, that cuts the log's file, too.
    Cut,
}

/// Something that people should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// Somebody keeps the log from being begun anew.
    Held { bytes: u64 },
    /// Nobody does any more.
    Released { commits: u64 },
}

/// Decides; it does nothing itself.
#[derive(Debug, Default)]
pub(super) struct Policy {
    limits: LogLimits,
    /// Bytes in use after the last commit.
    bytes: u64,
    /// Own readers are not held out again before it has grown to this.
    hold_out_at: u64,
    /// Commits since the log is held; 0 if it is not.
    pub(super) held_commits: u64,
    /// How often it was held.
    pub(super) held: u64,
}

impl Policy {
    pub(super) fn new(limits: LogLimits) -> Self {
        Self { limits, hold_out_at: limits.hold_out, ..Self::default() }
    }

    /// How many bytes in use something is done about.
    pub(super) fn checkpoint_at(&self) -> u64 {
        self.limits.checkpoint
    }

    /// A commit was stored, and so many bytes of the log are in use.
    pub(super) fn committed(&mut self, bytes: u64) -> Step {
        self.bytes = bytes;
        if bytes < self.limits.checkpoint { Step::Rest } else { Step::Move }
    }

    /// How long own readers are waited for.
    pub(super) fn patience(&self) -> Duration {
        if self.bytes < self.limits.warn / 2 { PATIENCE } else { LAST_PATIENCE }
    }

    /// A checkpoint was made that waits for nobody.
    pub(super) fn moved(&mut self, outcome: Checkpoint) -> (Step, Option<Notice>) {
        let is_complete = outcome.is_complete();
        if is_complete && self.bytes < self.limits.warn {
            return (Step::Rest, self.released());
        }
        if is_complete || self.bytes >= self.hold_out_at {
            return (Step::Cut, None);
        }
        (Step::Rest, self.kept())
    }

    /// Own readers were held out, unless one took too long, and a checkpoint was made.
    pub(super) fn cut(&mut self, outcome: Option<Checkpoint>) -> Option<Notice> {
        match outcome {
            Some(outcome) if outcome.is_complete() => self.released(),
            _ => {
                // A reader of this process ends soon; that of another program perhaps never.
                let more = self.limits.hold_out / if outcome.is_none() { 4 } else { 1 };
                self.hold_out_at = self.bytes.saturating_add(more);
                self.kept()
            }
        }
    }

    fn kept(&mut self) -> Option<Notice> {
        if self.bytes < self.limits.warn {
            return None;
        }
        self.held_commits += 1;
        if self.held_commits > 1 {
            return None;
        }
        self.held += 1;
        Some(Notice::Held { bytes: self.bytes })
    }

    fn released(&mut self) -> Option<Notice> {
        self.hold_out_at = self.limits.hold_out;
        let commits = std::mem::take(&mut self.held_commits);
        (commits > 0).then_some(Notice::Released { commits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LogLimits = LogLimits { checkpoint: 100, hold_out: 400, warn: 1_000 };
    const ALL: Checkpoint = Checkpoint { busy: false, frames: 9, moved: 9 };
    const PART: Checkpoint = Checkpoint { busy: false, frames: 9, moved: 3 };

    /// What one commit leads to, if every checkpoint comes to `outcome`.
    fn commit(policy: &mut Policy, bytes: u64, outcome: Checkpoint) -> (Vec<Step>, Vec<Notice>) {
        let mut steps = vec![policy.committed(bytes)];
        let mut notices = Vec::new();
        if steps.last() == Some(&Step::Move) {
            let (step, notice) = policy.moved(outcome);
            steps.push(step);
            notices.extend(notice);
        }
        if steps.last() == Some(&Step::Cut) {
            notices.extend(policy.cut(Some(outcome)));
        }
        (steps, notices)
    }

    #[test]
    fn a_short_log_is_left_alone_and_a_longer_one_is_moved() {
        let mut policy = Policy::new(LIMITS);
        assert_eq!(commit(&mut policy, 99, ALL), (vec![Step::Rest], vec![]));
        assert_eq!(commit(&mut policy, 100, ALL), (vec![Step::Move, Step::Rest], vec![]));
        assert_eq!(commit(&mut policy, 399, PART), (vec![Step::Move, Step::Rest], vec![]));
    }

    #[test]
    fn own_readers_are_held_out_and_not_at_every_commit() {
        let mut policy = Policy::new(LIMITS);
        assert_eq!(commit(&mut policy, 400, PART), (vec![Step::Move, Step::Cut], vec![]));
        assert_eq!(commit(&mut policy, 500, PART), (vec![Step::Move, Step::Rest], vec![]));
        assert_eq!(commit(&mut policy, 800, PART), (vec![Step::Move, Step::Cut], vec![]));
        assert_eq!(commit(&mut policy, 810, ALL), (vec![Step::Move, Step::Rest], vec![]));
        // That it was moved makes the first limit count again.
        assert_eq!(commit(&mut policy, 400, PART), (vec![Step::Move, Step::Cut], vec![]));
    }

    #[test]
    fn own_readers_that_took_too_long_are_soon_held_out_again() {
        let mut policy = Policy::new(LIMITS);
        assert_eq!(commit(&mut policy, 400, PART).0, [Step::Move, Step::Cut]);
        assert_eq!(policy.cut(None), None);
        assert_eq!(
            (commit(&mut policy, 499, PART).0, policy.patience()),
            (vec![Step::Move, Step::Rest], PATIENCE)
        );
        assert_eq!(
            (commit(&mut policy, 500, PART).0, policy.patience()),
            (vec![Step::Move, Step::Cut], LAST_PATIENCE)
        );
    }

    #[test]
    fn a_held_log_is_told_of_once_and_so_is_its_release() {
        let mut policy = Policy::new(LIMITS);
        let (_, notices) = commit(&mut policy, 1_000, PART);
        assert_eq!(notices, [Notice::Held { bytes: 1_000 }]);
        for bytes in [1_100, 1_500, 9_000] {
            assert_eq!(commit(&mut policy, bytes, PART).1, []);
        }
        assert_eq!((policy.held, policy.held_commits), (1, 4));
        // It is long, so its file is cut, too.
        let (steps, notices) = commit(&mut policy, 9_100, ALL);
        assert_eq!(steps, [Step::Move, Step::Cut]);
        assert_eq!(notices, [Notice::Released { commits: 4 }]);
        assert_eq!((policy.held, policy.held_commits), (1, 0));
        let busy = Checkpoint { busy: true, ..ALL };
        assert_eq!(commit(&mut policy, 1_000, busy).1, [Notice::Held { bytes: 1_000 }]);
        assert_eq!(policy.held, 2);
    }
}
