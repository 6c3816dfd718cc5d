//! What opening a store reads of its blocks.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::error::Result;
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::open;
use ghostwire_store_core::options::{StoreOptions, WriterOptions};
use ghostwire_store_memory::MemoryBackend;

/// Counts the blocks that are read.
#[derive(Debug)]
struct Counting {
    inner: MemoryBackend,
    blocks: AtomicUsize,
}

#[async_trait]
impl Layer for Counting {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let blocks = self.inner.blocks(after, limit).await?;
        self.blocks.fetch_add(blocks.len(), Ordering::SeqCst);
        Ok(blocks)
    }
}

/// It may have a GiB of them.
#[tokio::test]
async fn what_is_kept_for_a_consumer_is_not_read_when_a_store_is_opened() {
    const USERS: usize = 500;
    let memory = MemoryBackend::new(StoreId::from_bytes([7; 16])).shared();
    let options = || StoreOptions {
        writer: WriterOptions { retain_block_bytes: 0, ..WriterOptions::default() },
        ..StoreOptions::default()
    };
    let store = open(Arc::new(memory.clone()), options()).await.unwrap();
    store.consumers().register("mirror".parse().unwrap(), 1 << 30).await.unwrap();
    for number in 0..USERS {
        let user = NewUser::local(format!("user-{number}").parse().unwrap());
        store.users().create(user).await.unwrap();
    }
    let counting = Arc::new(Counting { inner: memory.clone(), blocks: AtomicUsize::new(0) });
    open(counting.clone(), options()).await.unwrap();
    assert_eq!(memory.blocks(Serial::ZERO, usize::MAX).await.unwrap().len(), USERS);
    let read = counting.blocks.load(Ordering::SeqCst);
    assert!(read < 100, "{read}");
}
