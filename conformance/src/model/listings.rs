//! Everything that can be read, compared with the oracle.

use super::describe::difference;
use super::generator::Known;
use super::operation::Choices;
use super::oracle::{Oracle, is_of};
use super::run::Mismatch;
use super::values::{DNS_NAMES, METRICS, PREFIXES};
use crate::prelude::*;

/// Reads a listing page by page.
macro_rules! pages {
    ($limit:expr, |$page:ident| $list:expr) => {{
        let limit = Limit::new($limit).expect("a limit");
        let mut listed = Vec::new();
        let mut request = PageRequest::first(limit);
        loop {
            let $page = &request;
            let page = $list.await.map_err(|error| format!("a listing gave {error}"))?;
            let is_full = page.items.len() == limit.get();
            if !(is_full || page.next.is_none() && page.items.len() < limit.get()) {
                return Err(format!("a page of at most {limit} has {} items", page.items.len()));
            }
            listed.extend(page.items);
            match page.next {
                Some(next) => request = PageRequest::after(limit, next),
                None => break,
            }
        }
        listed
    }};
}

/// Fails unless both are the same.
fn same<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Compared {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}{}", difference(&format!("{found:#?}"), &format!("{wanted:#?}"))))
}

fn plain<T: Clone>(listed: Vec<Arc<T>>) -> Vec<T> {
    listed.iter().map(|item| T::clone(item)).collect()
}

fn one<T: Clone>(found: Result<Option<Arc<T>>>) -> Result<Option<T>, Mismatch> {
    found.map(|found| found.map(|found| T::clone(&found))).map_err(|error| error.to_string())
}

/// Those of `all` that are wanted, in the order of `key`.
fn wanted<T: Clone, K: Ord>(all: &[T], key: impl Fn(&T) -> K, is: impl Fn(&T) -> bool) -> Vec<T> {
    let mut wanted: Vec<_> = all.iter().filter(|item| is(item)).cloned().collect();
    wanted.sort_by_key(key);
    wanted
}

type Compared = Result<(), Mismatch>;

fn among<T: Clone>(choices: &mut Choices, pool: &[T]) -> Option<T> {
    if pool.is_empty() || !choices.happens(6) { None } else { Some(choices.one_of(pool).clone()) }
}

fn fits<T: PartialEq>(filter: &Option<T>, value: &T) -> bool {
    filter.as_ref().is_none_or(|filter| filter == value)
}

/// Compares listings and lookups.
pub(super) async fn compare(
    store: &Opened,
    oracle: &Oracle,
    known: &Known,
    choices: &mut Choices,
) -> Compared {
    let limit = *choices.one_of(&[2, 1, 3, 100]);
    users(store, oracle, choices, limit).await?;
    nodes(store, oracle, known, choices, limit).await?;
    routes(store, oracle, choices, limit).await?;
    keys(store, oracle, choices, limit).await?;
    documents(store, oracle, choices, limit).await?;
    metrics(store, oracle, limit).await?;
    gone(store, oracle, known).await
}

