//! Positions, epochs, and the head that has them.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::sync::Arc;

use crate::common::*;
use ghostwire_store_core::backend::{
    Backend, Commit, Head, HeadChange, KeyChange, KeyRange, RecordChange, Scan,
};
use ghostwire_store_core::block::RowChange;
use ghostwire_store_core::domain::{CommitId, LineageId, MigrationId, SideId, StoreId};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::migration::{Membership, Part, Record, Role};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::{RowKey, Schema, Table};
use ghostwire_store_core::secrets::KeyCheck;
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

fn entry(head: &Head, number: u8, rows: Vec<RowChange>) -> Commit {
    Commit { entry: Some(CommitId::from_bytes([number; 16])), rows, ..Commit::on(head) }
}

/// One that changes all of the head that a commit may.
fn change(head: &Head) -> Commit {
    let change = HeadChange {
        epoch: Some(Epoch::new(3)),
        lineage: Some(LineageId::from_bytes([5; 16])),
        credential_key: Some(KeyChange {
            before: head.credential_key,
            after: KeyCheck::from_bytes([6; 16]),
        }),
        filled: true,
        record: Some(RecordChange {
            before: head.record(),
            after: Record {
                epoch: Epoch::new(3),
                role: Role::ActiveAsync,
                membership: Some(Membership {
                    migration: MigrationId::from_bytes([8; 16]),
                    peer: SideId::from_bytes([9; 16]),
                    part: Part::Source,
                }),
            },
        }),
    };
    Commit { head: change, ..Commit::on(head) }
}

