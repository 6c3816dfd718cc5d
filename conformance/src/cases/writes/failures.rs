//! Commits that fail, and what the writer does about it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use ghostwire_store_core::backend::{Backend, Head};
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::layer::{FaultKind, Layer};
use ghostwire_store_core::options::{StoreOptions, WriterOptions};
use ghostwire_store_core::{ErrorKind, Result};

use crate::case::cases;
use crate::cases::writes::commits::{names, spawn_create, until_held};
use crate::cases::writes::durable::{audit_lines, local};
use crate::world::World;

cases! {
    stored {
        "failed-commit" => [a_commit_that_was_not_stored_leaves_no_trace],
    }
    once {
        "failed-commit" => [
            nobody_in_the_group_is_told_yes,
            what_was_refused_because_of_a_lost_write_is_decided_again,
            nothing_is_accepted_until_the_backend_was_reopened,
            a_backend_that_lost_commits_is_corrupt,
            a_backend_that_replaced_commits_is_corrupt,
        ],
    }
}
async fn a_commit_that_was_not_stored_leaves_no_trace(world: &mut World) {
    let mut store = world.open().await;
    store.users().create(local("alice")).await.unwrap();
    for (fault, kind) in
        [(FaultKind::Before, ErrorKind::Unavailable), (FaultKind::DiskFull, ErrorKind::Exhausted)]
    {
        let before = (store.view().serial(), store.digests().await.unwrap());
        world.faults().fail_next_commits(1, fault);
        let error = store.users().create(local("bob")).await.unwrap_err();
        assert_eq!(*error.kind(), kind);
        assert_eq!(error.operation(), Some("user.create"));
        assert_eq!((store.view().serial(), store.digests().await.unwrap()), before);
        store = world.pass(store).await;
        assert_eq!(names(store.as_ref()), ["alice"]);
        // The name was not taken by the command that failed.
        let bob = store.users().create(local("bob")).await.unwrap();
        store = world.pass(store).await;
        assert_eq!(names(store.as_ref()), ["alice", "bob"]);
        store.users().delete(bob.id, false).await.unwrap();
    }
}

async fn nobody_in_the_group_is_told_yes(world: &mut World) {
    let store = world.open().await;
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
        assert_eq!(*outcome.unwrap_err().kind(), ErrorKind::Exhausted);
    }
    assert_eq!(names(store.as_ref()), ["first"]);
    let store = world.crash(store).await;
    assert_eq!(names(store.as_ref()), ["first"]);
    assert_eq!(audit_lines(store.as_ref()).await, 1);
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
    assert_eq!(names(store.as_ref()), ["a", "b", "first"]);
}

async fn nothing_is_accepted_until_the_backend_was_reopened(world: &mut World) {
    let store = world.open().await;
    store.users().create(local("first")).await.unwrap();
    world.faults().fail_next_commits(1, FaultKind::Before);
    world.faults().fail_next_reopens(usize::MAX);
    let error = store.users().create(local("alice")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    // A first attempt to reopen was made at once; another one fails here.
    let error = store.users().create(local("bob")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert_eq!(names(store.as_ref()), ["first"], "reads go on");
    world.faults().clear();
    store.users().create(local("carol")).await.unwrap();
    assert_eq!(store.info().recoveries, 1);
    let store = world.crash(store).await;
    assert_eq!(names(store.as_ref()), ["carol", "first"]);
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
    let alice = store.users().create(local("alice")).await.unwrap();
    *backend.wrongly.lock().unwrap() = Some(wrongly);
    store.users().create(local("bob")).await.unwrap();
    world.faults().fail_next_commits(1, FaultKind::Before);
    for name in ["carol", "dave"] {
        let error = store.users().create(local(name)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    }
    assert_eq!(names(store.as_ref()), ["alice", "bob"]);
    assert_eq!(store.users().get(alice.id).await.unwrap(), Some(alice));
    *backend.wrongly.lock().unwrap() = None;
    store.users().create(local("erin")).await.unwrap();
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
