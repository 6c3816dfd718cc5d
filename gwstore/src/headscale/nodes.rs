//! Nodes and their presence.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    AddressFamilies, DiscoKey, DnsLabel, Endpoint, EndpointList, HostInfo, Hostname, Node, NodeId,
    Prefix, Presence, RegisterMethod, Revision, TagSet, Timestamp, UserId, expired,
};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, Fate, Parents, Rank, UNRANKED, Unfit};
use super::keys::{Keys, TAGS_UNREADABLE, tag_set};
use super::mapping::{NAME_CHANGED, created, row_name, skip_deleted, updated};
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
    row: i64,
    node: Node,
    presence: Presence,
    approved: Vec<String>,
}

impl Parts {
    /// Of two nodes that cannot both come in, the one stays that has not expired and was seen last.
    fn rank(&self, now: Timestamp) -> Rank {
        (expired(self.node.expires_at, now), Reverse(self.presence.last_seen))
    }
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
    now: Timestamp,
    users: &Parents<UserId>,
    keys: &Keys,
    grants: &Option<TagGrants>,
    collector: &mut Collector,
) -> Result<Nodes> {
    let importer = Importer { users, keys, grants: grants.as_ref() };
    let mut parents = Parents::new("node", "nodes");
    let mut found = Vec::new();
    tables.each("nodes", "id", |row| {
        let id = row.id()?;
        parents.set(id, Fate::LeftOut);
        match importer.node(row, id, collector) {
            Ok(None) => parents.set(id, Fate::Deleted),
            Ok(Some(parts)) => {
                parents.set(id, Fate::Imported(parts.node.id));
                found.push(parts);
            }
            Err(unfit) => collector.unfit("nodes", id, unfit),
        }
        Ok(())
    })?;
    give_labels(&mut found, now, collector);
    share_no_address(&mut found, now, collector);
    let candidate = |parts: &Parts| Candidate {
        image: EntityRecord::from(parts.node.clone()),
        table: "nodes",
        id: parts.row,
        rank: parts.rank(now),
    };
    let taken = collector.admit(found.iter().map(candidate).collect())?;
    let (mut presences, mut routes) = (Vec::new(), Vec::new());
    for (Parts { row, node, presence, approved }, taken) in found.into_iter().zip(taken) {
        if !taken {
            parents.set(row, Fate::LeftOut);
            continue;
        }
        if presence.last_seen.is_some() || !presence.endpoints.is_empty() {
            let image = EntityRecord::from(presence);
            presences.push(Candidate { image, table: "nodes", id: row, rank: UNRANKED });
        }
        routes.push(NodeRoutes {
            row,
            node: node.id,
            created_at: node.created_at,
            updated_at: node.updated_at,
            advertised: node.host_info.routable_prefixes(),
            approved,
        });
    }
    collector.admit(presences)?;
    Ok(Nodes { parents, routes })
}

/// Gives each node a label of its own: of those with the same one, the one keeps it that would stay if
/// only one could, and the others get one as a registration would make it.
fn give_labels(found: &mut [Parts], now: Timestamp, collector: &mut Collector) {
    let mut ranked: Vec<&mut Parts> = found.iter_mut().collect();
    ranked.sort_by_key(|parts| parts.rank(now));
    let mut taken = HashSet::new();
    let (_, late): (Vec<_>, Vec<_>) =
        ranked.into_iter().partition(|parts| taken.insert(parts.node.label.clone()));
    for Parts { row, node, .. } in late {
        let Some(label) = node.label.free_for(node.id, |label| !taken.contains(label)) else {
            continue;
        };
        let reason = format!("another node is called {}; this one is called {label}", node.label);
        collector.repaired("nodes", *row, reason);
        taken.insert(label.clone());
        node.label = label;
    }
}

/// Of nodes with one address the one keeps it that would stay if only one could; the others go without.
fn share_no_address(found: &mut [Parts], now: Timestamp, collector: &mut Collector) {
    let mut ranked: Vec<&mut Parts> = found.iter_mut().collect();
    ranked.sort_by_key(|parts| parts.rank(now));
    let (mut v4, mut v6) = (HashSet::new(), HashSet::new());
    for Parts { row, node, .. } in ranked {
        let taken = [
            node.ipv4.take_if(|address| !v4.insert(*address)).map(IpAddr::V4),
            node.ipv6.take_if(|address| !v6.insert(*address)).map(IpAddr::V6),
        ];
        for address in taken.into_iter().flatten() {
            let reason = format!(
                "another node has its address {address}, so it has none of that family; `gwstore node \
                 backfillips` gives it a free one"
            );
            collector.repaired("nodes", *row, reason);
        }
    }
}

