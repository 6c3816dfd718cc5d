#![no_main]

use ghostwire_store::command::EntityRecord;
use ghostwire_store_core::schema::{RowKey, Schema, Table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (table, key, body) = input;
    let Ok(table) = Table::from_number(table) else { return };
    let Ok(key) = RowKey::from_bytes(key) else { return };
    let _ = key.values(Schema::current().key(table));
    let _ = Schema::current().fit(table, &bytes::Bytes::copy_from_slice(body));
    if let Ok(image) = EntityRecord::decode(table, &key, body) {
        assert_eq!(image.key(), key);
        let again = EntityRecord::decode(table, &key, &image.encode()).expect("what is written is read");
        assert_eq!(again, image);
    }
});
