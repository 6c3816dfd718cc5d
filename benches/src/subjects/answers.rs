//! This store's entities as the workload's rows, for comparing subjects.

use ghostwire_store::domain::{
    AuditEntry, MetricPoint, Node, Presence, RegisterMethod, Route, User,
};
use ghostwire_store_bench_workload::rows::{
    AuditRow, EndpointRow, NodeRow, PointRow, PresenceRow, RouteRow, UserRow,
};
use ghostwire_store_bench_workload::subject::{NetMapAnswer, Result};
use ghostwire_store_core::netmap::NetMap;

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn user(user: &User) -> UserRow {
    UserRow {
        id: *user.id.as_bytes(),
        name: user.name.to_string(),
        created_at: user.created_at.as_micros(),
    }
}

pub(super) fn node(node: &Node) -> NodeRow {
    NodeRow {
        id: *node.id.as_bytes(),
        user: node.user.map(|user| *user.as_bytes()),
        tags: node.tags.iter().map(ToString::to_string).collect(),
        hostname: node.hostname.to_string(),
        label: node.label.to_string(),
        machine_key: *node.machine_key.as_bytes(),
        node_key: *node.node_key.as_bytes(),
        disco_key: node.disco_key.map(|key| *key.as_bytes()),
        ipv4: node.ipv4,
        ipv6: node.ipv6,
        host_info: node.host_info.to_string(),
        register_method: match node.register_method {
            RegisterMethod::AuthKey => "auth_key",
            _ => "oidc",
        }
        .to_owned(),
        preauth_key: node.preauth_key.map(|key| *key.as_bytes()),
        ephemeral: node.ephemeral,
        expires_at: node.expires_at.map(|at| at.as_micros()),
        created_at: node.created_at.as_micros(),
        updated_at: node.updated_at.as_micros(),
        revision: signed(node.revision.get()),
    }
}

fn presence(presence: &Presence) -> PresenceRow {
    PresenceRow {
        node: *presence.node.as_bytes(),
        session: signed(presence.session.get()),
        online: presence.online,
        last_seen: presence.last_seen.map_or(0, |at| at.as_micros()),
        endpoints: presence
            .endpoints
            .iter()
            .map(|endpoint| EndpointRow {
                addr: endpoint.addr,
                seen_at: endpoint.seen_at.as_micros(),
            })
            .collect(),
    }
}

pub(super) fn route(route: &Route) -> Result<RouteRow> {
    let std::net::IpAddr::V4(network) = route.prefix.addr() else {
        return Err("the workload has IPv4 routes only".into());
    };
    Ok(RouteRow {
        id: *route.id.as_bytes(),
        node: *route.node.as_bytes(),
        network,
        length: route.prefix.prefix_len(),
        advertised: route.advertised,
        approved: route.approved,
        primary: route.primary,
        created_at: route.created_at.as_micros(),
        updated_at: route.updated_at.as_micros(),
        revision: signed(route.revision.get()),
    })
}

pub(super) fn net_map(map: &NetMap) -> Result<NetMapAnswer> {
    let routes: Result<Vec<_>> = map.routes.iter().map(|found| route(found)).collect();
    let peers = map
        .peers()
        .map(|peer| (node(&peer.node), peer.presence.as_deref().map(presence)))
        .collect();
    let document = map.policy.as_ref().map(|policy| policy.document.as_str().to_owned());
    Ok(NetMapAnswer {
        peers,
        routes: routes?,
        users: map.users.iter().map(|found| user(found)).collect(),
        document: document.unwrap_or_default(),
    })
}

pub(super) fn point(point: &MetricPoint) -> PointRow {
    PointRow {
        node: point.node.map(|node| *node.as_bytes()).unwrap_or_default(),
        metric: point.metric.to_string(),
        at: point.at.as_micros(),
        value: point.value.get(),
    }
}

pub(super) fn line(entry: &AuditEntry) -> AuditRow {
    AuditRow {
        id: *entry.id.as_bytes(),
        at: entry.at.as_micros(),
        actor: entry.actor.to_string(),
        action: entry.action.to_string(),
        entity: entry.entity.to_string(),
        subject: entry.subject.to_string(),
    }
}
