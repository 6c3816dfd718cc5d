//! The one way of a command: decide it, evolve the state, encode into a block.

use smallvec::SmallVec;

use super::State;
use super::decision::{Context, Reply, StateChange};
use crate::block::BlockBuilder;
use crate::command::Command;
use crate::domain::{AuditEntry, AuditId, AuditSubject, Text, Timestamp};
use crate::error::Result;

impl State {
    /// Decides `command`, applies what it changes, and adds its rows and audit entries to `block`. A
    /// refused command leaves no trace in either.
    ///
    /// The serial stays: several commands may share a block, and [`State::advance`] ends it.
    ///
    /// # Errors
    /// Those of [`State::decide`].
    #[doc(hidden)]
    pub fn execute(
        &mut self,
        command: &Command,
        context: &Context<'_>,
        block: &mut BlockBuilder,
    ) -> Result<Reply> {
        let mut decision = self.decide(command, context)?;
        let notes = std::mem::take(&mut decision.audit).into_iter().enumerate();
        let entries = notes.map(|(index, note)| {
            let second = note.second.map(|(entity, subject)| {
                Ok(AuditSubject { kind: entity.into(), subject: Text::of(subject)? })
            });
            let id = audit_id(context.now, context.seed, index);
            let (action, subject) = (Text::new(note.action)?, Text::of(note.subject)?);
            let actor = context.actor.clone();
            let entry = AuditEntry::new((context.now, id), actor, action, note.entity, subject);
            Ok(AuditEntry { second: second.transpose()?, ..entry })
        });
        // Most commands have one or none.
        let entries = entries.collect::<Result<SmallVec<[_; 1]>>>()?;
        // Nothing may fail from here on.
        entries.into_iter().for_each(|entry| block.audit(entry));
        let kinds = self.apply(&mut decision);
        for (change, kind) in decision.changes.into_iter().zip(kinds) {
            match change {
                StateChange::Put(image) => image.put_into(block, kind),
                StateChange::Delete(handle) => block.delete(handle.table(), handle.key()),
            }
        }
        Ok(decision.reply)
    }
}

/// Distinct for each audit entry of a command.
fn audit_id(now: Timestamp, seed: [u8; 10], index: usize) -> AuditId {
    let mut random = seed;
    let index = (index as u32).to_be_bytes();
    for (byte, index) in random.iter_mut().rev().zip(index.iter().rev()) {
        *byte ^= index;
    }
    AuditId::time_ordered(now, random)
}
