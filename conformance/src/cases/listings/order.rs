//! The order of listings.

use crate::prelude::*;

cases! {
    stored {
        "ordering" => [
            entities_of_one_moment_are_ordered_by_id,
            routes_are_ordered_by_prefix_then_id,
            policies_are_ordered_newest_first,
            metrics_are_ordered_by_node_metric_and_time,
            the_audit_trail_is_ordered_by_time_then_id,
        ],
    }
}

macro_rules! all {
    ($limit:expr, $store:expr, $entities:ident, $filter:expr) => {
        all_pages($limit, |page| async move { $store.$entities().list(&$filter, &page).await })
            .await
    };
}

/// The ids of a listing of 30 are in order, whatever the size of its pages.
macro_rules! is_by_id {
    ($store:expr, $entities:ident, $filter:expr) => {
        let whole: Vec<_> = all!(1000, $store, $entities, $filter);
        assert_eq!(whole.len(), 30, stringify!($entities));
        assert!(whole.is_sorted_by(|a, b| a.id < b.id), stringify!($entities));
        for limit in [1, 7, 29, 30] {
            assert_eq!(all!(limit, $store, $entities, $filter), whole, stringify!($entities));
        }
    };
}

async fn entities_of_one_moment_are_ordered_by_id(env: &mut TestEnv, store: Opened) {
    let owner = user(&store, "user0").await;
    for n in 0..30 {
        if n > 0 {
            create(&store, &format!("user{n}")).await;
        }
        register(&store, n + 1, by(owner)).await;
        store.api_keys().create(NewApiKey::default()).await.unwrap();
        store.preauth_keys().create(one_time(owner)).await.unwrap();
        let new = session_of(SessionOwner::User(owner), Timestamp::MAX);
        store.sessions().begin(new).await.unwrap();
        store.dns().create(record("a.example.com", &format!("10.0.0.{n}"))).await.unwrap();
    }
    let store = env.reload(store).await;
    let store = &store;
    assert!(store.view().users().iter().all(|user| user.created_at == at(0)), "one clock reading");
    is_by_id!(store, users, UserFilter::default());
    is_by_id!(store, nodes, NodeFilter::default());
    is_by_id!(store, nodes, NodeFilter { user: Some(owner), ..NodeFilter::default() });
    is_by_id!(store, api_keys, KeyFilter::default());
    is_by_id!(store, preauth_keys, KeyFilter::default());
    is_by_id!(store, dns, DnsRecordFilter::default());
    for limit in [1, 7, 1000] {
        let sessions =
            all_pages(limit, |page| async move { store.sessions().list(None, &page).await });
        let sessions = sessions.await;
        assert_eq!(sessions.len(), 30);
        assert!(sessions.is_sorted_by(|a, b| a.id < b.id));
    }
    // What is made a millisecond later comes last.
    env.advance(1);
    let last = create(store, "0").await;
    assert_eq!(all!(7, store, users, UserFilter::default()).pop(), Some(last));
}

