//! Batches: commands that share one commit.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Span;

use super::{Answer, Committed, Request, SeriesRows};
use crate::block::{BlockBuilder, ChangeKind, ClosedBlock, RowChange, Serial, Sizes};
use crate::changes::LogPosition;
use crate::command::{ClockCommand, Command, Submission};
use crate::domain::{BlockId, CommitId, Revision, Timestamp, WriterId};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;
use crate::schema::WriterPosition;
use crate::state::{Reply, State};

/// What one more request brings into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Command,
    /// What may be too large for a block gets a commit of its own, so that it fails alone.
    Bulk,
    /// So many rows of a series.
    Series(usize),
}

impl Load {
    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::Restore(_) | Command::Transaction(_) => Self::Bulk,
            // Its time is not that of others.
            Command::Clock(ClockCommand::Repair { .. }) => Self::Bulk,
            _ => Self::Command,
        }
    }
}

/// A commit takes no further series rows beyond these.
const FULL_SERIES: usize = 65_536;

/// An open batch: commands that will share one commit, applied one by one as they come in, on a state
/// that need not be durable yet. If it never becomes durable, the requests can be taken back.
pub(super) struct Batch {
    /// The commit that the batch follows.
    base: LogPosition,
    position: Position,
    state: State,
    builder: BlockBuilder,
    time: Timestamp,
    submissions: Vec<(Box<Submission>, Answer<Committed>)>,
    outcomes: Vec<Result<Reply>>,
    series: Vec<(SeriesRows, Answer<()>)>,
    series_rows: usize,
    bulk: bool,
}

/// A batch that takes no more commands: its block, and the state after it.
pub(super) struct SealedBatch {
    /// The state after the batch.
    pub(super) state: State,
    /// The position and serial that the batch builds on.
    pub(super) expected: Position,
    pub(super) before: Serial,
    /// The id of the commit, if it has no block.
    pub(super) entry: Option<CommitId>,
    pub(super) block: Option<ClosedBlock>,
    pub(super) series: Vec<RowChange>,
    pub(super) sequences: Vec<(WriterId, u64)>,
}

/// Who waits for a batch, and the outcome of each command.
pub(super) struct Callers {
    submissions: Vec<(Box<Submission>, Answer<Committed>)>,
    outcomes: Vec<Result<Reply>>,
    series: Vec<(SeriesRows, Answer<()>)>,
}

impl Batch {
    /// A batch on top of `state`, about as long as the one before it and at most `max_block` bytes.
    pub(super) fn on(state: &State, before: Sizes, max_block: usize) -> Self {
        Self {
            base: LogPosition { serial: state.serial(), hash: state.hash() },
            position: state.position(),
            state: state.clone(),
            builder: BlockBuilder::like(before).at_most(max_block),
            time: state.time(),
            submissions: Vec::new(),
            outcomes: Vec::new(),
            series: Vec::new(),
            series_rows: 0,
            bulk: false,
        }
    }

    /// How long its block is so far.
    pub(super) fn sizes(&self) -> Sizes {
        self.builder.sizes()
    }

    pub(super) fn len(&self) -> usize {
        self.submissions.len() + self.series.len()
    }

    /// Whether this may share the batch's commit.
    pub(super) fn has_room_for(&self, load: Load, max_len: usize, full_block: usize) -> bool {
        let full = self.len() >= max_len || self.builder.len() > full_block;
        match load {
            _ if self.len() == 0 => true,
            _ if self.bulk || full => false,
            Load::Command => true,
            Load::Bulk => false,
            Load::Series(rows) => self.series_rows + rows <= FULL_SERIES,
        }
    }

    /// Decides and applies a command. A refused one leaves no trace.
    pub(super) fn submit(&mut self, submission: Box<Submission>, answer: Answer<Committed>) {
        self.bulk |= Load::of(&submission.command) == Load::Bulk;
        let now = submission.effective_time(self.time);
        let context = submission.context(now);
        let outcome = self.state.execute(&submission.command, &context, &mut self.builder);
        if outcome.is_ok() {
            self.time = now;
        }
        self.outcomes.push(outcome);
        self.submissions.push((submission, answer));
    }

    pub(super) fn append(&mut self, series: SeriesRows, answer: Answer<()>) {
        self.series_rows += series.rows.len();
        self.series.push((series, answer));
    }

    /// Who numbers its series.
    pub(super) fn writers(&self) -> impl Iterator<Item = WriterId> {
        self.series.iter().filter_map(|(series, _)| series.position.map(|(writer, _)| writer))
    }

