//! What an administrator sets for one node, and which addresses lead to it.

use crate::prelude::*;

cases! {
    stored {
        "node-settings" => [
            settings_are_absent_until_somebody_sets_one,
            each_setting_is_kept_cleared_or_set,
            settings_count_their_changes_by_themselves,
            an_exit_node_is_another_node_that_exists,
        ],
        "families" => [
            a_node_gets_addresses_of_its_families_only,
            a_limit_can_be_changed_and_addresses_stay,
            a_node_without_a_family_is_refused,
        ],
        "allowed-ips" => [
            a_node_is_reached_at_its_addresses_and_what_it_serves,
            an_address_leads_to_one_node,
        ],
        "one-wireguard-key" => [a_client_with_one_key_keeps_its_first_machine_key],
    }
}

fn mtu(bytes: u16) -> NodeSettingsPatch {
    NodeSettingsPatch { mtu: Patch::Set(Mtu::new(bytes).unwrap()), ..NodeSettingsPatch::default() }
}

async fn settings_are_absent_until_somebody_sets_one(env: &mut TestEnv, store: Opened) {
    let node = some_node(&store).await;
    assert_eq!(node.settings, None);
    let nodes = store.nodes();
    let nothing = NodeSettingsPatch { mtu: Patch::Clear, ..NodeSettingsPatch::default() };
    let same = idle(&store, nodes.update_settings(node.id, nothing, None)).await;
    assert_eq!(same, node);
    // There is nothing yet whose revision could be expected.
    let expecting = nodes.update_settings(node.id, mtu(1280), Some(Revision::FIRST));
    refused(&store, expecting, Conflict).await;
    let unknown = NodeId::from_bytes([9; 16]);
    refused(&store, nodes.update_settings(unknown, mtu(1280), None), NotFound).await;
    env.advance(1);
    let changed = nodes.update_settings(node.id, mtu(1280), None).await.unwrap();
    let expected = NodeSettings {
        mtu: Mtu::new(1280).ok(),
        persistent_keepalive_seconds: None,
        accept_routes: None,
        accept_dns: None,
        exit_node: None,
        upload_limit: None,
        download_limit: None,
        revision: Revision::FIRST,
    };
    let expected = Node {
        settings: Some(expected.into()),
        updated_at: env.clock().now(),
        revision: node.revision.next(),
        ..Node::clone(&node)
    };
    assert_eq!(*changed, expected);
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(changed));
    let lines = audit_of(&store, node.id).await;
    assert_eq!(lines[1..], ["node.update_settings by system"]);
}

async fn each_setting_is_kept_cleared_or_set(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (id, exit) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    let all = NodeSettingsPatch {
        mtu: Patch::Set(Mtu::new(65535).unwrap()),
        persistent_keepalive_seconds: Patch::Set(0),
        accept_routes: Patch::Set(false),
        accept_dns: Patch::Set(true),
        exit_node: Patch::Set(exit),
        upload_limit: Patch::Set(ByteRate::new(1).unwrap()),
        download_limit: Patch::Set(ByteRate::new(i64::MAX as u64).unwrap()),
    };
    store.nodes().update_settings(id, all.clone(), None).await.unwrap();
    let store = env.reload(store).await;
    let node = store.nodes().get(id).await.unwrap().unwrap();
    let set = node.settings.clone().unwrap();
    let expected = NodeSettings {
        mtu: Mtu::new(65535).ok(),
        persistent_keepalive_seconds: Some(0),
        accept_routes: Some(false),
        accept_dns: Some(true),
        exit_node: Some(exit),
        upload_limit: ByteRate::new(1).ok(),
        download_limit: ByteRate::new(i64::MAX as u64).ok(),
        revision: Revision::FIRST,
    };
    assert_eq!(*set, expected);
    assert_eq!(idle(&store, store.nodes().update_settings(id, all, None)).await, node);
    let some = NodeSettingsPatch {
        persistent_keepalive_seconds: Patch::Clear,
        accept_routes: Patch::Set(true),
        exit_node: Patch::Clear,
        ..NodeSettingsPatch::default()
    };
    store.nodes().update_settings(id, some, Some(set.revision)).await.unwrap();
    let store = env.reload(store).await;
    let node = store.nodes().get(id).await.unwrap().unwrap();
    let expected = NodeSettings {
        persistent_keepalive_seconds: None,
        accept_routes: Some(true),
        exit_node: None,
        revision: set.revision.next(),
        ..expected
    };
    assert_eq!(node.settings.as_deref(), Some(&expected));
}

