use super::{Oracle, Predicted, changed, expect, is_over, patched, plus_one, remove};
use crate::model::call::{Answer, Fresh};
use crate::prelude::*;

/// One of the two sides that make a route.
#[derive(Clone, Copy)]
enum Side {
    Advertised,
    Approved,
}

impl Side {
    fn of(self, route: &mut Route) -> &mut bool {
        match self {
            Self::Advertised => &mut route.advertised,
            Self::Approved => &mut route.approved,
        }
    }
}

impl Oracle {
    pub(super) fn advertise(
        &mut self,
        node: NodeId,
        prefixes: &[Prefix],
        fresh: &Fresh,
    ) -> Predicted {
        self.set_side(Side::Advertised, node, prefixes, fresh)
    }

    pub(super) fn approve(
        &mut self,
        node: NodeId,
        prefixes: &[Prefix],
        fresh: &Fresh,
    ) -> Predicted {
        self.set_side(Side::Approved, node, prefixes, fresh)
    }

    fn set_side(
        &mut self,
        side: Side,
        node: NodeId,
        prefixes: &[Prefix],
        fresh: &Fresh,
    ) -> Predicted {
        self.place_of_node(node)?;
        for route in &mut self.routes {
            let wanted = prefixes.contains(&route.prefix);
            if route.node == node && *side.of(route) != wanted {
                *side.of(route) = wanted;
                route.updated_at = self.now;
                route.revision = plus_one(route.revision);
            }
        }
        for prefix in prefixes {
            if self.routes.iter().any(|route| route.node == node && route.prefix == *prefix) {
                continue;
            }
            let mut route = Route {
                id: fresh.route(*prefix),
                node,
                prefix: *prefix,
                advertised: false,
                approved: false,
                primary: false,
                metric: RouteMetric::default(),
                description: None,
                created_at: self.now,
                updated_at: self.now,
                revision: Revision::FIRST,
            };
            *side.of(&mut route) = true;
            self.routes.push(route);
        }
        self.routes.retain(|route| route.advertised || route.approved);
        let mut routes: Vec<_> = self.routes.iter().filter(|route| route.node == node).collect();
        routes.sort_by_key(|route| route.prefix);
        Ok(Answer::Routes(routes.into_iter().cloned().map(Arc::new).collect()))
    }

    pub(super) fn delete_route(&mut self, id: RouteId) -> Predicted {
        remove(&mut self.routes, |route| route.id == id)
    }

    fn place_of_route(&self, id: RouteId) -> Predicted<usize> {
        self.routes.iter().position(|route| route.id == id).ok_or(NotFound)
    }

    /// Stores a route, unless it is as it was.
    fn put_route(&mut self, place: usize, mut wanted: Route) -> Answer {
        if wanted != self.routes[place] {
            wanted.updated_at = self.now;
            wanted.revision = plus_one(wanted.revision);
            self.routes[place] = wanted;
        }
        Answer::Route(self.routes[place].clone().into())
    }

    pub(super) fn set_approved(&mut self, id: RouteId, approved: bool) -> Predicted {
        let place = self.place_of_route(id)?;
        let route = self.routes[place].clone();
        if !approved && !route.advertised {
            return self.delete_route(id);
        }
        Ok(self.put_route(place, Route { approved, ..route }))
    }

    pub(super) fn update_route(
        &mut self,
        id: RouteId,
        patch: &RoutePatch,
        expected: Option<Revision>,
    ) -> Predicted {
        let place = self.place_of_route(id)?;
        let route = self.routes[place].clone();
        expect(expected, route.revision)?;
        let wanted = Route {
            metric: changed(&route.metric, &patch.metric),
            description: patched(&route.description, &patch.description),
            ..route
        };
        Ok(self.put_route(place, wanted))
    }

    pub(super) fn sweep_routes(&mut self) -> Answer {
        let before = self.primaries();
        let prefixes: BTreeSet<_> = self.routes.iter().map(|route| route.prefix).collect();
        prefixes.into_iter().for_each(|prefix| self.elect(prefix));
        let after = self.primaries();
        let moved = after.symmetric_difference(&before).map(|(prefix, _)| *prefix);
        Answer::Count(moved.collect::<BTreeSet<_>>().len() as u64)
    }

