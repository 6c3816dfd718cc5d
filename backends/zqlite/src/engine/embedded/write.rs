//! What a batch writes.

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::{CachedStatement, Connection, params};

use super::errors::failed;
use super::sql;
use crate::engine::{Batch, Write};

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
    let (mut put_data_block, mut delete_data_block) = (None, None);
    for write in &batch.writes {
        let bytes = |range: &std::ops::Range<usize>| {
            batch.bytes.get(range.clone()).ok_or_else(|| {
                Error::new(ErrorKind::Unexpected, "a write refers to bytes that are not there")
            })
        };
        let outcome = match write {
            Write::Block { serial, frame, body } => prepared(
                &mut block,
                writer,
                "INSERT INTO blocks(serial,frame,body) VALUES(?1,?2,?3)",
            )
            .and_then(|statement| statement.execute(params![sql(*serial), frame, body])),
            Write::PutRow { slot, body } => {
                let body = bytes(body)?;
                prepared(&mut put_row, writer, "REPLACE INTO rows(slot,body) VALUES(?1,?2)")
                    .and_then(|statement| statement.execute(params![sql(*slot), body]))
            }
            Write::DeleteRow { slot } => {
                prepared(&mut delete_row, writer, "DELETE FROM rows WHERE slot=?1")
                    .and_then(|statement| statement.execute([sql(*slot)]))
            }
            Write::Journal { number, body } => {
                let body = bytes(body)?;
                prepared(&mut None, writer, "INSERT INTO journal(number,body) VALUES(?1,?2)")
                    .and_then(|statement| statement.execute(params![sql(*number), body]))
            }
            Write::CutJournal { before } => {
                prepared(&mut None, writer, "DELETE FROM journal WHERE number<?1")
                    .and_then(|statement| statement.execute([sql(*before)]))
            }
            Write::DeleteDataBlock { table, key } => prepared(
                &mut delete_data_block,
                writer,
                "DELETE FROM chunks WHERE tbl=?1 AND key=?2",
            )
            .and_then(|statement| statement.execute(params![table, key])),
            Write::PutDataBlock { table, key, body } => {
                let body = bytes(body)?;
                prepared(
                    &mut put_data_block,
                    writer,
                    "INSERT INTO chunks(tbl,key,body) VALUES(?1,?2,?3) \
                     ON CONFLICT(tbl,key) DO UPDATE SET body=excluded.body",
                )
                .and_then(|statement| statement.execute(params![table, key, body]))
            }
            Write::PurgeBlocks { before } => {
                prepared(&mut None, writer, "DELETE FROM blocks WHERE serial<?1")
                    .and_then(|statement| statement.execute([sql(*before)]))
            }
        };
        outcome.map_err(not_stored)?;
    }
    Ok(())
}

pub(super) fn changed_elsewhere() -> Error {
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
