//! Lines of the audit trail that are only in blocks so far.

use std::sync::Arc;

use crate::backend::KeyRange;
use crate::domain::{AuditEntry, Timestamp};
use crate::schema::{Record, RowKey};

type Line = Arc<AuditEntry>;

/// In the order of commits, so nearly in that of keys: a reader of a page need not look at all of
/// them. Cloning takes constant time.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnfoldedAudit {
    lines: imbl::Vector<Line>,
    /// Whether one is of an earlier moment than one before it: the clock was repaired.
    goes_back: bool,
}

impl UnfoldedAudit {
    /// Adds what a commit brought.
    pub(crate) fn extend(&mut self, lines: impl IntoIterator<Item = Line>) {
        for line in lines {
            self.goes_back |= self.lines.last().is_some_and(|last| last.at > line.at);
            self.lines.push_back(line);
        }
    }

    /// Removes the oldest, which became rows.
    pub(crate) fn remove_first(&mut self, count: usize) {
        self.lines = self.lines.split_off(count.min(self.lines.len()));
        self.goes_back &= !self.lines.is_empty();
    }

    /// Those of a range, in the order of their keys, or the other way round.
    pub(crate) fn within(&self, range: &KeyRange, reverse: bool) -> Lines {
        let mut lines = Lines {
            rest: self.lines.clone(),
            range: range.clone(),
            reverse,
            sorted: Vec::new().into_iter(),
        };
        if self.goes_back {
            let all = std::mem::take(&mut lines.rest);
            lines.sort(all);
            return lines;
        }
        // A key begins with its moment.
        let moment = |at: Timestamp| RowKey::new().integer(at.as_micros());
        let is_before =
            |line: &Line| moment(line.at).after_prefix().is_some_and(|behind| behind <= range.from);
        let is_behind = |line: &Line| range.to.as_ref().is_some_and(|to| moment(line.at) >= *to);
        let end = partition_point(&self.lines, |line| !is_behind(line));
        lines.rest.truncate(end);
        lines.rest = lines.rest.split_off(partition_point(&lines.rest, is_before));
        lines
    }
}

/// The first index at which `is_before` does not hold any more.
fn partition_point(lines: &imbl::Vector<Line>, is_before: impl Fn(&Line) -> bool) -> usize {
    let (mut low, mut high) = (0, lines.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match lines.get(middle).is_some_and(&is_before) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// Lines in the order of their keys. Those of one moment are put in order together.
pub(crate) struct Lines {
    rest: imbl::Vector<Line>,
    range: KeyRange,
    reverse: bool,
    sorted: std::vec::IntoIter<(RowKey, Line)>,
}

impl Lines {
    fn sort(&mut self, lines: impl IntoIterator<Item = Line>) {
        let keyed = lines.into_iter().map(|line| (line.key(), line));
        let mut keyed: Vec<_> = keyed.filter(|(key, _)| self.range.contains(key)).collect();
        keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        if self.reverse {
            keyed.reverse();
        }
        self.sorted = keyed.into_iter();
    }

    /// The next ones that are all of one moment.
    fn take_moment(&mut self) -> Option<Vec<Line>> {
        let next = |rest: &imbl::Vector<Line>, reverse| match reverse {
            true => rest.last().map(|line: &Line| line.at),
            false => rest.front().map(|line: &Line| line.at),
        };
        let moment = next(&self.rest, self.reverse)?;
        let mut lines = Vec::new();
        while next(&self.rest, self.reverse) == Some(moment) {
            let line = if self.reverse { self.rest.pop_back() } else { self.rest.pop_front() };
            lines.extend(line);
        }
        Some(lines)
    }
}

impl Iterator for Lines {
    type Item = (RowKey, Line);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.sorted.next() {
                return Some(line);
            }
            let lines = self.take_moment()?;
            self.sort(lines);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{AuditId, Text};
    use crate::error::Entity;
    use crate::schema::Table;

    fn line(at: i64, id: u8) -> Line {
        Arc::new(AuditEntry {
            id: AuditId::from_bytes([id; 16]),
            at: Timestamp::from_micros(at).unwrap(),
            actor: "system".parse().unwrap(),
            action: Text::new("noted").unwrap(),
            entity: Entity::User,
            subject: Text::new("somebody").unwrap(),
        })
    }

    fn range(from: RowKey, to: Option<RowKey>) -> KeyRange {
        KeyRange { table: Table::Audit, from, to }
    }

    fn check(unfolded: &UnfoldedAudit) {
        let mut keys: Vec<_> = unfolded.lines.iter().map(|line| line.key()).collect();
        keys.sort();
        let moments = (0..12).map(|at| RowKey::new().integer(at));
        let mut ends: Vec<_> = moments.chain(keys.clone()).collect();
        ends.extend(keys.iter().map(|key| key.clone().successor()));
        for from in ends.iter().cloned().chain([RowKey::new()]) {
            for to in ends.iter().cloned().map(Some).chain([None]) {
                let range = range(from.clone(), to);
                let mut expected: Vec<_> =
                    keys.iter().filter(|key| range.contains(key)).cloned().collect();
                for reverse in [false, true] {
                    let found: Vec<_> =
                        unfolded.within(&range, reverse).map(|(key, _)| key).collect();
                    assert_eq!(found, expected, "{range:?}");
                    expected.reverse();
                }
            }
        }
    }

    #[test]
    fn lines_of_a_range_come_in_the_order_of_their_keys() {
        let mut unfolded = UnfoldedAudit::default();
        check(&unfolded);
        // Within a moment the order of ids is no order of commits.
        unfolded.extend([(1, 3), (1, 1), (1, 2), (4, 9), (4, 1)].map(|(at, id)| line(at, id)));
        unfolded.extend([(4, 5), (7, 2), (9, 1), (9, 4), (9, 3)].map(|(at, id)| line(at, id)));
        assert!(!unfolded.goes_back);
        check(&unfolded);
        unfolded.remove_first(4);
        check(&unfolded);
        // As where the clock was repaired.
        unfolded.extend([line(2, 1), line(3, 1)]);
        assert!(unfolded.goes_back);
        check(&unfolded);
        unfolded.remove_first(99);
        assert!(!unfolded.goes_back && unfolded.lines.is_empty());
        check(&unfolded);
    }

    #[test]
    fn a_page_takes_up_no_more_than_it_shows() {
        let mut unfolded = UnfoldedAudit::default();
        unfolded.extend((0..1000).map(|at| line(at, 1)));
        let mut lines = unfolded.within(&range(RowKey::new(), None), true);
        assert!(lines.by_ref().take(10).map(|(_, line)| line.at.as_micros()).eq((990..1000).rev()));
        assert_eq!(lines.rest.len(), 990);
    }
}
