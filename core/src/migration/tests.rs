#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::block::{BlockHash, Serial};
use crate::domain::{CommitId, MigrationId, SideId};
use crate::error::ErrorKind;
use crate::position::{Epoch, Position};

const SOURCE: SideId = SideId::from_bytes([1; 16]);
const TARGET: SideId = SideId::from_bytes([2; 16]);

fn membership(part: Part) -> Option<Membership> {
    let migration = MigrationId::from_bytes([7; 16]);
    let peer = if part == Part::Source { TARGET } else { SOURCE };
    Some(Membership { migration, peer, part })
}

/// A side of the migration that has come this far.
fn seen(part: Part, (role, epoch): (Role, u64), commits: u8) -> Seen {
    Seen {
        side: if part == Part::Source { SOURCE } else { TARGET },
        place: Place {
            position: Position::new(commits.into()),
            commit: CommitId::from_bytes([commits; 16]),
            serial: Serial::new(commits.into()),
            hash: BlockHash::from_bytes([commits; 32]),
        },
        record: Record { epoch: Epoch::new(epoch), role, membership: membership(part) },
    }
}

/// What is to be done, in words.
fn told(source: Seen, target: Seen, event: Event) -> String {
    let name = |which| if which == Which::First { "S" } else { "T" };
    let pair = Pair { first: Some(source), second: Some(target) };
    match step(&pair, event) {
        Step::Write(writes) => {
            let told = |write: &Write| {
                let (record, side) = (write.after, name(write.to));
                let left = if record.membership.is_none() { ", released" } else { "" };
                format!("{side} {} {}{left}", record.role, record.epoch)
            };
            writes.iter().map(told).collect::<Vec<_>>().join("; ")
        }
        Step::Ship { from } => format!("ship from {}", name(from)),
        Step::Fill { from } => format!("fill from {}", name(from)),
        Step::Renew { superseded } => format!("renew {}", name(superseded)),
        Step::Serve(Service::Alone { authority }) => format!("serve {}", name(authority)),
        Step::Serve(Service::Both { authority }) => format!("serve both, {}", name(authority)),
        Step::Refuse(refusal) => refusal.error().kind().name().to_owned(),
    }
}

/// What one record says of the stage, while nobody has seen the other one.
#[test]
fn a_side_alone_does_not_know_how_complete_the_copy_is() {
    use Role::{ActiveAlone, ActiveAsync, ActiveSync};
    for part in [Part::Source, Part::Target] {
        for role in [ActiveAlone, ActiveAsync, ActiveSync] {
            let first = Some(seen(part, (role, 1), 1));
            assert_eq!(Stage::of(&Pair { first, second: None }), Stage::Unknown, "{part:?} {role}");
        }
    }
    let mut left = seen(Part::Target, (ActiveAlone, 1), 1);
    left.record = left.record.released();
    assert_eq!(Stage::of(&Pair { first: Some(left), second: None }), Stage::SourceOnly);
}

/// One row for each pair of records that a crash, or the loss of a side, can leave.
#[test]
fn whoever_opens_both_sides_knows_what_comes_next() {
    use Role::*;
    for (source, target, next) in [
        ((ActiveAsync, 1), (Filling, 1), "fill from S"),
        ((ActiveAsync, 1), (PassiveAsync, 1), "serve S"),
        ((ActiveSync, 1), (PassiveAsync, 1), "T passive(sync) 1"),
        ((ActiveSync, 1), (PassiveSync, 1), "serve both, S"),
        ((ActiveSync, 1), (Retired, 1), "S active(alone) 1, released"),
        ((Fenced, 1), (PassiveAsync, 1), "T active(sync) 2; S passive(async) 2"),
        ((Fenced, 1), (PassiveSync, 1), "T active(sync) 2; S passive(async) 2"),
        ((Fenced, 1), (PassiveAsync, 3), "S active(async) 3"),
        ((Fenced, 1), (ActiveSync, 2), "S passive(async) 2"),
        ((PassiveAsync, 2), (ActiveSync, 2), "S passive(sync) 2"),
        ((PassiveSync, 2), (ActiveSync, 2), "serve both, T"),
        ((ActiveSync, 1), (ActiveAlone, 2), "renew S"),
        // An operator had the follower go on.
        ((ActiveAsync, 1), (ActiveAlone, 2), "renew S"),
        ((ActiveAlone, 2), (PassiveSync, 1), "renew T"),
        // It fell too far behind.
        ((ActiveAlone, 2), (Filling, 1), "renew T"),
        ((ActiveAlone, 2), (PassiveAsync, 1), "renew T"),
        ((Fenced, 1), (ActiveAlone, 3), "renew S"),
        ((Retired, 2), (ActiveAlone, 2), "T active(alone) 2, released"),
        ((Retired, 1), (ActiveAlone, 2), "T active(alone) 2, released"),
        // Nobody's doing but an operator's.
        ((ActiveAlone, 1), (ActiveAlone, 1), "corrupt"),
        ((ActiveAsync, 1), (ActiveSync, 2), "corrupt"),
        ((ActiveAsync, 1), (PassiveSync, 1), "restricted"),
        ((Fenced, 1), (Fenced, 1), "restricted"),
        ((PassiveAsync, 1), (PassiveAsync, 1), "restricted"),
        ((ActiveAsync, 1), (PassiveAsync, 2), "restricted"),
    ] {
        let (source, target) = (seen(Part::Source, source, 5), seen(Part::Target, target, 5));
        let found = told(source, target, Event::Resume);
        assert_eq!(found, next, "{} and {}", source.record, target.record);
    }
}

