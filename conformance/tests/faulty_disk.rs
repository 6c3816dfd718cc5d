//! That the checks below a backend can fail: on a disk that only says that it synchronises.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_conformance::{Disk, Fault, LocalFiles, Opening, Outcome, Suite};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_faulty_disk::FaultyDisk;
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

fn lying_disk(directory: &Path) -> std::io::Result<Box<dyn Disk>> {
    let disk = FaultyDisk::under(directory)?;
    disk.fail(Fault::SyncsIgnored);
    Ok(Box::new(disk))
}

#[test]
fn what_a_disk_does_not_sync_is_missed_after_the_loss_of_power() {
    ghostwire_store_faulty_disk::install();
    let backend = LocalFiles::new("zqlite", |path, opening: Opening| async move {
        let options = ZqliteOptions::new(path, opening.store).create(true);
        Ok(Arc::new(ZqliteBackend::open(options).await?) as Arc<dyn Backend>)
    });
    let suite = Suite::new().backend(backend.disk(lying_disk));
    let report = suite.run("backend-power/what_was_acknowledged", &mut |_, _, _| {});
    let outcomes: Vec<_> = report.trials.iter().map(|trial| &trial.outcome).collect();
    let [Outcome::Failed(message)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let found = ["acknowledged writes are lost", "half there", "is not sound", "cannot be opened"];
    assert!(found.iter().any(|found| message.contains(found)), "{message}");
}
