//! An hour of measurements, and the sign-ins of that hour.

use std::time::Duration;

use ghostwire_store::domain::{ActorName, MetricPoint, NodeId, Sample, Timestamp};
use ghostwire_store::{EntityKind, Result};

use super::people::People;
use super::world::World;

const MINUTE: Duration = Duration::from_secs(60);

/// The network by the minute, machines every five minutes; by node (none first), metric and time.
/// Only sums of whole numbers, so that every machine computes the same bits.
pub(super) fn metrics(world: &World, from: Timestamp) -> Result<Vec<MetricPoint>> {
    let mut points = Vec::new();
    let online = world.state.presence().iter().filter(|presence| presence.online).count();
    let online = u32::try_from(online).unwrap_or(u32::MAX);
    for (metric, base, spread) in
        [("handshakes_total", 0, 90), ("netmap_builds_total", 0, 40), ("nodes_online", online, 3)]
    {
        let is_total = metric.ends_with("_total");
        let mut total = 0;
        for minute in 0..60 {
            let step = base + world.below(spread)?;
            total = if is_total { total + u64::from(step) } else { u64::from(step) };
            points.push(point(None, metric, from, minute, total)?);
        }
    }
    let nodes: Vec<_> = world.state.nodes().iter().map(|node| node.id).collect();
    for node in nodes {
        for (metric, spread) in
            [("derp_latency_ms", 80), ("rx_bytes_total", 4_000_000), ("tx_bytes_total", 900_000)]
        {
            let is_total = metric.ends_with("_total");
            let mut total = 0;
            for minute in (0..60).step_by(5) {
                let step = u64::from(world.below(spread)?) + 1;
                total = if is_total { total + step } else { step };
                points.push(point(Some(node), metric, from, minute, total)?);
            }
        }
    }
    Ok(points)
}

#[allow(clippy::cast_precision_loss)] // The numbers are far below 2^53.
fn point(
    node: Option<NodeId>,
    metric: &str,
    from: Timestamp,
    minute: u32,
    value: u64,
) -> Result<MetricPoint> {
    let at = from.saturating_add(MINUTE * minute);
    Ok(MetricPoint { node, metric: metric.parse()?, at, value: Sample::new(value as f64)? })
}

/// What the control plane itself has to say to the audit trail.
pub(super) fn sign_ins(world: &mut World, people: &People, from: Timestamp) -> Result<()> {
    for round in 0..12 {
        for (name, id) in &people.users {
            let actor: ActorName = format!("user:{name}").parse()?;
            let at = from.saturating_add(MINUTE * (5 * round));
            let at = at.saturating_add(Duration::from_millis(world.below(290_000)?.into()));
            world.note(at, &actor, "session.sign_in", EntityKind::User, &id.to_string())?;
        }
    }
    Ok(())
}
