//! What a command would change.

use std::sync::Arc;

use smallvec::SmallVec;

use super::State;
use crate::block::ChangeKind;
use crate::command::{Image, Restored};
use crate::domain::{
    ActorName, ApiKey, ApiKeyId, DnsRecord, DnsRecordId, Node, NodeId, Policy, PolicyVersion,
    PreAuthKey, PreAuthKeyId, Presence, Route, RouteId, Session, SessionId, Setting, SettingKind,
    Timestamp, User, UserId,
};
use crate::error::{Entity, Error, Result};
use crate::schema::{RowKey, Table, setting_key};

/// When a command happens, who sent it, and what the ids of its audit lines are made of.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The effective time.
    pub now: Timestamp,
    /// Who.
    pub actor: &'a ActorName,
    /// Random; only [`State::execute`] reads it.
    pub seed: [u8; 10],
}

/// One entity's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new, or replaces the one with its id.
    Put(Image),
    /// It is gone.
    Delete(Handle),
}

/// Names one entity of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Handle {
    User(UserId),
    Node(NodeId),
    Presence(NodeId),
    Route(RouteId),
    ApiKey(ApiKeyId),
    PreAuthKey(PreAuthKeyId),
    Policy(PolicyVersion),
    DnsRecord(DnsRecordId),
    Session(SessionId),
    Setting(SettingKind),
}

impl Handle {
    /// The row's table.
    #[must_use]
    pub fn table(self) -> Table {
        match self {
            Self::User(_) => Table::Users,
            Self::Node(_) => Table::Nodes,
            Self::Presence(_) => Table::Presence,
            Self::Route(_) => Table::Routes,
            Self::ApiKey(_) => Table::ApiKeys,
            Self::PreAuthKey(_) => Table::PreAuthKeys,
            Self::Policy(_) => Table::Policies,
            Self::DnsRecord(_) => Table::DnsRecords,
            Self::Session(_) => Table::Sessions,
            Self::Setting(_) => Table::Settings,
        }
    }

    /// The row's key.
    #[must_use]
    pub fn key(self) -> RowKey {
        match self {
            Self::User(id) => RowKey::new().id(id.as_bytes()),
            Self::Node(id) | Self::Presence(id) => RowKey::new().id(id.as_bytes()),
            Self::Route(id) => RowKey::new().id(id.as_bytes()),
            Self::ApiKey(id) => RowKey::new().id(id.as_bytes()),
            Self::PreAuthKey(id) => RowKey::new().id(id.as_bytes()),
            Self::Policy(version) => {
                RowKey::new().integer(i64::try_from(version.get()).unwrap_or(i64::MAX))
            }
            Self::DnsRecord(id) => RowKey::new().id(id.as_bytes()),
            Self::Session(id) => RowKey::new().id(id.as_bytes()),
            Self::Setting(kind) => setting_key(kind),
        }
    }

    /// The inverse of [`Handle::table`] and [`Handle::key`].
    ///
    /// # Errors
    /// `Corrupt` if the key does not have its table's shape.
    pub fn from_key(table: Table, key: &RowKey) -> Result<Self> {
        let misshapen = || {
            Error::corrupt("a row's key does not have its table's shape")
                .with("table", table.name())
                .with("key", format_args!("{key:?}"))
        };
        let id = || <[u8; 16]>::try_from(key.as_bytes()).map_err(|_| misshapen());
        Ok(match table {
            Table::Users => Self::User(UserId::from_bytes(id()?)),
            Table::Nodes => Self::Node(NodeId::from_bytes(id()?)),
            Table::Presence => Self::Presence(NodeId::from_bytes(id()?)),
            Table::Routes => Self::Route(RouteId::from_bytes(id()?)),
            Table::ApiKeys => Self::ApiKey(ApiKeyId::from_bytes(id()?)),
            Table::PreAuthKeys => Self::PreAuthKey(PreAuthKeyId::from_bytes(id()?)),
            Table::Policies => {
                let number = <[u8; 8]>::try_from(key.as_bytes()).map_err(|_| misshapen())?;
                Self::Policy(PolicyVersion::new(u64::from_be_bytes(number))?)
            }
            Table::DnsRecords => Self::DnsRecord(DnsRecordId::from_bytes(id()?)),
            Table::Sessions => Self::Session(SessionId::from_bytes(id()?)),
            Table::Settings => SettingKind::ALL
                .into_iter()
                .find(|kind| setting_key(*kind) == *key)
                .map(Self::Setting)
                .ok_or_else(misshapen)?,
            Table::Metrics | Table::Audit | Table::WriterPositions => return Err(misshapen()),
        })
    }
}

