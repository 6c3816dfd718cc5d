//! The bytes of rows that follow each other: each key as what differs from the one before it.
//!
//! A row is `shared varint, suffix length varint, suffix, body length + 1 varint (0: deleted), body`.

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{MAX_KEY, put_varint, take, take_length, take_varint};

use super::sorted_run::{Image, SortedRun};

/// Writes rows one behind the other.
#[derive(Debug)]
pub(crate) struct RowsWriter<'r> {
    before: &'r [u8],
    pub(crate) bytes: Vec<u8>,
}

impl<'r> RowsWriter<'r> {
    /// The first key is compared with `before`.
    pub(crate) fn after(before: &'r [u8]) -> Self {
        Self { before, bytes: Vec::new() }
    }

    /// Writes behind what is there already; the first key is written whole.
    pub(crate) fn onto(bytes: Vec<u8>) -> Self {
        Self { before: &[], bytes }
    }

    pub(crate) fn put(&mut self, image: Image<'r>) {
        let shared = shared(self.before, image.key);
        let suffix = image.key.get(shared..).unwrap_or_default();
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, suffix.len() as u64);
        self.bytes.extend_from_slice(suffix);
        put_varint(&mut self.bytes, image.body.map_or(0, |body| body.len() as u64 + 1));
        self.bytes.extend_from_slice(image.body.unwrap_or_default());
        self.before = image.key;
    }
}

/// How many bytes at their beginning are the same; eight at a time.
pub(crate) fn shared(a: &[u8], b: &[u8]) -> usize {
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    let bytes = a.iter().zip(b).skip(words);
    words + bytes.take_while(|(a, b)| a == b).count()
}

/// Takes one row, whose key follows the last one of `into`, or `before` if that is empty. With
/// `may_equal` it may be that key itself.
pub(crate) fn take_row(
    rest: &mut &[u8],
    table: u8,
    before: &[u8],
    may_equal: bool,
    into: &mut SortedRun,
) -> Result<()> {
    let last = into.last().filter(|last| last.table == table).map(|last| last.key);
    let is_first = last.is_none();
    let shared = usize::try_from(take_varint(rest)?).unwrap_or(usize::MAX);
    let length = take_length(rest)?;
    let suffix = take(rest, length)?;
    let replaced = last.unwrap_or(before).get(shared..).ok_or_else(misshapen)?;
    let follows = suffix > replaced || (may_equal && suffix == replaced);
    if !follows || shared + length > MAX_KEY {
        return Err(misshapen());
    }
    let body = match take_varint(rest)?.checked_sub(1) {
        Some(length) => Some(take(rest, usize::try_from(length).map_err(|_| misshapen())?)?),
        None => None,
    };
    if is_first {
        let prefix = before.get(..shared).ok_or_else(misshapen)?;
        into.push_joined(table, prefix, suffix, body);
    } else {
        into.push_like_last(table, shared, suffix, body);
    }
    Ok(())
}

pub(crate) fn misshapen() -> Error {
    Error::corrupt("stored rows of a series do not have their shape; restore from a backup")
}
