//! Which route carries the traffic for an address.

use crate::prelude::*;

cases! {
    stored {
        "route-lookup" => [
            the_longest_prefix_wins,
            only_primaries_are_found,
            those_of_one_length_are_found_one_by_one,
            lookups_agree_with_a_plain_search,
        ],
    }
}

async fn the_longest_prefix_wins(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    for id in [a, b] {
        connect(&store, id, 1).await;
    }
    carry(&store, a, &["10.0.0.0/8", "10.1.2.0/24", "10.1.2.3/32", "fd01::/16"]).await;
    carry(&store, b, &["10.1.0.0/16", "fd01:2::/32", "fd01:2::9/128"]).await;
    let store = env.reload(store).await;
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

async fn only_primaries_are_found(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    connect(&store, a, 1).await;
    connect(&store, b, 1).await;
    carry(&store, a, &["10.0.0.0/8"]).await;
    carry(&store, b, &["10.1.0.0/16"]).await;
    advertise(&store, a, &["10.0.0.0/8", "10.1.2.0/24"]).await.unwrap();
    approve(&store, b, &["10.1.0.0/16", "10.1.2.0/25"]).await.unwrap();
    let mut store = env.reload(store).await;
    let address = "10.1.2.3".parse().unwrap();
    for (step, found) in [Some(b), Some(a), None, Some(b)].into_iter().enumerate() {
        match step {
            1 => drop(disconnect(&store, b, 1).await),
            2 => store.nodes().delete(a).await.unwrap(),
            3 => drop(connect(&store, b, 2).await),
            _ => {}
        }
        store = env.reload(store).await;
        let route = store.routes().lookup(address).await.unwrap();
        assert_eq!(route.map(|route| route.node), found, "step {step}");
    }
}

async fn those_of_one_length_are_found_one_by_one(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    let mut carriers = Vec::new();
    for number in 1..=3 {
        let id = node(&store, alice, number).await.id;
        connect(&store, id, 1).await;
        carry(&store, id, &[&format!("10.{number}.0.0/16")]).await;
        carriers.push(id);
    }
    // Each goes and comes again, and then all go.
    let mut is_there = [true; 3];
    for (step, at) in [0, 1, 0, 2, 1, 2, 0, 1, 2].into_iter().enumerate() {
        let session = step as u64 / 2 + 2;
        is_there[at] = !is_there[at];
        connect(&store, carriers[at], session).await;
        if !is_there[at] {
            disconnect(&store, carriers[at], session).await;
        }
        store = env.reload(store).await;
        for (index, carrier) in carriers.iter().enumerate() {
            let address = IpAddr::from([10, index as u8 + 1, 0, 1]);
            let found = store.routes().lookup(address).await.unwrap();
            let expected = is_there[index].then_some(*carrier);
            assert_eq!(found.map(|route| route.node), expected, "step {step}: {address}");
        }
    }
}

async fn lookups_agree_with_a_plain_search(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let rng = Rng::new(11);
    // Few different leading bits, so that many prefixes lie in one another.
    let mut lists: [BTreeSet<Prefix>; 3] = Default::default();
    for number in 0..420 {
        let (address, bits) = if number % 2 == 0 { (four(&rng), 32) } else { (six(&rng), 128) };
        let length = u8::try_from(rng.below(bits + 1)).unwrap();
        lists[rng.below(3)].insert(Prefix::containing(address, length).unwrap());
    }
    let mut carried: Vec<(NodeId, Prefix)> = Vec::new();
    for (number, list) in (1..).zip(&lists) {
        let id = node(&store, alice, number).await.id;
        env.advance(1);
        let list: Vec<_> = list.iter().copied().collect();
        store.routes().advertise(id, list.clone(), None).await.unwrap();
        // Every fifth one is not approved, and the third node is offline.
        let approved: Vec<_> =
            list.iter().enumerate().filter(|(index, _)| index % 5 != 0).map(|(_, p)| *p).collect();
        store.routes().approve(id, approved.clone(), None).await.unwrap();
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
    let store = env.reload(store).await;
    let mut probes: Vec<IpAddr> = Vec::new();
    for prefix in lists.iter().flatten() {
        let (first, last) = (prefix.first(), prefix.last());
        probes.extend([first, last, beside(first, -1), beside(last, 1)]);
    }
    probes.extend((0..300).map(|number| if number % 2 == 0 { four(&rng) } else { six(&rng) }));
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

fn four(rng: &Rng) -> IpAddr {
    bytes::<4>(rng).into()
}

fn six(rng: &Rng) -> IpAddr {
    bytes::<16>(rng).into()
}

/// Each byte is one of two.
fn bytes<const N: usize>(rng: &Rng) -> [u8; N] {
    std::array::from_fn(|_| if rng.below(2) == 0 { 0x0a } else { 0xf5 })
}
