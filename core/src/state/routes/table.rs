//! The routes, and what finds them.

use std::net::IpAddr;
use std::sync::Arc;

use super::primaries::Primaries;
use crate::domain::{
    Fingerprint, NodeId, NodeRoutes, Page, PageRequest, Prefix, Route, RouteFilter, RouteId,
    RouteMetric, Timestamp,
};
use crate::error::{EntityKind, Result};
use crate::state::collection::{Collection, Index, update_set};
use crate::state::listing::{Listing, after, owned};
use crate::state::{Map, Set};

/// Where a route stands among those for its prefix.
type Turn = (Prefix, RouteMetric, Timestamp, RouteId);

/// All routes.
pub type Routes = Collection<Route, RouteIndex>;

/// What nobody approved costs what any row costs: the indexes that decisions and network maps walk
/// do not hold it.
#[derive(Clone, Default, Debug)]
pub struct RouteIndex {
    by_node: Map<(NodeId, Prefix), Arc<Route>>,
    by_prefix: Set<(Prefix, RouteId)>,
    /// Those that carry traffic.
    carrying: Map<RouteId, Arc<Route>>,
    /// Of those the ones whose nodes are online, but for exit routes: they can be primary unless a key
    /// has expired. For each prefix by metric, and then the oldest first.
    able: Set<Turn>,
    primaries: Primaries,
}

impl Index<Route> for RouteIndex {
    fn update(&mut self, id: RouteId, old: Option<&Route>, new: Option<&Arc<Route>>) {
        let by_node = |route: &Route| (route.node, route.prefix);
        let by_prefix = |route: &Route| (route.prefix, id);
        update_set(&mut self.by_prefix, old.map(by_prefix), new.map(|new| by_prefix(new)));
        if let Some(old) = old {
            if new.is_none_or(|new| by_node(new) != by_node(old)) {
                self.by_node.remove(&by_node(old));
            }
            if old.carries_traffic() && new.is_none_or(|new| !new.carries_traffic()) {
                self.carrying.remove(&id);
            }
            if self.primaries.get(old.prefix).is_some_and(|primary| primary.route.id == id) {
                self.primaries.remove(old.prefix);
            }
        }
        if let Some(new) = new {
            self.by_node.insert(by_node(new), new.clone());
            if new.carries_traffic() {
                self.carrying.insert(id, new.clone());
            }
            if new.primary {
                // Its expiry is told later.
                self.primaries.put(new.clone(), None);
            }
        }
    }
}

impl Routes {
    /// A node's route for exactly this prefix.
    #[must_use]
    pub fn find(&self, node: NodeId, prefix: Prefix) -> Option<&Arc<Route>> {
        self.index.by_node.get(&(node, prefix))
    }