async fn users(store: &Opened, oracle: &Oracle, choices: &mut Choices, limit: usize) -> Compared {
    let names: Vec<_> = oracle.users.iter().map(|user| user.name.clone()).collect();
    let emails: Vec<_> = oracle.users.iter().filter_map(|user| user.email.clone()).collect();
    let provider = |user: &User| match &user.identity {
        Identity::Oidc { provider, .. } => Some(provider.clone()),
        _ => None,
    };
    let providers: Vec<_> = oracle.users.iter().filter_map(provider).collect();
    let groups: Vec<_> = oracle.users.iter().flat_map(|user| user.groups.iter().cloned()).collect();
    let chosen = UserFilter {
        name: among(choices, &names),
        email: among(choices, &emails),
        provider: among(choices, &providers),
        group: among(choices, &groups),
        role: among(choices, &UserRole::ALL),
    };
    for filter in [UserFilter::default(), chosen] {
        let is = |user: &User| {
            fits(&filter.name, &user.name)
                && (filter.email.is_none() || filter.email == user.email)
                && (filter.provider.is_none() || filter.provider == provider(user))
                && filter.group.as_ref().is_none_or(|group| user.groups.contains(group))
                && fits(&filter.role, &user.role)
        };
        let wanted = wanted(&oracle.users, |user| user.id, is);
        let listed = pages!(limit, |page| store.users().list(&filter, page));
        same(&format!("the listing of users by {filter:?}"), &plain(listed), &wanted)?;
    }
    for user in &oracle.users {
        let local = oracle
            .users
            .iter()
            .find(|other| other.name == user.name && other.identity == Identity::Local {});
        let found = one(store.users().get_by_name(&user.name).await)?;
        same("the local user of a name", &found, &local.cloned())?;
        if let Identity::Oidc { .. } = user.identity {
            let found = one(store.users().get_by_identity(&user.identity).await)?;
            same("the user of an identity", &found, &Some(user.clone()))?;
        }
    }
    Ok(())
}

async fn nodes(
    store: &Opened,
    oracle: &Oracle,
    known: &Known,
    choices: &mut Choices,
    limit: usize,
) -> Compared {
    let tags: Vec<_> = oracle.nodes.iter().flat_map(|node| node.tags.iter().cloned()).collect();
    let chosen = NodeFilter {
        user: among(choices, &known.users),
        tag: among(choices, &tags),
        online: among(choices, &[true, false]),
        ephemeral: among(choices, &[true, false]),
        expired_at: among(choices, &[(true, oracle.now), (false, oracle.now)]),
    };
    for filter in [NodeFilter::default(), chosen] {
        let is = |node: &Node| {
            let is_expired = |at| node.expires_at.is_some_and(|end| end <= at);
            (filter.user.is_none() || filter.user == node.user)
                && filter.tag.as_ref().is_none_or(|tag| node.tags.contains(tag))
                && fits(&filter.online, &oracle.is_online(node.id))
                && fits(&filter.ephemeral, &node.ephemeral)
                && filter.expired_at.is_none_or(|(wanted, at)| is_expired(at) == wanted)
        };
        let wanted = wanted(&oracle.nodes, |node| node.id, is);
        let listed = pages!(limit, |page| store.nodes().list(&filter, page));
        same(&format!("the listing of nodes by {filter:?}"), &plain(listed), &wanted)?;
    }
    for node in &oracle.nodes {
        let wanted = Some(node.clone());
        let found = one(store.nodes().get_by_machine_key(&node.machine_key).await)?;
        same("the node of a machine", &found, &wanted)?;
        let found = one(store.nodes().get_by_node_key(&node.node_key).await)?;
        same("the node of a node key", &found, &wanted)?;
        let found = one(store.nodes().get_by_label(&node.label).await)?;
        same("the node of a label", &found, &wanted)?;
        let addresses = [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)];
        for address in addresses.into_iter().flatten() {
            let found = one(store.nodes().get_by_address(address).await)?;
            same(&format!("the node at {address}"), &found, &wanted)?;
        }
    }
    for number in 1..=8 {
        let is_taken = |bytes: &[u8; 32]| *bytes == [number; 32];
        let key = MachineKey::from_bytes([number; 32]).expect("not zero");
        let found = one(store.nodes().get_by_machine_key(&key).await)?;
        let wanted = oracle.nodes.iter().find(|node| is_taken(node.machine_key.as_bytes()));
        same("the node of a machine key", &found, &wanted.cloned())?;
        let key = NodeKey::from_bytes([number; 32]).expect("not zero");
        let found = one(store.nodes().get_by_node_key(&key).await)?;
        let wanted = oracle.nodes.iter().find(|node| is_taken(node.node_key.as_bytes()));
        same("the node of a node key", &found, &wanted.cloned())?;
    }
    for last in 0..8 {
        let address = IpAddr::from([10, 9, 0, last]);
        let found = one(store.nodes().get_by_address(address).await)?;
        let wanted = oracle.nodes.iter().find(|node| node.ipv4.map(IpAddr::V4) == Some(address));
        same(&format!("the node at {address}"), &found, &wanted.cloned())?;
    }
    for id in &known.nodes {
        let found = one(store.presence().get(*id).await)?;
        let wanted = oracle.presence.iter().find(|presence| presence.node == *id);
        same("a presence", &found, &wanted.cloned())?;
    }
    let instances: Vec<_> = store.view().instances().iter().cloned().collect();
    let wanted = wanted(&oracle.instances, |instance| instance.id, |_| true);
    same("the instances", &plain(instances), &wanted)
}

