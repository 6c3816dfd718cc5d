//! `gwstore init`.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use ghostwire_store::block::Serial;
use ghostwire_store::config::Config;
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store, read_hash_key};
use serde_json::json;

use crate::failure::{Outcome, file_error, with_help};
use crate::output::Shell;
use crate::session::{open_to_read, store_exists};

/// What was made.
pub(super) struct Made {
    pub(super) store: std::sync::Arc<dyn Store>,
    path: PathBuf,
    key: Option<PathBuf>,
    key_is_new: bool,
}

/// Makes the configured store and its hash key.
pub(super) async fn run(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let made = create(config).await.map_err(|error| error.during("init"))?;
    let info = made.store.info();
    made.store.close().await?;
    if shell.json {
        return shell.object(&json!({
            "backend": info.backend.name,
            "path": made.path,
            "secret_key_file": made.key,
            "secret_key_is_new": made.key_is_new,
        }));
    }
    made.explain(shell)?;
    let options = if std::env::args_os().len() > 2 { " with the same options" } else { "" };
    shell.say(format_args!(
        "\nNext: `gwstore doctor`{options} checks the installation, `gwstore import headscale FILE` \
         brings in\nan existing network, and `gwstore status` shows what is there."
    ))
}

impl Made {
    /// Says where things are.
    pub(super) fn explain(&self, shell: &mut Shell<'_>) -> Outcome {
        let backend = self.store.info().backend;
        shell.say(format_args!("Made a {} store at {}", backend.name, self.path.display()))?;
        let Some(key) = &self.key else { return Ok(()) };
        let made = if self.key_is_new { "Made its hash key" } else { "Uses the hash key" };
        shell.say(format_args!("{made} at {}", key.display()))?;
        shell.say(
            "Back the key up, and not beside the store: without it no API key, pre-auth key or \
             session\nis valid any more, and with it a stolen copy of the store can be used to \
             guess them.",
        )
    }
}

/// Makes a store where there is none, then its key: a key without a store says that one was lost.
/// One that was broken off in between is completed.
pub(super) async fn create(config: &Config) -> Result<Made> {
    let Some(path) = config.backend.path() else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this backend has no files that could be made",
        )
        .with("backend", config.backend.kind()));
    };
    if store_exists(config) && !path.is_dir() && !is_unfinished(config).await {
        let error = Error::new(
            ErrorKind::AlreadyExists { constraint: "path" },
            "there is a file already; it was left as it is",
        );
        return Err(with_help(
            error.with("path", path.display()),
            "`gwstore status` shows what it holds; choose another with --path",
        ));
    }
    let key = config.secret_key_path();
    let mut key_is_new = false;
    // The backend tells more precisely what is wrong with a directory.
    if let Some(key) = key.as_deref().filter(|_| !path.is_dir()) {
        make_directory(path)?;
        key_is_new = !has_key(key)?;
    }
    let store = Opener::new(config).create(true).open().await?;
    Ok(Made { store, path: path.to_owned(), key, key_is_new })
}

/// Whether what is there lacks its key and holds nothing yet. What cannot be read may be half a
/// store; opening it to write tells whether it is.
async fn is_unfinished(config: &Config) -> bool {
    if config.secret_key_path().is_none_or(|key| key.symlink_metadata().is_ok()) {
        return false;
    }
    let Ok(backend) = open_to_read(config).await else { return true };
    let is_empty = backend.head().await.is_ok_and(|head| head.serial == Serial::ZERO);
    // It was only read.
    let _ = backend.close().await;
    is_empty
}

/// Makes the store's own directory, but not the one above it: a path with a typo is an error.
fn make_directory(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(directory) = directory.filter(|directory| !directory.exists()) else {
        return Ok(());
    };
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory).map_err(|error| {
        let failed = file_error("the store's directory cannot be made", Some(directory), error);
        with_help(failed, "make the directory above it first, or correct the path")
    })
}

/// Tells whether the key is there, and refuses one that cannot be used or made.
fn has_key(path: &Path) -> Result<bool> {
    if path.symlink_metadata().is_ok() {
        return read_hash_key(path).map(|_| true);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if directory.is_some_and(|directory| !directory.is_dir()) {
        let error = Error::new(ErrorKind::NotFound, "the hash key's file cannot be written")
            .with("secret_key_file", path.display());
        return Err(with_help(
            error,
            "the key's directory has to exist; name another with secret_key_file",
        ));
    }
    Ok(false)
}
