#![no_main]

use ghostwire_store_crypto::keyring::{Identity, Keyring};
use ghostwire_store_crypto::sealing::{Kind, Opener, SealingKeys, tag_of, version_of};
use ghostwire_store_crypto::{Secret, SystemRandom};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

static KEYS: OnceLock<SealingKeys> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let keys = KEYS.get_or_init(|| {
        let root = Identity::new(Secret::take(&mut [7; 32])).unwrap();
        let root = root.recipient().clone();
        SealingKeys::new(&Keyring::first([7; 16], root, None, 0, &SystemRandom).unwrap()).unwrap()
    });
    let _ = (tag_of(bytes), version_of(bytes));
    let mut opener = Opener::new(keys);
    for kind in Kind::ALL {
        assert!(opener.open(kind, 0, &[], bytes, &mut Vec::new()).is_err());
    }
});
