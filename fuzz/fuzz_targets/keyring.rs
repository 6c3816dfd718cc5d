#![no_main]

use ghostwire_store_crypto::Secret;
use ghostwire_store_crypto::fuzzing::content;
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Unlock};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static IDENTITY: OnceLock<Identity> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let identity = IDENTITY.get_or_init(|| Identity::new(Secret::take(&mut [7; 32])).unwrap());
    let _ = Keyring::header(bytes);
    let _ = Keyring::open(bytes, Unlock::Identity(identity), &Expected::default());
    if let Some(written) = content(bytes) {
        assert_eq!(written, bytes);
    }
});
