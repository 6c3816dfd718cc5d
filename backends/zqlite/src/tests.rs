//! What only shows with an engine that fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod rotation;
mod verify;

use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use ghostwire_store_core::backend::{KeyRange, Row};
use ghostwire_store_core::block::{ChangeKind, RowChange};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Identity, Keyring};
use ghostwire_store_sqlite::Wanted;

use super::*;
use crate::engine::{Batch, Engine, Reserved, Snapshot};
use crate::head::Stored;
use crate::verify::Opened;

/// Stores what it is given, or does not, and fails: it claims not to know, or something else.
#[derive(Debug)]
struct Forgetful {
    engine: Box<dyn Engine>,
    stores: bool,
    claims: ErrorKind,
}

impl Engine for Forgetful {
    fn describe(&self) -> String {
        self.engine.describe()
    }

    fn write(&self, batch: &Batch<'_>) -> Result<()> {
        if self.stores {
            self.engine.write(batch)?;
        }
        Err(Error::new(self.claims.clone(), "the disk failed"))
    }

    fn probe(&self, head: &[u8]) -> Result<()> {
        self.engine.probe(head)
    }

    fn settle(&self) -> Result<()> {
        self.engine.settle()
    }

    fn reserve(&self, is_fresh: bool) -> Result<Box<dyn Reserved<'_> + '_>> {
        self.engine.reserve(is_fresh)
    }

    fn check_structure(&self, wanted: &Wanted) -> Result<()> {
        self.engine.check_structure(wanted)
    }

    fn writer_snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        self.engine.writer_snapshot()
    }

    fn bytes_in_use(&self) -> Result<u64> {
        self.engine.bytes_in_use()
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
        self.replace_engine(|engine| {
            Box::new(Forgetful { engine, stores, claims: ErrorKind::OutcomeUnknown })
        });
    }

    fn make_failing(&self, claims: ErrorKind) {
        self.replace_engine(|engine| Box::new(Forgetful { engine, stores: false, claims }));
    }

    fn replace_engine(&self, by: impl FnOnce(Box<dyn Engine>) -> Box<dyn Engine>) {
        let mut open = self.0.open.write().unwrap();
        let opened = open.take().unwrap();
        let engine = by(opened.engine);
        *open = Some(Open { engine, ..opened });
    }
}

#[tokio::test]
async fn after_an_unknown_outcome_only_reopening_helps() {
    for stores in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let backend = ZqliteBackend::open(sealed(&path)).await.unwrap();
        backend.make_forgetful(stores);
        let rows = vec![put(Table::Users, 1, b"a"), put(Table::Metrics, 1, b"b")];
        let commit = Commit { rows, ..Commit::default() };
        let error = backend.commit(&commit).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        let error = backend.commit(&commit).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        // A series can be read whichever way it went.
        let series = backend.scan(all(Table::Metrics)).await.unwrap().rows;
        assert_eq!(series.len(), usize::from(stores));
        let scan = all(Table::Users);
        let error = backend.scan(scan.clone()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable);
        backend.reopen().await.unwrap();
        assert_eq!(backend.scan(scan.clone()).await.unwrap().rows.len(), usize::from(stores));
        backend.commit(&commit).await.unwrap();
        assert_eq!(backend.scan(scan).await.unwrap().rows.len(), 1);
        backend.verify().await.unwrap();
    }
}

/// A commit, beside somebody who waits for a connection while others have all of them.
fn commit_beside_who_waits(backend: &ZqliteBackend, wait: impl FnOnce() + Send) {
    let connections = || backend.0.info().pool.unwrap();
    std::thread::scope(|scope| {
        let open = backend.0.open.read().unwrap();
        let engine = &open.as_ref().unwrap().engine;
        let all: Vec<_> = (0..connections().max).map(|_| engine.snapshot().unwrap()).collect();
        let waiting = scope.spawn(wait);
        while connections().pending == 0 {
            std::thread::yield_now();
        }
        let before = connections().timeouts;
        backend
            .0
            .commit(&Commit { rows: vec![put(Table::Users, 2, b"b")], ..Commit::default() })
            .unwrap();
        assert_eq!((connections().pending, connections().timeouts), (1, before));
        drop(all);
        waiting.join().unwrap();
    });
}

#[tokio::test]
async fn no_commit_waits_for_who_waits_for_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let backend = ZqliteBackend::open(sealed(&directory.path().join("store.db"))).await.unwrap();
    commit_beside_who_waits(&backend, || drop(backend.0.scan(&all(Table::Users)).unwrap()));
    commit_beside_who_waits(&backend, || backend.0.verify(&Wanted::default()).unwrap());
}

fn put(table: Table, number: u8, body: &[u8]) -> RowChange {
    let (kind, key) = (ChangeKind::Updated, RowKey::new().id(&[number; 16]));
    RowChange { table, kind, key, body: Some(Bytes::copy_from_slice(body)) }
}

fn all(table: Table) -> Scan {
    Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX }
}

/// Options under which series are compacted all the time.
fn compacting(path: &Path) -> ZqliteOptions {
    ZqliteOptions::new(path, StoreId::from_bytes([1; 16])).create(true).compact_series_early()
}

