//! Health, metrics and status over HTTP, for probes, scrapers and people.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200, or 503 where a restart of the process would help |
//! | `/readyz` | 200 if every check passes, else 503 and which do not; `?verbose` lists all, `?exclude=NAME` leaves one out |
//! | `/readyz/NAME` | one check |
//! | `/metrics` | Prometheus text, where the program has metrics |
//! | `/status` | everything, as JSON; for browsers a page that refreshes itself |
//!
//! What is told at `/livez` and `/readyz` has no path and no secret in it. `/status` has paths and whole
//! errors, and no secret either. Nothing can be changed, and nobody is asked who they are: listen on the
//! loopback interface, or where only those are who may know.
//!
//! Everything is bounded: connections, the size of a request's head, how long a connection lasts, of which
//! each has one request.

mod answer;
mod page;
mod routes;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::health::Health;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What is told over HTTP.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// From memory; see [`Store::health`](crate::Store::health).
    fn health(&self) -> Health;

    /// After a probe; see [`Store::check_health`](crate::Store::check_health).
    async fn check_health(&self) -> Health;

    /// In the text format of Prometheus, version 0.0.4; `None` if the program has no metrics.
    async fn metrics(&self) -> Option<String>;

    /// Everything, for people: an object.
    fn status(&self) -> serde_json::Value;

    /// A request was answered.
    fn answered(&self, answered: &Answered) {
        let _ = answered;
    }
}

/// A request that was answered. None of it is what the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// `GET`, `HEAD`, or `_OTHER`.
    pub method: &'static str,
    /// Which path of the table above, as `/readyz/{check}`, or `other`.
    pub route: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
}

/// What clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once. For a further one the oldest that has not sent its request is closed; while all
    /// are being answered it waits in the system's queue.
    pub connections: usize,
    /// Bytes of the head of a request; at least 8 KiB.
    pub head_bytes: usize,
    /// Lines of it.
    pub headers: usize,
    /// How long a client may take to send it.
    pub head_timeout: Duration,
    /// How long a connection may last, with the answer.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            head_bytes: 16 * 1024,
            headers: 64,
            head_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Where requests are waited for.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Takes the address; port 0 is any that is free.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be had; `PermissionDenied` if it is not this user's.
    pub async fn bind(address: SocketAddr, limits: Limits) -> Result<Self> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok::<_, io::Error>(Self { listener, address, limits })
        };
        bound.await.map_err(|error| cannot_listen(address, error))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` ends. Who has not been answered a second later is not answered.
    pub async fn serve(self, source: Arc<dyn Source>, stop: impl Future<Output = ()> + Send) {
        let Self { listener, limits, .. } = self;
        let router = routes::router(source);
        let mut connections = Connections::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            let has_room = connections.have_room(limits.connections);
            tokio::select! {
                biased;
                () = &mut stop => break,
                // Those that ended are forgotten.
                Some(_) = connections.tasks.join_next() => {}
                accepted = listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => connections.take(stream, &router, limits),
                    Err(error) => {
                        tracing::debug!(%error, "a connection cannot be accepted");
                        pause_after(&error).await;
                    }
                },
            }
        }
        drop(listener);
        let mut tasks = connections.tasks;
        let rest = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    }
}

/// The connections that there are.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    /// In the order in which they came.
    open: Vec<Connection>,
}

struct Connection {
    task: AbortHandle,
    /// Whether its request is there. It has only one.
    has_asked: Arc<AtomicBool>,
}

impl Connections {
    /// Whether one more can be taken, perhaps for one that has not asked yet.
    fn have_room(&mut self, limit: usize) -> bool {
        self.open.retain(|connection| !connection.task.is_finished());
        self.open.len() < limit || self.oldest_that_says_nothing().is_some()
    }

    fn oldest_that_says_nothing(&self) -> Option<usize> {
        self.open.iter().position(|connection| !connection.has_asked.load(Ordering::Relaxed))
    }

    /// Serves one more. Where there are as many as there may be it takes the place of the oldest that has
    /// not asked yet, so that nobody keeps probes out by saying nothing.
    fn take(&mut self, stream: TcpStream, router: &axum::Router, limits: Limits) {
        if self.open.len() >= limits.connections {
            // It may have asked by now; then this one is not served.
            let Some(oldest) = self.oldest_that_says_nothing() else { return };
            self.open.remove(oldest).task.abort();
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let task =
            self.tasks.spawn(serve_connection(stream, router.clone(), has_asked.clone(), limits));
        self.open.push(Connection { task, has_asked });
    }
}

/// A process that has no more files would ask again and again.
async fn pause_after(error: &io::Error) {
    let is_of_one_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !is_of_one_client {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: axum::Router,
    has_asked: Arc<AtomicBool>,
    limits: Limits,
) {
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |request| {
        has_asked.store(true, Ordering::Relaxed);
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .keep_alive(false)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes.max(8 * 1024));
    let connection = http.serve_connection(TokioIo::new(stream), answer);
    match tokio::time::timeout(limits.timeout, connection).await {
        Ok(Ok(())) => {}
        // What clients do wrong is theirs to look at.
        Ok(Err(error)) => tracing::debug!(%error, "a request over HTTP was not answered"),
        Err(_) => tracing::debug!("a connection over HTTP lasted for too long"),
    }
}

fn cannot_listen(address: SocketAddr, error: io::Error) -> Error {
    let (kind, help) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            "choose a port above 1023, or let the service have CAP_NET_BIND_SERVICE",
        ),
        io::ErrorKind::AddrInUse => (
            ErrorKind::Unavailable,
            "another process has it, perhaps this program a second time: choose another port as \
             `http.listen`",
        ),
        _ => (ErrorKind::Unavailable, "set `http.listen` to an address of this machine"),
    };
    Error::new(
        kind,
        "the address for HTTP cannot be listened on; with `http.optional` the store is \
                      served without",
    )
    .with("http.listen", address)
    .with("help", help)
    .because(error)
    .during("http.listen")
}
