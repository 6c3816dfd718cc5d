//! Metrics: recording, repeating, reading and removing them.

use crate::prelude::*;

cases! {
    stored {
        "metrics-replace" => [
            a_point_recorded_again_replaces_the_value,
            a_batch_is_stored_as_a_whole,
            metrics_make_no_block,
        ],
        "metrics-query" => [
            answers_are_those_of_a_naive_computation,
            eight_thousand_points_come_back_page_by_page,
            values_come_back_bit_by_bit,
            a_sum_beyond_a_float_is_infinite_and_never_nan,
        ],
        "retention" => [pruning_removes_exactly_what_is_before_a_moment],
    }
    once {
        "metrics-query" => [
            a_rollup_has_at_most_10000_buckets,
            a_cursor_belongs_to_its_query,
        ],
    }
    once_unopened {
        "metrics-query" => [a_value_is_a_finite_number],
    }
}

async fn a_point_recorded_again_replaces_the_value(env: &mut TestEnv, mut store: Opened) {
    let metrics = |value| vec![point(None, "load", 0, value)];
    store.metrics().record_many(metrics(1.0)).await.unwrap();
    let neighbours = [
        point(Some(node(1)), "load", 0, 10.0),
        point(None, "load_x", 0, 20.0),
        point(None, "load", 1, 30.0),
    ];
    store.metrics().record_many(neighbours.to_vec()).await.unwrap();
    store = env.reload(store).await;
    store.metrics().record(point(None, "load", 0, 2.0)).await.unwrap();
    assert_eq!(value_of(&store, "load", 0).await, Some(2.0));
    // Within one batch the last one counts.
    store.metrics().record_many([metrics(3.0), metrics(5.0), metrics(4.0)].concat()).await.unwrap();
    store = env.reload(store).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(4.0));
    let [of_node, longer, later] = neighbours;
    let all = [point(None, "load", 0, 4.0), later, longer, of_node];
    assert_eq!(range(&store, &all_points(), 1000).await, all);
}

async fn a_batch_is_stored_as_a_whole(env: &mut TestEnv, store: Opened) {
    let batch = |from: i64, count: i64| {
        (from..from + count).map(|second| point(None, "load", second, 1.0)).collect::<Vec<_>>()
    };
    fails(store.metrics().record_many(batch(0, 10_001)).await, InvalidArgument);
    let writer = WriterId::from_bytes([1; 16]);
    fails(store.metrics().record_batch(writer, 1, batch(0, 10_001)).await, InvalidArgument);
    env.faults().fail_next_commits(1, FaultKind::DiskFull);
    fails(store.metrics().record_many(batch(0, 500)).await, Exhausted);
    assert_eq!(store.metrics().aggregate(&all_points()).await.unwrap(), None);
    store.metrics().record_many(Vec::new()).await.unwrap();
    store.metrics().record_many(batch(0, 10_000)).await.unwrap();
    let store = env.reload(store).await;
    let all = store.metrics().aggregate(&all_points()).await.unwrap().unwrap();
    assert_eq!(all.count, 10_000);
}

