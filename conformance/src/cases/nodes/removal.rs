//! Nodes that go: by a delete, or because they were ephemeral.

use crate::prelude::*;

cases! {
    stored {
        "delete-node" => [
            a_delete_takes_what_is_the_nodes_and_nothing_else,
            addresses_and_label_are_free_after_a_delete,
            primary_routes_fail_over_on_a_delete,
            a_delete_takes_exactly_the_node_of_this_id,
            a_second_delete_is_not_found,
            metrics_and_audit_trail_outlive_the_node,
        ],
        "ephemeral" => [
            an_ephemeral_node_is_reaped_after_the_cutoff,
            an_online_or_lasting_node_is_never_reaped,
            a_quiet_node_outlives_a_restart_by_the_cutoff,
            a_node_is_reaped_by_the_key_it_registered_with_last,
            the_cutoff_is_a_setting,
            nothing_is_reaped_by_itself,
            reaping_takes_all_that_a_delete_does,
        ],
    }
    stored_unopened {
        "ephemeral" => [an_ephemeral_node_that_never_connected_is_reaped_by_its_creation],
    }
}

async fn a_delete_takes_what_is_the_nodes_and_nothing_else(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (gone, kept) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    let mut sessions = Vec::new();
    for node in [&gone, &kept] {
        connect(&store, node.id, 1).await;
        carry(&store, node.id, &["10.1.0.0/16", "10.2.0.0/16", "::/0"]).await;
        let new = session_of(SessionOwner::Node(node.id), Timestamp::MAX);
        sessions.push(store.sessions().begin(new).await.unwrap());
    }
    let store = env.reload(store).await;
    store.nodes().delete(gone.id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(gone.id).await.unwrap(), None);
    assert_eq!(store.nodes().get_by_machine_key(&gone.machine_key).await.unwrap(), None);
    assert_eq!(store.nodes().get_by_node_key(&gone.node_key).await.unwrap(), None);
    assert_eq!(store.presence().get(gone.id).await.unwrap(), None);
    let view = store.view();
    assert!(view.routes().iter().all(|route| route.node == kept.id));
    assert_eq!(view.routes().len(), 3);
    assert_eq!(
        view.sessions().iter().map(|session| session.id).collect::<Vec<_>>(),
        [sessions[1].0.id]
    );
    assert_eq!(view.nodes().iter().collect::<Vec<_>>(), [&kept]);
    assert!(view.presence().is_online(kept.id));
    let token = sessions[0].1.expose();
    refused(&store, store.sessions().authenticate(token), PermissionDenied).await;
}

async fn addresses_and_label_are_free_after_a_delete(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    node(&store, alice, 2).await;
    store.nodes().delete(first.id).await.unwrap();
    let store = env.reload(store).await;
    for address in [first.ipv4.unwrap().into(), first.ipv6.unwrap().into()] {
        assert_eq!(store.nodes().get_by_address(address).await.unwrap(), None);
    }
    assert_eq!(store.nodes().get_by_label(&first.label).await.unwrap(), None);
    let claim = Registration { hostname: first.hostname.clone(), ..machine(3, by(alice)) };
    let third = store.nodes().register(claim).await.unwrap();
    let store = env.reload(store).await;
    let third = store.nodes().get(third.id).await.unwrap().unwrap();
    assert_eq!((&third.label, third.ipv4, third.ipv6), (&first.label, first.ipv4, first.ipv6));
}

async fn primary_routes_fail_over_on_a_delete(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, second) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    for node in [first, second] {
        connect(&store, node, 1).await;
        env.advance(1);
        carry(&store, node, &["10.1.0.0/16"]).await;
    }
    let store = env.reload(store).await;
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(first));
    store.nodes().delete(first).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(second));
    store.nodes().delete(second).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, "10.1.0.0/16").await, None);
}

