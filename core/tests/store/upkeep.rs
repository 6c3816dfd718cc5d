//! That the writer has its backend do what is to be done, and that nobody waits for it or suffers from it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{Backend, Budget, Head};
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open};
use ghostwire_store_memory::MemoryBackend;

/// Has so many slices to do, and fails some.
#[derive(Debug)]
struct Busy {
    memory: MemoryBackend,
    left: AtomicUsize,
    /// How the next slices end.
    failures: Mutex<Vec<ErrorKind>>,
    attempts: AtomicUsize,
    reopened: AtomicUsize,
}

impl Busy {
    fn new(left: usize, failures: &[ErrorKind]) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(StoreId::from_bytes([1; 16])),
            left: AtomicUsize::new(left),
            failures: Mutex::new(failures.to_vec()),
            attempts: AtomicUsize::new(0),
            reopened: AtomicUsize::new(0),
        })
    }

    fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Shared(Arc<Busy>);

#[async_trait]
impl Layer for Shared {
    fn inner(&self) -> &dyn Backend {
        &self.0.memory
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        assert_eq!(budget, Budget::default());
        self.0.attempts.fetch_add(1, Ordering::SeqCst);
        if let Some(kind) = self.0.failures.lock().unwrap().pop() {
            return Err(Error::new(kind, "a slice that fails"));
        }
        let left = self.0.left();
        self.0.left.store(left.saturating_sub(1), Ordering::SeqCst);
        Ok(left > 1)
    }

    async fn reopen(&self) -> Result<Head> {
        self.0.reopened.fetch_add(1, Ordering::SeqCst);
        self.0.memory.reopen().await
    }
}

async fn store(busy: &Arc<Busy>, options: StoreOptions) -> Arc<dyn Store> {
    open(Arc::new(Shared(busy.clone())), options).await.unwrap()
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
}

#[tokio::test]
async fn an_idle_writer_does_all_of_it() {
    let busy = Busy::new(100, &[]);
    let store = store(&busy, StoreOptions::default()).await;
    until(|| busy.left() == 0).await;
    store.close().await.unwrap();
    // Once there is nothing left it is not asked again.
    assert_eq!(busy.attempts.load(Ordering::SeqCst), 100);
    assert_eq!(busy.reopened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn writes_go_on_meanwhile_and_after_a_slice_that_failed() {
    let busy = Busy::new(1_000, &[ErrorKind::OutcomeUnknown, ErrorKind::Exhausted]);
    let store = store(&busy, StoreOptions::default()).await;
    until(|| busy.attempts.load(Ordering::SeqCst) > 0).await;
    for number in 0..50 {
        store.users().create(NewUser::local(format!("u{number}").parse().unwrap())).await.unwrap();
    }
    // The first failure opens nothing anew: nothing of it is stored. The second may be.
    until(|| busy.reopened.load(Ordering::SeqCst) == 1).await;
    store.users().create(NewUser::local("last".parse().unwrap())).await.unwrap();
    assert_eq!(store.view().users().len(), 51);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_only_read_does_nothing() {
    let busy = Busy::new(10, &[]);
    let store = store(&busy, StoreOptions { read_only: true, ..StoreOptions::default() }).await;
    store.verify().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(busy.attempts.load(Ordering::SeqCst), 0);
}