async fn metrics_make_no_block(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    let before = store.view();
    for second in 0..3 {
        store.metrics().record(point(None, "load", second, 1.0)).await.unwrap();
    }
    store.metrics().prune(at(1)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!((store.view().serial(), store.view().hash()), (before.serial(), before.hash()));
    let mut watch = store.watch(before.serial());
    let bob = create(&store, "bob").await;
    let told = watch.next().await.unwrap().unwrap();
    assert_eq!(told.serial, Serial::new(before.serial().get() + 1));
    assert_eq!(told.changes.len(), 1);
    assert_eq!(told.changes[0].handle, EntityId::User(bob.id));
    assert_eq!(store.metrics().aggregate(&all_points()).await.unwrap().unwrap().count, 2);
}

async fn answers_are_those_of_a_naive_computation(env: &mut TestEnv, store: Opened) {
    let points = sample();
    for batch in points.chunks(700) {
        store.metrics().record_many(batch.to_vec()).await.unwrap();
    }
    let store = env.reload(store).await;
    // Of points with one key the last one counts.
    let mut sorted: Vec<_> = points
        .into_iter()
        .map(|point| ((point.node, point.metric.clone(), point.at), point))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect();
    let nodes =
        [None, Some(None), Some(Some(node(1))), Some(Some(node(0xff))), Some(Some(node(9)))];
    let metrics = [None, Some("rx"), Some("rx_bytes"), Some("nothing")];
    let times = [(0, 400_000), (3_600, 86_400), (86_399, 172_801), (7, 7), (9, 8)];
    check_queries(&store, &sorted, &nodes, &metrics, &times).await;
    store.metrics().prune(at(86_400)).await.unwrap();
    sorted.retain(|point| point.at >= at(86_400));
    let store = env.reload(store).await;
    check_queries(&store, &sorted, &nodes, &metrics, &times).await;
}

async fn eight_thousand_points_come_back_page_by_page(env: &mut TestEnv, store: Opened) {
    let mut points = Vec::new();
    for series in 0..8 {
        let owner = [None, Some(node(1)), Some(node(2)), Some(node(3))][series / 2];
        let metric = ["rx", "tx"][series % 2];
        points.extend((0..1000).map(|second| point(owner, metric, second, second as f64)));
    }
    let mut shuffled = points.clone();
    shuffled.reverse();
    shuffled.rotate_left(1234);
    store.metrics().record_many(shuffled).await.unwrap();
    let store = env.reload(store).await;
    for limit in [1000, 999, 333] {
        assert_eq!(range(&store, &all_points(), limit).await, points);
    }
    let query = MetricQuery { metric: Some("tx".parse().unwrap()), ..all_points() };
    points.retain(|point| point.metric.as_str() == "tx");
    assert_eq!(range(&store, &query, 1000).await, points);
    // 4,000 points are four full pages, and none after them.
    let full = PageRequest::first(Limit::MAX);
    let mut page = store.metrics().range(&query, &full).await.unwrap();
    for _ in 0..3 {
        let next = PageRequest::after(Limit::MAX, page.next.unwrap());
        page = store.metrics().range(&query, &next).await.unwrap();
        assert_eq!(page.items.len(), 1000);
    }
    assert_eq!(page.next, None);
}

async fn values_come_back_bit_by_bit(env: &mut TestEnv, store: Opened) {
    let values = [0.1 + 0.2, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 1.0 / 3.0, -0.0];
    let points: Vec<_> =
        (0..).zip(values).map(|(second, value)| point(None, "load", second, value)).collect();
    store.metrics().record_many(points).await.unwrap();
    let store = env.reload(store).await;
    let found = range(&store, &all_points(), 1000).await;
    let bits: Vec<_> = found.iter().map(|point| point.value.get().to_bits()).collect();
    let expected = values.map(|value| if value == 0.0 { 0 } else { value.to_bits() });
    assert_eq!(bits, expected, "negative zero becomes zero");
}

async fn a_sum_beyond_a_float_is_infinite_and_never_nan(env: &mut TestEnv, store: Opened) {
    // Added one by one; that others would bring it back into range does not count.
    let values = [f64::MAX, f64::MAX, f64::MIN, f64::MIN, f64::MIN];
    let points: Vec<_> =
        (0..).zip(values).map(|(second, value)| point(None, "load", second, value)).collect();
    let negative = points.iter().map(|point| MetricPoint {
        metric: "negative".parse().unwrap(),
        value: Sample::new(-point.value.get()).unwrap(),
        ..point.clone()
    });
    store.metrics().record_many(negative.chain(points.clone()).collect()).await.unwrap();
    let store = env.reload(store).await;
    for (metric, sum) in [("load", f64::INFINITY), ("negative", f64::NEG_INFINITY)] {
        let query = MetricQuery { metric: Some(metric.parse().unwrap()), ..all_points() };
        let found = store.metrics().aggregate(&query).await.unwrap().unwrap();
        assert_eq!((found.count, found.min, found.max), (5, f64::MIN, f64::MAX));
        assert_eq!((found.sum, found.mean()), (sum, sum));
        assert!(serde_json::to_value(&found).unwrap()["sum"].is_null());
        let query = MetricQuery { from: at(0), to: at(60), ..query };
        let minutes = store.metrics().rollup(&query, Rollup::Minute).await.unwrap();
        assert_eq!(minutes.iter().map(|minute| minute.sum).collect::<Vec<_>>(), [sum]);
    }
}

async fn a_value_is_a_finite_number(_: &mut TestEnv) {
    for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        fails(Sample::new(value), InvalidArgument);
        fails(Sample::try_from(value), InvalidArgument);
    }
    assert_eq!(Sample::new(-0.0).unwrap().get().to_bits(), 0);
    assert_eq!(Sample::new(f64::MAX).unwrap().get(), f64::MAX);
}

