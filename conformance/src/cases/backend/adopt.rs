//! A store that becomes a copy of another one.

use ghostwire_store_core::secrets::KeyCheck;
use ghostwire_store_memory::MemoryBackend;

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-adopt" => [
            everything_but_side_and_schema_is_taken_over,
            blocks_and_rows_follow_until_the_copy_is_complete,
        ],
    }
    stored_unopened {
        "backend-adopt" => [
            only_an_empty_store_becomes_a_copy,
            a_copy_is_opened_once_it_is_complete,
        ],
    }
}

const FILLED: HeadChange =
    HeadChange { epoch: None, lineage: None, credential_key: None, filled: true, record: None };

/// Where a store of a long history stands.
fn elsewhere() -> Head {
    Head {
        store: StoreId::from_bytes([1; 16]),
        side: SideId::from_bytes([2; 16]),
        lineage: LineageId::from_bytes([3; 16]),
        epoch: Epoch::new(4),
        position: Position::new(5_000),
        commit: CommitId::from_bytes([5; 16]),
        serial: Serial::new(600),
        block: BlockId::from_bytes([6; 16]),
        hash: BlockHash::from_bytes([7; 32]),
        time: at(1_700_000_000_123_457),
        checkpoint: Serial::new(590),
        oldest_block: Serial::new(580),
        schema: Schema::at(1).unwrap().version(),
        credential_key: Some(KeyCheck::from_bytes([8; 16])),
        filling: false,
        role: None,
        membership: None,
    }
}

async fn everything_but_side_and_schema_is_taken_over(env: &mut TestEnv, backend: OpenedBackend) {
    let (own, other) = (backend.head().await.unwrap(), elsewhere());
    backend.adopt(&other).await.unwrap();
    let wanted = Head {
        side: own.side,
        schema: own.schema,
        checkpoint: Serial::new(600),
        oldest_block: Serial::new(601),
        filling: true,
        ..other
    };
    assert_eq!(backend.head().await.unwrap(), wanted);
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap(), wanted);
    assert_eq!(backend.reopen().await.unwrap(), wanted);
    assert_eq!(backend.blocks(Serial::new(600), 9).await.unwrap(), []);
    for before in [0, 1, 599] {
        fails(backend.blocks(Serial::new(before), 9).await, Compacted { oldest: 601 });
    }
    for table in Table::ALL {
        let page = backend.scan(everything(table)).await.unwrap();
        let wanted = ScanPage { rows: Vec::new(), position: other.position, serial: other.serial };
        assert_eq!(page, wanted, "{table:?}");
    }
    // That it is filling is no lock that only this process has.
    fails(backend.adopt(&other).await, Restricted);
    assert_eq!(backend.head().await.unwrap(), wanted);
}

async fn blocks_and_rows_follow_until_the_copy_is_complete(
    env: &mut TestEnv,
    backend: OpenedBackend,
) {
    backend.adopt(&elsewhere()).await.unwrap();
    let mut backend = env.reload_backend(backend).await;
    let adopted = backend.head().await.unwrap();
    let stale = Commit { expected: Position::ZERO, ..Commit::on(&adopted) };
    fails(backend.commit(&stale).await, Conflict);
    fails(backend.commit(&Commit { epoch: Epoch::ZERO, ..stale }).await, Fenced { epoch: 4 });
    let strange = Some(block_after(&genesis(), 1));
    let strange = Commit { block: strange, ..Commit::on(&adopted) };
    fails(backend.commit(&strange).await, InvalidArgument);
    assert_eq!(backend.head().await.unwrap(), adopted);
    let mut blocks = Vec::new();
    for round in 0..3 {
        blocks.push(commit_block(&backend, Vec::new()).await);
        // Rows are copied beside blocks, and count for nothing.
        commit_rows(&backend, vec![put(Table::Nodes, round, 1), put(Table::Audit, round, 1)]).await;
        backend = env.reload_backend(backend).await;
        let head = backend.head().await.unwrap();
        assert!(head.filling);
        let done = u64::from(round) + 1;
        assert_eq!((head.position.get(), head.serial.get()), (5_000 + done, 600 + done));
        assert_eq!((head.checkpoint.get(), head.oldest_block.get()), (600, 601));
    }
    assert_eq!(backend.blocks(Serial::new(600), 9).await.unwrap(), blocks);
    let checkpoint = Some(Serial::new(603));
    commit_next(&backend, Commit { checkpoint, head: FILLED, ..Commit::default() }).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let wanted = Head {
        position: Position::new(5_003),
        commit: CommitId::from_bytes(*blocks[2].id.as_bytes()),
        serial: Serial::new(603),
        block: blocks[2].id,
        hash: blocks[2].hash,
        time: blocks[2].time,
        checkpoint: Serial::new(603),
        filling: false,
        ..adopted
    };
    assert_eq!(backend.head().await.unwrap(), wanted);
    assert_eq!(marks_of(&backend, Table::Nodes).await, [(0, 1), (1, 1), (2, 1)]);
    fails(backend.adopt(&elsewhere()).await, Restricted);
    // Completing it again does nothing.
    commit_next(&backend, Commit { head: FILLED, ..Commit::default() }).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), wanted);
}

