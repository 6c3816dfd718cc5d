//! The backend itself: opening, committing, reading, migrating, closing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use ghostwire_store_core::backend::{
    Backend, BackendCounters, BackendInfo, Commit, ConnectionObserver, Head, Scan, ScanPage,
};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::schema::Schema;
use sqlx::postgres::PgConnection;

use crate::commit::{Prepared, Stored, store};
use crate::connection::{change, connect, facts, query, read, run};
use crate::head::{META, StoredHead};
use crate::layout::{self, Holds};
use crate::outcome::lock_head;
use crate::server::{Committing, OwnRuntime, Server, head_on, within};
use crate::shape::Shapes;
use crate::sqlstate::{During, is_of_layout};
use crate::verify::verify;
use crate::wire::{boolean_at, count_at};
use crate::{NAME, PostgresOptions, blocks, turn};

/// Clocks that differ by more are worth a warning.
const TOLERABLE_MS: u64 = 1000;

/// A store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresBackend {
    server: Arc<Server>,
    // Behind the connections that live on it.
    runtime: OwnRuntime,
    engine: String,
    durable: bool,
    /// By how much the server's clock was ahead of this machine's when this was opened.
    clock_ahead_ms: i64,
    counters: Mutex<BackendCounters>,
}

/// A panic elsewhere left counters at worst.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What opening found.
struct Opened {
    /// By how much the server's clock is ahead of this machine's.
    clock_ahead_ms: i64,
    shapes: Shapes,
    head: StoredHead,
    created: bool,
    engine: String,
    durable: bool,
}

impl PostgresBackend {
    /// Opens the store that `options` name, or makes one if they say so.
    ///
    /// # Errors
    /// - `InvalidArgument`: a setting cannot be meant, or the schema holds something else.
    /// - `NotFound`: there is no such database, or no store in it. `AlreadyExists`: there is a store, and only
    ///   a new one was asked for.
    /// - `PermissionDenied`: user, password or rights will not do.
    /// - `Unsupported`: the server is too old, or may forget what it confirmed.
    /// - `Unavailable`: it cannot be reached, has no TLS, or only lets read. `Busy`: it is full.
    /// - `Corrupt`: the tables are not what this program made.
    /// - `SchemaMismatch`: a newer release wrote them and does not admit this one.
    pub async fn open(options: PostgresOptions) -> Result<Self> {
        // Before that nothing of it is shown: a URL in the place of a host has a password in it.
        options.check().map_err(|error| error.during("postgres.open"))?;
        let location = options.location();
        let opened = Self::open_unnamed(options).await;
        opened.map_err(|error| error.with("database", location).during("postgres.open"))
    }

    async fn open_unnamed(options: PostgresOptions) -> Result<Self> {
        let runtime = OwnRuntime::start()?;
        let wanted = options.clone();
        let found = runtime.run(async move { look(&wanted).await }).await?;
        let Opened { clock_ahead_ms, shapes, head, created, engine, durable } = found;
        let server = async move { Server::new(options, shapes).map(Arc::new) };
        let server = runtime.run(server).await?;
        tracing::debug!(
            db.system.name = NAME,
            database = server.options.location(),
            serial = head.head.serial.get(),
            schema = head.head.schema.version,
            created,
            clock_ahead_ms,
            "opened"
        );
        if clock_ahead_ms.unsigned_abs() > TOLERABLE_MS {
            tracing::warn!(
                db.system.name = NAME,
                database = server.options.location(),
                clock_ahead_ms,
                "the database server's clock and this machine's differ; a process whose clock is ahead by more \
                 than max_clock_ahead_ms cannot write"
            );
        }
        let counters = Mutex::default();
        Ok(Self { server, runtime, engine, durable, clock_ahead_ms, counters })
    }

