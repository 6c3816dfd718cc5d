//! What may be said of an entity to select it.

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    DnsName, DnsRecordKind, Email, GroupName, Identity, Issuer, KeyPrefix, NodeId, Prefix,
    SessionOwner, Tag, Timestamp, UserId, UserName, UserRole, expired,
};
use ghostwire_store_core::state::State;
use serde::{Deserialize, Serialize};

/// Something that an entity has to be. Of an entity that cannot be so it is false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// This user's: a node, a key, a session.
    User(UserId),
    /// This node's: a route, a session of it or begun from it.
    Node(NodeId),
    /// A user of this name.
    UserName(UserName),
    /// A user with this address.
    Email(Email),
    /// A user who signs in through this provider.
    Provider(Issuer),
    /// A user in this group.
    Group(GroupName),
    /// A user with this role.
    Role(UserRole),
    /// A node or a key with this tag.
    Tag(Tag),
    /// A node or a presence that is online, or not.
    Online(bool),
    /// A node that is ephemeral or a key that makes such, or not.
    Ephemeral(bool),
    /// A node, a key or a session that has expired, or not.
    Expired(bool),
    /// A node that is offline, or a session, of which nothing was heard since.
    NotSeenSince(Timestamp),
    /// A route for this prefix.
    Prefix(Prefix),
    /// A route that is approved, or not.
    Approved(bool),
    /// A route that its node offers, or not.
    Advertised(bool),
    /// A route that traffic takes, or not.
    Primary(bool),
    /// A key with this public part.
    KeyPrefix(String),
    /// A key that works, or not.
    Active(bool),
    /// A key that was withdrawn, or not.
    Revoked(bool),
    /// A pre-auth key that admits any number of nodes, or not.
    Reusable(bool),
    /// A pre-auth key that has admitted a node, or not.
    Used(bool),
    /// A DNS record of this name.
    DnsName(DnsName),
    /// A DNS record of this kind.
    DnsKind(DnsRecordKind),
}

impl Condition {
    /// Whether it is true of an entity at a moment.
    #[must_use]
    pub fn holds(&self, record: &EntityRecord, state: &State, now: Timestamp) -> bool {
        use EntityRecord as E;
        match (self, record) {
            (Self::User(user), E::Node(node)) => node.user == Some(*user),
            (Self::User(user), E::ApiKey(key)) => key.user == Some(*user),
            (Self::User(user), E::PreAuthKey(key)) => key.user == Some(*user),
            (Self::User(user), E::Session(session)) => {
                session.parties().any(|party| party == SessionOwner::User(*user))
            }
            (Self::Node(node), E::Route(route)) => route.node == *node,
            (Self::Node(node), E::Session(session)) => {
                session.parties().any(|party| party == SessionOwner::Node(*node))
            }
            (Self::UserName(name), E::User(user)) => user.name == *name,
            (Self::Email(email), E::User(user)) => user.email.as_ref() == Some(email),
            (Self::Provider(wanted), E::User(user)) => match &user.identity {
                Identity::Oidc { provider, .. } => provider.canonical() == wanted.canonical(),
                _ => false,
            },
            (Self::Group(group), E::User(user)) => user.groups.contains(group),
            (Self::Role(role), E::User(user)) => user.role == *role,
            (Self::Tag(tag), E::Node(node)) => node.tags.contains(tag),
            (Self::Tag(tag), E::PreAuthKey(key)) => key.tags.contains(tag),
            (Self::Online(wanted), E::Node(node)) => state.presence().is_online(node.id) == *wanted,
            (Self::Online(wanted), E::Presence(presence)) => presence.online == *wanted,
            (Self::Ephemeral(wanted), E::Node(node)) => node.ephemeral == *wanted,
            (Self::Ephemeral(wanted), E::PreAuthKey(key)) => key.ephemeral == *wanted,
            (Self::Expired(wanted), record) => {
                let expires_at = match record {
                    E::Node(node) => node.expires_at,
                    E::ApiKey(key) => key.expires_at,
                    E::PreAuthKey(key) => key.expires_at,
                    E::Session(session) => Some(session.expires_at),
                    _ => return false,
                };
                expired(expires_at, now) == *wanted
            }
            (Self::NotSeenSince(since), E::Node(node)) => {
                let presence = state.presence().get(node.id);
                let is_online = presence.is_some_and(|presence| presence.online);
                let last_seen = presence.and_then(|it| it.last_seen).unwrap_or(node.created_at);
                !is_online && last_seen < *since
            }
            (Self::NotSeenSince(since), E::Session(session)) => session.last_seen < *since,
            (Self::Prefix(prefix), E::Route(route)) => route.prefix == *prefix,
            (Self::Approved(wanted), E::Route(route)) => route.approved == *wanted,
            (Self::Advertised(wanted), E::Route(route)) => route.advertised == *wanted,
            (Self::Primary(wanted), E::Route(route)) => route.primary == *wanted,
            (Self::KeyPrefix(wanted), E::ApiKey(key)) => key.prefix.as_str() == wanted,
            (Self::KeyPrefix(wanted), E::PreAuthKey(key)) => {
                key.prefix.as_ref().map(KeyPrefix::as_str) == Some(wanted)
            }
            (Self::Active(wanted), E::ApiKey(key)) => key.is_active(now) == *wanted,
            (Self::Active(wanted), E::PreAuthKey(key)) => key.is_usable(now) == *wanted,
            (Self::Revoked(wanted), E::ApiKey(key)) => key.revoked_at.is_some() == *wanted,
            (Self::Revoked(wanted), E::PreAuthKey(key)) => key.revoked_at.is_some() == *wanted,
            (Self::Reusable(wanted), E::PreAuthKey(key)) => key.reusable == *wanted,
            (Self::Used(wanted), E::PreAuthKey(key)) => key.used_at.is_some() == *wanted,
            (Self::DnsName(name), E::DnsRecord(record)) => record.name == *name,
            (Self::DnsKind(kind), E::DnsRecord(record)) => record.kind == *kind,
            _ => false,
        }
    }
}
