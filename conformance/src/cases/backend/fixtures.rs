//! Commits made by hand, and what can be read after them.

use std::fmt;

use bytes::Bytes;
use ghostwire_store_core::schema::{Column, ColumnKind, KeyKind, Value, encode_values};

pub(super) use crate::prelude::*;

/// Where a new store of [`TestEnv::opening`](crate::test_env::TestEnv::opening) stands.
pub(super) fn genesis() -> Head {
    Head::genesis(StoreId::from_bytes([7; 16]), Schema::current())
}

pub(super) fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// When the block of this serial was made: not a whole number of milliseconds.
pub(super) fn time_of(serial: Serial) -> Timestamp {
    let number = i64::try_from(serial.get().min(1_000)).unwrap();
    at(1_700_000_000_000_001 + number * 1_001)
}

/// A row's key; they sort like their numbers.
pub(super) fn key(table: Table, number: u32) -> RowKey {
    Schema::current().key(table).iter().fold(RowKey::new(), |key, column| match column.kind {
        KeyKind::Id | KeyKind::OptionalId => {
            let mut id = [0x11; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            key.id(&id)
        }
        KeyKind::Integer => key.integer(number.into()),
        KeyKind::Text => key.text(&format!("k{number:010}")),
    })
}

/// A body with this mark in every column: equal marks give equal bodies, others do not.
pub(super) fn body(table: Table, mark: u32) -> Bytes {
    let (text, document) = (format!("mark {mark}"), format!("\"mark {mark}\""));
    let mut id = [0x22; 32];
    id[..4].copy_from_slice(&mark.to_be_bytes());
    body_of(table, |column| match column.kind {
        ColumnKind::Bool => Value::Integer(i64::from(mark % 2)),
        ColumnKind::Integer | ColumnKind::Time => Value::Integer(mark.into()),
        ColumnKind::Real => Value::Real(f64::from(mark) + 0.1),
        ColumnKind::Text => Value::Text(&text),
        ColumnKind::Json => Value::Text(&document),
        ColumnKind::Id => Value::Bytes(&id[..16]),
        ColumnKind::Key(_) => Value::Bytes(&id),
        ColumnKind::Bytes => Value::Bytes(text.as_bytes()),
    })
}

/// A body of today's schema, column by column.
pub(super) fn body_of<'v>(table: Table, value: impl FnMut(&'static Column) -> Value<'v>) -> Bytes {
    let schema = Schema::current();
    encode_values(schema.version().version, schema.columns(table).map(value))
}

pub(super) fn image(table: Table, key: RowKey, body: Bytes) -> RowChange {
    RowChange { table, kind: ChangeKind::Updated, key, body: Some(body) }
}

pub(super) fn put(table: Table, number: u32, mark: u32) -> RowChange {
    image(table, key(table, number), body(table, mark))
}

pub(super) fn delete(table: Table, number: u32) -> RowChange {
    RowChange { table, kind: ChangeKind::Deleted, key: key(table, number), body: None }
}

pub(super) fn range(table: Table, from: u32, to: Option<u32>) -> KeyRange {
    KeyRange { table, from: key(table, from), to: to.map(|to| key(table, to)) }
}

/// The block behind `head` with this id.
pub(super) fn block_after(head: &Head, id: u8) -> EncodedBlock {
    block_of(head, id, 100)
}

/// The block behind `head` with this id, a little longer than `length` bytes.
pub(super) fn block_of(head: &Head, id: u8, length: usize) -> EncodedBlock {
    let mut builder = BlockBuilder::default();
    let mut left = length;
    let mut version = PolicyVersion::FIRST;
    while left > 0 {
        let part = left.min(DocumentText::MAX_BYTES);
        let document = DocumentText::new("d".repeat(part)).unwrap();
        let policy = Policy {
            version,
            document,
            author: ActorName::system(),
            created_at: at(i64::from(id)),
        };
        builder.put(ChangeKind::Created, &policy);
        version = PolicyVersion::new(version.get() + 1).unwrap();
        left -= part;
    }
    let serial = head.serial.next();
    let id = BlockId::from_bytes([id; 16]);
    builder.finish(serial, id, head.hash, time_of(serial)).unwrap().block
}

