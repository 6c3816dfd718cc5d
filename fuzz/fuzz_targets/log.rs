#![no_main]
//! A write-ahead log and its index, as found beside a store before an engine opens it.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ghostwire_store_sqlite::fuzzing::read(bytes));
