//! Checks of the disk: room, how long it takes to make something durable, the log's size.

use std::fs;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ghostwire_store_sqlite::with_suffix;

use super::{Checkup, Finding};
use crate::failure::Outcome;
use crate::output::bytes;

/// Durable writes that are timed.
const TRIALS: usize = 11;
/// Beyond that a control plane with many nodes will feel it.
const SLOW: Duration = Duration::from_millis(50);
/// An engine needs room for its log, a migration for a copy of the file.
const SCARCE: u64 = 512 * 1024 * 1024;
const TOO_LITTLE: u64 = 16 * 1024 * 1024;

/// A store cuts its log when it grows longer than this, if nobody is in the way.
const LONG_LOG: u64 = 96 * 1024 * 1024;

pub(super) fn check_log_size(path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "log size";
    let log = with_suffix(path, "-wal");
    match fs::metadata(&log) {
        Ok(metadata) if metadata.len() > LONG_LOG => checkup.add(Finding::warn(
            CHECK,
            format!("{} has {}", log.display(), bytes(metadata.len())),
            format!(
                "if the store is in use, another program's open transaction keeps it growing: `lsof \
                 {}-shm` names the programs; otherwise opening the store shortens it",
                path.display()
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(unix)]
fn free_bytes(directory: &Path) -> std::io::Result<Option<u64>> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> std::io::Result<Option<u64>> {
    Ok(None)
}

pub(super) fn check_space(directory: &Path, path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "free space";
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let free = match free_bytes(directory) {
        Ok(Some(free)) => free,
        Ok(None) => return Ok(()),
        Err(error) => {
            return checkup.add(Finding::unchecked(CHECK, error, "look at the file system"));
        }
    };
    let found = format!("{} free, the store has {}", bytes(free), bytes(size));
    let advice = "make room: a full disk stops writes, and a migration copies the store";
    checkup.add(if free < TOO_LITTLE {
        Finding::fail(CHECK, found, advice)
    } else if free < SCARCE.max(size.saturating_mul(2)) {
        Finding::warn(CHECK, found, advice)
    } else {
        Finding::ok(CHECK, found)
    })
}

/// How long a small durable write takes; a group of commands waits for one.
pub(super) fn check_sync(directory: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "fsync";
    checkup.add(match time_syncs(directory) {
        Ok(median) => {
            let found = format!("{median:.2?}, the median of {TRIALS}");
            if median > SLOW {
                Finding::warn(
                    CHECK,
                    found,
                    "each group of writes waits that long; use a faster disk",
                )
            } else {
                Finding::ok(CHECK, found)
            }
        }
        Err(error) => {
            let advice = "nothing is durable on a file system that cannot do this; use another";
            Finding::fail(CHECK, error, advice)
        }
    })
}

fn time_syncs(directory: &Path) -> std::io::Result<Duration> {
    let mut file = tempfile::tempfile_in(directory)?;
    let mut times = Vec::with_capacity(TRIALS);
    for _ in 0..TRIALS {
        let began = Instant::now();
        file.rewind()?;
        file.write_all(&[0x5a; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(TRIALS / 2).copied().unwrap_or_default())
}
