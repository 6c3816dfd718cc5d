//! From the command line to a configuration, and from there to an open store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostwire_store::admin::{Client, Excerpt, RemoteBackend};
use ghostwire_store::command::EntityRecord;
use ghostwire_store::config::{self, BackendKind, Config, LoadRequest};
use ghostwire_store::domain::{AuditQuery, Limit, PageRequest};
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store, hash_key_is_absent};
use ghostwire_store_core::backend::{Backend, Compacted, Head, KeyRange, Scan};
use ghostwire_store_core::options::{StoreOptions, WriterOptions};
use ghostwire_store_core::schema::{RowKey, Schema, Table};
use ghostwire_store_core::store;

use crate::cli::GlobalOptions;
use crate::failure::{Failure, Outcome, with_help};
use crate::keyring;
use crate::live::{self, Found};
use crate::output::Shell;

/// Read if no other is named.
const DEFAULT_FLAG_FILE: &str = "feature-flags.toml";
/// Rows of a series that are read at a time.
const ROWS_PER_READ: usize = 10_000;

/// The configuration that holds for this call.
pub(crate) fn load_config(global: &GlobalOptions) -> Outcome<Config> {
    refuse_contradictions(global)?;
    let variables = config::process_variables()?;
    let mut overrides = global.set.clone();
    overrides.extend(global.store.iter().map(|name| ("store".to_owned(), name.clone())));
    let mut request = LoadRequest {
        path: flag_file(global),
        environment: global.environment.clone(),
        backend: global.backend.clone(),
        overrides,
    };
    let config = config::load(&request, &variables).map_err(|error| match error.kind() {
        ErrorKind::NotFound if request.path.is_none() => {
            with_help(error, "--config FILE names the flag file")
        }
        _ => error,
    })?;
    let key = config.store_key("backend");
    let is_other =
        |(set, value): &(String, String)| *set == key && Some(value) != global.backend.as_ref();
    if global.backend.is_some() && global.set.iter().any(is_other) {
        return Err(contradiction(&key, "--backend", &format!("--set {key}")));
    }
    let Some(path) = &global.path else { return Ok(config) };
    let key = config.store_key("path");
    let [given, absolute] = path_overrides(&config, path)?;
    let is_set = global.set.iter().any(|(set, value)| *set == key && *value != given);
    let absolutely = config.backend.path().and_then(|path| std::path::absolute(path).ok());
    if is_set && absolutely.is_none_or(|path| path != Path::new(&absolute)) {
        return Err(contradiction(&key, "--path", &format!("--set {key}")));
    }
    request.overrides.extend([given, absolute].map(|path| (key.clone(), path)));
    Ok(config::load(&request, &variables)?)
}

/// Refuses options that give one key different values: one of them would be ignored.
fn refuse_contradictions(global: &GlobalOptions) -> Outcome {
    let short = [
        ("environment", &global.environment),
        ("store", &global.store),
        ("backend", &global.backend),
    ];
    let short = short.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
    let mut given: Vec<_> =
        short.map(|(key, value)| (format!("--{key}"), key, value.as_str())).collect();
    for (key, value) in &global.set {
        let option = format!("--set {key}");
        if let Some((other, ..)) = given.iter().find(|(_, k, v)| k == key && v != value) {
            return Err(contradiction(key, other, &option));
        }
        given.push((option, key, value));
    }
    Ok(())
}

/// The values are not repeated: one may be a secret in the wrong place.
fn contradiction(key: &str, one: &str, other: &str) -> Failure {
    let message = "two options give this key different values: leave one of them out";
    let error = Error::invalid(message).with("key", key).with("options", format!("{one}, {other}"));
    Failure::usage(error.during("config.load"))
}

