//! The series (metrics, audit trail, writer positions): how their rows are kept.
//!
//! Points of one moment lie far apart by key, so a row of SQLite for each would cost a page each. So
//! a commit writes what it does to the series as one entry of the [`journal`], and adds it to the
//! [`memtable`]. Once that is large it becomes immutable, and each later commit that brings rows compacts a
//! slice of it into [`data_block`]s: blobs of consecutive rows, a page of SQLite each. With the
//! last slice the entries that brought those rows are cut off the journal. Which data block has
//! which rows is in the [`directory`]. Opening reads the journal and the directory, and no data blocks.
//!
//! Everything happens in the transaction of some commit, so a snapshot of the file, and the memtable and
//! the directory of the same version ([`versions`]), are what is stored.

pub(crate) mod compaction;
pub(crate) mod data_block;
pub(crate) mod directory;
pub(crate) mod journal;
mod last_pruned;
pub(crate) mod memtable;
mod merge;
pub(crate) mod ranges;
mod rows;
pub(crate) mod scan;
pub(crate) mod sorted_run;
pub(crate) mod versions;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

use std::time::Instant;

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::observe::compacted;

use compaction::{DataBlocks, Edits};
use journal::Entry;
use last_pruned::LastPruned;
use memtable::{ImmutableMemtable, Limits, Memtable};
use ranges::Ranges;
use sorted_run::{Image, SortedRun};

/// Where the series stand, as the head says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesHead {
    /// The oldest journal entry.
    pub(crate) first: u64,
    /// The entries before this one are in the immutable memtable.
    pub(crate) immutable_until: u64,
    /// The next entry; it names the version of the series.
    pub(crate) next: u64,
    /// How many data blocks there are: one that got lost shows.
    pub(crate) data_blocks: u64,
}

impl SeriesHead {
    pub(crate) const EMPTY: Self = Self { first: 1, immutable_until: 1, next: 1, data_blocks: 0 };
}

/// What a commit means for the series.
#[derive(Debug)]
pub(crate) struct SeriesPlan {
    /// The memtable once it is written.
    pub(crate) memtable: Memtable,
    pub(crate) head: SeriesHead,
    /// The journal entry, whose number is that of the version before.
    pub(crate) entry: Vec<u8>,
    pub(crate) edits: Edits,
}

/// The commit's rows of series, in order.
fn rows_of(commit: &Commit) -> SortedRun {
    let rows = || commit.rows.iter().filter(|row| !row.table.is_state());
    let bytes =
        rows().map(|row| row.key.as_bytes().len() + row.body.as_ref().map_or(0, |body| body.len()));
    let mut run = SortedRun::with_capacity(rows().count(), bytes.sum());
    for row in rows() {
        let (table, key) = (row.table.number(), row.key.as_bytes());
        run.push(Image { table, key, body: row.body.as_deref() });
    }
    run.sort();
    run
}

/// Plans a commit; `None` if it does nothing to the series.
pub(crate) fn plan(
    head: &SeriesHead,
    current: &Memtable,
    commit: &Commit,
    limits: Limits,
    data_blocks: &mut dyn DataBlocks,
) -> Result<Option<SeriesPlan>> {
    let (rows, pruned) = (rows_of(commit), Ranges::of(&commit.prune));
    if rows.is_empty() && pruned.is_empty() {
        return Ok(None);
    }
    let (mut head, mut memtable, mut edits) = (*head, current.clone(), Edits::default());
    if !pruned.is_empty() {
        memtable.prune(&pruned);
        compaction::prune(&pruned, data_blocks, &mut edits)?;
    }
    memtable.rotate_if(limits.immutable);
    head.immutable_until = memtable.immutable_until;
    if let Some(immutable) = memtable.immutable().cloned() {
        // Twice what arrives, so that this is compacted before the next one is full.
        let arrives = rows.weight().saturating_add(pruned.weight());
        memtable.credit = memtable.credit.saturating_add(arrives.saturating_mul(2));
        if memtable.credit >= limits.slice && pruned.is_empty() {
            let most =
                if memtable.lags(limits.immutable) { usize::MAX } else { limits.data_blocks };
            let began = Instant::now();
            edits = compact_slice(&immutable, &mut memtable, most, data_blocks)?;
            compacted(began.elapsed());
        }
    }
    if memtable.drop_if_compacted() {
        head.first = head.immutable_until;
    }
    let entry = journal::write(memtable.compacted(), &pruned, &rows);
    memtable.push(rows);
    memtable.next = following(head.next)?;
    head.next = memtable.next;
    head.data_blocks = head
        .data_blocks
        .checked_add(edits.added)
        .and_then(|data_blocks| data_blocks.checked_sub(edits.removed.len() as u64))
        .ok_or_else(|| {
            Error::corrupt("there are more data blocks than the head has; restore from a backup")
        })?;
    Ok(Some(SeriesPlan { memtable, head, entry, edits }))
}

