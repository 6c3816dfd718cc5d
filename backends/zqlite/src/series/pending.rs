//! What is in the journal, as rows in memory.

use std::sync::Arc;

use super::merge::{Merge, Source};
use super::ranges::Ranges;
use super::run::Run;

/// So many neighbouring runs of similar weight become one.
const FAN_IN: usize = 4;

/// When to fold, and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Once the journal has grown by so much, what is pending is frozen, to be folded into chunks.
    pub(crate) frozen: usize,
    /// At least so much is folded at once. Less would write the same chunk more than once.
    pub(crate) slice: usize,
    /// Chunks of at most about so many bytes are written by one commit, unless folding lags.
    pub(crate) chunks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frozen: 8 * 1024 * 1024, slice: 128 * 1024, chunks: 4 * 1024 * 1024 }
    }
}

/// The rows of one version of the series that chunks may not have yet. A copy costs a short list.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    /// The next journal entry's number, which names this version.
    pub(crate) next: u64,
    /// Runs that are not folded yet, the oldest one first.
    active: Vec<Arc<Run>>,
    frozen: Option<Frozen>,
    /// What the entries weigh that are not frozen, also where later ones undid them.
    written: usize,
    /// The entries before this one are frozen; those not frozen yet begin here.
    pub(crate) frozen_until: u64,
    /// How much of what is frozen may be folded.
    pub(crate) credit: usize,
}

/// Rows that are being folded.
#[derive(Debug, Clone)]
pub(crate) struct Frozen {
    pub(crate) run: Arc<Run>,
    /// How many of them chunks have already.
    pub(crate) folded: usize,
}

impl Pending {
    /// Nothing, before the journal entry `next`.
    pub(crate) fn empty(next: u64) -> Self {
        Self { next, active: Vec::new(), frozen: None, written: 0, frozen_until: next, credit: 0 }
    }

    /// Adds what a commit wrote.
    pub(crate) fn push(&mut self, run: Run) {
        self.wrote(run.weight());
        self.add(run);
    }

    /// A journal entry weighs so much.
    pub(super) fn wrote(&mut self, weight: usize) {
        self.written = self.written.saturating_add(weight);
    }

    /// Adds rows that were counted already.
    pub(super) fn add(&mut self, run: Run) {
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

    /// Removes rows from all that is pending.
    pub(crate) fn prune(&mut self, ranges: &Ranges) {
        self.wrote(ranges.weight());
        for run in &mut self.active {
            if let Some(kept) = run.without(|image| ranges.has(image)) {
                *run = Arc::new(kept);
            }
        }
        self.active.retain(|run| !run.is_empty());
        if let Some(frozen) = &mut self.frozen
            && let Some(kept) = frozen.run.without(|image| ranges.has(image))
        {
            let last = frozen.folded.checked_sub(1).and_then(|last| frozen.run.get(last));
            frozen.folded = last.map_or(0, |last| kept.up_to(last.table_key()));
            frozen.run = Arc::new(kept);
        }
    }

    /// Freezes what is active, which the entries before `self.next` brought.
    pub(crate) fn freeze(&mut self) {
        let run = Arc::new(merged(std::mem::take(&mut self.active)));
        self.frozen = Some(Frozen { run, folded: 0 });
        self.frozen_until = self.next;
        self.written = 0;
    }

    /// Freezes what is active if enough was written, and nothing is frozen.
    pub(crate) fn freeze_if(&mut self, limit: usize) {
        if self.frozen.is_none() && self.written >= limit {
            self.freeze();
        }
    }

    /// Whether more was written than should be before what is frozen is folded.
    pub(crate) fn lags(&self, limit: usize) -> bool {
        self.written > limit.saturating_mul(2)
    }

    pub(crate) fn frozen(&self) -> Option<&Frozen> {
        self.frozen.as_ref()
    }

    /// The rows up to here are in chunks.
    pub(crate) fn fold_to(&mut self, folded: usize) {
        if let Some(frozen) = &mut self.frozen {
            frozen.folded = folded;
        }
    }

    /// Lets what is frozen go if chunks have all of it: then the entries that brought it may go, too.
    pub(crate) fn thaw_if_folded(&mut self) -> bool {
        let is_folded = |frozen: &Frozen| frozen.folded >= frozen.run.len();
        let thaws = self.frozen.as_ref().is_some_and(is_folded);
        if thaws {
            self.frozen = None;
            self.credit = 0;
        }
        thaws
    }

    /// Like [`Pending::fold_to`], for a place that a journal entry names.
    pub(crate) fn folded_to(&mut self, place: (u8, &[u8])) {
        if let Some(frozen) = &mut self.frozen {
            frozen.folded = frozen.run.up_to(place);
        }
    }

    /// Where folding has come to.
    pub(crate) fn folded(&self) -> Option<(u8, &[u8])> {
        let Frozen { run, folded } = self.frozen.as_ref()?;
        run.get(folded.checked_sub(1)?).map(|image| (image.table, image.key))
    }

    /// What there is of a range, the newest first.
    pub(crate) fn sources(&self, table: u8, from: &[u8], to: Option<&[u8]>) -> Vec<Source> {
        let part = |run: &Arc<Run>, folded: usize| {
            let span = run.span(table, from, to);
            let span = span.start.max(folded)..span.end.max(folded);
            (!span.is_empty()).then(|| Source { run: run.clone(), span })
        };
        let active = self.active.iter().rev().filter_map(|run| part(run, 0));
        let frozen = self.frozen.iter().filter_map(|frozen| part(&frozen.run, frozen.folded));
        active.chain(frozen).collect()
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> usize {
        self.active.len()
    }
}

/// Runs of one level weigh about the same.
fn level(run: &Run) -> u32 {
    run.weight().max(1).ilog(FAN_IN)
}

/// Runs, the oldest one first, as one. Few at a time, since each step looks at all of them.
fn merged(mut runs: Vec<Arc<Run>>) -> Run {
    while runs.len() > FAN_IN {
        let few = |runs: &[Arc<Run>]| Arc::new(merged(runs.to_vec()));
        runs = runs.chunks(FAN_IN).map(few).collect();
    }
    Merge::new(runs.into_iter().rev().map(Source::whole).collect(), false).collect(true)
}
