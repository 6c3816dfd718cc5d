//! The one table of known keys. Validation, hints, `explain` and the documentation derive from it;
//! the defaults are those of [`Config`].

use ghostwire_store_core::domain::InstanceName;

use super::names::{
    self, BackendKind, LogFormat, LogLevelName, MigrationStage, PinMode, PostgresDurability,
    PostgresTls, Role, SocketMode, SwitchState, ZqliteEngine, materialize_named,
};
use super::postgres::PostgresOptions;
use super::types::{BackendChoice, Config, LibsqlOptions, NamedStore, ZqliteOptions};
use super::value::{Kind, Value, address};

/// A known key.
pub(super) struct Key {
    /// Its path; `*` stands for a free name.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    /// One line for the documentation.
    pub(super) help: &'static str,
    /// What holds while there is no value and no default.
    pub(super) unset: &'static str,
    pub(super) place: Place,
    pub(super) access: Access,
}

/// Where a key may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Everywhere,
    FileOnly,
    OutsideFile,
}

type Get<From = Config> = fn(&From) -> Option<Value>;
type Set<To = Config> = fn(&mut To, Value) -> Option<()>;

/// How a key's value gets in and out of a [`Config`]. `set` gives `None` only for a value of another
/// kind; `derive` is what holds without a value.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Field {
        get: Get,
        set: Set,
        derive: Get,
    },
    /// An option of a store. The key's path is that of the store `main`; [`Key::in_store`] has the
    /// others.
    Store {
        get: Get<NamedStore>,
        set: Set<NamedStore>,
        derive: Get<NamedStore>,
    },
    /// Part of a switch, which has a name of its own.
    Switch,
}

impl Key {
    const fn field(path: &'static str, kind: Kind, help: &'static str, get: Get, set: Set) -> Self {
        let access = Access::Field { get, set, derive: |_| None };
        let place = Place::Everywhere;
        Self { path, kind, help, unset: "", place, access }
    }

    const fn store(
        path: &'static str,
        kind: Kind,
        help: &'static str,
        get: Get<NamedStore>,
        set: Set<NamedStore>,
    ) -> Self {
        let access = Access::Store { get, set, derive: |_| None };
        let place = Place::Everywhere;
        Self { path, kind, help, unset: "", place, access }
    }

    const fn switch(
        path: &'static str,
        kind: Kind,
        help: &'static str,
        unset: &'static str,
    ) -> Self {
        let place = Place::Everywhere;
        Self { path, kind, help, unset, place, access: Access::Switch }
    }

    const fn unless_set(mut self, unset: &'static str) -> Self {
        self.unset = unset;
        self
    }

    const fn derived(mut self, derived: Get) -> Self {
        if let Access::Field { derive, .. } = &mut self.access {
            *derive = derived;
        }
        self
    }

    const fn derived_from_store(mut self, derived: Get<NamedStore>) -> Self {
        if let Access::Store { derive, .. } = &mut self.access {
            *derive = derived;
        }
        self
    }

    const fn only(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// The backend whose option this is.
    pub(super) fn backend(&self) -> Option<BackendKind> {
        self.path.split_once('.').and_then(|(section, _)| BackendKind::from_name(section))
    }

    /// Whether it is an option of every store.
    pub(super) const fn is_of_store(&self) -> bool {
        matches!(self.access, Access::Store { .. })
    }

    /// Whether a store on this backend has this option.
    pub(super) fn is_of(&self, kind: BackendKind) -> bool {
        self.is_of_store() && self.backend().is_none_or(|backend| backend == kind)
    }

    /// What a store's option is called in the table of a store, where the backend is known.
    pub(super) fn option(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The path of a store's option under the store's name.
    pub(super) fn in_store(&self, name: &str) -> String {
        format!("stores.{name}.{}", self.option())
    }

    /// Its paths, with `*` for free names.
    pub(super) fn patterns(&self) -> impl Iterator<Item = String> {
        let in_store = self.is_of_store().then(|| self.in_store("*"));
        std::iter::once(self.path.to_owned()).chain(in_store)
    }
}

/// The options of stores.
pub(super) fn of_stores() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.is_of_store())
}

const fn integer(lowest: u64, highest: u64) -> Kind {
    Kind::Integer { lowest, highest }
}

const BACKEND: Kind = Kind::Choice(BackendKind::NAMES);
/// In seconds; a week at most.
const INTERVAL: Kind = integer(0, 604_800);
const DAYS: Kind = integer(1, 36_500);
const FOR_EVER: &str = "kept for ever";

