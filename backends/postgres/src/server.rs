//! The database server as the backend uses it: a runtime of its own, a pool for reads, a connection for
//! commits.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ghostwire_store_core::backend::{ConnectionObserver, PoolInfo};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use sqlx::Connection as _;
use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::connection::{connect, facts, forgetful, query, read, set_up};
use crate::errors::in_read;
use crate::guard::Guard;
use crate::head::StoredHead;
use crate::listen::{Listening, Notifier};
use crate::settings::{Durability, PoolOptions, PostgresOptions};
use crate::shape::Shapes;
use crate::sqlstate::During;
use crate::turn::Turn;
use crate::wire::Param;

/// Connections work on the runtime that made them, and whoever calls the backend has its own, which may end
/// or be busy. So they have one for themselves.
#[derive(Debug)]
pub(crate) struct OwnRuntime {
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
}

impl OwnRuntime {
    pub(crate) fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ghostwire-postgres")
            .enable_all()
            .build()
            .map_err(|error| {
                Error::new(
                    ErrorKind::Unavailable,
                    "no thread can be started; raise the limits of threads, open files and memory",
                )
                .because(error)
            })?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Mutex::new(Some(runtime)), handle })
    }

    /// Does the work there. If the caller does not wait for it any more it is given up, and what it used is
    /// closed.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let mut task = JoinSet::new();
        task.spawn_on(work.in_current_span(), &self.handle);
        match task.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(error)) if error.is_panic() => {
                Err(Error::new(ErrorKind::Unexpected, "the work panicked; report this"))
            }
            _ => Err(closed()),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for OwnRuntime {
    /// Also from within another runtime, where waiting for one to end is forbidden.
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is closed")
}

/// The connection that commits go over, and what it is known to find.
#[derive(Debug, Default)]
pub(crate) struct Committing {
    /// Taken out while it is used, so that it is closed if that is given up.
    pub(crate) connection: Option<PgConnection>,
    /// As it was after the last commit, or when it was last read.
    pub(crate) known: Option<StoredHead>,
    /// While this process has its turn.
    pub(crate) turn: Option<Turn>,
}

impl Committing {
    /// For the next commit.
    pub(crate) fn keep(&mut self, connection: PgConnection, known: StoredHead) {
        (self.connection, self.known) = (Some(connection), Some(known));
    }
}

/// What every call of the backend needs.
pub(crate) struct Server {
    pub(crate) options: PostgresOptions,
    pub(crate) connect_options: PgConnectOptions,
    /// Looks before each connection is made.
    guard: Option<Guard>,
    pool: PgPool,
    pub(crate) committing: tokio::sync::Mutex<Committing>,
    shapes: RwLock<Arc<Shapes>>,
    pub(crate) notifier: Option<Notifier>,
    pub(crate) listening: Listening,
    closed: watch::Sender<bool>,
    /// How many heads were read from what may lag behind.
    lagging: AtomicU64,
    /// The server may forget what it confirms, by what it said last.
    forgets: AtomicBool,
    pending: AtomicU64,
    timeouts: AtomicU64,
    observer: RwLock<Option<Arc<dyn ConnectionObserver>>>,
}

