//! Where `libsql-rusqlite` came first, libsql panics; this crate says what to do instead.

#![allow(clippy::unwrap_used)]

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions, prepare_process};

#[tokio::test]
async fn too_late_is_an_error_and_no_panic() {
    let _connection = rusqlite::Connection::open_in_memory().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.db");
    let options = LibsqlOptions::new(&path, StoreId::from_bytes([1; 16])).create(true);
    for _ in 0..2 {
        assert_eq!(*prepare_process().await.unwrap_err().kind(), ErrorKind::Unsupported);
        let error = LibsqlBackend::open(options.clone()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("prepare_process"), "{error}");
    }
    assert!(!path.exists());
}
