//! Talking to a store that another process has open.

mod backend;
mod connection;
mod excerpt;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use ghostwire_store_core::backend::{Attestation, BackendInfo, Head};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::command::{EntityRecord, Transaction};
use ghostwire_store_core::digest::Digests;
use ghostwire_store_core::domain::{ActorName, ConsumerName, Secret};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::repository::ClockRepair;
use ghostwire_store_core::state::Reply;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use backend::RemoteBackend;
pub use excerpt::Excerpt;

use crate::protocol::{
    ClockRequest, Issue, Issued, KeysRequest, Method, MigrateRequest, Request, Watched, Welcome,
    WireAttestation, WireDigests, WireHead, WireInfo, Working, unreadable,
};
use connection::{Answer, Connection, Piece};

/// Commits as they come, without end.
pub type Watch = BoxStream<'static, Result<Watched>>;

/// A connection to the admin socket of an open store. Clones share it, and take turns. If it ended, such as
/// because nothing was asked for long, the next request is sent over a new one.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    socket: Arc<Path>,
    traceparent: Option<Arc<str>>,
    actor: Option<ActorName>,
}

impl Client {
    /// Connects to the socket at this path.
    ///
    /// # Errors
    /// `NotFound` if there is none, or nobody serves it any more; `PermissionDenied`, naming the socket, its
    /// user and group, and what would help; `Busy` if it has all the clients it may have; `Unsupported` if
    /// the program there speaks no version of the protocol that this does; `Unavailable`.
    pub async fn connect(socket: &Path) -> Result<Self> {
        const OPERATION: &str = "admin.connect";
        let connection = Connection::open(socket).await.map_err(|error| error.during(OPERATION))?;
        Ok(Self { connection, socket: socket.into(), traceparent: None, actor: None })
    }

    /// The same; the audit trail names `actor` for what is changed by [`keys`](Self::keys),
    /// [`remove_consumer`](Self::remove_consumer) and the clock's methods.
    #[must_use]
    pub fn acting_as(mut self, actor: ActorName) -> Self {
        self.actor = Some(actor);
        self
    }

