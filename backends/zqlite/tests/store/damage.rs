//! That a damaged file is noticed: whatever byte is changed, nothing is silently different.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use crate::common::*;
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_core::schema::Table;
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

/// A closed store with rows, series, blocks, free pages and pages that overflow.
async fn sample(options: ZqliteOptions) -> Everything {
    let backend = ZqliteBackend::open(options).await.unwrap();
    for round in 0..12u32 {
        let mut rows: Vec<_> = (0..40)
            .map(|number| {
                put(Table::Nodes, round * 40 + number, vec![number as u8; 40 + number as usize * 5])
            })
            .collect();
        rows.extend((0..20).map(|number| put(Table::Metrics, round * 20 + number, [1, 2, 3])));
        rows.extend((0..5).map(|number| put(Table::Audit, round * 5 + number, vec![7; 300])));
        rows.push(put(Table::Policies, round, vec![3; 9000]));
        rows.push(delete(Table::Nodes, round * 40));
        commit_block(&backend, rows).await;
    }
    let commit = Commit {
        checkpoint: Some(Serial::new(12)),
        purge_before: Some(Serial::new(5)),
        rows: vec![delete(Table::Policies, 1)],
        ..Commit::on(&backend.head().await.unwrap())
    };
    backend.commit(&commit).await.unwrap();
    let everything = read(&backend).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    everything
}

enum Outcome {
    Refused(Error),
    Read(Everything, Result<(), Error>),
}

async fn open_and_read(options: ZqliteOptions) -> Outcome {
    let backend = match ZqliteBackend::open(options).await {
        Ok(backend) => backend,
        Err(error) => return Outcome::Refused(error),
    };
    match read(&backend).await {
        Ok(everything) => Outcome::Read(everything, backend.verify().await),
        Err(error) => Outcome::Refused(error),
    }
}

/// How a store is opened.
type Options = fn(&Path) -> ZqliteOptions;

/// Changes a byte, reads everything, and tells whether that was noticed.
async fn flip(
    options: Options,
    path: &Path,
    content: &[u8],
    at: usize,
    bits: u8,
    expected: &Everything,
) -> bool {
    let mut damaged = content.to_vec();
    damaged[at] ^= bits;
    fs::write(path, &damaged).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    match open_and_read(options(path)).await {
        Outcome::Refused(error) => {
            assert!(
                matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidArgument)
                    // Bytes 18 and 19 say who may read and write the file at all.
                    || (at < 100 && matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Unsupported)),
                "byte {at} ^ {bits:#04x}: {error:?}"
            );
            true
        }
        Outcome::Read(_, Err(error)) => {
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "byte {at}: {error:?}");
            true
        }
        Outcome::Read(everything, Ok(())) => {
            assert!(everything == *expected, "byte {at} ^ {bits:#04x} changed something silently");
            false
        }
    }
}

