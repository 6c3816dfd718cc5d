//! Data blocks: consecutive rows of one table as one blob, behind a key that they do not precede.
//!
//! A row is covered by the last data block whose key is not larger. Rows before all data blocks go into one with
//! the empty key.

use ghostwire_store_core::error::{Error, Result};

use crate::envelope::PLACE;

use super::rows::{RowsWriter, misshapen, take_row};
use super::sorted_run::SortedRun;

/// Key and content of a data block with more than one row. With what is stored beside them it has 4,000
/// bytes at most; sealed, that fills a page of SQLite, which is what a change of it costs.
const FULL: usize = 4_000 - PLACE;

/// A data block, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataBlock {
    pub(crate) table: u8,
    pub(crate) key: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

/// Writes `rows`, of one table and not deleted, as the data block with this key and those behind it.
///
/// `ends` are the rows before which a group of new ones ends. A data block that became too long is
/// split there, at the one nearest to its middle: series grow at their ends, and each then has room
/// to grow at the end of a data block. Rows with none between them fill one data block after the other.
pub(crate) fn write(table: u8, key: &[u8], rows: &SortedRun, ends: &[usize]) -> Vec<DataBlock> {
    let mut writer = RowsWriter::after(key);
    let lengths = rows.images().map(|image| {
        writer.put(image);
        writer.bytes.len()
    });
    let starts = [0].into_iter().chain(lengths).collect();
    let mut layout = Layout { key: key.len(), rows, starts, data_blocks: Vec::new() };
    layout.divide(0, rows.len(), ends);
    let firsts = layout.data_blocks;
    if firsts.len() < 2 {
        let whole = (!rows.is_empty()).then_some(writer.bytes);
        return whole
            .map(|content| DataBlock { table, key: key.to_vec(), content })
            .into_iter()
            .collect();
    }
    let lasts = firsts.iter().skip(1).copied().chain([rows.len()]);
    let data_block = |(first, last): (&usize, usize)| {
        let key = match *first {
            0 => key,
            first => rows.get(first).map_or(key, |image| image.key),
        };
        let mut writer = RowsWriter::after(key);
        (*first..last).filter_map(|row| rows.get(row)).for_each(|image| writer.put(image));
        DataBlock { table, key: key.to_vec(), content: writer.bytes }
    };
    firsts.iter().zip(lasts).map(data_block).collect()
}

/// Where data blocks begin.
struct Layout<'r> {
    /// The length of the first one's key.
    key: usize,
    rows: &'r SortedRun,
    /// Where each row begins, were all in one data block; in others they take no more.
    starts: Vec<usize>,
    data_blocks: Vec<usize>,
}

impl Layout<'_> {
    fn start(&self, row: usize) -> usize {
        self.starts.get(row).copied().unwrap_or_default()
    }

    /// Whether these rows fit into one data block.
    fn fits(&self, from: usize, to: usize) -> bool {
        let key = match from {
            0 => self.key,
            from => self.rows.get(from).map_or(0, |image| image.key.len()),
        };
        key + self.start(to) - self.start(from) <= FULL || to - from == 1
    }

    fn divide(&mut self, from: usize, to: usize, ends: &[usize]) {
        if from == to {
            return;
        }
        if self.fits(from, to) {
            return self.data_blocks.push(from);
        }
        let middle = (self.start(from) + self.start(to)) / 2;
        let within = ends.iter().copied().filter(|end| from < *end && *end < to);
        if let Some(end) = within.min_by_key(|end| self.start(*end).abs_diff(middle)) {
            self.divide(from, end, ends);
            return self.divide(end, to, ends);
        }
        let mut first = from;
        for row in from + 1..=to {
            if !self.fits(first, row) {
                self.data_blocks.push(first);
                first = row - 1;
            }
        }
        self.data_blocks.push(first);
    }
}

/// The rows of a data block.
///
/// # Errors
/// `Corrupt` if they are none, are not in order, or too many for one data block.
pub(crate) fn read(table: u8, key: &[u8], content: &[u8]) -> Result<SortedRun> {
    let rows = rows(table, key, content)?;
    let is_long = key.len() + content.len() > FULL;
    if rows.is_empty() || (is_long && rows.len() > 1) {
        return Err(Error::corrupt("a data block has no rows, or too many; restore from a backup")
            .with("rows", rows.len())
            .with("bytes", content.len()));
    }
    Ok(rows)
}

/// The rows of one that may be longer.
///
/// # Errors
/// `Corrupt` if they are not in order.
pub(crate) fn rows(table: u8, key: &[u8], content: &[u8]) -> Result<SortedRun> {
    let mut rows = SortedRun::with_capacity(content.len() / 16, content.len() * 4);
    let mut rest = content;
    while !rest.is_empty() {
        take_row(&mut rest, table, key, rows.is_empty(), &mut rows)?;
        if rows.last().is_some_and(|row| row.body.is_none()) {
            return Err(misshapen());
        }
    }
    Ok(rows)
}
