//! Where the store stands, as it is stored, and how a commit moves that.

use bytes::{Buf, BufMut};
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::{
    BlockId, CommitId, LineageId, MigrationId, SideId, StoreId, Timestamp,
};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::migration::{Membership, Part, Role};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::{Schema, SchemaVersion};
use ghostwire_store_core::secrets::KeyCheck;

use crate::before_leak::BeforeLeak;
use crate::envelope::Sum;
use crate::resealing::Resealing;
use crate::series::SeriesHead;

/// The head, and what the backend keeps for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) head: Head,
    /// How often the head moved, whatever for: no two heads of a history have the same.
    pub(crate) commits: u64,
    /// How many rows of the state there are: one that got lost shows.
    pub(crate) rows: u64,
    /// The next row's slot. Slots are never used again.
    pub(crate) next_slot: u64,
    pub(crate) series: SeriesHead,
    pub(crate) directory: DirectoryHead,
    pub(crate) inventory: Sums,
    /// `None` if the store has no pin.
    pub(crate) pinned: Option<Pinned>,
    /// `None` of a plain store, and of one that nothing signed yet.
    pub(crate) signature: Option<Signed>,
    pub(crate) resealing: Resealing,
    pub(crate) before_leak: BeforeLeak,
}

/// Which signature record is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The first one is 1.
    pub(crate) number: u64,
    /// Of the record as it is within its frame.
    pub(crate) hash: [u8; 32],
}

/// What the head of a store with a pin says of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// The head of the mark that somebody gave up when he accepted that the store was put back.
    pub(crate) overridden: Option<[u8; 32]>,
}

/// The directory of data blocks, as the head says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectoryHead {
    /// How many leaves it has.
    pub(crate) leaves: u64,
    /// The next leaf's number. Numbers are never used again.
    pub(crate) next_leaf: u64,
    /// The next data block's.
    pub(crate) next_chunk: u64,
}

/// Sums over the tags of all current records. One that got lost, is there twice or is an older one of
/// its own changes them, though each record by itself is sound. Data blocks hang on the directory's
/// leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) rows: Sum,
    pub(crate) journal: Sum,
    pub(crate) blocks: Sum,
    pub(crate) leaves: Sum,
}

/// What stands in front of a head, in plain: it says which keyring the rest needs, and which commit it
/// is of. What is behind it is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) side: SideId,
    pub(crate) epoch: u64,
    pub(crate) commits: u64,
    /// Of the keyring; 0 in a plain store.
    pub(crate) generation: u64,
}

const PREFIX: usize = 16 + 3 * 8;

impl DirectoryHead {
    pub(crate) const EMPTY: Self = Self { leaves: 0, next_leaf: 1, next_chunk: 1 };
}

impl Prefix {
    pub(crate) fn of(stored: &Stored, generation: u64) -> Self {
        let Stored { head, commits, .. } = stored;
        Self { side: head.side, epoch: head.epoch.get(), commits: *commits, generation }
    }

    /// A prefix, and what is behind it.
    pub(crate) fn split(stored: &[u8]) -> Result<(&[u8; PREFIX], &[u8])> {
        stored.split_first_chunk().ok_or_else(|| {
            Error::corrupt("the store's head is truncated; restore the store from a backup")
        })
    }

    pub(crate) fn encode(&self) -> [u8; PREFIX] {
        let mut bytes = [0; PREFIX];
        let mut rest = &mut bytes[..];
        rest.put_slice(self.side.as_bytes());
        [self.epoch, self.commits, self.generation].iter().for_each(|number| rest.put_u64(*number));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; PREFIX]) -> Self {
        // Evaluated in the order in which it is written.
        let mut bytes = &bytes[..];
        Self {
            side: SideId::from_bytes(array(&mut bytes)),
            epoch: bytes.get_u64(),
            commits: bytes.get_u64(),
            generation: bytes.get_u64(),
        }
    }
}

/// Of an encoded head. Numbers are big-endian.
pub(crate) const LENGTH: usize = 16 // store
    + 8 + 16 + 32 + 8 // block
    + 8 + 8 // checkpoint, oldest block
    + 4 + 4 // schema
    + 3 * 16 // side, lineage, commit
    + 8 + 8 // epoch, position
    + 16 + 1 // check of the credential key, flags
    + 3 * 8 // commits, rows, next slot
    + 4 * 8 // series
    + 3 * 8 // directory
    + 4 * 32 // sums
    + 32 // the mark that was given up
    + 8 + 32 // signature
    + Resealing::LENGTH
    + BeforeLeak::LENGTH
    + 2 + 2 * 16; // role, part, migration, peer

