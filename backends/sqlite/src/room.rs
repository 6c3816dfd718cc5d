//! Room on the file system that a store is on.

#[cfg(target_os = "linux")]
use std::fs;
#[cfg(target_os = "linux")]
use std::io;
use std::path::Path;

use ghostwire_store_core::backend::Filesystem;
use ghostwire_store_core::error::Result;

#[cfg(unix)]
use crate::{directory_of, failed};

/// The room beside this file, where that is known.
#[cfg(unix)]
pub(crate) fn filesystem(path: &Path) -> Result<Option<Filesystem>> {
    let directory = directory_of(path);
    let disk = rustix::fs::statvfs(directory)
        .map_err(|error| failed("the disk cannot be looked up", directory, error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Some(Filesystem { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) }))
}

#[cfg(not(unix))]
pub(crate) fn filesystem(_: &Path) -> Result<Option<Filesystem>> {
    Ok(None)
}

/// Bytes that this process may still write beside this file, where that is known.
pub(crate) fn free_bytes(path: &Path) -> Result<Option<u64>> {
    Ok(filesystem(path)?.map(|disk| disk.free))
}

/// Whether this process cannot write a few pages more beside this file.
#[cfg(target_os = "linux")]
pub(crate) fn is_full(path: &Path) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    use std::io::Write;
    let write = || {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut probe = fs::File::from(open(directory_of(path), flags, Mode::RUSR | Mode::WUSR)?);
        crate::private::give(&probe, path, path);
        probe.write_all(&[1; 64 * 1024])?;
        probe.sync_data()
    };
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    write().is_err_and(|error: io::Error| full.contains(&error.kind()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_full(path: &Path) -> bool {
    free_bytes(path).is_ok_and(|free| free.is_some_and(|free| free < 64 * 1024))
}
