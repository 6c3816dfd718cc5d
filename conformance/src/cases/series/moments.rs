//! What a read of series sees of what is recorded meanwhile.

use std::sync::atomic::AtomicU32;

use crate::prelude::*;

cases! {
    once {
        "series-moments" => [what_the_audit_trail_had_before_a_query_is_in_it],
    }
    once_unopened {
        "series-moments" => [
            a_series_of_one_read_is_of_one_moment,
            what_was_recorded_before_is_read_and_nothing_that_was_not_recorded,
        ],
    }
}

/// At least so many calls of a reader, while at least so much is recorded.
const CALLS: usize = 60;
const BATCHES: u32 = 5;
/// Points of each series: too many to be read together with those of the next one.
const POINTS: i64 = 600;
const SERIES: u8 = 3;

/// A writer of batches that replace all points by the batch's number, each series in an hour of its
/// own. The numbers tell what was read of which batch.
struct Racing {
    store: Arc<dyn Store>,
    /// The last batch whose recording began, and the last one that was acknowledged.
    begun: AtomicU32,
    stored: AtomicU32,
}

impl Racing {
    async fn record_next(&self) {
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let mut points = Vec::new();
        for series in 0..SERIES {
            points.extend((0..POINTS).map(|index| {
                point(
                    Some(NodeId::from_bytes([series + 1; 16])),
                    "load",
                    at(i64::from(series) * 3600 + index),
                    f64::from(number),
                )
            }));
        }
        self.store.metrics().record_many(points).await.unwrap();
        self.stored.store(number, Ordering::SeqCst);
    }

    /// Reads while batches are recorded. Gives the numbers that a call may see, with what it saw.
    async fn read<T, F>(store: &Opened, read: impl Fn(Arc<dyn Store>) -> F) -> Vec<([f64; 2], T)>
    where
        F: Future<Output = T>,
    {
        let racing = Arc::new(Self { store: store.clone(), begun: 0.into(), stored: 0.into() });
        racing.record_next().await;
        let writer = tokio::spawn({
            let racing = racing.clone();
            async move {
                loop {
                    racing.record_next().await;
                }
            }
        });
        let mut seen = Vec::new();
        while seen.len() < CALLS || racing.stored.load(Ordering::SeqCst) < BATCHES {
            let first = f64::from(racing.stored.load(Ordering::SeqCst));
            let read = read(store.clone()).await;
            seen.push(([first, f64::from(racing.begun.load(Ordering::SeqCst))], read));
            tokio::task::yield_now().await;
        }
        writer.abort();
        let _ = writer.await;
        seen
    }
}

async fn a_series_of_one_read_is_of_one_moment(env: &mut TestEnv) {
    let store = &env.open().await;
    let query = MetricQuery { to: at(3600 * i64::from(SERIES)), from: at(0), ..all_points() };
    let calls = Racing::read(store, |store| {
        let query = query.clone();
        async move { store.metrics().rollup(&query, Rollup::Hour).await.unwrap() }
    });
    let is_of_one_batch = |sum: &Aggregate| {
        assert_eq!(sum.min.to_bits(), sum.max.to_bits(), "of two batches: {sum:?}");
        assert_eq!(sum.count, POINTS.unsigned_abs());
    };
    for (_, hours) in calls.await {
        assert_eq!(hours.len(), usize::from(SERIES));
        hours.iter().for_each(is_of_one_batch);
        // What is read later is not older.
        assert!(hours.is_sorted_by(|a, b| a.max <= b.max), "{hours:?}");
    }
    let node = Some(Some(NodeId::from_bytes([SERIES; 16])));
    let query = MetricQuery { node, ..query };
    let calls = Racing::read(store, |store| {
        let query = query.clone();
        async move { store.metrics().aggregate(&query).await.unwrap().unwrap() }
    });
    calls.await.iter().for_each(|(_, sum)| is_of_one_batch(sum));
}

async fn what_was_recorded_before_is_read_and_nothing_that_was_not_recorded(env: &mut TestEnv) {
    let store = &env.open().await;
    let calls = Racing::read(store, |store| async move {
        let mut points = Vec::new();
        let mut page = PageRequest::first(Limit::MAX);
        loop {
            let found = store.metrics().range(&all_points(), &page).await.unwrap();
            points.extend(found.items);
            let Some(next) = found.next else { return points };
            page = PageRequest::after(Limit::MAX, next);
        }
    });
    for ([stored, begun], points) in calls.await {
        assert_eq!(points.len(), usize::from(SERIES) * usize::try_from(POINTS).unwrap());
        let values: Vec<_> = points.iter().map(|point| point.value.get()).collect();
        let is_whole = |value: &f64| (stored..=begun).contains(value) && value.fract() == 0.0;
        assert!(values.iter().all(is_whole), "{stored} to {begun}: {values:?}");
        // What is read later is not older.
        assert!(values.is_sorted(), "{values:?}");
    }
}

async fn what_the_audit_trail_had_before_a_query_is_in_it(_: &mut TestEnv, store: Opened) {
    let written = Arc::new(AtomicU32::new(0));
    let writer = tokio::spawn({
        let (store, written) = (store.clone(), written.clone());
        async move {
            for number in 0.. {
                let name = format!("user{number}").parse().unwrap();
                store.users().create(NewUser::local(name)).await.unwrap();
                written.store(number + 1, Ordering::SeqCst);
            }
        }
    });
    let mut calls = 0;
    while calls < CALLS || written.load(Ordering::SeqCst) < BATCHES {
        calls += 1;
        let query = AuditQuery { newest_first: calls % 2 == 0, ..AuditQuery::default() };
        let before = usize::try_from(written.load(Ordering::SeqCst)).unwrap();
        let page = PageRequest::first(Limit::MAX);
        let found = store.audit().query(&query, &page).await.unwrap();
        let view = store.view();
        assert!(found.items.len() >= before.min(1000), "{before} before");
        for line in &found.items {
            let id = line.subject.as_str().parse().unwrap();
            assert!(view.users().get(id).is_some(), "{line:?} without its user");
        }
        tokio::task::yield_now().await;
    }
    writer.abort();
    let _ = writer.await;
}
