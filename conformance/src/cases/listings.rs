//! Listings: their order, their pages, and their cursors.

use std::sync::Arc;

use ghostwire_store_core::command::{Transaction, UserCommand};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::{Entity, ErrorKind, Result, Store};

use super::writes::{OneOfEach, at, local, machine, record, text};
use crate::case::cases;
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
        "paging" => [
            pages_neither_repeat_nor_skip_while_users_come_and_go,
            pages_of_routes_go_on_behind_one_that_is_gone,
            pages_of_policies_do_not_see_newer_versions,
            pages_of_series_go_on_while_they_grow,
            the_last_page_has_no_cursor,
        ],
        "cursor-of-another" => [a_cursor_fits_its_own_listing_and_filter_only],
    }
    once {
        "paging" => [a_limit_is_1_to_1000, a_view_lists_one_moment],
        "cursor-of-another" => [a_damaged_cursor_is_refused],
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

async fn pages_neither_repeat_nor_skip_while_users_come_and_go(world: &mut World) {
    let mut store = world.open().await;
    let id = |n: u8| UserId::time_ordered(at(i64::from(n)), [n; 10]);
    let create = |n: u8| {
        let user = local(&format!("user{n}"));
        Transaction::new().then(UserCommand::Create { id: id(n), user }).unwrap()
    };
    for n in (10..=100).step_by(10) {
        store.transact(create(n)).await.unwrap();
    }
    let filter = UserFilter::default();
    let limit = Limit::new(3).unwrap();
    let mut page = store.users().list(&filter, &PageRequest::first(limit)).await.unwrap();
    let mut seen = ids(&page.items);
    assert_eq!(seen, [10, 20, 30].map(id));
    // Gone: one that was seen, the one the cursor names, the next one. New: one before the cursor,
    // one right behind it, one at the end.
    for n in [10, 30, 40] {
        store.users().delete(id(n), false).await.unwrap();
    }
    for n in [25, 31, 110] {
        store.transact(create(n)).await.unwrap();
    }
    while let Some(cursor) = page.next {
        store = world.pass(store).await;
        page = store.users().list(&filter, &PageRequest::after(limit, cursor)).await.unwrap();
        seen.extend(ids(&page.items));
    }
    assert_eq!(seen, [10, 20, 30, 31, 50, 60, 70, 80, 90, 100, 110].map(id));
}

async fn pages_of_routes_go_on_behind_one_that_is_gone(world: &mut World) {
    let store = world.open().await;
    let made = OneOfEach::make(store.as_ref()).await;
    let prefixes = |thirds: &[u8]| {
        thirds.iter().map(|n| format!("10.1.{n}.0/24").parse().unwrap()).collect::<Vec<Prefix>>()
    };
    let node = made.node.id;
    store.routes().advertise(node, prefixes(&[10, 20, 30, 40])).await.unwrap();
    let filter = RouteFilter { node: Some(node), ..RouteFilter::default() };
    let limit = Limit::new(2).unwrap();
    let page = store.routes().list(&filter, &PageRequest::first(limit)).await.unwrap();
    let first: Vec<_> = page.items.iter().map(|route| route.prefix).collect();
    assert_eq!(first, prefixes(&[10, 20]));
    // The one that the cursor names is replaced by its neighbours.
    store.routes().advertise(node, prefixes(&[5, 19, 21, 30, 40])).await.unwrap();
    let store = world.pass(store).await;
    let request = PageRequest::after(Limit::MAX, page.next.unwrap());
    let page = store.routes().list(&filter, &request).await.unwrap();
    let rest: Vec<_> = page.items.iter().map(|route| route.prefix).collect();
    assert_eq!(rest, prefixes(&[21, 30, 40]));
    assert_eq!(page.next, None);
}

async fn pages_of_policies_do_not_see_newer_versions(world: &mut World) {
    let store = world.open().await;
    let swap = |store: Arc<dyn Store>, version| async move {
        let expected = PolicyVersion::new(version).ok();
        store.policies().swap(expected, DocumentText::empty()).await.unwrap();
    };
    for version in 0..6 {
        swap(store.clone(), version).await;
    }
    let limit = Limit::new(2).unwrap();
    let page = store.policies().history(&PageRequest::first(limit)).await.unwrap();
    let versions = |page: &Page<Arc<Policy>>| {
        page.items.iter().map(|policy| policy.version.get()).collect::<Vec<_>>()
    };
    assert_eq!(versions(&page), [6, 5]);
    swap(store.clone(), 6).await;
    store.policies().prune(5).await.unwrap();
    let store = world.pass(store).await;
    let request = PageRequest::after(limit, page.next.unwrap());
    let page = store.policies().history(&request).await.unwrap();
    assert_eq!((versions(&page), page.next), (vec![4, 3], None));
}

async fn pages_of_series_go_on_while_they_grow(world: &mut World) {
    let store = world.open().await;
    let point = |second| MetricPoint {
        node: None,
        metric: "rx".parse().unwrap(),
        at: at(second),
        value: Sample::new(1.0).unwrap(),
    };
    store.metrics().record_many([10, 20, 30, 40].map(point).to_vec()).await.unwrap();
    let limit = Limit::new(2).unwrap();
    let page = store.metrics().range(&everything(), &PageRequest::first(limit)).await.unwrap();
    assert_eq!(page.items, [10, 20].map(point));
    // All that was seen is pruned; there is more on both sides of the cursor.
    store.metrics().prune(at(25)).await.unwrap();
    store.metrics().record_many([15, 21, 50].map(point).to_vec()).await.unwrap();
    let store = world.pass(store).await;
    let request = PageRequest::after(Limit::MAX, page.next.unwrap());
    let page = store.metrics().range(&everything(), &request).await.unwrap();
    assert_eq!((page.items, page.next), ([21, 30, 40, 50].map(point).to_vec(), None));

    for n in 0..4 {
        store.users().create(local(&format!("user{n}"))).await.unwrap();
        world.advance(1);
    }
    let newest = AuditQuery { newest_first: true, ..AuditQuery::default() };
    let page = store.audit().query(&newest, &PageRequest::first(limit)).await.unwrap();
    let times =
        |page: &Page<Arc<AuditEntry>>| page.items.iter().map(|entry| entry.at).collect::<Vec<_>>();
    assert_eq!(times(&page), [at(3), at(2)]);
    store.users().create(local("newer")).await.unwrap();
    store.audit().prune(at(1)).await.unwrap();
    let store = world.pass(store).await;
    let request = PageRequest::after(limit, page.next.unwrap());
    let page = store.audit().query(&newest, &request).await.unwrap();
    assert_eq!((times(&page), page.next), (vec![at(1)], None));
}

async fn the_last_page_has_no_cursor(world: &mut World) {
    let store = world.open().await;
    let filter = UserFilter::default();
    let nothing = store.users().list(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(nothing, Page::default());
    for n in 0..6 {
        store.users().create(local(&format!("user{n}"))).await.unwrap();
    }
    let point = |second| MetricPoint {
        node: None,
        metric: "rx".parse().unwrap(),
        at: at(second),
        value: Sample::new(1.0).unwrap(),
    };
    store.metrics().record_many((0..6).map(point).collect()).await.unwrap();
    let store = world.pass(store).await;
    for (limit, more) in [(5, true), (6, false), (7, false)] {
        let request = PageRequest::first(Limit::new(limit).unwrap());
        let page = store.users().list(&filter, &request).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(6), more));
        let page = store.metrics().range(&everything(), &request).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(6), more));
        let page = store.audit().query(&AuditQuery::default(), &request).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(6), more));
    }
    // A filter counts what it lets through, not what it reads.
    let filter = UserFilter { name: Some("user0".parse().unwrap()), ..UserFilter::default() };
    let page = store.users().list(&filter, &PageRequest::first(Limit::MIN)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
}

