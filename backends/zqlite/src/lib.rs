//! The zqlite backend: one local SQLite file of sealed records.
//!
//! All lookups happen in memory, so the file needs no columns: a row of the state is one record under
//! a slot number that says nothing, and a commit is two under its serial. Metrics and the audit
//! trail are data blocks under numbers; which has what is in a directory of records, too.
//!
//! With a keyring ([`ZqliteOptions::sealed`]) records are encrypted and authenticated: the file shows
//! no content, and whoever alters it is found out. **Without one they have a checksum and nothing else:
//! damage is detected, tampering is not, and whoever reads the file reads its content.**
//! [`BackendInfo::sealed`] tells which. Every record passes through `envelope`.
//!
//! What stores the blobs is the SQLite that the `libsql` crate links, too: the embedded engine. With the
//! feature `native` it can be ZQLite instead, the database library of a similar name, which a process of
//! its own loads at run time.
//!
//! # Example
//! ```
//! use ghostwire_store_core::backend::Backend;
//! use ghostwire_store_core::domain::StoreId;
//! use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("control.db");
//! let random = [7; 16]; // Draw them.
//! let options = ZqliteOptions::new(path, StoreId::from_bytes(random)).create(true);
//! let backend = ZqliteBackend::open(options).await?;
//! assert_eq!(backend.head().await?.serial.get(), 0);
//! backend.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A trap: libsql must come first
//! In a process that uses the `libsql` crate, too, that has to call SQLite first. The `ghostwire-store` facade
//! sees to it; a program that uses this crate directly calls `ghostwire_store_libsql::prepare_process`.
//!
//! # What is in the file
//! | table | key | record |
//! |---|---|---|
//! | `meta` | 1 | the head: where the store stands, its schema, sums over all records |
//! | `meta` | 2, 3 | of a sealed store: the newest signature over where it stood, and the keys that signed before |
//! | `blocks` | serial | the block in two parts, their tags in a column beside them |
//! | `rows` | slot | table, key and body of a row of the state |
//! | `journal` | number | what a commit did to metrics, audit or writer positions |
//! | `chunks` | number | a data block: consecutive rows of these, from a key on |
//! | `directory` | number | which data blocks there are, with their keys and tags |
//!
//! The sums in the head show a record that got lost, is there twice, or is older than it should be.
//! A damaged write-ahead log looks to SQLite like one that ends where the damage
//! begins; the store then stands where it stood before, whole but older. Opening notices some of that
//! (`LogInfo::ended_early`); the rest shows only against a serial and hash that were kept elsewhere.

mod before_leak;
mod engine;
mod envelope;
mod head;
mod inner;
mod open;
mod options;
mod pinning;
mod plan;
mod reframe;
mod resealing;
mod series;
mod signing;
mod slots;
mod tags;
mod verify;

/// Parsers of what is in the file, for the fuzz targets.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::series::fuzzing::*;

    /// Whatever is accepted comes back as it was written.
    #[allow(missing_docs)]
    pub fn head(bytes: &[u8]) {
        use crate::envelope::Envelope;
        use crate::head::{Prefix, Stored};
        if let Ok((prefix, _)) = Prefix::split(bytes) {
            assert_eq!(Prefix::decode(prefix).encode(), *prefix);
        }
        let _ = Envelope::new(None).map(|plain| plain.open_head(bytes));
        let Ok(stored) = Stored::decode(bytes) else { return };
        assert_eq!(Stored::decode(&stored.encode()).ok(), Some(stored));
    }
}

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Attestation, AttestedState, Backend, BackendInfo, Budget, Commit, Compacted,
    ConnectionObserver, Head, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::threads::may_block;
use ghostwire_store_crypto::keyring::Keyring;
use ghostwire_store_sqlite::{Asked, FileKind, StoreFile, compact};

use engine::connect::Connect;
#[cfg(feature = "native")]
pub use engine::native::NativeOptions;
use envelope::Envelope;
use inner::{Inner, locked};
use open::Open;
pub use options::{EngineChoice, ZqliteOptions};
use pinning::report;
pub use pinning::{PinChoice, PinOptions, PinReport, PinnedPlace};
use reframe::{Form, reframe};

/// A store in one local file.
#[derive(Debug)]
pub struct ZqliteBackend(Arc<Inner>);

