//! Several runs read as one.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use super::sorted_run::{Image, SortedRun};

/// A part of a run.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) run: Arc<SortedRun>,
    pub(crate) span: Range<usize>,
}

impl Source {
    pub(crate) fn whole(run: Arc<SortedRun>) -> Self {
        Self { span: 0..run.len(), run }
    }

    fn head(&self, reverse: bool) -> Option<usize> {
        match (self.span.is_empty(), reverse) {
            (true, _) => None,
            (false, false) => Some(self.span.start),
            (false, true) => Some(self.span.end - 1),
        }
    }

    fn advance(&mut self, reverse: bool) {
        match reverse {
            false => self.span.start += 1,
            true => self.span.end -= 1,
        }
    }
}

/// The images of all sources in order. Of several of one row the newest one counts.
#[derive(Debug)]
pub(crate) struct Merge {
    /// The newest one first.
    sources: Vec<Source>,
    reverse: bool,
}

impl Merge {
    pub(crate) fn new(sources: Vec<Source>, reverse: bool) -> Self {
        Self { sources, reverse }
    }

    /// Replaces the oldest source.
    pub(crate) fn replace_oldest(&mut self, source: Source) {
        self.sources.pop();
        self.sources.push(source);
    }

    pub(crate) fn is_oldest_exhausted(&self) -> bool {
        self.sources.last().is_none_or(|source| source.span.is_empty())
    }

    pub(crate) fn next(&mut self) -> Option<Image<'_>> {
        let reverse = self.reverse;
        let mut best: Option<(usize, usize, Image<'_>)> = None;
        let mut is_shared = false;
        for (index, source) in self.sources.iter().enumerate() {
            let Some(head) = source.head(reverse) else { continue };
            let Some(image) = source.run.get(head) else { continue };
            let order = match &best {
                None => Ordering::Less,
                Some((_, _, best)) if reverse => best.table_key().cmp(&image.table_key()),
                Some((_, _, best)) => image.table_key().cmp(&best.table_key()),
            };
            match order {
                Ordering::Less => {
                    best = Some((index, head, image));
                    is_shared = false;
                }
                Ordering::Equal => is_shared = true,
                Ordering::Greater => {}
            }
        }
        let (index, head, _) = best?;
        if is_shared {
            self.pass_older(index, head);
        }
        let source = self.sources.get_mut(index)?;
        source.advance(reverse);
        source.run.get(head)
    }

    /// Steps over what older sources have of the row at `head` of this one.
    fn pass_older(&mut self, index: usize, head: usize) {
        let reverse = self.reverse;
        let (newer, older) = self.sources.split_at_mut(index + 1);
        let Some(image) = newer.last().and_then(|source| source.run.get(head)) else { return };
        for source in older {
            let same = source.head(reverse).and_then(|head| source.run.get(head));
            if same.is_some_and(|same| same.table_key() == image.table_key()) {
                source.advance(reverse);
            }
        }
    }

    /// All that is left as one run, with or without what is deleted.
    pub(crate) fn collect(mut self, with_deleted: bool) -> SortedRun {
        let count = self.sources.iter().map(|source| source.span.len()).sum();
        let bytes = self.sources.iter().map(|source| source.run.bytes_of(source.span.len())).sum();
        let mut run = SortedRun::with_capacity(count, bytes);
        while let Some(image) = self.next() {
            if with_deleted || image.body.is_some() {
                run.push(image);
            }
        }
        run
    }
}
