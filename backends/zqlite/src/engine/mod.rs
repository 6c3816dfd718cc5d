//! What the backend needs of whatever stores its blobs.

use std::fmt::Debug;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::error::Result;
use ghostwire_store_sqlite::Wanted;

use crate::envelope::{BLOCK_FRAME, Kind, Part, StoredBlock};

pub(crate) mod connect;
pub(crate) mod embedded;
#[cfg(feature = "native")]
pub(crate) mod native;

/// A store of blobs: one head, blocks by serial, rows by slot; the journal, data blocks and their
/// directory by number.
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

    /// A place among those who read, which may have to be waited for: to be taken before a lock that a writer
    /// needs, and by nobody who has one. A fresh one owes nothing to a cache.
    ///
    /// # Errors
    /// `Busy` if all places stay taken.
    fn reserve(&self, is_fresh: bool) -> Result<Box<dyn Reserved<'_> + '_>>;

    /// What is stored now, and stays as it is while the snapshot lives.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.reserve(false)?.begin()
    }

    /// A snapshot that owes nothing to a cache.
    fn fresh_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.reserve(true)?.begin()
    }

    /// Lets the engine check its own structures. Nobody waits for that: it is broken off, and then passes,
    /// if too much is written meanwhile.
    ///
    /// # Errors
    /// `Unavailable` once nobody wants it.
    fn check_structure(&self, wanted: &Wanted) -> Result<()>;

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

/// A place among those who read.
pub(crate) trait Reserved<'e> {
    /// What is stored now, and stays as it is while the snapshot lives.
    fn begin(self: Box<Self>) -> Result<Box<dyn Snapshot + 'e>>;
}

/// What takes a blob that is read.
pub(crate) type Visit<'v> = &'v mut dyn FnMut(&[u8]) -> Result<()>;

/// What takes the number and the bytes of a record that is read.
pub(crate) type VisitNumbered<'v> = &'v mut dyn FnMut(u64, &[u8]) -> Result<()>;

/// The same, and says whether that is enough.
pub(crate) type VisitUntil<'v> = &'v mut dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>>;

/// What was stored at one moment.
pub(crate) trait Snapshot {
    /// The head, which was read when the snapshot was taken.
    fn head(&self) -> &[u8];

    /// The record with this number beside the head; `None` if there is none.
    fn beside_head(&mut self, id: u64) -> Result<Option<Vec<u8>>>;

    /// Visits one record; `Corrupt` if there is none.
    fn record(&mut self, kind: Kind, number: u64, visit: Visit<'_>) -> Result<()>;

    /// Visits the first bytes of records of a kind after a number, in the order of numbers: they say under
    /// which version of the data key each is sealed. What stands beside the head is of the kind `Signature`.
    fn frames(
        &mut self,
        kind: Kind,
        after: u64,
        limit: usize,
        visit: VisitNumbered<'_>,
    ) -> Result<()>;

    /// Visits the rows in these slots, in this order; `Corrupt` if one is empty.
    fn rows(&mut self, slots: &[u64], visit: VisitNumbered<'_>) -> Result<()>;

    /// Visits every row after a slot, in the order of slots.
    fn every_row(&mut self, after: Option<u64>, visit: VisitUntil<'_>) -> Result<()>;

    /// Visits every entry of the journal, in order.
    fn journal(&mut self, visit: VisitNumbered<'_>) -> Result<()>;

    /// Visits the data block with this number; `Corrupt` if there is none.
    fn chunk(&mut self, number: u64, visit: Visit<'_>) -> Result<()>;

    /// Visits every data block after a number, in the order of numbers.
    fn every_chunk(&mut self, after: Option<u64>, visit: VisitUntil<'_>) -> Result<()>;

    /// Visits every leaf of the directory, in the order of numbers.
    fn leaves(&mut self, visit: VisitNumbered<'_>) -> Result<()>;

    /// Visits what stands beside each block, in the order of serials.
    fn block_frames(&mut self, visit: VisitNumbered<'_>) -> Result<()>;

    /// Visits at most `limit` blocks from `first` to `last`, inclusive, in order.
    fn blocks(
        &mut self,
        first: u64,
        last: u64,
        limit: usize,
        visit: &mut dyn FnMut(StoredBlock<'_>) -> Result<()>,
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
    Block {
        serial: u64,
        frame: [u8; BLOCK_FRAME],
        changes: Part<'a>,
        audit: Part<'a>,
    },
    /// One that is there, sealed anew.
    ReplaceBlock {
        serial: u64,
        frame: [u8; BLOCK_FRAME],
        changes: Range<usize>,
        audit: Range<usize>,
    },
    PutRow {
        slot: u64,
        body: Range<usize>,
    },
    DeleteRow {
        slot: u64,
    },
    Journal {
        number: u64,
        body: Range<usize>,
    },
    /// One that is there, sealed anew.
    ReplaceJournal {
        number: u64,
        body: Range<usize>,
    },
    CutJournal {
        before: u64,
    },
    PutChunk {
        number: u64,
        body: Range<usize>,
    },
    DeleteChunk {
        number: u64,
    },
    PutLeaf {
        number: u64,
        body: Range<usize>,
    },
    DeleteLeaf {
        number: u64,
    },
    PurgeBlocks {
        before: u64,
    },
    /// What stands beside the head.
    BesideHead {
        id: u64,
        body: Range<usize>,
    },
}
