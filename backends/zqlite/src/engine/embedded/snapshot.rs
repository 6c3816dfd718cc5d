//! Reading what was stored at one moment.

use std::ops::ControlFlow::{self, Continue};

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_sqlite::{Connection as _, Reader, WriterGuard};
use rusqlite::{Connection, Row, params};

use super::errors::unreadable;
use super::link::Link;
use super::sql;
use crate::engine::{SeriesRange, Snapshot, Visit, VisitDataBlock, VisitRow};

/// Data blocks from the one on that covers a key.
macro_rules! data_blocks {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM chunks WHERE tbl=?1 AND key>=coalesce((SELECT key FROM chunks WHERE tbl=?1 AND \
             key<=?2 ORDER BY key DESC LIMIT 1),?2) ",
            $rest
        )
    };
}

pub(super) struct EmbeddedSnapshot<'e> {
    source: Source<'e>,
    head: Vec<u8>,
}

enum Source<'e> {
    Reader(Reader<'e, Link>),
    /// Nobody can write meanwhile.
    Writer(WriterGuard<'e, Link>),
}

impl<'e> EmbeddedSnapshot<'e> {
    pub(super) fn of_reader(reader: Reader<'e, Link>) -> Result<Self> {
        Self::begin(Source::Reader(reader))
    }

    pub(super) fn of_writer(writer: WriterGuard<'e, Link>) -> Result<Self> {
        Self::begin(Source::Writer(writer))
    }

    fn begin(source: Source<'e>) -> Result<Self> {
        let mut snapshot = Self { source, head: Vec::new() };
        snapshot.link()?.run_prepared("BEGIN")?;
        // The snapshot begins with the first read.
        snapshot.head = read_head(snapshot.connection()?)?;
        Ok(snapshot)
    }

    fn link(&mut self) -> Result<&mut Link> {
        match &mut self.source {
            Source::Reader(reader) => reader.connection(),
            Source::Writer(writer) => Ok(writer),
        }
    }

    fn connection(&mut self) -> Result<&Connection> {
        self.link().map(|link| &link.0)
    }

    /// Visits what `query` gives.
    fn each(
        &mut self,
        query: &str,
        parameters: impl rusqlite::Params,
        mut visit: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        self.each_until(query, parameters, |row| visit(row).map(Continue))
    }

    /// Visits what `query` gives, until that is enough.
    fn each_until(
        &mut self,
        query: &str,
        parameters: impl rusqlite::Params,
        mut visit: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut statement = self.connection()?.prepare_cached(query).map_err(unreadable)?;
        let mut rows = statement.query(parameters).map_err(unreadable)?;
        while let Some(row) = rows.next().map_err(unreadable)? {
            if visit(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for EmbeddedSnapshot<'_> {
    fn drop(&mut self) {
        // A reader ends its transaction itself. If this fails the next one cannot begin, and says so.
        if let Source::Writer(writer) = &mut self.source {
            drop(writer.run_prepared("ROLLBACK"));
        }
    }
}

pub(super) fn read_head(reader: &Connection) -> Result<Vec<u8>> {
    let mut statement =
        reader.prepare_cached("SELECT body FROM meta WHERE id=1").map_err(unreadable)?;
    let mut rows = statement.query([]).map_err(unreadable)?;
    match rows.next().map_err(unreadable)? {
        Some(row) => blob(row, 0).map(<[u8]>::to_vec),
        None => Err(Error::corrupt("the store has no head; restore it from a backup")),
    }
}

impl Snapshot for EmbeddedSnapshot<'_> {
    fn head(&self) -> &[u8] {
        &self.head
    }

    fn rows(
        &mut self,
        slots: &[u64],
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self
            .connection()?
            .prepare_cached("SELECT body FROM rows WHERE slot=?1")
            .map_err(unreadable)?;
        for &slot in slots {
            let mut rows = statement.query([sql(slot)]).map_err(unreadable)?;
            match rows.next().map_err(unreadable)? {
                Some(row) => visit(slot, blob(row, 0)?)?,
                None => {
                    return Err(Error::corrupt(
                        "a row is missing; restore the store from a backup",
                    )
                    .with("slot", slot));
                }
            }
        }
        Ok(())
    }

    fn every_row(&mut self, after: Option<u64>, visit: VisitRow<'_>) -> Result<()> {
        const QUERY: &str = "SELECT slot,body FROM rows WHERE slot>?1 ORDER BY slot";
        let after = after.map_or(i64::MIN, sql);
        self.each_until(QUERY, [after], |row| visit(number(row, 0)?, blob(row, 1)?))
    }

    fn journal(&mut self, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.each("SELECT number,body FROM journal ORDER BY number", [], |row| {
            visit(number(row, 0)?, blob(row, 1)?)
        })
    }

    fn data_block(&mut self, table: u8, key: &[u8], visit: Visit<'_>) -> Result<()> {
        const QUERY: &str = "SELECT body FROM chunks WHERE tbl=?1 AND key=?2";
        let mut statement = self.connection()?.prepare_cached(QUERY).map_err(unreadable)?;
        let mut rows = statement.query(params![table, key]).map_err(unreadable)?;
        match rows.next().map_err(unreadable)? {
            Some(row) => visit(blob(row, 0)?),
            None => Err(Error::corrupt("a data block is missing; restore the store from a backup")
                .with("table", table)),
        }
    }

    fn data_block_keys(
        &mut self,
        range: &SeriesRange<'_>,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<()> {
        let SeriesRange { table, from, to } = *range;
        let limit = sql(limit as u64);
        let visit = |row: &Row<'_>| visit(blob(row, 0)?).map(Continue);
        match to {
            Some(to) => self.each_until(
                data_blocks!("key", "AND key<?4 ORDER BY key LIMIT ?3"),
                params![table, from, limit, to],
                visit,
            ),
            None => self.each_until(
                data_blocks!("key", "ORDER BY key LIMIT ?3"),
                params![table, from, limit],
                visit,
            ),
        }
    }

    fn data_blocks(
        &mut self,
        range: &SeriesRange<'_>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let SeriesRange { table, from, to } = *range;
        let visit = |row: &Row<'_>| visit(blob(row, 0)?, blob(row, 1)?);
        let query = match (to, reverse) {
            (Some(_), false) => data_blocks!("key,body", "AND key<?3 ORDER BY key"),
            (Some(_), true) => data_blocks!("key,body", "AND key<?3 ORDER BY key DESC"),
            (None, false) => data_blocks!("key,body", "ORDER BY key"),
            (None, true) => data_blocks!("key,body", "ORDER BY key DESC"),
        };
        match to {
            Some(to) => self.each_until(query, params![table, from, to], visit),
            None => self.each_until(query, params![table, from], visit),
        }
    }

    fn every_data_block_key(
        &mut self,
        visit: &mut dyn FnMut(u8, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let query = "SELECT tbl,key FROM chunks INDEXED BY chunks_in_order ORDER BY tbl,key";
        self.each(query, [], |row| visit(table(row, 0)?, blob(row, 1)?))
    }

    fn every_data_block(
        &mut self,
        from: Option<(u8, &[u8])>,
        visit: VisitDataBlock<'_>,
    ) -> Result<()> {
        const QUERY: &str = "SELECT tbl,key,body FROM chunks INDEXED BY chunks_in_order \
                             WHERE (tbl,key)>=(?1,?2) ORDER BY tbl,key";
        let (first, key) = from.map_or((i64::MIN, &[][..]), |(table, key)| (table.into(), key));
        self.each_until(QUERY, params![first, key], |row| {
            visit(table(row, 0)?, blob(row, 1)?, blob(row, 2)?)
        })
    }

    fn blocks(
        &mut self,
        first: u64,
        last: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.each(
            "SELECT serial,frame,body FROM blocks WHERE serial>=?1 AND serial<=?2 ORDER BY serial LIMIT ?3",
            [sql(first), sql(last), sql(limit as u64)],
            |row| visit(number(row, 0)?, blob(row, 1)?, blob(row, 2)?),
        )
    }
}

fn blob<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8]> {
    row.get_ref(column).map_err(unreadable)?.as_blob().map_err(|error| {
        Error::corrupt("a stored value has the wrong type; restore the store from a backup")
            .because(error)
    })
}

fn table(row: &Row<'_>, column: usize) -> Result<u8> {
    u8::try_from(number(row, column)?)
        .map_err(|_| Error::corrupt("a data block is of a table that is none"))
}

fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    let number: i64 = row.get(column).map_err(unreadable)?;
    u64::try_from(number).map_err(|_| {
        Error::corrupt("a stored number is negative; restore the store from a backup")
            .with("number", number)
    })
}