#[test]
fn a_start_or_an_abort_that_was_cut_is_ended() {
    let source = seen(Part::Source, (Role::ActiveAsync, 0), 5);
    let blank = Record { epoch: Epoch::ZERO, role: Role::None, membership: None };
    let blank = Seen { record: blank, ..seen(Part::Target, (Role::None, 0), 0) };
    assert_eq!(told(source, blank, Event::Resume), "T filling 0");
    assert_eq!(told(source, blank, Event::Abort), "S active(alone) 0, released");
    let released = Seen { record: source.record.released(), ..source };
    assert_eq!(told(released, blank, Event::Resume), "serve S");
    let start = Event::Start(MigrationId::from_bytes([7; 16]));
    assert_eq!(told(released, blank, start), "S active(async) 0; T filling 0");
    for left in [Role::Filling, Role::PassiveAsync] {
        let left = seen(Part::Target, (left, 0), 3);
        assert_eq!(told(released, left, Event::Resume), "T none 0");
        let given_up = Seen { record: left.record.with(Role::None), ..left };
        assert_eq!(told(released, given_up, Event::Resume), "serve S");
        assert_eq!(told(released, given_up, start), "restricted");
    }
    // An operator had the source go on without a target that was served, and then aborted the migration.
    let alone = Record { epoch: Epoch::new(1), ..released.record };
    let left = seen(Part::Target, (Role::ActiveAsync, 0), 3);
    assert_eq!(told(Seen { record: alone, ..released }, left, Event::Resume), "T none 0");
    let alone = seen(Part::Source, (Role::ActiveAlone, 1), 5);
    assert_eq!(told(alone, left, Event::Abort), "S active(alone) 1, released");
}

#[test]
fn heads_that_differ_are_brought_to_one_place_or_refused() {
    use Role::*;
    for (source, target, commits, next) in [
        ((ActiveSync, 1), (PassiveSync, 1), (5, 4), "ship from S"),
        // It was answered by nobody, but cannot be taken back.
        ((ActiveSync, 1), (PassiveSync, 1), (4, 5), "ship from T"),
        ((ActiveSync, 1), (PassiveSync, 1), (5, 3), "corrupt"),
        ((ActiveSync, 1), (PassiveSync, 1), (3, 5), "corrupt"),
        ((ActiveSync, 1), (PassiveAsync, 1), (9, 3), "ship from S"),
        ((Fenced, 1), (PassiveAsync, 1), (9, 3), "ship from S"),
        ((Fenced, 1), (PassiveAsync, 1), (3, 4), "corrupt"),
    ] {
        let sides = (seen(Part::Source, source, commits.0), seen(Part::Target, target, commits.1));
        assert_eq!(told(sides.0, sides.1, Event::Resume), next, "{source:?} {target:?}");
    }
    // A follower that has more, or something else, is handed nothing over.
    for (commits, next) in [(4, "S fenced 1"), (5, "S fenced 1"), (6, "corrupt")] {
        let source = seen(Part::Source, (ActiveAsync, 1), 5);
        let target = seen(Part::Target, (PassiveAsync, 1), commits);
        assert_eq!(told(source, target, Event::HandOver), next, "{commits}");
    }
    let source = seen(Part::Source, (ActiveSync, 1), 5);
    let target = seen(Part::Target, (PassiveSync, 1), 5);
    let place = Place { commit: CommitId::from_bytes([9; 16]), ..target.place };
    assert_eq!(told(source, Seen { place, ..target }, Event::Resume), "corrupt");
}

