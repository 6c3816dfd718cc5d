//! Recorded histories of many callers on one store, and whether an order explains them.
//!
//! Callers on several threads call the store at the same time and write down when each call began
//! and ended. Whatever the store did, there has to be an order of the calls in which each lies
//! between its beginning and its end and has the answer that a store with a single caller would
//! give. Each record, key, policy and transaction has a history of its own, since what is
//! linearizable one by one is so together; a transaction over two users is checked as one thing,
//! and so are users and their lines in the audit trail.
//!
//! A call that ended with `OutcomeUnknown` may have happened at any time after it began, or not at
//! all. One that was refused because the backend failed must not have happened.

mod checker;
mod log;
mod models;
mod subjects;
#[cfg(test)]
mod tests;

use crate::prelude::*;
use std::sync::atomic::AtomicU64;

use ghostwire_store_core::layer::Faults;

use checker::{Entry, Failure};
use log::Log;
use models::ROUTERS;
use subjects::*;

pub(crate) const CHECKS: &[Check] = &[
    check!("linearizable", an_order_explains_what_many_callers_see, run, false),
    check!("linearizable", an_order_explains_what_many_callers_see_while_commits_fail, run, true),
];

/// Callers of each subject.
const CALLERS: u8 = 8;
/// Calls of each caller.
const STEPS: u32 = 40;
/// One-time keys.
const KEYS: u8 = 24;
/// Points of a series.
const POINTS: u8 = 6;
/// Calls of each caller of a key, which is used up soon, or of a point. Recording a point never
/// fails, so that there are many orders to try.
const STEPS_OF_ONE: u32 = 8;

async fn run(factory: Arc<dyn Factory>, effort: Effort, failing: bool) -> Verdict {
    for mode in [Mode::Live, Mode::AtOnce] {
        let made = TestEnv::create(factory.as_ref(), &Stack::bare(), mode, effort.seed).await;
        let env = made.expect("a place can be made");
        let first = env.open().await;
        // Where several processes may write, callers call two of them.
        let mut stores = vec![first];
        if stores[0].info().backend.shared {
            stores.push(env.open().await);
        }
        let harness = Harness::new(stores.clone(), effort.seed);
        let histories = histories(&harness).await;
        if failing {
            tokio::select! {
                () = histories => {}
                () = disturb(env.faults(), &harness) => {}
            }
        } else {
            histories.await;
        }
        env.faults().clear();
        for store in stores {
            let recoveries = store.info().recoveries;
            assert!(!failing || recoveries > 0, "no commit failed, so nothing was tried");
            store.verify().await.expect("nothing is wrong with what is stored");
            store.close().await.expect("the store closes");
        }
    }
    Verdict::Passed
}

/// Lets a commit fail from time to time, without end.
async fn disturb(faults: &Faults, harness: &Harness) {
    let rng = Rng::new(harness.seed);
    loop {
        let until = harness.moments.load(Ordering::SeqCst) + 40 + rng.number() % 160;
        while harness.moments.load(Ordering::SeqCst) < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let kinds = [FaultKind::Before, FaultKind::After, FaultKind::Lost];
        let kind = rng.choose(&kinds).expect("there are some");
        // If reopening fails, too, callers are told that the outcome is unknown.
        faults.fail_next_reopens(rng.below(2));
        faults.fail_next_commits(1, *kind);
    }
}

/// Calls subjects and records their histories.
struct Harness {
    /// Of one place.
    stores: Vec<Arc<dyn Store>>,
    moments: Arc<AtomicU64>,
    seed: u64,
}

impl Harness {
    fn new(stores: Vec<Arc<dyn Store>>, seed: u64) -> Self {
        Self { stores, moments: Arc::default(), seed }
    }

