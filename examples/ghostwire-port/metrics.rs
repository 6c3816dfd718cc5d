//! `operations::MetricsOperations`.

use ghostwire_store::domain::{MetricPoint, MetricQuery, NodeId, PageRequest, Sample, Timestamp};

use super::{Result, Store};

/// `record_metrics`: a row of several values becomes as many points of one time.
pub(super) async fn record(
    store: &dyn Store,
    node: NodeId,
    at: Timestamp,
    values: &[(&str, f64)],
) -> Result<()> {
    let point = |(metric, value): &(&str, f64)| -> Result<MetricPoint> {
        let (metric, value) = (metric.parse()?, Sample::new(*value)?);
        Ok(MetricPoint { node: Some(node), metric, at, value })
    };
    store.metrics().record_many(values.iter().map(point).collect::<Result<_>>()?).await
}

fn query(node: NodeId, metric: Option<&str>, end: Timestamp) -> Result<MetricQuery> {
    let metric = metric.map(str::parse).transpose()?;
    Ok(MetricQuery { node: Some(Some(node)), metric, from: Timestamp::EPOCH, to: end })
}

/// `get_node_metrics`. The end is exclusive.
pub(super) async fn of_node(
    store: &dyn Store,
    node: NodeId,
    end: Timestamp,
) -> Result<Vec<MetricPoint>> {
    let query = query(node, None, end)?;
    Ok(store.metrics().range(&query, &PageRequest::default()).await?.items)
}

/// `get_aggregate_metrics`, of one metric.
pub(super) async fn sum(
    store: &dyn Store,
    node: NodeId,
    metric: &str,
    end: Timestamp,
) -> Result<f64> {
    let query = query(node, Some(metric), end)?;
    Ok(store.metrics().aggregate(&query).await?.map_or(0.0, |all| all.sum))
}