    /// A node's routes, by prefix.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Route>> + '_ {
        let first = Prefix::new(IpAddr::from([0, 0, 0, 0]), 0).ok();
        first.into_iter().flat_map(move |first| self.of_node_from(node, first))
    }

    fn of_node_from(&self, node: NodeId, first: Prefix) -> impl Iterator<Item = &Arc<Route>> + '_ {
        self.index
            .by_node
            .range((node, first)..)
            .take_while(move |((owner, _), _)| *owner == node)
            .map(|(_, route)| route)
    }

    /// All routes for exactly this prefix, by id.
    pub fn of_prefix(&self, prefix: Prefix) -> impl Iterator<Item = &Arc<Route>> + '_ {
        self.of_prefix_after(prefix, None)
    }

    fn of_prefix_after(
        &self,
        prefix: Prefix,
        start: Option<RouteId>,
    ) -> impl Iterator<Item = &Arc<Route>> + '_ {
        self.index.by_prefix.range(owned(prefix, start)).filter_map(|(_, id)| self.get(*id))
    }

    /// The routes that carry traffic, by id.
    pub fn carrying(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.index.carrying.values()
    }

    /// The primary route for exactly this prefix.
    #[must_use]
    pub fn primary(&self, prefix: Prefix) -> Option<&Arc<Route>> {
        self.index.primaries.get(prefix).map(|primary| &primary.route)
    }

    /// The primary route with the longest prefix that contains `address`. In the place of one whose
    /// node's key has expired by `now` there is what `instead` makes of it, or else the next shorter
    /// prefix. Takes a step for each six bits of the longest prefix that begins like the address.
    pub(super) fn lookup<'s>(
        &'s self,
        address: IpAddr,
        now: impl FnOnce() -> Timestamp,
        instead: impl Fn(&'s Arc<Route>, Timestamp) -> Option<&'s Arc<Route>>,
    ) -> Option<&'s Arc<Route>> {
        self.index.primaries.lookup(address, now, instead)
    }

    /// All routes of a node, and what stands for them.
    #[must_use]
    pub fn all_of_node(&self, node: NodeId) -> NodeRoutes {
        let routes = self.of_node(node).cloned().collect();
        NodeRoutes { routes, fingerprint: self.fingerprint(node) }
    }

    /// What stands for all routes of a node.
    #[must_use]
    pub fn fingerprint(&self, node: NodeId) -> Fingerprint {
        Fingerprint::of(self.of_node(node).map(|route| (route.id, route.revision)))
    }

    /// Whether the route can be primary, unless its node's key has expired: it carries traffic, its
    /// node is online, and it is no exit route.
    pub(super) fn is_able(&self, route: &Route) -> bool {
        turn(route).is_some_and(|turn| self.index.able.contains(&turn))
    }

    /// The routes for this prefix that can be primary, unless their nodes' keys have expired, in the
    /// order in which they are asked.
    pub(super) fn able(&self, prefix: Prefix) -> impl Iterator<Item = &Arc<Route>> + '_ {
        let nil = RouteId::from_bytes([0; 16]);
        let first = (prefix, RouteMetric::default(), Timestamp::EPOCH, nil);
        let turns = self.index.able.range(first..).take_while(move |(of, ..)| *of == prefix);
        turns.filter_map(|(.., id)| self.index.carrying.get(id))
    }

    /// The prefixes that a node carries which is online, each once.
    pub(super) fn carried_online(&self) -> impl Iterator<Item = Prefix> + '_ {
        let mut last = None;
        let prefixes = self.index.able.iter().map(|(prefix, ..)| *prefix);
        prefixes.filter(move |prefix| last.replace(*prefix) != Some(*prefix))
    }

    /// A page of routes, by prefix (family, address, length) and then id.
    ///
    /// # Errors
    /// `InvalidArgument` for a cursor of another listing.
    pub fn list(&self, filter: &RouteFilter, page: &PageRequest) -> Result<Page<Arc<Route>>> {
        let listing = Listing::new(EntityKind::Route, filter);
        let start: Option<(Prefix, RouteId)> = listing.start(page)?;
        let candidates: Box<dyn Iterator<Item = &Arc<Route>>> = match (filter.node, filter.prefix) {
            (Some(node), _) => match start {
                Some((prefix, _)) => Box::new(self.of_node_from(node, prefix)),
                None => Box::new(self.of_node(node)),
            },
            (None, Some(prefix)) => {
                let start = start.filter(|(of, _)| *of == prefix).map(|(_, id)| id);
                Box::new(self.of_prefix_after(prefix, start))
            }
            (None, None) => {
                let ids = self.index.by_prefix.range(after(start.as_ref()));
                Box::new(ids.filter_map(|(_, id)| self.get(*id)))
            }
        };
        let matching = candidates.filter(|route| {
            start.is_none_or(|start| (route.prefix, route.id) > start)
                && filter.prefix.is_none_or(|prefix| route.prefix == prefix)
                && filter.approved.is_none_or(|approved| route.approved == approved)
                && filter.primary.is_none_or(|primary| route.primary == primary)
        });
        Ok(listing.take(page, matching.cloned(), |route| (route.prefix, route.id)))
    }

    /// Brings up to date which routes can be primary. `online` says whether the new one's node is.
    pub(in crate::state) fn rank(
        &mut self,
        old: Option<&Route>,
        new: Option<&Route>,
        online: bool,
    ) {
        let (was, is) = (old.and_then(turn), new.and_then(turn));
        if was != is {
            update_set(&mut self.index.able, was, is.filter(|_| online));
        }
    }

    /// Must be told of every primary route that is put in, since its node is not known here.
    pub(super) fn expire(&mut self, route: &Route, expires_at: Option<Timestamp>) {
        let primary = self.index.primaries.get(route.prefix);
        if let Some(primary) = primary.filter(|primary| primary.route.id == route.id)
            && primary.expires_at != expires_at
        {
            let route = primary.route.clone();
            self.index.primaries.put(route, expires_at);
        }
    }

    /// Must be told whenever the key of a node gets another expiry.
    pub(in crate::state) fn expire_all_of(&mut self, node: NodeId, expires_at: Option<Timestamp>) {
        let primaries = self.of_node(node).filter(|route| route.primary);
        let primaries: Vec<_> = primaries.cloned().collect();
        primaries.iter().for_each(|route| self.expire(route, expires_at));
    }

    /// Must be told whenever a node comes or goes.
    pub(in crate::state) fn set_online(&mut self, node: NodeId, online: bool) {
        let turns: Vec<_> = self.of_node(node).filter_map(|route| turn(route)).collect();
        for turn in turns {
            if online {
                self.index.able.insert(turn);
            } else {
                self.index.able.remove(&turn);
            }
        }
    }
}

