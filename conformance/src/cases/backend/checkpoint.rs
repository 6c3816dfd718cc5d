//! The checkpoint, and the blocks before it.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-checkpoint" => [a_checkpoint_moves_forward],
        "backend-purge" => [
            purged_blocks_are_gone,
            no_block_beyond_the_checkpoint_is_purged,
            what_was_purged_stays_so,
            all_blocks_may_be_purged,
            a_commit_may_purge_its_own_block,
        ],
    }
    stored_unopened {
        "backend-checkpoint" => [a_checkpoint_moves_neither_back_nor_beyond_the_last_block],
    }
}

fn checkpoint(serial: u64) -> Commit {
    Commit { checkpoint: Some(Serial::new(serial)), ..Commit::default() }
}

fn purge(serial: u64) -> Commit {
    Commit { purge_before: Some(Serial::new(serial)), ..Commit::default() }
}

async fn a_checkpoint_moves_forward(env: &mut TestEnv, mut backend: OpenedBackend) {
    commit_blocks(&backend, 5).await;
    for serial in [1, 2, 4, 5] {
        commit_next(&backend, checkpoint(serial)).await.unwrap();
        backend = env.reload_backend(backend).await;
        assert_eq!(backend.head().await.unwrap().checkpoint.get(), serial);
    }
    // Also to the block that comes with it.
    let head = backend.head().await.unwrap();
    let block = Some(block_after(&head, 9));
    commit_next(&backend, Commit { block, ..checkpoint(6) }).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let head = backend.head().await.unwrap();
    assert_eq!((head.serial.get(), head.checkpoint.get(), head.oldest_block.get()), (6, 6, 1));
}

async fn a_checkpoint_moves_neither_back_nor_beyond_the_last_block(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    fails(commit_next(&backend, checkpoint(1)).await, InvalidArgument);
    commit_blocks(&backend, 4).await;
    commit_next(&backend, checkpoint(2)).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    for serial in [0, 1, 5, 6, u64::MAX] {
        fails(commit_next(&backend, checkpoint(serial)).await, InvalidArgument);
    }
    let block = Some(block_after(&before.head, 9));
    for serial in [1, 6] {
        let commit = Commit { block: block.clone(), ..checkpoint(serial) };
        fails(commit_next(&backend, commit).await, InvalidArgument);
    }
    let backend = env.reload_backend(backend).await;
    assert_eq!(Content::of(&backend).await, before);
}

async fn purged_blocks_are_gone(env: &mut TestEnv, backend: OpenedBackend) {
    let stored = commit_blocks(&backend, 6).await;
    let serial = Some(Serial::new(6));
    commit_next(&backend, Commit { checkpoint: serial, ..purge(4) }).await.unwrap();
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap().oldest_block.get(), 4);
    for after in 0..3 {
        for limit in [1, 9] {
            fails(backend.blocks(Serial::new(after), limit).await, Compacted { oldest: 4 });
        }
    }
    for after in 3..7 {
        let found = backend.blocks(Serial::new(after), 9).await.unwrap();
        assert_eq!(found, stored[usize::try_from(after).unwrap()..]);
    }
}

async fn no_block_beyond_the_checkpoint_is_purged(env: &mut TestEnv, mut backend: OpenedBackend) {
    let stored = commit_blocks(&backend, 5).await;
    // Nothing is flushed yet, so nothing goes.
    commit_next(&backend, purge(4)).await.unwrap();
    assert_eq!(backend.head().await.unwrap().oldest_block.get(), 1);
    for (flushed, oldest) in [(1, 2), (3, 4)] {
        let commit = Commit { checkpoint: Some(Serial::new(flushed)), ..purge(100) };
        commit_next(&backend, commit).await.unwrap();
        backend = env.reload_backend(backend).await;
        let found = Content::of(&backend).await;
        assert_eq!(found.head.oldest_block.get(), oldest);
        assert_eq!(found.blocks, stored[usize::try_from(oldest).unwrap() - 1..]);
    }
}

async fn what_was_purged_stays_so(env: &mut TestEnv, backend: OpenedBackend) {
    commit_blocks(&backend, 5).await;
    commit_next(&backend, Commit { purge_before: Some(Serial::new(4)), ..checkpoint(5) })
        .await
        .unwrap();
    for serial in [0, 1, 3, 4] {
        commit_next(&backend, purge(serial)).await.unwrap();
    }
    commit_block(&backend, vec![]).await;
    backend.reopen().await.unwrap();
    let backend = env.reload_backend(backend).await;
    let found = Content::of(&backend).await;
    assert_eq!(found.head.oldest_block.get(), 4);
    let serials: Vec<_> = found.blocks.iter().map(|block| block.serial.get()).collect();
    assert_eq!(serials, [4, 5, 6]);
    fails(backend.blocks(Serial::new(2), 9).await, Compacted { oldest: 4 });
}

async fn all_blocks_may_be_purged(env: &mut TestEnv, backend: OpenedBackend) {
    commit_blocks(&backend, 3).await;
    commit_next(&backend, Commit { purge_before: Some(Serial::new(4)), ..checkpoint(3) })
        .await
        .unwrap();
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.head().await.unwrap().oldest_block.get(), 4);
    assert_eq!(backend.blocks(Serial::new(3), 9).await.unwrap(), []);
    fails(backend.blocks(Serial::new(2), 9).await, Compacted { oldest: 4 });
    // The next one follows all the same.
    let block = commit_block(&backend, vec![]).await;
    let backend = env.reload_backend(backend).await;
    assert_eq!(backend.blocks(Serial::new(3), 9).await.unwrap(), [block]);
    assert_eq!(backend.head().await.unwrap().oldest_block.get(), 4);
}

async fn a_commit_may_purge_its_own_block(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![]).await;
    let head = backend.head().await.unwrap();
    let block = block_after(&head, 9);
    let commit =
        Commit { block: Some(block.clone()), purge_before: Some(Serial::new(3)), ..checkpoint(2) };
    commit_next(&backend, commit).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let found = Content::of(&backend).await;
    assert_eq!((found.head.hash, found.head.oldest_block.get()), (block.hash, 3));
    assert_eq!(found.blocks, []);
    fails(backend.blocks(Serial::new(1), 9).await, Compacted { oldest: 3 });
}
