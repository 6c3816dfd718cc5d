//! Who may write: epochs.

use super::fixtures::*;

cases! {
    stored_backend {
        "backend-epoch" => [
            an_epoch_is_followed_by_a_later_one,
            a_commit_of_another_epoch_is_fenced_and_changes_nothing,
        ],
    }
    stored_unopened {
        "backend-epoch" => [a_store_that_was_overtaken_reads_and_writes_nothing],
    }
}

fn raised(epoch: u64) -> HeadChange {
    HeadChange { epoch: Some(Epoch::new(epoch)), ..HeadChange::default() }
}

async fn an_epoch_is_followed_by_a_later_one(env: &mut TestEnv, mut backend: OpenedBackend) {
    let mut wanted = genesis();
    for (epoch, block) in [(1, false), (2, true), (9, false), (u64::MAX, true)] {
        let block = block.then(|| block_after(&wanted, 1));
        let commit = Commit { block, head: raised(epoch), ..Commit::on(&wanted) };
        backend.commit(&commit).await.unwrap();
        wanted = wanted.after(&commit).unwrap();
        assert_eq!(wanted.epoch, Epoch::new(epoch));
        assert_eq!(backend.head().await.unwrap(), wanted);
        backend = env.reload_backend(backend).await;
        assert_eq!(backend.head().await.unwrap(), wanted);
        let before = Content::of(&backend).await;
        for earlier in [0, 1, epoch] {
            let block = Some(block_after(&wanted, 9));
            let commit = Commit { block, head: raised(earlier), ..Commit::on(&wanted) };
            fails(backend.commit(&commit).await, InvalidArgument);
        }
        assert_eq!(Content::of(&backend).await, before);
    }
    assert_eq!((wanted.position.get(), wanted.serial.get()), (2, 2));
}

async fn a_commit_of_another_epoch_is_fenced_and_changes_nothing(
    env: &mut TestEnv,
    backend: OpenedBackend,
) {
    commit_block(&backend, vec![put(Table::Users, 1, 1), put(Table::Metrics, 1, 1)]).await;
    commit_next(&backend, Commit { head: raised(5), ..Commit::default() }).await.unwrap();
    let mut backend = env.reload_backend(backend).await;
    let before = Content::of(&backend).await;
    let rows = || vec![put(Table::Users, 1, 9), put(Table::Metrics, 2, 9)];
    let block = block_after(&before.head, 9);
    let changes = [
        Commit { block: Some(block.clone()), rows: rows(), ..Commit::default() },
        Commit { entry: Some(CommitId::from_bytes([9; 16])), rows: rows(), ..Commit::default() },
        Commit { prune: vec![KeyRange::all(Table::Metrics)], ..Commit::default() },
        Commit { checkpoint: Some(Serial::new(1)), ..Commit::default() },
        Commit { head: raised(6), ..Commit::default() },
        Commit::default(),
    ];
    for _ in 0..2 {
        for epoch in [0, 4, 6, u64::MAX].map(Epoch::new) {
            // A conflict would be decided again, and that is over.
            for expected in [0, 1, 2].map(Position::new) {
                for change in &changes {
                    let commit = Commit { expected, epoch, ..change.clone() };
                    fails(backend.commit(&commit).await, Fenced { epoch: 5 });
                }
            }
        }
        assert_eq!(Content::of(&backend).await, before);
        backend = env.reload_backend(backend).await;
        assert_eq!(Content::of(&backend).await, before);
    }
    let commit = Commit { block: Some(block), rows: rows(), ..Commit::on(&before.head) };
    backend.commit(&commit).await.unwrap();
    assert_eq!(marks_of(&backend, Table::Users).await, [(1, 9)]);
}

async fn a_store_that_was_overtaken_reads_and_writes_nothing(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let store = ghostwire_store_core::open(backend.clone(), env.options()).await.unwrap();
    let alice = create(&store, "alice").await;
    let moment = env.clock().now();
    let measured = point(None, "load", moment, 1.0);
    store.metrics().record(measured.clone()).await.unwrap();
    let before = (standing(&store).await, store.view().position());
    let head = backend.head().await.unwrap();
    backend.commit(&Commit { head: raised(5), ..Commit::on(&head) }).await.unwrap();
    let over = || Fenced { epoch: 5 };
    // It says so each time, whatever was tried before.
    for _ in 0..2 {
        let error = fails(store.users().create(local("bob")).await, over());
        assert!(!error.is_retryable());
        fails(store.metrics().record(point(None, "load", moment, 2.0)).await, over());
        fails(store.audit().append(vec![entry(1, moment)]).await, over());
        fails(store.metrics().prune(Timestamp::MAX).await, over());
        fails(store.consumers().register(consumer("backup"), 1_000).await, over());
        fails(store.transact(one_user("carol")).await, over());
        assert_eq!(store.users().get(alice.id).await.unwrap().as_ref(), Some(&alice));
        assert_eq!(
            crate::fixtures::range(&store, &all_points(), 1000).await,
            std::slice::from_ref(&measured)
        );
        assert_eq!(audit_lines(&store).await, 1);
        assert_eq!(store.fresh_view().await.unwrap().users().len(), 1);
        assert!(store.watch(store.view().serial()).next().now_or_never().is_none());
        assert_eq!((standing(&store).await, store.view().position()), before);
    }
    // Whatever closing says: the place is free, and what was acknowledged is there.
    let _ = store.close().await;
    drop((store, backend));
    let store = env.open().await;
    assert_eq!((standing(&store).await, store.view().position()), before);
    assert_eq!(store.info().epoch, Epoch::new(5));
    create(&store, "bob").await;
    let store = env.reload(store).await;
    assert_eq!(names(&store), ["alice", "bob"]);
}

fn one_user(name: &str) -> Transaction {
    let id = UserId::from_bytes([7; 16]);
    Transaction::new().then(UserCommand::Create { id, user: local(name) }).unwrap()
}
