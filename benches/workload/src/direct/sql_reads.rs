//! The reads of a direct subject on SQLite.

use std::net::Ipv4Addr;

use super::presented;
use super::sql::{Columns, Connection, Value};
use super::sql_schema::*;
use super::sql_writes::{blob, prefix};
use crate::credential::{Purpose, proves};
use crate::data::METRIC;
use crate::rows::{AuditRow, NodeRow, PointRow, PresenceRow, RouteRow, UserRow};
use crate::subject::{Answer, NetMapAnswer, PolicyAnswer, Principal, Read, Result};
use crate::targets::now;

/// A page ends after so many rows.
const PAGE: usize = 1_000;

pub async fn answer<C: Connection>(connection: &mut C, read: &Read<'_>) -> Result<Answer> {
    let mut one = async |sql, value| {
        let found = connection.query(sql, vec![value], node).await?;
        Ok(Answer::Node(found.into_iter().next().map(Box::new)))
    };
    match read {
        Read::NodeById(id) => one(NODE_BY_ID, blob(id)).await,
        Read::NodeByKey(key) => one(NODE_BY_KEY, blob(*key)).await,
        Read::NodeByLabel(label) => one(NODE_BY_LABEL, Value::Text((*label).to_owned())).await,
        Read::OnlineNodes => {
            let after = |last: Option<&NodeRow>| {
                vec![last.map_or(Value::Blob(Vec::new()), |last| blob(&last.id))]
            };
            Ok(Answer::Nodes(pages(connection, ONLINE_NODES, after, node).await?))
        }
        Read::NetMap(id) => {
            let peers = connection.query(NODES_WITH_PRESENCE, vec![blob(id)], peer).await?;
            let routes = connection.query(ROUTES_IN_USE, Vec::new(), route).await?;
            let users = connection.query(USERS, Vec::new(), user).await?;
            let document = document(connection).await?;
            Ok(Answer::NetMap(Box::new(NetMapAnswer { peers, routes, users, document })))
        }
        Read::PolicyInput => {
            let nodes = connection.query(PRINCIPALS, Vec::new(), principal).await?;
            let users = connection.query(USERS, Vec::new(), user).await?;
            let document = document(connection).await?;
            Ok(Answer::Policy(Box::new(PolicyAnswer { document, users, nodes })))
        }
        Read::Route(address) => {
            // The longest first; a default route has no primary.
            let candidates = (1..=32_u8).rev().map(|length| {
                let mask = u32::MAX << (32 - u32::from(length));
                prefix(Ipv4Addr::from(u32::from(*address) & mask), length)
            });
            let found = connection.query(ROUTE, candidates.collect(), route).await?;
            Ok(Answer::Route(found.into_iter().next()))
        }
        Read::ApiKey(text) => {
            let Ok((public, secret)) = presented(Purpose::ApiKey, text) else {
                return Ok(Answer::Valid(false));
            };
            let public = vec![Value::Text(public.to_owned())];
            let found = connection.query(API_KEY, public, |row| Ok((row.get(0)?, row.get(1)?)));
            let valid = match found.await?.first() {
                Some((Value::Blob(stored), Value::Integer(expires_at))) => {
                    proves(Purpose::ApiKey, secret, stored) && *expires_at > now()
                }
                _ => false,
            };
            Ok(Answer::Valid(valid))
        }
        Read::MetricRange { node, from, to } => {
            let after = |last: Option<&PointRow>| {
                let from = last.map_or(*from, |last| last.at + 1);
                let metric = Value::Text(METRIC.to_owned());
                vec![blob(node), metric, Value::Integer(from), Value::Integer(*to)]
            };
            Ok(Answer::Points(pages(connection, POINTS, after, point).await?))
        }
        Read::AuditPage { from, to } => {
            let values = vec![Value::Integer(*from), Value::Integer(*to)];
            Ok(Answer::Audit(connection.query(AUDIT_PAGE, values, audit).await?))
        }
        Read::Nothing => Ok(Answer::Nothing),
    }
}

