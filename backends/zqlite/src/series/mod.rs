//! The series (metrics, audit trail, writer positions): how their rows are kept.
//!
//! Points of one moment lie far apart by key, so a row of SQLite for each would cost a page each. So
//! a commit writes what it does to the series as one entry of the [`journal`], and remembers it in
//! memory as [`pending`]. Once that is much it is frozen, and later commits that bring rows fold a
//! slice of it each into [`chunk`]s: blobs of consecutive rows, a page of SQLite each. With the
//! last slice the entries that brought those rows are cut off the journal. Opening reads the journal
//! and no chunks.
//!
//! Everything happens in the transaction of some commit, so a snapshot of the file and the pending
//! rows of the same version ([`versions`]) are what is stored.

pub(crate) mod chunk;
pub(crate) mod fold;
pub(crate) mod journal;
mod last_pruned;
mod merge;
pub(crate) mod pending;
pub(crate) mod ranges;
mod rows;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod versions;

#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use fold::{Chunks, Edits};
use journal::Entry;
use last_pruned::LastPruned;
use pending::{Frozen, Limits, Pending};
use ranges::Ranges;
use run::{Image, Run};

/// Where the series stand, as the head says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesHead {
    /// The oldest journal entry.
    pub(crate) first: u64,
    /// The entries before this one are frozen.
    pub(crate) frozen_until: u64,
    /// The next entry; it names the version of the series.
    pub(crate) next: u64,
    /// How many chunks there are: one that got lost shows.
    pub(crate) chunks: u64,
}

impl SeriesHead {
    pub(crate) const EMPTY: Self = Self { first: 1, frozen_until: 1, next: 1, chunks: 0 };
}

/// What a commit means for the series.
#[derive(Debug)]
pub(crate) struct SeriesPlan {
    /// What is pending once it is written.
    pub(crate) pending: Pending,
    pub(crate) head: SeriesHead,
    /// The journal entry, whose number is that of the version before.
    pub(crate) entry: Vec<u8>,
    pub(crate) edits: Edits,
}

/// The chunks that a plan replaces or removes, and what each adds to the sum over all of them.
#[derive(Debug, Default)]
pub(crate) struct Replaced(BTreeMap<(u8, Vec<u8>), u64>);

impl Replaced {
    pub(crate) fn add(&mut self, table: u8, key: &[u8], sum: u64) {
        self.0.insert((table, key.to_vec()), sum);
    }

    pub(crate) fn has(&self, table: u8, key: &[u8]) -> bool {
        self.0.contains_key(&(table, key.to_vec()))
    }

    /// Of those that `edits` name.
    pub(crate) fn only(mut self, edits: &Edits) -> Self {
        let put = edits.put.iter().map(|chunk| (chunk.table, chunk.key.clone()));
        let named: BTreeSet<_> = edits.removed.iter().cloned().chain(put).collect();
        self.0.retain(|place, _| named.contains(place));
        self
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.values().fold(0, |sum, chunk| sum.wrapping_add(*chunk))
    }
}

/// The commit's rows of series, in order.
fn rows_of(commit: &Commit) -> Run {
    let rows = || commit.rows.iter().filter(|row| !row.table.is_state());
    let bytes =
        rows().map(|row| row.key.as_bytes().len() + row.body.as_ref().map_or(0, |body| body.len()));
    let mut run = Run::with_capacity(rows().count(), bytes.sum());
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
    current: &Pending,
    commit: &Commit,
    limits: Limits,
    chunks: &mut dyn Chunks,
) -> Result<Option<SeriesPlan>> {
    let (rows, pruned) = (rows_of(commit), Ranges::of(&commit.prune));
    if rows.is_empty() && pruned.is_empty() {
        return Ok(None);
    }
    let (mut head, mut pending, mut edits) = (*head, current.clone(), Edits::default());
    if !pruned.is_empty() {
        pending.prune(&pruned);
        fold::prune(&pruned, chunks, &mut edits)?;
    }
    pending.freeze_if(limits.frozen);
    head.frozen_until = pending.frozen_until;
    if let Some(frozen) = pending.frozen().cloned() {
        // Twice what arrives, so that this is folded before the next is frozen.
        let arrives = rows.weight().saturating_add(pruned.weight());
        pending.credit = pending.credit.saturating_add(arrives.saturating_mul(2));
        if pending.credit >= limits.slice && pruned.is_empty() {
            let most = if pending.lags(limits.frozen) { usize::MAX } else { limits.chunks };
            edits = fold_slice(&frozen, &mut pending, most, chunks)?;
        }
    }
    if pending.thaw_if_folded() {
        head.first = head.frozen_until;
    }
    let entry = journal::write(pending.folded(), &pruned, &rows);
    pending.push(rows);
    pending.next = following(head.next)?;
    head.next = pending.next;
    head.chunks = head
        .chunks
        .checked_add(edits.added)
        .and_then(|chunks| chunks.checked_sub(edits.removed.len() as u64))
        .ok_or_else(|| {
            Error::corrupt("there are more chunks than the head has; restore from a backup")
        })?;
    Ok(Some(SeriesPlan { pending, head, entry, edits }))
}

/// A chunk that is damaged is no reason to refuse what has nothing to do with it: the rows stay
/// pending, and whoever reads the chunk, or verifies the file, hears of it.
fn fold_slice(
    frozen: &Frozen,
    pending: &mut Pending,
    most: usize,
    chunks: &mut dyn Chunks,
) -> Result<Edits> {
    let mut edits = Edits::default();
    match fold::fold(frozen, pending.credit, most, chunks, &mut edits) {
        Ok((folded, spent)) => {
            pending.credit = pending.credit.saturating_sub(spent);
            pending.fold_to(folded);
            Ok(edits)
        }
        Err(error) if *error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(
                db.system.name = "zqlite",
                %error,
                "rows of a series cannot be folded; the journal grows until the store is restored"
            );
            pending.credit = 0;
            Ok(Edits::default())
        }
        Err(error) => Err(error),
    }
}

fn following(number: u64) -> Result<u64> {
    number
        .checked_add(1)
        .filter(|next| i64::try_from(*next).is_ok())
        .ok_or_else(|| Error::corrupt("the journal's numbers are used up").with("number", number))
}

/// Makes what is pending of the journal again. Entries are gathered first: a row that a later one
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

    pub(crate) fn finish(self) -> Result<Pending> {
        if self.next != self.head.next {
            return Err(self.gap());
        }
        let pruned = self.entries.iter().map(|(number, entry)| (*number, &entry.pruned));
        let last_pruned = LastPruned::of(pruned);
        let mut pending = Pending::empty(self.head.first);
        let mut folded = None;
        for (number, entry) in self.entries {
            if number == self.head.frozen_until && number > self.head.first {
                pending.freeze();
            }
            pending.wrote(entry.pruned.weight().saturating_add(entry.rows.weight()));
            // An entry prunes before it writes.
            let kept =
                entry.rows.without(|image| last_pruned.entry(image.table, image.key) > number);
            pending.add(kept.unwrap_or(entry.rows));
            pending.next = following(number)?;
            folded = entry.folded;
        }
        if let Some((table, key)) = folded {
            pending.folded_to((table, &key));
        }
        Ok(pending)
    }

    fn gap(&self) -> Error {
        Error::corrupt("entries of the journal are missing or too many; restore from a backup")
            .with("next", self.next)
            .with("expected", self.head.next)
    }
}
