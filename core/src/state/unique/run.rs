//! An immutable table of tags and their holders, in the order of the tags.

use std::cmp::Ordering;

/// The tag of a hash: never [`EMPTY`], and even, since the lowest bit says that it is gone.
const GONE: u64 = 1;
/// What is in a place that nothing is in.
const EMPTY: u64 = 0;

/// What a table remembers of a hash.
pub(super) fn tag(hash: u64) -> u64 {
    (hash & !GONE).max(2)
}

/// A tag, and who holds it; `None` says that an older table's entry no longer counts.
pub(super) type Entry<I> = (u64, Option<I>);

/// Entries lie where their tag says, or to the right of that, so that tables are merged from left
/// to right, and an entry is found next to where it is looked for: linear probing over sorted
/// entries. Three quarters of the places are taken.
#[derive(Debug)]
pub(super) struct Run<I> {
    /// A tag, its lowest bit set if it is gone, or [`EMPTY`]; and the holder beside it, so that what
    /// is found costs one miss of the processor's caches.
    entries: Box<[(u64, I)]>,
    len: usize,
    /// Over how many places the tags are spread.
    places: u64,
}

impl<I: Copy> Run<I> {
    /// Of `most` entries at most, in the order of their tags, which are distinct.
    pub(super) fn of(entries: impl Iterator<Item = Entry<I>>, most: usize, nobody: I) -> Self {
        let room = most + most / 3 + 1;
        let places = room as u64;
        // Entries at the right end may be pushed beyond it.
        let mut placed = Vec::with_capacity(room + 8);
        let mut len = 0;
        for (tag, holder) in entries {
            let home = place_of(tag, places);
            if home > placed.len() {
                placed.resize(home, (EMPTY, nobody));
            }
            let gone = if holder.is_some() { 0 } else { GONE };
            placed.push((tag | gone, holder.unwrap_or(nobody)));
            len += 1;
        }
        Self { entries: placed.into(), len, places }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What this table says of a tag: nothing, that it is gone, or who holds it.
    pub(super) fn get(&self, wanted: u64) -> Option<Option<I>> {
        let home = place_of(wanted, self.places);
        let mut entries = self.entries.get(home..)?.iter();
        let (found, holder) = entries.find(|(tag, _)| *tag == EMPTY || *tag >= wanted)?;
        if *found & !GONE != wanted {
            return None;
        }
        Some((*found & GONE == 0).then_some(*holder))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<I>> + '_ {
        self.entries
            .iter()
            .filter(|(tag, _)| *tag != EMPTY)
            .map(|(tag, holder)| (tag & !GONE, (tag & GONE == 0).then_some(*holder)))
    }
}

/// Keeps the order of the tags.
fn place_of(tag: u64, places: u64) -> usize {
    let place = (u128::from(tag) * u128::from(places)) >> 64;
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// The entries of both, in the order of their tags; where both have one, the newer's.
pub(super) fn merged<I: Copy>(
    newer: impl Iterator<Item = Entry<I>>,
    older: impl Iterator<Item = Entry<I>>,
) -> impl Iterator<Item = Entry<I>> {
    let (mut newer, mut older) = (newer.peekable(), older.peekable());
    std::iter::from_fn(move || {
        let order = match (newer.peek(), older.peek()) {
            (Some((new, _)), Some((old, _))) => new.cmp(old),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => newer.next(),
            Ordering::Greater => older.next(),
            Ordering::Equal => {
                older.next();
                newer.next()
            }
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(entries: &[Entry<u8>]) -> Run<u8> {
        Run::of(entries.iter().copied(), entries.len(), 0)
    }

    #[test]
    fn entries_are_found_where_they_were_pushed_to() {
        // All want the first place, or the last one.
        for base in [2, u64::MAX - 31] {
            let entries: Vec<_> =
                (0..15u8).map(|n| (tag(base + 2 * u64::from(n)), Some(n))).collect();
            let run = run(&entries);
            assert_eq!(run.entries().collect::<Vec<_>>(), entries);
            for (tag, holder) in &entries {
                assert_eq!(run.get(*tag), Some(*holder));
            }
            assert_eq!(run.get(1 << 40), None);
        }
    }

    #[test]
    fn what_is_gone_is_not_what_was_never_there() {
        let run = run(&[(4, Some(1)), (6, None)]);
        assert_eq!(
            (run.get(2), run.get(4), run.get(6), run.get(8)),
            (None, Some(Some(1)), Some(None), None)
        );
        assert_eq!(run.len(), 2);
        assert_eq!(Run::of(std::iter::empty(), 0, 0u8).get(4), None);
    }

    #[test]
    fn of_two_entries_for_one_tag_the_newer_counts() {
        let newer = [(2, Some(1)), (6, None), (8, Some(2))];
        let older = [(4, Some(3)), (6, Some(4)), (8, Some(5)), (10, Some(6))];
        let merged: Vec<_> = merged(newer.into_iter(), older.into_iter()).collect();
        let expected = [(2, Some(1)), (4, Some(3)), (6, None), (8, Some(2)), (10, Some(6))];
        assert_eq!(merged, expected);
    }
}
