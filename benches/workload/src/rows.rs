//! What is stored, as plain rows: no subject's own types.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

pub type Id = [u8; 16];
pub type Key = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRow {
    pub id: Id,
    pub name: String,
    pub created_at: i64,
}

/// A machine of the mesh. Times are microseconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    pub id: Id,
    pub user: Option<Id>,
    pub tags: Vec<String>,
    pub hostname: String,
    pub label: String,
    pub machine_key: Key,
    pub node_key: Key,
    pub disco_key: Option<Key>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub host_info: String,
    /// `oidc` or `auth_key`.
    pub register_method: String,
    pub preauth_key: Option<Id>,
    pub ephemeral: bool,
    pub expires_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
    pub revision: i64,
}

/// Where a node was seen, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    pub addr: SocketAddr,
    pub seen_at: i64,
}

/// Whether and where a node is reachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceRow {
    pub node: Id,
    pub session: i64,
    pub online: bool,
    pub last_seen: i64,
    pub endpoints: Vec<EndpointRow>,
}

/// A prefix behind a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    pub id: Id,
    pub node: Id,
    pub network: Ipv4Addr,
    pub length: u8,
    pub advertised: bool,
    pub approved: bool,
    pub primary: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub revision: i64,
}

/// A pre-auth key that admits one node, or an API key. The text that its holder presents is not
/// stored: [`crate::credential`] makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRow {
    pub id: Id,
    pub prefix: String,
    pub secret: String,
    pub user: Id,
    pub created_at: i64,
    pub expires_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    pub version: i64,
    pub document: String,
    pub created_at: i64,
}

/// One measurement of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PointRow {
    pub node: Id,
    pub metric: String,
    pub at: i64,
    pub value: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    pub id: Id,
    pub at: i64,
    pub actor: String,
    pub action: String,
    pub entity: String,
    pub subject: String,
}

/// What a machine presents to register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub machine_key: Key,
    pub node_key: Key,
    pub disco_key: Key,
    pub hostname: String,
    pub host_info: String,
    pub expires_at: i64,
}

/// Rows of one kind, as they are loaded.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    Users(Vec<UserRow>),
    Nodes(Vec<NodeRow>),
    Presences(Vec<PresenceRow>),
    Routes(Vec<RouteRow>),
    PreAuthKeys(Vec<CredentialRow>),
    ApiKeys(Vec<CredentialRow>),
    Policy(PolicyRow),
}
