//! One client of the socket, from its first frame to its last.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant as TokioInstant, interval_at};
use tracing::Instrument;

use super::answer::{Answered, Answering, answer};
use super::call::{Call, closed};
use super::{AdminEvent, Counters, Served, SocketOptions, has_ended};
use crate::protocol::{
    Frame, Hello, Kind, PROGRAM, Pace, Request, VERSIONS, Welcome, WireError, Working,
    common_version, read_frame, read_magic, unreadable, write_frame,
};

/// How often a client learns that its answer is still being worked on.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Frames of an answer that wait to be written. What makes them waits too, and holds nothing of the
/// store meanwhile.
const WAITING: usize = 2;

pub(super) struct Connection {
    peer: Peer,
    served: Served,
    counters: Arc<Counters>,
    /// The user at the other end.
    user: Option<u32>,
    /// Whether the store has ended.
    ended: watch::Receiver<bool>,
}

/// The other end, as far as frames go.
struct Peer {
    stream: UnixStream,
    pace: Pace,
    /// Whether a frame was begun and not written to its end: what came behind would be read as the rest.
    is_cut: bool,
}

impl Peer {
    async fn read(&mut self) -> Result<Option<Frame>> {
        read_frame(&mut self.stream, self.pace).await
    }

    async fn write(&mut self, frame: &Frame) -> Result<()> {
        self.write_within(frame, self.pace.frame).await
    }

    /// Nothing more once a frame was cut.
    async fn write_within(&mut self, frame: &Frame, patience: Duration) -> Result<()> {
        if self.is_cut {
            return Err(Error::new(ErrorKind::Unavailable, "a message was cut short before"));
        }
        self.is_cut = true;
        write_frame(&mut self.stream, frame, patience).await?;
        self.is_cut = false;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.served.hooks.observe(AdminEvent::Connection { opened: false });
    }
}

impl Connection {
    pub(super) fn new(
        stream: UnixStream,
        served: Served,
        options: &SocketOptions,
        (counters, ended): (Arc<Counters>, watch::Receiver<bool>),
    ) -> Self {
        let pace = Pace { idle: options.idle, frame: options.patience };
        let user = stream.peer_cred().ok().map(|peer| peer.uid());
        served.hooks.observe(AdminEvent::Connection { opened: true });
        Self { peer: Peer { stream, pace, is_cut: false }, served, counters, user, ended }
    }

    /// Serves the client until it goes, or does what a client does not do.
    pub(super) async fn serve(mut self) {
        let served = async {
            self.greet().await?;
            while self.serve_one().await? {}
            Ok::<_, Error>(())
        };
        if let Err(error) = served.await {
            tracing::debug!(%error, "a client of the admin socket was given up");
            // It may be told, if it still listens and reads no other frame.
            let _ = self.write_failure(&error).await;
        }
    }

    async fn greet(&mut self) -> Result<()> {
        let pace = Pace { idle: self.peer.pace.frame, ..self.peer.pace };
        read_magic(&mut self.peer.stream, pace.frame).await?;
        let frame = read_frame(&mut self.peer.stream, pace).await?;
        let Some(Frame { kind: Kind::Hello, payload }) = frame else {
            return Err(Error::invalid("a client of the admin socket says first what it speaks"));
        };
        let hello: Hello = serde_json::from_slice(&payload).map_err(unreadable)?;
        let version = common_version(VERSIONS, hello.versions)?;
        let program = PROGRAM.to_owned();
        let welcome = Welcome { version, program, pid: std::process::id() };
        self.peer.write(&Frame::json(Kind::Welcome, &welcome)?).await
    }

    /// Serves one request. Tells whether there may be another.
    async fn serve_one(&mut self) -> Result<bool> {
        let frame = tokio::select! {
            biased;
            () = has_ended(&mut self.ended) => return self.part(Err(closed())).await,
            frame = self.peer.read() => frame?,
        };
        let Some(frame) = frame else { return Ok(false) };
        if frame.kind != Kind::Request {
            return Err(Error::invalid("a client of the admin socket sends requests only"));
        }
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        match Request::parse(&frame.payload) {
            Ok(request) => {
                let method = request.method.name();
                let traceparent = request.traceparent.as_deref().unwrap_or_default();
                let span = self.served.hooks.span(method, traceparent);
                self.answer(request).instrument(span).await
            }
            Err(error) => self.write_failure(&error).await.map(|()| true),
        }
    }

