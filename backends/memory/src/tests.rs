#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::block::{BlockBuilder, BlockHash, ChangeKind, RowChange};
use ghostwire_store_core::domain::{BlockId, CommitId, Timestamp};
use ghostwire_store_core::schema::{RowKey, Table};

use super::*;

fn memory() -> MemoryBackend {
    MemoryBackend::new(StoreId::from_bytes([7; 16]))
}

fn key(number: u8) -> RowKey {
    RowKey::from_bytes(&[number]).unwrap()
}

fn put(table: Table, number: u8, body: &'static [u8]) -> RowChange {
    RowChange {
        table,
        kind: ChangeKind::Updated,
        key: key(number),
        body: Some(Bytes::from_static(body)),
    }
}

fn delete(table: Table, number: u8) -> RowChange {
    RowChange { table, kind: ChangeKind::Deleted, key: key(number), body: None }
}

fn block_after(head: &Head) -> EncodedBlock {
    let serial = head.serial.next();
    let id = BlockId::from_bytes([u8::try_from(serial.get()).unwrap(); 16]);
    let time = Timestamp::from_micros(1_000).unwrap();
    BlockBuilder::default().finish(serial, id, head.hash, time).unwrap().block
}

async fn commit_block(memory: &MemoryBackend, rows: Vec<RowChange>) -> EncodedBlock {
    let head = memory.head().await.unwrap();
    let block = block_after(&head);
    let commit = Commit { block: Some(block.clone()), rows, ..Commit::on(&head) };
    memory.commit(&commit).await.unwrap();
    block
}

async fn keys(memory: &MemoryBackend, scan: Scan) -> Vec<u8> {
    memory.scan(scan).await.unwrap().rows.iter().map(|row| row.key.as_bytes()[0]).collect()
}

fn all(table: Table) -> Scan {
    Scan { range: KeyRange::all(table), reverse: false, limit: 100 }
}

