//! A map from hashes to holders that is cheap to change right after it was cloned.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::run::{Entry, Run, merged, tag};

/// The first tier holds so many entries, each further one [`GROWTH`] times as many.
const YOUNG: usize = 256;
const GROWTH: usize = 8;

/// A log-structured merge tree (O'Neil et al., 1996) in memory, one table a tier. A change goes into
/// the young entries, of which a clone is made; when they are many, they are merged into the next
/// tier, which may overflow into the one after it. Tables are shared by all clones.
///
/// A change costs `O(GROWTH * tiers)` copied entries when averaged, in long sequential runs; the
/// largest single merge copies the whole last table. A lookup probes one table a tier: five for a
/// million entries.
#[derive(Clone, Debug)]
pub(super) struct Tiers<I>(Arc<Content<I>>);

#[derive(Clone, Debug)]
struct Content<I> {
    young: HashMap<u64, Option<I>, BuildHasherDefault<AsIs>>,
    tiers: Vec<Arc<Run<I>>>,
}

impl<I> Default for Tiers<I> {
    fn default() -> Self {
        Self(Arc::new(Content { young: HashMap::default(), tiers: Vec::new() }))
    }
}

impl<I: Copy> Tiers<I> {
    /// Of entries in the order of their hashes, none of which are one.
    pub(super) fn of(entries: &[(u64, I)]) -> Self {
        let Some((_, any)) = entries.first() else { return Self::default() };
        let run = |entries: &[(u64, I)]| {
            let tagged = entries.iter().map(|(hash, holder)| (tag(*hash), Some(*holder)));
            Arc::new(Run::of(tagged, entries.len(), *any))
        };
        // The tier into which as many would have been merged.
        let full = std::iter::successors(Some(YOUNG * GROWTH), |room| room.checked_mul(GROWTH));
        let mut tiers: Vec<_> =
            full.take_while(|room| *room < entries.len()).map(|_| run(&[])).collect();
        tiers.push(run(entries));
        Self(Arc::new(Content { young: HashMap::default(), tiers }))
    }

    /// Who holds this hash. Hashes that differ only in their lowest bit are one.
    pub(super) fn get(&self, hash: u64) -> Option<I> {
        let tag = tag(hash);
        if let Some(found) = self.0.young.get(&tag) {
            return *found;
        }
        self.0.tiers.iter().find_map(|run| run.get(tag)).flatten()
    }

    pub(super) fn insert(&mut self, hash: u64, holder: I) {
        self.change(hash, Some(holder), holder);
    }

    /// `holder` is whoever holds it now.
    pub(super) fn remove(&mut self, hash: u64, holder: I) {
        self.change(hash, None, holder);
    }

    fn change(&mut self, hash: u64, held_by: Option<I>, any: I) {
        let content = Arc::make_mut(&mut self.0);
        content.young.insert(tag(hash), held_by);
        if content.young.len() >= YOUNG {
            content.settle(any);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let tiers = self.0.tiers.iter().map(|run| run.entries().collect()).collect::<Vec<Vec<_>>>();
        let tags = tiers.iter().flatten().map(|(tag, _)| *tag).chain(self.0.young.keys().copied());
        tags.into_iter().all(|tag| self.get(tag).is_none())
    }
}

impl<I: Copy> Content<I> {
    /// Moves the young entries into the first tier with room for them and all before it.
    fn settle(&mut self, any: I) {
        let mut moving: Vec<Entry<I>> = self.young.drain().collect();
        moving.sort_unstable_by_key(|(tag, _)| *tag);
        let mut most = moving.len();
        let mut capacity = YOUNG * GROWTH;
        let mut depth = 0;
        while let Some(run) = self.tiers.get(depth)
            && most + run.len() > capacity
        {
            most += run.len();
            capacity *= GROWTH;
            depth += 1;
        }
        // Everything before `depth` and what is there become one table.
        let is_last = depth + 1 >= self.tiers.len();
        for run in self.tiers.iter().take(depth) {
            moving = merged(moving.into_iter(), run.entries()).collect();
        }
        let older = self.tiers.get(depth).cloned();
        let most = moving.len() + older.as_ref().map_or(0, |run| run.len());
        let older = older.iter().flat_map(|run| run.entries());
        // With nothing older, nothing has to be said of what is gone.
        let entries = merged(moving.into_iter(), older);
        let entries = entries.filter(|(_, holder)| !is_last || holder.is_some());
        let settled = Arc::new(Run::of(entries, most, any));
        let empty = Arc::new(Run::of(std::iter::empty(), 0, any));
        for (at, run) in self.tiers.iter_mut().enumerate().take(depth + 1) {
            *run = if at == depth { settled.clone() } else { empty.clone() };
        }
        if self.tiers.len() <= depth {
            self.tiers.push(settled);
        }
    }
}

/// Hashes are hashed already.
#[derive(Clone, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn behaves_like_a_map_and_clones_do_not_change() {
        // Few enough values that entries are replaced and removed in every tier.
        let mut tiers: Tiers<u32> = Tiers::default();
        let mut model = BTreeMap::new();
        let mut kept = Vec::new();
        let mut random = 1_u64;
        let hash_of = |value: u64| value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for step in 0..40_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            let hash = hash_of((random >> 33) % 9_000);
            match model.get(&tag(hash)) {
                Some(holder) if step % 3 == 0 => {
                    tiers.remove(hash, *holder);
                    model.remove(&tag(hash));
                }
                _ => {
                    tiers.insert(hash, step);
                    model.insert(tag(hash), step);
                }
            }
            if step % 5_000 == 0 {
                kept.push((tiers.clone(), model.clone()));
            }
        }
        kept.push((tiers, model));
        for (tiers, model) in kept {
            for value in 0..9_000_u64 {
                let hash = hash_of(value);
                assert_eq!(tiers.get(hash), model.get(&tag(hash)).copied());
            }
        }
    }

    #[test]
    fn what_is_built_at_once_is_found_and_can_be_changed() {
        let hash = |n: u32| u64::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let most = u32::try_from(YOUNG * GROWTH).unwrap();
        for (count, depth) in [(0, 0), (1, 1), (most, 1), (most + 1, 2), (10 * most, 3)] {
            let mut entries: Vec<_> = (0..count).map(|n| (hash(n), n)).collect();
            entries.sort_unstable();
            let mut tiers = Tiers::of(&entries);
            assert_eq!(tiers.0.tiers.len(), depth);
            assert!((0..count).all(|n| tiers.get(hash(n)) == Some(n)));
            (0..count).step_by(2).for_each(|n| tiers.remove(hash(n), n));
            (count..count + 3_000).for_each(|n| tiers.insert(hash(n), n));
            let expected = |n| (n >= count || n % 2 == 1).then_some(n);
            assert!((0..count + 3_000).all(|n| tiers.get(hash(n)) == expected(n)));
        }
    }

    #[test]
    fn what_is_gone_leaves_nothing_behind() {
        let mut tiers: Tiers<u32> = Tiers::default();
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..5_000).for_each(|n| tiers.insert(hash(n), n));
        (0..5_000).for_each(|n| tiers.remove(hash(n), n));
        assert!(tiers.is_empty());
        // Enough further ones to be merged through every tier.
        (0..40_000).for_each(|n| tiers.insert(hash(n % 256), n));
        let stored: usize = tiers.0.tiers.iter().map(|run| run.len()).sum();
        assert!(stored <= 256 + 5_000, "{stored}");
    }
}