async fn a_delete_takes_exactly_the_node_of_this_id(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let target = node(&store, alice, 1).await;
    // One is called like its id, in each place where a name can stand.
    let text = target.id.to_string();
    let hostname = Registration { hostname: text.parse().unwrap(), ..machine(2, by(alice)) };
    let by_hostname = store.nodes().register(hostname).await.unwrap();
    assert_eq!(by_hostname.label.as_str(), text);
    let by_user = user(&store, &text).await;
    let of_user = node(&store, by_user, 3).await;
    let renamed = node(&store, alice, 4).await;
    let label = text.replace('-', "");
    let patch = NodePatch { label: Update::Set(label.parse().unwrap()), ..NodePatch::default() };
    let renamed = store.nodes().update(renamed.id, patch, None).await.unwrap();
    let store = env.reload(store).await;
    store.nodes().delete(target.id).await.unwrap();
    refused(&store, store.nodes().delete(target.id), NotFound).await;
    let store = env.reload(store).await;
    let left: Vec<_> = store.view().nodes().iter().cloned().collect();
    let mut expected = vec![by_hostname, of_user, renamed];
    expected.sort_by_key(|node| node.id);
    assert_eq!(left, expected);
    assert!(store.users().get(by_user).await.unwrap().is_some());
}

async fn a_second_delete_is_not_found(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    store.nodes().delete(first.id).await.unwrap();
    let store = env.reload(store).await;
    for id in [first.id, NodeId::from_bytes([9; 16])] {
        refused(&store, store.nodes().delete(id), NotFound).await;
        refused(&store, store.nodes().update(id, NodePatch::default(), None), NotFound).await;
    }
    // The same machine is another node from here on.
    let again = node(&store, alice, 1).await;
    assert_ne!(again.id, first.id);
}

async fn metrics_and_audit_trail_outlive_the_node(env: &mut TestEnv, store: Opened) {
    let first = some_node(&store).await;
    let point = point(Some(first.id), "rx_bytes", env.clock().now(), 4.5);
    store.metrics().record(point.clone()).await.unwrap();
    env.advance(1);
    store.acting_as("admin".parse().unwrap()).nodes().delete(first.id).await.unwrap();
    let store = env.reload(store).await;
    let query = MetricQuery {
        node: Some(Some(first.id)),
        metric: None,
        from: Timestamp::EPOCH,
        to: Timestamp::MAX,
    };
    let all = PageRequest::first(Limit::MAX);
    assert_eq!(store.metrics().range(&query, &all).await.unwrap().items, [point]);
    let lines = audit_of(&store, first.id).await;
    assert_eq!(lines, ["node.register by system", "node.delete by admin"]);
    store.metrics().prune(env.clock().now()).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.metrics().range(&query, &all).await.unwrap().items, []);
}

async fn an_ephemeral_node_is_reaped_after_the_cutoff(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let first = register(&store, 1, with(&key)).await;
    connect(&store, first.id, 1).await;
    env.advance(100);
    heartbeat(&store, first.id, 1).await;
    env.advance(100);
    disconnect(&store, first.id, 1).await;
    let store = env.reload(store).await;
    env.advance(1799);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let store = env.reload(store).await;
    env.advance(1);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), [first.id]);
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap(), None);
    assert_eq!(store.presence().get(first.id).await.unwrap(), None);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let lines = audit_of(&store, first.id).await;
    assert_eq!(lines, ["node.register by system", "node.reap by system"]);
}

async fn an_ephemeral_node_that_never_connected_is_reaped_by_its_creation(env: &mut TestEnv) {
    let store = env.open().await;
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let first = register(&store, 1, with(&key)).await;
    env.advance(1799);
    let second = register(&store, 2, with(&key)).await;
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let store = env.reload(store).await;
    env.advance(1);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), [first.id]);
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().iter().collect::<Vec<_>>(), [&second]);
}

