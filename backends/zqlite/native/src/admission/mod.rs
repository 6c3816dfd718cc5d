//! Whether a library is to be trusted with a store: a self-test, and its verdict.
//!
//! The test writes scratch databases where the store is to be, each part in a fresh child with a time
//! limit, the cheapest first and the conformance suite last, and ends with the first property that does not
//! hold. Its verdict holds for these bytes of the library and of the program that loads it, this machine, its
//! kernel and this file system; a store is only opened with one.

mod steps;
mod suite;
mod verdict;

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_sqlite::{TEST_DIRECTORY, create_private_directory, directory_of};

pub use steps::STEPS;
use steps::{How, Trial};
pub use suite::{Conformance, SCRATCH_STORE, SUITE_LIMIT, Suite, SuiteRun};
pub use verdict::{Verdict, require, verdict_path};

use crate::library_file::LibraryFile;
use crate::process::Program;
use crate::session::{Host, Loaded};

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// SIGKILLs inside a transaction.
    pub kills_in_transaction: u32,
    /// SIGKILLs during commits of 200 pages and more.
    pub kills_in_commit: u32,
    /// Rows of the test of volume.
    pub rows: u32,
}

impl Effort {
    /// What a verdict should come from.
    pub const FULL: Self = Self { kills_in_transaction: 200, kills_in_commit: 500, rows: 50_000 };
    /// For a look, and for tests.
    pub const REDUCED: Self = Self { kills_in_transaction: 10, kills_in_commit: 25, rows: 35_000 };
}

/// What to examine, and where.
#[derive(Debug, Clone)]
pub struct Examination {
    /// What loads the library.
    pub program: Program,
    /// The library's file.
    pub library: PathBuf,
    /// The store that the verdict is for, which need not be there: the scratch files lie beside it.
    pub store: PathBuf,
    /// How much is tried.
    pub effort: Effort,
    /// How long a part may take, but for the last step.
    pub limit: Duration,
    /// What becomes of the last step.
    pub suite: Suite,
}

/// How long a part of the self-test may take by default.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// The property holds, as far as it was tried.
    Passed,
    /// It was looked at, and nothing depends on it.
    Information,
    /// The property does not hold.
    Failed,
    /// An earlier one did not.
    Skipped,
    /// It could not be tried, or was not to be.
    #[serde(rename = "not run")]
    NotRun,
}

impl Outcome {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Information => "information",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NotRun => "not run",
        }
    }
}

/// A step of the self-test, done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The property's name.
    pub name: String,
    /// Whether it holds.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// How long it took.
    pub milliseconds: u64,
}

impl Step {
    fn not_run(name: &str, why: &str) -> Self {
        let (outcome, name, detail) = (Outcome::NotRun, name.to_owned(), why.to_owned());
        Self { name, outcome, detail, milliseconds: 0 }
    }
}

/// What the self-test found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Every step, in order.
    pub steps: Vec<Step>,
    /// `None` if the library could not be loaded.
    pub loaded: Option<Loaded>,
    /// `None` if the library is refused.
    pub verdict: Option<Verdict>,
}

impl Report {
    /// Refuses with the name of the property that does not hold.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn require(&self) -> Result<&Verdict> {
        let failed = self.steps.iter().find(|step| step.outcome == Outcome::Failed);
        match (&self.verdict, failed) {
            (Some(verdict), None) => Ok(verdict),
            (_, Some(step)) => {
                Err(refused().with("property", &step.name).with("found", &step.detail))
            }
            (None, None) => Err(refused()),
        }
    }
}

fn refused() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the ZQLite library did not pass the self-test, and no store is opened with it; use another \
         version of it, or set the engine to `embedded`",
    )
}

/// Runs the self-test, and tells each step when it is done. Nothing is kept of it, and no store is
/// touched.
///
/// # Errors
/// If the library's file is not one to load ([`LibraryFile::read`]), or the scratch files cannot be made.
/// A library that does not pass is no error here: see [`Report::require`].
pub fn examine(examination: &Examination, mut tell: impl FnMut(&Step)) -> Result<Report> {
    let file = LibraryFile::read(&examination.library)?;
    let host = Host {
        program: examination.program.clone(),
        library: file.path().to_owned(),
        sha256: file.sha256(),
        deadline: examination.limit,
    };
    let scratch = Scratch::beside(&examination.store)?;
    let mut trial = Trial::new(&host, &scratch.path, examination.effort);
    let judged = |trial: &Trial<'_>, conformance, steps: &[Step]| {
        let (program, store) = (&examination.program.path, &examination.store);
        let verdict = trial.loaded.as_ref().map(|loaded| {
            Verdict::new(&file, program, loaded, store, trial.done, conformance, steps)
        });
        verdict.transpose()
    };
    let (mut steps, mut is_refused) = (Vec::<Step>::new(), false);
    for step in STEPS {
        let began = Instant::now();
        let (outcome, detail) = match step.how {
            _ if is_refused => (Outcome::Skipped, String::new()),
            How::Property(run) => decided(run(&mut trial)),
            How::Information(run) => {
                let (Ok(found) | Err(found)) = run(&mut trial);
                (Outcome::Information, found)
            }
            How::Suite => match &examination.suite {
                Suite::Run(run) => {
                    let mut so_far = steps.clone();
                    so_far.push(Step::not_run(step.name, "it is under way"));
                    let provisional = judged(&trial, Conformance::UnderWay, &so_far)?;
                    let provisional = provisional.ok_or_else(|| "nothing was loaded".to_owned());
                    decided(
                        provisional.and_then(|it| run.within(&scratch.path, &scratch.lock, &it)),
                    )
                }
                Suite::LeftOut => (Outcome::NotRun, "it was left out, as was asked".to_owned()),
                Suite::NotBuilt => (
                    Outcome::NotRun,
                    "this program has no suite: build gwstore with --features \
                     zqlite-native,conformance"
                        .to_owned(),
                ),
            },
        };
        is_refused |= outcome == Outcome::Failed;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let done = Step { name: step.name.to_owned(), outcome, detail, milliseconds };
        tell(&done);
        steps.push(done);
    }
    let verdict = match is_refused {
        true => None,
        false => judged(&trial, examination.suite.extent(), &steps)?,
    };
    Ok(Report { steps, loaded: trial.loaded.take(), verdict })
}

fn decided(found: std::result::Result<String, String>) -> (Outcome, String) {
    match found {
        Ok(found) => (Outcome::Passed, found),
        Err(wrong) => (Outcome::Failed, wrong),
    }
}

/// A directory for scratch databases, which is locked while it is used. Dropped, it is removed.
struct Scratch {
    path: PathBuf,
    lock: fs::File,
}

impl Scratch {
    fn beside(store: &Path) -> Result<Self> {
        let directory = directory_of(store).canonicalize().map_err(|error| {
            Error::new(ErrorKind::NotFound, "the store's directory cannot be found")
                .with("path", store.display())
                .because(error)
        })?;
        let mut name = store.file_name().unwrap_or_default().to_owned();
        name.push(TEST_DIRECTORY);
        let path = directory.join(name);
        let failed = |error| {
            ghostwire_store_sqlite::failed(
                "no scratch files can be made for the self-test",
                &path,
                error,
            )
        };
        match create_private_directory(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let lock = fs::File::options().read(true).custom_flags(flags).open(&path);
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "a self-test is under way beside this store; wait for its end",
                )
                .with("path", path.display()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        // What one left that was broken off.
        for entry in fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let removed = match entry.file_type().map_err(failed)?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            removed.map_err(failed)?;
        }
        Ok(Self { path, lock })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "scratch files of the self-test stay");
        }
    }
}
