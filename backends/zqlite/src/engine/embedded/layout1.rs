//! Files of layout 1, which are carried forward when they are opened to be written: read, checked by
//! what they have for that, and written anew in one transaction, after a copy beside the file.
//!
//! Layout 1 had data blocks under their table and key instead of a directory, blocks in one piece, no
//! sealed records, and sums of 8 bytes of checksums.

use bytes::{Buf, Bytes};
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, EncodedBlock, Serial};
use ghostwire_store_core::domain::{BlockId, CommitId, LineageId, SideId, StoreId, Timestamp};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::position::{Epoch, Position};
use ghostwire_store_core::schema::{Schema, SchemaVersion};
use ghostwire_store_core::secrets::KeyCheck;
use ghostwire_store_sqlite::{Access, Connection as _, Database};
use rusqlite::{Connection, Row};
use sha2::{Digest, Sha256};

use super::create_tables;
use super::errors::unreadable;
use super::link::Link;
use super::rewrite::Rewriter;
use super::snapshot::{blob, number, read_head};
use crate::before_leak::BeforeLeak;
use crate::envelope::Envelope;
use crate::head::{DirectoryHead, Stored, Sums, array};
use crate::resealing::Resealing;
use crate::series::directory::following;
use crate::series::{SeriesHead, data_block};

pub(super) const SCHEMA: [(&str, &str); 6] = [
    ("meta", "CREATE TABLE meta(id INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    (
        "blocks",
        "CREATE TABLE blocks(serial INTEGER PRIMARY KEY,frame BLOB NOT NULL,body BLOB NOT NULL)",
    ),
    ("rows", "CREATE TABLE rows(slot INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    ("journal", "CREATE TABLE journal(number INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    (
        "chunks",
        "CREATE TABLE chunks(id INTEGER PRIMARY KEY,tbl INTEGER NOT NULL,key BLOB NOT NULL,body BLOB NOT NULL)",
    ),
    ("chunks_in_order", "CREATE UNIQUE INDEX chunks_in_order ON chunks(tbl,key)"),
];

const FORMAT: u8 = 1;
const CHECKSUM: usize = 16;

/// Numbers of a head that never fall, as [`Stored::moment`] has them.
pub(crate) fn moment(head: &[u8]) -> Result<[u64; 6]> {
    OldHead::open(head).map(|old| old.stored.moment())
}

/// Writes the store anew. A store that is to be sealed is not: a plain file is not opened under a
/// keyring.
pub(crate) fn carry_forward(database: &Database<Link>, envelope: &Envelope) -> Result<()> {
    let file = database.file();
    if envelope.is_sealed() {
        return Err(Envelope::unsealed());
    }
    if file.access() == Access::ReadOnly {
        return Err(Error::new(
            ErrorKind::ReadOnly,
            "the file has the layout of an earlier version, and was opened to be read only; open it once \
             to be written",
        ));
    }
    let old = database.read_once(|link| OldHead::open(&read_head(&link.0)?))?;
    let version = old.stored.head.schema.version;
    let backup = file.back_up(version, |path| database.copy_to(path))?;
    let envelope = envelope.of_database(old.stored.head.side);
    database.write(false, |link| convert(link, &envelope))?;
    tracing::info!(
        db.system.name = "zqlite",
        from = 1,
        to = 2,
        backup = %backup.display(),
        "the layout was carried forward"
    );
    Ok(())
}

/// A head of layout 1, as one of layout 2 whose records are still to be counted, and its sums.
struct OldHead {
    stored: Stored,
    /// Of rows, data blocks, and the data blocks' keys. An early build had none.
    sums: Option<[u64; 3]>,
}

impl OldHead {
    fn open(framed: &[u8]) -> Result<Self> {
        let content = unframe(&[0], None, framed)?;
        Self::decode(content)
    }

    fn decode(mut bytes: &[u8]) -> Result<Self> {
        const WITHOUT_SUMS: usize = 152;
        const UNCOUNTED: usize = WITHOUT_SUMS + 3 * 8;
        const LENGTH: usize = UNCOUNTED + 3 * 16 + 2 * 8 + 16 + 1;
        const HAS_SUMS: u8 = 4;
        let length = bytes.len();
        if ![LENGTH, UNCOUNTED, WITHOUT_SUMS].contains(&length) {
            return Err(damaged("head"));
        }
        // Evaluated in the order in which it is written; the length was checked.
        let store = StoreId::from_bytes(array(&mut bytes));
        let head = Head {
            serial: Serial::new(bytes.get_u64()),
            block: BlockId::from_bytes(array(&mut bytes)),
            hash: BlockHash::from_bytes(array(&mut bytes)),
            time: Timestamp::from_micros(bytes.get_i64())
                .map_err(|error| damaged("head").because(error))?,
            checkpoint: Serial::new(bytes.get_u64()),
            oldest_block: Serial::new(bytes.get_u64()),
            schema: SchemaVersion { version: bytes.get_u32(), oldest_reader: bytes.get_u32() },
            ..Head::genesis(store, Schema::current())
        };
        if head.schema.counts_positions() != (length == LENGTH) {
            return Err(damaged("head"));
        }
        let (rows, next_slot) = (bytes.get_u64(), bytes.get_u64());
        let series = SeriesHead {
            first: bytes.get_u64(),
            immutable_until: bytes.get_u64(),
            next: bytes.get_u64(),
            data_blocks: bytes.get_u64(),
        };
        let mut sums =
            (length > WITHOUT_SUMS).then(|| [bytes.get_u64(), bytes.get_u64(), bytes.get_u64()]);
        let mut head = head.carried_forward();
        if length == LENGTH {
            head.side = SideId::from_bytes(array(&mut bytes));
            head.lineage = LineageId::from_bytes(array(&mut bytes));
            head.epoch = Epoch::new(bytes.get_u64());
            head.position = Position::new(bytes.get_u64());
            head.commit = CommitId::from_bytes(array(&mut bytes));
            let key = KeyCheck::from_bytes(array(&mut bytes));
            let flags = bytes.get_u8();
            head.filling = flags & 1 != 0;
            head.credential_key = (flags & 2 != 0).then_some(key);
            sums = sums.filter(|_| flags & HAS_SUMS != 0);
        }
        let stored = Stored {
            head,
            commits: 0,
            rows,
            next_slot,
            series,
            directory: DirectoryHead::EMPTY,
            inventory: Sums::default(),
            pinned: None,
            signature: None,
            resealing: Resealing::default(),
            before_leak: BeforeLeak::default(),
        };
        Ok(Self { stored, sums })
    }
}

/// The content of a framed record; `place` is what its checksum has of where it lies.
fn unframe<'s>(place: &[u8], side: Option<SideId>, framed: &'s [u8]) -> Result<&'s [u8]> {
    let (frame, content) = framed.split_at_checked(1 + CHECKSUM).ok_or_else(|| damaged("frame"))?;
    match frame == frame_for(place, side, &[content]) {
        true => Ok(content),
        false => Err(damaged("checksum")),
    }
}