/// The changes of one command; most have one or two.
pub type Changes = SmallVec<[Change; 3]>;

/// What each of them did.
pub type ChangeKinds = SmallVec<[ChangeKind; 8]>;

/// What a command changes, what it answers, and what the audit trail says of it.
#[derive(Debug, Clone)]
pub struct Decision {
    /// In order.
    pub changes: Changes,
    /// The answer.
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
    pub entity: Entity,
    /// To which one.
    pub subject: String,
}

impl Note {
    pub(super) fn new(
        action: &'static str,
        entity: Entity,
        subject: impl std::fmt::Display,
    ) -> Self {
        Self { action, entity, subject: subject.to_string() }
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

    /// Adds a line to the audit trail.
    #[must_use]
    pub(super) fn noting(
        mut self,
        action: &'static str,
        entity: Entity,
        subject: impl std::fmt::Display,
    ) -> Self {
        self.audit.push(Note::new(action, entity, subject));
        self
    }
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reply {
    Done,
    User(Arc<User>),
    Node(Arc<Node>),
    Nodes(Vec<NodeId>),
    Presence(Arc<Presence>),
    Routes(Vec<Arc<Route>>),
    ApiKey(Arc<ApiKey>),
    PreAuthKey(Arc<PreAuthKey>),
    Session(Arc<Session>),
    Policy(Arc<Policy>),
    DnsRecord(Arc<DnsRecord>),
    Setting(Arc<Setting>),
    Count(u64),
    Restored(Restored),
    All(Vec<Reply>),
    /// What one part of a command over many entities came to, and where the next one begins.
    Unfinished {
        so_far: Box<Reply>,
        after: Option<NodeId>,
    },
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

    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    pub(super) fn put(&mut self, image: Image) {
        self.change(Change::Put(image));
    }

    pub(super) fn delete(&mut self, handle: Handle) {
        self.change(Change::Delete(handle));
    }

    pub(super) fn change(&mut self, change: Change) {
        self.kinds.push(self.state.evolve(change.clone()));
        self.changes.push(change);
    }

    /// Carries out what was decided on the draft.
    pub(super) fn carry_out(&mut self, decision: &mut Decision) {
        self.kinds.extend(self.state.carry_out(decision));
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
    pub fn carry_out(&mut self, decision: &mut Decision) -> ChangeKinds {
        match decision.drafted.take() {
            Some(drafted) => {
                let Drafted { state: State { serial, hash, .. }, .. } = drafted.as_ref();
                debug_assert_eq!((self.serial, self.hash), (*serial, *hash), "another state");
                *self = drafted.state;
                drafted.kinds
            }
            None => decision.changes.iter().map(|change| self.evolve(change.clone())).collect(),
        }
    }
}

/// Refuses if the caller expected another revision.
pub(super) fn check_revision(
    entity: Entity,
    id: impl std::fmt::Display,
    found: crate::domain::Revision,
    expected: Option<crate::domain::Revision>,
) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::new(
            crate::error::ErrorKind::Conflict,
            "was changed by somebody else; read it again",
        )
        .about(entity)
        .with("id", id)
        .with("expected_revision", expected)
        .with("revision", found)),
        _ => Ok(()),
    }
}

/// Refuses an id that is taken, which a caller's own source of ids never draws.
pub(super) fn check_fresh(entity: Entity, id: impl std::fmt::Display, taken: bool) -> Result<()> {
    if taken { Err(Error::already_exists(entity, "id").with("id", id)) } else { Ok(()) }
}
