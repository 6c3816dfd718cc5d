//! What a command would change.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::State;
use crate::block::ChangeKind;
use crate::command::EntityRecord;
use crate::domain::{Actor, Revision, Timestamp};
use crate::entity::StateEntity;
use crate::error::{EntityKind, Error, ErrorKind, Result};

pub use crate::entity::{EntityId, Reply};

/// When a command happens, who sent it, and what the ids of its audit entries are made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The effective time.
    pub now: Timestamp,
    /// Whom the audit trail names for it.
    pub actor: &'a Actor,
    /// Random; only [`State::execute`] reads it.
    pub seed: [u8; 10],
}

/// One entity's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateChange {
    /// It is new, or replaces the one with its id.
    Put(EntityRecord),
    /// It is gone.
    Delete(EntityId),
}

/// The changes of one command; most have one or two.
pub type Changes = SmallVec<[StateChange; 3]>;

/// What each of them did.
pub type ChangeKinds = SmallVec<[ChangeKind; 8]>;

/// What a command changes, what it answers, and what the audit trail says of it.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What changes, in the order in which it has to be carried out.
    pub changes: Changes,
    /// What the caller is told.
    pub reply: Reply,
    /// What to say in the audit trail; empty for what nobody administers, such as heartbeats.
    pub audit: SmallVec<[Note; 1]>,
    /// What the changes lead to, where deciding had to find that out.
    drafted: Option<Box<Drafted>>,
}

/// The state with the changes, and what each of them did.
#[derive(Clone)]
struct Drafted {
    state: State,
    kinds: ChangeKinds,
}

/// A whole state is more than anybody wants to read.
impl std::fmt::Debug for Drafted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drafted").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

/// A line for the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What was done.
    pub action: &'static str,
    /// To which kind of entity.
    pub entity: EntityKind,
    /// To which one.
    pub subject: String,
    /// Whom or what it is about beside that.
    pub second: Option<(EntityKind, String)>,
}

impl Note {
    pub(super) fn new(
        action: &'static str,
        entity: EntityKind,
        subject: impl std::fmt::Display,
    ) -> Self {
        Self { action, entity, subject: subject.to_string(), second: None }
    }
}

impl Decision {
    /// Nothing changes.
    pub(super) fn unchanged(reply: Reply) -> Self {
        Self::changed(Changes::new(), reply)
    }

    /// These changes.
    pub(super) fn changed(changes: Changes, reply: Reply) -> Self {
        Self { changes, reply, audit: SmallVec::new(), drafted: None }
    }

    /// Puts one entity in, and answers with it.
    pub(super) fn put<E: StateEntity>(entity: E) -> Self
    where
        Arc<E>: Into<EntityRecord> + Into<Reply>,
    {
        let entity = Arc::new(entity);
        let mut changes = Changes::new();
        changes.push(StateChange::Put(entity.clone().into()));
        Self::changed(changes, entity.into())
    }

    /// Deletes one entity.
    pub(super) fn delete(handle: EntityId) -> Self {
        Self::changed(smallvec![StateChange::Delete(handle)], Reply::Done)
    }

    /// Adds a line to the audit trail.
    #[must_use]
    pub(super) fn noting(
        mut self,
        action: &'static str,
        entity: EntityKind,
        subject: impl std::fmt::Display,
    ) -> Self {
        self.audit.push(Note::new(action, entity, subject));
        self
    }

    /// Adds to the last line whom or what it is about beside its subject, if there is anybody.
    #[must_use]
    pub(super) fn beside(
        mut self,
        entity: EntityKind,
        subject: Option<impl std::fmt::Display>,
    ) -> Self {
        if let (Some(note), Some(subject)) = (self.audit.last_mut(), subject) {
            note.second = Some((entity, subject.to_string()));
        }
        self
    }
}

/// A command in the making that needs to see its own changes. The working copy costs a reference
/// count per map.
pub(super) struct Draft {
    pub(super) state: State,
    changes: Changes,
    kinds: ChangeKinds,
}

impl Draft {
    pub(super) fn of(state: &State) -> Self {
        Self { state: state.clone(), changes: Changes::new(), kinds: ChangeKinds::new() }
    }

    pub(super) fn changes(&self) -> &[StateChange] {
        &self.changes
    }

    pub(super) fn put(&mut self, entity: impl Into<EntityRecord>) {
        self.change(StateChange::Put(entity.into()));
    }

    pub(super) fn delete(&mut self, handle: EntityId) {
        self.change(StateChange::Delete(handle));
    }

    pub(super) fn change(&mut self, change: StateChange) {
        self.kinds.push(self.state.evolve(change.clone()));
        self.changes.push(change);
    }

    /// Carries out what was decided on the draft.
    pub(super) fn apply(&mut self, decision: &mut Decision) {
        self.kinds.extend(self.state.apply(decision));
        self.changes.append(&mut decision.changes);
    }

    /// The decision to make these changes.
    pub(super) fn finish(self, reply: Reply) -> Decision {
        let Self { state, changes, kinds } = self;
        let drafted = Some(Box::new(Drafted { state, kinds }));
        Decision { drafted, ..Decision::changed(changes, reply) }
    }
}

impl State {
    /// Carries out a decision, which must have been made on this very state. Gives what each of its
    /// changes did, in their order.
    pub fn apply(&mut self, decision: &mut Decision) -> ChangeKinds {
        match decision.drafted.take() {
            // The draft of another block is not what comes next.
            Some(drafted)
                if (drafted.state.serial, drafted.state.hash) == (self.serial, self.hash) =>
            {
                *self = drafted.state;
                drafted.kinds
            }
            _ => decision.changes.iter().map(|change| self.evolve(change.clone())).collect(),
        }
    }
}

/// Refuses if the caller expected another revision.
pub(super) fn check_revision(
    entity: EntityKind,
    id: impl std::fmt::Display,
    found: Revision,
    expected: Option<Revision>,
) -> Result<()> {
    match expected {
        Some(expected) if expected != found => {
            Err(Error::new(ErrorKind::Conflict, "was changed by somebody else; read it again")
                .about(entity)
                .with("id", id)
                .with("expected_revision", expected)
                .with("revision", found))
        }
        _ => Ok(()),
    }
}
