//! Audit entries that are only in blocks so far; queries merge them with those in the table.

use std::sync::Arc;

use crate::backend::KeyRange;
use crate::domain::{AuditEntry, Timestamp};
use crate::schema::{Record, RowKey};

type Entry = Arc<AuditEntry>;

/// In the order of commits, which is nearly that of keys: a reader of a page need not look at all of
/// them. Cloning takes constant time.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnflushedAudit {
    entries: imbl::Vector<Entry>,
    /// Whether the time of one is before that of its predecessor: the clock was repaired.
    goes_back: bool,
}

impl UnflushedAudit {
    /// Adds the entries of a commit.
    pub(crate) fn extend(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.goes_back |= self.entries.last().is_some_and(|last| last.at > entry.at);
            self.entries.push_back(entry);
        }
    }

    /// Removes the oldest, which were flushed.
    pub(crate) fn remove_first(&mut self, count: usize) {
        self.entries = self.entries.split_off(count.min(self.entries.len()));
        self.goes_back &= !self.entries.is_empty();
    }

    /// Those of a range in the order of their keys, ascending or descending.
    pub(crate) fn within(&self, range: &KeyRange, reverse: bool) -> Entries {
        let mut entries = Entries {
            rest: self.entries.clone(),
            range: range.clone(),
            reverse,
            sorted: Vec::new().into_iter(),
        };
        if self.goes_back {
            let all = std::mem::take(&mut entries.rest);
            entries.sort(all);
            return entries;
        }
        // A key begins with the time.
        let prefix = |at: Timestamp| RowKey::new().integer(at.as_micros());
        let is_before =
            |entry: &Entry| prefix(entry.at).after_prefix().is_some_and(|end| end <= range.from);
        let is_after = |entry: &Entry| range.to.as_ref().is_some_and(|to| prefix(entry.at) >= *to);
        let end = partition_point(&self.entries, |entry| !is_after(entry));
        entries.rest.truncate(end);
        entries.rest = entries.rest.split_off(partition_point(&entries.rest, is_before));
        entries
    }
}

/// The first index at which `is_before` does not hold any more.
fn partition_point(entries: &imbl::Vector<Entry>, is_before: impl Fn(&Entry) -> bool) -> usize {
    let (mut low, mut high) = (0, entries.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match entries.get(middle).is_some_and(&is_before) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// Entries in the order of their keys. Those of one time are sorted together.
pub(crate) struct Entries {
    rest: imbl::Vector<Entry>,
    range: KeyRange,
    reverse: bool,
    sorted: std::vec::IntoIter<(RowKey, Entry)>,
}

impl Entries {
    fn sort(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let keyed = entries.into_iter().map(|entry| (entry.key(), entry));
        let mut keyed: Vec<_> = keyed.filter(|(key, _)| self.range.contains(key)).collect();
        keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if self.reverse {
            keyed.reverse();
        }
        self.sorted = keyed.into_iter();
    }

    /// The next ones that have the same time.
    fn take_time(&mut self) -> Option<Vec<Entry>> {
        let next = |rest: &imbl::Vector<Entry>, reverse| match reverse {
            true => rest.last().map(|entry: &Entry| entry.at),
            false => rest.front().map(|entry: &Entry| entry.at),
        };
        let at = next(&self.rest, self.reverse)?;
        let mut entries = Vec::new();
        while next(&self.rest, self.reverse) == Some(at) {
            let entry = if self.reverse { self.rest.pop_back() } else { self.rest.pop_front() };
            entries.extend(entry);
        }
        Some(entries)
    }
}

impl Iterator for Entries {
    type Item = (RowKey, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.sorted.next() {
                return Some(entry);
            }
            let entries = self.take_time()?;
            self.sort(entries);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Actor, AuditId, Text};
    use crate::error::EntityKind;
    use crate::schema::Table;

    fn entry(at: i64, id: u8) -> Entry {
        Arc::new(AuditEntry::new(
            (Timestamp::from_micros(at).unwrap(), AuditId::from_bytes([id; 16])),
            Actor::system(),
            Text::new("noted").unwrap(),
            EntityKind::User,
            Text::new("somebody").unwrap(),
        ))
    }

    fn range(from: RowKey, to: Option<RowKey>) -> KeyRange {
        KeyRange { table: Table::Audit, from, to }
    }

    fn check(unflushed: &UnflushedAudit) {
        let mut keys: Vec<_> = unflushed.entries.iter().map(|entry| entry.key()).collect();
        keys.sort();
        let times = (0..12).map(|at| RowKey::new().integer(at));
        let mut ends: Vec<_> = times.chain(keys.clone()).collect();
        ends.extend(keys.iter().map(|key| key.clone().successor()));
        for from in ends.iter().cloned().chain([RowKey::new()]) {
            for to in ends.iter().cloned().map(Some).chain([None]) {
                let range = range(from.clone(), to);
                let mut expected: Vec<_> =
                    keys.iter().filter(|key| range.contains(key)).cloned().collect();
                for reverse in [false, true] {
                    let found: Vec<_> =
                        unflushed.within(&range, reverse).map(|(key, _)| key).collect();
                    assert_eq!(found, expected, "{range:?}");
                    expected.reverse();
                }
            }
        }
    }

    #[test]
    fn entries_of_a_range_come_in_the_order_of_their_keys() {
        let mut unflushed = UnflushedAudit::default();
        check(&unflushed);
        // Those of one time are not ordered by id.
        unflushed.extend([(1, 3), (1, 1), (1, 2), (4, 9), (4, 1)].map(|(at, id)| entry(at, id)));
        unflushed.extend([(4, 5), (7, 2), (9, 1), (9, 4), (9, 3)].map(|(at, id)| entry(at, id)));
        assert!(!unflushed.goes_back);
        check(&unflushed);
        unflushed.remove_first(4);
        check(&unflushed);
        // As after the repair of a clock.
        unflushed.extend([entry(2, 1), entry(3, 1)]);
        assert!(unflushed.goes_back);
        check(&unflushed);
        unflushed.remove_first(99);
        assert!(!unflushed.goes_back && unflushed.entries.is_empty());
        check(&unflushed);
    }

    #[test]
    fn a_page_takes_no_more_than_it_shows() {
        let mut unflushed = UnflushedAudit::default();
        unflushed.extend((0..1000).map(|at| entry(at, 1)));
        let mut entries = unflushed.within(&range(RowKey::new(), None), true);
        assert!(
            entries.by_ref().take(10).map(|(_, entry)| entry.at.as_micros()).eq((990..1000).rev())
        );
        assert_eq!(entries.rest.len(), 990);
    }
}
