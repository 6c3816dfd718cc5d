//! Which route carries the traffic for a prefix, and for an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ghostwire_store_core::domain::{Clock, NodeId, Prefix, Route};

use super::presence::{connect, disconnect};
use super::registration::{Opened, node, user};
use super::routes::{advertise, approve, carry, prefix, primary};
use crate::case::cases;
use crate::world::World;

const SHARED: &str = "10.1.0.0/16";

cases! {
    stored {
        "route-primary" => [
            a_primary_is_advertised_approved_and_online,
            a_primary_fails_over_on_a_disconnect_and_not_back,
            a_primary_fails_over_when_its_node_is_deleted,
            a_primary_fails_over_when_it_is_no_longer_advertised,
            a_primary_fails_over_when_it_is_no_longer_approved,
            a_primary_fails_over_when_the_route_is_deleted,
            the_oldest_that_can_takes_over,
            the_oldest_takes_over_even_if_the_clock_was_set_back,
            another_connection_of_the_same_node_moves_nothing,
            each_prefix_has_a_primary_of_its_own,
            the_flag_is_no_change_of_a_route,
            primaries_agree_with_a_model,
        ],
        "route-lookup" => [
            the_longest_prefix_wins,
            only_primaries_are_found,
            lookups_agree_with_a_plain_search,
        ],
    }
}

/// Nodes that are online and carry the shared prefix, oldest first.
async fn routers(world: &World, store: &Opened, count: u16) -> Vec<NodeId> {
    let alice = user(store, "alice").await;
    let mut ids = Vec::new();
    for number in 1..=count {
        let id = node(store, alice, number).await.id;
        world.advance(1);
        connect(store, id, 1).await;
        carry(store, id, &[SHARED]).await;
        ids.push(id);
    }
    ids
}

async fn a_primary_is_advertised_approved_and_online(world: &mut World) {
    let mut store = world.open().await;
    let alice = user(&store, "alice").await;
    let id = node(&store, alice, 1).await.id;
    // In each order of the three, it is the last one that makes it primary.
    for (session, order) in [(1, [0, 1, 2]), (2, [1, 2, 0]), (3, [2, 0, 1]), (4, [2, 1, 0])] {
        for (step, what) in order.into_iter().enumerate() {
            assert_eq!(primary(&store, SHARED).await, None, "{order:?} before step {step}");
            match what {
                0 => drop(advertise(&store, id, &[SHARED]).await.unwrap()),
                1 => drop(approve(&store, id, &[SHARED]).await.unwrap()),
                _ => drop(connect(&store, id, session).await),
            }
        }
        store = world.pass(store).await;
        assert_eq!(primary(&store, SHARED).await, Some(id), "{order:?}");
        disconnect(&store, id, session).await;
        carry(&store, id, &[]).await;
        store = world.pass(store).await;
    }
}

async fn a_primary_fails_over_on_a_disconnect_and_not_back(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    disconnect(&store, ids[0], 1).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    connect(&store, ids[0], 2).await;
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]), "coming back does not take over");
    // With nobody else online there is none, and the first who comes gets it.
    disconnect(&store, ids[0], 2).await;
    disconnect(&store, ids[1], 1).await;
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
    connect(&store, ids[1], 2).await;
    connect(&store, ids[0], 3).await;
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
}

async fn a_primary_fails_over_when_its_node_is_deleted(world: &mut World) {
    let mut store = world.open().await;
    let ids = routers(world, &store, 3).await;
    for (gone, next) in [(ids[0], Some(ids[1])), (ids[1], Some(ids[2])), (ids[2], None)] {
        store = world.pass(store).await;
        assert_eq!(primary(&store, SHARED).await, Some(gone));
        store.nodes().delete(gone).await.unwrap();
        assert_eq!(primary(&store, SHARED).await, next);
    }
    let store = world.pass(store).await;
    assert!(store.view().routes().is_empty());
}

