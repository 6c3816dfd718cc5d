//! The order of listings.

use ghostwire_store_core::domain::*;
use ghostwire_store_core::{Entity, Result};

use crate::case::cases;
use crate::cases::writes::durable::{at, everything, local, machine, record, text};
use crate::world::World;

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

/// Follows a listing to its end, in pages of this size, as a client does that keeps cursors as text.
async fn all<T, F>(limit: usize, mut list: impl FnMut(PageRequest) -> F) -> Vec<T>
where
    F: Future<Output = Result<Page<T>>>,
{
    let limit = Limit::new(limit).unwrap();
    let mut request = PageRequest::first(limit);
    let mut items = Vec::new();
    loop {
        let page = list(request).await.unwrap();
        assert!(page.items.len() <= limit.get());
        items.extend(page.items);
        let Some(next) = page.next else { return items };
        request = PageRequest::after(limit, next.to_string().parse().unwrap());
    }
}

macro_rules! all {
    ($limit:expr, $store:expr, $entities:ident, $filter:expr) => {
        all($limit, |page| async move { $store.$entities().list(&$filter, &page).await }).await
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

async fn entities_of_one_moment_are_ordered_by_id(world: &mut World) {
    let store = world.open().await;
    let owner = store.users().create(local("user0")).await.unwrap().id;
    for n in 0..30u8 {
        if n > 0 {
            store.users().create(local(&format!("user{n}"))).await.unwrap();
        }
        let admission = Admission::User { user: owner, method: RegisterMethod::Cli };
        store.nodes().register(machine(n + 1, admission)).await.unwrap();
        store.api_keys().create(NewApiKey::default()).await.unwrap();
        let new = NewPreAuthKey { user: Some(owner), ..NewPreAuthKey::default() };
        store.preauth_keys().create(new).await.unwrap();
        let owner = SessionOwner::User(owner);
        let new = NewSession { owner, client: None, expires_at: Timestamp::MAX };
        store.sessions().begin(new).await.unwrap();
        store.dns().create(record("a.example.com", &format!("10.0.0.{n}"))).await.unwrap();
    }
    let store = world.pass(store).await;
    let store = &store;
    assert!(store.view().users().iter().all(|user| user.created_at == at(0)), "one clock reading");
    is_by_id!(store, users, UserFilter::default());
    is_by_id!(store, nodes, NodeFilter::default());
    is_by_id!(store, nodes, NodeFilter { user: Some(owner), ..NodeFilter::default() });
    is_by_id!(store, api_keys, KeyFilter::default());
    is_by_id!(store, preauth_keys, KeyFilter::default());
    is_by_id!(store, dns, DnsRecordFilter::default());
    for limit in [1, 7, 1000] {
        let sessions = all(limit, |page| async move { store.sessions().list(None, &page).await });
        let sessions = sessions.await;
        assert_eq!(sessions.len(), 30);
        assert!(sessions.is_sorted_by(|a, b| a.id < b.id));
    }
    // What is made a millisecond later comes last.
    world.advance(1);
    let last = store.users().create(local("0")).await.unwrap();
    assert_eq!(all!(7, store, users, UserFilter::default()).pop(), Some(last));
}

async fn routes_are_ordered_by_prefix_then_id(world: &mut World) {
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
    let store = world.open().await;
    let user = store.users().create(local("alice")).await.unwrap().id;
    let mut prefixes: Vec<Prefix> = PREFIXES.iter().map(|text| text.parse().unwrap()).collect();
    prefixes.reverse();
    for n in 1..=3 {
        let admission = Admission::User { user, method: RegisterMethod::Cli };
        let node = store.nodes().register(machine(n, admission)).await.unwrap();
        store.routes().advertise(node.id, prefixes.clone()).await.unwrap();
        prefixes.rotate_left(3);
    }
    let store = &world.pass(store).await;
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
    store.routes().approve(of, approved).await.unwrap();
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

async fn policies_are_ordered_newest_first(world: &mut World) {
    let store = world.open().await;
    for version in 0..12 {
        let expected = PolicyVersion::new(version).ok();
        store.policies().swap(expected, DocumentText::empty()).await.unwrap();
    }
    store.policies().prune(11).await.unwrap();
    let store = &world.pass(store).await;
    for limit in [1, 5, 11, 100] {
        let versions = all(limit, |page| async move { store.policies().history(&page).await });
        let versions: Vec<_> = versions.await.iter().map(|policy| policy.version.get()).collect();
        assert_eq!(versions, (2..=12).rev().collect::<Vec<_>>());
    }
}

async fn metrics_are_ordered_by_node_metric_and_time(world: &mut World) {
    let store = world.open().await;
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
    let store = &world.pass(store).await;
    let query = &everything();
    for limit in [1, 7, 75, 1000] {
        let found = all(limit, |page| async move { store.metrics().range(query, &page).await });
        assert_eq!(found.await, expected, "pages of {limit}");
    }
}

async fn the_audit_trail_is_ordered_by_time_then_id(world: &mut World) {
    let store = world.open().await;
    for n in 0..20 {
        store.users().create(local(&format!("user{n}"))).await.unwrap();
        if n % 5 == 4 {
            world.advance(1);
        }
    }
    // Appended ones are sorted in between: one is older than all.
    let entry = |n: u8, time| AuditEntry {
        id: AuditId::from_bytes([n; 16]),
        at: at(time),
        actor: "operator".parse().unwrap(),
        action: text("noted"),
        entity: Entity::User,
        subject: text("somebody"),
    };
    store.audit().append(vec![entry(0xff, 2), entry(1, 2), entry(7, -1)]).await.unwrap();
    let store = &world.pass(store).await;
    let query = &AuditQuery::default();
    let newest = &AuditQuery { newest_first: true, ..AuditQuery::default() };
    for limit in [1, 7, 1000] {
        let found = all(limit, |page| async move { store.audit().query(query, &page).await });
        let mut found = found.await;
        assert_eq!(found.len(), 23);
        assert!(found.is_sorted_by(|a, b| (a.at, a.id) < (b.at, b.id)));
        assert_eq!(found[0].id, AuditId::from_bytes([7; 16]));
        let back = all(limit, |page| async move { store.audit().query(newest, &page).await });
        found.reverse();
        assert_eq!(back.await, found);
    }
}