async fn a_limit_is_1_to_1000(_: &mut World) {
    for good in [1, 2, 999, 1000] {
        assert_eq!(Limit::new(good).unwrap().get(), good);
    }
    for bad in [0, 1001, 65_536, 65_537, usize::MAX] {
        let error = Limit::new(bad).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
        let error = bad.to_string().parse::<Limit>().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    }
}

async fn a_view_lists_one_moment(world: &mut World) {
    let store = world.open().await;
    for n in 0..5 {
        store.users().create(local(&format!("user{n}"))).await.unwrap();
    }
    let view = store.view();
    let (filter, limit) = (UserFilter::default(), Limit::new(2).unwrap());
    let mut page = view.users().list(&filter, &PageRequest::first(limit)).unwrap();
    let mut seen = ids(&page.items);
    world.advance(1);
    for user in view.users().iter() {
        store.users().delete(user.id, false).await.unwrap();
    }
    store.users().create(local("new")).await.unwrap();
    while let Some(cursor) = page.next {
        // The repository reads the newest view with the same cursor.
        let request = PageRequest::after(limit, cursor);
        let newest = store.users().list(&filter, &request).await.unwrap();
        assert_eq!((newest.items.len(), newest.next), (1, None));
        page = view.users().list(&filter, &request).unwrap();
        seen.extend(ids(&page.items));
    }
    assert_eq!(seen, view.users().iter().map(|user| user.id).collect::<Vec<_>>());
}

