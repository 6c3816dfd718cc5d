//! The suite on zqlite's native engine, whose scratch stores need the library and a verdict on it.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store::config::{BackendChoice, Config, ZqliteEngine, ZqliteOptions};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_conformance::{LocalFiles, Opening};
use serde::{Deserialize, Serialize};

use crate::failure::file_error;

/// As the exceptions call it.
const NAME: &str = "zqlite-native";

/// In the directory that the directories of scratch stores lie in: which library they need. It is not beside
/// the stores, whose files are damaged on purpose.
const LIBRARY: &str = "library.json";

#[derive(Debug, Serialize, Deserialize)]
struct Library {
    library: Option<PathBuf>,
    program: Option<PathBuf>,
}

/// Scratch stores on the configured library in this directory, where [`PROBE`](super::PROBE) has a verdict on it.
pub(super) fn files_in(config: &Config, scratch: &Path) -> Result<LocalFiles> {
    let BackendChoice::Zqlite(options) = &config.backend else {
        return Err(Error::invalid("the native engine is zqlite's; choose that backend")
            .with("backend", config.backend.kind()));
    };
    let (library, program) = (options.library.clone(), options.program.clone());
    let path = scratch.join(LIBRARY);
    let written = serde_json::to_vec(&Library { library, program })
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(&path, text));
    written.map_err(|error| file_error("no scratch store can be made", Some(&path), error))?;
    Ok(files().within(scratch))
}

/// Scratch stores in directories that [`files_in`] prepared, also for processes that are to be killed, which know
/// nothing but where a store lies.
pub(super) fn files() -> LocalFiles {
    let files = LocalFiles::new(NAME, |path, opening: Opening| async move {
        let config = config_of(path, opening.read_only)?;
        super::open(&config, opening).await
    });
    files.opaque()
}

fn config_of(path: PathBuf, is_read_only: bool) -> Result<Config> {
    // Cases copy stores without what lies beside them.
    let mut options = ZqliteOptions { path, sealed: false, ..ZqliteOptions::default() };
    // The copy from before a migration is a file of the embedded engine.
    if !fs::read(&options.path).is_ok_and(|content| content.starts_with(b"SQLite format 3")) {
        let scratch = options.path.parent().and_then(Path::parent).ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "a scratch store lies in no directory")
                .with("path", options.path.display())
        })?;
        let known = scratch.join(LIBRARY);
        let text = fs::read(&known).map_err(|error| {
            file_error("the library of a scratch store is not known", Some(&known), error)
        })?;
        let Library { library, program } = serde_json::from_slice(&text).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "the library of a scratch store is not known")
                .with("path", known.display())
                .because(error)
        })?;
        // Whoever only reads makes nothing, not even that.
        if !is_read_only {
            super::lend_verdict(&scratch.join(super::PROBE), &options.path);
        }
        (options.library, options.program) = (library, program);
        options.engine = ZqliteEngine::Native;
    }
    Ok(Config { backend: BackendChoice::Zqlite(options), ..Config::default() })
}
