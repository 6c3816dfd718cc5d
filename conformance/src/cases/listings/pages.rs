//! Pages of listings, and the cursors between them.

use crate::prelude::*;

cases! {
    stored {
        "paging" => [
            pages_of_routes_go_on_behind_one_that_is_gone,
            pages_of_policies_do_not_see_newer_versions,
            pages_of_series_go_on_while_they_grow,
            the_last_page_has_no_cursor,
        ],
    }
    stored_unopened {
        "paging" => [pages_neither_repeat_nor_skip_while_users_come_and_go],
    }
    once {
        "paging" => [a_view_lists_one_moment],
        "cursor-of-another" => [a_damaged_cursor_is_refused],
    }
    once_unopened {
        "paging" => [a_limit_is_1_to_1000],
    }
}
async fn pages_neither_repeat_nor_skip_while_users_come_and_go(env: &mut TestEnv) {
    let mut store = env.open().await;
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
        store = env.reload(store).await;
        page = store.users().list(&filter, &PageRequest::after(limit, cursor)).await.unwrap();
        seen.extend(ids(&page.items));
    }
    assert_eq!(seen, [10, 20, 30, 31, 50, 60, 70, 80, 90, 100, 110].map(id));
}

async fn pages_of_routes_go_on_behind_one_that_is_gone(env: &mut TestEnv, store: Opened) {
    let made = OneOfEach::make(&store).await;
    let prefixes = |thirds: &[u8]| {
        thirds.iter().map(|n| format!("10.1.{n}.0/24").parse().unwrap()).collect::<Vec<Prefix>>()
    };
    let node = made.node.id;
    store.routes().advertise(node, prefixes(&[10, 20, 30, 40]), None).await.unwrap();
    let filter = RouteFilter { node: Some(node), ..RouteFilter::default() };
    let limit = Limit::new(2).unwrap();
    let page = store.routes().list(&filter, &PageRequest::first(limit)).await.unwrap();
    let first: Vec<_> = page.items.iter().map(|route| route.prefix).collect();
    assert_eq!(first, prefixes(&[10, 20]));
    // The one that the cursor names is replaced by its neighbours.
    store.routes().advertise(node, prefixes(&[5, 19, 21, 30, 40]), None).await.unwrap();
    let store = env.reload(store).await;
    let request = PageRequest::after(Limit::MAX, page.next.unwrap());
    let page = store.routes().list(&filter, &request).await.unwrap();
    let rest: Vec<_> = page.items.iter().map(|route| route.prefix).collect();
    assert_eq!(rest, prefixes(&[21, 30, 40]));
    assert_eq!(page.next, None);
}

async fn pages_of_policies_do_not_see_newer_versions(env: &mut TestEnv, store: Opened) {
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
    let store = env.reload(store).await;
    let request = PageRequest::after(limit, page.next.unwrap());
    let page = store.policies().history(&request).await.unwrap();
    assert_eq!((versions(&page), page.next), (vec![4, 3], None));
}

async fn pages_of_series_go_on_while_they_grow(env: &mut TestEnv, store: Opened) {
    let point = |second| point(None, "rx", at(second), 1.0);
    store.metrics().record_many([10, 20, 30, 40].map(point).to_vec()).await.unwrap();
    let limit = Limit::new(2).unwrap();
    let page = store.metrics().range(&all_points(), &PageRequest::first(limit)).await.unwrap();
    assert_eq!(page.items, [10, 20].map(point));
    // All that was seen is pruned; there is more on both sides of the cursor.
    store.metrics().prune(at(25)).await.unwrap();
    store.metrics().record_many([15, 21, 50].map(point).to_vec()).await.unwrap();
    let store = env.reload(store).await;
    let request = PageRequest::after(Limit::MAX, page.next.unwrap());
    let page = store.metrics().range(&all_points(), &request).await.unwrap();
    assert_eq!((page.items, page.next), ([21, 30, 40, 50].map(point).to_vec(), None));

    for n in 0..4 {
        create(&store, &format!("user{n}")).await;
        env.advance(1);
    }
    let newest = AuditQuery { newest_first: true, ..AuditQuery::default() };
    let page = store.audit().query(&newest, &PageRequest::first(limit)).await.unwrap();
    let times =
        |page: &Page<Arc<AuditEntry>>| page.items.iter().map(|entry| entry.at).collect::<Vec<_>>();
    assert_eq!(times(&page), [at(3), at(2)]);
    create(&store, "newer").await;
    store.audit().prune(at(1)).await.unwrap();
    let store = env.reload(store).await;
    let request = PageRequest::after(limit, page.next.unwrap());
    let page = store.audit().query(&newest, &request).await.unwrap();
    assert_eq!((times(&page), page.next), (vec![at(1)], None));
}