// Without what sqlx connects by: it shows the password.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Server {
    /// To be called on the runtime that is to have the connections.
    pub(crate) fn new(options: PostgresOptions, shapes: Shapes) -> Result<Self> {
        let connect_options = options.connect_options()?;
        let guard = options.guard();
        let pool = make_pool(&options, connect_options.clone());
        let notifier = Notifier::of(&options);
        Ok(Self {
            options,
            connect_options,
            guard,
            pool,
            committing: tokio::sync::Mutex::default(),
            shapes: RwLock::new(Arc::new(shapes)),
            notifier,
            listening: Listening::default(),
            closed: watch::Sender::new(false),
            lagging: AtomicU64::new(0),
            forgets: AtomicBool::new(false),
            pending: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            observer: RwLock::new(None),
        })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.options.schema_name
    }

    pub(crate) fn shapes(&self) -> Arc<Shapes> {
        Arc::clone(&self.shapes.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_shapes(&self, shapes: Shapes) {
        *self.shapes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shapes);
    }

    pub(crate) fn require_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(closed()) } else { Ok(()) }
    }

    /// Waits until the store is closed.
    pub(crate) async fn closes(&self) {
        // Fails only if the sender is gone, which `self` owns.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(crate) fn observe(&self, observer: Arc<dyn ConnectionObserver>) {
        let mut place = self.observer.write().unwrap_or_else(PoisonError::into_inner);
        place.get_or_insert(observer);
    }

    fn tell(&self, what: impl FnOnce(&dyn ConnectionObserver)) {
        let observer = self.observer.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(observer) = observer.as_deref() {
            what(observer);
        }
    }

    /// The connections of readers, as they are now.
    pub(crate) fn pool_info(&self) -> PoolInfo {
        let PoolOptions { min, max, .. } = self.options.pool;
        let idle = self.pool.num_idle() as u64;
        PoolInfo {
            idle,
            used: u64::from(self.pool.size()).saturating_sub(idle),
            max: max.into(),
            idle_min: min.into(),
            idle_max: max.into(),
            pending: self.pending.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
        }
    }

    /// A connection to read by.
    async fn lease(&self) -> Result<Lease<'_>> {
        self.require_open()?;
        let since = Instant::now();
        let waiting = Waiting::begin(&self.pending);
        let acquired = self.acquire().await;
        drop(waiting);
        self.tell(|observer| observer.waited(since.elapsed()));
        let connection = acquired?.map_err(|error| {
            if matches!(error, sqlx::Error::PoolTimedOut) {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
            }
            in_read(&error)
        })?;
        Ok(Lease { server: self, connection: Some(connection), since: Instant::now() })
    }

    /// A connection of the pool, which makes one only after a look who is there.
    async fn acquire(&self) -> Result<Result<PoolConnection<Postgres>, sqlx::Error>> {
        if let Some(guard) = &self.guard {
            while let Some(mut idle) = self.pool.try_acquire() {
                if idle.ping().await.is_ok() {
                    return Ok(Ok(idle));
                }
                drop(idle.detach());
            }
            // There may be none because all are in use, and then none is made.
            if self.pool.size() < self.options.pool.max {
                guard.check(self.options.deadlines.connect).await?;
            }
        }
        match self.pool.acquire().await {
            // The pool tries for as long as it may, and does not say why in vain.
            Err(sqlx::Error::PoolTimedOut) if self.pool.size() < self.options.pool.max => {
                self.connect().await.map(drop)?;
                Ok(Err(sqlx::Error::PoolTimedOut))
            }
            acquired => Ok(acquired),
        }
    }

    /// Runs one statement that reads, in a transaction of its own, within the deadline.
    pub(crate) async fn read(&self, sql: &str, params: &[Param]) -> Result<Vec<PgRow>> {
        let deadline = self.options.deadlines.read;
        let reading = async {
            let mut lease = self.lease().await?;
            let rows = read(lease.connection()?, sql, params).await?;
            lease.give_back();
            Ok(rows)
        };
        within(deadline, ErrorKind::Unavailable, reading).await
    }

    /// Where the store stands.
    pub(crate) async fn read_head(&self) -> Result<StoredHead> {
        let rows = self.read(&crate::head::select(self.namespace()), &[]).await?;
        let head = only_head(&rows)?;
        self.heed(&head);
        Ok(head)
    }

    /// Takes notice of what a head was read from.
    pub(crate) fn heed(&self, head: &StoredHead) {
        self.lagging.fetch_add(head.lags.into(), Ordering::SeqCst);
        self.forgets.store(head.forgets, Ordering::Relaxed);
    }

    pub(crate) fn lagging_answers(&self) -> u64 {
        self.lagging.load(Ordering::SeqCst)
    }

    /// Refuses to write where that may be forgotten, by a setting that the server was given since it was
    /// connected to.
    pub(crate) fn require_durable(&self) -> Result<()> {
        let may_forget = self.options.durability == Durability::Unsafe;
        match self.forgets.load(Ordering::Relaxed) && !may_forget {
            true => Err(forgetful("fsync or full_page_writes", "off")),
            false => Ok(()),
        }
    }

    /// A new connection to write by, if the server is as it was when the store was opened.
    pub(crate) async fn connect_to_write(&self) -> Result<PgConnection> {
        let mut connection = self.connect().await?;
        let check = async { facts(&mut connection).await?.check(true, self.options.durability) };
        within(self.options.deadlines.connect, ErrorKind::Unavailable, check).await?;
        Ok(connection)
    }

    /// A new connection, of no pool.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        self.require_open()?;
        let since = Instant::now();
        let deadline = self.options.deadlines.connect;
        let made = connect(&self.connect_options, self.guard.as_ref(), deadline).await?;
        self.tell(|observer| observer.created(since.elapsed()));
        Ok(made)
    }

    /// Ends every connection.
    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        self.listening.end().await;
        let Committing { connection, .. } = std::mem::take(&mut *self.committing.lock().await);
        if let Some(connection) = connection {
            // It ends either way.
            let _ = connection.close().await;
        }
        self.pool.close().await;
    }
}

