//! That the checks below a backend can fail: on a disk that only says that it synchronises, and on
//! backends that make light of what their disk tells them.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::{Arc, Once};

use async_trait::async_trait;
use ghostwire_store_conformance::{Disk, Fault, LocalFiles, Opening, Outcome, Suite};
use ghostwire_store_core::backend::{Backend, Commit, Head, Scan, ScanPage};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::position::Epoch;
use ghostwire_store_faulty_disk::FaultyDisk;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

/// The SQLite that all backends link is set up by libsql, or not at all.
fn set_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let prepared = runtime.block_on(ghostwire_store_libsql::prepare_process());
        prepared.expect("SQLite is not in use yet");
        ghostwire_store_faulty_disk::install();
    });
}

fn disk(directory: &Path) -> std::io::Result<Box<dyn Disk>> {
    Ok(Box::new(FaultyDisk::under(directory)?))
}

fn lying_disk(directory: &Path) -> std::io::Result<Box<dyn Disk>> {
    let disk = FaultyDisk::under(directory)?;
    disk.fail(Fault::SyncsIgnored);
    Ok(Box::new(disk))
}

/// What a backend makes light of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Carelessness {
    /// A damaged file makes room for a new one.
    StartsAnew,
    /// Rows that cannot be read are left out.
    ReadsWhatItCan,
    /// A commit that the disk failed counts as stored.
    IgnoresFailedWrites,
}

#[derive(Debug)]
struct Careless {
    inner: ZqliteBackend,
    carelessness: Carelessness,
}

impl Careless {
    async fn open(path: &Path, opening: Opening, carelessness: Carelessness) -> Result<Self> {
        let options =
            || ZqliteOptions::new(path, opening.store).create(true).compact_series_early();
        let opened = match ZqliteBackend::open(options()).await {
            Err(error) if carelessness == Carelessness::StartsAnew && is_damage(&error) => {
                for file in std::fs::read_dir(path.parent().expect("a directory"))
                    .expect("a directory can be read")
                {
                    let _ = std::fs::remove_file(file.expect("a file").path());
                }
                ZqliteBackend::open(options()).await
            }
            opened => opened,
        };
        Ok(Self { inner: opened?, carelessness })
    }
}

fn is_damage(error: &Error) -> bool {
    *error.kind() == ErrorKind::Corrupt
}

#[async_trait]
impl Layer for Careless {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        match self.inner.scan(scan).await {
            Err(error)
                if self.carelessness == Carelessness::ReadsWhatItCan && is_damage(&error) =>
            {
                let Head { position, serial, .. } = self.inner.head().await?;
                Ok(ScanPage { rows: Vec::new(), position, serial })
            }
            scanned => scanned,
        }
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        use ErrorKind::{Exhausted, OutcomeUnknown, Unavailable};
        match self.inner.commit(commit).await {
            Err(error)
                if self.carelessness == Carelessness::IgnoresFailedWrites
                    && matches!(error.kind(), Exhausted | OutcomeUnknown | Unavailable) =>
            {
                Ok(())
            }
            committed => committed,
        }
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        let probed = self.inner.probe(epoch).await;
        if self.carelessness == Carelessness::IgnoresFailedWrites { Ok(()) } else { probed }
    }

    async fn verify(&self) -> Result<()> {
        match self.inner.verify().await {
            Err(error) if self.carelessness != Carelessness::IgnoresFailedWrites => {
                if is_damage(&error) { Ok(()) } else { Err(error) }
            }
            verified => verified,
        }
    }
}

/// The check fails, and says one of these.
fn fails(backend: LocalFiles, check: &str, because: &[&str]) {
    let report = Suite::new().backend(backend).run(check, &mut |_, _, _| {});
    let outcomes: Vec<_> = report.trials.iter().map(|trial| &trial.outcome).collect();
    let [Outcome::Failed(message)] = outcomes.as_slice() else { panic!("{check}: {outcomes:?}") };
    assert!(because.iter().any(|because| message.contains(because)), "{check}: {message}");
}

fn careless(carelessness: Carelessness) -> LocalFiles {
    set_up();
    let open = move |path: std::path::PathBuf, opening: Opening| async move {
        Ok(Arc::new(Careless::open(&path, opening, carelessness).await?) as Arc<dyn Backend>)
    };
    LocalFiles::new("careless", open).disk(disk)
}

#[test]
fn what_a_disk_does_not_sync_is_missed_after_the_loss_of_power() {
    set_up();
    let backend = LocalFiles::new("zqlite", |path, opening: Opening| async move {
        let options = ZqliteOptions::new(path, opening.store).create(true);
        Ok(Arc::new(ZqliteBackend::open(options).await?) as Arc<dyn Backend>)
    });
    let found = ["acknowledged writes are lost", "half there", "is not sound", "cannot be opened"];
    fails(backend.disk(lying_disk), "backend-power/what_was_acknowledged", &found);
}

#[test]
fn a_backend_that_starts_anew_when_its_file_is_damaged_is_found() {
    let check = "backend-damage/a_damaged_file_is_refused";
    fails(careless(Carelessness::StartsAnew), check, &["another store is in its place"]);
}

#[test]
fn a_backend_that_reads_what_it_can_of_a_damaged_file_is_found() {
    let check = "backend-damage/a_damaged_file_is_refused";
    fails(careless(Carelessness::ReadsWhatItCan), check, &["read as other data"]);
}

#[test]
fn a_backend_that_does_not_look_at_the_order_of_keys_is_found() {
    set_up();
    let backend = LocalFiles::new("libsql", |path, opening: Opening| async move {
        let options = LibsqlOptions::new(path, opening.store).create(true).check_structure(false);
        Ok(Arc::new(LibsqlBackend::open(options).await?) as Arc<dyn Backend>)
    });
    fails(backend, "backend-damage/a_damaged_file_is_refused", &["read as other data"]);
}

#[test]
fn a_backend_that_ignores_failed_writes_is_found() {
    let check = "backend-faults/what_is_acknowledged_after_a_fault";
    fails(careless(Carelessness::IgnoresFailedWrites), check, &["acknowledged, and lost"]);
    let check = "backend-faults/reads_go_on_and_writes_do";
    fails(careless(Carelessness::IgnoresFailedWrites), check, &["is not read"]);
    let check = "backend-probe/a_probe_fails_on_a_disk";
    fails(careless(Carelessness::IgnoresFailedWrites), check, &["the probe succeeds"]);
}
