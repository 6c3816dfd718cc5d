//! Who is online: numbered sessions, and what survives a restart.

use crate::prelude::*;

cases! {
    stored {
        "session-fencing" => [
            an_old_sessions_offline_is_ignored,
            a_newer_session_is_always_applied,
            the_current_session_is_applied_while_it_is_up,
            a_closed_session_is_not_opened_again,
            a_session_is_not_opened_twice,
            endpoints_stay_unless_new_ones_are_given,
            sessions_of_nodes_are_apart,
            of_messages_at_once_the_newest_session_counts,
        ],
        "endpoints" => [
            no_endpoint_was_seen_later_than_it_was_told_of,
            one_endpoint_comes_and_goes_by_itself,
            an_endpoint_says_how_it_was_found,
            of_too_many_endpoints_the_oldest_gives_way,
            messages_about_one_endpoint_are_heartbeats,
        ],
        "no-resurrection" => [
            messages_for_a_node_that_is_gone_are_not_found,
            a_late_heartbeat_does_not_resurrect_a_reaped_node,
        ],
        "heartbeat-is-a-write" => [
            each_applied_message_is_one_commit_of_one_row,
            a_heartbeat_changes_neither_node_nor_audit_trail,
        ],
        "presence-after-restart" => [whoever_was_online_is_online_after_a_crash],
    }
    stored_unopened {
        "presence-after-restart" => [after_disconnect_all_nobody_is_online_until_a_newer_session],
    }
    once_unopened {
        "session-fencing" => [a_session_number_has_a_limit],
    }
}

async fn an_old_sessions_offline_is_ignored(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    env.advance(1);
    let current = connect(&store, id, 2).await;
    let store = env.reload(store).await;
    env.advance(1);
    assert_eq!(idle(&store, store.presence().disconnect(id, session(1))).await, current);
    let call = store.presence().heartbeat(id, session(1), Update::Set(endpoints(&["1.2.3.4:5"])));
    assert_eq!(idle(&store, call).await, current);
    assert!(store.view().presence().is_online(id));
    // The current one's is applied.
    let gone = disconnect(&store, id, 2).await;
    assert_eq!((gone.online, gone.last_seen), (false, Some(env.clock().now())));
    let store = env.reload(store).await;
    assert_eq!(store.presence().get(id).await.unwrap(), Some(gone));
}

async fn a_newer_session_is_always_applied(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    // Whatever comes first: each kind of message, with any number, and 0 is one.
    let mut ids = Vec::new();
    for number in 1..=3 {
        ids.push(node(&store, alice, number).await.id);
        assert_eq!(store.presence().get(ids[ids.len() - 1]).await.unwrap(), None);
    }
    for numbers in [[0, 1], [7, 9], [10, i64::MAX as u64]] {
        for number in numbers {
            env.advance(1);
            let now = Some(env.clock().now());
            let answers = [
                (connect(&store, ids[0], number).await, true),
                (heartbeat(&store, ids[1], number).await, true),
                (disconnect(&store, ids[2], number).await, false),
            ];
            store = env.reload(store).await;
            for (id, (answer, online)) in ids.iter().zip(answers) {
                let expected = Presence {
                    session: session(number),
                    online,
                    last_seen: now,
                    ..Presence::new(*id)
                };
                assert_eq!(*answer, expected);
                assert_eq!(store.presence().get(*id).await.unwrap(), Some(answer));
            }
        }
        // Down and up again by a heartbeat of a newer session alone.
        disconnect(&store, ids[1], numbers[1]).await;
    }
}

async fn the_current_session_is_applied_while_it_is_up(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 4).await;
    let store = env.reload(store).await;
    env.advance(30);
    let beat = heartbeat(&store, id, 4).await;
    assert_eq!((beat.online, beat.last_seen), (true, Some(env.clock().now())));
    let store = env.reload(store).await;
    env.advance(30);
    let gone = disconnect(&store, id, 4).await;
    assert_eq!((gone.online, gone.last_seen), (false, Some(env.clock().now())));
    let store = env.reload(store).await;
    assert_eq!(store.presence().get(id).await.unwrap(), Some(gone.clone()));
    env.advance(30);
    assert_eq!(idle(&store, store.presence().disconnect(id, session(4))).await, gone);
}

