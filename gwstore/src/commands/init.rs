//! `gwstore init`.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store::config::Config;
use ghostwire_store::{Error, ErrorKind, Result, Store, hash_key_is_absent};
use ghostwire_store_core::block::Serial;
use ghostwire_store_sqlite::directory_of;
use serde_json::json;

use crate::failure::{Outcome, with_help};
use crate::keyring;
use crate::output::{Shell, printable, shown};
use crate::permissions::{owner, this_user, writable_by_others};
use crate::session::{open_to_read, opener, store_exists};

/// What was made.
pub(super) struct Made {
    pub(super) store: std::sync::Arc<dyn Store>,
    /// Of a store that is a file.
    path: Option<PathBuf>,
    key: Option<PathBuf>,
    key_is_new: bool,
    /// Of a sealed store.
    keyring: Option<PathBuf>,
    /// The root secret, if it was made with the store.
    root: Option<PathBuf>,
}

/// Makes the configured store and its hash key.
pub(super) async fn run(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let made = create(config).await.map_err(|error| error.during("init"))?;
    let info = made.store.info();
    made.store.close().await?;
    made.caution(shell);
    if shell.json {
        return shell.object(&json!({
            "backend": info.backend.name,
            "path": made.path,
            "location": info.backend.location,
            "secret_key_file": made.key,
            "secret_key_is_new": made.key_is_new,
            "keyring": made.keyring,
            "root_secret_file": made.root,
        }));
    }
    made.explain(config, shell)?;
    let options = if std::env::args_os().len() > 2 { " with the same options" } else { "" };
    shell.say(format_args!(
        "\nNext: `gwstore doctor`{options} checks the installation, `gwstore import headscale FILE` \
         brings in\nan existing network, and `gwstore status` shows what is there."
    ))
}

impl Made {
    /// Says whom the directories let replace what was made.
    fn caution(&self, shell: &mut Shell<'_>) {
        let files =
            [self.path.as_ref(), self.key.as_ref(), self.keyring.as_ref(), self.root.as_ref()];
        let mut directories: Vec<&Path> =
            files.into_iter().flatten().map(|file| directory_of(file)).collect();
        directories.sort_unstable();
        directories.dedup();
        for directory in directories {
            // What cannot be looked up the doctor reports.
            let mode = fs::metadata(directory).ok().as_ref().and_then(writable_by_others);
            if let Some(mode) = mode {
                let shown = shown(directory);
                shell.caution(format_args!(
                    "{shown} can be written by others (mode {mode:o}), who could replace the store \
                     and its key: run `chmod go-w` on it"
                ));
            }
        }
    }

