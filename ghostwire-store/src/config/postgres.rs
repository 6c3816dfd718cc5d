//! Options of the PostgreSQL backend, and their keys.

use std::path::PathBuf;

use super::names::{PostgresDurability, PostgresTls};

/// Options of the PostgreSQL backend. Each part of what would be a connection URL has a field of its own:
/// a URL holds a password, and what is misspelt in one is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// A name, an address, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u64,
    /// The database.
    pub database: String,
    /// The role to connect as.
    pub user: String,
    /// The file that holds the password; it takes precedence over the variable.
    pub password_file: Option<PathBuf>,
    /// The name of the environment variable that holds the password.
    pub password_variable: Option<String>,
    /// How the connection is protected; see [`PostgresTls`]. `None` is by where the host is.
    pub tls: Option<PostgresTls>,
    /// The authorities that the server's certificate may be of, in PEM.
    pub root_certificate_file: Option<PathBuf>,
    /// The schema that holds the tables.
    pub schema: String,
    /// How many connections are kept for reads.
    pub pool_min: u64,
    /// How many there may be.
    pub pool_max: u64,
    /// For how many seconds one may be unused.
    pub pool_idle_seconds: u64,
    /// For how many seconds one is used.
    pub pool_lifetime_seconds: u64,
    /// How long making, or waiting for, a connection may take.
    pub connect_timeout_ms: u64,
    /// How long a read may take.
    pub read_timeout_ms: u64,
    /// How long a commit may take.
    pub commit_timeout_ms: u64,
    /// Whether commits notify the other processes.
    pub notify: bool,
    /// Where notifications come from, if not from `host`.
    pub listen_host: Option<String>,
    /// The port there.
    pub listen_port: Option<u64>,
    /// How far a block's time may be ahead of the server's clock.
    pub max_clock_ahead_ms: u64,
    /// What to do about a server that may forget what it confirmed.
    pub durability: PostgresDurability,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            database: "ghostwire".to_owned(),
            user: "ghostwire".to_owned(),
            password_file: None,
            password_variable: None,
            tls: None,
            root_certificate_file: None,
            schema: "ghostwire".to_owned(),
            pool_min: 1,
            pool_max: 8,
            pool_idle_seconds: 600,
            pool_lifetime_seconds: 1800,
            connect_timeout_ms: 5_000,
            read_timeout_ms: 10_000,
            commit_timeout_ms: 10_000,
            notify: true,
            listen_host: None,
            listen_port: None,
            max_clock_ahead_ms: 5_000,
            durability: PostgresDurability::Required,
        }
    }
}

impl PostgresOptions {
    /// As in `BackendInfo::location`.
    pub(super) fn location(&self) -> String {
        let Self { host, port, database, schema, .. } = self;
        match host.contains(':') {
            true => format!("[{host}]:{port}/{database} schema {schema}"),
            false => format!("{host}:{port}/{database} schema {schema}"),
        }
    }
}