async fn a_closed_session_is_not_opened_again(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 4).await;
    let gone = disconnect(&store, id, 4).await;
    let store = env.reload(store).await;
    env.advance(60);
    let given = || Update::Set(endpoints(&["1.2.3.4:5"]));
    for number in [3, 4] {
        assert_eq!(
            idle(&store, store.presence().heartbeat(id, session(number), given())).await,
            gone
        );
        assert_eq!(
            idle(&store, store.presence().connect(id, session(number), given())).await,
            gone
        );
        assert_eq!(idle(&store, store.presence().disconnect(id, session(number))).await, gone);
    }
    assert!(heartbeat(&store, id, 5).await.online);
}

async fn a_session_is_not_opened_twice(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let first = connect(&store, id, 4).await;
    let store = env.reload(store).await;
    env.advance(60);
    let given = Update::Set(endpoints(&["1.2.3.4:5"]));
    assert_eq!(idle(&store, store.presence().connect(id, session(4), given)).await, first);
}

async fn endpoints_stay_unless_new_ones_are_given(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let (some, others) =
        (endpoints(&["192.0.2.1:41641", "[2001:db8::1]:7"]), endpoints(&["192.0.2.2:1"]));
    let given = store.presence().connect(id, session(1), Update::Set(some.clone())).await.unwrap();
    assert_eq!(given.endpoints, some);
    let store = env.reload(store).await;
    assert_eq!(heartbeat(&store, id, 1).await.endpoints, some);
    assert_eq!(disconnect(&store, id, 1).await.endpoints, some);
    assert_eq!(connect(&store, id, 2).await.endpoints, some);
    let store = env.reload(store).await;
    let call = store.presence().heartbeat(id, session(2), Update::Set(others.clone()));
    assert_eq!(call.await.unwrap().endpoints, others);
    // None at all is a list, too, and stays one.
    let none = Update::Set(EndpointList::empty());
    let emptied = store.presence().heartbeat(id, session(2), none).await.unwrap();
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    assert_eq!(emptied.endpoints.len(), 0);
    assert_eq!(store.presence().get(id).await.unwrap(), Some(emptied));
}

async fn sessions_of_nodes_are_apart(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    connect(&store, a, 9).await;
    connect(&store, b, 1).await;
    disconnect(&store, b, 1).await;
    let store = env.reload(store).await;
    assert_eq!(online(&store).await, [a]);
    connect(&store, b, 2).await;
    disconnect(&store, a, 9).await;
    let store = env.reload(store).await;
    assert_eq!(online(&store).await, [b]);
}

async fn of_messages_at_once_the_newest_session_counts(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let calls = (1..=32).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            connect(&store, id, number).await;
            if number < 32 {
                disconnect(&store, id, number).await;
            }
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        call.await.unwrap();
    }
    let store = env.reload(store).await;
    let presence = store.presence().get(id).await.unwrap().unwrap();
    assert_eq!((presence.session, presence.online), (session(32), true));
}

async fn messages_for_a_node_that_is_gone_are_not_found(env: &mut TestEnv, store: Opened) {
    let gone = some_node(&store).await.id;
    connect(&store, gone, 1).await;
    store.nodes().delete(gone).await.unwrap();
    let store = env.reload(store).await;
    for id in [gone, NodeId::from_bytes([9; 16])] {
        for number in [1, 2] {
            let number = session(number);
            let presence = store.presence();
            refused(&store, presence.connect(id, number, Update::Keep), NotFound).await;
            refused(&store, presence.heartbeat(id, number, Update::Keep), NotFound).await;
            refused(&store, presence.disconnect(id, number), NotFound).await;
        }
        assert_eq!(store.presence().get(id).await.unwrap(), None);
        assert_eq!(store.nodes().get(id).await.unwrap(), None);
    }
}

