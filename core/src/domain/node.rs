//! Nodes: the machines of the mesh.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::deserialize_stored;
use super::{
    DiscoKey, DnsLabel, EndpointList, HostInfo, Hostname, InstanceId, MachineKey, NodeId, NodeKey,
    NodeSettings, Patch, PreAuthKeyId, Revision, TagSet, Timestamp, Update, UserId,
};
use crate::error::{Error, Result};

/// A machine of the mesh, as the control plane knows it. What changes with every heartbeat is
/// kept apart, in [`Presence`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Time-ordered identifier; never reused.
    pub id: NodeId,
    /// The owner. `None` for a node that only its tags own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// Tags; a node without a user has at least one.
    #[serde(default, skip_serializing_if = "TagSet::is_empty")]
    pub tags: TagSet,
    /// The name as the machine reports it.
    #[serde(deserialize_with = "deserialize_stored")]
    pub hostname: Hostname,
    /// The node's DNS label; unique.
    pub label: DnsLabel,
    /// Identifies the machine; unique.
    pub machine_key: MachineKey,
    /// WireGuard public key; unique, rotated by the client.
    pub node_key: NodeKey,
    /// Path discovery key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disco_key: Option<DiscoKey>,
    /// Address in the mesh; unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Address in the mesh; unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// What the client says about its machine.
    #[serde(default)]
    pub host_info: HostInfo,
    /// How the node was admitted.
    pub register_method: RegisterMethod,
    /// The pre-auth key that admitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preauth_key: Option<PreAuthKeyId>,
    /// Removed after it has been offline for longer than the cutoff.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
    /// When its key expires; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Of which families it is given addresses. (Schema version 4.)
    #[serde(default, skip_serializing_if = "AddressFamilies::is_default")]
    pub families: AddressFamilies,
    /// What an administrator set for it; `None` if nobody ever did. (Schema version 4.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Arc<NodeSettings>>,
    /// When the node was first registered.
    pub created_at: Timestamp,
    /// When a field last changed.
    pub updated_at: Timestamp,
    /// Counts changes, from 1.
    pub revision: Revision,
}

/// How a node was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegisterMethod {
    /// With a pre-auth key.
    AuthKey,
    /// By its user's sign-in at an identity provider.
    Oidc,
    /// By an administrator.
    Cli,
}

/// Of which families a node is given addresses, as far as the network has them.
///
/// A limit is for machines that cannot use a family. It says nothing about addresses that the node has
/// already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressFamilies {
    /// All that the network has.
    #[default]
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl AddressFamilies {
    /// Whether IPv4 is one of them.
    #[must_use]
    pub fn has_ipv4(self) -> bool {
        self != Self::Ipv6
    }

    /// Whether IPv6 is one of them.
    #[must_use]
    pub fn has_ipv6(self) -> bool {
        self != Self::Ipv4
    }

    /// Whether the address is of one of them.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.has_ipv4() } else { self.has_ipv6() }
    }

    /// Whether there is no limit.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::Both
    }

    /// In snake case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl fmt::Display for AddressFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A control connection's number. A client's connections must be numbered upwards; messages of
/// an older one are ignored. At most `i64::MAX`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct SessionNumber(u64);

impl SessionNumber {
    /// # Errors
    /// `InvalidArgument` above `i64::MAX`.
    pub fn new(value: u64) -> Result<Self> {
        if i64::try_from(value).is_err() {
            return Err(Error::invalid("a session number is at most 9223372036854775807")
                .with("session", value));
        }
        Ok(Self(value))
    }

    /// As a plain integer.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The one after it; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1).ok()
    }
}

impl TryFrom<u64> for SessionNumber {
    type Error = Error;

    fn try_from(value: u64) -> Result<Self> {
        Self::new(value)
    }
}

impl From<SessionNumber> for u64 {
    fn from(session: SessionNumber) -> Self {
        session.0
    }
}

impl fmt::Display for SessionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether and where a node is reachable; the part of a node that changes all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presence {
    /// The node that is or is not connected.
    pub node: NodeId,
    /// The newest control connection.
    pub session: SessionNumber,
    /// Whether that connection is up.
    pub online: bool,
    /// When the node was last heard of; `None` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// Where the node says it can be reached.
    #[serde(default, skip_serializing_if = "EndpointList::is_empty")]
    pub endpoints: EndpointList,
    /// When the store learned that the node is not connected, if that was later than it was last
    /// seen; `None` while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent_since: Option<Timestamp>,
    /// The process of the control plane that holds the connection; `None` if none is up, or if that
    /// process gave no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
}

