//! Nodes at numbered slots.

use std::sync::Arc;

use crate::domain::Node;
use crate::state::Set;

/// The slots of one block, a power of two.
const WIDTH: usize = 16;
const BITS: u32 = WIDTH.trailing_zeros();

/// Where a node lies for as long as it is there. Indexes hold this, 4 bytes, instead of its id.
pub(super) type Slot = u32;

/// A persistent array: a tree whose levels take four bits of a slot each, the highest first. Five
/// levels hold a million nodes, and all but the last two stay in a processor's caches. A change
/// after a snapshot copies one path.
#[derive(Clone, Default, Debug)]
pub(super) struct Slots {
    root: Tree,
    /// How many levels there are below the root.
    height: u32,
    /// No slot from here on was ever taken.
    end: Slot,
    /// Slots before `end` that are free again.
    free: Set<Slot>,
}

#[derive(Clone, Default, Debug)]
enum Tree {
    #[default]
    Empty,
    Branch(Arc<[Tree; WIDTH]>),
    Leaf(Arc<Leaf>),
}

/// The child that leads to a slot, `level` levels above the leaves.
fn child(slot: Slot, level: u32) -> usize {
    (slot >> (level * BITS)) as usize % WIDTH
}

type Leaf = [Option<Arc<Node>>; WIDTH];

impl Slots {
    pub(super) fn get(&self, slot: Slot) -> Option<&Arc<Node>> {
        self.leaf(slot)?.get(child(slot, 0))?.as_ref()
    }

    /// The nodes at these slots. Neighbours follow each other without a way through the tree; in the
    /// order of ids they are neighbours until slots are taken again that were free.
    pub(super) fn each<'p>(
        &'p self,
        slots: impl Iterator<Item = &'p Slot> + 'p,
    ) -> impl Iterator<Item = &'p Arc<Node>> + 'p {
        let mut last: Option<(Slot, &Leaf)> = None;
        slots.filter_map(move |slot| {
            let block = slot >> BITS;
            let leaf = match last {
                Some((at, leaf)) if at == block => leaf,
                _ => self.leaf(*slot)?,
            };
            last = Some((block, leaf));
            leaf.get(child(*slot, 0))?.as_ref()
        })
    }

    fn leaf(&self, slot: Slot) -> Option<&Leaf> {
        // The tree has no branch for more.
        if slot >= self.end {
            return None;
        }
        let mut tree = &self.root;
        let mut level = self.height;
        loop {
            match tree {
                Tree::Empty => return None,
                Tree::Branch(children) => tree = children.get(child(slot, level))?,
                Tree::Leaf(nodes) => return Some(nodes),
            }
            level = level.saturating_sub(1);
        }
    }

    /// Puts a node where none is.
    pub(super) fn insert(&mut self, node: Arc<Node>) -> Slot {
        let slot = self.free.get_min().copied();
        let slot = match slot {
            Some(slot) => {
                self.free.remove(&slot);
                slot
            }
            None => {
                // Memory ends long before the numbers do.
                self.end = self.end.saturating_add(1);
                self.end - 1
            }
        };
        self.put(slot, Some(node));
        slot
    }

    /// Puts another node in the slot of one, which it returns.
    pub(super) fn replace(&mut self, slot: Slot, node: Arc<Node>) -> Option<Arc<Node>> {
        self.put(slot, Some(node))
    }

    /// Takes a node away.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Arc<Node>> {
        self.free.insert(slot);
        self.put(slot, None)
    }

    /// Only for slots before `end`.
    fn put(&mut self, slot: Slot, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        while u64::from(slot) >> (BITS * (self.height + 1)) > 0 {
            let mut children: [Tree; WIDTH] = Default::default();
            if let Some(first) = children.first_mut() {
                *first = std::mem::take(&mut self.root);
            }
            self.root = Tree::Branch(children.into());
            self.height += 1;
        }
        self.root.put(slot, self.height, node)
    }
}

impl Tree {
    fn put(&mut self, slot: Slot, level: u32, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        if let Self::Empty = self {
            *self =
                if level > 0 { Self::Branch(Arc::default()) } else { Self::Leaf(Arc::default()) };
        }
        match self {
            Self::Empty => None,
            Self::Branch(children) => {
                let child = Arc::make_mut(children).get_mut(child(slot, level))?;
                child.put(slot, level.saturating_sub(1), node)
            }
            Self::Leaf(nodes) => {
                let held = Arc::make_mut(nodes).get_mut(child(slot, 0))?;
                std::mem::replace(held, node)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::state::testing::World;

    proptest! {
        #[test]
        fn behaves_like_a_map_and_snapshots_do_not_change(
            steps in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..1_500),
        ) {
            let mut world = World::new();
            let alice = world.user("alice").id;
            let nodes = [world.register(alice, 1).unwrap(), world.register(alice, 2).unwrap()];
            let mut slots = Slots::default();
            let mut model: BTreeMap<Slot, Arc<Node>> = BTreeMap::new();
            let mut kept = Vec::new();
            for (at, (step, index)) in steps.into_iter().enumerate() {
                let node = &nodes[at % 2];
                let taken = (!model.is_empty())
                    .then(|| *model.keys().nth(index.index(model.len())).unwrap());
                match (step, taken) {
                    (0, Some(slot)) => {
                        let removed = slots.remove(slot);
                        prop_assert_eq!(removed, model.remove(&slot));
                    }
                    (1, Some(slot)) => {
                        let replaced = slots.replace(slot, node.clone());
                        prop_assert_eq!(replaced, model.insert(slot, node.clone()));
                    }
                    _ => {
                        let slot = slots.insert(node.clone());
                        // The lowest that is free.
                        let free = (0..).find(|slot| !model.contains_key(slot));
                        prop_assert_eq!(Some(slot), free);
                        model.insert(slot, node.clone());
                    }
                }
                if at % 400 == 0 {
                    kept.push((slots.clone(), model.clone()));
                }
            }
            kept.push((slots, model));
            for (slots, model) in kept {
                for slot in 0..1_600 {
                    prop_assert_eq!(slots.get(slot), model.get(&slot));
                }
                let every: Vec<Slot> = (0..1_600).collect();
                prop_assert!(slots.each(every.iter()).eq(model.values()));
            }
        }
    }

    #[test]
    fn no_place_is_mistaken_for_another_one() {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let node = world.register(alice, 1).unwrap();
        let mut slots = Slots::default();
        for slot in 0..70_000 {
            assert_eq!(slots.insert(node.clone()), slot);
        }
        assert!((0..70_000).all(|slot| slots.get(slot).is_some()));
        assert!((70_000..140_000).chain([1 << 20, u32::MAX]).all(|slot| slots.get(slot).is_none()));
    }
}
