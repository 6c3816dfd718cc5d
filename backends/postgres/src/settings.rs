//! Which database to use, and how.
//!
//! Every setting is a field of its own that is checked here. There is no connection URL: what sqlx does
//! not know of one it writes to the log, a mistyped password included.

use std::fmt;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::guard::Guard;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::schema::Schema;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

/// PostgreSQL cuts longer names, and then they are others.
const MAX_NAME: usize = 63;
/// So that a channel named after the schema fits, too.
const MAX_SCHEMA: usize = 48;
/// Statements that a connection keeps prepared. A commit's depends on which tables it touches.
const STATEMENTS: usize = 256;

/// A password, which is never shown. This copy is wiped when it is dropped; the client library keeps others,
/// as plain text in memory, for as long as the store is open, since it connects again and again.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The password.
    ///
    /// # Errors
    /// `InvalidArgument` if it is empty or has a NUL, which the protocol has no place for.
    pub fn new(password: impl Into<String>) -> Result<Self> {
        let password = Zeroizing::new(password.into());
        match password.is_empty() || password.contains('\0') {
            true => Err(Error::invalid("a password is a line that is not empty and has no NUL")),
            false => Ok(Self(password)),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Encrypted, and the server's certificate is of a known authority and for its host name.
    VerifyFull,
    /// Encrypted, and the server's certificate is of a known authority, whatever its name.
    VerifyCa,
    /// Not at all: over a Unix socket or to this machine only.
    Off,
}

/// What to do about a server that may forget what it confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Refuse it.
    #[default]
    Required,
    /// Use it all the same, and say that the store is not durable.
    Unsafe,
}

/// The connections that reads go over. Commits have one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// How many are kept, however long nobody uses them.
    pub min: u32,
    /// How many there may be.
    pub max: u32,
    /// For how long one may be unused.
    pub idle: Duration,
    /// For how long one is used at most. It is renewed by chance before that, from four fifths on, so that not
    /// all end at once.
    pub lifetime: Duration,
}

impl Default for PoolOptions {
    /// 1 to 8, 10 minutes, half an hour.
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        Self { min: 1, max: 8, idle: minutes(10), lifetime: minutes(30) }
    }
}

/// Which database to use, and how.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    host: String,
    port: u16,
    database: String,
    user: String,
    password: Option<Password>,
    tls: Option<Tls>,
    root_certificate: Option<PathBuf>,
    listen: Option<(String, u16)>,
    pub(crate) schema_name: String,
    pub(crate) pool: PoolOptions,
    pub(crate) deadlines: Deadlines,
    pub(crate) notify: bool,
    pub(crate) durability: Durability,
    pub(crate) max_clock_ahead: Option<Duration>,
    pub(crate) store: StoreId,
    pub(crate) create: bool,
    pub(crate) only_new: bool,
    pub(crate) read_only: bool,
    pub(crate) schema: Schema,
}

impl PostgresOptions {
    /// The database `database` on `host`, a name, an address, or the directory of a Unix socket. A new
    /// store gets the identity `store`, random bytes; one that exists keeps its own.
    #[must_use]
    pub fn new(
        host: impl Into<String>,
        database: impl Into<String>,
        user: impl Into<String>,
        store: StoreId,
    ) -> Self {
        Self {
            host: host.into(),
            port: 5432,
            database: database.into(),
            user: user.into(),
            password: None,
            tls: None,
            root_certificate: None,
            listen: None,
            schema_name: "ghostwire".to_owned(),
            pool: PoolOptions::default(),
            deadlines: Deadlines::default(),
            notify: true,
            durability: Durability::default(),
            max_clock_ahead: Some(Duration::from_secs(5)),
            store,
            create: false,
            only_new: false,
            read_only: false,
            schema: Schema::current(),
        }
    }

    /// The port, 5432 by default; of a Unix socket it is part of its name.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The password; none by default, as for `peer` over a Unix socket.
    #[must_use]
    pub fn password(mut self, password: Option<Password>) -> Self {
        self.password = password;
        self
    }

    /// How the connection is protected. By default [`Tls::Off`] over a Unix socket and to this machine,
    /// and [`Tls::VerifyFull`] to any other.
    #[must_use]
    pub fn tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// A file of certificates in PEM: the authorities that the server's certificate may be of. By default
    /// those that browsers know.
    #[must_use]
    pub fn root_certificate(mut self, path: Option<PathBuf>) -> Self {
        self.root_certificate = path;
        self
    }

