//! Addresses for nodes that lack one.

use super::addresses::addresses;
use crate::prelude::*;

cases! {
    stored {
        "backfill" => [
            backfilling_gives_every_node_what_it_lacks,
            backfilling_beside_others_takes_the_lowest_free,
            backfilling_too_few_changes_none,
        ],
        "release-addresses" => [
            what_is_no_longer_configured_is_taken_back_when_asked,
            too_few_new_addresses_release_none,
            the_last_address_of_a_node_stays,
            what_is_reserved_or_of_another_family_is_taken_back,
        ],
        "renumber" => [
            a_node_gets_other_addresses,
            a_given_address_has_to_be_free_and_of_the_network,
            renumbering_knows_the_revision,
        ],
    }
    stored_unopened {
        "release-addresses" => [releasing_goes_on_in_parts],
    }
}

async fn backfilling_gives_every_node_what_it_lacks(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    let mut before = vec![node(&store, alice, 1).await];
    env.advance(1);
    put_network(&store, network(None, Some("fd01::/64"))).await;
    before.push(node(&store, alice, 2).await);
    env.advance(1);
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    let whole = node(&store, alice, 3).await;
    let store = env.reload(store).await;
    env.advance(1);
    let ids = store.nodes().backfill_addresses().await.unwrap();
    assert_eq!(ids, [before[0].id, before[1].id]);
    let store = env.reload(store).await;
    let filled = [
        Node { ipv6: Some("fd01::3".parse().unwrap()), ..Node::clone(&before[0]) },
        Node { ipv4: Some([10, 1, 0, 3].into()), ..Node::clone(&before[1]) },
    ];
    for expected in filled {
        let found = store.nodes().get(expected.id).await.unwrap().unwrap();
        let expected =
            Node { updated_at: found.updated_at, revision: Revision::FIRST.next(), ..expected };
        assert_eq!(*found, expected);
        assert!(found.updated_at > before[1].created_at);
        for address in addresses(&found) {
            assert_eq!(store.nodes().get_by_address(address).await.unwrap().as_ref(), Some(&found));
        }
        let lines = audit_of(&store, found.id).await;
        assert_eq!(lines, ["node.register by system", "node.backfill_addresses by system"]);
    }
    assert_eq!(store.nodes().get(whole.id).await.unwrap(), Some(whole));
    assert_eq!(idle(&store, store.nodes().backfill_addresses()).await, []);
}

async fn backfilling_beside_others_takes_the_lowest_free(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    for number in 1..=5 {
        node(&store, alice, number).await;
    }
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    let others = [node(&store, alice, 6).await, node(&store, alice, 7).await];
    store.nodes().delete(others[0].id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.nodes().backfill_addresses().await.unwrap().len(), 5);
    let store = env.reload(store).await;
    let sixes: BTreeSet<_> = store.view().nodes().iter().map(|node| node.ipv6.unwrap()).collect();
    let expected = (1..=6u16).map(|last| Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, last));
    assert_eq!(sixes, expected.collect());
}

async fn backfilling_too_few_changes_none(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    for number in 1..=3 {
        node(&store, alice, number).await;
    }
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/127"))).await;
    let store = env.reload(store).await;
    let error = refused(&store, store.nodes().backfill_addresses(), Exhausted).await;
    assert_eq!(error.operation(), Some("node.backfill_addresses"));
    assert!(store.view().nodes().iter().all(|node| node.ipv6.is_none()));
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/126"))).await;
    assert_eq!(store.nodes().backfill_addresses().await.unwrap().len(), 3);
}

