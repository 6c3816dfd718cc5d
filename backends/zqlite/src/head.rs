//! Where the store stands, as it is stored, and how a commit moves that.

use bytes::{Buf, BufMut};
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::{BlockId, CommitId, LineageId, SideId, StoreId, Timestamp};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::{Schema, SchemaVersion};
use ghostwire_store_core::secrets::KeyCheck;

use crate::series::SeriesHead;

/// The head, and what the backend keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) head: Head,
    /// How many rows of the state there are: one that got lost shows.
    pub(crate) rows: u64,
    /// The next row's slot. Slots are never used again.
    pub(crate) next_slot: u64,
    pub(crate) series: SeriesHead,
    /// `None` in a head of a build that did not know them.
    pub(crate) sums: Option<Sums>,
    /// `None` if the store has no pin.
    pub(crate) pinned: Option<Pinned>,
}

/// What the head of a store with a pin says of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// How often the head was written since it has one. The position does not tell that: a commit that only
    /// flushes leaves it, and gives another head.
    pub(crate) commits: u64,
    /// The head of the mark that somebody gave up when he accepted that the store was put back.
    pub(crate) overridden: Option<[u8; 32]>,
}

/// Sums of checksums, modulo 2^64. A record that got lost, is there twice or is an older one of its
/// own changes them, though each record by itself is sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Of the rows of the state.
    pub(crate) rows: u64,
    /// Of the data blocks.
    pub(crate) data_blocks: u64,
    /// Of the data blocks' tables and keys.
    pub(crate) data_block_keys: u64,
}

/// Of a build that kept no sums. Numbers are big-endian.
const WITHOUT_SUMS: usize = 16 + 8 + 16 + 32 + 8 + 8 + 8 + 4 + 4 + 8 + 8 + 4 * 8;
/// Of schemas 1 and 2.
const UNCOUNTED: usize = WITHOUT_SUMS + 3 * 8;
/// Since schema 3.
pub(crate) const LENGTH: usize = UNCOUNTED + 3 * 16 + 2 * 8 + 16 + 1;
/// With a pin.
const PINNED_LENGTH: usize = LENGTH + 8;
/// With a pin that was overridden.
const LONGEST: usize = PINNED_LENGTH + 32;

/// Bits of the last byte.
const FILLING: u8 = 1;
const HAS_CREDENTIAL_KEY: u8 = 2;
const HAS_SUMS: u8 = 4;
const IS_PINNED: u8 = 8;
const OVERRIDES_PIN: u8 = 16;

impl Stored {
    /// An empty store.
    pub(crate) fn empty(store: StoreId, schema: Schema) -> Self {
        Self {
            head: Head::genesis(store, schema),
            rows: 0,
            next_slot: 1,
            series: SeriesHead::EMPTY,
            sums: Some(Sums::default()),
            pinned: None,
        }
    }

    /// Numbers that never fall.
    pub(crate) fn moment(&self) -> [u64; 5] {
        let Head { position, epoch, checkpoint, .. } = self.head;
        [position.get(), epoch.get(), checkpoint.get(), self.series.next, self.next_slot]
    }

    /// What the next head begins with: if the store has a pin, its commits are counted.
    pub(crate) fn counted(self) -> Self {
        let count = |pinned: Pinned| Pinned { commits: pinned.commits.saturating_add(1), ..pinned };
        Self { pinned: self.pinned.map(count), ..self }
    }