    /// Says where things are.
    pub(super) fn explain(&self, config: &Config, shell: &mut Shell<'_>) -> Outcome {
        let backend = self.store.info().backend;
        let place = match &self.path {
            Some(path) => shown(path),
            None => printable(backend.location.as_deref().unwrap_or_default()),
        };
        shell.say(format_args!("Made a {} store at {place}", backend.name))?;
        let metadata = self.path.as_ref().and_then(|path| fs::metadata(path).ok());
        let owner = metadata.as_ref().and_then(owner);
        if let Some(owner) = owner.filter(|owner| this_user() != Some(*owner)) {
            shell.say(format_args!(
                "What was made belongs to user {owner}, as its directory does"
            ))?;
        }
        #[cfg(feature = "zqlite")]
        if let (Some(keyring), Some(keys)) =
            (&self.keyring, ghostwire_store::keys::Keys::of(config))
        {
            shell.say(format_args!("Made its keyring at {}", shown(keyring)))?;
            super::keys::explain_root(&keys, self.root.as_deref(), shell)?;
        }
        let Some(key) = &self.key else { return Ok(()) };
        let made = if self.key_is_new { "Made its hash key" } else { "Uses the hash key" };
        shell.say(format_args!("{made} at {}", shown(key)))?;
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
    if let Some(name) = &config.migration.target
        && store_exists(&config.for_store(name)?)
    {
        return Err(with_help(
            Error::new(
                ErrorKind::Restricted,
                "the store that the network moves to is there; none is made beside it",
            )
            .with("target", name),
            "name that one as `store`, or leave migration.target out until the other one is made",
        ));
    }
    let found = in_database(config).await?;
    match config.backend.path() {
        Some(path) if store_exists(config) && !is_unfinished(config, path).await? => {
            let error = Error::new(
                ErrorKind::AlreadyExists { constraint: "path" },
                "there is a file already; it was left as it is",
            );
            return Err(with_help(
                error.with("path", path.display()),
                "`gwstore status` shows what it holds; choose another with --path",
            ));
        }
        Some(_) => {}
        None if found == InDatabase::Store => {
            let error = Error::new(
                ErrorKind::AlreadyExists { constraint: "schema" },
                "there is a store in this schema already; it was left as it is",
            );
            return Err(with_help(
                error.with("database", config.backend.server().unwrap_or_default()),
                "`gwstore status` shows what it holds; choose another with --set postgres.schema=NAME",
            ));
        }
        None if config.backend.server().is_some() => {}
        None => {
            let message = "this backend has no files that could be made";
            let error = Error::new(ErrorKind::Unsupported, message);
            return Err(error
                .with("backend", config.backend.kind())
                .with("help", "choose libsql or zqlite with --backend, or in the flag file"));
        }
    }
    let is_in_keyring = config.is_sealed() && config.secret_key_file.is_none();
    let key = config.secret_key_path().filter(|_| !is_in_keyring);
    let files = keyring::files(config);
    let (keyring, root) = (files.first().cloned(), files.get(1).filter(|root| !root.exists()));
    let root = root.cloned();
    let key_is_new = key.as_deref().map(hash_key_is_absent).transpose()?.unwrap_or(false);
    #[cfg(feature = "zqlite-native")]
    super::native::admit(config)?;
    // Who is second must not believe to have made it, nor leave a key that is of nothing.
    let only_new = found == InDatabase::Nothing;
    let store = opener(config).create(true).only_new(only_new).open().await?;
    let path = config.backend.path().map(Path::to_owned);
    Ok(Made { store, path, key, key_is_new, keyring, root })
}

/// What is in the configured database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InDatabase {
    /// There is no store, or the store is a file.
    Nothing,
    /// The tables of a store that was never opened with a key: making it was broken off.
    Unfinished,
    Store,
}

/// Looks for a store that is no file.
pub(super) async fn in_database(config: &Config) -> Result<InDatabase> {
    if config.backend.server().is_none() {
        return Ok(InDatabase::Nothing);
    }
    match open_to_read(config).await {
        Ok(backend) => {
            let head = backend.head().await;
            backend.close().await?;
            let head = head?;
            match head.serial == Serial::ZERO && head.credential_key.is_none() {
                true => Ok(InDatabase::Unfinished),
                false => Ok(InDatabase::Store),
            }
        }
        Err(error) if *error.kind() == ErrorKind::NotFound => Ok(InDatabase::Nothing),
        Err(error) => Err(error),
    }
}

/// Whether what is there is no store yet, or lacks its key and holds nothing. What cannot be read may
/// be half a store; opening it to write tells whether it is.
async fn is_unfinished(config: &Config, path: &Path) -> Result<bool> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(true);
    }
    let lacks_key = match (keyring::is_unused(config)?, config.secret_key_path()) {
        (Some(is_unused), _) => is_unused,
        (None, Some(key)) => hash_key_is_absent(&key)?,
        (None, None) => false,
    };
    let backend = match open_to_read(config).await {
        Ok(backend) => backend,
        Err(error) => return Ok(lacks_key || *error.kind() == ErrorKind::NotFound),
    };
    let is_empty = backend.head().await.is_ok_and(|head| head.serial == Serial::ZERO);
    // It was only read.
    let _ = backend.close().await;
    Ok(lacks_key && is_empty)
}
