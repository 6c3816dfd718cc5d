//! The feed: every commit, for those who registered.

use crate::prelude::*;

cases! {
    stored {
        "feed" => [
            every_commit_is_in_it_once_and_in_order,
            whoever_takes_it_holds_the_same,
            whoever_takes_it_while_others_write_misses_nothing,
        ],
        "backend-position" => [a_store_counts_what_its_callers_change],
    }
    stored_unopened {
        "feed" => [nothing_is_kept_while_nobody_follows],
    }
}

/// What an entry has to tell.
struct Told {
    /// How many entities its block changed; 0 if it has none.
    changes: usize,
    prunes: bool,
    rows: Vec<RowChange>,
}

impl Told {
    fn block(changes: usize) -> Self {
        Self { changes, prunes: false, rows: Vec::new() }
    }

    fn rows(rows: Vec<RowChange>) -> Self {
        Self { rows, ..Self::block(0) }
    }
}

async fn every_commit_is_in_it_once_and_in_order(env: &mut TestEnv, store: Opened) {
    create(&store, "before").await;
    store.metrics().record(point(None, "before", at(0), 1.0)).await.unwrap();
    let registered = follow(&store, "backup").await;
    let begin = registered.position;
    assert_eq!((begin, registered.serial), (store.view().position(), store.view().serial()));
    assert!(store.consumers().read(begin, 9).await.unwrap().is_empty());
    let points = [0, 1, 2].map(|second| point(None, "load", at(second), second as f64));
    let writer = WriterId::from_bytes([4; 16]);
    let noted = entry(1, at(5));

    let alice = create(&store, "alice").await;
    let mut told = vec![Told::block(1)];
    store.metrics().record_many(points.to_vec()).await.unwrap();
    told.push(Told::rows(points.iter().map(row).collect()));
    store.metrics().record_batch(writer, 7, points[..1].to_vec()).await.unwrap();
    told.push(Told::rows(vec![row(&points[0]), row(&position_of(writer, 7))]));
    store.audit().append(vec![noted.clone()]).await.unwrap();
    told.push(Told::rows(vec![row(&noted)]));
    store.metrics().prune(at(1)).await.unwrap();
    told.push(Told { prunes: true, ..Told::block(0) });
    // What stores nothing, or only flushes, is not told.
    fails(store.users().create(local("alice")).await, AlreadyExists { constraint: "name" });
    store.metrics().record_batch(writer, 7, points.to_vec()).await.unwrap();
    store.checkpoint().await.unwrap();
    store.consumers().advance(&registered.name, begin).await.unwrap();
    // Who else follows is.
    follow(&store, "other").await;
    store.consumers().remove(&consumer("other")).await.unwrap();
    told.extend([Told::block(0), Told::block(0)]);
    // Commands and rows of a series in one commit.
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    let second = store.users().create(local("second"));
    let third = store.users().delete(alice.id, false);
    let more = store.metrics().record(points[0].clone());
    let mut calls = Box::pin(futures_util::future::join3(second, third, more));
    assert!((&mut calls).now_or_never().is_none());
    drop(hold);
    first.await.unwrap().unwrap();
    let (second, third, more) = calls.await;
    second.map(drop).and(third).and(more).unwrap();
    told.push(Told::block(1));
    told.push(Told { changes: 2, ..Told::rows(vec![row(&points[0])]) });

    let before = store.consumers().read(begin, 1000).await.unwrap();
    let store = env.reload(store).await;
    let entries = store.consumers().read(begin, 1000).await.unwrap();
    assert_eq!(entries, before, "the same after a reload, to the byte");
    assert_eq!(entries.len(), told.len());
    let (mut position, mut serial, mut ids) = (begin, registered.serial, BTreeSet::new());
    for (entry, told) in entries.iter().zip(&told) {
        position = position.next();
        if told.changes > 0 {
            serial = serial.next();
        }
        assert_eq!((entry.position, entry.serial), (position, serial));
        assert!(ids.insert(*entry.commit.as_bytes()), "a commit comes twice");
        let changes = entry.block.as_ref().map_or(0, |block| {
            assert_eq!((block.serial, block.id.as_bytes()), (serial, entry.commit.as_bytes()));
            assert_eq!(EncodedBlock::parse(block.bytes.clone()).unwrap(), *block);
            block.decode().unwrap().changes.len()
        });
        assert_eq!((changes, !entry.prune.is_empty()), (told.changes, told.prunes));
        assert_eq!(entry.rows, told.rows);
    }
    let prune = &entries[4].prune;
    let [old, new] = [0, 1].map(|index| row(&points[index]).key);
    let covers = |key: &RowKey| {
        prune.iter().any(|range| range.table == Table::Metrics && range.contains(key))
    };
    assert!(covers(&old) && !covers(&new), "{prune:?}");
    assert_eq!((position, serial), (store.view().position(), store.view().serial()));
    for limit in [1, 2, 3] {
        let mut pages = Vec::new();
        loop {
            let after = pages.last().map_or(begin, |entry: &LogEntry| entry.position);
            let page = store.consumers().read(after, limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            pages.extend(page);
        }
        assert_eq!(pages, entries, "{limit} at a time");
    }
    for limit in [0, 1001] {
        fails(store.consumers().read(begin, limit).await, InvalidArgument);
    }
    // Before that nobody was registered.
    let before = Position::new(begin.get() - 1);
    let error = store.consumers().read(before, 9).await.unwrap_err();
    assert!(matches!(error.kind(), Compacted { .. }), "{error}");
}

fn position_of(writer: WriterId, sequence: u64) -> ghostwire_store_core::schema::WriterPosition {
    let sequence = Revision::new(sequence).unwrap();
    ghostwire_store_core::schema::WriterPosition { writer, sequence }
}

async fn whoever_takes_it_holds_the_same(env: &mut TestEnv, store: Opened) {
    let registered = follow(&store, "mirror").await;
    let replica = Replica::since(&registered).await;
    populate(env, &store).await;
    store.metrics().prune(Timestamp::from_secs(7).unwrap()).await.unwrap();
    let mut store = env.reload(store).await;
    replica.check(&store).await;
    let noted = (1..40).map(|number| entry(number, at(number.into()))).collect();
    store.audit().append(noted).await.unwrap();
    store.audit().prune(at(20)).await.unwrap();
    let users: Vec<_> = store.view().users().iter().map(|user| user.id).collect();
    for user in users {
        store.users().delete(user, true).await.unwrap();
    }
    // What is taken need not be kept.
    let taken = replica.position().await;
    store.consumers().advance(&registered.name, taken).await.unwrap();
    store = env.reload(store).await;
    replica.check(&store).await;
    let late = user(&store, "late").await;
    node(&store, late, 50).await;
    // Later values of a point follow earlier ones, and prunes what they remove.
    let load = |value: f64| point(None, "load", at(3), value);
    store.metrics().record(load(1.0)).await.unwrap();
    store.metrics().record(load(2.0)).await.unwrap();
    store.metrics().prune(at(10)).await.unwrap();
    store.metrics().record(load(3.0)).await.unwrap();
    let store = env.reload(store).await;
    replica.check(&store).await;
}

async fn whoever_takes_it_while_others_write_misses_nothing(env: &mut TestEnv, store: Opened) {
    const WRITERS: u32 = 3;
    const CALLS: u32 = 20;
    let registered = follow(&store, "mirror").await;
    let replica = Replica::since(&registered).await;
    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, done) = (store.clone(), done.clone());
            tokio::spawn(async move {
                for number in 0..CALLS {
                    create(&store, &format!("user-{writer}-{number}")).await;
                    let point = point(None, "load", at(number.into()), f64::from(writer));
                    store.metrics().record(point).await.unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    while done.load(Ordering::SeqCst) < WRITERS as usize {
        replica.take_all(&store).await;
        let taken = replica.position().await;
        store.consumers().advance(&registered.name, taken).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let store = env.reload(store).await;
    replica.check(&store).await;
    assert_eq!(store.view().users().len(), (WRITERS * CALLS) as usize);
}

async fn a_store_counts_what_its_callers_change(env: &mut TestEnv, store: Opened) {
    let writer = WriterId::from_bytes([4; 16]);
    let load = |value: f64| point(None, "load", at(0), value);
    let position = || store.view().position().get();
    assert_eq!(position(), 0);
    create(&store, "alice").await;
    assert_eq!(position(), 1);
    store.metrics().record_batch(writer, 1, vec![load(1.0)]).await.unwrap();
    store.audit().append(vec![entry(1, at(0))]).await.unwrap();
    store.metrics().prune(at(1)).await.unwrap();
    let registered = follow(&store, "backup").await;
    assert_eq!((position(), registered.position.get()), (5, 5));
    // Refused, repeated, flushed, moved.
    fails(store.users().create(local("alice")).await, AlreadyExists { constraint: "name" });
    store.metrics().record_batch(writer, 1, vec![load(2.0)]).await.unwrap();
    store.transact(Transaction::new()).await.unwrap();
    store.checkpoint().await.unwrap();
    store.consumers().advance(&registered.name, registered.position).await.unwrap();
    assert_eq!((position(), store.view().serial().get()), (5, 1));
    assert_eq!(store.info().position.get(), 5);
    let store = env.reload(store).await;
    assert_eq!(store.view().position().get(), 5);
    store.consumers().remove(&registered.name).await.unwrap();
    create(&store, "bob").await;
    let store = env.reload(store).await;
    assert_eq!((store.view().position().get(), store.view().serial().get()), (7, 2));
}

async fn nothing_is_kept_while_nobody_follows(env: &mut TestEnv) {
    let kept = async |backend: &OpenedBackend| {
        let scan = Scan { range: KeyRange::all(Table::Feed), reverse: false, limit: 1000 };
        backend.scan(scan).await.unwrap().rows.len()
    };
    let backend = env.open_backend().await;
    let store = ghostwire_store_core::open(backend.clone(), env.options()).await.unwrap();
    populate(env, &store).await;
    assert_eq!(kept(&backend).await, 0);
    let begin = follow(&store, "one").await.position;
    follow(&store, "two").await;
    create(&store, "carol").await;
    store.metrics().record(point(None, "load", at(0), 1.0)).await.unwrap();
    assert_eq!(kept(&backend).await, 3);
    // As long as one of them has not taken it.
    let last = store.view().position();
    store.consumers().advance(&consumer("one"), last).await.unwrap();
    assert_eq!(kept(&backend).await, 2);
    store.consumers().remove(&consumer("two")).await.unwrap();
    assert_eq!(kept(&backend).await, 1);
    store.consumers().advance(&consumer("one"), store.view().position()).await.unwrap();
    assert_eq!(kept(&backend).await, 0);
    create(&store, "dave").await;
    assert_eq!(kept(&backend).await, 1);
    store.consumers().remove(&consumer("one")).await.unwrap();
    assert_eq!(kept(&backend).await, 0);
    create(&store, "erin").await;
    store.metrics().record(point(None, "load", at(1), 1.0)).await.unwrap();
    assert_eq!(kept(&backend).await, 0);
    // Much is let go in steps, so that nobody waits for all of it.
    follow(&store, "three").await;
    for number in 0..300 {
        let load = point(None, "load", at(2), f64::from(number));
        store.metrics().record(load).await.unwrap();
    }
    assert_eq!(kept(&backend).await, 300);
    store.consumers().remove(&consumer("three")).await.unwrap();
    store.checkpoint().await.unwrap();
    assert_eq!(kept(&backend).await, 0);
    drop(backend);
    let store = env.reload(store).await;
    assert!(store.consumers().list().await.unwrap().is_empty());
    let error = store.consumers().read(begin, 9).await.unwrap_err();
    assert!(matches!(error.kind(), Compacted { .. }), "{error}");
    assert!(store.consumers().read(store.view().position(), 9).await.unwrap().is_empty());
}
