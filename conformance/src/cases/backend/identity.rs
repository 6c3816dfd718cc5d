//! Which database of which network, and which of its histories.

use super::fixtures::*;

cases! {
    stored_backend {
        "identity" => [network_side_and_history_are_kept],
    }
    stored_unopened {
        "identity" => [a_migrated_store_is_the_one_that_it_was],
    }
    once {
        "identity" => [a_store_tells_which_one_it_is],
    }
}

fn of(head: &Head) -> (StoreId, SideId, LineageId) {
    (head.store, head.side, head.lineage)
}

async fn network_side_and_history_are_kept(env: &mut TestEnv, mut backend: OpenedBackend) {
    let own = backend.head().await.unwrap();
    assert_eq!(own.store, env.opening().store);
    let histories = [None, Some(5), None, Some(6)];
    let mut lineage = own.lineage;
    for history in histories {
        let drawn = history.map(|byte| LineageId::from_bytes([byte; 16]));
        let head = HeadChange { lineage: drawn, ..HeadChange::default() };
        commit_next(&backend, Commit { head, ..Commit::default() }).await.unwrap();
        lineage = drawn.unwrap_or(lineage);
        let wanted = (own.store, own.side, lineage);
        commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
        backend = env.reload_backend(backend).await;
        assert_eq!(of(&backend.head().await.unwrap()), wanted);
        assert_eq!(of(&backend.reopen().await.unwrap()), wanted);
        backend.close().await.unwrap();
        drop(backend);
        // Whatever a new one would be called.
        let other = Opening::new(StoreId::from_bytes([8; 16]));
        backend = env.try_open_backend(other).await.unwrap();
        assert_eq!(of(&backend.head().await.unwrap()), wanted);
    }
}

/// Older schemas have no sides, histories and positions: a network's only database is its first one, and each
/// block was a commit.
async fn a_migrated_store_is_the_one_that_it_was(env: &mut TestEnv) {
    let opening = env.opening().schema(Schema::at(2).unwrap());
    let backend = env.try_open_backend(opening).await.unwrap();
    let last = commit_blocks(&backend, 4).await.pop().unwrap();
    let backend = env.reload_backend(backend).await;
    let before = backend.head().await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    let backend = env.reload_backend(backend).await;
    let head = backend.head().await.unwrap();
    assert_eq!(head, Head { schema: Schema::current().version(), ..before });
    let network = env.opening().store;
    assert_eq!(head.store, network);
    assert_eq!(head.side.as_bytes(), network.as_bytes());
    assert_eq!(head.lineage.as_bytes(), network.as_bytes());
    assert_eq!((head.position.get(), head.serial.get(), head.epoch), (4, 4, Epoch::ZERO));
    assert_eq!(head.commit.as_bytes(), last.id.as_bytes());
    assert_eq!((head.credential_key, head.filling), (None, false));
    // From here on everything is counted.
    let entry = Some(CommitId::from_bytes([9; 16]));
    commit_next(&backend, Commit { entry, ..Commit::default() }).await.unwrap();
    commit_block(&backend, Vec::new()).await;
    let backend = env.reload_backend(backend).await;
    let after = backend.head().await.unwrap();
    assert_eq!((after.position.get(), after.serial.get()), (6, 5));
    assert_eq!(of(&after), of(&head));
}

async fn a_store_tells_which_one_it_is(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    let info = store.info();
    store.close().await.unwrap();
    let backend = env.open_backend().await;
    let head = backend.head().await.unwrap();
    assert_eq!((info.store, info.side, info.lineage), of(&head));
    assert_eq!((info.epoch, info.position, info.serial), (head.epoch, head.position, head.serial));
}
