//! Routes.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::expect_reply;
use crate::command::RouteCommand;
use crate::domain::{NodeId, Page, PageRequest, Prefix, Route, RouteFilter, RouteId};
use crate::error::Result;
use crate::handle::StoreHandle;

/// Routes: prefixes outside the mesh that nodes lead to.
///
/// A node advertises, an administrator approves. Of the routes for one prefix that are both, and whose
/// node is online, one is primary.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// # use ghostwire_store::domain::{
/// #     Admission, Update, MachineKey, NewUser, NodeKey, RegisterMethod, Registration, SessionNumber,
/// # };
/// # let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
/// # let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
/// # let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
/// # let router = Registration::new(machine, key, "router".parse()?, admission);
/// # let node = store.nodes().register(router).await?.id;
/// use std::net::IpAddr;
///
/// let office = "10.20.0.0/16".parse()?;
/// store.routes().advertise(node, vec![office]).await?;
/// store.routes().approve(node, vec![office]).await?;
/// store.presence().connect(node, SessionNumber::new(1)?, Update::Keep).await?;
///
/// let route = store.routes().lookup(IpAddr::from([10, 20, 30, 40])).await?;
/// assert_eq!(route.map(|route| route.node), Some(node));
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait RouteRepository: Send + Sync {
    /// Makes exactly `prefixes` what a node advertises; an empty list clears. Gives the node's
    /// routes, by prefix.
    ///
    /// # Behavior
    /// - A route that is neither advertised nor approved any more disappears.
    /// - It may come before or after the approval.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` above 1,024 prefixes; those of any write.
    async fn advertise(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>>;

    /// Makes exactly `prefixes` what an administrator approves of a node; an empty list clears.
    /// Gives the node's routes, by prefix.
    ///
    /// # Behavior
    /// - A route that is neither advertised nor approved any more disappears.
    /// - `0.0.0.0/0` and `::/0` (an exit node) are two routes, and have no primary: a client chooses
    ///   its exit node.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` above 1,024 prefixes; those of any write.
    async fn approve(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>>;

    /// Removes one route, both its advertisement and its approval.
    ///
    /// # Errors
    /// `NotFound`, also the second time; those of any write.
    async fn delete(&self, id: RouteId) -> Result<()>;

    /// The route with this id; `None` if there is none.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: RouteId) -> Result<Option<Arc<Route>>>;

    /// A page of routes, by prefix (IPv4 first, then address and length) and id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>>;

    /// The primary route with the longest prefix that contains `address`; `None` if there is none.
    ///
    /// # Behavior
    /// - Exit routes (`0.0.0.0/0`, `::/0`) are not found.
    /// - It takes no more than one step for each bit of the address, however many routes there are.
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
        let prefixes = self.with_route_ids(RouteCommand::ADVERTISE, prefixes)?;
        let command = RouteCommand::Advertise { node, prefixes };
        expect_reply!(self.run(command).await?, Routes)
    }

    async fn approve(&self, node: NodeId, prefixes: Vec<Prefix>) -> Result<Vec<Arc<Route>>> {
        let prefixes = self.with_route_ids(RouteCommand::APPROVE, prefixes)?;
        let command = RouteCommand::Approve { node, prefixes };
        expect_reply!(self.run(command).await?, Routes)
    }

    async fn delete(&self, id: RouteId) -> Result<()> {
        self.run(RouteCommand::Delete { id }).await.map(|_| ())
    }

    async fn get(&self, id: RouteId) -> Result<Option<Arc<Route>>> {
        Ok(self.open_view("route.get")?.routes().get(id).cloned())
    }

    async fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>> {
        let view = self.open_view("route.list")?;
        view.routes().list(filter, page).map_err(|error| error.during("route.list"))
    }

    async fn lookup(&self, address: IpAddr) -> Result<Option<Arc<Route>>> {
        Ok(self.open_view("route.lookup")?.routes().lookup(address).cloned())
    }
}