    /// Does something with the server, on the runtime that has its connections.
    async fn run<T, F>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Arc<Server>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.server));
        let outcome = match self.runtime.run(work).await {
            Err(error) if is_about_the_layout(&error) => Err(self.explained(error).await),
            outcome => outcome,
        };
        outcome.map_err(|error| self.named(error).during(operation))
    }

    /// Why a statement does not fit the tables: somebody dropped or altered them, a later release migrated
    /// them, or they were being changed.
    async fn explained(&self, error: Error) -> Error {
        use ErrorKind::{Corrupt, InvalidArgument, NotFound, SchemaMismatch};
        let server = Arc::clone(&self.server);
        match self.runtime.run(async move { look_again(&server).await }).await {
            Ok(()) => Error::new(
                ErrorKind::Busy,
                "the store's tables were being changed, and fit by now; try again",
            )
            .because(error.to_string()),
            Err(found) => match found.kind() {
                Corrupt | InvalidArgument | NotFound | SchemaMismatch { .. }
                    if !is_about_the_layout(&found) =>
                {
                    found
                }
                // It cannot be looked at now.
                _ => error,
            },
        }
    }

    /// An error, with the database that it is about.
    fn named(&self, error: Error) -> Error {
        error.with("database", self.server.options.location())
    }

    /// The same for what writes: ended after the time that a commit may take, and then its connection is
    /// closed.
    async fn write<T, F>(
        &self,
        operation: &'static str,
        late: ErrorKind,
        work: impl FnOnce(Arc<Server>) -> F,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let deadline = self.server.options.deadlines.commit;
        self.run(operation, |server| within(deadline, late, work(server))).await
    }

    async fn store(&self, commit: &Commit) -> Result<usize> {
        let mut notifier = self.server.notifier.clone();
        // Once more if the store was migrated since it was opened, and once if it cannot be told of.
        for _ in 0..3 {
            let prepared = Prepared::of(&self.server.shapes(), commit, notifier.clone())?;
            let send = |server: Arc<Server>| async move { store(&server, &prepared).await };
            match self.write("postgres.commit", ErrorKind::OutcomeUnknown, send).await {
                Ok(Stored::Rows(rows)) => return Ok(rows),
                Ok(Stored::OtherSchema) => {
                    self.run("postgres.commit", |server| async move { look_again(&server).await })
                        .await?;
                }
                Err(error) if notifier.is_some() && is_queue_full(&error) => {
                    tracing::warn!(
                        %error,
                        "the server's queue of notifications is full: a session that listens has had a \
                         transaction open for long; others find this commit by looking"
                    );
                    notifier = None;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Busy, "the store is being migrated; try again"))
    }
}

/// Whether a limit of the server is exceeded, as the length of its queue of notifications is then.
fn is_queue_full(error: &Error) -> bool {
    error.context().iter().any(|(key, value)| *key == "sqlstate" && value == "54000")
}

