//! The jobs of a store that is held for long: what they do, and what comes of a clock that jumps.
#![cfg(all(feature = "serve", feature = "memory"))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::config::{BackendChoice, Config, JobOptions};
use ghostwire_store::domain::*;
use ghostwire_store::jobs::{Duty, Job, JobRecord, Jobs, Plan};
use ghostwire_store::{ErrorKind, Opener, Store};
use tokio::sync::{mpsc, watch};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

struct World {
    _directory: tempfile::TempDir,
    config: Config,
    clock: ManualClock,
    store: Arc<dyn Store>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secret_key_file = Some(directory.path().join("key"));
        let mut config =
            Config { backend: BackendChoice::Memory, secret_key_file, ..Config::default() };
        config.series.metrics_retention_days = Some(10);
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Opener::new(&config).clock(Arc::new(clock.clone())).open().await.unwrap();
        Self { _directory: directory, config, clock, store }
    }

    fn jobs(&self) -> Jobs {
        Jobs::new(self.store.clone(), Plan::of(&self.config)).clock(Arc::new(self.clock.clone()))
    }

    fn later(&self, duration: Duration) -> Timestamp {
        self.clock.now().saturating_add(duration)
    }

    async fn user(&self, name: &str) -> UserId {
        self.store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap().id
    }
}

fn record(jobs: &Jobs, job: Job) -> JobRecord {
    jobs.records().snapshot().into_iter().find(|record| record.job == job).unwrap()
}

#[tokio::test]
async fn what_expired_is_swept_and_keys_are_kept_for_a_while() {
    let world = World::new().await;
    let store = &world.store;
    let alice = world.user("alice").await;
    let expires_at = world.later(HOUR);
    let owner = SessionOwner::User(alice);
    let session = NewSession { owner, node: None, client: None, expires_at };
    store.sessions().begin(session).await.unwrap();
    let payload = SignInPayload::new("{}").unwrap();
    let sign_in = NewSignIn { purpose: "oidc".parse().unwrap(), payload, expires_at };
    store.sign_ins().begin("state-of-it", sign_in).await.unwrap();
    let key = NewApiKey { expires_at: Some(expires_at), ..NewApiKey::default() };
    store.api_keys().create(key).await.unwrap();
    let lasting = NewApiKey::default();
    store.api_keys().create(lasting).await.unwrap();

    let jobs = world.jobs();
    assert!(jobs.run_one(Job::Sweep).await);
    assert_eq!(record(&jobs, Job::Sweep).items, 0, "nothing has expired");
    world.clock.advance(2 * HOUR);
    assert!(jobs.run_one(Job::Sweep).await);
    assert_eq!(record(&jobs, Job::Sweep).last_items, Some(2), "the session and the sign-in");
    assert_eq!(store.view().api_keys().len(), 2);
    world.clock.advance(31 * DAY);
    assert!(jobs.run_one(Job::Sweep).await);
    assert_eq!(store.view().api_keys().len(), 1, "what still works stays");
    let record = record(&jobs, Job::Sweep);
    assert_eq!((record.runs, record.failures, record.items), (3, 0, 3));
    assert_eq!(record.last_success, Some(world.clock.now()));
    assert_eq!((record.running_since, record.last_error), (None, None));
    store.close().await.unwrap();
}

#[tokio::test]
async fn ephemeral_nodes_are_reaped_once_they_are_absent_for_long() {
    let world = World::new().await;
    let alice = world.user("alice").await;
    let key = NewPreAuthKey { user: Some(alice), ephemeral: true, ..NewPreAuthKey::default() };
    let (key, _) = world.store.preauth_keys().create(key).await.unwrap();
    let machine = MachineKey::from_bytes([1; 32]).unwrap();
    let node = NodeKey::from_bytes([2; 32]).unwrap();
    let admission = Admission::PreAuthKey(key.id);
    let new = Registration::new(machine, node, "laptop".parse().unwrap(), admission);
    world.store.nodes().register(new).await.unwrap();
    let jobs = world.jobs();
    assert!(jobs.run_one(Job::Reap).await);
    assert_eq!(record(&jobs, Job::Reap).last_items, Some(0));
    world.clock.advance(DAY);
    assert!(jobs.run_one(Job::Reap).await);
    assert_eq!(record(&jobs, Job::Reap).last_items, Some(1));
    assert_eq!(world.store.view().nodes().len(), 0);
    world.store.close().await.unwrap();
}

