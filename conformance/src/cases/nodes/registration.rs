//! Registering: what is one command, and which keys admit whom.

use crate::prelude::*;

cases! {
    stored {
        "register" => [
            a_registration_is_one_commit,
            a_node_is_what_its_registration_says,
            a_refused_registration_leaves_no_trace,
            a_node_key_of_another_machine_is_refused,
            a_registration_whose_commit_fails_leaves_no_trace,
            a_registration_whose_answer_is_lost_happens_once,
        ],
        "one-time-key" => [
            of_64_concurrent_uses_exactly_one_wins,
            a_reusable_key_admits_64_at_once,
            a_known_machine_uses_a_one_time_key_up,
            a_revoked_key_admits_nobody,
            an_expired_key_admits_nobody,
        ],
    }
}

async fn a_registration_is_one_commit(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let before = store.view().serial();
    env.advance(5);
    let now = env.clock().now();
    let admin = store.acting_as("admin".parse().unwrap());
    let node = admin.nodes().register(machine(1, with(&key))).await.unwrap();
    assert_eq!(store.view().serial(), before.next());
    let commit = store.watch(before).next().await.unwrap().unwrap();
    let changes: Vec<_> =
        commit.changes.iter().map(|change| (change.handle, change.kind)).collect();
    assert_eq!(
        changes,
        [
            (EntityId::Node(node.id), ChangeKind::Created),
            (EntityId::PreAuthKey(key.id), ChangeKind::Updated),
        ]
    );
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    let used =
        PreAuthKey { used_at: Some(now), revision: key.revision.next(), ..PreAuthKey::clone(&key) };
    assert_eq!(store.preauth_keys().get(key.id).await.unwrap().as_deref(), Some(&used));
    assert_eq!(audit_of(&store, node.id).await, ["node.register by admin"]);
    assert_eq!(store.nodes().get_by_address(node.ipv4.unwrap().into()).await.unwrap(), Some(node));
}

async fn a_node_is_what_its_registration_says(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let new = NewPreAuthKey {
        user: Some(alice),
        tags: tags(&["tag:web", "tag:db"]),
        ephemeral: true,
        ..NewPreAuthKey::default()
    };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    let now = env.clock().now();
    let registration = Registration {
        disco_key: Some(format!("discokey:{}", "07".repeat(32)).parse().unwrap()),
        hostname: "Büro Rechner.lan".parse().unwrap(),
        host_info: r#"{"OS":"linux", "Hostname":"büro","x":[1e3,null]}"#.parse().unwrap(),
        expires_at: Some(now.saturating_add(MICROSECOND)),
        ..machine(1, with(&key))
    };
    let expected = Node {
        id: NodeId::from_bytes([0; 16]),
        user: Some(alice),
        tags: tags(&["tag:db", "tag:web"]),
        hostname: registration.hostname.clone(),
        label: "b-ro-rechner".parse().unwrap(),
        machine_key: registration.machine_key,
        node_key: registration.node_key,
        disco_key: registration.disco_key,
        ipv4: Some([100, 64, 0, 1].into()),
        ipv6: Some("fd7a:115c:a1e0::1".parse().unwrap()),
        host_info: registration.host_info.clone(),
        register_method: RegisterMethod::AuthKey,
        preauth_key: Some(key.id),
        ephemeral: true,
        expires_at: registration.expires_at,
        created_at: now,
        updated_at: now,
        revision: Revision::FIRST,
        families: AddressFamilies::Both,
        settings: None,
    };
    let node = store.nodes().register(registration).await.unwrap();
    let expected = Node { id: node.id, ..expected };
    assert_eq!(*node, expected);
    let store = env.reload(store).await;
    let nodes = store.nodes();
    for found in [
        nodes.get(node.id).await.unwrap(),
        nodes.get_by_machine_key(&node.machine_key).await.unwrap(),
        nodes.get_by_node_key(&node.node_key).await.unwrap(),
        nodes.get_by_label(&node.label).await.unwrap(),
        nodes.get_by_address(node.ipv4.unwrap().into()).await.unwrap(),
        nodes.get_by_address(node.ipv6.unwrap().into()).await.unwrap(),
    ] {
        assert_eq!(found.as_deref(), Some(&expected));
    }
}

async fn a_refused_registration_leaves_no_trace(env: &mut TestEnv, store: Opened) {
    let (alice, bob) = (user(&store, "alice").await, user(&store, "bob").await);
    let taken = node(&store, alice, 1).await;
    let key = one_time_key(&store, bob).await;
    let of_another = Registration { node_key: taken.node_key, ..machine(2, with(&key)) };
    let known = machine(1, with(&key));
    let nobody = Admission::PreAuthKey(PreAuthKeyId::from_bytes([9; 16]));
    let stranger =
        Admission::User { user: UserId::from_bytes([9; 16]), method: RegisterMethod::Oidc };
    let as_a_key = Admission::User { user: bob, method: RegisterMethod::AuthKey };
    for (registration, kind) in [
        (of_another, AlreadyExists { constraint: "node_key" }),
        (known, AlreadyExists { constraint: "machine_key" }),
        (machine(2, nobody), NotFound),
        (machine(2, stranger), NotFound),
        (machine(2, as_a_key), InvalidArgument),
    ] {
        refused(&store, store.nodes().register(registration), kind).await;
    }
    let store = env.reload(store).await;
    assert_eq!(store.preauth_keys().get(key.id).await.unwrap().unwrap().used_at, None);
    let node = register(&store, 2, with(&key)).await;
    // Neither an address nor the key was used up.
    assert_eq!(node.ipv4, Some([100, 64, 0, 2].into()));
    assert_eq!(node.user, Some(bob));
}