    /// The same, whose requests belong to this trace, as W3C Trace Context writes it.
    #[must_use]
    pub fn in_trace(mut self, traceparent: &str) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Where the socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What served it when it was connected to.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        self.connection.welcome()
    }

    /// The user whose process serves it, where the system says that.
    #[must_use]
    pub fn server_user(&self) -> Option<u32> {
        self.connection.user
    }

    /// What the backend says of itself.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub async fn info(&self) -> Result<BackendInfo> {
        self.call::<WireInfo>(Method::Info).await.map(BackendInfo::from)
    }

    /// Where the store stands.
    ///
    /// # Errors
    /// As [`status`](Self::status), and those of the backend.
    pub async fn head(&self) -> Result<Head> {
        self.call::<WireHead>(Method::Head).await.map(Head::from)
    }

    /// What the store and its socket do, as an object: `program`, `pid`, `store` (its
    /// [`StoreInfo`](ghostwire_store_core::store::StoreInfo)), `socket`.
    ///
    /// # Errors
    /// `Unavailable` if the connection breaks, or the store ends.
    pub async fn status(&self) -> Result<Value> {
        self.call(Method::Status).await
    }

    /// How the program fares that has the store open, as an object.
    ///
    /// # Errors
    /// `Unsupported` if it does not say; as [`status`](Self::status).
    pub async fn health(&self) -> Result<Value> {
        self.call(Method::Health).await
    }

    /// What that program measures, in Prometheus' text format.
    ///
    /// # Errors
    /// `Unsupported` if it does not say; as [`status`](Self::status).
    pub async fn metrics(&self) -> Result<String> {
        self.call(Method::Metrics).await
    }

    /// The digests of everything stored.
    ///
    /// # Errors
    /// Those of [`Store::digests`](ghostwire_store_core::Store::digests).
    pub async fn digests(&self) -> Result<Digests> {
        self.call::<WireDigests>(Method::Digests).await.map(Digests::from)
    }

    /// Has everything stored read and checked; `progress` is told every 2 seconds how far that is.
    ///
    /// # Errors
    /// Those of [`Store::verify`](ghostwire_store_core::Store::verify).
    pub async fn verify(&self, mut progress: impl FnMut(Working)) -> Result<()> {
        let mut answer = self.ask(Method::Verify).await?;
        loop {
            match answer.next().await? {
                Piece::Working(working) => progress(working),
                Piece::Done(_) => return Ok(()),
                Piece::Data(_) | Piece::Item(_) => return Err(unexpected()),
            }
        }
    }

    /// The digest of the state as it is there now, signed.
    ///
    /// # Errors
    /// Those of [`Store::attest`](ghostwire_store_core::Store::attest).
    pub async fn attest(&self) -> Result<Attestation> {
        self.call::<WireAttestation>(Method::Attest).await.map(Attestation::from)
    }

    /// Brings every block into rows. Gives the serial that the rows then hold.
    ///
    /// # Errors
    /// Those of [`Store::checkpoint`](ghostwire_store_core::Store::checkpoint).
    pub async fn checkpoint(&self) -> Result<Serial> {
        self.call(Method::Checkpoint).await
    }

    /// Proves that a write would be durable now. Gives how long that took there.
    ///
    /// # Errors
    /// Those of [`Store::probe`](ghostwire_store_core::Store::probe).
    pub async fn probe(&self) -> Result<Duration> {
        self.call(Method::Probe).await.map(Duration::from_micros)
    }

    /// Commits after a serial, or from now on, over a connection of its own. Whoever does not read for
    /// longer than the server waits is given up, and can go on after the serial seen last.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); the stream's are those of
    /// [`Store::watch`](ghostwire_store_core::Store::watch).
    pub async fn watch(&self, after: Option<Serial>) -> Result<Watch> {
        let own = Self { connection: Connection::open(&self.socket).await?, ..self.clone() };
        let answer = own.ask(Method::Watch { after }).await?;
        // The connection lives as long as the stream.
        let watching = Some((own, answer));
        let commits = stream::unfold(watching, |watching| async move {
            let (own, mut answer) = watching?;
            let mut whole = None;
            loop {
                return match answer.next().await {
                    Ok(Piece::Working(_)) => continue,
                    Ok(Piece::Item(item)) => match serde_json::from_slice(&item) {
                        Ok(part) => match joined(&mut whole, part) {
                            None => continue,
                            Some(commit) => Some((Ok(commit), Some((own, answer)))),
                        },
                        Err(error) => Some((Err(unreadable(error)), None)),
                    },
                    Ok(Piece::Done(_)) => None,
                    Ok(Piece::Data(_)) => Some((Err(unexpected()), None)),
                    Err(error) => Some((Err(error), None)),
                };
            }
        });
        Ok(Box::pin(commits))
    }

    /// Several commands in one commit, all or nothing. Gives its serial, and the replies in order.
    ///
    /// # Errors
    /// Those of [`Store::transact`](ghostwire_store_core::Store::transact); `OutcomeUnknown` if the
    /// connection breaks after it was sent and before the answer, if the answer cannot be read, or if the store
    /// ends meanwhile; `Unavailable` if it was not sent; `InvalidArgument` if it is too long for one message.
    pub async fn transact(
        &self,
        actor: ActorName,
        transaction: Transaction,
    ) -> Result<(Serial, Vec<Reply>)> {
        let mut answer = self.ask(Method::Transact { actor, transaction }).await?;
        let mut replies = Vec::new();
        loop {
            match answer.next().await.map_err(unless_answered)? {
                Piece::Working(_) => {}
                Piece::Item(item) => replies.push(read(&item).map_err(in_doubt)?),
                Piece::Done(serial) => return Ok((read(&serial).map_err(in_doubt)?, replies)),
                Piece::Data(_) => return Err(in_doubt(unexpected())),
            }
        }
    }

    /// Makes something with a secret.
    ///
    /// # Errors
    /// Those of the repository; as [`transact`](Self::transact).
    pub async fn issue(&self, actor: ActorName, issue: Issue) -> Result<(EntityRecord, Secret)> {
        let issued: Issued = self.write(Method::Issue { actor, issue }).await?;
        Ok((issued.record, Secret::new(issued.secret)))
    }

    /// Keeps nothing for a consumer any longer.
    ///
    /// # Errors
    /// `NotFound`; as [`transact`](Self::transact).
    pub async fn remove_consumer(&self, name: ConsumerName) -> Result<()> {
        self.write(Method::RemoveConsumer { name }).await
    }

    /// Looks at the keys of a sealed store, or changes them. Gives the keyring (`keyring`) and how far
    /// records are sealed anew (`resealed`).
    ///
    /// # Errors
    /// Those of [`StoreKeys`](ghostwire_store_core::keys::StoreKeys).
    pub async fn keys(&self, request: KeysRequest) -> Result<Value> {
        self.write(Method::Keys(request)).await
    }

    /// Has the store take the clock as right, however long nothing was written.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn accept_clock(&self) -> Result<()> {
        self.write(Method::Clock(ClockRequest::Accept)).await
    }

    /// Has the store undo what a clock that was ahead did to times.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn repair_clock(&self) -> Result<ClockRepair> {
        self.write(Method::Clock(ClockRequest::Repair)).await
    }

    /// Looks at the move of the network to another database, or takes it a step on. Gives where it stands.
    ///
    /// # Errors
    /// `Unsupported` if that program cannot move its store; why the step cannot be taken; as
    /// [`transact`](Self::transact).
    pub async fn migrate(&self, request: MigrateRequest) -> Result<Value> {
        match request.changes() {
            true => self.write(Method::Migrate(request)).await,
            false => self.call(Method::Migrate(request)).await,
        }
    }

    /// Has that program read its configuration again. Gives what changed, as an object.
    ///
    /// # Errors
    /// `Unsupported` if it does not; its own, and nothing changed then; as [`transact`](Self::transact).
    pub async fn reload(&self) -> Result<Value> {
        self.write(Method::Reload).await
    }

    /// Has that program log as `level` says, for this long or until the next change.
    ///
    /// # Errors
    /// `Unsupported` if it does not; `InvalidArgument` for a level that it does not know; as
    /// [`transact`](Self::transact).
    pub async fn set_log_level(&self, level: &str, period: Option<Duration>) -> Result<()> {
        let seconds = period.map(|period| period.as_secs());
        self.write(Method::LogLevel { level: level.to_owned(), seconds }).await
    }

    async fn ask(&self, method: Method) -> Result<Answer> {
        let (traceparent, actor) =
            (self.traceparent.as_deref().map(str::to_owned), self.actor.clone());
        self.connection.ask(&Request { method, traceparent, actor }).await
    }

    /// A request whose answer is one value.
    async fn call<T: DeserializeOwned>(&self, method: Method) -> Result<T> {
        let mut answer = self.ask(method).await?;
        loop {
            match answer.next().await? {
                Piece::Working(_) => {}
                Piece::Done(value) => return read(&value),
                Piece::Data(_) | Piece::Item(_) => return Err(unexpected()),
            }
        }
    }

    /// A request that changes something.
    async fn write<T: DeserializeOwned>(&self, method: Method) -> Result<T> {
        let mut answer = self.ask(method).await?;
        loop {
            match answer.next().await.map_err(unless_answered)? {
                Piece::Working(_) => {}
                Piece::Done(value) => return read(&value).map_err(in_doubt),
                Piece::Data(_) | Piece::Item(_) => return Err(in_doubt(unexpected())),
            }
        }
    }
}

/// Adds a part of a commit to those before. Gives the commit once it is whole.
fn joined(whole: &mut Option<Watched>, part: Watched) -> Option<Watched> {
    let more = part.more;
    match whole {
        Some(before) if before.serial == part.serial => before.changes.extend(part.changes),
        _ => *whole = Some(part),
    }
    whole.take_if(|_| !more).map(|commit| Watched { more: false, ..commit })
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(unreadable)
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Unexpected, "the other end of the admin socket answers something else")
}

/// A refusal is an answer, and so is that nothing was sent.
fn unless_answered(error: Error) -> Error {
    if connection::is_unanswered(&error) { in_doubt(error) } else { error }
}

/// What it means for a write that was sent that its answer did not come, or cannot be read: it may have been
/// stored.
fn in_doubt(error: Error) -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "there was no answer that can be read; the write may have been stored, or not",
    )
    .with("help", "look whether it was before it is tried again")
    .because(error)
}
