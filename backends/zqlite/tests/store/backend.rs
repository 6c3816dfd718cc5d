//! That the backend keeps its promises.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use crate::common::*;
use ghostwire_store_core::backend::{Backend, Commit, KeyRange, Scan};
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_zqlite::{EngineChoice, ZqliteBackend, ZqliteOptions};

async fn keys(backend: &ZqliteBackend, scan: Scan) -> Vec<u8> {
    let rows = backend.scan(scan).await.unwrap().rows;
    rows.iter().map(|row| *row.key.as_bytes().last().unwrap()).collect()
}

#[tokio::test]
async fn what_was_stored_is_there_after_reopening() {
    for (options, sealed) in BOTH.into_iter().zip([false, true]) {
        require_that_it_is_there_after_reopening(options, sealed).await;
    }
}

async fn require_that_it_is_there_after_reopening(
    options: fn(&Path) -> ZqliteOptions,
    sealed: bool,
) {
    let (_directory, path) = directory();
    let backend = ZqliteBackend::open(options(&path)).await.unwrap();
    let empty = backend.head().await.unwrap();
    assert_eq!((empty.serial, empty.oldest_block), (Serial::ZERO, Serial::new(1)));
    assert_eq!(empty.schema, Schema::current().version());
    commit_block(&backend, vec![put(Table::Users, 2, "b"), put(Table::Users, 1, "a")]).await;
    commit_block(
        &backend,
        vec![
            put(Table::Users, 1, "a2"),
            delete(Table::Users, 2),
            put(Table::Users, 3, "c"),
            put(Table::Metrics, 1, "m"),
            put(Table::Audit, 1, ""),
            delete(Table::Nodes, 77),
        ],
    )
    .await;
    let before = read(&backend).await.unwrap();
    assert_eq!(before.blocks.len(), 2);
    let bodies: Vec<_> = before.rows.iter().map(|(table, row)| (*table, &row.body[..])).collect();
    assert_eq!(
        bodies,
        [
            (Table::Users, &b"a2"[..]),
            (Table::Users, b"c"),
            (Table::Metrics, b"m"),
            (Table::Audit, b"")
        ]
    );
    assert_eq!(backend.reopen().await.unwrap(), before.head);
    assert_eq!(read(&backend).await.unwrap(), before);
    backend.verify().await.unwrap();
    let info = backend.info();
    assert!(info.durable && !info.shared && info.sealed == sealed && info.bytes.unwrap() > 10_000);
    assert_eq!((info.counters.commits, info.counters.blocks, info.counters.rows), (2, 2, 8));
    backend.close().await.unwrap();
    assert_eq!(*backend.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(*backend.reopen().await.unwrap_err().kind(), ErrorKind::Unavailable);
    let scan = backend.scan(all(Table::Users)).await.unwrap_err();
    assert_eq!(*scan.kind(), ErrorKind::Unavailable);
    // An existing store keeps its identity.
    let other = match sealed {
        false => ZqliteOptions::new(&path, StoreId::from_bytes([1; 16])),
        true => options(&path).create(false),
    };
    let backend = ZqliteBackend::open(other).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
}

#[tokio::test]
async fn a_refused_commit_changes_nothing() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    commit_block(&backend, vec![]).await;
    let before = read(&backend).await.unwrap();
    let head = before.head;
    let rows = vec![put(Table::Users, 1, "a")];
    let stale = Commit { rows: rows.clone(), ..Commit::default() };
    assert_eq!(*backend.commit(&stale).await.unwrap_err().kind(), ErrorKind::Conflict);
    let mut foreign = block_after(&head, 0);
    foreign.previous = BlockHash::GENESIS;
    for commit in [
        Commit { block: Some(foreign), ..Commit::default() },
        Commit { checkpoint: Some(Serial::new(2)), ..Commit::default() },
    ] {
        let commit = Commit { expected: head.position, rows: rows.clone(), ..commit };
        let error = backend.commit(&commit).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(read(&backend).await.unwrap(), before);
    assert_eq!(backend.info().counters.failed_commits, 3);
}

#[tokio::test]
async fn scans_are_bounded_and_ordered_and_prunes_come_first() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    for table in [Table::Metrics, Table::Nodes] {
        let rows = [7, 3, 9, 0, 1, 8, 2, 5, 4, 6].map(|number| put(table, number, "m")).to_vec();
        backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
        let range = KeyRange { table, from: key(3), to: Some(key(7)) };
        let scan = Scan { range: range.clone(), reverse: false, limit: 3 };
        assert_eq!(keys(&backend, scan.clone()).await, [3, 4, 5]);
        assert_eq!(keys(&backend, Scan { reverse: true, ..scan.clone() }).await, [6, 5, 4]);
        let open_end = KeyRange { to: None, ..range.clone() };
        let scan = Scan { range: open_end.clone(), ..scan };
        assert_eq!(keys(&backend, scan.clone()).await, [3, 4, 5]);
        assert_eq!(keys(&backend, Scan { reverse: true, ..scan }).await, [9, 8, 7]);
        let inverted = KeyRange { table, from: key(7), to: Some(key(3)) };
        let scan = Scan { range: inverted.clone(), reverse: false, limit: 3 };
        assert!(keys(&backend, scan).await.is_empty());
        let commit = Commit {
            prune: vec![range.clone(), range, inverted],
            rows: vec![
                put(table, 5, "x"),
                delete(table, 9),
                delete(table, 8),
                put(table, 8, "y"),
                put(table, 20, "z"),
                delete(table, 20),
                delete(table, 99),
                delete(table, 4),
            ],
            ..Commit::default()
        };
        backend.commit(&commit).await.unwrap();
        assert_eq!(keys(&backend, all(table)).await, [0, 1, 2, 5, 7, 8]);
        let before = read(&backend).await.unwrap();
        backend.reopen().await.unwrap();
        assert_eq!(read(&backend).await.unwrap(), before);
        let prune = vec![KeyRange { table, from: key(2), to: None }];
        backend.commit(&Commit { prune, ..Commit::default() }).await.unwrap();
        assert_eq!(keys(&backend, all(table)).await, [0, 1]);
    }
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn only_folded_blocks_are_purged() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    for _ in 0..5 {
        commit_block(&backend, vec![]).await;
    }
    let commit = Commit {
        checkpoint: Some(Serial::new(3)),
        purge_before: Some(Serial::new(100)),
        ..Commit::on(&backend.head().await.unwrap())
    };
    backend.commit(&commit).await.unwrap();
    let head = backend.head().await.unwrap();
    assert_eq!((head.checkpoint.get(), head.oldest_block.get()), (3, 4));
    let error = backend.blocks(Serial::new(2), 9).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Compacted { oldest: 4 });
    let blocks = backend.blocks(Serial::new(3), 1).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.serial.get()).collect::<Vec<_>>(), [4]);
    assert_eq!(backend.blocks(Serial::new(3), 9).await.unwrap().len(), 2);
    assert!(backend.blocks(Serial::new(5), 9).await.unwrap().is_empty());
    assert!(backend.blocks(Serial::new(3), 0).await.unwrap().is_empty());
    backend.verify().await.unwrap();
    // All of them may go; the next block follows all the same.
    let commit = Commit {
        checkpoint: Some(Serial::new(5)),
        purge_before: Some(Serial::new(6)),
        ..Commit::on(&backend.head().await.unwrap())
    };
    backend.commit(&commit).await.unwrap();
    assert_eq!(backend.head().await.unwrap().oldest_block.get(), 6);
    backend.verify().await.unwrap();
    backend.reopen().await.unwrap();
    commit_block(&backend, vec![]).await;
    assert_eq!(backend.blocks(Serial::new(5), 9).await.unwrap().len(), 1);
    backend.verify().await.unwrap();
    // Also the one that the commit itself brings.
    let head = backend.head().await.unwrap();
    let block = block_after(&head, 0);
    let (checkpoint, purge_before) = (Some(block.serial), Some(block.serial.next()));
    let commit = Commit { block: Some(block), checkpoint, purge_before, ..Commit::on(&head) };
    backend.commit(&commit).await.unwrap();
    backend.verify().await.unwrap();
    backend.reopen().await.unwrap();
    assert_eq!(backend.head().await.unwrap().oldest_block.get(), 8);
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn a_second_open_is_busy() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    let second = || ZqliteBackend::open(options(&path));
    assert_eq!(*second().await.unwrap_err().kind(), ErrorKind::Busy);
    backend.close().await.unwrap();
    let third = second().await.unwrap();
    drop(backend);
    assert_eq!(*second().await.unwrap_err().kind(), ErrorKind::Busy);
    drop(third);
    second().await.unwrap();
}