async fn routes_are_ordered_by_prefix_then_id(env: &mut TestEnv, store: Opened) {
    // As they are to be listed: IPv4 first, by address and not by digits, shorter ones first.
    const PREFIXES: [&str; 10] = [
        "0.0.0.0/0",
        "2.0.0.0/8",
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/24",
        "10.0.1.0/24",
        "100.0.0.0/8",
        "::/0",
        "fd00::/8",
        "fd7a::/16",
    ];
    let user = user(&store, "alice").await;
    let mut prefixes: Vec<Prefix> = PREFIXES.iter().map(|text| text.parse().unwrap()).collect();
    prefixes.reverse();
    for n in 1..=3 {
        let node = register(&store, n, by(user)).await;
        store.routes().advertise(node.id, prefixes.clone(), None).await.unwrap();
        prefixes.rotate_left(3);
    }
    let store = &env.reload(store).await;
    let whole: Vec<_> = all!(1000, store, routes, RouteFilter::default());
    let found: Vec<_> = whole.iter().map(|route| route.prefix.to_string()).collect();
    let expected: Vec<_> = PREFIXES.iter().flat_map(|prefix| [*prefix; 3]).collect();
    assert_eq!(found, expected);
    for of_prefix in whole.chunks(3) {
        assert!(of_prefix.is_sorted_by(|a, b| a.id < b.id));
    }
    for limit in [1, 2, 7, 30] {
        assert_eq!(all!(limit, store, routes, RouteFilter::default()), whole);
    }
    let of = whole[3].node;
    let approved = vec!["2.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
    store.routes().approve(of, approved, None).await.unwrap();
    let whole: Vec<_> = all!(1000, store, routes, RouteFilter::default());
    for wanted in [true, false] {
        let filter = &RouteFilter { approved: Some(wanted), ..RouteFilter::default() };
        let expected: Vec<_> =
            whole.iter().filter(|route| route.approved == wanted).cloned().collect();
        assert_eq!(expected.len(), if wanted { 2 } else { 28 });
        assert_eq!(all!(7, store, routes, *filter), expected);
    }
    for of_prefix in whole.chunks(3) {
        let filter = &RouteFilter { prefix: Some(of_prefix[0].prefix), ..RouteFilter::default() };
        assert_eq!(all!(2, store, routes, *filter), of_prefix);
    }
}

async fn policies_are_ordered_newest_first(env: &mut TestEnv, store: Opened) {
    for version in 0..12 {
        let expected = PolicyVersion::new(version).ok();
        store.policies().swap(expected, DocumentText::empty()).await.unwrap();
    }
    store.policies().prune(11).await.unwrap();
    let store = &env.reload(store).await;
    for limit in [1, 5, 11, 100] {
        let versions =
            all_pages(limit, |page| async move { store.policies().history(&page).await });
        let versions: Vec<_> = versions.await.iter().map(|policy| policy.version.get()).collect();
        assert_eq!(versions, (2..=12).rev().collect::<Vec<_>>());
    }
}

async fn metrics_are_ordered_by_node_metric_and_time(env: &mut TestEnv, store: Opened) {
    let nodes = [None, Some(NodeId::from_bytes([1; 16])), Some(NodeId::from_bytes([0xff; 16]))];
    let mut expected = Vec::new();
    for node in nodes {
        // Bytewise: capitals before small letters, whatever a locale would say.
        for metric in ["Rx", "a", "a.b", "ab", "rx"] {
            for second in [-1_000_000_000, 0, 1, 256, 65_536] {
                let value = Sample::new(second as f64).unwrap();
                let metric = metric.parse().unwrap();
                expected.push(MetricPoint { node, metric, at: at(second), value });
            }
        }
    }
    let mut shuffled = expected.clone();
    shuffled.reverse();
    store.metrics().record_many(shuffled).await.unwrap();
    let store = &env.reload(store).await;
    let query = &all_points();
    for limit in [1, 7, 75, 1000] {
        let found =
            all_pages(limit, |page| async move { store.metrics().range(query, &page).await });
        assert_eq!(found.await, expected, "pages of {limit}");
    }
}

async fn the_audit_trail_is_ordered_by_time_then_id(env: &mut TestEnv, store: Opened) {
    for n in 0..20 {
        create(&store, &format!("user{n}")).await;
        if n % 5 == 4 {
            env.advance(1);
        }
    }
    // Appended ones are sorted in between: one is older than all.
    let entries = vec![entry(0xff, at(2)), entry(1, at(2)), entry(7, at(-1))];
    store.audit().append(entries).await.unwrap();
    let store = &env.reload(store).await;
    let query = &AuditQuery::default();
    let newest = &AuditQuery { newest_first: true, ..AuditQuery::default() };
    for limit in [1, 7, 1000] {
        let found = all_pages(limit, |page| async move { store.audit().query(query, &page).await });
        let mut found = found.await;
        assert_eq!(found.len(), 23);
        assert!(found.is_sorted_by(|a, b| (a.at, a.id) < (b.at, b.id)));
        assert_eq!(found[0].id, AuditId::from_bytes([7; 16]));
        let back = all_pages(limit, |page| async move { store.audit().query(newest, &page).await });
        found.reverse();
        assert_eq!(back.await, found);
    }
}
