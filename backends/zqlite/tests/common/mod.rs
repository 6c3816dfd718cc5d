//! What the tests of this crate share.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

pub mod killed;
pub mod pinned;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use bytes::Bytes;
use ghostwire_store_core::backend::{Backend, Commit, Head, KeyRange, Row, Scan};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, EncodedBlock, RowChange, Serial};
use ghostwire_store_core::domain::{AuditEntry, AuditId, BlockId, StoreId, Timestamp};
use ghostwire_store_core::error::Result;
use ghostwire_store_core::schema::{Record, RowKey, Table};
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Unlock};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};
use tempfile::TempDir;

pub fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    (directory, path)
}

const STORE: StoreId = StoreId::from_bytes([9; 16]);

pub fn options(path: &Path) -> ZqliteOptions {
    ZqliteOptions::new(path, STORE).create(true)
}

static ROOT: LazyLock<Identity> = LazyLock::new(|| Identity::draw(&SystemRandom).unwrap());

/// As it is once it was written: the next change makes another generation.
pub fn written(keyring: &Keyring) -> Keyring {
    let file = keyring.seal(&SystemRandom).unwrap();
    Keyring::open(&file, Unlock::Identity(&ROOT), &Expected::default()).unwrap()
}

/// Of the store with this identity; the same each time.
pub fn keyring(store: StoreId) -> Keyring {
    static KEYRINGS: Mutex<BTreeMap<StoreId, Keyring>> = Mutex::new(BTreeMap::new());
    let mut keyrings = KEYRINGS.lock().unwrap();
    let first = || {
        let root = ROOT.recipient().clone();
        written(&Keyring::first(*store.as_bytes(), root, None, 0, &SystemRandom).unwrap())
    };
    keyrings.entry(store).or_insert_with(first).clone()
}

/// As [`options`], sealed.
pub fn sealed(path: &Path) -> ZqliteOptions {
    options(path).sealed(keyring(STORE))
}

/// The options of a plain and of a sealed store.
pub const BOTH: [fn(&Path) -> ZqliteOptions; 2] = [options, sealed];

pub async fn open(path: &Path) -> ZqliteBackend {
    ZqliteBackend::open(options(path)).await.unwrap()
}

pub fn key(number: u32) -> RowKey {
    RowKey::new().id(&[0; 16]).integer(i64::from(number))
}

pub fn put(table: Table, number: u32, body: impl Into<Vec<u8>>) -> RowChange {
    let body = Some(Bytes::from(body.into()));
    RowChange { table, kind: ChangeKind::Updated, key: key(number), body }
}

pub fn delete(table: Table, number: u32) -> RowChange {
    RowChange { table, kind: ChangeKind::Deleted, key: key(number), body: None }
}

/// A block with an audit section, so that it is longer than its header.
pub fn block_after(head: &Head, padding: usize) -> EncodedBlock {
    let serial = head.serial.next();
    let mut id = [1; 16];
    id[..8].copy_from_slice(&serial.get().to_be_bytes());
    let time = Timestamp::from_micros(1_000_000 + i64::try_from(serial.get()).unwrap()).unwrap();
    let mut builder = BlockBuilder::default();
    for number in 0..padding / 100 {
        builder.audit(AuditEntry::new(
            (time, AuditId::time_ordered(time, [u8::try_from(number % 256).unwrap(); 10])),
            "somebody".parse().unwrap(),
            "node.register".parse().unwrap(),
            ghostwire_store_core::error::EntityKind::Node,
            "a subject of some length".parse().unwrap(),
        ));
    }
    builder.finish(serial, BlockId::from_bytes(id), head.hash, time).unwrap().block
}

pub async fn commit_block(backend: &dyn Backend, rows: Vec<RowChange>) -> EncodedBlock {
    let head = backend.head().await.unwrap();
    let block = block_after(&head, 5_000);
    let commit = Commit { block: Some(block.clone()), rows, ..Commit::on(&head) };
    backend.commit(&commit).await.unwrap();
    block
}

pub fn all(table: Table) -> Scan {
    Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX }
}

/// Everything that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Everything {
    pub head: Head,
    pub rows: Vec<(Table, Row)>,
    pub blocks: Vec<EncodedBlock>,
}

pub async fn read(backend: &dyn Backend) -> Result<Everything> {
    let head = backend.head().await?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        rows.extend(backend.scan(all(table)).await?.rows.into_iter().map(|row| (table, row)));
    }
    let after = Serial::new(head.oldest_block.get() - 1);
    let blocks = backend.blocks(after, usize::MAX).await?;
    Ok(Everything { head, rows, blocks })
}

pub fn audit_key(entry: &AuditEntry) -> RowKey {
    entry.key()
}
