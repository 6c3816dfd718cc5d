//! The chain of blocks: each names the hash of the one before it, and the last one is the head's.
//! This is the only place where that is checked, wherever the blocks come from.

use super::block::{BlockHash, EncodedBlock, Serial};
use crate::backend::{Backend, Head};
use crate::changes::LogPosition;
use crate::error::{Error, ErrorKind, Result};

/// Checks blocks in the order in which they are read: none is missing, each names the one before it,
/// and the last one is the head's.
///
/// ```
/// use ghostwire_store_core::backend::{Commit, Head};
/// use ghostwire_store_core::block::BlockBuilder;
/// use ghostwire_store_core::chain::Chain;
/// use ghostwire_store_core::domain::{BlockId, StoreId, Timestamp};
/// use ghostwire_store_core::schema::Schema;
///
/// let genesis = Head::genesis(StoreId::from_bytes([1; 16]), Schema::current());
/// let (serial, id) = (genesis.serial.next(), BlockId::from_bytes([2; 16]));
/// let block = BlockBuilder::default().finish(serial, id, genesis.hash, Timestamp::EPOCH)?.block;
/// let head = genesis.after(&Commit { block: Some(block.clone()), ..Commit::on(&genesis) })?;
///
/// let mut chain = Chain::whole(&head)?;
/// assert!(chain.require_whole().is_err());
/// chain.follow(serial, &block)?;
/// chain.require_whole()?;
/// assert!(chain.follow(serial, &block).is_err());
/// # Ok::<(), ghostwire_store_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chain {
    last: Serial,
    /// The last block's hash. Unknown where the chain begins after blocks that were purged.
    hash: Option<BlockHash>,
    head: Option<Head>,
}

impl Chain {
    /// All blocks that are kept.
    ///
    /// # Errors
    /// `Corrupt` if the head contradicts itself.
    pub fn whole(head: &Head) -> Result<Self> {
        let oldest = head.oldest_block;
        if head.checkpoint > head.serial
            || oldest > head.checkpoint.next()
            || oldest == Serial::ZERO
        {
            return Err(Error::corrupt(
                "the store's head contradicts itself; restore the store from a backup",
            )
            .with("serial", head.serial)
            .with("checkpoint", head.checkpoint)
            .with("oldest_block", oldest));
        }
        Ok(Self::up_to(head, Serial::new(oldest.get().saturating_sub(1))))
    }

    /// The stored blocks after a serial, at most `limit`. Also gives how many of them there must be.
    ///
    /// # Errors
    /// `Compacted` if the first one was purged.
    pub fn after(head: &Head, after: Serial, limit: usize) -> Result<(Self, usize)> {
        let oldest = head.oldest_block;
        if limit > 0 && after < head.serial && after.next() < oldest {
            return Err(Error::new(
                ErrorKind::Compacted { oldest: oldest.get() },
                "the blocks after this serial are gone; resynchronise from a snapshot",
            )
            .with("after", after)
            .with("oldest", oldest));
        }
        let left = head.serial.get().saturating_sub(after.get());
        let wanted = limit.min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok((Self::up_to(head, after), wanted))
    }

    /// The stored blocks that follow `after`, of which the last is the head's.
    pub(crate) fn up_to(head: &Head, after: Serial) -> Self {
        let hash = match after {
            Serial::ZERO => Some(BlockHash::GENESIS),
            after if after == head.serial => Some(head.hash),
            _ => None,
        };
        Self { last: after, hash, head: Some(*head) }
    }

    /// The stored blocks after one whose hash is known, of which the last is the head's.
    pub(crate) fn between(LogPosition { serial, hash }: LogPosition, head: &Head) -> Self {
        Self { last: serial, hash: Some(hash), head: Some(*head) }
    }

    /// The blocks that follow the one with this serial and, where it is known, this hash.
    pub(crate) fn from(serial: Serial, hash: impl Into<Option<BlockHash>>) -> Self {
        Self { last: serial, hash: hash.into(), head: None }
    }

    /// The last block's hash; `None` if no block was taken, and that before the first is not known.
    pub(crate) fn hash(&self) -> Option<BlockHash> {
        self.hash
    }

    /// The serial of the last block, or of the one that the chain begins after.
    pub(crate) fn last(&self) -> Serial {
        self.last
    }

    /// The serial of the block that comes next.
    #[must_use]
    pub fn next(&self) -> Serial {
        self.last.next()
    }

    /// Takes the block that is stored under this serial.
    ///
    /// # Errors
    /// `Corrupt` if it is not the next one.
    pub fn follow(&mut self, serial: Serial, block: &EncodedBlock) -> Result<()> {
        if serial != self.next() {
            return Err(self.missing().with("found", serial));
        }
        let head = self.head.filter(|head| head.serial == serial);
        let is_heads = head.is_none_or(|head| {
            (head.block, head.hash, head.time) == (block.id, block.hash, block.time)
        });
        let follows = self.hash.is_none_or(|hash| hash == block.previous);
        if block.serial != serial || !follows || !is_heads {
            return Err(Error::corrupt(
                "a block does not belong to its neighbours; restore the store from a backup",
            )
            .with("serial", serial));
        }
        self.last = serial;
        self.hash = Some(block.hash);
        Ok(())
    }

