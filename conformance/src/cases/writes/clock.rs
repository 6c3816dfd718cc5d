//! A clock that is wrong: what it may not do, and how to undo what it did.

use ghostwire_store_core::repository::ClockRepair;

use crate::prelude::*;

cases! {
    stored {
        "clock-step" => [
            a_clock_that_jumped_ends_no_login,
            a_machine_that_slept_has_not_jumped,
            a_clock_may_be_set_back_and_forth,
            what_takes_its_times_from_the_caller_is_stored,
            a_clock_that_jumped_can_be_accepted,
        ],
        "clock-gap" => [
            a_clock_far_beyond_the_last_commit_can_be_accepted,
            a_clock_that_is_set_after_opening_may_reach_the_present,
        ],
        "clock-repair" => [
            after_a_repair_logins_keys_and_reaping_work_again,
            a_repair_counts_what_it_brings_back,
            a_repair_goes_on_in_parts,
        ],
    }
    stored_unopened {
        "clock-step" => [under_a_clock_that_jumped_nothing_is_written_and_later_writes_go_on],
        "clock-gap" => [under_a_clock_far_beyond_the_last_commit_a_store_is_only_read],
        "clock-repair" => [after_a_repair_the_clock_that_was_ahead_has_jumped],
    }
    once {
        "clock-step" => [a_wall_clock_may_be_an_hour_ahead],
        "clock-repair" => [where_nothing_is_ahead_a_repair_writes_nothing],
    }
    once_unopened {
        "clock-gap" => [a_new_store_takes_any_clock],
    }
}

const DAY: i64 = 86_400;
/// Sixty years, in seconds.
const YEARS: i64 = 60 * 365 * DAY;

/// Makes a call that a clock which jumped refuses, without a trace.
async fn held_back<T: Debug>(store: &Opened, call: impl Future<Output = Result<T>>) {
    let error = refused(store, call, Unavailable).await;
    assert!(error.is_retryable() && error.operation().is_some(), "{error}");
    assert!(error.to_string().contains("clock jumped ahead"), "{error}");
}

async fn try_open(env: &TestEnv, bounds: ClockOptions, read_only: bool) -> Result<Opened> {
    let opening = if read_only { env.opening().read_only() } else { env.opening() };
    let backend = env.try_open_backend(opening).await.unwrap();
    let options = StoreOptions { clock_bounds: bounds, read_only, ..env.options() };
    let opened = ghostwire_store_core::open(backend.clone(), options).await;
    if opened.is_err() {
        backend.close().await.unwrap();
    }
    opened
}

async fn under_a_clock_that_jumped_nothing_is_written_and_later_writes_go_on(env: &mut TestEnv) {
    let store = env.open().await;
    let alice = user(&store, "alice").await;
    let id = node(&store, alice, 1).await.id;
    env.clock().step(at(YEARS));
    held_back(&store, store.users().create(local("bob"))).await;
    held_back(&store, store.presence().connect(id, SessionNumber::new(1).unwrap(), Update::Keep))
        .await;
    held_back(&store, store.nodes().reap_ephemeral()).await;
    held_back(&store, store.sessions().sweep()).await;
    held_back(&store, async { store.clock().now() }).await;
    assert!(store.users().get(alice).await.unwrap().is_some(), "reading goes on");
    env.clock().step(at(60));
    let store = env.reload(store).await;
    let bob = create(&store, "bob").await;
    assert_eq!(bob.created_at, at(60));
}

async fn a_clock_that_jumped_ends_no_login(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let new = NewApiKey { expires_at: Some(at(90 * DAY)), ..NewApiKey::default() };
    let (_, key) = store.api_keys().create(new).await.unwrap();
    let session = |expires_at| session_of(SessionOwner::User(alice), expires_at);
    let (_, token) = store.sessions().begin(session(at(DAY))).await.unwrap();
    env.clock().step(at(YEARS));
    store.api_keys().authenticate(key.expose()).await.unwrap();
    store.sessions().authenticate(token.expose()).await.unwrap();
    // Time passes all the same.
    env.clock().advance(Duration::from_secs(DAY as u64));
    store.api_keys().authenticate(key.expose()).await.unwrap();
    fails(store.sessions().authenticate(token.expose()).await, PermissionDenied);
    env.clock().step(at(DAY));
    let store = env.reload(store).await;
    store.api_keys().authenticate(key.expose()).await.unwrap();
    let (_, token) = store.sessions().begin(session(at(2 * DAY))).await.unwrap();
    store.sessions().authenticate(token.expose()).await.unwrap();
}

