//! Nodes and their presence.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    AddressFamilies, DiscoKey, DnsLabel, Endpoint, EndpointList, HostInfo, Hostname, Node, NodeId,
    Prefix, Presence, RegisterMethod, Revision, SessionNumber, TagSet, Timestamp, UserId,
};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, Fate, Parents};
use super::keys::{Keys, tag_set};
use super::mapping::{NAME_CHANGED, created, row_name, skip_deleted};
use super::policy::TagGrants;
use super::tables::{Reason, Row, Tables, parse};

/// Nodes, for their routes.
pub(super) struct Nodes {
    pub(super) parents: Parents<NodeId>,
    /// What the rows of imported nodes say about routes.
    pub(super) routes: Vec<NodeRoutes>,
}

/// What a node's row says about its routes.
pub(super) struct NodeRoutes {
    pub(super) row: i64,
    pub(super) node: NodeId,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) advertised: Vec<Prefix>,
    pub(super) approved: Vec<String>,
}

/// What a row becomes.
struct Parts {
    node: Node,
    presence: Presence,
    approved: Vec<String>,
}

/// What nodes are judged by.
struct Importer<'a> {
    users: &'a Parents<UserId>,
    keys: &'a Keys,
    /// `None` if there is no policy to ask.
    grants: Option<&'a TagGrants>,
}

pub(super) fn nodes(
    tables: &Tables,
    users: &Parents<UserId>,
    keys: &Keys,
    grants: &Option<TagGrants>,
    collector: &mut Collector,
) -> Result<Nodes> {
    let importer = Importer { users, keys, grants: grants.as_ref() };
    let mut parents = Parents::new("node", "nodes");
    let (mut candidates, mut others) = (Vec::new(), Vec::new());
    tables.each("nodes", "id", |row| {
        let id = row.id()?;
        parents.set(id, Fate::LeftOut);
        match importer.node(row, id, collector) {
            Ok(None) => parents.set(id, Fate::Deleted),
            Ok(Some(Parts { node, presence, approved })) => {
                parents.set(id, Fate::Imported(node.id));
                let routes = NodeRoutes {
                    row: id,
                    node: node.id,
                    created_at: node.created_at,
                    updated_at: node.updated_at,
                    advertised: node.host_info.routable_prefixes(),
                    approved,
                };
                others.push((presence, routes));
                candidates.push(Candidate { image: EntityRecord::from(node), table: "nodes", id });
            }
            Err(reason) => collector.problem("nodes", id, reason),
        }
        Ok(())
    })?;
    let taken = collector.admit(candidates)?;
    let (mut presences, mut routes) = (Vec::new(), Vec::new());
    for ((presence, of_node), taken) in others.into_iter().zip(taken) {
        if !taken {
            parents.set(of_node.row, Fate::LeftOut);
            continue;
        }
        if presence.last_seen.is_some() || !presence.endpoints.is_empty() {
            let image = EntityRecord::from(presence);
            presences.push(Candidate { image, table: "nodes", id: of_node.row });
        }
        routes.push(of_node);
    }
    collector.admit(presences)?;
    Ok(Nodes { parents, routes })
}

