//! What a batch writes.

use std::ops::Range;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::{CachedStatement, Connection, params};

use super::errors::failed;
use super::sql;
use crate::engine::{Batch, Write};
use crate::envelope::Part;

/// Writes all of `batch`; to be called in a transaction.
pub(super) fn write(writer: &Connection, batch: &Batch<'_>) -> Result<()> {
    let not_stored = |error| failed("the commit was not stored", error);
    let changed = prepared(&mut None, writer, "UPDATE meta SET body=?2 WHERE id=1 AND body=?1")
        .and_then(|statement| statement.execute(params![batch.expected_head, batch.head]))
        .map_err(not_stored)?;
    if changed != 1 {
        return Err(changed_elsewhere());
    }
    let (mut block, mut put_row, mut delete_row) = (None, None, None);
    let (mut put_chunk, mut delete_chunk, mut put_leaf) = (None, None, None);
    for write in &batch.writes {
        let made = |range: &Range<usize>| made(batch, range);
        let outcome = match write {
            Write::Block { serial, frame, changes, audit } => {
                let (changes, audit) = (part(batch, changes)?, part(batch, audit)?);
                const SQL: &str =
                    "INSERT INTO blocks(serial,frame,changes,audit) VALUES(?1,?2,?3,?4)";
                prepared(&mut block, writer, SQL).and_then(|statement| {
                    statement.execute(params![sql(*serial), frame, changes, audit])
                })
            }
            Write::ReplaceBlock { serial, frame, changes, audit } => {
                const SQL: &str = "UPDATE blocks SET frame=?2,changes=?3,audit=?4 WHERE serial=?1";
                let values = params![sql(*serial), frame, made(changes)?, made(audit)?];
                prepared(&mut None, writer, SQL).and_then(|statement| statement.execute(values))
            }
            Write::PutRow { slot, body } => {
                const SQL: &str = "REPLACE INTO rows(slot,body) VALUES(?1,?2)";
                put(&mut put_row, writer, SQL, *slot, made(body)?)
            }
            Write::DeleteRow { slot } => {
                delete(&mut delete_row, writer, "DELETE FROM rows WHERE slot=?1", *slot)
            }
            Write::Journal { number, body } => {
                const SQL: &str = "INSERT INTO journal(number,body) VALUES(?1,?2)";
                put(&mut None, writer, SQL, *number, made(body)?)
            }
            Write::ReplaceJournal { number, body } => {
                const SQL: &str = "UPDATE journal SET body=?2 WHERE number=?1";
                put(&mut None, writer, SQL, *number, made(body)?)
            }
            Write::CutJournal { before } => {
                delete(&mut None, writer, "DELETE FROM journal WHERE number<?1", *before)
            }
            Write::PutChunk { number, body } => {
                const SQL: &str = "REPLACE INTO chunks(number,body) VALUES(?1,?2)";
                put(&mut put_chunk, writer, SQL, *number, made(body)?)
            }
            Write::DeleteChunk { number } => {
                delete(&mut delete_chunk, writer, "DELETE FROM chunks WHERE number=?1", *number)
            }
            Write::PutLeaf { number, body } => {
                const SQL: &str = "REPLACE INTO directory(number,body) VALUES(?1,?2)";
                put(&mut put_leaf, writer, SQL, *number, made(body)?)
            }
            Write::DeleteLeaf { number } => {
                delete(&mut None, writer, "DELETE FROM directory WHERE number=?1", *number)
            }
            Write::PurgeBlocks { before } => {
                delete(&mut None, writer, "DELETE FROM blocks WHERE serial<?1", *before)
            }
            Write::BesideHead { id, body } => {
                const SQL: &str = "REPLACE INTO meta(id,body) VALUES(?1,?2)";
                put(&mut None, writer, SQL, *id, made(body)?)
            }
        };
        outcome.map_err(not_stored)?;
    }
    Ok(())
}

fn made<'b>(batch: &'b Batch<'_>, range: &Range<usize>) -> Result<&'b [u8]> {
    batch.bytes.get(range.clone()).ok_or_else(|| {
        Error::new(ErrorKind::Unexpected, "a write refers to bytes that are not there")
    })
}

fn part<'b>(batch: &'b Batch<'_>, part: &Part<'b>) -> Result<&'b [u8]> {
    match part {
        Part::Given(bytes) => Ok(bytes),
        Part::Made(range) => made(batch, range),
    }
}

fn put<'c>(
    place: &mut Option<CachedStatement<'c>>,
    writer: &'c Connection,
    statement: &'static str,
    number: u64,
    body: &[u8],
) -> rusqlite::Result<usize> {
    prepared(place, writer, statement)?.execute(params![sql(number), body])
}

fn delete<'c>(
    place: &mut Option<CachedStatement<'c>>,
    writer: &'c Connection,
    statement: &'static str,
    number: u64,
) -> rusqlite::Result<usize> {
    prepared(place, writer, statement)?.execute([sql(number)])
}

pub(crate) fn changed_elsewhere() -> Error {
    Error::new(ErrorKind::Conflict, "the file was changed by somebody who does not hold its lock")
}

/// The statement, from the connection's cache the first time.
fn prepared<'s, 'c>(
    place: &'s mut Option<CachedStatement<'c>>,
    connection: &'c Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'c>> {
    match place {
        Some(statement) => Ok(statement),
        empty => Ok(empty.insert(connection.prepare_cached(sql)?)),
    }
}
