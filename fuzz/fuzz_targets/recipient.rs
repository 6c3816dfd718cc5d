#![no_main]

use ghostwire_store_crypto::keyring::{Identity, Recipient};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(recipient) = text.parse::<Recipient>() {
        assert_eq!(recipient.to_string(), text);
    }
    if let Ok(identity) = Identity::from_text(text) {
        assert_eq!(*identity.to_text(), text);
    }
});
