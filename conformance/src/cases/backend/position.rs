//! Which commits are counted, and on what a commit may build.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-position" => [
            what_changes_content_is_counted,
            a_commit_on_another_position_is_a_conflict_and_changes_nothing,
        ],
    }
}

fn id(number: u8) -> CommitId {
    CommitId::from_bytes([number; 16])
}

fn entry(head: &Head, number: u8) -> Commit {
    Commit { entry: Some(id(number)), ..Commit::on(head) }
}

async fn what_changes_content_is_counted(env: &mut TestEnv, mut backend: OpenedBackend) {
    type Make = fn(&Head, u8) -> Commit;
    // A commit, and whether it counts.
    let commits: [(&str, bool, Make); 12] = [
        ("nothing", false, |head, _| Commit::on(head)),
        ("a block", true, |head, n| Commit {
            block: Some(block_after(head, n)),
            ..Commit::on(head)
        }),
        ("rows of a series", true, |head, n| Commit {
            rows: vec![put(Table::Metrics, n.into(), 1)],
            ..entry(head, n)
        }),
        ("a block with rows of a series", true, |head, n| Commit {
            block: Some(block_after(head, n)),
            rows: vec![put(Table::Metrics, n.into(), 1), put(Table::Audit, n.into(), 1)],
            ..Commit::on(head)
        }),
        ("rows that are flushed", false, |head, _| Commit {
            rows: vec![put(Table::Users, 1, 1)],
            checkpoint: Some(head.serial),
            ..Commit::on(head)
        }),
        ("blocks that are purged", false, |head, _| Commit {
            purge_before: Some(head.serial),
            ..Commit::on(head)
        }),
        ("a registration", true, |head, n| Commit {
            rows: vec![put(Table::Consumers, 1, n.into())],
            ..entry(head, n)
        }),
        ("a consumer that moves", false, |head, n| Commit {
            rows: vec![put(Table::Consumers, 1, n.into())],
            prune: vec![KeyRange::all(Table::Feed)],
            ..Commit::on(head)
        }),
        ("a series that is pruned", true, |head, n| Commit {
            prune: vec![KeyRange::all(Table::Metrics)],
            ..entry(head, n)
        }),
        ("a change of the head", false, |head, n| Commit {
            head: HeadChange {
                epoch: Some(head.epoch.next()),
                lineage: Some(LineageId::from_bytes([n; 16])),
                ..HeadChange::default()
            },
            ..Commit::on(head)
        }),
        ("an entry of nothing", true, entry),
        ("another block", true, |head, n| Commit {
            block: Some(block_after(head, n)),
            ..Commit::on(head)
        }),
    ];
    let mut wanted = genesis();
    for (number, (what, counts, make)) in (1..).zip(commits) {
        let commit = make(&wanted, number);
        backend.commit(&commit).await.unwrap();
        wanted = wanted.after(&commit).unwrap();
        let before = (wanted.position, wanted.commit);
        if counts {
            assert_eq!(wanted.commit, id(number), "{what}");
        }
        for told in [backend.head().await.unwrap(), backend.reopen().await.unwrap()] {
            assert_eq!((told.position, told.commit), before, "{what}");
            assert_eq!(told, wanted, "{what}");
        }
        backend = env.reload_backend(backend).await;
        for told in [backend.head().await.unwrap(), backend.reopen().await.unwrap()] {
            assert_eq!(told, wanted, "after a reload: {what}");
        }
    }
    assert_eq!((wanted.position.get(), wanted.serial.get()), (7, 3));
}

async fn a_commit_on_another_position_is_a_conflict_and_changes_nothing(
    env: &mut TestEnv,
    backend: OpenedBackend,
) {
    let first = commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
    commit_block(&backend, vec![put(Table::Users, 2, 2)]).await;
    // The last block is at position 2, and its serial is still the head's.
    let head = backend.head().await.unwrap();
    let rows = vec![put(Table::Metrics, 1, 1)];
    backend.commit(&Commit { rows, ..entry(&head, 9) }).await.unwrap();
    let mut backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    let fitting = block_after(&before.head, 9);
    let rows = || vec![put(Table::Users, 1, 9), delete(Table::Users, 2), put(Table::Audit, 3, 9)];
    let raised = HeadChange { epoch: Some(Epoch::new(7)), ..HeadChange::default() };
    let changes = [
        Commit { block: Some(fitting.clone()), rows: rows(), ..Commit::default() },
        Commit { block: Some(first), rows: rows(), ..Commit::default() },
        Commit { entry: Some(id(8)), rows: rows(), ..Commit::default() },
        Commit {
            entry: Some(id(8)),
            prune: vec![KeyRange::all(Table::Metrics)],
            ..Commit::default()
        },
        Commit { checkpoint: Some(Serial::new(1)), ..Commit::default() },
        Commit { purge_before: Some(Serial::new(1)), ..Commit::default() },
        Commit { head: raised, ..Commit::default() },
        Commit::default(),
    ];
    for _ in 0..2 {
        for expected in [0, 1, 2, 4, u64::MAX].map(Position::new) {
            for change in &changes {
                let commit = Commit { expected, ..change.clone() };
                fails(backend.commit(&commit).await, Conflict);
            }
        }
        assert_eq!(Content::of(&backend).await, before);
        backend = env.reload_backend(backend).await;
        assert_eq!(Content::of(&backend).await, before);
    }
    // None of them stands in the way of a good one.
    backend
        .commit(&Commit { block: Some(fitting), rows: rows(), ..Commit::on(&before.head) })
        .await
        .unwrap();
    assert_eq!(marks_of(&backend, Table::Users).await, [(1, 9)]);
}
