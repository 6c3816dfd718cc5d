#![no_main]

use ghostwire_store_crypto::signature::{
    Attestation, PublicKeys, SignedManifest, SignerId, Successions,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = SignedManifest::parse(bytes) {
        assert_eq!(record.to_bytes(), bytes);
    }
    if let Ok(former) = Successions::parse(bytes) {
        assert_eq!(former.to_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(keys) = text.parse::<PublicKeys>() {
        assert_eq!(keys.to_string(), text);
    }
    let Ok(attestation) = text.parse::<Attestation>() else { return };
    assert_eq!(attestation.to_string().parse::<Attestation>().unwrap(), attestation);
    assert!(attestation.verify(SignerId::from_bytes([0; 32])).is_err());
});
