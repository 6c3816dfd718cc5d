//! Whether the blocks that a file keeps are those that its head names.

use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};

/// Checks blocks as they are read, one after the other: none is missing, each names the one before it,
/// and the last one is the head's.
#[derive(Debug)]
pub struct Chain {
    head: Head,
    next: Serial,
    previous: Option<BlockHash>,
}

impl Chain {
    /// Of all blocks that are kept.
    ///
    /// # Errors
    /// `Corrupt` if the head contradicts itself.
    pub fn whole(head: Head) -> Result<Self> {
        let oldest = head.oldest_block;
        if head.checkpoint > head.serial
            || oldest > head.checkpoint.next()
            || oldest == Serial::ZERO
        {
            return Err(Error::corrupt(
                "the store's head contradicts itself; restore from a backup",
            )
            .with("serial", head.serial)
            .with("checkpoint", head.checkpoint)
            .with("oldest_block", oldest));
        }
        Ok(Self::from(head, oldest))
    }

    /// Of those after a serial; tells how many of `limit` there have to be, too.
    ///
    /// # Errors
    /// `Compacted` if they are gone.
    pub fn after(head: Head, after: Serial, limit: usize) -> Result<(Self, usize)> {
        let oldest = head.oldest_block.get();
        if limit > 0 && after < head.serial && after.next() < head.oldest_block {
            return Err(Error::new(
                ErrorKind::Compacted { oldest },
                "the blocks after this serial are gone; resynchronise from a snapshot",
            )
            .with("after", after)
            .with("oldest", oldest));
        }
        let left = head.serial.get().saturating_sub(after.get());
        let wanted = limit.min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok((Self::from(head, after.next()), wanted))
    }

    fn from(head: Head, next: Serial) -> Self {
        let is_first = next == Serial::ZERO.next();
        Self { head, next, previous: is_first.then_some(BlockHash::GENESIS) }
    }

    /// Takes the block that is stored under this serial.
    ///
    /// # Errors
    /// `Corrupt` if it is not the next one.
    pub fn follow(&mut self, serial: Serial, block: &EncodedBlock) -> Result<()> {
        if serial != self.next {
            return Err(self.missing());
        }
        let head = &self.head;
        let fits = block.serial == serial
            && self.previous.is_none_or(|previous| previous == block.previous)
            && (serial < head.serial
                || (block.serial, block.hash, block.id, block.time)
                    == (head.serial, head.hash, head.block, head.time));
        if !fits {
            return Err(Error::corrupt(
                "a block does not belong to its neighbours; restore the store from a backup",
            )
            .with("serial", serial));
        }
        self.next = serial.next();
        self.previous = Some(block.hash);
        Ok(())
    }

    /// To be called when there are no more, if the last one was to be the head's.
    ///
    /// # Errors
    /// `Corrupt` if blocks are missing.
    pub fn require_whole(&self) -> Result<()> {
        if self.next == self.head.serial.next() { Ok(()) } else { Err(self.missing()) }
    }

    /// What it means if the next block is not there.
    #[must_use]
    pub fn missing(&self) -> Error {
        Error::corrupt("a block is missing; restore the store from a backup")
            .with("serial", self.next)
    }
}
