//! The one place through which everything passes on its way to and from the engine.
//!
//! # Today: plain framing
//! A frame is a format byte and 16 bytes of checksum. For rows, data blocks, journal entries and the head
//! it stands in front of the content; for a block it stands beside it, so that the block need not be
//! copied.
//!
//! The checksum is SHA-256 (FIPS 180-4), cut to 16 bytes, of a context (this format, the database, the
//! kind of record, its slot or number or table and key) and the content. It shows damage, and a
//! record that came to lie at another location. **It is a checksum and no authentication**: whoever
//! can write to the file can compute it. Sealing will replace it here, behind the same functions,
//! under another format byte.
//!
//! A block's checksum covers its hash and length. The hash covers its header, which covers its
//! sections, and [`EncodedBlock::parse`] checks those: no byte is hashed twice.

use bytes::Bytes;
use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use sha2::{Digest, Sha256};

use crate::head::{LENGTH, Stored};
use crate::series::data_block::DataBlock;

const PLAIN: u8 = 1;
const CHECKSUM: usize = 16;
/// A frame's length.
pub(crate) const FRAME: usize = 1 + CHECKSUM;

/// Frames and unframes the records of one database.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    context: Sha256Context,
}

/// A hash that has taken in what all records of a database have in common.
#[derive(Clone)]
struct Sha256Context(Sha256);

impl std::fmt::Debug for Sha256Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sha256Context")
    }
}

/// What a record is and where it lies.
#[derive(Clone, Copy)]
enum Location<'a> {
    Head,
    Row { slot: u64 },
    DataBlock { table: u8, key: &'a [u8] },
    Block { serial: u64 },
    Journal { number: u64 },
}

/// A row of the state as it was framed.
#[derive(Debug)]
pub(crate) struct OpenedRow<'a> {
    pub(crate) table: u8,
    pub(crate) key: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl OpenedRow<'_> {
    pub(crate) fn is(&self, table: Table, key: &RowKey) -> bool {
        self.table == table.number() && self.key == key.as_bytes()
    }
}

impl Envelope {
    /// For the head, which says which database it is.
    pub(crate) fn new() -> Self {
        Self { context: Sha256Context(Sha256::new_with_prefix(b"ghostwire-store zqlite plain 1")) }
    }

    /// For everything else.
    pub(crate) fn of_database(side: SideId) -> Self {
        let Sha256Context(hash) = Self::new().context;
        Self { context: Sha256Context(hash.chain_update(side.as_bytes())) }
    }

