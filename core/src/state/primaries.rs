//! The routes that carry traffic, found by their prefix or by an address.

use std::net::IpAddr;
use std::sync::Arc;

use super::Map;
use crate::domain::{Prefix, Route};

/// At most one route for each prefix.
#[derive(Clone, Default, Debug)]
pub(super) struct Primaries(Map<Place, Arc<Route>>);

/// A prefix in a form that is quick to compare, in the order of prefixes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    v6: bool,
    /// The address from its first bit; what an IPv4 address lacks is zero.
    bits: u128,
    length: u8,
}

impl Place {
    fn new(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => Self { v6: false, bits: u128::from(v4.to_bits()) << 96, length },
            IpAddr::V6(v6) => Self { v6: true, bits: v6.to_bits(), length },
        }
    }

    fn of(prefix: Prefix) -> Self {
        Self::new(prefix.addr(), prefix.prefix_len())
    }

    /// How many bits both addresses begin with in common.
    fn common(&self, other: &Self) -> u8 {
        (self.bits ^ other.bits).leading_zeros() as u8
    }

    /// The prefix of this many bits.
    fn cut(self, length: u8) -> Self {
        let kept = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self { bits: self.bits & kept, length, ..self }
    }
}

impl Primaries {
    pub(super) fn get(&self, prefix: Prefix) -> Option<&Arc<Route>> {
        self.0.get(&Place::of(prefix))
    }

    pub(super) fn put(&mut self, route: Arc<Route>) {
        self.0.insert(Place::of(route.prefix), route);
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        self.0.remove(&Place::of(prefix));
    }

    /// The route with the longest prefix that contains `address`.
    ///
    /// Of the prefixes that contain an address the longest comes last in the order of prefixes, so
    /// it is the last one up to the address, or, if that one does not contain the address, it
    /// contains both and has at most the bits that both have in common. Each step is one search in
    /// a B-tree, and is at a shorter prefix than the step before.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<&Arc<Route>> {
        let address = Place::new(address, u8::MAX);
        let mut last = address;
        loop {
            let (place, route) = self.0.get_prev(&last)?;
            if place.v6 != address.v6 {
                return None;
            }
            let common = place.common(&address);
            if place.length <= common {
                return Some(route);
            }
            last = address.cut(common);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{NodeId, Revision, RouteId, Timestamp};

    fn route(prefix: Prefix) -> Arc<Route> {
        Arc::new(Route {
            id: RouteId::from_bytes([1; 16]),
            node: NodeId::from_bytes([1; 16]),
            prefix,
            advertised: true,
            approved: true,
            primary: true,
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            revision: Revision::FIRST,
        })
    }

    /// Addresses of few different bits, so that prefixes often contain one another.
    fn address() -> impl Strategy<Value = IpAddr> {
        let bits = prop::collection::vec(prop::sample::select(vec![0_u8, 1, 127, 128, 255]), 16);
        (any::<bool>(), bits).prop_map(|(v6, bits)| {
            let bits: [u8; 16] = bits.try_into().unwrap();
            let [a, b, c, d, ..] = bits;
            if v6 { IpAddr::from(bits) } else { IpAddr::from([a, b, c, d]) }
        })
    }

    fn prefix() -> impl Strategy<Value = Prefix> {
        (address(), 0..=128_u8).prop_filter_map("mapped or too long", |(address, length)| {
            Prefix::containing(address, if address.is_ipv4() { length % 33 } else { length })
        })
    }

    proptest! {
        #[test]
        fn the_longest_that_contains_the_address_is_found(
            prefixes in prop::collection::vec(prefix(), 0..60),
            removed in prop::collection::vec(prefix(), 0..5),
            addresses in prop::collection::vec(address(), 1..40),
        ) {
            let mut primaries = Primaries::default();
            for prefix in &prefixes {
                primaries.put(route(*prefix));
            }
            for prefix in prefixes.iter().step_by(3).chain(&removed) {
                primaries.remove(*prefix);
            }
            let left: Vec<_> = prefixes
                .iter()
                .filter(|prefix| primaries.get(**prefix).is_some())
                .collect();
            for address in addresses {
                let longest = left
                    .iter()
                    .filter(|prefix| prefix.contains(address))
                    .max_by_key(|prefix| prefix.prefix_len());
                let found = primaries.lookup(address).map(|route| route.prefix);
                prop_assert_eq!(found.as_ref(), longest.map(|prefix| *prefix));
            }
        }
    }
}
