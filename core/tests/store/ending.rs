//! What the store does when it is closed, and when one of its threads panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::changes::ChangeStream;
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::layer::{Chaos, Faults, Layer};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{ErrorKind, Store, open};
use ghostwire_store_memory::MemoryBackend;

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    Nothing,
    /// The commit of this number panics, once, before anything is stored.
    Commit(usize),
    /// As before, and so does every `reopen`.
    CommitAndReopen(usize),
    CloseFails,
    ClosePanics,
}

#[derive(Debug)]
struct Bad {
    inner: Chaos,
    how: Break,
    commits: AtomicUsize,
    closed: AtomicUsize,
}

impl Bad {
    fn new(how: Break) -> Arc<Self> {
        let memory = Arc::new(MemoryBackend::new(StoreId::from_bytes([7; 16])));
        let (commits, closed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner: Chaos::new(memory), how, commits, closed })
    }

    fn faults(&self) -> &Faults {
        self.inner.faults()
    }

    fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Layer for Bad {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        if let Break::Commit(bad) | Break::CommitAndReopen(bad) = self.how
            && number == bad
        {
            panic!("a fault of the backend (injected)");
        }
        Layer::commit(&self.inner, commit).await
    }

    async fn reopen(&self) -> Result<Head> {
        if matches!(self.how, Break::CommitAndReopen(_)) {
            panic!("a fault of the backend (injected)");
        }
        Layer::reopen(&self.inner).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        match self.how {
            Break::CloseFails => Err(Error::new(ErrorKind::Unavailable, "the last bytes are lost")),
            Break::ClosePanics => panic!("a fault of the backend (injected)"),
            _ => Layer::close(&self.inner).await,
        }
    }
}

async fn opened(backend: &Arc<Bad>) -> Arc<dyn Store> {
    open(backend.clone(), StoreOptions::default()).await.unwrap()
}

fn user(name: &str) -> NewUser {
    NewUser::local(name.parse().unwrap())
}

/// Nothing here waits for more than the store itself; a store that hangs is to fail the test.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends")
}

