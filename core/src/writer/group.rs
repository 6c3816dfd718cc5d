//! Commands that share one commit.

use std::collections::HashMap;

use super::{Answer, Committed, Request, SeriesBatch};
use crate::block::{BlockBuilder, BlockHash, ClosedBlock, RowChange, Serial, Sizes};
use crate::command::{ClockCommand, Command, Submission};
use crate::domain::{AuditEntry, AuditId, BlockId, Revision, Text, Timestamp, WriterId};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Record, WriterPosition};
use crate::state::{Change, Context, Reply, State};

/// What one more request brings into a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Command,
    /// What may be too large for a block gets a commit of its own, so that it fails alone.
    Bulk,
    /// A batch of so many rows.
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

/// Commands that will share one commit, carried out one by one as they come in, on a state that
/// need not be durable yet. If it never becomes durable, the requests can be had back.
pub(super) struct Group {
    base: Base,
    state: State,
    builder: BlockBuilder,
    time: Timestamp,
    submissions: Vec<(Box<Submission>, Answer<Committed>)>,
    outcomes: Vec<Result<Reply>>,
    batches: Vec<(SeriesBatch, Answer<()>)>,
    series_rows: usize,
    bulk: bool,
}

/// The commit that a group follows.
#[derive(Debug, Clone, Copy)]
struct Base {
    serial: Serial,
    hash: BlockHash,
}

/// What a group comes to.
pub(super) struct Closed {
    /// The state with the group.
    pub(super) state: State,
    /// The serial that the group builds on.
    pub(super) expected: Serial,
    pub(super) block: Option<ClosedBlock>,
    pub(super) series: Vec<RowChange>,
    pub(super) positions: Vec<(WriterId, u64)>,
}

/// Those who wait for a group, and what to tell them.
pub(super) struct Callers {
    submissions: Vec<(Box<Submission>, Answer<Committed>)>,
    outcomes: Vec<Result<Reply>>,
    batches: Vec<(SeriesBatch, Answer<()>)>,
}

impl Group {
    /// A group that will be about as long as the one before it, and at most `max_block` bytes.
    pub(super) fn on(state: &State, before: Sizes, max_block: usize) -> Self {
        Self {
            base: Base { serial: state.serial(), hash: state.hash() },
            state: state.clone(),
            builder: BlockBuilder::like(before).at_most(max_block),
            time: state.time(),
            submissions: Vec::new(),
            outcomes: Vec::new(),
            batches: Vec::new(),
            series_rows: 0,
            bulk: false,
        }
    }

    /// How long its block is so far.
    pub(super) fn sizes(&self) -> Sizes {
        self.builder.sizes()
    }

    pub(super) fn len(&self) -> usize {
        self.submissions.len() + self.batches.len()
    }

    /// Whether this may share the group's commit.
    pub(super) fn has_room_for(&self, load: Load, max_group: usize, full_block: usize) -> bool {
        let full = self.len() >= max_group || self.builder.len() > full_block;
        match load {
            _ if self.len() == 0 => true,
            _ if self.bulk || full => false,
            Load::Command => true,
            Load::Bulk => false,
            Load::Series(rows) => self.series_rows + rows <= FULL_SERIES,
        }
    }

    /// Carries out a command. A refused one leaves no trace.
    pub(super) fn submit(&mut self, submission: Box<Submission>, answer: Answer<Committed>) {
        self.bulk |= Load::of(&submission.command) == Load::Bulk;
        let now = match &submission.command {
            Command::Clock(ClockCommand::Repair { .. }) => submission.at,
            _ => submission.at.max(self.time),
        };
        let outcome = apply_one(&mut self.state, &mut self.builder, &submission, now);
        if outcome.is_ok() {
            self.time = now;
        }
        self.outcomes.push(outcome);
        self.submissions.push((submission, answer));
    }

    pub(super) fn append(&mut self, batch: SeriesBatch, answer: Answer<()>) {
        self.series_rows += batch.rows.len();
        self.batches.push((batch, answer));
    }

    /// Ends the group. `positions` are those of the commits before it.
    pub(super) fn close(
        self,
        entropy: &dyn Entropy,
        positions: &HashMap<WriterId, u64>,
    ) -> (Callers, Result<Closed>) {
        let Self { base, mut state, builder, time, .. } = self;
        let callers = Callers {
            submissions: self.submissions,
            outcomes: self.outcomes,
            batches: self.batches,
        };
        let close = || {
            let (series, positions) = new_rows(&callers.batches, positions)?;
            let mut block = None;
            if !builder.is_empty() {
                let id = BlockId::time_ordered(time, draw(entropy)?);
                let closed = builder.finish(base.serial.next(), id, base.hash, time)?;
                state.advance(closed.block.serial, closed.block.hash, time);
                block = Some(closed);
            }
            Ok(Closed { state, expected: base.serial, block, series, positions })
        };
        let closed = close();
        (callers, closed)
    }

