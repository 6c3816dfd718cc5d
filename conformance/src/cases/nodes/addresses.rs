//! Addresses of nodes. Whatever is given is compared with a search that tries one after the other.

use crate::prelude::*;

cases! {
    stored {
        "addresses" => [
            the_lowest_free_address_is_given,
            gaps_are_used_again,
            addresses_given_at_once_are_those_of_a_sequence,
            network_and_broadcast_addresses_are_left_out,
            a_full_prefix_is_exhausted_and_uses_nothing_up,
            a_prefix_of_any_size_is_full_at_once,
            addresses_stay_when_the_settings_change,
            only_configured_families_get_addresses,
            restored_addresses_are_taken,
        ],
        "reserved-addresses" => [
            reserved_addresses_are_never_given,
            some_are_reserved_by_default,
            a_prefix_of_reserved_addresses_is_full,
        ],
    }
}

async fn the_lowest_free_address_is_given(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let mut expected = Expected::of(&store);
    for number in 1..=40 {
        expected.check(&node(&store, alice, number).await);
    }
    let store = env.reload(store).await;
    for number in 41..=50 {
        expected.check(&node(&store, alice, number).await);
    }
    assert_eq!(store.view().addresses().len(), 100);
    for address in &expected.taken {
        assert!(store.nodes().get_by_address(*address).await.unwrap().is_some());
    }
    assert_eq!(store.nodes().get_by_address([100, 64, 0, 51].into()).await.unwrap(), None);
}

async fn gaps_are_used_again(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.9.0.0/26"), Some("fd09::/122"))).await;
    let mut expected = Expected::of(&store);
    let mut nodes = Vec::new();
    let mut number = 0;
    let rng = Rng::new(7);
    for round in 0..4 {
        for _ in 0..14 {
            number += 1;
            let node = node(&store, alice, number).await;
            expected.check(&node);
            nodes.push(node);
        }
        // The first and the last one, and some in between.
        let mut gone = vec![nodes.remove(0), nodes.pop().unwrap()];
        for _ in 0..7 {
            gone.push(nodes.swap_remove(rng.below(nodes.len())));
        }
        for node in gone {
            store.nodes().delete(node.id).await.unwrap();
            expected.free(&node);
        }
        store = env.reload(store).await;
        assert_eq!(store.view().addresses().len(), expected.taken.len(), "round {round}");
    }
    for node in &nodes {
        let holder = store.nodes().get_by_address(node.ipv4.unwrap().into()).await.unwrap();
        assert_eq!(holder.as_ref(), Some(node));
    }
}

async fn addresses_given_at_once_are_those_of_a_sequence(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let nodes = register_at_once(&store, 1..=40, &by(alice)).await;
    let nodes: Vec<_> = nodes.into_iter().map(Result::unwrap).collect();
    let mut expected = Expected::of(&store);
    let given = |nodes: &[Arc<Node>]| -> BTreeSet<_> {
        nodes.iter().flat_map(|node| addresses(node)).collect()
    };
    assert_eq!(given(&nodes), expected.next(40));
    for node in nodes.iter().step_by(3) {
        store.nodes().delete(node.id).await.unwrap();
        expected.free(node);
    }
    let store = env.reload(store).await;
    let more = register_at_once(&store, 41..=60, &by(alice)).await;
    let more: Vec<_> = more.into_iter().map(Result::unwrap).collect();
    assert_eq!(given(&more), expected.next(20));
}

async fn network_and_broadcast_addresses_are_left_out(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    let mut number = 0;
    for (ipv4, ipv6, given) in [
        ("10.1.0.0/29", "fd01::/125", [vec![1, 2, 3, 4, 5, 6], vec![1, 2, 3, 4, 5, 6, 7]]),
        ("10.2.0.4/30", "fd02::4/126", [vec![5, 6], vec![5, 6, 7]]),
        ("10.3.0.4/31", "fd03::4/127", [vec![4, 5], vec![4, 5]]),
        ("10.4.0.4/32", "fd04::4/128", [vec![4], vec![4]]),
    ] {
        let settings = network(Some(ipv4), Some(ipv6));
        let each = [
            NetworkSettings { ipv6: None, ..settings.clone() },
            NetworkSettings { ipv4: None, ..settings },
        ];
        for (settings, given) in each.into_iter().zip(given) {
            put_network(&store, settings).await;
            let mut found = Vec::new();
            for _ in &given {
                number += 1;
                let node = node(&store, alice, number).await;
                found.extend(addresses(&node).map(last_byte));
            }
            assert_eq!(found, given, "of {ipv4} or {ipv6}");
            refused(&store, store.nodes().register(machine(number + 1, by(alice))), Exhausted)
                .await;
        }
        store = env.reload(store).await;
        refused(&store, store.nodes().register(machine(number + 1, by(alice))), Exhausted).await;
    }
}

