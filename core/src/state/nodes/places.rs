//! Nodes at numbered places.

use std::sync::Arc;

use crate::domain::Node;
use crate::state::Set;

/// The places of one block, a power of two.
const WIDTH: usize = 16;
const BITS: u32 = WIDTH.trailing_zeros();

/// Where a node lies for as long as it is there. Indexes hold this, 4 bytes, instead of its id.
pub(super) type Place = u32;

/// A persistent array: a tree whose levels take four bits of a place each, the highest first. Five
/// levels hold a million nodes, and all but the last two stay in a processor's caches. A change
/// after a snapshot copies one path.
#[derive(Clone, Default, Debug)]
pub(super) struct Places {
    root: Tree,
    /// How many levels there are below the root.
    height: u32,
    /// No place from here on was ever taken.
    end: Place,
    /// Places before `end` that are free again.
    free: Set<Place>,
}

#[derive(Clone, Default, Debug)]
enum Tree {
    #[default]
    Empty,
    Branch(Arc<[Tree; WIDTH]>),
    Leaf(Arc<Leaf>),
}

/// The child that leads to a place, `level` levels above the leaves.
fn child(place: Place, level: u32) -> usize {
    (place >> (level * BITS)) as usize % WIDTH
}

type Leaf = [Option<Arc<Node>>; WIDTH];

impl Places {
    pub(super) fn get(&self, place: Place) -> Option<&Arc<Node>> {
        self.leaf(place)?.get(child(place, 0))?.as_ref()
    }

    /// The nodes at these places. Neighbours follow each other without a way through the tree; in the
    /// order of ids they are neighbours until places are taken again that were free.
    pub(super) fn each<'p>(
        &'p self,
        places: impl Iterator<Item = &'p Place> + 'p,
    ) -> impl Iterator<Item = &'p Arc<Node>> + 'p {
        let mut last: Option<(Place, &Leaf)> = None;
        places.filter_map(move |place| {
            let block = place >> BITS;
            let leaf = match last {
                Some((at, leaf)) if at == block => leaf,
                _ => self.leaf(*place)?,
            };
            last = Some((block, leaf));
            leaf.get(child(*place, 0))?.as_ref()
        })
    }

    fn leaf(&self, place: Place) -> Option<&Leaf> {
        // The tree has no branch for more.
        if place >= self.end {
            return None;
        }
        let mut tree = &self.root;
        let mut level = self.height;
        loop {
            match tree {
                Tree::Empty => return None,
                Tree::Branch(children) => tree = children.get(child(place, level))?,
                Tree::Leaf(nodes) => return Some(nodes),
            }
            level = level.saturating_sub(1);
        }
    }

    /// Puts a node where none is.
    pub(super) fn insert(&mut self, node: Arc<Node>) -> Place {
        let place = self.free.get_min().copied();
        let place = match place {
            Some(place) => {
                self.free.remove(&place);
                place
            }
            None => {
                // Memory ends long before the numbers do.
                self.end = self.end.saturating_add(1);
                self.end - 1
            }
        };
        self.put(place, Some(node));
        place
    }

    /// Puts another node in the place of one, which it returns.
    pub(super) fn replace(&mut self, place: Place, node: Arc<Node>) -> Option<Arc<Node>> {
        self.put(place, Some(node))
    }

    /// Takes a node away.
    pub(super) fn remove(&mut self, place: Place) -> Option<Arc<Node>> {
        self.free.insert(place);
        self.put(place, None)
    }

    /// Only for places before `end`.
    fn put(&mut self, place: Place, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        while u64::from(place) >> (BITS * (self.height + 1)) > 0 {
            let mut children: [Tree; WIDTH] = Default::default();
            if let Some(first) = children.first_mut() {
                *first = std::mem::take(&mut self.root);
            }
            self.root = Tree::Branch(children.into());
            self.height += 1;
        }
        self.root.put(place, self.height, node)
    }
}

impl Tree {
    fn put(&mut self, place: Place, level: u32, node: Option<Arc<Node>>) -> Option<Arc<Node>> {
        if let Self::Empty = self {
            *self =
                if level > 0 { Self::Branch(Arc::default()) } else { Self::Leaf(Arc::default()) };
        }
        match self {
            Self::Empty => None,
            Self::Branch(children) => {
                let child = Arc::make_mut(children).get_mut(child(place, level))?;
                child.put(place, level.saturating_sub(1), node)
            }
            Self::Leaf(nodes) => {
                let held = Arc::make_mut(nodes).get_mut(child(place, 0))?;
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
            let mut places = Places::default();
            let mut model: BTreeMap<Place, Arc<Node>> = BTreeMap::new();
            let mut kept = Vec::new();
            for (at, (step, index)) in steps.into_iter().enumerate() {
                let node = &nodes[at % 2];
                let taken = (!model.is_empty())
                    .then(|| *model.keys().nth(index.index(model.len())).unwrap());
                match (step, taken) {
                    (0, Some(place)) => {
                        let removed = places.remove(place);
                        prop_assert_eq!(removed, model.remove(&place));
                    }
                    (1, Some(place)) => {
                        let replaced = places.replace(place, node.clone());
                        prop_assert_eq!(replaced, model.insert(place, node.clone()));
                    }
                    _ => {
                        let place = places.insert(node.clone());
                        // The lowest that is free.
                        let free = (0..).find(|place| !model.contains_key(place));
                        prop_assert_eq!(Some(place), free);
                        model.insert(place, node.clone());
                    }
                }
                if at % 400 == 0 {
                    kept.push((places.clone(), model.clone()));
                }
            }
            kept.push((places, model));
            for (places, model) in kept {
                for place in 0..1_600 {
                    prop_assert_eq!(places.get(place), model.get(&place));
                }
                let every: Vec<Place> = (0..1_600).collect();
                prop_assert!(places.each(every.iter()).eq(model.values()));
            }
        }
    }

    #[test]
    fn no_place_is_mistaken_for_another_one() {
        let mut world = World::new();
        let alice = world.user("alice").id;
        let node = world.register(alice, 1).unwrap();
        let mut places = Places::default();
        for place in 0..70_000 {
            assert_eq!(places.insert(node.clone()), place);
        }
        assert!((0..70_000).all(|place| places.get(place).is_some()));
        assert!(
            (70_000..140_000).chain([1 << 20, u32::MAX]).all(|place| places.get(place).is_none())
        );
    }
}
