//! The client's end of a connection. A task has it, so that whoever asked may lose interest at any time
//! without leaving the connection in the middle of something.

#[cfg(unix)]
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use crate::protocol::{
    Frame, Hello, Kind, PROGRAM, Pace, Request, VERSIONS, Welcome, WireError, Working, read_frame,
    unreadable, write_frame, write_magic,
};

#[cfg(unix)]
type Stream = tokio::net::UnixStream;
/// Where there are no such sockets nothing is ever connected to.
#[cfg(not(unix))]
type Stream = tokio::io::DuplexStream;

/// So long a server may be silent: it says every 2 seconds that it is at work.
const PACE: Pace = Pace { idle: Duration::from_secs(30), frame: Duration::from_secs(30) };

/// Frames of an answer that wait for whoever asked.
const WAITING: usize = 4;

/// A request that was sent and not answered is told by this name.
const UNANSWERED: &str = "admin.answer";

/// A part of an answer.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    Item(Bytes),
    Working(Working),
    Done(Bytes),
}

/// An answer, as it comes.
#[derive(Debug)]
pub(super) struct Answer {
    pieces: mpsc::Receiver<Result<Piece>>,
}

impl Answer {
    pub(super) async fn next(&mut self) -> Result<Piece> {
        self.pieces.recv().await.unwrap_or_else(|| Err(broken().during(UNANSWERED)))
    }
}

struct Call {
    request: Frame,
    pieces: mpsc::Sender<Result<Piece>>,
}

#[derive(Debug, Clone)]
pub(super) struct Connection {
    calls: mpsc::Sender<Call>,
    welcome: Arc<Welcome>,
    /// The user that serves it, as the system says.
    pub(super) user: Option<u32>,
}

impl Connection {
    pub(super) async fn open(socket: &Path) -> Result<Self> {
        let (stream, welcome) = greeted(socket).await?;
        let user = user_of(&stream);
        let (calls, waiting) = mpsc::channel(1);
        let line = Line { socket: socket.into(), user, stream: Some(stream) };
        tokio::spawn(serve(line, waiting));
        Ok(Self { calls, welcome: Arc::new(welcome), user })
    }

    pub(super) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    pub(super) async fn ask(&self, request: &Request) -> Result<Answer> {
        let payload = request.encode()?;
        let most = crate::protocol::MAX_PAYLOAD;
        if payload.len() > most {
            return Err(Error::invalid("this is too much for one request on the admin socket")
                .with("bytes", payload.len())
                .with("at_most", most)
                .with("help", "do it in parts, or while the store is closed"));
        }
        let request = Frame { kind: Kind::Request, payload: payload.into() };
        let (sender, pieces) = mpsc::channel(WAITING);
        let sent = self.calls.send(Call { request, pieces: sender }).await;
        sent.map_err(|_| broken())?;
        Ok(Answer { pieces })
    }
}

/// What is spoken over. It may end between two requests, such as when nobody asked for long.
struct Line {
    socket: Arc<Path>,
    user: Option<u32>,
    stream: Option<Stream>,
}

impl Line {
    /// Sends a request, over a new connection if need be.
    ///
    /// # Errors
    /// The request was not sent, or not to its end: whoever did not read all of it does nothing of it.
    async fn send(&mut self, request: &Frame) -> Result<Stream> {
        if let Some(mut stream) = self.stream.take()
            && write_frame(&mut stream, request, PACE.frame).await.is_ok()
        {
            return Ok(stream);
        }
        let again = async {
            let (mut stream, _) = greeted(&self.socket).await?;
            if user_of(&stream) != self.user {
                return Err(another_user(&self.socket));
            }
            write_frame(&mut stream, request, PACE.frame).await?;
            Ok(stream)
        };
        again.await.map_err(|error| {
            let unsent = Error::new(
                ErrorKind::Unavailable,
                "the connection to the program that has the store open ended, and there is no other; the \
                 request was not sent",
            );
            unsent.with("socket", self.socket.display()).because(error)
        })
    }
}

/// Another user's process has the socket now. Nothing is told to it that was meant for the first.
fn another_user(socket: &Path) -> Error {
    Error::new(ErrorKind::PermissionDenied, "another user serves the admin socket now")
        .with("socket", socket.display())
}

/// Serves calls one after the other until the last handle is gone.
async fn serve(mut line: Line, mut calls: mpsc::Receiver<Call>) {
    while let Some(call) = calls.recv().await {
        let served = match line.send(&call.request).await {
            Ok(stream) => pass_on(stream, &call).await.map_err(|error| error.during(UNANSWERED)),
            Err(error) => Err(error),
        };
        match served {
            Ok(stream) => line.stream = Some(stream),
            // Nobody may be left to be told.
            Err(error) => drop(call.pieces.send(Err(error)).await),
        }
    }
}