async fn the_last_page_has_no_cursor(env: &mut TestEnv, store: Opened) {
    let filter = UserFilter::default();
    let nothing = store.users().list(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(nothing, Page::default());
    for n in 0..6 {
        create(&store, &format!("user{n}")).await;
    }
    let point = |second| point(None, "rx", at(second), 1.0);
    store.metrics().record_many((0..6).map(point).collect()).await.unwrap();
    let store = env.reload(store).await;
    for (limit, more) in [(5, true), (6, false), (7, false)] {
        let request = PageRequest::first(Limit::new(limit).unwrap());
        let page = store.users().list(&filter, &request).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(6), more));
        let page = store.metrics().range(&all_points(), &request).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(6), more));
        let page = store.audit().query(&AuditQuery::default(), &request).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (limit.min(6), more));
    }
    // A filter counts what it lets through, not what it reads.
    let filter = UserFilter { name: Some("user0".parse().unwrap()), ..UserFilter::default() };
    let page = store.users().list(&filter, &PageRequest::first(Limit::MIN)).await.unwrap();
    assert_eq!((page.items.len(), page.next), (1, None));
}

async fn a_limit_is_1_to_1000(_: &mut TestEnv) {
    for good in [1, 2, 999, 1000] {
        assert_eq!(Limit::new(good).unwrap().get(), good);
    }
    for bad in [0, 1001, 65_536, 65_537, usize::MAX] {
        fails(Limit::new(bad), InvalidArgument);
        fails(bad.to_string().parse::<Limit>(), InvalidArgument);
    }
}

async fn a_view_lists_one_moment(env: &mut TestEnv, store: Opened) {
    for n in 0..5 {
        create(&store, &format!("user{n}")).await;
    }
    let view = store.view();
    let (filter, limit) = (UserFilter::default(), Limit::new(2).unwrap());
    let mut page = view.users().list(&filter, &PageRequest::first(limit)).unwrap();
    let mut seen = ids(&page.items);
    env.advance(1);
    for user in view.users().iter() {
        store.users().delete(user.id, false).await.unwrap();
    }
    create(&store, "new").await;
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

async fn a_damaged_cursor_is_refused(_: &mut TestEnv, store: Opened) {
    for n in 0..2 {
        create(&store, &format!("user{n}")).await;
    }
    let filter = UserFilter::default();
    let first = PageRequest::first(Limit::MIN);
    let cursor = store.users().list(&filter, &first).await.unwrap().next.unwrap().to_string();
    // Its text is a version, which filter it is of, and where it stands.
    for bad in ["", "!", &cursor[..4], &format!("{cursor}="), &format!("B{}", &cursor[1..])] {
        let error = bad.parse::<Cursor>().unwrap_err();
        assert_eq!(*error.kind(), InvalidArgument, "{bad}");
    }
    for cut in [1, 2, 3, 5, 8, 16] {
        let Ok(short) = cursor[..cursor.len() - cut].parse::<Cursor>() else { continue };
        let request = PageRequest::after(Limit::MIN, short);
        let error = store.users().list(&filter, &request).await.unwrap_err();
        assert_eq!(*error.kind(), InvalidArgument, "{cut} cut off");
    }
}

fn ids(users: &[Arc<User>]) -> Vec<UserId> {
    users.iter().map(|user| user.id).collect()
}
