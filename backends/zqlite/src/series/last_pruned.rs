//! Which entry of the journal pruned a row last.

use std::collections::BinaryHeap;

use super::ranges::{Ranges, Span};

/// A table and a key.
type TableKey = (u8, Vec<u8>);

/// What many entries pruned, as pieces of the keys that each have one last entry. Made by one sweep
/// over all spans, so that many prunes cost little more than one.
#[derive(Debug, Default)]
pub(crate) struct LastPruned {
    /// Where each piece begins, and its entry; 0 for none.
    pieces: Vec<(TableKey, u64)>,
}

impl LastPruned {
    /// Of these entries, by number.
    pub(crate) fn of<'p>(entries: impl IntoIterator<Item = (u64, &'p Ranges)>) -> Self {
        let spans = |(number, pruned): (u64, &'p Ranges)| {
            pruned.spans().iter().map(move |span| (from(span), to(span), number))
        };
        let mut spans: Vec<_> = entries.into_iter().flat_map(spans).collect();
        spans.sort_unstable();
        let mut borders: Vec<_> =
            spans.iter().flat_map(|(from, to, _)| [from.clone(), to.clone()]).collect();
        borders.sort_unstable();
        borders.dedup();
        let mut spans = spans.into_iter().peekable();
        // Those that have begun, the latest entry first. Those below it that have ended stay until
        // it has, too.
        let mut begun = BinaryHeap::new();
        let mut pieces: Vec<(TableKey, u64)> = Vec::new();
        for border in borders {
            while let Some((_, to, number)) = spans.next_if(|(from, ..)| *from <= border) {
                begun.push((number, to));
            }
            while begun.peek().is_some_and(|(_, to)| *to <= border) {
                begun.pop();
            }
            let last = begun.peek().map_or(0, |(number, _)| *number);
            if pieces.last().map_or(0, |(_, before)| *before) != last {
                pieces.push((border, last));
            }
        }
        Self { pieces }
    }

    /// The last entry that pruned this row; 0 if none did.
    pub(crate) fn entry(&self, table: u8, key: &[u8]) -> u64 {
        #[cfg(test)]
        super::ranges::LOOKUPS.set(super::ranges::LOOKUPS.get() + 1);
        let begun = self.pieces.partition_point(|((of, from), _)| (*of, &from[..]) <= (table, key));
        let piece = begun.checked_sub(1).and_then(|index| self.pieces.get(index));
        piece.map_or(0, |(_, entry)| *entry)
    }
}

fn from(span: &Span) -> TableKey {
    (span.table, span.from.clone())
}

/// What is behind all keys of a table is where the next one begins.
fn to(span: &Span) -> TableKey {
    match &span.to {
        Some(to) => (span.table, to.clone()),
        None => (span.table.saturating_add(1), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_knows_the_last_entry_that_pruned_it() {
        let span = |table, from: u8, to: Option<u8>| Span {
            table,
            from: vec![from],
            to: to.map(|to| vec![to]),
        };
        let entries = [
            (1, Ranges::new([span(11, 10, Some(40)), span(12, 0, None)])),
            (2, Ranges::new([span(11, 20, Some(30))])),
            (3, Ranges::new([span(11, 25, Some(26)), span(11, 50, None)])),
            (4, Ranges::new([span(12, 5, Some(6))])),
            (9, Ranges::default()),
        ];
        let last = LastPruned::of(entries.iter().map(|(number, pruned)| (*number, pruned)));
        for table in 10..14 {
            for key in 0..=60 {
                let expected =
                    entries.iter().rev().find(|(_, ranges)| ranges.contains(table, &[key]));
                let expected = expected.map_or(0, |(number, _)| *number);
                assert_eq!(last.entry(table, &[key]), expected, "{table} {key}");
            }
        }
        assert_eq!(LastPruned::default().entry(11, &[1]), 0);
    }
}