async fn a_full_prefix_is_exhausted_and_uses_nothing_up(env: &mut TestEnv, mut store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    // Either of the two families is enough to refuse.
    for (first, ipv4, ipv6) in [(10, "10.1.0.0/30", "fd01::/64"), (20, "10.2.0.0/24", "fd02::/127")]
    {
        put_network(&store, network(Some(ipv4), Some(ipv6))).await;
        let nodes = [node(&store, alice, first).await, node(&store, alice, first + 1).await];
        store = env.reload(store).await;
        refused(&store, store.nodes().register(machine(1, with(&key))), Exhausted).await;
        assert_eq!(store.preauth_keys().get(key.id).await.unwrap().as_ref(), Some(&key));
        // Who has its addresses may still register again.
        let again = node(&store, alice, first).await;
        assert_eq!(addresses(&again).collect::<Vec<_>>(), addresses(&nodes[0]).collect::<Vec<_>>());
    }
    let gone = store.view().nodes().by_node_key(&node_key(20)).unwrap().clone();
    store.nodes().delete(gone.id).await.unwrap();
    let store = env.reload(store).await;
    let node = register(&store, 1, with(&key)).await;
    assert_eq!((node.ipv4, node.ipv6), (gone.ipv4, gone.ipv6));
}

/// Whoever tried one address after the other would not come to an end: the time limit of a case
/// is what finds that.
async fn a_prefix_of_any_size_is_full_at_once(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let huge = NetworkSettings {
        reserved: vec!["fd00::/9".parse().unwrap(), "fd80::/9".parse().unwrap()],
        ..network(None, Some("fd00::/8"))
    };
    let both = NetworkSettings {
        reserved: vec!["100.64.0.0/11".parse().unwrap(), "100.96.0.0/11".parse().unwrap()],
        ..NetworkSettings::default()
    };
    put_network(&store, huge).await;
    let mut store = env.reload(store).await;
    for settings in [None, Some(both)] {
        if let Some(settings) = settings {
            put_network(&store, settings).await;
            store = env.reload(store).await;
        }
        refused(&store, store.nodes().register(machine(1, by(alice))), Exhausted).await;
    }
}

async fn addresses_stay_when_the_settings_change(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let first = node(&store, alice, 1).await;
    put_network(&store, network(Some("10.1.0.0/16"), None)).await;
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(first.id).await.unwrap(), Some(first.clone()));
    // Neither registering again nor filling up what is missing moves it.
    let again = node(&store, alice, 1).await;
    assert_eq!((again.ipv4, again.ipv6), (first.ipv4, first.ipv6));
    assert_eq!(idle(&store, store.nodes().backfill_addresses()).await, []);
    let second = node(&store, alice, 2).await;
    assert_eq!((second.ipv4, second.ipv6), (Some([10, 1, 0, 1].into()), None));
    store.settings().reset(SettingKind::Network).await.unwrap();
    let store = env.reload(store).await;
    let third = node(&store, alice, 3).await;
    assert_eq!(third.ipv4, Some([100, 64, 0, 2].into()));
    assert_eq!(store.nodes().get(second.id).await.unwrap(), Some(second));
}

async fn only_configured_families_get_addresses(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/16"), None)).await;
    let four = node(&store, alice, 1).await;
    put_network(&store, network(None, Some("fd01::/64"))).await;
    let six = node(&store, alice, 2).await;
    let store = env.reload(store).await;
    assert_eq!((four.ipv4, four.ipv6), (Some([10, 1, 0, 1].into()), None));
    assert_eq!((six.ipv4, six.ipv6), (None, Some("fd01::1".parse().unwrap())));
    for node in [four, six] {
        assert_eq!(store.nodes().get(node.id).await.unwrap(), Some(node));
    }
    let nothing = SettingDocument::Network(network(None, None));
    refused(&store, store.settings().put(nothing, None), InvalidArgument).await;
}

