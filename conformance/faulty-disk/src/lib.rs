//! A disk under SQLite that fails, fills up, and loses power on demand.
//!
//! [`install`] puts it between SQLite and the operating system, for every connection of the
//! process that is opened afterwards. It does nothing until a [`FaultyDisk`] watches a directory.
//! It is for the SQLite that `libsql` and `libsql-rusqlite` share; set libsql up first
//! (`ghostwire_store_libsql::prepare_process`).
//!
//! `log` says what is taken to be on a disk when power is lost.

mod log;
mod plan;
mod random;
#[cfg(unix)]
mod vfs;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostwire_store_conformance::{Disk, Fault, Frozen, Watcher};

use plan::Plan;
#[cfg(unix)]
pub use vfs::install;

/// A directory whose files are on a faulty disk.
#[derive(Debug)]
pub struct FaultyDisk {
    directory: PathBuf,
    plan: Arc<Plan>,
}

impl FaultyDisk {
    /// Watches what SQLite does to files in `directory` and below, from the next file on that it
    /// opens there. What is there by then is taken to be stored.
    ///
    /// # Errors
    /// If the directory cannot be found.
    pub fn under(directory: &Path) -> io::Result<Self> {
        Self::with_plan(directory, Plan::default())
    }

    fn with_plan(directory: &Path, plan: Plan) -> io::Result<Self> {
        // SQLite resolves symbolic links before it opens anything.
        let directory = directory.canonicalize()?;
        let plan = Arc::new(plan);
        plan::register(directory.clone(), plan.clone());
        Ok(Self { directory, plan })
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        plan::forget(&self.directory);
    }
}

impl Disk for FaultyDisk {
    fn fail(&self, fault: Fault) {
        self.plan.fail(fault);
    }

    fn heal(&self) {
        self.plan.heal();
    }

    fn met(&self) -> u64 {
        self.plan.met()
    }

    fn watch(&self, watcher: Option<Watcher>) {
        self.plan.watch(watcher);
    }

    fn freeze(&self) -> Arc<dyn Frozen> {
        self.plan.freeze()
    }
}