async fn a_cursor_fits_its_own_listing_and_filter_only(world: &mut World) {
    let store = world.open().await;
    let user = store.users().create(local("a")).await.unwrap().id;
    let store = world.pass(store).await;
    let other = store.users().create(local("b")).await.unwrap().id;
    for n in 1..=2 {
        let admission = Admission::User { user, method: RegisterMethod::Cli };
        let node = store.nodes().register(machine(n, admission)).await.unwrap();
        let prefix = "10.1.0.0/16".parse().unwrap();
        store.routes().advertise(node.id, vec![prefix]).await.unwrap();
        let new = NewApiKey { user: Some(user), ..NewApiKey::default() };
        store.api_keys().create(new).await.unwrap();
        let new = NewPreAuthKey { user: Some(user), ..NewPreAuthKey::default() };
        store.preauth_keys().create(new).await.unwrap();
        let owner = SessionOwner::User(user);
        let new = NewSession { owner, client: None, expires_at: Timestamp::MAX };
        store.sessions().begin(new).await.unwrap();
        store.dns().create(record("a.example.com", &format!("10.0.0.{n}"))).await.unwrap();
        let expected = PolicyVersion::new(u64::from(n) - 1).ok();
        store.policies().swap(expected, DocumentText::empty()).await.unwrap();
        let point = MetricPoint {
            node: None,
            metric: "rx".parse().unwrap(),
            at: at(i64::from(n)),
            value: Sample::new(1.0).unwrap(),
        };
        store.metrics().record(point).await.unwrap();
    }
    let store = world.pass(store).await;
    let mut cursors = Vec::new();
    for listing in 0..LISTINGS {
        let next = next_of(&store, listing, user, None).await.unwrap();
        cursors.push(next.unwrap_or_else(|| panic!("listing {listing} has two pages")));
    }
    let store = world.pass(store).await;
    for (of, cursor) in cursors.iter().enumerate() {
        for listing in 0..LISTINGS {
            let outcome = next_of(&store, listing, user, Some(cursor.clone())).await;
            if listing == of {
                outcome.unwrap();
                continue;
            }
            let error = outcome.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{of} in {listing}: {error}");
            assert!(!error.is_retryable());
        }
    }
    // Of the filters, any difference counts, also one that gives the same items.
    for listing in [2, 4, 6] {
        let outcome = next_of(&store, listing, other, Some(cursors[listing].clone())).await;
        assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

async fn a_damaged_cursor_is_refused(world: &mut World) {
    let store = world.open().await;
    for n in 0..2 {
        store.users().create(local(&format!("user{n}"))).await.unwrap();
    }
    let filter = UserFilter::default();
    let first = PageRequest::first(Limit::MIN);
    let cursor = store.users().list(&filter, &first).await.unwrap().next.unwrap().to_string();
    // Its text is a version, which filter it is of, and where it stands.
    for bad in ["", "!", &cursor[..4], &format!("{cursor}="), &format!("B{}", &cursor[1..])] {
        let error = bad.parse::<Cursor>().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{bad}");
    }
    for cut in [1, 2, 3, 5, 8, 16] {
        let Ok(short) = cursor[..cursor.len() - cut].parse::<Cursor>() else { continue };
        let request = PageRequest::after(Limit::MIN, short);
        let error = store.users().list(&filter, &request).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument, "{cut} cut off");
    }
}

const LISTINGS: usize = 14;

/// The cursor to the second page of one of the listings.
async fn next_of(
    store: &Arc<dyn Store>,
    listing: usize,
    user: UserId,
    cursor: Option<Cursor>,
) -> Result<Option<Cursor>> {
    let page = &PageRequest { limit: Limit::MIN, cursor };
    let by_user = KeyFilter { user: Some(user), ..KeyFilter::default() };
    Ok(match listing {
        0 => store.users().list(&UserFilter::default(), page).await?.next,
        1 => store.nodes().list(&NodeFilter::default(), page).await?.next,
        2 => {
            let filter = NodeFilter { user: Some(user), ..NodeFilter::default() };
            store.nodes().list(&filter, page).await?.next
        }
        3 => store.routes().list(&RouteFilter::default(), page).await?.next,
        4 => store.api_keys().list(&by_user, page).await?.next,
        5 => store.api_keys().list(&KeyFilter::default(), page).await?.next,
        6 => store.preauth_keys().list(&by_user, page).await?.next,
        7 => store.sessions().list(None, page).await?.next,
        8 => store.sessions().list(Some(SessionOwner::User(user)), page).await?.next,
        9 => store.dns().list(&DnsRecordFilter::default(), page).await?.next,
        10 => store.policies().history(page).await?.next,
        11 => store.metrics().range(&everything(), page).await?.next,
        12 => store.audit().query(&AuditQuery::default(), page).await?.next,
        _ => {
            let query = AuditQuery { newest_first: true, ..AuditQuery::default() };
            store.audit().query(&query, page).await?.next
        }
    })
}

fn ids(users: &[Arc<User>]) -> Vec<UserId> {
    users.iter().map(|user| user.id).collect()
}

fn everything() -> MetricQuery {
    MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: Timestamp::MAX }
}
