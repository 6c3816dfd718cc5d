//! Primary routes and the expiry of keys, which comes without a write.

use super::primaries::{SHARED, routers};
use crate::prelude::*;

const LONGER: &str = "10.1.2.0/24";
const ADDRESS: &str = "10.1.2.3";

cases! {
    stored {
        "route-expiry" => [
            a_primary_fails_over_when_its_key_expires,
            whatever_sets_an_expiry_decides_about_primaries,
            a_lookup_passes_expired_keys_by,
            a_sweep_writes_down_what_has_expired,
            a_sweep_finds_many_prefixes,
            a_key_that_is_renewed_before_a_sweep_loses_nothing,
            a_node_whose_key_has_expired_is_not_elected,
        ],
    }
}

async fn found(store: &Opened) -> Option<NodeId> {
    let route = store.routes().lookup(ADDRESS.parse().unwrap()).await.unwrap();
    let now = store.clock().now().unwrap();
    assert_eq!(route, store.view().route_to(ADDRESS.parse().unwrap(), now).cloned());
    route.map(|route| route.node)
}

async fn expire(store: &Opened, id: NodeId, at: Timestamp) {
    assert_eq!(store.nodes().expire(vec![id], at).await.unwrap(), 1);
}

async fn a_primary_fails_over_when_its_key_expires(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let now = env.clock().now();
    expire(&store, ids[0], now).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    assert_eq!(found(&store).await, Some(ids[1]));
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    // Both at once leave none.
    let earlier = now.saturating_sub(Duration::from_secs(1));
    assert_eq!(store.nodes().expire(ids.clone(), earlier).await.unwrap(), 2);
    let store = env.reload(store).await;
    assert_eq!((primary(&store, SHARED).await, found(&store).await), (None, None));
    // The first who may again is it, and coming back does not take over.
    let later = now.saturating_add(Duration::from_secs(60));
    expire(&store, ids[1], later).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    expire(&store, ids[0], later).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
}

async fn whatever_sets_an_expiry_decides_about_primaries(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let alice = store.view().nodes().get(ids[0]).unwrap().user.unwrap();
    let mut store = env.reload(store).await;
    for (step, next) in [ids[1], ids[0], ids[1], ids[0]].into_iter().enumerate() {
        let now = env.clock().now();
        match step {
            0 => {
                let patch = NodePatch { expires_at: Patch::Set(now), ..NodePatch::default() };
                store.nodes().update(ids[0], patch, None).await.unwrap();
            }
            // The first one registers again; that it has a valid key moves nothing, that the other
            // one has none does.
            1 => {
                store.nodes().register(machine(1, by(alice))).await.unwrap();
                assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
                let (key, old) = (machine_key(2), node_key(2));
                let rotated = store.nodes().rotate_key(key, old, node_key(12), None, Some(now));
                rotated.await.unwrap();
            }
            2 => {
                let again = Registration { node_key: node_key(12), ..machine(2, by(alice)) };
                store.nodes().register(again).await.unwrap();
                expire(&store, ids[0], now).await;
            }
            _ => {
                let renewed = NodePatch { expires_at: Patch::Clear, ..NodePatch::default() };
                store.nodes().update(ids[0], renewed, None).await.unwrap();
                let ended = Registration {
                    node_key: node_key(12),
                    expires_at: Some(now),
                    ..machine(2, by(alice))
                };
                store.nodes().register(ended).await.unwrap();
            }
        }
        assert_eq!(primary(&store, SHARED).await, Some(next), "step {step}");
        store = env.reload(store).await;
        assert_eq!(found(&store).await, Some(next), "step {step}");
    }
}