    /// Where an empty store stands once it is to become a copy of one that stands at `head`.
    pub(crate) fn adopt(self, head: &Head) -> Result<Self> {
        let adopted = self.head.adopt(head)?;
        // What is only flushed is not counted by the head.
        if self.rows > 0 || self.series != SeriesHead::EMPTY {
            return Err(Error::new(ErrorKind::Restricted, "the store has rows; name an empty one")
                .with("rows", self.rows));
        }
        Ok(Self { head: adopted, ..self })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = &self.head;
        let mut bytes = Vec::with_capacity(LONGEST);
        bytes.put_slice(head.store.as_bytes());
        bytes.put_u64(head.serial.get());
        bytes.put_slice(head.block.as_bytes());
        bytes.put_slice(head.hash.as_bytes());
        bytes.put_i64(head.time.as_micros());
        bytes.put_u64(head.checkpoint.get());
        bytes.put_u64(head.oldest_block.get());
        bytes.put_u32(head.schema.version);
        bytes.put_u32(head.schema.oldest_reader);
        bytes.put_u64(self.rows);
        bytes.put_u64(self.next_slot);
        let SeriesHead { first, immutable_until, next, data_blocks } = self.series;
        [first, immutable_until, next, data_blocks]
            .into_iter()
            .for_each(|number| bytes.put_u64(number));
        let is_counted = head.schema.counts_positions();
        if self.sums.is_some() || is_counted {
            let Sums { rows, data_blocks, data_block_keys } = self.sums.unwrap_or_default();
            [rows, data_blocks, data_block_keys]
                .into_iter()
                .for_each(|number| bytes.put_u64(number));
        }
        if is_counted {
            bytes.put_slice(head.side.as_bytes());
            bytes.put_slice(head.lineage.as_bytes());
            bytes.put_u64(head.epoch.get());
            bytes.put_u64(head.position.get());
            bytes.put_slice(head.commit.as_bytes());
            bytes.put_slice(head.credential_key.map_or([0; 16], |key| *key.as_bytes()).as_slice());
            let flags = [
                (head.filling, FILLING),
                (head.credential_key.is_some(), HAS_CREDENTIAL_KEY),
                (self.sums.is_some(), HAS_SUMS),
                (self.pinned.is_some(), IS_PINNED),
                (self.pinned.is_some_and(|pinned| pinned.overridden.is_some()), OVERRIDES_PIN),
            ];
            let set = flags.iter().filter(|(is_set, _)| *is_set);
            bytes.put_u8(set.fold(0, |flags, (_, flag)| flags | flag));
            if let Some(Pinned { commits, overridden }) = self.pinned {
                bytes.put_u64(commits);
                bytes.put_slice(overridden.as_ref().map_or(&[], <[u8; 32]>::as_slice));
            }
        }
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self> {
        let length = bytes.len();
        if ![LENGTH, PINNED_LENGTH, LONGEST, UNCOUNTED, WITHOUT_SUMS].contains(&length) {
            return Err(Error::corrupt("the store's head has the wrong length")
                .with("bytes", length)
                .with("expected", LENGTH));
        }
        fn array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
            let mut array = [0; N];
            bytes.copy_to_slice(&mut array);
            array
        }
        // Evaluated in the order in which it is written; the length was checked.
        let store = StoreId::from_bytes(array(&mut bytes));
        let head = Head {
            serial: Serial::new(bytes.get_u64()),
            block: BlockId::from_bytes(array(&mut bytes)),
            hash: BlockHash::from_bytes(array(&mut bytes)),
            time: Timestamp::from_micros(bytes.get_i64())
                .map_err(|error| Error::corrupt("the store's head is damaged").because(error))?,
            checkpoint: Serial::new(bytes.get_u64()),
            oldest_block: Serial::new(bytes.get_u64()),
            schema: SchemaVersion { version: bytes.get_u32(), oldest_reader: bytes.get_u32() },
            ..Head::genesis(store, Schema::current())
        };
        if head.schema.counts_positions() != (length >= LENGTH) {
            return Err(Error::corrupt("the store's head is of another schema than it says")
                .with("bytes", length)
                .with("schema", head.schema.version));
        }
        let (rows, next_slot) = (bytes.get_u64(), bytes.get_u64());
        let series = SeriesHead {
            first: bytes.get_u64(),
            immutable_until: bytes.get_u64(),
            next: bytes.get_u64(),
            data_blocks: bytes.get_u64(),
        };
        if series.immutable_until < series.first || series.next < series.immutable_until {
            return Err(Error::corrupt("the store's head contradicts itself")
                .with("journal_first", series.first)
                .with("journal_frozen_until", series.immutable_until)
                .with("journal_next", series.next));
        }
        let mut sums = (length > WITHOUT_SUMS).then(|| Sums {
            rows: bytes.get_u64(),
            data_blocks: bytes.get_u64(),
            data_block_keys: bytes.get_u64(),
        });
        let (mut head, mut pinned) = (head.carried_forward(), None);
        if length >= LENGTH {
            head.side = SideId::from_bytes(array(&mut bytes));
            head.lineage = LineageId::from_bytes(array(&mut bytes));
            head.epoch = Epoch::new(bytes.get_u64());
            head.position = Position::new(bytes.get_u64());
            head.commit = CommitId::from_bytes(array(&mut bytes));
            let key = KeyCheck::from_bytes(array(&mut bytes));
            let flags = bytes.get_u8();
            let has = |flag| flags & flag != 0;
            let expected = match (has(IS_PINNED), has(OVERRIDES_PIN)) {
                (false, false) => Some(LENGTH),
                (true, false) => Some(PINNED_LENGTH),
                (true, true) => Some(LONGEST),
                (false, true) => None,
            };
            let known = FILLING | HAS_CREDENTIAL_KEY | HAS_SUMS | IS_PINNED | OVERRIDES_PIN;
            if flags & !known != 0 || expected != Some(length) {
                return Err(Error::corrupt("the store's head is damaged").with("flags", flags));
            }
            pinned = has(IS_PINNED).then(|| Pinned {
                commits: bytes.get_u64(),
                overridden: has(OVERRIDES_PIN).then(|| array(&mut bytes)),
            });
            head.filling = has(FILLING);
            head.credential_key = has(HAS_CREDENTIAL_KEY).then_some(key);
            sums = sums.filter(|_| has(HAS_SUMS));
        }
        let stored = Self { head, rows, next_slot, series, sums, pinned };
        if head.checkpoint > head.serial || head.oldest_block > head.checkpoint.next() {
            return Err(Error::corrupt("the store's head contradicts itself")
                .with("serial", head.serial)
                .with("checkpoint", head.checkpoint)
                .with("oldest_block", head.oldest_block));
        }
        Ok(stored)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(schema: Schema) -> Stored {
        let mut stored = Stored::empty(StoreId::from_bytes([7; 16]), schema);
        stored.head.serial = Serial::new(9);
        stored.head.block = BlockId::from_bytes([8; 16]);
        stored.sums = Some(Sums { rows: 1, data_blocks: 2, data_block_keys: 3 });
        stored
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let whole = stored(Schema::current());
        let with_all = Head {
            side: SideId::from_bytes([1; 16]),
            lineage: LineageId::from_bytes([2; 16]),
            epoch: Epoch::new(3),
            position: Position::new(11),
            commit: CommitId::from_bytes([4; 16]),
            credential_key: Some(KeyCheck::from_bytes([0; 16])),
            filling: true,
            ..whole.head
        };
        for head in [whole.head, with_all] {
            for sums in [None, whole.sums] {
                let stored = Stored { head, sums, ..whole };
                let bytes = stored.encode();
                assert_eq!(bytes.len(), LENGTH);
                assert_eq!(Stored::decode(&bytes).unwrap(), stored);
            }
        }
        let mut bytes = whole.encode();
        for flags in [IS_PINNED, OVERRIDES_PIN, IS_PINNED | OVERRIDES_PIN, 32] {
            *bytes.last_mut().unwrap() = flags;
            assert!(Stored::decode(&bytes).is_err(), "{flags}");
        }
    }

    #[test]
    fn a_head_with_a_pin_counts_its_commits() {
        let whole = stored(Schema::current());
        assert_eq!(whole.counted(), whole);
        for (overridden, length) in [(None, LENGTH + 8), (Some([6; 32]), LENGTH + 40)] {
            let pinned = Some(Pinned { commits: 5, overridden });
            let stored = Stored { pinned, ..whole };
            let bytes = stored.encode();
            assert_eq!(bytes.len(), length);
            assert_eq!(Stored::decode(&bytes).unwrap(), stored);
            assert!(Stored::decode(bytes.get(..LENGTH).unwrap()).is_err());
            let next = Stored { pinned: Some(Pinned { commits: 6, overridden }), ..whole };
            assert_eq!(stored.counted(), next);
        }
    }

    #[test]
    fn heads_of_older_schemas_are_carried_forward() {
        for schema in [1, 2] {
            let whole = stored(Schema::at(schema).unwrap());
            for (sums, length) in [(None, 152), (whole.sums, 176)] {
                let bytes = Stored { sums, ..whole }.encode();
                assert_eq!(bytes.len(), length);
                let head = whole.head.carried_forward();
                assert_eq!(Stored::decode(&bytes).unwrap(), Stored { head, sums, ..whole });
                assert_eq!(head.position.get(), 9);
            }
        }
        // A length is of one schema.
        let mut bytes = stored(Schema::at(2).unwrap()).encode();
        bytes.resize(LENGTH, 0);
        assert!(Stored::decode(&bytes).is_err());
        assert!(Stored::decode(bytes.get(..175).unwrap()).is_err());
    }
}
