//! The journal: what each commit did to the series, until all of it is in data blocks.
//!
//! An entry is `table u8, key, count varint, spans, sections`: up to which row of the immutable memtable
//! data blocks have (table 0: none), what was pruned, then the rows. A key is `length varint, bytes`; a span `table u8, key, flag u8, key if the flag is 1`; a section `table
//! u8, count varint, rows`.

use ghostwire_store_core::error::Result;
use ghostwire_store_core::schema::{MAX_KEY, Table, put_varint, take, take_length, take_varint};

use super::ranges::{Ranges, Span};
use super::rows::{RowsWriter, misshapen, take_row};
use super::sorted_run::SortedRun;

/// What one commit did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Immutable rows up to this key are in data blocks.
    pub(crate) compacted: Option<(u8, Vec<u8>)>,
    /// What was removed.
    pub(crate) pruned: Ranges,
    /// What was written after that.
    pub(crate) rows: SortedRun,
}

/// Writes an entry.
pub(crate) fn write(compacted: Option<(u8, &[u8])>, pruned: &Ranges, rows: &SortedRun) -> Vec<u8> {
    let mut into = Vec::with_capacity(64 + rows.weight());
    let (table, key) = compacted.unwrap_or_default();
    into.push(table);
    put_key(&mut into, key);
    put_varint(&mut into, pruned.spans().len() as u64);
    for Span { table, from, to } in pruned.spans() {
        into.push(*table);
        put_key(&mut into, from);
        into.push(u8::from(to.is_some()));
        if let Some(to) = to {
            put_key(&mut into, to);
        }
    }
    let mut from = 0;
    while let Some(first) = rows.get(from) {
        let span = rows.span(first.table, &[], None);
        into.push(first.table);
        put_varint(&mut into, span.len() as u64);
        let mut writer = RowsWriter::onto(into);
        rows.images().skip(from).take(span.len()).for_each(|image| writer.put(image));
        into = writer.bytes;
        from = span.end;
    }
    into
}

/// Reads an entry.
///
/// # Errors
/// `Corrupt` if it is cut short, a key or number is too long, or rows are not in order.
pub(crate) fn read(content: &[u8]) -> Result<Entry> {
    let mut rest = content;
    let table = take_byte(&mut rest)?;
    let key = take_key(&mut rest)?;
    let compacted = match table {
        0 if key.is_empty() => None,
        table => Some((series(table)?, key.to_vec())),
    };
    let mut spans = Vec::new();
    for _ in 0..take_length(&mut rest)? {
        let table = series(take_byte(&mut rest)?)?;
        let from = take_key(&mut rest)?.to_vec();
        let to = match take_byte(&mut rest)? {
            0 => None,
            1 => Some(take_key(&mut rest)?.to_vec()),
            _ => return Err(misshapen()),
        };
        spans.push(Span { table, from, to });
    }
    let mut rows = SortedRun::with_capacity(rest.len() / 32, rest.len());
    while let Some((&table, after)) = rest.split_first() {
        rest = after;
        if rows.last().is_some_and(|last| last.table >= table) {
            return Err(misshapen());
        }
        let count = take_varint(&mut rest)?;
        for index in 0..count {
            take_row(&mut rest, series(table)?, &[], index == 0, &mut rows)?;
        }
    }
    Ok(Entry { compacted, pruned: Ranges::new(spans), rows })
}

fn series(table: u8) -> Result<u8> {
    match Table::from_number(table)? {
        table if table.is_state() => Err(misshapen()),
        _ => Ok(table),
    }
}

fn put_key(into: &mut Vec<u8>, key: &[u8]) {
    put_varint(into, key.len() as u64);
    into.extend_from_slice(key);
}

fn take_byte(rest: &mut &[u8]) -> Result<u8> {
    take(rest, 1)?.first().copied().ok_or_else(misshapen)
}

fn take_key<'r>(rest: &mut &'r [u8]) -> Result<&'r [u8]> {
    let length = take_length(rest)?;
    if length > MAX_KEY {
        return Err(misshapen());
    }
    take(rest, length)
}
