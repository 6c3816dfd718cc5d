//! Whether a write would be durable now.

use crate::prelude::*;

cases! {
    stored {
        "probe" => [
            a_probe_changes_nothing_that_is_stored,
            a_probe_fails_as_a_write_would,
        ],
    }
    once {
        "probe" => [
            a_probe_finds_out_what_a_failed_write_left,
            a_closed_store_is_not_probed,
        ],
    }
    once_unopened {
        "probe" => [
            a_store_that_was_overtaken_says_so_when_it_is_probed,
            a_store_that_is_only_read_is_not_probed,
        ],
    }
}

async fn a_probe_changes_nothing_that_is_stored(env: &mut TestEnv, store: Opened) {
    create(&store, "alice").await;
    let standing = |store: &Opened| {
        let view = store.view();
        (view.serial(), view.position(), store.info().groups)
    };
    let (before, digests) = (standing(&store), store.digests().await.unwrap());
    let mut watch = store.watch(store.view().serial());
    for _ in 0..3 {
        store.probe().await.unwrap();
    }
    assert_eq!((standing(&store), store.digests().await.unwrap()), (before, digests));
    assert!(watch.next().now_or_never().is_none());
    let store = env.reload(store).await;
    assert_eq!(store.digests().await.unwrap(), digests);
    store.verify().await.unwrap();
    create(&store, "bob").await;
}

async fn a_probe_fails_as_a_write_would(env: &mut TestEnv, mut store: Opened) {
    create(&store, "alice").await;
    for (fault, kind) in [
        (FaultKind::Before, Unavailable),
        (FaultKind::DiskFull, Exhausted),
        (FaultKind::Lost, OutcomeUnknown),
        (FaultKind::After, OutcomeUnknown),
    ] {
        let before = (store.view().serial(), store.digests().await.unwrap());
        env.faults().fail_next_commits(1, fault);
        fails(store.probe().await, kind);
        // Once it succeeds, writes do.
        store.probe().await.unwrap();
        store = env.reload(store).await;
        assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
    }
    create(&store, "bob").await;
    let store = env.reload(store).await;
    assert_eq!(names(&store), ["alice", "bob"]);
}

async fn a_probe_finds_out_what_a_failed_write_left(env: &mut TestEnv, store: Opened) {
    env.faults().fail_next_commits(1, FaultKind::Before);
    env.faults().fail_next_reopens(usize::MAX);
    fails(store.users().create(local("alice")).await, Unavailable);
    fails(store.probe().await, Unavailable);
    env.faults().clear();
    store.probe().await.unwrap();
    create(&store, "alice").await;
}

async fn a_closed_store_is_not_probed(_: &mut TestEnv, store: Opened) {
    store.close().await.unwrap();
    fails(store.probe().await, Unavailable);
}

async fn a_store_that_was_overtaken_says_so_when_it_is_probed(env: &mut TestEnv) {
    let backend = env.open_backend().await;
    let store = ghostwire_store_core::open(backend.clone(), env.options()).await.unwrap();
    create(&store, "alice").await;
    store.probe().await.unwrap();
    let head = backend.head().await.unwrap();
    let raised = HeadChange { epoch: Some(Epoch::new(5)), ..HeadChange::default() };
    backend.commit(&Commit { head: raised, ..Commit::on(&head) }).await.unwrap();
    for _ in 0..2 {
        fails(store.probe().await, Fenced { epoch: 5 });
        fails(store.users().create(local("bob")).await, Fenced { epoch: 5 });
    }
}

async fn a_store_that_is_only_read_is_not_probed(env: &mut TestEnv) {
    let store = env.open().await;
    create(&store, "alice").await;
    store.close().await.unwrap();
    drop(store);
    let options = StoreOptions { read_only: true, ..env.options() };
    let store = env.open_with(options).await;
    fails(store.probe().await, ReadOnly);
}
