//! API keys, pre-auth keys and sign-in sessions: things that prove something by a secret.
//!
//! A secret is shown once, when it is made. Only a tagged hash of it is kept.

use serde::{Deserialize, Serialize};

use super::{
    ActorName, ApiKeyId, KeyPrefix, NodeId, PermissionSet, PreAuthKeyId, Revision, SecretHash,
    SessionId, TagSet, Text, Timestamp, UserId, deserialize_stored_option, expired,
};

/// A key that lets a program use the control plane's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Time-ordered identifier.
    pub id: ApiKeyId,
    /// The public part, by which the key is found; unique; not part of the secret.
    pub prefix: KeyPrefix,
    /// Proof of the secret part.
    pub hash: SecretHash,
    /// On whose behalf, if anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// What the key is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<255>>,
    /// What it may be used for, in the control plane's words. What none at all means is for the control
    /// plane to say.
    #[serde(default, skip_serializing_if = "PermissionSet::is_empty")]
    pub permissions: PermissionSet,
    /// Who made it: the actor of the handle, unless that was the store itself.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "deserialize_stored_option"
    )]
    pub created_by: Option<ActorName>,
    /// When the key was made.
    pub created_at: Timestamp,
    /// When it stops working; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// When it was last recorded as used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// Counts changes, from 1.
    pub revision: Revision,
}

impl ApiKey {
    /// Neither expired nor revoked.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !expired(self.expires_at, now)
    }

    /// When it was revoked or expires, whichever is first; `None` is never.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        earlier(self.revoked_at, self.expires_at)
    }
}

fn earlier(revoked_at: Option<Timestamp>, expires_at: Option<Timestamp>) -> Option<Timestamp> {
    revoked_at.into_iter().chain(expires_at).min()
}

/// What is needed to make an API key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewApiKey {
    /// On whose behalf.
    pub user: Option<UserId>,
    /// What it is for.
    pub description: Option<Text<255>>,
    /// What it may be used for.
    pub permissions: PermissionSet,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// A key that admits nodes without a person at the keyboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreAuthKey {
    /// Time-ordered identifier.
    pub id: PreAuthKeyId,
    /// The public part; unique. `None` for an imported key that had none: such a key is found by
    /// its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<KeyPrefix>,
    /// Proof of the secret part.
    pub hash: SecretHash,
    /// The owner of the nodes it admits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Tags of the nodes it admits.
    #[serde(default, skip_serializing_if = "TagSet::is_empty")]
    pub tags: TagSet,
    /// Admits any number of nodes; otherwise exactly one.
    pub reusable: bool,
    /// The nodes it admits are ephemeral.
    pub ephemeral: bool,
    /// When it first admitted a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
    /// When the key was made.
    pub created_at: Timestamp,
    /// When it stops working; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// Counts changes, from 1.
    pub revision: Revision,
}

impl PreAuthKey {
    /// May still admit a node.
    #[must_use]
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none()
            && !expired(self.expires_at, now)
            && (self.reusable || self.used_at.is_none())
    }

    /// When it was revoked or expires, whichever is first; `None` is never. That it was used up is no end.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        earlier(self.revoked_at, self.expires_at)
    }

    /// Whether anybody may still come to something with its secret: a node that it may admit, or a
    /// machine that it admitted and that asks again.
    #[must_use]
    pub fn is_worth_checking(&self, now: Timestamp) -> bool {
        self.is_usable(now) || self.used_at.is_some()
    }
}

/// What is needed to make a pre-auth key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NewPreAuthKey {
    /// The owner of the nodes it admits; may be absent only with tags.
    pub user: Option<UserId>,
    /// Tags of the nodes it admits.
    pub tags: TagSet,
    /// Admits any number of nodes.
    pub reusable: bool,
    /// The nodes it admits are ephemeral.
    pub ephemeral: bool,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// Which keys to list; all of the given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyFilter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Usable or not, at this moment.
    pub active_at: Option<(bool, Timestamp)>,
}

/// A sign-in that lasts: a person's browser or a node's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Time-ordered identifier; it is the public part of the session's token.
    pub id: SessionId,
    /// Who signed in.
    pub owner: SessionOwner,
    /// The node from which its user signed in, if that is known. Never in a node's own session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Proof of the secret part.
    pub hash: SecretHash,
    /// What the client calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Text<255>>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was last recorded as used.
    pub last_seen: Timestamp,
}

impl Session {
    /// Whose it is: its owner, and for a user's session the node as well, if it has one.
    pub fn parties(&self) -> impl Iterator<Item = SessionOwner> + use<> {
        std::iter::once(self.owner).chain(self.node.map(SessionOwner::Node))
    }
}

/// Whose session it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionOwner {
    /// A user's.
    User(UserId),
    /// A node's.
    Node(NodeId),
}

/// What is needed to begin a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSession {
    /// Who signed in.
    pub owner: SessionOwner,
    /// The node from which a user signed in, if it is known.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// What the client calls itself.
    pub client: Option<Text<255>>,
    /// When it ends.
    pub expires_at: Timestamp,
}