fn zqlite(store: &NamedStore) -> Option<&ZqliteOptions> {
    if let BackendChoice::Zqlite(options) = &store.backend { Some(options) } else { None }
}

fn libsql(store: &NamedStore) -> Option<&LibsqlOptions> {
    if let BackendChoice::Libsql(options) = &store.backend { Some(options) } else { None }
}

fn postgres(store: &NamedStore) -> Option<&PostgresOptions> {
    if let BackendChoice::Postgres(options) = &store.backend { Some(options) } else { None }
}

fn backend_name(value: &Value) -> Option<BackendKind> {
    BackendKind::from_name(value.as_text()?)
}

fn role(config: &Config, role: Role) -> Option<Value> {
    Some(Value::text(config.store_of(role)))
}

/// Every known key. The options of stores stand together, `backend` before those of a backend, which
/// have an effect only on their own.
pub(super) static KEYS: &[Key] = &[
    Key::field(
        "environment",
        Kind::Name,
        "Which table of the file holds.",
        |c| Some(Value::text(&c.environment)),
        |c, v| v.into_text().map(|name| c.environment = name),
    )
    .only(Place::OutsideFile),
    Key::field(
        "store",
        Kind::StoreName,
        "Which store is opened.",
        |c| Some(Value::text(&c.store)),
        |c, v| v.into_text().map(|name| c.store = name),
    )
    .unless_set("the only one, else `main`"),
    Key::store(
        "backend",
        BACKEND,
        "The backend that remembers the state.",
        |s| Some(Value::text(s.backend.kind())),
        |s, v| {
            let kind = backend_name(&v)?;
            if s.backend.kind() != kind {
                s.backend = BackendChoice::with_defaults(kind);
            }
            Some(())
        },
    ),
    Key::store(
        "zqlite.path",
        Kind::Path,
        "The store file.",
        |s| zqlite(s).map(|o| Value::Path(o.path.clone())),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.path = path),
    ),
    Key::store(
        "zqlite.engine",
        Kind::Choice(ZqliteEngine::NAMES),
        "What the store runs on: the SQLite that is linked in, or the ZQLite library in a process of its own, which needs the feature `zqlite-native` and `library`.",
        |s| zqlite(s).map(|o| Value::text(o.engine)),
        |s, v| with_zqlite(s, ZqliteEngine::from_name(v.as_text()?)?, |o, e| o.engine = e),
    ),
    Key::store(
        "zqlite.library",
        Kind::Path,
        "The ZQLite library's file, for `engine = \"native\"`. It is used once it has passed `gwstore native check`.",
        |s| zqlite(s)?.library.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.library = Some(path)),
    )
    .unless_set("none"),
    Key::store(
        "zqlite.program",
        Kind::Path,
        "The program that loads that library, in a process of its own: `gwstore`, built with `zqlite-native`.",
        |s| zqlite(s)?.program.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.program = Some(path)),
    )
    .unless_set("`gwstore` beside the program that opens the store"),
    Key::store(
        "zqlite.materialize",
        Kind::Choice(names::MATERIALIZE),
        "When blocks become rows: with each commit, or at checkpoints in the background.",
        |s| zqlite(s).map(|o| Value::text(names::name_of(o.materialize))),
        |s, v| with_zqlite(s, materialize_named(v.as_text()?)?, |o, m| o.materialize = m),
    ),
    Key::store(
        "zqlite.pin",
        Kind::Choice(PinMode::NAMES),
        "Whether a mark outside of the store is moved after each commit, before it is answered, so that an older copy that is put back is refused.",
        |s| zqlite(s).map(|o| Value::text(o.pin)),
        |s, v| with_zqlite(s, PinMode::from_name(v.as_text()?)?, |o, pin| o.pin = pin),
    ),
    Key::store(
        "zqlite.pin_file",
        Kind::Path,
        "The file with that mark, on another device than the store.",
        |s| zqlite(s)?.pin_file.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.pin_file = Some(path)),
    )
    .unless_set("none"),
    Key::store(
        "zqlite.pin_command",
        Kind::Path,
        "The program that keeps that mark instead of a file.",
        |s| zqlite(s)?.pin_command.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.pin_command = Some(path)),
    )
    .unless_set("none"),
    Key::store(
        "zqlite.pin_same_device",
        Kind::Boolean,
        "Takes a pin's file on the store's own device, where it notices accidents alone.",
        |s| zqlite(s).map(|o| Value::Boolean(o.pin_same_device)),
        |s, v| with_zqlite(s, v.boolean()?, |o, same| o.pin_same_device = same),
    ),
    Key::store(
        "zqlite.attestation_file",
        Kind::Path,
        "The file that has the newest signed digest of the state: written every ten minutes while the store changes, when it was verified, and when it is closed. For sealed stores.",
        |s| zqlite(s)?.attestation_file.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.attestation_file = Some(path)),
    )
    .unless_set("none"),
    Key::store(
        "zqlite.sealed",
        Kind::Boolean,
        "Whether the store is sealed under the keys of its keyring. A plain store is opened with `false` only, a sealed one with `true` only.",
        |s| zqlite(s).map(|o| Value::Boolean(o.sealed)),
        |s, v| with_zqlite(s, v.boolean()?, |o, sealed| o.sealed = sealed),
    ),
    Key::store(
        "zqlite.keyring_file",
        Kind::Path,
        "The file of the keyring, which has every key of a sealed store, itself sealed to the root secret and to further recipients.",
        |s| zqlite(s)?.keyring_file.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.keyring_file = Some(path)),
    )
    .unless_set("the store file's path and `.keyring`")
    .derived_from_store(|s| {
        zqlite(s).filter(|o| o.sealed).map(|o| Value::Path(o.keyring_path()))
    }),
    Key::store(
        "zqlite.root_secret_file",
        Kind::Path,
        "The file of the root secret, which unlocks the keyring: a line `AGE-SECRET-KEY-PQ-1…`, mode 0600 (or 0440, root's, for a group of the process). One of the four keys that name its place has to be given outside of development.",
        |s| zqlite(s)?.root.secret_file.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.root.secret_file = Some(path)),
    )
    .unless_set("in development the store file's path and `.root`"),
    Key::store(
        "zqlite.root_secret_variable",
        Kind::VariableName,
        "The environment variable that holds the root secret.",
        |s| zqlite(s)?.root.secret_variable.clone().map(Value::Text),
        |s, v| with_zqlite(s, v.into_text()?, |o, name| o.root.secret_variable = Some(name)),
    )
    .unless_set("none"),
    Key::store(
        "zqlite.root_secret_credential",
        Kind::Name,
        "The systemd credential that holds the root secret (`LoadCredential=`, `LoadCredentialEncrypted=`).",
        |s| zqlite(s)?.root.secret_credential.clone().map(Value::Text),
        |s, v| with_zqlite(s, v.into_text()?, |o, name| o.root.secret_credential = Some(name)),
    )
    .unless_set("none"),
    Key::store(
        "zqlite.root_passphrase_file",
        Kind::Path,
        "The file of a passphrase that the root secret is made of, mode as of `root_secret_file`. Opening takes a second and 64 MiB more.",
        |s| zqlite(s)?.root.passphrase_file.clone().map(Value::Path),
        |s, v| with_zqlite(s, v.into_path()?, |o, path| o.root.passphrase_file = Some(path)),
    )
    .unless_set("none"),
    Key::store(
        "libsql.path",
        Kind::Path,
        "The store file.",
        |s| libsql(s).map(|o| Value::Path(o.path.clone())),
        |s, v| with_libsql(s, v.into_path()?, |o, path| o.path = path),
    ),
    Key::store(
        "libsql.materialize",
        Kind::Choice(names::MATERIALIZE),
        "When blocks become rows: with each commit, so that other tools read current tables, or at \
         checkpoints in the background, which is faster.",
        |s| libsql(s).map(|o| Value::text(names::name_of(o.materialize))),
        |s, v| with_libsql(s, materialize_named(v.as_text()?)?, |o, m| o.materialize = m),
    ),
    Key::store(
        "postgres.host",
        Kind::Host,
        "The database server: a name, an address, or the directory of a Unix socket.",
        |s| postgres(s).map(|o| Value::text(&o.host)),
        |s, v| with_postgres(s, v.into_text()?, |o, text| o.host = text),
    ),
    Key::store(
        "postgres.port",
        integer(1, 65535),
        "Its port; with a Unix socket part of that one's name.",
        |s| postgres(s).map(|o| Value::Integer(o.port)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.port = n),
    ),
    Key::store(
        "postgres.database",
        Kind::Name,
        "The database, which has to be there.",
        |s| postgres(s).map(|o| Value::text(&o.database)),
        |s, v| with_postgres(s, v.into_text()?, |o, text| o.database = text),
    ),
    Key::store(
        "postgres.user",
        Kind::Name,
        "The role that the store connects as.",
        |s| postgres(s).map(|o| Value::text(&o.user)),
        |s, v| with_postgres(s, v.into_text()?, |o, text| o.user = text),
    ),
    Key::store(
        "postgres.password_file",
        Kind::Path,
        "The file that holds its password, a line, mode 0600 (or 0440, root's, for a group of the process).",
        |s| postgres(s)?.password_file.clone().map(Value::Path),
        |s, v| with_postgres(s, v.into_path()?, |o, path| o.password_file = Some(path)),
    )
    .unless_set("none"),
    Key::store(
        "postgres.password_variable",
        Kind::VariableName,
        "The environment variable that holds its password if no file is named.",
        |s| postgres(s)?.password_variable.clone().map(Value::Text),
        |s, v| with_postgres(s, v.into_text()?, |o, text| o.password_variable = Some(text)),
    )
    .unless_set("none"),
    Key::store(
        "postgres.tls",
        Kind::Choice(PostgresTls::NAMES),
        "How the connection is protected: by a certificate for the server's name, by one whatever its name, or not at all, which is for this machine only.",
        |s| postgres(s)?.tls.map(Value::text),
        |s, v| {
            with_postgres(s, PostgresTls::from_name(v.as_text()?)?, |o, tls| o.tls = Some(tls))
        },
    )
    .unless_set("`off` for a Unix socket and this machine, else `verify-full`"),
    Key::store(
        "postgres.root_certificate_file",
        Kind::Path,
        "The authorities that the server's certificate may be of, in PEM.",
        |s| postgres(s)?.root_certificate_file.clone().map(Value::Path),
        |s, v| with_postgres(s, v.into_path()?, |o, path| o.root_certificate_file = Some(path)),
    )
    .unless_set("those that browsers know"),
    Key::store(
        "postgres.schema",
        Kind::Name,
        "The schema that holds the tables: lowercase letters, digits and `_`, at most 48. Several stores in one database have one each.",
        |s| postgres(s).map(|o| Value::text(&o.schema)),
        |s, v| with_postgres(s, v.into_text()?, |o, text| o.schema = text),
    ),
    Key::store(
        "postgres.pool_min",
        integer(0, 1000),
        "How many connections are kept for reads, however long nobody uses them. Commits have one of their own.",
        |s| postgres(s).map(|o| Value::Integer(o.pool_min)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.pool_min = n),
    ),
    Key::store(
        "postgres.pool_max",
        integer(1, 1000),
        "How many there may be.",
        |s| postgres(s).map(|o| Value::Integer(o.pool_max)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.pool_max = n),
    ),
    Key::store(
        "postgres.pool_idle_seconds",
        integer(1, 86400),
        "For how many seconds a further one may be unused.",
        |s| postgres(s).map(|o| Value::Integer(o.pool_idle_seconds)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.pool_idle_seconds = n),
    ),
    Key::store(
        "postgres.pool_lifetime_seconds",
        integer(10, 86400),
        "For how many seconds one is used; each process takes up to a tenth less.",
        |s| postgres(s).map(|o| Value::Integer(o.pool_lifetime_seconds)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.pool_lifetime_seconds = n),
    ),
    Key::store(
        "postgres.connect_timeout_ms",
        integer(1, 600000),
        "How many milliseconds making, or waiting for, a connection may take.",
        |s| postgres(s).map(|o| Value::Integer(o.connect_timeout_ms)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.connect_timeout_ms = n),
    ),
    Key::store(
        "postgres.read_timeout_ms",
        integer(1, 600000),
        "How many milliseconds a read may take.",
        |s| postgres(s).map(|o| Value::Integer(o.read_timeout_ms)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.read_timeout_ms = n),
    ),
    Key::store(
        "postgres.commit_timeout_ms",
        integer(1, 600000),
        "How many milliseconds a commit may take before its outcome is unknown.",
        |s| postgres(s).map(|o| Value::Integer(o.commit_timeout_ms)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.commit_timeout_ms = n),
    ),
    Key::store(
        "postgres.notify",
        Kind::Boolean,
        "Whether commits notify the other processes, and these listen; otherwise they look by themselves.",
        |s| postgres(s).map(|o| Value::Boolean(o.notify)),
        |s, v| with_postgres(s, v.boolean()?, |o, notify| o.notify = notify),
    ),
    Key::store(
        "postgres.listen_host",
        Kind::Host,
        "Where notifications come from, if something stands before `host` that does not pass them on.",
        |s| postgres(s)?.listen_host.clone().map(Value::Text),
        |s, v| with_postgres(s, v.into_text()?, |o, text| o.listen_host = Some(text)),
    )
    .unless_set("as `host`"),
    Key::store(
        "postgres.listen_port",
        integer(1, 65535),
        "The port there.",
        |s| postgres(s)?.listen_port.map(Value::Integer),
        |s, v| with_postgres(s, v.integer()?, |o, port| o.listen_port = Some(port)),
    )
    .unless_set("as `port`"),
    Key::store(
        "postgres.max_clock_ahead_ms",
        integer(1, 86400000),
        "How many milliseconds a commit may be dated ahead of the server's clock; what is further ahead is refused.",
        |s| postgres(s).map(|o| Value::Integer(o.max_clock_ahead_ms)),
        |s, v| with_postgres(s, v.integer()?, |o, n| o.max_clock_ahead_ms = n),
    ),
    Key::store(
        "postgres.durability",
        Kind::Choice(PostgresDurability::NAMES),
        "Whether a server that may forget what it confirmed (fsync, full_page_writes or synchronous_commit off) is refused.",
        |s| postgres(s).map(|o| Value::text(o.durability)),
        |s, v| {
            with_postgres(s, PostgresDurability::from_name(v.as_text()?)?, |o, d| o.durability = d)
        },
    ),
    Key::store(
        "secret_key_file",
        Kind::Path,
        "The file with the key that hashes API and pre-auth keys and sessions: lines of 64 hex digits, one for each version, of which the last one hashes; mode 0600; `gwstore init` makes it. postgres needs it set. A sealed store has this key in its keyring unless a file is named.",
        |s| s.secret_key_file.clone().map(Value::Path),
        |s, v| v.into_path().map(|path| s.secret_key_file = Some(path)),
    )
    .unless_set("the store file's path and `.key`")
    .derived_from_store(|s| s.secret_key_path().map(Value::Path)),
    Key::field(
        "roles.core",
        Kind::StoreName,
        "The store of users, nodes, routes, policies and DNS; must be `store` for now.",
        |c| c.roles.core.clone().map(Value::Text),
        |c, v| v.into_text().map(|name| c.roles.core = Some(name)),
    )
    .unless_set("as `store`")
    .derived(|c| role(c, Role::Core)),
    Key::field(
        "roles.secrets",
        Kind::StoreName,
        "The store of API keys, pre-auth keys and sessions; must be `store` for now.",
        |c| c.roles.secrets.clone().map(Value::Text),
        |c, v| v.into_text().map(|name| c.roles.secrets = Some(name)),
    )
    .unless_set("as `roles.core`")
    .derived(|c| role(c, Role::Secrets)),
    Key::field(
        "roles.telemetry",
        Kind::StoreName,
        "The store of metrics and audit; must be `store` for now.",
        |c| c.roles.telemetry.clone().map(Value::Text),
        |c, v| v.into_text().map(|name| c.roles.telemetry = Some(name)),
    )
    .unless_set("as `roles.core`")
    .derived(|c| role(c, Role::Telemetry)),
    Key::field(
        "migration.stage",
        Kind::Choice(MigrationStage::NAMES),
        "How far commands may take a move between two stores; nothing moves by itself.",
        |c| Some(Value::text(c.migration.stage)),
        |c, v| MigrationStage::from_name(v.as_text()?).map(|stage| c.migration.stage = stage),
    ),
    Key::field(
        "migration.target",
        Kind::StoreName,
        "The store that a move leads to. Both are opened from then on, and their records say which one is served.",
        |c| c.migration.target.clone().map(Value::Text),
        |c, v| v.into_text().map(|name| c.migration.target = Some(name)),
    )
    .unless_set("none"),
    Key::field(
        "migration.max_stall_ms",
        integer(1, 60_000),
        "How long nobody may be served while a move hands the network over, in milliseconds; what takes longer is taken back.",
        |c| Some(Value::Integer(c.migration.max_stall_ms)),
        |c, v| v.integer().map(|n| c.migration.max_stall_ms = n),
    ),
    Key::field(
        "migration.synchronous",
        Kind::Boolean,
        "Whether an answer means that both stores have it, once the copy is complete: each write takes as long as the slower one, and one that is lost is gone on without.",
        |c| Some(Value::Boolean(c.migration.synchronous)),
        |c, v| v.boolean().map(|synchronous| c.migration.synchronous = synchronous),
    ),
    Key::field(
        "migration.mirror_timeout_ms",
        integer(1, 600_000),
        "How long callers wait, where both stores have to answer, for one that does not, in milliseconds; then the outcome of their write is unknown.",
        |c| Some(Value::Integer(c.migration.mirror_timeout_ms)),
        |c, v| v.integer().map(|n| c.migration.mirror_timeout_ms = n),
    ),
    Key::field(
        "migration.witness_command",
        Kind::Path,
        "A program outside of both stores that is asked before one of them goes on without the other: with the network, the epoch and the side, it ends with 0 if it grants this side the epoch, and with 1 if another side has it.",
        |c| c.migration.witness_command.clone().map(Value::Path),
        |c, v| v.into_path().map(|path| c.migration.witness_command = Some(path)),
    )
    .unless_set("none: the process that holds both stores decides"),
    Key::field(
        "migration.max_kept_mib",
        integer(1, 1_048_576),
        "How much the store that is served keeps for the other one at most, in MiB; beyond it the other one has to be copied anew.",
        |c| Some(Value::Integer(c.migration.max_kept_mib)),
        |c, v| v.integer().map(|n| c.migration.max_kept_mib = n),
    ),
    Key::field(
        "migration.copy_share",
        integer(1, 100),
        "How many of a hundred parts of time are used for copying; the rest is for those who write meanwhile.",
        |c| Some(Value::Integer(c.migration.copy_share)),
        |c, v| v.integer().map(|n| c.migration.copy_share = n),
    ),
    Key::field(
        "writer.queue_capacity",
        integer(1, 1_000_000),
        "How many commands may wait for the writer.",
        |c| Some(Value::Integer(c.writer.queue_capacity)),
        |c, v| v.integer().map(|n| c.writer.queue_capacity = n),
    ),
    Key::field(
        "writer.queue_mib",
        integer(1, 1_048_576),
        "How much memory commands may own that wait for the writer or are being stored, in MiB.",
        |c| Some(Value::Integer(c.writer.queue_mib)),
        |c, v| v.integer().map(|n| c.writer.queue_mib = n),
    ),
    Key::field(
        "writer.queue_timeout_ms",
        integer(1, 600_000),
        "How long a caller waits for room in the queue, or for its turn to have an imported key checked, \
         in milliseconds.",
        |c| Some(Value::Integer(c.writer.queue_timeout_ms)),
        |c, v| v.integer().map(|n| c.writer.queue_timeout_ms = n),
    ),
    Key::field(
        "writer.max_group",
        integer(1, 65_536),
        "How many commands one commit may carry.",
        |c| Some(Value::Integer(c.writer.max_group)),
        |c, v| v.integer().map(|n| c.writer.max_group = n),
    ),
    Key::field(
        "writer.retain_blocks_mib",
        integer(0, 1_048_576),
        "How much of the newest blocks is kept for mirrors, followers and backups, in MiB.",
        |c| Some(Value::Integer(c.writer.retain_blocks_mib)),
        |c, v| v.integer().map(|n| c.writer.retain_blocks_mib = n),
    ),
    Key::field(
        "writer.max_dirty_rows",
        integer(1, 1_000_000_000),
        "How many dirty rows may wait to be flushed before writers are slowed down.",
        |c| Some(Value::Integer(c.writer.max_dirty_rows)),
        |c, v| v.integer().map(|n| c.writer.max_dirty_rows = n),
    ),
    Key::field(
        "writer.max_view_age_ms",
        integer(1, 3_600_000),
        "How old a view may be for a credential check, in milliseconds; shared backends only.",
        |c| Some(Value::Integer(c.writer.max_view_age_ms)),
        |c, v| v.integer().map(|n| c.writer.max_view_age_ms = n),
    ),
    Key::field(
        "clock.max_step_seconds",
        integer(1, 31_536_000),
        "How far the clock may jump ahead while the store is open, in seconds, before writes are refused.",
        |c| Some(Value::Integer(c.clock.max_step_seconds)),
        |c, v| v.integer().map(|n| c.clock.max_step_seconds = n),
    ),
    Key::field(
        "clock.max_gap_days",
        DAYS,
        "How far the clock may be ahead of the last commit, in days, when the store is opened to be written.",
        |c| Some(Value::Integer(c.clock.max_gap_days)),
        |c, v| v.integer().map(|n| c.clock.max_gap_days = n),
    ),
    Key::field(
        "series.metrics_retention_days",
        DAYS,
        "How many days metrics are kept.",
        |c| c.series.metrics_retention_days.map(Value::Integer),
        |c, v| v.integer().map(|n| c.series.metrics_retention_days = Some(n)),
    )
    .unless_set(FOR_EVER),
    Key::field(
        "series.audit_retention_days",
        DAYS,
        "How many days audit entries are kept.",
        |c| c.series.audit_retention_days.map(Value::Integer),
        |c, v| v.integer().map(|n| c.series.audit_retention_days = Some(n)),
    )
    .unless_set(FOR_EVER),
    Key::field(
        "http.listen",
        Kind::Address,
        "Where `gwstore serve` answers HTTP: `/livez`, `/readyz`, `/metrics`, `/status`. Without a port, \
         port 9655. Whoever reaches it reads the status, paths included.",
        |c| c.http.listen.map(Value::text),
        |c, v| address(v.as_text()?).map(|address| c.http.listen = Some(address)),
    )
    .unless_set("no HTTP"),
    Key::field(
        "http.optional",
        Kind::Boolean,
        "Serves the store also if that address cannot be had.",
        |c| Some(Value::Boolean(c.http.optional)),
        |c, v| v.boolean().map(|optional| c.http.optional = optional),
    ),
    Key::field(
        "http.max_connections",
        integer(1, 10_000),
        "How many connections over HTTP there may be at once; a further one takes the place of the oldest that has sent no request.",
        |c| Some(Value::Integer(c.http.max_connections)),
        |c, v| v.integer().map(|n| c.http.max_connections = n),
    ),
    Key::field(
        "serve.drain_seconds",
        integer(1, 3600),
        "How long `gwstore serve` waits for the store to be closed when it is asked to end, in seconds.",
        |c| Some(Value::Integer(c.serve.drain_seconds)),
        |c, v| v.integer().map(|n| c.serve.drain_seconds = n),
    ),
    Key::field(
        "serve.drain_delay_ms",
        integer(0, 600_000),
        "How long it goes on serving before that, in milliseconds, while `/readyz` says that it is not ready: as long as a load balancer takes to notice.",
        |c| Some(Value::Integer(c.serve.drain_delay_ms)),
        |c, v| v.integer().map(|n| c.serve.drain_delay_ms = n),
    ),
    Key::field(
        "jobs.instance",
        Kind::InstanceName,
        "What this process of `gwstore serve` is called among several on one store, of which one then does the jobs. Each needs a name of its own, the same after a restart: a process that begins under a name ends the other one that has it.",
        |c| c.jobs.instance.as_ref().map(Value::text),
        |c, v| InstanceName::new(v.as_text()?).ok().map(|name| c.jobs.instance = Some(name)),
    )
    .unless_set("none: this process does the jobs, whoever else does them"),
    Key::field(
        "jobs.reap_seconds",
        INTERVAL,
        "How often `gwstore serve` looks for ephemeral nodes that are to be removed, in seconds; 0 is never.",
        |c| Some(Value::Integer(c.jobs.reap_seconds)),
        |c, v| v.integer().map(|n| c.jobs.reap_seconds = n),
    ),
    Key::field(
        "jobs.sweep_seconds",
        INTERVAL,
        "How often it removes sessions, sign-ins and keys that expired, in seconds; 0 is never.",
        |c| Some(Value::Integer(c.jobs.sweep_seconds)),
        |c, v| v.integer().map(|n| c.jobs.sweep_seconds = n),
    ),
    Key::field(
        "jobs.keep_expired_days",
        integer(0, 36_500),
        "How many days it keeps keys that expired or were revoked.",
        |c| Some(Value::Integer(c.jobs.keep_expired_days)),
        |c, v| v.integer().map(|n| c.jobs.keep_expired_days = n),
    ),
    Key::field(
        "jobs.retention_seconds",
        INTERVAL,
        "How often it prunes the series as `series` says, in seconds; 0 is never.",
        |c| Some(Value::Integer(c.jobs.retention_seconds)),
        |c, v| v.integer().map(|n| c.jobs.retention_seconds = n),
    ),
    Key::field(
        "jobs.checkpoint_seconds",
        INTERVAL,
        "How often it brings every block into rows, in seconds; 0 is never.",
        |c| Some(Value::Integer(c.jobs.checkpoint_seconds)),
        |c, v| v.integer().map(|n| c.jobs.checkpoint_seconds = n),
    ),
    Key::field(
        "admin.socket",
        Kind::Boolean,
        "Whether a store that is opened to be written serves an admin socket, by which `gwstore` works beside it.",
        |c| Some(Value::Boolean(c.admin.socket)),
        |c, v| v.boolean().map(|socket| c.admin.socket = socket),
    ),
    Key::field(
        "admin.path",
        Kind::Path,
        "Where the socket is; its directory has to be there. Each store that is open at the same time needs one of its own, and `gwstore` uses it for the store that is served there and no other.",
        |c| c.admin.path.clone().map(Value::Path),
        |c, v| v.into_path().map(|path| c.admin.path = Some(path)),
    )
    .unless_set("the store file's path and `.sock`")
    .derived(|c| c.admin_socket_path().map(Value::Path)),
    Key::field(
        "admin.group",
        Kind::Name,
        "The group, by name or number, whose members may use the socket beside the store's user and root. They have to get to it, and to see the store's file: its directory lets them through with mode 0710 and their group.",
        |c| c.admin.group.clone().map(Value::Text),
        |c, v| v.into_text().map(|group| c.admin.group = Some(group)),
    )
    .unless_set("none"),
    Key::field(
        "admin.mode",
        Kind::Choice(SocketMode::NAMES),
        "The socket's mode.",
        |c| c.admin.mode.map(Value::text),
        |c, v| SocketMode::from_name(v.as_text()?).map(|mode| c.admin.mode = Some(mode)),
    )
    .unless_set("`0660` with a group, else `0600`"),
    Key::field(
        "admin.max_clients",
        integer(1, 1_000),
        "How many clients the socket serves at a time; the next one is refused.",
        |c| Some(Value::Integer(c.admin.max_clients)),
        |c, v| v.integer().map(|n| c.admin.max_clients = n),
    ),
    Key::field(
        "log.format",
        Kind::Choice(LogFormat::NAMES),
        "How a program that serves the store writes the lines of its log, which go to standard error.",
        |c| Some(Value::text(c.log.format)),
        |c, v| LogFormat::from_name(v.as_text()?).map(|format| c.log.format = format),
    ),
    Key::field(
        "log.level",
        Kind::Choice(LogLevelName::NAMES),
        "The least level of a line; `RUST_LOG` can name more. It can be changed while the program runs.",
        |c| Some(Value::text(c.log.level)),
        |c, v| LogLevelName::from_name(v.as_text()?).map(|level| c.log.level = level),
    ),
    Key::field(
        "log.slow_ms",
        integer(0, 3_600_000),
        "From how many milliseconds on a write is logged with its phases; 0 logs none.",
        |c| Some(Value::Integer(c.log.slow_ms)),
        |c, v| v.integer().map(|n| c.log.slow_ms = n),
    ),
    Key::field(
        "telemetry.enabled",
        Kind::Boolean,
        "Whether metrics are counted and traces followed.",
        |c| Some(Value::Boolean(c.telemetry.enabled)),
        |c, v| v.boolean().map(|on| c.telemetry.enabled = on),
    ),
    Key::field(
        "telemetry.otlp_endpoint",
        Kind::Endpoint,
        "Where a collector takes OTLP over HTTP. Metrics can be read as text without one.",
        |c| c.telemetry.otlp_endpoint.as_ref().map(Value::text),
        |c, v| v.into_text().map(|address| c.telemetry.otlp_endpoint = Some(address)),
    )
    .unless_set("`OTEL_EXPORTER_OTLP_ENDPOINT`, else nothing is sent"),
    Key::field(
        "telemetry.sample_percent",
        integer(0, 100),
        "How many traces of a hundred are followed; metrics count everything.",
        |c| c.telemetry.sample_percent.map(Value::Integer),
        |c, v| v.integer().map(|n| c.telemetry.sample_percent = Some(n)),
    )
    .unless_set("`OTEL_TRACES_SAMPLER`, else 1"),
    Key::field(
        "telemetry.export_interval_seconds",
        integer(1, 86_400),
        "How many seconds pass between two exports of metrics to the collector.",
        |c| c.telemetry.export_interval_seconds.map(Value::Integer),
        |c, v| v.integer().map(|n| c.telemetry.export_interval_seconds = Some(n)),
    )
    .unless_set("`OTEL_METRIC_EXPORT_INTERVAL`, else 60"),
    Key::switch(
        "switches.*.state",
        Kind::Choice(SwitchState::NAMES),
        "A disabled switch counts as not declared.",
        "`ENABLED`",
    ),
    Key::switch(
        "switches.*.default_variant",
        Kind::Name,
        "The variant that holds; one of `variants`.",
        "required",
    ),
    Key::switch(
        "switches.*.variants.*",
        Kind::Boolean,
        "What each variant means.",
        "`on = true`, `off = false`",
    )
    .only(Place::FileOnly),
];

// An option of a backend that is not chosen is checked like any other and then has no effect.

fn with_zqlite<V>(s: &mut NamedStore, value: V, set: fn(&mut ZqliteOptions, V)) -> Option<()> {
    if let BackendChoice::Zqlite(options) = &mut s.backend {
        set(options, value);
    }
    Some(())
}

fn with_libsql<V>(s: &mut NamedStore, value: V, set: fn(&mut LibsqlOptions, V)) -> Option<()> {
    if let BackendChoice::Libsql(options) = &mut s.backend {
        set(options, value);
    }
    Some(())
}

fn with_postgres<V>(s: &mut NamedStore, value: V, set: fn(&mut PostgresOptions, V)) -> Option<()> {
    if let BackendChoice::Postgres(options) = &mut s.backend {
        set(options, value);
    }
    Some(())
}
