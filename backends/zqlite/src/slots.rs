//! Which slot holds which row of the state. Kept in memory; rebuilt from the rows at open.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::{Bytes, BytesMut};
use ghostwire_store_core::backend::{KeyRange, Scan};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};

use crate::engine::Snapshot;
use crate::envelope::{Envelope, Kind, Sum, Tag};
use crate::head::Stored;

/// (table, key) to slot.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    tables: BTreeMap<Table, BTreeMap<RowKey, Slot>>,
}

/// Where a row is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: u64,
    /// Of the row that it holds now.
    pub(crate) tag: Tag,
}

/// Bodies of rows that were opened to learn where they are, for whoever scans them first: the core, which
/// loads all of them. So no row is opened twice when a store is. Bodies share buffers, which go one after
/// the other as rows are taken: nodes are mostly scanned in the order of their slots.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// In the order of slots.
    bodies: Vec<(u64, Bytes)>,
    /// Behind the one that was taken last.
    next: usize,
}

impl Unread {
    /// Of one buffer.
    const BUFFER: usize = 256 << 10;

    /// The body of the row in this slot, unless it was taken.
    pub(crate) fn take(&mut self, slot: u64) -> Option<Bytes> {
        let is_next = self.bodies.get(self.next).is_some_and(|(number, _)| *number == slot);
        let index = match is_next {
            true => self.next,
            false => self.bodies.binary_search_by_key(&slot, |(number, _)| *number).ok()?,
        };
        self.next = index + 1;
        let body = std::mem::take(&mut self.bodies.get_mut(index)?.1);
        // A body is never empty: it begins with the version of its schema.
        Some(body).filter(|body| !body.is_empty())
    }
}

/// A row that is written into a slot, or taken out of its own.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) table: Table,
    pub(crate) key: RowKey,
    pub(crate) slot: Option<Slot>,
}

impl Slots {
    /// Reads and checks every row, each once.
    pub(crate) fn read(
        snapshot: &mut dyn Snapshot,
        envelope: &Envelope,
        stored: &Stored,
    ) -> Result<(Self, Unread)> {
        let (mut reader, mut unread) = (envelope.reader_of(stored), Unread::default());
        let mut buffer = BytesMut::new();
        let mut found: BTreeMap<Table, Vec<(RowKey, Slot)>> = BTreeMap::new();
        let (mut count, mut total) = (0u64, Sum::default());
        snapshot.every_row(None, &mut |number, bytes| {
            let (row, tag) = reader.open_placed(Kind::Row, number, bytes)?;
            let table = Table::from_number(row.table)?;
            if !table.is_state() || number >= stored.next_slot {
                return Err(Error::corrupt("a row lies where none can")
                    .with("table", table.name())
                    .with("slot", number));
            }
            count += 1;
            envelope.toggle(&mut total, Kind::Row, number, tag);
            let slot = Slot { number, tag };
            found.entry(table).or_default().push((RowKey::from_bytes(row.key)?, slot));
            if buffer.capacity() < row.body.len() {
                buffer = BytesMut::with_capacity(row.body.len().max(Unread::BUFFER));
            }
            buffer.extend_from_slice(row.body);
            unread.bodies.push((number, buffer.split().freeze()));
            Ok(ControlFlow::Continue(()))
        })?;
        if count != stored.rows {
            return Err(Error::corrupt("rows are missing or too many; restore from a backup")
                .with("rows", count)
                .with("expected", stored.rows));
        }
        if stored.inventory.rows != total {
            return Err(Error::corrupt(
                "rows are not all of one moment: a write of some got lost, or older ones were put back; \
                 restore from a backup",
            ));
        }
        let mut tables = BTreeMap::new();
        for (table, rows) in found {
            let count = rows.len();
            let rows: BTreeMap<RowKey, Slot> = rows.into_iter().collect();
            if rows.len() != count {
                return Err(Error::corrupt("two slots hold the same row")
                    .with("table", table.name())
                    .with("rows", count));
            }
            tables.insert(table, rows);
        }
        Ok((Self { tables }, unread))
    }

    pub(crate) fn get(&self, table: Table, key: &RowKey) -> Option<Slot> {
        self.tables.get(&table)?.get(key).copied()
    }

    /// The rows of a range, in order.
    pub(crate) fn range(
        &self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&RowKey, Slot)> {
        // `BTreeMap::range` answers an inverted range with a panic.
        let to = match &range.to {
            Some(to) => Bound::Excluded(to.max(&range.from)),
            None => Bound::Unbounded,
        };
        self.tables
            .get(&range.table)
            .into_iter()
            .flat_map(move |rows| rows.range((Bound::Included(&range.from), to)))
            .map(|(key, slot)| (key, *slot))
    }

    pub(crate) fn scan(&self, scan: &Scan) -> Vec<(RowKey, Slot)> {
        let owned = |(key, slot): (&RowKey, Slot)| (key.clone(), slot);
        let rows = self.range(&scan.range);
        if scan.reverse {
            rows.rev().take(scan.limit).map(owned).collect()
        } else {
            rows.take(scan.limit).map(owned).collect()
        }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> {
        self.tables.values().flat_map(|rows| rows.values().copied())
    }

    /// The numbers of at most `most` rows behind a row, and which row is the last of them; `None` if none
    /// is left.
    pub(crate) fn numbers(
        &self,
        after: Option<&(Table, RowKey)>,
        most: usize,
    ) -> (Vec<u64>, Option<(Table, RowKey)>) {
        let first = after.map(|(table, _)| *table);
        let tables = self.tables.iter().filter(|(table, _)| first.is_none_or(|it| **table >= it));
        let rows = tables.flat_map(|(table, rows)| {
            let from = after.filter(|(of, _)| of == table);
            let from = from.map_or(Bound::Unbounded, |(_, key)| Bound::Excluded(key));
            rows.range::<RowKey, _>((from, Bound::Unbounded)).map(move |row| (*table, row))
        });
        let (mut numbers, mut last) = (Vec::with_capacity(most), None);
        for (table, (key, slot)) in rows.take(most) {
            numbers.push(slot.number);
            last = Some((table, key));
        }
        (numbers, last.map(|(table, key)| (table, key.clone())))
    }

    /// To be called once the commit is stored.
    pub(crate) fn apply(&mut self, moves: Vec<Move>) {
        for Move { table, key, slot } in moves {
            let rows = self.tables.entry(table).or_default();
            match slot {
                Some(slot) => rows.insert(key, slot),
                None => rows.remove(&key),
            };
        }
    }
}
