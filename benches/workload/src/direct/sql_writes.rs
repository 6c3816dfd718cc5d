//! The writes of a direct subject on SQLite.

use super::sql::{Columns, Connection, Value};
use super::sql_schema::*;
use super::{Addresses, admitted, presented, refused, registered};
use crate::credential::{Purpose, hash, proves};
use crate::rows::{
    AuditRow, CredentialRow, Id, Machine, NodeRow, PointRow, PresenceRow, RouteRow, Rows,
};
use crate::subject::{Result, Write};
use crate::targets::now;

/// Carries one write out within a transaction. What can be refused comes first, so that a refused
/// write leaves nothing behind.
pub(super) async fn write<C: Connection>(
    connection: &mut C,
    write: Write,
    addresses: &mut Addresses,
) -> Result<()> {
    match write {
        Write::Register { machine, preauth_key, user } => {
            register(connection, (*machine, preauth_key, user), addresses).await
        }
        Write::Heartbeat { node, at, endpoints } => {
            let changed = match endpoints {
                Some(endpoints) => {
                    let endpoints = Value::Text(serde_json::to_string(&endpoints)?);
                    let values = vec![Value::Integer(at), endpoints, blob(&node)];
                    connection.execute(MOVE, values).await?
                }
                None => connection.execute(BEAT, vec![Value::Integer(at), blob(&node)]).await?,
            };
            if changed == 1 { Ok(()) } else { Err("the node is not connected".into()) }
        }
        Write::Audit(line) => execute(connection, INSERT_AUDIT, audit(line)).await,
        Write::LoadAudit(lines) => {
            for line in lines {
                execute(connection, INSERT_AUDIT, audit(line)).await?;
            }
            Ok(())
        }
        Write::Metrics(points) => {
            for point in points {
                execute(connection, INSERT_POINT, self::point(point)).await?;
            }
            Ok(())
        }
        Write::Load(rows) => load(connection, rows, addresses).await,
    }
}

async fn execute<C: Connection>(
    connection: &mut C,
    sql: &'static str,
    values: Vec<Value>,
) -> Result<()> {
    connection.execute(sql, values).await.map(|_| ())
}

/// A pre-auth key as far as admitting a node needs it: id, hash, user, use, expiry.
type FoundKey = (Vec<u8>, Vec<u8>, Vec<u8>, bool, i64);

fn found_key(row: &dyn Columns) -> Result<FoundKey> {
    match (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?) {
        (
            Value::Blob(id),
            Value::Blob(hash),
            Value::Blob(user),
            used_at,
            Value::Integer(expires_at),
        ) => Ok((id, hash, user, used_at != Value::Null, expires_at)),
        other => Err(format!("a pre-auth key's row is {other:?}").into()),
    }
}

async fn register<C: Connection>(
    connection: &mut C,
    (machine, text, user): (Machine, Option<String>, Id),
    addresses: &mut Addresses,
) -> Result<()> {
    let mut owner = (user, None);
    if let Some(text) = &text {
        let (prefix, secret) = presented(Purpose::PreAuthKey, text)?;
        let prefix = vec![Value::Text(prefix.to_owned())];
        let found = connection.query(FIND_PREAUTH_KEY, prefix, found_key).await?;
        let (id, stored, user, is_used, expires_at) =
            found.into_iter().next().ok_or_else(refused)?;
        if !proves(Purpose::PreAuthKey, secret, &stored) || is_used || expires_at <= now() {
            return Err(refused());
        }
        owner = (user.as_slice().try_into()?, Some(id.as_slice().try_into()?));
    }
    let node = admitted(machine, owner, addresses);
    let line = registered(&node);
    let at = node.created_at;
    execute(connection, INSERT_NODE, self::node(node)).await?;
    addresses.take();
    if let (_, Some(id)) = owner {
        execute(connection, USE_PREAUTH_KEY, vec![Value::Integer(at), blob(&id)]).await?;
    }
    execute(connection, INSERT_AUDIT, audit(line)).await
}

async fn load<C: Connection>(
    connection: &mut C,
    rows: Rows,
    addresses: &mut Addresses,
) -> Result<()> {
    if let Rows::Nodes(nodes) = &rows {
        addresses.take_many(nodes.len());
    }
    let (table, rows) = values(rows)?;
    let sql = match table {
        Table::Users => INSERT_USER,
        Table::Nodes => INSERT_NODE,
        Table::Presence => INSERT_PRESENCE,
        Table::Routes => INSERT_ROUTE,
        Table::PreAuthKeys => INSERT_PREAUTH_KEY,
        Table::ApiKeys => INSERT_API_KEY,
        Table::Policies => INSERT_POLICY,
    };
    for values in rows {
        execute(connection, sql, values).await?;
    }
    Ok(())
}