    /// Where notifications come from, if there is something between this and the server that does not pass
    /// them on.
    #[must_use]
    pub fn listen(mut self, host: impl Into<String>, port: u16) -> Self {
        self.listen = Some((host.into(), port));
        self
    }

    /// The schema that holds the tables, `ghostwire` by default. Several stores in one database have one
    /// each.
    #[must_use]
    pub fn schema_name(mut self, name: impl Into<String>) -> Self {
        self.schema_name = name.into();
        self
    }

    /// The connections of readers.
    #[must_use]
    pub fn pool(mut self, pool: PoolOptions) -> Self {
        self.pool = pool;
        self
    }

    /// How long calls may take.
    #[must_use]
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Whether commits notify the other processes, and these listen; so by default. Without it they poll.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// What to do about a server that may forget what it confirmed.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How far a block's time may be ahead of the server's clock, 5 seconds by default: one process whose
    /// clock is fast would date everything that follows. `None` is any.
    #[must_use]
    pub fn max_clock_ahead(mut self, ahead: Option<Duration>) -> Self {
        self.max_clock_ahead = ahead;
        self
    }

    /// The identity of a store that is made.
    #[must_use]
    pub fn store(mut self, store: StoreId) -> Self {
        self.store = store;
        self
    }

    /// Whether to make a new store if there is none; not by default. Otherwise that is `NotFound`.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to open only a store that this call makes; not by default. Of two that make one at once, one
    /// gets `AlreadyExists`.
    #[must_use]
    pub fn only_new(mut self, only_new: bool) -> Self {
        self.only_new = only_new;
        self
    }

    /// Whether to leave the database as it is; not by default.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The schema version of a new store, which is the current one by default; older ones are for tests.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// Which database this is, for people: no user, no password.
    pub(crate) fn location(&self) -> String {
        let (host, port) = (&self.host, self.port);
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{host}:{port}/{} schema {}", self.database, self.schema_name)
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// `InvalidArgument` names the setting and what it may be.
    pub fn check(&self) -> Result<()> {
        check_host("host", &self.host)?;
        check_name("database", &self.database)?;
        check_name("user", &self.user)?;
        check_schema(&self.schema_name)?;
        check_port("port", self.port)?;
        check_tls(&self.host, self.tls)?;
        if let Some((host, port)) = &self.listen {
            check_host("listen_host", host)?;
            check_port("listen_port", *port)?;
            check_tls(host, self.tls)?;
        }
        let PoolOptions { min, max, idle, lifetime } = self.pool;
        let range = |name: &'static str, value: u64, lowest: u64, highest: u64| match (lowest
            ..=highest)
            .contains(&value)
        {
            true => Ok(()),
            false => Err(Error::invalid("a setting of the pool is out of range")
                .with("setting", name)
                .with("value", value)
                .with("allowed", format_args!("{lowest} to {highest}"))),
        };
        range("pool_max", max.into(), 1, 1000)?;
        range("pool_min", min.into(), 0, max.into())?;
        range("pool_idle", idle.as_secs(), 1, 86_400)?;
        range("pool_lifetime", lifetime.as_secs(), 10, 86_400)?;
        let Deadlines { connect, read, commit } = self.deadlines;
        for (name, deadline) in [("connect", connect), ("read", read), ("commit", commit)] {
            if deadline.is_zero() {
                return Err(
                    Error::invalid("a deadline of no time is always missed").with("setting", name)
                );
            }
        }
        Ok(())
    }

    /// What sqlx connects by. No statement and no parameter of one is logged.
    pub(crate) fn connect_options(&self) -> Result<PgConnectOptions> {
        self.check()?;
        self.options_for(&self.host, self.port)
    }

    /// The same for the connection that listens.
    pub(crate) fn listen_options(&self) -> Result<PgConnectOptions> {
        self.check()?;
        let (host, port) = match &self.listen {
            Some((host, port)) => (host, *port),
            None => (&self.host, self.port),
        };
        self.options_for(host, port)
    }

    /// What looks who asks for the password, where anybody could.
    pub(crate) fn guard(&self) -> Option<Guard> {
        self.guard_for(&self.host, self.port)
    }

    /// The same for the connection that listens.
    pub(crate) fn listen_guard(&self) -> Option<Guard> {
        let (host, port) =
            self.listen.as_ref().map_or((&self.host, self.port), |(host, port)| (host, *port));
        self.guard_for(host, port)
    }

