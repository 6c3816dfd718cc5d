//! Where the examples of the documentation run.

use std::sync::Arc;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::secrets::HashKey;
use ghostwire_store_core::{Store, open};

use crate::MemoryBackend;

/// Runs an example on an empty store.
///
/// # Errors
/// Those of the example.
#[doc(hidden)]
pub fn example(run: impl AsyncFnOnce(Arc<dyn Store>) -> Result<()>) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the runtime cannot be started").because(error)
        })?;
    runtime.block_on(async {
        let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
        let hash_key = Some(Arc::new(HashKey::new([7; 32]).into()));
        let options = StoreOptions { hash_key, ..StoreOptions::default() };
        run(open(backend, options).await?).await
    })
}
