//! What a commit stores, and what it leaves alone.

use super::*;

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let empty = backend.head().await.unwrap();
    assert_eq!(
        (empty.store, empty.serial, empty.oldest_block),
        (STORE, Serial::ZERO, Serial::new(1))
    );
    backend.verify().await.unwrap();
    let stored = fill(&backend).await;
    let before = content(&backend).await.unwrap();
    for (table, rows) in &before.rows {
        assert_eq!(*rows, expected(&stored, *table), "{table:?}");
    }
    assert_eq!(before.blocks.len(), 4);
    assert_eq!(before.head.hash, before.blocks[3].hash);
    assert_eq!(backend.reopen().await.unwrap(), before.head);
    assert_eq!(content(&backend).await.unwrap(), before);
    let info = backend.info();
    assert!(info.engine.contains("3.47"), "{}", info.engine);
    assert_eq!((info.counters.commits, info.counters.blocks), (5, 4));
    assert!(info.bytes.unwrap() > 100_000);
    backend.close().await.unwrap();
    assert_eq!(*backend.head().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!path.with_extension("db-wal").exists());
    // Another identity is only for a new file.
    let other = LibsqlOptions::new(&path, StoreId::from_bytes([1; 16]));
    let backend = LibsqlBackend::open(other).await.unwrap();
    assert_eq!(content(&backend).await.unwrap(), before);
    backend.verify().await.unwrap();
    let Row { key, body } = &before.rows[1].1[5];
    assert_eq!(Node::decode(key, body).unwrap(), node(5));
}

#[tokio::test]
async fn a_stale_or_strange_block_changes_nothing() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let genesis = backend.head().await.unwrap();
    backend
        .commit(&commit(&genesis, |block| block.put(ChangeKind::Created, &node(1))))
        .await
        .unwrap();
    let before = content(&backend).await.unwrap();
    let stale = commit(&genesis, |block| block.put(ChangeKind::Created, &node(2)));
    let error = backend.commit(&stale).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("expected=0, position=1"), "{error}");
    let fork = Head { serial: before.head.serial, position: before.head.position, ..genesis };
    let fork = commit(&fork, |block| block.put(ChangeKind::Created, &node(2)));
    assert_eq!(*backend.commit(&fork).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(content(&backend).await.unwrap(), before);
    assert_eq!(backend.info().counters.failed_commits, 2);
    // A row that does not fit rolls everything back.
    let mut unfit = commit(&before.head, |block| block.put(ChangeKind::Created, &node(2)));
    unfit
        .rows
        .push(RowChange { body: Some(encode_values(2, [Value::Integer(1)])), ..put(&node(3)) });
    let error = backend.commit(&unfit).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert_eq!(content(&backend).await.unwrap(), before);
}

#[tokio::test]
async fn the_later_row_wins_and_deletions_repeat() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    let head = backend.head().await.unwrap();
    let renamed = |name: &str| Node { hostname: Hostname::new(name).unwrap(), ..node(1) };
    let key = node(1).key();
    let rows = vec![
        put(&renamed("a")),
        delete(Table::Nodes, key.clone()),
        put(&node(2)),
        put(&renamed("b")),
        delete(Table::Nodes, node(2).key()),
        delete(Table::Nodes, node(3).key()),
    ];
    for _ in 0..2 {
        backend.commit(&rows_only(&head, rows.clone())).await.unwrap();
        let rows = all(&backend, Table::Nodes).await.unwrap();
        assert_eq!(rows, [Row { key: key.clone(), body: renamed("b").encode() }]);
    }
    backend.verify().await.unwrap();
}

/// Positions between keys of all shapes: whole keys, their prefixes, successors, bounds of
/// prefixes, and bytes that no key has.