/// The tables that rows are loaded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Users,
    Nodes,
    Presence,
    Routes,
    PreAuthKeys,
    ApiKeys,
    Policies,
}

/// Rows as their table's columns.
pub fn values(rows: Rows) -> Result<(Table, Vec<Vec<Value>>)> {
    Ok(match rows {
        Rows::Users(users) => {
            let values = |user: crate::rows::UserRow| {
                vec![blob(&user.id), Value::Text(user.name), Value::Integer(user.created_at)]
            };
            (Table::Users, users.into_iter().map(values).collect())
        }
        Rows::Nodes(nodes) => (Table::Nodes, nodes.into_iter().map(node).collect()),
        Rows::Presences(presences) => {
            let values: Result<_> = presences.into_iter().map(presence).collect();
            (Table::Presence, values?)
        }
        Rows::Routes(routes) => (Table::Routes, routes.into_iter().map(route).collect()),
        Rows::PreAuthKeys(keys) => {
            let values = |key| {
                let mut values = credential(Purpose::PreAuthKey, key);
                // Nobody has used it.
                values.insert(4, Value::Null);
                values
            };
            (Table::PreAuthKeys, keys.into_iter().map(values).collect())
        }
        Rows::ApiKeys(keys) => {
            let values = keys.into_iter().map(|key| credential(Purpose::ApiKey, key));
            (Table::ApiKeys, values.collect())
        }
        Rows::Policy(policy) => {
            let version = Value::Integer(policy.version);
            let created_at = Value::Integer(policy.created_at);
            (Table::Policies, vec![vec![version, Value::Text(policy.document), created_at]])
        }
    })
}

pub fn blob(bytes: &[u8]) -> Value {
    Value::Blob(bytes.to_vec())
}

fn text(text: &dyn std::fmt::Display) -> Value {
    Value::Text(text.to_string())
}

fn flag(flag: bool) -> Value {
    Value::Integer(i64::from(flag))
}

fn or_null<T>(value: Option<T>, with: impl Fn(T) -> Value) -> Value {
    value.map_or(Value::Null, with)
}

pub fn node(node: NodeRow) -> Vec<Value> {
    let tags = if node.tags.is_empty() {
        "[]".to_owned()
    } else {
        serde_json::to_string(&node.tags).unwrap_or_default()
    };
    vec![
        blob(&node.id),
        or_null(node.user, |user| blob(&user)),
        Value::Text(tags),
        Value::Text(node.hostname),
        Value::Text(node.label),
        blob(&node.machine_key),
        blob(&node.node_key),
        or_null(node.disco_key, |key| blob(&key)),
        or_null(node.ipv4, |address| text(&address)),
        or_null(node.ipv6, |address| text(&address)),
        Value::Text(node.host_info),
        Value::Text(node.register_method),
        or_null(node.preauth_key, |key| blob(&key)),
        flag(node.ephemeral),
        or_null(node.expires_at, Value::Integer),
        Value::Integer(node.created_at),
        Value::Integer(node.updated_at),
        Value::Integer(node.revision),
    ]
}

fn presence(presence: PresenceRow) -> Result<Vec<Value>> {
    Ok(vec![
        blob(&presence.node),
        Value::Integer(presence.session),
        flag(presence.online),
        Value::Integer(presence.last_seen),
        Value::Text(serde_json::to_string(&presence.endpoints)?),
    ])
}

fn route(route: RouteRow) -> Vec<Value> {
    vec![
        blob(&route.id),
        blob(&route.node),
        prefix(route.network, route.length),
        flag(route.advertised),
        flag(route.approved),
        flag(route.primary),
        Value::Integer(route.created_at),
        Value::Integer(route.updated_at),
        Value::Integer(route.revision),
    ]
}

/// As the table of routes has it.
pub(super) fn prefix(network: std::net::Ipv4Addr, length: u8) -> Value {
    let [a, b, c, d] = network.octets();
    Value::Blob(vec![a, b, c, d, length])
}

fn credential(purpose: Purpose, key: CredentialRow) -> Vec<Value> {
    vec![
        blob(&key.id),
        Value::Text(key.prefix),
        blob(&hash(purpose, &key.secret)),
        blob(&key.user),
        Value::Integer(key.created_at),
        Value::Integer(key.expires_at),
    ]
}

pub fn audit(line: AuditRow) -> Vec<Value> {
    vec![
        Value::Integer(line.at),
        blob(&line.id),
        Value::Text(line.actor),
        Value::Text(line.action),
        Value::Text(line.entity),
        Value::Text(line.subject),
    ]
}

pub fn point(point: PointRow) -> Vec<Value> {
    let metric = Value::Text(point.metric);
    vec![blob(&point.node), metric, Value::Integer(point.at), Value::Real(point.value)]
}
