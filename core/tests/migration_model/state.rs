//! What there is: two databases, a process, a message that is late.

use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::{CommitId, SideId};
use ghostwire_store_core::migration::{
    Outcome, Pair, Place, Record, Role, Seen, Service, Which, Write,
};
use ghostwire_store_core::position::{Epoch, Position};
use smallvec::SmallVec;

/// Blocks, by their numbers.
pub(crate) type Log = SmallVec<[u8; 8]>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Database {
    pub(crate) record: Record,
    pub(crate) log: Log,
    /// Whether it can be reached.
    pub(crate) is_up: bool,
    /// Whether it is the second, fourth, ... that stands here: one that was superseded is set aside.
    pub(crate) is_renewed: bool,
}

impl Database {
    pub(crate) fn new(role: Role) -> Self {
        let record = Record { epoch: Epoch::ZERO, role, membership: None };
        Self { record, log: Log::new(), is_up: true, is_renewed: false }
    }

    fn seen(&self, which: Which) -> Seen {
        let mut hash = [0; 32];
        hash.iter_mut().zip(&self.log).for_each(|(to, block)| *to = *block);
        let length = self.log.len() as u64;
        let place = Place {
            position: Position::new(length),
            commit: CommitId::from_bytes([self.log.last().copied().unwrap_or(0); 16]),
            serial: Serial::new(length),
            hash: BlockHash::from_bytes(hash),
        };
        Seen { side: side(which, self.is_renewed), place, record: self.record }
    }

    /// Stores a block behind the others, if that is what the backend would do. Blocks name the one before
    /// them.
    pub(crate) fn store(&mut self, epoch: Epoch, before: &[u8], block: u8) -> Outcome {
        if epoch != self.record.epoch || !self.record.role.admits_content() {
            return Outcome::Fenced;
        }
        match self.log.as_slice() {
            log if log == before => {
                self.log.push(block);
                Outcome::Stored
            }
            [log @ .., last] if log == before && *last == block => Outcome::Stored,
            _ => Outcome::Conflict,
        }
    }
}

fn side(which: Which, is_renewed: bool) -> SideId {
    SideId::from_bytes([1 + index(which) as u8 + 2 * u8::from(is_renewed); 16])
}

pub(crate) fn index(which: Which) -> usize {
    match which {
        Which::First => 0,
        Which::Second => 1,
    }
}

pub(crate) const SIDES: [Which; 2] = [Which::First, Which::Second];

/// What the process does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    /// It has yet to look at both.
    Looking,
    /// It waits for the first of these to be stored.
    Writing(SmallVec<[Write; 2]>),
    /// It sends what the other side lacks.
    Shipping {
        from: Which,
    },
    Serving(Service),
}

/// A commit that goes to both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) block: u8,
    pub(crate) before: Log,
    pub(crate) outcomes: [Outcome; 2],
    /// Where it is still to be sent.
    pub(crate) due: [bool; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) doing: Doing,
    /// The epoch of the authority, when it looked.
    pub(crate) epoch: Epoch,
    /// Whether it has been in sync with both since then.
    pub(crate) in_sync: bool,
    pub(crate) pending: Option<Pending>,
}

impl Process {
    pub(crate) fn new() -> Self {
        Self { doing: Doing::Looking, epoch: Epoch::ZERO, in_sync: false, pending: None }
    }
}

/// A block that may still arrive though nobody waits for it: the disk hangs, and the process does not. It
/// ends with the process, whose lock ends with it, and when the side is opened anew. So records are never
/// late: the process opens a side anew before it looks again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Late {
    pub(crate) to: Which,
    pub(crate) epoch: Epoch,
    pub(crate) before: Log,
    pub(crate) block: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) databases: [Database; 2],
    pub(crate) process: Option<Process>,
    pub(crate) late: Option<Late>,
    /// A bit for each block that a client was told of.
    pub(crate) answered: u8,
    /// To whom the witness granted each epoch.
    pub(crate) granted: [Option<Which>; 8],
    /// The next block's number.
    pub(crate) next: u8,
}

impl State {
    pub(crate) fn database(&self, which: Which) -> &Database {
        &self.databases[index(which)]
    }

    pub(crate) fn database_mut(&mut self, which: Which) -> &mut Database {
        &mut self.databases[index(which)]
    }

    pub(crate) fn seen(&self, which: Which) -> Seen {
        self.database(which).seen(which)
    }

    /// What the process sees.
    pub(crate) fn pair(&self) -> Pair {
        let seen = |which| self.database(which).is_up.then(|| self.seen(which));
        Pair { first: seen(Which::First), second: seen(Which::Second) }
    }

    /// What it would see if both were there.
    pub(crate) fn whole_pair(&self) -> Pair {
        Pair { first: Some(self.seen(Which::First)), second: Some(self.seen(Which::Second)) }
    }

    pub(crate) fn has_answered(&self, which: Which) -> bool {
        let log = &self.database(which).log;
        (1..8).filter(|block| self.answered & (1 << block) != 0).all(|block| log.contains(&block))
    }

    /// Stores a record, if what it replaces is still there.
    pub(crate) fn write(&mut self, write: &Write) -> bool {
        if self.seen(write.to) != write.before {
            return false;
        }
        let database = self.database_mut(write.to);
        database.record = write.after;
        if write.after.role == Role::None {
            // What is given up is discarded at once, so that there can be another migration.
            let Database { is_up, is_renewed, .. } = *database;
            *database = Database { is_up, is_renewed, ..Database::new(Role::None) };
        }
        true
    }

    /// Puts an empty database in the place of one that was superseded. What was under way to that is set aside
    /// with it.
    pub(crate) fn renew(&mut self, which: Which) {
        let is_renewed = !self.database(which).is_renewed;
        *self.database_mut(which) = Database { is_renewed, ..Database::new(Role::None) };
        if self.late.as_ref().is_some_and(|late| late.to == which) {
            self.late = None;
        }
    }

    /// Sends to the other side the next block that it lacks.
    pub(crate) fn ship(&mut self, from: Which) -> Option<Outcome> {
        let (source, to) = (self.database(from).clone(), from.other());
        let length = self.database(to).log.len();
        let block = *source.log.get(length)?;
        let epoch = self.database(to).record.epoch;
        Some(self.database_mut(to).store(epoch, &source.log[..length], block))
    }
}
