//! What a store says of its health while its backend works, fails, hangs and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::health::{CheckName, Condition, Health};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::options::{HealthOptions, StoreOptions};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::{ErrorKind, Store, open};
use ghostwire_store_memory::MemoryBackend;
use tokio::sync::Semaphore;

/// What the next calls come to.
#[derive(Debug, Clone, Default)]
struct Faults {
    commit: Option<ErrorKind>,
    probe: Option<ErrorKind>,
    reopen: Option<ErrorKind>,
    reopen_panics: bool,
}

#[derive(Debug)]
struct Faulty {
    memory: MemoryBackend,
    faults: Mutex<Faults>,
    probes: AtomicUsize,
    /// A probe waits for one of these.
    permits: Semaphore,
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(StoreId::from_bytes([7; 16])),
            faults: Mutex::default(),
            probes: AtomicUsize::new(0),
            permits: Semaphore::new(1000),
        })
    }

    fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    fn fault(&self, which: impl Fn(&Faults) -> Option<ErrorKind>) -> Result<()> {
        match which(&self.faults.lock().unwrap()) {
            Some(kind) => Err(Error::new(kind, "injected").with("path", "/secret/place")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Layer for Faulty {
    fn inner(&self) -> &dyn Backend {
        &self.memory
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.fault(|faults| faults.commit.clone())?;
        self.memory.commit(commit).await
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        self.fault(|faults| faults.probe.clone())?;
        self.memory.probe(epoch).await
    }

    async fn reopen(&self) -> Result<Head> {
        if self.faults.lock().unwrap().reopen_panics {
            panic!("a fault of the backend (injected)");
        }
        self.fault(|faults| faults.reopen.clone())?;
        self.memory.reopen().await
    }
}

/// Probes as often as it is asked, and gives up on one at once.
const AT_ONCE: HealthOptions =
    HealthOptions { probe_interval: Duration::ZERO, probe_deadline: Duration::from_millis(20) };
/// Never gives up on a probe.
const PATIENT: HealthOptions =
    HealthOptions { probe_interval: Duration::ZERO, probe_deadline: Duration::from_secs(60) };

async fn opened(backend: &Arc<Faulty>, health: HealthOptions) -> Arc<dyn Store> {
    open(backend.clone(), StoreOptions { health, ..StoreOptions::default() }).await.unwrap()
}

async fn write(store: &dyn Store, name: &str) -> Result<()> {
    store.users().create(NewUser::local(name.parse().unwrap())).await.map(drop)
}

fn failed(health: &Health) -> Vec<CheckName> {
    health.checks.iter().filter(|check| check.has_failed()).map(|check| check.name).collect()
}

#[tokio::test]
async fn one_probe_serves_all_who_ask_for_a_while() {
    let backend = Faulty::new();
    let store = opened(&backend, HealthOptions::default()).await;
    assert_eq!(backend.probes.load(Ordering::SeqCst), 0);
    assert_eq!(store.health().state, Condition::Ready);
    for _ in 0..100 {
        assert!(store.check_health().await.is_ready());
    }
    let asked: Vec<_> = (0..100).map(|_| store.clone()).collect();
    let asked = asked.iter().map(|store| store.check_health());
    assert!(futures_util::future::join_all(asked).await.iter().all(Health::is_ready));
    assert_eq!(backend.probes.load(Ordering::SeqCst), 1);
    assert_eq!(store.health().probe.unwrap().error, None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_refuses_is_told_until_it_no_longer_does() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    backend.set(Faults { probe: Some(ErrorKind::Exhausted), ..Faults::default() });
    let health = store.check_health().await;
    assert_eq!((health.state, health.ready, health.live), (Condition::Degraded, false, true));
    assert_eq!(failed(&health), [CheckName::Writable]);
    // Whoever asks from elsewhere is told no more than the kind; the rest is for whoever looks after it.
    assert_eq!(health.reason.as_deref(), Some("exhausted: injected"));
    let last = health.last_error.unwrap();
    assert_eq!((last.operation, last.kind), ("probe", "exhausted"));
    assert!(last.message.contains("/secret/place"), "{last:?}");
    backend.set(Faults::default());
    assert_eq!(store.check_health().await.state, Condition::Ready);
    store.close().await.unwrap();
}

#[tokio::test]
async fn commits_tell_of_a_disk_that_refuses_though_nobody_asks_for_a_probe() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    backend.set(Faults { commit: Some(ErrorKind::Exhausted), ..Faults::default() });
    write(store.as_ref(), "alice").await.unwrap_err();
    assert_eq!(failed(&store.health()), [CheckName::Writable]);
    backend.set(Faults { probe: Some(ErrorKind::Exhausted), ..Faults::default() });
    write(store.as_ref(), "alice").await.unwrap();
    assert_eq!(store.health().state, Condition::Ready);
    assert_eq!(failed(&store.check_health().await), [CheckName::Writable]);
    write(store.as_ref(), "bob").await.unwrap();
    assert_eq!(store.health().state, Condition::Ready);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_disk_that_hangs_is_waited_for_no_longer_than_the_deadline_and_asked_once() {
    let backend = Faulty::new();
    let store = opened(&backend, AT_ONCE).await;
    backend.permits.forget_permits(1000);
    for _ in 0..3 {
        let health = store.check_health().await;
        assert_eq!(failed(&health), [CheckName::Writable], "{health:?}");
        assert!(health.is_live(), "a disk that is slow is no better after a restart");
    }
    assert_eq!(backend.probes.load(Ordering::SeqCst), 1);
    backend.permits.add_permits(1000);
    // Behind the probe that hung.
    write(store.as_ref(), "alice").await.unwrap();
    let mut health = store.check_health().await;
    while !health.is_ready() {
        health = store.check_health().await;
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_writer_that_does_not_know_how_a_commit_ended_is_poisoned() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    backend.set(Faults {
        commit: Some(ErrorKind::OutcomeUnknown),
        reopen: Some(ErrorKind::Unavailable),
        ..Faults::default()
    });
    write(store.as_ref(), "alice").await.unwrap_err();
    let health = store.health();
    assert_eq!((health.state, health.live), (Condition::Poisoned, true));
    assert_eq!(failed(&health), [CheckName::NotPoisoned]);
    assert_eq!(health.last_error.unwrap().operation, "commit");
    assert!(failed(&store.check_health().await).contains(&CheckName::NotPoisoned));
    backend.set(Faults::default());
    write(store.as_ref(), "bob").await.unwrap();
    assert_eq!(store.check_health().await.state, Condition::Ready);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_overtaken_is_to_be_read_only() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    backend.set(Faults { commit: Some(ErrorKind::Fenced { epoch: 9 }), ..Faults::default() });
    write(store.as_ref(), "alice").await.unwrap_err();
    let health = store.check_health().await;
    assert_eq!((health.state, health.ready, health.live), (Condition::ReadOnly, false, true));
    assert_eq!(failed(&health), [CheckName::Writable]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_was_opened_to_be_read_is_ready_for_that() {
    let backend = Faulty::new();
    opened(&backend, PATIENT).await.close().await.unwrap();
    let backend = Faulty::new();
    let options = StoreOptions { read_only: true, ..StoreOptions::default() };
    let store = open(backend.clone(), options).await.unwrap();
    let health = store.check_health().await;
    assert_eq!((health.state, health.ready), (Condition::ReadOnly, true));
    assert_eq!(backend.probes.load(Ordering::SeqCst), 0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn only_a_writer_that_panicked_is_better_after_a_restart() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    backend.set(Faults {
        commit: Some(ErrorKind::OutcomeUnknown),
        reopen_panics: true,
        ..Faults::default()
    });
    write(store.as_ref(), "alice").await.unwrap_err();
    store.close().await.unwrap_err();
    let health = store.check_health().await;
    assert_eq!((health.state, health.ready, health.live), (Condition::Stopped, false, false));
    assert!(health.next_step.is_some());
}

#[tokio::test]
async fn closing_and_the_end_are_told() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    write(store.as_ref(), "alice").await.unwrap();
    store.close().await.unwrap();
    let health = store.check_health().await;
    assert_eq!((health.state, health.live), (Condition::Stopped, true));
    assert_eq!(failed(&health), [CheckName::NotDraining]);
    assert_eq!(health.store.unwrap().serial.get(), 1);
}

#[tokio::test]
async fn the_checkpoint_and_what_waits_for_it_are_told() {
    let backend = Faulty::new();
    let store = opened(&backend, PATIENT).await;
    let before = store.health().store.unwrap();
    assert!(before.checkpoint_at.is_some(), "nothing was left to flush");
    write(store.as_ref(), "alice").await.unwrap();
    store.checkpoint().await.unwrap();
    let after = store.health().store.unwrap();
    assert_eq!((after.checkpoint, after.dirty_rows), (after.serial, 0));
    assert!(after.checkpoint_at >= before.checkpoint_at);
    store.close().await.unwrap();
}