/// The head that is the only row of its table.
pub(crate) fn only_head(rows: &[PgRow]) -> Result<StoredHead> {
    match rows {
        [row] => StoredHead::read(row, 0),
        _ => Err(crate::head::damaged()),
    }
}

/// Reads the head over a connection; `lock` keeps it from being changed until the transaction ends.
pub(crate) async fn head_on(
    connection: &mut PgConnection,
    namespace: &str,
    lock: bool,
    during: During,
) -> Result<Result<StoredHead>, crate::errors::Failure> {
    let mut sql = crate::head::select(namespace);
    if lock {
        sql.push_str(" FOR UPDATE");
    }
    query(connection, &sql, &[], during).await.map(|rows| only_head(&rows))
}

/// Ends what takes too long.
pub(crate) async fn within<T>(
    deadline: Duration,
    kind: ErrorKind,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
        Err(Error::new(kind, "the database did not answer in time")
            .with("deadline_ms", deadline.as_millis()))
    })
}

fn make_pool(options: &PostgresOptions, connect: PgConnectOptions) -> PgPool {
    let PoolOptions { min, max, idle, lifetime } = options.pool;
    PgPoolOptions::new()
        // The pool keeps them by itself, and asks nobody.
        .min_connections(if options.guard().is_some() { 0 } else { min })
        .max_connections(max)
        .acquire_timeout(options.deadlines.connect)
        .idle_timeout(idle)
        .max_lifetime(jittered(lifetime, rand_percent()))
        .test_before_acquire(true)
        // Those of one process do not either: each is renewed by chance, the likelier the older it is.
        .before_acquire(move |_, found| {
            let renewed_at = lifetime.mul_f64(0.9 - f64::from(rand_percent()) / 1000.0);
            Box::pin(async move { Ok(found.age < renewed_at) })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                set_up(connection).await.map_err(|error| sqlx::Error::Protocol(error.to_string()))
            })
        })
        .connect_lazy_with(connect)
}

/// Up to a tenth less: of several processes that begin at once, not all end their connections at once.
fn jittered(lifetime: Duration, percent: u8) -> Duration {
    lifetime.saturating_sub(lifetime / 1000 * u32::from(percent.min(100)))
}

/// 0 to 99, another one in each process.
fn rand_percent() -> u8 {
    use std::hash::{BuildHasher, RandomState};
    u8::try_from(RandomState::new().hash_one(0) % 100).unwrap_or(0)
}

/// Counts who waits for a connection, also if that is given up.
struct Waiting<'s>(&'s AtomicU64);

impl<'s> Waiting<'s> {
    fn begin(pending: &'s AtomicU64) -> Self {
        pending.fetch_add(1, Ordering::Relaxed);
        Self(pending)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of the pool. Unless it is given back it is closed: an answer may be on its way that
/// whoever used it next would take for their own.
struct Lease<'s> {
    server: &'s Server,
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
}

impl Lease<'_> {
    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or_else(closed)
    }

    fn give_back(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.server.tell(|observer| observer.used(self.since.elapsed()));
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_processes_end_at_different_times() {
        let lifetime = Duration::from_secs(1800);
        assert_eq!(jittered(lifetime, 0), lifetime);
        assert_eq!(jittered(lifetime, 50), Duration::from_secs(1710));
        assert_eq!(jittered(lifetime, 99), Duration::from_millis(1_621_800));
        let drawn: std::collections::BTreeSet<u8> = (0..1000).map(|_| rand_percent()).collect();
        assert!(drawn.len() > 50 && drawn.iter().all(|percent| *percent < 100), "{drawn:?}");
    }
}