async fn routes(store: &Opened, oracle: &Oracle, choices: &mut Choices, limit: usize) -> Compared {
    let nodes: Vec<_> = oracle.nodes.iter().map(|node| node.id).collect();
    let chosen = RouteFilter {
        node: among(choices, &nodes),
        prefix: among(choices, &PREFIXES).map(|prefix| prefix.parse().expect("a prefix")),
        approved: among(choices, &[true, false]),
        primary: among(choices, &[true, false]),
    };
    for filter in [RouteFilter::default(), chosen] {
        let is = |route: &Route| {
            fits(&filter.node, &route.node)
                && fits(&filter.prefix, &route.prefix)
                && fits(&filter.approved, &route.approved)
                && fits(&filter.primary, &route.primary)
        };
        let by = |route: &Route| {
            let address = route.prefix.addr();
            (!address.is_ipv4(), address, route.prefix.prefix_len(), route.id)
        };
        let wanted = wanted(&oracle.routes, by, is);
        let listed = pages!(limit, |page| store.routes().list(&filter, page));
        same(&format!("the listing of routes by {filter:?}"), &plain(listed), &wanted)?;
    }
    for address in ["10.1.2.3", "10.1.9.9", "10.200.0.1", "fd00::1", "fd00:1::1", "192.0.2.1"] {
        let address = address.parse().expect("an address");
        let found = one(store.routes().lookup(address).await)?;
        same(&format!("the route to {address}"), &found, &oracle.route_to(address))?;
    }
    Ok(())
}

async fn keys(store: &Opened, oracle: &Oracle, choices: &mut Choices, limit: usize) -> Compared {
    let users: Vec<_> = oracle.users.iter().map(|user| user.id).collect();
    let chosen = KeyFilter {
        user: among(choices, &users),
        active_at: among(choices, &[(true, oracle.now), (false, oracle.now)]),
    };
    let is_over = |end: Option<Timestamp>, at| end.is_some_and(|end| end <= at);
    for filter in [KeyFilter::default(), chosen] {
        let is_user = |user: Option<UserId>| filter.user.is_none() || filter.user == user;
        let wanted_keys = wanted(
            &oracle.api_keys,
            |key| key.id,
            |key| {
                let is_active = |at| key.revoked_at.is_none() && !is_over(key.expires_at, at);
                is_user(key.user)
                    && filter.active_at.is_none_or(|(active, at)| is_active(at) == active)
            },
        );
        let listed = pages!(limit, |page| store.api_keys().list(&filter, page));
        same(&format!("the listing of API keys by {filter:?}"), &plain(listed), &wanted_keys)?;
        let wanted_keys = wanted(
            &oracle.preauth_keys,
            |key| key.id,
            |key| {
                let is_left = key.reusable || key.used_at.is_none();
                let is_active =
                    |at| is_left && key.revoked_at.is_none() && !is_over(key.expires_at, at);
                is_user(key.user)
                    && filter.active_at.is_none_or(|(active, at)| is_active(at) == active)
            },
        );
        let listed = pages!(limit, |page| store.preauth_keys().list(&filter, page));
        same(&format!("the listing of pre-auth keys by {filter:?}"), &plain(listed), &wanted_keys)?;
    }
    let owners: Vec<_> = oracle.sessions.iter().flat_map(Session::parties).collect();
    for owner in [None, among(choices, &owners)] {
        let is = |session: &Session| owner.is_none_or(|owner| is_of(session, owner));
        let wanted = wanted(&oracle.sessions, |session| session.id, is);
        let listed = pages!(limit, |page| store.sessions().list(owner, page));
        same(&format!("the listing of sessions of {owner:?}"), &plain(listed), &wanted)?;
    }
    let wanted = wanted(&oracle.sign_ins, |sign_in| sign_in.id, |_| true);
    let listed = pages!(limit, |page| async { store.view().sign_ins().list(page) });
    same("the sign-ins", &plain(listed), &wanted)
}

