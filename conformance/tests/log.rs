//! A log that another program holds, and one that is cut off, with both backends that have one.
#![allow(missing_docs, clippy::unwrap_used)]

mod stores;

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::backend::{Backend, LogInfo};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::open;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_libsql::prepare_process;
use ghostwire_store_sqlite::LogLimits;
use stores::{BACKENDS, backend, compact, create_user};

const LIMITS: LogLimits = LogLimits { checkpoint: 100 << 10, hold_out: 200 << 10, warn: 1 << 20 };

fn log(backend: &Arc<dyn Backend>) -> LogInfo {
    backend.info().log.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_another_program_holds_is_told_of_and_short_once_it_lets_go() {
    prepare_process().await.unwrap();
    for name in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let backend = backend(name, &path, LIMITS).await.unwrap();
        let store = open(backend.clone(), StoreOptions::default()).await.unwrap();
        create_user(&*store, 0).await.unwrap();
        let other = rusqlite::Connection::open(&path).unwrap();
        for (episode, first) in [(1, 1), (2, 10_000)] {
            other.execute_batch("BEGIN; SELECT * FROM sqlite_schema;").unwrap();
            let mut number = first;
            while log(&backend).bytes < 2 << 20 {
                create_user(&*store, number).await.unwrap();
                number += 1;
                assert!(number < first + 5_000, "{name}: {:?}", log(&backend));
            }
            let held = log(&backend);
            assert_eq!(held.held, episode, "{name}: {held:?}");
            assert!(held.held_commits > 10, "{name}: {held:?}");
            // Whoever reads meanwhile is not kept from it.
            store.verify().await.unwrap();
            other.execute_batch("COMMIT").unwrap();
            create_user(&*store, number).await.unwrap();
            let free = log(&backend);
            assert_eq!((free.held, free.held_commits), (episode, 0), "{name}: {free:?}");
            assert!(free.bytes < LIMITS.checkpoint, "{name}: {free:?}");
            assert_eq!(free.failed_checkpoints, 0, "{name}: {free:?}");
        }
        drop(other);
        store.close().await.unwrap();
    }
}

/// The index beside a log knows how long it was, as long as the power stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_end_is_told_of() {
    prepare_process().await.unwrap();
    for name in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let used = backend(name, &path, LogLimits::default()).await.unwrap();
        let store = open(used.clone(), StoreOptions::default()).await.unwrap();
        for number in 0..20 {
            create_user(&*store, number).await.unwrap();
        }
        assert!(!log(&used).ended_early);
        let whole = std::fs::metadata(directory.path().join("store.db-wal")).unwrap().len();
        for cut in [0, 1, 4120, whole / 2] {
            // As a process that was killed leaves it.
            let left = tempfile::tempdir().unwrap();
            for file in ["store.db", "store.db-wal", "store.db-shm"] {
                std::fs::copy(directory.path().join(file), left.path().join(file)).unwrap();
            }
            let log_file = left.path().join("store.db-wal");
            let log_file = std::fs::File::options().write(true).open(log_file).unwrap();
            log_file.set_len(whole - cut).unwrap();
            let path = left.path().join("store.db");
            let found = backend(name, &path, LIMITS).await.unwrap();
            assert_eq!(log(&found).ended_early, cut > 0, "{name}, {cut} bytes less");
            found.close().await.unwrap();
        }
        store.close().await.unwrap();
    }
}

/// Whoever took it for a disk that fails for a moment would try again for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_while_the_store_is_open_is_damage() {
    prepare_process().await.unwrap();
    for name in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let used = backend(name, &path, LogLimits::default()).await.unwrap();
        let store = open(used.clone(), StoreOptions::default()).await.unwrap();
        for number in 0..20 {
            create_user(&*store, number).await.unwrap();
        }
        let log_file = directory.path().join("store.db-wal");
        let log_file = std::fs::File::options().write(true).open(log_file).unwrap();
        log_file.set_len(40).unwrap();
        let error = used.verify().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{name}: {error:?}");
        // It cannot move the log, either.
        let _ = store.close().await;
    }
}

/// Another program would go on with the log of the file that is no longer there.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_another_program_has_open_is_not_compacted() {
    prepare_process().await.unwrap();
    for name in BACKENDS {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let used = backend(name, &path, LogLimits::default()).await.unwrap();
        let store = open(used, StoreOptions::default()).await.unwrap();
        create_user(&*store, 1).await.unwrap();
        store.close().await.unwrap();
        let mut other = other_program(&path);
        let error = compact(name, &path).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Busy, "{name}: {error:?}");
        other.kill().unwrap();
        other.wait().unwrap();
        let found = backend(name, &path, LogLimits::default()).await.unwrap();
        assert_eq!(found.head().await.unwrap().serial.get(), 1);
        found.close().await.unwrap();
    }
}

const OTHER: &str = "GHOSTWIRE_TEST_OTHER_PROGRAM";

/// A process that reads the file and keeps it open.
fn other_program(path: &Path) -> std::process::Child {
    use std::io::{BufRead, BufReader};
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "be_another_program", "--nocapture"])
        .env(OTHER, path)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("has it open")));
    child
}

/// No test of its own: what the process does that a test starts.
#[test]
#[allow(clippy::print_stdout)]
fn be_another_program() {
    let Some(path) = std::env::var_os(OTHER) else { return };
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN; SELECT * FROM sqlite_schema; COMMIT").unwrap();
    println!("has it open");
    // Until whoever started it ends it.
    let _ = std::io::stdin().read_line(&mut String::new());
}