async fn settings_count_their_changes_by_themselves(env: &mut TestEnv, store: Opened) {
    let first = some_node(&store).await;
    let (id, alice) = (first.id, first.user.unwrap());
    store.nodes().update_settings(id, mtu(1280), None).await.unwrap();
    // What its client changes is no conflict, and leaves them as they are.
    store.nodes().register(machine(1, by(alice))).await.unwrap();
    let patch = NodePatch { label: Update::Set("other".parse().unwrap()), ..NodePatch::default() };
    store.nodes().update(id, patch, None).await.unwrap();
    let mut store = env.reload(store).await;
    let expected = Some(Revision::FIRST);
    let node = store.nodes().update_settings(id, mtu(1300), expected).await.unwrap();
    assert_eq!(node.settings.as_ref().unwrap().revision, Revision::FIRST.next());
    assert_eq!(node.revision.get(), 5);
    refused(&store, store.nodes().update_settings(id, mtu(1400), expected), Conflict).await;
    // Cleared, they are still there, so nobody takes later ones for those that were read.
    let clear = NodeSettingsPatch { mtu: Patch::Clear, ..NodeSettingsPatch::default() };
    store.nodes().update_settings(id, clear, None).await.unwrap();
    store = env.reload(store).await;
    refused(&store, store.nodes().update_settings(id, mtu(1400), expected), Conflict).await;
    let node = store.nodes().get(id).await.unwrap().unwrap();
    assert_eq!(node.settings.as_ref().map(|it| (it.mtu, it.revision.get())), Some((None, 3)));
}

async fn an_exit_node_is_another_node_that_exists(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (id, exit) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    let through =
        |node| NodeSettingsPatch { exit_node: Patch::Set(node), ..NodeSettingsPatch::default() };
    let nodes = store.nodes();
    refused(&store, nodes.update_settings(id, through(id), None), InvalidArgument).await;
    let unknown = NodeId::from_bytes([9; 16]);
    refused(&store, nodes.update_settings(id, through(unknown), None), NotFound).await;
    nodes.update_settings(id, through(exit), None).await.unwrap();
    nodes.delete(exit).await.unwrap();
    let store = env.reload(store).await;
    let node = store.nodes().get(id).await.unwrap().unwrap();
    assert_eq!(node.settings.as_ref().unwrap().exit_node, Some(exit));
}

fn limited(number: u32, user: UserId, families: AddressFamilies) -> Registration {
    Registration { families: Some(families), ..machine(number, by(user)) }
}

/// Whether it has an IPv4 and an IPv6 address.
fn has(node: &Node) -> (bool, bool) {
    (node.ipv4.is_some(), node.ipv6.is_some())
}

async fn a_node_gets_addresses_of_its_families_only(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    for (number, families, expected) in [
        (1, AddressFamilies::Ipv4, (true, false)),
        (2, AddressFamilies::Ipv6, (false, true)),
        (3, AddressFamilies::Both, (true, true)),
    ] {
        let node = store.nodes().register(limited(number, alice, families)).await.unwrap();
        assert_eq!((node.families, has(&node)), (families, expected));
        store = env.reload(store).await;
        assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node));
    }
    assert_eq!(idle(&store, store.nodes().backfill_addresses()).await, []);
    // Of what the network has; the rest comes with it.
    put_network(&store, network(Some("10.9.0.0/24"), None)).await;
    let both = store.nodes().register(machine(4, by(alice))).await.unwrap();
    let six = store.nodes().register(limited(5, alice, AddressFamilies::Ipv4)).await.unwrap();
    assert_eq!((has(&both), has(&six)), ((true, false), (true, false)));
    put_network(&store, network(Some("10.9.0.0/24"), Some("fd01::/64"))).await;
    let store = env.reload(store).await;
    assert_eq!(store.nodes().backfill_addresses().await.unwrap(), [both.id]);
}

async fn a_limit_can_be_changed_and_addresses_stay(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let node = store.nodes().register(machine(1, by(alice))).await.unwrap();
    let four = limited(1, alice, AddressFamilies::Ipv4);
    let again = store.nodes().register(four).await.unwrap();
    assert_eq!((again.families, again.ipv6), (AddressFamilies::Ipv4, node.ipv6));
    // Who says nothing of it leaves it as it is.
    let again = store.nodes().register(machine(1, by(alice))).await.unwrap();
    assert_eq!(again.families, AddressFamilies::Ipv4);
    let other = store.nodes().register(limited(2, alice, AddressFamilies::Ipv6)).await.unwrap();
    let both = NodePatch { families: Update::Set(AddressFamilies::Both), ..NodePatch::default() };
    let changed = store.nodes().update(other.id, both, None).await.unwrap();
    assert_eq!((changed.families, has(&changed)), (AddressFamilies::Both, (false, true)));
    let store = env.reload(store).await;
    assert_eq!(store.nodes().backfill_addresses().await.unwrap(), [other.id]);
    let filled = store.nodes().get(other.id).await.unwrap().unwrap();
    assert_eq!((has(&filled), filled.ipv6), ((true, true), other.ipv6));
}