/// Connects, checks the server, and finds the store or makes it, each within the time that it may take.
async fn look(options: &PostgresOptions) -> Result<Opened> {
    let (connect_options, guard) = (options.connect_options()?, options.guard());
    let Deadlines { connect: to_connect, read: to_read, commit: to_commit } = options.deadlines;
    let mut connection = connect(&connect_options, guard.as_ref(), to_connect).await?;
    let namespace = &options.schema_name;
    let asking = async {
        let facts = facts(&mut connection).await?;
        facts.check(!options.read_only, options.durability)?;
        Ok((facts, layout::holds(&mut connection, namespace).await?))
    };
    let (facts, holds) = within(to_read, ErrorKind::Unavailable, asking).await?;
    let mut created = Some(false);
    match holds {
        Holds::Store => {}
        Holds::Other => return Err(layout::not_ours(namespace)),
        Holds::Nothing { .. } if options.create && !options.read_only => {
            let genesis = Head::genesis(options.store, options.schema);
            let change = Change::Create(genesis, options.schema);
            let making = change.make(&mut connection, namespace);
            let made = within(to_commit, ErrorKind::Unavailable, making).await;
            created = match made {
                Ok(created) => Some(created),
                // It may have been made, and the answer lost: what is there tells.
                Err(error) if *error.kind() == ErrorKind::Unavailable => {
                    let again = connect(&connect_options, guard.as_ref(), to_connect).await;
                    connection = again.map_err(|_| error.clone())?;
                    let holds = layout::holds(&mut connection, namespace);
                    match within(to_read, ErrorKind::Unavailable, holds).await {
                        Ok(Holds::Store) => None,
                        _ => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            };
        }
        Holds::Nothing { .. } => {
            return Err(Error::new(
                ErrorKind::NotFound,
                "there is no store in this schema of the database; make one with `gwstore init`",
            )
            .with("empty_schema", namespace));
        }
    }
    let reading = async {
        let asked = SystemTime::now();
        let head = head_on(&mut connection, namespace, false, During::Read).await;
        let head = head.map_err(|failure| failure.error)??;
        let clock_ahead_ms = head.clock_ahead_ms(asked, SystemTime::now());
        let shapes = layout::check(&mut connection, namespace, head.head.schema).await?;
        Ok((head, clock_ahead_ms, shapes))
    };
    let (head, clock_ahead_ms, shapes) = within(to_read, ErrorKind::Unavailable, reading).await?;
    let created = created.unwrap_or(head.head.store == options.store);
    if options.only_new && !created {
        return Err(Error::new(
            ErrorKind::AlreadyExists { constraint: "schema" },
            "there is a store in this schema already; it was left as it is",
        ));
    }
    Ok(Opened {
        clock_ahead_ms,
        shapes,
        head,
        created,
        engine: format!("PostgreSQL {}", facts.version),
        durable: facts.is_durable(),
    })
}

/// A change of the layout.
enum Change {
    Create(Head, Schema),
    Migrate(Schema),
}

impl Change {
    /// Makes it, unless another process has done so meanwhile; tells whether it did. To be called in a
    /// transaction in which nobody else changes the layout.
    async fn apply(&self, connection: &mut PgConnection, namespace: &str) -> Result<bool> {
        match self {
            Self::Create(head, schema) => match layout::holds(connection, namespace).await? {
                Holds::Store => return Ok(false),
                Holds::Other => return Err(layout::not_ours(namespace)),
                Holds::Nothing { exists } => {
                    layout::create(connection, namespace, exists, head, *schema).await?;
                }
            },
            Self::Migrate(target) => {
                // As a commit does, first: it has its tables locked while it waits for the row of the head.
                // Whoever has this lock meets no commit any more.
                layout::lock_head(connection, namespace).await?;
                let head = head_on(connection, namespace, true, During::Read).await;
                let head = head.map_err(|failure| failure.error)??;
                if target.steps_from(head.head.schema)?.is_empty() {
                    return Ok(false);
                }
                layout::carry_forward(connection, namespace, &head, *target).await?;
            }
        }
        Ok(true)
    }

    /// Makes it in a transaction. A lock that is not had in time is given up, so that those who wait behind
    /// it go on, and is tried for again.
    async fn make(&self, connection: &mut PgConnection, namespace: &str) -> Result<bool> {
        let mut last = Error::new(ErrorKind::Busy, "somebody else changes the tables");
        for _ in 0..layout::ATTEMPTS {
            let done = match layout::begin(connection, namespace).await {
                Ok(()) => self.apply(connection, namespace).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(done) => return change(connection, "COMMIT").await.map(|()| done),
                Err(error) => last = error,
            }
            change(connection, "ROLLBACK").await?;
            if *last.kind() != ErrorKind::Busy {
                break;
            }
        }
        Err(last)
    }
}

/// Whether a statement names what is not there.
fn is_about_the_layout(error: &Error) -> bool {
    let is_one = |(key, code): &(_, String)| *key == "sqlstate" && is_of_layout(code);
    error.context().iter().any(is_one)
}

/// Reads what the tables look like by now.
async fn look_again(server: &Server) -> Result<()> {
    let mut connection = server.connect().await?;
    let namespace = server.namespace();
    match layout::holds(&mut connection, namespace).await? {
        Holds::Store => {}
        Holds::Other => return Err(layout::not_ours(namespace)),
        Holds::Nothing { .. } => {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the store is gone: its schema was dropped while it was open; restore the database from a \
                 backup",
            ));
        }
    }
    let head = head_on(&mut connection, namespace, false, During::Read).await;
    let head = head.map_err(|failure| failure.error)??;
    let shapes = layout::check(&mut connection, namespace, head.head.schema).await?;
    server.set_shapes(shapes);
    Ok(())
}

