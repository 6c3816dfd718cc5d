#![no_main]

use ghostwire_store_zqlite::fuzzing::leaf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| leaf(bytes));
