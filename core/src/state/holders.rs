//! Who holds which address.

use std::sync::Arc;

use super::Map;
use crate::domain::NodeId;

/// Addresses, as numbers, and their holders, in blocks of 64 addresses that begin at a multiple of
/// 64. A block has room for the addresses that are held and no others, so that a network filled
/// from its bottom costs little more than the ids, and one that is full of holes not much more. A
/// change after a snapshot copies one block.
#[derive(Clone, Default, Debug)]
pub(super) struct Holders {
    blocks: Map<u128, Arc<Block>>,
    len: usize,
}

#[derive(Clone, Default, Debug)]
struct Block {
    /// Which of the addresses are held, the first one in the lowest bit.
    held: u64,
    /// The holder of each bit, in its order.
    holders: Vec<NodeId>,
}

/// The block of an address, and its bit there.
fn place(number: u128) -> (u128, u64) {
    (number >> 6, 1 << (number & 63))
}

impl Block {
    /// How many addresses below `bit` are held.
    fn rank(&self, bit: u64) -> usize {
        (self.held & (bit - 1)).count_ones() as usize
    }
}

impl Holders {
    pub(super) fn get(&self, number: u128) -> Option<NodeId> {
        let (block, bit) = place(number);
        let block = self.blocks.get(&block)?;
        if block.held & bit == 0 { None } else { block.holders.get(block.rank(bit)).copied() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gives the address to `node`. Whether nobody had it.
    pub(super) fn insert(&mut self, number: u128, node: NodeId) -> bool {
        let (block, bit) = place(number);
        let block = Arc::make_mut(self.blocks.entry(block).or_default());
        let rank = block.rank(bit);
        if block.held & bit == 0 {
            block.held |= bit;
            block.holders.insert(rank, node);
            self.len += 1;
            return true;
        }
        if let Some(holder) = block.holders.get_mut(rank) {
            *holder = node;
        }
        false
    }

    /// Frees an address that is held.
    pub(super) fn remove(&mut self, number: u128) {
        let (at, bit) = place(number);
        let Some(block) = self.blocks.get_mut(&at).filter(|block| block.held & bit != 0) else {
            return;
        };
        let block = Arc::make_mut(block);
        let rank = block.rank(bit);
        block.holders.remove(rank);
        block.held &= !bit;
        self.len -= 1;
        if block.held == 0 {
            self.blocks.remove(&at);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map_and_snapshots_do_not_change(
            steps in prop::collection::vec((any::<bool>(), 0..300_u128, 0..4_u8), 0..600),
        ) {
            let mut holders = Holders::default();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (insert, number, node) in steps {
                // Both ends of the numbers.
                let number = if number < 150 { number } else { u128::MAX - number };
                if insert {
                    let node = NodeId::from_bytes([node; 16]);
                    let is_new = model.insert(number, node).is_none();
                    prop_assert_eq!(holders.insert(number, node), is_new);
                } else {
                    holders.remove(number);
                    model.remove(&number);
                }
                if kept.len() < 3 {
                    kept.push((holders.clone(), model.clone()));
                }
            }
            kept.push((holders, model));
            for (holders, model) in kept {
                prop_assert_eq!(holders.len(), model.len());
                for number in (0..150).chain(u128::MAX - 300..=u128::MAX) {
                    prop_assert_eq!(holders.get(number), model.get(&number).copied());
                }
            }
        }
    }

    #[test]
    fn what_is_free_again_leaves_nothing_behind() {
        let mut holders = Holders::default();
        let node = NodeId::from_bytes([1; 16]);
        (0..10_000).for_each(|number| assert!(holders.insert(number, node)));
        (0..10_000).rev().for_each(|number| holders.remove(number));
        assert!(holders.blocks.is_empty() && holders.len() == 0);
    }
}
