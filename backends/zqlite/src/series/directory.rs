//! The directory: which data block has which rows. Data blocks have numbers, and what a file says of
//! them is a number; their keys are in here alone, and in themselves.
//!
//! It is leaves of entries in the order of tables and keys, each a record of a page; all of it is in
//! memory. A commit writes the leaves anew whose entries it changes. A leaf that becomes too long
//! is split, as one of a B-tree is.
//!
//! An entry is `shared varint, suffix length varint, suffix, number varint, tag 16`: the table's number
//! and the key as what differs from the entry before it, then the data block's number and tag.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{MAX_KEY, put_varint, take, take_length, take_varint};

use super::rows::{misshapen, shared};
use crate::engine::SeriesRange;
use crate::envelope::Tag;

/// The longest leaf: sealed, it fills a page of SQLite.
const FULL: usize = 4_000;

/// A data block, as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Of the table, and the key, in one.
    place: Box<[u8]>,
    pub(crate) number: u64,
    pub(crate) tag: Tag,
}

impl Entry {
    pub(crate) fn table(&self) -> u8 {
        self.place.first().copied().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.place.get(1..).unwrap_or_default()
    }
}

fn place(table: u8, key: &[u8]) -> Vec<u8> {
    [&[table], key].concat()
}

/// Some entries, in order; never none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    number: u64,
    tag: Tag,
    entries: Vec<Entry>,
}

impl Leaf {
    /// Reads a leaf.
    ///
    /// # Errors
    /// `Corrupt` if it has no entries, or they are not in order.
    pub(crate) fn read(number: u64, tag: Tag, content: &[u8]) -> Result<Self> {
        let (mut rest, mut entries) = (content, Vec::<Entry>::new());
        while !rest.is_empty() {
            let before = entries.last().map_or(&[][..], |entry| &entry.place);
            let shared = usize::try_from(take_varint(&mut rest)?).unwrap_or(usize::MAX);
            let length = take_length(&mut rest)?;
            let suffix = take(&mut rest, length)?;
            let (prefix, replaced) = before.split_at_checked(shared).ok_or_else(misshapen)?;
            if suffix <= replaced || shared + length > 1 + MAX_KEY {
                return Err(misshapen());
            }
            let place = [prefix, suffix].concat().into();
            let chunk = take_varint(&mut rest)?;
            let (tag, after) = rest.split_first_chunk().ok_or_else(misshapen)?;
            rest = after;
            entries.push(Entry { place, number: chunk, tag: Tag(*tag) });
        }
        if entries.is_empty() || (entries.len() > 1 && content.len() > FULL) {
            return Err(misshapen());
        }
        Ok(Self { number, tag, entries })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn first(&self) -> &[u8] {
        self.entries.first().map_or(&[], |entry| &entry.place)
    }
}

/// Entries as the content of a leaf.
fn write(entries: &[Entry]) -> Vec<u8> {
    let (mut into, mut before) = (Vec::with_capacity(FULL), &[][..]);
    for entry in entries {
        let shared = shared(before, &entry.place);
        let suffix = entry.place.get(shared..).unwrap_or_default();
        put_varint(&mut into, shared as u64);
        put_varint(&mut into, suffix.len() as u64);
        into.extend_from_slice(suffix);
        put_varint(&mut into, entry.number);
        into.extend_from_slice(&entry.tag.0);
        before = &entry.place;
    }
    into
}

/// How entries lie in leaves: into one if they fit, otherwise into halves; but where only the end grows,
/// into full ones.
fn divide<'e>(entries: &'e [Entry], grows_at_end: bool, into: &mut Vec<(&'e [Entry], Vec<u8>)>) {
    let content = write(entries);
    if entries.len() < 2 || content.len() <= FULL {
        return into.push((entries, content));
    }
    let middle = match grows_at_end {
        // About as many as fit; the rest is divided once more.
        true => (entries.len() * FULL / content.len()).clamp(1, entries.len() - 1),
        false => entries.len() / 2,
    };
    let (left, right) = entries.split_at(middle);
    divide(left, grows_at_end, into);
    divide(right, grows_at_end, into);
}

/// What became of a leaf that a commit changes: its number, its tag before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeafChange {
    pub(crate) number: u64,
    pub(crate) before: Option<Tag>,
    pub(crate) after: Option<Tag>,
}

