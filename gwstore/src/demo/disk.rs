//! What the stores lie on.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::files_of;
use tempfile::NamedTempFile;

/// What a directory's filesystem is.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// Its type, such as `ext4`, if the system tells.
    pub(super) filesystem: Option<String>,
    /// What is mounted there.
    pub(super) device: Option<String>,
}

/// How often making a file durable is tried at a time.
pub(super) const ROUNDS: usize = 25;

/// Looks at the filesystem of a directory.
pub(super) fn examine(directory: &Path) -> Result<Disk> {
    let resolved = fs::canonicalize(directory).map_err(|error| failed(directory, error))?;
    let mount = fs::read_to_string("/proc/mounts").ok().and_then(|text| mount(&text, &resolved));
    let (device, filesystem) = mount.unzip();
    Ok(Disk { filesystem, device })
}

/// Device and type of the mount that holds `path`: of those with the longest mount point the last,
/// since it covers the others.
fn mount(mounts: &str, path: &Path) -> Option<(String, String)> {
    let mut best: Option<(usize, String, String)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // White space in a mount point is written as an octal number.
        let point = PathBuf::from(point.replace("\\040", " ").replace("\\011", "\t"));
        let length = point.components().count();
        if path.starts_with(&point) && best.as_ref().is_none_or(|(known, ..)| length >= *known) {
            best = Some((length, device.to_owned(), kind.to_owned()));
        }
    }
    best.map(|(_, device, kind)| (device, kind))
}

/// How long it takes to make a page durable that overwrites one in a file, as a write-ahead log does;
/// [`ROUNDS`] times.
pub(super) fn time_fsync(directory: &Path) -> Result<Vec<Duration>> {
    let measured = (|| {
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(&[0; 4096])?;
        file.as_file().sync_all()?;
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&[u8::try_from(round).unwrap_or(0); 4096])?;
            let begun = Instant::now();
            file.as_file().sync_all()?;
            times.push(begun.elapsed());
        }
        Ok(times)
    })();
    measured.map_err(|error| failed(directory, error))
}

/// The bytes of all files that hold a store.
pub(super) fn bytes_of(store: &Path) -> u64 {
    files_of(store).filter_map(|path| fs::metadata(path).ok()).map(|metadata| metadata.len()).sum()
}

pub(super) fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "a file of the demonstration cannot be used")
        .with("path", path.display())
        .because(error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n\
                      /dev/vdb /tmp/with\\040space xfs rw 0 0\nbroken\n";
        let kind = |path: &str| mount(mounts, Path::new(path)).unwrap().1;
        assert_eq!(kind("/home/x"), "ext4");
        assert_eq!(kind("/tmp/x"), "tmpfs");
        assert_eq!(kind("/tmp/with space/x"), "xfs");
        assert_eq!(kind("/tmpfile"), "ext4");
        assert_eq!(mount("", Path::new("/")), None);
    }
}