async fn a_node_key_of_another_machine_is_refused(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, second) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    let kind = || AlreadyExists { constraint: "node_key" };
    let store = env.reload(store).await;
    for number in [2, 3] {
        let claim = Registration { node_key: first.node_key, ..machine(number, by(alice)) };
        let error = refused(&store, store.nodes().register(claim), kind()).await;
        assert_eq!(error.constraint(), Some("node_key"));
    }
    // Its holder may give it up; then it is free.
    let other = Registration { node_key: node_key(30), ..machine(1, by(alice)) };
    store.nodes().register(other).await.unwrap();
    let claim = Registration { node_key: first.node_key, ..machine(2, by(alice)) };
    store.nodes().register(claim).await.unwrap();
    let store = env.reload(store).await;
    let holder = store.nodes().get_by_node_key(&first.node_key).await.unwrap().unwrap();
    assert_eq!(holder.id, second.id);
    assert_eq!(store.nodes().get_by_node_key(&second.node_key).await.unwrap(), None);
    assert_eq!(store.view().nodes().len(), 2);
}

async fn a_registration_whose_commit_fails_leaves_no_trace(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    for (fault, kind) in [(FaultKind::Before, Unavailable), (FaultKind::DiskFull, Exhausted)] {
        env.faults().fail_next_commits(1, fault);
        refused(&store, store.nodes().register(machine(1, with(&key))), kind).await;
    }
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().len(), 0);
    assert_eq!(store.view().addresses().len(), 0);
    assert_eq!(store.preauth_keys().get(key.id).await.unwrap(), Some(key.clone()));
    let node = register(&store, 1, with(&key)).await;
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node));
}

async fn a_registration_whose_answer_is_lost_happens_once(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let before = store.view().serial();
    env.faults().fail_next_commits(1, FaultKind::After);
    let node = register(&store, 1, with(&key)).await;
    assert_eq!(store.view().serial(), before.next());
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node.clone()));
    assert_eq!(audit_of(&store, node.id).await, ["node.register by system"]);
    let again = idle(&store, store.nodes().register(machine(1, with(&key)))).await;
    assert_eq!(again, node);
}

async fn of_64_concurrent_uses_exactly_one_wins(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    let outcomes = register_at_once(&store, 1..=64, &with(&key)).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 63));
    for error in lost.into_iter().filter_map(Result::err) {
        assert_eq!(*error.kind(), PermissionDenied);
    }
    let winner = won.into_iter().next().unwrap().unwrap();
    let store = env.reload(store).await;
    let view = store.view();
    assert_eq!(view.nodes().iter().collect::<Vec<_>>(), [&winner]);
    assert_eq!(view.addresses().len(), 2);
    let used = view.preauth_keys().get(key.id).unwrap();
    assert_eq!((used.used_at, used.revision.get()), (Some(winner.created_at), 2));
    refused(&store, store.nodes().register(machine(65, with(&key))), PermissionDenied).await;
}

async fn a_reusable_key_admits_64_at_once(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = reusable_key(&store, alice).await;
    let outcomes = register_at_once(&store, 1..=64, &with(&key)).await;
    let mut nodes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    nodes.sort_by_key(|node| node.id);
    let store = env.reload(store).await;
    assert_eq!(store.view().nodes().iter().cloned().collect::<Vec<_>>(), nodes);
    assert_eq!(store.view().addresses().len(), 128);
    // Only the first use is kept.
    assert_eq!(store.view().preauth_keys().get(key.id).unwrap().revision.get(), 2);
    register(&store, 65, with(&key)).await;
}

async fn a_known_machine_uses_a_one_time_key_up(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    let key = one_time_key(&store, alice).await;
    let again = register(&store, 1, with(&key)).await;
    assert_eq!((again.id, again.preauth_key), (first.id, Some(key.id)));
    let store = env.reload(store).await;
    refused(&store, store.nodes().register(machine(2, with(&key))), PermissionDenied).await;
}

async fn a_revoked_key_admits_nobody(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let keys = [one_time_key(&store, alice).await, reusable_key(&store, alice).await];
    let admitted = register(&store, 1, with(&keys[1])).await;
    for key in &keys {
        store.preauth_keys().revoke(key.id).await.unwrap();
    }
    let store = env.reload(store).await;
    for key in &keys {
        for number in [1, 2] {
            let renewed = Registration { node_key: node_key(30), ..machine(number, with(key)) };
            refused(&store, store.nodes().register(renewed), PermissionDenied).await;
        }
    }
    assert_eq!(store.nodes().get(admitted.id).await.unwrap(), Some(admitted));
}

async fn an_expired_key_admits_nobody(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let new = NewPreAuthKey {
        user: Some(alice),
        reusable: true,
        expires_at: Some(env.clock().now().saturating_add(Duration::from_secs(10))),
        ..NewPreAuthKey::default()
    };
    let (key, _) = store.preauth_keys().create(new).await.unwrap();
    env.advance(9);
    register(&store, 1, with(&key)).await;
    let store = env.reload(store).await;
    env.advance(1);
    for number in [1, 2] {
        let renewed = Registration { node_key: node_key(30), ..machine(number, with(&key)) };
        refused(&store, store.nodes().register(renewed), PermissionDenied).await;
    }
    assert_eq!(store.view().nodes().len(), 1);
}
