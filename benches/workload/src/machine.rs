//! What the machine tells about itself.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Spread;
use crate::results::Machine;

/// Where stores are made: `GHOSTWIRE_BENCH_DIR`, else the directory for temporary files. It should
/// be on the disk that is to be measured.
pub fn directory() -> PathBuf {
    std::env::var_os("GHOSTWIRE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// An empty directory in another, which only its owner may enter, removed when dropped.
pub fn scratch(directory: &Path) -> std::io::Result<tempfile::TempDir> {
    let mut scratch = tempfile::Builder::new();
    scratch.prefix("ghostwire-bench-");
    #[cfg(unix)]
    scratch.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    scratch.tempdir_in(directory)
}

/// The bytes of the files in a directory and below.
pub fn files_in(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let found = entry.metadata().ok()?;
        Some(if found.is_dir() { files_in(&entry.path()) } else { found.len() })
    });
    sizes.sum()
}

/// What it is, and how fast the disk below `directory` makes a page durable.
pub fn examine(directory: &Path, allocator: &str, rounds: usize) -> std::io::Result<Machine> {
    let times = fdatasync(directory, rounds)?;
    let (device, file_system) = mounted(directory).unwrap_or_default();
    Ok(Machine {
        processor: cpu_model(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel: kernel(),
        allocator: allocator.to_owned(),
        file_system,
        device,
        fdatasync_us: Spread::of(times.iter().map(|time| time.as_secs_f64() * 1e6)),
    })
}

/// Device and type of the file system that holds a directory, as Linux tells them.
fn mounted(directory: &Path) -> Option<(String, String)> {
    let resolved = std::fs::canonicalize(directory).ok()?;
    innermost(&std::fs::read_to_string("/proc/mounts").ok()?, &resolved)
}

/// Of the mounts that hold `path`, the one with the longest mount point: of several the last,
/// since it covers the others.
fn innermost(mounts: &str, path: &Path) -> Option<(String, String)> {
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

/// How long it takes to append so many bytes to a file and make them durable, again and again for
/// a while.
pub fn append_and_sync(
    directory: &Path,
    bytes: usize,
    during: Duration,
) -> std::io::Result<Vec<Duration>> {
    let path = directory.join("append");
    let mut file = std::fs::File::create(&path)?;
    let block = vec![0x5a; bytes];
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < during {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(times)
}

/// How long it takes to write 4 KiB over a file's beginning and make them durable: `rounds` times.
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
pub fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

pub fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The memory of this process that is resident; 0 where Linux does not tell.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

/// The processor time of this process so far: of the threads with this name, and of all others
/// that still run.
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

/// The first process of a PostgreSQL server on this machine; all others of the server are its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Postmaster(u32);

impl Postmaster {
    /// Whose child the process of a session is; `None` if this machine does not show that process, as of a
    /// server in a container.
    pub fn of_session(process: u32) -> Option<Self> {
        let parent = parent(process)?;
        let is_one = |process| {
            let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
            name.is_ok_and(|name| name.trim() == "postgres")
        };
        (is_one(process) && is_one(parent)).then_some(Self(parent))
    }

    /// For another process of this program.
    pub fn number(self) -> u32 {
        self.0
    }

    /// What [`Postmaster::number`] gave.
    pub fn of_number(number: u32) -> Self {
        Self(number)
    }

    /// The processor time so far of all processes of the server that still run.
    pub fn cpu(self) -> Duration {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let of_server = |process: &u32| *process == self.0 || parent(*process) == Some(self.0);
        let spent = |process: u32| {
            let told = std::fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
            told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
        };
        numbers.filter(of_server).filter_map(spent).sum()
    }
}

fn parent(process: u32) -> Option<u32> {
    let told = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, after) = told.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_parent_and_is_no_server() {
        let here = std::process::id();
        assert!(parent(here).is_some());
        assert_eq!(Postmaster::of_session(here), None);
        let spent = Postmaster::of_number(here).cpu();
        assert!(spent > Duration::ZERO);
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n\
                      /dev/vdb /tmp/with\\040space xfs rw 0 0\nbroken\n";
        let kind = |path: &str| innermost(mounts, Path::new(path)).map(|(_, kind)| kind);
        assert_eq!(kind("/home/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/with space/x").as_deref(), Some("xfs"));
        assert_eq!(innermost("", Path::new("/")), None);
    }
}
