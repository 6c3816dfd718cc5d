//! The next durable writes, from what is seen of both sides.

use super::record::{Membership, Part, Record, Role};
use super::refusal::Refusal;
use crate::backend::Head;
use crate::block::{BlockHash, Serial};
use crate::domain::{CommitId, MigrationId, SideId};
use crate::position::{Epoch, Position};

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The first.
    First,
    /// The second.
    Second,
}

impl Which {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// How far a side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// How many commits there were.
    pub position: Position,
    /// The last one's id.
    pub commit: CommitId,
    /// The last block's serial.
    pub serial: Serial,
    /// Its hash.
    pub hash: BlockHash,
}

/// What is seen of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Which database.
    pub side: SideId,
    /// Where it stands.
    pub place: Place,
    /// What it says of itself.
    pub record: Record,
}

impl Seen {
    /// What a head says.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        let Head { position, commit, serial, hash, .. } = *head;
        let place = Place { position, commit, serial, hash };
        Self { side: head.side, place, record: head.record() }
    }

    fn role(&self) -> Role {
        self.record.role
    }

    fn is_of_migration(&self) -> bool {
        self.record.membership.is_some()
    }

    /// Whether it says that `other` is the other end of its migration.
    fn names(&self, other: &Self) -> bool {
        self.record.membership.is_some_and(|membership| membership.peer == other.side)
    }

    pub(super) fn is_target(&self) -> bool {
        self.record.membership.is_some_and(|membership| membership.part == Part::Target)
    }

    pub(super) fn is_blank(&self) -> bool {
        self.role() == Role::None
            && !self.is_of_migration()
            && self.place.position == Position::ZERO
    }
}

/// What is seen of both; `None` of a side that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// One.
    pub first: Option<Seen>,
    /// The other one.
    pub second: Option<Seen>,
}

impl Pair {
    /// One of the two.
    #[must_use]
    pub fn get(&self, which: Which) -> Option<Seen> {
        match which {
            Which::First => self.first,
            Which::Second => self.second,
        }
    }
}

/// What is wanted, or has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Nothing: what was begun is to be ended, and what can be served is to be served.
    Resume,
    /// An empty side is to become a copy of the other.
    Start(MigrationId),
    /// An empty side is to become a copy in place of the one that was lost.
    Refill,
    /// The copy is complete.
    Filled,
    /// What is answered is to be on both sides.
    Tighten,
    /// It is to be on the authority at least.
    Loosen,
    /// The follower is to be written, and the authority to follow.
    HandOver,
    /// A hand-over that was begun is to be taken back.
    Undo,
    /// The side that follows is given up, for good.
    Complete,
    /// The migration is aborted.
    Abort,
    /// The follower fell so far behind that the authority no longer keeps what it lacks: it is to be copied anew.
    Resync,
    /// The other side is lost, and this one is to go on without it.
    Lost(Grounds),
}

/// By what right one side goes on without the other. If both could, there would be two writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grounds {
    /// This process holds both, and was in sync with both when the other one failed. Where there is a
    /// witness these are no grounds: another process may ask it.
    InSync,
    /// A witness, which grants each epoch to one side only, granted this one.
    Granted(Epoch),
    /// An operator says that the other side is down and will not be written.
    Operator,
}

/// A durable write of a record. It is stored only if record and place are as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Write {
    /// Where.
    pub to: Which,
    /// What must be seen there.
    pub before: Seen,
    /// What is to stand there.
    pub after: Record,
}

/// Who is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Commits go to one side; to the other, if it follows, they are sent later.
    Alone {
        /// Which.
        authority: Which,
    },
    /// Commits go to both.
    Both {
        /// Which one is the authority.
        authority: Which,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write these, one after the other, each once the one before is known to be stored; nothing is
    /// answered meanwhile. Then, or if the outcome of one is not known, look again.
    Write(Vec<Write>),
    /// The other side lacks commits of this one: send them, and look again. Nobody is served meanwhile.
    Ship {
        /// Which one has them.
        from: Which,
    },
    /// The other side is filled from this one, which serves meanwhile.
    Fill {
        /// Which one is copied.
        from: Which,
    },
    /// This side was superseded while it was away, or fell too far behind: an empty one is to take its place, to be
    /// [refilled](Event::Refill). What it has is set aside, since it may have commits that the other side lacks; if
    /// an operator had that one go on, they may have been answered. The other side serves meanwhile.
    Renew {
        /// Which one was superseded.
        superseded: Which,
    },
    /// Nothing is left to be done.
    Serve(Service),
    /// Nothing can be done.
    Refuse(Refusal),
}

