//! Checks of what is around the store: its directory, its files, the disk.

use std::fs::{self, Metadata};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store::config::Config;
use ghostwire_store::read_hash_key;
use ghostwire_store_local_file::{ENGINE_FILES, LOCK_FILE, RESERVE_FILE, files_of, with_suffix};

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

pub(super) fn check(config: &Config, path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let is_usable = check_directory(directory, checkup)?;
    check_modes(path, checkup)?;
    check_key(config, checkup)?;
    check_leftovers(path, checkup)?;
    check_log_size(path, checkup)?;
    if is_usable {
        check_space(directory, path, checkup)?;
        check_sync(directory, checkup)?;
    }
    Ok(())
}

/// Tells whether further checks can use it.
fn check_directory(directory: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome<bool> {
    const CHECK: &str = "directory";
    let shown = directory.display();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let found = format!("{shown} is no directory");
            checkup.add(Finding::fail(CHECK, found, "correct the path"))?;
            return Ok(false);
        }
        Err(error) => {
            let found = format!("{shown}: {error}");
            let advice = "correct the path, or run `gwstore init`";
            checkup.add(Finding::fail(CHECK, found, advice))?;
            return Ok(false);
        }
    };
    if let Err(error) = tempfile::tempfile_in(directory) {
        let found = format!("{shown} cannot be written: {error}");
        let advice = "let the control plane's user write it; journals and locks go there";
        checkup.add(Finding::fail(CHECK, found, advice))?;
        return Ok(false);
    }
    let finding = match mode(&metadata) {
        Some(mode) if mode & 0o022 != 0 => Finding::warn(
            CHECK,
            format!("{shown} can be written by others (mode {mode:o})"),
            "run `chmod go-w` on it: others could replace the store",
        ),
        _ => Finding::ok(CHECK, format!("{shown} can be written")),
    };
    checkup.add(finding)?;
    Ok(true)
}

#[cfg(unix)]
fn mode(metadata: &Metadata) -> Option<u32> {
    Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777)
}

#[cfg(not(unix))]
fn mode(_: &Metadata) -> Option<u32> {
    None
}

fn check_modes(path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "file modes";
    if !path.exists() {
        return Ok(());
    }
    let others = [LOCK_FILE, RESERVE_FILE].map(|suffix| with_suffix(path, suffix));
    let files = files_of(path).chain(others);
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for file in files {
        let Ok(metadata) = fs::metadata(&file) else { continue };
        let Some(mode) = mode(&metadata).filter(|_| metadata.is_file()) else { continue };
        let shown = format!("{} ({mode:o})", file.display());
        if mode & 0o077 != 0 {
            open.push(shown);
        } else if mode & 0o600 != 0o600 {
            closed.push(shown);
        }
    }
    if !open.is_empty() {
        let found = format!("open to others: {}", open.join(", "));
        return checkup.add(Finding::fail(CHECK, found, "run `chmod 600` on them"));
    }
    if !closed.is_empty() {
        // One such journal is enough for every write to fail.
        let found = format!("their owner may not write: {}", closed.join(", "));
        return checkup.add(Finding::warn(CHECK, found, "run `chmod 600` on all of them"));
    }
    checkup.add(Finding::ok(CHECK, "only their owner may read the store's files"))
}

fn check_key(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "hash key";
    let Some(path) = config.secret_key_path() else { return Ok(()) };
    checkup.add(match read_hash_key(&path) {
        Ok(key) => {
            let id = data_encoding::HEXLOWER.encode(&key.id());
            let found = format!("{} is in order (id {id})", path.display());
            let is_beside = config.backend.path().and_then(Path::parent) == path.parent();
            if is_beside && config.environment == "production" {
                let advice = "keep it apart from the store: set secret_key_file";
                Finding::warn(CHECK, format!("{found}, but beside the store"), advice)
            } else {
                Finding::ok(CHECK, found)
            }
        }
        Err(error) => Finding::error(
            CHECK,
            &error,
            "without it no API key, pre-auth key or session can be checked: restore it from a \
             backup",
        ),
    })
}

/// A store cuts its log when it grows longer than this, if nobody is in the way.
const LONG_LOG: u64 = 96 * 1024 * 1024;

fn check_log_size(path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
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

/// The lock's file stays when a store is closed; without a store it says that one was lost, as a log
/// does. Unfinished backups and keys have no use either way.
fn check_leftovers(path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "leftovers";
    let exists = path.symlink_metadata().is_ok();
    let lock = with_suffix(path, LOCK_FILE);
    let mut left: Vec<PathBuf> = Vec::new();
    if let Ok(metadata) = lock.symlink_metadata() {
        if !metadata.is_file() {
            let found = format!("{} is not a regular file", lock.display());
            return checkup.add(Finding::fail(CHECK, found, "remove it; the store makes its own"));
        }
        if !exists {
            left.push(lock);
        }
    }
    if !exists {
        let beside =
            ENGINE_FILES.into_iter().chain([RESERVE_FILE]).map(|suffix| with_suffix(path, suffix));
        left.extend(beside.filter(|file| file.exists()));
    }
    left.extend(unfinished_backups(path));
    if left.is_empty() {
        return checkup
            .add(Finding::ok(CHECK, "no orphaned lock, log or journal, nothing unfinished"));
    }
    let names: Vec<_> = left.iter().map(|file| file.display().to_string()).collect();
    let advice = if exists {
        "remove them once no process uses the store"
    } else {
        "was the store lost, or moved without them? Restore it: a log holds commits; no new one is \
         made beside them. To begin anew remove them, the lock last"
    };
    checkup.add(Finding::warn(CHECK, names.join(", "), advice))
}

fn unfinished_backups(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let entry = entry.file_name();
            let is_ours = entry.as_encoded_bytes().starts_with(name.as_encoded_bytes());
            is_ours && entry.as_encoded_bytes().ends_with(b".part")
        })
        .map(|entry| entry.path())
        .collect()
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

fn check_space(directory: &Path, path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "free space";
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let free = match free_bytes(directory) {
        Ok(Some(free)) => free,
        Ok(None) => return Ok(()),
        Err(error) => {
            return checkup.add(Finding::warn(CHECK, error, "look at the file system"));
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
fn check_sync(directory: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
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
