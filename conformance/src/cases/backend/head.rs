//! What `head` and `reopen` tell.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-head" => [
            a_new_store_stands_at_the_beginning,
            the_head_follows_every_commit,
            rows_alone_do_not_move_the_head,
            a_store_keeps_its_identity,
        ],
        "backend-verify" => [nothing_is_wrong_after_any_commit],
    }
    stored_unopened {
        "backend-head" => [the_schema_is_the_one_it_was_made_with],
    }
}

async fn a_new_store_stands_at_the_beginning(env: &mut TestEnv, backend: OpenedBackend) {
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap(), genesis());
    assert_eq!(backend.reopen().await.unwrap(), genesis());
    for table in Table::ALL {
        assert!(rows_of(&backend, table).await.is_empty(), "{table:?}");
    }
    assert_eq!(backend.blocks(Serial::ZERO, 9).await.unwrap(), []);
}

async fn the_head_follows_every_commit(env: &mut TestEnv, mut backend: OpenedBackend) {
    let mut wanted = genesis();
    for (number, (checkpoint, purge_before)) in
        [(None, None), (Some(1), None), (None, None), (Some(3), Some(3)), (Some(5), None)]
            .into_iter()
            .enumerate()
    {
        let number = u8::try_from(number).unwrap();
        let block = block_after(&wanted, number + 1);
        let commit = Commit {
            block: Some(block.clone()),
            rows: vec![put(Table::Users, number.into(), 1)],
            checkpoint: checkpoint.map(Serial::new),
            purge_before: purge_before.map(Serial::new),
            ..Commit::on(&wanted)
        };
        backend.commit(&commit).await.unwrap();
        wanted = Head {
            position: Position::new(u64::from(number) + 1),
            commit: CommitId::from_bytes(*block.id.as_bytes()),
            serial: Serial::new(u64::from(number) + 1),
            block: block.id,
            hash: block.hash,
            time: block.time,
            checkpoint: checkpoint.map_or(wanted.checkpoint, Serial::new),
            oldest_block: purge_before.map_or(wanted.oldest_block, Serial::new),
            ..wanted
        };
        assert_eq!(backend.head().await.unwrap(), wanted);
        assert_eq!(backend.reopen().await.unwrap(), wanted);
        backend = env.reload_backend(backend).await;
        assert_eq!(backend.head().await.unwrap(), wanted);
        assert_eq!(backend.reopen().await.unwrap(), wanted);
    }
}

async fn rows_alone_do_not_move_the_head(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![]).await;
    let head = backend.head().await.unwrap();
    commit_rows(&backend, vec![put(Table::Nodes, 1, 1), put(Table::Metrics, 1, 1)]).await;
    backend.commit(&Commit::on(&head)).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), head);
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap(), head);
    assert_eq!(marks_of(&backend, Table::Nodes).await, [(1, 1)]);
    assert_eq!(marks_of(&backend, Table::Metrics).await, [(1, 1)]);
}

async fn a_store_keeps_its_identity(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![]).await;
    let backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    backend.close().await.unwrap();
    let other = Opening::new(StoreId::from_bytes([8; 16]));
    let backend = env.try_open_backend(other).await.unwrap();
    assert_eq!(before.head.store, StoreId::from_bytes([7; 16]));
    assert_eq!(Content::of(&backend).await, before);
}

async fn the_schema_is_the_one_it_was_made_with(env: &mut TestEnv) {
    let first = Schema::at(1).unwrap();
    let backend = env.try_open_backend(env.opening().schema(first)).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), Head { schema: first.version(), ..genesis() });
    // A store that exists is opened as it is, whatever a new one would get.
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap().schema, first.version());
    assert_eq!(backend.reopen().await.unwrap().schema, first.version());
}

async fn nothing_is_wrong_after_any_commit(env: &mut TestEnv, mut backend: OpenedBackend) {
    backend.verify().await.unwrap();
    let tables = [Table::Users, Table::Metrics, Table::Audit];
    for round in 0..6 {
        let head = backend.head().await.unwrap();
        let rows = tables.iter().flat_map(|&table| {
            let numbers = round * 5..round * 5 + 10;
            numbers.map(move |number| put(table, number, round)).chain([delete(table, round)])
        });
        let commit = Commit {
            block: Some(block_after(&head, 9)),
            rows: rows.collect(),
            prune: vec![range(Table::Metrics, 0, Some(round * 3))],
            checkpoint: (round % 2 == 1).then(|| head.serial.next()),
            purge_before: (round > 2).then_some(head.serial),
            ..Commit::on(&head)
        };
        backend.commit(&commit).await.unwrap();
        backend.verify().await.unwrap();
        backend.reopen().await.unwrap();
        backend.verify().await.unwrap();
        backend = env.reload_backend(backend).await;
    }
    // All blocks gone, and a block with the largest time that there is.
    let purge_before = Some(Serial::new(7));
    commit_next(&backend, Commit { purge_before, ..Commit::default() }).await.unwrap();
    let head = backend.head().await.unwrap();
    let builder = BlockBuilder::default();
    let id = BlockId::from_bytes([0xff; 16]);
    let last = builder.finish(head.serial.next(), id, head.hash, Timestamp::MAX).unwrap().block;
    backend.commit(&Commit { block: Some(last.clone()), ..Commit::on(&head) }).await.unwrap();
    let backend = env.reload_backend(backend).await;
    backend.verify().await.unwrap();
    let head = backend.head().await.unwrap();
    assert_eq!((head.time, head.block, head.oldest_block), (Timestamp::MAX, id, head.serial));
    assert_eq!(backend.blocks(Serial::new(6), 9).await.unwrap(), [last]);
}
