//! What is to happen to the files of a directory, and what has happened.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ghostwire_store_conformance::{Disk, Fault, Frozen, Watcher};

use crate::log::Log;

static PLANS: LazyLock<Mutex<HashMap<PathBuf, Arc<Plan>>>> = LazyLock::new(Mutex::default);

pub(crate) fn register(directory: PathBuf, plan: Arc<Plan>) {
    locked(&PLANS).insert(directory, plan);
}

pub(crate) fn forget(directory: &Path) {
    locked(&PLANS).remove(directory);
}

/// The plan for a file, and the file's name below the plan's directory.
pub(crate) fn find(path: &Path) -> Option<(Arc<Plan>, String)> {
    let plans = locked(&PLANS);
    path.ancestors().skip(1).find_map(|directory| {
        let plan = plans.get(directory)?;
        Some((plan.clone(), path.strip_prefix(directory).ok()?.to_str()?.to_owned()))
    })
}

/// Whoever panicked with the lock held changed nothing halfway.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Write,
    Sync,
    Truncate,
    Full,
}

#[derive(Default)]
pub(crate) struct Plan {
    faults: Mutex<Faults>,
    met: AtomicU64,
    log: Mutex<Log>,
    watcher: Mutex<Option<Watcher>>,
}

#[derive(Debug, Default)]
struct Faults {
    writes: usize,
    syncs: usize,
    room: Option<u64>,
    torn: bool,
    slow: Duration,
    ignored: bool,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("faults", &*locked(&self.faults)).finish_non_exhaustive()
    }
}

impl Disk for Plan {
    fn fail(&self, fault: Fault) {
        let mut faults = locked(&self.faults);
        match fault {
            Fault::WritesFail(count) => faults.writes = count,
            Fault::SyncsFail(count) => faults.syncs = count,
            Fault::Full(room) => faults.room = Some(room),
            Fault::TornWrite => faults.torn = true,
            Fault::SlowSyncs(duration) => faults.slow = duration,
            Fault::SyncsIgnored => faults.ignored = true,
            // A kind that this crate does not know makes no difference, and its test shows it.
            _ => {}
        }
    }

    fn heal(&self) {
        *locked(&self.faults) = Faults::default();
    }

    fn met(&self) -> u64 {
        self.met.load(Ordering::Acquire)
    }

    fn watch(&self, watcher: Option<Watcher>) {
        *locked(&self.watcher) = watcher;
    }

    fn freeze(&self) -> Arc<dyn Frozen> {
        Arc::new(locked(&self.log).freeze())
    }
}

impl Plan {
    pub(crate) fn after(log: Log) -> Self {
        Self { log: Mutex::new(log), ..Self::default() }
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        locked(&self.log)
    }

    /// Before any operation.
    pub(crate) fn about_to_change(&self) {
        let watcher = locked(&self.watcher).clone();
        if let Some(watcher) = watcher {
            watcher(self);
        }
    }

    /// Notes that an operation met a fault.
    fn meets(&self) {
        self.met.fetch_add(1, Ordering::AcqRel);
    }

    /// How many of `bytes` bytes at `offset` reach the file, and how that fails, if it does.
    pub(crate) fn write(
        &self,
        file: usize,
        offset: usize,
        bytes: usize,
    ) -> (usize, Option<Failure>) {
        let length = self.log().length(file);
        let mut faults = locked(&self.faults);
        if take_one(&mut faults.writes) {
            self.meets();
            return (0, Some(Failure::Write));
        }
        if std::mem::take(&mut faults.torn) {
            self.meets();
            return (bytes / 2, Some(Failure::Write));
        }
        let growth = (offset + bytes).saturating_sub(length) as u64;
        let Some(room) = &mut faults.room else { return (bytes, None) };
        let granted = growth.min(*room);
        *room -= granted;
        let missing = (growth - granted) as usize;
        if missing > 0 {
            self.meets();
        }
        (bytes.saturating_sub(missing), (missing > 0).then_some(Failure::Full))
    }

    pub(crate) fn truncate(&self, file: usize, length: usize) -> Option<Failure> {
        let freed = self.log().length(file).saturating_sub(length) as u64;
        let mut faults = locked(&self.faults);
        if take_one(&mut faults.writes) {
            self.meets();
            return Some(Failure::Truncate);
        }
        if let Some(room) = &mut faults.room {
            *room += freed;
        }
        None
    }

    /// What becomes of a synchronisation: `Ok(false)` if it is only confirmed.
    pub(crate) fn sync(&self) -> Result<bool, Failure> {
        let (slow, verdict) = {
            let mut faults = locked(&self.faults);
            let fails = take_one(&mut faults.syncs);
            (faults.slow, if fails { Err(Failure::Sync) } else { Ok(!faults.ignored) })
        };
        if !slow.is_zero() || verdict != Ok(true) {
            self.meets();
        }
        if !slow.is_zero() {
            std::thread::sleep(slow);
        }
        verdict
    }

    pub(crate) fn ignores_syncs(&self) -> bool {
        locked(&self.faults).ignored
    }
}

/// Takes one off, unless there is none left; the largest number is no end.
fn take_one(count: &mut usize) -> bool {
    match *count {
        0 => false,
        usize::MAX => true,
        _ => {
            *count -= 1;
            true
        }
    }
}