/// A data block that is damaged is no reason to refuse what has nothing to do with it: the rows stay
/// in the memtable, and whoever reads the data block, or verifies the file, hears of it.
fn compact_slice(
    immutable: &ImmutableMemtable,
    memtable: &mut Memtable,
    most: usize,
    data_blocks: &mut dyn DataBlocks,
) -> Result<Edits> {
    let mut edits = Edits::default();
    match compaction::compact(immutable, memtable.credit, most, data_blocks, &mut edits) {
        Ok((compacted, spent)) => {
            memtable.credit = memtable.credit.saturating_sub(spent);
            memtable.set_compacted(compacted);
            Ok(edits)
        }
        Err(error) if *error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(
                db.system.name = "zqlite",
                %error,
                "rows of a series cannot be compacted; the journal grows until the store is restored"
            );
            memtable.credit = 0;
            Ok(Edits::default())
        }
        Err(error) => Err(error),
    }
}

/// The number after this one.
fn following(number: u64) -> Result<u64> {
    let mut next = number;
    directory::following(&mut next).map(|_| next)
}

/// Makes the memtable of the journal again. Entries are gathered first: a row that a later one
/// pruned is left out at once, instead of going through all rows for each that pruned some.
#[derive(Debug)]
pub(crate) struct Replay {
    head: SeriesHead,
    next: u64,
    entries: Vec<(u64, Entry)>,
}

impl Replay {
    pub(crate) fn new(head: SeriesHead) -> Self {
        Self { head, next: head.first, entries: Vec::new() }
    }

    /// Takes the next entry.
    pub(crate) fn take(&mut self, number: u64, entry: Entry) -> Result<()> {
        if number != self.next || number >= self.head.next {
            return Err(self.gap());
        }
        self.entries.push((number, entry));
        self.next = following(number)?;
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Memtable> {
        if self.next != self.head.next {
            return Err(self.gap());
        }
        let pruned = self.entries.iter().map(|(number, entry)| (*number, &entry.pruned));
        let last_pruned = LastPruned::of(pruned);
        let mut memtable = Memtable::empty(self.head.first);
        let mut compacted = None;
        for (number, entry) in self.entries {
            if number == self.head.immutable_until && number > self.head.first {
                memtable.rotate();
            }
            memtable.wrote(entry.pruned.weight().saturating_add(entry.rows.weight()));
            // An entry prunes before it writes.
            let kept =
                entry.rows.without(|image| last_pruned.entry(image.table, image.key) > number);
            memtable.add(kept.unwrap_or(entry.rows));
            memtable.next = following(number)?;
            compacted = entry.compacted;
        }
        if let Some((table, key)) = compacted {
            memtable.set_compacted_to((table, &key));
        }
        Ok(memtable)
    }

    fn gap(&self) -> Error {
        Error::corrupt("entries of the journal are missing or too many; restore from a backup")
            .with("next", self.next)
            .with("expected", self.head.next)
    }
}