async fn a_lookup_passes_expired_keys_by(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 4).await;
    let [first, second, third, fourth] = ids[..] else { panic!("four routers") };
    // The first two have a longer prefix, too.
    for id in [first, second] {
        carry(&store, id, &[SHARED, LONGER]).await;
    }
    let now = env.clock().now();
    for (id, seconds) in [(first, 10), (second, 20), (third, 30), (fourth, 40)] {
        expire(&store, id, now.saturating_add(Duration::from_secs(seconds))).await;
    }
    let mut store = env.reload(store).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        let route = store.routes().lookup(ADDRESS.parse().unwrap()).await.unwrap();
        assert_eq!(found(&store).await, route.as_ref().map(|route| route.node));
        answers.push(route.map(|route| (route.node, route.prefix)));
        env.advance(10);
        store = env.reload(store).await;
    }
    // At the moment itself a key has expired.
    let expected = [
        Some((first, prefix(LONGER))),
        Some((second, prefix(LONGER))),
        Some((third, prefix(SHARED))),
        Some((fourth, prefix(SHARED))),
        None,
    ];
    assert_eq!(answers, expected);
    // Nothing was written meanwhile.
    assert_eq!(primary(&store, LONGER).await, Some(first));
}

async fn a_sweep_writes_down_what_has_expired(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 3).await;
    let now = env.clock().now();
    for (id, seconds) in [(ids[0], 10), (ids[1], 20)] {
        expire(&store, id, now.saturating_add(Duration::from_secs(seconds))).await;
    }
    let mut store = env.reload(store).await;
    env.advance(9);
    assert_eq!(idle(&store, store.routes().sweep()).await, 0);
    let before: Vec<_> = store.view().routes().iter().cloned().collect();
    let lines = audit_lines(&store).await;
    for (seconds, next) in [(1, ids[1]), (10, ids[2])] {
        env.advance(seconds);
        let carrier = primary(&store, SHARED).await;
        assert_ne!(carrier, Some(next));
        assert_eq!(found(&store).await, Some(next));
        assert_eq!(store.routes().sweep().await.unwrap(), 1);
        store = env.reload(store).await;
        assert_eq!(primary(&store, SHARED).await, Some(next));
        assert_eq!(idle(&store, store.routes().sweep()).await, 0);
    }
    // It is no change of a route, and nobody did it.
    let after: Vec<_> = store.view().routes().iter().cloned().collect();
    for (before, after) in before.iter().zip(&after) {
        let primary = after.node == ids[2];
        assert_eq!(**after, Route { primary, ..Route::clone(before) });
    }
    assert_eq!(audit_lines(&store).await, lines);
}

async fn a_sweep_finds_many_prefixes(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    let all: Vec<_> = (0..1500u32)
        .map(|number| Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + number).into()).unwrap())
        .collect();
    for id in [a, b] {
        connect(&store, id, 1).await;
    }
    // Each half is the first one's; one more than a call takes.
    for (id, prefixes) in [(a, &all[..1000]), (b, &all[1000..])] {
        store.routes().advertise(id, prefixes.to_vec(), None).await.unwrap();
        store.routes().approve(id, prefixes.to_vec(), None).await.unwrap();
    }
    let soon = env.clock().now().saturating_add(Duration::from_secs(10));
    assert_eq!(store.nodes().expire(vec![a, b], soon).await.unwrap(), 2);
    let store = env.reload(store).await;
    env.advance(10);
    assert_eq!(store.routes().sweep().await.unwrap(), 1500);
    let store = env.reload(store).await;
    assert!(store.view().routes().iter().all(|route| !route.primary));
}

async fn a_key_that_is_renewed_before_a_sweep_loses_nothing(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let soon = env.clock().now().saturating_add(Duration::from_secs(10));
    expire(&store, ids[0], soon).await;
    env.advance(20);
    assert_eq!(found(&store).await, Some(ids[1]));
    let store = env.reload(store).await;
    expire(&store, ids[0], Timestamp::MAX).await;
    assert_eq!(found(&store).await, Some(ids[0]));
    assert_eq!(idle(&store, store.routes().sweep()).await, 0);
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
}

async fn a_node_whose_key_has_expired_is_not_elected(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 3).await;
    let soon = env.clock().now().saturating_add(Duration::from_secs(10));
    expire(&store, ids[1], soon).await;
    env.advance(20);
    let store = env.reload(store).await;
    disconnect(&store, ids[0], 1).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[2]));
    // Not when it comes, nor if it is the only one.
    connect(&store, ids[1], 2).await;
    disconnect(&store, ids[2], 1).await;
    let store = env.reload(store).await;
    assert_eq!((primary(&store, SHARED).await, found(&store).await), (None, None));
    expire(&store, ids[1], Timestamp::MAX).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
}
