//! Reading what is stored: blocks, directory, journal, data blocks.

use ghostwire_store_core::backend::Head;
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::chain::Chain;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::Open;
use crate::engine::{SeriesRange, Snapshot};
use crate::envelope::{Envelope, Kind, Reader, Sum, Tag, missing, older};
use crate::head::Stored;
use crate::series::compaction::DataBlocks;
use crate::series::directory::{Directory, Entry, Leaf};
use crate::series::memtable::Memtable;
use crate::series::sorted_run::SortedRun;
use crate::series::{Replay, data_block, journal};
use crate::tags::{Run, not_of_one_moment};

/// Reads the newest block, if it is kept: it has to be the head's.
pub(super) fn check_last_block(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    head: &Head,
) -> Result<()> {
    if head.oldest_block > head.serial {
        return Ok(());
    }
    let serial = head.serial.get();
    let (mut chain, _) = Chain::after(head, Serial::new(serial - 1), 1)?;
    let mut reader = envelope.reader();
    snapshot.blocks(serial, serial, 1, &mut |stored| {
        let block = reader.open_block(stored, None)?;
        chain.follow(Serial::new(serial), &block)
    })?;
    chain.require_whole()
}

/// Reads the directory: that no leaf is missing or an older one, and that they have as many data blocks
/// as the head.
pub(super) fn read_directory(
    snapshot: &mut dyn Snapshot,
    envelope: &Envelope,
    stored: &Stored,
) -> Result<Directory> {
    let (mut leaves, mut total, mut reader) =
        (Vec::new(), Sum::default(), envelope.reader_of(stored));
    snapshot.leaves(&mut |number, bytes| {
        let (content, tag) = reader.open(Kind::Directory, number, bytes)?;
        envelope.toggle(&mut total, Kind::Directory, number, tag);
        leaves.push(Leaf::read(number, tag, content)?);
        Ok(())
    })?;
    let count = leaves.len() as u64;
    if count != stored.directory.leaves {
        return Err(Error::corrupt(
            "leaves of the directory are missing or too many; restore from a backup",
        )
        .with("leaves", count)
        .with("expected", stored.directory.leaves));
    }
    if total != stored.inventory.leaves {
        return Err(not_of_one_moment("directory"));
    }
    let directory = Directory::of(leaves)?;
    let chunks = directory.entries().count() as u64;
    match chunks == stored.series.data_blocks {
        true => Ok(directory),
        false => Err(Error::corrupt(
            "the directory has other data blocks than the head; restore from a backup",
        )
        .with("data_blocks", chunks)
        .with("expected", stored.series.data_blocks)),
    }
}

/// Gives `take` the rows of the data block that the directory names.
pub(crate) fn read_data_block<T>(
    snapshot: &mut dyn Snapshot,
    reader: &mut Reader<'_>,
    entry: &Entry,
    take: impl FnOnce(&[u8]) -> Result<T>,
) -> Result<T> {
    let (mut take, mut taken, number) = (Some(take), None, entry.number);
    snapshot.chunk(number, &mut |stored| {
        let (rows, tag) = reader.open_placed(Kind::Chunk, number, stored)?;
        if tag != entry.tag || !rows.is(entry.table(), entry.key()) {
            return Err(older(Kind::Chunk, number));
        }
        taken = take.take().map(|take| take(rows.body)).transpose()?;
        Ok(())
    })?;
    taken.ok_or_else(|| missing(Kind::Chunk, number))
}

/// The entries of the journal as they are stored, and their numbers.
pub(super) fn read_journal(snapshot: &mut dyn Snapshot) -> Result<Vec<(u64, Vec<u8>)>> {
    let mut entries = Vec::new();
    snapshot.journal(&mut |number, stored| {
        entries.push((number, stored.to_vec()));
        Ok(())
    })?;
    Ok(entries)
}

/// The memtable, from the journal, and the tags of its entries.
pub(super) fn replay(
    envelope: &Envelope,
    stored: &Stored,
    entries: &[(u64, Vec<u8>)],
) -> Result<(Memtable, Run<Tag>)> {
    let (mut replay, mut reader) = (Replay::new(stored.series), envelope.reader_of(stored));
    let (mut tags, mut total) = (Run::new(stored.series.first), Sum::default());
    for (number, stored) in entries {
        let (content, tag) = reader.open(Kind::Journal, *number, stored)?;
        envelope.toggle(&mut total, Kind::Journal, *number, tag);
        tags.push(tag);
        let entry = journal::read(content)
            .map_err(|error| error.with("record", "journal").with("number", number))?;
        replay.take(*number, entry)?;
    }
    let memtable = replay.finish()?;
    match total == stored.inventory.journal {
        true => Ok((memtable, tags)),
        false => Err(not_of_one_moment("journal")),
    }
}

/// The data blocks that the next commit finds. The file is looked at when the rows of one are asked for.
pub(super) struct StoredDataBlocks<'o> {
    pub(super) open: &'o Open,
    pub(super) directory: &'o Directory,
    pub(super) reader: Reader<'o>,
    pub(super) snapshot: Option<Box<dyn Snapshot + 'o>>,
}

impl DataBlocks for StoredDataBlocks<'_> {
    fn keys(
        &mut self,
        table: u8,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let found = self.directory.range(&SeriesRange { table, from, to });
        Ok(found.take(limit).map(|entry| entry.key().to_vec()).collect())
    }

    fn rows(&mut self, table: u8, key: &[u8]) -> Result<SortedRun> {
        let entry = self.directory.get(table, key).ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "a data block is asked for that there is none of")
        })?;
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.open.engine.writer_snapshot()?,
        };
        let snapshot = &mut **self.snapshot.insert(snapshot);
        let read = |content: &[u8]| data_block::read(table, key, content);
        read_data_block(snapshot, &mut self.reader, entry, read)
    }
}
