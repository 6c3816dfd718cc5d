//! The workload's rows as this store's entities.

use std::sync::Arc;

use ghostwire_store::Result;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::domain::{
    ActorName, AddressFamilies, Admission, ApiKey, ApiKeyId, AuditEntry, AuditId, DiscoKey,
    DocumentText, Endpoint, EndpointList, MachineKey, MetricPoint, NewUser, Node, NodeId, NodeKey,
    PermissionSet, Policy, PolicyVersion, PreAuthKey, PreAuthKeyId, Prefix, Presence,
    RegisterMethod, Registration, Revision, Route, RouteId, RouteMetric, Sample, SessionNumber,
    TagSet, Text, Timestamp, UserId,
};
use ghostwire_store_bench_workload::rows::{
    AuditRow, CredentialRow, EndpointRow, Machine, NodeRow, PointRow, PolicyRow, PresenceRow,
    RouteRow, Rows, UserRow,
};
use ghostwire_store_core::error::EntityKind;
use ghostwire_store_core::secrets::HashKey;

/// Rows as whole entities. `key` hashes the secrets of credentials.
pub(super) fn images(rows: Rows, key: &HashKey) -> Result<Vec<EntityRecord>> {
    match rows {
        Rows::Users(rows) => rows.into_iter().map(user).collect(),
        Rows::Nodes(rows) => rows.into_iter().map(node).collect(),
        Rows::Presences(rows) => rows.into_iter().map(presence).collect(),
        Rows::Routes(rows) => rows.into_iter().map(route).collect(),
        Rows::PreAuthKeys(rows) => rows.into_iter().map(|row| preauth_key(row, key)).collect(),
        Rows::ApiKeys(rows) => rows.into_iter().map(|row| api_key(row, key)).collect(),
        Rows::Policy(row) => Ok(vec![policy(row)?]),
    }
}

fn time(micros: i64) -> Result<Timestamp> {
    Timestamp::from_micros(micros)
}

fn revision(number: i64) -> Result<Revision> {
    Revision::new(number.unsigned_abs())
}

fn user(row: UserRow) -> Result<EntityRecord> {
    let new = NewUser::local(row.name.parse()?);
    let user = new.created(UserId::from_bytes(row.id), time(row.created_at)?);
    Ok(EntityRecord::User(Arc::new(user)))
}

fn node(row: NodeRow) -> Result<EntityRecord> {
    let tags: Result<Vec<_>> = row.tags.iter().map(|tag| tag.parse()).collect();
    Ok(EntityRecord::Node(Arc::new(Node {
        id: NodeId::from_bytes(row.id),
        user: row.user.map(UserId::from_bytes),
        tags: TagSet::new(tags?)?,
        hostname: row.hostname.parse()?,
        label: row.label.parse()?,
        machine_key: MachineKey::from_bytes(row.machine_key)?,
        node_key: NodeKey::from_bytes(row.node_key)?,
        disco_key: row.disco_key.map(DiscoKey::from_bytes).transpose()?,
        ipv4: row.ipv4,
        ipv6: row.ipv6,
        host_info: row.host_info.parse()?,
        register_method: match row.register_method.as_str() {
            "auth_key" => RegisterMethod::AuthKey,
            _ => RegisterMethod::Oidc,
        },
        preauth_key: row.preauth_key.map(PreAuthKeyId::from_bytes),
        ephemeral: row.ephemeral,
        expires_at: row.expires_at.map(time).transpose()?,
        created_at: time(row.created_at)?,
        updated_at: time(row.updated_at)?,
        revision: revision(row.revision)?,
        families: AddressFamilies::Both,
        settings: None,
    })))
}

/// Endpoints, sorted.
pub(super) fn endpoints(rows: Vec<EndpointRow>) -> Result<EndpointList> {
    let endpoints: Result<Vec<_>> =
        rows.into_iter().map(|row| Ok(Endpoint::new(row.addr, time(row.seen_at)?))).collect();
    EndpointList::new(endpoints?)
}