async fn what_is_no_longer_configured_is_taken_back_when_asked(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    let first = node(&store, alice, 1).await;
    let second = node(&store, alice, 2).await;
    env.advance(1);
    // One prefix becomes smaller, and the other family goes.
    put_network(&store, network(Some("10.1.0.2/31"), None)).await;
    let store = env.reload(store).await;
    let listed: Vec<_> = store.view().unconfigured_addresses().collect();
    let four: IpAddr = first.ipv4.unwrap().into();
    let sixes = [&first, &second].map(|node| IpAddr::from(node.ipv6.unwrap()));
    assert_eq!(listed, [(first.id, four), (first.id, sixes[0]), (second.id, sixes[1])]);
    assert_eq!(idle(&store, store.nodes().backfill_addresses()).await, []);
    assert_eq!(store.nodes().release_addresses().await.unwrap(), [first.id, second.id]);
    let store = env.reload(store).await;
    let moved = store.nodes().get(first.id).await.unwrap().unwrap();
    assert_eq!((moved.ipv4, moved.ipv6), (Some([10, 1, 0, 3].into()), None));
    let kept = store.nodes().get(second.id).await.unwrap().unwrap();
    assert_eq!((kept.ipv4, kept.ipv6), (second.ipv4, None));
    assert_eq!((kept.revision.get(), kept.updated_at), (2, env.clock().now()));
    for gone in [four, sixes[0], sixes[1]] {
        assert_eq!(store.nodes().get_by_address(gone).await.unwrap(), None);
    }
    let lines = audit_of(&store, first.id).await;
    assert_eq!(lines, ["node.register by system", "node.backfill_addresses by system"]);
    assert_eq!(store.view().unconfigured_addresses().count(), 0);
    assert_eq!(idle(&store, store.nodes().release_addresses()).await, []);
    // What was taken back is given out again.
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    let third = node(&store, alice, 3).await;
    assert!(addresses(&third).eq([four, sixes[0]]));
}

async fn too_few_new_addresses_release_none(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    for number in 1..=3 {
        node(&store, alice, number).await;
    }
    put_network(&store, network(Some("10.2.0.0/31"), None)).await;
    let store = env.reload(store).await;
    refused(&store, store.nodes().release_addresses(), Exhausted).await;
    assert_eq!(store.view().unconfigured_addresses().count(), 3);
    put_network(&store, network(Some("10.2.0.0/29"), None)).await;
    assert_eq!(store.nodes().release_addresses().await.unwrap().len(), 3);
}

async fn the_last_address_of_a_node_stays(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), None)).await;
    let four = Registration { families: Some(AddressFamilies::Ipv4), ..machine(1, by(alice)) };
    let four = store.nodes().register(four).await.unwrap();
    put_network(&store, network(None, Some("fd01::/64"))).await;
    let store = env.reload(store).await;
    assert_eq!(store.view().unconfigured_addresses().count(), 0);
    assert_eq!(idle(&store, store.nodes().release_addresses()).await, []);
    let none = store.nodes().renumber(four.id, Renumbering::BOTH, None);
    refused(&store, none, Exhausted).await;
    assert_eq!(store.nodes().get(four.id).await.unwrap(), Some(four));
}

async fn what_is_reserved_or_of_another_family_is_taken_back(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    let (first, second) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    let reserved = vec!["10.1.0.0/31".parse().unwrap()];
    put_network(
        &store,
        NetworkSettings { reserved, ..network(Some("10.1.0.0/24"), Some("fd01::/64")) },
    )
    .await;
    let six = NodePatch { families: Update::Set(AddressFamilies::Ipv6), ..NodePatch::default() };
    store.nodes().update(second.id, six, None).await.unwrap();
    let given = store.nodes().renumber(second.id, given("10.1.0.9"), None);
    refused(&store, given, InvalidArgument).await;
    let store = env.reload(store).await;
    let listed: Vec<_> = store.view().unconfigured_addresses().collect();
    let four = |node: &Node| (node.id, IpAddr::from(node.ipv4.unwrap()));
    assert_eq!(listed, [four(&first), four(&second)]);
    assert_eq!(store.nodes().release_addresses().await.unwrap(), [first.id, second.id]);
    let store = env.reload(store).await;
    let view = store.view();
    let found = [&first, &second].map(|node| view.nodes().get(node.id).unwrap().ipv4);
    // The second had .2 until then.
    assert_eq!(found, [Some([10, 1, 0, 3].into()), None]);
}

async fn releasing_goes_on_in_parts(env: &mut TestEnv) {
    let mut options = env.options();
    options.writer.max_block_bytes = 64 * 1024;
    let store = env.open_with(options).await;
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    for number in 1..=120 {
        node(&store, alice, number).await;
    }
    // 126 are enough, and 62 are not.
    put_network(&store, network(Some("10.2.0.0/26"), None)).await;
    refused(&store, store.nodes().release_addresses(), Exhausted).await;
    put_network(&store, network(Some("10.2.0.0/25"), None)).await;
    let before = store.view().serial();
    assert_eq!(store.nodes().release_addresses().await.unwrap().len(), 120);
    assert!(store.view().serial() > before.next(), "in one part");
    let store = env.reload(store).await;
    assert_eq!(store.view().unconfigured_addresses().count(), 0);
    assert!(store.view().nodes().iter().all(|node| node.ipv4.is_some() && node.ipv6.is_none()));
}

