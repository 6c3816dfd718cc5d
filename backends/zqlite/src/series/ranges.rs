//! Ranges of keys that a commit prunes.

use ghostwire_store_core::backend::KeyRange;

use super::sorted_run::Image;

#[cfg(test)]
thread_local! {
    /// How often this thread asked whether a row was pruned.
    pub(crate) static LOOKUPS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Keys of one table: `from <= key < to`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) table: u8,
    pub(crate) from: Vec<u8>,
    /// `None` is behind all keys.
    pub(crate) to: Option<Vec<u8>>,
}

impl Span {
    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    fn reaches(&self, table: u8, key: &[u8]) -> bool {
        self.table == table && self.to.as_ref().is_none_or(|to| key < &to[..])
    }
}

/// Spans in order that have no key in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Span>);

impl Ranges {
    /// Those of series.
    pub(crate) fn of(ranges: &[KeyRange]) -> Self {
        let of_series = ranges.iter().filter(|range| !range.table.is_state());
        Self::new(of_series.map(|range| Span {
            table: range.table.number(),
            from: range.from.as_bytes().to_vec(),
            to: range.to.as_ref().map(|to| to.as_bytes().to_vec()),
        }))
    }

    pub(crate) fn new(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut spans: Vec<Span> = spans.into_iter().filter(|span| !span.is_empty()).collect();
        spans.sort();
        let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match joined.last_mut() {
                Some(last) if last.reaches(span.table, &span.from) => {
                    if let (Some(end), to) = (&last.to, span.to)
                        && to.as_ref().is_none_or(|to| to > end)
                    {
                        last.to = to;
                    }
                }
                _ => joined.push(span),
            }
        }
        Self(joined)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// About the bytes that a journal entry has for them.
    pub(crate) fn weight(&self) -> usize {
        let key = |span: &Span| span.from.len() + span.to.as_ref().map_or(0, Vec::len);
        self.0.iter().map(|span| key(span) + 4).sum()
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.0
    }

    /// Whether they have this row.
    pub(crate) fn has(&self, image: &Image<'_>) -> bool {
        self.contains(image.table, image.key)
    }

    pub(crate) fn contains(&self, table: u8, key: &[u8]) -> bool {
        #[cfg(test)]
        LOOKUPS.set(LOOKUPS.get() + 1);
        let after = self.0.partition_point(|span| (span.table, &span.from[..]) <= (table, key));
        let before = after.checked_sub(1).and_then(|index| self.0.get(index));
        before.is_some_and(|span| span.reaches(table, key))
    }
}