impl Importer<'_> {
    fn node(
        &self,
        row: &Row<'_>,
        id: i64,
        collector: &mut Collector,
    ) -> Result<Option<Parts>, Reason> {
        if skip_deleted(row, id, collector)? {
            return Ok(None);
        }
        let created_at = created(row, id, collector)?;
        let updated_at = row.time("updated_at")?.unwrap_or(created_at);
        let host_info = host_info(row, id, collector)?;
        let (ipv4, ipv6) = addresses(row, id, collector)?;
        let key = row.reference("auth_key_id")?;
        let (user, tags) =
            self.owner(row, id, &host_info, ipv4.is_some() || ipv6.is_some(), collector)?;
        let label = label(row, id, collector)?;
        let node_id =
            NodeId::derived(created_at, &[b"headscale", b"nodes", row_name(id).as_bytes()]);
        let last_seen = row.time("last_seen")?;
        let presence = Presence {
            last_seen,
            endpoints: endpoints(row, id, last_seen.unwrap_or(updated_at), collector)?,
            ..Presence::new(node_id)
        };
        let preauth_key = match key.map(|key| self.keys.parents.find(key)) {
            Some(Err(_)) => {
                collector.remark("nodes", id, "imported without the pre-auth key that admitted it, which was left out or is gone");
                None
            }
            other => other.and_then(Result::ok),
        };
        let node = Node {
            id: node_id,
            user,
            tags,
            hostname: hostname(row, id, &label, collector)?,
            label,
            machine_key: row.required("machine_key")?,
            node_key: row.required("node_key")?,
            disco_key: disco_key(row)?,
            ipv4,
            ipv6,
            host_info,
            register_method: register_method(row, id, key, collector)?,
            preauth_key,
            ephemeral: key.is_some_and(|key| self.keys.facts(key).ephemeral),
            expires_at: row.time("expiry")?,
            created_at,
            updated_at,
            revision: Revision::FIRST,
            families: AddressFamilies::Both,
            settings: None,
        };
        Ok(Some(Parts { node, presence, approved: row.list("approved_routes")? }))
    }

    /// The owner and the tags, as the migrations of Headscale up to 0.29.2 leave them.
    fn owner(
        &self,
        row: &Row<'_>,
        id: i64,
        host_info: &HostInfo,
        has_address: bool,
        collector: &mut Collector,
    ) -> Result<(Option<UserId>, TagSet), Reason> {
        let mut tags = row.list("tags")?;
        tags.extend(row.list("forced_tags")?);
        let mut user = row.reference("user_id")?;
        let requested = requested_tags(host_info);
        match (self.grants, user) {
            (None, _) if !requested.is_empty() => collector.remark(
                "nodes",
                id,
                "asks for tags, but the database has no policy to allow them (Headscale may keep it \
                 in a file); not tagged",
            ),
            (Some(grants), Some(user)) => {
                let plain = tags.is_empty() && has_address;
                let mut granted = requested;
                granted.retain(|tag| !tags.contains(tag) && grants.allows(tag, user, plain));
                if !granted.is_empty() {
                    collector.remark("nodes", id, "has tags that it asks for and the policy allows");
                }
                tags.extend(granted);
            }
            _ => {}
        }
        let tags = tag_set(&tags)?;
        if !tags.is_empty() {
            if user.is_some() {
                collector.remark(
                    "nodes",
                    id,
                    "belongs to its tags, no longer to its user, as in Headscale 0.29",
                );
            }
            return Ok((None, tags));
        }
        if user.is_none() {
            let key = row.reference("auth_key_id")?;
            user = key.and_then(|key| self.keys.facts(key).user);
            if user.is_some() {
                collector.remark(
                    "nodes",
                    id,
                    "had lost its user; that of its pre-auth key was taken, as in Headscale 0.29.2",
                );
            }
        }
        let user = user.ok_or("neither a user nor tags: nobody owns it")?;
        Ok((Some(self.users.find(user)?), tags))
    }
}

/// All tags that a node asks for, also those that break the rules for tags.
fn requested_tags(host_info: &HostInfo) -> Vec<String> {
    let value = host_info.object().get("RequestTags");
    value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

/// The client sends its host info again whenever it connects, so damage in it costs little.
fn host_info(row: &Row<'_>, id: i64, collector: &mut Collector) -> Result<HostInfo, Reason> {
    let text = row.filled("host_info")?.filter(|text| text != "null");
    let Some(text) = text else { return Ok(HostInfo::default()) };
    Ok(text.parse().unwrap_or_else(|_| {
        collector.remark(
            "nodes",
            id,
            "the host info is not a JSON object of at most 64 KiB, left out",
        );
        HostInfo::default()
    }))
}

fn hostname(
    row: &Row<'_>,
    id: i64,
    label: &DnsLabel,
    collector: &mut Collector,
) -> Result<Hostname, Reason> {
    if let Some(given) = row.filled("hostname")? {
        let hostname = Hostname::from_outside(&given);
        if hostname.as_str() != given {
            collector.remark("nodes", id, NAME_CHANGED);
        }
        return Ok(hostname);
    }
    collector.remark("nodes", id, "no host name; the given name was taken");
    parse("hostname", label.as_str())
}

/// A label that breaks the rules is not mended: others may know the node by it.
fn label(row: &Row<'_>, id: i64, collector: &mut Collector) -> Result<DnsLabel, Reason> {
    if let Some(label) = row.parsed("given_name")? {
        return Ok(label);
    }
    let hostname = row.filled("hostname")?.ok_or("neither given_name nor hostname")?;
    collector.remark("nodes", id, "no given name; one was made of the host name");
    Ok(DnsLabel::from_hostname(&hostname))
}

/// An all-zero key is one that was never set.
fn disco_key(row: &Row<'_>) -> Result<Option<DiscoKey>, Reason> {
    let text = row.filled("disco_key")?.map(|text| {
        let digits = text.strip_prefix(DiscoKey::PREFIX).unwrap_or(&text);
        if digits.bytes().all(|byte| byte == b'0') { None } else { Some(text) }
    });
    text.flatten().map(|text| parse("disco_key", &text)).transpose()
}

type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);

