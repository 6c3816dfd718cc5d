//! Routes.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::RouteCommand;
use crate::domain::{NodeId, Page, PageRequest, Prefix, Route, RouteFilter, RouteId};
use crate::error::Result;
use crate::store::StoreHandle;

/// Prefixes behind nodes.
#[async_trait]
pub trait RouteRepository: Send + Sync {
    /// Makes exactly `prefixes` what a node advertises; an empty list clears. Gives the node's
    /// routes, by prefix.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` above 1,024 prefixes.
    async fn advertise(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>>;

    /// Makes exactly `prefixes` what an administrator approves of a node; an empty list clears.
    /// Gives the node's routes, by prefix.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` above 1,024 prefixes.
    async fn approve(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>>;

    /// Removes one route.
    ///
    /// # Errors
    /// `NotFound`, also the second time.
    async fn delete(&self, id: RouteId) -> Result<()>;

    /// The route with this id.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: RouteId) -> Result<Option<Arc<Route>>>;

    /// A page of routes, by prefix (family, address, length) and id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    async fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>>;

    /// The primary route with the longest prefix that contains `address`.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn lookup(&self, address: IpAddr) -> Result<Option<Arc<Route>>>;
}

impl StoreHandle {
    /// Draws an id for each prefix, should its route be new.
    fn with_route_ids(
        &self,
        operation: &'static str,
        prefixes: Vec<Prefix>,
    ) -> Result<Vec<(RouteId, Prefix)>> {
        let ids = self.new_ids(operation, prefixes.len(), RouteId::time_ordered)?;
        Ok(ids.into_iter().zip(prefixes).collect())
    }
}

#[async_trait]
impl RouteRepository for StoreHandle {
    async fn advertise(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>> {
        let prefixes = self.with_route_ids("routes.advertise", prefixes)?;
        let command = RouteCommand::Advertise { node, prefixes };
        expect_reply!(self.run("routes.advertise", command).await?, Routes)
    }

    async fn approve(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>> {
        let prefixes = self.with_route_ids("routes.approve", prefixes)?;
        let command = RouteCommand::Approve { node, prefixes };
        expect_reply!(self.run("routes.approve", command).await?, Routes)
    }

    async fn delete(&self, id: RouteId) -> Result<()> {
        self.run("routes.delete", RouteCommand::Delete { id }).await.map(|_| ())
    }

    async fn get(&self, id: RouteId) -> Result<Option<Arc<Route>>> {
        Ok(self.open_view("routes.get")?.routes().get(id).cloned())
    }

    async fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>> {
        let view = self.open_view("routes.list")?;
        view.routes().list(filter, page).map_err(|error| error.during("routes.list"))
    }

    async fn lookup(&self, address: IpAddr) -> Result<Option<Arc<Route>>> {
        Ok(self.open_view("routes.lookup")?.routes().lookup(address).cloned())
    }
}
