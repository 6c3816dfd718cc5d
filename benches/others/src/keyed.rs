//! A direct subject on a store of keys and values: rows and indexes by hand.

use std::net::Ipv4Addr;

use ghostwire_store_bench_workload::Write;
use ghostwire_store_bench_workload::credential::{Purpose, hash, proves};
use ghostwire_store_bench_workload::data::METRIC;
use ghostwire_store_bench_workload::direct::{
    Addresses, Engine, admitted, presented, refused, registered,
};
use ghostwire_store_bench_workload::rows::{
    AuditRow, CredentialRow, Id, Machine, NodeRow, PointRow, PolicyRow, PresenceRow, RouteRow,
    Rows, UserRow,
};
use ghostwire_store_bench_workload::subject::{Answer, NetMapAnswer, PolicyAnswer, Read, Result};
use ghostwire_store_bench_workload::targets::now;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What keys belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Users,
    Nodes,
    /// To node ids: by label, machine key, node key and the two addresses.
    Labels,
    MachineKeys,
    NodeKeys,
    Addresses,
    Presences,
    Routes,
    /// By network, length and node.
    Prefixes,
    /// By their public parts.
    PreAuthKeys,
    ApiKeys,
    Policies,
    Audit,
    Metrics,
}

impl Space {
    pub(super) const ALL: [Self; 14] = [
        Self::Users,
        Self::Nodes,
        Self::Labels,
        Self::MachineKeys,
        Self::NodeKeys,
        Self::Addresses,
        Self::Presences,
        Self::Routes,
        Self::Prefixes,
        Self::PreAuthKeys,
        Self::ApiKeys,
        Self::Policies,
        Self::Audit,
        Self::Metrics,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Nodes => "nodes",
            Self::Labels => "labels",
            Self::MachineKeys => "machine_keys",
            Self::NodeKeys => "node_keys",
            Self::Addresses => "addresses",
            Self::Presences => "presences",
            Self::Routes => "routes",
            Self::Prefixes => "prefixes",
            Self::PreAuthKeys => "preauth_keys",
            Self::ApiKeys => "api_keys",
            Self::Policies => "policies",
            Self::Audit => "audit",
            Self::Metrics => "metrics",
        }
    }
}

/// What is done with each pair of a range; `false` ends it.
pub(super) type Each<'e> = &'e mut dyn FnMut(&[u8], &[u8]) -> Result<bool>;

/// Keys and values as of one moment.
pub(super) trait Reader {
    /// The value of a key, if there is one.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Pairs with `from <= key < to`, in order or backwards.
    fn range(
        &self,
        space: Space,
        keys: (&[u8], &[u8]),
        backwards: bool,
        each: Each<'_>,
    ) -> Result<()>;
}

/// A transaction: it reads what it wrote.
pub(super) trait Writer: Reader {
    /// Sets a value.
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()>;
}

/// A database of keys and values.
pub(super) trait KeyValue: Send + Sync + 'static {
    /// Lets `work` write, and makes it durable with one fsync.
    fn write<T>(&self, work: impl FnOnce(&mut dyn Writer) -> Result<T>) -> Result<T>;

    /// Lets `work` read.
    fn read<T>(&self, work: impl FnOnce(&dyn Reader) -> Result<T>) -> Result<T>;
}

/// The engine on it.
pub(super) struct Keyed<K>(pub(super) K);

/// No key begins with so many of them.
const LAST: &[u8] = &[0xff; 64];
const EVERYTHING: (&[u8], &[u8]) = (&[], LAST);

#[derive(Debug, Serialize, Deserialize)]
struct StoredKey {
    id: Id,
    hash: [u8; 32],
    user: Id,
    used_at: Option<i64>,
    expires_at: i64,
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    Ok(postcard::to_stdvec(value)?)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    Ok(postcard::from_bytes(bytes)?)
}

fn found<T: DeserializeOwned>(bytes: Option<Vec<u8>>) -> Result<Option<T>> {
    bytes.map(|bytes| decode(&bytes)).transpose()
}

