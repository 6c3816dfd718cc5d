//! What the fuzz targets try: whatever is accepted comes back as it was written.

#![allow(missing_docs, clippy::expect_used)]

use ghostwire_store_core::schema::Table;

use super::{chunk, journal};

pub fn chunk(key: &[u8], content: &[u8]) {
    let table = Table::Metrics.number();
    let Ok(rows) = chunk::read(table, key, content) else { return };
    // Another writer may have spelled it longer, so one chunk may become several, or shorter.
    let written = chunk::write(table, key, &rows, &[]);
    let again = written.iter().flat_map(|chunk| {
        let rows = chunk::read(table, &chunk.key, &chunk.content).expect("what is written is read");
        rows.images()
            .map(|row| (row.key.to_vec(), row.body.map(<[u8]>::to_vec)))
            .collect::<Vec<_>>()
    });
    let before = rows.images().map(|row| (row.key.to_vec(), row.body.map(<[u8]>::to_vec)));
    assert!(again.eq(before));
}

pub fn journal_entry(content: &[u8]) {
    let Ok(entry) = journal::read(content) else { return };
    let folded = entry.folded.as_ref().map(|(table, key)| (*table, key.as_slice()));
    let written = journal::write(folded, &entry.pruned, &entry.rows);
    assert_eq!(journal::read(&written).expect("what is written is read"), entry);
}
