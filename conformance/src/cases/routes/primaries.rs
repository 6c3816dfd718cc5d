//! Which route carries the traffic for a prefix.

use crate::prelude::*;

pub(super) const SHARED: &str = "10.1.0.0/16";

cases! {
    stored {
        "route-primary" => [
            a_primary_is_advertised_approved_and_online,
            a_primary_fails_over_on_a_disconnect_and_not_back,
            a_primary_fails_over_when_its_node_is_deleted,
            a_primary_fails_over_when_it_is_no_longer_advertised,
            a_primary_fails_over_when_it_is_no_longer_approved,
            a_primary_fails_over_when_the_route_is_deleted,
            the_oldest_that_can_takes_over,
            what_nobody_approved_decides_nothing,
            the_oldest_takes_over_even_if_the_clock_was_set_back,
            another_connection_of_the_same_node_moves_nothing,
            each_prefix_has_a_primary_of_its_own,
            the_flag_is_no_change_of_a_route,
            the_lowest_metric_goes_before_age,
            a_healthy_primary_yields_to_a_lower_metric_only,
            primaries_agree_with_a_model,
        ],
    }
}

/// Nodes that are online and carry the shared prefix, oldest first.
pub(super) async fn routers(env: &TestEnv, store: &Opened, count: u32) -> Vec<NodeId> {
    let alice = user(store, "alice").await;
    let mut ids = Vec::new();
    for number in 1..=count {
        let id = node(store, alice, number).await.id;
        env.advance(1);
        connect(store, id, 1).await;
        carry(store, id, &[SHARED]).await;
        ids.push(id);
    }
    ids
}

async fn a_primary_is_advertised_approved_and_online(env: &mut TestEnv, mut store: Opened) {
    let id = some_node(&store).await.id;
    // In each order of the three, it is the last one that makes it primary.
    for (session, order) in [(1, [0, 1, 2]), (2, [1, 2, 0]), (3, [2, 0, 1]), (4, [2, 1, 0])] {
        for (step, what) in order.into_iter().enumerate() {
            assert_eq!(primary(&store, SHARED).await, None, "{order:?} before step {step}");
            match what {
                0 => drop(advertise(&store, id, &[SHARED]).await.unwrap()),
                1 => drop(approve(&store, id, &[SHARED]).await.unwrap()),
                _ => drop(connect(&store, id, session).await),
            }
        }
        store = env.reload(store).await;
        assert_eq!(primary(&store, SHARED).await, Some(id), "{order:?}");
        disconnect(&store, id, session).await;
        carry(&store, id, &[]).await;
        store = env.reload(store).await;
    }
}

async fn a_primary_fails_over_on_a_disconnect_and_not_back(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    disconnect(&store, ids[0], 1).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    connect(&store, ids[0], 2).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]), "coming back does not take over");
    // With nobody else online there is none, and the first who comes gets it.
    disconnect(&store, ids[0], 2).await;
    disconnect(&store, ids[1], 1).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
    connect(&store, ids[1], 2).await;
    connect(&store, ids[0], 3).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
}

async fn a_primary_fails_over_when_its_node_is_deleted(env: &mut TestEnv, mut store: Opened) {
    let ids = routers(env, &store, 3).await;
    for (gone, next) in [(ids[0], Some(ids[1])), (ids[1], Some(ids[2])), (ids[2], None)] {
        store = env.reload(store).await;
        assert_eq!(primary(&store, SHARED).await, Some(gone));
        store.nodes().delete(gone).await.unwrap();
        assert_eq!(primary(&store, SHARED).await, next);
    }
    let store = env.reload(store).await;
    assert!(store.view().routes().is_empty());
}

async fn a_primary_fails_over_when_it_is_no_longer_advertised(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let store = env.reload(store).await;
    advertise(&store, ids[0], &["10.9.0.0/16"]).await.unwrap();
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    advertise(&store, ids[0], &[SHARED]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]), "coming back does not take over");
    advertise(&store, ids[1], &[]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    advertise(&store, ids[0], &[]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
}

async fn a_primary_fails_over_when_it_is_no_longer_approved(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let store = env.reload(store).await;
    approve(&store, ids[0], &[]).await.unwrap();
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    approve(&store, ids[0], &[SHARED]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]), "coming back does not take over");
    approve(&store, ids[1], &["10.9.0.0/16"]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    approve(&store, ids[0], &[]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
}

async fn a_primary_fails_over_when_the_route_is_deleted(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let store = env.reload(store).await;
    let route = store.view().routes().primary(prefix(SHARED)).unwrap().clone();
    assert_eq!(route.node, ids[0]);
    store.routes().delete(route.id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    let route = store.view().routes().primary(prefix(SHARED)).unwrap().clone();
    store.routes().delete(route.id).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
}

async fn the_oldest_that_can_takes_over(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 5).await;
    // Of the four others the first two cannot.
    disconnect(&store, ids[1], 1).await;
    approve(&store, ids[2], &[]).await.unwrap();
    let store = env.reload(store).await;
    disconnect(&store, ids[0], 1).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[3]));
    // The oldest by its route, whatever it was before.
    connect(&store, ids[1], 2).await;
    connect(&store, ids[0], 2).await;
    approve(&store, ids[2], &[SHARED]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[3]));
    for next in [ids[0], ids[1], ids[2], ids[4]] {
        let carrier = primary(&store, SHARED).await.unwrap();
        advertise(&store, carrier, &[]).await.unwrap();
        assert_eq!(primary(&store, SHARED).await, Some(next));
    }
}