/// All rows, a page after the other: `after` gives the values that ask for what follows a row.
async fn pages<C: Connection, R: Send + Sync + 'static>(
    connection: &mut C,
    sql: &'static str,
    after: impl Fn(Option<&R>) -> Vec<Value>,
    read: fn(&dyn Columns) -> Result<R>,
) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    loop {
        let page = connection.query(sql, after(rows.last()), read).await?;
        let is_last = page.len() < PAGE;
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

async fn document<C: Connection>(connection: &mut C) -> Result<String> {
    let found = connection.query(POLICY, Vec::new(), |row| text(row, 0)).await?;
    Ok(found.into_iter().next().unwrap_or_default())
}

fn unexpected<T>(value: &Value, index: usize) -> Result<T> {
    Err(format!("column {index} has {value:?}").into())
}

fn integer(row: &dyn Columns, index: usize) -> Result<i64> {
    match row.get(index)? {
        Value::Integer(number) => Ok(number),
        other => unexpected(&other, index),
    }
}

fn text(row: &dyn Columns, index: usize) -> Result<String> {
    match row.get(index)? {
        Value::Text(text) => Ok(text),
        other => unexpected(&other, index),
    }
}

fn maybe<T>(
    row: &dyn Columns,
    index: usize,
    with: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>> {
    match row.get(index)? {
        Value::Null => Ok(None),
        other => with(&other).map_or_else(|| unexpected(&other, index), |found| Ok(Some(found))),
    }
}

fn maybe_bytes<const N: usize>(row: &dyn Columns, index: usize) -> Result<Option<[u8; N]>> {
    match row.get(index)? {
        Value::Null => Ok(None),
        Value::Blob(bytes) => Ok(Some(bytes.as_slice().try_into()?)),
        other => unexpected(&other, index),
    }
}

fn bytes<const N: usize>(row: &dyn Columns, index: usize) -> Result<[u8; N]> {
    maybe_bytes(row, index)?.ok_or_else(|| format!("column {index} is null").into())
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Option<T> {
    if let Value::Text(text) = value { text.parse().ok() } else { None }
}

fn tags(row: &dyn Columns, index: usize) -> Result<Vec<String>> {
    match text(row, index)?.as_str() {
        "[]" => Ok(Vec::new()),
        text => Ok(serde_json::from_str(text)?),
    }
}

fn user(row: &dyn Columns) -> Result<UserRow> {
    Ok(UserRow { id: bytes(row, 0)?, name: text(row, 1)?, created_at: integer(row, 2)? })
}

fn node(row: &dyn Columns) -> Result<NodeRow> {
    Ok(NodeRow {
        id: bytes(row, 0)?,
        user: maybe_bytes(row, 1)?,
        tags: tags(row, 2)?,
        hostname: text(row, 3)?,
        label: text(row, 4)?,
        machine_key: bytes(row, 5)?,
        node_key: bytes(row, 6)?,
        disco_key: maybe_bytes(row, 7)?,
        ipv4: maybe(row, 8, parsed)?,
        ipv6: maybe(row, 9, parsed)?,
        host_info: text(row, 10)?,
        register_method: text(row, 11)?,
        preauth_key: maybe_bytes(row, 12)?,
        ephemeral: integer(row, 13)? != 0,
        expires_at: match row.get(14)? {
            Value::Integer(at) => Some(at),
            _ => None,
        },
        created_at: integer(row, 15)?,
        updated_at: integer(row, 16)?,
        revision: integer(row, 17)?,
    })
}

fn peer(row: &dyn Columns) -> Result<(NodeRow, Option<PresenceRow>)> {
    let node = node(row)?;
    let presence = match row.get(18)? {
        Value::Integer(session) => Some(PresenceRow {
            node: node.id,
            session,
            online: integer(row, 19)? != 0,
            last_seen: integer(row, 20)?,
            endpoints: serde_json::from_str(&text(row, 21)?)?,
        }),
        _ => None,
    };
    Ok((node, presence))
}

fn principal(row: &dyn Columns) -> Result<Principal> {
    let addresses = (maybe(row, 3, parsed)?, maybe(row, 4, parsed)?);
    Ok((bytes(row, 0)?, maybe_bytes(row, 1)?, tags(row, 2)?, addresses.0, addresses.1))
}

fn route(row: &dyn Columns) -> Result<RouteRow> {
    let [a, b, c, d, length] = bytes(row, 2)?;
    Ok(RouteRow {
        id: bytes(row, 0)?,
        node: bytes(row, 1)?,
        network: Ipv4Addr::new(a, b, c, d),
        length,
        advertised: integer(row, 3)? != 0,
        approved: integer(row, 4)? != 0,
        primary: integer(row, 5)? != 0,
        created_at: integer(row, 6)?,
        updated_at: integer(row, 7)?,
        revision: integer(row, 8)?,
    })
}

fn point(row: &dyn Columns) -> Result<PointRow> {
    let value = match row.get(3)? {
        Value::Real(value) => value,
        other => return unexpected(&other, 3),
    };
    Ok(PointRow { node: bytes(row, 0)?, metric: text(row, 1)?, at: integer(row, 2)?, value })
}

fn audit(row: &dyn Columns) -> Result<AuditRow> {
    Ok(AuditRow {
        at: integer(row, 0)?,
        id: bytes(row, 1)?,
        actor: text(row, 2)?,
        action: text(row, 3)?,
        entity: text(row, 4)?,
        subject: text(row, 5)?,
    })
}
