//! A store with a pin.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::domain::CommitId;
use ghostwire_store_core::error::Error;
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::Secret;
use ghostwire_store_zqlite::{PinChoice, PinOptions, PinReport, ZqliteBackend, ZqliteOptions};

use super::{BOTH, commit_block, directory, options, put, sealed};

/// A store and its pin, in one directory.
pub struct Site {
    _directory: tempfile::TempDir,
    pub store: PathBuf,
    pub pin: PathBuf,
    pub base: fn(&Path) -> ZqliteOptions,
}

/// The files of a store as they were.
#[derive(Clone)]
pub struct Files(pub Vec<(&'static str, Option<Vec<u8>>)>);

pub const FILES: [&str; 3] = ["", "-wal", "-shm"];

pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub fn pin_key() -> Secret {
    Secret::take(&mut [7; 32])
}

impl Site {
    /// Of a plain store.
    pub fn new() -> Self {
        Self::of(options)
    }

    pub fn of(base: fn(&Path) -> ZqliteOptions) -> Self {
        let (directory, store) = directory();
        let pin = directory.path().join("pin");
        Self { _directory: directory, store, pin, base }
    }

    /// Of a plain and of a sealed store.
    pub fn both() -> [Self; 2] {
        BOTH.map(Self::of)
    }

    pub fn is_sealed(&self) -> bool {
        self.base as *const () == sealed as *const ()
    }

    pub fn pin(&self) -> PinOptions {
        PinOptions::file(&self.pin).same_device(true).key(pin_key())
    }

    pub fn options(&self) -> ZqliteOptions {
        self.options_with(self.pin())
    }

    pub fn options_with(&self, pin: PinOptions) -> ZqliteOptions {
        (self.base)(&self.store).pin(PinChoice::Commit(pin))
    }

    pub async fn open(&self) -> ZqliteBackend {
        ZqliteBackend::open(self.options()).await.unwrap()
    }

    pub async fn compared(&self) -> PinReport {
        ZqliteBackend::compare_with_pin(self.options()).await.unwrap()
    }

    pub async fn refusal(&self) -> Error {
        ZqliteBackend::open(self.options()).await.unwrap_err()
    }

    pub fn copy(&self) -> Files {
        let read = |suffix| (suffix, fs::read(beside(&self.store, suffix)).ok());
        Files(FILES.into_iter().map(read).collect())
    }

    pub fn put_back(&self, copy: &Files) {
        for (suffix, content) in &copy.0 {
            let path = beside(&self.store, suffix);
            match content {
                Some(content) => fs::write(path, content).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
    }
}

/// A commit that moves no serial.
pub async fn record(backend: &dyn Backend, number: u32) {
    let head = backend.head().await.unwrap();
    let entry = Some(CommitId::from_bytes([u8::try_from(1 + number % 250).unwrap(); 16]));
    let rows = vec![put(Table::Metrics, number, [1, 2, 3])];
    backend.commit(&Commit { entry, rows, ..Commit::on(&head) }).await.unwrap();
}

/// Commits and confirms, as the writer does.
pub async fn work(backend: &dyn Backend, number: u32) {
    match number % 3 {
        0 => record(backend, number).await,
        _ => drop(commit_block(backend, vec![put(Table::Users, number, [4; 30])]).await),
    }
    backend.confirm().await.unwrap();
}
