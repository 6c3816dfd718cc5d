//! What the fuzz targets try: whatever is accepted comes back as it was written.

#![allow(missing_docs, clippy::expect_used)]

use ghostwire_store_core::schema::Table;

use super::{data_block, directory, journal};

pub fn leaf(content: &[u8]) {
    directory::fuzz_leaf(content);
}

pub fn data_block(key: &[u8], content: &[u8]) {
    let table = Table::Metrics.number();
    let Ok(rows) = data_block::read(table, key, content) else { return };
    // Another writer may have spelled it longer, so one data block may become several, or shorter.
    let written = data_block::write(table, key, &rows, &[]);
    let again = written.iter().flat_map(|data_block| {
        let rows = data_block::read(table, &data_block.key, &data_block.content)
            .expect("what is written is read");
        rows.images()
            .map(|row| (row.key.to_vec(), row.body.map(<[u8]>::to_vec)))
            .collect::<Vec<_>>()
    });
    let before = rows.images().map(|row| (row.key.to_vec(), row.body.map(<[u8]>::to_vec)));
    assert!(again.eq(before));
}

pub fn journal_entry(content: &[u8]) {
    let Ok(entry) = journal::read(content) else { return };
    let compacted = entry.compacted.as_ref().map(|(table, key)| (*table, key.as_slice()));
    let written = journal::write(compacted, &entry.pruned, &entry.rows);
    assert_eq!(journal::read(&written).expect("what is written is read"), entry);
}
