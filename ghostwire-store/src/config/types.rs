//! The effective configuration, typed. Its `Default`s are the built-in defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ghostwire_store_core::domain::InstanceName;
use ghostwire_store_core::options::Materialize;
use ghostwire_store_sqlite::{
    FileKind, KEY_FILE, KEYRING_FILE, ROOT_FILE, SOCKET_FILE, resolved, with_suffix,
};

use super::names::{
    BackendKind, LogFormat, LogLevelName, MigrationStage, PinMode, Role, SocketMode, SwitchState,
    ZqliteEngine,
};
use super::origin::Origins;
use super::postgres::PostgresOptions;

/// The environment that holds when nobody chooses one.
pub const DEFAULT_ENVIRONMENT: &str = "development";

/// The store that keys without a store's name belong to, and that holds when nobody chooses one.
pub const DEFAULT_STORE: &str = "main";

/// The effective configuration of one environment.
///
/// [`load`](super::load) makes one from a file, variables and a command line. A program can as well
/// build it in code, and should then call [`Config::check`]:
///
/// ```
/// use ghostwire_store::config::{BackendChoice, Config};
///
/// let config = Config { backend: BackendChoice::Memory, ..Config::default() };
/// config.check()?;
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name of the environment.
    pub environment: String,
    /// The flag file that was read. `None`: only built-in defaults, variables and the command line
    /// hold, or the `Config` was built in code.
    pub flag_file: Option<PathBuf>,
    /// The name of the store that is opened, which `backend` and `secret_key_file` describe.
    pub store: String,
    /// Its backend and the options of that.
    pub backend: BackendChoice,
    /// Its 32-byte key that hashes API and pre-auth keys; see [`Config::secret_key_path`].
    pub secret_key_file: Option<PathBuf>,
    /// The further stores by their names; see [`Config::for_store`].
    pub other_stores: BTreeMap<String, NamedStore>,
    /// Which store serves which part of the data.
    pub roles: Roles,
    /// A move between stores.
    pub migration: Migration,
    /// The writer's limits.
    pub writer: WriterOptions,
    /// When the clock is taken for wrong.
    pub clock: ClockOptions,
    /// How long series are kept.
    pub series: SeriesOptions,
    /// What is told over HTTP of a store that is served.
    pub http: HttpOptions,
    /// How a store is served.
    pub serve: ServeOptions,
    /// What is done on a schedule while a store is served.
    pub jobs: JobOptions,
    /// The socket by which an open store is managed.
    pub admin: AdminOptions,
    /// How a program that serves the store logs.
    pub log: LogOptions,
    /// Where metrics and traces are sent.
    pub telemetry: TelemetryOptions,
    /// The declared switches; see [`Config::switch`].
    pub switches: BTreeMap<String, Switch>,
    /// Where each value came from. Leave it at its default when building a `Config` in code.
    pub origins: Origins,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            environment: DEFAULT_ENVIRONMENT.to_owned(),
            flag_file: None,
            store: DEFAULT_STORE.to_owned(),
            backend: BackendChoice::default(),
            secret_key_file: None,
            other_stores: BTreeMap::new(),
            roles: Roles::default(),
            migration: Migration::default(),
            writer: WriterOptions::default(),
            clock: ClockOptions::default(),
            series: SeriesOptions::default(),
            http: HttpOptions::default(),
            serve: ServeOptions::default(),
            jobs: JobOptions::default(),
            admin: AdminOptions::default(),
            log: LogOptions::default(),
            telemetry: TelemetryOptions::default(),
            switches: BTreeMap::new(),
            origins: Origins::default(),
        }
    }
}

impl Config {
    /// The built-in defaults with this backend.
    #[must_use]
    pub fn with_backend(kind: BackendKind) -> Self {
        Self { backend: BackendChoice::with_defaults(kind), ..Self::default() }
    }

    /// The value of a switch: `None` if it is not declared or its state is `DISABLED`, so that the
    /// caller's own default holds, as in `config.switch("new-dns").unwrap_or(false)`.
    #[must_use]
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.switches.get(name).and_then(Switch::value)
    }

    /// The hash key's file of the store that is opened; see [`NamedStore::secret_key_path`].
    #[must_use]
    pub fn secret_key_path(&self) -> Option<PathBuf> {
        self.opened_store().secret_key_path()
    }

    /// Whether the store that is opened is sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        matches!(&self.backend, BackendChoice::Zqlite(options) if options.sealed)
    }

    /// Where the admin socket of the store that is opened is: the configured place, else the store file's
    /// path with `.sock` appended. If the store's path is a symbolic link, it lies beside what that leads
    /// to. `None` for a store without a file whose socket has no configured place.
    #[must_use]
    pub fn admin_socket_path(&self) -> Option<PathBuf> {
        let configured = self.admin.path.clone();
        configured.or_else(|| Some(with_suffix(&resolved(self.backend.path()?), SOCKET_FILE)))
    }

    /// The store that serves this part of the data.
    #[must_use]
    pub fn store_of(&self, role: Role) -> &str {
        let core = self.roles.core.as_deref().unwrap_or(&self.store);
        match role {
            Role::Core => core,
            Role::Secrets => self.roles.secrets.as_deref().unwrap_or(core),
            Role::Telemetry => self.roles.telemetry.as_deref().unwrap_or(core),
        }
    }
}

