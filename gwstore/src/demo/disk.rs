//! What the stores lie on.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::files_of;
use tempfile::NamedTempFile;

/// How often making a file durable is tried at a time.
pub(super) const ROUNDS: usize = 25;

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