async fn a_machine_that_slept_has_not_jumped(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    env.clock().advance(Duration::from_secs(YEARS as u64));
    let bob = create(&store, "bob").await;
    assert_eq!(bob.created_at, at(YEARS));
    let store = env.reload(store).await;
    assert_eq!(store.view().time(), at(YEARS));
}

async fn a_clock_may_be_set_back_and_forth(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    env.clock().step(at(-100 * DAY));
    user(&store, "bob").await;
    env.clock().step(at(10));
    let carol = create(&store, "carol").await;
    assert_eq!(carol.created_at, at(10));
    let store = env.reload(store).await;
    assert_eq!(store.view().time(), at(10));
}

async fn what_takes_its_times_from_the_caller_is_stored(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    env.clock().step(at(YEARS));
    let metric = "m".parse().unwrap();
    let point = MetricPoint { node: None, metric, at: at(1), value: Sample::new(1.0).unwrap() };
    store.metrics().record(point).await.unwrap();
    let before = store.view().serial();
    store.audit().prune(at(-1)).await.unwrap();
    assert_eq!(store.view().serial(), before);
    env.clock().step(at(0));
    let store = env.reload(store).await;
    assert_eq!(store.metrics().aggregate(&all_points()).await.unwrap().unwrap().count, 1);
}

async fn a_clock_that_jumped_can_be_accepted(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    // Of a paused machine nothing else tells how much time has passed.
    env.clock().step(at(2 * DAY));
    held_back(&store, store.users().create(local("bob"))).await;
    let admin = store.acting_as("admin".parse().unwrap());
    admin.clock().accept().await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.view().time(), at(2 * DAY));
    let bob = create(&store, "bob").await;
    assert_eq!(bob.created_at, at(2 * DAY));
    let page = PageRequest::first(Limit::MAX);
    let lines = store.audit().query(&AuditQuery::default(), &page).await.unwrap().items;
    let line = lines.iter().find(|line| line.action.as_str() == "clock.accept").unwrap();
    assert_eq!((line.actor.as_str(), line.at), ("admin", at(2 * DAY)));
    assert!(line.subject.as_str().contains(&at(0).to_string()), "{line:?}");
}

async fn a_wall_clock_may_be_an_hour_ahead(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    env.clock().step(at(3600));
    user(&store, "bob").await;
    // What was accepted is the new measure.
    env.clock().step(at(7200));
    let carol = create(&store, "carol").await;
    assert_eq!(carol.created_at, at(7200));
    let moment = MICROSECOND;
    env.clock().step(at(3 * 3600).saturating_add(moment));
    held_back(&store, store.users().create(local("dave"))).await;
    env.clock().advance(moment);
    held_back(&store, store.users().create(local("dave"))).await;
    env.clock().step(at(3 * 3600).saturating_add(moment));
    user(&store, "dave").await;
}

async fn under_a_clock_far_beyond_the_last_commit_a_store_is_only_read(env: &mut TestEnv) {
    let store = env.open().await;
    let alice = user(&store, "alice").await;
    let store = env.reload(store).await;
    close(store).await;
    env.advance(30 * DAY as u64 + 1);
    let error = fails(try_open(env, ClockOptions::default(), false).await, Unavailable);
    assert!(error.to_string().contains("gwstore clock accept"), "{error}");
    let store = try_open(env, ClockOptions::default(), true).await.unwrap();
    assert!(store.users().get(alice).await.unwrap().is_some());
    close(store).await;
    env.clock().step(at(30 * DAY));
    let store = try_open(env, ClockOptions::default(), false).await.unwrap();
    let bob = create(&store, "bob").await;
    assert_eq!(bob.created_at, at(30 * DAY));
}

async fn a_clock_far_beyond_the_last_commit_can_be_accepted(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    let store = env.reload(store).await;
    close(store).await;
    env.advance(400 * DAY as u64);
    let accept = ClockOptions { accept: true, ..ClockOptions::default() };
    let store = try_open(env, accept, false).await.unwrap();
    store.clock().accept().await.unwrap();
    close(store).await;
    let store = try_open(env, ClockOptions::default(), false).await.unwrap();
    let bob = create(&store, "bob").await;
    assert_eq!(bob.created_at, at(400 * DAY));
}

