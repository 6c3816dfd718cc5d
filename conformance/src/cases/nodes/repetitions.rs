//! A machine that did not hear the answer, and registers again with the same one-time key.

use crate::prelude::*;

cases! {
    stored {
        "one-time-retry" => [
            a_repetition_gives_the_node_as_it_is_and_writes_nothing,
            a_repetition_with_another_key_is_refused,
            a_repetition_ends_with_the_expiry_of_the_node,
            an_unused_key_is_used_up_even_if_the_node_names_it,
        ],
    }
}

async fn a_repetition_gives_the_node_as_it_is_and_writes_nothing(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let first = register(&store, 1, with(&key)).await;
    let store = env.reload(store).await;
    env.advance(60);
    let again = idle(&store, store.nodes().register(machine(1, with(&key)))).await;
    assert_eq!(again, first);
    // As it is, whatever else the repetition says.
    let patch = NodePatch { tags: Update::Set(tags(&["tag:web"])), ..NodePatch::default() };
    let changed = store.nodes().update(first.id, patch, None).await.unwrap();
    let other = Registration { hostname: "other".parse().unwrap(), ..machine(1, with(&key)) };
    assert_eq!(idle(&store, store.nodes().register(other)).await, changed);
    store.preauth_keys().revoke(key.id).await.unwrap();
    let store = env.reload(store).await;
    let again = idle(&store, store.nodes().register(machine(1, with(&key)))).await;
    assert_eq!(again, changed);
}

async fn a_repetition_with_another_key_is_refused(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (key, other) = (one_time_key(&store, alice).await, one_time_key(&store, alice).await);
    let first = register(&store, 1, with(&key)).await;
    register(&store, 2, with(&other)).await;
    let store = env.reload(store).await;
    let another_node_key = Registration { node_key: node_key(30), ..machine(1, with(&key)) };
    let another_machine = Registration { node_key: first.node_key, ..machine(3, with(&key)) };
    let another_preauth_key = machine(1, with(&other));
    for registration in [another_node_key, another_machine, another_preauth_key] {
        refused(&store, store.nodes().register(registration), PermissionDenied).await;
    }
    // What the node has rotated away is another node key, too.
    let rotated = store.nodes().rotate_key(
        first.machine_key,
        first.node_key,
        node_key(30),
        first.disco_key,
        first.expires_at,
    );
    rotated.await.unwrap();
    let store = env.reload(store).await;
    refused(&store, store.nodes().register(machine(1, with(&key))), PermissionDenied).await;
}

async fn a_repetition_ends_with_the_expiry_of_the_node(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let first = register(&store, 1, with(&key)).await;
    let expires_at = env.clock().now().saturating_add(Duration::from_secs(10));
    let patch = NodePatch { expires_at: Patch::Set(expires_at), ..NodePatch::default() };
    let expiring = store.nodes().update(first.id, patch, None).await.unwrap();
    let store = env.reload(store).await;
    env.advance(9);
    let again = idle(&store, store.nodes().register(machine(1, with(&key)))).await;
    assert_eq!(again, expiring);
    env.advance(1);
    refused(&store, store.nodes().register(machine(1, with(&key))), PermissionDenied).await;
}

/// What was brought in from elsewhere may say that a key admitted a node, and that nobody used it.
async fn an_unused_key_is_used_up_even_if_the_node_names_it(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let other = register(&store, 2, by(alice)).await;
    let machine = machine(1, with(&key));
    let restored = Node {
        id: NodeId::from_bytes([8; 16]),
        label: "restored".parse().unwrap(),
        machine_key: machine.machine_key,
        node_key: machine.node_key,
        preauth_key: Some(key.id),
        ipv4: None,
        ipv6: None,
        ..Node::clone(&other)
    };
    let images = vec![EntityRecord::Node(restored.clone().into())];
    store.restore(Restore { images, skip_invalid: false }).await.unwrap();
    let store = env.reload(store).await;
    let node = store.nodes().register(machine.clone()).await.unwrap();
    assert_eq!((node.id, node.revision), (restored.id, restored.revision.next()));
    let used = store.preauth_keys().get(key.id).await.unwrap().unwrap();
    assert_eq!(used.used_at, Some(env.clock().now()));
    let store = env.reload(store).await;
    assert_eq!(idle(&store, store.nodes().register(machine)).await, node);
}
