//! A machine that starts again, or did not hear the answer, and registers again with the same keys.

use crate::prelude::*;

cases! {
    stored {
        "one-time-retry" => [
            a_repetition_gives_the_node_as_it_is_and_writes_nothing,
            a_repetition_takes_what_the_client_says_of_itself,
            a_repetition_with_another_key_is_refused,
            a_repetition_ends_with_the_expiry_of_the_node,
            an_unused_key_is_used_up_even_if_the_node_names_it,
            what_became_of_key_tags_and_owner_does_not_matter,
            a_new_node_key_needs_a_valid_key_of_the_same_owner,
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
    // As it is, whatever it asks for.
    let patch = NodePatch { tags: Update::Set(tags(&["tag:web"])), ..NodePatch::default() };
    let changed = store.nodes().update(first.id, patch, None).await.unwrap();
    let later = Some(env.clock().now().saturating_add(Duration::from_secs(3_600)));
    let other = Registration { expires_at: later, ..machine(1, with(&key)) };
    assert_eq!(idle(&store, store.nodes().register(other)).await, changed);
    store.preauth_keys().revoke(key.id).await.unwrap();
    let store = env.reload(store).await;
    let again = idle(&store, store.nodes().register(machine(1, with(&key)))).await;
    assert_eq!(again, changed);
}

async fn a_repetition_takes_what_the_client_says_of_itself(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let first = register(&store, 1, with(&key)).await;
    store.preauth_keys().revoke(key.id).await.unwrap();
    let store = env.reload(store).await;
    env.advance(60);
    let started_anew = Registration {
        hostname: "renamed".parse().unwrap(),
        disco_key: Some(DiscoKey::from_bytes([77; 32]).unwrap()),
        host_info: r#"{"OS":"linux"}"#.parse().unwrap(),
        ..machine(1, with(&key))
    };
    let second = store.nodes().register(started_anew.clone()).await.unwrap();
    let wanted = Node {
        hostname: started_anew.hostname.clone(),
        disco_key: started_anew.disco_key,
        host_info: started_anew.host_info.clone(),
        updated_at: env.clock().now(),
        revision: first.revision.next(),
        ..Node::clone(&first)
    };
    assert_eq!(*second, wanted, "label, addresses, owner and expiry stay");
    let store = env.reload(store).await;
    assert_eq!(idle(&store, store.nodes().register(started_anew.clone())).await, second);
    // What it leaves out is not taken back.
    let bare = Registration { disco_key: None, host_info: HostInfo::default(), ..started_anew };
    assert_eq!(idle(&store, store.nodes().register(bare)).await, second);
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
        hostname: machine.hostname.clone(),
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
    assert_eq!(*node, restored);
    let used = store.preauth_keys().get(key.id).await.unwrap().unwrap();
    assert_eq!(used.used_at, Some(env.clock().now()));
    let store = env.reload(store).await;
    assert_eq!(idle(&store, store.nodes().register(machine)).await, node);
}

/// Each thing that may have happened to a key, or to the node that it admitted.
#[derive(Debug, Clone, Copy)]
enum Since {
    Nothing,
    KeyExpired,
    KeyRevoked,
    KeyDeleted,
    Tagged,
    Moved,
}

impl Since {
    const ALL: [Self; 6] = [
        Self::Nothing,
        Self::KeyExpired,
        Self::KeyRevoked,
        Self::KeyDeleted,
        Self::Tagged,
        Self::Moved,
    ];

    async fn happens(self, env: &mut TestEnv, store: &Opened, key: &PreAuthKey, node: NodeId) {
        let patch = match self {
            Self::Nothing => return,
            Self::KeyExpired => return env.advance(60),
            Self::KeyRevoked => {
                store.preauth_keys().revoke(key.id).await.unwrap();
                return;
            }
            Self::KeyDeleted => return store.preauth_keys().delete(key.id).await.unwrap(),
            Self::Tagged => NodePatch {
                user: Patch::Clear,
                tags: Update::Set(tags(&["tag:web"])),
                ..NodePatch::default()
            },
            Self::Moved => NodePatch {
                user: Patch::Set(user(store, &format!("bob-{}", key.id)).await),
                ..NodePatch::default()
            },
        };
        store.nodes().update(node, patch, None).await.unwrap();
    }
}

/// A node that a key admitted, one-time or reusable, which ends in a minute.
async fn admitted(
    env: &TestEnv,
    store: &Opened,
    owner: UserId,
    number: u32,
    reusable: bool,
) -> (Arc<PreAuthKey>, Arc<Node>) {
    let expires_at = Some(env.clock().now().saturating_add(Duration::from_secs(60)));
    let new = NewPreAuthKey { reusable, expires_at, ..one_time(owner) };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    let node = register(store, number, with(&key)).await;
    (key, node)
}

async fn what_became_of_key_tags_and_owner_does_not_matter(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    for (number, since) in (1..).zip(Since::ALL) {
        for (number, reusable) in [(number, false), (number + 100, true)] {
            let (key, node) = admitted(env, &store, alice, number, reusable).await;
            since.happens(env, &store, &key, node.id).await;
            store = env.reload(store).await;
            let now = store.nodes().get(node.id).await.unwrap().unwrap();
            let again = idle(&store, store.nodes().register(machine(number, with(&key)))).await;
            assert_eq!(again, now, "{since:?}, reusable: {reusable}");
        }
    }
}

async fn a_new_node_key_needs_a_valid_key_of_the_same_owner(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    for (number, since) in (1..).zip(Since::ALL) {
        let (key, node) = admitted(env, &store, alice, number, true).await;
        since.happens(env, &store, &key, node.id).await;
        store = env.reload(store).await;
        let renewed =
            Registration { node_key: node_key(number + 50), ..machine(number, with(&key)) };
        let kind = match since {
            Since::Nothing => {
                let again = store.nodes().register(renewed).await.unwrap();
                assert_eq!((again.id, again.ipv4), (node.id, node.ipv4));
                continue;
            }
            Since::KeyExpired | Since::KeyRevoked => PermissionDenied,
            Since::KeyDeleted => NotFound,
            Since::Tagged | Since::Moved => AlreadyExists { constraint: "machine_key" },
        };
        refused(&store, store.nodes().register(renewed), kind).await;
    }
}