/// The next step towards what is wanted. A step that was interrupted is found again by its records.
#[must_use]
pub fn step(pair: &Pair, event: Event) -> Step {
    match (pair.first, pair.second) {
        (Some(first), Some(second)) => both(first, second, event),
        (Some(seen), None) => one((Which::First, seen), event),
        (None, Some(seen)) => one((Which::Second, seen), event),
        (None, None) => Step::Refuse(Refusal::NobodyThere),
    }
}

type Side = (Which, Seen);

fn write((to, before): Side, after: Record) -> Write {
    Write { to, before, after }
}

fn role(side: Side, role: Role) -> Write {
    write(side, side.1.record.with(role))
}

fn serve(authority: Which) -> Step {
    Step::Serve(Service::Alone { authority })
}

/// The other side does not answer.
fn one(a: Side, event: Event) -> Step {
    let (which, seen) = a;
    match (seen.role(), event) {
        (role, Event::Lost(grounds)) => {
            let next = seen.record.epoch.next();
            let may = match (role, grounds) {
                (Role::ActiveSync | Role::PassiveSync, Grounds::Granted(epoch)) => epoch == next,
                (Role::ActiveSync | Role::PassiveSync, Grounds::InSync) => true,
                // What a follower lacks the operator was told of.
                (role, Grounds::Operator) => {
                    matches!(role, Role::ActiveSync | Role::PassiveSync | Role::PassiveAsync)
                }
                _ => false,
            };
            match may {
                true => {
                    Step::Write(vec![write(a, seen.record.from_epoch(next, Role::ActiveAlone))])
                }
                false => Step::Refuse(Refusal::NoGrounds(seen)),
            }
        }
        (Role::ActiveAlone | Role::ActiveAsync, Event::Abort) if seen.is_of_migration() => {
            match seen.is_target() {
                true => Step::Refuse(Refusal::NoWayBack),
                false => Step::Write(vec![write(a, seen.record.released())]),
            }
        }
        // There is no way back in any case, so the other one need not be told.
        (Role::ActiveAlone | Role::ActiveAsync, Event::Complete) if seen.is_target() => {
            Step::Write(vec![write(a, seen.record.released())])
        }
        (role, Event::Resume) if role.serves_alone() => serve(which),
        (role, _) if role.serves_alone() => Step::Refuse(Refusal::NeedsOther(seen)),
        (Role::ActiveSync | Role::PassiveSync | Role::PassiveAsync | Role::Fenced, _) => {
            Step::Refuse(Refusal::NeedsOther(seen))
        }
        _ => Step::Refuse(Refusal::NoStore(seen)),
    }
}

fn both(first: Seen, second: Seen, event: Event) -> Step {
    let (a, b) = ((Which::First, first), (Which::Second, second));
    if let Some(step) = ordered(a, b, event).or_else(|| ordered(b, a, event)) {
        return step;
    }
    Step::Refuse(match first.role().is_active() && second.role().is_active() {
        true => Refusal::Diverged(first, second),
        false => Refusal::Strangers(first, second),
    })
}

