//! Reading blocks.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-blocks" => [
            blocks_come_in_order_and_no_more_than_asked_for,
            there_is_no_block_beyond_the_head,
            blocks_of_several_megabytes_come_back_byte_for_byte,
            a_block_is_there_as_soon_as_it_is_stored,
        ],
    }
}

const MIB: usize = 1024 * 1024;

async fn blocks_come_in_order_and_no_more_than_asked_for(
    env: &mut TestEnv,
    backend: OpenedBackend,
) {
    let stored = commit_blocks(&backend, 12).await;
    let backend = env.reload_backend(backend).await;
    for after in 0..12usize {
        for limit in [0, 1, 2, 5, 11, 12, 13, 1_000_000, usize::MAX] {
            let found = backend.blocks(Serial::new(after as u64), limit).await.unwrap();
            let wanted = &stored[after..stored.len().min(after.saturating_add(limit))];
            assert_eq!(found, wanted, "{limit} blocks after {after}");
        }
    }
    for block in backend.blocks(Serial::ZERO, 12).await.unwrap() {
        assert_eq!(EncodedBlock::parse(block.bytes.clone()).unwrap(), block);
    }
}

async fn there_is_no_block_beyond_the_head(env: &mut TestEnv, backend: OpenedBackend) {
    commit_blocks(&backend, 3).await;
    let backend = env.reload_backend(backend).await;
    for after in [3, 4, 1_000, u64::MAX].map(Serial::new) {
        for limit in [0, 1, usize::MAX] {
            assert_eq!(backend.blocks(after, limit).await.unwrap(), [], "after {after}");
        }
    }
}

async fn blocks_of_several_megabytes_come_back_byte_for_byte(
    env: &mut TestEnv,
    backend: OpenedBackend,
) {
    let mut stored = Vec::new();
    for (id, length) in [(1, 100), (2, 5 * MIB), (3, 1), (4, 3 * MIB + 17), (5, 70_000)] {
        let head = backend.head().await.unwrap();
        let block = block_of(&head, id, length);
        assert!(block.bytes.len() > length);
        let commit = Commit { block: Some(block.clone()), ..Commit::default() };
        commit_next(&backend, commit).await.unwrap();
        stored.push(block);
    }
    let backend = env.reload_backend(backend).await;
    let found = backend.blocks(Serial::ZERO, 9).await.unwrap();
    assert_eq!(found.len(), stored.len());
    for (found, stored) in found.iter().zip(&stored) {
        let fields = |block: &EncodedBlock| {
            (block.serial, block.id, block.time, block.previous, block.hash, block.bytes.len())
        };
        assert_eq!(fields(found), fields(stored));
        assert!(found.bytes == stored.bytes, "the bytes of {} are others", found.serial);
    }
}

async fn a_block_is_there_as_soon_as_it_is_stored(env: &mut TestEnv, backend: OpenedBackend) {
    for number in 0..20 {
        let block = commit_block(&backend, vec![]).await;
        assert_eq!(backend.blocks(Serial::new(number), 9).await.unwrap(), [block]);
    }
    let backend = env.reload_backend(backend).await;
    let block = commit_block(&backend, vec![]).await;
    assert_eq!(backend.blocks(Serial::new(20), 9).await.unwrap(), [block]);
}