    /// Has a subject called by several at the same time, and looks for an order of their calls.
    async fn run<S: Subject>(&self, subject: S, steps: u32) -> Result<usize, String> {
        let model = S::Model::default();
        let (subject, log) = (Arc::new(subject), Arc::new(Log::new(self.moments.clone())));
        let mut callers = tokio::task::JoinSet::new();
        for (number, store) in (0..CALLERS).zip(self.stores.iter().cycle().cloned()) {
            let (subject, log) = (subject.clone(), log.clone());
            let rng = Rng::new(self.seed ^ (u64::from(number) << 56));
            callers.spawn(async move {
                for step in 0..steps {
                    subject.act(&store, &rng, Caller { number, step }, &log).await;
                }
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended.expect("a caller comes to an end");
        }
        let log = Arc::into_inner(log).expect("every caller has ended");
        let history = log.into_history();
        // The search is CPU-bound, and other subjects are still being called.
        let explained = tokio::task::spawn_blocking(move || {
            checker::check(&model, &history).map_err(|failure| told(&failure, &history))
        });
        explained.await.expect("the search comes to an end")
    }
}

fn told<S: Debug, C: Debug, A: Debug>(failure: &Failure<S>, history: &[Entry<C, A>]) -> String {
    let last = failure.order.len().saturating_sub(5);
    let last: Vec<_> =
        failure.order[last..].iter().map(|&at| format!("{:?}", history[at])).collect();
    format!(
        "no order explains the history of {} calls; the longest has {}, ends with\n{}\nand {:?}, \
         where this fits nowhere:\n{:?}",
        history.len(),
        failure.order.len(),
        last.join("\n"),
        failure.state,
        history[failure.stuck]
    )
}

/// Prepares the subjects; the future that is given calls all of them at the same time.
async fn histories(harness: &Harness) -> impl Future<Output = ()> {
    let store = &harness.stores[0];
    let mut users = Vec::new();
    for number in 0..3 + 2 + 1 {
        users.push(user(store, &format!("user-{number}")).await);
    }
    let mut keys = Vec::new();
    for number in 0..KEYS {
        let key = one_time_key(store, users[5]).await.id;
        keys.push(ContestedKey { key, number });
    }
    let offering = offering(store, users[5]).await;
    for store in &harness.stores {
        // Each store sees what was prepared through the first one.
        store.fresh_view().await.unwrap();
    }
    async move {
        let outcome = tokio::join!(
            harness.run(UserRecord(users[0]), STEPS),
            harness.run(UserRecord(users[1]), STEPS),
            harness.run(UserRecord(users[2]), STEPS),
            harness.run(TwoOwners([users[3], users[4]]), STEPS),
            harness.run(PolicyInForce, STEPS),
            harness.run(offering, STEPS),
            harness.run(LinesOf(0), STEPS),
            async {
                let outcome =
                    (0..POINTS).map(|number| harness.run(SharedPoint(number), STEPS_OF_ONE));
                for outcome in join_all(outcome).await {
                    outcome.unwrap_or_else(|why| panic!("a point of a series: {why}"));
                }
            },
            async {
                // A few at a time, so that there are some to be contested all the time.
                for keys in keys.chunks(4) {
                    let outcome = keys.iter().map(|key| harness.run(*key, STEPS_OF_ONE));
                    for outcome in join_all(outcome).await {
                        outcome.unwrap_or_else(|why| panic!("a one-time key: {why}"));
                    }
                }
            },
        );
        let (first, second, third, owners, policy, routers, lines, (), ()) = outcome;
        for (what, outcome) in [
            ("a user", first),
            ("another user", second),
            ("a third user", third),
            ("two users that share", owners),
            ("the policy", policy),
            ("presence and the primary route", routers),
            ("users and their lines in the audit trail", lines),
        ] {
            outcome.unwrap_or_else(|why| panic!("{what}: {why}"));
        }
    }
}

async fn offering(store: &Opened, user: UserId) -> Offering {
    let mut routes = Vec::new();
    for number in 0..ROUTERS {
        let node = node(store, user, u32::try_from(number).unwrap()).await.id;
        advertise(store, node, &["10.9.0.0/16"]).await.unwrap();
        routes.extend(approve(store, node, &["10.9.0.0/16"]).await.unwrap());
    }
    // Ids that are drawn in one millisecond are in no order of their own.
    routes.sort_by_key(|route| route.id);
    let nodes: Vec<_> = routes.iter().map(|route| route.node).collect();
    Offering { nodes: nodes.try_into().unwrap(), address: [10, 9, 0, 1].into() }
}
