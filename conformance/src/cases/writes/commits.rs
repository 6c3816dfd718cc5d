//! Commits that are under way, and commits whose answer is lost.

use crate::prelude::*;

cases! {
    stored {
        "lost-answer" => [a_backend_that_cannot_be_asked_leaves_the_outcome_open],
        "cancel" => [dropping_a_future_takes_nothing_back],
    }
    stored_unopened {
        "lost-answer" => [
            what_is_stored_is_acknowledged_though_its_answer_was_lost,
            what_never_arrived_is_sent_again,
        ],
    }
    once {
        "no-early-read" => [
            nothing_shows_while_its_commit_is_under_way,
            a_revocation_counts_once_it_is_durable,
        ],
        "all-or-nothing" => [a_refused_command_does_not_disturb_its_neighbours],
        "cancel" => [a_future_that_was_never_polled_does_nothing],
    }
    once_unopened {
        "busy-queue" => [
            a_full_queue_is_busy_and_what_it_took_is_served,
            what_is_large_waits_until_there_is_room,
        ],
    }
}

async fn nothing_shows_while_its_commit_is_under_way(env: &mut TestEnv, store: Opened) {
    store.users().create(local("before")).await.unwrap();
    let (before, digests) = (store.view().serial(), store.digests().await.unwrap());
    let lines = audit_lines(&store).await;
    let mut watch = store.watch(before);
    let hold = env.faults().hold_commits();
    let create = spawn_create(&store, "alice");
    until_held(env).await;

    let name: UserName = "alice".parse().unwrap();
    let reader = store.acting_as("reader".parse().unwrap());
    for store in [&store, &reader] {
        assert_eq!(store.view().serial(), before);
        assert_eq!(store.view().users().len(), 1);
        if !store.info().backend.shared {
            // Where others write, these wait for what is under way.
            assert_eq!(store.fresh_view().await.unwrap().serial(), before);
            assert_eq!(audit_lines(store).await, lines);
            assert_eq!(store.digests().await.unwrap(), digests);
        }
        assert_eq!(store.users().get_by_name(&name).await.unwrap(), None);
        let all = PageRequest::default();
        let listed = store.users().list(&UserFilter::default(), &all).await.unwrap();
        assert_eq!(listed.items.len(), 1);
        assert_eq!(store.info().serial, before);
    }
    assert!(watch.next().now_or_never().is_none());
    assert!(!create.is_finished());

    drop(hold);
    let alice = create.await.unwrap().unwrap();
    assert_eq!(store.users().get_by_name(&name).await.unwrap(), Some(alice));
    assert_eq!(watch.next().await.unwrap().unwrap().serial, before.next());
    assert_eq!(audit_lines(&store).await, lines + 1);

    let point = point(None, "rx_bytes", env.clock().now(), 1.0);
    let query = all_points();
    let hold = env.faults().hold_commits();
    let writer = store.clone();
    let record = tokio::spawn(async move { writer.metrics().record(point).await });
    until_held(env).await;
    assert_eq!(store.metrics().aggregate(&query).await.unwrap(), None);
    drop(hold);
    record.await.unwrap().unwrap();
    assert_eq!(store.metrics().aggregate(&query).await.unwrap().unwrap().count, 1);
}

async fn a_revocation_counts_once_it_is_durable(env: &mut TestEnv, store: Opened) {
    let (key, secret) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let hold = env.faults().hold_commits();
    let (writer, id) = (store.clone(), key.id);
    let revoke = tokio::spawn(async move { writer.api_keys().revoke(id).await });
    until_held(env).await;
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    assert!(!revoke.is_finished());
    drop(hold);
    revoke.await.unwrap().unwrap();
    fails(store.api_keys().authenticate(secret.expose()).await, PermissionDenied);
}

async fn a_refused_command_does_not_disturb_its_neighbours(env: &mut TestEnv, store: Opened) {
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    // These wait together and share the next commit.
    let mut calls =
        Box::pin(join_all(["a", "a", "b", "b", "c"].map(|name| store.users().create(local(name)))));
    assert!((&mut calls).now_or_never().is_none());
    drop(hold);
    first.await.unwrap().unwrap();
    let outcomes = calls.await;
    let constraints: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().err().map(|error| error.constraint()))
        .collect();
    assert_eq!(constraints, [None, Some(Some("name")), None, Some(Some("name")), None]);
    assert_eq!(store.view().serial(), Serial::new(2), "the five shared one commit");
    let store = env.crash(store).await;
    assert_eq!(names(&store), ["a", "b", "c", "first"]);
    assert_eq!(audit_lines(&store).await, 4);
}

async fn what_is_stored_is_acknowledged_though_its_answer_was_lost(env: &mut TestEnv) {
    lost_answers(env, FaultKind::After).await;
}

async fn what_never_arrived_is_sent_again(env: &mut TestEnv) {
    lost_answers(env, FaultKind::Lost).await;
}