impl Importer<'_> {
    fn node(
        &self,
        row: &Row<'_>,
        id: i64,
        collector: &mut Collector,
    ) -> Result<Option<Parts>, Unfit> {
        if skip_deleted(row, id, collector) {
            return Ok(None);
        }
        let at = (row.table, id);
        let created_at = created(row, id, collector);
        let updated_at = updated(row, id, created_at, collector);
        let host_info = host_info(row, id, collector);
        let (ipv4, ipv6) = addresses(row, id, collector)?;
        let key = row.reference("auth_key_id").ok().flatten();
        let has_address = ipv4.is_some() || ipv6.is_some();
        let (user, tags) = self.owner(row, id, key, &host_info, has_address, collector)?;
        let label = label(row, id, collector);
        let node_id =
            NodeId::derived(created_at, &[b"headscale", b"nodes", row_name(id).as_bytes()]);
        let reason = "the time at which it was last seen cannot be read, left out";
        let last_seen = collector.or_repaired(at, row.time("last_seen"), None, reason);
        let presence = Presence {
            last_seen,
            endpoints: endpoints(row, id, last_seen.unwrap_or(updated_at), collector),
            ..Presence::new(node_id)
        };
        let preauth_key = match key.map(|key| self.keys.parents.find(key)) {
            Some(Err(_)) => {
                collector.repaired("nodes", id, "imported without the pre-auth key that admitted it, which was left out or is gone");
                None
            }
            other => other.and_then(Result::ok),
        };
        let reason = "the approved routes are not a JSON list of texts; none was taken";
        let approved = collector.or_repaired(at, row.list("approved_routes"), Vec::new(), reason);
        let node = Node {
            id: node_id,
            user,
            hostname: hostname(row, id, &label, collector)?,
            label,
            machine_key: row.required("machine_key")?,
            node_key: row.required("node_key")?,
            disco_key: disco_key(row, id, collector),
            ipv4,
            ipv6,
            host_info,
            register_method: register_method(row, id, key, collector),
            preauth_key,
            ephemeral: key.is_some_and(|key| self.keys.facts(key).ephemeral),
            expires_at: expiry(row, id, &tags, created_at, collector),
            tags,
            created_at,
            updated_at,
            revision: Revision::FIRST,
            families: AddressFamilies::Both,
            settings: None,
        };
        Ok(Some(Parts { row: id, node, presence, approved }))
    }

    /// The owner and the tags, as the migrations of Headscale up to 0.29.3 leave them.
    fn owner(
        &self,
        row: &Row<'_>,
        id: i64,
        key: Option<i64>,
        host_info: &HostInfo,
        has_address: bool,
        collector: &mut Collector,
    ) -> Result<(Option<UserId>, TagSet), Unfit> {
        let at = (row.table, id);
        let mut tags = Vec::new();
        for column in ["tags", "forced_tags"] {
            tags.extend(collector.or_repaired(at, row.list(column), Vec::new(), TAGS_UNREADABLE));
        }
        let mut user = row.reference("user_id")?;
        let requested = requested_tags(host_info);
        match (self.grants, user) {
            (None, _) if !requested.is_empty() => collector.repaired(
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
                    collector.repaired(
                        "nodes",
                        id,
                        "has tags that it asks for and the policy allows",
                    );
                }
                tags.extend(granted);
            }
            _ => {}
        }
        let tags = tag_set(at, &tags, collector);
        if !tags.is_empty() {
            if user.is_some() {
                collector.repaired(
                    "nodes",
                    id,
                    "belongs to its tags, no longer to its user, as in Headscale 0.29",
                );
            }
            return Ok((None, tags));
        }
        if user.is_none() {
            user = key.and_then(|key| self.keys.facts(key).user);
            if user.is_some() {
                collector.repaired(
                    "nodes",
                    id,
                    "had lost its user; that of its pre-auth key was taken, as in Headscale 0.29.2",
                );
            }
        }
        let user = user.ok_or("neither a user nor tags: nobody owns it")?;
        let user = self.users.find(user).map_err(|missing| Unfit::Problem(missing.reason))?;
        Ok((Some(user), tags))
    }
}

/// When the node key ends. One whose end cannot be read is over, so that its machine has to sign in again;
/// nodes that belong to tags never end.
fn expiry(
    row: &Row<'_>,
    id: i64,
    tags: &TagSet,
    created_at: Timestamp,
    collector: &mut Collector,
) -> Option<Timestamp> {
    let expiry = row.time("expiry");
    if !tags.is_empty() {
        if expiry != Ok(None) {
            collector.repaired(
                "nodes",
                id,
                "belongs to its tags, so it never expires, as in Headscale 0.29.3; its expiry was \
                 left out",
            );
        }
        return None;
    }
    let reason = "the expiry cannot be read; its node key counts as expired";
    collector.or_repaired((row.table, id), expiry, Some(created_at), reason)
}

