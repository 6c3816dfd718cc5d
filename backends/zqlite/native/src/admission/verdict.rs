//! What a self-test comes to, kept beside the store.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{
    TEST_DIRECTORY, VERDICT_FILE, create_private, directory_of, failed, with_suffix,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::steps::CONFORMANCE;
use super::{Conformance, Effort, Outcome, Step};
use crate::library_file::LibraryFile;
use crate::session::Loaded;

/// The form of the file.
const FORM: u32 = 3;

/// Longer than any.
const MAX_LENGTH: u64 = 64 << 10;

/// That a library passed, where, loaded by what, and how much of it was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    form: u32,
    /// The library's sum, in hexadecimal digits.
    pub sha256: String,
    /// What the library calls its version.
    pub version: String,
    /// The number of its interface.
    pub abi: u64,
    /// The kernel's name, release, version and machine.
    pub kernel: String,
    /// The file system's type, device and number.
    pub filesystem: String,
    /// A sum of the machine's number, which is nobody else's business itself.
    pub machine: String,
    /// The sum of the program that loads the library.
    pub program: String,
    /// Seconds since 1970.
    pub at: u64,
    /// SIGKILLs inside a transaction.
    kills_in_transaction: u32,
    /// SIGKILLs before a commit was acknowledged.
    kills_in_commit: u32,
    /// Rows of the test of volume.
    rows: u32,
    /// How much of the conformance suite was run.
    conformance: Conformance,
    /// Every step.
    pub steps: Vec<Step>,
}

/// Where the verdict for a store is.
#[must_use]
pub fn verdict_path(store: &Path) -> PathBuf {
    with_suffix(store, VERDICT_FILE)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn kernel() -> String {
    let name = rustix::system::uname();
    let parts = [name.sysname(), name.release(), name.version(), name.machine()];
    parts.map(|part| part.to_string_lossy().into_owned()).join(" ")
}

fn filesystem(store: &Path) -> Result<String> {
    let directory = directory_of(store);
    let unknown =
        |error: std::io::Error| failed("the file system cannot be told", directory, error);
    let kind = rustix::fs::statfs(directory).map_err(|error| unknown(error.into()))?.f_type;
    let device = fs::metadata(directory).map_err(unknown)?.dev();
    let number = rustix::fs::statvfs(directory).map_err(|error| unknown(error.into()))?.f_fsid;
    Ok(format!("type {kind:#x} device {device:#x} number {number:#x}"))
}

/// Of this installation of the system: <https://www.freedesktop.org/software/systemd/man/latest/machine-id.html>.
fn machine() -> String {
    let mut text = Vec::new();
    let read =
        File::open("/etc/machine-id").and_then(|file| file.take(MAX_LENGTH).read_to_end(&mut text));
    match read {
        Ok(_) => {
            let sum = Sha256::new().chain_update("ghostwire-store verdict\0").chain_update(text);
            hexadecimal(&sum.finalize())
        }
        Err(_) => "unknown".to_owned(),
    }
}

/// A file that nobody changed since it was last summed.
type Identity = (PathBuf, [i64; 6]);

/// The sum of the program that loads the library. It is no secret, and large: it is read once for as long as
/// the file stays what it is.
fn program_sum(path: &Path) -> Result<String> {
    static KNOWN: Mutex<Option<(Identity, String)>> = Mutex::new(None);
    let unreadable = |error: std::io::Error| {
        failed("the program that loads the ZQLite library cannot be read", path, error)
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let numbers = [metadata.dev(), metadata.ino(), metadata.len()].map(u64::cast_signed);
    let [device, inode, length] = numbers;
    let changed = metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec());
    let written = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
    let mode = i64::from(metadata.mode());
    let identity = (path.to_owned(), [device, inode, length, changed, written, mode]);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, sum)) = &*known
        && *of == identity
    {
        return Ok(sum.clone());
    }
    let mut sum = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).map_err(unreadable)? {
            0 => break,
            read => sum.update(piece.get(..read).unwrap_or_default()),
        }
    }
    let sum = hexadecimal(&sum.finalize());
    *known = Some((identity, sum.clone()));
    Ok(sum)
}

