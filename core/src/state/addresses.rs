//! Which addresses are taken, and by whom. Finding the lowest free one takes logarithmic time, since
//! taken addresses are kept as ranges, too: a network that was filled from the bottom is one range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Map;
use super::holders::Holders;
use crate::domain::{NetworkSettings, NewAddress, Node, NodeId, Prefix, Renumbering};
use crate::error::{EntityKind, Error, ErrorKind, Result};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Family {
    V4,
    V6,
}

/// All addresses of nodes.
#[derive(Clone, Default, Debug)]
pub struct Addresses {
    v4: Holders,
    v6: Holders,
    /// First to last address of each run of taken ones, which never touch. The families are apart:
    /// an IPv6 address may be an IPv4-mapped one, and takes no IPv4 address.
    taken: Map<(Family, u128), u128>,
}

impl Addresses {
    /// The node that has this address.
    #[must_use]
    pub fn holder(&self, address: IpAddr) -> Option<NodeId> {
        let (family, number) = to_number(address);
        self.holders(family).get(number)
    }

    /// How many addresses are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether none is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many IPv4 addresses and how many IPv6 addresses are taken, and how many of each the settings
    /// give out. Reserved prefixes that overlap count once each, so there may be a few more.
    pub(crate) fn usage(&self, network: &NetworkSettings) -> [(u64, f64); 2] {
        let limit = |prefix: Option<Prefix>| {
            prefix.map_or(0.0, |prefix| given_out_size(prefix, &network.reserved))
        };
        [(self.v4.len() as u64, limit(network.ipv4)), (self.v6.len() as u64, limit(network.ipv6))]
    }

