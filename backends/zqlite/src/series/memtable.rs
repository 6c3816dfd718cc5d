//! The memtable: what is in the journal, as rows in memory.
//!
//! A commit adds a sorted run. Once enough was written the runs become one, the immutable memtable, which
//! later commits compact into data blocks slice by slice while new runs gather.

use std::sync::Arc;

use super::merge::{Merge, Source};
use super::ranges::Ranges;
use super::sorted_run::SortedRun;

/// So many neighbouring runs of similar weight are merged into one.
const FAN_IN: usize = 4;

/// When to compact, and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Once so much was written, the memtable becomes immutable, to be compacted into data blocks.
    pub(crate) immutable: usize,
    /// At least so much is compacted at once. Less would write the same data block several times.
    pub(crate) slice: usize,
    /// Data blocks of at most about so many bytes are written by one commit, unless compaction lags.
    pub(crate) data_blocks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { immutable: 8 * 1024 * 1024, slice: 128 * 1024, data_blocks: 4 * 1024 * 1024 }
    }
}

/// The rows of one version of the series that data blocks may not have yet. Cloning it copies a short list.
#[derive(Debug, Clone)]
pub(crate) struct Memtable {
    /// The next journal entry's number, which names this version.
    pub(crate) next: u64,
    /// Runs that are not part of the immutable memtable, the oldest one first.
    active: Vec<Arc<SortedRun>>,
    immutable: Option<ImmutableMemtable>,
    /// The weight of the journal entries behind `active`, also of what later ones undid.
    written: usize,
    /// The first journal entry that is in `active`.
    pub(crate) immutable_until: u64,
    /// The weight of immutable rows that may be compacted next.
    pub(crate) credit: usize,
}

/// The rows that are being compacted.
#[derive(Debug, Clone)]
pub(crate) struct ImmutableMemtable {
    pub(crate) run: Arc<SortedRun>,
    /// The number of its rows that are in data blocks already.
    pub(crate) compacted: usize,
}

impl Memtable {
    /// An empty one, before the journal entry `next`.
    pub(crate) fn empty(next: u64) -> Self {
        Self {
            next,
            active: Vec::new(),
            immutable: None,
            written: 0,
            immutable_until: next,
            credit: 0,
        }
    }

    /// Adds what a commit wrote.
    pub(crate) fn push(&mut self, run: SortedRun) {
        self.wrote(run.weight());
        self.add(run);
    }

    /// Counts a journal entry of this weight.
    pub(super) fn wrote(&mut self, weight: usize) {
        self.written = self.written.saturating_add(weight);
    }

    /// Adds rows whose journal entry was counted already.
    pub(super) fn add(&mut self, run: SortedRun) {
        if run.is_empty() {
            return;
        }
        self.active.push(Arc::new(run));
        loop {
            let Some(level) = self.active.last().map(|run| level(run)) else { return };
            let alike =
                self.active.iter().rev().take_while(|run| self::level(run) <= level).count();
            if alike < FAN_IN {
                return;
            }
            let alike = self.active.split_off(self.active.len() - alike);
            self.active.push(Arc::new(merged(alike)));
        }
    }

    /// Removes the rows of these ranges.
    pub(crate) fn prune(&mut self, ranges: &Ranges) {
        self.wrote(ranges.weight());
        for run in &mut self.active {
            if let Some(kept) = run.without(|image| ranges.has(image)) {
                *run = Arc::new(kept);
            }
        }
        self.active.retain(|run| !run.is_empty());
        if let Some(immutable) = &mut self.immutable
            && let Some(kept) = immutable.run.without(|image| ranges.has(image))
        {
            let last = immutable.compacted.checked_sub(1).and_then(|last| immutable.run.get(last));
            immutable.compacted = last.map_or(0, |last| kept.up_to(last.table_key()));
            immutable.run = Arc::new(kept);
        }
    }

    /// Makes what is active immutable: the journal entries before `self.next`.
    pub(crate) fn rotate(&mut self) {
        let run = Arc::new(merged(std::mem::take(&mut self.active)));
        self.immutable = Some(ImmutableMemtable { run, compacted: 0 });
        self.immutable_until = self.next;
        self.written = 0;
    }

    /// Does that once enough was written and the last immutable memtable is compacted.
    pub(crate) fn rotate_if(&mut self, limit: usize) {
        if self.immutable.is_none() && self.written >= limit {
            self.rotate();
        }
    }

    /// Whether compaction is behind what is written.
    pub(crate) fn lags(&self, limit: usize) -> bool {
        self.written > limit.saturating_mul(2)
    }

    pub(crate) fn immutable(&self) -> Option<&ImmutableMemtable> {
        self.immutable.as_ref()
    }

    /// Notes how many rows of the immutable memtable are in data blocks.
    pub(crate) fn set_compacted(&mut self, compacted: usize) {
        if let Some(immutable) = &mut self.immutable {
            immutable.compacted = compacted;
        }
    }

    /// Drops the immutable memtable if all of it is in data blocks: its journal entries may go, too.
    pub(crate) fn drop_if_compacted(&mut self) -> bool {
        let is_compacted =
            |immutable: &ImmutableMemtable| immutable.compacted >= immutable.run.len();
        let is_done = self.immutable.as_ref().is_some_and(is_compacted);
        if is_done {
            self.immutable = None;
            self.credit = 0;
        }
        is_done
    }

    /// As [`Memtable::set_compacted`], by the last key, as a journal entry names it.
    pub(crate) fn set_compacted_to(&mut self, place: (u8, &[u8])) {
        if let Some(immutable) = &mut self.immutable {
            immutable.compacted = immutable.run.up_to(place);
        }
    }

    /// The last key that was compacted.
    pub(crate) fn compacted(&self) -> Option<(u8, &[u8])> {
        let ImmutableMemtable { run, compacted } = self.immutable.as_ref()?;
        run.get(compacted.checked_sub(1)?).map(|image| (image.table, image.key))
    }

    /// The rows of a range, the newest run first.
    pub(crate) fn sources(&self, table: u8, from: &[u8], to: Option<&[u8]>) -> Vec<Source> {
        let part = |run: &Arc<SortedRun>, compacted: usize| {
            let span = run.span(table, from, to);
            let span = span.start.max(compacted)..span.end.max(compacted);
            (!span.is_empty()).then(|| Source { run: run.clone(), span })
        };
        let active = self.active.iter().rev().filter_map(|run| part(run, 0));
        let immutable =
            self.immutable.iter().filter_map(|immutable| part(&immutable.run, immutable.compacted));
        active.chain(immutable).collect()
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> usize {
        self.active.len()
    }
}

/// Runs of one level weigh about the same.
fn level(run: &SortedRun) -> u32 {
    run.weight().max(1).ilog(FAN_IN)
}

/// Runs, the oldest one first, as one. Few at a time, since each step looks at all of them.
fn merged(mut runs: Vec<Arc<SortedRun>>) -> SortedRun {
    while runs.len() > FAN_IN {
        let few = |runs: &[Arc<SortedRun>]| Arc::new(merged(runs.to_vec()));
        runs = runs.chunks(FAN_IN).map(few).collect();
    }
    Merge::new(runs.into_iter().rev().map(Source::whole).collect(), false).collect(true)
}
