#![no_main]

use ghostwire_store_zqlite::fuzzing::head;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| head(bytes));
