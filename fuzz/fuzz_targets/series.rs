#![no_main]

use ghostwire_store_zqlite::fuzzing::{data_block, journal_entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    journal_entry(bytes);
    if let Some((length, rest)) = bytes.split_first() {
        let (key, content) = rest.split_at(usize::from(*length).min(rest.len()));
        data_block(key, content);
    }
});
