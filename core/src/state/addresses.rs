//! Which addresses are taken. Finding the lowest free one takes logarithmic time, since taken
//! addresses are kept as ranges: a network that was filled from the bottom is one range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Map;
use crate::domain::{NetworkSettings, Node, NodeId, Prefix};
use crate::error::{Entity, Error, ErrorKind, Result};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Family {
    V4,
    V6,
}

/// All addresses of nodes.
#[derive(Clone, Default, Debug)]
pub struct Addresses {
    holders: Map<IpAddr, NodeId>,
    /// First to last address of each run of taken ones. The families are apart: an IPv6 address
    /// may be an IPv4-mapped one, and takes no IPv4 address.
    taken: Map<(Family, u128), u128>,
}

impl Addresses {
    /// The node that has this address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<NodeId> {
        self.holders.get(&address).copied()
    }

    /// How many addresses are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether none is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// The lowest address of `prefix` that is neither taken nor reserved. The network address and,
    /// for IPv4, the broadcast address are never given out, except where the prefix has no others.
    #[must_use]
    pub fn lowest_free(&self, prefix: Prefix, reserved: &[Prefix]) -> Option<IpAddr> {
        let ((family, mut first), (_, mut last)) =
            (to_number(prefix.first()), to_number(prefix.last()));
        if last - first >= 2 {
            first += 1;
            if prefix.is_ipv4() {
                last -= 1;
            }
        }
        let mut candidate = first;
        while candidate <= last {
            if let Some((&(of, _), &end)) = self.taken.get_prev(&(family, candidate))
                && of == family
                && end >= candidate
            {
                candidate = end.checked_add(1)?;
                continue;
            }
            let address = to_address(family, candidate)?;
            match reserved.iter().find(|reserved| reserved.contains(address)) {
                None => return Some(address),
                Some(reserved) => candidate = to_number(reserved.last()).1.checked_add(1)?,
            }
        }
        None
    }

    /// Gives `node` the lowest free address of each configured family that it lacks.
    pub(super) fn fill(&self, node: &mut Node, network: &NetworkSettings) -> Result<()> {
        let allocate = |prefix: Prefix| {
            self.lowest_free(prefix, &network.reserved).ok_or_else(|| {
                Error::new(
                    ErrorKind::Exhausted,
                    "gets no address: none is free; remove nodes or configure a larger prefix",
                )
                .about(Entity::Node)
                .with("prefix", prefix)
            })
        };
        if let (None, Some(prefix)) = (node.ipv4, network.ipv4)
            && let IpAddr::V4(address) = allocate(prefix)?
        {
            node.ipv4 = Some(address);
        }
        if let (None, Some(prefix)) = (node.ipv6, network.ipv6)
            && let IpAddr::V6(address) = allocate(prefix)?
        {
            node.ipv6 = Some(address);
        }
        Ok(())
    }

    pub(super) fn replace(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let addresses = |node: &Node| [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)];
        let olds = old.map(addresses).unwrap_or_default();
        let news = new.map(addresses).unwrap_or_default();
        if olds == news {
            return;
        }
        for address in olds.into_iter().flatten() {
            self.release(address);
        }
        if let Some(node) = new {
            for address in news.into_iter().flatten() {
                self.take(address, node.id);
            }
        }
    }

    fn take(&mut self, address: IpAddr, node: NodeId) {
        if self.holders.insert(address, node).is_some() {
            return;
        }
        let (family, number) = to_number(address);
        let mut first = number;
        let mut last = number;
        if let Some((&(of, start), &end)) = self.taken.get_prev(&(family, number))
            && of == family
            && end.checked_add(1) == Some(number)
        {
            first = start;
        }
        if let Some(after) = number.checked_add(1)
            && let Some(end) = self.taken.remove(&(family, after))
        {
            last = end;
        }
        self.taken.insert((family, first), last);
    }

    fn release(&mut self, address: IpAddr) {
        if self.holders.remove(&address).is_none() {
            return;
        }
        let (family, number) = to_number(address);
        let Some((&(of, first), &last)) = self.taken.get_prev(&(family, number)) else { return };
        if of != family || last < number {
            return;
        }
        if first == number {
            self.taken.remove(&(family, first));
        } else {
            self.taken.insert((family, first), number - 1);
        }
        if last > number {
            self.taken.insert((family, number + 1), last);
        }
    }
}

