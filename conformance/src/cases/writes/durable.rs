//! What `Ok` means, and when.

use crate::prelude::*;

cases! {
    stored {
        "durable-reply" => [every_kind_of_write_is_there_afterwards],
        "all-or-nothing" => [
            a_removal_takes_all_of_its_parts,
            a_registration_that_was_not_stored_used_nothing_up,
            a_batch_of_8000_points_is_whole,
        ],
        "time-forward" => [
            a_clock_that_moves_back_dates_nothing_back,
            a_write_under_a_clock_that_is_ahead_dates_later_ones,
            what_has_expired_stays_expired,
        ],
        "ids" => [
            ids_tell_when_they_were_drawn,
            ids_are_in_order_under_a_clock_that_moves_back,
            ids_are_never_used_again,
        ],
    }
    once_unopened {
        "durable-reply" => [each_reply_survives_a_crash_right_after_it],
    }
}

async fn every_kind_of_write_is_there_afterwards(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let point = point(Some(made.node.id), "rx_bytes", env.clock().now(), 0.1);
    store.metrics().record(point.clone()).await.unwrap();
    let entry = AuditEntry { action: text("backup.made"), ..entry(5, env.clock().now()) };
    store.audit().append(vec![entry.clone()]).await.unwrap();

    let store = env.reload(store).await;
    made.check(&store).await;
    let query = all_points();
    let found = store.metrics().range(&query, &PageRequest::default()).await.unwrap();
    assert_eq!(found.items, [point]);
    let wanted = AuditQuery { actor: Some(entry.actor.clone()), ..AuditQuery::default() };
    let found = store.audit().query(&wanted, &PageRequest::default()).await.unwrap();
    assert_eq!(found.items, [Arc::new(entry)]);
}

async fn each_reply_survives_a_crash_right_after_it(env: &mut TestEnv) {
    for round in 0..10 {
        let store = env.open_with(never_flushing(env)).await;
        assert_eq!(store.view().users().len(), round, "before round {round}");
        let made = create(&store, &format!("user{round}")).await;
        env.crash_place().await;
        drop(store);
        let store = env.open_with(never_flushing(env)).await;
        let found = store.users().get(made.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&made), "in round {round}");
        let info = store.info();
        // A side that follows writes its rows at once.
        let is_flushed = info.backend.shared || env.place().is_of_two();
        assert!(is_flushed || info.dirty_rows > 0, "nothing was flushed meanwhile");
        env.crash_place().await;
        drop(store);
    }
}

async fn a_removal_takes_all_of_its_parts(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let serial = store.view().serial();
    store.users().delete(made.user.id, true).await.unwrap();
    assert_eq!(store.view().serial(), serial.next(), "one command, one commit");
    let store = env.reload(store).await;
    let view = store.view();
    assert!(view.users().is_empty() && view.nodes().is_empty() && view.routes().is_empty());
    assert!(view.preauth_keys().is_empty() && view.api_keys().is_empty());
    assert!(view.sessions().is_empty());
    assert!(view.presence().get(made.node.id).is_none());
    // What was not the user's stays.
    assert_eq!(view.dns_records().len(), 1);
    assert_eq!(view.policies().len(), 1);
}

