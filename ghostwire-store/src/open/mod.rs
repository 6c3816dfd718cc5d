//! From a configuration to a store.

mod absent;
#[cfg(all(feature = "admin", unix))]
mod admin;
mod anew;
#[cfg(feature = "zqlite")]
mod attestations;
mod key;
mod moving;
#[cfg(feature = "zqlite")]
mod pin;
mod place;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "zqlite")]
mod sealed;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::attest::AttestationOptions;
use ghostwire_store_core::backend::{Backend, Compacted};
use ghostwire_store_core::domain::{Clock, StoreId, SystemClock};
use ghostwire_store_core::entropy::{Entropy, SystemEntropy};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::health::LoadProgress;
use ghostwire_store_core::keys::KeyManager;
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::migration::{Occupant, Seat};
use ghostwire_store_core::observe::Recorder;
use ghostwire_store_core::options::{ClockOptions, Materialize, StoreOptions, WriterOptions};
use ghostwire_store_core::schema::Schema;
use ghostwire_store_core::secrets::HashKeys;
use ghostwire_store_core::{Store, store};
use ghostwire_store_sqlite::StoreFile;

use crate::config::{self, BackendChoice, BackendKind, Config};
use crate::migration::Migrations;
pub(crate) use anew::Anew;
use key::Key;
pub use moving::Survivor;
pub(crate) use moving::{is_empty_schema, is_left_alone};

/// The identity of a store that is never made.
#[cfg(any(feature = "zqlite", feature = "libsql"))]
const NO_STORE: StoreId = StoreId::from_bytes([0; 16]);

/// The backends that this binary was compiled with.
pub const COMPILED_BACKENDS: &[BackendKind] = &[
    #[cfg(feature = "zqlite")]
    BackendKind::Zqlite,
    #[cfg(feature = "libsql")]
    BackendKind::Libsql,
    #[cfg(feature = "postgres")]
    BackendKind::Postgres,
    #[cfg(feature = "memory")]
    BackendKind::Memory,
];

/// Opens the store that a configuration describes; of several, the one that it chooses, or that
/// [`Config::for_store`] does.
#[derive(Clone)]
pub struct Opener<'c> {
    config: &'c Config,
    create: bool,
    only_new: bool,
    read_only: bool,
    allow_missing_key: bool,
    schema: Option<Schema>,
    clock: Arc<dyn Clock>,
    accept_clock: bool,
    progress: Arc<LoadProgress>,
    #[cfg(feature = "zqlite")]
    accepts_missing_pin: bool,
    entropy: Arc<dyn Entropy>,
    recorder: Option<Arc<dyn Recorder>>,
    #[cfg(feature = "zqlite")]
    key_source: Option<Arc<dyn crate::keys::crypto::root::KeySource>>,
    #[cfg(all(feature = "admin", unix))]
    admin: admin::Serving,
}

/// A backend that was opened, and the hash keys if they come with it.
struct Beneath {
    backend: Arc<dyn Backend>,
    hash_keys: Option<HashKeys>,
    /// Of a sealed store.
    #[cfg(feature = "zqlite")]
    keys: Option<Arc<crate::keys::LiveKeys>>,
}

impl Beneath {
    /// What changes the keys of a sealed store. A rotation that was broken off is completed before; if that
    /// cannot be, the store is served by both versions, as before.
    async fn manager(&self, read_only: bool) -> Option<Arc<dyn KeyManager>> {
        cfg_if::cfg_if! {
            if #[cfg(feature = "zqlite")] {
                let keys = self.keys.clone()?;
                if !read_only && let Err(error) = keys.complete_rotation().await {
                    tracing::warn!(%error, "a rotation of the data key is not completed yet");
                }
                Some(keys)
            } else {
                let _ = read_only;
                None
            }
        }
    }
}

