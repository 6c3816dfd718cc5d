//! What callers ask of the writer.

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::backend::KeyRange;
use crate::block::{RowChange, Serial};
use crate::command::Submission;
use crate::domain::WriterId;
use crate::error::{Error, Result};
use crate::state::Reply;

/// Where a caller waits, and the room in the queue that the request takes until it is answered.
pub(crate) struct Answer<T> {
    caller: oneshot::Sender<Result<T>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl<T> Answer<T> {
    pub(crate) fn new(room: Option<OwnedSemaphorePermit>) -> (Self, oneshot::Receiver<Result<T>>) {
        let (caller, answered) = oneshot::channel();
        (Self { caller, _room: room }, answered)
    }

    /// A caller that is gone does not want to know.
    pub(crate) fn send(self, outcome: Result<T>) {
        let _ = self.caller.send(outcome);
    }
}

/// What a command came to, and the commit that holds it.
#[derive(Debug, Clone)]
pub struct Committed<T = Reply> {
    /// The answer.
    pub value: T,
    /// The commit from which on it holds.
    pub serial: Serial,
}

/// What waits in the queue.
pub(crate) enum Request {
    Submit(Box<Submission>, Answer<Committed>),
    Series(SeriesBatch, Answer<()>),
    /// Remove rows of series, and bring in others in the same commit.
    Replace(Vec<KeyRange>, Vec<RowChange>, Answer<()>),
    /// Look for commits of other processes.
    Refresh(Answer<()>),
    /// Fold everything.
    Checkpoint(Answer<Serial>),
    /// Read everything that is stored and compare.
    Verify(Answer<()>),
}

impl Request {
    pub(super) fn refuse(self, error: &Error) {
        match self {
            Self::Submit(_, answer) => answer.send(Err(error.clone())),
            Self::Checkpoint(answer) => answer.send(Err(error.clone())),
            Self::Series(_, answer)
            | Self::Replace(_, _, answer)
            | Self::Refresh(answer)
            | Self::Verify(answer) => answer.send(Err(error.clone())),
        }
    }
}

/// Rows of a series, and how far the writer of the batch got with them.
pub(crate) struct SeriesBatch {
    pub(crate) rows: Vec<RowChange>,
    /// (writer, sequence): a batch whose sequence is not above the writer's last one is a
    /// repetition and does nothing.
    pub(crate) position: Option<(WriterId, u64)>,
}

/// How many bytes of memory rows own, about.
pub(crate) fn weight(rows: &[RowChange]) -> usize {
    let bytes =
        |row: &RowChange| row.key.as_bytes().len() + row.body.as_ref().map_or(0, Bytes::len);
    size_of_val(rows) + rows.iter().map(bytes).sum::<usize>()
}
