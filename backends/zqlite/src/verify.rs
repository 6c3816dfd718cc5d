//! Reading and checking everything, page by page, each of a moment of its own.
//!
//! Rows of the state and data blocks have to add up to what the head has. Commits change those that were read
//! before all of them are, so they tell the [`Tally`] what they change.

use std::ops::ControlFlow::{self, Break, Continue};

use ghostwire_store_core::chain::follow_kept;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use crate::envelope::sum_of;
use crate::head::Stored;
use crate::inner::locked;
use crate::open::{Open, read_data_block};
use crate::series::sorted_run::SortedRun;
use crate::tally::{Place, Tally};

/// Records that are read at one moment: a millisecond.
const RECORDS: usize = 256;
/// Bytes of such records, unless one has more.
const BYTES: usize = 1 << 20;

/// Who has a store open. Between two calls it may be reopened or closed.
pub(crate) trait Opened {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T>;
}

/// Reads and checks everything; one at a time. Gives the head with which records agreed.
pub(crate) fn verify(store: &impl Opened) -> Result<Stored> {
    store.with_open(|open| {
        *locked(&open.tally) = Some(Tally::default());
        open.engine.check_structure()
    })?;
    let verified = read_everything(store);
    // Once the store is closed there is nothing to end.
    drop(store.with_open(|open| {
        *locked(&open.tally) = None;
        Ok(())
    }));
    verified
}

fn read_everything(store: &impl Opened) -> Result<Stored> {
    let stored = loop {
        if let Some(stored) = store.with_open(check_page)? {
            break stored;
        }
    };
    let head = store.with_open(Open::check_journal)?;
    follow_kept(&head, |after, limit| {
        store.with_open(|open| open.blocks(&mut *open.engine.fresh_snapshot()?, after, limit))
    })?;
    store.with_open(|open| open.file.require_in_place())?;
    Ok(stored)
}

/// Says when a page is full.
#[derive(Debug, Default)]
struct Budget {
    records: usize,
    bytes: usize,
}

impl Budget {
    fn spend(&mut self, bytes: usize) -> ControlFlow<()> {
        self.records += 1;
        self.bytes += bytes;
        if self.is_spent() { Break(()) } else { Continue(()) }
    }

    fn is_spent(&self) -> bool {
        self.records >= RECORDS || self.bytes >= BYTES
    }
}

/// Reads the next page. Gives the head if it is the last one, and everything adds up to that. A page that is
/// not full is the last, so that this ends though each commit brings more.
fn check_page(open: &Open) -> Result<Option<Stored>> {
    let (mut page, mut budget, mut agreed) = (Vec::new(), Budget::default(), None);
    {
        let _nothing_is_written = open.slots()?;
        let mut tally = locked(&open.tally);
        let tally = tally.as_mut().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the store was reopened while it was verified")
        })?;
        let mut snapshot = open.engine.fresh_snapshot()?;
        let (slot, data_block) = match tally.last().cloned() {
            None => (Some(None), None),
            Some(Place::Row(slot)) => (Some(Some(slot)), None),
            Some(Place::DataBlock(table, key)) => (None, Some((table, key))),
        };
        if let Some(after) = slot {
            snapshot.every_row(after, &mut |slot, stored| {
                tally.read(Place::Row(slot), sum_of(stored));
                page.push((Place::Row(slot), stored.to_vec()));
                Ok(budget.spend(stored.len()))
            })?;
        }
        if !budget.is_spent() {
            // The last one of the page before comes again: the next has to begin behind it.
            let from = data_block.as_ref().map(|(table, key)| (*table, &key[..]));
            snapshot.every_data_block(from, &mut |table, key, stored| {
                page.push((Place::DataBlock(table, key.to_vec()), stored.to_vec()));
                if from == Some((table, key)) {
                    return Ok(Continue(()));
                }
                tally.read(Place::DataBlock(table, key.to_vec()), sum_of(stored));
                Ok(budget.spend(stored.len()))
            })?;
        }
        if !budget.is_spent() {
            let stored = open.head_of(&*snapshot)?;
            agreed = tally.is_of(&stored).then_some(stored);
            if agreed.is_none() {
                return Err(not_of(&stored));
            }
        }
    }
    let mut before = SortedRun::default();
    for (place, stored) in &page {
        match place {
            Place::Row(slot) => {
                let row = open.envelope.open_row(*slot, stored)?;
                Table::from_number(row.table)?;
                RowKey::from_bytes(row.key)?;
            }
            Place::DataBlock(table, key) => {
                before = read_data_block(&open.envelope, &before, *table, key, stored)?;
            }
        }
    }
    Ok(agreed)
}

fn not_of(stored: &Stored) -> Error {
    Error::corrupt(
        "rows or data blocks are missing, too many, or not all of one moment: a write of some got lost; \
         restore from a backup",
    )
    .with("rows", stored.rows)
    .with("data_blocks", stored.series.data_blocks)
}
