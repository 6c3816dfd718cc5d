//! What is done to a file.

use super::pages::{self, HEADER, Kind, PAGE, TreePage};
use crate::prelude::*;

/// What a damage is aimed at. Each is tried as often as the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aim {
    AnyByte,
    FileHeader,
    PageHeader,
    /// What of an inner page says where to go on.
    InnerKey,
    /// Two children of an inner page change places: each is sound and met once.
    InnerPointer,
    LeafKey,
    SwappedPages,
    /// A page is what it was some commits ago: its last writes got lost.
    OlderPage,
    ZeroPage,
    Cut,
}

impl Aim {
    /// Those that a check of bytes finds.
    pub(super) const OF_BYTES: [Self; 9] = [
        Self::AnyByte,
        Self::FileHeader,
        Self::PageHeader,
        Self::InnerKey,
        Self::InnerPointer,
        Self::LeafKey,
        Self::SwappedPages,
        Self::ZeroPage,
        Self::Cut,
    ];
}

/// A damage to one file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Damage {
    Flip {
        at: usize,
        bit: u8,
        /// The kind of page, if it is the key of a cell.
        key_of: Option<Kind>,
    },
    /// Only so many bytes are left; never none, since an empty file is where a store may be made.
    Cut {
        length: usize,
    },
    ZeroPage {
        at: usize,
    },
    /// As many bytes at one place as at the other change places.
    Swap {
        one: usize,
        other: usize,
        bytes: usize,
    },
    OlderPage {
        at: usize,
    },
}

impl Damage {
    /// `None` if the file has nothing of the kind.
    pub(super) fn aimed(aim: Aim, rng: &Rng, content: &[u8], older: &[u8]) -> Option<Self> {
        let length = content.len();
        let flip = |at| Self::Flip { at, bit: rng.below(8) as u8, key_of: None };
        let any_page = || rng.below(length.div_ceil(PAGE)) * PAGE;
        Some(match aim {
            Aim::AnyByte => flip(rng.below(length)),
            Aim::FileHeader => flip(rng.below(HEADER.min(length))),
            Aim::PageHeader => flip((any_page() + rng.below(16)).min(length - 1)),
            Aim::InnerKey => key_of(rng, content, &[Kind::IndexInner, Kind::TableInner])?,
            Aim::LeafKey => key_of(rng, content, &[Kind::IndexLeaf, Kind::TableLeaf])?,
            Aim::InnerPointer => {
                let pages = pages::of(content);
                let children: Vec<_> = pages.iter().map(TreePage::children).collect();
                let inner: Vec<_> = children.iter().filter(|page| page.len() > 1).collect();
                let children = rng.choose(&inner)?;
                let one = rng.below(children.len() - 1);
                Self::Swap { one: children[one], other: children[one + 1], bytes: 4 }
            }
            Aim::SwappedPages => {
                let (one, other) = (any_page(), any_page());
                if one == other || one.max(other) + PAGE > length {
                    return None;
                }
                Self::Swap { one, other, bytes: PAGE }
            }
            Aim::OlderPage => {
                let has_changed = |page: &TreePage| {
                    let range = page.at..page.at + PAGE;
                    older.get(range.clone()).is_some_and(|older| *older != content[range])
                        && pages::kind(older, page.at) == Some(page.kind)
                };
                let changed: Vec<_> = pages::of(content).into_iter().filter(has_changed).collect();
                Self::OlderPage { at: rng.choose(&changed)?.at }
            }
            Aim::ZeroPage => Self::ZeroPage { at: any_page() },
            Aim::Cut => Self::Cut { length: 1 + rng.below(length - 1) },
        })
    }

    pub(super) fn apply(self, content: &mut Vec<u8>, older: &[u8]) {
        match self {
            Self::Flip { at, bit, .. } => content[at] ^= 1 << bit,
            Self::Cut { length } => content.truncate(length),
            Self::ZeroPage { at } => {
                let end = (at + PAGE).min(content.len());
                content[at..end].fill(0);
            }
            Self::Swap { one, other, bytes } => {
                for byte in 0..bytes {
                    content.swap(one + byte, other + byte);
                }
            }
            Self::OlderPage { at } => {
                content[at..at + PAGE].copy_from_slice(&older[at..at + PAGE]);
            }
        }
    }

    /// Whether it is about what says whose file it is, and which.
    fn is_of_header(self) -> bool {
        match self {
            Self::Flip { at, .. } | Self::ZeroPage { at } | Self::OlderPage { at } => at < HEADER,
            Self::Swap { one, other, .. } => one.min(other) < HEADER,
            Self::Cut { length } => length < HEADER,
        }
    }

    pub(super) fn may_give(self, error: &Error) -> bool {
        match error.kind() {
            Corrupt => true,
            // It looks like a file of somebody else, of another release, or one that only others
            // may write.
            InvalidArgument | ReadOnly | SchemaMismatch { .. } | Unsupported => self.is_of_header(),
            _ => false,
        }
    }
}

/// Of a page of one of these kinds, which are tried as often as each other, though a file may have
/// few of one and many of another. A file may have none of some.
fn key_of(rng: &Rng, content: &[u8], kinds: &[Kind]) -> Option<Damage> {
    let all = pages::kinds_of(content);
    let kinds: Vec<Kind> = kinds.iter().copied().filter(|kind| all.contains(kind)).collect();
    let kind = *rng.choose(&kinds)?;
    let pages: Vec<_> = pages::of(content).into_iter().filter(|page| page.kind == kind).collect();
    let page = rng.choose(&pages)?;
    let key = rng.choose(&page.keys(content))?.clone();
    let at = key.start + rng.below(key.len());
    Some(Damage::Flip { at, bit: rng.below(8) as u8, key_of: Some(page.kind) })
}