#[tokio::test]
async fn no_flipped_byte_is_silently_different() {
    for options in BOTH {
        let (_directory, path) = directory();
        let expected = sample(options(&path)).await;
        let content = fs::read(&path).unwrap();
        // The whole of the header and the first page's end, then every page: its header and cell
        // pointers, and a stride through its content.
        let step =
            std::env::var("FLIP_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(1_499);
        let mut offsets: Vec<usize> = (0..108).collect();
        offsets.extend((0..content.len()).step_by(step));
        for page in (0..content.len()).step_by(4096).step_by(3) {
            offsets.extend([0, 3, 4, 5, 7, 8, 9, 12, 13].map(|at| page + at));
        }
        let mut noticed = 0;
        for (index, &at) in offsets.iter().enumerate() {
            let bits = [0x01, 0x80, 0xff, 0x10][index % 4];
            noticed += usize::from(flip(options, &path, &content, at, bits, &expected).await);
        }
        assert!(noticed * 2 > offsets.len(), "{noticed} of {} noticed", offsets.len());
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_refused() {
    let (_directory, path) = directory();
    sample(options(&path)).await;
    let content = fs::read(&path).unwrap();
    for length in [content.len() - 1, content.len() - 4096, content.len() / 2, 4096, 100, 50] {
        fs::write(&path, &content[..length]).unwrap();
        let error = ZqliteBackend::open(options(&path)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{length}: {error:?}");
    }
}

#[tokio::test]
async fn a_row_that_lost_its_place_is_named() {
    let (_directory, path) = directory();
    sample(options(&path)).await;
    let content = fs::read(&path).unwrap();
    // Pages keep bytes of cells that moved, so there may be more than one.
    let copies = content.windows(64).enumerate().filter(|(_, bytes)| *bytes == [5; 64]);
    let mut damaged = content.clone();
    for (at, _) in copies {
        damaged[at] ^= 1;
    }
    fs::write(&path, damaged).unwrap();
    let error = ZqliteBackend::open(options(&path)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("slot="), "{error}");
}

/// A closed store with rows and data blocks, all of which are compacted; `body` is that of half of them.
async fn rows_and_data_blocks(options: ZqliteOptions, body: u8) {
    let backend = ZqliteBackend::open(options.compact_series_early()).await.unwrap();
    for round in 0..40u32 {
        let body = if round % 2 == 0 { body } else { 0 };
        let rows = |table, count| {
            (0..count).map(move |number| put(table, round * count + number, vec![body; 20]))
        };
        let rows = rows(Table::Users, 20).chain(rows(Table::Metrics, 100)).collect();
        commit_block(&backend, rows).await;
    }
    backend.close().await.unwrap();
}

#[tokio::test]
async fn a_page_that_is_an_older_one_is_noticed() {
    for options in BOTH {
        let options = |path: &Path| options(path).compact_series_early();
        let (_directory, path) = directory();
        rows_and_data_blocks(options(&path), 1).await;
        let older = fs::read(&path).unwrap();
        rows_and_data_blocks(options(&path), 2).await;
        let newer = fs::read(&path).unwrap();
        let backend = ZqliteBackend::open(options(&path)).await.unwrap();
        let expected = read(&backend).await.unwrap();
        backend.close().await.unwrap();
        let (mut at_open, mut when_read) = (0, 0);
        for page in (0..older.len()).step_by(4096) {
            let range = page..page + 4096;
            if older[range.clone()] == newer[range.clone()] {
                continue;
            }
            let mut damaged = newer.clone();
            damaged[range.clone()].copy_from_slice(&older[range]);
            fs::write(&path, damaged).unwrap();
            let Ok(backend) = ZqliteBackend::open(options(&path)).await else {
                at_open += 1;
                continue;
            };
            match read(&backend).await {
                Err(error) => {
                    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
                    when_read += 1;
                }
                // Nothing of it is in use, or SQLite alone would miss it.
                Ok(found) => assert!(found == expected, "page {}", page / 4096),
            }
        }
        assert!(at_open > 5 && when_read > 5, "{at_open} at open, {when_read} when read");
    }
}

#[tokio::test]
async fn a_log_of_an_earlier_moment_than_the_file_is_refused() {
    for table in [Table::Users, Table::Metrics] {
        let (directory, path) = directory();
        open(&path).await.close().await.unwrap();
        let backend = open(&path).await;
        let store = async |number: u32| {
            let head = backend.head().await.unwrap();
            let rows = vec![put(table, number, "u")];
            backend.commit(&Commit { rows, ..Commit::on(&head) }).await.unwrap();
        };
        store(1).await;
        let log = directory.path().join("store.db-wal");
        let earlier = fs::read(&log).unwrap();
        store(2).await;
        backend.close().await.unwrap();
        fs::write(&log, earlier).unwrap();
        let error = ZqliteBackend::open(options(&path)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        fs::remove_file(&log).unwrap();
        open(&path).await.verify().await.unwrap();
    }
}

#[tokio::test]
async fn a_flipped_byte_in_the_log_yields_an_older_store_or_none() {
    let (directory, path) = directory();
    let backend = open(&path).await;
    for number in 0..6 {
        commit_block(&backend, vec![put(Table::Users, number, "u")]).await;
    }
    let before = read(&backend).await.unwrap();
    let log = fs::read(directory.path().join("store.db-wal")).unwrap();
    for at in (0..log.len()).step_by(log.len() / 40) {
        let copy = directory.path().join(format!("{at}.db"));
        fs::copy(&path, &copy).unwrap();
        let mut damaged = log.clone();
        damaged[at] ^= 0x40;
        fs::write(directory.path().join(format!("{at}.db-wal")), damaged).unwrap();
        if let Outcome::Read(after, verified) = open_and_read(options(&copy)).await {
            verified.unwrap();
            let serial = usize::try_from(after.head.serial.get()).unwrap();
            assert_eq!(after.blocks, before.blocks[..serial]);
            assert_eq!(after.rows[..], before.rows[..serial]);
        }
    }
}
