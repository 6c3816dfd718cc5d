//! Machines that register again, and who owns a node.

use crate::prelude::*;

cases! {
    stored {
        "rekey" => [
            a_known_machine_keeps_what_it_is_and_gets_what_is_new,
            twelve_registrations_at_once_give_one_node,
            tags_are_replaced_only_by_an_admission_that_brings_some,
            ephemeral_follows_the_preauth_key,
            registering_again_renews_what_had_expired,
        ],
        "machine-owner" => [
            a_machine_of_another_owner_is_refused,
            a_machine_that_was_moved_registers_with_its_new_owner,
            a_machine_that_was_deleted_registers_with_anybody,
        ],
        "node-owner" => [
            a_preauth_key_gives_its_user_and_its_tags,
            a_key_without_user_and_tags_is_refused,
            a_node_keeps_a_user_or_a_tag,
            an_owner_exists,
            emptied_tags_stay_empty,
        ],
    }
}

async fn a_known_machine_keeps_what_it_is_and_gets_what_is_new(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = store
        .nodes()
        .register(Registration {
            disco_key: Some(format!("discokey:{}", "07".repeat(32)).parse().unwrap()),
            ..machine(1, by(alice))
        })
        .await
        .unwrap();
    // The lowest address becomes free, and the label of the new host name is, too; neither is
    // taken up.
    let lower = node(&store, alice, 2).await;
    store.nodes().delete(lower.id).await.unwrap();
    let key = one_time_key(&store, alice).await;
    let store = env.reload(store).await;
    env.advance(60);
    let now = env.clock().now();
    let registration = Registration {
        node_key: node_key(70),
        disco_key: None,
        hostname: "Renamed.example".parse().unwrap(),
        host_info: r#"{"OS":"plan9"}"#.parse().unwrap(),
        expires_at: Some(now.saturating_add(Duration::from_secs(1))),
        ..machine(1, with(&key))
    };
    let second = store.nodes().register(registration.clone()).await.unwrap();
    let expected = Node {
        node_key: registration.node_key,
        disco_key: None,
        hostname: registration.hostname,
        host_info: registration.host_info,
        expires_at: registration.expires_at,
        register_method: RegisterMethod::AuthKey,
        preauth_key: Some(key.id),
        updated_at: now,
        revision: first.revision.next(),
        ..Node::clone(&first)
    };
    assert_eq!(*second, expected);
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap().as_deref(), Some(&expected));
    assert_eq!(store.nodes().get_by_node_key(&first.node_key).await.unwrap(), None);
    assert_eq!(store.view().nodes().len(), 1);
    // Without a key, the node remembers the one that admitted it.
    let again = register(&store, 1, by(alice)).await;
    assert_eq!(again.preauth_key, Some(key.id));
    assert_eq!(again.register_method, RegisterMethod::Cli);
}

async fn twelve_registrations_at_once_give_one_node(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let outcomes = register_at_once(&store, std::iter::repeat_n(7, 12), &by(alice)).await;
    let ids: Vec<NodeId> = outcomes.into_iter().map(|outcome| outcome.unwrap().id).collect();
    assert_eq!(ids, [ids[0]; 12]);
    // With a node key each, the last one that was applied counts.
    let calls = (100..112).map(|number| {
        let store = store.clone();
        let registration = Registration { node_key: node_key(number), ..machine(7, by(alice)) };
        tokio::spawn(async move { store.nodes().register(registration).await.unwrap() })
    });
    let calls: Vec<_> = calls.collect();
    let nodes: Vec<_> = join_all(calls).await.into_iter().map(|call| call.unwrap()).collect();
    assert!(nodes.iter().all(|node| node.id == ids[0]));
    let last = nodes.into_iter().max_by_key(|node| node.revision).unwrap();
    assert_eq!(last.revision.get(), 24);
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.nodes().iter().collect::<Vec<_>>(), [&last]);
    assert_eq!(view.addresses().len(), 2);
    for number in (100..112).chain([7]) {
        let found = view.nodes().by_node_key(&node_key(number));
        assert_eq!(found, (last.node_key == node_key(number)).then_some(&last));
    }
}

