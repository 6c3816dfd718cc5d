//! Routes: until 0.25 in a table of their own, since then in the nodes' rows.

use std::collections::BTreeMap;

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{Prefix, Revision, Route, RouteId, RouteMetric};
use ghostwire_store_core::error::Result;

use super::collect::{Candidate, Collector, UNRANKED, Unfit};
use super::findings::counted;
use super::mapping::{created, row_name, skip_deleted, updated};
use super::nodes::{NodeRoutes, Nodes};
use super::release::Origin;
use super::tables::{Row, Tables};

/// Routes by the node's row and the prefix, with the row that each is made of.
type Found = BTreeMap<(i64, Prefix), (&'static str, i64, Route)>;

pub(super) fn routes(
    tables: &Tables,
    origin: &Origin,
    nodes: Nodes,
    collector: &mut Collector,
) -> Result<()> {
    let mut found = Found::new();
    if origin.has_routes_table() {
        tables.each("routes", "id", |row| {
            let id = row.id()?;
            if let Err(unfit) = table_row(row, id, &nodes, &mut found, collector) {
                collector.unfit("routes", id, unfit);
            }
            Ok(())
        })?;
    } else {
        let stale = tables.count("routes")?;
        if stale > 0 {
            let rows = counted(stale, "row", "rows");
            collector.note(format!(
                "routes: {rows} ignored: Headscale 0.26 moved them to the nodes and uses them no \
                 more"
            ));
        }
    }
    for node in &nodes.routes {
        node_row(node, &mut found, collector);
    }
    let candidates = found.into_values().map(|(table, id, route)| Candidate {
        image: EntityRecord::from(route),
        table,
        id,
        rank: UNRANKED,
    });
    collector.admit(candidates.collect())?;
    Ok(())
}

/// A row of the old table.
fn table_row(
    row: &Row<'_>,
    id: i64,
    nodes: &Nodes,
    found: &mut Found,
    collector: &mut Collector,
) -> Result<(), Unfit> {
    if skip_deleted(row, id, collector) {
        return Ok(());
    }
    let node_row = row.reference("node_id").ok().flatten();
    let node_row = node_row.ok_or_else(|| Unfit::LeftOver("it belongs to no node".into()))?;
    // A node that was left out is a problem of its own.
    let node = nodes.parents.find(node_row).map_err(|missing| Unfit::LeftOver(missing.reason))?;
    let text = row.filled("prefix").ok().flatten().unwrap_or_default();
    let prefix = prefix((row.table, id), &text, collector);
    let prefix = prefix.ok_or_else(|| Unfit::LeftOver("its prefix is none".into()))?;
    let at = (row.table, id);
    let reason = "says neither yes nor no in a column; no was taken";
    let advertised = collector.or_repaired(at, row.flag("advertised"), false, reason);
    let approved = collector.or_repaired(at, row.flag("enabled"), false, reason);
    let created_at = created(row, id, collector);
    let route = Route {
        id: RouteId::derived(created_at, &[b"headscale", b"routes", row_name(id).as_bytes()]),
        node,
        prefix,
        advertised,
        approved,
        primary: false,
        metric: RouteMetric::default(),
        description: None,
        created_at,
        updated_at: updated(row, id, created_at, collector),
        revision: Revision::FIRST,
    };
    add(found, (node_row, prefix), ("routes", id, route));
    Ok(())
}

/// What a node advertises, and what was approved for it.
fn node_row(node: &NodeRoutes, found: &mut Found, collector: &mut Collector) {
    let mut put = |prefix: Prefix, advertised, approved| {
        let row = row_name(node.row);
        let name = [b"headscale", b"nodes".as_slice(), row.as_bytes(), b"route"];
        let prefix_name = prefix.to_string();
        let name: Vec<_> = name.into_iter().chain([prefix_name.as_bytes()]).collect();
        let route = Route {
            id: RouteId::derived(node.created_at, &name),
            node: node.node,
            prefix,
            advertised,
            approved,
            primary: false,
            metric: RouteMetric::default(),
            description: None,
            created_at: node.created_at,
            updated_at: node.updated_at,
            revision: Revision::FIRST,
        };
        add(found, (node.row, prefix), ("nodes", node.row, route));
    };
    for prefix in &node.advertised {
        put(*prefix, true, false);
    }
    for text in &node.approved {
        match prefix(("nodes", node.row), text, collector) {
            Some(prefix) => put(prefix, false, true),
            None => {
                collector.repaired("nodes", node.row, "an approved route is no prefix, left out")
            }
        }
    }
}

/// A prefix, which Headscale keeps with the bits of a host if it was given them.
fn prefix(
    (table, id): (&'static str, i64),
    text: &str,
    collector: &mut Collector,
) -> Option<Prefix> {
    if let Ok(prefix) = text.parse() {
        return Some(prefix);
    }
    let (address, length) = text.split_once('/')?;
    let prefix = Prefix::containing(address.parse().ok()?, length.parse().ok()?)?;
    // One that is IPv4 within IPv6 is none.
    let prefix: Prefix = prefix.to_string().parse().ok()?;
    let reason = format!("the route {text} became {prefix}, which it is to every machine");
    collector.repaired(table, id, reason);
    Some(prefix)
}

/// Two rows about one route are one route, which has what either says.
fn add(found: &mut Found, key: (i64, Prefix), new: (&'static str, i64, Route)) {
    let advertised = new.2.advertised;
    let approved = new.2.approved;
    let (_, _, route) = found.entry(key).or_insert(new);
    route.advertised |= advertised;
    route.approved |= approved;
}
