//! That both crates which share a SQLite go through the disk, libsql having been set up first.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ghostwire_store_conformance::{Disk, Fault};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_faulty_disk::{FaultyDisk, install};
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions, prepare_process};

#[tokio::test]
async fn both_see_the_disk_fail_in_a_watched_directory_only() {
    prepare_process().await.unwrap();
    install();
    install();
    let (watched, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = FaultyDisk::under(watched.path()).unwrap();
    let operations = Arc::new(AtomicUsize::new(0));
    let counted = operations.clone();
    disk.watch(Some(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    })));
    let path = watched.path().join("store.db");
    let options = LibsqlOptions::new(path, StoreId::from_bytes([1; 16])).create(true);
    let backend = LibsqlBackend::open(options).await.unwrap();
    let after_libsql = operations.load(Ordering::Relaxed);
    assert!(after_libsql > 3, "{after_libsql}");
    backend.close().await.unwrap();

    let connect = |directory: &tempfile::TempDir| {
        let connection = rusqlite::Connection::open(directory.path().join("plain.db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a)").unwrap();
        connection
    };
    let (connection, unwatched) = (connect(&watched), connect(&other));
    assert!(operations.load(Ordering::Relaxed) > after_libsql);
    disk.fail(Fault::SyncsFail(usize::MAX));
    let error = connection.execute("INSERT INTO t VALUES(1)", []).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code, rusqlite::ffi::SQLITE_IOERR_FSYNC);
    unwatched.execute("INSERT INTO t VALUES(1)", []).unwrap();
    disk.heal();
    disk.fail(Fault::Full(0));
    let error = connection.execute("INSERT INTO t VALUES(zeroblob(100000))", []).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code, rusqlite::ffi::SQLITE_FULL);
    disk.heal();
    disk.fail(Fault::WritesFail(1));
    let error = connection.execute("INSERT INTO t VALUES(2)", []).unwrap_err();
    assert_eq!(error.sqlite_error().unwrap().extended_code, rusqlite::ffi::SQLITE_IOERR_WRITE);
    connection.execute("INSERT INTO t VALUES(3)", []).unwrap();
    let sum: i64 = connection.query_row("SELECT sum(a) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 3);
}
