//! The tags of blocks and journal entries, by their numbers, which follow each other. Those of rows are
//! in the slots, those of data blocks in the directory.

use std::collections::VecDeque;

use ghostwire_store_core::error::{Error, Result};

use crate::engine::Snapshot;
use crate::envelope::{Envelope, Kind, Sum, Tag, missing, tags_beside};
use crate::head::Stored;

/// Of records whose numbers follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Run<T> {
    first: u64,
    tags: VecDeque<T>,
}

impl<T: Copy> Run<T> {
    /// None, before the number `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self { first, tags: VecDeque::new() }
    }

    pub(crate) fn get(&self, number: u64) -> Option<T> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.tags.get(index).copied()
    }

    /// At most so many of them, from this number on.
    pub(crate) fn part(&self, first: u64, limit: usize) -> Self {
        let skipped = usize::try_from(first.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let tags = self.tags.iter().skip(skipped).take(limit).copied().collect();
        Self { first: self.first.max(first), tags }
    }

    /// The number of the next one.
    fn next(&self) -> u64 {
        self.first.saturating_add(self.tags.len() as u64)
    }

    /// Of one that is there.
    pub(crate) fn replace(&mut self, number: u64, tag: T) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(own) = index.and_then(|index| self.tags.get_mut(index)) {
            *own = tag;
        }
    }

    pub(crate) fn push(&mut self, tag: T) {
        self.tags.push_back(tag);
    }

    /// Those before this number.
    pub(crate) fn before(&self, number: u64) -> impl Iterator<Item = (u64, T)> {
        (self.first..number).zip(self.tags.iter().copied())
    }

    /// Drops those.
    pub(crate) fn cut(&mut self, before: u64) {
        let count = self.before(before).count();
        self.tags.drain(..count);
        self.first = self.first.max(before);
    }
}

/// Those of one moment.
#[derive(Debug, Clone)]
pub(crate) struct Tags {
    /// Of each block's two parts.
    pub(crate) blocks: Run<[Tag; 2]>,
    pub(crate) journal: Run<Tag>,
}

/// Puts a block into a sum, or takes it out again.
pub(crate) fn toggle_block(
    envelope: &Envelope,
    sum: &mut Sum,
    serial: u64,
    [changes, audit]: [Tag; 2],
) {
    envelope.toggle(sum, Kind::Block, serial, changes);
    envelope.toggle(sum, Kind::Audit, serial, audit);
}

/// Reads what stands beside the blocks: that none is missing, that there are none but those of the
/// head, and that no tag is an older one.
pub(crate) fn read_blocks(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Run<[Tag; 2]>> {
    let (oldest, next) = (stored.head.oldest_block.get(), stored.head.serial.next().get());
    let (mut run, mut total) = (Run::new(oldest), Sum::default());
    snapshot.block_frames(&mut |serial, frame| {
        if serial < oldest {
            return Err(Error::corrupt("a block is there that was purged; restore from a backup")
                .with("serial", serial));
        }
        if serial >= next {
            return Err(Error::corrupt(
                "a block is newer than the store's head; restore from a backup",
            )
            .with("serial", serial));
        }
        if serial != run.next() {
            return Err(missing(Kind::Block, run.next()));
        }
        let tags = tags_beside(serial, frame)?;
        toggle_block(envelope, &mut total, serial, tags);
        run.push(tags);
        Ok(())
    })?;
    if run.next() != next {
        return Err(missing(Kind::Block, run.next()));
    }
    match total == stored.inventory.blocks {
        true => Ok(run),
        false => Err(not_of_one_moment("blocks")),
    }
}

/// What the sum over records shows though each by itself is sound.
pub(crate) fn not_of_one_moment(what: &'static str) -> Error {
    Error::corrupt(
        "records are not all of one moment: a write of some got lost, or older ones were put back; restore \
         from a backup",
    )
    .with("records", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_number_and_cut_at_its_beginning() {
        let mut run = Run::new(3);
        (3..8).for_each(|number| run.push(number));
        assert_eq!(
            (run.get(2), run.get(3), run.get(7), run.get(8)),
            (None, Some(3), Some(7), None)
        );
        assert_eq!(run.before(5).collect::<Vec<_>>(), [(3, 3), (4, 4)]);
        run.replace(4, 14);
        run.replace(9, 19);
        assert_eq!((run.get(4), run.get(9)), (Some(14), None));
        run.cut(5);
        assert_eq!((run.get(4), run.get(5), run.next()), (None, Some(5), 8));
        run.cut(2);
        assert_eq!(run.get(5), Some(5));
        run.cut(20);
        assert_eq!((run.get(7), run.next()), (None, 20));
    }
}
