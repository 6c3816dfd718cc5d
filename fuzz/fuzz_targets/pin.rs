#![no_main]

use ghostwire_store_crypto::keyring::{Identity, Keyring};
use ghostwire_store_crypto::pin::{Answer, PinKey, SLOT, newest};
use ghostwire_store_crypto::{Secret, SystemRandom};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static KEY: OnceLock<PinKey> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let key = KEY.get_or_init(|| {
        let root = Identity::new(Secret::take(&mut [7; 32])).unwrap();
        let root = root.recipient().clone();
        PinKey::new(Keyring::first([7; 16], root, None, 0, &SystemRandom).unwrap().authority())
    });
    let mut slots = [[0; SLOT]; 2];
    for (to, from) in slots.as_flattened_mut().iter_mut().zip(bytes) {
        *to = *from;
    }
    assert!(!matches!(newest(key, &slots), Ok(Some(_))));
    let Ok(line) = std::str::from_utf8(bytes) else { return };
    assert!(key.parse(line).is_err());
    let _ = Answer::parse(line);
});
