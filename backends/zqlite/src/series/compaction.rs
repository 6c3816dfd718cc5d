//! From the memtable into data blocks, and data blocks without what was pruned.

use std::collections::BTreeSet;
use std::sync::Arc;

use ghostwire_store_core::error::Result;

use super::data_block::{self, DataBlock};
use super::memtable::ImmutableMemtable;
use super::merge::{Merge, Source};
use super::ranges::Ranges;
use super::sorted_run::SortedRun;

/// The data blocks as they are stored.
pub(crate) trait DataBlocks {
    /// The keys of the data blocks that may have rows of `from <= key < to`, at most `limit`, in order.
    fn keys(
        &mut self,
        table: u8,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>>;

    /// The rows of the data block with this key; `Corrupt` if there is none.
    fn rows(&mut self, table: u8, key: &[u8]) -> Result<SortedRun>;
}

/// How data blocks change.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    pub(crate) removed: Vec<(u8, Vec<u8>)>,
    /// After those are removed.
    pub(crate) put: Vec<DataBlock>,
    /// How many of `put` were not there before.
    pub(crate) added: u64,
}

impl Edits {
    /// Replaces a data block by what became of its rows.
    fn replace(&mut self, table: u8, key: &[u8], data_blocks: Vec<DataBlock>, existed: bool) {
        let (count, existed) = (data_blocks.len() as u64, u64::from(existed));
        if count == 0 && existed == 1 {
            self.removed.push((table, key.to_vec()));
        }
        self.added += count.saturating_sub(existed);
        self.put.extend(data_blocks);
    }
}

/// Compacts immutable rows that weigh `credit`, or all that are left, or until data blocks of about `most` bytes
/// are to be written. Says how many of them are compacted by then, and what they weigh.
pub(crate) fn compact(
    immutable: &ImmutableMemtable,
    credit: usize,
    most: usize,
    data_blocks: &mut dyn DataBlocks,
    edits: &mut Edits,
) -> Result<(usize, usize)> {
    let (run, mut next, mut spent, mut written) = (&immutable.run, immutable.compacted, 0, 0);
    while spent < credit
        && written < most
        && let Some(first) = run.get(next)
    {
        let table = first.table;
        let mut keys = data_blocks.keys(table, first.key, None, 2)?.into_iter().peekable();
        let covering = keys.next_if(|key| key[..] <= *first.key);
        let behind = keys.next();
        let end = run.span(table, first.key, behind.as_deref()).end;
        let start = next;
        // No data block is met twice: only the last one's rows are cut off.
        while spent < credit && next < end {
            spent += run.get(next).map_or(0, |image| image.weight());
            next += 1;
        }
        let existed = covering.is_some();
        // Rows before all data blocks are in the one that begins with the table.
        let key = covering.unwrap_or_default();
        let stored = if existed { data_blocks.rows(table, &key)? } else { SortedRun::default() };
        let fresh = Source { run: run.clone(), span: start..next };
        let sources = vec![fresh.clone(), Source::whole(Arc::new(stored))];
        let rows = Merge::new(sources, false).collect(false);
        let data_blocks_written = data_block::write(table, &key, &rows, &ends_of(&fresh, &rows));
        written +=
            data_blocks_written.iter().map(|data_block| data_block.content.len()).sum::<usize>();
        edits.replace(table, &key, data_blocks_written, existed);
    }
    Ok((next, spent))
}

/// The rows that follow a group of fresh ones.
fn ends_of(fresh: &Source, rows: &SortedRun) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut fresh = fresh.span.clone().filter_map(|at| fresh.run.get(at)).peekable();
    let mut after_fresh = false;
    for (index, row) in rows.images().enumerate() {
        while fresh.next_if(|fresh| fresh.key < row.key).is_some() {}
        let is_fresh = fresh.peek().is_some_and(|fresh| fresh.key == row.key);
        if after_fresh && !is_fresh {
            ends.push(index);
        }
        after_fresh = is_fresh;
    }
    ends
}

/// Removes the rows of `ranges`: whole data blocks unread, and parts of those at the ends.
pub(crate) fn prune(
    ranges: &Ranges,
    data_blocks: &mut dyn DataBlocks,
    edits: &mut Edits,
) -> Result<()> {
    let mut whole = BTreeSet::new();
    let mut at_the_ends = BTreeSet::new();
    for span in ranges.spans() {
        let (table, to) = (span.table, span.to.as_deref());
        let keys = data_blocks.keys(table, &span.from, to, usize::MAX)?;
        let ends_within = keys.iter().skip(1).map(|_| true).chain([to.is_none()]);
        for (key, ends_within) in keys.iter().zip(ends_within) {
            if *key >= span.from && ends_within {
                whole.insert((table, key.clone()));
            } else {
                at_the_ends.insert((table, key.clone()));
            }
        }
    }
    for (table, key) in at_the_ends.difference(&whole) {
        let (table, key) = (*table, &key[..]);
        let rows = data_blocks.rows(table, key)?;
        if let Some(kept) = rows.without(|image| ranges.has(image)) {
            edits.replace(table, key, data_block::write(table, key, &kept, &[]), true);
        }
    }
    edits.removed.extend(whole);
    Ok(())
}
