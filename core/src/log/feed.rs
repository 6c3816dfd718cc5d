//! The feed: every commit that changes content, in the order of positions, for those who follow a store
//! from elsewhere. Blocks alone do not tell of series. It is kept only while somebody is registered to
//! read it, from the first commit that they have not taken yet.
//!
//! A commit is one or more rows of the table `feed`, stored in its own transaction: what the block
//! does not have, which is rows of series and ranges that were removed. The body of the rows, put
//! together:
//!
//! ```text
//! 1 | count of ranges | (table u8 | from | 0 or 1, to)* | count of rows | (table u8 | key | 0 or 1, body)*
//! ```
//! Counts and lengths are varints; keys and bodies have their length before them.

use bytes::{BufMut, Bytes, BytesMut};

use super::block::{ChangeKind, EncodedBlock, RowChange, Serial};
use crate::backend::{Backend, Commit, KeyRange, Scan};
use crate::domain::{CommitId, ConsumerName, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;
use crate::schema::{MAX_BODY, Record, RowKey, Table, put_varint, take, take_length, take_varint};

const VERSION: u8 = 1;
/// A row of the feed has no longer body; a commit takes as many rows as it needs.
const MAX_PART: usize = MAX_BODY / 2;

/// A commit that changed content, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The position after it.
    pub position: Position,
    /// Its id; that of the block where it has one.
    pub commit: CommitId,
    /// The serial after it.
    pub serial: Serial,
    /// What it changed of the state, and its audit entries.
    pub block: Option<EncodedBlock>,
    /// Ranges of series rows that it removed, before it wrote `rows`.
    pub prune: Vec<KeyRange>,
    /// Rows of series that it wrote, with how far the writers of the batches are.
    pub rows: Vec<RowChange>,
}

impl LogEntry {
    /// About as many bytes as it takes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let row =
            |row: &RowChange| row.key.as_bytes().len() + row.body.as_ref().map_or(0, Bytes::len);
        let block = self.block.as_ref().map_or(0, |block| block.bytes.len());
        (block + self.rows.iter().map(row).sum::<usize>()) as u64
    }
}

/// A registered reader of the log: a mirror, a follower, a backup. Blocks and entries after its position
/// are kept for it, up to a limit of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name, which is unique.
    pub name: ConsumerName,
    /// The last commit that it has taken.
    pub position: Position,
    /// The serial at that position.
    pub serial: Serial,
    /// The bytes of all entries up to that position, by the store's own count.
    pub(crate) total: u64,
    /// How many bytes of blocks and entries are kept for it at most.
    pub max_bytes: u64,
    /// It fell behind by more than `max_bytes`, and nothing is kept for it any longer: it has to copy
    /// the store anew, and to register again.
    pub resync: bool,
    /// When it was registered.
    pub registered_at: Timestamp,
}

/// One row of the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedRow {
    pub(crate) position: Position,
    pub(crate) part: u32,
    pub(crate) commit: CommitId,
    /// The serial after the commit.
    pub(crate) serial: Serial,
    pub(crate) has_block: bool,
    /// How many rows the commit has.
    pub(crate) parts: u32,
    /// The bytes of all entries up to and including this one.
    pub(crate) total: u64,
    pub(crate) body: Bytes,
}

/// The key that is before those of every row of a commit.
pub(crate) fn key_of(position: Position) -> RowKey {
    RowKey::new().integer(i64::try_from(position.get()).unwrap_or(i64::MAX))
}

/// All rows of the feed up to and including a position.
pub(crate) fn up_to(position: Position) -> KeyRange {
    KeyRange { table: Table::Feed, from: RowKey::new(), to: Some(key_of(position.next())) }
}

/// The body of a commit's rows in the feed.
pub(crate) fn encode(prune: &[KeyRange], rows: &[RowChange]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(64);
    bytes.put_u8(VERSION);
    put_varint(&mut bytes, prune.len() as u64);
    for range in prune {
        bytes.put_u8(range.table.number());
        put_bytes(&mut bytes, range.from.as_bytes());
        put_optional(&mut bytes, range.to.as_ref().map(RowKey::as_bytes));
    }
    put_varint(&mut bytes, rows.len() as u64);
    for row in rows {
        bytes.put_u8(row.table.number());
        put_bytes(&mut bytes, row.key.as_bytes());
        put_optional(&mut bytes, row.body.as_deref());
    }
    bytes.freeze()
}

fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    put_varint(to, bytes.len() as u64);
    to.put_slice(bytes);
}

fn put_optional(to: &mut BytesMut, bytes: Option<&[u8]>) {
    to.put_u8(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(to, bytes);
    }
}

