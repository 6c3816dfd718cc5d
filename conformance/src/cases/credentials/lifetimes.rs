//! Keys and sessions in use: recording it, revoking, ending.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::{ErrorKind, Store};

use crate::case::cases;
use crate::cases::credentials::secrets::{hour, microsecond, reusable, settle, user};
use crate::world::World;

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
        ],
    }
    once {
        "touch-once-a-minute" => [
            a_check_does_not_wait_for_the_record,
            a_record_is_lost_if_the_queue_is_full,
        ],
    }
}

async fn the_use_of_an_api_key_is_recorded_once_a_minute(world: &mut World) {
    let mut store = world.open().await;
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    assert_eq!(key.last_used_at, None);
    let start = world.options().clock.now();
    let second = Duration::from_secs(1);
    for (after, recorded) in [
        (Duration::ZERO, 0),
        (59 * second, 0),
        (60 * second - microsecond(), 0),
        (60 * second, 60),
        (61 * second, 60),
        (119 * second, 60),
        (200 * second, 200),
    ] {
        world.clock().set(start.saturating_add(after));
        store.api_keys().authenticate(text.expose()).await.unwrap();
        settle(&store).await;
        let found = store.api_keys().get(key.id).await.unwrap().unwrap();
        assert_eq!(found.last_used_at, Some(start.saturating_add(recorded * second)));
        assert_eq!(found.revision, Revision::FIRST, "a use is no edit");
        store = world.pass(store).await;
        assert_eq!(store.api_keys().get(key.id).await.unwrap(), Some(found));
    }
    // One commit for making it, three for its uses.
    assert_eq!(store.view().serial().get(), 4);
    let audit = store.audit().query(&AuditQuery::default(), &PageRequest::default()).await.unwrap();
    assert_eq!(audit.items.len(), 1, "uses leave no lines");
}

async fn the_use_of_a_session_is_recorded_once_a_minute(world: &mut World) {
    let mut store = world.open().await;
    let (session, text) = begin(world, &store, hour()).await;
    let start = world.options().clock.now();
    assert_eq!(session.last_seen, start);
    let second = Duration::from_secs(1);
    for (after, recorded) in [
        (60 * second - microsecond(), 0),
        (60 * second, 60),
        (119 * second, 60),
        (120 * second, 120),
    ] {
        world.clock().set(start.saturating_add(after));
        let touched = store.sessions().touch(session.id, None).await.unwrap();
        assert_eq!(touched.last_seen, start.saturating_add(recorded * second));
        assert_eq!(touched.expires_at, session.expires_at);
        store = world.pass(store).await;
        assert_eq!(store.sessions().authenticate(text.expose()).await.unwrap(), touched);
    }
    // The user, the session, and two uses.
    assert_eq!(store.view().serial().get(), 4);
}

async fn moving_a_sessions_end_is_always_recorded(world: &mut World) {
    let mut store = world.open().await;
    let (session, _) = begin(world, &store, hour()).await;
    let mut end = session.expires_at;
    for _ in 0..3 {
        world.advance(1);
        end = end.saturating_add(Duration::from_secs(1));
        let touched = store.sessions().touch(session.id, Some(end)).await.unwrap();
        assert_eq!(touched.expires_at, end);
        store = world.pass(store).await;
        assert_eq!(store.view().sessions().get(session.id), Some(&touched));
    }
    let before = store.view().serial();
    store.sessions().touch(session.id, Some(end)).await.unwrap();
    assert_eq!(store.view().serial(), before, "the end did not move");
    let now = world.options().clock.now();
    let error = store.sessions().touch(session.id, Some(now)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "it would end at once");
    assert_eq!(store.view().serial(), before);
}

async fn a_check_does_not_wait_for_the_record(world: &mut World) {
    let store = world.open().await;
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let hold = world.faults().hold_commits();
    let found = store.api_keys().authenticate(text.expose()).await.unwrap();
    assert_eq!(found.last_used_at, None);
    while world.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, None);
    drop(hold);
    settle(&store).await;
    let now = world.options().clock.now();
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, Some(now));
}

