//! Proving that a commit would be stored.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-probe" => [
            a_probe_changes_nothing,
            a_probe_in_another_epoch_is_fenced,
            a_closed_backend_is_not_probed,
        ],
    }
}

async fn a_probe_changes_nothing(env: &mut TestEnv, mut backend: OpenedBackend) {
    let epoch = genesis().epoch;
    // An empty store, too.
    backend.probe(epoch).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), genesis());
    commit_block(&backend, vec![put(Table::Users, 1, 1), put(Table::Metrics, 1, 1)]).await;
    let before = Content::of(&backend).await;
    for _ in 0..3 {
        backend.probe(epoch).await.unwrap();
        assert_eq!(Content::of(&backend).await, before);
        backend = env.reload_backend(backend).await;
        assert_eq!(Content::of(&backend).await, before);
        backend.verify().await.unwrap();
    }
    // The next commit builds on what was there before.
    commit_block(&backend, vec![put(Table::Users, 2, 2)]).await;
    backend.probe(epoch).await.unwrap();
    let backend = env.reload_backend(backend).await;
    assert_eq!(marks_of(&backend, Table::Users).await, [(1, 1), (2, 2)]);
}

async fn a_probe_in_another_epoch_is_fenced(env: &mut TestEnv, backend: OpenedBackend) {
    let raised = HeadChange { epoch: Some(Epoch::new(5)), ..HeadChange::default() };
    commit_next(&backend, Commit { head: raised, ..Commit::default() }).await.unwrap();
    let backend = env.reload_backend(backend).await;
    for epoch in [0, 4, 6, u64::MAX].map(Epoch::new) {
        fails(backend.probe(epoch).await, Fenced { epoch: 5 });
    }
    backend.probe(Epoch::new(5)).await.unwrap();
}

async fn a_closed_backend_is_not_probed(env: &mut TestEnv, backend: OpenedBackend) {
    let backend = env.reload_backend(backend).await;
    backend.close().await.unwrap();
    fails(backend.probe(genesis().epoch).await, Unavailable);
}
