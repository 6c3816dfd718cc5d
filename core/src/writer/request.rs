//! What callers ask of the writer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Span;

use crate::backend::{Head, KeyRange, RecordChange};
use crate::block::{RowChange, Serial};
use crate::command::Submission;
use crate::domain::{ConsumerName, WriterId};
use crate::error::{Error, Result};
use crate::log::feed::Consumer;
use crate::migration::MoveOptions;
use crate::position::Position;
use crate::state::Reply;

/// Where a caller waits, and the room in the queue that the request takes until it is answered.
pub(crate) struct Answer<T> {
    caller: oneshot::Sender<Result<T>>,
    _room: Option<OwnedSemaphorePermit>,
    pub(super) origin: Origin,
}

/// Where a request came from, for those who follow it.
pub(crate) struct Origin {
    /// The span of the call; none if nobody follows it.
    pub(super) span: Span,
    /// When it was queued, if anybody wants to know.
    queued_at: Option<Instant>,
    /// When the writer took it.
    taken_at: Option<Instant>,
}

impl Origin {
    pub(crate) fn new(span: Span, queued_at: Option<Instant>) -> Self {
        Self { span, queued_at, taken_at: None }
    }

    /// The writer takes it. Gives how long it waited, the first time.
    pub(super) fn take(&mut self, now: Instant) -> Option<Duration> {
        if self.taken_at.is_some() {
            return None;
        }
        self.taken_at = Some(now);
        self.queued_at.map(|queued_at| now.saturating_duration_since(queued_at))
    }

    /// When it was queued and when it was taken.
    pub(super) fn times(&self) -> Option<(Instant, Instant)> {
        Some((self.queued_at?, self.taken_at?))
    }
}

impl<T> Answer<T> {
    pub(crate) fn new(
        room: Option<OwnedSemaphorePermit>,
        origin: Origin,
    ) -> (Self, oneshot::Receiver<Result<T>>) {
        let (caller, answered) = oneshot::channel();
        (Self { caller, _room: room, origin }, answered)
    }

    /// Does nothing if the caller no longer waits.
    pub(crate) fn send(self, outcome: Result<T>) {
        let _ = self.caller.send(outcome);
    }
}

/// The outcome of a command, and the commit that made it durable.
#[derive(Debug, Clone)]
pub struct Committed<T = Reply> {
    /// What the command gave.
    pub value: T,
    /// The first commit whose state contains it.
    pub serial: Serial,
}

/// What waits in the queue.
pub(crate) enum Request {
    Submit(Box<Submission>, Answer<Committed>),
    Append(SeriesRows, Answer<()>),
    /// Remove rows of series, and write others in the same commit.
    Replace(Vec<KeyRange>, Vec<RowChange>, Answer<()>),
    /// Look for commits of other processes.
    Refresh(Answer<()>),
    /// Publish at least this position, to which others have committed.
    Follow(Position, Answer<()>),
    /// The backend has been given something to do by itself.
    Wake(Answer<()>),
    /// Prove that a commit would be stored.
    Probe(Answer<()>),
    /// Flush every dirty row.
    Checkpoint(Answer<Serial>),
    /// Change who follows the log.
    Consumers(ConsumerChange, Answer<Option<Consumer>>),
    /// Say something else of the database's part in its network.
    Record(RecordChange, Following, Answer<Head>),
    /// Move the network to the database beside the store's own, or leave that one.
    Move(Moving, Answer<Duration>),
}

/// What comes with another record: whether a consumer follows from then on.
#[derive(Debug, Clone)]
pub(crate) enum Following {
    Unchanged,
    /// From this commit on, and blocks that are kept now stay, too; with so many bytes kept at most.
    Begins(ConsumerName, u64),
    Ends(ConsumerName),
}

/// What is done with both databases while nobody is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moving {
    /// Serve from the other one.
    HandOver(MoveOptions),
    /// Leave the other one, for good.
    Complete(MoveOptions),
    /// Have every answer mean that both have it.
    Tighten(MoveOptions),
    /// Have it mean that the one which is served has it.
    Loosen(MoveOptions),
    /// Go on without the other one, which fell too far behind.
    Resync(MoveOptions),
    /// End what was interrupted.
    Settle(MoveOptions),
}

impl Moving {
    pub(super) fn options(self) -> MoveOptions {
        match self {
            Self::HandOver(options)
            | Self::Complete(options)
            | Self::Tighten(options)
            | Self::Loosen(options)
            | Self::Resync(options)
            | Self::Settle(options) => options,
        }
    }
}

/// A change of who follows the log.
pub(crate) enum ConsumerChange {
    /// From the next commit on, with so many bytes kept at most.
    Register(ConsumerName, u64),
    /// It has taken everything up to this position.
    Advance(ConsumerName, Position),
    Remove(ConsumerName),
}

impl Request {
    /// Whether it becomes part of a batch.
    pub(super) fn is_write(&self) -> bool {
        matches!(self, Self::Submit(..) | Self::Append(..))
    }

    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Submit(_, answer) => answer.send(Err(error.clone())),
            Self::Checkpoint(answer) => answer.send(Err(error.clone())),
            Self::Consumers(_, answer) => answer.send(Err(error.clone())),
            Self::Record(_, _, answer) => answer.send(Err(error.clone())),
            Self::Move(_, answer) => answer.send(Err(error.clone())),
            Self::Append(_, answer)
            | Self::Replace(_, _, answer)
            | Self::Refresh(answer)
            | Self::Follow(_, answer)
            | Self::Wake(answer)
            | Self::Probe(answer) => answer.send(Err(error.clone())),
        }
    }

    /// Refuses a write; gives everything else back.
    pub(super) fn refuse_write(self, error: &Error) -> Option<Self> {
        // The whole text as the source: context would be cut, and it says what to do.
        let refusal = || {
            Error::new(error.kind().clone(), "the command was not stored")
                .because(error.to_string())
        };
        match self {
            Self::Submit(_, answer) => answer.send(Err(refusal())),
            Self::Append(_, answer) => answer.send(Err(refusal())),
            other => return Some(other),
        }
        None
    }
}

/// Rows of a series, from one source.
pub(crate) struct SeriesRows {
    pub(crate) rows: Vec<RowChange>,
    /// The source and its sequence number: rows whose number is not above the source's last one are
    /// a repetition and are not stored again.
    pub(crate) position: Option<(WriterId, u64)>,
}

/// How many bytes of memory rows own, about.
pub(crate) fn weight(rows: &[RowChange]) -> usize {
    let bytes =
        |row: &RowChange| row.key.as_bytes().len() + row.body.as_ref().map_or(0, Bytes::len);
    size_of_val(rows) + rows.iter().map(bytes).sum::<usize>()
}