async fn documents(
    store: &Opened,
    oracle: &Oracle,
    choices: &mut Choices,
    limit: usize,
) -> Compared {
    let wanted_policies =
        wanted(&oracle.policies, |policy| std::cmp::Reverse(policy.version), |_| true);
    let listed = pages!(limit, |page| store.policies().history(page));
    same("the history of policies", &plain(listed), &wanted_policies)?;
    let current = one(store.policies().current().await)?;
    same("the policy in force", &current, &wanted_policies.first().cloned())?;
    for version in 1..=4 {
        let version = PolicyVersion::new(version).expect("a small number");
        let found = one(store.policies().get(version).await)?;
        let wanted = oracle.policies.iter().find(|policy| policy.version == version);
        same(&format!("policy {version}"), &found, &wanted.cloned())?;
    }
    let chosen = DnsRecordFilter {
        name: among(choices, &DNS_NAMES).map(|name| name.parse().expect("a name")),
        kind: among(choices, &[DnsRecordKind::Txt, DnsRecordKind::Aaaa]),
    };
    for filter in [DnsRecordFilter::default(), chosen] {
        let is = |record: &DnsRecord| {
            fits(&filter.name, &record.name) && fits(&filter.kind, &record.kind)
        };
        let wanted = wanted(&oracle.dns_records, |record| record.id, is);
        let listed = pages!(limit, |page| store.dns().list(&filter, page));
        same(&format!("the listing of DNS records by {filter:?}"), &plain(listed), &wanted)?;
    }
    for kind in SettingKind::ALL {
        let found = one(store.settings().get(kind).await)?;
        same(&format!("settings {}", kind.name()), &found, &oracle.setting(kind).cloned())?;
    }
    let in_force = store.view().settings().network().clone();
    same("the network settings in force", &in_force, &oracle.network())
}

async fn metrics(store: &Opened, oracle: &Oracle, limit: usize) -> Compared {
    let end = Timestamp::MAX;
    let query = |node, metric| MetricQuery {
        node,
        metric,
        from: Timestamp::from_micros(0).unwrap(),
        to: end,
    };
    for metric in [None, Some(METRICS[0].parse().expect("a name"))] {
        for node in [None, Some(None)] {
            let query = query(node, metric.clone());
            let is = |point: &MetricPoint| {
                fits(&query.node, &point.node) && fits(&query.metric, &point.metric)
            };
            let wanted: Vec<_> = oracle.metrics.iter().filter(|point| is(point)).cloned().collect();
            let listed = pages!(limit, |page| store.metrics().range(&query, page));
            same(&format!("the metrics of {query:?}"), &listed, &wanted)?;
        }
    }
    Ok(())
}

/// Everything that was ever created is found as it is, or not at all if it was deleted.
async fn gone(store: &Opened, oracle: &Oracle, known: &Known) -> Compared {
    macro_rules! each {
        ($($entities:ident in $repository:ident),*) => {$(
            for id in &known.$entities {
                let wanted = oracle.$entities.iter().find(|entity| entity.id == *id);
                let found = one(store.$repository().get(*id).await)?;
                same(concat!("one of the ", stringify!($entities)), &found, &wanted.cloned())?;
            }
        )*};
    }
    each!(users in users, nodes in nodes, routes in routes, preauth_keys in preauth_keys);
    each!(api_keys in api_keys, dns_records in dns, instances in instances);
    Ok(())
}
