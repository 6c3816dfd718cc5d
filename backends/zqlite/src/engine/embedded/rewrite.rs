//! A whole store written into empty tables, record by record, whatever it is read from.

use std::path::Path;

use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_sqlite::{Connection as _, FileKind};
use rusqlite::{Connection, params};

use super::errors::failed;
use super::link::Link;
use super::{HEAD, create_tables, sql};
use crate::before_leak::BeforeLeak;
use crate::envelope::{Envelope, Kind, Part, Placed, Sealer, frame_of};
use crate::head::{DirectoryHead, Stored, Sums};
use crate::resealing::Resealing;
use crate::series::SeriesHead;
use crate::series::data_block::DataBlock;
use crate::series::directory::{Changes, Directory, following};
use crate::signing::{self, SIGNATURE};
use crate::tags::toggle_block;

/// Rows keep their slots, blocks their serials, entries of the journal their numbers; data blocks and
/// leaves get new ones.
pub(crate) struct Rewriter<'c> {
    link: &'c Connection,
    envelope: &'c Envelope,
    sealer: Sealer<'c>,
    stored: Stored,
    data_blocks: Changes,
    /// Of a record that is being written.
    bytes: Vec<u8>,
}

impl<'c> Rewriter<'c> {
    /// To be called in a transaction. The store will stand where `stored` does, one commit later.
    pub(super) fn begin(
        link: &'c Connection,
        envelope: &'c Envelope,
        stored: &Stored,
    ) -> Result<Self> {
        let series = SeriesHead { data_blocks: 0, ..stored.series };
        let (directory, inventory) = (DirectoryHead::EMPTY, Sums::default());
        let resealing = Resealing::default();
        Ok(Self {
            link,
            envelope,
            sealer: envelope.sealer(None)?,
            stored: Stored {
                series,
                directory,
                inventory,
                signature: None,
                resealing,
                before_leak: BeforeLeak::default(),
                ..stored.moved_to(stored.head)
            },
            data_blocks: Changes::new(),
            bytes: Vec::new(),
        })
    }

    fn count(&mut self) {
        let version = self.envelope.version();
        version.into_iter().for_each(|version| self.stored.resealing.counts.add(version));
    }

    fn insert(&self, statement: &str, number: u64) -> Result<()> {
        let insert = || {
            let mut statement = self.link.prepare_cached(statement)?;
            statement.execute(params![sql(number), self.bytes]).map(drop)
        };
        insert().map_err(not_written)
    }

    /// A row as it is within its frame.
    pub(crate) fn row(&mut self, slot: u64, content: &[u8]) -> Result<()> {
        self.bytes.clear();
        let tag = self.sealer.seal(Kind::Row, slot, &[content], &mut self.bytes)?;
        self.envelope.toggle(&mut self.stored.inventory.rows, Kind::Row, slot, tag);
        self.count();
        self.insert("INSERT INTO rows(slot,body) VALUES(?1,?2)", slot)
    }

    /// An entry of the journal as it is within its frame.
    pub(crate) fn journal_entry(&mut self, number: u64, content: &[u8]) -> Result<()> {
        self.bytes.clear();
        let tag = self.sealer.seal(Kind::Journal, number, &[content], &mut self.bytes)?;
        self.envelope.toggle(&mut self.stored.inventory.journal, Kind::Journal, number, tag);
        self.count();
        self.insert("INSERT INTO journal(number,body) VALUES(?1,?2)", number)
    }

    pub(crate) fn block(&mut self, block: &EncodedBlock) -> Result<()> {
        const SQL: &str = "INSERT INTO blocks(serial,frame,changes,audit) VALUES(?1,?2,?3,?4)";
        self.bytes.clear();
        let serial = block.serial.get();
        let framed = self.sealer.seal_block(block, &mut self.bytes)?;
        toggle_block(self.envelope, &mut self.stored.inventory.blocks, serial, framed.tags);
        self.count();
        self.count();
        let part = |part| match part {
            Part::Given(bytes) => bytes,
            Part::Made(range) => self.bytes.get(range).unwrap_or_default(),
        };
        let (changes, audit) = (part(framed.changes), part(framed.audit));
        let insert = || {
            let values = params![sql(serial), frame_of(framed.tags), changes, audit];
            self.link.prepare_cached(SQL)?.execute(values).map(drop)
        };
        insert().map_err(not_written)
    }

    pub(crate) fn data_block(&mut self, data_block: DataBlock) -> Result<()> {
        let DataBlock { table, key, content } = data_block;
        self.bytes.clear();
        let number = following(&mut self.stored.directory.next_chunk)?;
        let placed = Placed { table, key: &key, body: &content };
        let tag = self.sealer.seal_placed(Kind::Chunk, number, &placed, &mut self.bytes)?;
        self.count();
        self.insert("INSERT INTO chunks(number,body) VALUES(?1,?2)", number)?;
        self.stored.series.data_blocks += 1;
        self.data_blocks.insert((table, key), Some((number, tag)));
        Ok(())
    }