async fn what_nobody_approved_decides_nothing(env: &mut TestEnv, store: Opened) {
    let bob = user(&store, "bob").await;
    let mut others = Vec::new();
    for number in 10..15 {
        let id = node(&store, bob, number).await.id;
        connect(&store, id, 1).await;
        advertise(&store, id, &[SHARED]).await.unwrap();
        others.push(id);
    }
    env.advance(1);
    let ids = routers(env, &store, 2).await;
    let mut store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    // Whatever they do, older as they are.
    for (number, id) in others.iter().enumerate() {
        match number {
            0 => store.nodes().delete(*id).await.unwrap(),
            1 => drop(advertise(&store, *id, &[]).await.unwrap()),
            _ => {
                disconnect(&store, *id, 1).await;
                connect(&store, *id, 2).await;
            }
        }
        assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    }
    disconnect(&store, ids[0], 1).await;
    store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    disconnect(&store, ids[1], 1).await;
    assert_eq!(primary(&store, SHARED).await, None);
    disconnect(&store, others[2], 2).await;
    connect(&store, others[2], 3).await;
    store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
    // Only an approval makes one of them the oldest that can.
    connect(&store, ids[1], 2).await;
    approve(&store, others[3], &[SHARED]).await.unwrap();
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    connect(&store, ids[0], 2).await;
    disconnect(&store, ids[1], 2).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(others[3]));
}

async fn the_oldest_takes_over_even_if_the_clock_was_set_back(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let beginning = env.clock().now();
    let mut ids = Vec::new();
    for (number, seconds) in [(1, 10), (2, 20), (3, 30)] {
        let id = node(&store, alice, number).await.id;
        // Whatever comes now comes at this moment, since times in the store do not move back.
        env.clock().set(beginning.saturating_add(Duration::from_secs(seconds)));
        connect(&store, id, 1).await;
        let hours = Duration::from_secs(3600 * seconds);
        env.clock().set(beginning.saturating_sub(hours));
        carry(&store, id, &[SHARED]).await;
        ids.push(id);
    }
    let store = env.reload(store).await;
    let made: Vec<_> = ids
        .iter()
        .map(|id| store.view().routes().find(*id, prefix(SHARED)).unwrap().created_at)
        .collect();
    assert!(made.is_sorted_by(|earlier, later| earlier < later), "{made:?}");
    for next in [Some(ids[1]), Some(ids[2]), None] {
        let carrier = primary(&store, SHARED).await.unwrap();
        disconnect(&store, carrier, 1).await;
        assert_eq!(primary(&store, SHARED).await, next);
    }
}

async fn another_connection_of_the_same_node_moves_nothing(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    connect(&store, ids[0], 2).await;
    disconnect(&store, ids[0], 1).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
}

async fn each_prefix_has_a_primary_of_its_own(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    // The same address with another length, and another family, are other prefixes.
    carry(&store, ids[1], &[SHARED, "10.1.0.0/17", "fd01::/16"]).await;
    env.advance(1);
    carry(&store, ids[0], &[SHARED, "10.1.0.0/17", "fd01::/16"]).await;
    let store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    for prefix in ["10.1.0.0/17", "fd01::/16"] {
        assert_eq!(primary(&store, prefix).await, Some(ids[1]), "{prefix}");
    }
    disconnect(&store, ids[1], 1).await;
    let store = env.reload(store).await;
    for prefix in [SHARED, "10.1.0.0/17", "fd01::/16"] {
        assert_eq!(primary(&store, prefix).await, Some(ids[0]), "{prefix}");
    }
}

async fn the_flag_is_no_change_of_a_route(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 2).await;
    let before: Vec<_> = store.view().routes().iter().cloned().collect();
    env.advance(60);
    disconnect(&store, ids[0], 1).await;
    let store = env.reload(store).await;
    let after: Vec<_> = store.view().routes().iter().map(|route| Route::clone(route)).collect();
    let expected: Vec<_> = before
        .iter()
        .map(|route| Route { primary: route.node == ids[1], ..Route::clone(route) })
        .collect();
    assert_eq!(after, expected);
}

