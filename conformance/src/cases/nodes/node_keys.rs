//! Rotation and expiry of node keys.

use crate::prelude::*;

cases! {
    stored {
        "rotate-key" => [
            a_key_is_rotated_from_the_one_that_is_known,
            repeating_a_rotation_does_nothing,
            a_rotation_from_another_key_is_a_conflict,
            a_rotation_to_a_key_of_another_node_is_refused,
            a_rotation_of_an_unknown_machine_is_not_found,
            an_expired_node_does_not_rotate_but_registers_again,
            of_concurrent_rotations_one_wins,
        ],
        "expire" => [
            several_nodes_expire_at_once,
            a_node_expires_when_it_was_last_told_to,
            with_an_unknown_node_none_expires,
            only_those_that_change_are_counted,
        ],
    }
}

async fn a_key_is_rotated_from_the_one_that_is_known(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let other = node(&store, alice, 2).await;
    env.advance(10);
    let now = env.clock().now();
    let later = now.saturating_add(HOUR);
    let rotated = rotate(&store, &first, node_key(30), Some(disco(7)), Some(later)).await.unwrap();
    let expected = Node {
        node_key: node_key(30),
        disco_key: Some(disco(7)),
        expires_at: Some(later),
        updated_at: now,
        revision: first.revision.next(),
        ..Node::clone(&first)
    };
    assert_eq!(*rotated, expected);
    let store = env.reload(store).await;
    let found = store.nodes().get_by_node_key(&node_key(30)).await.unwrap();
    assert_eq!(found.as_deref(), Some(&expected));
    assert_eq!(store.nodes().get_by_node_key(&first.node_key).await.unwrap(), None);
    let lines = audit_of(&store, first.id).await;
    assert_eq!(lines, ["node.register by system", "node.rotate_key by system"]);
    // What is not given is cleared.
    let rotated = rotate(&store, &rotated, node_key(31), None, None).await.unwrap();
    assert_eq!((rotated.disco_key, rotated.expires_at), (None, None));
    // The same key may come with another discovery key; and a key that was given up is free.
    let rotated = rotate(&store, &rotated, node_key(31), Some(disco(8)), None).await.unwrap();
    rotate(&store, &other, first.node_key, None, None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap(), Some(rotated));
    let holder = store.nodes().get_by_node_key(&first.node_key).await.unwrap().unwrap();
    assert_eq!(holder.id, other.id);
}

async fn repeating_a_rotation_does_nothing(env: &mut TestEnv, store: Opened) {
    let first = some_node(&store).await;
    let rotated = rotate(&store, &first, node_key(30), Some(disco(7)), None).await.unwrap();
    let store = env.reload(store).await;
    env.advance(60);
    assert_eq!(
        idle(&store, rotate(&store, &first, node_key(30), Some(disco(7)), None)).await,
        rotated
    );
}

async fn a_rotation_from_another_key_is_a_conflict(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let other = node(&store, alice, 2).await;
    rotate(&store, &first, node_key(30), None, None).await.unwrap();
    let store = env.reload(store).await;
    // From the one before, to another one or with other companions; from that of another node.
    let claim = Node { node_key: other.node_key, ..Node::clone(&first) };
    let conflict = Conflict;
    refused(&store, rotate(&store, &first, node_key(31), None, None), conflict.clone()).await;
    refused(&store, rotate(&store, &first, node_key(30), Some(disco(7)), None), conflict.clone())
        .await;
    refused(&store, rotate(&store, &claim, node_key(31), None, None), conflict).await;
    assert_eq!(store.nodes().get(other.id).await.unwrap(), Some(other));
}

async fn a_rotation_to_a_key_of_another_node_is_refused(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let other = node(&store, alice, 2).await;
    let store = env.reload(store).await;
    let kind = || AlreadyExists { constraint: "node_key" };
    refused(&store, rotate(&store, &first, other.node_key, None, None), kind()).await;
    rotate(&store, &other, node_key(30), None, None).await.unwrap();
    refused(&store, rotate(&store, &first, node_key(30), None, None), kind()).await;
    rotate(&store, &first, other.node_key, None, None).await.unwrap();
}

async fn a_rotation_of_an_unknown_machine_is_not_found(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let stranger = machine(2, with(&*one_time_key(&store, alice).await)).machine_key;
    store.nodes().delete(first.id).await.unwrap();
    let store = env.reload(store).await;
    let unknown = Node { machine_key: stranger, ..Node::clone(&first) };
    for node in [first, unknown.into()] {
        refused(&store, rotate(&store, &node, node_key(30), None, None), NotFound).await;
    }
}

async fn an_expired_node_does_not_rotate_but_registers_again(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let end = env.clock().now().saturating_add(Duration::from_secs(10));
    store.nodes().expire(vec![first.id], end).await.unwrap();
    let store = env.reload(store).await;
    env.advance(9);
    let rotated = rotate(&store, &first, node_key(30), None, Some(end)).await.unwrap();
    env.advance(1);
    let later = end.saturating_add(HOUR);
    refused(&store, rotate(&store, &rotated, node_key(31), None, Some(later)), PermissionDenied)
        .await;
    let store = env.reload(store).await;
    refused(&store, rotate(&store, &rotated, node_key(31), None, Some(later)), PermissionDenied)
        .await;
    let renewed = node(&store, alice, 1).await;
    assert_eq!(renewed.id, first.id);
    rotate(&store, &renewed, node_key(31), None, Some(later)).await.unwrap();
}

