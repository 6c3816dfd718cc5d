//! What the backend needs of whatever stores its blobs.

use std::fmt::Debug;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::error::Result;

use crate::envelope::FRAME;

pub(crate) mod embedded;

/// A store of blobs: one head, blocks by serial, rows by slot, a journal by number, data blocks by table
/// and key.
///
/// Calls block. Snapshots may be taken and read while another thread writes.
pub(crate) trait Engine: Debug + Send + Sync {
    /// Its name and version.
    fn describe(&self) -> String;

    /// Stores all of `batch` durably, or nothing.
    ///
    /// # Errors
    /// `Conflict` if the stored head is not [`Batch::expected_head`]; `OutcomeUnknown` if it
    /// cannot be told whether it was stored; anything else if it was not.
    fn write(&self, batch: &Batch<'_>) -> Result<()>;

    /// Writes and synchronises as [`Engine::write`] does, and changes nothing.
    ///
    /// # Errors
    /// `Conflict` if the stored head is another one; those of [`Engine::write`].
    fn probe(&self, head: &[u8]) -> Result<()>;

    /// Makes durable what an earlier process may have written, and died before it was synchronised.
    /// Until then a loss of power may take back what is read.
    fn settle(&self) -> Result<()>;

    /// What is stored now, and stays as it is while the snapshot lives.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>>;

    /// A snapshot that owes nothing to a cache.
    fn fresh_snapshot(&self) -> Result<Box<dyn Snapshot + '_>>;

    /// Lets the engine check its own structures. Nobody waits for that: it is broken off, and then passes,
    /// if too much is written meanwhile.
    fn check_structure(&self) -> Result<()>;

    /// What is stored now, read through the connection that writes, which knows the pages that it
    /// wrote last. Nothing can be written while it lives.
    fn writer_snapshot(&self) -> Result<Box<dyn Snapshot + '_>>;

    /// Bytes of pages that hold something, of the file with all that is in its log.
    fn bytes_in_use(&self) -> Result<u64>;

    /// Copies everything into an empty file, which need not be durable yet.
    fn copy_to(&self, path: &Path) -> Result<()>;

    /// Writes what is left to write and releases the file.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What takes a blob that is read.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&[u8]) -> Result<()>;

/// What takes the slot and the body of a row that is read, and says whether that is enough.
pub(crate) type VisitRow<'v> = &'v mut dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>>;

/// The same of a data block: table, key, body.
pub(crate) type VisitDataBlock<'v> = &'v mut dyn FnMut(u8, &[u8], &[u8]) -> Result<ControlFlow<()>>;

/// What was stored at one moment.
pub(crate) trait Snapshot {
    /// The head, which was read when the snapshot was taken.
    fn head(&self) -> &[u8];

    /// Visits the rows in these slots, in this order; `Corrupt` if one is empty.
    fn rows(
        &mut self,
        slots: &[u64],
        visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()>;

    /// Visits every row after a slot, in the order of slots.
    fn every_row(&mut self, after: Option<u64>, visit: VisitRow<'_>) -> Result<()>;

    /// Visits every entry of the journal, in order.
    fn journal(&mut self, visit: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()>;

    /// Visits the body of one data block; `Corrupt` if there is none.
    fn data_block(&mut self, table: u8, key: &[u8], visit: Visit<'_>) -> Result<()>;

    /// Visits the keys of at most `limit` data blocks that may have rows of the range, in order: the
    /// last one at or before its beginning, and those within it.
    fn data_block_keys(
        &mut self,
        range: &SeriesRange<'_>,
        limit: usize,
        visit: Visit<'_>,
    ) -> Result<()>;

    /// Visits such data blocks until it is enough: key, body.
    fn data_blocks(
        &mut self,
        range: &SeriesRange<'_>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()>;

    /// Visits the table and key of every data block, in the order in which they are searched.
    fn every_data_block_key(
        &mut self,
        visit: &mut dyn FnMut(u8, &[u8]) -> Result<()>,
    ) -> Result<()>;

    /// Visits every data block from a place on, in order.
    fn every_data_block(
        &mut self,
        from: Option<(u8, &[u8])>,
        visit: VisitDataBlock<'_>,
    ) -> Result<()>;

    /// Visits at most `limit` blocks from `first` to `last`, inclusive, in order: serial, frame,
    /// body.
    fn blocks(
        &mut self,
        first: u64,
        last: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, &[u8], &[u8]) -> Result<()>,
    ) -> Result<()>;
}

/// The keys `from <= key < to` of one series.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeriesRange<'a> {
    pub(crate) table: u8,
    pub(crate) from: &'a [u8],
    pub(crate) to: Option<&'a [u8]>,
}

impl<'a> SeriesRange<'a> {
    pub(crate) fn of(range: &'a KeyRange) -> Self {
        Self {
            table: range.table.number(),
            from: range.from.as_bytes(),
            to: range.to.as_ref().map(|to| to.as_bytes()),
        }
    }
}

/// What to store in one step.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    /// The head that this builds on, byte for byte.
    pub(crate) expected_head: Vec<u8>,
    /// The new head.
    pub(crate) head: Vec<u8>,
    /// Everything else, in order.
    pub(crate) writes: Vec<Write<'a>>,
    /// The blobs that `writes` refer to.
    pub(crate) bytes: Vec<u8>,
    /// Whether it is worth the last room on the disk.
    pub(crate) frees: bool,
}

impl Batch<'_> {
    pub(crate) fn new(expected_head: Vec<u8>, head: Vec<u8>) -> Self {
        Self { expected_head, head, writes: Vec::new(), bytes: Vec::new(), frees: false }
    }
}

/// One write.
#[derive(Debug)]
pub(crate) enum Write<'a> {
    Block { serial: u64, frame: [u8; FRAME], body: &'a [u8] },
    PutRow { slot: u64, body: Range<usize> },
    DeleteRow { slot: u64 },
    Journal { number: u64, body: Range<usize> },
    CutJournal { before: u64 },
    DeleteDataBlock { table: u8, key: Vec<u8> },
    PutDataBlock { table: u8, key: Vec<u8>, body: Range<usize> },
    PurgeBlocks { before: u64 },
}
