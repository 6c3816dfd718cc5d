//! The checks can fail.

use ghostwire_store_core::view::View;
use ghostwire_store_memory::MemoryBackend;

use super::Harness;
use super::checker::{Entry, Model, check};
use super::log::{Log, Outcome};
use super::models::*;
use super::subjects::{Caller, Subject, UserRecord, record_of};
use crate::prelude::*;

/// A call from one moment to another.
fn entry<C, A>(began: u64, ended: u64, call: C, answer: A) -> Entry<C, A> {
    Entry { call, answer: Some(answer), began, ended }
}

fn update(expected: u64, value: u32) -> VersionedCall<1> {
    VersionedCall::Write { expected: [expected], values: [value] }
}

fn is_linearizable<M: Model + Default>(history: Vec<Entry<M::Call, M::Answer>>) -> bool {
    check(&M::default(), &history).is_ok()
}

#[test]
fn a_stale_read_is_found() {
    let history = |read| {
        vec![
            entry(0, 1, update(1, 7), Some([(2, 7)])),
            entry(2, 3, VersionedCall::Read, Some([(2, 7)])),
            entry(4, 5, VersionedCall::Read, read),
        ]
    };
    assert!(is_linearizable::<Record>(history(Some([(2, 7)]))));
    assert!(!is_linearizable::<Record>(history(Some([(1, 0)]))));
    let failure = check(&Record::default(), &history(Some([(1, 0)]))).unwrap_err();
    assert_eq!((failure.order, failure.state, failure.stuck), (vec![0, 1], [(2, 7)], 2));
}

#[test]
fn what_overlaps_may_be_seen_before_or_after_but_not_both_ways() {
    let history = |reads: [(u64, u32); 2]| {
        vec![
            entry(0, 9, update(1, 7), Some([(2, 7)])),
            entry(1, 2, VersionedCall::Read, Some([reads[0]])),
            entry(3, 4, VersionedCall::Read, Some([reads[1]])),
        ]
    };
    let (before, after) = ((1, 0), (2, 7));
    for reads in [[before, before], [before, after], [after, after]] {
        assert!(is_linearizable::<Record>(history(reads)));
    }
    assert!(!is_linearizable::<Record>(history([after, before])));
}

#[test]
fn a_lost_update_is_found() {
    // Both build on the first revision, and both are told that they did.
    let history =
        |second| vec![entry(0, 3, update(1, 7), Some([(2, 7)])), entry(1, 2, update(1, 8), second)];
    assert!(is_linearizable::<Record>(history(None)));
    assert!(!is_linearizable::<Record>(history(Some([(2, 8)]))));
    assert!(!is_linearizable::<Record>(history(Some([(3, 8)]))));
}

#[test]
fn a_key_that_admits_two_is_found() {
    let history = |second| {
        vec![
            entry(0, 3, KeyCall::Register(1), KeyAnswer::Admitted),
            entry(1, 2, KeyCall::Register(2), second),
            entry(4, 5, KeyCall::Register(1), KeyAnswer::Admitted),
        ]
    };
    assert!(is_linearizable::<OneTimeKey>(history(KeyAnswer::Refused)));
    assert!(!is_linearizable::<OneTimeKey>(history(KeyAnswer::Admitted)));
}

#[test]
fn a_torn_view_of_a_transaction_is_found() {
    let moved = VersionedCall::Write { expected: [1, 1], values: [5, 6] };
    let history = |seen| {
        vec![
            entry(0, 3, moved, Some([(2, 5), (2, 6)])),
            entry(1, 2, VersionedCall::Read, Some(seen)),
        ]
    };
    assert!(is_linearizable::<Owners>(history([(1, 0), (1, 0)])));
    assert!(is_linearizable::<Owners>(history([(2, 5), (2, 6)])));
    assert!(!is_linearizable::<Owners>(history([(2, 5), (1, 0)])));
}