#[tokio::test]
async fn a_store_is_only_made_when_told_to() {
    let (_directory, path) = directory();
    let existing = options(&path).create(false);
    let error = ZqliteBackend::open(existing).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NotFound);
    let native = options(&path).engine(EngineChoice::Native);
    let error = ZqliteBackend::open(native).await.unwrap_err();
    // It needs a library, and the feature.
    let expected = match cfg!(feature = "native") {
        true => (ErrorKind::InvalidArgument, "zqlite.library"),
        false => (ErrorKind::Unsupported, "`embedded`"),
    };
    assert_eq!(*error.kind(), expected.0);
    assert!(error.to_string().contains(expected.1), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_store_that_is_read_only_refuses_to_change() {
    let (directory, path) = directory();
    let backend = ZqliteBackend::open(options(&path).schema(Schema::at(1).unwrap())).await.unwrap();
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    let before = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    let content = fs::read(&path).unwrap();
    let backend = ZqliteBackend::open(options(&path).read_only(true)).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    backend.verify().await.unwrap();
    let commit = Commit::on(&before.head);
    assert_eq!(*backend.commit(&commit).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    let migrated = backend.migrate(Schema::current()).await.unwrap_err();
    assert_eq!(*migrated.kind(), ErrorKind::ReadOnly);
    backend.close().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    let mut names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // Not every file system can keep room.
    names.retain(|name| name != "store.db.reserve");
    names.sort();
    assert_eq!(names, ["store.db", "store.db.lock"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_cannot_be_written_admits_readers_only() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = directory();
    let backend = open(&path).await;
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    let before = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    fs::remove_file(directory.path().join("store.db.lock")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    // Nothing binds the superuser.
    if fs::File::create(directory.path().join("probe")).is_err() {
        let error = ZqliteBackend::open(options(&path)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    }
    let backend = ZqliteBackend::open(options(&path).read_only(true)).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn a_migration_keeps_a_copy() {
    let (directory, path) = directory();
    let first = Schema::at(1).unwrap();
    let backend = ZqliteBackend::open(options(&path).schema(first)).await.unwrap();
    commit_block(&backend, vec![put(Table::DnsRecords, 1, "a")]).await;
    let before = read(&backend).await.unwrap();
    assert_eq!(before.head.schema.version, 1);
    backend.migrate(Schema::current()).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    let after = read(&backend).await.unwrap();
    assert_eq!(after.head.schema, Schema::current().version());
    assert_eq!((&after.rows, &after.blocks), (&before.rows, &before.blocks));
    assert_eq!(backend.reopen().await.unwrap(), after.head);
    commit_block(&backend, vec![put(Table::DnsRecords, 2, "b")]).await;
    backend.close().await.unwrap();
    let backup = directory.path().join("store.db.v1.bak");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(!directory.path().join("store.db.v1.bak.1").exists());
    let backup = ZqliteBackend::open(options(&backup)).await.unwrap();
    assert_eq!(read(&backup).await.unwrap(), before);
    backup.verify().await.unwrap();
}

#[tokio::test]
async fn what_was_committed_survives_a_kill() {
    let (directory, path) = directory();
    let backend = open(&path).await;
    for number in 0..20 {
        commit_block(
            &backend,
            vec![put(Table::Users, number, "u"), put(Table::Audit, number, "a")],
        )
        .await;
    }
    let before = read(&backend).await.unwrap();
    // A copy of the files as they are now is what a killed process leaves.
    let copy = directory.path().join("copy.db");
    for suffix in ["", "-wal"] {
        let from = directory.path().join(format!("store.db{suffix}"));
        fs::copy(from, directory.path().join(format!("copy.db{suffix}"))).unwrap();
    }
    assert!(fs::metadata(directory.path().join("copy.db-wal")).unwrap().len() > 100_000);
    let backend = ZqliteBackend::open(options(&copy).create(false)).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    backend.verify().await.unwrap();
    commit_block(&backend, vec![]).await;
    // Cut anywhere, the log yields a prefix of the commits.
    let log = fs::read(directory.path().join("store.db-wal")).unwrap();
    for part in 0..12 {
        let copy = directory.path().join(format!("cut{part}.db"));
        fs::copy(&path, &copy).unwrap();
        let cut = directory.path().join(format!("cut{part}.db-wal"));
        fs::write(cut, &log[..log.len() * part / 12]).unwrap();
        let Ok(backend) = ZqliteBackend::open(options(&copy).create(false)).await else {
            assert!(part < 2, "only a store cut before it was finished is refused");
            continue;
        };
        let after = read(&backend).await.unwrap();
        let serial = usize::try_from(after.head.serial.get()).unwrap();
        assert!(serial < 20);
        assert_eq!(after.blocks, before.blocks[..serial]);
        assert_eq!(after.rows.len(), serial * 2);
        backend.verify().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_during_commits_see_whole_commits() {
    let (_directory, path) = directory();
    let backend = std::sync::Arc::new(open(&path).await);
    commit_block(&*backend, (0..50).map(|n| put(Table::Nodes, n, [0u8])).collect()).await;
    let writer = {
        let backend = backend.clone();
        tokio::spawn(async move {
            for round in 1..60u8 {
                // Every row is replaced, half of them under a new slot.
                let prune = vec![KeyRange {
                    table: Table::Nodes,
                    from: key(0),
                    to: Some(key(25 + u32::from(round % 20))),
                }];
                let rows = (0..50).map(|number| put(Table::Nodes, number, [round])).collect();
                let head = backend.head().await.unwrap();
                backend.commit(&Commit { rows, prune, ..Commit::on(&head) }).await.unwrap();
            }
        })
    };
    let mut last = 0;
    while !writer.is_finished() {
        let rows = backend.scan(all(Table::Nodes)).await.unwrap().rows;
        assert_eq!(rows.len(), 50);
        let round = rows[0].body[0];
        assert!(round >= last && rows.iter().all(|row| row.body[0] == round));
        last = round;
    }
    writer.await.unwrap();
    backend.verify().await.unwrap();
}
