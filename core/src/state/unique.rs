//! Indexes over long or random values, such as public keys and names.
//!
//! An entry is the value's hash and the holder's id: 24 bytes whatever the value, in a B-tree. A
//! hash trie of the values themselves was measured three times as expensive to change, since a
//! snapshot makes every change copy its node, and those nodes are large. The values are not
//! repeated here, so a finder asks the holder. The hash is keyed at random, since strangers choose
//! the values.

use std::hash::{BuildHasher, Hash, RandomState};

use super::Set;

/// Which entity holds a value.
#[derive(Clone, Debug)]
pub(super) struct UniqueIndex<I: Ord> {
    entries: Set<(u64, I)>,
    hasher: RandomState,
}

impl<I: Ord + Clone> Default for UniqueIndex<I> {
    fn default() -> Self {
        Self { entries: Set::new(), hasher: RandomState::new() }
    }
}

impl<I: crate::domain::Id> UniqueIndex<I> {
    /// The holder of `value`, of those with its hash the one that `holds` it.
    pub(super) fn find<V: Hash + ?Sized, T>(
        &self,
        value: &V,
        holds: impl Fn(I) -> Option<T>,
    ) -> Option<T> {
        let hash = self.hasher.hash_one(value);
        let mut next = self.entries.get_next(&(hash, I::from_bytes([0; 16])));
        // Two values with one hash are as good as unheard of.
        while let Some((found, id)) = next
            && *found == hash
        {
            if let Some(holder) = holds(*id) {
                return Some(holder);
            }
            let after = u128::from_be_bytes(*id.as_bytes()).checked_add(1)?;
            next = self.entries.get_next(&(hash, I::from_bytes(after.to_be_bytes())));
        }
        None
    }

    pub(super) fn insert<V: Hash + ?Sized>(&mut self, value: &V, id: I) {
        self.entries.insert((self.hasher.hash_one(value), id));
    }

    pub(super) fn remove<V: Hash + ?Sized>(&mut self, value: &V, id: I) {
        self.entries.remove(&(self.hasher.hash_one(value), id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NodeId;

    #[test]
    fn values_with_one_hash_are_told_apart_by_their_holders() {
        let mut index: UniqueIndex<NodeId> = UniqueIndex::default();
        let id = |n| NodeId::from_bytes([n; 16]);
        // Four entries under one value stand for four values with one hash.
        for n in [1, 2, 3, 0xff] {
            index.insert("value", id(n));
        }
        let find = |index: &UniqueIndex<NodeId>, n| {
            index.find("value", |found| (found == id(n)).then_some(found))
        };
        assert_eq!(find(&index, 3), Some(id(3)));
        assert_eq!(find(&index, 9), None);
        index.remove("value", id(3));
        assert_eq!(find(&index, 3), None);
        assert_eq!(find(&index, 0xff), Some(id(0xff)));
        assert_eq!(index.find("other", Some), None);
    }
}