    fn primaries(&self) -> BTreeSet<(Prefix, RouteId)> {
        let primaries = self.routes.iter().filter(|route| route.primary);
        primaries.map(|route| (route.prefix, route.id)).collect()
    }

    pub(super) fn as_they_are(&self, routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
        let now = |old: &Arc<Route>| self.routes.iter().find(|route| route.id == old.id).cloned();
        routes.iter().filter_map(now).map(Arc::new).collect()
    }

    /// What an election of a prefix looks at: the routes that carry its traffic, with their metrics,
    /// whether their nodes are online, and when those nodes' keys expire.
    fn candidates(&self, prefix: Prefix) -> Vec<(RouteId, RouteMetric, bool, Option<Timestamp>)> {
        let carrying = self.routes.iter().filter(|route| {
            route.prefix == prefix && route.advertised && route.approved && prefix.prefix_len() > 0
        });
        let candidate = |route: &Route| {
            let node = self.nodes.iter().find(|node| node.id == route.node);
            let expires_at = node.and_then(|node| node.expires_at);
            (route.id, route.metric, self.is_online(route.node), expires_at)
        };
        carrying.map(candidate).collect()
    }

    /// Those that could be primary now, in the order in which they are asked.
    fn able_routes(&self, prefix: Prefix) -> Vec<Route> {
        let able = self
            .candidates(prefix)
            .into_iter()
            .filter(|(_, _, online, expires_at)| *online && !is_over(*expires_at, self.now));
        let route = |id| self.routes.iter().find(|route| route.id == id).cloned();
        let mut able: Vec<_> = able.filter_map(|(id, ..)| route(id)).collect();
        able.sort_by_key(|route| (route.metric, route.created_at, route.id));
        able
    }

    /// Whether a route is primary although an older one could be.
    pub(in super::super) fn has_late_primary(&self) -> bool {
        self.routes.iter().any(|route| {
            let able = self.able_routes(route.prefix);
            route.primary && able.first().is_some_and(|oldest| oldest.id != route.id)
        })
    }

    /// Who is to be primary of a prefix: it stays while it can, and none that can has a lower metric.
    fn elected(&self, prefix: Prefix) -> Option<Route> {
        let able = self.able_routes(prefix);
        let first = able.first()?;
        let stays = able.iter().find(|route| route.primary && route.metric == first.metric);
        Some(stays.unwrap_or(first).clone())
    }

    /// Of each prefix's routes one is primary, if one can be. Nobody is elected where nothing
    /// happened.
    pub(super) fn choose_primaries(&mut self, before: &Self) {
        let prefixes: BTreeSet<_> = self.routes.iter().map(|route| route.prefix).collect();
        for prefix in prefixes {
            if self.candidates(prefix) == before.candidates(prefix) {
                continue;
            }
            self.elect(prefix);
        }
    }

    fn elect(&mut self, prefix: Prefix) {
        let chosen = self.elected(prefix).map(|route| route.id);
        for route in &mut self.routes {
            if route.prefix == prefix {
                route.primary = Some(route.id) == chosen;
            }
        }
    }

    /// The primary of the longest prefix, or who would be it if keys had not just expired.
    pub(in super::super) fn route_to(&self, address: IpAddr) -> Option<Route> {
        let leads = |route: &&Route| route.primary && route.prefix.contains(address);
        let mut primaries: Vec<_> = self.routes.iter().filter(leads).collect();
        primaries.sort_by_key(|route| std::cmp::Reverse(route.prefix.prefix_len()));
        primaries.into_iter().find_map(|primary| {
            let able = self.able_routes(primary.prefix);
            let is_able = able.iter().any(|route| route.id == primary.id);
            if is_able { Some(primary.clone()) } else { self.elected(primary.prefix) }
        })
    }
}