/// Sets the metric of a node's route for the shared prefix.
async fn cost(store: &Opened, id: NodeId, metric: u32) {
    let route = store.view().routes().find(id, prefix(SHARED)).unwrap().id;
    let metric = Update::Set(RouteMetric::new(metric));
    let patch = RoutePatch { metric, ..RoutePatch::default() };
    store.routes().update(route, patch, None).await.unwrap();
}

async fn the_lowest_metric_goes_before_age(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 4).await;
    for (id, metric) in [(ids[1], 30), (ids[2], 10), (ids[3], 10)] {
        cost(&store, id, metric).await;
    }
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]), "0 is the lowest there is");
    let mut store = env.reload(store).await;
    for next in [Some(ids[2]), Some(ids[3]), Some(ids[1]), None] {
        let carrier = primary(&store, SHARED).await.unwrap();
        disconnect(&store, carrier, 1).await;
        store = env.reload(store).await;
        assert_eq!(primary(&store, SHARED).await, next);
    }
}

async fn a_healthy_primary_yields_to_a_lower_metric_only(env: &mut TestEnv, store: Opened) {
    let ids = routers(env, &store, 3).await;
    cost(&store, ids[2], 5).await;
    cost(&store, ids[1], 5).await;
    // It goes as soon as its own metric is above another, and to the oldest of the lowest.
    cost(&store, ids[0], 5).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]), "an equal metric does not take over");
    let mut store = env.reload(store).await;
    cost(&store, ids[0], 6).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    store = env.reload(store).await;
    cost(&store, ids[0], 5).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    cost(&store, ids[2], 4).await;
    store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[2]));
    // One with a lower metric takes over when it comes, too, and by nothing but coming.
    disconnect(&store, ids[2], 1).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    connect(&store, ids[2], 2).await;
    store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[2]));
    // The metric of what carries nothing decides nothing.
    approve(&store, ids[1], &[]).await.unwrap();
    cost(&store, ids[1], 0).await;
    store = env.reload(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[2]));
    approve(&store, ids[1], &[SHARED]).await.unwrap();
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
}

/// A route of the model.
#[derive(Default, Clone, Copy)]
struct Sides {
    advertised: bool,
    approved: bool,
    /// The step in which it was made.
    made: usize,
}

async fn primaries_agree_with_a_model(env: &mut TestEnv, mut store: Opened) {
    const PREFIXES: [&str; 3] = [SHARED, "10.1.0.0/24", "fd01::/64"];
    let alice = user(&store, "alice").await;
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(node(&store, alice, number).await.id);
    }
    let mut sessions = [0u64; 4];
    let mut online = [false; 4];
    let mut routes: BTreeMap<(usize, usize), Sides> = BTreeMap::new();
    let mut primaries: [Option<usize>; 3] = [None; 3];
    let rng = Rng::new(3);
    for step in 0..160 {
        env.advance(1);
        let who = rng.below(4);
        match rng.below(4) {
            0 => {
                sessions[who] += 1;
                connect(&store, ids[who], sessions[who]).await;
                online[who] = true;
            }
            1 => {
                disconnect(&store, ids[who], sessions[who]).await;
                online[who] = false;
            }
            side => {
                let chosen: Vec<_> = (0..3).filter(|_| rng.below(3) > 0).collect();
                let texts: Vec<_> = chosen.iter().map(|which| PREFIXES[*which]).collect();
                match side {
                    2 => advertise(&store, ids[who], &texts).await.unwrap(),
                    _ => approve(&store, ids[who], &texts).await.unwrap(),
                };
                for which in 0..3 {
                    let new = Sides { made: step, ..Sides::default() };
                    let route = routes.entry((who, which)).or_insert(new);
                    let on = chosen.contains(&which);
                    match side {
                        2 => route.advertised = on,
                        _ => route.approved = on,
                    }
                }
                routes.retain(|_, route| route.advertised || route.approved);
            }
        }
        for (which, text) in PREFIXES.iter().enumerate() {
            let can = |who: &usize| {
                let route = routes.get(&(*who, which));
                online[*who] && route.is_some_and(|route| route.advertised && route.approved)
            };
            if !primaries[which].is_some_and(|who| can(&who)) {
                let oldest = (0..4).filter(can).min_by_key(|who| routes[&(*who, which)].made);
                primaries[which] = oldest;
            }
            let found = primary(&store, text).await;
            assert_eq!(found, primaries[which].map(|who| ids[who]), "{text} after step {step}");
        }
        if step % 40 == 39 {
            store = env.reload(store).await;
        }
    }
}
