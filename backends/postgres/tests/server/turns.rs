//! Turns at writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::domain::NewUser;
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open as open_store};
use ghostwire_store_postgres::PostgresBackend;

use crate::lost::Pair;
use crate::support::{commit, open, options, own_server, shared_server, store_next};

/// A writer, perhaps a slow one, and what becomes of its attempts.
#[derive(Debug)]
struct Counted {
    inner: PostgresBackend,
    decides_for: Duration,
    turns: AtomicUsize,
    /// Attempts since the first turn that another writer was faster than.
    lost: AtomicUsize,
}

#[async_trait]
impl Layer for Counted {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn take_turn(&self) -> Result<bool> {
        let taken = self.inner.take_turn().await?;
        self.turns.fetch_add(1, Ordering::SeqCst);
        Ok(taken)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        tokio::time::sleep(self.decides_for).await;
        let takes_turns = self.turns.load(Ordering::SeqCst) > 0;
        let stored = self.inner.commit(commit).await;
        if takes_turns && stored.as_ref().is_err_and(|error| *error.kind() == ErrorKind::Conflict) {
            self.lost.fetch_add(1, Ordering::SeqCst);
        }
        stored
    }
}

/// Four that are alike, and a slow one.
const WRITERS: [Duration; 5] = [
    Duration::from_millis(8),
    Duration::from_millis(2),
    Duration::from_millis(2),
    Duration::from_millis(2),
    Duration::from_millis(2),
];

#[tokio::test(flavor = "multi_thread")]
async fn writers_have_the_same_share_and_none_loses_what_it_decided() {
    const ROUNDS: usize = 100;
    const COUNT: usize = WRITERS.len();
    let (server, database) = shared_server().await;
    let mut writers: Vec<(Arc<Counted>, Arc<dyn Store>)> = Vec::new();
    for decides_for in WRITERS {
        let inner = open(options(server, database.name())).await;
        let (turns, lost) = Default::default();
        let counted = Arc::new(Counted { inner, decides_for, turns, lost });
        let store = open_store(counted.clone(), StoreOptions::default()).await.unwrap();
        writers.push((counted, store));
    }
    let stored: Arc<[AtomicUsize; COUNT]> = Arc::default();
    let total = |stored: &[AtomicUsize; COUNT]| -> usize {
        stored.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    };
    let write = |writer: usize, store: Arc<dyn Store>, stored: Arc<[AtomicUsize; COUNT]>| async move {
        let mut number = 0;
        while total(&stored) < COUNT * ROUNDS {
            number += 1;
            let name = format!("user-{writer}-{number}").parse().unwrap();
            store.users().create(NewUser::local(name)).await.unwrap();
            stored[writer].fetch_add(1, Ordering::SeqCst);
        }
    };
    // What comes before all of them take turns does not count.
    let begun: Arc<[AtomicUsize; COUNT]> = Arc::default();
    let tasks: Vec<_> = (0..COUNT)
        .map(|writer| tokio::spawn(write(writer, writers[writer].1.clone(), stored.clone())))
        .collect();
    while writers.iter().any(|(counted, _)| counted.turns.load(Ordering::SeqCst) == 0) {
        if total(&stored) > 2 * ROUNDS {
            break;
        }
        tokio::task::yield_now().await;
    }
    for (begun, stored) in begun.iter().zip(stored.iter()) {
        begun.store(stored.load(Ordering::SeqCst), Ordering::SeqCst);
    }
    for task in tasks {
        task.await.unwrap();
    }
    let shares: Vec<usize> = begun
        .iter()
        .zip(stored.iter())
        .map(|(begun, stored)| stored.load(Ordering::SeqCst) - begun.load(Ordering::SeqCst))
        .collect();
    let fair = shares.iter().sum::<usize>() / COUNT;
    println!("shares {shares:?}");
    for (share, (counted, store)) in shares.iter().zip(&writers) {
        assert!(share.abs_diff(fair) * 5 <= fair, "{shares:?}");
        assert!(counted.turns.load(Ordering::SeqCst) > 0);
        assert_eq!(counted.lost.load(Ordering::SeqCst), 0, "{shares:?}");
        assert_eq!(store.fresh_view().await.unwrap().users().len(), total(&stored));
    }
    writers[0].1.verify().await.unwrap();
}