impl Presence {
    /// That of a node which was never heard of.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            session: SessionNumber::default(),
            online: false,
            last_seen: None,
            endpoints: EndpointList::empty(),
            absent_since: None,
            instance: None,
        }
    }

    /// Since when the node has been absent, from which an ephemeral one's cutoff counts. `None` while
    /// it is connected, and if it was never heard of.
    #[must_use]
    pub fn absent_from(&self) -> Option<Timestamp> {
        if self.online { None } else { self.last_seen.max(self.absent_since) }
    }
}

/// What a node presents to register or to sign in again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Identifies the machine.
    pub machine_key: MachineKey,
    /// The WireGuard key it wants to use.
    pub node_key: NodeKey,
    /// Path discovery key.
    pub disco_key: Option<DiscoKey>,
    /// Name as the machine reports it; the DNS label is derived from it.
    pub hostname: Hostname,
    /// What the client says about its machine.
    pub host_info: HostInfo,
    /// Who vouches for it.
    pub admission: Admission,
    /// When the node's key shall expire.
    pub expires_at: Option<Timestamp>,
    /// Of which families it can use addresses; `None` is as the node has it, and both for a new one.
    #[serde(default)]
    pub families: Option<AddressFamilies>,
}

impl Registration {
    /// What every machine presents; no disco key, no host info, a key that does not expire, and no
    /// limit of families.
    #[must_use]
    pub fn new(
        machine_key: MachineKey,
        node_key: NodeKey,
        hostname: Hostname,
        admission: Admission,
    ) -> Self {
        Self {
            machine_key,
            node_key,
            disco_key: None,
            hostname,
            host_info: HostInfo::default(),
            admission,
            expires_at: None,
            families: None,
        }
    }
}

/// Who vouches for a node that registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// A pre-auth key, already checked against its secret by
    /// [`PreAuthKeyRepository::authenticate`](crate::repository::PreAuthKeyRepository).
    /// The key's user, tags and `ephemeral` decide those of the node.
    PreAuthKey(PreAuthKeyId),
    /// A user who signed in.
    User {
        /// The user who owns the node from then on.
        user: UserId,
        /// `Oidc` or `Cli`.
        method: RegisterMethod,
    },
}

/// A change to a node; fields left at `Keep` stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePatch {
    /// Rename: a new DNS label.
    pub label: Update<DnsLabel>,
    /// The name as the machine reports it.
    pub hostname: Update<Hostname>,
    /// New tags; an empty set clears them.
    pub tags: Update<TagSet>,
    /// New owner; `Clear` needs tags.
    pub user: Patch<UserId>,
    /// What the client says about its machine.
    pub host_info: Update<HostInfo>,
    /// Path discovery key.
    pub disco_key: Patch<DiscoKey>,
    /// New expiry; `Clear` is never.
    pub expires_at: Patch<Timestamp>,
    /// Of which families it is given addresses from now on; those that it has stay.
    pub families: Update<AddressFamilies>,
}

/// Which addresses a node gets in place of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Renumbering {
    /// Its IPv4 address.
    pub ipv4: NewAddress<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: NewAddress<Ipv6Addr>,
}

impl Renumbering {
    /// Another address of each configured family.
    pub const BOTH: Self = Self { ipv4: NewAddress::Another, ipv6: NewAddress::Another };
}

/// An address in place of a node's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewAddress<A> {
    /// It stays.
    #[default]
    Keep,
    /// The lowest free one, which is never its own; none if the family is not configured.
    Another,
    /// This one, if it is free and the network gives it out.
    Given(A),
}

/// Which nodes to list; all of the given conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeFilter {
    /// Owned by this user.
    pub user: Option<UserId>,
    /// Carrying this tag.
    pub tag: Option<super::Tag>,
    /// Connected or not.
    pub online: Option<bool>,
    /// Ephemeral or not.
    pub ephemeral: Option<bool>,
    /// Expired or not, at this moment.
    pub expired_at: Option<(bool, Timestamp)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Endpoint;

    /// There may be a million of each: what is not used has to cost next to nothing.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn what_is_kept_of_each_node_stays_small() {
        let sizes = [size_of::<Node>(), size_of::<Presence>(), size_of::<Endpoint>()];
        assert_eq!(sizes, [288, 96, 48], "say in docs/performance.md what a node takes now");
    }
}