fn given(ipv4: &str) -> Renumbering {
    Renumbering { ipv4: NewAddress::Given(ipv4.parse().unwrap()), ..Renumbering::default() }
}

async fn a_node_gets_other_addresses(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/29"), Some("fd01::/64"))).await;
    let first = node(&store, alice, 1).await;
    node(&store, alice, 2).await;
    env.advance(1);
    let moved = store.nodes().renumber(first.id, Renumbering::BOTH, None).await.unwrap();
    let expected: [IpAddr; 2] = ["10.1.0.3".parse().unwrap(), "fd01::3".parse().unwrap()];
    assert!(addresses(&moved).eq(expected));
    assert_eq!((moved.revision.get(), moved.updated_at), (2, env.clock().now()));
    let store = env.reload(store).await;
    for address in addresses(&first) {
        assert_eq!(store.nodes().get_by_address(address).await.unwrap(), None);
    }
    for address in expected {
        assert_eq!(store.nodes().get_by_address(address).await.unwrap().as_ref(), Some(&moved));
    }
    let lines = audit_of(&store, first.id).await;
    assert_eq!(lines, ["node.register by system", "node.renumber by system"]);
    // One family alone, and a given one.
    let moved = store.nodes().renumber(first.id, given("10.1.0.6"), None).await.unwrap();
    assert!(addresses(&moved).eq(["10.1.0.6".parse().unwrap(), expected[1]]));
    assert_eq!(
        idle(&store, store.nodes().renumber(first.id, given("10.1.0.6"), None)).await,
        moved
    );
    let none = store.nodes().renumber(first.id, Renumbering::default(), None);
    assert_eq!(idle(&store, none).await, moved);
    // Others take what is free.
    let store = env.reload(store).await;
    assert_eq!(node(&store, alice, 3).await.ipv4, first.ipv4);
    for number in 4..=6 {
        node(&store, alice, number).await;
    }
    let full = store.nodes().renumber(first.id, Renumbering::BOTH, None);
    refused(&store, full, Exhausted).await;
}

async fn a_given_address_has_to_be_free_and_of_the_network(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let reserved = vec![prefix("10.1.0.8/29")];
    let settings = NetworkSettings { reserved, ..network(Some("10.1.0.0/24"), None) };
    put_network(&store, settings).await;
    let (first, second) = (node(&store, alice, 1).await, node(&store, alice, 2).await);
    let store = env.reload(store).await;
    // The ends of the prefix, one outside, a reserved one; and a family that is not configured.
    let six = NewAddress::Given("fd01::1".parse().unwrap());
    let six = Renumbering { ipv6: six, ..Renumbering::default() };
    for bad in [given("10.1.0.0"), given("10.1.0.255"), given("10.2.0.1"), given("10.1.0.9"), six] {
        let call = store.nodes().renumber(first.id, bad, None);
        refused(&store, call, InvalidArgument).await;
    }
    let taken = given(&second.ipv4.unwrap().to_string());
    let error = fails(
        store.nodes().renumber(first.id, taken, None).await,
        AlreadyExists { constraint: "address" },
    );
    assert!(error.to_string().contains(&second.id.to_string()), "{error}");
    store.nodes().delete(second.id).await.unwrap();
    store.nodes().renumber(first.id, taken, None).await.unwrap();
    refused(&store, store.nodes().renumber(second.id, taken, None), NotFound).await;
}

async fn renumbering_knows_the_revision(env: &mut TestEnv, store: Opened) {
    let first = some_node(&store).await;
    let renumber = |expected| store.nodes().renumber(first.id, Renumbering::BOTH, expected);
    let moved = renumber(Some(first.revision)).await.unwrap();
    refused(&store, renumber(Some(first.revision)), Conflict).await;
    renumber(Some(moved.revision)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap().unwrap().revision.get(), 3);
}