/// Times are not negative, so that their bytes are ordered as they are.
fn moment(at: i64) -> [u8; 8] {
    at.to_be_bytes()
}

fn point_key(node: &Id, metric: &str, at: i64) -> Vec<u8> {
    [node.as_slice(), metric.as_bytes(), &[0], &moment(at)].concat()
}

fn prefix_key(network: Ipv4Addr, length: u8) -> [u8; 5] {
    let [a, b, c, d] = network.octets();
    [a, b, c, d, length]
}

impl<K: KeyValue> Engine for Keyed<K> {
    async fn commit(
        &self,
        writes: Vec<Write>,
        addresses: &mut Addresses,
    ) -> Result<Vec<Result<()>>> {
        self.0.write(|writer| {
            Ok(writes.into_iter().map(|write| one(writer, write, addresses)).collect())
        })
    }

    async fn answer(&self, read: &Read<'_>) -> Result<Answer> {
        self.0.read(|reader| answer(reader, read))
    }

    async fn count_nodes(&self) -> Result<u64> {
        self.0.read(|reader| {
            let mut count = 0;
            reader.range(Space::Nodes, EVERYTHING, false, &mut |_, _| {
                count += 1;
                Ok(true)
            })?;
            Ok(count)
        })
    }

    async fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// One write of a transaction. What can be refused comes first.
fn one(writer: &mut dyn Writer, write: Write, addresses: &mut Addresses) -> Result<()> {
    match write {
        Write::Register { machine, preauth_key, user } => {
            register(writer, (*machine, preauth_key, user), addresses)
        }
        Write::Heartbeat { node, at, endpoints } => {
            let presence: Option<PresenceRow> = found(writer.get(Space::Presences, &node)?)?;
            let connected = presence.filter(|known| known.online && known.session == 1);
            let mut presence = connected.ok_or("the node is not connected")?;
            presence.last_seen = at;
            if let Some(endpoints) = endpoints {
                presence.endpoints = endpoints;
            }
            writer.put(Space::Presences, &node, &encode(&presence)?)
        }
        Write::Audit(line) => append(writer, &line),
        Write::LoadAudit(lines) => lines.iter().try_for_each(|line| append(writer, line)),
        Write::Metrics(points) => points.iter().try_for_each(|point| {
            let key = point_key(&point.node, &point.metric, point.at);
            writer.put(Space::Metrics, &key, &point.value.to_le_bytes())
        }),
        Write::Load(rows) => load(writer, rows, addresses),
    }
}

fn append(writer: &mut dyn Writer, line: &AuditRow) -> Result<()> {
    let key = [moment(line.at).as_slice(), &line.id].concat();
    writer.put(Space::Audit, &key, &encode(line)?)
}

fn register(
    writer: &mut dyn Writer,
    (machine, text, user): (Machine, Option<String>, Id),
    addresses: &mut Addresses,
) -> Result<()> {
    let mut owner = (user, None);
    let mut used: Option<(String, StoredKey)> = None;
    if let Some(text) = &text {
        let (prefix, secret) = presented(Purpose::PreAuthKey, text)?;
        let key: Option<StoredKey> = found(writer.get(Space::PreAuthKeys, prefix.as_bytes())?)?;
        let key = key.ok_or_else(refused)?;
        let is_good = proves(Purpose::PreAuthKey, secret, &key.hash);
        if !is_good || key.used_at.is_some() || key.expires_at <= now() {
            return Err(refused());
        }
        owner = (key.user, Some(key.id));
        used = Some((prefix.to_owned(), key));
    }
    let node = admitted(machine, owner, addresses);
    insert(writer, &node)?;
    addresses.take();
    if let Some((prefix, mut key)) = used {
        key.used_at = Some(node.created_at);
        writer.put(Space::PreAuthKeys, prefix.as_bytes(), &encode(&key)?)?;
    }
    append(writer, &registered(&node))
}

/// A node with what it is found by; nothing of it may be there already.
fn insert(writer: &mut dyn Writer, node: &NodeRow) -> Result<()> {
    let v4 = node.ipv4.map(|address| address.octets().to_vec());
    let v6 = node.ipv6.map(|address| address.octets().to_vec());
    let names = [
        (Space::Labels, Some(node.label.as_bytes().to_vec())),
        (Space::MachineKeys, Some(node.machine_key.to_vec())),
        (Space::NodeKeys, Some(node.node_key.to_vec())),
        (Space::Addresses, v4),
        (Space::Addresses, v6),
    ];
    let names: Vec<_> =
        names.into_iter().filter_map(|(space, name)| Some((space, name?))).collect();
    for (space, name) in &names {
        if writer.get(*space, name)?.is_some() {
            return Err(format!("another node has this entry of {}", space.name()).into());
        }
    }
    for (space, name) in &names {
        writer.put(*space, name, &node.id)?;
    }
    writer.put(Space::Nodes, &node.id, &encode(node)?)
}

fn load(writer: &mut dyn Writer, rows: Rows, addresses: &mut Addresses) -> Result<()> {
    match rows {
        Rows::Users(users) => {
            users.iter().try_for_each(|user| writer.put(Space::Users, &user.id, &encode(user)?))
        }
        Rows::Nodes(nodes) => {
            addresses.take_many(nodes.len());
            nodes.iter().try_for_each(|node| insert(writer, node))
        }
        Rows::Presences(rows) => rows.iter().try_for_each(|presence| {
            writer.put(Space::Presences, &presence.node, &encode(presence)?)
        }),
        Rows::Routes(routes) => routes.iter().try_for_each(|route| {
            let prefix = prefix_key(route.network, route.length);
            writer.put(Space::Prefixes, &[prefix.as_slice(), &route.node].concat(), &route.id)?;
            writer.put(Space::Routes, &route.id, &encode(route)?)
        }),
        Rows::PreAuthKeys(keys) => keys.into_iter().try_for_each(|key| {
            let (prefix, stored) = credential(Purpose::PreAuthKey, key);
            writer.put(Space::PreAuthKeys, prefix.as_bytes(), &encode(&stored)?)
        }),
        Rows::ApiKeys(keys) => keys.into_iter().try_for_each(|key| {
            let (prefix, stored) = credential(Purpose::ApiKey, key);
            writer.put(Space::ApiKeys, prefix.as_bytes(), &encode(&stored)?)
        }),
        Rows::Policy(policy) => {
            writer.put(Space::Policies, &policy.version.to_be_bytes(), &encode(&policy)?)
        }
    }
}

fn credential(purpose: Purpose, key: CredentialRow) -> (String, StoredKey) {
    let hash = hash(purpose, &key.secret);
    let CredentialRow { id, prefix, user, expires_at, .. } = key;
    (prefix, StoredKey { id, hash, user, used_at: None, expires_at })
}

fn all<T: DeserializeOwned>(reader: &dyn Reader, space: Space) -> Result<Vec<T>> {
    let mut rows = Vec::new();
    reader.range(space, EVERYTHING, false, &mut |_, value| {
        rows.push(decode(value)?);
        Ok(true)
    })?;
    Ok(rows)
}

fn node_of(reader: &dyn Reader, space: Space, name: &[u8]) -> Result<Option<Box<NodeRow>>> {
    match reader.get(space, name)? {
        Some(id) => found(reader.get(Space::Nodes, &id)?),
        None => Ok(None),
    }
}

fn document(reader: &dyn Reader) -> Result<String> {
    let mut newest = None;
    reader.range(Space::Policies, EVERYTHING, true, &mut |_, value| {
        newest = Some(decode::<PolicyRow>(value)?);
        Ok(false)
    })?;
    Ok(newest.map(|policy| policy.document).unwrap_or_default())
}

/// The primary route of the longest prefix: one lookup for each length, the longest first.
fn route(reader: &dyn Reader, address: Ipv4Addr) -> Result<Option<RouteRow>> {
    for length in (1..=32_u8).rev() {
        let mask = u32::MAX << (32 - u32::from(length));
        let prefix = prefix_key(Ipv4Addr::from(u32::from(address) & mask), length);
        let last = [prefix.as_slice(), &[0xff; 17]].concat();
        let mut primary = None;
        reader.range(Space::Prefixes, (&prefix, &last), false, &mut |_, id| {
            let route: Option<RouteRow> = found(reader.get(Space::Routes, id)?)?;
            primary = route.filter(|route| route.primary);
            Ok(primary.is_none())
        })?;
        if primary.is_some() {
            return Ok(primary);
        }
    }
    Ok(None)
}

fn answer(reader: &dyn Reader, read: &Read<'_>) -> Result<Answer> {
    Ok(match read {
        Read::NodeById(id) => Answer::Node(found(reader.get(Space::Nodes, id)?)?),
        Read::NodeByKey(key) => Answer::Node(node_of(reader, Space::NodeKeys, *key)?),
        Read::NodeByLabel(label) => Answer::Node(node_of(reader, Space::Labels, label.as_bytes())?),
        Read::OnlineNodes => {
            let mut nodes = Vec::new();
            reader.range(Space::Presences, EVERYTHING, false, &mut |id, presence| {
                if decode::<PresenceRow>(presence)?.online {
                    nodes.extend(found::<NodeRow>(reader.get(Space::Nodes, id)?)?);
                }
                Ok(true)
            })?;
            Answer::Nodes(nodes)
        }
        Read::NetMap(node) => {
            let mut presences: std::iter::Peekable<_> =
                all::<PresenceRow>(reader, Space::Presences)?.into_iter().peekable();
            let mut peers = Vec::new();
            // Both are in the order of node ids.
            for peer in all::<NodeRow>(reader, Space::Nodes)? {
                while presences.next_if(|presence| presence.node < peer.id).is_some() {}
                let presence = presences.next_if(|presence| presence.node == peer.id);
                if peer.id != *node {
                    peers.push((peer, presence));
                }
            }
            let mut routes: Vec<RouteRow> = all(reader, Space::Routes)?;
            routes.retain(|route| route.advertised && route.approved);
            let users: Vec<UserRow> = all(reader, Space::Users)?;
            let document = document(reader)?;
            Answer::NetMap(Box::new(NetMapAnswer { peers, routes, users, document }))
        }
        Read::PolicyInput => {
            let nodes = all::<NodeRow>(reader, Space::Nodes)?;
            let principal = |node: NodeRow| (node.id, node.user, node.tags, node.ipv4, node.ipv6);
            Answer::Policy(Box::new(PolicyAnswer {
                document: document(reader)?,
                users: all(reader, Space::Users)?,
                nodes: nodes.into_iter().map(principal).collect(),
            }))
        }
        Read::Route(address) => Answer::Route(route(reader, *address)?),
        Read::ApiKey(text) => Answer::Valid(is_valid(reader, text)?),
        Read::MetricRange { node, from, to } => {
            let (first, last) = (point_key(node, METRIC, *from), point_key(node, METRIC, *to));
            let mut points = Vec::new();
            reader.range(Space::Metrics, (&first, &last), false, &mut |key, value| {
                let at = key.last_chunk().ok_or("a point's key is too short")?;
                let value = value.try_into()?;
                points.push(PointRow {
                    node: *node,
                    metric: METRIC.to_owned(),
                    at: i64::from_be_bytes(*at),
                    value: f64::from_le_bytes(value),
                });
                Ok(true)
            })?;
            Answer::Points(points)
        }
        Read::AuditPage { from, to } => {
            let mut lines = Vec::new();
            let keys = (moment(*from), moment(*to));
            reader.range(Space::Audit, (&keys.0, &keys.1), true, &mut |_, line| {
                lines.push(decode(line)?);
                Ok(lines.len() < 100)
            })?;
            Answer::Audit(lines)
        }
        Read::Nothing => Answer::Nothing,
    })
}

fn is_valid(reader: &dyn Reader, text: &str) -> Result<bool> {
    let Ok((prefix, secret)) = presented(Purpose::ApiKey, text) else { return Ok(false) };
    let key: Option<StoredKey> = found(reader.get(Space::ApiKeys, prefix.as_bytes())?)?;
    Ok(key.is_some_and(|key| proves(Purpose::ApiKey, secret, &key.hash) && key.expires_at > now()))
}
