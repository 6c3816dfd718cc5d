//! The data set: every row follows from its kind and its number, so all subjects hold the same.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::rows::{
    AuditRow, CredentialRow, EndpointRow, Id, Machine, NodeRow, PointRow, PolicyRow, PresenceRow,
    RouteRow, Rows, UserRow,
};

/// How many own the nodes.
pub const USERS: u64 = 100;
/// What was loaded was created then, 14 November 2023, in microseconds since the epoch.
pub const EPOCH: i64 = 1_700_000_000_000_000;
/// What expires does so then, in 2100.
const EXPIRY: i64 = 4_102_444_800_000_000;
/// Every node's points lie this far apart.
pub const POINT_INTERVAL: i64 = 300_000_000;
/// How many of them a month of 30 days has.
pub const POINTS_PER_MONTH: u64 = 8_640;
/// What the points measure.
pub const METRIC: &str = "rx_bytes_total";
/// Rows loaded at once, as `gwstore import` does it.
const CHUNK: u64 = 1_000;

/// Bytes that look random and differ for each kind and number (SplitMix64).
pub fn key_bytes<const N: usize>(kind: u8, number: u64) -> [u8; N] {
    let mut state = (u64::from(kind) << 56) ^ number;
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        for (to, from) in chunk.iter_mut().zip(mixed.to_le_bytes()) {
            *to = from;
        }
    }
    bytes
}

/// A time-ordered identifier (UUIDv7) of this moment, in microseconds.
pub fn time_ordered(at: i64, kind: u8, number: u64) -> Id {
    let [_, _, time @ ..] = (at / 1000).to_be_bytes();
    let [a, b, rest @ ..] = key_bytes::<10>(kind, number);
    let mut id = [0; 16];
    let bytes = time.into_iter().chain([0x70 | (a & 0x0f), b]).chain(rest);
    id.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    id[8] = 0x80 | (id[8] & 0x3f);
    id
}

/// When what has this number was created: 20 a millisecond.
fn created(number: u64) -> i64 {
    EPOCH + i64::try_from(number).unwrap_or_default() * 50
}

pub fn node_id(number: u64) -> Id {
    time_ordered(created(number), 6, number)
}

pub fn user_id(number: u64) -> Id {
    time_ordered(EPOCH, 7, number % USERS)
}

/// What machine `number` presents: distinct keys, its own hostname, a small host info.
pub fn machine(number: u64) -> Machine {
    Machine {
        machine_key: key_bytes(1, number),
        node_key: key_bytes(2, number),
        disco_key: key_bytes(3, number),
        hostname: label(number),
        host_info: format!(
            r#"{{"IPNVersion":"1.80.2","OS":"linux","OSVersion":"6.8.0-48-generic","Hostname":"host-{number}"}}"#
        ),
        expires_at: EXPIRY + i64::try_from(number % 86_400).unwrap_or_default() * 1_000_000,
    }
}

pub fn label(number: u64) -> String {
    format!("host-{number}")
}

/// The addresses of the `index`th node: the lowest of 100.64.0.0/10 and fd7a:115c:a1e0::/48 that
/// are free, if no node ever goes. Leaves out what the mesh reserves: its resolver's addresses, and
/// 100.115.92.0/23.
pub fn addresses(index: u64) -> (Ipv4Addr, Ipv6Addr) {
    const NETWORK: u64 = 0x6440_0000;
    const RESOLVER: u64 = 0x6464_6464;
    const CHROME: u64 = 0x6473_5c00;
    let mut v4 = NETWORK + 1 + index;
    if v4 >= RESOLVER {
        v4 += 1;
    }
    if v4 >= CHROME {
        v4 += 512;
    }
    let host = if index + 1 >= 0x53 { index + 2 } else { index + 1 };
    let v6 = (0xfd7a_115c_a1e0_u128 << 80) | u128::from(host);
    (Ipv4Addr::from(u32::try_from(v4).unwrap_or(u32::MAX)), Ipv6Addr::from(v6))
}

/// Node `number`, as it stands in a network that has been up for a while.
pub fn node(number: u64) -> NodeRow {
    let ids = (node_id(number), user_id(number));
    signed_in(machine(number), ids, addresses(number), created(number))
}

