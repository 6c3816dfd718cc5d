//! Serving an open store.

mod answer;
mod beside;
mod call;
mod connection;
mod hooks;
mod peer;
mod socket;

use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::{Clock, SystemClock, Timestamp};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::store::{Companion, WeakStore};
use ghostwire_store_core::threads::{self, Waits};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use beside::note_migration;
pub use hooks::{AdminEvent, Hooks, Migrations, NoHooks};
pub use socket::SocketOptions;

use connection::Connection;
use peer::Access;
use socket::Bound;

/// What is served.
#[derive(Debug, Clone)]
pub struct Served {
    /// The store, which is not kept open.
    pub store: WeakStore,
    /// What lies beneath it.
    pub backend: Arc<dyn Backend>,
    /// What the program around it knows.
    pub hooks: Arc<dyn Hooks>,
    /// Who moves it to another database, if that can be.
    pub migrations: Option<Arc<dyn Migrations>>,
}

/// The admin socket of one store. It is a [`Companion`]: the socket is gone before the store's files are
/// free, and no client holds up the end.
#[derive(Debug)]
pub struct AdminSocket {
    state: Mutex<State>,
    ended: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    bound: Option<Bound>,
}

impl Default for AdminSocket {
    fn default() -> Self {
        Self { state: Mutex::default(), ended: watch::Sender::new(false) }
    }
}

impl AdminSocket {
    /// One that is not served yet. Hand it to the store that is opened, then [serve](Self::serve) that.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes the socket, and serves the store on a thread of its own until that ends. Does nothing if it has
    /// ended.
    ///
    /// # Errors
    /// `Busy` if somebody else serves a socket there; `InvalidArgument` for a path that is too long or a
    /// file that is no socket; those of the file system; `Unavailable` if the system gives no thread.
    pub async fn serve(&self, served: Served, options: SocketOptions) -> Result<()> {
        const OPERATION: &str = "admin.serve";
        let Some((listener, access)) = self.bind(&options).map_err(|e| e.during(OPERATION))? else {
            return Ok(());
        };
        let ended = self.ended.subscribe();
        let path = options.path.clone();
        let serving = threads::start("ghostwire-store-admin", Waits::Everything, move |runtime| {
            runtime.block_on(accept(listener, access, served, options, ended));
        });
        if let Err(error) = serving.await {
            self.end();
            return Err(error.during(OPERATION));
        }
        tracing::debug!(socket = %path.display(), "the admin socket is served");
        Ok(())
    }

    /// Under the lock: a store that ends meanwhile finds the socket, or there is none.
    fn bind(&self, options: &SocketOptions) -> Result<Option<(StdListener, Access)>> {
        let mut state = self.state();
        if state.ended {
            return Ok(None);
        }
        let (bound, listener) = Bound::bind(options)?;
        let process = nix::unistd::geteuid().as_raw();
        let access = Access { process, owner: bound.owner, group: bound.group };
        state.bound = Some(bound);
        Ok(Some((listener, access)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Companion for AdminSocket {
    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.bound = None;
        self.ended.send_replace(true);
    }
}

/// What the socket did.
#[derive(Debug)]
struct Counters {
    since: Timestamp,
    clients: AtomicU64,
    requests: AtomicU64,
    refused: AtomicU64,
    /// Held by whoever has everything verified.
    verifying: tokio::sync::Mutex<()>,
    /// Held by whoever changes something beside the state, until its line is in the audit trail.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Turns of those who select: each may look at everything.
    selecting: Arc<Semaphore>,
}

/// Selections that are made at once.
const SELECTIONS: usize = 2;

impl Counters {
    fn new() -> Self {
        let (clients, requests, refused, verifying, changing) = Default::default();
        let selecting = Arc::new(Semaphore::new(SELECTIONS));
        let since = SystemClock.now();
        Self { since, clients, requests, refused, verifying, changing, selecting }
    }

    fn json(&self) -> serde_json::Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!({
            "since": self.since,
            "clients": read(&self.clients),
            "requests": read(&self.requests),
            "refused": read(&self.refused),
        })
    }
}

/// Takes clients in until the store ends.
async fn accept(
    listener: StdListener,
    access: Access,
    served: Served,
    options: SocketOptions,
    mut ended: watch::Receiver<bool>,
) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "the admin socket cannot be listened to");
            return;
        }
    };
    let counters = Arc::new(Counters::new());
    let mut clients = JoinSet::new();
    let mut complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = has_ended(&mut ended) => break,
            Some(_) = clients.join_next() => {
                counters.clients.store(clients.len() as u64, Ordering::Relaxed);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                complaints.say(&not_taken_in(error));
                // Such as without a descriptor to be had: until there is one again.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Err(error) = admit(&stream, access, clients.len(), options.max_clients) {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            served.hooks.observe(AdminEvent::Rejected { reason: error.kind().name() });
            complaints.say(&error);
            connection::refuse(stream, &error);
            continue;
        }
        let shared = (counters.clone(), ended.clone());
        clients.spawn(Connection::new(stream, served.clone(), &options, shared).serve());
        counters.clients.store(clients.len() as u64, Ordering::Relaxed);
    }
    // They part by themselves, but for those that do not read.
    let parting = async { while clients.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_millis(200), parting).await;
    // What was begun goes on until its line is written, if the store still takes it.
    let _ = counters.changing.lock().await;
}

/// Waits until the store ends.
async fn has_ended(ended: &mut watch::Receiver<bool>) {
    // Fails only if the sender is gone, and with it the store.
    let _ = ended.wait_for(|ended| *ended).await;
}

fn admit(stream: &UnixStream, access: Access, clients: usize, most: usize) -> Result<()> {
    let peer = stream.peer_cred().map_err(|error| {
        Error::new(ErrorKind::PermissionDenied, "the system does not say who is at the socket")
            .because(error)
    })?;
    access.check(&peer)?;
    if clients >= most {
        return Err(Error::new(
            ErrorKind::Busy,
            "the admin socket has all the clients it may have",
        )
        .with("clients", clients)
        .with("help", "end one, such as a watch, or raise admin.max_clients"));
    }
    Ok(())
}

fn not_taken_in(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "a client of the admin socket cannot be taken in")
        .because(error)
}

/// Says what is wrong, and when it is often, how often.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    fn say(&mut self, error: &Error) {
        const PAUSE: Duration = Duration::from_secs(10);
        if self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            self.unsaid += 1;
            return;
        }
        let since_last = std::mem::take(&mut self.unsaid);
        tracing::warn!(%error, since_last, "a client of the admin socket was refused");
        self.last = Some(Instant::now());
    }
}