async fn a_rollup_has_at_most_10000_buckets(_: &mut TestEnv, store: Opened) {
    let micros = |micros| Timestamp::from_micros(micros).unwrap();
    for width in [Rollup::Minute, Rollup::Hour, Rollup::Day] {
        let bucket = width.micros();
        let start = BEGINNING / bucket * bucket;
        let query = |from, to| MetricQuery { from: micros(from), to: micros(to), ..all_points() };
        let end = start + 10_000 * bucket;
        for at in [start, end - 1, end] {
            let at = micros(at);
            store
                .metrics()
                .record(MetricPoint { at, ..point(None, "load", 0, 1.0) })
                .await
                .unwrap();
        }
        let whole = store.metrics().rollup(&query(start, end), width).await.unwrap();
        let begins: Vec<_> = whole.iter().map(|bucket| bucket.from).collect();
        assert!(begins.contains(&micros(start)) && begins.contains(&micros(end - bucket)));
        // A bucket that is touched counts, however short the part of it.
        for (from, to) in [
            (start, end + 1),
            (start - 1, end),
            (start + bucket / 2, end + bucket / 2),
            (0, Timestamp::MAX.as_micros()),
        ] {
            let error = store.metrics().rollup(&query(from, to), width).await.unwrap_err();
            assert_eq!(*error.kind(), InvalidArgument, "{width:?}");
        }
        assert_eq!(store.metrics().rollup(&query(end, start), width).await.unwrap(), []);
        assert_eq!(store.metrics().rollup(&query(start, start), width).await.unwrap(), []);
    }
}

async fn a_cursor_belongs_to_its_query(_: &mut TestEnv, store: Opened) {
    let points = (0..3).map(|second| point(None, "load", second, 1.0)).collect();
    store.metrics().record_many(points).await.unwrap();
    let first = PageRequest::first(Limit::MIN);
    let next = store.metrics().range(&all_points(), &first).await.unwrap().next.unwrap();
    let second = PageRequest::after(Limit::MIN, next);
    store.metrics().range(&all_points(), &second).await.unwrap();
    for query in [
        MetricQuery { node: Some(None), ..all_points() },
        MetricQuery { metric: Some("load".parse().unwrap()), ..all_points() },
        MetricQuery { to: at(1000), ..all_points() },
    ] {
        fails(store.metrics().range(&query, &second).await, InvalidArgument);
    }
}

