//! The connections that reads go over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ghostwire_postgres_server::{Direction, Proxy, Server};
use ghostwire_store_core::backend::{Backend, ConnectionObserver, KeyRange, PoolInfo, Scan};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::layer::Deadlines;
use ghostwire_store_core::schema::Table;
use ghostwire_store_postgres::{PoolOptions, PostgresBackend};

use crate::support::{open, options, shared_server, store_next, through};

fn scan() -> Scan {
    Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 10 }
}

fn pool(min: u32, max: u32) -> PoolOptions {
    PoolOptions { min, max, ..PoolOptions::default() }
}

fn pool_of(backend: &PostgresBackend) -> PoolInfo {
    backend.info().pool.unwrap()
}

/// The sessions of the store, by process.
async fn sessions(server: &Server, database: &str) -> Vec<String> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'ghostwire-store' \
               AND datname = current_database() ORDER BY backend_start, pid";
    let rows = server.sql(database, sql).await.unwrap();
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

async fn until_there_are(server: &Server, database: &str, count: usize) -> Vec<String> {
    loop {
        let found = sessions(server, database).await;
        if found.len() == count {
            return found;
        }
        tokio::task::yield_now().await;
    }
}

/// Counts what is told of connections.
#[derive(Debug, Default)]
struct Told {
    created: AtomicUsize,
    waited: AtomicUsize,
    used: AtomicUsize,
}

impl ConnectionObserver for Told {
    fn created(&self, _: Duration) {
        self.created.fetch_add(1, Ordering::SeqCst);
    }

    fn waited(&self, _: Duration) {
        self.waited.fetch_add(1, Ordering::SeqCst);
    }