    fn guard_for(&self, host: &str, port: u16) -> Option<Guard> {
        let is_plain = self.tls.unwrap_or_else(|| default_tls(host)) == Tls::Off;
        let is_exposed = is_plain && !is_socket(host) && self.password.is_some();
        is_exposed.then(|| Guard::new(host, port, &self.user, &self.database))
    }

    fn options_for(&self, host: &str, port: u16) -> Result<PgConnectOptions> {
        check_variables(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))?;
        if let Some(path) = &self.root_certificate {
            File::open(path).map_err(|error| {
                Error::new(ErrorKind::NotFound, "the file of authorities cannot be read")
                    .with("root_certificate", path.display())
                    .because(error)
            })?;
        }
        let tls = self.tls.unwrap_or_else(|| default_tls(host));
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .database(&self.database)
            .username(&self.user)
            // An empty one, so that none comes from a variable of libpq.
            .password(self.password.as_ref().map_or("", |password| password.0.as_str()))
            .ssl_mode(match tls {
                Tls::VerifyFull => PgSslMode::VerifyFull,
                Tls::VerifyCa => PgSslMode::VerifyCa,
                Tls::Off => PgSslMode::Disable,
            })
            .application_name("ghostwire-store")
            .statement_cache_capacity(STATEMENTS)
            .disable_statement_logging();
        if is_socket(host) {
            options = options.socket(Path::new(host));
        }
        Ok(match &self.root_certificate {
            Some(path) => options.ssl_root_cert(path),
            None => options,
        })
    }
}

fn is_socket(host: &str) -> bool {
    host.starts_with('/')
}

/// Whether a host is this machine.
fn is_local(host: &str) -> bool {
    let is_loopback = |address: IpAddr| address.is_loopback();
    is_socket(host) || host == "localhost" || host.parse().is_ok_and(is_loopback)
}

fn default_tls(host: &str) -> Tls {
    if is_local(host) { Tls::Off } else { Tls::VerifyFull }
}

fn check_tls(host: &str, tls: Option<Tls>) -> Result<()> {
    match tls {
        Some(Tls::Off) if !is_local(host) => Err(Error::invalid(
            "without TLS everybody on the way to another machine reads and changes what is sent; leave \
             `tls` out, and name the authority of the server's certificate as `root_certificate`",
        )
        .with("setting", "tls")
        .with("host", host)),
        Some(Tls::VerifyFull | Tls::VerifyCa) if is_socket(host) => {
            Err(Error::invalid("a Unix socket has no TLS; leave `tls` out").with("host", host))
        }
        _ => Ok(()),
    }
}

fn check_host(setting: &'static str, host: &str) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    let is_path = |c: char| !c.is_control();
    let fits = match is_socket(host) {
        true => host.chars().all(is_path),
        false => !host.is_empty() && host.chars().all(is_plain),
    };
    if fits && host.len() <= 255 && (!host.contains(':') || host.parse::<IpAddr>().is_ok()) {
        return Ok(());
    }
    // Not shown: a URL that was put here has a password in it.
    Err(Error::invalid(
        "a host is a name, an address without brackets, or the directory of a Unix socket, and nothing \
         beside; port, user and password have settings of their own",
    )
    .with("setting", setting))
}

/// Refuses what the client library takes from the environment, and nothing can take from it again: options by
/// which the server would be another one than the settings say.
fn check_variables(is_set: impl Fn(&str) -> bool) -> Result<()> {
    match is_set("PGOPTIONS") {
        true => Err(Error::invalid(
            "unset PGOPTIONS: the connections of a store set what they need themselves",
        )
        .with("variable", "PGOPTIONS")),
        false => Ok(()),
    }
}

fn check_port(setting: &'static str, port: u16) -> Result<()> {
    match port {
        0 => Err(Error::invalid("a port is a number of 1 to 65535").with("setting", setting)),
        _ => Ok(()),
    }
}

fn check_name(setting: &'static str, name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
    if fits && !name.contains("://") {
        return Ok(());
    }
    // Not shown: see above.
    Err(Error::invalid("this is a name of 1 to 63 bytes without control characters, and no URL")
        .with("setting", setting))
}