#[test]
fn a_primary_that_is_offline_is_found() {
    let connect = |node| entry(0, 1, RouterCall::Connect(node, 1), RouterAnswer::Presence(1, true));
    let seen = |primary| Online { nodes: [(0, false), (1, true), (0, false)], primary };
    let look = |primary| entry(2, 3, RouterCall::Look, RouterAnswer::Is(seen(primary)));
    assert!(is_linearizable::<Routers>(vec![connect(1), look(Some(1))]));
    assert!(!is_linearizable::<Routers>(vec![connect(1), look(Some(0))]));
    assert!(!is_linearizable::<Routers>(vec![connect(1), look(None)]));
}

#[test]
fn what_nobody_heard_of_may_have_happened_late_or_never_but_not_in_between() {
    let history = |reads: [(u64, u32); 3]| {
        let open = Entry { call: update(1, 7), answer: None, began: 0, ended: 1 };
        let read = |(index, read)| {
            let began = 10 + 2 * index as u64;
            entry(began, began + 1, VersionedCall::Read, Some([read]))
        };
        std::iter::once(open).chain(reads.into_iter().enumerate().map(read)).collect::<Vec<_>>()
    };
    let (before, after) = ((1, 0), (2, 7));
    for reads in [[before; 3], [before, before, after], [after; 3]] {
        assert!(is_linearizable::<Record>(history(reads)));
    }
    assert!(!is_linearizable::<Record>(history([before, after, before])));
}

#[test]
fn a_point_that_comes_back_is_found() {
    let history = |last| {
        vec![
            Entry { call: PointCall::Record(5), answer: None, began: 0, ended: 1 },
            Entry { call: PointCall::Record(6), answer: None, began: 0, ended: 1 },
            entry(2, 3, PointCall::Read, 5),
            entry(4, 5, PointCall::Record(7), 7),
            entry(6, 7, PointCall::Read, last),
        ]
    };
    for last in [6, 7] {
        assert!(is_linearizable::<Point>(history(last)));
    }
    assert!(!is_linearizable::<Point>(history(5)));
    assert!(!is_linearizable::<Point>(history(0)));
}

#[test]
fn a_line_that_is_read_before_its_user_is_there_is_found() {
    let history = |there| {
        vec![
            entry(0, 9, TrailCall::Create(3), true),
            entry(1, 2, TrailCall::ReadLine(3), true),
            entry(3, 4, TrailCall::Get(3), there),
        ]
    };
    assert!(is_linearizable::<Trail>(history(true)));
    assert!(!is_linearizable::<Trail>(history(false)));
}

async fn harness() -> Harness {
    let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([7; 16])));
    let store = ghostwire_store_core::open(backend, StoreOptions::default()).await.unwrap();
    Harness::new(vec![store], 1)
}

async fn user(harness: &Harness, name: &str) -> UserRecord {
    UserRecord(crate::fixtures::user(&harness.stores[0], name).await)
}

/// Calls as it should, but now and then it reads a view of long ago.
struct LongAgo(UserRecord, View);

#[async_trait]
impl Subject for LongAgo {
    type Model = Record;

    async fn act(&self, store: &Opened, rng: &Rng, caller: Caller, log: &Log<Record>) {
        if rng.one_in(20) {
            let user = self.1.users().get(self.0.0).map(|user| [record_of(user)]);
            return log.call(VersionedCall::Read, async { Outcome::Answered(user) }).await;
        }
        self.0.act(store, rng, caller, log).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_shows_old_views_is_found() {
    let harness = harness().await;
    let [alice, bob] = [user(&harness, "alice").await, user(&harness, "bob").await];
    assert_eq!(harness.run(alice, 40).await, Ok(320));
    let view = harness.stores[0].view();
    let why = harness.run(LongAgo(bob, view), 40).await.unwrap_err();
    assert!(why.contains("no order explains"), "{why}");
}
