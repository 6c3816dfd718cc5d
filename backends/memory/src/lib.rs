//! A backend that keeps everything in memory and loses it with the process: for tests.
//!
//! A [`MemoryBackend`] is a handle. Its clones see the same memory, so a test "reopens" a store
//! by opening another clone; closing one handle leaves the others open.
//!
//! ```
//! use ghostwire_store_core::backend::{Backend, Commit};
//! use ghostwire_store_core::block::Serial;
//! use ghostwire_store_core::domain::StoreId;
//! use ghostwire_store_memory::MemoryBackend;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ghostwire_store_core::Result<()> {
//! let memory = MemoryBackend::new(StoreId::from_bytes([1; 16]));
//! memory.commit(&Commit::on(&memory.head().await?)).await?;
//! memory.clone().close().await?;
//! assert_eq!(memory.head().await?.serial, Serial::ZERO);
//! # Ok(())
//! # }
//! ```

mod content;
mod example;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, Head, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;

use content::Content;

pub use example::example;

/// A handle on a store in memory.
#[derive(Debug)]
pub struct MemoryBackend {
    memory: Arc<Memory>,
    closed: AtomicBool,
    counters: Mutex<BackendCounters>,
}

#[derive(Debug)]
struct Memory {
    content: Mutex<Content>,
    shared: AtomicBool,
}

impl MemoryBackend {
    /// An empty store of the current schema.
    #[must_use]
    pub fn new(store: StoreId) -> Self {
        Self::at_schema(store, Schema::current())
    }

    /// An empty store of an older schema, to be migrated.
    #[must_use]
    pub fn at_schema(store: StoreId, schema: Schema) -> Self {
        Self::on(Arc::new(Memory {
            content: Mutex::new(Content::new(store, schema)),
            shared: AtomicBool::new(false),
        }))
    }

    fn on(memory: Arc<Memory>) -> Self {
        Self { memory, closed: AtomicBool::new(false), counters: Mutex::default() }
    }

    /// Says of itself that several stores may write to this memory at the same time, each with a
    /// clone of the handle, as processes do with a database server.
    #[must_use]
    pub fn shared(self) -> Self {
        self.memory.shared.store(true, Ordering::Relaxed);
        self
    }

    fn ensure_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Unavailable, "the store is closed"));
        }
        Ok(())
    }

    fn content(&self) -> Result<MutexGuard<'_, Content>> {
        self.ensure_open()?;
        Ok(locked(&self.memory.content))
    }
}

/// Another handle on the same memory, open whether or not this one is.
impl Clone for MemoryBackend {
    fn clone(&self) -> Self {
        Self::on(Arc::clone(&self.memory))
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            name: "memory",
            engine: "memory".to_owned(),
            location: None,
            durable: false,
            shared: self.memory.shared.load(Ordering::Relaxed),
            sealed: false,
            pinned: false,
            signer: None,
            resealed: None,
            bytes: None,
            file: None,
            filesystem: None,
            clock_ahead_ms: None,
            pool: None,
            log: None,
            counters: *locked(&self.counters),
        }
    }

    async fn head(&self) -> Result<Head> {
        Ok(self.content()?.head())
    }

    async fn revision(&self) -> Result<Option<u64>> {
        Ok(Some(self.content()?.revision()))
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.content()?.migrate(target)
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let page = self.content()?.scan(&scan);
        locked(&self.counters).scans += 1;
        Ok(page)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.content()?.blocks(after, limit)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let outcome = self.content().and_then(|mut content| content.commit(commit));
        let stored = outcome.is_ok().then_some(commit.rows.len());
        locked(&self.counters).count(commit, stored);
        outcome.map_err(|error| {
            tracing::debug!(%error, "commit failed");
            error.during("memory.commit")
        })
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.content()?.head().require_epoch(epoch).map_err(|error| error.during("memory.probe"))
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.content()?.adopt(head).map_err(|error| error.during("memory.adopt"))
    }

    async fn reopen(&self) -> Result<Head> {
        self.head().await
    }

    async fn verify(&self) -> Result<()> {
        let (head, blocks) = self.content()?.chain();
        content::verify(&head, blocks)
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

/// A thread that panicked cannot have left half a change: changes are checked first and then made
/// without a step that fails.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
