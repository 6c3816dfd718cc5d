//! Blocks follow one another.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-serial" => [
            a_block_that_does_not_follow_is_invalid,
            a_block_is_stored_once,
            of_16_commits_at_once_one_wins,
        ],
    }
}

async fn a_block_that_does_not_follow_is_invalid(env: &mut TestEnv, backend: OpenedBackend) {
    // Also before the first block.
    let mut strange = genesis();
    strange.hash = BlockHash::from_bytes([1; 32]);
    let block = Some(block_after(&strange, 1));
    let commit = Commit { block, ..Commit::default() };
    fails(backend.commit(&commit).await, InvalidArgument);
    commit_block(&backend, vec![]).await;
    let second = commit_block(&backend, vec![]).await;
    let backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    let mut wrong_previous = before.head;
    wrong_previous.hash = second.previous;
    let mut gap = before.head;
    gap.serial = Serial::new(3);
    let mut backwards = before.head;
    backwards.serial = Serial::ZERO;
    for block in [
        // With another predecessor, behind a gap, earlier than the last one.
        block_after(&wrong_previous, 9),
        block_after(&gap, 9),
        block_after(&backwards, 9),
        second,
    ] {
        let commit = Commit {
            block: Some(block),
            rows: vec![put(Table::Users, 1, 9)],
            ..Commit::on(&before.head)
        };
        fails(backend.commit(&commit).await, InvalidArgument);
    }
    let backend = env.reload_backend(backend).await;
    assert_eq!(Content::of(&backend).await, before);
}

async fn a_block_is_stored_once(env: &mut TestEnv, backend: OpenedBackend) {
    let block = Some(block_after(&genesis(), 1));
    let commit = Commit { block, rows: vec![put(Table::Routes, 1, 1)], ..Commit::default() };
    backend.commit(&commit).await.unwrap();
    fails(backend.commit(&commit).await, Conflict);
    let backend = env.reload_backend(backend).await;
    fails(backend.commit(&commit).await, Conflict);
    assert_eq!(Content::of(&backend).await.blocks, commit.block.as_slice());
}

async fn of_16_commits_at_once_one_wins(env: &mut TestEnv, backend: OpenedBackend) {
    let mut winners = Vec::new();
    for round in 0..4 {
        let head = backend.head().await.unwrap();
        let hold = env.faults().hold_commits();
        let commits: Vec<_> = (0..16u8)
            .map(|number| {
                let backend: Arc<dyn Backend> = backend.clone();
                let block = Some(block_after(&head, number + 1));
                // Each has a row of its own, and one that all of them write.
                let mark = u32::from(number);
                let rows = vec![put(Table::Nodes, round, mark), put(Table::Audit, mark, round)];
                let commit = Commit { block, rows, ..Commit::on(&head) };
                tokio::spawn(async move { backend.commit(&commit).await })
            })
            .collect();
        while env.faults().held_commits() < 16 {
            tokio::task::yield_now().await;
        }
        drop(hold);
        let mut stored = Vec::new();
        for (number, commit) in (0..16u8).zip(commits) {
            match commit.await.unwrap() {
                Ok(()) => stored.push(number),
                Err(error) => assert_eq!(*error.kind(), Conflict, "{error}"),
            }
        }
        let [winner] = stored[..] else { panic!("these were stored: {stored:?}") };
        let after = backend.head().await.unwrap();
        assert_eq!(after.serial, head.serial.next());
        assert_eq!(after.block.as_bytes(), &[winner + 1; 16]);
        winners.push((winner, round));
    }
    let backend = env.reload_backend(backend).await;
    let nodes: Vec<_> = winners.iter().map(|&(winner, round)| (round, winner.into())).collect();
    assert_eq!(marks_of(&backend, Table::Nodes).await, nodes);
    // Of two rounds that the same one won, the later image counts.
    let audit: BTreeMap<u32, u32> =
        winners.iter().map(|&(winner, round)| (winner.into(), round)).collect();
    assert_eq!(marks_of(&backend, Table::Audit).await, Vec::from_iter(audit));
    let ids = Content::of(&backend).await.blocks.into_iter().map(|block| block.id.as_bytes()[0]);
    assert_eq!(Vec::from_iter(ids), Vec::from_iter(winners.iter().map(|(winner, _)| winner + 1)));
}
