//! Whole entities, as imports and restores bring them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    ApiKey, DnsRecord, Node, Policy, PreAuthKey, Presence, Route, Session, Setting, User,
};
use crate::error::Entity;

/// An entity of the state, whole. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Image {
    User(Arc<User>),
    Node(Arc<Node>),
    Presence(Arc<Presence>),
    Route(Arc<Route>),
    ApiKey(Arc<ApiKey>),
    #[serde(rename = "preauth_key")]
    PreAuthKey(Arc<PreAuthKey>),
    Policy(Arc<Policy>),
    DnsRecord(Arc<DnsRecord>),
    Session(Arc<Session>),
    Setting(Arc<Setting>),
}

impl Image {
    /// What kind of entity it is.
    #[must_use]
    pub fn entity(&self) -> Entity {
        match self {
            Self::User(_) => Entity::User,
            Self::Node(_) => Entity::Node,
            Self::Presence(_) => Entity::Presence,
            Self::Route(_) => Entity::Route,
            Self::ApiKey(_) => Entity::ApiKey,
            Self::PreAuthKey(_) => Entity::PreAuthKey,
            Self::Policy(_) => Entity::Policy,
            Self::DnsRecord(_) => Entity::DnsRecord,
            Self::Session(_) => Entity::Session,
            Self::Setting(_) => Entity::Setting,
        }
    }
}

/// Brings entities in as they are, with their ids, times and revisions, under the same rules as
/// any other write. One that is there already, equal in every field, counts as unchanged, so that
/// an interrupted restore can simply be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// In an order in which what is referred to comes first.
    pub images: Vec<Image>,
    /// Leave out what breaks a rule and report it; otherwise the first such entity rejects the
    /// whole command.
    pub skip_invalid: bool,
}

impl Restore {
    /// Its name, as traces and errors have it.
    pub const NAME: &'static str = "store.restore";
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How many entities are new.
    pub restored: u64,
    /// How many were there already.
    pub unchanged: u64,
    /// Those left out: index in [`Restore::images`], and why.
    pub skipped: Vec<(usize, String)>,
}
