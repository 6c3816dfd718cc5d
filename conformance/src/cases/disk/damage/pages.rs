//! The pages of a SQLite file, as far as damages are aimed at them:
//! <https://sqlite.org/fileformat2.html#b_tree_pages>.

use std::collections::BTreeSet;

pub(super) const PAGE: usize = 4096;
/// What SQLite keeps about a file at its beginning.
pub(super) const HEADER: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Of a tree whose inner pages hold whole rows: a table WITHOUT ROWID, or an index.
    IndexInner,
    /// Of a tree whose inner pages hold row ids only.
    TableInner,
    IndexLeaf,
    TableLeaf,
}

/// A page of a tree.
#[derive(Debug)]
pub(super) struct TreePage {
    pub(super) kind: Kind,
    /// Where it begins in the file.
    pub(super) at: usize,
    /// Where its cells begin.
    cells: Vec<usize>,
    /// Behind the last cell's child comes this one; only of an inner page.
    last_child: usize,
}

pub(super) fn is_sqlite(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// The pages of all trees.
pub(super) fn of(content: &[u8]) -> Vec<TreePage> {
    if !is_sqlite(content) {
        return Vec::new();
    }
    (0..content.len() / PAGE).filter_map(|number| page(content, number * PAGE)).collect()
}

/// The kinds of pages that a file has.
pub(super) fn kinds_of(content: &[u8]) -> BTreeSet<Kind> {
    of(content).iter().map(|page| page.kind).collect()
}

/// What kind of page it is that begins here, unless it is one of no tree. Those begin with the
/// number of another page, the first byte of which is 0 in files of less than 64 GiB.
pub(super) fn kind(content: &[u8], at: usize) -> Option<Kind> {
    match content[start(at)] {
        0x02 => Some(Kind::IndexInner),
        0x05 => Some(Kind::TableInner),
        0x0a => Some(Kind::IndexLeaf),
        0x0d => Some(Kind::TableLeaf),
        _ => None,
    }
}

/// The first page has the file's header before its own.
fn start(at: usize) -> usize {
    if at == 0 { HEADER } else { at }
}

fn page(content: &[u8], at: usize) -> Option<TreePage> {
    let kind = kind(content, at)?;
    let start = start(at);
    let number = |at: usize| usize::from(u16::from_be_bytes([content[at], content[at + 1]]));
    let pointers = start + if kind.is_inner() { 12 } else { 8 };
    let cells = (0..number(start + 3)).map(|cell| at + number(pointers + 2 * cell)).collect();
    Some(TreePage { kind, at, cells, last_child: start + 8 })
}

impl Kind {
    pub(super) fn is_inner(self) -> bool {
        matches!(self, Self::IndexInner | Self::TableInner)
    }
}

impl TreePage {
    /// Where each cell's key lies, or what of it lies here and tells it from others.
    pub(super) fn keys(&self, content: &[u8]) -> Vec<std::ops::Range<usize>> {
        /// More would be of columns behind the key.
        const MOST: usize = 90;
        let key = |cell: &usize| {
            let child = if self.kind.is_inner() { 4 } else { 0 };
            let first = cell + child;
            let (value, after) = varint(content, first);
            match self.kind {
                Kind::TableInner => first..after,
                Kind::TableLeaf => after..varint(content, after).1,
                // Behind the record's header, which says of what type each column is.
                Kind::IndexInner | Kind::IndexLeaf => {
                    let header = varint(content, after).0;
                    after + header.min(value - 1)..after + value.min(header + MOST)
                }
            }
        };
        self.cells.iter().map(key).collect()
    }

    /// Where the numbers of its children lie.
    pub(super) fn children(&self) -> Vec<usize> {
        let inner = self.kind.is_inner();
        let of_cells = self.cells.iter().copied();
        of_cells.chain([self.last_child]).filter(|_| inner).collect()
    }
}

/// A number of up to nine bytes, and where it ends.
fn varint(content: &[u8], at: usize) -> (usize, usize) {
    let mut number = 0;
    for index in 0..8 {
        let byte = content[at + index];
        number = (number << 7) | usize::from(byte & 0x7f);
        if byte < 0x80 {
            return (number, at + index + 1);
        }
    }
    ((number << 8) | usize::from(content[at + 8]), at + 9)
}