/// All tags that a node asks for, also those that break the rules for tags.
fn requested_tags(host_info: &HostInfo) -> Vec<String> {
    let value = host_info.object().get("RequestTags");
    value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

/// The client sends its host info again whenever it connects, so damage in it costs little.
fn host_info(row: &Row<'_>, id: i64, collector: &mut Collector) -> HostInfo {
    let text = row.filled("host_info").map(|text| text.filter(|text| text != "null"));
    let read = text.map_err(drop).and_then(|text| match text {
        Some(text) => text.parse().map_err(drop),
        None => Ok(HostInfo::default()),
    });
    let reason = "the host info is not a JSON object of at most 64 KiB, left out";
    collector.or_repaired((row.table, id), read, HostInfo::default(), reason)
}

fn hostname(
    row: &Row<'_>,
    id: i64,
    label: &DnsLabel,
    collector: &mut Collector,
) -> Result<Hostname, Reason> {
    if let Some(given) = row.filled("hostname").ok().flatten() {
        let hostname = Hostname::from_outside(&given);
        if hostname.as_str() != given {
            collector.repaired("nodes", id, NAME_CHANGED);
        }
        return Ok(hostname);
    }
    collector.repaired("nodes", id, "no host name; the given name was taken");
    parse("hostname", label.as_str())
}

/// The label, or else one that is made of what the node is called.
fn label(row: &Row<'_>, id: i64, collector: &mut Collector) -> DnsLabel {
    let given = row.filled("given_name").ok().flatten();
    if let Some(label) = given.as_ref().and_then(|given| given.parse().ok()) {
        return label;
    }
    if let Some(given) = given {
        let label = DnsLabel::from_hostname(&given);
        let given = given.chars().take(100).collect::<String>();
        let reason = format!("the given name {given:?} is no DNS label; it became {label}");
        collector.repaired("nodes", id, reason);
        return label;
    }
    collector.repaired("nodes", id, "no given name; one was made of the host name");
    DnsLabel::from_hostname(&row.filled("hostname").ok().flatten().unwrap_or_default())
}

/// An all-zero key is one that was never set. The client sends its key again whenever it connects.
fn disco_key(row: &Row<'_>, id: i64, collector: &mut Collector) -> Option<DiscoKey> {
    let is_set = |text: &String| {
        let digits = text.strip_prefix(DiscoKey::PREFIX).unwrap_or(text);
        digits.bytes().any(|byte| byte != b'0')
    };
    let text = row.filled("disco_key").map(|text| text.filter(is_set));
    let key = text.and_then(|text| text.map(|text| parse("disco_key", &text)).transpose());
    collector.or_repaired((row.table, id), key, None, "the disco key is none, left out")
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
        collector.repaired("nodes", id, "has no address");
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
) -> RegisterMethod {
    let text = row.filled("register_method").ok().flatten();
    match text.as_deref() {
        Some("authkey") => return RegisterMethod::AuthKey,
        Some("oidc") => return RegisterMethod::Oidc,
        Some("cli") => return RegisterMethod::Cli,
        _ => {}
    }
    let letters = text.map(|text| {
        let mut text = text.to_ascii_lowercase();
        text.retain(|character| character.is_ascii_alphanumeric());
        text
    });
    let meant = letters.as_deref().map(|text| text.strip_prefix("registermethod").unwrap_or(text));
    let (method, reason) = match meant {
        Some("authkey" | "preauthkey") => (RegisterMethod::AuthKey, METHOD_WRITTEN_OTHERWISE),
        Some("oidc") => (RegisterMethod::Oidc, METHOD_WRITTEN_OTHERWISE),
        Some("cli") => (RegisterMethod::Cli, METHOD_WRITTEN_OTHERWISE),
        _ => {
            let of_key = if key.is_some() { RegisterMethod::AuthKey } else { RegisterMethod::Cli };
            (of_key, "does not say how it was registered, or not as we know it; taken from its key")
        }
    };
    collector.repaired("nodes", id, reason);
    method
}

const METHOD_WRITTEN_OTHERWISE: &str =
    "says how it was registered in another spelling than Headscale's own";

/// The client reports its endpoints again whenever it connects, so some that are wrong cost little.
fn endpoints(
    row: &Row<'_>,
    id: i64,
    seen_at: Timestamp,
    collector: &mut Collector,
) -> EndpointList {
    let Ok(texts) = row.list("endpoints") else {
        collector.repaired("nodes", id, "the endpoints are not a JSON list, left out");
        return EndpointList::empty();
    };
    let mut addresses: Vec<SocketAddr> =
        texts.iter().filter_map(|text| text.parse().ok()).collect();
    if addresses.len() < texts.len() {
        collector.repaired("nodes", id, "has endpoints that are not an address and port, left out");
    }
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.len() > EndpointList::MAX_ENDPOINTS {
        collector.repaired(
            "nodes",
            id,
            "has more than 64 endpoints; the first 64 by address were taken",
        );
        addresses.truncate(EndpointList::MAX_ENDPOINTS);
    }
    let endpoints = addresses.into_iter().map(|addr| Endpoint::new(addr, seen_at));
    EndpointList::new(endpoints).unwrap_or_else(|_| EndpointList::empty())
}