/// A commit of a block and rows on what is stored now.
pub(super) async fn commit_block(backend: &OpenedBackend, rows: Vec<RowChange>) -> EncodedBlock {
    let head = backend.head().await.unwrap();
    let block = block_after(&head, u8::try_from(head.serial.get() % 200).unwrap() + 1);
    let commit = Commit { block: Some(block.clone()), rows, ..Commit::on(&head) };
    backend.commit(&commit).await.unwrap();
    block
}

/// Commits this many blocks without rows.
pub(super) async fn commit_blocks(backend: &OpenedBackend, count: usize) -> Vec<EncodedBlock> {
    let mut blocks = Vec::new();
    for _ in 0..count {
        blocks.push(commit_block(backend, vec![]).await);
    }
    blocks
}

/// Commits `commit` on what is stored now.
pub(super) async fn commit_next(backend: &OpenedBackend, commit: Commit) -> Result<()> {
    let Commit { expected, epoch, .. } = Commit::on(&backend.head().await.unwrap());
    backend.commit(&Commit { expected, epoch, ..commit }).await
}

/// Commits rows without a block, which has to work.
pub(super) async fn commit_rows(backend: &OpenedBackend, rows: Vec<RowChange>) {
    commit_next(backend, Commit { rows, ..Commit::default() }).await.unwrap();
}

pub(super) fn everything(table: Table) -> Scan {
    Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX }
}

pub(super) async fn rows_of(backend: &OpenedBackend, table: Table) -> Vec<Row> {
    backend.scan(everything(table)).await.unwrap().rows
}

/// The rows of a table as the numbers and marks that [`put`] made them of.
pub(super) async fn marks_of(backend: &OpenedBackend, table: Table) -> Vec<(u32, u32)> {
    let rows = rows_of(backend, table).await;
    let number = |row: &Row| (0..10_000).find(|&number| key(table, number) == row.key);
    let mark = |row: &Row| (0..10_000).find(|&mark| body(table, mark) == row.body);
    rows.iter()
        .map(|row| (number(row).expect("a key that was stored"), mark(row).expect("a whole body")))
        .collect()
}

/// Everything that can be read of a backend.
#[derive(PartialEq)]
pub(super) struct Content {
    pub(super) head: Head,
    pub(super) rows: BTreeMap<Table, Vec<Row>>,
    pub(super) blocks: Vec<EncodedBlock>,
}

impl Content {
    pub(super) async fn of(backend: &OpenedBackend) -> Self {
        let head = backend.head().await.unwrap();
        let mut rows = BTreeMap::new();
        for table in Schema::at(head.schema.version).unwrap().tables() {
            let found = rows_of(backend, table).await;
            if !found.is_empty() {
                rows.insert(table, found);
            }
        }
        let before_oldest = Serial::new(head.oldest_block.get() - 1);
        let blocks = backend.blocks(before_oldest, usize::MAX).await.unwrap();
        Self { head, rows, blocks }
    }
}

/// Bodies and blocks may be megabytes: their lengths are shown.
impl Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = |rows: &Vec<Row>| -> Vec<(RowKey, usize)> {
            rows.iter().map(|row| (row.key.clone(), row.body.len())).collect()
        };
        let rows: BTreeMap<_, _> =
            self.rows.iter().map(|(table, rows)| (table, lengths(rows))).collect();
        let blocks: Vec<_> =
            self.blocks.iter().map(|block| (block.serial, block.bytes.len())).collect();
        f.debug_struct("Content")
            .field("head", &self.head)
            .field("rows", &rows)
            .field("blocks", &blocks)
            .finish()
    }
}
