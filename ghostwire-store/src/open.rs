//! From a configuration to a store.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::backend::{Backend, Compacted};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::{Clock, StoreId, SystemClock};
use ghostwire_store_core::entropy::{Entropy, SystemEntropy};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::options::{ClockOptions, Materialize, StoreOptions, WriterOptions};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::secrets::HashKey;
use ghostwire_store_core::{Store, store};

use crate::config::{self, BackendChoice, BackendKind, Config};
use crate::hash_key::{create_hash_key, is_cut_short, read_hash_key};

/// The identity of a store that is never made.
#[cfg(any(feature = "zqlite", feature = "libsql"))]
const NO_STORE: StoreId = StoreId::from_bytes([0; 16]);

/// The backends that this binary was compiled with.
pub const COMPILED_BACKENDS: &[BackendKind] = &[
    #[cfg(feature = "zqlite")]
    BackendKind::Zqlite,
    #[cfg(feature = "libsql")]
    BackendKind::Libsql,
    #[cfg(feature = "memory")]
    BackendKind::Memory,
];

/// Opens the store that a configuration describes.
#[derive(Clone)]
pub struct Opener<'c> {
    config: &'c Config,
    create: bool,
    read_only: bool,
    schema: Option<Schema>,
    clock: Arc<dyn Clock>,
    accept_clock: bool,
    entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for Opener<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("config", &self.config)
            .field("create", &self.create)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl<'c> Opener<'c> {
    /// With the system's clock and random numbers, creating what does not exist yet.
    #[must_use]
    pub fn new(config: &'c Config) -> Self {
        Self {
            config,
            create: true,
            read_only: false,
            schema: None,
            clock: Arc::new(SystemClock),
            accept_clock: false,
            entropy: Arc::new(SystemEntropy),
        }
    }

    /// Whether a store, and its hash key, may be made where there is none.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Only reads: every write gives `ReadOnly`, and no file changes.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Another clock, for tests and simulations.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the store although the clock is far ahead of its last commit: the clock is right, and
    /// nothing was written for long. `store.clock().accept()` makes later openings know it.
    #[must_use]
    pub fn accept_clock(mut self, accept: bool) -> Self {
        self.accept_clock = accept;
        self
    }

    /// Another source of random numbers, for tests and simulations.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// The schema of a new store; an older one is migrated when it is opened.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Opens the backend alone, for tools that look below the store.
    ///
    /// # Errors
    /// `Unsupported` for a backend that is not compiled in; otherwise those of the backend.
    pub async fn open_backend(&self) -> Result<Arc<dyn Backend>> {
        self.config.check()?;
        let mut store = [0; 16];
        self.entropy.fill(&mut store)?;
        self.backend(StoreId::from_bytes(store)).await
    }

    /// Opens the store.
    ///
    /// # Errors
    /// As [`Opener::open_backend`]; `SchemaMismatch`, `Corrupt`; `InvalidArgument` for options out
    /// of range; `Unavailable` if the clock is too far ahead of the last commit.
    pub async fn open(&self) -> Result<Arc<dyn Store>> {
        let backend = self.open_backend().await?;
        let opened = self.open_on(backend.clone()).await;
        if opened.is_err() {
            // Its files must not stay locked.
            let _ = backend.close().await;
        }
        opened
    }

    async fn open_on(&self, backend: Arc<dyn Backend>) -> Result<Arc<dyn Store>> {
        let options = StoreOptions {
            clock: self.clock.clone(),
            clock_bounds: self.clock_bounds(),
            entropy: self.entropy.clone(),
            hash_key: self.hash_key(backend.as_ref()).await?.map(Arc::new),
            materialize: materialize(&self.config.backend),
            writer: writer_options(&self.config.writer),
            read_only: self.read_only,
            max_view_age: Duration::from_millis(self.config.writer.max_view_age_ms),
            ..StoreOptions::default()
        };
        store::open(backend, options).await
    }

    /// The configured key. It is made after the store, so that a key without a store says that one
    /// was lost, and only for a new one: another in place of a lost or misplaced key would make every
    /// credential fail, and hide why.
    async fn hash_key(&self, backend: &dyn Backend) -> Result<Option<HashKey>> {
        let Some(path) = self.config.secret_key_path() else {
            return ephemeral_key(self.entropy.as_ref()).map(Some);
        };
        let is_unused = backend.head().await?.serial == Serial::ZERO;
        if path.exists() {
            return read_hash_key(&path).map(Some).map_err(|error| {
                match is_unused && is_cut_short(&path) {
                    true => error.with(
                        "help",
                        "nothing was stored with it yet: unless another store uses it, remove it \
                         and start again, which makes a new one",
                    ),
                    false => error,
                }
            });
        }
        let may_create = self.create && !self.read_only && is_unused;
        may_create.then(|| create_hash_key(&path, self.entropy.as_ref())).transpose()
    }

    fn clock_bounds(&self) -> ClockOptions {
        let config::ClockOptions { max_step_seconds, max_gap_days } = self.config.clock;
        ClockOptions {
            max_step: Duration::from_secs(max_step_seconds),
            max_gap: Duration::from_secs(max_gap_days.saturating_mul(86_400)),
            accept: self.accept_clock,
        }
    }

    /// Gives free pages of a store that nobody has open back to the disk, by writing it anew beside
    /// itself, checking that, and putting it in its place in one step. What was pruned or deleted
    /// leaves free pages, which later writes use; nothing else ever makes the file smaller. Needs
    /// room for a second copy of what is in use.
    ///
    /// # Errors
    /// `Unsupported` for a backend without a file; `Exhausted` if the disk has no room for the copy;
    /// `Busy` if somebody has the store open; otherwise those of opening and of `verify`. The store
    /// then is what it was.
    pub async fn compact(&self) -> Result<Compacted> {
        self.config.check()?;
        prepare_process().await?;
        match &self.config.backend {
            #[cfg(feature = "zqlite")]
            BackendChoice::Zqlite(options) => {
                use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};
                ZqliteBackend::compact(ZqliteOptions::new(&options.path, NO_STORE)).await
            }
            #[cfg(feature = "libsql")]
            BackendChoice::Libsql(options) => {
                use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
                LibsqlBackend::compact(LibsqlOptions::new(&options.path, NO_STORE)).await
            }
            choice => {
                Err(Error::new(ErrorKind::Unsupported, "this backend has no file to compact")
                    .with("backend", choice.kind().name()))
            }
        }
    }

    async fn backend(&self, store: StoreId) -> Result<Arc<dyn Backend>> {
        prepare_process().await?;
        match &self.config.backend {
            BackendChoice::Zqlite(options) => self.zqlite(options, store).await,
            BackendChoice::Libsql(options) => self.libsql(options, store).await,
            BackendChoice::Postgres(_) => Err(not_compiled_in(BackendKind::Postgres)),
            BackendChoice::Memory => self.memory(store),
        }
    }

    #[cfg(feature = "zqlite")]
    async fn zqlite(
        &self,
        options: &config::ZqliteOptions,
        store: StoreId,
    ) -> Result<Arc<dyn Backend>> {
        use ghostwire_store_zqlite::{EngineChoice, ZqliteBackend, ZqliteOptions};
        self.prepare(&options.path)?;
        let engine = match options.engine {
            config::ZqliteEngine::Embedded => EngineChoice::Embedded,
            config::ZqliteEngine::Native => EngineChoice::Native,
        };
        let mut wanted = ZqliteOptions::new(&options.path, store)
            .engine(engine)
            .create(self.create && !self.read_only)
            .read_only(self.read_only);
        if let Some(schema) = self.schema {
            wanted = wanted.schema(schema);
        }
        Ok(Arc::new(ZqliteBackend::open(wanted).await?))
    }

    #[cfg(not(feature = "zqlite"))]
    async fn zqlite(&self, _: &config::ZqliteOptions, _: StoreId) -> Result<Arc<dyn Backend>> {
        Err(not_compiled_in(BackendKind::Zqlite))
    }

    #[cfg(feature = "libsql")]
    async fn libsql(
        &self,
        options: &config::LibsqlOptions,
        store: StoreId,
    ) -> Result<Arc<dyn Backend>> {
        use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
        self.prepare(&options.path)?;
        let mut wanted = LibsqlOptions::new(&options.path, store);
        wanted.create = self.create && !self.read_only;
        wanted.read_only = self.read_only;
        wanted.schema = self.schema;
        Ok(Arc::new(LibsqlBackend::open(wanted).await?))
    }

    #[cfg(not(feature = "libsql"))]
    async fn libsql(&self, _: &config::LibsqlOptions, _: StoreId) -> Result<Arc<dyn Backend>> {
        Err(not_compiled_in(BackendKind::Libsql))
    }

    fn memory(&self, store: StoreId) -> Result<Arc<dyn Backend>> {
        cfg_if::cfg_if! {
            if #[cfg(feature = "memory")] {
                use ghostwire_store_memory::MemoryBackend;
                let schema = self.schema.unwrap_or_else(Schema::current);
                Ok(Arc::new(MemoryBackend::at_schema(store, schema)))
            } else {
                let _ = store;
                Err(not_compiled_in(BackendKind::Memory))
            }
        }
    }

    /// Before a store may be made: refuses to make one beside the key of one that was lost, and
    /// makes the store's own directory, but not the one above it: a path with a typo is an error.
    #[cfg(any(feature = "zqlite", feature = "libsql"))]
    fn prepare(&self, path: &std::path::Path) -> Result<()> {
        if !self.create || self.read_only {
            return Ok(());
        }
        // One that was configured by name may be meant for a new store, too.
        let key = self.config.secret_key_path().filter(|_| self.config.secret_key_file.is_none());
        let is_missing = std::fs::metadata(path).map_or_else(
            |error| error.kind() == std::io::ErrorKind::NotFound,
            |metadata| metadata.is_file() && metadata.len() == 0,
        );
        if let Some(key) = key.filter(|key| is_missing && key.exists()) {
            return Err(Error::new(
                ErrorKind::NotFound,
                "here lies the hash key of a store, and its file is gone",
            )
            .with("path", path.display())
            .with("secret_key_file", key.display())
            .with(
                "help",
                "restore the file; or, to begin anew, remove the key, or name it as \
                 `secret_key_file` to go on using it",
            ));
        }
        let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(());
        };
        if directory.exists() {
            return Ok(());
        }
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(|error| {
            Error::new(ErrorKind::NotFound, "the store's directory cannot be made")
                .with("directory", directory.display())
                .because(error)
        })
    }
}

