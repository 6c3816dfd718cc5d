//! A server on this machine, and a database on it for one run.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ghostwire_store::config::{BackendChoice, Config, PostgresOptions, PostgresTls};
use ghostwire_store_bench_workload::machine::{Postmaster, scratch};
use ghostwire_store_bench_workload::subject::Result;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tempfile::TempDir;
use tokio_postgres::config::Host;

const FORM: &str = "the server is named by postgres://USER:PASSWORD@HOST:PORT";
const PASSWORD: &str = "password";

/// Whoever has it may make databases; what it makes is dropped by [`Server::end`].
pub(crate) struct Server {
    connect: PgConnectOptions,
    options: PostgresOptions,
    /// The file of the password.
    _scratch: TempDir,
    schemas: AtomicU64,
    postmaster: Option<Postmaster>,
}

// Without what sqlx connects by: it shows the password.
impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Server {
    /// Makes a database on the server that `url` names.
    pub(crate) async fn start(url: &str) -> Result<Arc<Self>> {
        // A test program has several at once.
        static STARTED: AtomicU64 = AtomicU64::new(0);

        // What is wrong with it is not shown: that may be the password.
        let url: tokio_postgres::Config = url.parse().map_err(|_| FORM)?;
        let [Host::Tcp(host)] = url.get_hosts() else { return Err(FORM.into()) };
        let is_here = host.parse().map_or(host == "localhost", |ip: IpAddr| ip.is_loopback());
        if !is_here {
            return Err(
                "the benchmarks take a server on this machine: 127.0.0.1, ::1, localhost".into()
            );
        }
        let (user, password) = (url.get_user().ok_or(FORM)?, url.get_password());
        let port = url.get_ports().first().copied().unwrap_or(5432);
        let scratch = scratch(&std::env::temp_dir())?;
        let password_file = password.map(|password| private(&scratch, password)).transpose()?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let database = format!("ghostwire_bench_{}_{number}", std::process::id());
        let mut connect = PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(user)
            .database("postgres")
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging();
        if let Some(password) = password {
            connect = connect.password(std::str::from_utf8(password)?);
        }
        let mut admin = connect.connect().await.map_err(|error| unusable(&error))?;
        require_durable(&mut admin).await?;
        let postmaster = postmaster(&mut admin).await?;
        let sql = format!(
            "CREATE DATABASE {database} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
        admin.close().await?;
        let options = PostgresOptions {
            host: host.clone(),
            port: port.into(),
            database: database.clone(),
            user: user.to_owned(),
            password_file,
            tls: Some(PostgresTls::Off),
            ..PostgresOptions::default()
        };
        Ok(Arc::new(Self {
            connect: connect.database(&database),
            options,
            _scratch: scratch,
            schemas: AtomicU64::new(0),
            postmaster,
        }))
    }

    /// Drops the database.
    pub(crate) async fn end(&self) -> Result<()> {
        let mut admin = self.connect.clone().database("postgres").connect().await?;
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.options.database);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
        Ok(admin.close().await?)
    }

    /// A name that no other schema has.
    pub(crate) fn new_schema(&self) -> String {
        format!("s{}", self.schemas.fetch_add(1, Ordering::Relaxed))
    }

    /// A store in this schema, with default options.
    pub(crate) fn config(&self, schema: &str) -> Config {
        let options = PostgresOptions { schema: schema.to_owned(), ..self.options.clone() };
        Config { backend: BackendChoice::Postgres(options), ..Config::default() }
    }

    /// How to connect, with this schema's tables.
    pub(super) fn connect_options(&self, schema: &str) -> PgConnectOptions {
        self.connect.clone().options([("search_path", schema)])
    }

    /// The server's first process, if this machine shows it.
    pub(crate) fn postmaster(&self) -> Option<Postmaster> {
        self.postmaster
    }
}

fn unusable(error: &sqlx::Error) -> String {
    // Of a database error its text has no password; others tell of the way there.
    format!("the PostgreSQL server cannot be used: {error}")
}

fn private(scratch: &TempDir, password: &[u8]) -> Result<PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = scratch.path().join(PASSWORD);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(password)?;
    Ok(path)
}

/// All subjects confirm what is on the disk, so the server must not forget it.
async fn require_durable(connection: &mut PgConnection) -> Result<()> {
    for (setting, wanted) in
        [("fsync", "on"), ("full_page_writes", "on"), ("synchronous_commit", "on")]
    {
        let found: String = sqlx::query_scalar("SELECT pg_catalog.current_setting($1)")
            .bind(setting)
            .fetch_one(&mut *connection)
            .await?;
        if found != wanted {
            return Err(format!(
                "the server has {setting} = {found}; the benchmarks take {wanted}"
            )
            .into());
        }
    }
    Ok(())
}

async fn postmaster(connection: &mut PgConnection) -> Result<Option<Postmaster>> {
    let session: i32 =
        sqlx::query_scalar("SELECT pg_catalog.pg_backend_pid()").fetch_one(connection).await?;
    Ok(u32::try_from(session).ok().and_then(Postmaster::of_session))
}
