//! The ZQLite library, for zqlite stores with `engine = "native"`: its self-test, and the child that
//! loads it.
//!
//! A program that is `zqlite.program` calls [`run_child`] before anything else; `gwstore` does.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_zqlite::NativeOptions;
use ghostwire_store_zqlite_native::admission::{self, LIMIT};
use ghostwire_store_zqlite_native::{LibraryFile, child};

pub use ghostwire_store_zqlite_native::Program;
pub use ghostwire_store_zqlite_native::admission::{
    Conformance, Effort, Examination, Outcome, Report, SCRATCH_STORE, STEPS, SUITE_LIMIT, Step,
    Suite, SuiteRun, Verdict, examine, verdict_path,
};

use crate::config::{BackendChoice, Config, ZqliteEngine, ZqliteOptions};

/// The argument that makes a program the child.
pub const CHILD: &str = "zqlite-native";

/// The program that is the child, by default.
const PROGRAM: &str = "gwstore";

/// Does the job of the child that loads the library, if this process was started as one.
#[must_use]
pub fn run_child() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let is_child = arguments.next().is_some_and(|first| first == CHILD);
    (is_child && arguments.next().is_none()).then(child::run)
}

fn program(options: &ZqliteOptions) -> Result<Program> {
    let beside = || {
        std::env::current_exe().map(|own| own.with_file_name(PROGRAM)).map_err(|error| {
            Error::invalid(
                "it cannot be told where this program is, and so not which gwstore loads the ZQLite library; \
                 set zqlite.program",
            )
            .because(error)
        })
    };
    let path = options.program.as_deref().map_or_else(beside, absolute)?;
    Ok(Program { path, arguments: vec![CHILD.into()] })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Error::invalid("a path cannot be made absolute").with("path", path.display()).because(error)
    })
}

fn library(config: &Config, options: &ZqliteOptions) -> Result<PathBuf> {
    match &options.library {
        Some(library) => absolute(library),
        None => Err(Error::invalid("the native engine needs the ZQLite library's file; name it")
            .with("key", config.store_key("library"))),
    }
}

/// What the configured store's engine needs.
pub(crate) fn engine(config: &Config, options: &ZqliteOptions) -> Result<NativeOptions> {
    Ok(NativeOptions::new(library(config, options)?, program(options)?))
}

/// The self-test of the configured library, or of another one, for the configured store. It is without the
/// conformance suite: who has that sets [`Examination::suite`].
///
/// # Errors
/// `InvalidArgument` if the store is none of zqlite's, or no library is named.
pub fn examination(config: &Config, other: Option<&Path>, effort: Effort) -> Result<Examination> {
    let BackendChoice::Zqlite(options) = &config.backend else {
        return Err(Error::invalid(
            "the ZQLite library is for stores of zqlite; choose that backend",
        )
        .with("backend", config.backend.kind()));
    };
    let library = match other {
        Some(other) => absolute(other)?,
        None => library(config, options)
            .map_err(|error| error.with("source", config.origin_of(&config.store_key("engine"))))?,
    };
    let (program, store) = (program(options)?, options.path.clone());
    let suite = Suite::NotBuilt;
    Ok(Examination { program, library, store, effort, limit: LIMIT, suite })
}

/// Whether the configured store is on the native engine.
#[must_use]
pub fn is_chosen(config: &Config) -> bool {
    matches!(&config.backend, BackendChoice::Zqlite(options) if options.engine == ZqliteEngine::Native)
}

/// Refuses unless a self-test says that this library is fit for that store.
///
/// # Errors
/// `Unsupported`, saying what is missing or changed; those of reading the library.
pub fn require(examination: &Examination) -> Result<Verdict> {
    let file = LibraryFile::read(&examination.library)?;
    let Examination { store, program, .. } = examination;
    admission::require(store, file.path(), file.sha256(), &program.path)
}