impl From<Arc<dyn Backend>> for Beneath {
    fn from(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            hash_keys: None,
            #[cfg(feature = "zqlite")]
            keys: None,
        }
    }
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
            only_new: false,
            read_only: false,
            allow_missing_key: false,
            schema: None,
            clock: Arc::new(SystemClock),
            accept_clock: false,
            progress: Arc::default(),
            #[cfg(feature = "zqlite")]
            accepts_missing_pin: false,
            entropy: Arc::new(SystemEntropy),
            recorder: None,
            #[cfg(feature = "zqlite")]
            key_source: None,
            #[cfg(all(feature = "admin", unix))]
            admin: admin::Serving::default(),
        }
    }

    /// Takes the root secret of a sealed store from here instead of the configured place: a key
    /// management service, or the identity of another recipient of the keyring. It is asked while the
    /// store is opened, and not again.
    #[cfg(feature = "zqlite")]
    #[must_use]
    pub fn key_source(mut self, source: Arc<dyn crate::keys::crypto::root::KeySource>) -> Self {
        self.key_source = Some(source);
        self
    }

    /// Whether a store, and its hash key, may be made where there is none.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    pub(crate) fn parts(&self) -> (&Config, Arc<dyn Entropy>) {
        (self.config, self.entropy.clone())
    }

    #[cfg(feature = "zqlite")]
    pub(crate) fn source_of_keys(&self) -> Option<Arc<dyn crate::keys::crypto::root::KeySource>> {
        self.key_source.clone()
    }

    /// Whether, in a database, only a store that this makes is opened; another is `AlreadyExists`. Not by
    /// default, and of no effect on stores that are files.
    #[must_use]
    pub fn only_new(mut self, only_new: bool) -> Self {
        self.only_new = only_new;
        self
    }

    /// Only reads: every write gives `ReadOnly`, and no file changes.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Opens an existing store although its hash key is not there: no credential can be made or
    /// checked then. For tools that look after a store; a control plane would turn everybody away.
    #[must_use]
    pub fn allow_missing_key(mut self, allow: bool) -> Self {
        self.allow_missing_key = allow;
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

    /// Counts in `progress` what is read while the store is opened, for somebody who waits for it.
    #[must_use]
    pub fn progress(mut self, progress: Arc<LoadProgress>) -> Self {
        self.progress = progress;
        self
    }

    /// Another source of random numbers, for tests and simulations.
    #[must_use]
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Who takes figures of what the store does; nobody by default. [`Telemetry::recorder`] gives one that
    /// exports them.
    ///
    /// [`Telemetry::recorder`]: https://docs.rs/ghostwire-store-telemetry
    #[must_use]
    pub fn recorder(mut self, recorder: Arc<dyn Recorder>) -> Self {
        self.recorder = Some(recorder);
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
        self.open_beneath(None).await.map(|beneath| beneath.backend)
    }

    /// `key` is that of the store's credentials, if it is at hand.
    async fn open_beneath(&self, key: Option<&Key>) -> Result<Beneath> {
        self.config.check()?;
        let made = self.prepare(matches!(key, Some(Key::Known(_))))?;
        let mut store = [0; 16];
        self.entropy.fill(&mut store)?;
        let beneath = self.beneath(StoreId::from_bytes(store), key).await?;
        made.keep();
        Ok(beneath)
    }

    /// The hash keys of the configured store: those in its keyring, or in their file. `None` if there is
    /// no file.
    ///
    /// # Errors
    /// As [`read_hash_key`](crate::read_hash_key); `Crypto` if the keyring cannot be opened.
    pub async fn hash_keys(&self) -> Result<Option<HashKeys>> {
        #[cfg(feature = "zqlite")]
        if self.is_key_in_keyring()
            && let Some(keys) = self.keys()
        {
            return match keys.is_absent()? {
                true => Ok(None),
                false => self.clone().read_only(true).hash_keys_of(&keys.open().await?).await,
            };
        }
        let Some(path) = self.config.secret_key_path() else { return Ok(None) };
        match crate::hash_key::hash_key_is_absent(&path)? {
            true => Ok(None),
            false => crate::hash_key::read_hash_key(&path).map(Some),
        }
    }

    /// Opens the store, and where a move to another one is configured, both: their records say which one is
    /// served, and the other one follows. What root makes belongs to the owner of the store or, for a new one, of its
    /// directory. If a store cannot be made, nothing is left of it.
    ///
    /// # Errors
    /// As [`Opener::open_backend`] and [`read_hash_key`](crate::read_hash_key); `Crypto` if an existing
    /// store's hash key is not there; `SchemaMismatch`, `Corrupt`; `InvalidArgument` for options out
    /// of range; `Unavailable` if the clock is too far ahead of the last commit.
    pub async fn open(&self) -> Result<Arc<dyn Store>> {
        self.open_movable().await.map(|(store, _)| store)
    }

    /// The same, with what moves the store to another one while it is open.
    ///
    /// # Errors
    /// As [`Opener::open`].
    pub async fn open_movable(&self) -> Result<(Arc<dyn Store>, Migrations)> {
        self.config.check()?;
        match self.other_side()? {
            Some(target) => self.open_of_two(&target).await,
            None => self.open_alone(self).await,
        }
    }

    /// Opens this store alone, for the configuration of `base`.
    async fn open_alone(&self, base: &Opener<'_>) -> Result<(Arc<dyn Store>, Migrations)> {
        let made = self.prepare(false)?;
        let key = self.key_before()?;
        let beneath = self.open_beneath(Some(&key)).await?;
        made.keep();
        self.open_seated(base, (beneath, key), None, None).await
    }

    /// Opens a store on what was opened, with the other side of a migration beside it.
    async fn open_seated(
        &self,
        base: &Opener<'_>,
        (beneath, key): (Beneath, Key),
        beside: Option<Occupant>,
        absent: Option<Arc<absent::Absent>>,
    ) -> Result<(Arc<dyn Store>, Migrations)> {
        let manager = beneath.manager(self.read_only).await;
        let Beneath { backend, hash_keys, .. } = beneath;
        let materialize = materialize(&self.config.backend);
        let occupant = Occupant { backend, keys: manager, materialize };
        let (options, deadlines) = match base.seat_options() {
            Ok(options) => options,
            Err(error) => {
                // Its files must not stay locked.
                let _ = occupant.backend.close().await;
                return Err(error);
            }
        };
        let seat = Seat::with_options(occupant, options);
        seat.put_beside(beside);
        if let Some(absent) = absent {
            absent.stands_at(&seat);
        }
        let opened = self.open_on(base, &seat, (key, hash_keys), deadlines).await;
        if opened.is_err() {
            // Its files must not stay locked.
            let _ = seat.close().await;
        }
        // What is wrong with a store in a file is said with its path; of others only this knows the place.
        opened.map_err(|error| match self.config.backend.server() {
            Some(location) => error.with("database", location),
            None => error,
        })
    }

    /// Tells what opening the configured files to write would refuse before it reads what is stored,
    /// but for a store that is in use, and changes nothing. Call it while this process has the store
    /// not open.
    ///
    /// # Errors
    /// As [`Opener::open`]. A key that is not there is none: it has a check of its own,
    /// [`read_hash_key`](crate::read_hash_key).
    pub fn probe(&self) -> Result<()> {
        self.config.check()?;
        self.check_key_place()?;
        let backend = &self.config.backend;
        match backend.path().zip(backend.file_kind()) {
            Some((path, kind)) => StoreFile::probe(path, kind),
            None => Ok(()),
        }
    }

    async fn open_on(
        &self,
        base: &Opener<'_>,
        seat: &Arc<Seat>,
        (key, in_keyring): (Key, Option<HashKeys>),
        deadlines: Deadlines,
    ) -> Result<(Arc<dyn Store>, Migrations)> {
        let hash_key = match in_keyring {
            Some(keys) => Some(keys),
            None => self.key_after(key, seat.as_ref()).await?,
        };
        let hash_key = hash_key.map(Arc::new);
        #[cfg(all(feature = "admin", unix))]
        let socket = base.admin_socket();
        let options = StoreOptions {
            clock: self.clock.clone(),
            clock_bounds: self.clock_bounds(),
            entropy: self.entropy.clone(),
            hash_key: hash_key.clone(),
            seat: Some(seat.clone()),
            keys: seat.sitting().keys.clone(),
            materialize: seat.sitting().materialize,
            writer: writer_options(&self.config.writer),
            read_only: self.read_only,
            max_view_age: Duration::from_millis(self.config.writer.max_view_age_ms),
            attestations: self.attestations()?,
            progress: self.progress.clone(),
            #[cfg(all(feature = "admin", unix))]
            companions: admin::companions(socket.as_ref()),
            recorder: self.recorder.clone(),
            deadlines,
            ..StoreOptions::default()
        };
        let store = store::open(seat.clone(), options).await?;
        let migrations = Migrations::of(base, &store, (seat.clone(), hash_key));
        if seat.beside().is_some()
            && let Err(error) = migrations.attach(store.as_ref()).await
        {
            let _ = store.close().await;
            return Err(error);
        }
        #[cfg(all(feature = "admin", unix))]
        if let Some(socket) = socket {
            let served = (seat.clone() as Arc<dyn Backend>, migrations.clone());
            let store = base.serve_admin(&socket, store, served).await?;
            return Ok((store, migrations));
        }
        Ok((store, migrations))
    }

    /// Who takes what the store attests by itself.
    #[cfg(feature = "zqlite")]
    fn attestations(&self) -> Result<Option<AttestationOptions>> {
        let BackendChoice::Zqlite(options) = &self.config.backend else { return Ok(None) };
        let Some(path) = &options.attestation_file else { return Ok(None) };
        let key = self.config.store_key("attestation_file");
        let file = attestations::AttestationFile::new(path, &options.path, &key)?;
        if !self.read_only {
            file.remove_part()?;
        }
        Ok(Some(AttestationOptions::new(Arc::new(file))))
    }

    #[cfg(not(feature = "zqlite"))]
    fn attestations(&self) -> Result<Option<AttestationOptions>> {
        Ok(None)
    }

    fn may_make(&self) -> bool {
        self.create && !self.read_only
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
                if options.engine == config::ZqliteEngine::Native {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        "a store on the native engine is not compacted; export it, and import it into a new one",
                    ));
                }
                let mut wanted = ZqliteOptions::new(&options.path, NO_STORE);
                let opener = self.clone().create(false);
                if let Some(unlocked) = opener.unlock(options, NO_STORE).await? {
                    wanted = wanted.sealed(unlocked.keyring);
                }
                ZqliteBackend::compact(wanted).await
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

    async fn beneath(&self, store: StoreId, key: Option<&Key>) -> Result<Beneath> {
        prepare_process().await?;
        match &self.config.backend {
            BackendChoice::Zqlite(options) => self.zqlite(options, store, key).await,
            BackendChoice::Libsql(options) => self.libsql(options, store).await.map(Beneath::from),
            BackendChoice::Postgres(options) => {
                self.postgres(options, store).await.map(Beneath::from)
            }
            BackendChoice::Memory => self.memory(store).map(Beneath::from),
        }
    }

    #[cfg(feature = "zqlite")]
    async fn zqlite(
        &self,
        options: &config::ZqliteOptions,
        store: StoreId,
        key: Option<&Key>,
    ) -> Result<Beneath> {
        use ghostwire_store_zqlite::ZqliteOptions;

        use crate::keys::LiveKeys;
        let mut wanted = ZqliteOptions::new(&options.path, store);
        #[cfg(feature = "zqlite-native")]
        if options.engine == config::ZqliteEngine::Native {
            wanted = wanted.native(crate::native::engine(self.config, options)?);
        }
        #[cfg(not(feature = "zqlite-native"))]
        if options.engine == config::ZqliteEngine::Native {
            wanted = wanted.engine(ghostwire_store_zqlite::EngineChoice::Native);
        }
        wanted = wanted
            .pin(self.pin_choice(options, key)?)
            .create(self.may_make())
            .read_only(self.read_only);
        if let Some(schema) = self.schema {
            wanted = wanted.schema(schema);
        }
        let mut unlocked = self.unlock(options, store).await?;
        if let Some(unlocked) = &unlocked {
            wanted = wanted.sealed(unlocked.keyring.clone());
        }
        let opened = self.open_zqlite(wanted, &mut unlocked).await;
        let opened = opened.map_err(|error| match options.engine {
            config::ZqliteEngine::Native => {
                error.with("source", self.config.origin_of(&self.config.store_key("engine")))
            }
            config::ZqliteEngine::Embedded => error,
        });
        let zqlite = Arc::new(self.settle(options, unlocked.as_ref(), opened)?);
        let backend: Arc<dyn Backend> = zqlite.clone();
        let Some(unlocked) = unlocked else { return Ok(backend.into()) };
        match self.hash_keys_of(&unlocked.keyring).await {
            Ok(hash_keys) => {
                let source = self.key_source.clone();
                let keys = LiveKeys::new(self.config, source, zqlite, self.read_only);
                Ok(Beneath { backend, hash_keys, keys: Some(Arc::new(keys)) })
            }
            Err(error) => {
                // Its files must not stay locked.
                let _ = backend.close().await;
                Err(error)
            }
        }
    }

    #[cfg(not(feature = "zqlite"))]
    async fn zqlite(
        &self,
        _: &config::ZqliteOptions,
        _: StoreId,
        _: Option<&Key>,
    ) -> Result<Beneath> {
        Err(self.not_compiled_in(BackendKind::Zqlite))
    }

    #[cfg(feature = "libsql")]
    async fn libsql(
        &self,
        options: &config::LibsqlOptions,
        store: StoreId,
    ) -> Result<Arc<dyn Backend>> {
        use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
        let mut wanted = LibsqlOptions::new(&options.path, store)
            .create(self.may_make())
            .read_only(self.read_only);
        if let Some(schema) = self.schema {
            wanted = wanted.schema(schema);
        }
        Ok(Arc::new(LibsqlBackend::open(wanted).await?))
    }

    #[cfg(not(feature = "libsql"))]
    async fn libsql(&self, _: &config::LibsqlOptions, _: StoreId) -> Result<Arc<dyn Backend>> {
        Err(self.not_compiled_in(BackendKind::Libsql))
    }

    #[cfg(not(feature = "postgres"))]
    async fn postgres(&self, _: &config::PostgresOptions, _: StoreId) -> Result<Arc<dyn Backend>> {
        Err(self.not_compiled_in(BackendKind::Postgres))
    }

    fn memory(&self, store: StoreId) -> Result<Arc<dyn Backend>> {
        cfg_if::cfg_if! {
            if #[cfg(feature = "memory")] {
                use ghostwire_store_memory::MemoryBackend;
                let schema = self.schema.unwrap_or_else(Schema::current);
                Ok(Arc::new(MemoryBackend::at_schema(store, schema)))
            } else {
                let _ = store;
                Err(self.not_compiled_in(BackendKind::Memory))
            }
        }
    }

    #[cfg(not(all(
        feature = "zqlite",
        feature = "libsql",
        feature = "postgres",
        feature = "memory"
    )))]
    fn not_compiled_in(&self, kind: BackendKind) -> Error {
        let compiled: Vec<_> = COMPILED_BACKENDS.iter().map(|kind| kind.name()).collect();
        Error::new(ErrorKind::Unsupported, "this backend is not compiled in")
            .with("backend", kind.name())
            .with("source", self.config.origin_of(&self.config.store_key("backend")))
            .with("compiled_in", compiled.join(", "))
            .with("help", format_args!("build with the Cargo feature `{}`", kind.cargo_feature()))
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

fn materialize(backend: &BackendChoice) -> Materialize {
    match backend {
        BackendChoice::Zqlite(options) => options.materialize,
        BackendChoice::Libsql(options) => options.materialize,
        // A shared backend always does.
        BackendChoice::Postgres(_) => Materialize::Commit,
        BackendChoice::Memory => Materialize::Checkpoint,
    }
}

/// How long calls of the backend may take.
fn deadlines(backend: &BackendChoice) -> Deadlines {
    let millis = Duration::from_millis;
    match backend {
        BackendChoice::Postgres(options) => Deadlines {
            connect: millis(options.connect_timeout_ms),
            read: millis(options.read_timeout_ms),
            commit: millis(options.commit_timeout_ms),
        },
        _ => Deadlines::default(),
    }
}

fn writer_options(options: &config::WriterOptions) -> WriterOptions {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    WriterOptions {
        queue_capacity: number(options.queue_capacity),
        queue_bytes: options.queue_mib.saturating_mul(1024 * 1024),
        queue_timeout: Duration::from_millis(options.queue_timeout_ms),
        max_group: number(options.max_group),
        max_dirty_rows: number(options.max_dirty_rows),
        retain_block_bytes: options.retain_blocks_mib.saturating_mul(1024 * 1024),
        ..WriterOptions::default()
    }
}