async fn migrate(server: &Server, target: Schema) -> Result<()> {
    let stored = server.read_head().await?.head.schema;
    if target.steps_from(stored)?.is_empty() {
        return look_again(server).await;
    }
    if server.options.read_only {
        return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
    }
    let namespace = server.namespace();
    tracing::info!(
        db.system.name = NAME,
        from = stored.version,
        to = target.version().version,
        "migrating the schema"
    );
    let mut connection = server.connect().await?;
    Change::Migrate(target).make(&mut connection, namespace).await?;
    look_again(server).await
}

/// Writes the row of the head as it is, which goes where a commit goes.
async fn probe(server: &Server, epoch: Epoch) -> Result<()> {
    let namespace = server.namespace();
    let mut committing = server.committing.lock().await;
    let mut connection = match committing.connection.take() {
        Some(connection) => connection,
        None => server.connect_to_write().await?,
    };
    let sql = format!(
        "UPDATE \"{namespace}\".\"{META}\" AS m SET \"filling\" = m.\"filling\" WHERE m.\"one\" \
         RETURNING m.\"epoch\", m.\"halted\" IS NULL"
    );
    let rows = query(&mut connection, &sql, &[], During::Commit).await;
    let rows = rows.map_err(|failure| failure.error)?;
    let known = head_on(&mut connection, namespace, false, During::Read).await;
    let known = known.map_err(|failure| failure.error)??;
    let [row] = rows.as_slice() else { return Err(crate::head::damaged()) };
    let (found, writable) = (Epoch::new(count_at(row, 0)?), boolean_at(row, 1)?);
    committing.connection = Some(connection);
    if found != epoch {
        return known.head.require_epoch(epoch);
    }
    if writable { Ok(()) } else { Err(known.refusal(None)) }
}

/// Has an empty store stand where `head` does.
async fn adopt(server: &Server, head: Head) -> Result<()> {
    let namespace = server.namespace();
    let mut connection = server.connect_to_write().await?;
    let Some(known) = lock_head(&mut connection, namespace).await? else {
        return Err(Error::new(ErrorKind::Busy, "somebody else is writing to the store"));
    };
    let next = known.head.adopt(&head)?;
    // What is only flushed is not counted by the head.
    for shape in server.shapes().all() {
        let rows = read(&mut connection, &shape.has_rows(), &[]).await?;
        if boolean_at(rows.first().ok_or_else(crate::connection::no_row)?, 0)? {
            return Err(Error::new(ErrorKind::Restricted, "the store has rows; name an empty one")
                .with("table", shape.table.name()));
        }
    }
    let params = known.to(&next, None, None);
    let moved = read(&mut connection, &crate::head::update(namespace), &params).await?;
    if moved.is_empty() {
        return Err(known.refusal(None));
    }
    run(&mut connection, "COMMIT", During::Commit).await.map_err(|failure| failure.error)
}

/// Makes the connection for commits anew, and asks where the store stands. A commit of before that is still
/// on its way has the row locked, or finds another one later.
async fn reopen(server: &Server) -> Result<Head> {
    let namespace = server.namespace();
    let mut committing = server.committing.lock().await;
    *committing = Committing::default();
    let mut connection = match server.options.read_only {
        true => server.connect().await?,
        false => server.connect_to_write().await?,
    };
    let found = if server.options.read_only {
        let head = head_on(&mut connection, namespace, false, During::Read).await;
        head.map_err(|failure| failure.error)??
    } else {
        loop {
            let locked = lock_head(&mut connection, namespace).await?;
            run(&mut connection, "ROLLBACK", During::Read)
                .await
                .map_err(|failure| failure.error)?;
            if let Some(head) = locked {
                break head;
            }
        }
    };
    server.heed(&found);
    let head = found.head;
    committing.keep(connection, found);
    Ok(head)
}

