//! Commands that share one commit.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Answer, Committed, SeriesBatch};
use crate::block::{BlockBuilder, EncodedBlock, RowChange, Serial};
use crate::command::{Command, NodeCommand, PresenceCommand, Submission, UserCommand};
use crate::domain::{AuditEntry, AuditId, BlockId, Revision, Text, Timestamp, WriterId};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Record, WriterPosition};
use crate::state::{Change, Context, Reply, State};

/// What one more request brings into a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Command,
    /// A command that may change a lot gets a commit of its own, so that one that is too large for
    /// a block fails alone.
    Bulk,
    /// A batch of so many rows.
    Series(usize),
}

impl Load {
    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::Restore(_)
            | Command::Transaction(_)
            | Command::User(UserCommand::Delete { cascade: true, .. })
            | Command::Node(
                NodeCommand::BackfillAddresses
                | NodeCommand::ReapEphemeral
                | NodeCommand::Expire { .. },
            )
            | Command::Presence(PresenceCommand::DisconnectAll) => Self::Bulk,
            _ => Self::Command,
        }
    }
}

/// A commit takes no further series rows beyond these.
const FULL_SERIES: usize = 65_536;

/// A block that has grown beyond this many bytes takes no further commands; they go into the next.
const FULL_BLOCK: usize = 16 * 1024 * 1024;

/// What waits for one commit. Applying does not consume it, so that it can be applied again on
/// top of another process's commits.
#[derive(Default)]
pub(super) struct Group {
    submissions: Vec<Submission>,
    answers: Vec<Answer<Committed>>,
    batches: Vec<(SeriesBatch, Answer<()>)>,
    bulk: bool,
    series_rows: usize,
}

/// What a group comes to, on a working copy of the state.
pub(super) struct Applied {
    pub(super) state: State,
    pub(super) block: Option<EncodedBlock>,
    pub(super) changes: Vec<RowChange>,
    pub(super) audit: Vec<Arc<AuditEntry>>,
    pub(super) series: Vec<RowChange>,
    pub(super) positions: Vec<(WriterId, u64)>,
    /// Of the first commands; those that did not fit into the block have none yet.
    pub(super) outcomes: Vec<Result<Reply>>,
}

impl Applied {
    /// Whether there is nothing to store.
    pub(super) fn is_empty(&self) -> bool {
        self.block.is_none() && self.series.is_empty()
    }
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.submissions.is_empty() && self.batches.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.submissions.len() + self.batches.len()
    }

    /// Whether this may share the group's commit.
    pub(super) fn has_room_for(&self, load: Load) -> bool {
        match load {
            _ if self.is_empty() => true,
            _ if self.bulk => false,
            Load::Command => true,
            Load::Bulk => false,
            Load::Series(rows) => self.series_rows + rows <= FULL_SERIES,
        }
    }

    pub(super) fn submit(&mut self, submission: Submission, answer: Answer<Committed>) {
        self.bulk |= Load::of(&submission.command) == Load::Bulk;
        self.submissions.push(submission);
        self.answers.push(answer);
    }

    pub(super) fn append(&mut self, batch: SeriesBatch, answer: Answer<()>) {
        self.series_rows += batch.rows.len();
        self.batches.push((batch, answer));
    }

    /// Applies the commands in order to a copy of `state`. A rejected one leaves no trace.
    pub(super) fn apply(
        &self,
        state: &State,
        entropy: &dyn Entropy,
        positions: &HashMap<WriterId, u64>,
    ) -> Result<Applied> {
        let mut working = state.clone();
        let mut builder = BlockBuilder::default();
        let mut outcomes = Vec::with_capacity(self.submissions.len());
        let mut time = state.time();
        for submission in &self.submissions {
            if builder.len() > FULL_BLOCK {
                break;
            }
            let now = submission.at.max(time);
            let outcome = apply_one(&mut working, &mut builder, submission, now);
            if outcome.is_ok() {
                time = now;
            }
            outcomes.push(outcome);
        }
        let (series, positions) = self.series(positions)?;
        let mut applied = Applied {
            state: working,
            block: None,
            changes: Vec::new(),
            audit: Vec::new(),
            series,
            positions,
            outcomes,
        };
        if !builder.is_empty() {
            let id = BlockId::time_ordered(time, draw(entropy)?);
            let serial = state.serial().next();
            let (block, changes, audit) = builder.finish(serial, id, state.hash(), time)?;
            applied.state.advance(serial, block.hash, time);
            applied.block = Some(block);
            applied.changes = changes;
            applied.audit = audit.into_iter().map(Arc::new).collect();
        }
        Ok(applied)
    }

    /// The rows of the batches that are not repetitions, and the positions they lead to.
    fn series(
        &self,
        positions: &HashMap<WriterId, u64>,
    ) -> Result<(Vec<RowChange>, Vec<(WriterId, u64)>)> {
        let mut reached: HashMap<WriterId, u64> = HashMap::new();
        let mut rows = Vec::new();
        for (batch, _) in &self.batches {
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

    /// Tells the callers how their commands ended. Gives the commands that had to wait.
    pub(super) fn answer(mut self, outcomes: Vec<Result<Reply>>, serial: Serial) -> Self {
        let rest = Self {
            submissions: self.submissions.split_off(outcomes.len().min(self.submissions.len())),
            answers: self.answers.split_off(outcomes.len().min(self.answers.len())),
            ..Self::default()
        };
        for (answer, outcome) in self.answers.into_iter().zip(outcomes) {
            // A caller that is gone does not want to know; its command happened all the same.
            let _ = answer.send(outcome.map(|value| Committed { value, serial }));
        }
        for (_, answer) in self.batches {
            let _ = answer.send(Ok(()));
        }
        rest
    }

    /// Tells every caller that nothing of the group was stored, or that it cannot be told.
    pub(super) fn fail(self, error: &Error) -> Self {
        let shown = || {
            let message = match error.kind() {
                ErrorKind::OutcomeUnknown => "cannot tell whether the command was stored",
                _ => "the command was not stored",
            };
            Error::new(error.kind().clone(), message).with("cause", error)
        };
        for answer in self.answers {
            let _ = answer.send(Err(shown()));
        }
        for (_, answer) in self.batches {
            let _ = answer.send(Err(shown()));
        }
        Self::default()
    }
}

fn apply_one(
    state: &mut State,
    builder: &mut BlockBuilder,
    submission: &Submission,
    now: Timestamp,
) -> Result<Reply> {
    let context = Context { now, actor: &submission.actor };
    let decision = state.decide(&submission.command, &context)?;
    let audit = decision.audit.into_iter().enumerate().map(|(index, note)| {
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
    for change in decision.changes {
        match change {
            Change::Put(image) => {
                let kind = state.evolve(Change::Put(image.clone()));
                image.put_into(builder, kind);
            }
            Change::Delete(handle) => {
                builder.delete(handle.table(), handle.key());
                state.evolve(Change::Delete(handle));
            }
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