async fn pruning_removes_exactly_what_is_before_a_moment(env: &mut TestEnv, store: Opened) {
    let mut points = Vec::new();
    for owner in [None, Some(node(1)), Some(node(0xff))] {
        for metric in ["rx", "rx_bytes"] {
            points.extend((0..50).map(|second| point(owner, metric, second, 1.0)));
        }
    }
    store.metrics().record_many(points.clone()).await.unwrap();
    store.metrics().prune(at(0)).await.unwrap();
    assert_eq!(range(&store, &all_points(), 1000).await, points);
    store.metrics().prune(at(20)).await.unwrap();
    points.retain(|point| point.at >= at(20));
    let store = env.reload(store).await;
    assert_eq!(range(&store, &all_points(), 1000).await, points);
    // What is older can be recorded again, and is removed again.
    let late = point(Some(node(1)), "rx", 5, 2.0);
    store.metrics().record(late.clone()).await.unwrap();
    let query = MetricQuery { to: at(20), ..all_points() };
    assert_eq!(range(&store, &query, 10).await, [late]);
    store.metrics().prune(at(20)).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(range(&store, &all_points(), 1000).await, points);
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(range(&store, &all_points(), 1000).await, []);
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

pub(super) fn point(node: Option<NodeId>, metric: &str, second: i64, value: f64) -> MetricPoint {
    let value = Sample::new(value).unwrap();
    MetricPoint { node, metric: metric.parse().unwrap(), at: at(second), value }
}

/// A value of the network as a whole.
pub(super) async fn value_of(store: &Opened, metric: &str, second: i64) -> Option<f64> {
    let query = MetricQuery {
        node: Some(None),
        metric: Some(metric.parse().unwrap()),
        from: at(second),
        to: at(second + 1),
    };
    store.metrics().aggregate(&query).await.unwrap().map(|found| found.last)
}

/// Points of several series with names that begin alike, over three days; some of them twice.
fn sample() -> Vec<MetricPoint> {
    let mut random: u64 = 1;
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let owners = [None, Some(node(1)), Some(node(2)), Some(node(0xff))];
    let metrics = ["rx", "rx.bytes", "rx_bytes", "rx_bytes_total", "RX"];
    let mut points = Vec::new();
    for _ in 0..2_500 {
        let owner = owners[draw(4) as usize];
        let metric = metrics[draw(5) as usize];
        // Often on the edge of a bucket, and often at the same moment as others.
        let width = [1, 60, 3_600][draw(3) as usize];
        let second = (draw(259_200 / width) * width) as i64;
        let value = (draw(2_000_001) as f64 - 1_000_000.0) / 1_000.0;
        points.push(point(owner, metric, second, value));
    }
    points
}

async fn check_queries(
    store: &Opened,
    sorted: &[MetricPoint],
    nodes: &[Option<Option<NodeId>>],
    metrics: &[Option<&str>],
    times: &[(i64, i64)],
) {
    for node in nodes {
        for metric in metrics {
            for (from, to) in times {
                let query = MetricQuery {
                    node: *node,
                    metric: metric.map(|metric| metric.parse().unwrap()),
                    from: at(*from),
                    to: at(*to),
                };
                let expected: Vec<_> = sorted
                    .iter()
                    .filter(|point| query.node.is_none_or(|node| point.node == node))
                    .filter(|point| query.metric.as_ref().is_none_or(|name| point.metric == *name))
                    .filter(|point| query.from <= point.at && point.at < query.to)
                    .cloned()
                    .collect();
                assert_eq!(range(store, &query, 997).await, expected, "{query:?}");
                let total = store.metrics().aggregate(&query).await.unwrap();
                assert_eq!(total, naive(query.from, &expected), "{query:?}");
                for width in [Rollup::Minute, Rollup::Hour, Rollup::Day] {
                    let found = store.metrics().rollup(&query, width).await.unwrap();
                    assert_eq!(found, naive_rollup(&expected, width), "{query:?} {width:?}");
                }
            }
        }
    }
}

fn naive(from: Timestamp, points: &[MetricPoint]) -> Option<Aggregate> {
    let values: Vec<_> = points.iter().map(|point| point.value.get()).collect();
    let last_at = points.iter().map(|point| point.at).max()?;
    let last = points.iter().rev().find(|point| point.at == last_at)?;
    Some(Aggregate {
        from,
        count: values.len() as u64,
        min: values.iter().copied().fold(f64::INFINITY, f64::min),
        max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        sum: values.iter().sum(),
        last: last.value.get(),
        last_at,
    })
}

fn naive_rollup(points: &[MetricPoint], width: Rollup) -> Vec<Aggregate> {
    let bucket = |point: &MetricPoint| point.at.as_micros() / width.micros() * width.micros();
    let begins: BTreeSet<_> = points.iter().map(bucket).collect();
    let of = |begin: i64| {
        let points: Vec<_> =
            points.iter().filter(|point| bucket(point) == begin).cloned().collect();
        naive(Timestamp::from_micros(begin).unwrap(), &points).unwrap()
    };
    begins.into_iter().map(of).collect()
}