async fn a_record_is_lost_if_the_queue_is_full(world: &mut World) {
    let mut options = world.options();
    options.writer.queue_capacity = 1;
    options.writer.max_group = 1;
    options.writer.queue_timeout = Duration::from_millis(20);
    let store = world.open_with(options).await;
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let hold = world.faults().hold_commits();
    let mut writes: FuturesUnordered<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.users().create(user(&format!("user{n}"))).await })
        })
        .collect();
    // No write is stored, so the first answer is that of one that found no place.
    let error = writes.next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy);
    store.api_keys().authenticate(text.expose()).await.unwrap();
    drop(hold);
    while let Some(write) = writes.next().await {
        assert!(write.unwrap().err().is_none_or(|error| *error.kind() == ErrorKind::Busy));
    }
    settle(&store).await;
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, None);
    store.api_keys().authenticate(text.expose()).await.unwrap();
    settle(&store).await;
    let now = world.options().clock.now();
    assert_eq!(store.view().api_keys().get(key.id).unwrap().last_used_at, Some(now));
}

async fn a_revoked_api_key_stays_listed_and_works_no_longer(world: &mut World) {
    let store = world.open().await;
    let (key, text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    let (other, other_text) = store.api_keys().create(NewApiKey::default()).await.unwrap();
    store.api_keys().authenticate(text.expose()).await.unwrap();
    settle(&store).await;
    world.advance(1);
    let now = world.options().clock.now();
    let revoked = store.api_keys().revoke(key.id).await.unwrap();
    assert_eq!((revoked.revoked_at, revoked.revision.get()), (Some(now), 2));
    let store = world.pass(store).await;
    let error = store.api_keys().authenticate(text.expose()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
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
    let error = store.api_keys().revoke(key.id).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    store.api_keys().delete(key.id).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(store.api_keys().get(key.id).await.unwrap(), None);
    for error in [
        store.api_keys().delete(key.id).await.unwrap_err(),
        store.api_keys().revoke(key.id).await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(store.view().api_keys().len(), 1);
}

async fn a_revoked_preauth_key_stays_listed_and_its_nodes_stay(world: &mut World) {
    let store = world.open().await;
    let alice = store.users().create(user("alice")).await.unwrap().id;
    let (key, _) = store.preauth_keys().create(reusable(alice)).await.unwrap();
    let node = store.nodes().register(registration(1, key.id)).await.unwrap();
    let revoked = store.preauth_keys().revoke(key.id).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(world.options().clock.now()));
    let store = world.pass(store).await;
    let error = store.nodes().register(registration(2, key.id)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    let page = PageRequest::default();
    let listed = store.preauth_keys().list(&KeyFilter::default(), &page).await.unwrap();
    assert_eq!(listed.items, [revoked]);
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    let error = store.preauth_keys().revoke(key.id).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    store.preauth_keys().delete(key.id).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(store.preauth_keys().get(key.id).await.unwrap(), None);
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node));
    let error = store.preauth_keys().delete(key.id).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    let error = store.nodes().register(registration(2, key.id)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
}

async fn a_check_only_says_which_key_it_is(world: &mut World) {
    let store = world.open().await;
    let alice = store.users().create(user("alice")).await.unwrap().id;
    let once = NewPreAuthKey { user: Some(alice), ..NewPreAuthKey::default() };
    let (fresh, fresh_text) = store.preauth_keys().create(once.clone()).await.unwrap();
    let (used, used_text) = store.preauth_keys().create(once.clone()).await.unwrap();
    store.nodes().register(registration(1, used.id)).await.unwrap();
    let expires_at = Some(world.options().clock.now().saturating_add(Duration::from_secs(1)));
    let new = NewPreAuthKey { expires_at, ..once.clone() };
    let (expired, expired_text) = store.preauth_keys().create(new).await.unwrap();
    let (revoked, revoked_text) = store.preauth_keys().create(once).await.unwrap();
    store.preauth_keys().revoke(revoked.id).await.unwrap();
    world.advance(1);
    let store = world.pass(store).await;
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
    let mut reasons = std::collections::BTreeSet::new();
    for id in [used.id, expired.id, revoked.id] {
        let error = store.nodes().register(registration(2, id)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
        reasons.insert(error.message().to_owned());
    }
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    store.nodes().register(registration(2, fresh.id)).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(store.view().nodes().len(), 2);
}

async fn a_session_ends_at_its_moment(world: &mut World) {
    let store = world.open().await;
    let (session, text) = begin(world, &store, hour()).await;
    let store = world.pass(store).await;
    world.clock().set(session.expires_at.saturating_sub(microsecond()));
    store.sessions().authenticate(text.expose()).await.unwrap();
    store.sessions().touch(session.id, None).await.unwrap();
    let store = world.pass(store).await;
    world.clock().set(session.expires_at);
    let error = store.sessions().authenticate(text.expose()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    for end in [None, Some(session.expires_at.saturating_add(hour()))] {
        let error = store.sessions().touch(session.id, end).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound, "what has ended is not prolonged");
    }
}

async fn sweeping_removes_exactly_the_expired(world: &mut World) {
    let store = world.open().await;
    let mut sessions = Vec::new();
    let alice = store.users().create(user("alice")).await.unwrap().id;
    let now = world.options().clock.now();
    for seconds in [30, 10, 20, 20, 40] {
        let expires_at = now.saturating_add(Duration::from_secs(seconds));
        let new = NewSession { owner: SessionOwner::User(alice), client: None, expires_at };
        sessions.push(store.sessions().begin(new).await.unwrap().0);
    }
    // Moving the end counts, either way.
    let moved = Some(now.saturating_add(hour()));
    sessions[2] = store.sessions().touch(sessions[2].id, moved).await.unwrap();
    let sooner = Some(now.saturating_add(Duration::from_secs(15)));
    sessions[4] = store.sessions().touch(sessions[4].id, sooner).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(store.sessions().sweep().await.unwrap(), 0);
    world.advance(20);
    assert_eq!(store.sessions().sweep().await.unwrap(), 3);
    let store = world.pass(store).await;
    let page = store.sessions().list(None, &PageRequest::default()).await.unwrap();
    assert_eq!(page.items, [sessions[0].clone(), sessions[2].clone()]);
    assert_eq!(store.sessions().sweep().await.unwrap(), 0);
    let error = store.sessions().end(sessions[1].id).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
}

async fn a_session_that_would_end_at_once_is_refused(world: &mut World) {
    let store = world.open().await;
    let alice = store.users().create(user("alice")).await.unwrap().id;
    let now = world.options().clock.now();
    let new = |owner, expires_at| NewSession { owner, client: None, expires_at };
    let owner = SessionOwner::User(alice);
    for end in [now, now.saturating_sub(hour()), Timestamp::EPOCH] {
        let error = store.sessions().begin(new(owner, end)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    }
    for owner in [
        SessionOwner::User(UserId::from_bytes([9; 16])),
        SessionOwner::Node(NodeId::from_bytes(*alice.as_bytes())),
    ] {
        let error = store.sessions().begin(new(owner, Timestamp::MAX)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }
    let end = now.saturating_add(microsecond());
    let (shortest, _) = store.sessions().begin(new(owner, end)).await.unwrap();
    let store = world.pass(store).await;
    let page = store.sessions().list(None, &PageRequest::default()).await.unwrap();
    assert_eq!(page.items, [shortest]);
}

async fn an_ended_session_is_gone(world: &mut World) {
    let store = world.open().await;
    let (session, text) = begin(world, &store, hour()).await;
    let (key, _) = match session.owner {
        SessionOwner::User(user) => store.preauth_keys().create(reusable(user)).await.unwrap(),
        SessionOwner::Node(_) => unreachable!("it was begun for a user"),
    };
    let node = store.nodes().register(registration(1, key.id)).await.unwrap();
    let owner = SessionOwner::Node(node.id);
    let client = Some("ghostwire/1.0 (Linux)".parse().unwrap());
    let new = NewSession { owner, client, expires_at: session.expires_at };
    let (of_node, node_text) = store.sessions().begin(new).await.unwrap();
    store.sessions().end(session.id).await.unwrap();
    let store = world.pass(store).await;
    let error = store.sessions().authenticate(text.expose()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    for error in [
        store.sessions().end(session.id).await.unwrap_err(),
        store.sessions().touch(session.id, None).await.unwrap_err(),
    ] {
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }
    assert_eq!(store.sessions().authenticate(node_text.expose()).await.unwrap(), of_node);
    let page = PageRequest::default();
    assert_eq!(store.sessions().list(Some(owner), &page).await.unwrap().items, [of_node]);
    assert!(store.sessions().list(Some(session.owner), &page).await.unwrap().items.is_empty());
}

/// A session of a new user.
async fn begin(world: &World, store: &Arc<dyn Store>, length: Duration) -> (Arc<Session>, Secret) {
    let alice = store.users().create(user("alice")).await.unwrap().id;
    let expires_at = world.options().clock.now().saturating_add(length);
    let new = NewSession { owner: SessionOwner::User(alice), client: None, expires_at };
    store.sessions().begin(new).await.unwrap()
}

fn registration(n: u8, key: PreAuthKeyId) -> Registration {
    Registration {
        machine_key: MachineKey::from_bytes([n; 32]).unwrap(),
        node_key: NodeKey::from_bytes([n; 32]).unwrap(),
        disco_key: None,
        hostname: format!("machine-{n}").parse().unwrap(),
        host_info: HostInfo::default(),
        admission: Admission::PreAuthKey(key),
        expires_at: None,
    }
}
