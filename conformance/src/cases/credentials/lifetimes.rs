//! Keys and sessions in use: recording it, revoking, ending.

use futures_util::stream::FuturesUnordered;

use crate::prelude::*;

cases! {
    stored {
        "touch-once-a-minute" => [
            the_use_of_an_api_key_is_recorded_once_a_minute,
            the_use_of_a_session_is_recorded_once_a_minute,
            moving_a_sessions_end_is_always_recorded,
        ],
        "revoke" => [
            a_revoked_api_key_stays_listed_and_works_no_longer,
            a_revoked_preauth_key_stays_listed_and_its_nodes_stay,
        ],
        "preauth-check" => [a_check_only_says_which_key_it_is],
        "sessions" => [
            a_session_ends_at_its_moment,
            sweeping_removes_exactly_the_expired,
            a_session_that_would_end_at_once_is_refused,
            an_ended_session_is_gone,
            all_sessions_of_an_owner_end_at_once,
        ],
        "session-from-node" => [
            a_session_is_of_the_user_and_of_the_node,
            it_ends_with_the_node_and_with_the_user,
            a_nodes_own_session_is_from_no_node,
        ],
    }
    once {
        "touch-once-a-minute" => [a_check_does_not_wait_for_the_record],
    }
    once_unopened {
        "touch-once-a-minute" => [a_record_is_lost_if_the_queue_is_full],
    }
}

async fn the_use_of_an_api_key_is_recorded_once_a_minute(env: &mut TestEnv, mut store: Opened) {
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    assert_eq!(key.last_used_at, None);
    let start = env.options().clock.now();
    let second = Duration::from_secs(1);
    for (after, recorded) in [
        (Duration::ZERO, 0),
        (59 * second, 0),
        (60 * second - MICROSECOND, 0),
        (60 * second, 60),
        (61 * second, 60),
        (119 * second, 60),
        (200 * second, 200),
    ] {
        env.clock().set(start.saturating_add(after));
        store.api_keys().authenticate(text.expose()).await.unwrap();
        settle(&store).await;
        let found = store.api_keys().get(key.id).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(start.saturating_add(recorded * second)));
        assert_eq!(found.revision, Revision::FIRST, "a use is no edit");
        store = env.reload(store).await;
        assert_eq!(store.api_keys().get(key.id).await.unwrap(), Some(found));
    }
    // One commit for making it, three for its uses.
    assert_eq!(store.view().serial().get(), 4);
    let audit = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(audit.items.len(), 1, "uses leave no lines");
}

async fn the_use_of_a_session_is_recorded_once_a_minute(env: &mut TestEnv, mut store: Opened) {
    let (session, text) = begin(env, &store, HOUR).await;
    let start = env.options().clock.now();
    assert_eq!(session.last_seen, start);
    let second = Duration::from_secs(1);
    for (after, recorded) in
        [(60 * second - MICROSECOND, 0), (60 * second, 60), (119 * second, 60), (120 * second, 120)]
    {
        env.clock().set(start.saturating_add(after));
        let touched = store.sessions().touch(session.id, None).await.unwrap();
        assert_eq!(touched.last_seen, start.saturating_add(recorded * second));
        assert_eq!(touched.expires_at, session.expires_at);
        store = env.reload(store).await;
        assert_eq!(store.sessions().authenticate(text.expose()).await.unwrap(), touched);
    }
    // The user, the session, and two uses.
    assert_eq!(store.view().serial().get(), 4);
}