/// The row of a machine whose user signed in.
pub fn signed_in(
    machine: Machine,
    (id, user): (Id, Id),
    (ipv4, ipv6): (Ipv4Addr, Ipv6Addr),
    at: i64,
) -> NodeRow {
    NodeRow {
        id,
        user: Some(user),
        tags: Vec::new(),
        label: machine.hostname.to_ascii_lowercase(),
        hostname: machine.hostname,
        machine_key: machine.machine_key,
        node_key: machine.node_key,
        disco_key: Some(machine.disco_key),
        ipv4: Some(ipv4),
        ipv6: Some(ipv6),
        host_info: machine.host_info,
        register_method: "oidc".to_owned(),
        preauth_key: None,
        ephemeral: false,
        expires_at: Some(machine.expires_at),
        created_at: at,
        updated_at: at,
        revision: 1,
    }
}

/// Two endpoints of a node; they change with `turn`.
pub fn endpoints(number: u64, turn: u64, seen_at: i64) -> Vec<EndpointRow> {
    let host = u32::try_from(number & 0x00ff_ffff).unwrap_or_default();
    let port = 41_641 + u16::try_from(turn % 1_000).unwrap_or_default();
    [10_u32, 203]
        .into_iter()
        .map(|first| EndpointRow {
            addr: (Ipv4Addr::from((first << 24) | host), port).into(),
            seen_at,
        })
        .collect()
}

/// The presence of node `number`: every second one is online.
pub fn presence(number: u64) -> PresenceRow {
    PresenceRow {
        node: node_id(number),
        session: 1,
        online: number.is_multiple_of(2),
        last_seen: EPOCH,
        endpoints: endpoints(number, 0, EPOCH),
    }
}

/// The `number`th of many prefixes with lengths from /16 to /28.
pub fn prefix(number: u32) -> (Ipv4Addr, u8) {
    let length = 16 + u8::try_from(number % 13).unwrap_or_default();
    // Spread over the whole family; the low bits that the length cuts off are dropped.
    let address = number.wrapping_mul(2_654_435_761) & (u32::MAX << (32 - length));
    (Ipv4Addr::from(address), length)
}

/// Route `number`: advertised, approved and primary.
pub fn route(number: u32, nodes: u64) -> RouteRow {
    let (network, length) = prefix(number);
    let at = created(u64::from(number));
    RouteRow {
        id: time_ordered(at, 5, u64::from(number)),
        // Only a node that is online has primary routes.
        node: node_id(((u64::from(number) * 7) % nodes.max(1)) & !1),
        network,
        length,
        advertised: true,
        approved: true,
        primary: true,
        created_at: at,
        updated_at: at,
        revision: 1,
    }
}

pub fn policy(rules: u32) -> PolicyRow {
    let rules: Vec<String> = (0..rules)
        .map(|rule| {
            format!(
                r#"{{"action":"accept","src":["group:team-{rule}"],"dst":["tag:service-{rule}:443"]}}"#
            )
        })
        .collect();
    PolicyRow {
        version: 1,
        document: format!("{{\"acls\":[{}]}}", rules.join(",")),
        created_at: EPOCH,
    }
}

/// A credential of this kind: 10 for pre-auth keys, 11 for API keys.
fn credential(kind: u8, number: u64) -> CredentialRow {
    CredentialRow {
        id: time_ordered(created(number), kind, number),
        prefix: hex(&key_bytes::<6>(kind, number)),
        secret: hex(&key_bytes::<32>(kind + 10, number)),
        user: user_id(number),
        created_at: EPOCH,
        expires_at: EXPIRY,
    }
}

/// The pre-auth key that admits machine `number`, and no other.
pub fn preauth_key(number: u64) -> CredentialRow {
    credential(10, number)
}

pub fn api_key(number: u64) -> CredentialRow {
    credential(11, number)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `number`th point of `nodes` nodes: all nodes at one moment, then all at the next.
pub fn point(number: u64, nodes: u64) -> PointRow {
    let (turn, node) = (number / nodes.max(1), number % nodes.max(1));
    PointRow {
        node: node_id(node),
        metric: METRIC.to_owned(),
        at: EPOCH + i64::try_from(turn).unwrap_or_default() * POINT_INTERVAL,
        value: f64::from(u32::try_from(number % 1_000_003).unwrap_or_default()),
    }
}

/// An audit line that the control plane appends.
pub fn audit(number: u64) -> AuditRow {
    let at = created(number);
    AuditRow {
        id: time_ordered(at, 12, number),
        at,
        actor: "alice@example.com".to_owned(),
        action: "node.approve".to_owned(),
        entity: "node".to_owned(),
        subject: label(number % 10_000),
    }
}

/// What a subject holds before it is measured.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Content {
    /// Nodes with their presences.
    pub nodes: u64,
    pub routes: u32,
    /// Rules of the policy; none is no policy.
    pub rules: u32,
    pub api_keys: u64,
    /// Pre-auth keys, each for one of the machines that follow the nodes.
    pub preauth_keys: u64,
    /// Points of the metric.
    pub points: u64,
    /// Audit lines besides those that loading leaves.
    pub audit: u64,
}