/// A name that is there counts, also if it leads nowhere: reading it tells what is wrong.
fn flag_file(global: &GlobalOptions) -> Option<PathBuf> {
    let is_absent = |path: &Path| {
        path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let default = || Some(PathBuf::from(DEFAULT_FLAG_FILE)).filter(|path| !is_absent(path));
    global.config.clone().or_else(default)
}

/// Which key `--path` stands for depends on the store and its backend. People mean the working directory, where
/// the configuration means that of the flag file. Before that the path is given as it is, so that it
/// is checked: made absolute, `libsql://db` is a path like others.
fn path_overrides(config: &Config, path: &Path) -> Result<[String; 2]> {
    let kind = config.backend.kind();
    if config.backend.path().is_none() {
        return Err(Error::invalid("--path: this backend has no store file")
            .with("backend", kind)
            .with("path", path.display())
            .with("help", "choose libsql or zqlite with --backend, or in the flag file"));
    }
    let absolute = std::path::absolute(path).map_err(|error| {
        Error::invalid("--path does not name a file").with("path", path.display()).because(error)
    })?;
    match (path.to_str(), absolute.to_str()) {
        (Some(given), Some(absolute)) => Ok([given, absolute].map(str::to_owned)),
        _ => Err(Error::invalid("--path and the working directory have to be valid UTF-8")
            .with("path", absolute.display())),
    }
}

/// Refuses a backend that keeps nothing, to which all work would be lost.
pub(crate) fn refuse_to_forget(config: &Config) -> Result<()> {
    if config.backend.kind() != BackendKind::Memory {
        return Ok(());
    }
    let error = Error::new(
        ErrorKind::Unsupported,
        "this backend keeps nothing: it begins empty, and all that it has is gone when this command \
         ends",
    );
    let error = error.with("backend", config.backend.kind());
    let error = error.with("source", config.origin_of(&config.store_key("backend")));
    Err(error.with("help", "choose another with --backend, or in the flag file"))
}

/// Whether the configured store is there. What is no file, or cannot be looked up, counts: opening
/// tells what it is. An empty file does not: it is what is left where a store could not be made.
pub(crate) fn store_exists(config: &Config) -> bool {
    let Some(path) = config.backend.path() else { return false };
    match path.symlink_metadata() {
        Ok(metadata) => !metadata.is_file() || metadata.len() > 0,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// A store that is only read, and what lies beneath it.
pub(crate) struct Reading {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) head: Head,
    pub(crate) store: Arc<dyn Store>,
    /// Who has the store open, if the rows come from him.
    live: Option<Client>,
    /// What was taken of the store, if that is not all.
    excerpt: Option<Arc<Excerpt>>,
}

impl Reading {
    /// Opens the store so that nothing changes, no file and no row. If another process has it open, asks
    /// that one for the rows.
    pub(crate) async fn open(config: &Config, shell: &mut Shell<'_>) -> Result<Self> {
        let found = live::find(config, shell).await?;
        Self::of_found(found, config).await
    }

    /// As [`Reading::open`], once it is known who is at the socket.
    pub(crate) async fn of_found(found: Found, config: &Config) -> Result<Self> {
        match found {
            Found::Served(client) => Self::of_client(client).await,
            Found::Denied(error) => live::denied(Self::of_files(config).await, error),
            Found::Nobody => live::explained(Self::of_files(config).await, config),
        }
    }

    /// Of what was taken of a store that this client asks.
    pub(crate) async fn of_excerpt(client: Client, excerpt: Arc<Excerpt>) -> Result<Self> {
        let reading = Self::on(excerpt.clone(), Some(client)).await?;
        Ok(Self { excerpt: Some(excerpt), ..reading })
    }

    pub(crate) async fn of_client(client: Client) -> Result<Self> {
        match Self::of_rows(client.clone()).await {
            Err(error) => Err(live::told_by_health(&client, error).await),
            reading => reading,
        }
    }

    async fn of_rows(client: Client) -> Result<Self> {
        let backend = Arc::new(RemoteBackend::new(client.clone()).await?);
        Self::on(backend, Some(client)).await
    }

    /// As [`Reading::open`], without asking anybody.
    pub(crate) async fn of_files(config: &Config) -> Result<Self> {
        // Nothing would be found, and that would look like a finding.
        refuse_to_forget(config)?;
        let backend = open_to_read(config).await?;
        let opened = Self::on(backend.clone(), None).await;
        if opened.is_err() {
            // Its files must not stay locked. The first error is the one to tell.
            let _ = backend.close().await;
        }
        opened
    }

    /// Puts a store on a backend that was opened to be read, or that this client asks for rows.
    pub(crate) async fn on(backend: Arc<dyn Backend>, live: Option<Client>) -> Result<Self> {
        let head = backend.head().await?;
        if !Schema::current().steps_from(head.schema)?.is_empty() {
            let supported = Schema::current().version().version;
            let found = head.schema.version;
            return Err(Error::new(
                ErrorKind::SchemaMismatch { found, supported },
                "the store has an older schema, which can be read only after a migration",
            )
            .with("found", found)
            .with("supported", supported)
            .with("help", "run `gwstore upgrade`; it keeps a backup"));
        }
        // Blocks that are kept for others are of no interest here.
        let writer = WriterOptions { retain_block_bytes: 0, ..WriterOptions::default() };
        let options = StoreOptions { read_only: true, writer, ..StoreOptions::default() };
        let store = store::open(backend.clone(), options).await?;
        Ok(Self { backend, head, store, live, excerpt: None })
    }

    /// Whether an entity is here for its own sake, and not to be shown beside others.
    pub(crate) fn means(&self, record: &EntityRecord) -> bool {
        let place = || (record.table(), record.key());
        self.excerpt.as_ref().is_none_or(|excerpt| excerpt.meant().contains(&place()))
    }

    /// Whether another process has the store open.
    pub(crate) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// Reads everything stored and checks it, where that is.
    pub(crate) async fn verify(&self) -> Result<()> {
        match &self.live {
            Some(_) => self.backend.verify().await,
            None => self.store.verify().await,
        }
    }

    /// Releases the files.
    pub(crate) async fn close(self) -> Result<()> {
        // Closing the store instead would flush what waits to be flushed.
        self.backend.close().await
    }
}

/// Opens the backend alone, so that nothing changes.
pub(crate) async fn open_to_read(config: &Config) -> Result<Arc<dyn Backend>> {
    let opened = async {
        // Of a network that moves, the side that is served.
        let served = Opener::new(config).served_config().await?;
        Opener::new(&served).create(false).read_only(true).open_backend().await
    };
    opened.await.map_err(|error| advised(config, error))
}

/// Opens an existing store to write to it. Whatever needs its hash key asks for that itself.
pub(crate) async fn open_to_write(config: &Config) -> Result<Arc<dyn Store>> {
    let opener = opener(config).create(false).allow_missing_key(true);
    opener.open().await.map_err(|error| advised(config, error))
}

/// Opens stores for one piece of work, which is over before anybody could ask how it goes.
pub(crate) fn opener(config: &Config) -> Opener<'_> {
    let opener = Opener::new(config);
    #[cfg(unix)]
    let opener = opener.admin_socket_served(false);
    opener
}

/// As [`open_to_write`], though the clock is far ahead of the last commit.
pub(crate) async fn open_accepting_clock(config: &Config) -> Result<Arc<dyn Store>> {
    let opener = opener(config).create(false).allow_missing_key(true);
    opener.accept_clock(true).open().await.map_err(|error| advised(config, error))
}

/// Gives free pages of the configured store back to the disk.
pub(crate) async fn compact(config: &Config) -> Result<Compacted> {
    Opener::new(config).compact().await.map_err(|error| advised(config, error))
}

pub(crate) fn advised(config: &Config, error: Error) -> Error {
    let is_of_socket = error.context().iter().any(|(key, _)| *key == "socket");
    match error.kind() {
        ErrorKind::NotFound if is_of_socket => {
            with_help(error, "make the directory that admin.path names, or name another")
        }
        // No new one is made beside the key of one that was lost.
        ErrorKind::NotFound => match lost_key(config) {
            Some((what, file)) => error.with(
                "help",
                format_args!(
                    "its {what} {} is still there: restore the file; or, to begin anew, move the {what} \
                     away, too",
                    file.display()
                ),
            ),
            None if config.migration.target.is_some() => with_help(
                error,
                "leave migration.target out until `gwstore init` has made the configured store",
            ),
            None => with_help(error, "`gwstore init` makes the configured store"),
        },
        ErrorKind::Corrupt => {
            with_help(error, "keep the file as it is, and restore a backup under another name")
        }
        _ => error,
    }
}

/// The hash key or the keyring that is there without its store. A hash key that was configured by name
/// may be meant for a new one.
pub(crate) fn lost_key(config: &Config) -> Option<(&'static str, PathBuf)> {
    if store_exists(config) {
        return None;
    }
    if config.is_sealed() {
        return keyring::lost(config).map(|path| ("keyring", path));
    }
    let key = config.secret_key_path().filter(|_| config.secret_key_file.is_none())?;
    hash_key_is_absent(&key).is_ok_and(|is_absent| !is_absent).then_some(("hash key", key))
}

/// How much of a series there is, and whether that is all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesCount {
    pub(crate) count: u64,
    pub(crate) is_exact: bool,
}

