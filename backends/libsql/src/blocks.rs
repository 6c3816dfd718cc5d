//! The table of blocks.

use bytes::Bytes;
use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::error::{Error, Result};
use libsql::{Row, Value};

use crate::link::{Link, Storage, cell, integer, text};
use crate::meta::{damaged, hash_text, number, parse_hash, serial_at};
use crate::shape::{id_text, parse_id};

/// The table of blocks.
pub(crate) const BLOCKS: &str = "ghostwire_blocks";

pub(crate) const CREATE_BLOCKS: &str = "\
CREATE TABLE ghostwire_blocks (
  serial INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  time INTEGER NOT NULL, -- microseconds since 1970-01-01 UTC
  hash TEXT NOT NULL, -- SHA-256 of the block's header
  previous TEXT NOT NULL, -- hash of the block before
  body BLOB NOT NULL
) STRICT";

const INSERT_BLOCK: &str = "INSERT INTO ghostwire_blocks (serial, id, time, hash, previous, body) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

const SELECT_BLOCKS: &str = "SELECT [serial], [body], CAST([id] AS BLOB), [time], \
    CAST([hash] AS BLOB), CAST([previous] AS BLOB) FROM ghostwire_blocks WHERE [serial] > ?1 \
    ORDER BY [serial] LIMIT ?2";

const LAST_BLOCK: &str = "SELECT [serial] FROM ghostwire_blocks ORDER BY [serial] DESC LIMIT 1";

const STRAY_BLOCK: &str =
    "SELECT [serial] FROM ghostwire_blocks WHERE [serial] < ?1 OR [serial] > ?2 LIMIT 1";

const PURGE_BLOCKS: &str = "DELETE FROM ghostwire_blocks WHERE serial < ?1";

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

/// Stores a block that follows the last one.
pub(crate) fn insert_block(link: &mut Link, block: &EncodedBlock) -> Result<()> {
    let parameters = vec![
        number(block.serial.get()),
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
    link.execute(PURGE_BLOCKS, vec![number(before.get())]).map(drop)
}

/// A block, which its columns do not contradict, and the serial under which it is stored.
fn block_at(row: &Row) -> Result<(Serial, EncodedBlock)> {
    let serial = serial_at(row, 0)?;
    let Value::Blob(bytes) = cell(row, 1, Storage::Blob)? else {
        return Err(Error::corrupt("a block has no content").with("serial", serial));
    };
    let block = EncodedBlock::parse(Bytes::from(bytes))?;
    let columns = (
        parse_id(&text(row, 2)?)?,
        integer(row, 3)?,
        parse_hash(&text(row, 4)?)?,
        parse_hash(&text(row, 5)?)?,
    );
    if columns != (*block.id.as_bytes(), block.time.as_micros(), block.hash, block.previous) {
        return Err(Error::corrupt("a block's columns contradict it").with("serial", serial));
    }
    Ok((serial, block))
}

/// At most `limit` blocks after `after`; to be called in the transaction in which `head` was read.
pub(crate) fn blocks(
    link: &mut Link,
    head: &Head,
    after: Serial,
    limit: usize,
) -> Result<Vec<EncodedBlock>> {
    let (mut chain, wanted) = Chain::after(head, after, limit)?;
    let mut blocks = Vec::new();
    let count = Value::Integer(i64::try_from(wanted).unwrap_or(i64::MAX));
    link.query(SELECT_BLOCKS, vec![number(after.get()), count], |row| {
        let (serial, block) = block_at(row)?;
        chain.follow(serial, &block)?;
        blocks.push(block);
        Ok(())
    })?;
    if blocks.len() < wanted { Err(chain.missing()) } else { Ok(blocks) }
}

/// Refuses blocks that the head does not have; to be called as [`blocks`] is.
pub(crate) fn check_no_others(link: &mut Link, head: &Head) -> Result<()> {
    let kept = vec![number(head.oldest_block.get()), number(head.serial.get())];
    link.query(STRAY_BLOCK, kept, |row| {
        Err(Error::corrupt("a block is stored that the head does not have; restore from a backup")
            .with("serial", serial_at(row, 0)?)
            .with("oldest_block", head.oldest_block)
            .with("last_block", head.serial))
    })
}