/// A store as it is configured; its name is the key of the map that holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedStore {
    /// Its backend and the options of that.
    pub backend: BackendChoice,
    /// Its 32-byte key that hashes API and pre-auth keys.
    pub secret_key_file: Option<PathBuf>,
}

impl NamedStore {
    /// The built-in defaults with this backend.
    #[must_use]
    pub fn with_backend(kind: BackendKind) -> Self {
        Self { backend: BackendChoice::with_defaults(kind), secret_key_file: None }
    }

    /// The file of the 32-byte key that hashes API and pre-auth keys: the configured one, else the
    /// store file's path with `.key` appended. `None` if there is neither. If the store's path is a
    /// symbolic link, the key lies beside what it leads to, as the log and the lock do.
    #[must_use]
    pub fn secret_key_path(&self) -> Option<PathBuf> {
        self.secret_key_file.clone().or_else(|| Some(beside(self.backend.path()?, KEY_FILE)))
    }
}

/// Beside a store, or beside what its path leads to, where the log and the lock are, too.
fn beside(store: &Path, suffix: &str) -> PathBuf {
    let target = store.is_symlink().then(|| store.canonicalize().ok()).flatten();
    with_suffix(target.as_deref().unwrap_or(store), suffix)
}

/// The chosen backend and its options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackendChoice {
    /// See [`BackendKind::Zqlite`].
    Zqlite(ZqliteOptions),
    /// See [`BackendKind::Libsql`].
    Libsql(LibsqlOptions),
    /// See [`BackendKind::Postgres`].
    Postgres(PostgresOptions),
    /// See [`BackendKind::Memory`].
    Memory,
}

impl Default for BackendChoice {
    /// libsql, whose tables can be read with other tools.
    fn default() -> Self {
        Self::Libsql(LibsqlOptions::default())
    }
}

impl BackendChoice {
    /// This backend with its default options.
    #[must_use]
    pub fn with_defaults(kind: BackendKind) -> Self {
        match kind {
            BackendKind::Zqlite => Self::Zqlite(ZqliteOptions::default()),
            BackendKind::Libsql => Self::Libsql(LibsqlOptions::default()),
            BackendKind::Postgres => Self::Postgres(PostgresOptions::default()),
            BackendKind::Memory => Self::Memory,
        }
    }

    /// Which backend it is.
    #[must_use]
    pub const fn kind(&self) -> BackendKind {
        match self {
            Self::Zqlite(_) => BackendKind::Zqlite,
            Self::Libsql(_) => BackendKind::Libsql,
            Self::Postgres(_) => BackendKind::Postgres,
            Self::Memory => BackendKind::Memory,
        }
    }

    /// The store file, for a backend that has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Zqlite(options) => Some(&options.path),
            Self::Libsql(options) => Some(&options.path),
            Self::Postgres(_) | Self::Memory => None,
        }
    }

    /// What the store file says that it is.
    #[must_use]
    pub fn file_kind(&self) -> Option<FileKind> {
        match self {
            Self::Zqlite(options) => Some(match options.engine {
                ZqliteEngine::Embedded => FileKind::ZQLITE,
                ZqliteEngine::Native => FileKind::ZQLITE_NATIVE,
            }),
            Self::Libsql(_) => Some(FileKind::LIBSQL),
            Self::Postgres(_) | Self::Memory => None,
        }
    }

    /// The server, database and schema that have the store, without user and password, for a backend that has no file.
    #[must_use]
    pub fn server(&self) -> Option<String> {
        match self {
            Self::Postgres(options) => Some(options.location()),
            Self::Zqlite(_) | Self::Libsql(_) | Self::Memory => None,
        }
    }

    /// Where the store is, as its backend tells it: its file, or its [server](Self::server).
    #[must_use]
    pub fn location(&self) -> Option<String> {
        self.path().map(|path| path.display().to_string()).or_else(|| self.server())
    }
}

