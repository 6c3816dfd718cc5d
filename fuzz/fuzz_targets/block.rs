#![no_main]

use ghostwire_store_core::block::EncodedBlock;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(block) = EncodedBlock::parse(bytes::Bytes::copy_from_slice(bytes)) else { return };
    let _ = block.decode();
});