/// Sets up the SQLite that backends share with the rest of the process. The libsql crate refuses to
/// work if something else used that SQLite first, so a program that reads SQLite files with
/// `libsql-rusqlite` calls this before it does. Opening a store calls it, too.
///
/// # Errors
/// `Unsupported` if something used that SQLite already.
pub async fn prepare_process() -> Result<()> {
    cfg_if::cfg_if! {
        if #[cfg(feature = "libsql")] {
            ghostwire_store_libsql::prepare_process().await
        } else {
            Ok(())
        }
    }
}

fn not_compiled_in(kind: BackendKind) -> Error {
    let compiled: Vec<_> = COMPILED_BACKENDS.iter().map(|kind| kind.name()).collect();
    let error = Error::new(ErrorKind::Unsupported, "this backend is not compiled in")
        .with("backend", kind.name())
        .with("compiled_in", compiled.join(", "));
    if kind == BackendKind::Postgres {
        return error.with("help", "this release has no postgres backend");
    }
    error.with("help", format_args!("build with the Cargo feature `{}`", kind.cargo_feature()))
}

fn ephemeral_key(entropy: &dyn Entropy) -> Result<HashKey> {
    let mut key = [0; 32];
    entropy.fill(&mut key)?;
    Ok(HashKey::new(key))
}

fn materialize(backend: &BackendChoice) -> Materialize {
    let chosen = match backend {
        BackendChoice::Zqlite(options) => options.materialize,
        BackendChoice::Libsql(options) => options.materialize,
        BackendChoice::Postgres(_) | BackendChoice::Memory => config::Materialize::Checkpoint,
    };
    match chosen {
        config::Materialize::Commit => Materialize::Commit,
        config::Materialize::Checkpoint => Materialize::Checkpoint,
    }
}

fn writer_options(options: &config::WriterOptions) -> WriterOptions {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    WriterOptions {
        queue_capacity: number(options.queue_capacity),
        queue_bytes: options.queue_mib.saturating_mul(1024 * 1024),
        queue_timeout: Duration::from_millis(options.queue_timeout_ms),
        max_group: number(options.max_group),
        max_fold_debt: number(options.max_fold_debt),
        retain_block_bytes: options.retain_blocks_mib.saturating_mul(1024 * 1024),
        ..WriterOptions::default()
    }
}
