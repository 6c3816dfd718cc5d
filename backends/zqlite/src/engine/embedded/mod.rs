//! The embedded engine: the SQLite that the `libsql` crate links too.

mod errors;
pub(crate) mod layout1;
mod link;
mod rewrite;
mod snapshot;
pub(crate) mod write;

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_sqlite::{Connection, Database, Leased, StoreFile, Wanted};
use rusqlite::params;

use super::{Batch, Engine, Reserved, Snapshot};
use crate::signing::SIGNATURE;
use errors::unreadable;
use link::Link;
#[cfg(feature = "native")]
pub(crate) use rewrite::write_copy;
pub(crate) use rewrite::{Rewriter, write_anew};
use snapshot::{EmbeddedSnapshot, read_head};

const SCHEMA: [(&str, &str); 6] = [
    ("meta", "CREATE TABLE meta(id INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    // The frame first, so that it is read without the block, which takes pages of its own.
    (
        "blocks",
        "CREATE TABLE blocks(serial INTEGER PRIMARY KEY,frame BLOB NOT NULL,changes BLOB NOT NULL,audit BLOB NOT NULL)",
    ),
    // By row id, so that a leaf holds a whole page; WITHOUT ROWID it holds a quarter.
    ("rows", "CREATE TABLE rows(slot INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    ("journal", "CREATE TABLE journal(number INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    ("chunks", "CREATE TABLE chunks(number INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
    ("directory", "CREATE TABLE directory(number INTEGER PRIMARY KEY,body BLOB NOT NULL)"),
];

/// The head in `meta`.
const HEAD: u64 = 1;

#[derive(Debug)]
pub(crate) struct Embedded(Database<Link>);

/// Makes the store in a new file; in another one it does nothing.
pub(crate) fn create(file: &StoreFile, first: impl FnOnce() -> Result<First>) -> Result<()> {
    file.fill_new(|link: &mut Link| {
        let First { head, signature } = first()?;
        create_tables(link)?;
        let insert = |id, body| {
            let inserted =
                link.0.execute("INSERT INTO meta(id,body) VALUES(?1,?2)", params![sql(id), body]);
            inserted
                .map(drop)
                .map_err(|error| errors::failed("a new store cannot be written", error))
        };
        insert(HEAD, head)?;
        signature.map_or(Ok(()), |signature| insert(SIGNATURE, signature))
    })
}

/// What a new store has.
pub(crate) struct First {
    pub(crate) head: Vec<u8>,
    /// `None` of a plain store.
    pub(crate) signature: Option<Vec<u8>>,
}

/// How the tables lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// That of earlier builds.
    First,
    Current,
}

impl Embedded {
    /// Connects to a store that was made. `moment` gives numbers of a head that never fall. `carry`
    /// writes a store of an earlier layout anew.
    pub(crate) fn open<const N: usize>(
        file: &Arc<StoreFile>,
        moment: impl Fn(Layout, &[u8]) -> Result<[u64; N]>,
        carry: impl FnOnce(&Database<Link>) -> Result<()>,
    ) -> Result<Self> {
        let database = Database::open(file, |link: &mut Link| {
            let layout = layout_of(link)?;
            moment(layout, &read_head(&link.0)?)
        })?;
        if database.read(layout_of)? == Layout::First {
            carry(&database)?;
        }
        Ok(Self(database))
    }
}

fn create_tables(link: &mut Link) -> Result<()> {
    SCHEMA.iter().try_for_each(|(_, sql)| link.run(sql))
}

/// A layout that is not ours would give rows that are not ours.
fn layout_of(link: &mut Link) -> Result<Layout> {
    let stored = || {
        link.0
            .prepare("SELECT name,sql FROM sqlite_schema ORDER BY rowid")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(String, String)>>>()
    };
    let stored = stored().map_err(unreadable)?;
    let is = |schema| stored.iter().map(|(name, sql)| (&name[..], &sql[..])).eq(schema);
    if is(SCHEMA) {
        return Ok(Layout::Current);
    }
    if is(layout1::SCHEMA) {
        return Ok(Layout::First);
    }
    Err(Error::corrupt(
        "the file's layout is not that of a store of this version; restore it from a backup, or, if \
         an earlier version made it, export it with that one and import it here",
    )
    .with("tables", stored.len()))
}

impl Engine for Embedded {
    fn describe(&self) -> String {
        format!("embedded (SQLite {})", rusqlite::version())
    }

    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        self.0.write(batch.frees, |link| write::write(&link.0, batch))
    }

    fn probe(&self, head: &[u8]) -> Result<()> {
        self.0.probe(|link| match read_head(&link.0)? == head {
            true => Ok(()),
            false => Err(write::changed_elsewhere()),
        })
    }

    fn settle(&self) -> Result<()> {
        self.0.settle()
    }

    fn reserve(&self, is_fresh: bool) -> Result<Box<dyn Reserved<'_> + '_>> {
        Ok(Box::new(self.0.lease(is_fresh)?))
    }

    fn check_structure(&self, wanted: &Wanted) -> Result<()> {
        self.0.check_structure(wanted)
    }

    fn writer_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(EmbeddedSnapshot::of_writer(self.0.writer()?)?))
    }

    fn bytes_in_use(&self) -> Result<u64> {
        self.0.bytes_in_use()
    }

    fn copy_to(&self, path: &Path) -> Result<()> {
        self.0.copy_to(path)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.close()
    }
}

impl<'e> Reserved<'e> for Leased<'e, Link> {
    fn begin(self: Box<Self>) -> Result<Box<dyn Snapshot + 'e>> {
        Ok(Box::new(EmbeddedSnapshot::of_reader(self.enter())?))
    }
}

/// Slots and serials are at most `i64::MAX`.
fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