    /// Says that the store has ended, if the client listens.
    async fn part(&mut self, end: Result<()>) -> Result<bool> {
        const BRIEFLY: Duration = Duration::from_millis(50);
        let frame = match end {
            Ok(()) => Frame::json(Kind::Done, &Value::Null)?,
            Err(error) => Frame::json(Kind::Failed, &WireError::from(&error))?,
        };
        let _ = self.peer.write_within(&frame, BRIEFLY).await;
        Ok(false)
    }

    /// Writes an answer while it is being made. The request is dropped with the client. Tells whether there
    /// may be another.
    async fn answer(&mut self, request: Request) -> Result<bool> {
        let mut call = Call::of(&request.method, self.user);
        let (frames, mut ready) = mpsc::channel(WAITING);
        let began = Instant::now();
        let pages = self.served.backend.info().counters.scans;
        let answering = Answering::new(frames, self.user, self.counters.clone(), request.actor);
        let mut work = pin!(answer(self.served.clone(), request.method, answering));
        let mut heartbeat = interval_at(TokioInstant::now() + HEARTBEAT, HEARTBEAT);
        let ended = loop {
            tokio::select! {
                biased;
                Some(frame) = ready.recv() => self.peer.write(&frame).await?,
                ended = &mut work => break ended,
                () = has_ended(&mut self.ended) => return self.part(call.at_end()).await,
                _ = heartbeat.tick() => {
                    let now = self.served.backend.info().counters.scans;
                    let working = Working {
                        elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                        pages: now.saturating_sub(pages),
                    };
                    self.peer.write(&Frame::json(Kind::Progress, &working)?).await?;
                }
            }
        };
        while let Ok(frame) = ready.try_recv() {
            self.peer.write(&frame).await?;
        }
        let ended = ended.and_then(Answered::into_frames);
        call.ended(&ended);
        let error = ended.as_ref().err().map(|error| error.kind().name());
        let (method, took) = (call.method, began.elapsed());
        self.served.hooks.observe(AdminEvent::Request { method, took, error });
        match ended {
            Ok(frames) => {
                for frame in &frames {
                    self.peer.write(frame).await?;
                }
            }
            Err(error) => self.write_failure(&error).await?,
        }
        Ok(true)
    }

    async fn write_failure(&mut self, error: &Error) -> Result<()> {
        let failed = Frame::json(Kind::Failed, &WireError::from(error))?;
        self.peer.write(&failed).await
    }
}

/// Tells a client why it is not taken in. Nobody waits for it: what does not fit in the socket's buffer
/// at once, and this does, is not said.
pub(super) fn refuse(stream: UnixStream, error: &Error) {
    let Ok(frame) = Frame::json(Kind::Failed, &WireError::from(error)) else { return };
    let length = u32::try_from(frame.payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(frame.kind as u8);
    bytes.extend_from_slice(&frame.payload);
    // A client that is gone does not need to know.
    let _ = stream.try_write(&bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn nothing_is_written_behind_a_frame_that_was_cut() {
        let (stream, mut client) = UnixStream::pair().unwrap();
        let soon = Duration::from_millis(20);
        let mut peer = Peer { stream, pace: Pace { idle: soon, frame: soon }, is_cut: false };
        let long = Frame { kind: Kind::Data, payload: vec![0; 8 << 20].into() };
        peer.write(&long).await.unwrap_err();
        // It reads again, so there is room.
        client.read_exact(&mut vec![0; 64 * 1024]).await.unwrap();
        let failed = Frame { kind: Kind::Failed, payload: vec![b'x'; 16].into() };
        peer.write(&failed).await.unwrap_err();
        drop(peer);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(rest.iter().all(|byte| *byte == 0), "a failure stands in the payload");
    }
}
