//! What only shows with an engine that fails.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use bytes::Bytes;
use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::{RowKey, Table};

use super::*;
use crate::engine::{Batch, Engine, Snapshot};

/// Stores what it is given, or does not, and claims not to know.
#[derive(Debug)]
struct Forgetful {
    engine: Box<dyn Engine>,
    stores: bool,
}

impl Engine for Forgetful {
    fn describe(&self) -> String {
        self.engine.describe()
    }

    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        if self.stores {
            self.engine.write(batch)?;
        }
        Err(Error::new(ErrorKind::OutcomeUnknown, "the disk failed"))
    }

    fn settle(&self) -> Result<()> {
        self.engine.settle()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.engine.snapshot()
    }

    fn fresh_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.engine.fresh_snapshot()
    }

    fn writer_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.engine.writer_snapshot()
    }

    fn copy_to(&self, path: &Path) -> Result<()> {
        self.engine.copy_to(path)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.engine.close()
    }
}

impl ZqliteBackend {
    fn make_forgetful(&self, stores: bool) {
        let mut open = self.0.open.write().unwrap();
        let Open { engine, envelope, slots, versions, lost, file } = open.take().unwrap();
        let engine = Box::new(Forgetful { engine, stores });
        *open = Some(Open { engine, envelope, slots, versions, lost, file });
    }
}

#[tokio::test]
async fn after_an_unknown_outcome_only_reopening_helps() {
    for stores in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreId::from_bytes([1; 16]);
        let options = ZqliteOptions::new(directory.path().join("store.db"), store).create(true);
        let backend = ZqliteBackend::open(options).await.unwrap();
        backend.make_forgetful(stores);
        let row = RowChange {
            table: Table::Users,
            kind: ChangeKind::Created,
            key: RowKey::new().id(&[1; 16]),
            body: Some(Bytes::from_static(b"a")),
        };
        let commit = Commit { rows: vec![row], ..Commit::default() };
        let error = backend.commit(&commit).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        let error = backend.commit(&commit).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        let scan = Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 9 };
        let error = backend.scan(scan.clone()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        backend.reopen().await.unwrap();
        assert_eq!(backend.scan(scan.clone()).await.unwrap().len(), usize::from(stores));
        backend.commit(&commit).await.unwrap();
        assert_eq!(backend.scan(scan).await.unwrap().len(), 1);
        backend.verify().await.unwrap();
    }
}

#[tokio::test]
async fn reopening_never_makes_a_new_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = StoreId::from_bytes([1; 16]);
    let options = ZqliteOptions::new(&path, store).create(true);
    let backend = ZqliteBackend::open(options).await.unwrap();
    *backend.0.open.write().unwrap() = None;
    std::fs::write(&path, b"").unwrap();
    assert_eq!(*backend.reopen().await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(*backend.reopen().await.unwrap_err().kind(), ErrorKind::Corrupt);
    backend.close().await.unwrap();
}
