//! Rows of series in memory, sorted and never changed once they are there.

use std::cmp::Ordering;
use std::ops::Range;

/// A row as of some commit; without a body, that it was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image<'r> {
    pub(crate) table: u8,
    pub(crate) key: &'r [u8],
    pub(crate) body: Option<&'r [u8]>,
}

impl Image<'_> {
    pub(crate) fn table_key(&self) -> (u8, &[u8]) {
        (self.table, self.key)
    }

    /// The memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        ENTRY + self.key.len() + self.body.map_or(0, <[u8]>::len)
    }
}

/// Images in one buffer, by table and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SortedRun {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where an image lies: its key, and the body behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    start: usize,
    body: u32,
    key: u16,
    table: u8,
    deleted: bool,
}

/// What an image takes beside its bytes.
const ENTRY: usize = size_of::<Entry>();

impl SortedRun {
    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), entries: Vec::with_capacity(rows) }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// About how long keys and bodies of so many images are.
    pub(crate) fn bytes_of(&self, images: usize) -> usize {
        (self.bytes.len() / self.len().max(1) + 1).saturating_mul(images)
    }

    /// The memory that it takes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + self.entries.len() * ENTRY
    }

    pub(crate) fn get(&self, index: usize) -> Option<Image<'_>> {
        self.entries.get(index).map(|entry| self.image(entry))
    }

    pub(crate) fn last(&self) -> Option<Image<'_>> {
        self.entries.last().map(|entry| self.image(entry))
    }

    pub(crate) fn images(&self) -> impl ExactSizeIterator<Item = Image<'_>> {
        self.entries.iter().map(|entry| self.image(entry))
    }

    fn image(&self, entry: &Entry) -> Image<'_> {
        image(&self.bytes, entry)
    }

    /// Appends an image; whoever appends out of order calls [`Run::sort`] at the end.
    pub(crate) fn push(&mut self, image: Image<'_>) {
        self.push_joined(image.table, image.key, &[], image.body);
    }

    /// Appends an image whose key begins with `shared` bytes of the last one's. At most as many as
    /// that has.
    pub(crate) fn push_like_last(
        &mut self,
        table: u8,
        shared: usize,
        suffix: &[u8],
        body: Option<&[u8]>,
    ) {
        let Some(last) = self.entries.last() else {
            return self.push_joined(table, suffix, &[], body);
        };
        let start = self.bytes.len();
        let shared = shared.min(usize::from(last.key));
        self.bytes.extend_from_within(last.start..last.start + shared);
        self.finish(start, table, suffix, body);
    }

    /// Appends an image whose key is in two parts.
    pub(crate) fn push_joined(
        &mut self,
        table: u8,
        prefix: &[u8],
        suffix: &[u8],
        body: Option<&[u8]>,
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(prefix);
        self.finish(start, table, suffix, body);
    }

    fn finish(&mut self, start: usize, table: u8, suffix: &[u8], body: Option<&[u8]>) {
        self.bytes.extend_from_slice(suffix);
        let key = self.bytes.len() - start;
        self.bytes.extend_from_slice(body.unwrap_or_default());
        // Keys have at most MAX_KEY bytes, and bodies less than the 4 GiB at which SQLite ends, too.
        self.entries.push(Entry {
            start,
            body: u32::try_from(body.map_or(0, <[u8]>::len)).unwrap_or(u32::MAX),
            key: u16::try_from(key).unwrap_or(u16::MAX),
            table,
            deleted: body.is_none(),
        });
    }

    /// Brings the images in order. Of several of one row the last one stays.
    pub(crate) fn sort(&mut self) {
        let Self { bytes, entries } = self;
        let order =
            |a: &Entry, b: &Entry| image(bytes, a).table_key().cmp(&image(bytes, b).table_key());
        if entries.is_sorted_by(|a, b| order(a, b) == Ordering::Less) {
            return;
        }
        entries.sort_by(order);
        // Of two that are equal `dedup_by` drops the later one.
        entries.reverse();
        entries.dedup_by(|a, b| order(a, b) == Ordering::Equal);
        entries.reverse();
    }

    /// Which images are of `table` with keys in `from <= key < to`.
    pub(crate) fn span(&self, table: u8, from: &[u8], to: Option<&[u8]>) -> Range<usize> {
        let before = |bound: (u8, &[u8])| {
            self.entries.partition_point(|entry| self.image(entry).table_key() < bound)
        };
        let start = before((table, from));
        let end = match to {
            Some(to) => before((table, to)),
            None => self.entries.partition_point(|entry| entry.table <= table),
        };
        start..end.max(start)
    }

    /// How many images are at or before this place.
    pub(crate) fn up_to(&self, (table, key): (u8, &[u8])) -> usize {
        self.entries.partition_point(|entry| self.image(entry).table_key() <= (table, key))
    }

    /// Itself without what was pruned; `None` if it has nothing of that. It asks once for each row.
    pub(crate) fn without(&self, is_pruned: impl Fn(&Image<'_>) -> bool) -> Option<Self> {
        let first = self.images().position(|image| is_pruned(&image))?;
        let mut run = Self::default();
        self.images().take(first).for_each(|image| run.push(image));
        let rest = self.images().skip(first + 1).filter(|image| !is_pruned(image));
        rest.for_each(|image| run.push(image));
        Some(run)
    }
}

fn image<'r>(bytes: &'r [u8], entry: &Entry) -> Image<'r> {
    let key = entry.start + usize::from(entry.key);
    let slice = |range: Range<usize>| bytes.get(range).unwrap_or_default();
    Image {
        table: entry.table,
        key: slice(entry.start..key),
        body: (!entry.deleted).then(|| slice(key..key + entry.body as usize)),
    }
}
