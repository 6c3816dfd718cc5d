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
