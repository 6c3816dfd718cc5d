//! Routes: one by one, and beside somebody else who changes them.

use crate::prelude::*;

const FIRST: &str = "10.1.0.0/16";
const SECOND: &str = "10.2.0.0/16";

cases! {
    stored {
        "routes" => [
            one_prefix_is_offered_and_withdrawn_by_itself,
            one_route_is_approved_by_itself,
            what_changes_nothing_of_one_route_writes_nothing,
            a_side_holds_1024_routes,
        ],
        "route-set" => [
            administrators_who_read_the_same_do_not_undo_each_other,
            a_fingerprint_stands_for_what_was_read,
            a_transaction_can_require_the_routes_of_a_node,
        ],
        "route-details" => [
            metric_and_description_are_an_administrators,
            what_was_set_stays_while_a_route_is_there,
        ],
    }
}

async fn of_node(store: &Opened, id: NodeId) -> Vec<Arc<Route>> {
    store.routes().of_node(id).await.unwrap().routes
}

async fn one_prefix_is_offered_and_withdrawn_by_itself(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    carry(&store, id, &[FIRST]).await;
    let before = of_node(&store, id).await;
    env.advance(1);
    let routes = store.routes();
    let second = routes.advertise_one(id, prefix(SECOND)).await.unwrap();
    assert_eq!((second.advertised, second.approved), (true, false));
    assert_eq!(second.created_at, env.clock().now());
    let store = env.reload(store).await;
    assert_eq!(of_node(&store, id).await, [before[0].clone(), second.clone()]);
    env.advance(1);
    let routes = store.routes();
    assert_eq!(routes.withdraw_one(id, prefix(SECOND)).await.unwrap(), None);
    // What is approved stays, and carries nothing.
    let first = routes.withdraw_one(id, prefix(FIRST)).await.unwrap().unwrap();
    assert_eq!((first.advertised, first.approved, first.primary), (false, true, false));
    assert_eq!(first.revision, before[0].revision.next());
    let store = env.reload(store).await;
    assert_eq!(of_node(&store, id).await, std::slice::from_ref(&first));
    for gone in [FIRST, SECOND, "10.3.0.0/16"] {
        refused(&store, store.routes().withdraw_one(id, prefix(gone)), NotFound).await;
    }
    env.advance(1);
    let again = store.routes().advertise_one(id, prefix(FIRST)).await.unwrap();
    assert_eq!((again.id, again.advertised, again.primary), (first.id, true, true));
    let store = env.reload(store).await;
    assert_eq!(primary(&store, FIRST).await, Some(id));
    let unknown = NodeId::from_bytes([9; 16]);
    refused(&store, store.routes().advertise_one(unknown, prefix(FIRST)), NotFound).await;
    refused(&store, store.routes().withdraw_one(unknown, prefix(FIRST)), NotFound).await;
    let lines = audit_of(&store, id).await;
    assert_eq!(
        lines[3..],
        [
            "route.advertise_one by system",
            "route.withdraw_one by system",
            "route.withdraw_one by system",
            "route.advertise_one by system"
        ]
    );
}