async fn tags_are_replaced_only_by_an_admission_that_brings_some(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let red = tagged_key(&store, Some(alice), &["tag:red", "tag:pink"]).await;
    let blue = tagged_key(&store, Some(alice), &["tag:blue"]).await;
    let plain = reusable_key(&store, alice).await;
    let steps = [
        (with(&red), tags(&["tag:pink", "tag:red"])),
        (by(alice), tags(&["tag:pink", "tag:red"])),
        (with(&plain), tags(&["tag:pink", "tag:red"])),
        (with(&blue), tags(&["tag:blue"])),
    ];
    for (admission, expected) in steps.clone() {
        let node = register(&store, 1, admission).await;
        assert_eq!((node.user, &node.tags), (Some(alice), &expected));
    }
    let mut store = env.reload(store).await;
    for (admission, expected) in steps {
        let node = register(&store, 1, admission).await;
        store = env.reload(store).await;
        let stored = store.nodes().get(node.id).await.unwrap().unwrap();
        assert_eq!((stored.user, &stored.tags), (Some(alice), &expected));
    }
}

async fn ephemeral_follows_the_preauth_key(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let lasting = reusable_key(&store, alice).await;
    let (ephemeral, _) = store.preauth_keys().create(ephemeral(alice)).await.unwrap();
    let mut store = env.reload(store).await;
    for (admission, expected) in [
        (by(alice), false),
        (with(&ephemeral), true),
        (by(alice), true),
        (with(&lasting), false),
        (by(alice), false),
    ] {
        let node = register(&store, 1, admission).await;
        store = env.reload(store).await;
        assert_eq!(store.nodes().get(node.id).await.unwrap().unwrap().ephemeral, expected);
        let filter = NodeFilter { ephemeral: Some(true), ..NodeFilter::default() };
        let listed = store.nodes().list(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!(listed.items.len(), usize::from(expected));
    }
}

async fn registering_again_renews_what_had_expired(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    store.nodes().expire(vec![first.id], env.clock().now()).await.unwrap();
    let store = env.reload(store).await;
    let renewed = node(&store, alice, 1).await;
    assert_eq!((renewed.id, renewed.expires_at), (first.id, None));
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap(), Some(renewed));
    let filter =
        NodeFilter { expired_at: Some((true, env.clock().now())), ..NodeFilter::default() };
    let listed = store.nodes().list(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(listed.items, []);
}

async fn a_machine_of_another_owner_is_refused(env: &mut TestEnv, store: Opened) {
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let of_nobody = tagged_key(&store, None, &["tag:web"]).await;
    let of_bob = tagged_key(&store, Some(bob), &["tag:web"]).await;
    let of_alice = node(&store, alice, 1).await;
    let tagged = register(&store, 2, with(&of_nobody)).await;
    let store = env.reload(store).await;
    for registration in [
        machine(1, by(bob)),
        machine(1, with(&of_bob)),
        machine(1, with(&of_nobody)),
        machine(2, by(alice)),
        machine(2, with(&of_bob)),
    ] {
        let kind = AlreadyExists { constraint: "machine_key" };
        refused(&store, store.nodes().register(registration), kind).await;
    }
    for node in [of_alice, tagged] {
        assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node));
    }
}

async fn a_machine_that_was_moved_registers_with_its_new_owner(env: &mut TestEnv, store: Opened) {
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let first = node(&store, alice, 1).await;
    let patch = NodePatch { user: Patch::Set(bob), ..NodePatch::default() };
    store.nodes().update(first.id, patch, None).await.unwrap();
    let store = env.reload(store).await;
    let kind = AlreadyExists { constraint: "machine_key" };
    refused(&store, store.nodes().register(machine(1, by(alice))), kind).await;
    let moved = node(&store, bob, 1).await;
    assert_eq!((moved.id, moved.user, moved.ipv4), (first.id, Some(bob), first.ipv4));
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().of_user(alice).count(), 0);
    assert_eq!(store.view().nodes().of_user(bob).collect::<Vec<_>>(), [first.id]);
}

async fn a_machine_that_was_deleted_registers_with_anybody(env: &mut TestEnv, store: Opened) {
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let first = node(&store, alice, 1).await;
    store.nodes().delete(first.id).await.unwrap();
    let store = env.reload(store).await;
    let second = node(&store, bob, 1).await;
    assert_ne!(second.id, first.id);
    assert_eq!((second.user, second.revision.get()), (Some(bob), 1));
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().iter().collect::<Vec<_>>(), [&second]);
}