/// The step for a pair whose first side has, or had last, the right to write; `None` if it is none.
fn ordered(a: Side, b: Side, event: Event) -> Option<Step> {
    let ((wa, sa), (_, sb)) = (a, b);
    if sa.side == sb.side {
        return None;
    }
    let (ea, eb) = (sa.record.epoch, sb.record.epoch);
    let (same, older) = (ea == eb, eb < ea);
    let wed = sa.names(&sb)
        && sb.names(&sa)
        && sa.record.membership.map(|it| it.migration)
            == sb.record.membership.map(|it| it.migration);
    let not_now = || Step::Refuse(Refusal::NotNow(sa, sb));
    let release = || write(a, sa.record.released());
    Some(match (sa.role(), sb.role()) {
        // The source or the target alone.
        (Role::ActiveAlone, Role::None | Role::Retired) => match event {
            // It was left, and the other one could not be told that it is the only one.
            Event::Resume if sb.role() == Role::Retired && wed && sa.is_target() => {
                Step::Write(vec![release()])
            }
            Event::Start(migration) if !sa.is_of_migration() => start(a, b, migration),
            Event::Refill if sa.is_of_migration() => refill(a, b),
            Event::Abort if sa.is_of_migration() && !sa.is_target() => Step::Write(vec![release()]),
            Event::Complete if sa.is_target() => Step::Write(vec![release()]),
            Event::Resume => serve(wa),
            _ => not_now(),
        },
        // Aborted, and the target does not know it yet.
        (
            Role::ActiveAlone,
            Role::Filling
            | Role::PassiveAsync
            | Role::PassiveSync
            | Role::ActiveAsync
            | Role::ActiveSync
            | Role::Fenced,
        ) if !sa.is_of_migration()
            && sb.names(&sa)
            && (older
                || same
                    && matches!(
                        sb.role(),
                        Role::Filling | Role::PassiveAsync | Role::PassiveSync
                    )) =>
        {
            Step::Write(vec![role(b, Role::None)])
        }
        // One that was lost came back, or fell too far behind.
        (
            Role::ActiveAlone,
            Role::Filling
            | Role::PassiveAsync
            | Role::PassiveSync
            | Role::ActiveAsync
            | Role::ActiveSync
            | Role::Fenced,
        ) if wed && older => match event {
            Event::Abort if !sa.is_target() => Step::Write(vec![release()]),
            _ => Step::Renew { superseded: wa.other() },
        },
        // The start was interrupted.
        (Role::ActiveAsync, Role::None) if sa.names(&sb) => match event {
            Event::Abort if !sa.is_target() => Step::Write(vec![release()]),
            _ if sb.is_blank() => Step::Write(vec![filling(a, b)]),
            _ => Step::Refuse(Refusal::NotEmpty(sb)),
        },
        (Role::ActiveAsync, Role::Filling) if wed && same => match event {
            Event::Abort => abort(a, b),
            Event::Filled => Step::Write(vec![role(b, Role::PassiveAsync)]),
            Event::Resync => resync(a),
            Event::Resume => Step::Fill { from: wa },
            _ => not_now(),
        },
        (Role::ActiveAsync, Role::PassiveAsync) if wed && same => match event {
            Event::Abort => abort(a, b),
            Event::Resync => match level(a, b, Ahead::OfFollower) {
                Some(Step::Refuse(refusal)) => Step::Refuse(refusal),
                _ => resync(a),
            },
            Event::Tighten => level(a, b, Ahead::OfFollower).unwrap_or_else(|| {
                Step::Write(vec![role(a, Role::ActiveSync), role(b, Role::PassiveSync)])
            }),
            // What it lacks it is sent after the fence.
            Event::HandOver => match level(a, b, Ahead::OfFollower) {
                Some(Step::Refuse(refusal)) => Step::Refuse(refusal),
                _ => Step::Write(vec![role(a, Role::Fenced)]),
            },
            Event::Resume => serve(wa),
            _ => not_now(),
        },
        // Tightening or loosening was interrupted: tightened, unless it is to be loosened.
        (Role::ActiveSync, Role::PassiveAsync) if wed && same => match event {
            Event::Loosen if sb.place.position <= sa.place.position => {
                Step::Write(vec![role(a, Role::ActiveAsync)])
            }
            _ => level(a, b, Ahead::OfEither)
                .unwrap_or_else(|| Step::Write(vec![role(b, Role::PassiveSync)])),
        },
        (Role::ActiveSync, Role::PassiveSync) if wed && same => {
            if let Some(step) = level(a, b, Ahead::ByOne) {
                return Some(step);
            }
            match event {
                Event::Loosen => {
                    Step::Write(vec![role(b, Role::PassiveAsync), role(a, Role::ActiveAsync)])
                }
                Event::HandOver => Step::Write(vec![role(a, Role::Fenced)]),
                Event::Complete if sa.is_target() => {
                    Step::Write(vec![role(b, Role::Retired), release()])
                }
                Event::Resume => Step::Serve(Service::Both { authority: wa }),
                _ => not_now(),
            }
        }
        (Role::ActiveSync, Role::Retired) if wed && same => Step::Write(vec![release()]),
        // A hand-over was begun. Whichever of 'activate' and 'undone' comes first decides.
        (Role::Fenced, Role::PassiveAsync | Role::PassiveSync) if wed && same => match event {
            Event::Undo => {
                let next = ea.next().next();
                Step::Write(vec![
                    write(b, sb.record.from_epoch(next, Role::PassiveAsync)),
                    write(a, sa.record.from_epoch(next, Role::ActiveAsync)),
                ])
            }
            _ => level(a, b, Ahead::OfFollower).unwrap_or_else(|| {
                let next = ea.next();
                Step::Write(vec![
                    write(b, sb.record.from_epoch(next, Role::ActiveSync)),
                    write(a, sa.record.from_epoch(next, Role::PassiveAsync)),
                ])
            }),
        },
        (Role::Fenced, Role::PassiveAsync) if wed && eb == ea.next().next() => {
            Step::Write(vec![write(a, sa.record.from_epoch(eb, Role::ActiveAsync))])
        }
        (Role::Fenced, Role::ActiveSync) if wed && eb == ea.next() => {
            Step::Write(vec![write(a, sa.record.from_epoch(eb, Role::PassiveAsync))])
        }
        _ => return None,
    })
}