async fn moving_a_sessions_end_is_always_recorded(env: &mut TestEnv, mut store: Opened) {
    let (session, _) = begin(env, &store, HOUR).await;
    let mut end = session.expires_at;
    for _ in 0..3 {
        env.advance(1);
        end = end.saturating_add(Duration::from_secs(1));
        let touched = store.sessions().touch(session.id, Some(end)).await.unwrap();
        assert_eq!(touched.expires_at, end);
        store = env.reload(store).await;
        assert_eq!(store.view().sessions().get(session.id), Some(&touched));
    }
    let before = store.view().serial();
    store.sessions().touch(session.id, Some(end)).await.unwrap();
    assert_eq!(store.view().serial(), before, "the end did not move");
    let now = env.options().clock.now();
    let error = store.sessions().touch(session.id, Some(now)).await.unwrap_err();
    assert_eq!(*error.kind(), InvalidArgument, "it would end at once");
    assert_eq!(store.view().serial(), before);
}

async fn a_check_does_not_wait_for_the_record(env: &mut TestEnv, store: Opened) {
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let hold = env.faults().hold_commits();
    let found = store.api_keys().authenticate(text.expose()).await.unwrap();
    assert_eq!(found.last_used_at, None);
    until_held(env).await;
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, None);
    drop(hold);
    settle(&store).await;
    let now = env.options().clock.now();
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, Some(now));
}

async fn a_record_is_lost_if_the_queue_is_full(env: &mut TestEnv) {
    let mut options = env.options();
    options.writer.queue_capacity = 1;
    options.writer.max_group = 1;
    options.writer.queue_timeout = Duration::from_millis(20);
    let store = env.open_with(options).await;
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let hold = env.faults().hold_commits();
    let mut writes: FuturesUnordered<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.users().create(local(&format!("user{n}"))).await })
        })
        .collect();
    // No write is stored, so the first answer is that of one that found no place.
    fails(writes.next().await.unwrap().unwrap(), Busy);
    store.api_keys().authenticate(text.expose()).await.unwrap();
    drop(hold);
    while let Some(write) = writes.next().await {
        assert!(write.unwrap().err().is_none_or(|error| *error.kind() == Busy));
    }
    settle(&store).await;
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, None);
    store.api_keys().authenticate(text.expose()).await.unwrap();
    settle(&store).await;
    let now = env.options().clock.now();
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, Some(now));
}

async fn a_revoked_api_key_stays_listed_and_works_no_longer(env: &mut TestEnv, store: Opened) {
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let (other, other_text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.api_keys().authenticate(text.expose()).await.unwrap();
    settle(&store).await;
    env.advance(1);
    let now = env.options().clock.now();
    let revoked = store.api_keys().revoke(key.id).await.unwrap();
    assert_eq!((revoked.revoked_at, revoked.revision.get()), (Some(now), 2));
    let store = env.reload(store).await;
    fails(store.api_keys().authenticate(text.expose()).await, PermissionDenied);
    store.api_keys().authenticate(other_text.expose()).await.unwrap();
    settle(&store).await;
    let listed = async |active_at| {
        let filter = KeyFilter { active_at, ..KeyFilter::default() };
        let page = store.api_keys().list(&filter, &PageRequest::default()).await.unwrap();
        page.items.iter().map(|key| key.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None).await.len(), 2);
    assert_eq!(listed(Some((true, now))).await, [other.id]);
    assert_eq!(listed(Some((false, now))).await, [key.id]);
    assert_eq!(store.api_keys().get(key.id).await.unwrap(), Some(revoked));
    fails(store.api_keys().revoke(key.id).await, NotFound);
    store.api_keys().delete(key.id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.api_keys().get(key.id).await.unwrap(), None);
    fails(store.api_keys().delete(key.id).await, NotFound);
    fails(store.api_keys().revoke(key.id).await, NotFound);
    assert_eq!(store.view().api_keys().len(), 1);
}

async fn a_revoked_preauth_key_stays_listed_and_its_nodes_stay(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = reusable_key(&store, alice).await;
    let node = register(&store, 1, with(&key)).await;
    let revoked = store.preauth_keys().revoke(key.id).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(env.options().clock.now()));
    let store = env.reload(store).await;
    fails(store.nodes().register(machine(2, with(&key))).await, PermissionDenied);
    let page = PageRequest::default();
    let listed = store.preauth_keys().list(&KeyFilter::default(), &page).await.unwrap();
    assert_eq!(listed.items, [revoked]);
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    fails(store.preauth_keys().revoke(key.id).await, NotFound);
    store.preauth_keys().delete(key.id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.preauth_keys().get(key.id).await.unwrap(), None);
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node));
    fails(store.preauth_keys().delete(key.id).await, NotFound);
    fails(store.nodes().register(machine(2, with(&key))).await, NotFound);
}