impl ZqliteBackend {
    /// Opens the file, and reads every row of the state once to check it and to know where it is.
    /// The work is done on a thread of tokio's blocking pool, where there is one.
    ///
    /// # Errors
    /// Those of [`StoreFile::open`](ghostwire_store_sqlite::StoreFile::open); `Corrupt` if what
    /// is stored is damaged; `Unsupported` if the engine is not part of this build.
    pub async fn open(options: ZqliteOptions) -> Result<Self> {
        may_block(move || Self::open_blocking(options)).await
    }

    /// What [`ZqliteBackend::open`] does, on the calling thread.
    ///
    /// # Errors
    /// As there.
    pub fn open_blocking(options: ZqliteOptions) -> Result<Self> {
        let inner = Inner::open(options).map_err(|error| error.during("zqlite.open"))?;
        Ok(Self(Arc::new(inner)))
    }

    /// Gives the free pages of a store that nobody has open back to the disk: the store is written
    /// anew, checked, and put in its own place in one step. Its identity, blocks and rows stay.
    ///
    /// # Errors
    /// As [`ZqliteBackend::open`]; `Exhausted` if the disk has no room for a copy beside the store;
    /// `Busy` if another program has it open.
    pub async fn compact(options: ZqliteOptions) -> Result<Compacted> {
        let work = move || {
            Connect::require_embedded(&options)?;
            let envelope = Envelope::new(options.keyring.as_ref())?;
            let open = |file: &Arc<StoreFile>| {
                Open::begin(file, &Connect::Embedded, &envelope).map(|(open, _)| open)
            };
            compact(&options.file.path, FileKind::ZQLITE, open)
        };
        may_block(work).await.map_err(|error| error.during("zqlite.compact"))
    }

    /// Seals a plain store that nobody has open, with the keyring of the options: the store is written
    /// anew, checked, and put in its own place in one step. Its identity and content stay; nothing plain
    /// is left in the file or in a log. Copies beside it, such as `.v<N>.bak`, stay as they are, and so
    /// does what the disk keeps of the old file.
    ///
    /// # Errors
    /// As [`ZqliteBackend::compact`]; `Crypto` if there is no keyring, or it belongs to another store.
    pub async fn seal(options: ZqliteOptions) -> Result<Compacted> {
        may_block(move || reframe(&options, Form::Sealed))
            .await
            .map_err(|error| error.during("zqlite.seal"))
    }

    /// Makes a sealed store plain in the same way.
    ///
    /// # Errors
    /// As [`ZqliteBackend::seal`].
    pub async fn unseal(options: ZqliteOptions) -> Result<Compacted> {
        may_block(move || reframe(&options, Form::Plain))
            .await
            .map_err(|error| error.during("zqlite.unseal"))
    }

    /// Compares a store that nobody has open to write with its pin, and changes neither.
    ///
    /// # Errors
    /// As [`ZqliteBackend::open`], but for what the pin says of the store; `InvalidArgument` if the
    /// options name no pin.
    pub async fn compare_with_pin(options: ZqliteOptions) -> Result<PinReport> {
        may_block(move || {
            let PinChoice::Commit(pin) = &options.pin else {
                return Err(Error::invalid("no pin is configured"));
            };
            let envelope = Envelope::new(options.keyring.as_ref())?;
            let connect = Connect::of(&options)?;
            let file = options.clone().read_only(true).file.open(connect.kind())?;
            let (open, stored) = file.undisturbed(Open::begin(&file, &connect, &envelope))?;
            let pin = (pin, options.keyring.as_ref());
            let compared = file.undisturbed(report(pin, &open, &stored));
            open.engine.close()?;
            file.release();
            compared
        })
        .await
        .map_err(|error| error.during("zqlite.compare_with_pin"))
    }

    /// Takes up a newer generation of the store's keyring while the store is open. If a rotation is under
    /// way in it, the head is sealed under the newest version when this returns; if that is because of a
    /// leak, the inventory is counted under its new key, and the pin moved by its own. To be called once
    /// the keyring is durable; if it is broken off, opening completes it.
    ///
    /// # Errors
    /// `Unsupported` if the store is plain; `Crypto` for the keyring of another store or an older one; those
    /// of a commit and of [`Backend::confirm`]: it may be called again then.
    pub async fn take_up(&self, keyring: Keyring) -> Result<()> {
        self.in_background(move |inner| inner.take_up(&keyring))
            .await
            .map_err(|error| error.during("zqlite.take_up"))
    }