/// Counts the metrics, at most up to `most`.
pub(crate) async fn count_metrics(backend: &dyn Backend, most: u64) -> Result<SeriesCount> {
    let mut count = 0;
    let mut from = RowKey::new();
    loop {
        let range = KeyRange { table: Table::Metrics, from, to: None };
        let rows = backend.scan(Scan { range, reverse: false, limit: ROWS_PER_READ }).await?.rows;
        let Some(last) = rows.last() else { return Ok(SeriesCount { count, is_exact: true }) };
        count += rows.len() as u64;
        if count >= most {
            return Ok(SeriesCount { count: most, is_exact: false });
        }
        from = last.key.clone().successor();
    }
}

/// Counts the audit entries, at most up to `most`. Some may be in blocks only, so the store is asked.
pub(crate) async fn count_audit(store: &dyn Store, most: u64) -> Result<SeriesCount> {
    let mut count = 0;
    let mut request = PageRequest::first(Limit::MAX);
    loop {
        let page = store.audit().query(&AuditQuery::default(), &request).await?;
        count += page.items.len() as u64;
        let Some(next) = page.next else { return Ok(SeriesCount { count, is_exact: true }) };
        if count >= most {
            return Ok(SeriesCount { count: most, is_exact: false });
        }
        request = PageRequest::after(Limit::MAX, next);
    }
}
