//! The two tables beside the core's: where the store stands, and its blocks.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{BlockHash, EncodedBlock, Serial};
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::domain::{BlockId, StoreId, Timestamp};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{Schema, SchemaVersion, Table};
use ghostwire_store_sqlite::Connection;
use libsql::{Row, Value};

use crate::layout::create_table;
use crate::link::{Link, Storage, cell, integer, text};
use crate::shape::{id_text, parse_id, row_check};

/// The table that tells where the store stands.
pub(crate) const META: &str = "ghostwire_meta";
/// The table of blocks.
pub(crate) const BLOCKS: &str = "ghostwire_blocks";

pub(crate) const CREATE_META: &str = "\
CREATE TABLE ghostwire_meta (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  store TEXT NOT NULL, -- drawn when the store was made
  serial INTEGER NOT NULL, -- the last commit
  block TEXT NOT NULL, -- its block's id
  hash TEXT NOT NULL, -- its block's SHA-256
  time INTEGER NOT NULL, -- its block's time, microseconds since 1970-01-01 UTC
  [checkpoint] INTEGER NOT NULL, -- the tables hold every commit up to here
  oldest_block INTEGER NOT NULL, -- the first serial in ghostwire_blocks, or serial + 1
  schema_version INTEGER NOT NULL,
  oldest_reader INTEGER NOT NULL, -- the oldest schema version whose programs may open this
  row_check INTEGER NOT NULL -- of the other columns: a row edited by hand is refused
) STRICT";

pub(crate) const CREATE_BLOCKS: &str = "\
CREATE TABLE ghostwire_blocks (
  serial INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  time INTEGER NOT NULL, -- microseconds since 1970-01-01 UTC
  hash TEXT NOT NULL, -- SHA-256 of the block's header
  previous TEXT NOT NULL, -- hash of the block before
  body BLOB NOT NULL
) STRICT";

const SELECT_META: &str = "SELECT CAST([store] AS BLOB), [serial], CAST([block] AS BLOB), \
    CAST([hash] AS BLOB), [time], [checkpoint], [oldest_block], [schema_version], \
    [oldest_reader], [row_check] FROM ghostwire_meta";

const INSERT_META: &str = "INSERT INTO ghostwire_meta (one, store, serial, block, hash, time, \
    [checkpoint], oldest_block, schema_version, oldest_reader, row_check) \
    VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

const UPDATE_META: &str = "UPDATE ghostwire_meta SET store = ?1, serial = ?2, block = ?3, \
    hash = ?4, time = ?5, [checkpoint] = ?6, oldest_block = ?7, schema_version = ?8, \
    oldest_reader = ?9, row_check = ?10 WHERE one = 1 AND serial = ?11";

const INSERT_BLOCK: &str = "INSERT INTO ghostwire_blocks (serial, id, time, hash, previous, body) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const SELECT_BLOCKS: &str =
    "SELECT [serial], [body] FROM ghostwire_blocks WHERE [serial] > ?1 ORDER BY [serial] LIMIT ?2";

const LAST_BLOCK: &str = "SELECT [serial] FROM ghostwire_blocks ORDER BY [serial] DESC LIMIT 1";

const VERIFY_BLOCKS: &str = "SELECT [serial], [body], CAST([id] AS BLOB), [time], \
    CAST([hash] AS BLOB), CAST([previous] AS BLOB) FROM ghostwire_blocks ORDER BY [serial]";

const PURGE_BLOCKS: &str = "DELETE FROM ghostwire_blocks WHERE serial < ?1";

/// The number that the check of the meta row has in place of a table's.
const META_NUMBER: u8 = 0;

/// Makes every table and the meta row; to be called in a transaction.
pub(crate) fn create(link: &mut Link, head: &Head, schema: Schema) -> Result<()> {
    link.run(CREATE_META)?;
    link.run(CREATE_BLOCKS)?;
    for table in Table::ALL {
        link.run(&create_table(table, schema))?;
    }
    link.run_with(INSERT_META, values(head))?;
    link.run(&format!("PRAGMA user_version = {}", head.schema.version))
}

fn number(serial: Serial) -> Value {
    // A serial is at most i64::MAX.
    Value::Integer(i64::try_from(serial.get()).unwrap_or(i64::MAX))
}

fn hash_text(hash: &BlockHash) -> String {
    HEXLOWER.encode(hash.as_bytes())
}

fn values(head: &Head) -> Vec<Value> {
    let mut values = vec![
        Value::Text(id_text(*head.store.as_bytes())),
        number(head.serial),
        Value::Text(id_text(*head.block.as_bytes())),
        Value::Text(hash_text(&head.hash)),
        Value::Integer(head.time.as_micros()),
        number(head.checkpoint),
        number(head.oldest_block),
        Value::Integer(head.schema.version.into()),
        Value::Integer(head.schema.oldest_reader.into()),
    ];
    let check = row_check(META_NUMBER, &values, &mut Vec::new());
    values.push(Value::Integer(check));
    values
}

fn damaged() -> Error {
    Error::corrupt(
        "the row that tells where the store stands is damaged, or was edited by hand; restore the \
         file from a backup",
    )
    .with("table", "ghostwire_meta")
}