/// What a commit does to data blocks: by table and key, the entry that is there afterwards.
pub(crate) type Changes = BTreeMap<(u8, Vec<u8>), Option<(u64, Tag)>>;

/// All data blocks of one version of the series. Cloning it shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directory(Arc<[Arc<Leaf>]>);

impl Default for Directory {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Directory {
    /// Of all leaves, in any order.
    ///
    /// # Errors
    /// `Corrupt` if two of them have keys among each other's.
    pub(crate) fn of(mut leaves: Vec<Leaf>) -> Result<Self> {
        leaves.sort_by(|one, other| one.first().cmp(other.first()));
        let directory = Self(leaves.into_iter().map(Arc::new).collect());
        if !directory.entries().is_sorted_by(|one, other| one.place < other.place) {
            return Err(Error::corrupt(
                "leaves of the directory overlap; restore the store from a backup",
            ));
        }
        Ok(directory)
    }

    pub(crate) fn leaves(&self) -> usize {
        self.0.len()
    }

    /// Number and tag of each leaf.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (u64, Tag)> {
        self.0.iter().map(|leaf| (leaf.number, leaf.tag))
    }

    /// The leaf with the least number above this one.
    pub(crate) fn leaf_after(&self, number: u64) -> Option<&Leaf> {
        let leaves = self.0.iter().map(|leaf| &**leaf);
        leaves.filter(|leaf| leaf.number > number).min_by_key(|leaf| leaf.number)
    }

    /// All data blocks, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().flat_map(|leaf| &leaf.entries)
    }

    /// The leaf that has or would have this place.
    fn leaf_of(&self, place: &[u8]) -> usize {
        self.0.partition_point(|leaf| leaf.first() <= place).saturating_sub(1)
    }

    /// The entry with this place.
    pub(crate) fn get(&self, table: u8, key: &[u8]) -> Option<&Entry> {
        let place = place(table, key);
        let entries = &self.0.get(self.leaf_of(&place))?.entries;
        let found = entries.binary_search_by(|entry| (*entry.place).cmp(&place)).ok()?;
        entries.get(found)
    }

    /// Entries at or behind a place, in order.
    fn from(&self, place: Vec<u8>) -> impl Iterator<Item = &Entry> {
        let leaves = self.0.get(self.leaf_of(&place)..).unwrap_or_default();
        leaves.iter().flat_map(|leaf| &leaf.entries).skip_while(move |entry| *entry.place < *place)
    }

    /// Entries before a place, the last one first.
    fn before(&self, place: Vec<u8>) -> impl Iterator<Item = &Entry> {
        let leaves = self.0.get(..self.0.len().min(self.leaf_of(&place) + 1)).unwrap_or_default();
        let entries = leaves.iter().rev().flat_map(|leaf| leaf.entries.iter().rev());
        entries.skip_while(move |entry| *entry.place >= *place)
    }

    /// The data block of the same table behind this one.
    pub(crate) fn following(&self, entry: &Entry) -> Option<&Entry> {
        self.from(entry.place.to_vec())
            .find(|next| *next.place > *entry.place)
            .filter(|next| next.table() == entry.table())
    }

    /// The data block that has the rows at a place, and begins before it.
    fn covering(&self, table: u8, key: &[u8]) -> Option<&Entry> {
        self.before(place(table, key)).next().filter(|entry| entry.table() == table)
    }

    /// The data blocks that may have rows of a range, in order: the one that covers its beginning, and
    /// those that begin within it.
    pub(crate) fn range<'d>(
        &'d self,
        range: &SeriesRange<'_>,
    ) -> impl Iterator<Item = &'d Entry> + use<'d> {
        let SeriesRange { table, from, to } = *range;
        let end = end_of(range);
        let covering = match self.get(table, from) {
            Some(_) => None,
            None => self.covering(table, from),
        };
        let covering = covering.filter(|_| to.is_none_or(|to| from < to));
        covering
            .into_iter()
            .chain(self.from(place(table, from)).take_while(move |entry| *entry.place < *end))
    }

    /// The same, in the opposite order.
    pub(crate) fn range_reversed<'d>(
        &'d self,
        range: &SeriesRange<'_>,
    ) -> impl Iterator<Item = &'d Entry> + use<'d> {
        let (table, first) = (range.table, place(range.table, range.from));
        let mut ended = false;
        self.before(end_of(range)).take_while(move |entry| {
            // The one that covers the beginning is the last.
            let within = !ended && entry.table() == table;
            ended = *entry.place <= *first;
            within
        })
    }

    /// Itself with these changes. `seal` is given the number and content of each leaf that is to be
    /// written, and gives its tag.
    pub(crate) fn with(
        &self,
        changes: Changes,
        next_leaf: &mut u64,
        seal: &mut dyn FnMut(u64, &[u8]) -> Result<Tag>,
    ) -> Result<(Self, Vec<LeafChange>)> {
        let mut leaves = Vec::with_capacity(self.0.len() + 1);
        let mut written = Vec::new();
        let mut changes = changes
            .into_iter()
            .map(|((table, key), entry)| {
                let place: Box<[u8]> = place(table, &key).into();
                (place.clone(), entry.map(|(number, tag)| Entry { place, number, tag }))
            })
            .peekable();
        let mut at = 0;
        while let Some((place, _)) = changes.peek() {
            let changed = self.leaf_of(place);
            leaves.extend(self.0.get(at..changed).unwrap_or_default().iter().cloned());
            let (old, behind) = (self.0.get(changed), self.0.get(changed + 1));
            let mut own = Vec::new();
            while let Some(change) =
                changes.next_if(|(place, _)| behind.is_none_or(|behind| **place < *behind.first()))
            {
                own.push(change);
            }
            let entries = old.map_or(&[][..], |leaf| &leaf.entries);
            let last = entries.last().map(|entry| &entry.place);
            let grows_at_end = behind.is_none() && own.iter().all(|(place, _)| Some(place) >= last);
            let (number, before) = match old {
                Some(leaf) => (leaf.number, Some(leaf.tag)),
                None => (following(next_leaf)?, None),
            };
            let entries = merged(entries, own);
            let mut parts = Vec::new();
            if !entries.is_empty() {
                divide(&entries, grows_at_end, &mut parts);
            }
            if parts.is_empty() {
                written.push(LeafChange { number, before, after: None });
            }
            for (index, (entries, content)) in parts.into_iter().enumerate() {
                let (number, before) = match index {
                    0 => (number, before),
                    _ => (following(next_leaf)?, None),
                };
                let tag = seal(number, &content)?;
                written.push(LeafChange { number, before, after: Some(tag) });
                leaves.push(Arc::new(Leaf { number, tag, entries: entries.to_vec() }));
            }
            at = changed + 1;
        }
        leaves.extend(self.0.get(at..).unwrap_or_default().iter().cloned());
        Ok((Self(leaves.into()), written))
    }
}

