//! Routes: what is advertised and approved.

use crate::prelude::*;

cases! {
    stored {
        "routes" => [
            each_side_takes_the_whole_list,
            approving_may_come_first,
            a_route_that_is_on_neither_side_disappears,
            a_prefix_is_one_route_of_a_node,
            emptied_routes_stay_empty,
            the_same_list_again_writes_nothing,
            a_call_takes_at_most_1024_prefixes,
            routes_of_an_unknown_node_are_not_found,
            a_deleted_route_is_gone,
        ],
        "exit-routes" => [
            exit_routes_have_no_primary_and_are_not_looked_up,
            each_family_is_approved_by_itself,
        ],
        "prefixes" => [prefixes_of_every_length_come_back],
    }
    once_unopened {
        "prefixes" => [
            host_bits_are_refused_with_the_canonical_form,
            mapped_prefixes_are_refused,
        ],
    }
}

async fn each_side_takes_the_whole_list(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let made = env.clock().now();
    let first = advertise(&store, id, &["fd01::/64", "10.2.0.0/16", "10.1.0.0/16"]).await.unwrap();
    // By prefix, whatever the order they were given in.
    assert_eq!(sides(&first), ["10.1.0.0/16 a-", "10.2.0.0/16 a-", "fd01::/64 a-"]);
    let store = env.reload(store).await;
    env.advance(1);
    let changed = env.clock().now();
    let second = approve(&store, id, &["10.2.0.0/16", "10.3.0.0/16"]).await.unwrap();
    assert_eq!(
        sides(&second),
        ["10.1.0.0/16 a-", "10.2.0.0/16 ap", "10.3.0.0/16 -p", "fd01::/64 a-"]
    );
    let expected = Route {
        id: first[1].id,
        node: id,
        prefix: prefix("10.2.0.0/16"),
        advertised: true,
        approved: true,
        primary: false,
        metric: RouteMetric::default(),
        description: None,
        created_at: made,
        updated_at: changed,
        revision: Revision::FIRST.next(),
    };
    assert_eq!(*second[1], expected);
    assert_eq!((second[0].clone(), second[3].clone()), (first[0].clone(), first[2].clone()));
    let third = advertise(&store, id, &["10.3.0.0/16", "10.4.0.0/16"]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(sides(&third), ["10.2.0.0/16 -p", "10.3.0.0/16 ap", "10.4.0.0/16 a-"]);
    assert_eq!(of_node(&store, id).await, third);
    for route in third {
        assert_eq!(store.routes().get(route.id).await.unwrap(), Some(route));
    }
    assert_eq!(
        audit_of(&store, id).await,
        [
            "node.register by system",
            "route.advertise by system",
            "route.approve by system",
            "route.advertise by system"
        ]
    );
}

async fn approving_may_come_first(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    let approved = approve(&store, id, &["10.1.0.0/16"]).await.unwrap();
    assert_eq!(sides(&approved), ["10.1.0.0/16 -p"]);
    let store = env.reload(store).await;
    assert_eq!(primary(&store, "10.1.0.0/16").await, None);
    let advertised = advertise(&store, id, &["10.1.0.0/16"]).await.unwrap();
    assert_eq!(sides(&advertised), ["10.1.0.0/16 ap"]);
    assert_eq!(advertised[0].id, approved[0].id);
    let store = env.reload(store).await;
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(id));
}