fn serial_at(row: &Row, index: usize) -> Result<Serial> {
    u64::try_from(integer(row, index)?).map(Serial::new).map_err(|_| damaged())
}

fn version_at(row: &Row, index: usize) -> Result<u32> {
    u32::try_from(integer(row, index)?).map_err(|_| damaged())
}

fn parse_hash(text: &str) -> Result<BlockHash> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| damaged())?;
    bytes.try_into().map(BlockHash::from_bytes).map_err(|_| damaged())
}

/// Where the store stands, from the file.
pub(crate) fn head(link: &mut Link) -> Result<Head> {
    let mut found = Vec::new();
    link.query(SELECT_META, Vec::new(), |row| {
        let head = Head {
            store: StoreId::from_bytes(parse_id(&text(row, 0)?)?),
            serial: serial_at(row, 1)?,
            block: BlockId::from_bytes(parse_id(&text(row, 2)?)?),
            hash: parse_hash(&text(row, 3)?)?,
            time: Timestamp::from_micros(integer(row, 4)?)
                .map_err(|error| damaged().because(error))?,
            checkpoint: serial_at(row, 5)?,
            oldest_block: serial_at(row, 6)?,
            schema: SchemaVersion {
                version: version_at(row, 7)?,
                oldest_reader: version_at(row, 8)?,
            },
        };
        if values(&head).last() != Some(&Value::Integer(integer(row, 9)?)) {
            return Err(damaged());
        }
        found.push(head);
        Ok(())
    })?;
    match found.as_slice() {
        [head] => Ok(*head),
        _ => Err(damaged()),
    }
}

/// Refuses a head that blocks have left behind: its page is an older one.
pub(crate) fn check_last_block(link: &mut Link, head: &Head) -> Result<()> {
    link.query(LAST_BLOCK, Vec::new(), |row| {
        let last = serial_at(row, 0)?;
        if last > head.serial {
            return Err(damaged().with("serial", head.serial).with("last_block", last));
        }
        Ok(())
    })
}

/// Replaces the meta row that has serial `from`.
pub(crate) fn move_head(link: &mut Link, from: Serial, head: &Head) -> Result<()> {
    let mut parameters = values(head);
    parameters.push(number(from));
    match link.execute(UPDATE_META, parameters)? {
        1 => Ok(()),
        _ => Err(Error::new(ErrorKind::Conflict, "the store has moved on").with("expected", from)),
    }
}

/// Stores a block that follows the last one.
pub(crate) fn insert_block(link: &mut Link, block: &EncodedBlock) -> Result<()> {
    let parameters = vec![
        number(block.serial),
        Value::Text(id_text(*block.id.as_bytes())),
        Value::Integer(block.time.as_micros()),
        Value::Text(hash_text(&block.hash)),
        Value::Text(hash_text(&block.previous)),
        Value::Blob(block.bytes.to_vec()),
    ];
    link.execute(INSERT_BLOCK, parameters).map(drop)
}

/// Drops the blocks before `before`.
pub(crate) fn purge_blocks(link: &mut Link, before: Serial) -> Result<()> {
    link.execute(PURGE_BLOCKS, vec![number(before)]).map(drop)
}

/// A block, and the serial under which it is stored.
fn block_at(row: &Row) -> Result<(Serial, EncodedBlock)> {
    let serial = serial_at(row, 0)?;
    let Value::Blob(bytes) = cell(row, 1, Storage::Blob)? else {
        return Err(Error::corrupt("a block has no content").with("serial", serial));
    };
    let block = EncodedBlock::parse(Bytes::from(bytes))?;
    Ok((serial, block))
}

/// At most `limit` blocks after `after`; to be called in a transaction.
pub(crate) fn blocks(link: &mut Link, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
    let (mut chain, wanted) = Chain::after(&head(link)?, after, limit)?;
    let mut blocks = Vec::new();
    let count = Value::Integer(i64::try_from(wanted).unwrap_or(i64::MAX));
    link.query(SELECT_BLOCKS, vec![number(after), count], |row| {
        let (serial, block) = block_at(row)?;
        chain.follow(serial, &block)?;
        blocks.push(block);
        Ok(())
    })?;
    if blocks.len() < wanted { Err(chain.missing()) } else { Ok(blocks) }
}

/// Reads every block and compares it with its columns and its neighbours.
pub(crate) fn verify_blocks(link: &mut Link) -> Result<u64> {
    let mut chain = Chain::whole(&head(link)?)?;
    let mut count = 0;
    link.query(VERIFY_BLOCKS, Vec::new(), |row| {
        let (serial, block) = block_at(row)?;
        chain.follow(serial, &block)?;
        let columns = (
            parse_id(&text(row, 2)?)?,
            integer(row, 3)?,
            parse_hash(&text(row, 4)?)?,
            parse_hash(&text(row, 5)?)?,
        );
        if columns != (*block.id.as_bytes(), block.time.as_micros(), block.hash, block.previous) {
            return Err(
                Error::corrupt("a block's columns contradict it").with("serial", block.serial)
            );
        }
        count += 1;
        Ok(())
    })?;
    chain.require_whole()?;
    Ok(count)
}