    fn checksum(&self, location: Location<'_>, content: &[&[u8]]) -> [u8; CHECKSUM] {
        let mut hash = match location {
            // The same for every database: it is read before that is known.
            Location::Head => Self::new().context.0.chain_update([0]),
            _ => self.context.0.clone(),
        };
        match location {
            Location::Head => {}
            Location::Row { slot } => {
                hash.update([1]);
                hash.update(slot.to_be_bytes());
            }
            Location::DataBlock { table, key } => {
                hash.update([2, table]);
                hash.update((key.len() as u64).to_be_bytes());
                hash.update(key);
            }
            Location::Block { serial } => {
                hash.update([3]);
                hash.update(serial.to_be_bytes());
            }
            Location::Journal { number } => {
                hash.update([4]);
                hash.update(number.to_be_bytes());
            }
        }
        for part in content {
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut checksum = [0; CHECKSUM];
        for (to, from) in checksum.iter_mut().zip(hash) {
            *to = from;
        }
        checksum
    }

    fn seal(&self, location: Location<'_>, content: &[&[u8]], into: &mut Vec<u8>) {
        into.push(PLAIN);
        into.extend_from_slice(&self.checksum(location, content));
        for part in content {
            into.extend_from_slice(part);
        }
    }

    fn open<'s>(&self, location: Location<'_>, stored: &'s [u8]) -> Result<&'s [u8]> {
        let (frame, content) =
            stored.split_at_checked(FRAME).ok_or_else(|| damaged(location, "too short"))?;
        self.check(location, frame, &[content])?;
        Ok(content)
    }

    fn check(&self, location: Location<'_>, frame: &[u8], content: &[&[u8]]) -> Result<()> {
        match frame.split_first() {
            Some((&PLAIN, checksum)) if *checksum == self.checksum(location, content) => Ok(()),
            Some((&PLAIN, _)) => Err(damaged(location, "checksum")),
            Some((format, _)) => Err(damaged(location, "format").with("format", format)),
            None => Err(damaged(location, "too short")),
        }
    }

    pub(crate) fn seal_head(&self, stored: &Stored) -> Vec<u8> {
        let mut into = Vec::with_capacity(FRAME + LENGTH);
        self.seal(Location::Head, &[&stored.encode()], &mut into);
        into
    }

    pub(crate) fn open_head(&self, stored: &[u8]) -> Result<Stored> {
        Stored::decode(self.open(Location::Head, stored)?)
    }

    pub(crate) fn seal_row(
        &self,
        slot: u64,
        table: Table,
        key: &RowKey,
        body: &[u8],
        into: &mut Vec<u8>,
    ) {
        let key = key.as_bytes();
        // At most MAX_KEY, which fits.
        let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.seal(Location::Row { slot }, &[&[table.number()], &length, key, body], into);
    }

    pub(crate) fn open_row<'s>(&self, slot: u64, stored: &'s [u8]) -> Result<OpenedRow<'s>> {
        let location = Location::Row { slot };
        let misshapen = || damaged(location, "shape");
        let content = self.open(location, stored)?;
        let (&[table], rest) = content.split_first_chunk().ok_or_else(misshapen)?;
        let (&length, rest) = rest.split_first_chunk().ok_or_else(misshapen)?;
        let length = usize::from(u16::from_be_bytes(length));
        let (key, body) = rest.split_at_checked(length).ok_or_else(misshapen)?;
        Ok(OpenedRow { table, key, body })
    }

    pub(crate) fn seal_data_block(&self, data_block: &DataBlock, into: &mut Vec<u8>) {
        let location = Location::DataBlock { table: data_block.table, key: &data_block.key };
        self.seal(location, &[&data_block.content], into);
    }

    pub(crate) fn open_data_block<'s>(
        &self,
        table: u8,
        key: &[u8],
        stored: &'s [u8],
    ) -> Result<&'s [u8]> {
        self.open(Location::DataBlock { table, key }, stored)
    }

    pub(crate) fn seal_journal(&self, number: u64, entry: &[u8], into: &mut Vec<u8>) {
        self.seal(Location::Journal { number }, &[entry], into);
    }

    pub(crate) fn open_journal<'s>(&self, number: u64, stored: &'s [u8]) -> Result<&'s [u8]> {
        self.open(Location::Journal { number }, stored)
    }

    /// What the location of a data block adds to the sum over all of them.
    pub(crate) fn sum_of_location(&self, table: u8, key: &[u8]) -> u64 {
        number_of(&self.checksum(Location::DataBlock { table, key }, &[]))
    }

    /// The frame that stands beside the block's bytes.
    pub(crate) fn seal_block(&self, block: &EncodedBlock) -> [u8; FRAME] {
        let location = Location::Block { serial: block.serial.get() };
        let checksum = self.checksum(location, &[block.hash.as_bytes(), &length_of(block)]);
        let mut frame = [PLAIN; FRAME];
        for (to, from) in frame.iter_mut().skip(1).zip(checksum) {
            *to = from;
        }
        frame
    }

    pub(crate) fn open_block(
        &self,
        serial: u64,
        frame: &[u8],
        body: &[u8],
    ) -> Result<EncodedBlock> {
        let location = Location::Block { serial };
        let block = EncodedBlock::parse(Bytes::copy_from_slice(body))
            .map_err(|error| damaged(location, "content").because(error))?;
        self.check(location, frame, &[block.hash.as_bytes(), &length_of(&block)])?;
        if block.serial.get() != serial {
            return Err(damaged(location, "serial").with("found", block.serial));
        }
        Ok(block)
    }
}

/// What a framed record adds to the sum over all of its kind; to be called with one that was checked.
pub(crate) fn sum_of(stored: &[u8]) -> u64 {
    number_of(stored.get(1..).unwrap_or_default())
}

fn number_of(checksum: &[u8]) -> u64 {
    checksum.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The hash does not tell whether the audit section was erased; the length does.
fn length_of(block: &EncodedBlock) -> [u8; 8] {
    (block.bytes.len() as u64).to_be_bytes()
}

fn damaged(location: Location<'_>, part: &'static str) -> Error {
    let error = Error::corrupt("a stored record is damaged; restore the store from a backup")
        .with("part", part);
    match location {
        Location::Head => error.with("record", "head"),
        Location::Row { slot } => error.with("record", "row").with("slot", slot),
        Location::DataBlock { table, .. } => {
            let name = Table::from_number(table).map_or("unknown", Table::name);
            error.with("record", "data block").with("table", name)
        }
        Location::Journal { number } => error.with("record", "journal").with("number", number),
        Location::Block { serial } => error.with("record", "block").with("serial", serial),
    }
}
