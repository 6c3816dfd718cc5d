//! Which image of a row counts, and rows that are gone.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-rows" => [
            the_last_image_of_a_row_counts,
            of_many_images_of_one_row_the_last_one_counts,
            deleting_what_is_not_there_is_no_error,
            a_row_is_replaced_as_a_whole,
            a_row_stays_until_it_is_written_again,
            neighbours_are_left_alone,
            a_commit_may_have_thousands_of_rows,
        ],
    }
}

/// One of the state's tables, and the series, which backends may keep apart.
const TABLES: [Table; 4] = [Table::Nodes, Table::Metrics, Table::Audit, Table::Settings];

async fn the_last_image_of_a_row_counts(env: &mut TestEnv, backend: OpenedBackend) {
    for table in TABLES {
        let rows = vec![
            put(table, 1, 1),
            put(table, 2, 1),
            delete(table, 3),
            put(table, 1, 2),
            delete(table, 2),
            put(table, 3, 3),
            put(table, 4, 9),
            put(table, 4, 8),
            delete(table, 5),
            put(table, 5, 5),
            delete(table, 5),
        ];
        commit_block(&backend, rows).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        assert_eq!(marks_of(&backend, table).await, [(1, 2), (3, 3), (4, 8)], "{table:?}");
    }
}

async fn of_many_images_of_one_row_the_last_one_counts(env: &mut TestEnv, backend: OpenedBackend) {
    for table in TABLES {
        // The images of three rows, mixed; one of them ends deleted.
        let mut rows: Vec<_> = (0..600).map(|mark| put(table, mark % 3, mark)).collect();
        rows.push(delete(table, 1));
        commit_rows(&backend, rows).await;
        assert_eq!(marks_of(&backend, table).await, [(0, 597), (2, 599)], "{table:?}");
        // And over what is stored already.
        let rows = (0..300).rev().map(|mark| put(table, mark % 3, mark)).collect();
        commit_rows(&backend, rows).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        assert_eq!(marks_of(&backend, table).await, [(0, 0), (1, 1), (2, 2)], "{table:?}");
    }
}

async fn deleting_what_is_not_there_is_no_error(env: &mut TestEnv, backend: OpenedBackend) {
    for table in TABLES {
        commit_rows(&backend, vec![delete(table, 1)]).await;
        commit_rows(&backend, vec![put(table, 1, 1), put(table, 2, 2)]).await;
        for _ in 0..2 {
            commit_rows(&backend, vec![delete(table, 1), delete(table, 1), delete(table, 3)]).await;
        }
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        assert_eq!(marks_of(&backend, table).await, [(2, 2)], "{table:?}");
        commit_rows(&backend, vec![delete(table, 1), put(table, 3, 3)]).await;
    }
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        assert_eq!(marks_of(&backend, table).await, [(2, 2), (3, 3)], "{table:?}");
    }
}

async fn a_row_is_replaced_as_a_whole(env: &mut TestEnv, backend: OpenedBackend) {
    use ghostwire_store_core::schema::{ColumnKind, Value};
    let table = Table::Nodes;
    let full = body(table, 5);
    // As the same row, but with nothing wherever there may be nothing.
    let sparse = body_of(table, |column| match column.kind {
        _ if column.nullable => Value::Null,
        ColumnKind::Bool | ColumnKind::Integer | ColumnKind::Time => Value::Integer(1),
        ColumnKind::Real => Value::Real(1.5),
        ColumnKind::Text => Value::Text(""),
        ColumnKind::Json => Value::Text("{}"),
        ColumnKind::Id => Value::Bytes(&[5; 16]),
        ColumnKind::Key(_) => Value::Bytes(&[5; 32]),
        ColumnKind::Bytes => Value::Bytes(&[]),
    });
    commit_rows(
        &backend,
        vec![
            image(table, key(table, 1), full.clone()),
            image(table, key(table, 2), sparse.clone()),
        ],
    )
    .await;
    commit_rows(
        &backend,
        vec![
            image(table, key(table, 2), full.clone()),
            image(table, key(table, 1), sparse.clone()),
        ],
    )
    .await;
    let backend = env.reload_backend(backend).await;
    let bodies: Vec<_> = rows_of(&backend, table).await.into_iter().map(|row| row.body).collect();
    assert_eq!(bodies, [sparse, full]);
}

async fn a_row_stays_until_it_is_written_again(env: &mut TestEnv, mut backend: OpenedBackend) {
    let table = Table::Routes;
    commit_block(&backend, vec![put(table, 1, 1), put(table, 2, 1), put(table, 3, 1)]).await;
    commit_block(&backend, vec![put(table, 2, 2)]).await;
    // What a commit of long ago stored must not come back with a later one.
    for round in 3..8 {
        commit_block(&backend, vec![put(Table::Users, round, round)]).await;
        commit_rows(&backend, vec![put(Table::Audit, round, round)]).await;
        if round == 5 {
            commit_block(&backend, vec![delete(table, 3)]).await;
        }
        backend = env.reload_backend(backend).await;
        let third = (round < 5).then_some((3, 1));
        let wanted: Vec<_> = [(1, 1), (2, 2)].into_iter().chain(third).collect();
        assert_eq!(marks_of(&backend, table).await, wanted);
    }
}

async fn neighbours_are_left_alone(env: &mut TestEnv, backend: OpenedBackend) {
    for table in TABLES {
        // Keys that differ in their last byte only where they are numbers or text.
        commit_rows(&backend, (10..30).map(|number| put(table, number, number)).collect()).await;
        commit_rows(&backend, vec![delete(table, 20), put(table, 25, 1), delete(table, 9)]).await;
    }
    // One key in two tables of the same shape.
    commit_rows(&backend, vec![put(Table::Users, 20, 2), put(Table::Routes, 20, 3)]).await;
    commit_rows(&backend, vec![delete(Table::Routes, 20)]).await;
    let backend = env.reload_backend(backend).await;
    for table in TABLES {
        let wanted: Vec<_> = (10..30)
            .filter(|&number| number != 20)
            .map(|number| (number, if number == 25 { 1 } else { number }))
            .collect();
        assert_eq!(marks_of(&backend, table).await, wanted, "{table:?}");
    }
    assert_eq!(marks_of(&backend, Table::Users).await, [(20, 2)]);
    assert_eq!(marks_of(&backend, Table::Routes).await, []);
}

async fn a_commit_may_have_thousands_of_rows(env: &mut TestEnv, backend: OpenedBackend) {
    let head = backend.head().await.unwrap();
    // In no order, half of them deleted again by the next commit.
    let numbers = || (0..3_000u32).map(|number| number * 1_201 % 3_000);
    let rows = numbers().map(|number| put(Table::Presence, number, number)).collect();
    let block = Some(block_after(&head, 1));
    commit_next(&backend, Commit { block, rows, ..Commit::default() }).await.unwrap();
    let rows = numbers().filter(|number| number % 2 == 1).map(|odd| delete(Table::Presence, odd));
    commit_rows(&backend, rows.collect()).await;
    let backend = env.reload_backend(backend).await;
    let found = rows_of(&backend, Table::Presence).await;
    assert_eq!(found.len(), 1_500);
    for (row, number) in found.iter().zip((0..3_000).step_by(2)) {
        assert_eq!(row.key, key(Table::Presence, number));
        assert_eq!(row.body, body(Table::Presence, number));
    }
}
