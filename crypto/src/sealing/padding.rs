//! How long a sealed record is, whatever its content.

use crate::sealing::Kind;
use crate::sealing::frame::{FRAME, PLACE};

/// A sealed chunk fills one page of SQLite: a body of 4,057 bytes is the longest that needs no
/// second one.
const PAGE: usize = 4057 - FRAME;
const STEP: usize = 64;
const LARGEST_STEPPED: usize = 1024;

/// The length of a sealed record whose content is `length` bytes long, in bytes.
///
/// Rows, heads and signatures grow in steps of 64 bytes up to 1 KiB and by Padmé from there; chunks
/// and leaves of the directory have one length up to 4,000 bytes of content; blocks, their audit
/// sections and the journal grow by Padmé.
#[must_use]
pub fn sealed_length(kind: Kind, length: usize) -> usize {
    FRAME + padded(kind, length)
}

/// The length of what is sealed: place, content and zeros.
pub(crate) fn padded(kind: Kind, length: usize) -> usize {
    let length = PLACE + length;
    match kind {
        Kind::Head | Kind::Row | Kind::Signature if length <= LARGEST_STEPPED => {
            length.next_multiple_of(STEP)
        }
        Kind::Chunk | Kind::Directory if length <= PAGE => PAGE,
        _ => padme(length),
    }
}

/// Padmé (Nikitin et al., PETS 2019): the lengths whose binary form ends in zeros, more of them the
/// longer it is. It tells the logarithm of a length and a few bits of it, and costs at most 12 %,
/// for long records 1 %.
fn padme(length: usize) -> usize {
    let exponent = length.max(2).ilog2();
    let kept = exponent.ilog2() + 1;
    let mask = (1_usize << (exponent - kept.min(exponent))) - 1;
    length.saturating_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_those_of_the_table() {
        for (kind, content, sealed) in [
            (Kind::Row, 0, FRAME + 64),
            (Kind::Row, 52, FRAME + 64),
            (Kind::Row, 53, FRAME + 128),
            (Kind::Row, 1012, FRAME + 1024),
            (Kind::Row, 1013, FRAME + 1088),
            (Kind::Chunk, 0, 4057),
            (Kind::Chunk, 4000, 4057),
            (Kind::Directory, 4000, 4057),
            (Kind::Chunk, 4001, FRAME + 4096),
            (Kind::Journal, 0, FRAME + 12),
            (Kind::Block, 100_000 - 12, FRAME + 100_352),
        ] {
            assert_eq!(sealed_length(kind, content), sealed, "{kind} {content}");
        }
    }

    /// From the paper's own table and its implementation.
    #[test]
    fn padme_is_that_of_its_authors() {
        for (length, padded) in
            [(1, 1), (2, 2), (8, 8), (9, 10), (100, 104), (1000, 1024), (1025, 1088)]
        {
            assert_eq!(padme(length), padded, "{length}");
        }
    }

    proptest! {
        #[test]
        fn padme_grows_and_costs_little(length in 1..10_000_000_usize) {
            let padded = padme(length);
            prop_assert!(padded >= length);
            prop_assert!((padded - length) * 100 <= 12 * length);
            prop_assert!(padme(length + 1) >= padded);
            prop_assert_eq!(padme(padded), padded);
        }
    }
}
