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
    }
}
async fn a_commit_that_was_not_stored_leaves_no_trace(world: &mut World, mut store: Opened) {
    create(&store, "alice").await;
    for (fault, kind) in [(FaultKind::Before, Unavailable), (FaultKind::DiskFull, Exhausted)] {
        let before = (store.view().serial(), store.digests().await.unwrap());
        world.faults().fail_next_commits(1, fault);
        let error = fails(store.users().create(local("bob")).await, kind);
        assert_eq!(error.operation(), Some("user.create"));
        assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
        store = world.pass(store).await;
        assert_eq!(names(&store), ["alice"]);
        // The name was not taken by the command that failed.
        let bob = create(&store, "bob").await;
        store = world.pass(store).await;
        assert_eq!(names(&store), ["alice", "bob"]);
        store.users().delete(bob.id, false).await.unwrap();
    }
}

async fn nobody_in_the_group_is_told_yes(world: &mut World, store: Opened) {
    let hold = world.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(world).await;
    let mut calls =
        Box::pin(join_all(["a", "a", "b", "c"].map(|name| store.users().create(local(name)))));
    assert!((&mut calls).now_or_never().is_none());
    // The first one is stored, its answer only lost; the four behind it share one that is not.
    world.faults().fail_next_commits(1, FaultKind::After);
    world.faults().fail_next_commits(1, FaultKind::DiskFull);
    drop(hold);
    first.await.unwrap().unwrap();
    for outcome in calls.await {
        fails(outcome, Exhausted);
    }
    assert_eq!(names(&store), ["first"]);
    let store = world.crash(store).await;
    assert_eq!(names(&store), ["first"]);
    assert_eq!(audit_lines(&store).await, 1);
}

async fn what_was_refused_because_of_a_lost_write_is_decided_again(world: &mut World) {
    let writer = WriterOptions { max_group: 2, ..WriterOptions::default() };
    let store = world.open_with(StoreOptions { writer, ..world.options() }).await;
    let hold = world.faults().hold_commits();
    let first = spawn_create(&store, "first");
    until_held(world).await;
    // Two share the commit that fails. The next two want the same names, which are then free.
    let mut calls =
        Box::pin(join_all(["a", "b", "a", "b"].map(|name| store.users().create(local(name)))));
    assert!((&mut calls).now_or_never().is_none());
    world.faults().fail_next_commits(1, FaultKind::After);
    world.faults().fail_next_commits(1, FaultKind::Before);
    drop(hold);
    first.await.unwrap().unwrap();
    let outcomes: Vec<_> = calls.await.iter().map(|outcome| outcome.is_ok()).collect();
    assert_eq!(outcomes, [false, false, true, true]);
    let store = world.crash(store).await;
    assert_eq!(names(&store), ["a", "b", "first"]);
}

async fn nothing_is_accepted_until_the_backend_was_reopened(world: &mut World, store: Opened) {
    create(&store, "first").await;
    world.faults().fail_next_commits(1, FaultKind::Before);
    world.faults().fail_next_reopens(usize::MAX);
    fails(store.users().create(local("alice")).await, Unavailable);
    // A first attempt to reopen was made at once; another one fails here.
    fails(store.users().create(local("bob")).await, Unavailable);
    assert_eq!(names(&store), ["first"], "reads go on");
    world.faults().clear();
    create(&store, "carol").await;
    assert_eq!(store.info().recoveries, 1);
    let store = world.crash(store).await;
    assert_eq!(names(&store), ["carol", "first"]);
}

async fn a_backend_that_lost_commits_is_corrupt(world: &mut World) {
    a_backend_that_reopens_wrongly(world, |head| Head {
        serial: Serial::new(head.serial.get() - 1),
        ..head
    })
    .await;
}

async fn a_backend_that_replaced_commits_is_corrupt(world: &mut World) {
    a_backend_that_reopens_wrongly(world, |head| Head {
        hash: BlockHash::from_bytes([9; 32]),
        ..head
    })
    .await;
}

async fn a_backend_that_reopens_wrongly(world: &mut World, wrongly: fn(Head) -> Head) {
    let backend =
        Arc::new(Forgetful { inner: world.open_backend().await, wrongly: Mutex::new(None) });
    let store = ghostwire_store_core::open(backend.clone(), world.options()).await.unwrap();
    let alice = create(&store, "alice").await;
    *backend.wrongly.lock().unwrap() = Some(wrongly);
    create(&store, "bob").await;
    world.faults().fail_next_commits(1, FaultKind::Before);
    for name in ["carol", "dave"] {
        fails(store.users().create(local(name)).await, Corrupt);
    }
    assert_eq!(names(&store), ["alice", "bob"]);
    assert_eq!(store.users().get(alice.id).await.unwrap(), Some(alice));
    *backend.wrongly.lock().unwrap() = None;
    create(&store, "erin").await;
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