async fn a_node_without_a_family_is_refused(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(None, Some("fd01::/64"))).await;
    let store = env.reload(store).await;
    let four = store.nodes().register(limited(1, alice, AddressFamilies::Ipv4));
    let error = refused(&store, four, Exhausted).await;
    assert!(error.to_string().contains("families=ipv4"), "{error}");
    let six = store.nodes().register(limited(1, alice, AddressFamilies::Ipv6)).await.unwrap();
    assert_eq!(has(&six), (false, true));
}

async fn a_node_is_reached_at_its_addresses_and_what_it_serves(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    connect(&store, a.id, 1).await;
    carry(&store, a.id, &["10.2.0.0/16", "10.1.0.0/16", "fd01::/64", "0.0.0.0/0"]).await;
    advertise(&store, b.id, &["10.9.0.0/16"]).await.unwrap();
    let mut store = env.reload(store).await;
    let own = |node: &Node| {
        let four = Prefix::host(node.ipv4.unwrap().into()).unwrap();
        vec![four, Prefix::host(node.ipv6.unwrap().into()).unwrap()]
    };
    let served = [own(&a), prefixes(&["10.1.0.0/16", "10.2.0.0/16", "fd01::/64"])].concat();
    let soon = env.clock().now().saturating_add(Duration::from_secs(60));
    for (step, expected) in [served.clone(), own(&a), served, own(&a)].into_iter().enumerate() {
        match step {
            1 => drop(disconnect(&store, a.id, 1).await),
            2 => {
                connect(&store, a.id, 2).await;
                store.nodes().expire(vec![a.id], soon).await.unwrap();
            }
            3 => env.advance(60),
            _ => {}
        }
        store = env.reload(store).await;
        let found = store.nodes().allowed_ips(a.id).await.unwrap();
        assert_eq!(found, Some(expected), "step {step}");
    }
    assert_eq!(store.nodes().allowed_ips(b.id).await.unwrap(), Some(own(&b)));
    let unknown = NodeId::from_bytes([9; 16]);
    assert_eq!(store.nodes().allowed_ips(unknown).await.unwrap(), None);
    assert_eq!(store.view().allowed_ips(unknown, soon), []);
}

async fn an_address_leads_to_one_node(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let mut ids = Vec::new();
    for number in 1..=3 {
        let id = node(&store, alice, number).await.id;
        connect(&store, id, 1).await;
        carry(&store, id, &["10.1.0.0/16", "::/0"]).await;
        ids.push(id);
    }
    let soon = env.clock().now().saturating_add(Duration::from_secs(60));
    store.nodes().expire(vec![ids[0]], soon).await.unwrap();
    let store = env.reload(store).await;
    for (time, server) in [(env.clock().now(), ids[0]), (soon, ids[1])] {
        let mut seen = BTreeSet::new();
        for id in &ids {
            let allowed = store.view().allowed_ips(*id, time);
            assert_eq!(allowed.contains(&prefix("10.1.0.0/16")), *id == server);
            assert!(allowed.iter().all(|prefix| !prefix.is_exit() && seen.insert(*prefix)));
        }
    }
}

async fn a_client_with_one_key_keeps_its_first_machine_key(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (first, second) = (node_key(1), node_key(2));
    let machine_key = MachineKey::of_node_key(&first);
    let hostname: Hostname = "laptop".parse().unwrap();
    let registration = Registration::new(machine_key, first, hostname.clone(), by(alice));
    let node = store.nodes().register(registration).await.unwrap();
    store.nodes().rotate_key(machine_key, first, second, None, None).await.unwrap();
    let store = env.reload(store).await;
    // The present key leads to the node, and the node has the machine key.
    let found = store.nodes().get_by_node_key(&second).await.unwrap().unwrap();
    assert_eq!((found.id, found.machine_key), (node.id, machine_key));
    let again = Registration::new(found.machine_key, second, hostname, by(alice));
    assert_eq!(store.nodes().register(again).await.unwrap().id, node.id);
    assert_ne!(MachineKey::of_node_key(&second), machine_key);
}