async fn an_online_or_lasting_node_is_never_reaped(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let online = register(&store, 1, with(&key)).await;
    connect(&store, online.id, 1).await;
    let lasting = [node(&store, alice, 2).await, node(&store, alice, 3).await];
    connect(&store, lasting[0].id, 1).await;
    disconnect(&store, lasting[0].id, 1).await;
    let store = env.reload(store).await;
    env.advance(100_000_000);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().len(), 3);
    // Hearing that it went is hearing of it.
    disconnect(&store, online.id, 1).await;
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
}

async fn a_quiet_node_outlives_a_restart_by_the_cutoff(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let quiet = register(&store, 1, with(&key)).await.id;
    let seen = connect(&store, quiet, 1).await.last_seen;
    env.advance(1801);
    let store = env.crash(store).await;
    let learned = env.clock().now();
    assert_eq!(store.presence().disconnect_all().await.unwrap(), 1);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let store = env.reload(store).await;
    let presence = store.presence().get(quiet).await.unwrap().unwrap();
    assert_eq!((presence.last_seen, presence.absent_from()), (seen, Some(learned)));
    env.advance(1799);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    // Another restart tells nothing new of who was gone before.
    assert_eq!(idle(&store, store.presence().disconnect_all()).await, 0);
    let store = env.reload(store).await;
    env.advance(1);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), [quiet]);
}

async fn a_node_is_reaped_by_the_key_it_registered_with_last(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (passing, lasting) =
        (ephemeral_key(&store, alice).await, reusable_key(&store, alice).await);
    for (number, keys) in [(1, [&passing, &lasting]), (2, [&lasting, &passing])] {
        for key in keys {
            register(&store, number, with(key)).await;
        }
    }
    let store = env.reload(store).await;
    env.advance(100_000_000);
    let reaped = store.nodes().reap_ephemeral().await.unwrap();
    assert_eq!(reaped.len(), 1);
    let store = env.reload(store).await;
    let left: Vec<_> = store.view().nodes().iter().map(|node| node.machine_key).collect();
    assert_eq!(left, [machine(1, by(alice)).machine_key]);
}

async fn the_cutoff_is_a_setting(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    assert_eq!(store.view().settings().network().ephemeral_cutoff_seconds, 1800);
    let key = ephemeral_key(&store, alice).await;
    let cutoff = |seconds| {
        let network =
            NetworkSettings { ephemeral_cutoff_seconds: seconds, ..NetworkSettings::default() };
        store.settings().put(SettingDocument::Network(network), None)
    };
    cutoff(5).await.unwrap();
    let first = register(&store, 1, with(&key)).await;
    env.advance(4);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    env.advance(1);
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), [first.id]);
    cutoff(0).await.unwrap();
    let second = register(&store, 2, with(&key)).await;
    let store = env.reload(store).await;
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), [second.id]);
    let store = env.reload(store).await;
    assert!(store.view().nodes().is_empty());
}

async fn nothing_is_reaped_by_itself(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let first = register(&store, 1, with(&key)).await;
    env.advance(1_000_000);
    user(&store, "bob").await;
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap(), Some(first));
}

async fn reaping_takes_all_that_a_delete_does(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let mut gone = Vec::new();
    for number in 1..=3 {
        let node = register(&store, number, with(&key)).await;
        connect(&store, node.id, 1).await;
        carry(&store, node.id, &["10.1.0.0/16"]).await;
        disconnect(&store, node.id, 1).await;
        gone.push(node);
    }
    let before = store.view().serial();
    env.advance(1800);
    let mut ids: Vec<_> = gone.iter().map(|node| node.id).collect();
    ids.sort();
    assert_eq!(store.nodes().reap_ephemeral().await.unwrap(), ids);
    assert_eq!(store.view().serial(), before.next());
    let store = env.reload(store).await;
    let view = store.view();
    assert!(view.nodes().is_empty() && view.routes().is_empty() && view.presence().is_empty());
    assert!(view.addresses().is_empty());
    let next: Arc<Node> = node(&store, alice, 1).await;
    assert_eq!((&next.label, next.ipv4), (&gone[0].label, gone[0].ipv4));
}