async fn a_check_only_says_which_key_it_is(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let once = one_time(alice);
    let (fresh, fresh_text) = store.preauth_keys().create(once.clone()).await.unwrap();
    let (used, used_text) = store.preauth_keys().create(once.clone()).await.unwrap();
    register(&store, 1, with(&used)).await;
    let expires_at = Some(env.options().clock.now().saturating_add(Duration::from_secs(1)));
    let new = NewPreAuthKey { expires_at, ..once.clone() };
    let (expired, expired_text) = store.preauth_keys().create(new).await.unwrap();
    let (revoked, revoked_text) = store.preauth_keys().create(once).await.unwrap();
    store.preauth_keys().revoke(revoked.id).await.unwrap();
    env.advance(1);
    let store = env.reload(store).await;
    let before = store.view().serial();
    for _ in 0..3 {
        for (id, text) in [
            (fresh.id, &fresh_text),
            (used.id, &used_text),
            (expired.id, &expired_text),
            (revoked.id, &revoked_text),
        ] {
            let found = store.preauth_keys().authenticate(text.expose()).await.unwrap();
            assert_eq!(found.id, id);
        }
    }
    settle(&store).await;
    assert_eq!(store.view().serial(), before, "a check writes nothing");
    let mut reasons = BTreeSet::new();
    for id in [used.id, expired.id, revoked.id] {
        let registered = store.nodes().register(machine(2, Admission::PreAuthKey(id))).await;
        reasons.insert(fails(registered, PermissionDenied).message().to_owned());
    }
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    register(&store, 2, with(&fresh)).await;
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().len(), 2);
}

async fn a_session_ends_at_its_moment(env: &mut TestEnv, store: Opened) {
    let (session, text) = begin(env, &store, HOUR).await;
    let store = env.reload(store).await;
    env.clock().set(session.expires_at.saturating_sub(MICROSECOND));
    store.sessions().authenticate(text.expose()).await.unwrap();
    store.sessions().touch(session.id, None).await.unwrap();
    let store = env.reload(store).await;
    env.clock().set(session.expires_at);
    fails(store.sessions().authenticate(text.expose()).await, PermissionDenied);
    for end in [None, Some(session.expires_at.saturating_add(HOUR))] {
        let error = store.sessions().touch(session.id, end).await.unwrap_err();
        assert_eq!(*error.kind(), NotFound, "what has ended is not prolonged");
    }
}

async fn sweeping_removes_exactly_the_expired(env: &mut TestEnv, store: Opened) {
    let mut sessions = Vec::new();
    let alice = user(&store, "alice").await;
    let now = env.options().clock.now();
    for seconds in [30, 10, 20, 20, 40] {
        let expires_at = now.saturating_add(Duration::from_secs(seconds));
        let new = session_of(SessionOwner::User(alice), expires_at);
        sessions.push(store.sessions().begin(new).await.unwrap().0);
    }
    // Moving the end counts, either way.
    let moved = Some(now.saturating_add(HOUR));
    sessions[2] = store.sessions().touch(sessions[2].id, moved).await.unwrap();
    let sooner = Some(now.saturating_add(Duration::from_secs(15)));
    sessions[4] = store.sessions().touch(sessions[4].id, sooner).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.sessions().sweep().await.unwrap(), 0);
    env.advance(20);
    assert_eq!(store.sessions().sweep().await.unwrap(), 3);
    let store = env.reload(store).await;
    let page = store.sessions().list(None, &PageRequest::default()).await.unwrap();
    assert_eq!(page.items, [sessions[0].clone(), sessions[2].clone()]);
    assert_eq!(store.sessions().sweep().await.unwrap(), 0);
    fails(store.sessions().end(sessions[1].id).await, NotFound);
}

