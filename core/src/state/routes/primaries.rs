//! The routes that carry traffic, found by their prefix or by an address.
//!
//! A tree bitmap (Eatherton, Varghese and Dittia, "Tree bitmap: hardware/software IP lookups with
//! incremental updates", 2004) with six bits of the address a level. Levels are shared between
//! snapshots; a change copies the path to it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::domain::{Prefix, Route, Timestamp, expired};

/// How many bits of an address a level decides. Its bitmaps have 64 bits.
const STRIDE: u8 = 6;

/// A route, and when the key of its node expires: whoever looks an address up need not look the node up.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub(super) route: Arc<Route>,
    pub(super) expires_at: Option<Timestamp>,
}

/// At most one route for each prefix.
#[derive(Clone, Default, Debug)]
pub(super) struct Primaries {
    v4: Level,
    v6: Level,
}

/// All prefixes that begin with the same bits, a multiple of six.
#[derive(Clone, Default, Debug)]
struct Level {
    /// Which prefixes with less than six bits more there are, by [`Steps::place`].
    held: u64,
    /// Which next six bits lead to longer prefixes.
    longer: u64,
    /// One for each bit of `held`, in its order.
    routes: Vec<Primary>,
    /// One for each bit of `longer`, in its order.
    levels: Vec<Arc<Self>>,
}

/// The bits of an address or a prefix that are still to be gone through.
#[derive(Clone, Copy)]
struct Steps {
    /// From the first bit on; zero after the last.
    bits: u128,
    length: u8,
}

impl Steps {
    fn new(address: IpAddr, length: u8) -> Self {
        let bits = match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        Self { bits, length }
    }

    fn of(prefix: Prefix) -> Self {
        Self::new(prefix.addr(), prefix.prefix_len())
    }

    /// The next six bits.
    fn chunk(self) -> u32 {
        (self.bits >> (128 - u32::from(STRIDE))) as u32
    }

    /// The number of the prefix of the next `length` bits, less than six, in a binary tree whose
    /// root has number 1.
    fn place(self, length: u8) -> u32 {
        (1 << length) | (self.chunk() >> (STRIDE - length))
    }

    fn next(self) -> Option<Self> {
        let length = self.length.checked_sub(STRIDE)?;
        Some(Self { bits: self.bits << STRIDE, length })
    }
}

/// Whether the bitmap has the bit, and how many it has before it.
fn rank(bitmap: u64, bit: u32) -> (bool, usize) {
    let before = bitmap & ((1 << bit) - 1);
    (bitmap >> bit & 1 == 1, before.count_ones() as usize)
}

impl Level {
    fn route(&self, place: u32) -> Option<&Primary> {
        let (held, index) = rank(self.held, place);
        if held { self.routes.get(index) } else { None }
    }

    fn level(&self, chunk: u32) -> Option<&Self> {
        let (held, index) = rank(self.longer, chunk);
        if held { self.levels.get(index).map(Arc::as_ref) } else { None }
    }

    fn get(&self, steps: Steps) -> Option<&Primary> {
        match steps.next() {
            None => self.route(steps.place(steps.length)),
            Some(next) => self.level(steps.chunk())?.get(next),
        }
    }

    /// What `choose` makes of the longest prefix of which it makes anything. The longest ones are in the
    /// levels below.
    fn choose<'s>(
        &'s self,
        steps: Steps,
        choose: &impl Fn(&'s Primary) -> Option<&'s Arc<Route>>,
    ) -> Option<&'s Arc<Route>> {
        let below = steps.next().and_then(|next| Some((self.level(steps.chunk())?, next)));
        let longer = below.and_then(|(level, next)| level.choose(next, choose));
        longer.or_else(|| {
            let here = (0..STRIDE).rev().filter_map(|length| self.route(steps.place(length)));
            here.filter_map(choose).next()
        })
    }

    fn put(&mut self, steps: Steps, route: Primary) {
        let Some(next) = steps.next() else {
            let place = steps.place(steps.length);
            let (held, index) = rank(self.held, place);
            if !held {
                self.held |= 1 << place;
                self.routes.insert(index, route);
            } else if let Some(old) = self.routes.get_mut(index) {
                *old = route;
            }
            return;
        };
        let chunk = steps.chunk();
        let (held, index) = rank(self.longer, chunk);
        if !held {
            self.longer |= 1 << chunk;
            // Most levels of a long prefix lead to one other.
            self.levels.reserve_exact(1);
            self.levels.insert(index, Arc::default());
        }
        if let Some(level) = self.levels.get_mut(index) {
            Arc::make_mut(level).put(next, route);
        }
    }

    fn remove(&mut self, steps: Steps) {
        let Some(next) = steps.next() else {
            let place = steps.place(steps.length);
            if let (true, index) = rank(self.held, place) {
                self.routes.remove(index);
                self.held &= !(1 << place);
            }
            return;
        };
        let chunk = steps.chunk();
        if let (true, index) = rank(self.longer, chunk)
            && let Some(level) = self.levels.get_mut(index)
        {
            let level = Arc::make_mut(level);
            level.remove(next);
            if level.held == 0 && level.longer == 0 {
                self.levels.remove(index);
                self.longer &= !(1 << chunk);
            }
        }
    }
}

