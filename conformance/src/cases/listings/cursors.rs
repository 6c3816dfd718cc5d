//! Cursors that belong to another listing, and those that somebody made up.

use std::pin::Pin;

use data_encoding::BASE64URL_NOPAD;

use crate::prelude::*;

cases! {
    stored {
        "cursor-of-another" => [a_cursor_fits_its_own_listing_and_filter_only],
        "cursor-within-query" => [a_made_up_cursor_never_leaves_its_query],
    }
}

/// So many positions are made up, beside those of all listings, and tried with each listing.
const POSITIONS: usize = 60;

type Listed = Pin<Box<dyn Future<Output = Result<Page<String>>> + Send>>;

/// One listing with one filter. Its items are told apart by their text.
struct Listing {
    what: String,
    list: Box<dyn Fn(Arc<dyn Store>, PageRequest) -> Listed + Send + Sync>,
}

impl Listing {
    fn of<F, T>(
        what: impl Debug,
        list: impl Fn(Arc<dyn Store>, PageRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Page<T>>> + Send + 'static,
        T: Debug,
    {
        Self {
            what: format!("{what:?}"),
            list: Box::new(move |store, page| {
                let listed = list(store, page);
                Box::pin(async move { Ok(listed.await?.map(|item| format!("{item:?}"))) })
            }),
        }
    }

    async fn page(&self, store: &Opened, page: PageRequest) -> Result<Page<String>> {
        (self.list)(store.clone(), page).await
    }

    /// Everything, and the cursors behind each item but the last.
    async fn walk(&self, store: &Opened) -> (Vec<String>, Vec<Cursor>) {
        let (mut items, mut cursors) = (Vec::new(), Vec::new());
        let mut page = PageRequest::first(Limit::MIN);
        loop {
            let found = self.page(store, page).await.unwrap();
            items.extend(found.items);
            let Some(next) = found.next else { return (items, cursors) };
            cursors.push(next.clone());
            page = PageRequest::after(Limit::MIN, next);
        }
    }
}

/// Of the filters, any difference counts, also one that gives the same items.
async fn a_cursor_fits_its_own_listing_and_filter_only(env: &mut TestEnv, store: Opened) {
    let listings = fill(&store).await;
    let store = env.reload(store).await;
    let mut cursors = Vec::new();
    for listing in &listings {
        let page = listing.page(&store, PageRequest::first(Limit::MIN)).await.unwrap();
        cursors.push(page.next.unwrap_or_else(|| panic!("{} has two pages", listing.what)));
    }
    for (of, cursor) in listings.iter().zip(cursors) {
        for listing in &listings {
            let page = PageRequest::after(Limit::MIN, cursor.clone());
            let outcome = listing.page(&store, page).await;
            if std::ptr::eq(of, listing) {
                outcome.unwrap();
                continue;
            }
            let error = outcome.unwrap_err();
            let what = format!("that of {} in {}: {error}", of.what, listing.what);
            assert_eq!(*error.kind(), InvalidArgument, "{what}");
            assert!(!error.is_retryable(), "{what}");
        }
    }
}

/// What a cursor's text consists of: a version, whose cursor it is, and where it stands.
fn parts(cursor: &Cursor) -> ([u8; 8], Vec<u8>) {
    let bytes = BASE64URL_NOPAD.decode(cursor.to_string().as_bytes()).unwrap();
    (bytes[1..9].try_into().unwrap(), bytes[9..].to_vec())
}

async fn a_made_up_cursor_never_leaves_its_query(env: &mut TestEnv, store: Opened) {
    let listings = fill(&store).await;
    let store = env.reload(store).await;
    let rng = Rng::new(7);
    let (mut walked, mut positions) = (Vec::new(), vec![Vec::new()]);
    for listing in &listings {
        let (items, cursors) = listing.walk(&store).await;
        positions.extend(cursors.iter().map(|cursor| parts(cursor).1));
        let first = cursors.first().unwrap_or_else(|| panic!("{} has two pages", listing.what));
        walked.push((items, parts(first).0));
    }
    positions.sort_unstable();
    positions.dedup();
    let known = positions.len();
    for _ in 0..POSITIONS {
        // Of any bytes, or nearly one that is known.
        let mut position = match rng.below(3) {
            0 => (0..rng.below(48)).map(|_| byte(&rng)).collect(),
            _ => positions[rng.below(known)].clone(),
        };
        match rng.below(3) {
            0 => position.truncate(rng.below(position.len() + 1)),
            1 => position.push(byte(&rng)),
            _ if position.is_empty() => {}
            _ => {
                let place = rng.below(position.len());
                position[place] = byte(&rng);
            }
        }
        positions.push(position);
    }
    let mut read = 0;
    for (listing, (items, fingerprint)) in listings.iter().zip(&walked) {
        for _ in 0..POSITIONS {
            let position = rng.choose(&positions).unwrap();
            let cursor = Cursor::new(*fingerprint, position).unwrap();
            let page = PageRequest::after(Limit::MAX, cursor);
            match listing.page(&store, page).await {
                // Where it begins is all that a cursor decides.
                Ok(page) => {
                    assert!(
                        items.ends_with(&page.items),
                        "{} from {position:x?}:\n{:#?}\ninstead of an end of\n{items:#?}",
                        listing.what,
                        page.items
                    );
                    read += 1;
                }
                Err(error) => {
                    assert_eq!(*error.kind(), InvalidArgument, "{}", listing.what);
                }
            }
        }
    }
    assert!(read > listings.len() * 20, "most were refused: {read} were not");
}

fn byte(rng: &Rng) -> u8 {
    match rng.below(4) {
        0 => 0,
        1 => 0xff,
        _ => rng.bytes::<1>()[0],
    }
}

/// Two users with the same of everything, and each listing with a filter for one of them.
async fn fill(store: &Opened) -> Vec<Listing> {
    let mut users = Vec::new();
    let mut nodes = Vec::new();
    for n in 0..2 {
        let user = user(store, &format!("user{n}")).await;
        users.push(user);
        for k in 0..3 {
            let node = register(store, 1 + n * 3 + k, by(user)).await.id;
            nodes.push(node);
            let prefixes = ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"];
            let prefixes = prefixes.map(|prefix| prefix.parse().unwrap()).to_vec();
            store.routes().advertise(node, prefixes, None).await.unwrap();
            store.api_keys().create(api_key_of(user)).await.unwrap();
            store.preauth_keys().create(one_time(user)).await.unwrap();
            let new = session_of(SessionOwner::User(user), Timestamp::MAX);
            store.sessions().begin(new).await.unwrap();
            let name = format!("{n}.example.com");
            store.dns().create(record(&name, &format!("10.0.{n}.{k}"))).await.unwrap();
            let expected = PolicyVersion::new(u64::from(n * 3 + k)).ok();
            store.policies().swap(expected, DocumentText::empty()).await.unwrap();
        }
    }
    let owners = [None, Some(nodes[0]), Some(nodes[1]), Some(nodes[5])];
    let mut points = Vec::new();
    let mut entries = Vec::new();
    for (number, node) in (0..).zip(owners) {
        for metric in ["a", "rx", "rx_bytes"] {
            points.extend((10..14).map(|second| point(node, metric, at(second), number)));
        }
        entries.extend((10..14).map(|second| AuditEntry {
            actor: format!("actor{}", number % 2).parse().unwrap(),
            ..entry(number + 1, at(second))
        }));
    }
    store.metrics().record_many(points).await.unwrap();
    store.audit().append(entries).await.unwrap();

    let mut listings = of_entities(users[1], nodes[4]);
    let metrics = [None, Some("rx".parse::<MetricName>().unwrap())];
    let nodes = [None, Some(None), Some(Some(nodes[1])), Some(Some(nodes[5]))];
    for (from, to) in [(0, 100), (11, 13)] {
        for node in nodes {
            for metric in metrics.clone() {
                let query = MetricQuery { node, metric, from: at(from), to: at(to) };
                listings.push(Listing::of(query.clone(), move |store, page| {
                    let query = query.clone();
                    async move { store.metrics().range(&query, &page).await }
                }));
            }
        }
        for (newest_first, actor) in [(false, None), (true, None), (false, Some("actor1"))] {
            let query = AuditQuery {
                from: Some(at(from)),
                to: Some(at(to)),
                actor: actor.map(|actor| actor.parse().unwrap()),
                newest_first,
                ..AuditQuery::default()
            };
            listings.push(Listing::of(query.clone(), move |store, page| {
                let query = query.clone();
                async move { store.audit().query(&query, &page).await }
            }));
        }
    }
    listings
}

/// Lists entities of one kind by a filter.
macro_rules! by {
    ($entities:ident, $filter:expr) => {{
        let filter = $filter;
        Listing::of((stringify!($entities), filter.clone()), move |store, page| {
            let filter = filter.clone();
            async move { store.$entities().list(&filter, &page).await }
        })
    }};
}

fn of_entities(user: UserId, node: NodeId) -> Vec<Listing> {
    let keys = KeyFilter { user: Some(user), ..KeyFilter::default() };
    let name = Some("1.example.com".parse().unwrap());
    let owner = Some(SessionOwner::User(user));
    vec![
        by!(users, UserFilter::default()),
        by!(nodes, NodeFilter::default()),
        by!(nodes, NodeFilter { user: Some(user), ..NodeFilter::default() }),
        by!(nodes, NodeFilter { online: Some(false), ..NodeFilter::default() }),
        by!(routes, RouteFilter::default()),
        by!(routes, RouteFilter { node: Some(node), ..RouteFilter::default() }),
        by!(routes, RouteFilter { prefix: "10.1.0.0/16".parse().ok(), ..RouteFilter::default() }),
        by!(api_keys, KeyFilter::default()),
        by!(api_keys, keys.clone()),
        by!(preauth_keys, KeyFilter::default()),
        by!(preauth_keys, keys),
        by!(dns, DnsRecordFilter::default()),
        by!(dns, DnsRecordFilter { name, ..DnsRecordFilter::default() }),
        Listing::of("policies", |store, page| async move { store.policies().history(&page).await }),
        Listing::of(
            "sessions",
            |store, page| async move { store.sessions().list(None, &page).await },
        ),
        Listing::of(("sessions", owner), move |store, page| async move {
            store.sessions().list(owner, &page).await
        }),
    ]
}