/// The ranges and the rows that the body of an entry tells of, by the format above.
///
/// # Errors
/// `Corrupt`.
pub fn decode(body: &[u8]) -> Result<(Vec<KeyRange>, Vec<RowChange>)> {
    let mut rest = body;
    if number(&mut rest)? != VERSION {
        return Err(Error::corrupt("an entry of the feed has an unknown format"));
    }
    let mut prune = Vec::new();
    for _ in 0..take_varint(&mut rest)? {
        let table = Table::from_number(number(&mut rest)?)?;
        let from = RowKey::from_bytes(bytes(&mut rest)?)?;
        let to = optional(&mut rest)?.map(RowKey::from_bytes).transpose()?;
        prune.push(KeyRange { table, from, to });
    }
    let mut rows = Vec::new();
    for _ in 0..take_varint(&mut rest)? {
        let table = Table::from_number(number(&mut rest)?)?;
        let key = RowKey::from_bytes(bytes(&mut rest)?)?;
        let body = optional(&mut rest)?.map(Bytes::copy_from_slice);
        let kind = if body.is_some() { ChangeKind::Updated } else { ChangeKind::Deleted };
        rows.push(RowChange { table, kind, key, body });
    }
    match rest {
        [] => Ok((prune, rows)),
        _ => Err(Error::corrupt("an entry of the feed is longer than it says")),
    }
}

fn number(rest: &mut &[u8]) -> Result<u8> {
    let cut_short = || Error::corrupt("an entry of the feed is cut short");
    take(rest, 1)?.first().copied().ok_or_else(cut_short)
}

fn bytes<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8]> {
    let length = take_length(rest)?;
    take(rest, length)
}

fn optional<'b>(rest: &mut &'b [u8]) -> Result<Option<&'b [u8]>> {
    match number(rest)? {
        0 => Ok(None),
        1 => bytes(rest).map(Some),
        flag => Err(Error::corrupt("an entry of the feed is damaged").with("flag", flag)),
    }
}

/// The rows of a commit; `row` says all but the parts and the body.
pub(crate) fn rows_of(row: &FeedRow, body: &Bytes) -> Vec<RowChange> {
    let parts = body.len().div_ceil(MAX_PART).max(1);
    let part = |number: usize| {
        let (from, to) = (number * MAX_PART, ((number + 1) * MAX_PART).min(body.len()));
        let row = FeedRow {
            part: u32::try_from(number).unwrap_or(u32::MAX),
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
            body: body.slice(from..to),
            ..row.clone()
        };
        RowChange::put(ChangeKind::Created, &row)
    };
    (0..parts).map(part).collect()
}

/// The row of a commit in the feed, without its body's further parts.
pub(crate) async fn row_at(backend: &dyn Backend, position: Position) -> Result<Option<FeedRow>> {
    let range =
        KeyRange { table: Table::Feed, from: key_of(position), to: Some(key_of(position.next())) };
    let page = backend.scan(Scan { range, reverse: false, limit: 1 }).await?;
    page.rows.first().map(|row| FeedRow::decode(&row.key, &row.body)).transpose()
}

/// The first row of the feed, or from the other end the last.
pub(crate) async fn end_row(backend: &dyn Backend, reverse: bool) -> Result<Option<FeedRow>> {
    let range = KeyRange::all(Table::Feed);
    let page = backend.scan(Scan { range, reverse, limit: 1 }).await?;
    page.rows.first().map(|row| FeedRow::decode(&row.key, &row.body)).transpose()
}

/// At most `limit` commits after a position, up to and including `last`, in order.
///
/// # Errors
/// `Compacted` if the first of them is not kept.
pub(crate) async fn read(
    backend: &dyn Backend,
    after: Position,
    last: Position,
    limit: usize,
) -> Result<Vec<LogEntry>> {
    read_bytes(backend, after, last, (limit, u64::MAX)).await
}

/// The same, and no further commit once these have that many bytes.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_bytes(
    backend: &dyn Backend,
    after: Position,
    last: Position,
    (limit, max_bytes): (usize, u64),
) -> Result<Vec<LogEntry>> {
    let (mut entries, mut bytes): (Vec<LogEntry>, u64) = (Vec::new(), 0);
    let (mut next, mut parts) = (after.next(), Vec::new());
    let mut from = key_of(next);
    while next <= last && entries.len() < limit {
        // A row may have 4 MiB.
        const ROWS_PER_READ: usize = 16;
        let to = Some(key_of(last.next()));
        let range = KeyRange { table: Table::Feed, from, to };
        let page = backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await?;
        let Some(end) = page.rows.last() else { break };
        from = end.key.clone().successor();
        for row in &page.rows {
            let row = FeedRow::decode(&row.key, &row.body)?;
            if row.position != next {
                // Pages are of different moments: what comes next may have been let go meanwhile. If
                // it was lost, the next call says so.
                if !entries.is_empty() {
                    return Ok(entries);
                }
                return Err(missing(next, row.position));
            }
            parts.push(row);
            let complete = parts.first().is_some_and(|row| parts.len() == row.parts as usize);
            if complete {
                let entry = entry_of(backend, &std::mem::take(&mut parts)).await?;
                bytes = bytes.saturating_add(entry.bytes());
                entries.push(entry);
                next = next.next();
                if bytes >= max_bytes {
                    return Ok(entries);
                }
                if entries.len() == limit {
                    break;
                }
            }
        }
    }
    if entries.is_empty() && next <= last && limit > 0 {
        return Err(missing(next, last.next()));
    }
    Ok(entries)
}