async fn restored_addresses_are_taken(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    put_network(&store, network(Some("10.1.0.0/24"), Some("fd01::/64"))).await;
    let first = node(&store, alice, 1).await;
    let restored = |number: u16, ipv4: [u8; 4], ipv6: &str| {
        let machine = machine(number.into(), by(alice));
        let mut id = [8; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        EntityRecord::Node(
            Node {
                id: NodeId::from_bytes(id),
                label: machine.hostname.as_str().parse().unwrap(),
                hostname: machine.hostname,
                machine_key: machine.machine_key,
                node_key: machine.node_key,
                ipv4: Some(ipv4.into()),
                ipv6: Some(ipv6.parse().unwrap()),
                ..Node::clone(&first)
            }
            .into(),
        )
    };
    let bring = |image| store.restore(Restore { images: vec![image], skip_invalid: false });
    bring(restored(2, [10, 1, 0, 2], "fd01::2")).await.unwrap();
    // An address that looks like an IPv4 one takes none of those.
    bring(restored(4, [10, 1, 0, 4], "::ffff:10.1.0.1")).await.unwrap();
    for taken in [restored(3, [10, 1, 0, 2], "fd01::9"), restored(3, [10, 1, 0, 9], "fd01::2")] {
        let kind = AlreadyExists { constraint: "address" };
        refused(&store, bring(taken), kind).await;
    }
    let mut expected = Expected::of(&store);
    for node in store.view().nodes().iter() {
        expected.taken.extend(addresses(node));
    }
    let store = env.reload(store).await;
    for number in 10..14 {
        expected.check(&node(&store, alice, number).await);
    }
}

async fn reserved_addresses_are_never_given(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let reserved = [
        "10.1.0.0/30",
        "10.1.0.6/31",
        "10.1.0.8/32",
        "10.1.0.10/32",
        "10.1.0.8/29",
        "10.0.0.0/24",
        "fd01::1/128",
        "fd01::4/126",
        "fd01::6/128",
    ];
    let settings = NetworkSettings {
        reserved: reserved.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        ..network(Some("10.1.0.0/26"), Some("fd01::/64"))
    };
    put_network(&store, settings).await;
    let mut expected = Expected::of(&store);
    for number in 1..=10 {
        expected.check(&node(&store, alice, number).await);
    }
    let gone = store.view().nodes().by_node_key(&node_key(3)).unwrap().clone();
    store.nodes().delete(gone.id).await.unwrap();
    expected.free(&gone);
    let store = env.reload(store).await;
    for number in 11..=14 {
        expected.check(&node(&store, alice, number).await);
    }
    // What was given before it was reserved stays, and is not given again.
    let late = store.view().nodes().by_node_key(&node_key(5)).unwrap().clone();
    let mut settings = store.view().settings().network().clone();
    settings.reserved.extend(addresses(&late).map(|address| Prefix::host(address).unwrap()));
    put_network(&store, settings).await;
    let store = env.reload(store).await;
    assert_eq!(store.nodes().get(late.id).await.unwrap().as_ref(), Some(&late));
    store.nodes().delete(late.id).await.unwrap();
    let mut expected = Expected { taken: expected.taken, ..Expected::of(&store) };
    expected.check(&node(&store, alice, 15).await);
}

async fn some_are_reserved_by_default(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let defaults = store.view().settings().network().clone();
    let texts: Vec<_> = defaults.reserved.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["100.100.100.100/32", "100.115.92.0/23", "fd7a:115c:a1e0::53/128"]);
    // Prefixes that begin shortly before what is reserved, with the list of the defaults.
    let mut store = env.reload(store).await;
    let mut number = 0;
    for (ipv4, ipv6) in [
        ("100.100.100.96/29", "fd7a:115c:a1e0::50/124"),
        ("100.115.91.248/29", "fd7a:115c:a1e0::40/122"),
    ] {
        let settings = NetworkSettings {
            ipv4: Some(ipv4.parse().unwrap()),
            ipv6: Some(ipv6.parse().unwrap()),
            ..defaults.clone()
        };
        put_network(&store, settings).await;
        let mut expected = Expected::of(&store);
        expected.taken = store.view().nodes().iter().flat_map(|node| addresses(node)).collect();
        for _ in 0..5 {
            number += 1;
            expected.check(&node(&store, alice, number).await);
        }
        store = env.reload(store).await;
    }
    for reserved in ["100.100.100.100", "100.115.92.0", "100.115.93.255", "fd7a:115c:a1e0::53"] {
        let holder = store.nodes().get_by_address(reserved.parse().unwrap()).await.unwrap();
        assert_eq!(holder, None);
    }
    // With an empty list, nothing is.
    let settings = NetworkSettings {
        ipv4: Some("100.100.100.100/32".parse().unwrap()),
        ipv6: Some("fd7a:115c:a1e0::53/128".parse().unwrap()),
        reserved: Vec::new(),
        ..defaults
    };
    put_network(&store, settings).await;
    let node = node(&store, alice, number + 1).await;
    assert_eq!(node.ipv4, Some([100, 100, 100, 100].into()));
    assert_eq!(node.ipv6, Some("fd7a:115c:a1e0::53".parse().unwrap()));
}

