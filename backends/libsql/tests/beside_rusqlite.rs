//! `libsql-rusqlite` may be used in the same process, after [`prepare_process`].

#![allow(clippy::unwrap_used)]

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions, prepare_process};

#[tokio::test]
async fn prepared_in_time_both_work() {
    prepare_process().await.unwrap();
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let options = LibsqlOptions::new(path, StoreId::from_bytes([1; 16])).create(true);
    let backend = LibsqlBackend::open(options).await.unwrap();
    backend.verify().await.unwrap();
    assert_eq!(connection.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    prepare_process().await.unwrap();
}