async fn a_session_that_would_end_at_once_is_refused(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let now = env.options().clock.now();
    let new = |owner, expires_at| session_of(owner, expires_at);
    let owner = SessionOwner::User(alice);
    for end in [now, now.saturating_sub(HOUR), Timestamp::EPOCH] {
        fails(store.sessions().begin(new(owner, end)).await, InvalidArgument);
    }
    for owner in [
        SessionOwner::User(UserId::from_bytes([9; 16])),
        SessionOwner::Node(NodeId::from_bytes(*alice.as_bytes())),
    ] {
        fails(store.sessions().begin(new(owner, Timestamp::MAX)).await, NotFound);
    }
    let end = now.saturating_add(MICROSECOND);
    let (shortest, _) = store.sessions().begin(new(owner, end)).await.unwrap();
    let store = env.reload(store).await;
    let page = store.sessions().list(None, &PageRequest::default()).await.unwrap();
    assert_eq!(page.items, [shortest]);
}

async fn an_ended_session_is_gone(env: &mut TestEnv, store: Opened) {
    let (session, text) = begin(env, &store, HOUR).await;
    let (key, _) = match session.owner {
        SessionOwner::User(user) => store.preauth_keys().create(reusable(user)).await.unwrap(),
        SessionOwner::Node(_) => unreachable!("it was begun for a user"),
    };
    let node = register(&store, 1, with(&key)).await;
    let owner = SessionOwner::Node(node.id);
    let client = Some("ghostwire/1.0 (Linux)".parse().unwrap());
    let new = NewSession { owner, node: None, client, expires_at: session.expires_at };
    let (of_node, node_text) = store.sessions().begin(new).await.unwrap();
    store.sessions().end(session.id).await.unwrap();
    let store = env.reload(store).await;
    fails(store.sessions().authenticate(text.expose()).await, PermissionDenied);
    fails(store.sessions().end(session.id).await, NotFound);
    fails(store.sessions().touch(session.id, None).await, NotFound);
    assert_eq!(store.sessions().authenticate(node_text.expose()).await.unwrap(), of_node);
    let page = PageRequest::default();
    assert_eq!(store.sessions().list(Some(owner), &page).await.unwrap().items, [of_node]);
    assert!(store.sessions().list(Some(session.owner), &page).await.unwrap().items.is_empty());
}

/// A session of a new user.
async fn all_sessions_of_an_owner_end_at_once(env: &mut TestEnv, store: Opened) {
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let mut tokens = Vec::new();
    for owner in [alice, bob, alice, alice] {
        let new = session_of(SessionOwner::User(owner), at(60));
        tokens.push(store.sessions().begin(new).await.unwrap());
    }
    let store = env.reload(store).await;
    // Those that have expired are ended, too.
    env.advance(60);
    assert_eq!(store.sessions().end_all(SessionOwner::User(alice)).await.unwrap(), 3);
    let store = env.reload(store).await;
    assert_eq!(store.view().sessions().iter().collect::<Vec<_>>(), [&tokens[1].0]);
    let lines = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    let ended = lines.items.iter().filter(|line| line.action.as_str() == "session.end");
    assert_eq!(ended.count(), 3);
    let before = store.view().serial();
    for nobody in [SessionOwner::User(alice), SessionOwner::Node(NodeId::from_bytes([9; 16]))] {
        assert_eq!(store.sessions().end_all(nobody).await.unwrap(), 0);
    }
    assert_eq!(store.view().serial(), before);
}