/// Passes an answer on. Of one that nobody wants any more the rest is read, or if it does not end, the
/// connection given up.
///
/// # Errors
/// That of a connection that broke.
async fn pass_on(mut stream: Stream, call: &Call) -> Result<Stream> {
    const MOST_UNWANTED: usize = 1_000;
    let mut unwanted = 0;
    loop {
        let Some(Frame { kind, payload }) = read_frame(&mut stream, PACE).await? else {
            return Err(broken());
        };
        let (piece, is_last) = match kind {
            Kind::Data => (Ok(Piece::Data(payload)), false),
            Kind::Item => (Ok(Piece::Item(payload)), false),
            Kind::Progress => {
                let working = serde_json::from_slice(&payload).map_err(unreadable)?;
                (Ok(Piece::Working(working)), false)
            }
            Kind::Done => (Ok(Piece::Done(payload)), true),
            Kind::Failed => (Err(failure(&payload)?), true),
            Kind::Hello | Kind::Welcome | Kind::Request => return Err(super::unexpected()),
        };
        if call.pieces.send(piece).await.is_err() {
            unwanted += 1;
        }
        if is_last {
            return Ok(stream);
        }
        if unwanted > MOST_UNWANTED {
            return Err(broken());
        }
    }
}

#[cfg(unix)]
fn user_of(stream: &Stream) -> Option<u32> {
    stream.peer_cred().ok().map(|peer| peer.uid())
}

#[cfg(not(unix))]
fn user_of(_: &Stream) -> Option<u32> {
    None
}

#[cfg(not(unix))]
async fn connect(socket: &Path) -> Result<Stream> {
    let error = Error::new(ErrorKind::NotFound, "admin sockets are there on Unix systems only");
    Err(error.with("socket", socket.display()).because(io::Error::from(io::ErrorKind::Unsupported)))
}

#[cfg(unix)]
async fn connect(socket: &Path) -> Result<Stream> {
    use crate::address::{Address, kind_of};
    let address = Address::of(socket)?;
    let connecting = tokio::time::timeout(PACE.frame, Stream::connect(address.path())).await;
    let connecting = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connecting.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => denied(socket, error),
        // It was left by a process that died.
        io::ErrorKind::ConnectionRefused => {
            Error::new(ErrorKind::NotFound, "nobody serves the admin socket any more")
                .with("socket", socket.display())
                .because(error)
        }
        _ => Error::new(kind_of(&error), "the admin socket cannot be connected to")
            .with("socket", socket.display())
            .because(error),
    })
}

/// Names whom the socket is for, and what would help.
#[cfg(unix)]
fn denied(socket: &Path, error: io::Error) -> Error {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let denied = Error::new(ErrorKind::PermissionDenied, "the admin socket is not for this user")
        .with("socket", socket.display());
    let Ok(found) = fs::symlink_metadata(socket) else {
        return denied
            .with("help", "run this as the store's user or root: its directory keeps others out")
            .because(error);
    };
    let (user, group) = (found.uid(), found.gid());
    let denied = denied
        .with("socket_user", user)
        .with("socket_group", group)
        .with("socket_mode", format_args!("{:04o}", found.permissions().mode() & 0o7777));
    let denied = match found.permissions().mode() & 0o060 {
        0 => denied.with(
            "help",
            format_args!(
                "run this as user {user} or root, or set admin.group to a group of this user where the \
                 store is open"
            ),
        ),
        _ => denied
            .with("help", format_args!("run this as user {user} or root, or join group {group}")),
    };
    denied.because(error)
}

async fn greeted(socket: &Path) -> Result<(Stream, Welcome)> {
    let mut stream = connect(socket).await?;
    let welcome = greet(&mut stream).await.map_err(|error| told(error, socket))?;
    Ok((stream, welcome))
}

async fn greet(stream: &mut Stream) -> Result<Welcome> {
    // A refusal may be there already, and the other end closed: what was written does not count.
    let hello = Hello { versions: VERSIONS, program: PROGRAM.to_owned() };
    let written = async {
        write_magic(stream, PACE.frame).await?;
        write_frame(stream, &Frame::json(Kind::Hello, &hello)?, PACE.frame).await
    };
    let written = written.await;
    match read_frame(stream, PACE).await {
        Ok(Some(Frame { kind: Kind::Welcome, payload })) => {
            serde_json::from_slice(&payload).map_err(unreadable)
        }
        Ok(Some(Frame { kind: Kind::Failed, payload })) => Err(failure(&payload)?),
        Ok(Some(_)) => Err(super::unexpected()),
        // The store ended while this came in.
        Ok(None) => Err(written.err().unwrap_or_else(gone)),
        Err(error) => Err(written.err().unwrap_or(error)),
    }
}

fn failure(payload: &[u8]) -> Result<Error> {
    serde_json::from_slice::<WireError>(payload).map(Error::from).map_err(unreadable)
}

fn told(error: Error, socket: &Path) -> Error {
    error.with("socket", socket.display())
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "the store ended while the admin socket was connected to")
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection to the program that has the store open ended; it ended, or was told to",
    )
}

/// Whether a request was sent, and this is no answer to it.
pub(super) fn is_unanswered(error: &Error) -> bool {
    error.operation() == Some(UNANSWERED)
}
