//! The suite, on every backend of this repository.
#![allow(missing_docs, clippy::expect_used)]

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use ghostwire_store_conformance::{Factory, LocalFiles, Opening, Place, Suite};
use ghostwire_store_core::Result;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_memory::MemoryBackend;
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

fn main() -> ExitCode {
    // The SQLite that both of them link is set up by libsql, or not at all.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(ghostwire_store_libsql::prepare_process()).expect("SQLite is not in use yet");
    Suite::new()
        .backend(Memory { shared: false })
        .backend(Memory { shared: true })
        .backend(LocalFiles::new("libsql", |path, opening: Opening| async move {
            let mut options = LibsqlOptions::new(path, opening.store);
            options.create = !opening.read_only;
            options.read_only = opening.read_only;
            options.schema = Some(opening.schema);
            Ok(Arc::new(LibsqlBackend::open(options).await?) as Arc<dyn Backend>)
        }))
        .backend(LocalFiles::new("zqlite", |path, opening: Opening| async move {
            let options = ZqliteOptions::new(path, opening.store)
                .create(!opening.read_only)
                .read_only(opening.read_only)
                .schema(opening.schema);
            Ok(Arc::new(ZqliteBackend::open(options).await?) as Arc<dyn Backend>)
        }))
        .exceptions(include_str!("exceptions.toml"))
        .main()
}

/// `shared` pretends that several processes may write to it at the same time.
#[derive(Debug)]
struct Memory {
    shared: bool,
}

#[async_trait]
impl Factory for Memory {
    fn name(&self) -> &str {
        if self.shared { "memory-shared" } else { "memory" }
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        let memory = tokio::sync::OnceCell::new();
        Ok(Box::new(Remembered { memory, shared: self.shared }))
    }
}

/// A crash loses nothing: what is in memory lives as long as this process.
#[derive(Debug, Clone)]
struct Remembered {
    memory: tokio::sync::OnceCell<MemoryBackend>,
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
