//! `operations::RouteOperations`.

use ghostwire_store::domain::{NodeId, Patch, Prefix, Route, RouteMetric, RoutePatch, Update};

use super::{Arc, Result, Store};

/// `metric` and description.
pub(super) async fn describe(
    store: &dyn Store,
    route: &Route,
    metric: u32,
    description: &str,
) -> Result<Arc<Route>> {
    let (metric, description) =
        (Update::Set(RouteMetric::new(metric)), Patch::Set(description.parse()?));
    let patch = RoutePatch { metric, description };
    store.routes().update(route.id, patch, Some(route.revision)).await
}

/// `create`: one more that the node offers.
pub(super) async fn add(store: &dyn Store, node: NodeId, prefix: Prefix) -> Result<()> {
    store.routes().advertise_one(node, prefix).await?;
    Ok(())
}

/// `set_enabled`.
pub(super) async fn set_enabled(store: &dyn Store, route: &Route, enabled: bool) -> Result<()> {
    store.routes().set_approved(route.id, enabled).await?;
    Ok(())
}

/// `list_enabled`: advertised and approved.
pub(super) fn enabled(store: &dyn Store) -> Vec<Arc<Route>> {
    store.view().routes().carrying().cloned().collect()
}
