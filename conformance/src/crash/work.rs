//! Callers are killed in the middle of their work.

use super::child::{at, open};
use super::oracle::Oracle;
use super::process::{Moment, run_and_kill};
use super::protocol::{Job, Message, Task};
use super::recovered::{Recovered, repeat_batches};
use super::{share, together};
use crate::prelude::*;

/// Who follows the log.
pub(super) const FOLLOWER: &str = "mirror";

pub(super) const NO_LOCATION: Verdict =
    Verdict::Skipped("no other process can open a place of this backend");

/// Starts one process after the other at one place. Most of them write rows at the same time, or most do not;
/// then somebody follows the log. Where several processes may write, two of them do after that.
pub(super) async fn check(factory: Arc<dyn Factory>, effort: Effort, at_once: bool) -> Verdict {
    let place = factory.create().await.expect("a place can be made");
    let Some(location) = place.location() else { return NO_LOCATION };
    let rng = Rng::new(effort.seed ^ u64::from(at_once));
    let mut oracle = Oracle::default();
    // What is kept for those who follow is not in the other one of two databases.
    let replica = match at_once || place.is_of_two() {
        true => None,
        false => Some(register(place.as_ref()).await),
    };
    let mut is_shared = false;
    for round in 0..share(effort.kills, 8) {
        let at_once = at_once != rng.one_in(4);
        let job = Job::new(&*factory, &location, at_once, effort, Task::Work { round });
        let materialize = job.materialize();
        // Sometimes while it opens what the process before it left.
        let early = round > 0 && rng.one_in(6);
        let moment = Moment {
            lines: if early { 0 } else { 1 + rng.below(300) },
            micros: rng.number() % if early { 50_000 } else { 3_000 },
        };
        let answers =
            |said: &Message| matches!(said, Message::Done { .. } | Message::Refused { .. });
        let said = run_and_kill(job, moment, answers).await;
        // On a copy, so that the next process finds what this one left; or in its place.
        let copy = place.after_crash().await.expect("a place can be copied");
        let in_place = rng.one_in(3);
        let opened = if in_place { &place } else { &copy };
        let store = open(opened.as_ref(), at(round), materialize).await;
        is_shared = store.info().backend.shared;
        repeat_batches(&store, &oracle).await;
        let found = Recovered::of(&store).await;
        oracle.learn(said, round, &found);
        oracle.check(&found);
        // Flushing, checkpointing and purging do not change what was acknowledged.
        store.checkpoint().await.expect("everything flushes");
        oracle.check(&Recovered::of(&store).await);
        if let Some(replica) = &replica {
            replica.check(&store).await;
            let name = consumer(FOLLOWER);
            let taken = replica.position().await;
            store.consumers().advance(&name, taken).await.expect("it moves forward");
        }
        store.close().await.expect("the store closes");
    }
    assert!(oracle.acknowledged > 0, "nothing was acknowledged before the kill");
    if is_shared {
        together::check(&factory, effort, at_once).await;
    }
    Verdict::Passed
}

/// Registers somebody who follows the log of an empty store.
async fn register(place: &dyn Place) -> Replica {
    let store = open(place, at(0), Materialize::Checkpoint).await;
    let registered = follow(&store, FOLLOWER).await;
    store.close().await.expect("the store closes");
    Replica::since(&registered).await
}
