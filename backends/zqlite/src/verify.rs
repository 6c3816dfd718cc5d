//! Reading and checking everything, page by page, each of a moment of its own.
//!
//! What is in memory says which records there have to be, and with which tags. Every record of the file
//! is compared with that while nothing is written, so one that is altered, moved, older or too many shows
//! with its page. Those that were expected when it began and were not met are missing, unless they are
//! not expected any more at the end: no number is used twice.

use std::iter::Peekable;
use std::ops::ControlFlow::{self, Break, Continue};
use std::vec;

use ghostwire_store_core::chain::follow_kept;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_sqlite::Wanted;
use parking_lot::RwLockReadGuard;

use crate::engine::Snapshot;
use crate::envelope::{Kind, missing, older, unexpected};
use crate::head::Stored;
use crate::open::Open;
use crate::series::data_block;
use crate::slots::{Slot, Slots};

/// Records that are read at one moment: a millisecond.
const RECORDS: usize = 256;
/// Bytes of such records, unless one has more.
const BYTES: usize = 1 << 20;

/// Numbers of rows that are gathered at one moment, in less than a millisecond.
const NUMBERS: usize = 4096;

/// Who has a store open. Between two calls it may be reopened or closed.
pub(crate) trait Opened {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T>;

    /// Whether somebody waits for what is done with it.
    fn wanted(&self) -> Wanted {
        Wanted::default()
    }
}

/// Reads and checks everything; one at a time. Gives the head of the end.
pub(crate) fn verify(store: &impl Opened) -> Result<Stored> {
    let wanted = store.wanted();
    store.with_open(|open| open.engine.check_structure(&wanted))?;
    let mut numbers = Vec::new();
    every_number(store, |number| {
        numbers.push(number);
        Ok(())
    })?;
    let mut rows = Walk::of(numbers);
    while store.with_open(|open| check_rows(open, &mut rows))?.is_continue() {}
    let absent = rows.absent();
    if !absent.is_empty() {
        every_number(store, |number| absent.require_met(Kind::Row, number))?;
    }
    let directory = || store.with_open(|open| Ok(open.versions.current()));
    let numbers = directory()?.directory.entries().map(|entry| entry.number).collect();
    let mut chunks = Walk::of(numbers);
    while store.with_open(|open| check_chunks(open, &mut chunks))?.is_continue() {}
    let absent = chunks.absent();
    directory()?
        .directory
        .entries()
        .try_for_each(|entry| absent.require_met(Kind::Chunk, entry.number))?;
    let stored = store.with_open(Open::check_small)?;
    follow_kept(&stored.head, |after, limit| {
        store.with_open(|open| open.blocks(after, limit, true))
    })?;
    store.with_open(|open| open.file.require_in_place())?;
    Ok(stored)
}

/// The number of every row, not all of one moment. Nobody waits for more than a few of them.
fn every_number(store: &impl Opened, mut each: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let mut after = None;
    loop {
        let page = |open: &Open| {
            let slots = open.slots()?;
            let page = slots.numbers(after.as_ref(), NUMBERS);
            let_writers_in(slots);
            Ok(page)
        };
        let (numbers, last) = store.with_open(page)?;
        numbers.into_iter().try_for_each(&mut each)?;
        let Some(last) = last else { return Ok(()) };
        after = Some(last);
    }
}

/// How far the records of a kind were read, and which of those were not there that there should be.
#[derive(Debug)]
struct Walk {
    expected: Peekable<vec::IntoIter<u64>>,
    after: Option<u64>,
    /// In order.
    absent: Vec<u64>,
}

impl Walk {
    fn of(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        Self { expected: numbers.into_iter().peekable(), after: None, absent: Vec::new() }
    }

    /// The record with this number is the next that is stored.
    fn meet(&mut self, number: u64) {
        while let Some(absent) = self.expected.next_if(|expected| *expected < number) {
            self.absent.push(absent);
        }
        self.expected.next_if_eq(&number);
        self.after = Some(number);
    }

    /// All that are stored were met.
    fn absent(mut self) -> Absent {
        self.absent.extend(self.expected);
        Absent(self.absent)
    }
}

/// Records that were expected and not met, in order.
#[derive(Debug)]
struct Absent(Vec<u64>);