fn missing(wanted: Position, found: Position) -> Error {
    Error::new(
        ErrorKind::Compacted { oldest: found.get() },
        "the commits after this position are not kept: nobody was registered then, or fell too far \
         behind; copy the store anew and register again",
    )
    .with("position", wanted)
    .with("found", found)
}

async fn entry_of(backend: &dyn Backend, parts: &[FeedRow]) -> Result<LogEntry> {
    let first = parts.first().ok_or_else(damaged)?;
    let mut block = None;
    if first.has_block {
        let before = Serial::new(first.serial.get().saturating_sub(1));
        block = backend.blocks(before, 1).await?.pop();
    }
    put_together(parts, block)
}

/// The entry that a commit brings for those who follow; `None` if it changes no content.
///
/// # Errors
/// `Unavailable` if it brings none, since nobody is registered or everybody is too far behind.
pub(crate) fn entry_in(commit: &Commit) -> Result<Option<LogEntry>> {
    if commit.id().is_none() {
        return Ok(None);
    }
    let rows = commit.rows.iter().filter(|row| row.table == Table::Feed);
    let parts =
        rows.filter_map(|row| row.body.as_ref().map(|body| FeedRow::decode(&row.key, body)));
    let parts: Vec<FeedRow> = parts.collect::<Result<_>>()?;
    if parts.is_empty() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "a commit tells nothing to the other side of the migration, which is registered no longer or fell \
             too far behind",
        )
        .with("position", commit.expected.next()));
    }
    put_together(&parts, commit.block.clone()).map(Some)
}

/// The rows of the feed that tell of an entry which was taken from elsewhere.
pub(crate) fn rows_for(entry: &LogEntry) -> Vec<RowChange> {
    let LogEntry { position, commit, serial, ref block, .. } = *entry;
    let row = FeedRow {
        position,
        part: 0,
        commit,
        serial,
        has_block: block.is_some(),
        parts: 1,
        total: 0,
        body: Bytes::new(),
    };
    rows_of(&row, &encode(&entry.prune, &entry.rows))
}

fn damaged() -> Error {
    Error::corrupt("an entry of the feed is damaged")
}

fn put_together(parts: &[FeedRow], block: Option<EncodedBlock>) -> Result<LogEntry> {
    let first = parts.first().ok_or_else(damaged)?;
    let mut body = BytesMut::new();
    for (number, part) in parts.iter().enumerate() {
        if part.part as usize != number || part.commit != first.commit {
            return Err(damaged().with("position", first.position));
        }
        body.extend_from_slice(&part.body);
    }
    let (prune, rows) = decode(&body).map_err(|error| error.with("position", first.position))?;
    let fits = block.as_ref().is_some_and(|block| {
        (block.serial, block.id.as_bytes()) == (first.serial, first.commit.as_bytes())
    });
    if first.has_block && !fits {
        return Err(damaged().with("position", first.position).with("serial", first.serial));
    }
    let FeedRow { position, commit, serial, .. } = *first;
    Ok(LogEntry { position, commit, serial, block, prune, rows })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = RowKey> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|key| RowKey::from_bytes(&key).unwrap())
    }

    fn table() -> impl Strategy<Value = Table> {
        prop::sample::select(Table::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            prune in prop::collection::vec((table(), key(), prop::option::of(key())), 0..4),
            rows in prop::collection::vec(
                (table(), key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..99))), 0..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let range = |(table, from, to)| KeyRange { table, from, to };
            let prune: Vec<_> = prune.into_iter().map(range).collect();
            let rows: Vec<_> = rows
                .into_iter()
                .map(|(table, key, body)| {
                    let body = body.map(Bytes::from);
                    let kind =
                        if body.is_some() { ChangeKind::Updated } else { ChangeKind::Deleted };
                    RowChange { table, kind, key, body }
                })
                .collect();
            let bytes = encode(&prune, &rows);
            prop_assert_eq!(decode(&bytes).unwrap(), (prune, rows));
            let cut = bytes.slice(..cut.index(bytes.len()));
            prop_assert!(decode(&cut).is_err());
        }
    }
}