impl Content {
    /// How many nodes the points are spread over: as many as have a month of them.
    pub fn measured_nodes(&self) -> u64 {
        (self.points / POINTS_PER_MONTH).max(1)
    }

    /// All rows but the series, in an order in which what is referred to comes first.
    pub fn chunks(self) -> impl Iterator<Item = Rows> {
        let users = (0..USERS).map(|number| UserRow {
            id: user_id(number),
            name: format!("user-{number}"),
            created_at: EPOCH,
        });
        let nodes = self.nodes;
        let first = std::iter::once(Rows::Users(users.collect()));
        let policy = (self.rules > 0).then(|| Rows::Policy(policy(self.rules)));
        first
            .chain(chunked(nodes, node, Rows::Nodes))
            .chain(chunked(nodes, presence, Rows::Presences))
            .chain(chunked(
                u64::from(self.routes),
                move |number| route(u32::try_from(number).unwrap_or(u32::MAX), nodes),
                Rows::Routes,
            ))
            .chain(chunked(self.api_keys, api_key, Rows::ApiKeys))
            .chain(chunked(
                self.preauth_keys,
                move |number| preauth_key(nodes + number),
                Rows::PreAuthKeys,
            ))
            .chain(policy)
    }

    pub fn point_batches(self) -> impl Iterator<Item = Vec<PointRow>> {
        let nodes = self.measured_nodes();
        numbers(self.points, 10 * CHUNK)
            .map(move |range| range.map(|number| point(number, nodes)).collect())
    }

    pub fn audit_batches(self) -> impl Iterator<Item = Vec<AuditRow>> {
        numbers(self.audit, CHUNK).map(|range| range.map(audit).collect())
    }
}

fn numbers(count: u64, chunk: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..count.div_ceil(chunk)).map(move |at| at * chunk..((at + 1) * chunk).min(count))
}

fn chunked<T>(
    count: u64,
    row: impl Fn(u64) -> T,
    rows: impl Fn(Vec<T>) -> Rows,
) -> impl Iterator<Item = Rows> {
    numbers(count, CHUNK).map(move |range| rows(range.map(&row).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_gives_the_same_row_and_another_gives_another() {
        assert_eq!(node(7), node(7));
        assert_ne!(node(7).node_key, node(8).node_key);
        assert!(node_id(7) < node_id(70), "identifiers are ordered by time");
        assert_eq!(prefix(26).1, 16);
    }

    #[test]
    fn no_prefix_comes_twice() {
        let prefixes: std::collections::HashSet<_> = (0..100_000).map(prefix).collect();
        assert_eq!(prefixes.len(), 100_000);
    }

    #[test]
    fn reserved_addresses_are_left_out() {
        assert_eq!(addresses(0).0, Ipv4Addr::new(100, 64, 0, 1));
        let far: Vec<_> = (2_300_000..3_400_000).map(|index| addresses(index).0).collect();
        let is_reserved =
            |v4: &Ipv4Addr| matches!(v4.octets(), [100, 100, 100, 100] | [100, 115, 92 | 93, _]);
        assert!(!far.iter().any(is_reserved));
        assert!(far.is_sorted());
        assert_eq!(addresses(0x51).1.segments()[7], 0x52);
        assert_eq!(addresses(0x52).1.segments()[7], 0x54);
    }

    #[test]
    fn a_content_has_all_of_its_rows() {
        let content =
            Content { nodes: 2_500, routes: 10, rules: 3, preauth_keys: 1, ..Content::default() };
        let count = |wanted: fn(&Rows) -> usize| content.chunks().map(|rows| wanted(&rows)).sum();
        let nodes: usize =
            count(|rows| if let Rows::Nodes(nodes) = rows { nodes.len() } else { 0 });
        assert_eq!(nodes, 2_500);
        let points = Content { points: POINTS_PER_MONTH * 2, ..content };
        assert_eq!(points.measured_nodes(), 2);
        let month = points.point_batches().flatten().filter(|point| point.node == node_id(1));
        assert_eq!(month.count() as u64, POINTS_PER_MONTH);
    }
}