async fn a_late_heartbeat_does_not_resurrect_a_reaped_node(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let new = NewPreAuthKey { user: Some(alice), ephemeral: true, ..NewPreAuthKey::default() };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    let id = register(&store, 1, with(&key)).await.id;
    connect(&store, id, 1).await;
    disconnect(&store, id, 1).await;
    env.advance(1800);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), [id]);
    let store = env.reload(store).await;
    for number in [1, 2] {
        refused(&store, store.presence().heartbeat(id, session(number), Update::Keep), NotFound)
            .await;
    }
    let store = env.reload(store).await;
    assert!(store.view().nodes().is_empty() && store.view().presence().is_empty());
    assert!(store.view().addresses().is_empty());
}

async fn each_applied_message_is_one_commit_of_one_row(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let begin = store.view().serial();
    let mut watch = store.watch(begin);
    let mut serial = begin;
    let mut kinds = Vec::new();
    connect(&store, id, 1).await;
    for message in 0..3 {
        serial = serial.next();
        assert_eq!(store.view().serial(), serial);
        let commit = watch.next().await.unwrap().unwrap();
        assert_eq!(commit.serial, serial);
        assert_eq!(commit.changes.len(), 1);
        assert_eq!(commit.changes[0].handle, EntityId::Presence(id));
        kinds.push(commit.changes[0].kind);
        env.advance(1);
        if message < 2 {
            heartbeat(&store, id, 1).await;
        }
    }
    assert_eq!(kinds, [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Updated]);
    // What is not applied is none.
    idle(&store, store.presence().heartbeat(id, session(0), Update::Keep)).await;
    let last = heartbeat(&store, id, 1).await;
    let store = env.reload(store).await;
    assert_eq!(store.view().serial(), serial.next());
    assert_eq!(store.presence().get(id).await.unwrap(), Some(last));
    assert_eq!(store.view().presence().len(), 1);
}

async fn a_heartbeat_changes_neither_node_nor_audit_trail(env: &mut TestEnv, store: Opened) {
    let first = some_node(&store).await;
    let before = store.digests().await.unwrap();
    connect(&store, first.id, 1).await;
    env.advance(1);
    heartbeat(&store, first.id, 1).await;
    env.advance(1);
    disconnect(&store, first.id, 1).await;
    connect(&store, first.id, 2).await;
    store.presence().touch(first.id, env.clock().now().saturating_add(MICROSECOND)).await.unwrap();
    let store = env.reload(store).await;
    let after = store.digests().await.unwrap();
    assert_ne!(after.state, before.state);
    assert_eq!((after.audit, after.metrics), (before.audit, before.metrics));
    assert_eq!(audit_of(&store, first.id).await, ["node.register by system"]);
    assert_eq!(store.nodes().get(first.id).await.unwrap(), Some(first));
}

async fn whoever_was_online_is_online_after_a_crash(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let new = NewPreAuthKey { user: Some(alice), ephemeral: true, ..NewPreAuthKey::default() };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    let a = register(&store, 1, with(&key)).await.id;
    let b = node(&store, alice, 2).await.id;
    for id in [a, b] {
        connect(&store, id, 5).await;
        env.advance(1);
        carry(&store, id, &["10.1.0.0/16"]).await;
    }
    let before = store.presence().get(a).await.unwrap();
    let store = env.reload(store).await;
    let store = env.crash(store).await;
    assert_eq!(store.presence().get(a).await.unwrap(), before);
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(a));
    env.advance(1_000_000);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let mut both = vec![a, b];
    both.sort();
    assert_eq!(online(&store).await, both);
    // Until a disconnect of that session, which is still the current one.
    disconnect(&store, a, 5).await;
    let store = env.reload(store).await;
    assert_eq!(online(&store).await, [b]);
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(b));
}

