//! The disk under a place, for the rules that are about one.

use crate::prelude::*;
use std::io;
use std::path::Path;

/// Called before an operation of a disk, with the disk.
pub type Watcher = Arc<dyn Fn(&dyn Disk) + Send + Sync>;

/// A disk under one place, which fails when it is told to, and knows what the loss of power would
/// leave. It is watched from the moment on at which [`Place::disk`](crate::Place::disk) gives it:
/// whoever wants to see everything asks for it before the place is opened.
///
/// Operations are writes, truncations, deletions and synchronisations of the files that hold a
/// store. What belongs only to running processes (locks, shared memory) is not on the disk.
pub trait Disk: Debug + Send + Sync {
    /// From now on, this happens. Several faults may be in force at once.
    fn fail(&self, fault: Fault);

    /// Ends every fault. What failed meanwhile stays failed.
    fn heal(&self);

    /// How many operations a fault has made fail, tear, wait or be ignored so far. A fault that no
    /// operation met shows nothing.
    fn met(&self) -> u64;

    /// Calls `watcher` before every operation, on the thread that wants it and with no lock of
    /// the disk's held, so that it may call [`Disk::freeze`]. `None` ends that.
    fn watch(&self, watcher: Option<Watcher>);

    /// What the disk holds at this moment: what it has confirmed as synchronised, and what it was
    /// given since.
    fn freeze(&self) -> Arc<dyn Frozen>;
}

/// What a disk held at one moment.
pub trait Frozen: Debug + Send + Sync {
    /// Fills an empty directory with the files as they may be if power was lost at that moment:
    /// everything that was confirmed as synchronised, and of the rest whatever `seed` says.
    ///
    /// # Errors
    /// Those of the file system.
    fn after_power_loss(&self, seed: u64, directory: &Path) -> io::Result<()>;

    /// Fills an empty directory with the files as another process finds them if the one that wrote
    /// them died at that moment, and gives the disk under it. Everything that was written is
    /// there, and what was not synchronised by then still is not.
    ///
    /// # Errors
    /// Those of the file system.
    fn after_process_death(&self, directory: &Path) -> io::Result<Box<dyn Disk>>;
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// So many writes and truncations fail with an input/output error; `usize::MAX` is all.
    WritesFail(usize),
    /// So many synchronisations fail. What they were about may be stored or not.
    SyncsFail(usize),
    /// Files may grow by so many bytes in all; then the disk is full. Truncating makes room again.
    Full(u64),
    /// Of the next write only a part reaches the file; then it fails.
    TornWrite,
    /// Every synchronisation takes this long.
    SlowSyncs(Duration),
    /// Synchronisations are confirmed and not carried out. No store can survive that: it shows
    /// that a check would notice.
    SyncsIgnored,
}
