//! The comparison can fail.

use super::calls::{done, perform};
use super::child::at;
use super::import::scratch_store;
use super::oracle::Oracle;
use super::protocol::{Message, Op};
use super::recovered::Recovered;
use crate::fixtures::{self};
use crate::prelude::*;

fn user(number: u8) -> Op {
    let name = format!("user-{number}").parse().unwrap();
    let id = UserId::from_bytes([number; 16]);
    Op::Write(UserCommand::Create { id, user: NewUser::local(name) }.into())
}

fn record(number: u8) -> Command {
    let record = fixtures::record(&format!("host-{number}.example.com"), "192.0.2.1");
    DnsCommand::Create { id: DnsRecordId::from_bytes([number; 16]), record }.into()
}

fn points() -> Vec<MetricPoint> {
    ["one", "two"].map(|name| point(None, name, at(0), 1.0)).into()
}

fn intent(op: Op) -> Message {
    Message::Intent { caller: 1, op }
}

/// Calls, and gives what a process would have said of it.
async fn call(store: &Opened, op: Op) -> [Message; 2] {
    perform(store, &op).await.unwrap();
    let done = Message::Done { caller: 1, done: done(&op, &store.view()) };
    [intent(op), done]
}

async fn compare(said: impl IntoIterator<Item = Message>, store: &Opened) -> Oracle {
    let found = Recovered::of(store).await;
    let mut oracle = Oracle::default();
    oracle.learn(said.into_iter().collect(), 0, &found);
    oracle.check(&found);
    oracle
}

#[tokio::test]
async fn what_is_as_it_was_said_passes() {
    let store = scratch_store().await;
    let mut said: Vec<_> = call(&store, user(1)).await.into();
    said.extend(call(&store, Op::Record(points())).await);
    said.extend(call(&store, Op::Transact(vec![record(1), record(2)])).await);
    let oracle = compare(said.clone(), &store).await;
    assert_eq!((oracle.acknowledged, oracle.doubts), (3, [0, 0]));
    // It did not live to hear of the last one; or it is about to ask for more.
    said.pop();
    let oracle = compare(said, &store).await;
    assert_eq!((oracle.acknowledged, oracle.doubts), (2, [1, 0]));
    let oracle = compare([intent(user(1))], &scratch_store().await).await;
    assert_eq!((oracle.acknowledged, oracle.doubts), (0, [0, 1]));
}

#[tokio::test]
#[should_panic(expected = "an entity that is stored")]
async fn a_lost_entity_is_found() {
    let said = call(&scratch_store().await, user(1)).await;
    compare(said, &scratch_store().await).await;
}

#[tokio::test]
#[should_panic(expected = "a point that is stored")]
async fn a_lost_point_is_found() {
    let said = call(&scratch_store().await, Op::Record(points())).await;
    compare(said, &scratch_store().await).await;
}

#[tokio::test]
#[should_panic(expected = "an entity that nobody stored")]
async fn what_nobody_asked_for_is_found() {
    let store = scratch_store().await;
    let said = call(&store, user(1)).await;
    call(&store, user(2)).await;
    compare(said, &store).await;
}

#[tokio::test]
#[should_panic(expected = "a line of the audit trail that is stored")]
async fn a_lost_line_of_the_audit_trail_is_found() {
    let store = scratch_store().await;
    let said = call(&store, user(1)).await;
    store.audit().prune(at(1)).await.unwrap();
    compare(said, &store).await;
}

#[tokio::test]
#[should_panic(expected = "half done")]
async fn half_a_transaction_is_found() {
    let store = scratch_store().await;
    // The other half of it.
    call(&store, Op::Transact(vec![record(1)])).await;
    compare([intent(Op::Transact(vec![record(1), record(2)]))], &store).await;
}

#[tokio::test]
#[should_panic(expected = "half done")]
async fn half_a_batch_is_found() {
    let store = scratch_store().await;
    call(&store, Op::Record(points()[..1].into())).await;
    compare([intent(Op::Record(points()))], &store).await;
}

#[tokio::test]
#[should_panic(expected = "half done")]
async fn a_node_whose_key_was_not_used_up_is_found() {
    let store = scratch_store().await;
    let mut said: Vec<_> = call(&store, user(1)).await.into();
    let user = store.view().users().iter().next().unwrap().id;
    let key = one_time_key(&store, user).await;
    let create = PreAuthKeyCommand::Create {
        id: key.id,
        prefix: key.prefix.clone().unwrap(),
        hash: key.hash.clone(),
        key: one_time(user),
    };
    let create = Op::Write(create.into());
    let found = done(&create, &store.view());
    said.extend([intent(create), Message::Done { caller: 1, done: found }]);
    let registration = machine(1, with(&key));
    let id = NodeId::from_bytes([1; 16]);
    let register = NodeCommand::Register { id, registration: Box::new(registration) };
    said.push(intent(Op::Write(register.clone().into())));
    compare(said.clone(), &store).await;
    // A store in which the node was admitted, and the key is as it was.
    perform(&store, &Op::Write(register.into())).await.unwrap();
    let mut found = Recovered::of(&store).await;
    let unused = EntityRecord::PreAuthKey(key);
    found.images.insert((unused.table(), unused.key()), unused);
    Oracle::default().learn(said, 0, &found);
}