async fn a_preauth_key_gives_its_user_and_its_tags(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let owners: [(Option<UserId>, &[&str]); 3] =
        [(Some(alice), &[]), (None, &["tag:web"]), (Some(alice), &["tag:db", "tag:web"])];
    let mut nodes = Vec::new();
    for (number, (user, names)) in (1..).zip(owners) {
        let key = tagged_key(&store, user, names).await;
        nodes.push(register(&store, number, with(&key)).await);
    }
    nodes.push(node(&store, alice, 9).await);
    let store = env.reload(store).await;
    let no_tags: &[&str] = &[];
    for (node, (user, names)) in
        nodes.iter().zip(owners.into_iter().chain([(Some(alice), no_tags)]))
    {
        let stored = store.nodes().get(node.id).await.unwrap().unwrap();
        assert_eq!((stored.user, &stored.tags), (user, &tags(names)));
    }
    let ids = |filter: NodeFilter| {
        let page = store.view().list_nodes(&filter, &PageRequest::default()).unwrap();
        page.items.iter().map(|node| node.id).collect::<Vec<_>>()
    };
    let mut of_alice = vec![nodes[0].id, nodes[2].id, nodes[3].id];
    of_alice.sort();
    assert_eq!(ids(NodeFilter { user: Some(alice), ..NodeFilter::default() }), of_alice);
    let mut web = vec![nodes[1].id, nodes[2].id];
    web.sort();
    let tag = Some("tag:web".parse().unwrap());
    assert_eq!(ids(NodeFilter { tag, ..NodeFilter::default() }), web);
}

async fn a_key_without_user_and_tags_is_refused(env: &mut TestEnv, store: Opened) {
    let create = || store.preauth_keys().create(NewPreAuthKey::default());
    refused(&store, create(), InvalidArgument).await;
    let new = NewPreAuthKey { user: Some(UserId::from_bytes([9; 16])), ..NewPreAuthKey::default() };
    refused(&store, store.preauth_keys().create(new), NotFound).await;
    let store = env.reload(store).await;
    assert!(store.view().preauth_keys().is_empty());
}

async fn a_node_keeps_a_user_or_a_tag(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let id = node(&store, alice, 1).await.id;
    let store = env.reload(store).await;
    let update = |store: Opened, patch| async move { store.nodes().update(id, patch, None).await };
    let no_user = NodePatch { user: Patch::Clear, ..NodePatch::default() };
    let no_tags = NodePatch { tags: Update::Set(TagSet::empty()), ..NodePatch::default() };
    let tagged = NodePatch { tags: Update::Set(tags(&["tag:web"])), ..NodePatch::default() };
    let refusal = InvalidArgument;
    refused(&store, update(store.clone(), no_user.clone()), refusal.clone()).await;
    // From its user to a tag, and back.
    let both = NodePatch { user: Patch::Clear, ..tagged.clone() };
    let node = update(store.clone(), both).await.unwrap();
    assert_eq!((node.user, &node.tags), (None, &tags(&["tag:web"])));
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().of_user(alice).count(), 0);
    refused(&store, update(store.clone(), no_tags.clone()), refusal.clone()).await;
    update(store.clone(), NodePatch { user: Patch::Set(alice), ..no_tags }).await.unwrap();
    let store = env.reload(store).await;
    let stored = store.nodes().get(id).await.unwrap().unwrap();
    assert_eq!((stored.user, &stored.tags), (Some(alice), &TagSet::empty()));
    refused(&store, update(store.clone(), no_user), refusal).await;
}

async fn an_owner_exists(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let bob = user(&store, "bob").await;
    let first = node(&store, alice, 1).await;
    store.users().delete(bob, false).await.unwrap();
    let store = env.reload(store).await;
    let patch = NodePatch { user: Patch::Set(bob), ..NodePatch::default() };
    refused(&store, store.nodes().update(first.id, patch, None), NotFound).await;
    refused(&store, store.nodes().register(machine(2, by(bob))), NotFound).await;
}

async fn emptied_tags_stay_empty(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = tagged_key(&store, Some(alice), &["tag:web", "tag:db"]).await;
    let first = register(&store, 1, with(&key)).await;
    let patch = NodePatch { tags: Update::Set(TagSet::empty()), ..NodePatch::default() };
    let store = env.reload(store).await;
    let emptied = store.nodes().update(first.id, patch.clone(), None).await.unwrap();
    assert_eq!((emptied.tags.len(), emptied.revision), (0, first.revision.next()));
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap().as_ref(), Some(&emptied));
    let tag = Some("tag:web".parse().unwrap());
    let filter = NodeFilter { tag, ..NodeFilter::default() };
    let listed = store.nodes().list(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(listed.items, []);
    assert_eq!(idle(&store, store.nodes().update(first.id, patch, None)).await, emptied);
}

async fn tagged_key(store: &Opened, user: Option<UserId>, names: &[&str]) -> Arc<PreAuthKey> {
    let new = NewPreAuthKey { user, tags: tags(names), reusable: true, ..NewPreAuthKey::default() };
    store.preauth_keys().create(new).await.unwrap().0
}