async fn a_route_that_is_on_neither_side_disappears(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    carry(&store, id, &["10.1.0.0/16", "10.2.0.0/16"]).await;
    let routes = of_node(&store, id).await;
    advertise(&store, id, &["10.2.0.0/16"]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(sides(&of_node(&store, id).await), ["10.1.0.0/16 -p", "10.2.0.0/16 ap"]);
    approve(&store, id, &["10.2.0.0/16"]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(sides(&of_node(&store, id).await), ["10.2.0.0/16 ap"]);
    assert_eq!(store.routes().get(routes[0].id).await.unwrap(), None);
    // If it comes again, it is another route.
    let again = advertise(&store, id, &["10.1.0.0/16", "10.2.0.0/16"]).await.unwrap();
    assert_ne!(again[0].id, routes[0].id);
    assert_eq!(again[1].id, routes[1].id);
}

async fn a_prefix_is_one_route_of_a_node(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    let twice = advertise(&store, a, &["10.1.0.0/16", "10.1.0.0/16"]).await.unwrap();
    assert_eq!(sides(&twice), ["10.1.0.0/16 a-"]);
    let store = env.reload(store).await;
    let approved = approve(&store, a, &["10.1.0.0/16", "10.1.0.0/16"]).await.unwrap();
    assert_eq!(approved[0].id, twice[0].id);
    // That of another node is another route, and so is another length.
    carry(&store, b, &["10.1.0.0/16", "10.1.0.0/17"]).await;
    let store = env.reload(store).await;
    assert_eq!(sides(&of_node(&store, a).await), ["10.1.0.0/16 ap"]);
    assert_eq!(sides(&of_node(&store, b).await), ["10.1.0.0/16 ap", "10.1.0.0/17 ap"]);
    assert_eq!(store.view().routes().len(), 3);
}

async fn emptied_routes_stay_empty(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    carry(&store, id, &["10.1.0.0/16", "::/0"]).await;
    let store = env.reload(store).await;
    let approved = advertise(&store, id, &[]).await.unwrap();
    assert_eq!(sides(&approved), ["10.1.0.0/16 -p", "::/0 -p"]);
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    assert_eq!(of_node(&store, id).await, approved);
    assert_eq!(approve(&store, id, &[]).await.unwrap(), []);
    let store = env.reload(store).await;
    let store = env.reopen(store).await;
    assert_eq!(of_node(&store, id).await, []);
    assert!(store.view().routes().is_empty());
    assert_eq!(idle(&store, approve(&store, id, &[])).await, []);
}

async fn the_same_list_again_writes_nothing(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    carry(&store, id, &["10.1.0.0/16", "10.2.0.0/16"]).await;
    let store = env.reload(store).await;
    env.advance(60);
    let routes = of_node(&store, id).await;
    let other_order = ["10.2.0.0/16", "10.1.0.0/16"];
    assert_eq!(idle(&store, advertise(&store, id, &other_order)).await, routes);
    assert_eq!(idle(&store, approve(&store, id, &other_order)).await, routes);
}

async fn a_call_takes_at_most_1024_prefixes(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let prefixes: Vec<_> = (0..1025u32)
        .map(|number| Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + number).into()).unwrap())
        .collect();
    let routes = store.routes();
    for call in
        [routes.advertise(id, prefixes.clone(), None), routes.approve(id, prefixes.clone(), None)]
    {
        refused(&store, call, InvalidArgument).await;
    }
    assert_eq!(routes.advertise(id, prefixes[1..].to_vec(), None).await.unwrap().len(), 1024);
    routes.approve(id, prefixes[1..].to_vec(), None).await.unwrap();
    let store = env.reload(store).await;
    let view = store.view();
    let found: Vec<_> = view.routes().of_node(id).map(|route| route.prefix).collect();
    assert_eq!(found, prefixes[1..]);
    assert!(view.routes().iter().all(|route| route.advertised && route.approved));
}

async fn routes_of_an_unknown_node_are_not_found(env: &mut TestEnv, store: Opened) {
    let gone = some_node(&store).await.id;
    store.nodes().delete(gone).await.unwrap();
    let store = env.reload(store).await;
    for id in [gone, NodeId::from_bytes([9; 16])] {
        for prefixes in [&[][..], &["10.1.0.0/16"]] {
            refused(&store, advertise(&store, id, prefixes), NotFound).await;
            refused(&store, approve(&store, id, prefixes), NotFound).await;
        }
    }
}

async fn a_deleted_route_is_gone(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    carry(&store, id, &["10.1.0.0/16", "10.2.0.0/16"]).await;
    let routes = of_node(&store, id).await;
    let store = env.reload(store).await;
    store.routes().delete(routes[0].id).await.unwrap();
    let store = env.reload(store).await;
    for unknown in [routes[0].id, RouteId::from_bytes([9; 16])] {
        refused(&store, store.routes().delete(unknown), NotFound).await;
        assert_eq!(store.routes().get(unknown).await.unwrap(), None);
    }
    assert_eq!(of_node(&store, id).await, [routes[1].clone()]);
    assert_eq!(audit_of(&store, routes[0].id).await, ["route.delete by system"]);
}

async fn exit_routes_have_no_primary_and_are_not_looked_up(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    connect(&store, id, 1).await;
    carry(&store, id, &["0.0.0.0/0", "::/0", "0.0.0.0/1", "8000::/1"]).await;
    let store = env.reload(store).await;
    for (prefix, carrier) in
        [("0.0.0.0/0", None), ("::/0", None), ("0.0.0.0/1", Some(id)), ("8000::/1", Some(id))]
    {
        assert_eq!(primary(&store, prefix).await, carrier, "{prefix}");
    }
    for (address, found) in [
        ("1.2.3.4", Some("0.0.0.0/1")),
        ("200.2.3.4", None),
        ("2001:db8::1", None),
        ("fd00::1", Some("8000::/1")),
    ] {
        let route = store.routes().lookup(address.parse().unwrap()).await.unwrap();
        assert_eq!(route.map(|route| route.prefix), found.map(prefix), "{address}");
    }
}