    fn holders(&self, family: Family) -> &Holders {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn holders_mut(&mut self, family: Family) -> &mut Holders {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// The run of taken addresses that begins last up to this one.
    fn run_before(&self, family: Family, number: u128) -> Option<(u128, u128)> {
        let (&(of, first), &last) = self.taken.get_prev(&(family, number))?;
        (of == family).then_some((first, last))
    }

    /// The lowest address of `prefix` that is neither taken nor reserved. The network address and,
    /// for IPv4, the broadcast address are never given out, except where the prefix has no others.
    #[must_use]
    pub fn lowest_free(&self, prefix: Prefix, reserved: &[Prefix]) -> Option<IpAddr> {
        let (family, first, last) = given_out(prefix);
        let mut candidate = first;
        while candidate <= last {
            // A network is mostly one run from its first address on.
            let here = self.taken.get(&(family, candidate)).map(|end| (candidate, *end));
            if let Some((_, end)) = here.or_else(|| self.run_before(family, candidate))
                && end >= candidate
            {
                // Runs do not touch, so what is after one is free.
                candidate = end.checked_add(1)?;
            }
            if candidate > last {
                break;
            }
            let address = to_address(family, candidate)?;
            match reserved.iter().find(|reserved| reserved.contains(address)) {
                None => return Some(address),
                Some(reserved) => candidate = to_number(reserved.last()).1.checked_add(1)?,
            }
        }
        None
    }

    /// Gives `node` the addresses that it is to have in place of its own. What it lacks and was not asked for
    /// is for a backfill.
    ///
    /// # Errors
    /// `Exhausted` if there is no other one; `InvalidArgument` for one that the network does not give out;
    /// `AlreadyExists` for one that is taken.
    pub(super) fn renumber(
        &self,
        node: &mut Node,
        Renumbering { ipv4, ipv6 }: Renumbering,
        network: &NetworkSettings,
    ) -> Result<()> {
        let wanted = NetworkSettings {
            ipv4: network.ipv4.filter(|_| ipv4 == NewAddress::Another),
            ipv6: network.ipv6.filter(|_| ipv6 == NewAddress::Another),
            ..network.clone()
        };
        // Its own are taken until they are replaced, so that another one is another.
        match ipv4 {
            NewAddress::Keep => {}
            NewAddress::Another => node.ipv4 = None,
            NewAddress::Given(address) => {
                self.require_given_out(node, address.into(), network)?;
                node.ipv4 = Some(address);
            }
        }
        match ipv6 {
            NewAddress::Keep => {}
            NewAddress::Another => node.ipv6 = None,
            NewAddress::Given(address) => {
                self.require_given_out(node, address.into(), network)?;
                node.ipv6 = Some(address);
            }
        }
        self.fill(node, &wanted)?;
        require_some(node)
    }

    fn require_given_out(
        &self,
        node: &Node,
        address: IpAddr,
        network: &NetworkSettings,
    ) -> Result<()> {
        if !is_given_out(node, address, network) {
            let error = Error::invalid(
                "the network settings do not give out this address, or not to this node; take one that is \
                 in their prefix, not reserved, and of a family that the node is not limited from",
            );
            let error = error.about(EntityKind::Node).with("id", node.id).with("address", address);
            return Err(match prefix_of(address, network) {
                Some(prefix) => error.with("prefix", prefix),
                None => error,
            });
        }
        match self.holder(address) {
            Some(holder) if holder != node.id => {
                Err(Error::already_exists(EntityKind::Node, "address")
                    .with("address", address)
                    .with("held_by", holder))
            }
            _ => Ok(()),
        }
    }

    /// Gives `node` the lowest free address of each configured family that it lacks and is not limited
    /// from.
    pub(super) fn fill(&self, node: &mut Node, network: &NetworkSettings) -> Result<()> {
        let allocate = |prefix: Prefix| {
            self.lowest_free(prefix, &network.reserved).ok_or_else(|| {
                Error::new(
                    ErrorKind::Exhausted,
                    "gets no address: none is free; remove nodes or configure a larger prefix",
                )
                .about(EntityKind::Node)
                .with("prefix", prefix)
            })
        };
        if node.families.has_ipv4()
            && let (None, Some(prefix)) = (node.ipv4, network.ipv4)
            && let IpAddr::V4(address) = allocate(prefix)?
        {
            node.ipv4 = Some(address);
        }
        if node.families.has_ipv6()
            && let (None, Some(prefix)) = (node.ipv6, network.ipv6)
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
        if let Some(old) = old {
            let gone = olds.into_iter().flatten().filter(|address| !news.contains(&Some(*address)));
            gone.for_each(|address| self.release(address, old.id));
        }
        if let Some(new) = new {
            news.into_iter().flatten().for_each(|address| self.take(address, new.id));
        }
    }

    /// Takes the address, also from a node that has it still: until the blocks after them are
    /// replayed, rows may be of different moments.
    fn take(&mut self, address: IpAddr, node: NodeId) {
        let (family, number) = to_number(address);
        let holders = self.holders_mut(family);
        if holders.get(number) == Some(node) || !holders.insert(number, node) {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((start, end)) = self.run_before(family, number)
            && end.checked_add(1) == Some(number)
        {
            first = start;
        }
        if let Some(after) = number.checked_add(1)
            && self.taken.contains_key(&(family, after))
            && let Some(end) = self.taken.remove(&(family, after))
        {
            last = end;
        }
        self.taken.insert((family, first), last);
    }

    /// Frees the address if it is this node's.
    fn release(&mut self, address: IpAddr, node: NodeId) {
        if self.holder(address) != Some(node) {
            return;
        }
        let (family, number) = to_number(address);
        self.holders_mut(family).remove(number);
        let Some((first, last)) = self.run_before(family, number) else { return };
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

/// First and last address of a prefix that nodes may have.
fn given_out(prefix: Prefix) -> (Family, u128, u128) {
    let ((family, mut first), (_, mut last)) =
        (to_number(prefix.first()), to_number(prefix.last()));
    if last - first >= 2 {
        first += 1;
        if prefix.is_ipv4() {
            last -= 1;
        }
    }
    (family, first, last)
}

/// How many addresses of a prefix can be given out.
fn given_out_size(prefix: Prefix, reserved: &[Prefix]) -> f64 {
    let (_, first, last) = given_out(prefix);
    let taken = |reserved: &Prefix| {
        let (from, to) = (to_number(reserved.first()).1, to_number(reserved.last()).1);
        to.min(last).saturating_sub(from.max(first)).saturating_add(1)
    };
    let reserved = reserved.iter().filter(|reserved| prefix.covers(reserved)).map(taken);
    reserved.fold(last - first + 1, u128::saturating_sub) as f64
}

/// The prefix that the address is to be in; `None` if its family is not configured.
fn prefix_of(address: IpAddr, network: &NetworkSettings) -> Option<Prefix> {
    if address.is_ipv4() { network.ipv4 } else { network.ipv6 }
}

/// Whether `node` could get the address, were it free.
fn is_given_out(node: &Node, address: IpAddr, network: &NetworkSettings) -> bool {
    let is_of = |prefix: Prefix| {
        let (_, first, last) = given_out(prefix);
        prefix.contains(address) && (first..=last).contains(&to_number(address).1)
    };
    let is_reserved = || network.reserved.iter().any(|reserved| reserved.contains(address));
    node.families.has(address) && prefix_of(address, network).is_some_and(is_of) && !is_reserved()
}

/// The addresses of a node that it would not get any more: of a family that is not configured or that it is
/// limited from, outside the prefix, or reserved. None if they are all that it can have.
pub(super) fn unconfigured(
    node: &Node,
    network: &NetworkSettings,
) -> impl Iterator<Item = IpAddr> + use<> {
    let addresses = [node.ipv4.map(IpAddr::V4), node.ipv6.map(IpAddr::V6)];
    let released =
        addresses.map(|address| address.filter(|address| !is_given_out(node, *address, network)));
    let stays = addresses != released;
    let gets_another = (network.ipv4.is_some() && node.families.has_ipv4())
        || (network.ipv6.is_some() && node.families.has_ipv6());
    released.into_iter().flatten().filter(move |_| stays || gets_another)
}

/// # Errors
/// `Exhausted` if a node would be left without an address.
pub(super) fn require_some(node: &Node) -> Result<()> {
    if node.ipv4.is_some() || node.ipv6.is_some() {
        return Ok(());
    }
    let message = "gets no address: the network has none of the families that it is limited to";
    Err(Error::new(ErrorKind::Exhausted, message)
        .about(EntityKind::Node)
        .with("families", node.families))
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::state::testing::World;

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
        addresses.release(ip("10.0.0.3"), id(3));
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
            addresses.release(ip(mapped), id(9));
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
        let free = addresses
            .lowest_free("100.0.0.0/8".parse().unwrap(), &["100.0.0.0/10".parse().unwrap()]);
        assert_eq!(free, Some(ip("100.128.0.0")));
    }

    #[test]
    fn rows_of_different_moments_converge_when_blocks_are_replayed() {
        // The rows of the new holder were flushed, those of the old one not yet.
        let mut world = World::new();
        let alice = world.user("alice");
        let template = world.register(alice.id, 1).unwrap();
        let node = |number, address: &str| Node {
            id: id(number),
            ipv4: address.parse().ok(),
            ipv6: None,
            ..Node::clone(&template)
        };
        let prefix = "10.0.0.0/29".parse().unwrap();
        let (old, new) = (node(2, "10.0.0.1"), node(1, "10.0.0.1"));
        for rows in [[&old, &new], [&new, &old]] {
            let mut addresses = Addresses::default();
            rows.into_iter().for_each(|node| addresses.replace(None, Some(node)));
            addresses.replace(Some(&old), None);
            addresses.replace(Some(&new), Some(&new));
            assert_eq!(addresses.holder(ip("10.0.0.1")), Some(new.id));
            assert_eq!(addresses.lowest_free(prefix, &[]), Some(ip("10.0.0.2")));
            assert_eq!(addresses.len(), 1);
        }
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_map(steps in prop::collection::vec((any::<bool>(), 0u8..24, 0u8..3), 0..200)) {
            let prefix: Prefix = "10.0.0.0/27".parse().unwrap();
            let mut addresses = Addresses::default();
            let mut model = BTreeMap::new();
            for (take, offset, node) in steps {
                let address = IpAddr::V4([10, 0, 0, offset].into());
                if take {
                    addresses.take(address, id(node));
                    model.insert(offset, id(node));
                } else {
                    addresses.release(address, id(node));
                    if model.get(&offset) == Some(&id(node)) {
                        model.remove(&offset);
                    }
                }
                for offset in 0..24 {
                    let address = IpAddr::V4([10, 0, 0, offset].into());
                    prop_assert_eq!(addresses.holder(address), model.get(&offset).copied());
                }
                let lowest = (1..31u8).find(|offset| !model.contains_key(offset));
                prop_assert_eq!(
                    addresses.lowest_free(prefix, &[]),
                    lowest.map(|offset| IpAddr::V4([10, 0, 0, offset].into()))
                );
                prop_assert_eq!(addresses.len(), model.len());
            }
        }
    }
}
