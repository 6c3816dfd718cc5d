#![no_main]
//! What either end of the admin socket reads of the other.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    ghostwire_store_admin::fuzzing::frames(bytes);
    ghostwire_store_admin::fuzzing::message(bytes);
});