    /// To be called when there are no more blocks.
    ///
    /// # Errors
    /// `Corrupt` if the last one was not the head's.
    pub fn require_whole(&self) -> Result<()> {
        if self.head.is_none_or(|head| head.serial == self.last) {
            return Ok(());
        }
        Err(self.missing())
    }

    /// The error for the case that the next block is not there.
    #[must_use]
    pub fn missing(&self) -> Error {
        Error::corrupt("a block is missing; restore the store from a backup")
            .with("serial", self.next())
    }
}

/// How many blocks to read at once, so that no read is of one moment for long.
struct Stride(usize);

impl Stride {
    const FIRST: Self = Self(8);

    /// After blocks were read that have so many bytes together.
    fn adapt(&mut self, bytes: usize) {
        const BYTES: usize = 2 << 20;
        const MOST: usize = 256;
        self.0 = if bytes > BYTES { (self.0 / 2).max(1) } else { (self.0 * 2).min(MOST) };
    }
}

/// Reads and checks all blocks that are kept, up to a head's, while others may be added and purged. `read` gives
/// at most so many blocks after a serial, and `Compacted` if they are purged. Tells how many there were.
///
/// # Errors
/// `Corrupt` if they are no chain that ends in the head; those of `read`.
pub fn follow_kept(
    head: &Head,
    mut read: impl FnMut(Serial, usize) -> Result<Vec<EncodedBlock>>,
) -> Result<u64> {
    let (mut chain, mut stride, mut count) = (Chain::whole(head)?, Stride::FIRST, 0);
    while chain.last < head.serial {
        let blocks = match read(chain.last, stride.0) {
            Err(error) if let ErrorKind::Compacted { oldest } = *error.kind() => {
                let purged = Serial::new(oldest.saturating_sub(1));
                chain = Chain::up_to(head, purged.min(head.serial).max(chain.next()));
                continue;
            }
            blocks => blocks?,
        };
        if blocks.is_empty() {
            return Err(chain.missing());
        }
        stride.adapt(blocks.iter().map(|block| block.bytes.len()).sum());
        for block in blocks.iter().take_while(|block| block.serial <= head.serial) {
            chain.follow(block.serial, block)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Reads and checks the blocks of a chain that has just been made, up to its head's.
pub(crate) async fn read_chain(
    backend: &dyn Backend,
    mut chain: Chain,
    each: impl FnMut(EncodedBlock) -> Result<()>,
) -> Result<Chain> {
    let last = chain.head.map_or(chain.last, |head| head.serial);
    read_chain_to(backend, &mut chain, last, each).await?;
    Ok(chain)
}

/// Reads and checks the blocks of a chain that come next, up to and including a serial, or to the last
/// that is stored.
pub(crate) async fn read_chain_to(
    backend: &dyn Backend,
    chain: &mut Chain,
    last: Serial,
    mut each: impl FnMut(EncodedBlock) -> Result<()>,
) -> Result<()> {
    let mut stride = Stride::FIRST;
    loop {
        let left = last.get().saturating_sub(chain.last.get());
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(stride.0);
        if wanted == 0 {
            return Ok(());
        }
        let blocks = backend.blocks(chain.last, wanted).await?;
        let read = blocks.len();
        stride.adapt(blocks.iter().map(|block| block.bytes.len()).sum());
        for block in blocks {
            chain.follow(block.serial, &block)?;
            each(block)?;
        }
        if read < wanted {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::backend::Commit;
    use crate::block::BlockBuilder;
    use crate::domain::{BlockId, StoreId, Timestamp};
    use crate::schema::Schema;

    fn after(serial: u64, hash: BlockHash, id: u8) -> EncodedBlock {
        let (serial, id) = (Serial::new(serial).next(), BlockId::from_bytes([id; 16]));
        BlockBuilder::default().finish(serial, id, hash, Timestamp::EPOCH).unwrap().block
    }

    /// Three blocks and the head after them.
    fn blocks() -> (Vec<EncodedBlock>, Head) {
        let mut head = Head::genesis(StoreId::from_bytes([1; 16]), Schema::current());
        let mut blocks = Vec::new();
        for id in 1..=3 {
            let block = Some(after(head.serial.get(), head.hash, id));
            blocks.extend(block.clone());
            let commit = Commit { block, ..Commit::on(&head) };
            head = head.after(&commit).unwrap();
        }
        (blocks, head)
    }

    fn check(mut chain: Chain, blocks: &[EncodedBlock]) -> Result<()> {
        blocks.iter().try_for_each(|block| chain.follow(block.serial, block))?;
        chain.require_whole()
    }

    #[test]
    fn blocks_that_follow_each_other_up_to_the_head_are_a_chain() {
        let (blocks, head) = blocks();
        check(Chain::whole(&head).unwrap(), &blocks).unwrap();
        for begin in 0..3 {
            let (chain, wanted) = Chain::after(&head, Serial::new(begin as u64), 9).unwrap();
            assert_eq!(wanted, 3 - begin);
            check(chain.clone(), &blocks[begin..]).unwrap();
            assert!(check(chain, &blocks[begin..2]).is_err(), "the last one is missing");
        }
        assert_eq!(Chain::after(&head, Serial::new(1), 1).unwrap().1, 1);
        assert_eq!(Chain::after(&head, Serial::new(7), 9).unwrap().1, 0);
        check(Chain::from(blocks[0].serial, blocks[0].hash), &blocks[1..]).unwrap();
    }

    #[test]
    fn a_missing_or_replaced_block_is_noticed() {
        let (blocks, head) = blocks();
        let [first, second, third] = blocks.try_into().unwrap();
        let replaced = after(1, BlockHash::GENESIS, 2);
        let other_last = after(2, second.hash, 9);
        for wrong in [
            vec![first.clone(), third.clone()],
            vec![second.clone(), third.clone()],
            vec![first.clone(), replaced.clone(), third.clone()],
            vec![first.clone(), replaced],
            vec![first.clone(), second.clone(), other_last],
            vec![first.clone(), second.clone()],
            vec![],
        ] {
            let error = check(Chain::whole(&head).unwrap(), &wrong).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt);
        }
        let other = Chain::from(first.serial, BlockHash::GENESIS);
        assert!(check(other, &[second.clone(), third.clone()]).is_err());
        // Stored under the serial of another one.
        assert!(Chain::from(first.serial, None).follow(second.serial, &third).is_err());
        // The block before is purged, so its hash cannot be compared.
        let purged = Head { oldest_block: second.serial, checkpoint: second.serial, ..head };
        check(Chain::whole(&purged).unwrap(), &[second, third]).unwrap();
    }

    #[test]
    fn blocks_that_are_purged_or_added_meanwhile_are_passed_over() {
        let (blocks, head) = blocks();
        let after = |serial: Serial| {
            let from = usize::try_from(serial.get()).unwrap();
            blocks[from..].to_vec()
        };
        assert_eq!(follow_kept(&head, |serial, _| Ok(after(serial))).unwrap(), 3);
        let one_by_one = |serial: Serial, _| Ok(after(serial)[..1].to_vec());
        assert_eq!(follow_kept(&head, one_by_one).unwrap(), 3);
        let earlier = Head { serial: Serial::new(2), hash: blocks[1].hash, ..head };
        let earlier = Head { block: blocks[1].id, ..earlier };
        assert_eq!(follow_kept(&earlier, |serial, _| Ok(after(serial))).unwrap(), 2);
        for (oldest, left) in [(2, 2), (3, 1), (4, 0), (9, 0)] {
            let purged = |serial: Serial, _| match serial.get() + 1 < oldest {
                true => Err(Error::new(ErrorKind::Compacted { oldest }, "purged")),
                false => Ok(after(serial)),
            };
            assert_eq!(follow_kept(&head, purged).unwrap(), left, "{oldest}");
        }
        for wrong in [vec![], vec![blocks[1].clone()], vec![blocks[0].clone(), blocks[2].clone()]] {
            let error = follow_kept(&head, |_, _| Ok(wrong.clone())).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Corrupt);
        }
        let other = Head { hash: blocks[0].hash, ..head };
        assert!(follow_kept(&other, |serial, _| Ok(after(serial))).is_err());
    }

    #[test]
    fn long_blocks_are_read_one_by_one() {
        let mut stride = Stride::FIRST;
        (0..9).for_each(|_| stride.adapt(100));
        assert_eq!(stride.0, 256);
        (0..9).for_each(|_| stride.adapt(16 << 20));
        assert_eq!(stride.0, 1);
    }

    #[test]
    fn purged_blocks_and_contradictory_heads_are_refused() {
        let (_, head) = blocks();
        let purged = Head { oldest_block: head.serial, checkpoint: head.serial, ..head };
        let error = Chain::after(&purged, Serial::new(1), 9).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Compacted { oldest: 3 });
        assert!(Chain::after(&purged, Serial::new(2), 9).is_ok());
        assert_eq!(Chain::after(&purged, Serial::ZERO, 0).unwrap().1, 0);
        for wrong in [
            Head { checkpoint: Serial::new(4), ..head },
            Head { oldest_block: Serial::new(2), ..head },
            Head { oldest_block: Serial::ZERO, ..head },
        ] {
            assert_eq!(*Chain::whole(&wrong).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
