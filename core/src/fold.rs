//! What still has to be folded from blocks into rows, and how much of it when.

use std::collections::HashMap;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::block::{ChangeKind, RowChange, Serial};
use crate::schema::{RowKey, Table};

/// The rows that changed since the last checkpoint. A row that changed many times is here once.
///
/// Folding works on a frozen set, slice by slice; changes that arrive meanwhile wait in the next
/// one. When the last slice of a frozen set is stored, the checkpoint moves to its serial.
#[derive(Debug, Default)]
pub(crate) struct FoldDebt {
    pending: HashMap<(Table, RowKey), Option<Bytes>>,
    /// Lines of the audit trail; each is written once.
    pending_audit: Vec<RowChange>,
    /// How many lines wait in blocks, whether or not some of them are rows already.
    audit: usize,
    /// The last block that was added.
    newest: Serial,
    frozen: VecDeque<RowChange>,
    frozen_audit: usize,
    frozen_at: Serial,
}

/// The part of a frozen set that the next commit stores.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) rows: Vec<RowChange>,
    /// What the rows hold once it is stored; only behind the last slice of a set.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Up to where the rows hold everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) serial: Serial,
    /// How many lines of the audit trail become rows that were only in blocks before.
    pub(crate) audit: usize,
}

impl FoldDebt {
    /// How many rows wait.
    pub(crate) fn len(&self) -> usize {
        self.pending.len() + self.pending_audit.len() + self.frozen.len()
    }

    /// Adds what a block changed.
    pub(crate) fn add(&mut self, serial: Serial, changes: Vec<RowChange>, audit: Vec<RowChange>) {
        self.newest = serial;
        self.audit += audit.len();
        self.pending_audit.extend(audit);
        for change in changes {
            self.pending.insert((change.table, change.key), change.body);
        }
    }

    /// Hands out at most `limit` rows to store next. Those that were not stored have to come back
    /// by [`FoldDebt::take_back`].
    pub(crate) fn slice(&mut self, limit: usize) -> Slice {
        if limit == 0 {
            return Slice::default();
        }
        if self.frozen.is_empty() {
            if self.len() == 0 {
                return Slice::default();
            }
            self.freeze();
        }
        let rows: Vec<_> = self.frozen.drain(..limit.min(self.frozen.len())).collect();
        let checkpoint = self.frozen.is_empty().then(|| Checkpoint {
            serial: self.frozen_at,
            audit: std::mem::take(&mut self.frozen_audit),
        });
        Slice { rows, checkpoint }
    }

    /// A slice was not stored; the next one begins with its rows.
    pub(crate) fn take_back(&mut self, rows: &[RowChange], checkpoint: Option<Checkpoint>) {
        if let Some(checkpoint) = checkpoint {
            // Its set may have been followed by another one.
            self.thaw();
            self.frozen_at = checkpoint.serial;
            self.frozen_audit = checkpoint.audit;
        }
        rows.iter().rev().for_each(|row| self.frozen.push_front(row.clone()));
    }

    /// Takes back what was frozen; newer changes of a row count.
    pub(crate) fn thaw(&mut self) {
        self.audit += std::mem::take(&mut self.frozen_audit);
        for row in self.frozen.drain(..) {
            if row.table == Table::Audit {
                self.pending_audit.push(row);
            } else {
                self.pending.entry((row.table, row.key)).or_insert(row.body);
            }
        }
    }

    fn freeze(&mut self) {
        let mut rows: Vec<_> = self
            .pending
            .drain()
            .map(|((table, key), body)| RowChange {
                table,
                kind: if body.is_some() { ChangeKind::Updated } else { ChangeKind::Deleted },
                key,
                body,
            })
            .collect();
        rows.append(&mut self.pending_audit);
        // Neighbouring keys share pages.
        rows.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        self.frozen = rows.into();
        self.frozen_at = self.newest;
        self.frozen_audit = std::mem::take(&mut self.audit);
    }
}

