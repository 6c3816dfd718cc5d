//! Writes as values: complete, serialisable, with every choice that the state does not determine
//! (ids, clock readings, hashes of secrets) already made.

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
    /// A stable name, for traces, errors and the audit trail.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::User(command) => match command {
                UserCommand::Create { .. } => "user.create",
                UserCommand::Update { .. } => "user.update",
                UserCommand::UpsertOidc { .. } => "user.upsert_oidc",
                UserCommand::Delete { .. } => "user.delete",
            },
            Self::Node(command) => match command {
                NodeCommand::Register { .. } => "node.register",
                NodeCommand::Update { .. } => "node.update",
                NodeCommand::RotateKey { .. } => "node.rotate_key",
                NodeCommand::Expire { .. } => "node.expire",
                NodeCommand::Delete { .. } => "node.delete",
                NodeCommand::ReapEphemeral { .. } => "node.reap_ephemeral",
                NodeCommand::BackfillAddresses { .. } => "node.backfill_addresses",
            },
            Self::Presence(command) => match command {
                PresenceCommand::Connect { .. } => "presence.connect",
                PresenceCommand::Heartbeat { .. } => "presence.heartbeat",
                PresenceCommand::Disconnect { .. } => "presence.disconnect",
                PresenceCommand::DisconnectAll { .. } => "presence.disconnect_all",
            },
            Self::Route(command) => match command {
                RouteCommand::Advertise { .. } => "route.advertise",
                RouteCommand::Approve { .. } => "route.approve",
                RouteCommand::Delete { .. } => "route.delete",
            },
            Self::ApiKey(command) => match command {
                ApiKeyCommand::Create { .. } => "api_key.create",
                ApiKeyCommand::Revoke { .. } => "api_key.revoke",
                ApiKeyCommand::Touch { .. } => "api_key.touch",
                ApiKeyCommand::Rehash { .. } => "api_key.rehash",
                ApiKeyCommand::Delete { .. } => "api_key.delete",
            },
            Self::PreAuthKey(command) => match command {
                PreAuthKeyCommand::Create { .. } => "preauth_key.create",
                PreAuthKeyCommand::Revoke { .. } => "preauth_key.revoke",
                PreAuthKeyCommand::Rehash { .. } => "preauth_key.rehash",
                PreAuthKeyCommand::Delete { .. } => "preauth_key.delete",
            },
            Self::Session(command) => match command {
                SessionCommand::Begin { .. } => "session.begin",
                SessionCommand::Touch { .. } => "session.touch",
                SessionCommand::End { .. } => "session.end",
                SessionCommand::Sweep { .. } => "session.sweep",
            },
            Self::Policy(command) => match command {
                PolicyCommand::Swap { .. } => "policy.swap",
                PolicyCommand::Rollback { .. } => "policy.rollback",
                PolicyCommand::Prune { .. } => "policy.prune",
            },
            Self::Dns(command) => match command {
                DnsCommand::Create { .. } => "dns_record.create",
                DnsCommand::Update { .. } => "dns_record.update",
                DnsCommand::Delete { .. } => "dns_record.delete",
            },
            Self::Setting(command) => match command {
                SettingCommand::Put { .. } => "setting.put",
                SettingCommand::Reset { .. } => "setting.reset",
            },
            Self::Clock(command) => match command {
                ClockCommand::Accept => "clock.accept",
                ClockCommand::Repair { .. } => "clock.repair",
            },
            Self::Restore(_) => "restore",
            Self::Transaction(_) => "transaction",
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
