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
    frozen: VecDeque<RowChange>,
    frozen_at: Serial,
}

/// The part of a frozen set that the next commit stores.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) rows: Vec<RowChange>,
    /// Where the checkpoint moves with it.
    pub(crate) checkpoint: Option<Serial>,
}

impl FoldDebt {
    /// How many rows wait.
    pub(crate) fn len(&self) -> usize {
        self.pending.len() + self.frozen.len()
    }

    /// Whether a row still waits.
    pub(crate) fn contains(&self, table: Table, key: &RowKey) -> bool {
        self.pending.contains_key(&(table, key.clone()))
            || self.frozen.iter().any(|row| row.table == table && row.key == *key)
    }

    /// Adds what a block changed.
    pub(crate) fn add(&mut self, changes: Vec<RowChange>) {
        for change in changes {
            self.pending.insert((change.table, change.key), change.body);
        }
    }

    /// At most `limit` rows to store next. Nothing is forgotten before [`FoldDebt::stored`].
    pub(crate) fn slice(&mut self, limit: usize, serial: Serial) -> Slice {
        if limit == 0 {
            return Slice::default();
        }
        if self.frozen.is_empty() {
            if self.pending.is_empty() {
                return Slice::default();
            }
            self.freeze(serial);
        }
        let rows: Vec<_> = self.frozen.iter().take(limit).cloned().collect();
        let last = rows.len() == self.frozen.len();
        Slice { rows, checkpoint: last.then_some(self.frozen_at) }
    }

    /// Takes back what was frozen; newer changes of a row count.
    pub(crate) fn thaw(&mut self) {
        for row in self.frozen.drain(..) {
            self.pending.entry((row.table, row.key)).or_insert(row.body);
        }
    }

    /// The slice that was handed out is stored.
    pub(crate) fn stored(&mut self, slice: usize) {
        self.frozen.drain(..slice.min(self.frozen.len()));
    }

    fn freeze(&mut self, serial: Serial) {
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
        // Neighbouring keys share pages.
        rows.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        self.frozen = rows.into();
        self.frozen_at = serial;
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

    #[test]
    fn many_changes_of_a_row_are_one_and_the_last_one_counts() {
        let mut debt = FoldDebt::default();
        debt.add(vec![change(1, b"a"), change(2, b"b")]);
        debt.add(vec![change(1, b"c")]);
        assert_eq!(debt.len(), 2);
        let slice = debt.slice(9, Serial::new(2));
        assert_eq!(slice.rows.first().unwrap().body.as_deref(), Some(&b"c"[..]));
        assert_eq!(slice.checkpoint, Some(Serial::new(2)));
    }

    #[test]
    fn the_checkpoint_moves_with_the_last_slice_to_where_it_was_frozen() {
        let mut debt = FoldDebt::default();
        debt.add((0..5).map(|n| change(n, b"x")).collect());
        let slice = debt.slice(3, Serial::new(7));
        assert_eq!((slice.rows.len(), slice.checkpoint), (3, None));
        // A failed commit hands the same rows out again.
        assert_eq!(debt.slice(3, Serial::new(7)).rows, slice.rows);
        debt.stored(3);
        debt.add(vec![change(9, b"later")]);
        let slice = debt.slice(3, Serial::new(8));
        assert_eq!((slice.rows.len(), slice.checkpoint), (2, Some(Serial::new(7))));
        debt.stored(2);
        assert_eq!(debt.slice(3, Serial::new(8)).checkpoint, Some(Serial::new(8)));
    }

    #[test]
    fn thawing_does_not_bring_old_images_back() {
        let mut debt = FoldDebt::default();
        debt.add(vec![change(1, b"old"), change(2, b"old")]);
        debt.slice(1, Serial::new(1));
        debt.add(vec![change(1, b"new")]);
        debt.thaw();
        let slice = debt.slice(9, Serial::new(2));
        let bodies: Vec<_> = slice.rows.iter().map(|row| row.body.as_deref().unwrap()).collect();
        assert_eq!(bodies, [&b"new"[..], b"old"]);
        assert_eq!(slice.checkpoint, Some(Serial::new(2)));
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
