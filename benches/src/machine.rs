//! What the machine tells about itself.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where stores are made: `GHOSTWIRE_BENCH_DIR`, else the directory for temporary files. It should
/// be on the disk that is to be measured.
#[must_use]
pub fn directory() -> PathBuf {
    std::env::var_os("GHOSTWIRE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// An empty directory there, removed when dropped.
///
/// # Errors
/// If it cannot be made.
pub fn scratch() -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("ghostwire-bench-").tempdir_in(directory())
}

/// How long it takes to write 4 KiB over a file's beginning and make them durable: `rounds` times.
///
/// # Errors
/// If the file cannot be written.
pub fn fdatasync(directory: &Path, rounds: usize) -> std::io::Result<Vec<Duration>> {
    let path = directory.join("fdatasync");
    let mut file = std::fs::File::create(&path)?;
    let page = [0x5a; 4096];
    file.write_all(&page)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let began = Instant::now();
        file.rewind()?;
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(times)
}

/// The processor's name, as Linux tells it.
#[must_use]
pub fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

/// The kernel's version.
#[must_use]
pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The memory of this process that is resident; 0 where Linux does not tell.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

/// The processor time of this process so far: of the threads with this name, and of all others
/// that still run.
#[must_use]
pub fn thread_cpu(name: &str) -> (Duration, Duration) {
    let mut named = Duration::ZERO;
    let mut others = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read =
            |file: &str| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let nanoseconds = read("schedstat").split(' ').next().and_then(|n| n.parse().ok());
        let spent = Duration::from_nanos(nanoseconds.unwrap_or(0));
        // Linux cuts names to 15 bytes.
        if read("comm").trim() == name.get(..15).unwrap_or(name) {
            named += spent;
        } else {
            others += spent;
        }
    }
    (named, others)
}

/// Median and range of a figure.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    /// The smallest.
    pub least: f64,
    /// The one in the middle.
    pub median: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of these; all zero of none.
    #[must_use]
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or_default();
        Self {
            least: at(0),
            median: at(figures.len() / 2),
            most: at(figures.len().saturating_sub(1)),
        }
    }
}
