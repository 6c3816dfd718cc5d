//! What a commit means for the file: which slots it writes, and with which bytes.

use std::collections::HashMap;

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::block::RowChange;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use crate::engine::{Batch, Write};
use crate::envelope::{Envelope, sum_of};
use crate::head::{Stored, Sums};
use crate::series::memtable::Memtable;
use crate::series::{Replaced, SeriesPlan};
use crate::slots::{Move, Slot, Slots};

/// A commit, ready to be written.
#[derive(Debug)]
pub(crate) struct Plan<'c> {
    pub(crate) batch: Batch<'c>,
    /// What to tell the slots once it is written.
    pub(crate) moves: Vec<Move>,
    /// Where the store stands once it is written.
    pub(crate) stored: Stored,
    /// The memtable once it is written, if that changes.
    pub(crate) memtable: Option<Memtable>,
    /// The data blocks that it replaces.
    pub(crate) replaced: Replaced,
}

pub(crate) fn plan<'c>(
    stored: &Stored,
    slots: &Slots,
    envelope: &Envelope,
    commit: &'c Commit,
    series: Option<(SeriesPlan, Replaced)>,
) -> Result<Plan<'c>> {
    let mut after = Stored { head: stored.head.after(commit)?, ..stored.counted() };
    let mut batch = Batch::new(envelope.seal_head(stored), Vec::new());
    batch.frees = commit.frees();
    let mut sums = after.sums.unwrap_or_default();
    if let Some(block) = &commit.block {
        batch.writes.push(Write::Block {
            serial: block.serial.get(),
            frame: envelope.seal_block(block),
            body: &block.bytes,
        });
    }
    let mut moves = Vec::new();
    // What became of a row within this commit: the index of its move.
    let mut moved: HashMap<(Table, &RowKey), usize> = HashMap::new();
    let pruned: Vec<_> = commit
        .prune
        .iter()
        .filter(|range| range.table.is_state())
        .flat_map(|range| slots.range(range).map(|(key, slot)| (range.table, key, slot)))
        .collect();
    for (table, key, slot) in pruned {
        if let std::collections::hash_map::Entry::Vacant(entry) = moved.entry((table, key)) {
            entry.insert(moves.len());
            moves.push(Move { table, key: key.clone(), slot: None });
            batch.writes.push(Write::DeleteRow { slot: slot.number });
            after.rows = after.rows.saturating_sub(1);
            sums.rows = sums.rows.wrapping_sub(slot.sum);
        }
    }
    // Of the images of one row only the last is written. Rows in order are there once.
    let key = |row: &'c RowChange| (row.table, &row.key);
    let mut last: HashMap<(Table, &RowKey), usize> = HashMap::new();
    let of_state = || commit.rows.iter().filter(|row| row.table.is_state());
    if !of_state().is_sorted_by(|a, b| key(a) < key(b)) {
        last.extend(of_state().enumerate().map(|(index, row)| (key(row), index)));
    }
    let bytes = |row: &RowChange| row.body.as_ref().map_or(0, |body| body.len() + 64);
    batch.bytes.reserve(of_state().map(bytes).sum());
    for (index, change) in of_state().enumerate() {
        let (table, key) = (change.table, &change.key);
        if last.get(&(table, key)).is_some_and(|last| *last != index) {
            continue;
        }
        let start = batch.bytes.len();
        let present = match moved.get(&(table, key)) {
            Some(_) => None,
            None => slots.get(table, key),
        };
        match (&change.body, present) {
            (Some(body), present) => {
                let number = match present {
                    Some(slot) => slot.number,
                    None => {
                        let number = after.next_slot;
                        after.next_slot = next_slot(number)?;
                        after.rows += 1;
                        number
                    }
                };
                envelope.seal_row(number, table, key, body, &mut batch.bytes);
                let sum = sum_of(batch.bytes.get(start..).unwrap_or_default());
                let before = present.map_or(0, |slot| slot.sum);
                sums.rows = sums.rows.wrapping_sub(before).wrapping_add(sum);
                moves.push(Move { table, key: key.clone(), slot: Some(Slot { number, sum }) });
                let body = start..batch.bytes.len();
                batch.writes.push(Write::PutRow { slot: number, body });
            }
            (None, Some(slot)) => {
                moves.push(Move { table, key: key.clone(), slot: None });
                batch.writes.push(Write::DeleteRow { slot: slot.number });
                after.rows = after.rows.saturating_sub(1);
                sums.rows = sums.rows.wrapping_sub(slot.sum);
            }
            (None, None) => {}
        }
    }
    if after.head.oldest_block > stored.head.oldest_block {
        batch.writes.push(Write::PurgeBlocks { before: after.head.oldest_block.get() });
    }
    let (mut memtable, mut replaced) = (None, Replaced::default());
    if let Some((series, replaces)) = series {
        after.series = series.head;
        write_series(stored, &series, &replaces, envelope, &mut sums, &mut batch);
        (memtable, replaced) = (Some(series.memtable), replaces);
    }
    after.sums = after.sums.map(|_| sums);
    batch.head = envelope.seal_head(&after);
    Ok(Plan { batch, moves, stored: after, memtable, replaced })
}

fn write_series(
    stored: &Stored,
    series: &SeriesPlan,
    replaced: &Replaced,
    envelope: &Envelope,
    sums: &mut Sums,
    batch: &mut Batch<'_>,
) {
    let before = &stored.series;
    let start = batch.bytes.len();
    envelope.seal_journal(before.next, &series.entry, &mut batch.bytes);
    batch.writes.push(Write::Journal { number: before.next, body: start..batch.bytes.len() });
    for (table, key) in &series.edits.removed {
        batch.writes.push(Write::DeleteDataBlock { table: *table, key: key.clone() });
        sums.data_block_keys =
            sums.data_block_keys.wrapping_sub(envelope.sum_of_location(*table, key));
    }
    for data_block in &series.edits.put {
        let start = batch.bytes.len();
        envelope.seal_data_block(data_block, &mut batch.bytes);
        let sum = sum_of(batch.bytes.get(start..).unwrap_or_default());
        sums.data_blocks = sums.data_blocks.wrapping_add(sum);
        let (table, key) = (data_block.table, data_block.key.clone());
        if !replaced.has(table, &key) {
            let sum = envelope.sum_of_location(table, &key);
            sums.data_block_keys = sums.data_block_keys.wrapping_add(sum);
        }
        batch.writes.push(Write::PutDataBlock { table, key, body: start..batch.bytes.len() });
    }
    sums.data_blocks = sums.data_blocks.wrapping_sub(replaced.sum());
    if series.head.first > before.first {
        batch.writes.push(Write::CutJournal { before: series.head.first });
    }
}

fn next_slot(slot: u64) -> Result<u64> {
    slot.checked_add(1)
        .filter(|next| i64::try_from(*next).is_ok())
        .ok_or_else(|| Error::corrupt("the slots are used up").with("slot", slot))
}