async fn after_disconnect_all_nobody_is_online_until_a_newer_session(env: &mut TestEnv) {
    let store = env.open().await;
    let alice = user(&store, "alice").await;
    let mut ids = Vec::new();
    for number in 1..=4 {
        let id = node(&store, alice, number).await.id;
        env.advance(1);
        if number < 4 {
            connect(&store, id, u64::from(number)).await;
            carry(&store, id, &["10.1.0.0/16"]).await;
        }
        ids.push(id);
    }
    disconnect(&store, ids[2], 3).await;
    let before: Vec<_> = store.view().presence().iter().cloned().collect();
    let store = env.reload(store).await;
    let store = env.crash(store).await;
    env.advance(60);
    assert_eq!(store.presence().disconnect_all().await.unwrap(), 2);
    let store = env.reload(store).await;
    let after: Vec<_> = store.view().presence().iter().cloned().collect();
    let now = Some(env.clock().now());
    let offline: Vec<_> = before
        .iter()
        .map(|presence| {
            let absent_since = presence.online.then_some(now).flatten();
            Arc::new(Presence { online: false, absent_since, ..Presence::clone(presence) })
        })
        .collect();
    assert_eq!(after, offline);
    assert_eq!(online(&store).await, []);
    assert_eq!(primary(&store, "10.1.0.0/16").await, None);
    assert_eq!(idle(&store, store.presence().disconnect_all()).await, 0);
    // Sessions from before are over; newer ones are applied, and routes follow.
    for (id, number) in ids.iter().zip(1..=2) {
        idle(&store, store.presence().heartbeat(*id, session(number), Update::Keep)).await;
        idle(&store, store.presence().connect(*id, session(number), Update::Keep)).await;
    }
    heartbeat(&store, ids[1], 3).await;
    let store = env.reload(store).await;
    assert_eq!(online(&store).await, [ids[1]]);
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(ids[1]));
}

async fn a_session_number_has_a_limit(_: &mut TestEnv) {
    assert_eq!(session(i64::MAX as u64).get(), i64::MAX as u64);
    for number in [1 << 63, u64::MAX] {
        fails(SessionNumber::new(number), InvalidArgument);
    }
}

fn endpoint(addr: &str, seen: i64) -> Endpoint {
    Endpoint::new(addr.parse().unwrap(), at(seen))
}

async fn put(store: &Opened, id: NodeId, endpoint: Endpoint) -> EndpointList {
    store.presence().put_endpoint(id, session(1), endpoint).await.unwrap().endpoints.clone()
}

async fn one_endpoint_comes_and_goes_by_itself(env: &mut TestEnv, store: Opened) {
    env.advance(100);
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    let (one, two) = (endpoint("192.0.2.1:1", 5), endpoint("[2001:db8::1]:1", 5));
    put(&store, id, two).await;
    assert_eq!(put(&store, id, one).await.as_slice(), [one, two]);
    let store = env.reload(store).await;
    // Seen again, it is the same one; what was seen earlier changes nothing.
    let again = endpoint("192.0.2.1:1", 7);
    assert_eq!(put(&store, id, again).await.as_slice(), [again, two]);
    assert_eq!(put(&store, id, one).await.as_slice(), [again, two]);
    let left = store.presence().remove_endpoint(id, session(1), two.addr).await.unwrap();
    assert_eq!(left.endpoints.as_slice(), [again]);
    let store = env.reload(store).await;
    assert_eq!(store.presence().get(id).await.unwrap(), Some(left.clone()));
    let same = store.presence().remove_endpoint(id, session(1), two.addr).await.unwrap();
    assert_eq!(same.endpoints, left.endpoints);
    let none = store.presence().remove_endpoint(id, session(1), one.addr).await.unwrap();
    assert!(none.endpoints.is_empty());
}

async fn no_endpoint_was_seen_later_than_it_was_told_of(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    // By a client whose clock is ahead.
    let now = env.clock().now();
    let (ahead, told) =
        (endpoint("192.0.2.1:1", 90), Endpoint::new(([192, 0, 2, 1], 1).into(), now));
    assert_eq!(put(&store, id, ahead).await.as_slice(), [told]);
    env.advance(5);
    let store = env.reload(store).await;
    // It is set right, and the endpoint is heard of again.
    let again = endpoint("192.0.2.1:1", 3);
    assert_eq!(put(&store, id, again).await.as_slice(), [again]);
}