/// Where a route that carries traffic stands among those for its prefix; exit routes do not.
fn turn(route: &Route) -> Option<Turn> {
    let stands = route.carries_traffic() && !route.prefix.is_exit();
    stands.then_some((route.prefix, route.metric, route.created_at, route.id))
}

#[cfg(test)]
impl Routes {
    /// How many routes elections look at.
    pub(super) fn able_len(&self) -> usize {
        self.index.able.len()
    }

    /// Compares every index with what a walk over all routes gives.
    pub(in crate::state) fn check(&self, is_online: impl Fn(NodeId) -> bool) {
        let carrying = self.iter().filter(|route| route.carries_traffic());
        assert!(self.carrying().eq(carrying));
        let online = self.iter().filter(|route| is_online(route.node));
        assert!(self.index.able == online.filter_map(|route| turn(route)).collect());
        let of_prefixes: Set<_> = self.iter().map(|route| (route.prefix, route.id)).collect();
        assert!(self.index.by_prefix == of_prefixes);
        let of_nodes = self.iter().map(|route| ((route.node, route.prefix), route.clone()));
        assert!(self.index.by_node == of_nodes.collect());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::{Limit, Revision};

    /// Routes of five nodes for five prefixes; of most prefixes with several ids.
    fn routes() -> Routes {
        let mut routes = Routes::default();
        for n in 0..25_u8 {
            let id = RouteId::from_bytes([n.wrapping_mul(37); 16]);
            let prefix = format!("10.{}.0.0/16", n % 5).parse().unwrap();
            let at = Timestamp::EPOCH;
            let route = Route {
                id,
                node: NodeId::from_bytes([n / 5; 16]),
                prefix,
                advertised: true,
                approved: n % 3 == 0,
                primary: n == 0,
                metric: RouteMetric::default(),
                description: None,
                created_at: at,
                updated_at: at,
                revision: Revision::FIRST,
            };
            assert!(routes.put(Arc::new(route)).is_none());
        }
        routes
    }

    #[test]
    fn a_listing_of_one_node_or_prefix_is_what_a_filtered_walk_gives() {
        let routes = routes();
        let node = Some(NodeId::from_bytes([3; 16]));
        let prefix = Some("10.2.0.0/16".parse().unwrap());
        for (node, prefix) in [(node, None), (None, prefix), (node, prefix), (None, None)] {
            for approved in [None, Some(true), Some(false)] {
                let filter = RouteFilter { node, prefix, approved, primary: None };
                let mut expected: Vec<_> = routes
                    .iter()
                    .filter(|route| node.is_none_or(|node| route.node == node))
                    .filter(|route| prefix.is_none_or(|prefix| route.prefix == prefix))
                    .filter(|route| approved.is_none_or(|approved| route.approved == approved))
                    .cloned()
                    .collect();
                expected.sort_by_key(|route| (route.prefix, route.id));
                let mut listed = Vec::new();
                let mut page = PageRequest::first(Limit::new(2).unwrap());
                loop {
                    let found = routes.list(&filter, &page).unwrap();
                    listed.extend(found.items);
                    let Some(next) = found.next else { break };
                    page = PageRequest::after(page.limit, next);
                }
                assert_eq!(listed, expected, "{filter:?}");
            }
        }
    }

    #[test]
    fn a_made_up_position_gives_nothing_that_the_filter_leaves_out() {
        let routes = routes();
        let (node, prefix) = (NodeId::from_bytes([3; 16]), "10.2.0.0/16".parse().unwrap());
        let filters = [
            RouteFilter { node: Some(node), ..RouteFilter::default() },
            RouteFilter { prefix: Some(prefix), ..RouteFilter::default() },
        ];
        for filter in filters {
            for at in ["0.0.0.0/0", "10.2.0.0/16", "10.3.0.0/16", "fd00::/8"] {
                let start = (at.parse().unwrap(), RouteId::from_bytes([0x80; 16]));
                let cursor = Listing::new(EntityKind::Route, &filter).cursor(&start);
                let page = PageRequest::after(Limit::new(100).unwrap(), cursor);
                for route in routes.list(&filter, &page).unwrap().items {
                    assert!((route.prefix, route.id) > start);
                    assert!(filter.node.is_none_or(|node| route.node == node));
                    assert!(filter.prefix.is_none_or(|prefix| route.prefix == prefix));
                }
            }
        }
    }
}