async fn one_route_is_approved_by_itself(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    let routes = advertise(&store, id, &[FIRST, SECOND]).await.unwrap();
    let approved = store.routes().set_approved(routes[1].id, true).await.unwrap().unwrap();
    assert_eq!((approved.approved, approved.primary), (true, true));
    let store = env.reload(store).await;
    assert_eq!(of_node(&store, id).await, [routes[0].clone(), approved.clone()]);
    assert_eq!(primary(&store, SECOND).await, Some(id));
    let left = store.routes().set_approved(approved.id, false).await.unwrap().unwrap();
    assert_eq!((left.approved, left.primary), (false, false));
    // On neither side it disappears.
    approve(&store, id, &[FIRST]).await.unwrap();
    advertise(&store, id, &[SECOND]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(store.routes().set_approved(routes[0].id, false).await.unwrap(), None);
    let store = env.reload(store).await;
    assert_eq!(of_node(&store, id).await, [left]);
    refused(&store, store.routes().set_approved(routes[0].id, true), NotFound).await;
    assert_eq!(
        audit_of(&store, routes[1].id).await,
        ["route.set_approved by system", "route.set_approved by system"]
    );
}

async fn what_changes_nothing_of_one_route_writes_nothing(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    carry(&store, id, &[FIRST]).await;
    let store = env.reload(store).await;
    env.advance(60);
    let route = of_node(&store, id).await.remove(0);
    let routes = store.routes();
    assert_eq!(idle(&store, routes.advertise_one(id, prefix(FIRST))).await, route);
    assert_eq!(idle(&store, routes.set_approved(route.id, true)).await, Some(route.clone()));
    let same = RoutePatch { metric: Update::Set(route.metric), description: Patch::Clear };
    assert_eq!(idle(&store, routes.update(route.id, same, None)).await, route);
}

async fn a_side_holds_1024_routes(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let prefixes: Vec<_> = (0..1025u32)
        .map(|number| Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + number).into()).unwrap())
        .collect();
    store.routes().advertise(id, prefixes[1..].to_vec(), None).await.unwrap();
    store.routes().approve(id, prefixes[..1024].to_vec(), None).await.unwrap();
    let store = env.reload(store).await;
    let routes = store.routes();
    let found = of_node(&store, id).await;
    assert_eq!((found.len(), found[1024].approved), (1025, false));
    refused(&store, routes.advertise_one(id, prefixes[0]), Exhausted).await;
    refused(&store, routes.set_approved(found[1024].id, true), Exhausted).await;
    routes.withdraw_one(id, prefixes[1]).await.unwrap();
    routes.advertise_one(id, prefixes[0]).await.unwrap();
    routes.set_approved(found[0].id, false).await.unwrap();
    routes.set_approved(found[1024].id, true).await.unwrap();
}

async fn administrators_who_read_the_same_do_not_undo_each_other(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    advertise(&store, id, &[FIRST, SECOND]).await.unwrap();
    let store = env.reload(store).await;
    let read = store.routes().of_node(id).await.unwrap().fingerprint;
    let routes = store.routes();
    let first = vec![prefix(FIRST)];
    routes.approve(id, first.clone(), Some(read)).await.unwrap();
    let error = refused(&store, routes.approve(id, vec![], Some(read)), Conflict).await;
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    let store = env.reload(store).await;
    let routes = store.routes();
    refused(&store, routes.advertise(id, first.clone(), Some(read)), Conflict).await;
    // Also where nothing would change: who asks decides on what is there.
    refused(&store, routes.approve(id, first.clone(), Some(read)), Conflict).await;
    let read = routes.of_node(id).await.unwrap().fingerprint;
    routes.advertise(id, first, Some(read)).await.unwrap();
    let unknown = NodeId::from_bytes([9; 16]);
    let none = Fingerprint::of::<RouteId>([]);
    refused(&store, routes.approve(unknown, vec![], Some(none)), NotFound).await;
    assert_eq!(routes.of_node(unknown).await.unwrap().fingerprint, none);
}

async fn a_fingerprint_stands_for_what_was_read(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    carry(&store, a, &[FIRST]).await;
    carry(&store, b, &[FIRST]).await;
    let mut seen = Vec::new();
    for step in 0..4 {
        let NodeRoutes { routes, fingerprint } = store.routes().of_node(a).await.unwrap();
        assert_eq!(
            fingerprint,
            Fingerprint::of(routes.iter().map(|route| (route.id, route.revision)))
        );
        assert_eq!(fingerprint, store.view().routes().fingerprint(a));
        assert!(!seen.contains(&fingerprint), "step {step}");
        seen.push(fingerprint);
        // Other nodes' routes, and who is primary, are left out.
        for id in [b, a] {
            connect(&store, id, step + 1).await;
            disconnect(&store, id, step + 1).await;
        }
        store.routes().advertise_one(b, prefix(&format!("10.9.{step}.0/24"))).await.unwrap();
        store = env.reload(store).await;
        assert_eq!(store.view().routes().fingerprint(a), fingerprint);
        let id = routes[0].id;
        match step {
            0 => drop(store.routes().advertise_one(a, prefix(SECOND)).await.unwrap()),
            1 => drop(store.routes().set_approved(id, false).await.unwrap()),
            // As it was, but two changes later.
            2 => drop(store.routes().set_approved(id, true).await.unwrap()),
            _ => store.routes().delete(id).await.unwrap(),
        }
    }
    assert!(!seen.contains(&store.view().routes().fingerprint(a)));
}