/// Options of the zqlite backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZqliteOptions {
    /// The store file.
    pub path: PathBuf,
    /// What the store runs on.
    pub engine: ZqliteEngine,
    /// The ZQLite library's file, for the native engine.
    pub library: Option<PathBuf>,
    /// The program that loads it: `gwstore`, by default the one beside this program.
    pub program: Option<PathBuf>,
    /// When blocks become rows.
    pub materialize: Materialize,
    /// Whether it is sealed: a plain store is refused then, and a sealed one otherwise.
    pub sealed: bool,
    /// The file of its keyring; see [`ZqliteOptions::keyring_path`].
    pub keyring_file: Option<PathBuf>,
    /// Where the root secret is kept that unlocks the keyring.
    pub root: RootOptions,
    /// Whether a mark outside of the store tells when an older copy of it was put back.
    pub pin: PinMode,
    /// The file that has that mark.
    pub pin_file: Option<PathBuf>,
    /// The program that has it, instead of a file.
    pub pin_command: Option<PathBuf>,
    /// Whether the file may lie on the store's own device.
    pub pin_same_device: bool,
    /// The file into which a sealed store attests its state by itself.
    pub attestation_file: Option<PathBuf>,
}

impl Default for ZqliteOptions {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/ghostwire.zqlite"),
            engine: ZqliteEngine::Embedded,
            library: None,
            program: None,
            materialize: Materialize::Checkpoint,
            sealed: true,
            keyring_file: None,
            root: RootOptions::default(),
            pin: PinMode::Off,
            pin_file: None,
            pin_command: None,
            pin_same_device: false,
            attestation_file: None,
        }
    }
}

impl ZqliteOptions {
    /// The keyring's file: the configured one, else the store file's path with `.keyring` appended. If
    /// the store's path is a symbolic link, it lies beside what that leads to.
    #[must_use]
    pub fn keyring_path(&self) -> PathBuf {
        self.keyring_file.clone().unwrap_or_else(|| beside(&self.path, KEYRING_FILE))
    }

    /// The file of the root secret that is made with a store in the environment `development`, where no
    /// place is configured: the store file's path with `.root` appended, as for the keyring.
    #[must_use]
    pub fn development_root_path(&self) -> PathBuf {
        beside(&self.path, ROOT_FILE)
    }
}

/// Where a root secret is kept, of which one may be named. Without any the environment `development`
/// keeps it beside the store, and others refuse to open a sealed store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RootOptions {
    /// A file with an identity, a line `AGE-SECRET-KEY-PQ-1…`.
    pub secret_file: Option<PathBuf>,
    /// The name of an environment variable with an identity.
    pub secret_variable: Option<String>,
    /// The name of a systemd credential with an identity.
    pub secret_credential: Option<String>,
    /// A file with a passphrase.
    pub passphrase_file: Option<PathBuf>,
}

/// Options of the libsql backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibsqlOptions {
    /// The store file.
    pub path: PathBuf,
    /// When blocks become rows.
    pub materialize: Materialize,
}

impl Default for LibsqlOptions {
    fn default() -> Self {
        Self { path: PathBuf::from("data/ghostwire.db"), materialize: Materialize::Commit }
    }
}

/// Which store serves which part of the data, by name; `None` follows `core`, and `core` the store
/// that is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// See [`Role::Core`].
    pub core: Option<String>,
    /// See [`Role::Secrets`].
    pub secrets: Option<String>,
    /// See [`Role::Telemetry`].
    pub telemetry: Option<String>,
}

/// A move between stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// How far it may go.
    pub stage: MigrationStage,
    /// The name of the store that it leads to.
    pub target: Option<String>,
    /// How long nobody may be served while the network is handed over.
    pub max_stall_ms: u64,
    /// Whether an answer means that both stores have it, once the copy is complete.
    pub synchronous: bool,
    /// How long callers wait then for a store that does not answer.
    pub mirror_timeout_ms: u64,
    /// The program that grants an epoch to one of both stores.
    pub witness_command: Option<PathBuf>,
    /// How much the store that is served keeps for the other one at most.
    pub max_kept_mib: u64,
    /// Of a hundred parts of time so many are used for copying.
    pub copy_share: u64,
}

impl Default for Migration {
    fn default() -> Self {
        Self {
            stage: MigrationStage::TargetOnly,
            target: None,
            max_stall_ms: 50,
            synchronous: false,
            mirror_timeout_ms: 5000,
            witness_command: None,
            max_kept_mib: 1024,
            copy_share: 50,
        }
    }
}

/// The writer's limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterOptions {
    /// How many commands may wait.
    pub queue_capacity: u64,
    /// How much memory those may own that wait or are being stored.
    pub queue_mib: u64,
    /// How long a caller waits for room in the queue, or for its turn to have an imported key checked,
    /// before it is told `Busy`.
    pub queue_timeout_ms: u64,
    /// How many commands one commit may carry.
    pub max_group: u64,
    /// How much of the newest blocks is kept for mirrors, followers and backups.
    pub retain_blocks_mib: u64,
    /// How many dirty rows may wait to be flushed before writers are slowed down.
    pub max_dirty_rows: u64,
    /// How old a view may be for a credential check; only shared backends need it.
    pub max_view_age_ms: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            queue_capacity: 4096,
            queue_mib: 256,
            queue_timeout_ms: 5000,
            max_group: 1024,
            retain_blocks_mib: 64,
            max_dirty_rows: 65_536,
            max_view_age_ms: 2000,
        }
    }
}

