use super::{Oracle, Predicted, plus_one, remove};
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

    pub(super) fn as_they_are(&self, routes: &[Arc<Route>]) -> Vec<Arc<Route>> {
        let now = |old: &Arc<Route>| self.routes.iter().find(|route| route.id == old.id).cloned();
        routes.iter().filter_map(now).map(Arc::new).collect()
    }

    /// Those that could be primary, the oldest first.
    fn able_routes(&self, prefix: Prefix) -> Vec<Route> {
        let mut able = Vec::new();
        for route in &self.routes {
            let carries = route.advertised && route.approved && prefix.prefix_len() > 0;
            if route.prefix == prefix && carries && self.is_online(route.node) {
                able.push(route.clone());
            }
        }
        able.sort_by_key(|route| (route.created_at, route.id));
        able
    }

    /// Whether a route is primary although an older one could be.
    pub(in super::super) fn has_late_primary(&self) -> bool {
        self.routes.iter().any(|route| {
            let able = self.able_routes(route.prefix);
            route.primary && able.first().is_some_and(|oldest| oldest.id != route.id)
        })
    }

    /// Of each prefix's routes one is primary, if one can be; it stays while it can.
    pub(super) fn choose_primaries(&mut self) {
        let mut prefixes: Vec<_> = self.routes.iter().map(|route| route.prefix).collect();
        prefixes.dedup();
        for prefix in prefixes {
            let able = self.able_routes(prefix);
            let stays = able.iter().find(|route| route.primary);
            let chosen = stays.or(able.first()).map(|route| route.id);
            for route in &mut self.routes {
                if route.prefix == prefix {
                    route.primary = Some(route.id) == chosen;
                }
            }
        }
    }

    pub(in super::super) fn route_to(&self, address: IpAddr) -> Option<&Route> {
        let leads = |route: &&Route| route.primary && route.prefix.contains(address);
        self.routes.iter().filter(leads).max_by_key(|route| route.prefix.prefix_len())
    }
}