fn addresses(row: &Row<'_>, id: i64, collector: &mut Collector) -> Result<Addresses, Reason> {
    let (mut v4, mut v6) = (None, None);
    for (column, wants_v4) in [("ipv4", true), ("ipv6", false)] {
        let Some(text) = row.filled(column)? else { continue };
        match address(column, &text)? {
            IpAddr::V4(address) if wants_v4 => v4 = Some(address),
            IpAddr::V6(address) if !wants_v4 => v6 = Some(address),
            _ => return Err(format!("{column}: an address of the other family")),
        }
    }
    // Until early in 0.23 there was one list, of which the first address of each family counts.
    for text in row.filled("ip_addresses")?.iter().flat_map(|list| list.split(',')) {
        match address("ip_addresses", text.trim())? {
            IpAddr::V4(address) => v4 = v4.or(Some(address)),
            IpAddr::V6(address) => v6 = v6.or(Some(address)),
        }
    }
    if v4.is_none() && v6.is_none() {
        collector.remark("nodes", id, "has no address");
    }
    Ok((v4, v6))
}

fn address(column: &str, text: &str) -> Result<IpAddr, Reason> {
    text.parse().map_err(|_| format!("{column}: not an address"))
}

fn register_method(
    row: &Row<'_>,
    id: i64,
    key: Option<i64>,
    collector: &mut Collector,
) -> Result<RegisterMethod, Reason> {
    match row.filled("register_method")?.as_deref() {
        Some("authkey") => Ok(RegisterMethod::AuthKey),
        Some("oidc") => Ok(RegisterMethod::Oidc),
        Some("cli") => Ok(RegisterMethod::Cli),
        Some(_) => Err("register_method: none of authkey, oidc, cli".into()),
        None => {
            collector.remark("nodes", id, "does not say how it was registered; taken from its key");
            Ok(if key.is_some() { RegisterMethod::AuthKey } else { RegisterMethod::Cli })
        }
    }
}

/// The client reports its endpoints again whenever it connects, so some that are wrong cost little.
fn endpoints(
    row: &Row<'_>,
    id: i64,
    seen_at: Timestamp,
    collector: &mut Collector,
) -> Result<EndpointList, Reason> {
    let Ok(texts) = row.list("endpoints") else {
        collector.remark("nodes", id, "the endpoints are not a JSON list, left out");
        return Ok(EndpointList::empty());
    };
    let mut addresses: Vec<SocketAddr> =
        texts.iter().filter_map(|text| text.parse().ok()).collect();
    if addresses.len() < texts.len() {
        collector.remark("nodes", id, "has endpoints that are not an address and port, left out");
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.len() > EndpointList::MAX_ENDPOINTS {
        collector.remark(
            "nodes",
            id,
            "has more than 64 endpoints; the first 64 by address were taken",
        );
        addresses.truncate(EndpointList::MAX_ENDPOINTS);
    }
    let endpoints = addresses.into_iter().map(|addr| Endpoint::new(addr, seen_at));
    EndpointList::new(endpoints).map_err(|error| format!("endpoints: {error}"))
}