async fn a_primary_fails_over_when_it_is_no_longer_advertised(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    let store = world.pass(store).await;
    advertise(&store, ids[0], &["10.9.0.0/16"]).await.unwrap();
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    advertise(&store, ids[0], &[SHARED]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]), "coming back does not take over");
    advertise(&store, ids[1], &[]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    advertise(&store, ids[0], &[]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
}

async fn a_primary_fails_over_when_it_is_no_longer_approved(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    let store = world.pass(store).await;
    approve(&store, ids[0], &[]).await.unwrap();
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    approve(&store, ids[0], &[SHARED]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]), "coming back does not take over");
    approve(&store, ids[1], &["10.9.0.0/16"]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    approve(&store, ids[0], &[]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
}

async fn a_primary_fails_over_when_the_route_is_deleted(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    let store = world.pass(store).await;
    let route = store.view().routes().primary(prefix(SHARED)).unwrap().clone();
    assert_eq!(route.node, ids[0]);
    store.routes().delete(route.id).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[1]));
    let route = store.view().routes().primary(prefix(SHARED)).unwrap().clone();
    store.routes().delete(route.id).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, None);
}

async fn the_oldest_that_can_takes_over(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 5).await;
    // Of the four others the first two cannot.
    disconnect(&store, ids[1], 1).await;
    approve(&store, ids[2], &[]).await.unwrap();
    let store = world.pass(store).await;
    disconnect(&store, ids[0], 1).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[3]));
    // The oldest by its route, whatever it was before.
    connect(&store, ids[1], 2).await;
    connect(&store, ids[0], 2).await;
    approve(&store, ids[2], &[SHARED]).await.unwrap();
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[3]));
    for next in [ids[0], ids[1], ids[2], ids[4]] {
        let carrier = primary(&store, SHARED).await.unwrap();
        advertise(&store, carrier, &[]).await.unwrap();
        assert_eq!(primary(&store, SHARED).await, Some(next));
    }
}

async fn the_oldest_takes_over_even_if_the_clock_was_set_back(world: &mut World) {
    let store = world.open().await;
    let alice = user(&store, "alice").await;
    let beginning = world.clock().now();
    let mut ids = Vec::new();
    for (number, seconds) in [(1, 10), (2, 20), (3, 30)] {
        let id = node(&store, alice, number).await.id;
        // Whatever comes now comes at this moment, since times in the store do not move back.
        world.clock().set(beginning.saturating_add(Duration::from_secs(seconds)));
        connect(&store, id, 1).await;
        let hours = Duration::from_secs(3600 * seconds);
        world.clock().set(beginning.saturating_sub(hours));
        carry(&store, id, &[SHARED]).await;
        ids.push(id);
    }
    let store = world.pass(store).await;
    let made: Vec<_> = ids
        .iter()
        .map(|id| store.view().routes().find(*id, prefix(SHARED)).unwrap().created_at)
        .collect();
    assert!(made.is_sorted_by(|earlier, later| earlier < later), "{made:?}");
    for next in [Some(ids[1]), Some(ids[2]), None] {
        let carrier = primary(&store, SHARED).await.unwrap();
        disconnect(&store, carrier, 1).await;
        assert_eq!(primary(&store, SHARED).await, next);
    }
}

async fn another_connection_of_the_same_node_moves_nothing(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    connect(&store, ids[0], 2).await;
    disconnect(&store, ids[0], 1).await;
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
}

async fn each_prefix_has_a_primary_of_its_own(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    // The same address with another length, and another family, are other prefixes.
    carry(&store, ids[1], &[SHARED, "10.1.0.0/17", "fd01::/16"]).await;
    world.advance(1);
    carry(&store, ids[0], &[SHARED, "10.1.0.0/17", "fd01::/16"]).await;
    let store = world.pass(store).await;
    assert_eq!(primary(&store, SHARED).await, Some(ids[0]));
    for prefix in ["10.1.0.0/17", "fd01::/16"] {
        assert_eq!(primary(&store, prefix).await, Some(ids[1]), "{prefix}");
    }
    disconnect(&store, ids[1], 1).await;
    let store = world.pass(store).await;
    for prefix in [SHARED, "10.1.0.0/17", "fd01::/16"] {
        assert_eq!(primary(&store, prefix).await, Some(ids[0]), "{prefix}");
    }
}

async fn the_flag_is_no_change_of_a_route(world: &mut World) {
    let store = world.open().await;
    let ids = routers(world, &store, 2).await;
    let before: Vec<_> = store.view().routes().iter().cloned().collect();
    world.advance(60);
    disconnect(&store, ids[0], 1).await;
    let store = world.pass(store).await;
    let after: Vec<_> = store.view().routes().iter().map(|route| Route::clone(route)).collect();
    let expected: Vec<_> = before
        .iter()
        .map(|route| Route { primary: route.node == ids[1], ..Route::clone(route) })
        .collect();
    assert_eq!(after, expected);
}

