//! The directory against a plain map.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use super::*;

/// Numbers that look random (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn key(&mut self) -> Vec<u8> {
        let series = vec![[0, 7, 255][self.roll(3) as usize]; 16];
        match self.roll(30) {
            0 => Vec::new(),
            1 => series,
            2 => [series, vec![1; self.roll(490) as usize]].concat(),
            _ => [series, self.roll(3_000).to_be_bytes().to_vec()].concat(),
        }
    }
}

type Map = BTreeMap<(u8, Vec<u8>), (u64, Tag)>;

/// A directory, what it should hold, and its leaves as a file would have them.
#[derive(Default)]
struct Both {
    directory: Directory,
    map: Map,
    leaves: BTreeMap<u64, (Tag, Vec<u8>)>,
    next_leaf: u64,
    tags: u8,
}

impl Both {
    fn change(&mut self, changes: Changes) -> usize {
        for (place, entry) in &changes {
            match entry {
                Some(entry) => self.map.insert(place.clone(), *entry),
                None => self.map.remove(place),
            };
        }
        let (tags, mut sealed) = (&mut self.tags, BTreeMap::new());
        let mut seal = |number, content: &[u8]| {
            *tags = tags.wrapping_add(1);
            sealed.insert(number, (Tag([*tags; 16]), content.to_vec()));
            Ok(Tag([*tags; 16]))
        };
        let (directory, written) =
            self.directory.with(changes, &mut self.next_leaf, &mut seal).unwrap();
        for LeafChange { number, before, after } in &written {
            assert_eq!(self.leaves.remove(number).map(|(tag, _)| tag), *before);
            if let Some(after) = after {
                let leaf = sealed.remove(number).unwrap();
                assert_eq!(leaf.0, *after);
                self.leaves.insert(*number, leaf);
            }
        }
        assert!(sealed.is_empty());
        self.directory = directory;
        written.len()
    }

    fn require_equal(&self) {
        let entries: Map = self
            .directory
            .entries()
            .map(|entry| ((entry.table(), entry.key().to_vec()), (entry.number, entry.tag)))
            .collect();
        assert_eq!(entries, self.map);
        let read = |(number, (tag, content)): (&u64, &(Tag, Vec<u8>))| {
            let leaf = Leaf::read(*number, *tag, content).unwrap();
            assert!(content.len() <= FULL || leaf.entries.len() == 1);
            leaf
        };
        assert_eq!(Directory::of(self.leaves.iter().map(read).collect()).unwrap(), self.directory);
        assert_eq!(self.directory.leaves(), self.leaves.len());
    }

    /// The keys of a range: the last at or before its beginning, and those within it.
    fn range(&self, range: &SeriesRange<'_>) -> Vec<Vec<u8>> {
        let of_table = || self.map.keys().filter(|key| key.0 == range.table).map(|key| &key.1);
        let covering = of_table().rfind(|key| key[..] <= *range.from);
        let within = of_table()
            .filter(|key| key[..] > *range.from && range.to.is_none_or(|to| key[..] < *to));
        covering.into_iter().chain(within).cloned().collect()
    }
}

#[test]
fn it_has_what_a_map_would_have() {
    let mut dice = Dice(5);
    let mut both = Both { next_leaf: 1, ..Both::default() };
    for round in 0..400 {
        let mut changes = Changes::new();
        for _ in 0..dice.roll(40) {
            let table = 11 + dice.roll(3) as u8;
            let entry = (dice.roll(1 << 40), Tag([dice.roll(256) as u8; 16]));
            // More goes than comes, in the end.
            let comes = dice.roll(10) < if round < 250 { 8 } else { 1 };
            let known: Vec<_> = both.map.keys().cloned().collect();
            let place = match known.len() as u64 {
                0 => (table, dice.key()),
                _ if comes => (table, dice.key()),
                known_count => known[dice.roll(known_count) as usize].clone(),
            };
            changes.insert(place, comes.then_some(entry));
        }
        both.change(changes);
        both.require_equal();
        let (from, to) = (dice.key(), dice.key());
        let table = 11 + dice.roll(3) as u8;
        for to in [None, Some(&to[..]).filter(|to| *to > &from[..])] {
            let range = SeriesRange { table, from: &from, to };
            let mut expected = both.range(&range);
            let keys = |entries: Vec<&Entry>| -> Vec<Vec<u8>> {
                entries.into_iter().map(|entry| entry.key().to_vec()).collect()
            };
            assert_eq!(keys(both.directory.range(&range).collect()), expected);
            expected.reverse();
            assert_eq!(keys(both.directory.range_reversed(&range).collect()), expected);
        }
        let found = both.directory.get(table, &from);
        let expected = both.map.get(&(table, from.clone()));
        assert_eq!(found.map(|entry| (entry.number, entry.tag)), expected.copied());
        if let Some(found) = found {
            let next = both.map.range((table, from.clone())..).nth(1);
            let next = next.filter(|((of, _), _)| *of == table).map(|((_, key), _)| &key[..]);
            assert_eq!(both.directory.following(found).map(Entry::key), next);
        }
    }
    assert!(both.next_leaf > 20, "{}", both.next_leaf);
    both.change(both.map.keys().cloned().map(|place| (place, None)).collect());
    assert_eq!((both.directory.leaves(), both.leaves.len()), (0, 0));
}

#[test]
fn a_change_writes_the_leaves_that_it_is_in_and_no_others() {
    let mut both = Both { next_leaf: 1, ..Both::default() };
    let place = |number: u32| (11, [&[7; 16][..], &number.to_be_bytes()].concat());
    let entry = |number: u32| (place(number), Some((u64::from(number), Tag([1; 16]))));
    // Those that only grow at their end are full.
    for number in 0..1_000 {
        assert!(both.change([entry(number)].into()) <= 2);
    }
    let full = both.directory.leaves();
    both.require_equal();
    let lengths: Vec<_> = both.leaves.values().map(|(_, content)| content.len()).collect();
    assert!(lengths[..full - 1].iter().all(|length| *length > FULL - 100), "{lengths:?}");
    assert_eq!(both.change([(place(500), Some((1 << 40, Tag([2; 16]))))].into()), 1);
    assert_eq!(both.change([(place(1), None), (place(999), None)].into()), 2);
    both.require_equal();
}

#[test]
fn a_leaf_that_is_out_of_order_or_cut_is_refused() {
    let entry =
        |key: u8| Entry { place: place(11, &[key; 20]).into(), number: 9, tag: Tag([3; 16]) };
    let read = |content: &[u8]| Leaf::read(1, Tag([0; 16]), content);
    let whole = write(&[entry(1), entry(2)]);
    assert!(read(&whole).is_ok());
    assert!(read(&write(&[entry(2), entry(1)])).is_err());
    assert!(read(&write(&[entry(1), entry(1)])).is_err());
    let first = write(&[entry(1)]).len();
    for length in (0..whole.len()).filter(|length| *length != first) {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    let many: Vec<_> = (0..200).map(|key| entry(key as u8)).collect();
    assert!(read(&write(&many)).is_err());
    let leaf = |number, keys: &[u8]| {
        let entries: Vec<_> = keys.iter().map(|key| entry(*key)).collect();
        Leaf::read(number, Tag([0; 16]), &write(&entries)).unwrap()
    };
    assert!(Directory::of(vec![leaf(1, &[5, 6]), leaf(2, &[1, 4])]).is_ok());
    assert!(Directory::of(vec![leaf(1, &[5, 6]), leaf(2, &[1, 5])]).is_err());
}