impl Absent {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One that is expected now is missing if it was expected before, and not met.
    fn require_met(&self, kind: Kind, number: u64) -> Result<()> {
        match self.0.binary_search(&number) {
            Ok(_) => Err(missing(kind, number)),
            Err(_) => Ok(()),
        }
    }
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

/// Reads the next page of rows. One that is not full is the last, so that this ends though each commit
/// brings more.
fn check_rows(open: &Open, walk: &mut Walk) -> Result<ControlFlow<()>> {
    let reserved = open.engine.reserve(true)?;
    // Nothing is written while they are held.
    let slots = open.slots()?;
    let mut snapshot = reserved.begin()?;
    require_own_head(open, &*snapshot)?;
    let stored = open.head_of(&*snapshot)?;
    let (mut reader, mut budget) = (open.envelope.reader_of(&stored), Budget::default());
    snapshot.every_row(walk.after, &mut |number, stored| {
        let (row, tag) = reader.open_placed(Kind::Row, number, stored)?;
        let table = Table::from_number(row.table)?;
        match slots.get(table, &RowKey::from_bytes(row.key)?) {
            Some(slot) if slot == (Slot { number, tag }) => {}
            Some(slot) if slot.number == number => return Err(older(Kind::Row, number)),
            _ => return Err(unexpected(Kind::Row, number)),
        }
        walk.meet(number);
        Ok(budget.spend(stored.len()))
    })?;
    let_writers_in(slots);
    Ok(if budget.is_spent() { Continue(()) } else { Break(()) })
}

/// Whoever waits to write is next. Otherwise the next page would be first each time, since whoever waits has
/// to be woken.
fn let_writers_in(slots: RwLockReadGuard<'_, Slots>) {
    RwLockReadGuard::unlock_fair(slots);
}

/// A data block that was read, and where the next one begins.
struct ReadBlock {
    table: u8,
    key: Vec<u8>,
    rows: Vec<u8>,
    next: Option<Vec<u8>>,
}

/// Does the same for data blocks, and reads their rows: each begins at or behind its key and ends before
/// the next one's.
fn check_chunks(open: &Open, walk: &mut Walk) -> Result<ControlFlow<()>> {
    let (mut page, mut flow) = (Vec::new(), Continue(()));
    {
        let reserved = open.engine.reserve(true)?;
        let nothing_is_written = open.slots()?;
        let version = open.versions.current();
        let mut snapshot = reserved.begin()?;
        require_own_head(open, &*snapshot)?;
        let stored = open.head_of(&*snapshot)?;
        let (mut reader, mut budget) = (open.envelope.reader_of(&stored), Budget::default());
        let directory = &version.directory;
        snapshot.every_chunk(walk.after, &mut |number, stored| {
            let (rows, tag) = reader.open_placed(Kind::Chunk, number, stored)?;
            let entry = directory
                .get(rows.table, rows.key)
                .filter(|entry| entry.number == number)
                .ok_or_else(|| unexpected(Kind::Chunk, number))?;
            if entry.tag != tag {
                return Err(older(Kind::Chunk, number));
            }
            let next = directory.following(entry).map(|next| next.key().to_vec());
            let (table, key, rows) = (rows.table, rows.key.to_vec(), rows.body.to_vec());
            page.push(ReadBlock { table, key, rows, next });
            walk.meet(number);
            Ok(budget.spend(stored.len()))
        })?;
        if !budget.is_spent() {
            flow = Break(());
        }
        let_writers_in(nothing_is_written);
    }
    for ReadBlock { table, key, rows, next } in page {
        let rows = data_block::read(table, &key, &rows)?;
        let last = rows.last().map(|last| last.key);
        if next.is_some_and(|next| last.is_some_and(|last| last >= &next[..])) {
            return Err(Error::corrupt("two data blocks overlap; restore the store from a backup")
                .with("table", table));
        }
    }
    Ok(flow)
}

/// To be called while nothing is written.
fn require_own_head(open: &Open, snapshot: &dyn Snapshot) -> Result<()> {
    match snapshot.head() == open.stored_head() {
        true => Ok(()),
        false => Err(older(Kind::Head, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_met_is_missing_unless_it_went_meanwhile() {
        let walk = |met: &[u64]| {
            let mut walk = Walk::of(vec![7, 3, 5]);
            met.iter().for_each(|number| walk.meet(*number));
            walk.absent()
        };
        let end = |absent: Absent, current: &[u64]| {
            current.iter().try_for_each(|number| absent.require_met(Kind::Row, *number))
        };
        assert!(end(walk(&[3, 5, 7, 9]), &[3, 5, 7, 9]).is_ok());
        assert!(end(walk(&[3, 7]), &[3, 7, 8]).is_ok());
        for met in [&[3, 7][..], &[3], &[5, 7], &[]] {
            assert!(end(walk(met), &[3, 5, 7]).is_err(), "{met:?}");
        }
    }
}
