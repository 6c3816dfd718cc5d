//! Several commands as one.

use serde::{Deserialize, Serialize};

use super::Command;
use crate::block::Serial;
use crate::domain::{
    DnsName, DnsRecordKind, Fingerprint, NodeId, PolicyVersion, Revision, RouteId, SettingKind,
    UserId,
};
use crate::error::{Error, Result};

/// A transaction has at most this many preconditions and commands together.
pub const MAX_STEPS: usize = 10_000;

/// Several commands with preconditions, as a value: all of them happen, in order and in one
/// commit, or none does.
///
/// ```
/// # use ghostwire_store_core::command::{Part, Precondition, Transaction, UserCommand};
/// # use ghostwire_store_core::domain::{NewUser, UserId};
/// # fn build(old: UserId, new: UserId) -> ghostwire_store_core::error::Result<Transaction> {
/// Transaction::new()
///     .require(Precondition::UserExists(old))?
///     .then(UserCommand::Delete { id: old, cascade: true, part: Part::WHOLE })?
///     .then(UserCommand::Create { id: new, user: NewUser::local("alice".parse()?) })
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) commands: Vec<Command>,
}

/// What must hold before a transaction's first command; otherwise it gives `Conflict`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precondition {
    /// Nothing at all was written since this commit.
    SerialIs(Serial),
    /// The user exists.
    UserExists(UserId),
    /// The user exists and has this revision.
    UserRevision(UserId, Revision),
    /// The user exists, and its metadata have this revision; `None` is never set.
    UserMetadataRevision(UserId, Option<Revision>),
    /// The node exists.
    NodeExists(NodeId),
    /// The node does not exist.
    NodeAbsent(NodeId),
    /// The node exists and has this revision.
    NodeRevision(NodeId, Revision),
    /// This policy version is in force; `None` is no policy at all.
    PolicyVersion(Option<PolicyVersion>),
    /// The settings document has this revision; `None` is the default document.
    SettingRevision(SettingKind, Option<Revision>),
    /// What the name has of this kind has this fingerprint.
    DnsRecordSet(DnsName, DnsRecordKind, Fingerprint),
    /// The route exists and has this revision.
    RouteRevision(RouteId, Revision),
    /// The node exists, and its routes are those that this fingerprint stands for.
    NodeRoutes(NodeId, Fingerprint),
}

impl Transaction {
    /// Its name, as traces and errors have it.
    pub const NAME: &'static str = "store.transact";

    /// An empty transaction, which changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a precondition.
    ///
    /// # Errors
    /// `InvalidArgument` above [`MAX_STEPS`].
    pub fn require(mut self, precondition: Precondition) -> Result<Self> {
        self.preconditions.push(precondition);
        self.checked()
    }

    /// Adds a command after those added before.
    ///
    /// # Errors
    /// `InvalidArgument` above [`MAX_STEPS`], and for a transaction within a transaction.
    pub fn then(mut self, command: impl Into<Command>) -> Result<Self> {
        let command = command.into();
        if matches!(command, Command::Transaction(_)) {
            return Err(Error::invalid("a transaction cannot contain a transaction"));
        }
        self.commands.push(command);
        self.checked()
    }

    /// The name of its commands if they are of one kind, otherwise its own.
    pub(crate) fn told_name(&self) -> &'static str {
        let mut names = self.commands.iter().map(Command::name);
        match names.next() {
            Some(first) if names.all(|name| name == first) => first,
            _ => Self::NAME,
        }
    }

    fn checked(self) -> Result<Self> {
        self.check_steps()?;
        Ok(self)
    }

    pub(crate) fn check_steps(&self) -> Result<()> {
        let steps = self.preconditions.len() + self.commands.len();
        if steps > MAX_STEPS {
            return Err(
                Error::invalid("a transaction has at most 10000 steps").with("steps", steps)
            );
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::command::NodeCommand;

    #[test]
    fn a_transaction_is_told_as_what_it_does() {
        let delete = |byte| NodeCommand::Delete { id: NodeId::from_bytes([byte; 16]) };
        let one = Transaction::new().require(Precondition::NodeExists(NodeId::from_bytes([1; 16])));
        let one = one.unwrap().then(delete(1)).unwrap();
        assert_eq!(Command::from(one.clone()).told_name(), "node.delete");
        let two = one.then(delete(2)).unwrap();
        assert_eq!(Command::from(two.clone()).told_name(), "node.delete");
        assert_eq!(Command::from(two.clone()).name(), Transaction::NAME);
        let user = UserId::from_bytes([3; 16]);
        let (cascade, part) = (true, crate::command::Part::WHOLE);
        let mixed = two.then(crate::command::UserCommand::Delete { id: user, cascade, part });
        assert_eq!(Command::from(mixed.unwrap()).told_name(), Transaction::NAME);
        assert_eq!(Command::from(Transaction::new()).told_name(), Transaction::NAME);
    }
}