async fn a_clock_that_is_set_after_opening_may_reach_the_present(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    let store = env.reload(store).await;
    close(store).await;
    // A machine without a battery begins long ago, and asks for the time later.
    env.clock().step(at(-10 * 365 * DAY));
    let store = try_open(env, ClockOptions::default(), false).await.unwrap();
    user(&store, "bob").await;
    env.clock().step(at(31 * DAY));
    held_back(&store, store.users().create(local("carol"))).await;
    env.clock().step(at(20 * DAY));
    let carol = create(&store, "carol").await;
    assert_eq!(carol.created_at, at(20 * DAY));
    // From then on it is known.
    env.clock().step(at(21 * DAY));
    held_back(&store, store.users().create(local("dave"))).await;
}

async fn a_new_store_takes_any_clock(env: &mut TestEnv) {
    env.clock().step(at(YEARS));
    let store = env.open().await;
    let alice = create(&store, "alice").await;
    assert_eq!(alice.created_at, at(YEARS));
}

/// The store, open under a clock that is ahead.
async fn open_ahead(env: &TestEnv) -> Opened {
    let store = env.open().await;
    env.clock().step(at(YEARS));
    store.clock().accept().await.unwrap();
    store
}

async fn after_a_repair_logins_keys_and_reaping_work_again(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let new = NewApiKey { expires_at: Some(at(90 * DAY)), ..NewApiKey::default() };
    let (_, key) = store.api_keys().create(new).await.unwrap();
    let ephemeral = NewPreAuthKey {
        user: Some(alice),
        reusable: true,
        ephemeral: true,
        expires_at: Some(at(90 * DAY)),
        ..NewPreAuthKey::default()
    };
    let (ephemeral, _) = store.preauth_keys().create(ephemeral).await.unwrap();
    let guest = register(&store, 1, with(&ephemeral)).await.id;
    close(store).await;
    let session = |expires_at| session_of(SessionOwner::User(alice), expires_at);
    let store = open_ahead(env).await;
    let number = SessionNumber::new(1).unwrap();
    store.presence().connect(guest, number, Update::Keep).await.unwrap();
    store.presence().disconnect(guest, number).await.unwrap();
    let (_, token) = store.sessions().begin(session(at(YEARS + DAY))).await.unwrap();
    env.clock().step(at(0));
    // This is what such a clock does.
    store.api_keys().authenticate(key.expose()).await.unwrap_err();
    refused(&store, store.sessions().begin(session(at(DAY))), InvalidArgument).await;
    env.advance(60);
    store.clock().repair().await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.view().time(), at(60));
    store.api_keys().authenticate(key.expose()).await.unwrap();
    register(&store, 2, with(&ephemeral)).await;
    let (_, new) = store.sessions().begin(session(at(DAY))).await.unwrap();
    store.sessions().authenticate(new.expose()).await.unwrap();
    // The session that was begun for a day lasts a day.
    store.sessions().authenticate(token.expose()).await.unwrap();
    env.advance(1800);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap().len(), 2);
    env.advance(DAY as u64);
    store.sessions().authenticate(token.expose()).await.unwrap_err();
}