/// A route of the model.
#[derive(Default, Clone, Copy)]
struct Sides {
    advertised: bool,
    approved: bool,
    /// The step in which it was made.
    made: usize,
}

async fn primaries_agree_with_a_model(world: &mut World) {
    const PREFIXES: [&str; 3] = [SHARED, "10.1.0.0/24", "fd01::/64"];
    let mut store = world.open().await;
    let alice = user(&store, "alice").await;
    let mut ids = Vec::new();
    for number in 1..=4 {
        ids.push(node(&store, alice, number).await.id);
    }
    let mut sessions = [0u64; 4];
    let mut online = [false; 4];
    let mut routes: BTreeMap<(usize, usize), Sides> = BTreeMap::new();
    let mut primaries: [Option<usize>; 3] = [None; 3];
    let mut random = Random(3);
    for step in 0..160 {
        world.advance(1);
        let who = random.below(4);
        match random.below(4) {
            0 => {
                sessions[who] += 1;
                connect(&store, ids[who], sessions[who]).await;
                online[who] = true;
            }
            1 => {
                disconnect(&store, ids[who], sessions[who]).await;
                online[who] = false;
            }
            side => {
                let chosen: Vec<_> = (0..3).filter(|_| random.below(3) > 0).collect();
                let texts: Vec<_> = chosen.iter().map(|which| PREFIXES[*which]).collect();
                match side {
                    2 => advertise(&store, ids[who], &texts).await.unwrap(),
                    _ => approve(&store, ids[who], &texts).await.unwrap(),
                };
                for which in 0..3 {
                    let new = Sides { made: step, ..Sides::default() };
                    let route = routes.entry((who, which)).or_insert(new);
                    let on = chosen.contains(&which);
                    match side {
                        2 => route.advertised = on,
                        _ => route.approved = on,
                    }
                }
                routes.retain(|_, route| route.advertised || route.approved);
            }
        }
        for (which, text) in PREFIXES.iter().enumerate() {
            let can = |who: &usize| {
                let route = routes.get(&(*who, which));
                online[*who] && route.is_some_and(|route| route.advertised && route.approved)
            };
            if !primaries[which].is_some_and(|who| can(&who)) {
                let oldest = (0..4).filter(can).min_by_key(|who| routes[&(*who, which)].made);
                primaries[which] = oldest;
            }
            let found = primary(&store, text).await;
            assert_eq!(found, primaries[which].map(|who| ids[who]), "{text} after step {step}");
        }
        if step % 40 == 39 {
            store = world.pass(store).await;
        }
    }
}

async fn the_longest_prefix_wins(world: &mut World) {
    let store = world.open().await;
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    for id in [a, b] {
        connect(&store, id, 1).await;
    }
    carry(&store, a, &["10.0.0.0/8", "10.1.2.0/24", "10.1.2.3/32", "fd01::/16"]).await;
    carry(&store, b, &["10.1.0.0/16", "fd01:2::/32", "fd01:2::9/128"]).await;
    let store = world.pass(store).await;
    for (address, found) in [
        ("10.1.2.3", Some((a, "10.1.2.3/32"))),
        ("10.1.2.4", Some((a, "10.1.2.0/24"))),
        ("10.1.9.9", Some((b, "10.1.0.0/16"))),
        ("10.200.0.1", Some((a, "10.0.0.0/8"))),
        ("11.0.0.1", None),
        ("9.255.255.255", None),
        ("fd01:2::9", Some((b, "fd01:2::9/128"))),
        ("fd01:2::8", Some((b, "fd01:2::/32"))),
        ("fd01::1", Some((a, "fd01::/16"))),
        ("fd02::1", None),
    ] {
        let route = store.routes().lookup(address.parse().unwrap()).await.unwrap();
        let route = route.map(|route| (route.node, route.prefix));
        assert_eq!(route, found.map(|(node, text)| (node, prefix(text))), "{address}");
    }
}