    fn used(&self, _: Duration) {
        self.used.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whatever becomes of reads, what they used is given back or closed, and nothing stays on the server.
#[tokio::test(flavor = "multi_thread")]
async fn no_connection_leaks_however_reads_end() {
    const MAX: u32 = 3;
    let (server, database) = shared_server().await;
    let name = database.name();
    let proxy = Proxy::to(server.host(), server.port()).unwrap();
    let address = proxy.address();
    let short = Deadlines { read: Duration::from_secs(2), ..Deadlines::default() };
    let by_proxy = through(server, name, &address.ip().to_string(), address.port());
    let backend = Arc::new(open(by_proxy.pool(pool(1, MAX)).deadlines(short)).await);
    let told = Arc::new(Told::default());
    backend.observe_connections(told.clone());
    store_next(&backend, 1).await.unwrap();
    for round in 0..5 {
        // Some end well.
        let reads = (0..20).map(|_| backend.scan(scan()));
        for page in futures_util::future::join_all(reads).await {
            page.unwrap();
        }
        // Some are given up, some end by their deadline, some lose their connection.
        proxy.cut(Direction::ToClient).unwrap();
        let given_up: Vec<_> = (0..10)
            .map(|_| {
                let backend = backend.clone();
                tokio::spawn(async move { backend.blocks(Serial::ZERO, 1).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        given_up.iter().take(5).for_each(tokio::task::JoinHandle::abort);
        let error = backend.scan(scan()).await.map(drop).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "round {round}: {error}");
        // What was held back is let go first: a connection that is being made would wait for it for ever.
        proxy.mend(Direction::ToClient).unwrap();
        proxy.reset().unwrap();
        for read in given_up {
            // Each has ended in one of these ways.
            let _ = read.await;
        }
        let info = pool_of(&backend);
        assert!(info.used + info.idle <= u64::from(MAX), "{info:?}");
        assert_eq!(info.pending, 0, "{info:?}");
        backend.scan(scan()).await.unwrap();
    }
    while pool_of(&backend).used > 0 {
        tokio::task::yield_now().await;
    }
    let (waited, used) = (told.waited.load(Ordering::SeqCst), told.used.load(Ordering::SeqCst));
    assert!(told.created.load(Ordering::SeqCst) > 0 && used > 100 && waited >= used, "{told:?}");
    // One for commits beside them; the server notices those that were lost.
    while sessions(server, name).await.len() > MAX as usize + 1 {
        tokio::task::yield_now().await;
    }
    backend.close().await.unwrap();
    until_there_are(server, name, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_connection_is_told_in_time_and_counted() {
    let (server, database) = shared_server().await;
    let name = database.name();
    let deadlines = Deadlines {
        connect: Duration::from_millis(500),
        read: Duration::from_secs(30),
        ..Deadlines::default()
    };
    let backend = open(options(server, name).pool(pool(0, 1)).deadlines(deadlines)).await;
    backend.head().await.unwrap();
    assert_eq!(pool_of(&backend).timeouts, 0);
    // The only one waits for a table that somebody has locked.
    let reading = async {
        let asking = async {
            until_somebody(server, name, "wait_event_type = 'Lock'").await;
            let error = backend.head().await.unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("in use"), "{error}");
            let info = pool_of(&backend);
            assert_eq!((info.timeouts, info.used, info.pending), (1, 1, 0), "{info:?}");
            let_go(server, name).await;
        };
        let (page, ()) = tokio::join!(backend.scan(scan()), asking);
        page.unwrap();
    };
    while_locked(server, name, reading).await;
    backend.head().await.unwrap();
    assert_eq!(pool_of(&backend).timeouts, 1);
}

/// Holds a table until it is let go, while `work` is done.
async fn while_locked<T>(server: &Server, database: &str, work: impl Future<Output = T>) -> T {
    let lock = "BEGIN; LOCK TABLE ghostwire.users; SELECT pg_sleep(600)";
    let locking = async { server.sql(database, lock).await.unwrap_err() };
    let working = async {
        until_somebody(server, database, "wait_event = 'PgSleep'").await;
        work.await
    };
    tokio::join!(locking, working).1
}

async fn let_go(server: &Server, database: &str) {
    let release = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE wait_event = 'PgSleep' AND datname = current_database()";
    server.sql(database, release).await.unwrap();
}

async fn until_somebody(server: &Server, database: &str, is_so: &str) {
    let sql =
        format!("SELECT pid FROM pg_stat_activity WHERE {is_so} AND datname = current_database()");
    while server.sql(database, &sql).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

/// Those who wait get a connection in the order in which they came.
#[tokio::test]
async fn whoever_came_first_is_served_first() {
    const COUNT: u64 = 20;
    let (server, database) = shared_server().await;
    let name = database.name();
    let backend = Arc::new(open(options(server, name).pool(pool(0, 1))).await);
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiting = async {
        let theirs = backend.clone();
        let first = tokio::spawn(async move { theirs.scan(scan()).await.map(drop) });
        until_somebody(server, name, "wait_event_type = 'Lock'").await;
        let mut reads = Vec::new();
        for number in 0..COUNT {
            let (theirs, order) = (backend.clone(), order.clone());
            reads.push(tokio::spawn(async move {
                theirs.head().await.unwrap();
                order.lock().unwrap().push(number);
            }));
            while pool_of(&backend).pending <= number {
                tokio::task::yield_now().await;
            }
            // It is counted a moment before it waits.
            server.sql(name, "SELECT 1").await.unwrap();
        }
        let_go(server, name).await;
        first.await.unwrap().unwrap();
        for read in reads {
            read.await.unwrap();
        }
    };
    while_locked(server, name, waiting).await;
    let order = order.lock().unwrap();
    assert_eq!(order.len() as u64, COUNT);
    // Answers may overtake one another on their way to here; in any order they would be a third of all apart.
    let apart: u64 = (0..).zip(order.iter()).map(|(place, number)| number.abs_diff(place)).sum();
    assert!(apart <= COUNT * COUNT / 8, "{order:?}");
}

/// Connections are made anew when their time is over, and not all of several processes' at once.
#[tokio::test]
async fn a_connection_ends_with_its_lifetime() {
    let (server, database) = shared_server().await;
    let name = database.name();
    // The shortest that there is.
    let short = PoolOptions { lifetime: Duration::from_secs(10), ..pool(1, 1) };
    let backend = open(options(server, name).pool(short)).await;
    backend.head().await.unwrap();
    let first = sessions(server, name).await;
    // It is closed when it is used next, or looked after; then another one reads.
    loop {
        backend.head().await.unwrap();
        let now = sessions(server, name).await;
        if now.len() == 1 && !first.contains(&now[0]) {
            break;
        }
    }
    let info = pool_of(&backend);
    assert!(info.used + info.idle <= 1 && (info.idle_min, info.max) == (1, 1), "{info:?}");
}
