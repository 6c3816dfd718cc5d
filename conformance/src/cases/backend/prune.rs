//! Ranges of rows that are removed.

use super::fixtures::*;

cases! {
    stored_unopened {
        "backend-prune" => [
            a_range_is_removed_exactly,
            rows_of_the_same_commit_are_written_after_pruning,
            ranges_may_overlap_repeat_and_be_empty,
            other_tables_are_left_alone,
            a_whole_table_may_be_pruned,
        ],
    }
}

/// The series, which are pruned, and a table of the state.
const TABLES: [Table; 3] = [Table::Metrics, Table::Audit, Table::Nodes];

fn prune(ranges: Vec<KeyRange>) -> Commit {
    Commit { prune: ranges, ..Commit::default() }
}

async fn numbers(backend: &OpenedBackend, table: Table) -> Vec<u32> {
    marks_of(backend, table).await.into_iter().map(|(number, _)| number).collect()
}

async fn filled(env: &TestEnv) -> Arc<dyn Backend> {
    let backend = env.open_backend().await;
    for table in TABLES {
        commit_rows(&backend, (0..20).map(|number| put(table, number, 1)).collect()).await;
    }
    backend
}

async fn a_range_is_removed_exactly(env: &mut TestEnv) {
    let backend = filled(env).await;
    for table in TABLES {
        commit_next(&backend, prune(vec![range(table, 5, Some(9))])).await.unwrap();
        // Bounds that are no keys.
        let from = key(table, 15).successor();
        let to = Some(key(table, 17).successor());
        commit_next(&backend, prune(vec![KeyRange { table, from, to }])).await.unwrap();
        commit_next(&backend, prune(vec![range(table, 19, None)])).await.unwrap();
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        let found = numbers(&backend, table).await;
        assert_eq!(found, [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 18], "{table:?}");
    }
}

async fn rows_of_the_same_commit_are_written_after_pruning(env: &mut TestEnv) {
    let backend = filled(env).await;
    for table in TABLES {
        let rows = vec![
            put(table, 3, 9),
            put(table, 4, 9),
            delete(table, 4),
            delete(table, 12),
            put(table, 12, 8),
            delete(table, 5),
            put(table, 30, 7),
        ];
        let prune = vec![range(table, 2, Some(15)), range(table, 25, None)];
        commit_next(&backend, Commit { rows, prune, ..Commit::default() }).await.unwrap();
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        let wanted =
            [(0, 1), (1, 1), (3, 9), (12, 8), (15, 1), (16, 1), (17, 1), (18, 1), (19, 1), (30, 7)];
        assert_eq!(marks_of(&backend, table).await, wanted, "{table:?}");
    }
}

async fn ranges_may_overlap_repeat_and_be_empty(env: &mut TestEnv) {
    let backend = filled(env).await;
    for table in TABLES {
        let ranges = vec![
            range(table, 3, Some(8)),
            range(table, 6, Some(11)),
            range(table, 3, Some(8)),
            range(table, 15, Some(15)),
            range(table, 18, Some(12)),
            range(table, 40, Some(50)),
            KeyRange { table, from: RowKey::new(), to: Some(RowKey::new()) },
            KeyRange { table, from: RowKey::new(), to: Some(key(table, 1)) },
        ];
        for _ in 0..2 {
            commit_next(&backend, prune(ranges.clone())).await.unwrap();
        }
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        let wanted = [1, 2, 11, 12, 13, 14, 15, 16, 17, 18, 19];
        assert_eq!(numbers(&backend, table).await, wanted, "{table:?}");
    }
}

async fn other_tables_are_left_alone(env: &mut TestEnv) {
    let backend = filled(env).await;
    commit_next(&backend, prune(vec![KeyRange::all(Table::Metrics)])).await.unwrap();
    commit_next(&backend, prune(vec![range(Table::Audit, 10, None)])).await.unwrap();
    let backend = env.reload_backend(backend).await;
    assert_eq!(rows_of(&backend, Table::Metrics).await, []);
    assert_eq!(numbers(&backend, Table::Audit).await, Vec::from_iter(0..10));
    assert_eq!(numbers(&backend, Table::Nodes).await, Vec::from_iter(0..20));
}

async fn a_whole_table_may_be_pruned(env: &mut TestEnv) {
    let backend = filled(env).await;
    for table in TABLES {
        let rows = vec![put(table, 7, 7)];
        let prune = vec![KeyRange::all(table)];
        commit_next(&backend, Commit { rows, prune, ..Commit::default() }).await.unwrap();
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        assert_eq!(marks_of(&backend, table).await, [(7, 7)], "{table:?}");
    }
}