async fn each_family_is_approved_by_itself(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let id = node(&store, alice, 1).await.id;
    let exits = Prefix::exits();
    store.routes().advertise(id, exits.to_vec(), None).await.unwrap();
    approve(&store, id, &["0.0.0.0/0"]).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(sides(&of_node(&store, id).await), ["0.0.0.0/0 ap", "::/0 a-"]);
    // A map of the network has what is on both sides.
    let other = node(&store, alice, 2).await.id;
    let map = store.view().netmap(other).unwrap();
    assert_eq!(sides(&map.routes), ["0.0.0.0/0 ap"]);
    store.routes().approve(id, exits.to_vec(), None).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(sides(&of_node(&store, id).await), ["0.0.0.0/0 ap", "::/0 ap"]);
}

async fn prefixes_of_every_length_come_back(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let four = |length| Prefix::containing(IpAddr::from([0xff; 4]), length).unwrap();
    let six = |length| Prefix::containing(IpAddr::from([0xff; 16]), length).unwrap();
    let prefixes: Vec<_> = (0..=32).map(four).chain((0..=128).map(six)).collect();
    store.routes().advertise(id, prefixes.clone(), None).await.unwrap();
    let store = env.reload(store).await;
    let routes = of_node(&store, id).await;
    let found: Vec<_> = routes.iter().map(|route| route.prefix).collect();
    let mut sorted = prefixes;
    sorted.sort();
    assert_eq!(found, sorted);
    assert_eq!(found.len(), 33 + 129);
    for prefix in found {
        let filter = RouteFilter { prefix: Some(prefix), ..RouteFilter::default() };
        let page = store.routes().list(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!(page.items.len(), 1, "{prefix}");
    }
}

async fn host_bits_are_refused_with_the_canonical_form(_: &mut TestEnv) {
    let four = Ipv4Addr::new(203, 0, 113, 255);
    let six: Ipv6Addr = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
    for (address, bits) in [(IpAddr::V4(four), 32), (IpAddr::V6(six), 128)] {
        Prefix::new(address, bits).unwrap();
        for length in 0..bits {
            // Cut by hand, to compare with.
            let canonical = match address {
                IpAddr::V4(four) => {
                    let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                    format!("{}/{length}", Ipv4Addr::from_bits(four.to_bits() & mask))
                }
                IpAddr::V6(six) => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                    format!("{}/{length}", Ipv6Addr::from_bits(six.to_bits() & mask))
                }
            };
            for error in [
                Prefix::new(address, length).unwrap_err(),
                format!("{address}/{length}").parse::<Prefix>().unwrap_err(),
            ] {
                assert_eq!(*error.kind(), InvalidArgument);
                assert_eq!(value_of(&error, "canonical"), Some(canonical.as_str()));
            }
            assert_eq!(prefix(&canonical).to_string(), canonical);
        }
        fails(Prefix::new(address, bits + 1), InvalidArgument);
    }
}

async fn mapped_prefixes_are_refused(_: &mut TestEnv) {
    for (text, ipv4) in [
        ("::ffff:10.0.0.0/104", "10.0.0.0"),
        ("::ffff:0:0/96", "0.0.0.0"),
        ("::ffff:1.2.3.4/128", "1.2.3.4"),
    ] {
        let error = fails(text.parse::<Prefix>(), InvalidArgument);
        assert_eq!(value_of(&error, "ipv4"), Some(ipv4));
    }
}

fn value_of<'e>(error: &'e Error, key: &str) -> Option<&'e str> {
    let mut facts = error.context().iter();
    facts.find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
}

async fn of_node(store: &Opened, node: NodeId) -> Vec<Arc<Route>> {
    let filter = RouteFilter { node: Some(node), ..RouteFilter::default() };
    let page = PageRequest::first(Limit::MAX);
    let listed = store.routes().list(&filter, &page).await.unwrap().items;
    assert_eq!(store.view().routes().of_node(node).cloned().collect::<Vec<_>>(), listed);
    listed
}

/// Each route with the sides it is on: `a`dvertised and a`p`proved.
fn sides(routes: &[Arc<Route>]) -> Vec<String> {
    let side = |on, name| if on { name } else { '-' };
    let text = |route: &Arc<Route>| {
        format!("{} {}{}", route.prefix, side(route.advertised, 'a'), side(route.approved, 'p'))
    };
    routes.iter().map(text).collect()
}
