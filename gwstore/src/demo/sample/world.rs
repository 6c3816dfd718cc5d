//! A state with a clock, a source of random numbers and an audit trail, but no storage.

use std::time::Duration;

use ghostwire_store::command::Command;
use ghostwire_store::domain::{ActorName, AuditEntry, AuditId, Text, Timestamp};
use ghostwire_store::entropy::{Entropy, SeededEntropy};
use ghostwire_store::{EntityKind, Error, ErrorKind, Result};
use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::state::{Context, Reply, State};

/// What the sample network is built in.
pub(super) struct World {
    pub(super) state: State,
    now: Timestamp,
    entropy: SeededEntropy,
    audit: Vec<AuditEntry>,
}

impl World {
    pub(super) fn new(now: Timestamp) -> Self {
        let entropy = SeededEntropy::new(20_260_105);
        Self { state: State::default(), now, entropy, audit: Vec::new() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.saturating_add(time);
    }

    /// Random bytes, the same ones in every run.
    pub(super) fn draw<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.entropy.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A random number below `limit`.
    pub(super) fn below(&self, limit: u32) -> Result<u32> {
        Ok(u32::from_le_bytes(self.draw()?) % limit.max(1))
    }

    /// A new identifier of this moment.
    pub(super) fn id<I>(&self, make: fn(Timestamp, [u8; 10]) -> I) -> Result<I> {
        Ok(make(self.now, self.draw()?))
    }

    /// Carries a command out; the next one comes some seconds later.
    pub(super) fn run(&mut self, actor: &str, command: impl Into<Command>) -> Result<Reply> {
        let actor: ActorName = actor.parse()?;
        let context = Context { now: self.now, actor: &actor, seed: [0; 10] };
        let mut block = BlockBuilder::default();
        let reply = self.state.execute(&command.into(), &context, &mut block)?;
        for entry in block.audit_entries() {
            let id = AuditId::time_ordered(entry.at, self.draw()?);
            self.audit.push(AuditEntry { id, ..entry.clone() });
        }
        self.pass(Duration::from_millis(3_517));
        Ok(reply)
    }

    /// Adds a line to the audit trail.
    pub(super) fn note(
        &mut self,
        at: Timestamp,
        actor: &ActorName,
        action: &str,
        entity: EntityKind,
        subject: &str,
    ) -> Result<()> {
        self.audit.push(AuditEntry {
            id: AuditId::time_ordered(at, self.draw()?),
            at,
            actor: actor.clone(),
            action: Text::new(action)?,
            entity,
            subject: Text::new(subject)?,
        });
        Ok(())
    }

    /// The audit trail, by time and id.
    pub(super) fn audit(mut self) -> Vec<AuditEntry> {
        self.audit.sort_by_key(|entry| (entry.at, entry.id));
        self.audit
    }
}

/// The state machine answered with another command's reply, which it never does.
pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::new(ErrorKind::Unexpected, "a command was answered with another command's reply")
        .with("reply", format_args!("{:?}", std::mem::discriminant(reply)))
}
