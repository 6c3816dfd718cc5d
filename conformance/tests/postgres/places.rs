//! Stores in schemas of one database.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_postgres_server::{Database, Options, Server};
use ghostwire_store_conformance::{Factory, Opening, Place};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_postgres::{Password, PoolOptions, PostgresBackend, PostgresOptions};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, raw_sql};
use tokio::sync::OnceCell;

/// So long may a connection be waited for, and a page of rows.
const PATIENCE: Duration = Duration::from_secs(60);

/// The database in which the suite makes its schemas.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Access {
    host: String,
    port: u16,
    user: String,
    password: String,
    database: String,
}

impl Access {
    async fn connect(&self) -> Result<PgConnection> {
        PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .password(&self.password)
            .database(&self.database)
            .ssl_mode(PgSslMode::Disable)
            .disable_statement_logging()
            .connect()
            .await
            .map_err(failed)
    }

    async fn run(&self, sql: String) -> Result<()> {
        let mut connection = self.connect().await?;
        raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.map(drop).map_err(failed)
    }
}

fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the test's own statement fails").because(error)
}

/// In memory where that can be had: it takes a fraction of the time, and the suite stops no server.
async fn start() -> ghostwire_postgres_server::Result<Server> {
    if std::env::var_os("GHOSTWIRE_TEST_POSTGRES_URL").is_none()
        && let Ok(server) = Options::new().disk_mib(2048).start().await
    {
        return Ok(server);
    }
    Server::start().await
}

fn start_server() -> Result<(Server, Database)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let server = start().await.map_err(no_server)?;
        let database = server.database().await.map_err(no_server)?;
        Ok((server, database))
    })
}

fn no_server(error: ghostwire_postgres_server::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "there is no server to test on").because(error)
}

/// Makes a schema for each store. A crash is a copy of its tables.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    server: OnceCell<Arc<Home>>,
}

/// The server, and who removes what is not needed any more.
#[derive(Debug)]
struct Home {
    access: Access,
    removed: Sender<String>,
    /// Of the process that made them; it goes with the last store.
    own: Option<(Server, Database)>,
}

impl Home {
    fn of(server: Server, database: Database) -> Self {
        let access = Access {
            host: server.host().to_owned(),
            port: server.port(),
            user: server.user().to_owned(),
            password: server.password().to_owned(),
            database: database.name().to_owned(),
        };
        let removed = remover(access.clone());
        Self { access, removed, own: Some((server, database)) }
    }
}

impl Schemas {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    async fn home(&self) -> Result<Arc<Home>> {
        let start = || async {
            let (server, database) = tokio::task::spawn_blocking(start_server)
                .await
                .map_err(|_| Error::new(ErrorKind::Unexpected, "the server's start panicked"))??;
            Ok(Arc::new(Home::of(server, database)))
        };
        self.server.get_or_try_init(start).await.cloned()
    }
}

/// Drops schemas in the background.
fn remover(access: Access) -> Sender<String> {
    let (removed, schemas) = channel::<String>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        for schema in schemas {
            // Somebody may still use it, or the server is gone with everything.
            let drop = format!(
                "SET lock_timeout TO '5s'; SET client_min_messages TO warning; \
                 DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"
            );
            let _ = runtime.block_on(access.run(drop));
        }
    });
    removed
}

#[async_trait]
impl Factory for Schemas {
    fn name(&self) -> &str {
        "postgres"
    }

    async fn create(&self) -> Result<Box<dyn Place>> {
        Ok(Box::new(Schema::new(self.home().await?)))
    }

    async fn create_on_own_server(&self) -> Result<Option<Box<dyn Place>>> {
        // On a disk: what is in memory would not outlive a container.
        let server = Options::new().own().start().await.map_err(no_server)?;
        let database = server.database().await.map_err(no_server)?;
        let mut schema = Schema::new(Arc::new(Home::of(server, database)));
        schema.may_kill_server = true;
        let place: Box<dyn Place> = Box::new(schema);
        Ok(Some(place))
    }

    async fn at(&self, location: &str) -> Result<Box<dyn Place>> {
        let Location { access, schema } = serde_json::from_str(location)
            .map_err(|_| Error::invalid("this is no location of a schema"))?;
        let (removed, _) = channel();
        let home = Arc::new(Home { access, removed, own: None });
        Ok(Box::new(Schema { home, schema, is_own: false, may_kill_server: false }))
    }
}

#[derive(Serialize, Deserialize)]
struct Location {
    access: Access,
    schema: String,
}

#[derive(Debug)]
struct Schema {
    home: Arc<Home>,
    schema: String,
    /// Removed when dropped.
    is_own: bool,
    /// Nobody else is on the server.
    may_kill_server: bool,
}

impl Schema {
    fn new(home: Arc<Home>) -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("s{}_{number}", std::process::id());
        Self { home, schema, is_own: true, may_kill_server: false }
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if self.is_own {
            let _ = self.home.removed.send(self.schema.clone());
        }
    }
}

#[async_trait]
impl Place for Schema {
    async fn open(&self, opening: Opening) -> Result<Arc<dyn Backend>> {
        let Access { host, port, user, password, database } = &self.home.access;
        let options = PostgresOptions::new(host, database, user, opening.store)
            .port(*port)
            .password(Some(Password::new(password)?))
            .schema_name(&self.schema)
            .pool(PoolOptions { min: 0, max: 4, ..PoolOptions::default() })
            // What is proved is that it works, also where a case has thousands of callers on a busy machine.
            .deadlines(Deadlines { connect: PATIENCE, read: PATIENCE, ..Deadlines::default() })
            // The suite's clock is its own.
            .max_clock_ahead(None)
            .create(!opening.read_only)
            .read_only(opening.read_only)
            .schema(opening.schema);
        Ok(Arc::new(PostgresBackend::open(options).await?))
    }

    async fn after_crash(&self) -> Result<Box<dyn Place>> {
        let copy = Self::new(self.home.clone());
        let (from, to) = (&self.schema, &copy.schema);
        // Of one moment, and with whatever a store has.
        self.home
            .access
            .run(format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ; DO $$ DECLARE name text; BEGIN \
                 IF EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = '{from}') THEN \
                 CREATE SCHEMA \"{to}\"; \
                 FOR name IN SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE n.nspname = '{from}' AND c.relkind = 'r' LOOP \
                 EXECUTE format('CREATE TABLE \"{to}\".%I (LIKE \"{from}\".%I INCLUDING ALL)', name, name); \
                 EXECUTE format('INSERT INTO \"{to}\".%I SELECT * FROM \"{from}\".%I', name, name); \
                 END LOOP; END IF; END $$; COMMIT"
            ))
            .await?;
        Ok(Box::new(copy))
    }

    async fn kill_server(&self) -> Result<()> {
        let Some((server, _)) = self.home.own.as_ref().filter(|_| self.may_kill_server) else {
            return Err(Error::new(ErrorKind::Unsupported, "others use the server of this schema")
                .with("schema", &self.schema));
        };
        server.kill().await.map_err(no_server)?;
        server.start_again().await.map_err(no_server)
    }

    fn location(&self) -> Option<String> {
        let location = Location { access: self.home.access.clone(), schema: self.schema.clone() };
        serde_json::to_string(&location).ok()
    }
}