impl Verdict {
    pub(crate) fn new(
        file: &LibraryFile,
        program: &Path,
        loaded: &Loaded,
        store: &Path,
        effort: Effort,
        conformance: Conformance,
        steps: &[Step],
    ) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            form: FORM,
            sha256: hexadecimal(&file.sha256()),
            version: loaded.version.clone(),
            abi: loaded.abi,
            kernel: kernel(),
            filesystem: filesystem(store)?,
            machine: machine(),
            program: program_sum(program)?,
            at: now.map_or(0, |since| since.as_secs()),
            kills_in_transaction: effort.kills_in_transaction,
            kills_in_commit: effort.kills_in_commit,
            rows: effort.rows,
            conformance,
            steps: steps.to_vec(),
        })
    }

    /// Whether as much was tried as a store needs: [`Effort::FULL`], or more, and the whole conformance suite,
    /// unless the operator left that out.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let least = Effort::FULL;
        self.kills_in_transaction >= least.kills_in_transaction
            && self.kills_in_commit >= least.kills_in_commit
            && self.rows >= least.rows
            && matches!(self.conformance, Conformance::Whole | Conformance::LeftOut)
    }

    /// Keeps it beside the store, in place of an earlier one.
    ///
    /// # Errors
    /// `Unsupported` if it is not full; those of the file system.
    pub fn keep(&self, store: &Path) -> Result<()> {
        if !self.is_full() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "too little of the ZQLite library was tried for a verdict; test it with the default numbers \
                 of kills and rows, and with the whole conformance suite",
            ));
        }
        self.write(store)
    }

    /// Writes it beside a store, in place of an earlier one.
    pub(super) fn write(&self, store: &Path) -> Result<()> {
        let path = verdict_path(store);
        let part = with_suffix(&path, ".part");
        let keep = || {
            match fs::remove_file(&part) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = create_private(&part, directory_of(store))?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(directory_of(store))?.sync_all()
        };
        keep().map_err(|error| failed("the verdict on the library cannot be kept", &path, error))
    }

    /// What is kept beside the store; `None` if nothing is.
    fn kept(store: &Path) -> Result<Option<Self>> {
        let path = verdict_path(store);
        let mut text = Vec::new();
        // A pipe would be waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let opened = match File::options().read(true).custom_flags(flags).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(untrusted(&path));
            }
            opened => opened,
        };
        let unreadable = |error| failed("the verdict on the library cannot be read", &path, error);
        let file = opened.map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let user = rustix::process::geteuid().as_raw();
        let is_own = [0, user].contains(&metadata.uid()) && metadata.mode() & 0o022 == 0;
        if !metadata.is_file() || !is_own {
            return Err(untrusted(&path));
        }
        let read = file.take(MAX_LENGTH).read_to_end(&mut text);
        read.map_err(unreadable)?;
        // What cannot be understood is no verdict.
        let verdict = serde_json::from_slice::<Self>(&text).ok();
        Ok(verdict.filter(|verdict| verdict.form == FORM))
    }
}

/// Whoever may write a verdict decides which library runs.
fn untrusted(path: &Path) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the verdict on the ZQLite library is no regular file of root's or this process's user that nobody \
         else may write; remove it, and run `gwstore native check`",
    )
    .with("path", path.display())
}

/// Whether it is a scratch store in the directory of a self-test: the conformance suite opens such before there
/// is a verdict, and no other store is opened with a provisional one.
fn is_of_a_test(store: &Path) -> bool {
    let is_directory = |name: &OsStr| name.as_encoded_bytes().ends_with(TEST_DIRECTORY.as_bytes());
    std::path::absolute(store)
        .is_ok_and(|store| store.ancestors().skip(1).filter_map(Path::file_name).any(is_directory))
}

/// Refuses to open a store with a library that was not found fit for it, here.
///
/// # Errors
/// `Unsupported`, saying what is missing or changed.
pub fn require(store: &Path, library: &Path, sha256: [u8; 32], program: &Path) -> Result<Verdict> {
    let ask = |message: &'static str| {
        Error::new(ErrorKind::Unsupported, message).with("library", library.display()).with(
            "help",
            "run `gwstore native check`, which tests the library and keeps the verdict",
        )
    };
    let Some(verdict) = Verdict::kept(store)? else {
        return Err(ask("the ZQLite library was not tested for this store"));
    };
    let now = [
        ("library", &verdict.sha256, hexadecimal(&sha256)),
        ("kernel", &verdict.kernel, kernel()),
        ("file system", &verdict.filesystem, filesystem(store)?),
        ("machine", &verdict.machine, machine()),
        ("program", &verdict.program, program_sum(program)?),
    ];
    for (what, tested, found) in now {
        if *tested != found {
            return Err(ask("the ZQLite library's test no longer holds: something changed since")
                .with("changed", what)
                .with("tested", tested)
                .with("found", found));
        }
    }
    let is_provisional = verdict.conformance == Conformance::UnderWay && is_of_a_test(store);
    if !verdict.is_full() && !is_provisional {
        return Err(ask(
            "the ZQLite library was tested with fewer kills or rows than a store needs, or with less of the \
             conformance suite",
        ));
    }
    let passes = |step: &Step| match step.outcome {
        Outcome::Passed | Outcome::Information => true,
        Outcome::NotRun => step.name == CONFORMANCE && verdict.conformance != Conformance::Whole,
        Outcome::Failed | Outcome::Skipped => false,
    };
    let is_whole =
        super::STEPS.iter().map(|step| step.name).eq(verdict.steps.iter().map(|it| &*it.name));
    match is_whole && verdict.steps.iter().all(passes) {
        true => Ok(verdict),
        false => Err(ask("the ZQLite library's test was another one than this version's")),
    }
}