fn presence(row: PresenceRow) -> Result<EntityRecord> {
    Ok(EntityRecord::Presence(Arc::new(Presence {
        session: SessionNumber::new(row.session.unsigned_abs())?,
        online: row.online,
        last_seen: Some(time(row.last_seen)?),
        endpoints: endpoints(row.endpoints)?,
        ..Presence::new(NodeId::from_bytes(row.node))
    })))
}

fn route(row: RouteRow) -> Result<EntityRecord> {
    Ok(EntityRecord::Route(Arc::new(Route {
        id: RouteId::from_bytes(row.id),
        node: NodeId::from_bytes(row.node),
        prefix: Prefix::new(row.network.into(), row.length)?,
        advertised: row.advertised,
        approved: row.approved,
        primary: row.primary,
        metric: RouteMetric::default(),
        description: None,
        created_at: time(row.created_at)?,
        updated_at: time(row.updated_at)?,
        revision: revision(row.revision)?,
    })))
}

fn preauth_key(row: CredentialRow, key: &HashKey) -> Result<EntityRecord> {
    Ok(EntityRecord::PreAuthKey(Arc::new(PreAuthKey {
        id: PreAuthKeyId::from_bytes(row.id),
        prefix: Some(row.prefix.parse()?),
        hash: key.hash("preauth_key", &row.secret),
        user: Some(UserId::from_bytes(row.user)),
        tags: TagSet::empty(),
        reusable: false,
        ephemeral: false,
        used_at: None,
        created_at: time(row.created_at)?,
        expires_at: Some(time(row.expires_at)?),
        revoked_at: None,
        revision: Revision::FIRST,
    })))
}

fn api_key(row: CredentialRow, key: &HashKey) -> Result<EntityRecord> {
    Ok(EntityRecord::ApiKey(Arc::new(ApiKey {
        id: ApiKeyId::from_bytes(row.id),
        prefix: row.prefix.parse()?,
        hash: key.hash("api_key", &row.secret),
        user: Some(UserId::from_bytes(row.user)),
        description: None,
        permissions: PermissionSet::empty(),
        created_by: None,
        created_at: time(row.created_at)?,
        expires_at: Some(time(row.expires_at)?),
        revoked_at: None,
        last_used_at: None,
        revision: Revision::FIRST,
    })))
}

fn policy(row: PolicyRow) -> Result<EntityRecord> {
    Ok(EntityRecord::Policy(Arc::new(Policy {
        version: PolicyVersion::new(row.version.unsigned_abs())?,
        document: DocumentText::new(row.document)?,
        author: ActorName::system(),
        created_at: time(row.created_at)?,
    })))
}

/// What a machine presents.
pub(crate) fn registration(machine: Machine, admission: Admission) -> Result<Registration> {
    Ok(Registration {
        machine_key: MachineKey::from_bytes(machine.machine_key)?,
        node_key: NodeKey::from_bytes(machine.node_key)?,
        disco_key: Some(DiscoKey::from_bytes(machine.disco_key)?),
        hostname: machine.hostname.parse()?,
        host_info: machine.host_info.parse()?,
        admission,
        expires_at: Some(time(machine.expires_at)?),
        families: None,
    })
}

pub(super) fn points(rows: Vec<PointRow>) -> Result<Vec<MetricPoint>> {
    rows.into_iter()
        .map(|row| {
            Ok(MetricPoint {
                node: Some(NodeId::from_bytes(row.node)),
                metric: row.metric.parse()?,
                at: time(row.at)?,
                value: Sample::new(row.value)?,
            })
        })
        .collect()
}

pub(super) fn entries(rows: Vec<AuditRow>) -> Result<Vec<AuditEntry>> {
    rows.into_iter()
        .map(|row| {
            Ok(AuditEntry::new(
                (time(row.at)?, AuditId::from_bytes(row.id)),
                row.actor.parse()?,
                Text::new(row.action)?,
                EntityKind::Node,
                Text::new(row.subject)?,
            ))
        })
        .collect()
}
