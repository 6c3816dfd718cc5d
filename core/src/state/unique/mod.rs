//! Indexes over long or random values, such as public keys and names.
//!
//! An entry is the value's hash and its holder, an id or a smaller number: 24 or 16 bytes whatever
//! the value, with a third more for empty places. The values are not repeated here, so a finder
//! asks the holder. The hash is keyed at random, since strangers choose the values.
//!
//! Hashes are spread evenly, so a snapshot makes nearly every change in a persistent B-tree or
//! trie copy a node of its own, and that grows with the number of entries. [`Tiers`] copies in
//! long runs instead; docs/adr/0016-merged-tables-for-unique-indexes.md has both figures.

mod run;
mod tiers;

use std::hash::{BuildHasher, Hash, RandomState};

use super::Set;
use tiers::Tiers;

/// Which entity holds a value.
#[derive(Clone, Debug)]
pub(super) struct UniqueIndex<I: Ord> {
    first: Tiers<I>,
    /// Further holders of values with one hash. Almost certainly empty, always right.
    others: Set<(u64, I)>,
    hasher: RandomState,
}

impl<I: Ord + Clone> Default for UniqueIndex<I> {
    fn default() -> Self {
        Self { first: Tiers::default(), others: Set::new(), hasher: RandomState::new() }
    }
}

impl<I: Copy + Ord> UniqueIndex<I> {
    /// Of many values at once and their holders: sorted, not merged again and again.
    pub(super) fn of<'v, V: Hash + ?Sized + 'v>(entries: impl Iterator<Item = (&'v V, I)>) -> Self {
        let mut index = Self::default();
        let mut entries: Vec<_> = entries.map(|(value, id)| (index.hash(value), id)).collect();
        entries.sort_unstable();
        let mut others = Vec::new();
        entries.dedup_by(|entry, first| {
            let is_other = entry.0 == first.0;
            others.extend(is_other.then_some(*entry));
            is_other
        });
        index.first = Tiers::of(&entries);
        others.into_iter().for_each(|(hash, id)| index.insert_hash(hash, id));
        index
    }

    /// The holder of `value`: of those with its hash the one for which `holds` answers.
    pub(super) fn find<V: Hash + ?Sized, T>(
        &self,
        value: &V,
        holds: impl Fn(I) -> Option<T>,
    ) -> Option<T> {
        let hash = self.hash(value);
        let first = self.first.get(hash)?;
        holds(first).or_else(|| self.others_of(hash).find_map(holds))
    }

    pub(super) fn insert<V: Hash + ?Sized>(&mut self, value: &V, id: I) {
        self.insert_hash(self.hash(value), id);
    }

    pub(super) fn remove<V: Hash + ?Sized>(&mut self, value: &V, id: I) {
        self.remove_hash(self.hash(value), id);
    }

    /// Brings it up to date for a holder that has `new` instead of `old`.
    pub(super) fn update<V: Hash + PartialEq>(&mut self, id: I, old: Option<&V>, new: Option<&V>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove(old, id);
        }
        if let Some(new) = new {
            self.insert(new, id);
        }
    }

    /// Tables do not tell the lowest bit of a hash, nor the smallest hashes from each other.
    fn hash<V: Hash + ?Sized>(&self, value: &V) -> u64 {
        (self.hasher.hash_one(value) | 1).max(3)
    }

    fn others_of(&self, hash: u64) -> impl Iterator<Item = I> + '_ {
        self.others.iter().filter(move |(other, _)| *other == hash).map(|(_, id)| *id)
    }

    fn insert_hash(&mut self, hash: u64, id: I) {
        match self.first.get(hash) {
            None => self.first.insert(hash, id),
            Some(first) if first == id => {}
            Some(_) => {
                self.others.insert((hash, id));
            }
        }
    }

    fn remove_hash(&mut self, hash: u64, id: I) {
        if self.others.remove(&(hash, id)).is_some() || self.first.get(hash) != Some(id) {
            return;
        }
        let next = self.others_of(hash).next();
        match next {
            Some(next) => {
                self.others.remove(&(hash, next));
                self.first.insert(hash, next);
            }
            None => self.first.remove(hash, id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeId;

    #[test]
    fn the_smallest_hashes_are_one() {
        struct Fixed(u64);
        impl Hash for Fixed {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                state.write_u64(self.0);
            }
        }
        let index: UniqueIndex<NodeId> = UniqueIndex::default();
        // Whatever the hasher makes of it, no hash is below what tables can tell.
        assert!((0..10_000).all(|n| index.hash(&Fixed(n)) >= 3 && index.hash(&Fixed(n)) & 1 == 1));
    }

    #[test]
    fn values_with_one_hash_are_told_apart_by_their_holders() {
        let id = |n| NodeId::from_bytes([n; 16]);
        let find = |index: &UniqueIndex<NodeId>, n| {
            index.find("value", |found| (found == id(n)).then_some(found))
        };
        // Holders under one value stand for values with one hash; removed in every order.
        for gone in [1, 2, 3] {
            let mut one_by_one: UniqueIndex<NodeId> = UniqueIndex::default();
            for n in [1, 2, 3] {
                one_by_one.insert("value", id(n));
                one_by_one.insert("value", id(n));
            }
            let at_once = UniqueIndex::of([2, 1, 3, 2].map(|n| ("value", id(n))).into_iter());
            for mut index in [one_by_one, at_once] {
                index.remove("value", id(9));
                index.remove("value", id(gone));
                for n in [1, 2, 3] {
                    assert_eq!(find(&index, n), (n != gone).then_some(id(n)));
                }
                for n in [3, 2, 1] {
                    index.remove("value", id(n));
                }
                assert!(index.first.is_empty() && index.others.is_empty());
            }
        }
    }
}