#[tokio::test]
async fn who_has_the_turn_is_not_overtaken_and_others_go_on_after_it() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let (one, two) = (open(options(server, name)).await, open(options(server, name)).await);
    let head = store_next(&one, 1).await.unwrap();
    assert!(one.take_turn().await.unwrap());
    let mine = commit(&head, 2);
    // The other one waits, and comes second.
    let theirs = commit(&head, 3);
    let (mine, theirs) = tokio::join!(one.commit(&mine), two.commit(&theirs));
    mine.unwrap();
    assert_eq!(*theirs.unwrap_err().kind(), ErrorKind::Conflict);
    // A turn that is given back, and one that is given back twice, change nothing.
    assert!(two.take_turn().await.unwrap());
    two.end_turn().await.unwrap();
    two.end_turn().await.unwrap();
    let head = store_next(&one, 4).await.unwrap();
    assert!(two.take_turn().await.unwrap());
    assert!(two.take_turn().await.unwrap(), "once more is anew");
    // A commit that is refused ends it, too.
    let stale =
        commit(&ghostwire_store_core::backend::Head { position: head.position.next(), ..head }, 5);
    assert_eq!(*two.commit(&stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    store_next(&one, 6).await.unwrap();
    assert_eq!(one.head().await.unwrap().position.get(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stands_still_in_its_turn_is_ended_and_has_stored_nothing() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let (still, other) = (open(options(server, name)).await, open(options(server, name)).await);
    let head = store_next(&still, 1).await.unwrap();
    assert!(still.take_turn().await.unwrap());
    other.commit(&commit(&head, 2)).await.unwrap();
    let error = still.commit(&commit(&head, 3)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(other.head().await.unwrap().commit.as_bytes(), &[2; 16]);
    assert!(still.take_turn().await.unwrap());
    let head = other.head().await.unwrap();
    still.commit(&commit(&head, 4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_lost_before_its_commit_stores_nothing_by_itself() {
    let (server, database) = shared_server().await;
    let pair = Pair::open(server, database.name()).await;
    // Nobody came between, so it is stored all the same, once.
    assert!(pair.far.take_turn().await.unwrap());
    pair.proxy.reset().unwrap();
    pair.far.commit(&commit(&pair.head, 2)).await.unwrap();
    let head = pair.near.head().await.unwrap();
    assert_eq!(head.position.get(), 2);
    // Somebody did.
    assert!(pair.far.take_turn().await.unwrap());
    pair.proxy.reset().unwrap();
    pair.near.commit(&commit(&head, 3)).await.unwrap();
    let error = pair.far.commit(&commit(&head, 4)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(pair.near.head().await.unwrap().position.get(), 3);
}

/// COMMIT was sent, and its answer never came.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_lost_during_its_commit_is_asked_about() {
    let (server, database) = own_server().await;
    let name = database.name();
    let pair = Pair::open(&server, name).await;
    let set = "ALTER SYSTEM SET synchronous_standby_names TO 'nowhere'";
    server.sql("postgres", set).await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    assert!(pair.far.take_turn().await.unwrap());
    let sent = pair.send(commit(&pair.head, 2));
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    while server.sql(name, waiting).await.unwrap() != [[Some("1".to_owned())]] {
        tokio::task::yield_now().await;
    }
    pair.proxy.reset().unwrap();
    server.sql("postgres", "ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    server.sql("postgres", "SELECT pg_reload_conf()").await.unwrap();
    sent.await.unwrap().unwrap();
    let head = pair.near.head().await.unwrap();
    assert_eq!((head.position.get(), *head.commit.as_bytes()), (2, [2; 16]));
}
