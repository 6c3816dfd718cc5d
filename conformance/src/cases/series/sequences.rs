//! Batches that their writers number, so that they can be repeated.

use super::metrics::{point, value_of};
use crate::prelude::*;

cases! {
    stored {
        "metrics-sequence" => [
            a_repeated_batch_does_nothing,
            a_batch_that_was_not_stored_can_be_repeated,
            of_concurrent_repetitions_one_counts,
        ],
    }
    stored_unopened {
        "metrics-sequence" => [a_batch_that_is_stored_is_a_repetition_though_nobody_knew],
    }
}

async fn a_repeated_batch_does_nothing(env: &mut TestEnv, mut store: Opened) {
    let (writer, other) = (WriterId::from_bytes([1; 16]), WriterId::from_bytes([2; 16]));
    // A writer may begin at 0.
    record(&store, writer, 0, 1.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(1.0));
    record(&store, writer, 0, 2.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(1.0));
    record(&store, writer, 5, 3.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(3.0));
    for reopening in 0..4 {
        store = match reopening {
            0 => store,
            1 => env.reload(store).await,
            2 => env.reopen(store).await,
            _ => env.crash(store).await,
        };
        let sequence = 5 + 3 * reopening;
        let value = value_of(&store, "load", 0).await;
        for repeated in [0, 1, sequence - 1, sequence] {
            record(&store, writer, repeated, 100.0).await;
            assert_eq!(value_of(&store, "load", 0).await, value, "{reopening}: {repeated}");
        }
        // A batch without points counts, too.
        store.metrics().record_batch(writer, sequence + 1, Vec::new()).await.unwrap();
        record(&store, writer, sequence + 1, 200.0).await;
        assert_eq!(value_of(&store, "load", 0).await, value);
        record(&store, writer, sequence + 3, 10.0 + sequence as f64).await;
        assert_eq!(value_of(&store, "load", 0).await, Some(10.0 + sequence as f64));
    }
    record(&store, other, 1, 7.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(7.0), "writers count for themselves");
    let most = i64::MAX.unsigned_abs();
    fails(store.metrics().record_batch(other, most + 1, Vec::new()).await, InvalidArgument);
    record(&store, other, most, 8.0).await;
    store = env.reload(store).await;
    record(&store, other, most, 9.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(8.0));
}

async fn a_batch_that_was_not_stored_can_be_repeated(env: &mut TestEnv, store: Opened) {
    let writer = WriterId::from_bytes([1; 16]);
    env.faults().fail_next_commits(1, FaultKind::Before);
    let batch = |value| vec![point(None, "load", 0, value)];
    fails(store.metrics().record_batch(writer, 1, batch(1.0)).await, Unavailable);
    assert_eq!(value_of(&store, "load", 0).await, None);
    record(&store, writer, 1, 2.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(2.0));
    // Stored, but the answer got lost: whatever the caller makes of that, it happens once.
    env.faults().fail_next_commits(1, FaultKind::After);
    record(&store, writer, 2, 3.0).await;
    record(&store, writer, 2, 4.0).await;
    let store = env.reload(store).await;
    record(&store, writer, 2, 5.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(3.0));
}

async fn a_batch_that_is_stored_is_a_repetition_though_nobody_knew(env: &mut TestEnv) {
    let store = env.open().await;
    let writer = WriterId::from_bytes([1; 16]);
    let batch = |value| vec![point(None, "load", 0, value)];
    // It is stored, but the answer does not arrive, and nobody can be asked.
    env.faults().fail_next_commits(1, FaultKind::After);
    env.faults().fail_next_reopens(usize::MAX);
    fails(store.metrics().record_batch(writer, 1, batch(1.0)).await, OutcomeUnknown);
    env.faults().clear();
    // Somebody else replaces the point before the writer tries again.
    store.metrics().record_many(batch(2.0)).await.unwrap();
    record(&store, writer, 1, 1.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(2.0));
    let store = env.reload(store).await;
    record(&store, writer, 1, 1.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(2.0));
    record(&store, writer, 2, 3.0).await;
    assert_eq!(value_of(&store, "load", 0).await, Some(3.0));
}

async fn of_concurrent_repetitions_one_counts(env: &mut TestEnv, store: Opened) {
    let writer = WriterId::from_bytes([1; 16]);
    for sequence in 1..=4 {
        let calls: Vec<_> = (0..16)
            .map(|second| {
                let batch = vec![point(None, "load", second, sequence as f64)];
                let store = store.clone();
                tokio::spawn(
                    async move { store.metrics().record_batch(writer, sequence, batch).await },
                )
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
    }
    let store = env.reload(store).await;
    // Each sequence wrote one point, maybe over an earlier one.
    let points = range(&store, &all_points(), 1000).await;
    assert!((1..=4).contains(&points.len()), "{points:?}");
    let newest = points.iter().filter(|point| point.value.get() == 4.0).count();
    assert_eq!(newest, 1);
}

async fn record(store: &Opened, writer: WriterId, sequence: u64, value: f64) {
    let batch = vec![point(None, "load", 0, value)];
    store.metrics().record_batch(writer, sequence, batch).await.unwrap();
}