#[tokio::test]
async fn the_whole_head_is_stored() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    let mut head = backend.head().await.unwrap();
    for commit in [entry, |head: &Head, _, _| change(head)] {
        let commit = commit(&head, 1, vec![put(Table::Metrics, 1, "m")]);
        backend.commit(&commit).await.unwrap();
        head = head.after(&commit).unwrap();
    }
    assert_eq!((head.position.get(), head.serial.get(), head.epoch.get()), (2, 1, 3));
    assert_eq!(backend.head().await.unwrap(), head);
    assert_eq!(backend.reopen().await.unwrap(), head);
    backend.close().await.unwrap();
    let backend = open(&path).await;
    assert_eq!(backend.head().await.unwrap(), head);
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn a_commit_is_guarded_by_position_and_epoch() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    let genesis = backend.head().await.unwrap();
    let first = entry(&genesis, 1, vec![put(Table::Metrics, 1, "m")]);
    backend.commit(&first).await.unwrap();
    let head = genesis.after(&first).unwrap();
    let stale = entry(&genesis, 2, vec![put(Table::Metrics, 2, "m")]);
    assert_eq!(*backend.commit(&stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    let flush = Commit { rows: vec![put(Table::Users, 1, "a")], ..Commit::on(&head) };
    backend.commit(&flush).await.unwrap();
    assert_eq!(backend.head().await.unwrap(), head);
    backend.commit(&change(&head)).await.unwrap();
    let fenced = entry(&head, 3, vec![put(Table::Metrics, 3, "m")]);
    let error = backend.commit(&fenced).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Fenced { epoch: 3 });
    assert_eq!(read(&backend).await.unwrap().rows.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_and_its_position_are_of_one_moment() {
    let (_directory, path) = directory();
    let backend = Arc::new(open(&path).await);
    let readers = [Table::Metrics, Table::Users].map(|table| {
        let backend = backend.clone();
        tokio::spawn(async move {
            let mut last = 0;
            while last < 150 {
                let page = backend.scan(all(table)).await.unwrap();
                assert_eq!((page.rows.len() as u64, page.serial.get()), (page.position.get(), 0));
                assert!(page.position.get() >= last);
                last = page.position.get();
            }
        })
    });
    let mut head = backend.head().await.unwrap();
    for number in 0..150u8 {
        let row = |table| put(table, number.into(), "x");
        let commit = entry(&head, number, vec![row(Table::Metrics), row(Table::Users)]);
        backend.commit(&commit).await.unwrap();
        head = head.after(&commit).unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let nothing = KeyRange { to: Some(RowKey::new()), ..KeyRange::all(Table::Users) };
    for scan in [
        Scan { range: nothing, reverse: false, limit: 9 },
        Scan { limit: 0, ..all(Table::Users) },
        Scan { limit: 0, ..all(Table::Metrics) },
    ] {
        let page = backend.scan(scan).await.unwrap();
        assert_eq!((page.rows.len(), page.position), (0, head.position));
    }
}

#[tokio::test]
async fn only_an_empty_store_adopts_a_head() {
    let (_directory, path) = directory();
    let source = open(&path).await;
    commit_block(&source, vec![put(Table::Users, 1, "a")]).await;
    let head = source.head().await.unwrap();
    let copy = path.with_file_name("copy.db");
    let options = || ZqliteOptions::new(&copy, StoreId::from_bytes([1; 16])).create(true);
    let backend = ZqliteBackend::open(options()).await.unwrap();
    let side = backend.head().await.unwrap().side;
    backend.adopt(&head).await.unwrap();
    let adopted = backend.head().await.unwrap();
    assert_eq!((adopted.store, adopted.side, adopted.filling), (head.store, side, true));
    assert_eq!((adopted.position, adopted.hash), (head.position, head.hash));
    assert_eq!(backend.reopen().await.unwrap(), adopted);
    let rows = vec![put(Table::Users, 2, "b"), put(Table::Metrics, 2, "m")];
    commit_block(&backend, rows).await;
    let before = read(&backend).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    // The path is this database's, whatever it holds.
    let lock = fs::read_to_string(path.with_file_name("copy.db.lock")).unwrap();
    assert!(lock.ends_with(&format!("\nstore {side}\n")), "{lock}");
    let reader = ZqliteBackend::open(options().read_only(true)).await.unwrap();
    assert_eq!(*reader.adopt(&head).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    reader.close().await.unwrap();
    let backend = ZqliteBackend::open(options()).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    let flushed = async |table: Table| {
        let flushed = open(&path.with_file_name(table.name())).await;
        let rows = vec![put(table, 1, "a")];
        flushed.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
        flushed
    };
    let (users, metrics) = (flushed(Table::Users).await, flushed(Table::Metrics).await);
    for refused in [backend, users, metrics, source] {
        let before = read(&refused).await.unwrap();
        assert_eq!(*refused.adopt(&head).await.unwrap_err().kind(), ErrorKind::Restricted);
        assert_eq!(read(&refused).await.unwrap(), before);
    }
}

#[tokio::test]
async fn a_file_of_an_older_schema_is_read_as_it_is_until_it_is_migrated() {
    for version in [1, 2] {
        let (_directory, path) = directory();
        let schema = Schema::at(version).unwrap();
        let backend = ZqliteBackend::open(options(&path).schema(schema)).await.unwrap();
        let rows = vec![put(Table::Users, 1, "a"), put(Table::Metrics, 1, "m")];
        commit_block(&backend, rows).await;
        let head = backend.head().await.unwrap();
        // Commits without a block are not counted yet.
        let commit = entry(&head, 1, vec![put(Table::Metrics, 2, "m")]);
        backend.commit(&commit).await.unwrap();
        assert_eq!(backend.head().await.unwrap(), head);
        let misplaced = entry(&head, 2, vec![put(Table::Feed, 2, "m")]);
        for error in [
            backend.commit(&misplaced).await.unwrap_err(),
            backend.commit(&change(&head)).await.unwrap_err(),
            backend.adopt(&head).await.unwrap_err(),
        ] {
            assert!(matches!(error.kind(), ErrorKind::SchemaMismatch { .. }), "{error}");
        }
        let before = read(&backend).await.unwrap();
        backend.close().await.unwrap();
        let content = fs::read(&path).unwrap();
        let reader = ZqliteBackend::open(options(&path).read_only(true)).await.unwrap();
        assert_eq!(read(&reader).await.unwrap(), before);
        reader.verify().await.unwrap();
        reader.close().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        let backend = open(&path).await;
        backend.migrate(Schema::current()).await.unwrap();
        let after = read(&backend).await.unwrap();
        let head = Head { schema: Schema::current().version(), ..before.head };
        assert_eq!((after.head, &after.rows), (head, &before.rows));
        backend.commit(&Commit { expected: head.position, ..commit }).await.unwrap();
        assert_eq!(backend.head().await.unwrap().position.get(), 2);
        backend.verify().await.unwrap();
    }
}
