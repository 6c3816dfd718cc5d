//! What a commit means for the file: which slots it writes, and with which bytes.

use std::collections::HashMap;

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::block::RowChange;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use crate::engine::{Batch, SeriesRange, Write};
use crate::envelope::Envelope;
use crate::head::Stored;
use crate::slots::{Move, Slots};

/// A commit, ready to be written.
#[derive(Debug)]
pub(crate) struct Plan<'c> {
    pub(crate) batch: Batch<'c>,
    /// What to tell the slots once it is written.
    pub(crate) moves: Vec<Move>,
    /// Where the store stands once it is written.
    pub(crate) stored: Stored,
}

pub(crate) fn plan<'c>(
    stored: &Stored,
    slots: &Slots,
    envelope: &Envelope,
    commit: &'c Commit,
) -> Result<Plan<'c>> {
    let mut after = Stored { head: stored.head.after(commit)?, ..*stored };
    let mut batch = Batch::new(envelope.seal_head(stored), Vec::new());
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
    for range in commit.prune.iter().filter(|range| !range.table.is_state()) {
        if range.to.as_ref().is_none_or(|to| *to > range.from) {
            batch.writes.push(Write::PruneSeries(SeriesRange::of(range)));
        }
    }
    for (table, key, slot) in pruned {
        if let std::collections::hash_map::Entry::Vacant(entry) = moved.entry((table, key)) {
            entry.insert(moves.len());
            moves.push(Move { table, key: key.clone(), slot: None });
            batch.writes.push(Write::DeleteRow { slot });
            after.rows = after.rows.saturating_sub(1);
        }
    }
    // Of the images of one row only the last is written. Rows in order are there once.
    let place = |row: &'c RowChange| (row.table, &row.key);
    let mut last: HashMap<(Table, &RowKey), usize> = HashMap::new();
    if !commit.rows.is_sorted_by(|a, b| place(a) < place(b)) {
        last.extend(commit.rows.iter().enumerate().map(|(index, row)| (place(row), index)));
    }
    let bytes = commit.rows.iter().map(|row| row.body.as_ref().map_or(0, |body| body.len() + 64));
    batch.bytes.reserve(bytes.sum());
    for (index, change) in commit.rows.iter().enumerate() {
        let (table, key) = (change.table, &change.key);
        if last.get(&(table, key)).is_some_and(|last| *last != index) {
            continue;
        }
        let start = batch.bytes.len();
        if !table.is_state() {
            batch.writes.push(match &change.body {
                Some(body) => {
                    envelope.seal_series(table, key, body, &mut batch.bytes);
                    let body = start..batch.bytes.len();
                    Write::PutSeries { table: table.number(), key: key.as_bytes(), body }
                }
                None => Write::DeleteSeries { table: table.number(), key: key.as_bytes() },
            });
            continue;
        }
        let present = match moved.get(&(table, key)) {
            Some(_) => None,
            None => slots.get(table, key),
        };
        match (&change.body, present) {
            (Some(body), present) => {
                let slot = match present {
                    Some(slot) => slot,
                    None => {
                        let slot = after.next_slot;
                        after.next_slot = next_slot(slot)?;
                        after.rows += 1;
                        moves.push(Move { table, key: key.clone(), slot: Some(slot) });
                        slot
                    }
                };
                envelope.seal_row(slot, table, key, body, &mut batch.bytes);
                batch.writes.push(Write::PutRow { slot, body: start..batch.bytes.len() });
            }
            (None, Some(slot)) => {
                moves.push(Move { table, key: key.clone(), slot: None });
                batch.writes.push(Write::DeleteRow { slot });
                after.rows = after.rows.saturating_sub(1);
            }
            (None, None) => {}
        }
    }
    if after.head.oldest_block > stored.head.oldest_block {
        batch.writes.push(Write::PurgeBlocks { before: after.head.oldest_block.get() });
    }
    batch.head = envelope.seal_head(&after);
    Ok(Plan { batch, moves, stored: after })
}

fn next_slot(slot: u64) -> Result<u64> {
    slot.checked_add(1)
        .filter(|next| i64::try_from(*next).is_ok())
        .ok_or_else(|| Error::corrupt("the slots are used up").with("slot", slot))
}