/// Of heads of earlier builds, which end before what came later: zeros stand for all of that.
const EARLIER: [usize; 3] = [425, 574, 610];

/// Bits of the flags.
const FILLING: u8 = 1;
const HAS_CREDENTIAL_KEY: u8 = 2;
const IS_PINNED: u8 = 4;
const OVERRIDES_PIN: u8 = 8;

/// Which end of a migration it is.
const NO_PART: u8 = 0;
const SOURCE: u8 = 1;
const TARGET: u8 = 2;

impl Stored {
    /// An empty store.
    pub(crate) fn empty(store: StoreId, schema: Schema) -> Self {
        Self {
            head: Head::genesis(store, schema),
            commits: 0,
            rows: 0,
            next_slot: 1,
            series: SeriesHead::EMPTY,
            directory: DirectoryHead::EMPTY,
            inventory: Sums::default(),
            pinned: None,
            signature: None,
            resealing: Resealing::default(),
            before_leak: BeforeLeak::default(),
        }
    }

    /// How many records are counted by versions: rows, both parts of blocks, entries of the journal, data
    /// blocks, leaves.
    pub(crate) fn records(&self) -> u64 {
        let Self { rows, head, series, directory, .. } = self;
        let blocks = head.serial.next().get().saturating_sub(head.oldest_block.get());
        let journal = series.next.saturating_sub(series.first);
        let parts = [*rows, blocks, blocks, journal, series.data_blocks, directory.leaves];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    /// With this head, one commit later.
    pub(crate) fn moved_to(self, head: Head) -> Self {
        Self { head, commits: self.commits.saturating_add(1), ..self }
    }

    /// Numbers that never fall.
    pub(crate) fn moment(&self) -> [u64; 6] {
        let Head { position, epoch, checkpoint, .. } = self.head;
        let (series, slot) = (self.series.next, self.next_slot);
        [self.commits, position.get(), epoch.get(), checkpoint.get(), series, slot]
    }

    /// Where an empty store stands once it is to become a copy of one that stands at `head`.
    pub(crate) fn adopt(self, head: &Head) -> Result<Self> {
        let adopted = self.head.adopt(head)?;
        // What is only flushed is not counted by the head.
        if self.rows > 0 || self.series != SeriesHead::EMPTY {
            return Err(Error::new(ErrorKind::Restricted, "the store has rows; name an empty one")
                .with("rows", self.rows));
        }
        Ok(self.moved_to(adopted))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { head, series, directory, inventory, .. } = self;
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.put_slice(head.store.as_bytes());
        bytes.put_u64(head.serial.get());
        bytes.put_slice(head.block.as_bytes());
        bytes.put_slice(head.hash.as_bytes());
        bytes.put_i64(head.time.as_micros());
        bytes.put_u64(head.checkpoint.get());
        bytes.put_u64(head.oldest_block.get());
        bytes.put_u32(head.schema.version);
        bytes.put_u32(head.schema.oldest_reader);
        bytes.put_slice(head.side.as_bytes());
        bytes.put_slice(head.lineage.as_bytes());
        bytes.put_slice(head.commit.as_bytes());
        bytes.put_u64(head.epoch.get());
        bytes.put_u64(head.position.get());
        bytes.put_slice(head.credential_key.map_or([0; 16], |key| *key.as_bytes()).as_slice());
        let overridden = self.pinned.and_then(|pinned| pinned.overridden);
        let flags = [
            (head.filling, FILLING),
            (head.credential_key.is_some(), HAS_CREDENTIAL_KEY),
            (self.pinned.is_some(), IS_PINNED),
            (overridden.is_some(), OVERRIDES_PIN),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        bytes.put_u8(set.fold(0, |flags, (_, flag)| flags | flag));
        [
            self.commits,
            self.rows,
            self.next_slot,
            series.first,
            series.immutable_until,
            series.next,
            series.data_blocks,
            directory.leaves,
            directory.next_leaf,
            directory.next_chunk,
        ]
        .into_iter()
        .for_each(|number| bytes.put_u64(number));
        let Sums { rows, journal, blocks, leaves } = inventory;
        [rows, journal, blocks, leaves].into_iter().for_each(|sum| bytes.put_slice(sum.as_bytes()));
        bytes.put_slice(&overridden.unwrap_or_default());
        bytes.put_u64(self.signature.map_or(0, |signed| signed.number));
        bytes.put_slice(&self.signature.map_or([0; 32], |signed| signed.hash));
        self.resealing.encode(&mut bytes);
        bytes.put_u32(self.before_leak.below);
        bytes.put_slice(self.before_leak.sum.as_bytes());
        let Head { role, membership, .. } = head;
        bytes.put_u8(role.map_or(0, Role::number));
        bytes.put_u8(membership.map_or(NO_PART, |it| match it.part {
            Part::Source => SOURCE,
            Part::Target => TARGET,
        }));
        bytes.put_slice(&membership.map_or([0; 16], |it| *it.migration.as_bytes()));
        bytes.put_slice(&membership.map_or([0; 16], |it| *it.peer.as_bytes()));
        bytes
    }

    pub(crate) fn decode(stored: &[u8]) -> Result<Self> {
        let (mut bytes, mut carried_forward) = (stored, [0; LENGTH]);
        if EARLIER.contains(&bytes.len()) {
            (&mut carried_forward[..]).put_slice(bytes);
            bytes = &carried_forward;
        }
        if bytes.len() != LENGTH {
            return Err(Error::corrupt("the store's head has the wrong length")
                .with("bytes", bytes.len())
                .with("expected", LENGTH));
        }
        let damaged = || Error::corrupt("the store's head is damaged; restore it from a backup");
        // Evaluated in the order in which it is written; the length was checked.
        let store = StoreId::from_bytes(array(&mut bytes));
        let mut head = Head {
            serial: Serial::new(bytes.get_u64()),
            block: BlockId::from_bytes(array(&mut bytes)),
            hash: BlockHash::from_bytes(array(&mut bytes)),
            time: Timestamp::from_micros(bytes.get_i64())
                .map_err(|error| damaged().because(error))?,
            checkpoint: Serial::new(bytes.get_u64()),
            oldest_block: Serial::new(bytes.get_u64()),
            schema: SchemaVersion { version: bytes.get_u32(), oldest_reader: bytes.get_u32() },
            side: SideId::from_bytes(array(&mut bytes)),
            lineage: LineageId::from_bytes(array(&mut bytes)),
            commit: CommitId::from_bytes(array(&mut bytes)),
            epoch: Epoch::new(bytes.get_u64()),
            position: Position::new(bytes.get_u64()),
            ..Head::genesis(store, Schema::current())
        };
        let key = KeyCheck::from_bytes(array(&mut bytes));
        let flags = bytes.get_u8();
        let has = |flag| flags & flag != 0;
        let known = FILLING | HAS_CREDENTIAL_KEY | IS_PINNED | OVERRIDES_PIN;
        if flags & !known != 0 || (has(OVERRIDES_PIN) && !has(IS_PINNED)) {
            return Err(damaged().with("flags", flags));
        }
        head.filling = has(FILLING);
        head.credential_key = has(HAS_CREDENTIAL_KEY).then_some(key);
        let stored = Self {
            head,
            commits: bytes.get_u64(),
            rows: bytes.get_u64(),
            next_slot: bytes.get_u64(),
            series: SeriesHead {
                first: bytes.get_u64(),
                immutable_until: bytes.get_u64(),
                next: bytes.get_u64(),
                data_blocks: bytes.get_u64(),
            },
            directory: DirectoryHead {
                leaves: bytes.get_u64(),
                next_leaf: bytes.get_u64(),
                next_chunk: bytes.get_u64(),
            },
            inventory: Sums {
                rows: Sum::from_bytes(array(&mut bytes)),
                journal: Sum::from_bytes(array(&mut bytes)),
                blocks: Sum::from_bytes(array(&mut bytes)),
                leaves: Sum::from_bytes(array(&mut bytes)),
            },
            pinned: {
                let mark = array(&mut bytes);
                let overridden = has(OVERRIDES_PIN).then_some(mark);
                has(IS_PINNED).then_some(Pinned { overridden })
            },
            signature: {
                let (number, hash) = (bytes.get_u64(), array(&mut bytes));
                if number == 0 && hash != [0; 32] {
                    return Err(damaged().with("signature", number));
                }
                (number > 0).then_some(Signed { number, hash })
            },
            resealing: Resealing::decode(&mut bytes).ok_or_else(damaged)?,
            before_leak: BeforeLeak {
                below: bytes.get_u32(),
                sum: Sum::from_bytes(array(&mut bytes)),
            },
        };
        let (role, part) = (bytes.get_u8(), bytes.get_u8());
        let migration = MigrationId::from_bytes(array(&mut bytes));
        let peer = SideId::from_bytes(array(&mut bytes));
        let role = (role != 0).then(|| Role::of_number(role).ok_or_else(damaged)).transpose()?;
        let part = match part {
            NO_PART => None,
            SOURCE => Some(Part::Source),
            TARGET => Some(Part::Target),
            _ => return Err(damaged().with("part", part)),
        };
        let membership = part.map(|part| Membership { migration, peer, part });
        let stored = Self { head: Head { role, membership, ..head }, ..stored };
        let Self { series, head, .. } = stored;
        if series.immutable_until < series.first
            || series.next < series.immutable_until
            || head.checkpoint > head.serial
            || head.oldest_block > head.checkpoint.next()
        {
            return Err(Error::corrupt("the store's head contradicts itself")
                .with("serial", head.serial)
                .with("checkpoint", head.checkpoint)
                .with("oldest_block", head.oldest_block)
                .with("journal_first", series.first)
                .with("journal_next", series.next));
        }
        Ok(stored)
    }
}

/// To be called with enough bytes.
pub(crate) fn array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let mut array = [0; N];
    bytes.copy_to_slice(&mut array);
    array
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(schema: Schema) -> Stored {
        let mut stored = Stored::empty(StoreId::from_bytes([7; 16]), schema);
        stored.head.serial = Serial::new(9);
        stored.head.block = BlockId::from_bytes([8; 16]);
        stored.commits = 12;
        stored.directory = DirectoryHead { leaves: 3, next_leaf: 4, next_chunk: 5 };
        let sum = |byte| Sum::from_bytes([byte; 32]);
        stored.inventory = Sums { rows: sum(1), journal: sum(2), blocks: sum(3), leaves: sum(4) };
        stored
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let membership = Some(Membership {
            migration: MigrationId::from_bytes([5; 16]),
            peer: SideId::from_bytes([6; 16]),
            part: Part::Target,
        });
        for schema in [1, 2, 3, 4, 5] {
            let whole = stored(Schema::at(schema).unwrap());
            let with_all = Head {
                side: SideId::from_bytes([1; 16]),
                lineage: LineageId::from_bytes([2; 16]),
                epoch: Epoch::new(3),
                position: Position::new(11),
                commit: CommitId::from_bytes([4; 16]),
                credential_key: Some(KeyCheck::from_bytes([0; 16])),
                filling: true,
                role: Some(Role::Filling),
                membership,
                ..whole.head
            };
            for head in [whole.head, with_all] {
                let pins = [None, Some([6; 32])].map(|overridden| Some(Pinned { overridden }));
                for pinned in pins {
                    let stored = Stored { head, pinned, ..whole };
                    assert_eq!(Stored::decode(&stored.encode()).unwrap(), stored);
                }
                let signature = Some(Signed { number: 5, hash: [7; 32] });
                let before_leak = BeforeLeak { below: 3, sum: Sum::from_bytes([8; 32]) };
                let stored = Stored { head, signature, before_leak, ..whole };
                let bytes = stored.encode();
                assert_eq!(bytes.len(), LENGTH);
                assert_eq!(Stored::decode(&bytes).unwrap(), stored);
                let prefix = Prefix::of(&stored, 7);
                assert_eq!(Prefix::decode(&prefix.encode()), prefix);
            }
            let bytes = whole.encode();
            assert!(Stored::decode(bytes.get(1..).unwrap()).is_err());
        }
    }

    #[test]
    fn a_head_of_an_earlier_build_lacks_nothing_but_what_came_later() {
        let whole = stored(Schema::current());
        let bytes = whole.encode();
        for length in EARLIER {
            assert_eq!(Stored::decode(bytes.get(..length).unwrap()).unwrap(), whole);
            assert!(Stored::decode(bytes.get(..length + 1).unwrap()).is_err());
        }
    }

    #[test]
    fn a_head_that_contradicts_itself_is_refused() {
        let whole = stored(Schema::current());
        let changes: [fn(&mut Stored); 4] = [
            |stored| stored.series.first = 2,
            |stored| stored.series.immutable_until = 2,
            |stored| stored.head.checkpoint = Serial::new(10),
            |stored| stored.head.oldest_block = Serial::new(2),
        ];
        for change in changes {
            let mut stored = whole;
            change(&mut stored);
            assert!(Stored::decode(&stored.encode()).is_err(), "{stored:?}");
        }
    }
}
