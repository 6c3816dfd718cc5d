//! What a rotation does to an open file: its sums are counted anew, and what lies under a key that leaked is
//! taken down.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use ghostwire_store_core::error::Result;

use super::Open;
use crate::before_leak::{BeforeLeak, Contents};
use crate::envelope::{Envelope, Kind, Tag, missing, older, require_content, tag_of};
use crate::head::{Stored, Sums};
use crate::resealing::recounted;
use crate::tags::{not_of_one_moment, toggle_block};

impl Open {
    /// Whether the head is of before a rotation that replaces all keys.
    pub(crate) fn is_giving_up(&self) -> bool {
        self.successor.is_some()
    }

    /// Counts under the inventory's new key, if a rotation that replaced it is under way. The pin was asked
    /// by then, whose key is replaced, too, and is moved after.
    pub(crate) fn succeed(&mut self, stored: Stored) -> Result<Stored> {
        let Some(successor) = self.successor.take() else { return Ok(stored) };
        let before = std::mem::replace(&mut self.envelope, successor);
        let counted = self.count_anew(stored, &before);
        // What is surely not stored is counted as before.
        if counted.is_err() && self.require_known().is_ok() {
            self.successor = Some(std::mem::replace(&mut self.envelope, before));
        }
        counted
    }

    /// Writes a head whose sums are under the inventory's new key.
    fn count_anew(&mut self, stored: Stored, before: &Envelope) -> Result<Stored> {
        let sums = self.sums()?;
        let stored = Stored { inventory: sums, ..stored };
        let (contents, before_leak) = self.take_down_contents(&stored, before)?;
        let knowing = self.envelope.knowing(contents);
        let known = std::mem::replace(&mut self.envelope, knowing);
        let counted = self.write_signed(Stored { before_leak, ..stored });
        if counted.is_err() {
            self.envelope = known;
        }
        counted
    }

    /// The sums over what is in memory.
    fn sums(&self) -> Result<Sums> {
        let (slots, tags, mut sums) = (self.slots()?, self.tags(), Sums::default());
        for slot in slots.iter() {
            self.envelope.toggle(&mut sums.rows, Kind::Row, slot.number, slot.tag);
        }
        for (serial, tags) in tags.blocks.before(u64::MAX) {
            toggle_block(&self.envelope, &mut sums.blocks, serial, tags);
        }
        for (number, tag) in tags.journal.before(u64::MAX) {
            self.envelope.toggle(&mut sums.journal, Kind::Journal, number, tag);
        }
        for (number, tag) in self.versions.current().directory.tags() {
            self.envelope.toggle(&mut sums.leaves, Kind::Directory, number, tag);
        }
        Ok(sums)
    }

    /// Takes down what is in the records that a rotation because of a leak finds. They have the tags that are
    /// known of them, and the contents, if a key had leaked before.
    fn take_down_contents(
        &self,
        stored: &Stored,
        before: &Envelope,
    ) -> Result<(Contents, BeforeLeak)> {
        let Some(below) = self.envelope.version() else { return Ok(Default::default()) };
        let directory = &self.versions.current().directory;
        let chunks: HashMap<u64, Tag> =
            directory.entries().map(|entry| (entry.number, entry.tag)).collect();
        let mut found = Sums { blocks: stored.inventory.blocks, ..Sums::default() };
        let mut check = |kind: Kind, number: u64, bytes: &[u8]| -> Result<()> {
            require_content(before, kind, number, bytes)?;
            let tag = tag_of(bytes).ok_or_else(|| missing(kind, number))?;
            let sum = match kind {
                Kind::Row => &mut found.rows,
                Kind::Directory => &mut found.leaves,
                Kind::Journal => &mut found.journal,
                _ if chunks.get(&number) == Some(&tag) => return Ok(()),
                _ => return Err(older(kind, number)),
            };
            self.envelope.toggle(sum, kind, number, tag);
            Ok(())
        };
        let mut snapshot = self.engine.snapshot()?;
        let taken = Contents::take_down(&mut *snapshot, &self.envelope, below, &mut check)?;
        match found == stored.inventory {
            true => Ok(taken),
            false => Err(not_of_one_moment("rows, leaves or journal")),
        }
    }

    /// The head with its records counted by versions anew, if sealing anew did not find all that are counted.
    /// `None` otherwise, and a second time: then some lie where none should.
    pub(crate) fn recount(&self, stored: &Stored) -> Result<Option<Stored>> {
        let is_stuck =
            self.envelope.version().is_some_and(|version| stored.resealing.is_stuck(version));
        if !is_stuck || self.has_recounted.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let mut snapshot = self.engine.writer_snapshot()?;
        let resealing = recounted(&mut *snapshot, &self.envelope, stored)?;
        Ok(Some(Stored { resealing, ..stored.moved_to(stored.head) }))
    }
}