    /// The requests, to be carried out again on another state.
    pub(super) fn into_requests(self) -> impl DoubleEndedIterator<Item = Request> {
        requests(self.submissions, self.batches)
    }
}

impl Closed {
    /// Whether there is nothing to store.
    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none() && self.series.is_empty()
    }
}

/// The rows of the batches that are not repetitions, and the positions they lead to.
fn new_rows(
    batches: &[(SeriesBatch, Answer<()>)],
    positions: &HashMap<WriterId, u64>,
) -> Result<(Vec<RowChange>, Vec<(WriterId, u64)>)> {
    let mut reached: HashMap<WriterId, u64> = HashMap::new();
    let mut rows = Vec::new();
    for (batch, _) in batches {
        if let Some((writer, sequence)) = batch.position {
            let last = reached.get(&writer).or_else(|| positions.get(&writer)).copied();
            if last.is_some_and(|last| sequence <= last) {
                continue;
            }
            reached.insert(writer, sequence);
        }
        rows.extend(batch.rows.iter().cloned());
    }
    for (&writer, &sequence) in &reached {
        let position = WriterPosition { writer, sequence: Revision::new(sequence)? };
        rows.push(RowChange {
            table: WriterPosition::SCHEMA.table,
            kind: crate::block::ChangeKind::Updated,
            key: position.key(),
            body: Some(position.encode()),
        });
    }
    Ok((rows, reached.into_iter().collect()))
}

fn requests(
    submissions: Vec<(Box<Submission>, Answer<Committed>)>,
    batches: Vec<(SeriesBatch, Answer<()>)>,
) -> impl DoubleEndedIterator<Item = Request> {
    let submissions = submissions.into_iter().map(|(what, answer)| Request::Submit(what, answer));
    let batches = batches.into_iter().map(|(batch, answer)| Request::Series(batch, answer));
    submissions.chain(batches)
}

impl Callers {
    pub(super) fn len(&self) -> usize {
        self.submissions.len() + self.batches.len()
    }

    /// How many commands there are, and how many of them are refused.
    pub(super) fn commands(&self) -> (usize, usize) {
        let refused = self.outcomes.iter().filter(|outcome| outcome.is_err()).count();
        (self.outcomes.len(), refused)
    }

    /// Tells each how their command ended.
    pub(super) fn answer(self, serial: Serial) {
        for ((_, answer), outcome) in self.submissions.into_iter().zip(self.outcomes) {
            answer.send(outcome.map(|value| Committed { value, serial }));
        }
        for (_, answer) in self.batches {
            answer.send(Ok(()));
        }
    }

    /// Tells everybody that nothing of the group was stored, or that it cannot be told.
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
        for (_, answer) in self.batches {
            answer.send(Err(shown()));
        }
    }

    /// The requests, to be carried out again on another state.
    pub(super) fn into_requests(self) -> impl DoubleEndedIterator<Item = Request> {
        requests(self.submissions, self.batches)
    }
}

fn apply_one(
    state: &mut State,
    builder: &mut BlockBuilder,
    submission: &Submission,
    now: Timestamp,
) -> Result<Reply> {
    let context = Context { now, actor: &submission.actor };
    let mut decision = state.decide(&submission.command, &context)?;
    let audit = std::mem::take(&mut decision.audit).into_iter().enumerate().map(|(index, note)| {
        Ok(AuditEntry {
            id: audit_id(now, submission.seed, index),
            at: now,
            actor: submission.actor.clone(),
            action: Text::new(note.action)?,
            entity: note.entity,
            subject: Text::new(note.subject)?,
        })
    });
    // Nothing may fail from here on.
    let audit = audit.collect::<Result<Vec<_>>>()?;
    audit.into_iter().for_each(|entry| builder.audit(entry));
    let kinds = state.carry_out(&mut decision);
    for (change, kind) in decision.changes.into_iter().zip(kinds) {
        match change {
            Change::Put(image) => image.put_into(builder, kind),
            Change::Delete(handle) => builder.delete(handle.table(), handle.key()),
        }
    }
    Ok(decision.reply)
}

/// Distinct for each note of a submission.
fn audit_id(now: Timestamp, seed: [u8; 10], index: usize) -> AuditId {
    let mut random = seed;
    let index = (index as u32).to_be_bytes();
    for (byte, index) in random.iter_mut().rev().zip(index.iter().rev()) {
        *byte ^= index;
    }
    AuditId::time_ordered(now, random)
}