#[tokio::test]
async fn another_handle_sees_what_one_stored() {
    let memory = memory();
    let block =
        commit_block(&memory, vec![put(Table::Users, 2, b"b"), put(Table::Users, 1, b"a")]).await;
    memory.close().await.unwrap();
    assert_eq!(*memory.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let other = memory.clone();
    drop(memory);
    let head = other.head().await.unwrap();
    assert_eq!((head.serial, head.block, head.hash), (block.serial, block.id, block.hash));
    assert_eq!(head.oldest_block, Serial::new(1));
    assert_eq!(keys(&other, all(Table::Users)).await, [1, 2]);
    assert_eq!(other.blocks(Serial::ZERO, 9).await.unwrap(), [block]);
    other.verify().await.unwrap();
}

#[tokio::test]
async fn a_refused_commit_changes_nothing() {
    let memory = memory();
    commit_block(&memory, vec![]).await;
    let head = memory.head().await.unwrap();
    let rows = vec![put(Table::Users, 1, b"a")];
    let stale = Commit { rows: rows.clone(), ..Commit::default() };
    assert_eq!(*memory.commit(&stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    let mut foreign = block_after(&head);
    foreign.previous = BlockHash::GENESIS;
    let bad = [
        Commit { block: Some(foreign), ..Commit::default() },
        Commit { checkpoint: Some(Serial::new(2)), ..Commit::default() },
    ];
    for commit in bad {
        let commit = Commit { expected: head.position, rows: rows.clone(), ..commit };
        assert_eq!(*memory.commit(&commit).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(memory.head().await.unwrap(), head);
    assert!(keys(&memory, all(Table::Users)).await.is_empty());
    assert_eq!(memory.info().counters.failed_commits, 3);
}

#[tokio::test]
async fn scans_are_bounded_and_ordered_and_prunes_come_first() {
    let memory = memory();
    let rows = (0..10).map(|number| put(Table::Metrics, number, b"m")).collect();
    memory.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
    let range = KeyRange { table: Table::Metrics, from: key(3), to: Some(key(7)) };
    let scan = Scan { range: range.clone(), reverse: false, limit: 3 };
    assert_eq!(keys(&memory, scan.clone()).await, [3, 4, 5]);
    assert_eq!(keys(&memory, Scan { reverse: true, ..scan }).await, [6, 5, 4]);
    let inverted = KeyRange { table: Table::Metrics, from: key(7), to: Some(key(3)) };
    let empty = Scan { range: inverted.clone(), reverse: false, limit: 3 };
    assert!(keys(&memory, empty).await.is_empty());
    let commit = Commit {
        prune: vec![range, inverted],
        rows: vec![
            put(Table::Metrics, 5, b"x"),
            delete(Table::Metrics, 9),
            delete(Table::Metrics, 8),
            put(Table::Metrics, 8, b"y"),
            delete(Table::Metrics, 99),
        ],
        ..Commit::default()
    };
    memory.commit(&commit).await.unwrap();
    assert_eq!(keys(&memory, all(Table::Metrics)).await, [0, 1, 2, 5, 7, 8]);
}

#[tokio::test]
async fn only_flushed_blocks_are_purged() {
    let memory = memory();
    for _ in 0..5 {
        commit_block(&memory, vec![]).await;
    }
    let commit = Commit {
        checkpoint: Some(Serial::new(3)),
        purge_before: Some(Serial::new(100)),
        ..Commit::on(&memory.head().await.unwrap())
    };
    memory.commit(&commit).await.unwrap();
    let head = memory.head().await.unwrap();
    assert_eq!((head.checkpoint.get(), head.oldest_block.get()), (3, 4));
    let error = memory.blocks(Serial::new(2), 9).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Compacted { oldest: 4 });
    let blocks = memory.blocks(Serial::new(4), 9).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.serial.get()).collect::<Vec<_>>(), [5]);
    assert!(memory.blocks(Serial::new(5), 9).await.unwrap().is_empty());
    memory.verify().await.unwrap();
}

#[tokio::test]
async fn an_old_schema_is_carried_forward_once() {
    let memory = MemoryBackend::at_schema(StoreId::from_bytes([1; 16]), Schema::at(1).unwrap());
    assert_eq!(memory.head().await.unwrap().schema.version, 1);
    memory.migrate(Schema::current()).await.unwrap();
    memory.migrate(Schema::current()).await.unwrap();
    assert_eq!(memory.head().await.unwrap().schema, Schema::current().version());
}

#[tokio::test]
async fn a_page_says_when_it_was_read() {
    let memory = memory();
    commit_block(&memory, vec![put(Table::Users, 1, b"a")]).await;
    let head = memory.head().await.unwrap();
    let entry = Some(CommitId::from_bytes([3; 16]));
    let rows = vec![put(Table::Metrics, 1, b"m")];
    memory.commit(&Commit { entry, rows, ..Commit::on(&head) }).await.unwrap();
    for table in [Table::Users, Table::Metrics, Table::Nodes] {
        let page = memory.scan(all(table)).await.unwrap();
        assert_eq!((page.position.get(), page.serial.get()), (2, 1));
    }
    // Whoever did not see the entry is too late.
    let stale = Commit::on(&head);
    assert_eq!(*memory.commit(&stale).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn only_an_empty_store_adopts_a_head() {
    let source = memory();
    commit_block(&source, vec![]).await;
    let head = source.head().await.unwrap();
    let copy = MemoryBackend::new(StoreId::from_bytes([9; 16]));
    let side = copy.head().await.unwrap().side;
    copy.adopt(&head).await.unwrap();
    let adopted = copy.head().await.unwrap();
    assert_eq!((adopted.position, adopted.hash, adopted.side), (head.position, head.hash, side));
    assert!(adopted.filling);
    commit_block(&copy, vec![]).await;
    copy.verify().await.unwrap();
    let flushed = memory();
    let rows = vec![put(Table::Users, 1, b"a")];
    flushed.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
    for refused in [copy, flushed, source] {
        let before = refused.head().await.unwrap();
        let error = refused.adopt(&head).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Restricted);
        assert_eq!(refused.head().await.unwrap(), before);
    }
}
