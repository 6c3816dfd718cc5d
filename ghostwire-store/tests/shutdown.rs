//! Ending in order: by signals, within a deadline. One test only, since signals are the whole process's.
#![cfg(all(feature = "serve", feature = "memory", unix))]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store::domain::{NewUser, StoreId};
use ghostwire_store::shutdown::{Signal, Signals, drain, drain_on_signal};
use ghostwire_store::{ErrorKind, Result, Store};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::open;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_memory::MemoryBackend;
use rustix::process::{getpid, kill_process};
use tokio::sync::Semaphore;

const LONG: Duration = Duration::from_secs(120);

/// Closing waits for a permit.
#[derive(Debug)]
struct Slow {
    memory: MemoryBackend,
    permits: Semaphore,
}

#[async_trait]
impl Layer for Slow {
    fn inner(&self) -> &dyn Backend {
        &self.memory
    }

    async fn close(&self) -> Result<()> {
        self.permits.acquire().await.unwrap().forget();
        self.memory.close().await
    }
}

async fn opened() -> (Arc<Slow>, Arc<dyn Store>) {
    let memory = MemoryBackend::new(StoreId::from_bytes([7; 16]));
    let slow = Arc::new(Slow { memory, permits: Semaphore::new(0) });
    let store = open(slow.clone(), StoreOptions::default()).await.unwrap();
    store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap();
    (slow, store)
}

fn raise(signal: rustix::process::Signal) {
    kill_process(getpid(), signal).unwrap();
}

#[tokio::test]
async fn signals_end_a_store_in_order() {
    use rustix::process::Signal as Raised;
    let mut signals = Signals::listen().unwrap();
    raise(Raised::HUP);
    assert_eq!(signals.next().await, Signal::Reload);
    raise(Raised::TERM);
    assert_eq!(signals.next().await, Signal::End("SIGTERM"));
    // One that is no request to end is passed by.
    raise(Raised::HUP);
    raise(Raised::INT);
    assert_eq!(signals.end().await, "SIGINT");

    let (slow, store) = opened().await;
    slow.permits.add_permits(1);
    raise(Raised::TERM);
    assert_eq!(drain_on_signal(&mut signals, store.as_ref(), LONG).await.unwrap(), "SIGTERM");
    let error = store.checkpoint().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);

    // Whoever cannot wait asks twice.
    let (slow, store) = opened().await;
    raise(Raised::TERM);
    let error = {
        let ended = drain_on_signal(&mut signals, store.as_ref(), LONG);
        let again = async {
            while !store.health().checks.iter().any(|check| check.reason.is_some()) {
                tokio::task::yield_now().await;
            }
            raise(Raised::TERM);
        };
        tokio::join!(ended, again).0.unwrap_err()
    };
    assert!(error.to_string().contains("once more"), "{error}");
    slow.permits.add_permits(1);
    store.close().await.unwrap();

    let (slow, store) = opened().await;
    let error = drain(store.as_ref(), Duration::from_millis(10)).await.unwrap_err();
    assert!(error.to_string().contains("longer than it may"), "{error}");
    // It goes on all the same.
    slow.permits.add_permits(1);
    store.close().await.unwrap();
}
