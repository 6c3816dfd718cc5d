//! The dirty rows: what blocks changed and the tables do not have yet.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::block::{ChangeKind, RowChange, Serial};
use crate::schema::{RowKey, Table};

/// The rows that changed since the last checkpoint. A row that changed many times is here once.
///
/// A flush works on a frozen set, slice by slice; rows that change meanwhile gather for the next one.
/// When the last slice of a set is stored, the checkpoint advances to the block at which the set was
/// frozen.
#[derive(Debug, Default)]
pub(crate) struct FlushBacklog {
    dirty: HashMap<(Table, RowKey), Option<Bytes>>,
    /// Entries of the audit trail; each is written once.
    dirty_audit: Vec<RowChange>,
    /// How many audit entries are only in blocks, or in blocks that the checkpoint has not reached.
    audit: usize,
    /// The last block that was added.
    newest: Serial,
    frozen: VecDeque<RowChange>,
    frozen_audit: usize,
    frozen_at: Serial,
}

/// The part of a frozen set that the next commit flushes.
#[derive(Debug, Default)]
pub(crate) struct FlushSlice {
    pub(crate) rows: Vec<RowChange>,
    /// Only with the last slice of a set.
    pub(crate) advance: Option<Advance>,
}

/// How a commit advances the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advance {
    /// The new checkpoint.
    pub(crate) to: Serial,
    /// How many audit entries are in the tables from then on.
    pub(crate) audit: usize,
}

impl FlushBacklog {
    /// How many rows are dirty.
    pub(crate) fn len(&self) -> usize {
        self.dirty.len() + self.dirty_audit.len() + self.frozen.len()
    }

    /// Adds what a block changed.
    pub(crate) fn add(&mut self, serial: Serial, changes: Vec<RowChange>, audit: Vec<RowChange>) {
        self.newest = serial;
        self.audit += audit.len();
        self.dirty_audit.extend(audit);
        for change in changes {
            self.dirty.insert((change.table, change.key), change.body);
        }
    }

    /// Takes at most `limit` rows to flush next. If they are not stored they have to come back by
    /// [`FlushBacklog::put_back`].
    pub(crate) fn take(&mut self, limit: usize) -> FlushSlice {
        if limit == 0 {
            return FlushSlice::default();
        }
        if self.frozen.is_empty() {
            if self.len() == 0 {
                return FlushSlice::default();
            }
            self.freeze();
        }
        let rows: Vec<_> = self.frozen.drain(..limit.min(self.frozen.len())).collect();
        let advance = self
            .frozen
            .is_empty()
            .then(|| Advance { to: self.frozen_at, audit: std::mem::take(&mut self.frozen_audit) });
        FlushSlice { rows, advance }
    }

    /// A slice was not stored; the next one begins with its rows.
    pub(crate) fn put_back(&mut self, rows: &[RowChange], advance: Option<Advance>) {
        if let Some(advance) = advance {
            // Its set may have been followed by another one.
            self.unfreeze();
            self.frozen_at = advance.to;
            self.frozen_audit = advance.audit;
        }
        rows.iter().rev().for_each(|row| self.frozen.push_front(row.clone()));
    }

    /// Merges the frozen set with what changed since, which is newer.
    pub(crate) fn unfreeze(&mut self) {
        self.audit += std::mem::take(&mut self.frozen_audit);
        for row in self.frozen.drain(..) {
            if row.table == Table::Audit {
                self.dirty_audit.push(row);
            } else {
                self.dirty.entry((row.table, row.key)).or_insert(row.body);
            }
        }
    }

    fn freeze(&mut self) {
        let mut rows: Vec<_> = self
            .dirty
            .drain()
            .map(|((table, key), body)| RowChange {
                table,
                kind: if body.is_some() { ChangeKind::Updated } else { ChangeKind::Deleted },
                key,
                body,
            })
            .collect();
        rows.append(&mut self.dirty_audit);
        // Neighbouring keys share pages.
        rows.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        self.frozen = rows.into();
        self.frozen_at = self.newest;
        self.frozen_audit = std::mem::take(&mut self.audit);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn change(n: u8, body: &'static [u8]) -> RowChange {
        RowChange {
            table: Table::Users,
            kind: ChangeKind::Created,
            key: RowKey::from_bytes(&[n]).unwrap(),
            body: Some(Bytes::from_static(body)),
        }
    }

    fn entry(n: u8) -> RowChange {
        RowChange { table: Table::Audit, ..change(n, b"entry") }
    }

    fn backlog_of(serial: u64, changes: Vec<RowChange>) -> FlushBacklog {
        let mut backlog = FlushBacklog::default();
        backlog.add(Serial::new(serial), changes, Vec::new());
        backlog
    }

    fn advance_of(slice: &FlushSlice) -> Option<u64> {
        slice.advance.map(|advance| advance.to.get())
    }

    #[test]
    fn many_changes_of_a_row_are_one_and_the_last_one_counts() {
        let mut backlog = backlog_of(1, vec![change(1, b"a"), change(2, b"b")]);
        backlog.add(Serial::new(2), vec![change(1, b"c")], Vec::new());
        assert_eq!(backlog.len(), 2);
        let slice = backlog.take(9);
        assert_eq!(slice.rows.first().unwrap().body.as_deref(), Some(&b"c"[..]));
        assert_eq!(advance_of(&slice), Some(2));
    }

    #[test]
    fn the_last_slice_advances_the_checkpoint_to_where_its_set_was_frozen() {
        let mut backlog = backlog_of(7, (0..5).map(|n| change(n, b"x")).collect());
        let slice = backlog.take(3);
        assert_eq!((slice.rows.len(), advance_of(&slice)), (3, None));
        // After a failed commit the same rows come again.
        backlog.put_back(&slice.rows, slice.advance);
        assert_eq!(backlog.len(), 5);
        assert_eq!(backlog.take(3).rows, slice.rows);
        backlog.add(Serial::new(8), vec![change(9, b"later")], Vec::new());
        let last = backlog.take(3);
        assert_eq!((last.rows.len(), advance_of(&last)), (2, Some(7)));
        backlog.put_back(&last.rows, last.advance);
        let last = backlog.take(3);
        assert_eq!((last.rows.len(), advance_of(&last)), (2, Some(7)));
        assert_eq!(advance_of(&backlog.take(3)), Some(8));
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn the_last_slice_says_how_many_audit_entries_were_flushed() {
        let mut backlog = FlushBacklog::default();
        backlog.add(Serial::new(1), vec![change(1, b"x")], vec![entry(1), entry(2)]);
        assert_eq!(backlog.take(2).advance, None);
        backlog.add(Serial::new(2), Vec::new(), vec![entry(3)]);
        // One of the first two is flushed by now, but its set is not complete.
        backlog.unfreeze();
        let advance = backlog.take(9).advance.unwrap();
        assert_eq!((advance.to.get(), advance.audit), (2, 3));
    }

    #[test]
    fn unfreezing_does_not_bring_old_rows_back() {
        let mut backlog = backlog_of(1, vec![change(1, b"old"), change(2, b"old")]);
        let slice = backlog.take(1);
        backlog.put_back(&slice.rows, slice.advance);
        backlog.add(Serial::new(2), vec![change(1, b"new")], Vec::new());
        backlog.unfreeze();
        let slice = backlog.take(9);
        let bodies: Vec<_> = slice.rows.iter().map(|row| row.body.as_deref().unwrap()).collect();
        assert_eq!(bodies, [&b"new"[..], b"old"]);
        assert_eq!(advance_of(&slice), Some(2));
    }
}
