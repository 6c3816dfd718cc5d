//! Where the store stands, as it is stored, and how a commit moves that.

use bytes::{Buf, BufMut};
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::{BlockId, StoreId, Timestamp};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{Schema, SchemaVersion};

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

/// Numbers are big-endian.
const LENGTH: usize = 16 + 8 + 16 + 32 + 8 + 8 + 8 + 4 + 4 + 8 + 8 + 4 * 8;
/// With the sums behind it.
pub(crate) const FULL_LENGTH: usize = LENGTH + 3 * 8;

impl Stored {
    /// An empty store.
    pub(crate) fn empty(store: StoreId, schema: Schema) -> Self {
        Self {
            head: Head::genesis(store, schema),
            rows: 0,
            next_slot: 1,
            series: SeriesHead::EMPTY,
            sums: Some(Sums::default()),
        }
    }

    /// Numbers that never fall.
    pub(crate) fn moment(&self) -> [u64; 3] {
        [self.head.serial.get(), self.series.next, self.next_slot]
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let head = &self.head;
        let mut bytes = Vec::with_capacity(FULL_LENGTH);
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
        if let Some(Sums { rows, data_blocks, data_block_keys }) = self.sums {
            [rows, data_blocks, data_block_keys]
                .into_iter()
                .for_each(|number| bytes.put_u64(number));
        }
        bytes
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self> {
        let has_sums = bytes.len() == FULL_LENGTH;
        if !has_sums && bytes.len() != LENGTH {
            return Err(Error::corrupt("the store's head has the wrong length")
                .with("bytes", bytes.len())
                .with("expected", FULL_LENGTH));
        }
        fn array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
            let mut array = [0; N];
            bytes.copy_to_slice(&mut array);
            array
        }
        // Evaluated in the order in which it is written; the length was checked.
        let head = Head {
            store: StoreId::from_bytes(array(&mut bytes)),
            serial: Serial::new(bytes.get_u64()),
            block: BlockId::from_bytes(array(&mut bytes)),
            hash: BlockHash::from_bytes(array(&mut bytes)),
            time: Timestamp::from_micros(bytes.get_i64())
                .map_err(|error| Error::corrupt("the store's head is damaged").because(error))?,
            checkpoint: Serial::new(bytes.get_u64()),
            oldest_block: Serial::new(bytes.get_u64()),
            schema: SchemaVersion { version: bytes.get_u32(), oldest_reader: bytes.get_u32() },
        };
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
        let sums = has_sums.then(|| Sums {
            rows: bytes.get_u64(),
            data_blocks: bytes.get_u64(),
            data_block_keys: bytes.get_u64(),
        });
        let stored = Self { head, rows, next_slot, series, sums };
        if head.checkpoint > head.serial || head.oldest_block > head.checkpoint.next() {
            return Err(Error::corrupt("the store's head contradicts itself")
                .with("serial", head.serial)
                .with("checkpoint", head.checkpoint)
                .with("oldest_block", head.oldest_block));
        }
        Ok(stored)
    }
}