/// A clock that is ahead for a moment must not take what has years to go.
#[tokio::test]
async fn under_a_clock_that_jumped_nothing_is_removed() {
    let world = World::new().await;
    let store = &world.store;
    let point = MetricPoint {
        node: None,
        metric: "rx_bytes".parse().unwrap(),
        at: world.clock.now(),
        value: Sample::new(1.0).unwrap(),
    };
    store.metrics().record(point).await.unwrap();
    let right = world.clock.now();
    world.clock.step(right.saturating_add(3650 * DAY));
    let jobs = world.jobs();
    for job in [Job::Reap, Job::Sweep, Job::Retention] {
        assert!(!jobs.run_one(job).await, "{job:?}");
        let record = record(&jobs, job);
        assert_eq!((record.failures, record.last_success), (1, None));
        assert!(record.last_error.unwrap().contains("the clock jumped ahead"));
    }
    world.clock.step(right);
    for job in Job::ALL {
        assert!(jobs.run_one(job).await, "{job:?}");
        assert_eq!(record(&jobs, job).last_error, None);
    }
    let query = MetricQuery {
        node: None,
        metric: Some("rx_bytes".parse().unwrap()),
        from: Timestamp::EPOCH,
        to: Timestamp::MAX,
    };
    assert_eq!(store.metrics().aggregate(&query).await.unwrap().unwrap().count, 1);
    store.close().await.unwrap();
}

/// Instances of these names, each a second younger than the one before.
async fn begin<const N: usize>(world: &World, names: [&str; N]) -> [InstanceId; N] {
    let mut ids = Vec::new();
    for name in names {
        ids.push(world.store.instances().begin(name.parse().unwrap()).await.unwrap().id);
        world.clock.advance(Duration::from_secs(1));
    }
    ids.try_into().unwrap()
}

#[tokio::test]
async fn the_first_of_the_instances_does_them_until_it_ends() {
    let world = World::new().await;
    let [one, two] = begin(&world, ["one", "two"]).await;
    let [of_one, of_two] = [one, two].map(|id| world.jobs().instance(id));
    for job in Job::ALL {
        assert_eq!(of_one.run_in_turn(job).await, Some(true), "{job:?}");
        assert_eq!(of_two.run_in_turn(job).await, None, "{job:?}");
        let (done, left) = (record(&of_one, job), record(&of_two, job));
        assert_eq!((done.runs, done.skipped, done.last_skipped), (1, 0, None));
        assert_eq!((left.runs, left.skipped, left.last_success), (0, 1, None));
        assert_eq!(left.last_skipped, Some(world.clock.now()));
    }
    // Who has no instance does them whoever else does.
    assert_eq!(world.jobs().run_in_turn(Job::Sweep).await, Some(true));
    world.store.instances().end(one).await.unwrap();
    assert_eq!(of_one.run_in_turn(Job::Sweep).await, None);
    assert_eq!(of_two.run_in_turn(Job::Sweep).await, Some(true));
    // Who begins anew comes last.
    let [again] = begin(&world, ["one"]).await;
    let of_again = world.jobs().instance(again);
    assert_eq!(of_again.run_in_turn(Job::Sweep).await, None);
    assert_eq!(of_two.run_in_turn(Job::Sweep).await, Some(true));
    world.store.close().await.unwrap();
    assert_eq!(of_two.run_in_turn(Job::Sweep).await, Some(false), "who does them is not known");
    assert_eq!(record(&of_two, Job::Sweep).failures, 1);
}