fn check_schema(name: &str) -> Result<()> {
    let is_first = |c: char| c.is_ascii_lowercase() || c == '_';
    let fits = name.starts_with(is_first)
        && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
        && name.len() <= MAX_SCHEMA;
    let is_systems = name.starts_with("pg_") || name == "information_schema" || name == "public";
    if fits && !is_systems {
        return Ok(());
    }
    Err(Error::invalid(
        "the schema of a store is a name of a to z, 0 to 9 and _ that does not begin with a digit, at most \
         48 long, and none that PostgreSQL has by itself",
    )
    .with("setting", "schema")
    .with("value", name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options(host: &str) -> PostgresOptions {
        PostgresOptions::new(host, "net", "control", StoreId::from_bytes([1; 16]))
    }

    #[test]
    fn another_machine_is_verified_and_this_one_needs_no_tls() {
        for (host, mode) in [
            ("/run/postgresql", PgSslMode::Disable),
            ("localhost", PgSslMode::Disable),
            ("127.0.0.1", PgSslMode::Disable),
            ("::1", PgSslMode::Disable),
            ("db.example", PgSslMode::VerifyFull),
            ("192.0.2.1", PgSslMode::VerifyFull),
            ("localhost.example", PgSslMode::VerifyFull),
        ] {
            let made = options(host).connect_options().unwrap();
            assert_eq!(format!("{:?}", made.get_ssl_mode()), format!("{mode:?}"), "{host}");
        }
        let off = options("db.example").tls(Some(Tls::Off)).check().unwrap_err();
        assert_eq!(*off.kind(), ErrorKind::InvalidArgument);
        assert!(off.to_string().contains("db.example"), "{off}");
        assert!(options("127.0.0.1").tls(Some(Tls::VerifyFull)).check().is_ok());
        assert!(options("127.0.0.1").listen("db.example", 1).tls(Some(Tls::Off)).check().is_err());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_not_repeated() {
        let url = "postgres://control:planted@db.example/net";
        let error = options(url).check().unwrap_err().to_string();
        assert!(error.contains("setting=host") && !error.contains("planted"), "{error}");
        for host in ["", "db example", "[::1]", "db.example:5432", "a,b", "db\n"] {
            assert!(options(host).check().is_err(), "{host}");
        }
        let schemas = ["", "Net", "1net", "pg_net", "public", "a\"b", "a b", &"a".repeat(49)];
        for schema in schemas {
            assert!(options("db").schema_name(schema).check().is_err(), "{schema}");
        }
        let pool = PoolOptions { min: 9, max: 8, ..PoolOptions::default() };
        assert!(options("db").pool(pool).check().is_err());
        assert!(options("db").port(0).check().is_err());
    }

    #[test]
    fn a_url_in_the_place_of_a_name_is_refused_and_not_repeated() {
        let url = "postgres://control:planted@db.example/net";
        let wrong = |database: &str, user: &str| {
            PostgresOptions::new("db.example", database, user, StoreId::from_bytes([1; 16]))
        };
        for options in [wrong(url, "control"), wrong("net", url)] {
            let error = options.check().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
            assert!(!format!("{error} {error:?}").contains("planted"), "{error}");
        }
    }

    #[test]
    fn options_of_the_environment_are_refused() {
        check_variables(|name| name == "PGSSLCERT").unwrap();
        let error = check_variables(|name| name == "PGOPTIONS").unwrap_err();
        assert!(error.to_string().contains("PGOPTIONS"), "{error}");
    }

    #[test]
    fn a_password_is_guarded_where_neither_tls_nor_a_directory_does_it() {
        let secret = |host: &str| options(host).password(Some(Password::new("secret").unwrap()));
        for host in ["127.0.0.1", "localhost", "::1"] {
            assert!(secret(host).guard().is_some(), "{host}");
            assert!(options(host).guard().is_none(), "{host}: no password");
            assert!(secret(host).tls(Some(Tls::VerifyFull)).guard().is_none(), "{host}");
        }
        assert!(secret("/run/postgresql").guard().is_none());
        assert!(secret("db.example").guard().is_none());
        let listens = secret("db.example").listen("127.0.0.1", 5432);
        assert!(listens.guard().is_none() && listens.listen_guard().is_some());
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = Password::new("planted").unwrap();
        let options = options("db.example").password(Some(password));
        let shown = format!("{options:?} {}", options.location());
        assert!(!shown.contains("planted"), "{shown}");
        assert!(Password::new("").is_err() && Password::new("a\0b").is_err());
    }
}