fn frame_for(place: &[u8], side: Option<SideId>, content: &[&[u8]]) -> [u8; 1 + CHECKSUM] {
    let mut hash = Sha256::new_with_prefix(b"ghostwire-store zqlite plain 1");
    side.iter().for_each(|side| hash.update(side.as_bytes()));
    hash.update(place);
    content.iter().for_each(|part| hash.update(part));
    let mut frame = [FORMAT; 1 + CHECKSUM];
    frame.iter_mut().skip(1).zip(hash.finalize()).for_each(|(to, from)| *to = from);
    frame
}

/// What a frame adds to a sum.
fn summand(frame: &[u8]) -> u64 {
    frame.get(1..).and_then(<[u8]>::first_chunk).map_or(0, |first| u64::from_be_bytes(*first))
}

fn place(kind: u8, number: u64) -> Vec<u8> {
    [&[kind][..], &number.to_be_bytes()].concat()
}

fn place_of_data_block(table: u8, key: &[u8]) -> Vec<u8> {
    [&[2, table][..], &(key.len() as u64).to_be_bytes(), key].concat()
}

fn damaged(part: &'static str) -> Error {
    Error::corrupt("a store of layout 1 is damaged; restore it from a backup").with("part", part)
}

/// The tables that there are before and afterwards.
const TABLES: [&str; 5] = ["meta", "blocks", "rows", "journal", "chunks"];

/// Reads the old tables and writes the new ones; to be called in a transaction.
fn convert(link: &mut Link, envelope: &Envelope) -> Result<()> {
    for table in TABLES {
        link.run(&format!("ALTER TABLE {table} RENAME TO old_{table}"))?;
    }
    create_tables(link)?;
    let old = OldHead::open(&link.blob("SELECT body FROM old_meta WHERE id=1")?)?;
    let mut into = Rewriter::begin(&link.0, envelope, &old.stored)?;
    let reader = OldTables { link: &link.0, side: old.stored.head.side, stored: &old.stored };
    let rows = reader.rows(&mut into)?;
    reader.blocks(&mut into)?;
    reader.journal(&mut into)?;
    let [data_blocks, keys] = reader.data_blocks(&mut into)?;
    if old.sums.is_some_and(|sums| sums != [rows, data_blocks, keys]) {
        return Err(damaged("sums"));
    }
    into.finish()?;
    TABLES.iter().try_for_each(|table| link.run(&format!("DROP TABLE old_{table}")))
}