async fn a_transaction_can_require_the_routes_of_a_node(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    carry(&store, id, &[FIRST]).await;
    let store = env.reload(store).await;
    let NodeRoutes { routes, fingerprint } = store.routes().of_node(id).await.unwrap();
    let route = &routes[0];
    let of = |precondition| {
        let delete = RouteCommand::Delete { id: route.id };
        Transaction::new().require(precondition).unwrap().then(delete).unwrap()
    };
    let other = Fingerprint::of::<RouteId>([]);
    let unknown = NodeId::from_bytes([9; 16]);
    for unmet in [
        Precondition::NodeRoutes(id, other),
        Precondition::NodeRoutes(unknown, other),
        Precondition::RouteRevision(route.id, Revision::FIRST),
        Precondition::RouteRevision(RouteId::from_bytes([9; 16]), Revision::FIRST),
    ] {
        refused(&store, store.transact(of(unmet)), Conflict).await;
    }
    let both = of(Precondition::NodeRoutes(id, fingerprint))
        .require(Precondition::RouteRevision(route.id, route.revision))
        .unwrap();
    store.transact(both).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(of_node(&store, id).await, []);
}

async fn metric_and_description_are_an_administrators(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let route = advertise(&store, id, &[FIRST]).await.unwrap().remove(0);
    assert_eq!((route.metric.get(), &route.description), (0, &None));
    env.advance(1);
    let patch = RoutePatch {
        metric: Update::Set(RouteMetric::new(u32::MAX)),
        description: Patch::Set(text("behind the lift")),
    };
    let routes = store.routes();
    let changed = routes.update(route.id, patch, Some(route.revision)).await.unwrap();
    let expected = Route {
        metric: RouteMetric::new(u32::MAX),
        description: Some(text("behind the lift")),
        updated_at: env.clock().now(),
        revision: route.revision.next(),
        ..Route::clone(&route)
    };
    assert_eq!(*changed, expected);
    let store = env.reload(store).await;
    assert_eq!(store.routes().get(route.id).await.unwrap(), Some(changed));
    let clear = || RoutePatch { description: Patch::Clear, ..RoutePatch::default() };
    let routes = store.routes();
    refused(&store, routes.update(route.id, clear(), Some(route.revision)), Conflict).await;
    refused(&store, routes.update(RouteId::from_bytes([9; 16]), clear(), None), NotFound).await;
    let cleared = routes.update(route.id, clear(), None).await.unwrap();
    assert_eq!((cleared.metric.get(), &cleared.description), (u32::MAX, &None));
    assert_eq!(
        audit_of(&store, route.id).await,
        ["route.update by system", "route.update by system"]
    );
}

async fn what_was_set_stays_while_a_route_is_there(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let route = advertise(&store, id, &[FIRST]).await.unwrap().remove(0);
    let metric = RouteMetric::new(7);
    let patch = RoutePatch { metric: Update::Set(metric), ..RoutePatch::default() };
    store.routes().update(route.id, patch, None).await.unwrap();
    approve(&store, id, &[FIRST]).await.unwrap();
    store.routes().withdraw_one(id, prefix(FIRST)).await.unwrap();
    let again = store.routes().advertise_one(id, prefix(FIRST)).await.unwrap();
    assert_eq!((again.id, again.metric), (route.id, metric));
    let store = env.reload(store).await;
    // One that comes again after it had disappeared is another route.
    store.routes().delete(route.id).await.unwrap();
    let new = store.routes().advertise_one(id, prefix(FIRST)).await.unwrap();
    assert!(new.metric.is_default());
}