#[test]
fn what_is_asked_for_at_another_stage_is_refused() {
    use Role::*;
    let sides = |source, target| (seen(Part::Source, source, 5), seen(Part::Target, target, 5));
    for ((source, target), event, next) in [
        (sides((ActiveAsync, 1), (Filling, 1)), Event::HandOver, "restricted"),
        (sides((ActiveAsync, 1), (Filling, 1)), Event::Tighten, "restricted"),
        (sides((ActiveAsync, 1), (Filling, 1)), Event::Filled, "T passive(async) 1"),
        (
            sides((ActiveAsync, 1), (PassiveAsync, 1)),
            Event::Tighten,
            "S active(sync) 1; T passive(sync) 1",
        ),
        (sides((ActiveAsync, 1), (PassiveAsync, 1)), Event::HandOver, "S fenced 1"),
        (sides((ActiveAsync, 1), (PassiveAsync, 1)), Event::Complete, "restricted"),
        (
            sides((ActiveSync, 1), (PassiveSync, 1)),
            Event::Loosen,
            "T passive(async) 1; S active(async) 1",
        ),
        // It would end the way back before the target was ever written.
        (sides((ActiveSync, 1), (PassiveSync, 1)), Event::Complete, "restricted"),
        (
            sides((PassiveSync, 2), (ActiveSync, 2)),
            Event::Complete,
            "S retired 2; T active(alone) 2, released",
        ),
        (sides((PassiveAsync, 2), (ActiveAsync, 2)), Event::Abort, "restricted"),
        (
            sides((Fenced, 1), (PassiveAsync, 1)),
            Event::Undo,
            "T passive(async) 3; S active(async) 3",
        ),
        (sides((Fenced, 1), (ActiveSync, 2)), Event::Undo, "S passive(async) 2"),
        (sides((ActiveAsync, 1), (Filling, 1)), Event::Resync, "S active(alone) 2"),
        (sides((ActiveAsync, 1), (PassiveAsync, 1)), Event::Resync, "S active(alone) 2"),
        // It has everything.
        (sides((ActiveSync, 1), (PassiveSync, 1)), Event::Resync, "restricted"),
    ] {
        assert_eq!(told(source, target, event), next, "{event:?} at {}", source.record);
    }
}

#[test]
fn sides_of_different_migrations_are_strangers() {
    let source = seen(Part::Source, (Role::ActiveAsync, 1), 5);
    let target = seen(Part::Target, (Role::PassiveAsync, 1), 5);
    let other = Membership {
        migration: MigrationId::from_bytes([8; 16]),
        ..membership(Part::Target).unwrap()
    };
    let record = Record { membership: Some(other), ..target.record };
    let error = match step(
        &Pair { first: Some(source), second: Some(Seen { record, ..target }) },
        Event::Resume,
    ) {
        Step::Refuse(refusal) => refusal.error(),
        other => panic!("{other:?}"),
    };
    for told in ["side=", "other=", &TARGET.to_string(), &SOURCE.to_string()] {
        assert!(error.to_string().contains(told), "{error}");
    }
    // The same database twice, and a copy of its file.
    assert_eq!(told(source, source, Event::Resume), "corrupt");
}

/// The table of what can be done by whoever sees one side only.
#[test]
fn one_side_alone_is_written_only_if_nobody_else_could_be() {
    let alone = |role, event| {
        let first = Some(seen(Part::Source, (role, 1), 5));
        step(&Pair { first, second: None }, event)
    };
    let refused = |role, event| match alone(role, event) {
        Step::Refuse(refusal) => refusal.error().kind().clone(),
        other => panic!("{role}: {other:?}"),
    };
    for role in [Role::ActiveAlone, Role::ActiveAsync] {
        let served = Step::Serve(Service::Alone { authority: Which::First });
        assert_eq!(alone(role, Event::Resume), served);
        assert_eq!(refused(role, Event::Lost(Grounds::Operator)), ErrorKind::Restricted);
    }
    for role in [Role::ActiveSync, Role::PassiveSync] {
        assert_eq!(refused(role, Event::Resume), ErrorKind::Unavailable);
        for grounds in [Grounds::InSync, Grounds::Operator, Grounds::Granted(Epoch::new(2))] {
            let Step::Write(writes) = alone(role, Event::Lost(grounds)) else { panic!("{role}") };
            let after = writes.first().unwrap().after;
            assert_eq!((after.role, after.epoch), (Role::ActiveAlone, Epoch::new(2)));
        }
        // A grant for another epoch is none for this.
        let other = Event::Lost(Grounds::Granted(Epoch::new(3)));
        assert_eq!(refused(role, other), ErrorKind::Restricted);
    }
    for role in [Role::PassiveAsync, Role::Fenced] {
        assert_eq!(refused(role, Event::Resume), ErrorKind::Unavailable);
    }
    for role in [Role::None, Role::Filling, Role::Retired] {
        assert_eq!(refused(role, Event::Resume), ErrorKind::Restricted);
    }
}