/// What was watched, refused and told after the writer's thread ended by itself.
async fn ended_by_a_fault(store: &Arc<dyn Store>, backend: &Bad, watch: ChangeStream) {
    let told: Vec<_> = soon(watch.collect()).await;
    let error = told.last().unwrap().as_ref().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unexpected, "{error}");
    assert!(error.to_string().contains("open it again"), "{error}");
    // Whoever begins to watch now hears of it, too.
    let mut late = store.watch(store.view().serial());
    let error = soon(late.next()).await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unexpected, "{error}");
    assert!(soon(late.next()).await.is_none());
    assert_eq!(backend.closed(), 1, "the files are free");
    let error = store.users().create(user("later")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    let error = store.users().list(&UserFilter::default(), &PageRequest::default()).await;
    assert_eq!(*error.unwrap_err().kind(), ErrorKind::Unavailable);
    for _ in 0..2 {
        let error = soon(store.close()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unexpected, "{error}");
    }
    assert_eq!(backend.closed(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_when_the_writer_panicked_was_not_stored() {
    let backend = Bad::new(Break::CommitAndReopen(2));
    let store = opened(&backend).await;
    let watch = store.watch(store.view().serial());
    store.users().create(user("first")).await.unwrap();
    let hold = backend.faults().hold_commits();
    let create = |name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.users().create(user(name)).await })
    };
    // The second commit panics before it can be held. Whether the others wait behind it, or come
    // too late, they are told that nothing of theirs was stored.
    let calls: Vec<_> = ["second", "third", "fourth"].map(create).into();
    let mut kinds = Vec::new();
    for call in calls {
        kinds.push(soon(call).await.unwrap().unwrap_err().kind().clone());
    }
    drop(hold);
    assert!(kinds.contains(&ErrorKind::OutcomeUnknown), "{kinds:?}");
    let expected = [ErrorKind::OutcomeUnknown, ErrorKind::Unavailable];
    assert!(kinds.iter().all(|kind| expected.contains(kind)), "{kinds:?}");
    ended_by_a_fault(&store, &backend, watch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_panics_is_found_out_about_like_a_lost_answer() {
    // One caller's commit is stored on the writer's own thread, those of many on the other one.
    for callers in [1, 200] {
        for bad in 1..4 {
            let backend = Bad::new(Break::Commit(bad));
            let store = opened(&backend).await;
            for round in 0..3 {
                let calls = (0..callers).map(|caller| {
                    let store = store.clone();
                    let name = format!("user-{round}-{caller}");
                    tokio::spawn(async move { store.users().create(user(&name)).await })
                });
                for call in calls.collect::<Vec<_>>() {
                    soon(call).await.unwrap().unwrap();
                }
            }
            assert_eq!(store.info().recoveries, 1, "{callers} callers, commit {bad}");
            soon(store.close()).await.unwrap();
            assert_eq!(backend.closed(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_closing_is_told_to_everyone_who_closes() {
    let backend = Bad::new(Break::ClosePanics);
    let store = opened(&backend).await;
    let mut watch = store.watch(store.view().serial());
    for _ in 0..2 {
        let error = soon(store.close()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unexpected, "{error}");
    }
    assert!(soon(watch.next()).await.is_none());
    assert_eq!(backend.closed(), 1);
}

#[tokio::test]
async fn an_error_of_closing_is_told_to_everyone_who_closes() {
    let backend = Bad::new(Break::CloseFails);
    let store = opened(&backend).await;
    let other = store.acting_as("other".parse().unwrap());
    for store in [&store, &other, &store] {
        let error = soon(store.close()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("the last bytes are lost"), "{error}");
    }
    assert_eq!(backend.closed(), 1);
}

#[tokio::test]
async fn a_full_queue_does_not_keep_the_store_from_being_closed() {
    let backend = Bad::new(Break::Nothing);
    let mut options = StoreOptions::default();
    options.writer.queue_capacity = 1;
    options.writer.queue_timeout = Duration::from_secs(3600);
    let store = open(backend.clone(), options).await.unwrap();
    let hold = backend.faults().hold_commits();
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.users().create(user(&format!("user{n}"))).await })
        })
        .collect();
    while backend.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    // Given up at once, and begun all the same: whoever still waits for a place is refused.
    assert!(store.close().now_or_never().is_none());
    drop(hold);
    soon(store.close()).await.unwrap();
    let mut stored = 0;
    for call in calls {
        match soon(call).await.unwrap() {
            Ok(_) => stored += 1,
            Err(error) => assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    assert_eq!(store.view().users().len(), stored);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_leaves_its_backend_closed() {
    let backend = Bad::new(Break::Nothing);
    let mut options = StoreOptions::default();
    options.writer.max_group = 0;
    assert!(open(backend.clone(), options).await.is_err());
    assert_eq!(backend.closed(), 1);
}

/// Closing that backend blocks its thread until it is let go.
#[derive(Debug)]
struct Gated {
    memory: MemoryBackend,
    gate: std::sync::Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    closed: tokio::sync::Semaphore,
}

#[async_trait]
impl Layer for Gated {
    fn inner(&self) -> &dyn Backend {
        &self.memory
    }

    async fn close(&self) -> Result<()> {
        let gate = self.gate.lock().unwrap().take();
        if let Some(gate) = gate {
            let _ = gate.recv();
        }
        self.closed.add_permits(1);
        self.memory.close().await
    }
}

#[test]
fn a_store_that_is_dropped_in_a_runtime_does_not_block_it() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (let_go, gate) = std::sync::mpsc::channel();
            let backend = Arc::new(Gated {
                memory: MemoryBackend::new(StoreId::from_bytes([7; 16])),
                gate: std::sync::Mutex::new(Some(gate)),
                closed: tokio::sync::Semaphore::new(0),
            });
            let store = open(backend.clone(), StoreOptions::default()).await.unwrap();
            store.users().create(user("alice")).await.unwrap();
            drop(store);
            // The only thread of the runtime goes on, though the backend is not closed yet.
            tokio::spawn(async {}).await.unwrap();
            assert_eq!(backend.closed.available_permits(), 0);
            let_go.send(()).unwrap();
            backend.closed.acquire().await.unwrap().forget();
        });
        done.send(()).unwrap();
    });
    let ended = ended.recv_timeout(Duration::from_secs(60));
    assert!(ended.is_ok(), "dropping the store waits for the backend to be closed");
}
