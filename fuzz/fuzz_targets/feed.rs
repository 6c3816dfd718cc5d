#![no_main]

use ghostwire_store_core::feed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = feed::decode(bytes);
});