/// What there is of layout 1.
struct OldTables<'c> {
    link: &'c Connection,
    side: SideId,
    stored: &'c Stored,
}

impl OldTables<'_> {
    fn each(&self, query: &str, mut visit: impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
        let mut statement = self.link.prepare(query).map_err(unreadable)?;
        let mut rows = statement.query([]).map_err(unreadable)?;
        while let Some(row) = rows.next().map_err(unreadable)? {
            visit(row)?;
        }
        Ok(())
    }

    fn unframe<'s>(&self, place: &[u8], framed: &'s [u8]) -> Result<&'s [u8]> {
        unframe(place, Some(self.side), framed)
    }

    /// Gives the sum over them.
    fn rows(&self, into: &mut Rewriter<'_>) -> Result<u64> {
        let (mut count, mut sum) = (0, 0u64);
        self.each("SELECT slot,body FROM old_rows ORDER BY slot", |row| {
            let (slot, body) = (number(row, 0)?, blob(row, 1)?);
            count += 1;
            sum = sum.wrapping_add(summand(body));
            into.row(slot, self.unframe(&place(1, slot), body)?)
        })?;
        if count == self.stored.rows { Ok(sum) } else { Err(damaged("number of rows")) }
    }

    fn blocks(&self, into: &mut Rewriter<'_>) -> Result<()> {
        let head = &self.stored.head;
        let (mut next, end) = (head.oldest_block.get(), head.serial.next().get());
        self.each("SELECT serial,frame,body FROM old_blocks ORDER BY serial", |row| {
            let (serial, frame, body) = (number(row, 0)?, blob(row, 1)?, blob(row, 2)?);
            require_next(&mut next, serial)?;
            let block = EncodedBlock::parse(Bytes::copy_from_slice(body))?;
            let length = (body.len() as u64).to_be_bytes();
            let content: [&[u8]; 2] = [block.hash.as_bytes(), &length];
            if frame != frame_for(&place(3, serial), Some(self.side), &content) {
                return Err(damaged("checksum"));
            }
            into.block(&block)
        })?;
        require_next(&mut next, end)
    }

    fn journal(&self, into: &mut Rewriter<'_>) -> Result<()> {
        let SeriesHead { first: mut next, next: end, .. } = self.stored.series;
        self.each("SELECT number,body FROM old_journal ORDER BY number", |row| {
            let (entry, body) = (number(row, 0)?, blob(row, 1)?);
            require_next(&mut next, entry)?;
            into.journal_entry(entry, self.unframe(&place(4, entry), body)?)
        })?;
        require_next(&mut next, end)
    }

    /// Gives the sums over them and over their keys. They were a little longer.
    fn data_blocks(&self, into: &mut Rewriter<'_>) -> Result<[u64; 2]> {
        const QUERY: &str = "SELECT tbl,key,body FROM old_chunks ORDER BY tbl,key";
        let (mut count, mut sums) = (0, [0u64; 2]);
        self.each(QUERY, |row| {
            let table = u8::try_from(number(row, 0)?).map_err(|_| damaged("table"))?;
            let (key, body) = (blob(row, 1)?, blob(row, 2)?);
            let place = place_of_data_block(table, key);
            let of_key = frame_for(&place, Some(self.side), &[]);
            count += 1;
            let [of_bodies, of_keys] = &mut sums;
            *of_bodies = of_bodies.wrapping_add(summand(body));
            *of_keys = of_keys.wrapping_add(summand(&of_key));
            let rows = data_block::rows(table, key, self.unframe(&place, body)?)?;
            let data_blocks = data_block::write(table, key, &rows, &[]);
            data_blocks.into_iter().try_for_each(|data_block| into.data_block(data_block))
        })?;
        match count == self.stored.series.data_blocks {
            true => Ok(sums),
            false => Err(damaged("number of data blocks")),
        }
    }
}

/// Numbers that follow each other.
fn require_next(next: &mut u64, number: u64) -> Result<()> {
    match following(next)? == number {
        true => Ok(()),
        false => Err(damaged("numbers")),
    }
}

#[cfg(test)]
mod tests;