async fn a_prefix_of_reserved_addresses_is_full(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = one_time_key(&store, alice).await;
    put_network(&store, network(Some("100.115.92.0/24"), None)).await;
    let settings = NetworkSettings {
        reserved: NetworkSettings::default().reserved,
        ..network(Some("100.115.92.0/24"), None)
    };
    put_network(&store, settings).await;
    let store = env.reload(store).await;
    refused(&store, store.nodes().register(machine(1, with(&key))), Exhausted).await;
    let too_many = vec!["10.0.0.0/32".parse().unwrap(); 1025];
    let settings = NetworkSettings { reserved: too_many, ..NetworkSettings::default() };
    let put = store.settings().put(SettingDocument::Network(settings), None);
    refused(&store, put, InvalidArgument).await;
}

/// The addresses of a node, IPv4 first.
pub(crate) fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> + use<> {
    node.ipv4.map(IpAddr::V4).into_iter().chain(node.ipv6.map(IpAddr::V6))
}

fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// What has to be given next, found by trying one address after the other.
struct Expected {
    settings: NetworkSettings,
    taken: BTreeSet<IpAddr>,
}

impl Expected {
    /// With the settings that are in force, and nothing taken yet.
    fn of(store: &Opened) -> Self {
        let settings = store.view().settings().network().clone();
        Self { settings, taken: BTreeSet::new() }
    }

    /// Checks that the node got what was next, and takes it.
    fn check(&mut self, node: &Arc<Node>) {
        let expected: Vec<_> =
            [self.settings.ipv4, self.settings.ipv6].into_iter().flatten().collect();
        let expected: Vec<_> = expected.into_iter().map(|prefix| self.lowest(prefix)).collect();
        assert_eq!(addresses(node).collect::<Vec<_>>(), expected);
        self.taken.extend(expected);
    }

    /// Takes this many of each family.
    fn next(&mut self, count: usize) -> BTreeSet<IpAddr> {
        let mut given = BTreeSet::new();
        for _ in 0..count {
            for prefix in [self.settings.ipv4, self.settings.ipv6].into_iter().flatten() {
                let lowest = self.lowest(prefix);
                self.taken.insert(lowest);
                given.insert(lowest);
            }
        }
        given
    }

    fn free(&mut self, node: &Node) {
        for address in addresses(node) {
            assert!(self.taken.remove(&address));
        }
    }

    fn lowest(&self, prefix: Prefix) -> IpAddr {
        let bits = if prefix.is_ipv4() { 32 } else { 128 };
        let has_others = bits - prefix.prefix_len() >= 2;
        let may = |address: &IpAddr| {
            let special = has_others
                && (*address == prefix.first() || (bits == 32 && *address == prefix.last()));
            !special
                && !self.taken.contains(address)
                && !self.settings.reserved.iter().any(|reserved| reserved.contains(*address))
        };
        let (first, last) = (prefix.first(), prefix.last());
        let mut candidates = std::iter::successors(Some(first), |address| {
            (*address < last).then(|| match address {
                IpAddr::V4(four) => IpAddr::V4(Ipv4Addr::from_bits(four.to_bits() + 1)),
                IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() + 1)),
            })
        });
        candidates.find(may).unwrap()
    }
}
