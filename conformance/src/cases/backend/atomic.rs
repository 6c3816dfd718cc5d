//! All of a commit, or nothing.

use ghostwire_store_core::secrets::KeyCheck;

use super::fixtures::*;

cases! {
    stored_unopened {
        "backend-atomic" => [
            everything_of_a_commit_is_stored,
            a_refused_commit_changes_nothing,
            what_failed_is_there_as_a_whole_or_not_at_all,
        ],
    }
}

/// A commit that changes all there is to change, on a store of three blocks.
fn full(head: &Head, id: u8) -> Commit {
    let mut rows: Vec<_> = Table::ALL.into_iter().map(|table| put(table, 1, 7)).collect();
    rows.push(delete(Table::Users, 2));
    Commit {
        block: Some(block_after(head, id)),
        rows,
        prune: vec![range(Table::Metrics, 3, Some(6)), range(Table::Audit, 5, None)],
        checkpoint: Some(Serial::new(2)),
        purge_before: Some(Serial::new(2)),
        head: HeadChange {
            epoch: Some(head.epoch.next()),
            lineage: Some(LineageId::from_bytes([id; 16])),
            credential_key: Some(KeyChange {
                before: head.credential_key,
                after: KeyCheck::from_bytes([id; 16]),
            }),
            filled: false,
            record: None,
        },
        ..Commit::on(head)
    }
}

async fn three_blocks(env: &TestEnv) -> Arc<dyn Backend> {
    let backend = env.open_backend().await;
    for round in 0..3 {
        let tables = [Table::Users, Table::Metrics, Table::Audit];
        let numbers = round * 3..round * 3 + 3;
        let rows = tables
            .into_iter()
            .flat_map(|table| numbers.clone().map(move |number| put(table, number, 1)));
        commit_block(&backend, rows.collect()).await;
    }
    backend
}

async fn everything_of_a_commit_is_stored(env: &mut TestEnv) {
    let backend = three_blocks(env).await;
    let before = Content::of(&backend).await;
    let commit = full(&before.head, 9);
    backend.commit(&commit).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let block = commit.block.unwrap();
    let wanted = Head {
        lineage: LineageId::from_bytes([9; 16]),
        epoch: before.head.epoch.next(),
        credential_key: Some(KeyCheck::from_bytes([9; 16])),
        position: Position::new(4),
        commit: CommitId::from_bytes(*block.id.as_bytes()),
        serial: Serial::new(4),
        block: block.id,
        hash: block.hash,
        time: block.time,
        checkpoint: Serial::new(2),
        oldest_block: Serial::new(2),
        ..before.head
    };
    let after = Content::of(&backend).await;
    assert_eq!(after.head, wanted);
    assert_eq!(after.blocks, [before.blocks[1].clone(), before.blocks[2].clone(), block]);
    let marks = |numbers: &[u32]| -> Vec<(u32, u32)> {
        numbers.iter().map(|&number| (number, if number == 1 { 7 } else { 1 })).collect()
    };
    for table in Table::ALL {
        let wanted = match table {
            Table::Users => marks(&[0, 1, 3, 4, 5, 6, 7, 8]),
            Table::Metrics => marks(&[0, 1, 2, 6, 7, 8]),
            Table::Audit => marks(&[0, 1, 2, 3, 4]),
            _ => marks(&[1]),
        };
        assert_eq!(marks_of(&backend, table).await, wanted, "{table:?}");
    }
}

async fn a_refused_commit_changes_nothing(env: &mut TestEnv) {
    let backend = three_blocks(env).await;
    let checkpoint = Some(Serial::new(1));
    commit_next(&backend, Commit { checkpoint, ..Commit::default() }).await.unwrap();
    let mut backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    let head = &before.head;
    let fork = Head { hash: BlockHash::GENESIS, ..*head };
    let refused = [
        ("a position too low", Commit { expected: Position::new(2), ..full(head, 9) }),
        ("a position too high", Commit { expected: Position::new(4), ..full(head, 9) }),
        ("an epoch too high", Commit { epoch: Epoch::new(1), ..full(head, 9) }),
        ("a fork", Commit { block: Some(block_after(&fork, 9)), ..full(head, 9) }),
        ("a checkpoint back", Commit { checkpoint: Some(Serial::ZERO), ..full(head, 9) }),
        ("a checkpoint ahead", Commit { checkpoint: Some(Serial::new(5)), ..full(head, 9) }),
        (
            "a checkpoint ahead, without a block",
            Commit { block: None, checkpoint: Some(Serial::new(4)), ..full(head, 9) },
        ),
    ];
    for (what, commit) in refused {
        let kind = match (commit.expected == head.position, commit.epoch == head.epoch) {
            (_, false) => Fenced { epoch: head.epoch.get() },
            (false, true) => Conflict,
            (true, true) => InvalidArgument,
        };
        fails(backend.commit(&commit).await, kind);
        assert_eq!(Content::of(&backend).await, before, "{what}");
        backend = env.reload_backend(backend).await;
        assert_eq!(Content::of(&backend).await, before, "{what}");
    }
    // None of them stands in the way of a good one.
    backend.commit(&full(&before.head, 9)).await.unwrap();
    assert_eq!(backend.head().await.unwrap().serial, Serial::new(4));
}

async fn what_failed_is_there_as_a_whole_or_not_at_all(env: &mut TestEnv) {
    let mut backend = three_blocks(env).await;
    for (id, fault, kind, is_stored) in [
        (10, FaultKind::Before, Unavailable, false),
        (11, FaultKind::DiskFull, Exhausted, false),
        (12, FaultKind::Lost, OutcomeUnknown, false),
        (13, FaultKind::After, OutcomeUnknown, true),
    ] {
        let before = Content::of(&backend).await;
        let commit = full(&before.head, id);
        env.faults().fail_next_commits(1, fault);
        fails(backend.commit(&commit).await, kind);
        assert_eq!(backend.reopen().await.unwrap(), backend.head().await.unwrap());
        backend = env.reload_backend(backend).await;
        let after = Content::of(&backend).await;
        if is_stored {
            assert_eq!(after.head, before.head.after(&commit).unwrap());
            assert_eq!(after.blocks.last(), commit.block.as_ref());
            let marks = marks_of(&backend, Table::Policies).await;
            assert_eq!(marks, [(1, 7)]);
        } else {
            assert_eq!(after, before);
        }
    }
}