#[async_trait]
impl Backend for PostgresBackend {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            name: NAME,
            engine: self.engine.clone(),
            location: Some(self.server.options.location()),
            durable: self.durable,
            shared: true,
            sealed: false,
            pinned: false,
            signer: None,
            resealed: None,
            bytes: None,
            file: None,
            filesystem: None,
            clock_ahead_ms: Some(self.clock_ahead_ms),
            pool: Some(self.server.pool_info()),
            log: None,
            counters: *lock(&self.counters),
        }
    }

    async fn head(&self) -> Result<Head> {
        let head = |server: Arc<Server>| async move { server.read_head().await };
        Ok(self.run("postgres.head", head).await?.head)
    }

    async fn revision(&self) -> Result<Option<u64>> {
        let head = |server: Arc<Server>| async move { server.read_head().await };
        Ok(Some(self.run("postgres.revision", head).await?.revision))
    }

    fn lagging_answers(&self) -> u64 {
        self.server.lagging_answers()
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.run("postgres.migrate", |server| async move { migrate(&server, target).await }).await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let (start, table) = (Instant::now(), scan.range.table);
        let read = |server: Arc<Server>| async move { server.scan(scan).await };
        let page = self.run("postgres.scan", read).await?.decode();
        let page = page.map_err(|error| self.named(error).during("postgres.scan"))?;
        lock(&self.counters).scans += 1;
        tracing::debug!(
            db.system.name = NAME,
            db.collection.name = table.name(),
            rows = page.rows.len(),
            micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
            "scanned"
        );
        Ok(page)
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        let read = |server: Arc<Server>| async move { server.blocks(after, limit).await };
        let rows = self.run("postgres.blocks", read).await?;
        blocks::read(&rows, after, limit)
            .map_err(|error| self.named(error).during("postgres.blocks"))
    }

    async fn await_change(&self, at_most: Duration) -> Result<()> {
        let wait =
            |server: Arc<Server>| async move { server.listening.wait(&server, at_most).await };
        self.run("postgres.listen", wait).await
    }

    async fn take_turn(&self) -> Result<bool> {
        if self.server.options.read_only {
            return Ok(false);
        }
        let take = |server: Arc<Server>| async move { turn::take(&server).await };
        self.write("postgres.take_turn", ErrorKind::Unavailable, take).await.map(|()| true)
    }

    async fn end_turn(&self) -> Result<()> {
        let end = |server: Arc<Server>| async move { turn::end(&server).await };
        self.write("postgres.end_turn", ErrorKind::Unavailable, end).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        let start = Instant::now();
        if self.server.options.read_only {
            return Err(Error::new(ErrorKind::ReadOnly, "the store was opened to be read only"));
        }
        let stored = self.store(commit).await;
        lock(&self.counters).count(commit, stored.as_ref().ok().copied());
        match stored {
            Ok(rows) => {
                tracing::debug!(
                    db.system.name = NAME,
                    db.operation.name = "commit",
                    db.operation.batch.size = commit.rows.len(),
                    position = commit.expected.get(),
                    block_bytes = commit.block.as_ref().map_or(0, |block| block.bytes.len()),
                    rows,
                    prunes = commit.prune.len(),
                    micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
                    "committed"
                );
                Ok(())
            }
            Err(error) => {
                tracing::debug!("error.type" = error.kind().name(), "the commit failed");
                Err(error.during("postgres.commit"))
            }
        }
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        let write = |server: Arc<Server>| async move { probe(&server, epoch).await };
        self.write("postgres.probe", ErrorKind::Unavailable, write).await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        let head = *head;
        let write = |server: Arc<Server>| async move { adopt(&server, head).await };
        self.write("postgres.adopt", ErrorKind::OutcomeUnknown, write).await
    }

    async fn reopen(&self) -> Result<Head> {
        let ask = |server: Arc<Server>| async move { reopen(&server).await };
        self.write("postgres.reopen", ErrorKind::Unavailable, ask).await
    }

    async fn verify(&self) -> Result<()> {
        let handle = self.runtime.handle().clone();
        let checks = |server: Arc<Server>| async move {
            let task = handle.clone().spawn_blocking(move || verify(&server, &handle));
            task.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unexpected, "the verification panicked; report this"))
            })
        };
        let (rows, blocks) = self.run("postgres.verify", checks).await?;
        tracing::debug!(db.system.name = NAME, rows, blocks, "verified");
        Ok(())
    }

    fn observe_connections(&self, observer: Arc<dyn ConnectionObserver>) {
        self.server.observe(observer);
    }

    async fn close(&self) -> Result<()> {
        self.run("postgres.close", |server| async move {
            server.close().await;
            Ok(())
        })
        .await
    }
}
