#![no_main]

use ghostwire_store::portable::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(reader) = Reader::new(bytes) {
        for item in reader {
            if item.is_err() {
                break;
            }
        }
    }
});