fn sealed(path: &Path) -> ZqliteOptions {
    static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
        let root = Identity::draw(&SystemRandom).unwrap().recipient().clone();
        Keyring::first([1; 16], root, None, 0, &SystemRandom).unwrap()
    });
    compacting(path).sealed(KEYRING.clone())
}

/// The options of a plain and of a sealed store.
const BOTH: [fn(&Path) -> ZqliteOptions; 2] = [compacting, sealed];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_that_are_read_while_they_are_compacted_are_of_one_commit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let backend = Arc::new(ZqliteBackend::open(sealed(&path)).await.unwrap());
    let commit_of = |round: u8| {
        let rows = (0..60).map(|number| put(Table::Metrics, number, &[round; 9])).collect();
        let middle = |number| RowKey::new().id(&[number; 16]);
        let range = KeyRange { table: Table::Metrics, from: middle(20), to: Some(middle(30)) };
        let prune = if round.is_multiple_of(7) { vec![range] } else { Vec::new() };
        Commit { rows, prune, ..Commit::default() }
    };
    backend.commit(&commit_of(0)).await.unwrap();
    let writer = {
        let backend = backend.clone();
        tokio::spawn(async move {
            for round in 1..120 {
                backend.commit(&commit_of(round)).await.unwrap();
            }
        })
    };
    let mut last = 0;
    while !writer.is_finished() {
        let rows = backend.scan(all(Table::Metrics)).await.unwrap().rows;
        assert_eq!(rows.len(), 60);
        let round = rows.first().unwrap().body.first().copied().unwrap();
        assert!(round >= last && rows.iter().all(|row| *row.body == [round; 9]));
        last = round;
    }
    writer.await.unwrap();
    let before = backend.scan(all(Table::Metrics)).await.unwrap().rows;
    backend.verify().await.unwrap();
    backend.reopen().await.unwrap();
    assert_eq!(backend.scan(all(Table::Metrics)).await.unwrap().rows, before);
    let series = backend.0.status().unwrap().stored.series;
    assert!(series.data_blocks > 0 && series.first > 1 && series.next == 121, "{series:?}");
}

/// A closed store most of whose rows are in data blocks, and its rows.
async fn compacted(options: ZqliteOptions) -> Vec<Row> {
    let backend = ZqliteBackend::open(options).await.unwrap();
    for round in 0..40u8 {
        let rows =
            (0..20).map(|number| put(Table::Metrics, number * 12 + round % 12, &[round; 30]));
        let rows = rows.chain([put(Table::Audit, round, &[7; 300])]).collect();
        backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
    }
    backend.verify().await.unwrap();
    let rows = series_of(&backend).await.unwrap();
    backend.close().await.unwrap();
    rows
}

async fn series_of(backend: &ZqliteBackend) -> Result<Vec<Row>> {
    let mut rows = backend.scan(all(Table::Metrics)).await?.rows;
    rows.extend(backend.scan(all(Table::Audit)).await?.rows);
    Ok(rows)
}

#[tokio::test]
async fn a_flipped_byte_of_a_chunk_or_of_the_journal_is_noticed() {
    for options in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let expected = compacted(options(&path)).await;
        let content = std::fs::read(&path).unwrap();
        let mut noticed = 0;
        let offsets: Vec<usize> = (4096..content.len()).step_by(193).collect();
        for at in &offsets {
            let mut damaged = content.clone();
            *damaged.get_mut(*at).unwrap() ^= 0x11;
            std::fs::write(&path, damaged).unwrap();
            let outcome = async {
                let backend = ZqliteBackend::open(options(&path)).await?;
                let rows = series_of(&backend).await?;
                backend.verify().await?;
                Ok::<_, Error>(rows)
            };
            match outcome.await {
                Ok(rows) => assert!(rows == expected, "byte {at} changed something silently"),
                Err(error) => {
                    assert_eq!(*error.kind(), ErrorKind::Corrupt, "byte {at}: {error:?}");
                    noticed += 1;
                }
            }
        }
        // The rest are free pages, of entries that were cut off.
        assert!(noticed * 3 > offsets.len(), "{noticed} of {} noticed", offsets.len());
    }
}

#[tokio::test]
async fn chunks_leaves_and_entries_that_disappear_are_noticed() {
    for options in BOTH {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        compacted(options(&path)).await;
        let content = std::fs::read(&path).unwrap();
        for (damage, opens) in [
            ("DELETE FROM chunks WHERE number=(SELECT max(number) FROM chunks)", true),
            ("DELETE FROM directory WHERE number=(SELECT max(number) FROM directory)", false),
            ("DELETE FROM journal WHERE number=(SELECT max(number) FROM journal)", false),
            ("DELETE FROM journal WHERE number=(SELECT min(number) FROM journal)", false),
        ] {
            std::fs::write(&path, &content).unwrap();
            let file = rusqlite::Connection::open(&path).unwrap();
            assert_eq!(file.execute(damage, []).unwrap(), 1);
            file.close().unwrap();
            let error = match ZqliteBackend::open(options(&path)).await {
                Ok(backend) if opens => backend.verify().await.unwrap_err(),
                opened => opened.unwrap_err(),
            };
            assert_eq!(*error.kind(), ErrorKind::Corrupt, "{damage}: {error:?}");
        }
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