    /// The generation of the keyring that the store is open with; 0 of a plain store.
    #[must_use]
    pub fn keyring_generation(&self) -> u64 {
        self.0.envelope().generation()
    }

    /// Whether a rotation is under way in that keyring.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.0.envelope().is_rotating()
    }

    /// Refuses a rotation while records are sealed under too many versions of the data key.
    ///
    /// # Errors
    /// `Restricted`; `ReadOnly`.
    pub fn require_room_for_version(&self) -> Result<()> {
        self.0.require_room_for_version()
    }

    /// Reads the frame of every record, and refuses if one is sealed under this version of the data key.
    ///
    /// # Errors
    /// `Restricted`, saying how many and naming one; `Corrupt`.
    pub async fn require_unused(&self, version: u32) -> Result<()> {
        self.in_background(move |inner| inner.require_unused(version))
            .await
            .map_err(|error| error.during("zqlite.require_unused"))
    }

    async fn in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        may_block(move || work(&inner)).await
    }
}

#[async_trait]
impl Backend for ZqliteBackend {
    fn info(&self) -> BackendInfo {
        self.0.info()
    }

    async fn head(&self) -> Result<Head> {
        self.0.head()
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.0.migrate(target).map_err(|error| error.during("zqlite.migrate"))
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let began = Instant::now();
        let table = scan.range.table;
        let page = self
            .in_background(move |inner| inner.scan(&scan))
            .await
            .map_err(|error| error.during("zqlite.scan"))?;
        locked(&self.0.counters).scans += 1;
        tracing::trace!(
            db.system.name = "zqlite",
            db.operation.name = "scan",
            db.collection.name = table.name(),
            db.response.returned_rows = page.rows.len(),
            elapsed_us = began.elapsed().as_micros(),
            "scanned"
        );
        Ok(page)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.in_background(move |inner| inner.blocks(after, limit))
            .await
            .map_err(|error| error.during("zqlite.blocks"))
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let began = Instant::now();
        let outcome = self.0.commit(commit);
        let stored = outcome.is_ok().then_some(commit.rows.len());
        locked(&self.0.counters).count(commit, stored);
        match outcome {
            Ok(()) => {
                tracing::debug!(
                    db.system.name = "zqlite",
                    db.operation.name = "commit",
                    db.operation.batch.size = commit.rows.len(),
                    serial = commit.block.as_ref().map(|block| block.serial.get()),
                    block_bytes = commit.block.as_ref().map(|block| block.bytes.len()),
                    elapsed_us = began.elapsed().as_micros(),
                    "committed"
                );
                Ok(())
            }
            Err(error) => {
                tracing::debug!(
                    db.system.name = "zqlite",
                    db.operation.name = "commit",
                    error.type = error.kind().name(),
                    %error,
                    "commit failed"
                );
                Err(error.during("zqlite.commit"))
            }
        }
    }

    async fn maintain(&self, budget: Budget) -> Result<bool> {
        self.0.maintain(&budget).map_err(|error| error.during("zqlite.maintain"))
    }

    async fn confirm(&self) -> Result<()> {
        self.0.confirm().map_err(|error| error.during("zqlite.confirm"))
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        self.0.probe(epoch).map_err(|error| error.during("zqlite.probe"))
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        self.0.adopt(head).map_err(|error| error.during("zqlite.adopt"))
    }

    async fn reopen(&self) -> Result<Head> {
        self.0.reopen().map_err(|error| error.during("zqlite.reopen"))
    }

    async fn attest(&self, state: &AttestedState) -> Result<Attestation> {
        let state = *state;
        self.in_background(move |inner| inner.attest(&state))
            .await
            .map_err(|error| error.during("zqlite.attest"))
    }

    async fn verify(&self) -> Result<()> {
        // Dropped with this future, should nobody wait for it any more.
        let asked = Asked::default();
        let wanted = asked.wanted();
        let verified = self.in_background(move |inner| inner.verify(&wanted)).await;
        drop(asked);
        verified.map_err(|error| error.during("zqlite.verify"))
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        self.0.observe_connections(observer);
    }

    fn announce_close(&self) {
        self.0.announce_close();
    }

    async fn close(&self) -> Result<()> {
        self.0.close().map_err(|error| error.during("zqlite.close"))
    }
}

#[cfg(test)]
mod tests;
