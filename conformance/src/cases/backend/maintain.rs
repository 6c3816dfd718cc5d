//! What a backend does by itself, a slice at a time.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-maintain" => [
            upkeep_changes_nothing_that_can_be_read,
            commits_go_on_between_slices,
        ],
    }
}

/// As little as can be: a record a slice.
const LEAST: Budget = Budget { time: Duration::ZERO, bytes: 0 };
/// More than any backend has records after these commits.
const SLICES: usize = 10_000;

async fn fill(backend: &OpenedBackend, marks: std::ops::Range<u32>) {
    for mark in marks {
        let rows = vec![put(Table::Users, mark, mark), put(Table::Metrics, mark, mark)];
        commit_block(backend, rows).await;
    }
}

/// Slices until nothing is left. A backend that never has done would keep its writer busy for ever.
async fn maintain(backend: &OpenedBackend) {
    for _ in 0..SLICES {
        if !backend.maintain(LEAST).await.unwrap() {
            return;
        }
    }
    panic!("something is left after {SLICES} slices");
}

async fn upkeep_changes_nothing_that_can_be_read(env: &mut TestEnv, backend: OpenedBackend) {
    // An empty store, too.
    maintain(&backend).await;
    assert_eq!(backend.head().await.unwrap(), genesis());
    fill(&backend, 1..6).await;
    let before = Content::of(&backend).await;
    maintain(&backend).await;
    assert_eq!(Content::of(&backend).await, before);
    backend.verify().await.unwrap();
    let backend = env.reload_backend(backend).await;
    assert_eq!(Content::of(&backend).await, before);
    maintain(&backend).await;
    assert_eq!(Content::of(&backend).await, before);
}

async fn commits_go_on_between_slices(env: &mut TestEnv, backend: OpenedBackend) {
    for mark in 1..6 {
        backend.maintain(LEAST).await.unwrap();
        fill(&backend, mark..mark + 1).await;
    }
    maintain(&backend).await;
    let backend = env.reload_backend(backend).await;
    let marks: Vec<_> = (1..6).map(|mark| (mark, mark)).collect();
    assert_eq!(marks_of(&backend, Table::Users).await, marks);
    backend.verify().await.unwrap();
}