/// Callers get `Ok`, and everything is stored once.
async fn lost_answers(env: &mut TestEnv, fault: FaultKind) {
    let store = env.open().await;
    env.faults().fail_next_commits(1, fault);
    let alice = create(&store, "alice").await;
    assert_eq!(store.info().recoveries, 1);
    env.faults().fail_next_commits(1, fault);
    let patch = UserPatch { name: Update::Set("bob".parse().unwrap()), ..UserPatch::default() };
    let bob = store.users().update(alice.id, patch, None).await.unwrap();
    assert_eq!(bob.revision.get(), 2);
    let writer = WriterId::from_bytes([4; 16]);
    let point = point(None, "rx_bytes", env.clock().now(), 1.0);
    env.faults().fail_next_commits(1, fault);
    store.metrics().record_batch(writer, 1, vec![point]).await.unwrap();
    assert_eq!(store.info().recoveries, 3);
    let store = env.reload(store).await;
    assert_eq!(store.view().serial(), Serial::new(2));
    assert_eq!(store.users().get(alice.id).await.unwrap(), Some(bob));
    assert_eq!(audit_lines(&store).await, 2);
    let query = all_points();
    assert_eq!(store.metrics().aggregate(&query).await.unwrap().unwrap().count, 1);
}

async fn a_backend_that_cannot_be_asked_leaves_the_outcome_open(env: &mut TestEnv, store: Opened) {
    for (fault, name) in [(FaultKind::After, "stored"), (FaultKind::Lost, "lost")] {
        env.faults().fail_next_commits(1, fault);
        env.faults().fail_next_reopens(usize::MAX);
        let error = fails(store.users().create(local(name)).await, OutcomeUnknown);
        assert!(!error.is_retryable(), "a blind repetition may do it twice");
        env.faults().clear();
        // The next write asks again; then reading tells.
        create(&store, &format!("after-{name}")).await;
    }
    let store = env.reload(store).await;
    assert_eq!(names(&store), ["after-lost", "after-stored", "stored"]);
}

async fn dropping_a_future_takes_nothing_back(env: &mut TestEnv, store: Opened) {
    let hold = env.faults().hold_commits();
    let under_way = spawn_create(&store, "under-way");
    until_held(env).await;
    let mut queued = Box::pin(store.users().create(local("queued")));
    assert!((&mut queued).now_or_never().is_none());
    drop(queued);
    under_way.abort();
    assert!(under_way.await.unwrap_err().is_cancelled());
    drop(hold);
    create(&store, "later").await;
    let store = env.reload(store).await;
    assert_eq!(names(&store), ["later", "queued", "under-way"]);
}

async fn a_future_that_was_never_polled_does_nothing(_: &mut TestEnv, store: Opened) {
    drop(store.users().create(local("nobody")));
    create(&store, "somebody").await;
    assert_eq!(names(&store), ["somebody"]);
    assert_eq!(store.view().serial(), Serial::new(1));
}

async fn a_full_queue_is_busy_and_what_it_took_is_served(env: &mut TestEnv) {
    const CALLS: usize = 20;
    let writer = WriterOptions {
        queue_capacity: 4,
        queue_timeout: Duration::from_millis(20),
        max_group: 2,
        ..WriterOptions::default()
    };
    let store = env.open_with(StoreOptions { writer, ..env.options() }).await;
    let hold = env.faults().hold_commits();
    let calls: Vec<_> = (0..CALLS).map(|n| spawn_create(&store, &format!("user{n:02}"))).collect();
    // At most 4 wait, 2 are in the held group, 2 in the next one, and 2 may be on their way. All
    // of them have waited for longer than the queue's timeout by then.
    while calls.iter().filter(|call| call.is_finished()).count() < CALLS - 10 {
        tokio::task::yield_now().await;
    }
    assert!(store.view().users().is_empty());
    drop(hold);
    let mut accepted = Vec::new();
    for (n, call) in calls.into_iter().enumerate() {
        match call.await.unwrap() {
            Ok(user) => {
                assert_eq!(user.name.as_str(), format!("user{n:02}"));
                accepted.push(user.name.to_string());
            }
            Err(error) => {
                assert_eq!(*error.kind(), Busy);
                assert!(error.is_retryable());
            }
        }
    }
    assert!((4..=10).contains(&accepted.len()), "{accepted:?}");
    assert_eq!(names(&store), accepted, "what got `Busy` was not accepted");
    create(&store, "afterwards").await;
}

async fn what_is_large_waits_until_there_is_room(env: &mut TestEnv) {
    const MIB: usize = 1024 * 1024;
    let writer = WriterOptions {
        queue_bytes: 2 * MIB as u64,
        queue_timeout: Duration::from_millis(20),
        ..WriterOptions::default()
    };
    let store = env.open_with(StoreOptions { writer, ..env.options() }).await;
    let text = |mib: usize| DocumentText::new("x".repeat(mib * MIB)).unwrap();
    let swap = |expected, mib| {
        let store = store.clone();
        tokio::spawn(async move { store.policies().swap(expected, text(mib)).await })
    };
    let hold = env.faults().hold_commits();
    // More than all that is allowed: it has the queue to itself, while it is being stored, too.
    let first = swap(None, 3);
    until_held(env).await;
    let version = PolicyVersion::FIRST;
    let error = fails(swap(Some(version), 1).await.unwrap(), Busy);
    assert!(error.context().iter().any(|(key, _)| *key == "queue_bytes"), "{error}");
    // What is small is not held up by it.
    let small = spawn_create(&store, "alice");
    drop(hold);
    first.await.unwrap().unwrap();
    small.await.unwrap().unwrap();
    // What got `Busy` was not accepted, and what was answered takes no room any more.
    assert_eq!(store.policies().current().await.unwrap().unwrap().version, version);
    let (one, other) = (swap(Some(version), 1), spawn_create(&store, "bob"));
    one.await.unwrap().unwrap();
    other.await.unwrap().unwrap();
    let points = (0..10_000)
        .map(|second| point(None, "rx_bytes", Timestamp::from_secs(second).unwrap(), 1.0));
    store.metrics().record_many(points.collect()).await.unwrap();
}
