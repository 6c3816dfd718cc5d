//! The one table of known keys. Validation, hints, `explain` and the documentation derive from it;
//! the defaults are those of [`Config`].

use super::names::{BackendKind, Materialize, MigrationStage, Role, SwitchState, ZqliteEngine};
use super::types::{BackendChoice, Config, LibsqlOptions, PostgresOptions, ZqliteOptions};
use super::value::{Kind, Value};

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
    /// Set if further values are planned: why they are refused today.
    pub(super) not_yet: Option<&'static str>,
    pub(super) access: Access,
}

/// Where a key may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Everywhere,
    FileOnly,
    OutsideFile,
}

type Get = fn(&Config) -> Option<Value>;

/// How a key's value gets in and out of a [`Config`].
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// `set` gives `None` only for a value of another kind; `derive` is what holds without a value.
    Field { get: Get, set: fn(&mut Config, Value) -> Option<()>, derive: Get },
    /// Part of a switch, which has a name of its own.
    Switch,
}

impl Key {
    const fn field(
        path: &'static str,
        kind: Kind,
        help: &'static str,
        get: Get,
        set: fn(&mut Config, Value) -> Option<()>,
    ) -> Self {
        let access = Access::Field { get, set, derive: |_| None };
        let place = Place::Everywhere;
        Self { path, kind, help, unset: "", place, not_yet: None, access }
    }

    const fn switch(
        path: &'static str,
        kind: Kind,
        help: &'static str,
        unset: &'static str,
    ) -> Self {
        let place = Place::Everywhere;
        Self { path, kind, help, unset, place, not_yet: None, access: Access::Switch }
    }

    const fn unless_set(mut self, unset: &'static str, derived: Get) -> Self {
        self.unset = unset;
        if let Access::Field { derive, .. } = &mut self.access {
            *derive = derived;
        }
        self
    }

