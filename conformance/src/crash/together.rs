//! Two processes at one place, of which either is killed while both write, and the server under both.

use super::calls::{done, perform};
use super::child::{at, open_beside};
use super::oracle::Oracle;
use super::process::{Member, Said};
use super::protocol::{Job, Message, Op, Task};
use super::recovered::{Recovered, repeat_batches};
use super::share;
use super::workload::CALLERS;
use crate::prelude::*;

/// Who is killed in a round while the others go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    First,
    Second,
    Server,
}

/// The number of the caller who writes last in a round. The processes have none of this number.
const LAST: u8 = u8::MAX - 1;

/// How many answers whoever is left gets, at least.
const ANSWERS_OF_THE_OTHER: usize = 50;

/// Starts two processes at a time, and compares what is stored with what both of them were told.
pub(super) async fn check(factory: &Arc<dyn Factory>, effort: Effort, at_once: bool) {
    let on_own_server = factory.create_on_own_server().await.expect("a server can be started");
    let mut victims = vec![Killed::First, Killed::Second];
    let place = match on_own_server {
        Some(place) => {
            victims.push(Killed::Server);
            place
        }
        None => factory.create().await.expect("a place can be made"),
    };
    let location = place.location().expect("each place of this backend has a location");
    let rng = Rng::new(!effort.seed ^ u64::from(at_once));
    let job = |task| Job::new(factory.as_ref(), &location, at_once, effort, task);
    let materialize = job(Task::Open).materialize();
    // Of two that make a store at once one is refused.
    let made = open_beside(place.as_ref(), at(0), materialize).await;
    made.close().await.expect("the store closes");
    let mut oracle = Oracle::default();
    // Each of them is killed once, however small the effort.
    let rounds = share(effort.kills, 3).max(3);
    for (victim, round) in victims.into_iter().cycle().zip(0..rounds) {
        let said = Said::default();
        let member = |number: u8| {
            let loses_server = victim == Killed::Server;
            let task = Task::Share { round, first: number * CALLERS, loses_server };
            Member::start(job(task), is_answer, &said)
        };
        let (mut first, mut second) = (member(0), member(1));
        first.answered(1 + rng.below(100)).await;
        second.answered(1 + rng.below(100)).await;
        match victim {
            Killed::First => one_after_the_other(first, second).await,
            Killed::Second => one_after_the_other(second, first).await,
            Killed::Server => {
                place.kill_server().await.expect("the server is killed and starts again");
                first.kill().await;
                second.kill().await;
            }
        }
        let mut said = std::mem::take(&mut *said.lock().unwrap());
        let store = open_beside(place.as_ref(), at(round), materialize).await;
        said.extend(write_last(&store, round).await);
        repeat_batches(&store, &oracle).await;
        let found = Recovered::of(&store).await;
        let before = oracle.acknowledged;
        oracle.learn(said, round, &found);
        oracle.check(&found);
        assert!(oracle.acknowledged > before + 1, "nothing was acknowledged in round {round}");
        store.close().await.expect("the store closes");
    }
}

fn is_answer(said: &Message) -> bool {
    matches!(said, Message::Done { .. } | Message::Refused { .. })
}

/// Whoever is left writes on: what the other one held is given back.
async fn one_after_the_other(killed: Member, mut left: Member) {
    killed.kill().await;
    left.answered(ANSWERS_OF_THE_OTHER).await;
    left.kill().await;
}

/// A write that comes after whatever a killed process had sent: a commit of one that is still under way on the
/// server is second to it, and so not stored.
async fn write_last(store: &Opened, round: u32) -> [Message; 2] {
    let user = NewUser::local(format!("last-{round}").parse().unwrap());
    let op = Op::Write(UserCommand::Create { id: UserId::from_bytes([LAST; 16]), user }.into());
    perform(store, &op).await.expect("a write is served after all of this");
    let done = done(&op, &store.view());
    [Message::Intent { caller: LAST, op }, Message::Done { caller: LAST, done }]
}