fn start(a: Side, b: Side, migration: MigrationId) -> Step {
    let (sa, sb) = (a.1, b.1);
    if !sb.is_blank() {
        return Step::Refuse(Refusal::NotEmpty(sb));
    }
    let membership = Some(Membership { migration, peer: sb.side, part: Part::Source });
    let active = Record { role: Role::ActiveAsync, membership, ..sa.record };
    let begun = (a.0, Seen { record: active, ..sa });
    Step::Write(vec![write(a, active), filling(begun, b)])
}

/// The part in the migration stays; the peer is another database.
fn refill(a: Side, b: Side) -> Step {
    let (sa, sb) = (a.1, b.1);
    if !sb.is_blank() {
        return Step::Refuse(Refusal::NotEmpty(sb));
    }
    let membership = sa.record.membership.map(|it| Membership { peer: sb.side, ..it });
    let active = Record { role: Role::ActiveAsync, membership, ..sa.record };
    let begun = (a.0, Seen { record: active, ..sa });
    Step::Write(vec![write(a, active), filling(begun, b)])
}

/// The authority goes on alone in an epoch of its own, as if its follower were lost.
fn resync(a: Side) -> Step {
    let record = a.1.record;
    Step::Write(vec![write(a, record.from_epoch(record.epoch.next(), Role::ActiveAlone))])
}

/// Has an empty side become a copy of the one that names it.
fn filling(a: Side, b: Side) -> Write {
    let of_peer = |it: Membership| Membership { peer: a.1.side, part: it.part.other(), ..it };
    let membership = a.1.record.membership.map(of_peer);
    write(b, Record { epoch: a.1.record.epoch, role: Role::Filling, membership })
}

/// The authority first: the other way round it would look like a start that was interrupted.
fn abort(a: Side, b: Side) -> Step {
    if a.1.is_target() {
        return Step::Refuse(Refusal::NoWayBack);
    }
    Step::Write(vec![write(a, a.1.record.released()), role(b, Role::None)])
}

/// Which side may have what the other one lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// The follower lacks any number of commits.
    OfFollower,
    /// Also the authority may lack one, which the follower was sent at the same time.
    OfEither,
    /// Either lacks one at most.
    ByOne,
}

/// What brings both sides to one place; `None` if they are there.
fn level((wa, a): Side, (wb, b): Side, ahead: Ahead) -> Option<Step> {
    let (pa, pb) = (a.place.position.get(), b.place.position.get());
    let forked = || Some(Step::Refuse(Refusal::Forked(a.place, b.place)));
    match pa.cmp(&pb) {
        std::cmp::Ordering::Equal if a.place == b.place => None,
        std::cmp::Ordering::Equal => forked(),
        std::cmp::Ordering::Greater if ahead == Ahead::ByOne && pa - pb > 1 => forked(),
        std::cmp::Ordering::Greater => Some(Step::Ship { from: wa }),
        std::cmp::Ordering::Less if ahead == Ahead::OfFollower || pb - pa > 1 => forked(),
        std::cmp::Ordering::Less => Some(Step::Ship { from: wb }),
    }
}