/// When the clock is taken for wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOptions {
    /// How far it may jump ahead while the store is open.
    pub max_step_seconds: u64,
    /// How far it may be ahead of the last commit when the store is opened to be written.
    pub max_gap_days: u64,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self { max_step_seconds: 3600, max_gap_days: 30 }
    }
}

/// How long series are kept; `None` is for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesOptions {
    /// Days that metrics are kept.
    pub metrics_retention_days: Option<u64>,
    /// Days that audit entries are kept.
    pub audit_retention_days: Option<u64>,
}

/// What is told over HTTP of a store that is served: health, metrics, status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// The address; `None` is no HTTP.
    pub listen: Option<SocketAddr>,
    /// Whether the store is served also if the address cannot be had.
    pub optional: bool,
    /// How many connections there may be at once.
    pub max_connections: u64,
}

impl HttpOptions {
    /// The port of an address without one. Prometheus itself has 9090.
    pub const DEFAULT_PORT: u16 = 9655;
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { listen: None, optional: false, max_connections: 64 }
    }
}

/// How a store is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeOptions {
    /// How long a process that is asked to end waits for the store to be closed.
    pub drain_seconds: u64,
    /// How long it goes on serving before that, while it says that it is not ready.
    pub drain_delay_ms: u64,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { drain_seconds: 30, drain_delay_ms: 0 }
    }
}

/// How often what is done, 0 is never; and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOptions {
    /// What this process is called among those that share the store, of which one does the jobs. `None` does
    /// them whoever else does. No two processes may have one name.
    pub instance: Option<InstanceName>,
    /// Seconds between two searches for ephemeral nodes to be reaped.
    pub reap_seconds: u64,
    /// Seconds between two searches for what expired.
    pub sweep_seconds: u64,
    /// Days that keys are kept after they expired or were revoked.
    pub keep_expired_days: u64,
    /// Seconds between two prunings of the series.
    pub retention_seconds: u64,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            instance: None,
            reap_seconds: 60,
            sweep_seconds: 600,
            keep_expired_days: 30,
            retention_seconds: 3600,
            checkpoint_seconds: 300,
        }
    }
}

/// How a program that serves the store logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// How a line is written.
    pub format: LogFormat,
    /// The least level of a line.
    pub level: LogLevelName,
    /// From how many milliseconds on a write is logged with its phases; 0 logs none.
    pub slow_ms: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogLevelName::Info, slow_ms: 1000 }
    }
}

/// Where metrics and traces are sent. What is `None` is as OpenTelemetry's variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryOptions {
    /// Whether anything is counted at all.
    pub enabled: bool,
    /// Where the collector takes OTLP over HTTP.
    pub otlp_endpoint: Option<String>,
    /// How many traces of a hundred are followed.
    pub sample_percent: Option<u64>,
    /// How many seconds pass between two exports of metrics.
    pub export_interval_seconds: Option<u64>,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            otlp_endpoint: None,
            sample_percent: None,
            export_interval_seconds: None,
        }
    }
}

/// The socket by which a store is looked at and managed while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminOptions {
    /// Whether a store that is opened to be written serves one.
    pub socket: bool,
    /// Where; see [`Config::admin_socket_path`].
    pub path: Option<PathBuf>,
    /// The group whose members may use it beside its owner and root: a name or a number.
    pub group: Option<String>,
    /// Its mode; that of the group if there is one.
    pub mode: Option<SocketMode>,
    /// How many clients it serves at a time.
    pub max_clients: u64,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { socket: true, path: None, group: None, mode: None, max_clients: 16 }
    }
}

/// A switch in the vocabulary of flagd, with boolean variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Whether it takes part.
    pub state: SwitchState,
    /// The variant that holds; one of `variants`.
    pub default_variant: String,
    /// What each variant means.
    pub variants: BTreeMap<String, bool>,
}

impl Switch {
    /// What the default variant means, unless the switch is disabled.
    #[must_use]
    pub fn value(&self) -> Option<bool> {
        match self.state {
            SwitchState::Enabled => self.variants.get(&self.default_variant).copied(),
            SwitchState::Disabled => None,
        }
    }

    /// The variants of a switch that declares none.
    #[must_use]
    pub fn default_variants() -> BTreeMap<String, bool> {
        BTreeMap::from([("on".to_owned(), true), ("off".to_owned(), false)])
    }
}
