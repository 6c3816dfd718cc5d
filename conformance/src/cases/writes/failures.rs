//! Commits that fail, and what the writer does about it.

use crate::prelude::*;

cases! {
    stored {
        "failed-commit" => [a_commit_that_was_not_stored_leaves_no_trace],
    }
    once {
        "failed-commit" => [
            nobody_in_the_group_is_told_yes,
            nothing_is_accepted_until_the_backend_was_reopened,
        ],
    }
    once_unopened {
        "failed-commit" => [
            what_was_refused_because_of_a_lost_write_is_decided_again,
            a_backend_that_lost_commits_is_corrupt,
            a_backend_that_replaced_commits_is_corrupt,
        ],
        "identity" => [a_backend_that_becomes_another_one_is_corrupt],
    }
}
async fn a_commit_that_was_not_stored_leaves_no_trace(env: &mut TestEnv, mut store: Opened) {
    create(&store, "alice").await;
    for (fault, kind) in [(FaultKind::Before, Unavailable), (FaultKind::DiskFull, Exhausted)] {
        let before = (store.view().serial(), store.digests().await.unwrap());
        env.faults().fail_next_commits(1, fault);
        let error = fails(store.users().create(local("bob")).await, kind);
        assert_eq!(error.operation(), Some("user.create"));
        assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
        store = env.reload(store).await;
        assert_eq!(names(&store), ["alice"]);
        // The name was not taken by the command that failed.
        let bob = create(&store, "bob").await;
        store = env.reload(store).await;
        assert_eq!(names(&store), ["alice", "bob"]);
        store.users().delete(bob.id, false).await.unwrap();
    }
}

async fn nobody_in_the_group_is_told_yes(env: &mut TestEnv, store: Opened) {
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    let mut calls =
        Box::pin(join_all(["a", "a", "b", "c"].map(|name| store.users().create(local(name)))));
    assert!((&mut calls).now_or_never().is_none());
    // The first one is stored, its answer only lost; the four behind it share one that is not.
    env.faults().fail_next_commits(1, FaultKind::After);
    env.faults().fail_next_commits(1, FaultKind::DiskFull);
    drop(hold);
    first.await.unwrap().unwrap();
    for outcome in calls.await {
        fails(outcome, Exhausted);
    }
    assert_eq!(names(&store), ["first"]);
    let store = env.crash(store).await;
    assert_eq!(names(&store), ["first"]);
    assert_eq!(audit_lines(&store).await, 1);
}

async fn what_was_refused_because_of_a_lost_write_is_decided_again(env: &mut TestEnv) {
    let writer = WriterOptions { max_group: 2, ..WriterOptions::default() };
    let store = env.open_with(StoreOptions { writer, ..env.options() }).await;
    let hold = env.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(env).await;
    // Two share the commit that fails. The next two want the same names, which are then free.
    let mut calls =
        Box::pin(join_all(["a", "b", "a", "b"].map(|name| store.users().create(local(name)))));
    assert!((&mut calls).now_or_never().is_none());
    env.faults().fail_next_commits(1, FaultKind::After);
    env.faults().fail_next_commits(1, FaultKind::Before);
    drop(hold);
    first.await.unwrap().unwrap();
    let outcomes: Vec<_> = calls.await.iter().map(|outcome| outcome.is_ok()).collect();
    assert_eq!(outcomes, [false, false, true, true]);
    let store = env.crash(store).await;
    assert_eq!(names(&store), ["a", "b", "first"]);
}

async fn nothing_is_accepted_until_the_backend_was_reopened(env: &mut TestEnv, store: Opened) {
    create(&store, "first").await;
    env.faults().fail_next_commits(1, FaultKind::Before);
    env.faults().fail_next_reopens(usize::MAX);
    fails(store.users().create(local("alice")).await, Unavailable);
    // A first attempt to reopen was made at once; another one fails here.
    fails(store.users().create(local("bob")).await, Unavailable);
    assert_eq!(names(&store), ["first"], "reads go on");
    env.faults().clear();
    create(&store, "carol").await;
    assert_eq!(store.info().recoveries, 1);
    let store = env.crash(store).await;
    assert_eq!(names(&store), ["carol", "first"]);
}

async fn a_backend_that_lost_commits_is_corrupt(env: &mut TestEnv) {
    let lost = |head: Head| Head {
        position: Position::new(head.position.get() - 1),
        serial: Serial::new(head.serial.get() - 1),
        ..head
    };
    let lost_series =
        |head: Head| Head { position: Position::new(head.position.get() - 1), ..head };
    a_backend_that_reopens_wrongly(env, &[lost, lost_series]).await;
}

async fn a_backend_that_replaced_commits_is_corrupt(env: &mut TestEnv) {
    a_backend_that_reopens_wrongly(
        env,
        &[|head| Head { hash: BlockHash::from_bytes([9; 32]), ..head }],
    )
    .await;
}

async fn a_backend_that_becomes_another_one_is_corrupt(env: &mut TestEnv) {
    a_backend_that_reopens_wrongly(
        env,
        &[
            |head| Head { store: StoreId::from_bytes([9; 16]), ..head },
            |head| Head { side: SideId::from_bytes([9; 16]), ..head },
            |head| Head { lineage: LineageId::from_bytes([9; 16]), ..head },
        ],
    )
    .await;
}

async fn a_backend_that_reopens_wrongly(env: &mut TestEnv, ways: &[fn(Head) -> Head]) {
    let backend =
        Arc::new(Forgetful { inner: env.open_backend().await, wrongly: Mutex::new(None) });
    let store = ghostwire_store_core::open(backend.clone(), env.options()).await.unwrap();
    let alice = create(&store, "alice").await;
    create(&store, "bob").await;
    for (number, wrongly) in ways.iter().enumerate() {
        *backend.wrongly.lock().unwrap() = Some(*wrongly);
        env.faults().fail_next_commits(1, FaultKind::Before);
        for name in ["carol", "dave"] {
            fails(store.users().create(local(name)).await, Corrupt);
        }
        assert_eq!(store.view().users().len(), 2 + number);
        assert_eq!(store.users().get(alice.id).await.unwrap().as_ref(), Some(&alice));
        *backend.wrongly.lock().unwrap() = None;
        create(&store, &format!("erin-{number}")).await;
    }
}

/// A backend that says something wrong about where it stands when it is reopened.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<dyn Backend>,
    wrongly: Mutex<Option<fn(Head) -> Head>>,
}

#[async_trait]
impl Layer for Forgetful {
    fn inner(&self) -> &dyn Backend {
        self.inner.as_ref()
    }

    async fn reopen(&self) -> Result<Head> {
        let head = self.inner.reopen().await?;
        let wrongly = *self.wrongly.lock().unwrap();
        Ok(wrongly.map_or(head, |wrongly| wrongly(head)))
    }
}
