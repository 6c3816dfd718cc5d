//! Keyrings for stores that are made to be tested.

use std::cell::Cell;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_crypto::Random;
use ghostwire_store_crypto::keyring::{Identity, Keyring};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};
use sha2::{Digest, Sha256};

/// What it gives anybody can compute: a process that a check starts finds the same keys, without a
/// file that a check may damage. Nonces are not drawn from it.
struct Repeatable(Cell<u64>);

impl Random for Repeatable {
    fn fill(&self, bytes: &mut [u8]) -> ghostwire_store_crypto::Result<()> {
        for chunk in bytes.chunks_mut(32) {
            self.0.set(self.0.get() + 1);
            chunk
                .iter_mut()
                .zip(Sha256::digest(self.0.get().to_be_bytes()))
                .for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

/// Opens a store with the keyring of its own identity, whatever a new one would get now: a keyring lies
/// beside its store, and the refusal says which it is.
pub(crate) async fn open(options: ZqliteOptions, store: StoreId) -> Result<ZqliteBackend> {
    let error = match ZqliteBackend::open(options.clone().sealed(keyring(store))).await {
        Err(error) if *error.kind() == ErrorKind::Crypto => error,
        opened => return opened,
    };
    let own = error.context().iter().find(|(name, _)| *name == "store");
    match own.and_then(|(_, store)| store.parse().ok()) {
        Some(store) => ZqliteBackend::open(options.sealed(keyring(store))).await,
        None => Err(error),
    }
}

/// The keyring of the store with this identity, the same each time.
fn keyring(store: StoreId) -> Keyring {
    let random = Repeatable(Cell::new(0));
    let root = Identity::draw(&random).expect("an identity");
    Keyring::first(*store.as_bytes(), root.recipient().clone(), None, 0, &random)
        .expect("a keyring")
}
