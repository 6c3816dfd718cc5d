//! A backend that was closed.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-close" => [
            a_closed_backend_is_unavailable,
            the_place_can_be_opened_again_at_once,
        ],
    }
    once_backend {
        "backend-close" => [an_announced_close_is_waited_for],
    }
    once_unopened {
        "backend-close" => [nobody_who_reads_keeps_the_place],
    }
}

async fn refuses_everything(backend: &OpenedBackend) {
    let commit = Commit { rows: vec![put(Table::Users, 9, 9)], ..Commit::default() };
    fails(backend.head().await, Unavailable);
    fails(backend.scan(everything(Table::Users)).await, Unavailable);
    fails(backend.blocks(Serial::ZERO, 9).await, Unavailable);
    fails(backend.commit(&commit).await, Unavailable);
    fails(backend.adopt(&genesis()).await, Unavailable);
    fails(backend.migrate(Schema::current()).await, Unavailable);
    fails(backend.reopen().await, Unavailable);
    fails(backend.verify().await, Unavailable);
    fails(backend.head().await, Unavailable);
}

async fn a_closed_backend_is_unavailable(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
    let backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    backend.close().await.unwrap();
    refuses_everything(&backend).await;
    drop(backend);
    let backend = env.open_backend().await;
    assert_eq!(Content::of(&backend).await, before);
}

async fn the_place_can_be_opened_again_at_once(env: &mut TestEnv, mut backend: OpenedBackend) {
    for round in 1..5 {
        commit_block(&backend, vec![put(Table::Users, round, round)]).await;
        backend = env.reload_backend(backend).await;
        let before = Content::of(&backend).await;
        backend.close().await.unwrap();
        // The old handle is still there, and stays closed.
        let next = env.open_backend().await;
        refuses_everything(&backend).await;
        assert_eq!(Content::of(&next).await, before);
        assert_eq!(next.head().await.unwrap().serial.get(), u64::from(round));
        backend = next;
    }
}

/// Whoever reads, or asks what the backend is, has a part in it for a moment.
async fn nobody_who_reads_keeps_the_place(env: &mut TestEnv) {
    for round in 1..50u32 {
        let backend = env.open_backend().await;
        commit_block(&backend, vec![put(Table::Users, round, round)]).await;
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (backend, done) = (backend.clone(), done.clone());
                tokio::spawn(async move {
                    while !done.load(Ordering::Acquire) {
                        let _ = backend.head().await;
                        let _ = backend.scan(everything(Table::Users)).await;
                        let _ = backend.blocks(Serial::ZERO, 9).await;
                        if reader == 0 {
                            backend.info();
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        backend.close().await.unwrap();
        let next = env.open_backend().await;
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(next.head().await.unwrap().serial.get(), u64::from(round));
        next.close().await.unwrap();
    }
}

async fn an_announced_close_is_waited_for(env: &mut TestEnv, backend: OpenedBackend) {
    commit_block(&backend, vec![put(Table::Users, 1, 1)]).await;
    backend.announce_close();
    // It goes on as it was.
    commit_block(&backend, vec![put(Table::Users, 2, 2)]).await;
    let closing = tokio::spawn(async move {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        backend.close().await
    });
    let next = env.open_backend().await;
    closing.await.unwrap().unwrap();
    assert_eq!(next.head().await.unwrap().serial.get(), 2);
}
