//! The memory backend, on which cases run fastest.

use crate::prelude::*;
use ghostwire_store_memory::MemoryBackend;
use tokio::sync::OnceCell;

/// Stores in memory. What they hold lives as long as this process, so a crash loses nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct InMemory {
    shared: bool,
}

impl InMemory {
    /// Of one store at a time.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Of several stores at a time, as processes have that share a database server.
    #[must_use]
    pub fn shared() -> Self {
        Self { shared: true }
    }
}

#[async_trait]
impl Factory for InMemory {
    fn name(&self) -> &str {
        if self.shared { "memory-shared" } else { "memory" }
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        Ok(Box::new(Remembered { memory: OnceCell::new(), shared: self.shared }))
    }
}

#[derive(Debug, Clone)]
struct Remembered {
    memory: OnceCell<MemoryBackend>,
    shared: bool,
}

#[async_trait]
impl Place for Remembered {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        let make = || async {
            let memory = MemoryBackend::at_schema(opening.store, opening.schema);
            if self.shared { memory.shared() } else { memory }
        };
        Ok(Arc::new(self.memory.get_or_init(make).await.clone()))
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        Ok(Box::new(self.clone()))
    }
}