impl Primaries {
    fn family(&self, address: IpAddr) -> &Level {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn family_mut(&mut self, address: IpAddr) -> &mut Level {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    pub(super) fn get(&self, prefix: Prefix) -> Option<&Primary> {
        self.family(prefix.addr()).get(Steps::of(prefix))
    }

    pub(super) fn put(&mut self, route: Arc<Route>, expires_at: Option<Timestamp>) {
        let prefix = route.prefix;
        self.family_mut(prefix.addr()).put(Steps::of(prefix), Primary { route, expires_at });
    }

    pub(super) fn remove(&mut self, prefix: Prefix) {
        self.family_mut(prefix.addr()).remove(Steps::of(prefix));
    }

    /// The route with the longest prefix that contains `address`. In the place of one whose node's key
    /// has expired by `now` there is what `instead` makes of it, or else the next shorter prefix. Takes a
    /// step for each six bits of the longest prefix that begins like the address.
    pub(super) fn lookup<'s>(
        &'s self,
        address: IpAddr,
        now: impl FnOnce() -> Timestamp,
        instead: impl Fn(&'s Arc<Route>, Timestamp) -> Option<&'s Arc<Route>>,
    ) -> Option<&'s Arc<Route>> {
        let longest = self.longest(address)?;
        let Some(expires_at) = longest.expires_at else { return Some(&longest.route) };
        let now = now();
        if now < expires_at {
            return Some(&longest.route);
        }
        self.family(address).choose(Steps::new(address, 128), &|primary| {
            if expired(primary.expires_at, now) {
                instead(&primary.route, now)
            } else {
                Some(&primary.route)
            }
        })
    }

    fn longest(&self, address: IpAddr) -> Option<&Primary> {
        let mut level = self.family(address);
        let mut steps = Steps::new(address, 128);
        let mut longest = None;
        loop {
            let found = (0..STRIDE).rev().find_map(|length| level.route(steps.place(length)));
            longest = found.or(longest);
            let next = steps.next().and_then(|next| Some((level.level(steps.chunk())?, next)));
            match next {
                Some(next) => (level, steps) = next,
                None => return longest,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{NodeId, Revision, RouteId, RouteMetric};

    fn route(prefix: Prefix) -> Arc<Route> {
        Arc::new(Route {
            id: RouteId::from_bytes([1; 16]),
            node: NodeId::from_bytes([1; 16]),
            prefix,
            advertised: true,
            approved: true,
            primary: true,
            metric: RouteMetric::default(),
            description: None,
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
                primaries.put(route(*prefix), Some(Timestamp::EPOCH));
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
                let found = primaries.longest(address).map(|primary| primary.route.prefix);
                prop_assert_eq!(found.as_ref(), longest.copied());
                // Where that one has expired and nothing takes its place, the next shorter one is found.
                let shorter = left
                    .iter()
                    .filter(|prefix| prefix.contains(address) && Some(*prefix) != longest)
                    .max_by_key(|prefix| prefix.prefix_len());
                let instead = |route, _| Some(route).filter(|route: &&Arc<Route>| Some(route.prefix) != found);
                let second = primaries.lookup(address, || Timestamp::MAX, instead);
                let second = second.map(|route| route.prefix);
                prop_assert_eq!(second.as_ref(), shorter.copied());
            }
        }
    }
}