    /// Writes the directory and the head.
    pub(super) fn finish(mut self) -> Result<()> {
        let changes = std::mem::take(&mut self.data_blocks);
        let mut next_leaf = self.stored.directory.next_leaf;
        let (directory, _) =
            Directory::default().with(changes, &mut next_leaf, &mut |number, content| {
                self.bytes.clear();
                let tag = self.sealer.seal(Kind::Directory, number, &[content], &mut self.bytes)?;
                let sum = &mut self.stored.inventory.leaves;
                self.envelope.toggle(sum, Kind::Directory, number, tag);
                self.insert("INSERT INTO directory(number,body) VALUES(?1,?2)", number)?;
                Ok(tag)
            })?;
        self.stored.directory.next_leaf = next_leaf;
        self.stored.directory.leaves = directory.leaves() as u64;
        (0..directory.leaves()).for_each(|_| self.count());
        const SQL: &str = "INSERT INTO meta(id,body) VALUES(?1,?2)";
        self.bytes.clear();
        if signing::sign_into(&mut self.sealer, &mut self.stored, &mut self.bytes)? {
            self.insert(SQL, SIGNATURE)?;
        }
        self.bytes = self.sealer.seal_head(&self.stored)?;
        self.insert(SQL, HEAD)
    }
}

fn not_written(error: rusqlite::Error) -> Error {
    failed("the store cannot be written anew", error)
}

/// Writes a store into an empty file, which is durable once its owner synchronises it.
pub(crate) fn write_anew(
    path: &Path,
    envelope: &Envelope,
    stored: &Stored,
    fill: impl FnOnce(&mut Rewriter<'_>) -> Result<()>,
) -> Result<()> {
    let mut link = begin_anew(path)?;
    let mut rewriter = Rewriter::begin(&link.0, envelope, stored)?;
    fill(&mut rewriter)?;
    rewriter.finish()?;
    link.run("COMMIT")
}

/// Writes what another engine stores into an empty file, record by record, each as it is.
#[cfg(feature = "native")]
pub(crate) fn write_copy(path: &Path, from: &mut dyn crate::engine::Snapshot) -> Result<()> {
    use std::ops::ControlFlow::Continue;
    let mut link = begin_anew(path)?;
    let insert = |statement: &str, number: u64, body: &[u8]| {
        let insert = || link.0.prepare_cached(statement)?.execute(params![sql(number), body]);
        insert().map(drop).map_err(not_written)
    };
    const META: &str = "INSERT INTO meta(id,body) VALUES(?1,?2)";
    insert(META, HEAD, from.head())?;
    for id in [SIGNATURE, signing::FORMER_SIGNERS] {
        if let Some(record) = from.beside_head(id)? {
            insert(META, id, &record)?;
        }
    }
    from.every_row(None, &mut |slot, body| {
        insert("INSERT INTO rows(slot,body) VALUES(?1,?2)", slot, body).map(Continue)
    })?;
    from.journal(&mut |number, body| {
        insert("INSERT INTO journal(number,body) VALUES(?1,?2)", number, body)
    })?;
    from.every_chunk(None, &mut |number, body| {
        insert("INSERT INTO chunks(number,body) VALUES(?1,?2)", number, body).map(Continue)
    })?;
    from.leaves(&mut |number, body| {
        insert("INSERT INTO directory(number,body) VALUES(?1,?2)", number, body)
    })?;
    from.blocks(0, u64::MAX, usize::MAX, &mut |block| {
        const SQL: &str = "INSERT INTO blocks(serial,frame,changes,audit) VALUES(?1,?2,?3,?4)";
        let values = params![sql(block.serial), block.frame, block.changes, block.audit];
        let insert = || link.0.prepare_cached(SQL)?.execute(values);
        insert().map(drop).map_err(not_written)
    })?;
    link.run("COMMIT")
}

/// Makes the tables in an empty file, in a transaction that is still to be committed.
fn begin_anew(path: &Path) -> Result<Link> {
    let mut link = Link::open(path, true)?;
    for setting in
        ["page_size = 4096", "encoding = 'UTF-8'", "journal_mode = MEMORY", "synchronous = OFF"]
    {
        link.run(&format!("PRAGMA {setting}"))?;
    }
    link.run("BEGIN EXCLUSIVE")?;
    link.run(&format!("PRAGMA application_id = {}", FileKind::ZQLITE.application_id))?;
    create_tables(&mut link)?;
    Ok(link)
}