async fn only_an_empty_store_becomes_a_copy(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let entry = Some(CommitId::from_bytes([1; 16]));
    commit_next(&backend, Commit { entry, ..Commit::default() }).await.unwrap();
    let mut backend = env.reload_backend(backend).await;
    for rows in [vec![put(Table::Metrics, 1, 1)], vec![put(Table::Users, 1, 1)]] {
        commit_block(&backend, rows).await;
        let before = Content::of(&backend).await;
        fails(backend.adopt(&elsewhere()).await, Restricted);
        fails(backend.adopt(&before.head).await, Restricted);
        backend = env.reload_backend(backend).await;
        assert_eq!(Content::of(&backend).await, before);
    }
}

/// As a migration does it: the head before the oldest block that is kept, the blocks from there on, and all
/// rows, which are newer than that head.
async fn a_copy_is_opened_once_it_is_complete(env: &mut TestEnv) {
    let source: OpenedBackend = Arc::new(MemoryBackend::new(StoreId::from_bytes([9; 16])));
    let writer = WriterOptions {
        retain_block_bytes: 2_000,
        idle_before_flush: HOUR,
        ..WriterOptions::default()
    };
    let options = StoreOptions { writer, materialize: Materialize::Checkpoint, ..env.options() };
    let original = ghostwire_store_core::open(source.clone(), options).await.unwrap();
    populate(env, &original).await;
    for round in 0..3 {
        original.checkpoint().await.unwrap();
        for number in 0..4 {
            create(&original, &format!("user-{round}-{number}")).await;
        }
    }
    let wanted = (original.digests().await.unwrap(), original.view().log_position());
    let last = source.head().await.unwrap();
    let before = Serial::new(last.oldest_block.get() - 1);
    let kept = source.blocks(before, usize::MAX).await.unwrap();
    assert!(before > Serial::ZERO && kept.len() > 3, "{last:?}");
    let first = Head {
        position: Position::new(last.position.get() - kept.len() as u64),
        commit: CommitId::from_bytes([0; 16]),
        serial: before,
        block: BlockId::from_bytes([0; 16]),
        hash: kept[0].previous,
        time: kept[0].time,
        ..last
    };
    let backend = env.open_backend().await;
    let side = backend.head().await.unwrap().side;
    backend.adopt(&first).await.unwrap();
    let (some, rest) = kept.split_at(2);
    for block in some {
        let block = Some(block.clone());
        commit_next(&backend, Commit { block, ..Commit::default() }).await.unwrap();
    }
    for table in Table::ALL {
        let copy = |Row { key, body }| image(table, key, body);
        let rows = rows_of(&source, table).await.into_iter().map(copy).collect();
        commit_rows(&backend, rows).await;
    }
    let backend = env.reload_backend(backend).await;
    backend.close().await.unwrap();
    drop(backend);
    for read_only in [true, false] {
        let options = StoreOptions { read_only, ..env.options() };
        let refused = ghostwire_store_core::open(env.open_backend().await, options).await;
        fails(refused, Unavailable);
    }
    let backend = env.open_backend().await;
    for block in rest {
        let block = Some(block.clone());
        commit_next(&backend, Commit { block, ..Commit::default() }).await.unwrap();
    }
    commit_next(&backend, Commit { head: FILLED, ..Commit::default() }).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let head = backend.head().await.unwrap();
    assert_eq!((head.store, head.side, head.position), (last.store, side, last.position));
    backend.close().await.unwrap();
    drop(backend);
    let store = env.open().await;
    let store = env.reload(store).await;
    assert_eq!((store.digests().await.unwrap(), store.view().log_position()), wanted);
    create(&store, "afterwards").await;
    let store = env.reload(store).await;
    assert_eq!(store.info().side, side);
    assert_eq!(store.view().users().len(), original.view().users().len() + 1);
}