/// The place behind all of a range.
fn end_of(range: &SeriesRange<'_>) -> Vec<u8> {
    match range.to {
        Some(to) => place(range.table, to.max(range.from)),
        // Tables are numbered from 1, and few.
        None => place(range.table.saturating_add(1), &[]),
    }
}

/// Entries in order, with changes in order.
fn merged(entries: &[Entry], changes: Vec<(Box<[u8]>, Option<Entry>)>) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(entries.len() + changes.len());
    let mut entries = entries.iter().peekable();
    for (place, change) in changes {
        while let Some(entry) = entries.next_if(|entry| entry.place.cmp(&place) == Ordering::Less) {
            merged.push(entry.clone());
        }
        entries.next_if(|entry| entry.place == place);
        merged.extend(change);
    }
    merged.extend(entries.cloned());
    merged
}

/// Takes the next number.
pub(crate) fn following(next: &mut u64) -> Result<u64> {
    let number = *next;
    *next = number
        .checked_add(1)
        .filter(|next| i64::try_from(*next).is_ok())
        .ok_or_else(|| Error::corrupt("the numbers are used up").with("number", number))?;
    Ok(number)
}

/// What the fuzz target tries: whatever is accepted comes back as it was written.
#[cfg(fuzzing)]
#[allow(clippy::expect_used)]
pub(super) fn fuzz_leaf(content: &[u8]) {
    let Ok(leaf) = Leaf::read(1, Tag([0; 16]), content) else { return };
    // Another writer may have spelled it longer.
    let again = Leaf::read(1, Tag([0; 16]), &write(&leaf.entries));
    assert_eq!(again.expect("what is written is read"), leaf);
}

#[cfg(test)]
mod tests;
