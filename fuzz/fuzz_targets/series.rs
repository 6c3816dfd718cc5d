#![no_main]

use ghostwire_store_zqlite::fuzzing::{data_block, head, journal_entry, leaf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    journal_entry(bytes);
    leaf(bytes);
    head(bytes);
    if let Some((length, rest)) = bytes.split_first() {
        let (key, content) = rest.split_at(usize::from(*length).min(rest.len()));
        data_block(key, content);
    }
});