fn to_number(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(address) => (Family::V4, address.to_bits().into()),
        IpAddr::V6(address) => (Family::V6, address.to_bits()),
    }
}

fn to_address(family: Family, number: u128) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number.try_into().ok()?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_given_and_gaps_are_reused() {
        let mut addresses = Addresses::default();
        let prefix: Prefix = "10.0.0.0/29".parse().unwrap();
        for last in 1..=6 {
            let address = addresses.lowest_free(prefix, &[]).unwrap();
            assert_eq!(address, ip(&format!("10.0.0.{last}")));
            addresses.take(address, id(last));
        }
        assert_eq!(addresses.lowest_free(prefix, &[]), None);
        addresses.release(ip("10.0.0.3"));
        assert_eq!(addresses.lowest_free(prefix, &[]), Some(ip("10.0.0.3")));
        let reserved = ["10.0.0.2/31".parse().unwrap()];
        assert_eq!(addresses.lowest_free(prefix, &reserved), None);
    }

    #[test]
    fn small_prefixes_have_no_network_or_broadcast_address() {
        let addresses = Addresses::default();
        for (prefix, first) in [
            ("10.0.0.0/32", "10.0.0.0"),
            ("10.0.0.0/31", "10.0.0.0"),
            ("fd00::/128", "fd00::"),
            ("fd00::/127", "fd00::"),
            ("fd00::/64", "fd00::1"),
        ] {
            assert_eq!(addresses.lowest_free(prefix.parse().unwrap(), &[]), Some(ip(first)));
        }
    }

    #[test]
    fn a_mapped_address_takes_no_ipv4_address() {
        let mut addresses = Addresses::default();
        for last in 1..=3 {
            addresses.take(ip(&format!("10.0.0.{last}")), id(last));
        }
        let prefix = "10.0.0.0/29".parse().unwrap();
        for mapped in ["::ffff:10.0.0.1", "::ffff:10.0.0.4"] {
            addresses.take(ip(mapped), id(9));
            assert_eq!(addresses.lowest_free(prefix, &[]), Some(ip("10.0.0.4")));
            addresses.release(ip(mapped));
            assert_eq!(addresses.lowest_free(prefix, &[]), Some(ip("10.0.0.4")));
        }
    }

    #[test]
    fn a_full_prefix_is_known_at_once() {
        let mut addresses = Addresses::default();
        // A /10 filled by hand would take 4 million steps if it were searched.
        let (first, last) = (to_number(ip("100.64.0.0")), to_number(ip("100.127.255.255")).1);
        addresses.taken.insert(first, last);
        assert_eq!(addresses.lowest_free("100.64.0.0/10".parse().unwrap(), &[]), None);
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u8..24), 0..200)) {
            let prefix: Prefix = "10.0.0.0/27".parse().unwrap();
            let mut addresses = Addresses::default();
            let mut model = BTreeSet::new();
            for (take, offset) in steps {
                let address = IpAddr::V4([10, 0, 0, offset].into());
                if take {
                    addresses.take(address, id(offset));
                    model.insert(offset);
                } else {
                    addresses.release(address);
                    model.remove(&offset);
                }
                let lowest = (1..31u8).find(|offset| !model.contains(offset));
                prop_assert_eq!(
                    addresses.lowest_free(prefix, &[]),
                    lowest.map(|offset| IpAddr::V4([10, 0, 0, offset].into()))
                );
                prop_assert_eq!(addresses.len(), model.len());
            }
        }
    }
}