/// A user's session that was begun from a node of the user.
async fn from_a_node(store: &Opened) -> (UserId, NodeId, Arc<Session>, Secret) {
    let alice = user(store, "alice").await;
    let node = node(store, alice, 1).await.id;
    let new = NewSession { node: Some(node), ..session_of(SessionOwner::User(alice), at(60)) };
    let (session, token) = store.sessions().begin(new).await.unwrap();
    (alice, node, session, token)
}

async fn a_session_is_of_the_user_and_of_the_node(env: &mut TestEnv, store: Opened) {
    let (alice, node, session, token) = from_a_node(&store).await;
    env.advance(1);
    let own = session_of(SessionOwner::Node(node), at(60));
    let (own, _) = store.sessions().begin(own).await.unwrap();
    let store = env.reload(store).await;
    let found = store.sessions().authenticate(token.expose()).await.unwrap();
    assert_eq!((found.owner, found.node), (SessionOwner::User(alice), Some(node)));
    let page = PageRequest::default();
    for (owner, wanted) in [
        (SessionOwner::User(alice), vec![session.clone()]),
        (SessionOwner::Node(node), vec![session.clone(), own.clone()]),
    ] {
        let listed = store.sessions().list(Some(owner), &page).await.unwrap();
        assert_eq!(listed.items, wanted, "{owner:?}");
    }
    env.advance(1);
    let moved = store.sessions().touch(session.id, Some(at(90))).await.unwrap();
    assert_eq!((moved.owner, moved.node), (session.owner, session.node));
    let store = env.reload(store).await;
    assert_eq!(store.sessions().end_all(SessionOwner::User(alice)).await.unwrap(), 1);
    assert_eq!(store.view().sessions().iter().collect::<Vec<_>>(), [&own]);
}

async fn it_ends_with_the_node_and_with_the_user(env: &mut TestEnv, store: Opened) {
    let (alice, node, _, token) = from_a_node(&store).await;
    store.nodes().delete(node).await.unwrap();
    let store = env.reload(store).await;
    fails(store.sessions().authenticate(token.expose()).await, PermissionDenied);
    assert!(store.view().sessions().is_empty());
    // Of another user: whose the node is nobody asks.
    let bob = user(&store, "bob").await;
    let node = register(&store, 2, by(bob)).await.id;
    let new = NewSession { node: Some(node), ..session_of(SessionOwner::User(alice), at(60)) };
    let (_, token) = store.sessions().begin(new).await.unwrap();
    store.users().delete(alice, false).await.unwrap();
    let store = env.reload(store).await;
    fails(store.sessions().authenticate(token.expose()).await, PermissionDenied);
    let page = PageRequest::default();
    let left = store.sessions().list(Some(SessionOwner::Node(node)), &page).await.unwrap();
    assert!(left.items.is_empty() && store.view().nodes().get(node).is_some());
}

async fn a_nodes_own_session_is_from_no_node(env: &mut TestEnv, store: Opened) {
    let (alice, node, session, _) = from_a_node(&store).await;
    let new = |owner, node: NodeId| NewSession { node: Some(node), ..session_of(owner, at(60)) };
    let own = new(SessionOwner::Node(node), node);
    fails(store.sessions().begin(own).await, InvalidArgument);
    let stranger = new(SessionOwner::User(alice), NodeId::from_bytes([9; 16]));
    fails(store.sessions().begin(stranger).await, NotFound);
    let store = env.reload(store).await;
    assert_eq!(store.view().sessions().iter().collect::<Vec<_>>(), [&session]);
}

async fn begin(env: &TestEnv, store: &Opened, length: Duration) -> (Arc<Session>, Secret) {
    let alice = user(store, "alice").await;
    let expires_at = env.options().clock.now().saturating_add(length);
    let new = session_of(SessionOwner::User(alice), expires_at);
    store.sessions().begin(new).await.unwrap()
}