async fn of_concurrent_rotations_one_wins(env: &mut TestEnv, store: Opened) {
    let first = some_node(&store).await;
    let calls = (100..116).map(|number| {
        let (store, first) = (store.clone(), first.clone());
        tokio::spawn(async move { rotate(&store, &first, node_key(number), None, None).await })
    });
    let calls: Vec<_> = calls.collect();
    let mut won = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok(node) => won.push(node),
            Err(error) => assert_eq!(*error.kind(), Conflict),
        }
    }
    let store = env.reload(store).await;
    assert_eq!(won.len(), 1);
    assert_eq!(store.view().nodes().iter().collect::<Vec<_>>(), [&won[0]]);
}

async fn several_nodes_expire_at_once(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let mut nodes = Vec::new();
    for number in 1..=4 {
        nodes.push(node(&store, alice, number).await);
    }
    let before = store.view().serial();
    env.advance(1);
    let now = env.clock().now();
    let at = now.saturating_add(Duration::from_secs(10));
    let ids: Vec<_> = nodes[..3].iter().map(|node| node.id).collect();
    assert_eq!(store.nodes().expire(ids.clone(), at).await.unwrap(), 3);
    assert_eq!(store.view().serial(), before.next());
    let store = env.reload(store).await;
    for node in &nodes[..3] {
        let expected = Node {
            expires_at: Some(at),
            updated_at: now,
            revision: node.revision.next(),
            ..Node::clone(node)
        };
        assert_eq!(store.nodes().get(node.id).await.unwrap().as_deref(), Some(&expected));
    }
    assert_eq!(store.nodes().get(nodes[3].id).await.unwrap().as_ref(), Some(&nodes[3]));
    // They are expired at that moment, and not before.
    let mut sorted = ids;
    sorted.sort();
    let micro = MICROSECOND;
    assert_eq!(expired_at(&store, at.saturating_sub(micro)).await, []);
    assert_eq!(expired_at(&store, at).await, sorted);
    let view = store.view();
    assert_eq!(view.nodes().expiring(at.saturating_sub(micro), at).count(), 3);
    assert_eq!(view.nodes().expiring(at, at.saturating_add(micro)).count(), 0);
}

async fn a_node_expires_when_it_was_last_told_to(env: &mut TestEnv, store: Opened) {
    let node = some_node(&store).await;
    let in_seconds = |seconds| env.clock().now().saturating_add(Duration::from_secs(seconds));
    let [sooner, later] = [10, 20].map(in_seconds);
    let micro = MICROSECOND;
    let mut store = store;
    for (at, none_at) in [(sooner, later), (later, sooner), (sooner, later)] {
        store.nodes().expire(vec![node.id], at).await.unwrap();
        store = env.reload(store).await;
        let view = store.view();
        for (moment, count) in [(at, 1), (none_at, 0)] {
            assert_eq!(view.nodes().expiring(moment.saturating_sub(micro), moment).count(), count);
        }
        assert_eq!(view.nodes().expiring(Timestamp::EPOCH, Timestamp::MAX).count(), 1);
    }
    store.nodes().delete(node.id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().expiring(Timestamp::EPOCH, Timestamp::MAX).count(), 0);
}

async fn with_an_unknown_node_none_expires(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, gone) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    store.nodes().delete(gone.id).await.unwrap();
    let store = env.reload(store).await;
    let now = env.clock().now();
    for unknown in [gone.id, NodeId::from_bytes([9; 16])] {
        for ids in [vec![first.id, unknown], vec![unknown, first.id], vec![unknown]] {
            refused(&store, store.nodes().expire(ids, now), NotFound).await;
        }
    }
    assert_eq!(expired_at(&store, now).await, []);
}

async fn only_those_that_change_are_counted(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, second) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    let now = env.clock().now();
    let twice = vec![first.id, first.id];
    assert_eq!(store.nodes().expire(twice, now).await.unwrap(), 1);
    let store = env.reload(store).await;
    let both = vec![first.id, second.id];
    assert_eq!(store.nodes().expire(both.clone(), now).await.unwrap(), 1);
    assert_eq!(idle(&store, store.nodes().expire(both, now)).await, 0);
    assert_eq!(idle(&store, store.nodes().expire(Vec::new(), now)).await, 0);
    let store = env.reload(store).await;
    for node in [first, second] {
        assert_eq!(store.nodes().get(node.id).await.unwrap().unwrap().revision.get(), 2);
        let lines = audit_of(&store, node.id).await;
        assert_eq!(lines, ["node.register by system", "node.expire by system"]);
    }
}

fn disco(byte: u8) -> DiscoKey {
    DiscoKey::from_bytes([byte; 32]).unwrap()
}

/// Rotates from the key that `node` has.
async fn rotate(
    store: &Opened,
    node: &Node,
    to: NodeKey,
    disco_key: Option<DiscoKey>,
    expires_at: Option<Timestamp>,
) -> Result<Arc<Node>> {
    store.nodes().rotate_key(node.machine_key, node.node_key, to, disco_key, expires_at).await
}

async fn expired_at(store: &Opened, now: Timestamp) -> Vec<NodeId> {
    let filter = NodeFilter { expired_at: Some((true, now)), ..NodeFilter::default() };
    let page = store.nodes().list(&filter, &PageRequest::default()).await.unwrap();
    page.items.iter().map(|node| node.id).collect()
}