#[tokio::test]
async fn the_next_instance_does_them_once_the_first_is_silent_for_long() {
    let world = World::new().await;
    let instances = world.store.instances();
    let [one, two] = begin(&world, ["one", "two"]).await;
    let [of_one, of_two] = [one, two].map(|id| world.jobs().instance(id));
    // The first was seen two seconds ago.
    world.clock.advance(Instance::LOST_AFTER - Duration::from_secs(2));
    instances.beat(two).await.unwrap();
    assert_eq!(of_two.run_in_turn(Job::Reap).await, None);
    world.clock.advance(Duration::from_micros(1));
    assert_eq!(of_two.run_in_turn(Job::Reap).await, Some(true));
    // A sign of life, and it is the first again.
    instances.beat(one).await.unwrap();
    assert_eq!(of_two.run_in_turn(Job::Reap).await, None);
    world.clock.advance(Instance::LOST_AFTER + Duration::from_secs(1));
    let lost = world.store.as_instance(two).presence().disconnect_lost(Instance::LOST_AFTER).await;
    assert_eq!(lost.unwrap(), 0);
    assert_eq!(of_one.run_in_turn(Job::Reap).await, None, "it is over");
    assert_eq!(of_two.run_in_turn(Job::Reap).await, Some(true));
    world.store.close().await.unwrap();
}

#[tokio::test]
async fn who_does_them_is_told_when_it_changes() {
    let world = World::new().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let own = watch::Sender::new(None);
    let jobs = world.jobs().following_instance(&own).duty_observer(move |duty| {
        let _ = told.send(duty);
    });
    assert_eq!(jobs.run_in_turn(Job::Sweep).await, None, "it has not begun");
    let [one, two] = begin(&world, ["one", "two"]).await;
    own.send_replace(Some(two));
    for job in [Job::Sweep, Job::Reap, Job::Sweep] {
        assert_eq!(jobs.run_in_turn(job).await, None);
    }
    world.store.instances().end(one).await.unwrap();
    for job in [Job::Sweep, Job::Reap] {
        assert_eq!(jobs.run_in_turn(job).await, Some(true));
    }
    world.store.instances().end(two).await.unwrap();
    assert_eq!(jobs.run_in_turn(Job::Sweep).await, None);
    drop(jobs);
    let mut all = Vec::new();
    while let Some(duty) = heard.recv().await {
        all.push(duty);
    }
    assert_eq!(all, [Duty::Over, Duty::Elsewhere(one), Duty::Here, Duty::Over]);
    world.store.close().await.unwrap();
}

#[tokio::test]
async fn they_are_done_by_themselves_and_a_new_plan_holds_at_once() {
    let mut world = World::new().await;
    let none = JobOptions {
        reap_seconds: 0,
        sweep_seconds: 0,
        retention_seconds: 0,
        checkpoint_seconds: 0,
        ..JobOptions::default()
    };
    world.config.jobs = none.clone();
    world.user("alice").await;
    let (told, mut runs) = mpsc::unbounded_channel();
    // By the system's clock.
    let plan = watch::Sender::new(Plan::of(&world.config));
    let jobs = Jobs::new(world.store.clone(), Plan::default()).following(&plan);
    let jobs = jobs.observer(move |run| {
        let _ = told.send((run.job, run.outcome.is_ok()));
    });
    let records = jobs.records();
    let running = tokio::spawn(jobs.run());
    world.config.jobs.checkpoint_seconds = 1;
    plan.send_replace(Plan::of(&world.config));
    assert_eq!(runs.recv().await, Some((Job::Checkpoint, true)));
    world.config.jobs = JobOptions { reap_seconds: 1, ..none };
    plan.send_replace(Plan::of(&world.config));
    while runs.recv().await != Some((Job::Reap, true)) {}
    let every: Vec<_> = records.snapshot().iter().map(|record| record.every).collect();
    assert_eq!(every, [Some(Duration::from_secs(1)), None, None, None]);
    running.abort();
    world.store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_ended_fails_jobs_and_nothing_else() {
    let world = World::new().await;
    let jobs = world.jobs();
    world.store.close().await.unwrap();
    let outcome = std::sync::Mutex::new(None);
    let outcome = Arc::new(outcome);
    let seen = outcome.clone();
    let jobs = jobs.observer(move |run| *seen.lock().unwrap() = Some(run.outcome.clone()));
    assert!(!jobs.run_one(Job::Checkpoint).await);
    let error = outcome.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
}