    const fn only(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    const fn others_later(mut self, explanation: &'static str) -> Self {
        self.not_yet = Some(explanation);
        self
    }

    /// The backend whose option this is.
    pub(super) fn backend(&self) -> Option<BackendKind> {
        self.path.split_once('.').and_then(|(section, _)| BackendKind::from_name(section))
    }
}

const fn integer(lowest: u64, highest: u64) -> Kind {
    Kind::Integer { lowest, highest }
}

const BACKEND: Kind = Kind::Choice(BackendKind::NAMES);
const DAYS: Kind = integer(1, 36_500);
const FOR_EVER: &str = "kept for ever";

fn zqlite(config: &Config) -> Option<&ZqliteOptions> {
    if let BackendChoice::Zqlite(options) = &config.backend { Some(options) } else { None }
}

fn libsql(config: &Config) -> Option<&LibsqlOptions> {
    if let BackendChoice::Libsql(options) = &config.backend { Some(options) } else { None }
}

fn postgres(config: &Config) -> Option<&PostgresOptions> {
    if let BackendChoice::Postgres(options) = &config.backend { Some(options) } else { None }
}

fn backend_name(value: &Value) -> Option<BackendKind> {
    BackendKind::from_name(value.as_text()?)
}

fn role(config: &Config, role: Role) -> Option<Value> {
    Some(Value::text(config.backend_of(role)))
}

/// Every known key. `backend` comes before the options, which have an effect only on their own.
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
        "backend",
        BACKEND,
        "The backend that remembers the state.",
        |c| Some(Value::text(c.backend.kind())),
        |c, v| {
            let kind = backend_name(&v)?;
            if c.backend.kind() != kind {
                c.backend = BackendChoice::with_defaults(kind);
            }
            Some(())
        },
    ),
    Key::field(
        "zqlite.path",
        Kind::Path,
        "The store file.",
        |c| zqlite(c).map(|o| Value::Path(o.path.clone())),
        |c, v| with_zqlite(c, v.into_path()?, |o, path| o.path = path),
    ),
    Key::field(
        "zqlite.engine",
        Kind::Choice(ZqliteEngine::NAMES),
        "What the store runs on: the SQLite that is linked in, or the ZQLite library, which this release refuses.",
        |c| zqlite(c).map(|o| Value::text(o.engine)),
        |c, v| with_zqlite(c, ZqliteEngine::from_name(v.as_text()?)?, |o, e| o.engine = e),
    ),
    Key::field(
        "zqlite.materialize",
        Kind::Choice(Materialize::NAMES),
        "When blocks become rows: with each commit, or at checkpoints in the background.",
        |c| zqlite(c).map(|o| Value::text(o.materialize)),
        |c, v| with_zqlite(c, Materialize::from_name(v.as_text()?)?, |o, m| o.materialize = m),
    ),
    Key::field(
        "libsql.path",
        Kind::Path,
        "The store file.",
        |c| libsql(c).map(|o| Value::Path(o.path.clone())),
        |c, v| with_libsql(c, v.into_path()?, |o, path| o.path = path),
    ),
    Key::field(
        "libsql.materialize",
        Kind::Choice(Materialize::NAMES),
        "When blocks become rows: with each commit, so that other tools read current tables, or at \
         checkpoints in the background, which is faster.",
        |c| libsql(c).map(|o| Value::text(o.materialize)),
        |c, v| with_libsql(c, Materialize::from_name(v.as_text()?)?, |o, m| o.materialize = m),
    ),
    Key::field(
        "postgres.url_file",
        Kind::Path,
        "The file that holds the connection URL, which is a secret.",
        |c| postgres(c)?.url_file.clone().map(Value::Path),
        |c, v| with_postgres(c, v.into_path()?, |o, path| o.url_file = Some(path)),
    )
    .unless_set("the variable holds the URL", |_| None),
    Key::field(
        "postgres.url_variable",
        Kind::VariableName,
        "The environment variable that holds the connection URL if no file is named.",
        |c| postgres(c).map(|o| Value::text(&o.url_variable)),
        |c, v| with_postgres(c, v.into_text()?, |o, name| o.url_variable = name),
    ),
    Key::field(
        "secret_key_file",
        Kind::Path,
        "The file with the key that hashes API and pre-auth keys and sessions: 64 hex digits, mode 0600; `gwstore init` makes it. postgres needs it set.",
        |c| c.secret_key_file.clone().map(Value::Path),
        |c, v| v.into_path().map(|path| c.secret_key_file = Some(path)),
    )
    .unless_set("the store file's path and `.key`", |c| c.secret_key_path().map(Value::Path)),
    Key::field(
        "roles.core",
        BACKEND,
        "The backend of users, nodes, routes, policies and DNS; must be `backend` for now.",
        |c| c.roles.core.map(Value::text),
        |c, v| backend_name(&v).map(|kind| c.roles.core = Some(kind)),
    )
    .unless_set("as `backend`", |c| role(c, Role::Core)),
    Key::field(
        "roles.secrets",
        BACKEND,
        "The backend of API keys, pre-auth keys and sessions; must be `backend` for now.",
        |c| c.roles.secrets.map(Value::text),
        |c, v| backend_name(&v).map(|kind| c.roles.secrets = Some(kind)),
    )
    .unless_set("as `roles.core`", |c| role(c, Role::Secrets)),
    Key::field(
        "roles.telemetry",
        BACKEND,
        "The backend of metrics and audit; must be `backend` for now.",
        |c| c.roles.telemetry.map(Value::text),
        |c, v| backend_name(&v).map(|kind| c.roles.telemetry = Some(kind)),
    )
    .unless_set("as `roles.core`", |c| role(c, Role::Telemetry)),
    Key::field(
        "migration.stage",
        Kind::Choice(MigrationStage::NAMES),
        "How far a move between two backends has come.",
        |c| Some(Value::text(c.migration.stage)),
        |c, v| MigrationStage::from_name(v.as_text()?).map(|stage| c.migration.stage = stage),
    )
    .others_later(
        "this version cannot move a live store between backends yet: leave migration.stage at \
         \"none\"",
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
    .unless_set(FOR_EVER, |_| None),
    Key::field(
        "series.audit_retention_days",
        DAYS,
        "How many days audit entries are kept.",
        |c| c.series.audit_retention_days.map(Value::Integer),
        |c, v| v.integer().map(|n| c.series.audit_retention_days = Some(n)),
    )
    .unless_set(FOR_EVER, |_| None),
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

fn with_zqlite<V>(c: &mut Config, value: V, set: fn(&mut ZqliteOptions, V)) -> Option<()> {
    if let BackendChoice::Zqlite(options) = &mut c.backend {
        set(options, value);
    }
    Some(())
}

fn with_libsql<V>(c: &mut Config, value: V, set: fn(&mut LibsqlOptions, V)) -> Option<()> {
    if let BackendChoice::Libsql(options) = &mut c.backend {
        set(options, value);
    }
    Some(())
}

fn with_postgres<V>(c: &mut Config, value: V, set: fn(&mut PostgresOptions, V)) -> Option<()> {
    if let BackendChoice::Postgres(options) = &mut c.backend {
        set(options, value);
    }
    Some(())
}
