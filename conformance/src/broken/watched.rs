//! The memory that broken backends write to, as a disk that can be made to wait.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::locked;
use crate::disk::{Disk, Fault, Frozen, Watcher};

/// It can be watched. It never fails, and forgets everything without power.
#[derive(Default)]
pub(super) struct WatchedMemory(Mutex<Option<Watcher>>);

impl WatchedMemory {
    /// Before anything is stored.
    pub(super) fn about_to_change(&self) {
        let watcher = locked(&self.0).clone();
        if let Some(watcher) = watcher {
            watcher(self);
        }
    }
}

impl fmt::Debug for WatchedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedMemory").finish_non_exhaustive()
    }
}

impl Disk for WatchedMemory {
    fn fail(&self, _: Fault) {}

    fn heal(&self) {}

    fn met(&self) -> u64 {
        0
    }

    fn watch(&self, watcher: Option<Watcher>) {
        *locked(&self.0) = watcher;
    }

    fn freeze(&self) -> Arc<dyn Frozen> {
        Arc::new(Forgotten)
    }
}

#[derive(Debug)]
struct Forgotten;

impl Frozen for Forgotten {
    fn after_power_loss(&self, _: u64, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn after_process_death(&self, _: &Path) -> io::Result<Box<dyn Disk>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
