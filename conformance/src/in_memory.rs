//! The memory backend, on which cases run fastest.

use std::sync::Arc;

use async_trait::async_trait;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::Result;
use ghostwire_store_memory::MemoryBackend;
use tokio::sync::OnceCell;

use crate::factory::{Factory, Opening, Place};

/// Stores in memory. What they hold lives as long as this process, so a crash loses nothing.
#[derive(Debug, Clone, Copy)]
pub struct InMemory;

#[async_trait]
impl Factory for InMemory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        Ok(Box::new(Remembered(OnceCell::new())))
    }
}

#[derive(Debug, Clone)]
struct Remembered(OnceCell<MemoryBackend>);

#[async_trait]
impl Place for Remembered {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        let make = || async { MemoryBackend::at_schema(opening.store, opening.schema) };
        Ok(Arc::new(self.0.get_or_init(make).await.clone()))
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        Ok(Box::new(self.clone()))
    }
}