async fn only_primaries_are_found(world: &mut World) {
    let store = world.open().await;
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    connect(&store, a, 1).await;
    connect(&store, b, 1).await;
    carry(&store, a, &["10.0.0.0/8"]).await;
    carry(&store, b, &["10.1.0.0/16"]).await;
    advertise(&store, a, &["10.0.0.0/8", "10.1.2.0/24"]).await.unwrap();
    approve(&store, b, &["10.1.0.0/16", "10.1.2.0/25"]).await.unwrap();
    let mut store = world.pass(store).await;
    let address = "10.1.2.3".parse().unwrap();
    for (step, found) in [Some(b), Some(a), None, Some(b)].into_iter().enumerate() {
        match step {
            1 => drop(disconnect(&store, b, 1).await),
            2 => store.nodes().delete(a).await.unwrap(),
            3 => drop(connect(&store, b, 2).await),
            _ => {}
        }
        store = world.pass(store).await;
        let route = store.routes().lookup(address).await.unwrap();
        assert_eq!(route.map(|route| route.node), found, "step {step}");
    }
}

async fn lookups_agree_with_a_plain_search(world: &mut World) {
    let store = world.open().await;
    let alice = user(&store, "alice").await;
    let mut random = Random(11);
    // Few different leading bits, so that many prefixes lie in one another.
    let mut lists: [BTreeSet<Prefix>; 3] = Default::default();
    for number in 0..420 {
        let (address, bits) =
            if number % 2 == 0 { (random.four(), 32) } else { (random.six(), 128) };
        let length = u8::try_from(random.below(bits + 1)).unwrap();
        lists[random.below(3)].insert(Prefix::containing(address, length).unwrap());
    }
    let mut carried: Vec<(NodeId, Prefix)> = Vec::new();
    for (number, list) in (1..).zip(&lists) {
        let id = node(&store, alice, number).await.id;
        world.advance(1);
        let list: Vec<_> = list.iter().copied().collect();
        store.routes().advertise(id, list.clone()).await.unwrap();
        // Every fifth one is not approved, and the third node is offline.
        let approved: Vec<_> =
            list.iter().enumerate().filter(|(index, _)| index % 5 != 0).map(|(_, p)| *p).collect();
        store.routes().approve(id, approved.clone()).await.unwrap();
        if number < 3 {
            connect(&store, id, 1).await;
            for prefix in approved {
                let is_taken = carried.iter().any(|(_, other)| *other == prefix);
                if prefix.prefix_len() > 0 && !is_taken {
                    carried.push((id, prefix));
                }
            }
        }
    }
    assert!(carried.len() > 150, "{}", carried.len());
    let store = world.pass(store).await;
    let mut probes: Vec<IpAddr> = Vec::new();
    for prefix in lists.iter().flatten() {
        let (first, last) = (prefix.first(), prefix.last());
        probes.extend([first, last, beside(first, -1), beside(last, 1)]);
    }
    probes
        .extend((0..300).map(|number| if number % 2 == 0 { random.four() } else { random.six() }));
    let mut found_any = 0;
    for address in probes {
        let plain = carried
            .iter()
            .filter(|(_, prefix)| lies_in(address, prefix))
            .max_by_key(|(_, prefix)| prefix.prefix_len());
        let found = store.routes().lookup(address).await.unwrap();
        let found = found.map(|route| (route.node, route.prefix));
        assert_eq!(found.as_ref(), plain, "{address}");
        found_any += usize::from(found.is_some());
    }
    assert!(found_any > 300, "{found_any}");
}

/// The address before or behind, as far as there is one.
fn beside(address: IpAddr, by: i8) -> IpAddr {
    match address {
        IpAddr::V4(four) => {
            Ipv4Addr::from_bits(four.to_bits().wrapping_add_signed(by.into())).into()
        }
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits().wrapping_add_signed(by.into())).into(),
    }
}

/// Compares the leading bits, by hand.
fn lies_in(address: IpAddr, prefix: &Prefix) -> bool {
    let number = |address: IpAddr| match address {
        IpAddr::V4(four) => (32, u128::from(four.to_bits())),
        IpAddr::V6(six) => (128, six.to_bits()),
    };
    let ((bits, of_address), (other, of_prefix)) = (number(address), number(prefix.addr()));
    let rest = bits - u32::from(prefix.prefix_len()).min(bits);
    bits == other && (of_address ^ of_prefix).checked_shr(rest).unwrap_or(0) == 0
}

/// The same choices in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.0 >> 32
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn four(&mut self) -> IpAddr {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        bytes.into()
    }

    fn six(&mut self) -> IpAddr {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes.into()
    }

    /// Each byte is one of two.
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = if self.below(2) == 0 { 0x0a } else { 0xf5 };
        }
    }
}