async fn a_repair_counts_what_it_brings_back(env: &mut TestEnv, store: Opened) {
    const POINTS: i64 = 5;
    user(&store, "alice").await;
    let metric: MetricName = "m".parse().unwrap();
    let point = |node, seconds| {
        let value = Sample::new(seconds as f64).unwrap();
        MetricPoint { node, metric: metric.clone(), at: at(seconds), value }
    };
    let other = NodeId::from_bytes([9; 16]);
    let mut points = vec![point(None, -1), point(Some(other), 0)];
    points.extend((1..=POINTS).map(|n| point(Some(other), YEARS + n)));
    points.push(point(None, YEARS));
    close(store).await;
    let store = open_ahead(env).await;
    for name in ["bob", "carol"] {
        user(&store, name).await;
    }
    store.metrics().record_many(points).await.unwrap();
    env.clock().step(at(0));
    let report = store.clock().report().await.unwrap();
    assert_eq!((report.store, report.clock), (Some(at(YEARS)), at(0)));
    assert_eq!(report.entities, [("users", 2)].into());
    // The one about the clock and two about users.
    assert_eq!((report.audit, report.metrics), (3, POINTS as u64 + 1));
    assert!(report.is_ahead());
    let admin = store.acting_as("admin".parse().unwrap());
    let repaired = admin.clock().repair().await.unwrap();
    assert_eq!(repaired, ClockRepair { entities: 2, audit: 3, metrics: POINTS as u64 + 1 });
    let store = env.reload(store).await;
    assert!(!store.clock().report().await.unwrap().is_ahead());
    for user in store.view().users().iter() {
        assert_eq!(
            (user.created_at, user.updated_at, user.revision),
            (at(0), at(0), Revision::FIRST)
        );
    }
    assert_eq!(store.metrics().aggregate(&all_points()).await.unwrap().unwrap().count, 2);
    let page = PageRequest::first(Limit::MAX);
    let lines = store.audit().query(&AuditQuery::default(), &page).await.unwrap().items;
    assert!(lines.iter().all(|line| line.at == at(0)), "{lines:?}");
    let told = |action: &str| lines.iter().filter(|line| line.action.as_str() == action).count();
    assert_eq!((told("user.create"), told("clock.accept"), told("clock.repair")), (3, 1, 1));
    let repair = lines.iter().find(|line| line.action.as_str() == "clock.repair").unwrap();
    assert_eq!(repair.actor.as_str(), "admin");
    assert!(repair.subject.as_str().contains(&at(YEARS).to_string()), "{repair:?}");
}

async fn a_repair_goes_on_in_parts(env: &mut TestEnv, store: Opened) {
    const NODES: u32 = 80;
    let alice = user(&store, "alice").await;
    close(store).await;
    let info: HostInfo = format!(r#"{{"OS":"{}"}}"#, "x".repeat(2_000)).parse().unwrap();
    let store = open_ahead(env).await;
    let calls = (1..=NODES).map(|number| {
        let expires_at = Some(at(YEARS + DAY));
        let new =
            Registration { host_info: info.clone(), expires_at, ..machine(number, by(alice)) };
        store.nodes().register(new)
    });
    join_all(calls).await.into_iter().for_each(|call| drop(call.unwrap()));
    env.clock().step(at(0));
    close(store).await;
    let mut options = env.options();
    options.writer.max_block_bytes = 64 * 1024;
    options.writer.retain_block_bytes = u64::MAX;
    let store = env.open_with(options).await;
    let before = store.view().serial();
    let repaired = store.clock().repair().await.unwrap();
    assert_eq!(repaired.entities, u64::from(NODES));
    let commits = (store.view().serial().get() - before.get()) as usize;
    assert!(commits > 1, "{commits} commits");
    let told: Vec<_> = store.watch(before).take(commits).collect().await;
    assert!(told.into_iter().all(|commit| commit.unwrap().at == at(0)));
    let store = env.reload(store).await;
    let view = store.view();
    assert!(view.nodes().iter().all(|node| node.created_at == at(0)));
    assert!(view.nodes().iter().all(|node| node.expires_at == Some(at(DAY))));
    let again = idle(&store, store.clock().repair()).await;
    assert_eq!(again, ClockRepair { entities: 0, audit: 0, metrics: 0 });
}

async fn after_a_repair_the_clock_that_was_ahead_has_jumped(env: &mut TestEnv) {
    let store = open_ahead(env).await;
    user(&store, "alice").await;
    env.clock().step(at(0));
    store.clock().repair().await.unwrap();
    env.clock().step(at(YEARS));
    held_back(&store, store.users().create(local("bob"))).await;
    env.clock().step(at(60));
    let store = env.reload(store).await;
    let bob = create(&store, "bob").await;
    assert_eq!(bob.created_at, at(60));
}

async fn where_nothing_is_ahead_a_repair_writes_nothing(env: &mut TestEnv, store: Opened) {
    user(&store, "alice").await;
    env.advance(60);
    let repaired = idle(&store, store.clock().repair()).await;
    assert_eq!(repaired, ClockRepair { entities: 0, audit: 0, metrics: 0 });
    assert!(!store.clock().report().await.unwrap().is_ahead());
}