    /// Ends the batch. `sequences` are those of the commits before it.
    pub(super) fn seal(
        self,
        entropy: &dyn Entropy,
        sequences: &HashMap<WriterId, u64>,
    ) -> (Callers, Result<SealedBatch>) {
        let Self { base, position, mut state, builder, time, .. } = self;
        let callers =
            Callers { submissions: self.submissions, outcomes: self.outcomes, series: self.series };
        let seal = || {
            let (series, sequences) = new_rows(&callers.series, sequences)?;
            let (mut block, mut entry) = (None, None);
            if !builder.is_empty() {
                let id = BlockId::time_ordered(time, draw(entropy)?);
                let closed = builder.finish(base.serial.next(), id, base.hash, time)?;
                state.advance(closed.block.serial, closed.block.hash, time);
                block = Some(closed);
            } else if !series.is_empty() {
                entry = Some(CommitId::time_ordered(time, draw(entropy)?));
            }
            if block.is_some() || entry.is_some() {
                state.set_position(position.next());
            }
            let (expected, before) = (position, base.serial);
            Ok(SealedBatch { state, expected, before, entry, block, series, sequences })
        };
        let sealed = seal();
        (callers, sealed)
    }

    /// The requests, to be decided again on another state.
    pub(super) fn into_requests(self) -> impl DoubleEndedIterator<Item = Request> {
        requests(self.submissions, self.series)
    }
}

impl SealedBatch {
    /// Whether there is nothing to store.
    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none() && self.series.is_empty()
    }
}

/// The series rows that are no repetitions, and the sequences that they lead to.
fn new_rows(
    series: &[(SeriesRows, Answer<()>)],
    sequences: &HashMap<WriterId, u64>,
) -> Result<(Vec<RowChange>, Vec<(WriterId, u64)>)> {
    let mut reached: HashMap<WriterId, u64> = HashMap::new();
    let mut rows = Vec::new();
    for (series, _) in series {
        if let Some((writer, sequence)) = series.position {
            let last = reached.get(&writer).or_else(|| sequences.get(&writer)).copied();
            if last.is_some_and(|last| sequence <= last) {
                continue;
            }
            reached.insert(writer, sequence);
        }
        rows.extend(series.rows.iter().cloned());
    }
    for (&writer, &sequence) in &reached {
        let position = WriterPosition { writer, sequence: Revision::new(sequence)? };
        rows.push(RowChange::put(ChangeKind::Updated, &position));
    }
    Ok((rows, reached.into_iter().collect()))
}

fn requests(
    submissions: Vec<(Box<Submission>, Answer<Committed>)>,
    series: Vec<(SeriesRows, Answer<()>)>,
) -> impl DoubleEndedIterator<Item = Request> {
    let submissions = submissions.into_iter().map(|(what, answer)| Request::Submit(what, answer));
    let series = series.into_iter().map(|(rows, answer)| Request::Append(rows, answer));
    submissions.chain(series)
}

impl Callers {
    pub(super) fn len(&self) -> usize {
        self.submissions.len() + self.series.len()
    }

    /// How many commands there are, and how many of them are refused.
    pub(super) fn commands(&self) -> (usize, usize) {
        let refused = self.outcomes.iter().filter(|outcome| outcome.is_err()).count();
        (self.outcomes.len(), refused)
    }

    /// The spans of those who wait.
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        let submissions = self.submissions.iter().map(|(_, answer)| &answer.origin.span);
        submissions.chain(self.series.iter().map(|(_, answer)| &answer.origin.span))
    }

    /// The writes that took longer than a limit until now, with when they were queued and taken, and their
    /// spans.
    pub(super) fn slow(
        &self,
        limit: Duration,
        now: Instant,
    ) -> impl Iterator<Item = (&'static str, Instant, Instant, &Span)> {
        let commands = self.submissions.iter();
        let commands = commands.map(|(what, answer)| (what.command.told_name(), &answer.origin));
        let series = self.series.iter().map(|(_, answer)| ("series.append", &answer.origin));
        commands.chain(series).filter_map(move |(name, origin)| {
            let (queued_at, taken_at) = origin.times()?;
            let is_slow = now.saturating_duration_since(queued_at) >= limit;
            is_slow.then_some((name, queued_at, taken_at, &origin.span))
        })
    }

    /// Tells each caller the outcome of its command.
    pub(super) fn answer(self, serial: Serial) {
        for ((_, answer), outcome) in self.submissions.into_iter().zip(self.outcomes) {
            answer.send(outcome.map(|value| Committed { value, serial }));
        }
        for (_, answer) in self.series {
            answer.send(Ok(()));
        }
    }

    /// Tells every caller that nothing of the batch was stored, or that this is unknown.
    pub(super) fn fail(self, error: &Error) {
        let shown = || {
            let message = match error.kind() {
                ErrorKind::OutcomeUnknown => "cannot tell whether the command was stored",
                _ => "the command was not stored",
            };
            Error::new(error.kind().clone(), message).because(error.to_string())
        };
        for (_, answer) in self.submissions {
            answer.send(Err(shown()));
        }
        for (_, answer) in self.series {
            answer.send(Err(shown()));
        }
    }

    /// The requests, to be decided again on another state.
    pub(super) fn into_requests(self) -> impl DoubleEndedIterator<Item = Request> {
        requests(self.submissions, self.series)
    }
}