/// How many rows to fold along with a group that changed `arriving` rows.
///
/// Below half the limit nothing, so that changes of one row can meet; above it one and a half
/// times what arrives, so that the debt shrinks; above the limit four times.
pub(crate) fn slice_size(debt: usize, arriving: usize, limit: usize, folding: bool) -> usize {
    const LEAST: usize = 256;
    if debt > limit {
        (arriving * 4).max(4 * LEAST)
    } else if debt > limit / 2 || (folding && debt > limit / 8) {
        (arriving + arriving / 2).max(LEAST)
    } else {
        0
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

    fn line(n: u8) -> RowChange {
        RowChange { table: Table::Audit, ..change(n, b"line") }
    }

    fn debt_of(serial: u64, changes: Vec<RowChange>) -> FoldDebt {
        let mut debt = FoldDebt::default();
        debt.add(Serial::new(serial), changes, Vec::new());
        debt
    }

    fn serial_of(slice: &Slice) -> Option<u64> {
        slice.checkpoint.map(|checkpoint| checkpoint.serial.get())
    }

    #[test]
    fn many_changes_of_a_row_are_one_and_the_last_one_counts() {
        let mut debt = debt_of(1, vec![change(1, b"a"), change(2, b"b")]);
        debt.add(Serial::new(2), vec![change(1, b"c")], Vec::new());
        assert_eq!(debt.len(), 2);
        let slice = debt.slice(9);
        assert_eq!(slice.rows.first().unwrap().body.as_deref(), Some(&b"c"[..]));
        assert_eq!(serial_of(&slice), Some(2));
    }

    #[test]
    fn the_checkpoint_moves_with_the_last_slice_to_where_it_was_frozen() {
        let mut debt = debt_of(7, (0..5).map(|n| change(n, b"x")).collect());
        let slice = debt.slice(3);
        assert_eq!((slice.rows.len(), serial_of(&slice)), (3, None));
        // A failed commit hands the same rows out again.
        debt.take_back(&slice.rows, slice.checkpoint);
        assert_eq!(debt.len(), 5);
        assert_eq!(debt.slice(3).rows, slice.rows);
        debt.add(Serial::new(8), vec![change(9, b"later")], Vec::new());
        let last = debt.slice(3);
        assert_eq!((last.rows.len(), serial_of(&last)), (2, Some(7)));
        debt.take_back(&last.rows, last.checkpoint);
        let last = debt.slice(3);
        assert_eq!((last.rows.len(), serial_of(&last)), (2, Some(7)));
        assert_eq!(serial_of(&debt.slice(3)), Some(8));
        assert_eq!(debt.len(), 0);
    }

    #[test]
    fn the_last_slice_says_how_many_audit_lines_became_rows() {
        let mut debt = FoldDebt::default();
        debt.add(Serial::new(1), vec![change(1, b"x")], vec![line(1), line(2)]);
        assert_eq!(debt.slice(2).checkpoint, None);
        debt.add(Serial::new(2), Vec::new(), vec![line(3)]);
        // One of the first two is a row by now, but its set is not complete.
        debt.thaw();
        let checkpoint = debt.slice(9).checkpoint.unwrap();
        assert_eq!((checkpoint.serial.get(), checkpoint.audit), (2, 3));
    }

    #[test]
    fn thawing_does_not_bring_old_images_back() {
        let mut debt = debt_of(1, vec![change(1, b"old"), change(2, b"old")]);
        let slice = debt.slice(1);
        debt.take_back(&slice.rows, slice.checkpoint);
        debt.add(Serial::new(2), vec![change(1, b"new")], Vec::new());
        debt.thaw();
        let slice = debt.slice(9);
        let bodies: Vec<_> = slice.rows.iter().map(|row| row.body.as_deref().unwrap()).collect();
        assert_eq!(bodies, [&b"new"[..], b"old"]);
        assert_eq!(serial_of(&slice), Some(2));
    }

    #[test]
    fn the_debt_stays_bounded_under_any_steady_load() {
        for arriving in [1, 100, 2_000] {
            let (mut debt, limit, mut most, mut folding) = (0usize, 10_000, 0, false);
            for _ in 0..20_000 {
                let slice = slice_size(debt, arriving, limit, folding);
                folding = slice > 0;
                debt = (debt + arriving).saturating_sub(slice);
                most = most.max(debt);
            }
            assert!(most <= limit + 4 * arriving, "{arriving}: {most}");
        }
    }
}