async fn a_registration_that_was_not_stored_used_nothing_up(env: &mut TestEnv, mut store: Opened) {
    let alice = create(&store, "alice").await;
    let key = one_time_key(&store, alice.id).await;
    let admission = || Admission::PreAuthKey(key.id);
    for (fault, kind) in [(FaultKind::Before, Unavailable), (FaultKind::DiskFull, Exhausted)] {
        let lines = audit_lines(&store).await;
        env.faults().fail_next_commits(1, fault);
        fails(store.nodes().register(machine(1, admission())).await, kind);
        store = env.reload(store).await;
        assert!(store.view().nodes().is_empty());
        assert_eq!(store.preauth_keys().get(key.id).await.unwrap(), Some(key.clone()));
        assert_eq!(audit_lines(&store).await, lines);
    }
    let lines = audit_lines(&store).await;
    env.faults().fail_next_commits(1, FaultKind::After);
    let node = register(&store, 1, admission()).await;
    store = env.reload(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    let used = store.preauth_keys().get(key.id).await.unwrap().unwrap();
    assert_eq!(used.used_at, Some(node.created_at));
    assert_eq!(audit_lines(&store).await, lines + 1);
    // The first free address: the attempts that failed took none.
    assert_eq!(node.ipv4, Some("100.64.0.1".parse().unwrap()));
}

async fn a_batch_of_8000_points_is_whole(env: &mut TestEnv, store: Opened) {
    const POINTS: i64 = 8_000;
    let point =
        |n| point(None, "rx_bytes", Timestamp::from_micros(BEGINNING + n).unwrap(), n as f64);
    let batch = || (0..POINTS).map(point).collect::<Vec<_>>();
    env.faults().fail_next_commits(1, FaultKind::Before);
    fails(store.metrics().record_many(batch()).await, Unavailable);
    let query = all_points();
    assert_eq!(store.metrics().aggregate(&query).await.unwrap(), None);
    store.metrics().record_many(batch()).await.unwrap();
    let store = env.reload(store).await;
    let found = store.metrics().aggregate(&query).await.unwrap().unwrap();
    assert_eq!(found.count, POINTS as u64);
    assert_eq!((found.min, found.max), (0.0, (POINTS - 1) as f64));
    assert_eq!(found.sum, (POINTS * (POINTS - 1) / 2) as f64);
}

async fn a_clock_that_moves_back_dates_nothing_back(env: &mut TestEnv, store: Opened) {
    let alice = create(&store, "alice").await;
    let node = register(&store, 1, by(alice.id)).await;
    let last = node.created_at;
    assert_eq!(last, at(0));

    let store = env.reload(store).await;
    env.clock().set(at(-100_000_000));
    let bob = create(&store, "bob").await;
    assert_eq!((bob.created_at, bob.updated_at), (last, last));
    let patch = UserPatch { display_name: Patch::Set(text("Alice")), ..UserPatch::default() };
    let alice = store.users().update(alice.id, patch, None).await.unwrap();
    assert_eq!(alice.updated_at, last);
    let session = SessionNumber::new(1).unwrap();
    let presence = store.presence().connect(node.id, session, Update::Keep).await.unwrap();
    assert_eq!(presence.last_seen, Some(last));

    let store = env.reload(store).await;
    let all = PageRequest::first(Limit::MAX);
    let lines = store.audit().query(&AuditQuery::default(), &all).await.unwrap().items;
    assert!(lines.iter().all(|line| line.at == last), "{lines:?}");
    let carol = create(&store, "carol").await;
    assert_eq!(carol.created_at, last, "the store remembers, not only the process");
}

async fn a_write_under_a_clock_that_is_ahead_dates_later_ones(env: &mut TestEnv, store: Opened) {
    // No more than a clock may be ahead.
    const AHEAD: i64 = 1_800;
    env.clock().step(at(AHEAD));
    let ahead = create(&store, "ahead").await;
    assert_eq!(ahead.created_at, at(AHEAD));
    env.clock().step(at(0));
    let store = env.reload(store).await;
    let later = create(&store, "later").await;
    assert_eq!(later.created_at, at(AHEAD));
    env.clock().set(at(AHEAD + 1));
    let passed = create(&store, "passed").await;
    assert_eq!(passed.created_at, at(AHEAD + 1), "that moment has passed");
    let store = env.reload(store).await;
    let times: Vec<_> = store.view().users().iter().map(|user| user.created_at).collect();
    assert!(times.is_sorted(), "{times:?}");
}

async fn what_has_expired_stays_expired(env: &mut TestEnv, store: Opened) {
    let new = NewApiKey { expires_at: Some(at(10)), ..NewApiKey::default() };
    let (_, secret) = store.api_keys().create(new).await.unwrap();
    store.api_keys().authenticate(secret.expose()).await.unwrap();
    env.clock().set(at(10));
    create(&store, "alice").await;
    env.clock().set(at(0));
    let store = env.reload(store).await;
    fails(store.api_keys().authenticate(secret.expose()).await, PermissionDenied);
}

async fn ids_tell_when_they_were_drawn(env: &mut TestEnv, mut store: Opened) {
    let mut seen = Vec::new();
    for round in 0..5 {
        let now = env.clock().now();
        let user = create(&store, &format!("user{round}")).await;
        let node = register(&store, round + 1, by(user.id)).await;
        let prefix = format!("10.{round}.0.0/16").parse().unwrap();
        let routes = store.routes().advertise(node.id, vec![prefix], None).await.unwrap();
        let (api_key, _) = store.api_keys().create(NewApiKey::default()).await.unwrap();
        let ids = [
            *user.id.as_bytes(),
            *node.id.as_bytes(),
            *routes[0].id.as_bytes(),
            *api_key.id.as_bytes(),
        ];
        for id in ids {
            assert_eq!(id[6] >> 4, 7, "the version");
            assert_eq!(id[8] >> 6, 0b10, "the variant");
            let millis = id[..6].iter().fold(0i64, |millis, byte| millis << 8 | i64::from(*byte));
            assert_eq!(millis, now.as_millis());
        }
        seen.push(ids);
        store = env.reload(store).await;
        env.clock().advance(Duration::from_millis(1));
    }
    for kind in 0..4 {
        assert!(seen.is_sorted_by(|earlier, later| earlier[kind] < later[kind]));
    }
}

async fn ids_are_in_order_under_a_clock_that_moves_back(env: &mut TestEnv, store: Opened) {
    let first = create(&store, "first").await;
    env.clock().set(at(-3600));
    let store = env.reload(store).await;
    let second = create(&store, "second").await;
    assert_eq!(first.id.as_bytes()[..6], second.id.as_bytes()[..6], "dated like the user itself");
    env.clock().set(at(1));
    let third = create(&store, "third").await;
    assert!(third.id > first.id && third.id > second.id);
}

async fn ids_are_never_used_again(env: &mut TestEnv, mut store: Opened) {
    let mut seen = BTreeSet::new();
    let mut version = None;
    for _ in 0..4 {
        for _ in 0..25 {
            let user = create(&store, "again").await;
            assert!(seen.insert(user.id));
            store.users().delete(user.id, false).await.unwrap();
        }
        let policy = store.policies().swap(version, DocumentText::empty()).await.unwrap();
        assert_eq!(
            Some(policy.version.get()),
            Some(version.map_or(1, PolicyVersion::get) + u64::from(version.is_some()))
        );
        version = Some(policy.version);
        store.policies().prune(1).await.unwrap();
        store = env.reload(store).await;
    }
    assert_eq!(store.view().policies().len(), 1);
    assert_eq!(store.view().policies().current().unwrap().version.get(), 4);
}
