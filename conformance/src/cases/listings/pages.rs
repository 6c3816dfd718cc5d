//! Pages of listings, and the cursors between them.

use std::sync::Arc;

use ghostwire_store_core::command::{Transaction, UserCommand};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::{ErrorKind, Result, Store};

use crate::case::cases;
use crate::cases::writes::durable::{OneOfEach, at, everything, local, machine, record};
use crate::world::World;

cases! {
    stored {
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
