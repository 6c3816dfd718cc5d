//! Routes.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::{expect_reply, unexpected};
use crate::command::RouteCommand;
use crate::domain::{
    Fingerprint, NodeId, NodeRoutes, Page, PageRequest, Prefix, Revision, Route, RouteFilter,
    RouteId, RoutePatch,
};
use crate::error::Result;
use crate::handle::StoreHandle;
use crate::state::{Reply, routes::MAX_PREFIXES};
use crate::threads::may_block;

/// Routes: prefixes outside the mesh that nodes lead to.
///
/// A node advertises, an administrator approves. Of the routes for one prefix that are both, and whose
/// node is online and has a key that has not expired, one is primary: the one with the lowest metric.
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
/// store.routes().advertise(node, vec![office], None).await?;
/// // Whoever shows an administrator what there is to approve reads it with its fingerprint.
/// let read = store.routes().of_node(node).await?;
/// assert!(!read.routes[0].approved);
/// store.routes().approve(node, vec![office], Some(read.fingerprint)).await?;
/// // Somebody who read the same and decides otherwise is told.
/// assert!(store.routes().approve(node, vec![], Some(read.fingerprint)).await.is_err());
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
    /// - With `expected`, only if the node's routes are still those that it stands for
    ///   ([`NodeRoutes::fingerprint`]).
    /// - A route that is neither advertised nor approved any more disappears.
    /// - It may come before or after the approval.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for other routes than the expected ones; `InvalidArgument` above 1,024
    /// prefixes; those of any write.
    async fn advertise(
        &self,
        node: NodeId,
        prefixes: Vec<Prefix>,
        expected: Option<Fingerprint>,
    ) -> Result<Vec<Arc<Route>>>;

    /// Adds one prefix to what a node advertises, whatever else it does. Gives the route.
    ///
    /// # Behavior
    /// - If the node advertises it already, nothing is written.
    ///
    /// # Errors
    /// `NotFound` if the node does not exist; `Exhausted` if it advertises 1,024 others; those of any
    /// write.
    async fn advertise_one(&self, node: NodeId, prefix: Prefix) -> Result<Arc<Route>>;

    /// Takes one prefix from what a node advertises. Gives the route if it is still approved, and
    /// `None` if it disappeared.
    ///
    /// # Errors
    /// `NotFound` if the node does not advertise it, also the second time; those of any write.
    async fn withdraw_one(&self, node: NodeId, prefix: Prefix) -> Result<Option<Arc<Route>>>;

    /// Makes exactly `prefixes` what an administrator approves of a node; an empty list clears.
    /// Gives the node's routes, by prefix.
    ///
    /// # Behavior
    /// - With `expected`, only if the node's routes are still those that it stands for
    ///   ([`NodeRoutes::fingerprint`]): two administrators do not undo each other.
    /// - A route that is neither advertised nor approved any more disappears.
    /// - `0.0.0.0/0` and `::/0` (an exit node) are two routes, and have no primary: a client chooses
    ///   its exit node.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for other routes than the expected ones; `InvalidArgument` above 1,024
    /// prefixes; those of any write.
    async fn approve(
        &self,
        node: NodeId,
        prefixes: Vec<Prefix>,
        expected: Option<Fingerprint>,
    ) -> Result<Vec<Arc<Route>>>;

    /// Approves one route, or takes the approval back, whatever else its node offers. Gives the route,
    /// or `None` if it disappeared since it is not advertised either.
    ///
    /// # Behavior
    /// - If it is so already, nothing is written.
    ///
    /// # Errors
    /// `NotFound`; `Exhausted` if the node has 1,024 approved routes; those of any write.
    async fn set_approved(&self, id: RouteId, approved: bool) -> Result<Option<Arc<Route>>>;

    /// Changes what an administrator says about a route.
    ///
    /// # Behavior
    /// - With `expected`, only if that is still the route's revision.
    /// - A healthy primary hands over to a route that can be primary and has a strictly lower metric
    ///   then, and to no other.
    /// - If nothing would change, nothing is written, and revision and `updated_at` stay.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for another revision; those of any write.
    async fn update(
        &self,
        id: RouteId,
        patch: RoutePatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Route>>;

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

    /// All routes of a node, of one moment, and the fingerprint with which `advertise` and `approve`
    /// make sure that they are still the same. None for a node that does not exist.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn of_node(&self, node: NodeId) -> Result<NodeRoutes>;

    /// A page of routes, by prefix (IPv4 first, then address and length) and id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing; `Unavailable` after the store was closed.
    async fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>>;

    /// The primary route with the longest prefix that contains `address`; `None` if there is none.
    ///
    /// # Behavior
    /// - Exit routes (`0.0.0.0/0`, `::/0`) are not found.
    /// - A route whose node's key has expired by now is not given, swept or not: instead of it the one
    ///   to which `sweep` would hand over, or else one with a shorter prefix.
    /// - It takes no more than one step for each bit of the address, however many routes there are.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn lookup(&self, address: IpAddr) -> Result<Option<Arc<Route>>>;

    /// Takes the primary routes of nodes whose keys have expired, and hands over to others. Gives of
    /// how many prefixes the primary changed.
    ///
    /// # Behavior
    /// - A key expires without a write. Until this is called, or something else decides about the
    ///   prefix, `primary` says in rows, listings and network maps what it said before.
    /// - Nothing calls it by itself; the control plane does, once in a while, or when a key expires
    ///   ([`Nodes::expiring`](crate::state::Nodes::expiring)).
    /// - It looks at what is approved and online. If nothing is due, nothing is written. Above 1,024
    ///   prefixes it goes on in the next commit.
    ///
    /// # Errors
    /// Those of any write.
    async fn sweep(&self) -> Result<u64>;
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

/// The route that a command changed; `None` if it disappeared.
fn route_if_left(reply: Reply) -> Result<Option<Arc<Route>>> {
    match reply {
        Reply::Route(route) => Ok(Some(route)),
        Reply::Done => Ok(None),
        other => Err(unexpected(&other)),
    }
}

#[async_trait]
impl RouteRepository for StoreHandle {
    async fn advertise(
        &self,
        node: NodeId,
        prefixes: Vec<Prefix>,
        expected: Option<Fingerprint>,
    ) -> Result<Vec<Arc<Route>>> {
        let prefixes = self.with_route_ids(RouteCommand::ADVERTISE, prefixes)?;
        let command = RouteCommand::Advertise { node, prefixes, expected };
        expect_reply!(self.run(command).await?, Routes)
    }

    async fn advertise_one(&self, node: NodeId, prefix: Prefix) -> Result<Arc<Route>> {
        let id = self.new_id(RouteCommand::ADVERTISE_ONE, RouteId::time_ordered)?;
        let command = RouteCommand::AdvertiseOne { id, node, prefix };
        expect_reply!(self.run(command).await?, Route)
    }

    async fn withdraw_one(&self, node: NodeId, prefix: Prefix) -> Result<Option<Arc<Route>>> {
        route_if_left(self.run(RouteCommand::WithdrawOne { node, prefix }).await?)
    }

    async fn approve(
        &self,
        node: NodeId,
        prefixes: Vec<Prefix>,
        expected: Option<Fingerprint>,
    ) -> Result<Vec<Arc<Route>>> {
        let prefixes = self.with_route_ids(RouteCommand::APPROVE, prefixes)?;
        let command = RouteCommand::Approve { node, prefixes, expected };
        expect_reply!(self.run(command).await?, Routes)
    }

    async fn set_approved(&self, id: RouteId, approved: bool) -> Result<Option<Arc<Route>>> {
        route_if_left(self.run(RouteCommand::SetApproved { id, approved }).await?)
    }

    async fn update(
        &self,
        id: RouteId,
        patch: RoutePatch,
        expected: Option<Revision>,
    ) -> Result<Arc<Route>> {
        let command = RouteCommand::Update { id, patch, expected };
        expect_reply!(self.run(command).await?, Route)
    }

    async fn delete(&self, id: RouteId) -> Result<()> {
        self.run(RouteCommand::Delete { id }).await.map(|_| ())
    }

    async fn get(&self, id: RouteId) -> Result<Option<Arc<Route>>> {
        Ok(self.open_view("route.get")?.routes().get(id).cloned())
    }

    async fn of_node(&self, node: NodeId) -> Result<NodeRoutes> {
        Ok(self.open_view("route.of_node")?.routes().all_of_node(node))
    }

    async fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>> {
        let view = self.open_view("route.list")?;
        view.routes().list(filter, page).map_err(|error| error.during("route.list"))
    }

    async fn lookup(&self, address: IpAddr) -> Result<Option<Arc<Route>>> {
        let view = self.open_view("route.lookup")?;
        let now = || self.now_at_most().max(view.time());
        Ok(view.route_when(address, now).cloned())
    }

    async fn sweep(&self) -> Result<u64> {
        const OPERATION: &str = "route.sweep";
        let view = self.open_view(OPERATION)?;
        let now = self.command_time().map_err(|error| error.during(OPERATION))?;
        // Among many prefixes this takes a while.
        let due = may_block(move || Ok(view.due_elections(now).collect::<Vec<_>>()));
        let due = due.await.map_err(|error| error.during(OPERATION))?;
        let mut moved = 0;
        for prefixes in due.chunks(MAX_PREFIXES) {
            let command = RouteCommand::Elect { prefixes: prefixes.to_vec() };
            moved += expect_reply!(self.run(command).await?, Count)?;
        }
        Ok(moved)
    }
}