#[tokio::test]
async fn purged_blocks_are_compacted() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let head = backend.head().await.unwrap();
    let purge = Commit { purge_before: Some(Serial::new(3)), ..Commit::on(&head) };
    backend.commit(&purge).await.unwrap();
    assert_eq!(backend.head().await.unwrap().oldest_block, Serial::new(3));
    let error = backend.blocks(Serial::new(1), 10).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Compacted { oldest: 3 });
    let blocks = backend.blocks(Serial::new(2), 1).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.serial.get()).collect::<Vec<_>>(), [3]);
    assert_eq!(backend.blocks(Serial::new(4), 10).await.unwrap(), []);
    backend.verify().await.unwrap();
    // Blocks that were not folded yet stay.
    let unfolded = commit(&head, |block| block.put(ChangeKind::Created, &node(900)));
    let purge = Commit {
        rows: Vec::new(),
        checkpoint: None,
        purge_before: Some(Serial::new(u64::MAX)),
        ..unfolded
    };
    backend.commit(&purge).await.unwrap();
    let head = backend.head().await.unwrap();
    assert_eq!((head.checkpoint.get(), head.oldest_block.get(), head.serial.get()), (4, 5, 5));
    assert_eq!(backend.blocks(Serial::new(4), 10).await.unwrap().len(), 1);
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_changes_nothing_and_passes() {
    let (_directory, path) = place();
    let backend = open(&path).await.unwrap();
    fill(&backend).await;
    let before = content(&backend).await.unwrap();
    backend.limit_pages(1).unwrap();
    let big = commit(&before.head, |block| {
        (200..2000).for_each(|number| block.put(ChangeKind::Created, &node(number)));
    });
    let error = backend.commit(&big.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(content(&backend).await.unwrap(), before);
    backend.limit_pages(1_000_000).unwrap();
    backend.commit(&big).await.unwrap();
    assert_eq!(all(&backend, Table::Nodes).await.unwrap().len(), 160 + 1800);
    backend.verify().await.unwrap();
}

#[tokio::test]
async fn a_crash_leaves_a_commit_whole_or_absent() {
    let (directory, path) = place();
    let backend = open(&path).await.unwrap();
    let mut states = vec![content(&backend).await.unwrap()];
    for round in 0..4 {
        let head = backend.head().await.unwrap();
        let commit = commit(&head, |block| {
            (round * 8..round * 8 + 8).for_each(|n| block.put(ChangeKind::Created, &node(n)));
        });
        backend.commit(&commit).await.unwrap();
        states.push(content(&backend).await.unwrap());
    }
    // What a crash leaves: the file as it is, and the WAL up to anywhere.
    let wal_of = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
    let (file, wal) = (std::fs::read(&path).unwrap(), std::fs::read(wal_of(&path)).unwrap());
    let copy = directory.path().canonicalize().unwrap().join("copy.db");
    let mut seen = 0;
    for length in (0..wal.len()).step_by(3001).chain([wal.len()]) {
        for read_only in [true, false] {
            std::fs::write(&copy, &file).unwrap();
            std::fs::write(wal_of(&copy), &wal[..length]).unwrap();
            let options = LibsqlOptions::new(&copy, STORE).read_only(read_only);
            let found = LibsqlBackend::open(options).await.unwrap();
            let found = content(&found).await.unwrap();
            let serial = usize::try_from(found.head.serial.get()).unwrap();
            assert_eq!(found, states[serial], "{length}");
            assert!(serial >= seen);
            seen = serial;
            let _ = std::fs::remove_file(wal_of(&copy));
            let _ = std::fs::remove_file(format!("{}-shm", copy.display()));
        }
    }
    assert_eq!(seen, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_see_whole_commits_while_others_are_written() {
    let (_directory, path) = place();
    let backend = std::sync::Arc::new(open(&path).await.unwrap());
    let reader = {
        let backend = std::sync::Arc::clone(&backend);
        tokio::spawn(async move {
            let mut last = 0;
            while last < 640 {
                let count = all(&backend, Table::Nodes).await.unwrap().len();
                assert!(count >= last && count.is_multiple_of(16), "{count} after {last}");
                last = count;
            }
        })
    };
    for round in 0..40 {
        let head = backend.head().await.unwrap();
        let commit = commit(&head, |block| {
            (round * 16..round * 16 + 16)
                .for_each(|number| block.put(ChangeKind::Created, &node(number)));
        });
        backend.commit(&commit).await.unwrap();
    }
    reader.await.unwrap();
    assert_eq!(backend.blocks(Serial::ZERO, 1000).await.unwrap().len(), 40);
}

#[test]
fn works_where_there_is_no_runtime() {
    use futures_util::FutureExt;
    let (_directory, path) = place();
    let backend = open(&path).now_or_never().unwrap().unwrap();
    assert_eq!(backend.head().now_or_never().unwrap().unwrap().serial, Serial::ZERO);
}
