//! Writes as values: complete, serialisable, with every choice that the state does not determine
//! (ids, clock readings, hashes of secrets) already made.

/// Names the writes of an enum: the one place where a name is written. What is stored in the audit
/// trail keeps its spelling for ever.
macro_rules! names {
    ($($type:ident { $($variant:ident = $constant:ident $name:literal),+ $(,)? })+) => {$(
        #[allow(missing_docs)]
        impl $type {
            $(pub const $constant: &'static str = $name;)+

            /// Its name, as traces, errors and the audit trail have it.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant { .. } => Self::$constant),+ }
            }
        }
    )+};
}

mod clock;
mod credential;
mod document;
mod node;
mod part;
mod restore;
mod route;
mod transaction;
mod user;
mod weight;

use serde::{Deserialize, Serialize};

use crate::domain::{ActorName, Timestamp};
use crate::state::Context;

pub use clock::ClockCommand;
pub use credential::*;
pub use document::*;
pub use node::*;
pub use part::Part;
pub use restore::*;
pub use route::*;
pub use transaction::*;
pub use user::*;
pub(crate) use weight::LIGHT;

/// A write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Command {
    User(UserCommand),
    Node(NodeCommand),
    Presence(PresenceCommand),
    Route(RouteCommand),
    ApiKey(ApiKeyCommand),
    #[serde(rename = "preauth_key")]
    PreAuthKey(PreAuthKeyCommand),
    Session(SessionCommand),
    Policy(PolicyCommand),
    Dns(DnsCommand),
    Setting(SettingCommand),
    Clock(ClockCommand),
    Restore(Restore),
    Transaction(Transaction),
}

macro_rules! into_command {
    ($($type:ident => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Command {
            fn from(command: $type) -> Self {
                Self::$variant(command)
            }
        }
    )*};
}
into_command! {
    UserCommand => User,
    NodeCommand => Node,
    PresenceCommand => Presence,
    RouteCommand => Route,
    ApiKeyCommand => ApiKey,
    PreAuthKeyCommand => PreAuthKey,
    SessionCommand => Session,
    PolicyCommand => Policy,
    DnsCommand => Dns,
    SettingCommand => Setting,
    ClockCommand => Clock,
    Restore => Restore,
    Transaction => Transaction,
}

impl Command {
    /// Its name, as traces, errors and the audit trail have it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::User(command) => command.name(),
            Self::Node(command) => command.name(),
            Self::Presence(command) => command.name(),
            Self::Route(command) => command.name(),
            Self::ApiKey(command) => command.name(),
            Self::PreAuthKey(command) => command.name(),
            Self::Session(command) => command.name(),
            Self::Policy(command) => command.name(),
            Self::Dns(command) => command.name(),
            Self::Setting(command) => command.name(),
            Self::Clock(command) => command.name(),
            Self::Restore(_) => Restore::NAME,
            Self::Transaction(_) => Transaction::NAME,
        }
    }
}

/// A command with who sent it, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The caller's clock. The effective time is never before the previous block's, but for
    /// [`ClockCommand::Repair`].
    pub at: Timestamp,
    /// Who.
    pub actor: ActorName,
    /// Random; identifiers of audit entries come from it.
    pub seed: [u8; 10],
    /// What.
    pub command: Command,
}

impl Submission {
    /// When it happens, behind a commit of that time.
    pub(crate) fn effective_time(&self, last: Timestamp) -> Timestamp {
        match &self.command {
            Command::Clock(ClockCommand::Repair { .. }) => self.at,
            _ => self.at.max(last),
        }
    }

    /// The circumstances under which it is carried out at `now`.
    pub(crate) fn context(&self, now: Timestamp) -> Context<'_> {
        Context { now, actor: &self.actor, seed: self.seed }
    }
}