async fn an_endpoint_says_how_it_was_found(env: &mut TestEnv, store: Opened) {
    env.advance(100);
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    let words = ["unknown", "local", "stun", "portmap", "stun4localport", "explicitconf", "relay"];
    let all = (0..).zip(words).map(|(number, word)| Endpoint {
        kind: EndpointKind::from_outside(word),
        preference: if number == 6 { u16::MAX } else { number },
        ..endpoint(&format!("192.0.2.1:{number}"), 5)
    });
    let all = EndpointList::new(all).unwrap();
    store.presence().heartbeat(id, session(1), Update::Set(all.clone())).await.unwrap();
    let store = env.reload(store).await;
    let found = store.presence().get(id).await.unwrap().unwrap();
    assert_eq!(found.endpoints, all);
    assert!(found.endpoints.iter().map(|it| it.kind.name()).eq(words));
    // The one who saw it last says how.
    let stun = Endpoint { kind: EndpointKind::Stun, ..endpoint("192.0.2.1:1", 5) };
    let list = put(&store, id, stun).await;
    let store = env.reload(store).await;
    assert_eq!(store.presence().get(id).await.unwrap().unwrap().endpoints, list);
    assert_eq!(list.as_slice()[1], stun);
}

async fn of_too_many_endpoints_the_oldest_gives_way(env: &mut TestEnv, store: Opened) {
    env.advance(100);
    let id = some_node(&store).await.id;
    let full = (1..=64).map(|port| endpoint(&format!("192.0.2.1:{port}"), port));
    let full = Update::Set(EndpointList::new(full).unwrap());
    store.presence().connect(id, session(1), full).await.unwrap();
    let store = env.reload(store).await;
    let list = put(&store, id, endpoint("192.0.2.9:9", 100)).await;
    let store = env.reload(store).await;
    assert_eq!(store.presence().get(id).await.unwrap().unwrap().endpoints, list);
    assert_eq!((list.len(), list.as_slice()[0]), (64, endpoint("192.0.2.1:2", 2)));
    assert_eq!(list.as_slice()[63], endpoint("192.0.2.9:9", 100));
    // That can be the new one itself.
    assert_eq!(put(&store, id, endpoint("192.0.2.9:8", 1)).await, list);
}

async fn messages_about_one_endpoint_are_heartbeats(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 2).await;
    let one = endpoint("192.0.2.1:1", 5);
    let before = store.presence().get(id).await.unwrap().unwrap();
    let presence = store.presence();
    assert_eq!(idle(&store, presence.put_endpoint(id, session(1), one)).await, before);
    assert_eq!(idle(&store, presence.remove_endpoint(id, session(1), one.addr)).await, before);
    env.advance(1);
    let seen = presence.put_endpoint(id, session(2), one).await.unwrap();
    assert_eq!(seen.last_seen, Some(env.clock().now()));
    let newer = presence.put_endpoint(id, session(3), one).await.unwrap();
    assert_eq!((newer.session, newer.online), (session(3), true));
    let gone = disconnect(&store, id, 3).await;
    let store = env.reload(store).await;
    let presence = store.presence();
    assert_eq!(idle(&store, presence.put_endpoint(id, session(3), one)).await, gone);
    let unknown = NodeId::from_bytes([9; 16]);
    refused(&store, presence.put_endpoint(unknown, session(1), one), NotFound).await;
    refused(&store, presence.remove_endpoint(unknown, session(1), one.addr), NotFound).await;
}

fn endpoints(addresses: &[&str]) -> EndpointList {
    let seen_at = Timestamp::EPOCH;
    EndpointList::new(addresses.iter().map(|addr| Endpoint::new(addr.parse().unwrap(), seen_at)))
        .unwrap()
}

async fn online(store: &Opened) -> Vec<NodeId> {
    let filter = NodeFilter { online: Some(true), ..NodeFilter::default() };
    let page = store.nodes().list(&filter, &PageRequest::default()).await.unwrap();
    page.items.iter().map(|node| node.id).collect()
}
