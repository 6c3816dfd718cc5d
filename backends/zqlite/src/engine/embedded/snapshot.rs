//! Reading what was stored at one moment.

use std::ops::ControlFlow::{self, Continue};

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_sqlite::{Connection as _, Reader, WriterGuard};
use rusqlite::{Connection, Row};

use super::errors::unreadable;
use super::link::Link;
use super::sql;
use crate::engine::{Snapshot, Visit, VisitNumbered, VisitUntil};
use crate::envelope::{Kind, StoredBlock, missing};

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

    fn beside_head(&mut self, id: u64) -> Result<Option<Vec<u8>>> {
        let mut record = None;
        self.each("SELECT body FROM meta WHERE id=?1", [sql(id)], |row| {
            record = Some(blob(row, 0)?.to_vec());
            Ok(())
        })?;
        Ok(record)
    }

    fn record(&mut self, kind: Kind, number: u64, visit: Visit<'_>) -> Result<()> {
        let query = match kind {
            Kind::Row => "SELECT body FROM rows WHERE slot=?1",
            Kind::Chunk => "SELECT body FROM chunks WHERE number=?1",
            Kind::Directory => "SELECT body FROM directory WHERE number=?1",
            Kind::Block => "SELECT changes FROM blocks WHERE serial=?1",
            Kind::Audit => "SELECT audit FROM blocks WHERE serial=?1",
            Kind::Journal => "SELECT body FROM journal WHERE number=?1",
            Kind::Head | Kind::Signature => "SELECT body FROM meta WHERE id=?1",
        };
        let mut statement = self.connection()?.prepare_cached(query).map_err(unreadable)?;
        let mut rows = statement.query([sql(number)]).map_err(unreadable)?;
        match rows.next().map_err(unreadable)? {
            Some(row) => visit(blob(row, 0)?),
            None => Err(missing(kind, number)),
        }
    }

    fn frames(
        &mut self,
        kind: Kind,
        after: u64,
        limit: usize,
        visit: VisitNumbered<'_>,
    ) -> Result<()> {
        const LIMITED: [(Kind, &str); 8] = [
            (
                Kind::Row,
                "SELECT slot,substr(body,1,45) FROM rows WHERE slot>?1 ORDER BY 1 LIMIT ?2",
            ),
            (
                Kind::Directory,
                "SELECT number,substr(body,1,45) FROM directory WHERE number>?1 ORDER BY 1 LIMIT ?2",
            ),
            (
                Kind::Chunk,
                "SELECT number,substr(body,1,45) FROM chunks WHERE number>?1 ORDER BY 1 LIMIT ?2",
            ),
            (
                Kind::Block,
                "SELECT serial,substr(changes,1,45) FROM blocks WHERE serial>?1 ORDER BY 1 LIMIT ?2",
            ),
            (
                Kind::Audit,
                "SELECT serial,substr(audit,1,45) FROM blocks WHERE serial>?1 ORDER BY 1 LIMIT ?2",
            ),
            (
                Kind::Journal,
                "SELECT number,substr(body,1,45) FROM journal WHERE number>?1 ORDER BY 1 LIMIT ?2",
            ),
            // What stands beside the head; the head itself has plain bytes in front.
            (
                Kind::Signature,
                "SELECT id,substr(body,1,45) FROM meta WHERE id>max(?1,1) ORDER BY 1 LIMIT ?2",
            ),
            (Kind::Head, "SELECT id,substr(body,41,45) FROM meta WHERE id>?1 AND id=1 LIMIT ?2"),
        ];
        let query = LIMITED.iter().find(|(of, _)| *of == kind).map_or("", |(_, query)| query);
        self.each(query, [sql(after), sql(limit as u64)], |row| {
            visit(number(row, 0)?, blob(row, 1)?)
        })
    }

    fn rows(&mut self, slots: &[u64], visit: VisitNumbered<'_>) -> Result<()> {
        const QUERY: &str = "SELECT body FROM rows WHERE slot=?1";
        let mut statement = self.connection()?.prepare_cached(QUERY).map_err(unreadable)?;
        for &slot in slots {
            let mut rows = statement.query([sql(slot)]).map_err(unreadable)?;
            match rows.next().map_err(unreadable)? {
                Some(row) => visit(slot, blob(row, 0)?)?,
                None => return Err(missing(Kind::Row, slot)),
            }
        }
        Ok(())
    }

    fn every_row(&mut self, after: Option<u64>, visit: VisitUntil<'_>) -> Result<()> {
        const QUERY: &str = "SELECT slot,body FROM rows WHERE slot>?1 ORDER BY slot";
        let after = after.map_or(i64::MIN, sql);
        self.each_until(QUERY, [after], |row| visit(number(row, 0)?, blob(row, 1)?))
    }

    fn journal(&mut self, visit: VisitNumbered<'_>) -> Result<()> {
        self.each("SELECT number,body FROM journal ORDER BY number", [], |row| {
            visit(number(row, 0)?, blob(row, 1)?)
        })
    }

    fn chunk(&mut self, number: u64, visit: Visit<'_>) -> Result<()> {
        const QUERY: &str = "SELECT body FROM chunks WHERE number=?1";
        let mut statement = self.connection()?.prepare_cached(QUERY).map_err(unreadable)?;
        let mut rows = statement.query([sql(number)]).map_err(unreadable)?;
        match rows.next().map_err(unreadable)? {
            Some(row) => visit(blob(row, 0)?),
            None => Err(missing(Kind::Chunk, number)),
        }
    }

    fn every_chunk(&mut self, after: Option<u64>, visit: VisitUntil<'_>) -> Result<()> {
        const QUERY: &str = "SELECT number,body FROM chunks WHERE number>?1 ORDER BY number";
        let after = after.map_or(i64::MIN, sql);
        self.each_until(QUERY, [after], |row| visit(number(row, 0)?, blob(row, 1)?))
    }

    fn leaves(&mut self, visit: VisitNumbered<'_>) -> Result<()> {
        self.each("SELECT number,body FROM directory ORDER BY number", [], |row| {
            visit(number(row, 0)?, blob(row, 1)?)
        })
    }

    fn block_frames(&mut self, visit: VisitNumbered<'_>) -> Result<()> {
        self.each("SELECT serial,frame FROM blocks ORDER BY serial", [], |row| {
            visit(number(row, 0)?, blob(row, 1)?)
        })
    }

    fn blocks(
        &mut self,
        first: u64,
        last: u64,
        limit: usize,
        visit: &mut dyn FnMut(StoredBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        self.each(
            "SELECT serial,frame,changes,audit FROM blocks WHERE serial>=?1 AND serial<=?2 ORDER BY serial \
             LIMIT ?3",
            [sql(first), sql(last), sql(limit as u64)],
            |row| {
                let (serial, frame) = (number(row, 0)?, blob(row, 1)?);
                let (changes, audit) = (blob(row, 2)?, blob(row, 3)?);
                visit(StoredBlock { serial, frame, changes, audit })
            },
        )
    }
}

pub(super) fn blob<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8]> {
    row.get_ref(column).map_err(unreadable)?.as_blob().map_err(|error| {
        Error::corrupt("a stored value has the wrong type; restore the store from a backup")
            .because(error)
    })
}

pub(super) fn number(row: &Row<'_>, column: usize) -> Result<u64> {
    let number: i64 = row.get(column).map_err(unreadable)?;
    u64::try_from(number).map_err(|_| {
        Error::corrupt("a stored number is negative; restore the store from a backup")
            .with("number", number)
    })
}
