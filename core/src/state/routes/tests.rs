#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::command::{NodeCommand, PresenceCommand};
use crate::domain::{NodePatch, Patch, SessionNumber, Update};
use crate::state::testing::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn online(world: &mut World, node: NodeId, session: u64) {
    world.run(connect(node, session)).unwrap();
}

fn offline(world: &mut World, node: NodeId, session: u64) {
    let session = SessionNumber::new(session).unwrap();
    world.run(PresenceCommand::Disconnect { node, session }).unwrap();
}

/// Two online nodes that both carry 10.1.0.0/16.
fn two_routers(world: &mut World) -> (NodeId, NodeId) {
    let alice = world.user("alice");
    let (a, b) = (world.register(alice.id, 1).unwrap().id, world.register(alice.id, 2).unwrap().id);
    for node in [a, b] {
        online(world, node, 1);
        let prefixes = world.prefixes(&["10.1.0.0/16"]);
        world
            .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
            .unwrap();
        world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
    }
    (a, b)
}

fn primary(world: &World) -> Option<NodeId> {
    let primaries: Vec<_> = world.state.routes().iter().filter(|r| r.primary).collect();
    assert!(primaries.len() <= 1);
    let found = primaries.first().map(|route| route.node);
    assert_eq!(found, world.state.routes().primary(prefix("10.1.0.0/16")).map(|r| r.node));
    found
}

#[test]
fn a_prefix_has_one_primary_that_fails_over_and_stays() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    assert_eq!(primary(&world), Some(a));
    offline(&mut world, a, 1);
    assert_eq!(primary(&world), Some(b));
    online(&mut world, a, 2);
    assert_eq!(primary(&world), Some(b), "coming back does not take over");
    world.run(NodeCommand::Delete { id: b }).unwrap();
    assert_eq!(primary(&world), Some(a));
    offline(&mut world, a, 2);
    assert_eq!(primary(&world), None);
}

#[test]
fn the_oldest_takes_over_whatever_its_id() {
    let mut world = World::new();
    let alice = world.user("alice");
    // Within a millisecond the order of ids is no order of creation.
    let ids = [[3; 16], [2; 16], [1; 16]].map(RouteId::from_bytes);
    let nodes = [1, 2, 3].map(|machine| world.register(alice.id, machine).unwrap().id);
    for (node, id) in nodes.into_iter().zip(ids) {
        world.advance(std::time::Duration::from_micros(1));
        let prefixes = vec![(id, prefix("10.1.0.0/16"))];
        world
            .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
            .unwrap();
        world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
    }
    let [first, second, third] = nodes;
    for node in [third, second, first] {
        online(&mut world, node, 1);
    }
    assert_eq!(primary(&world), Some(third), "the others were not online yet");
    offline(&mut world, third, 1);
    assert_eq!(primary(&world), Some(first));
    offline(&mut world, first, 1);
    assert_eq!(primary(&world), Some(second));
}

#[test]
fn only_advertised_and_approved_routes_carry_traffic() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    world.run(RouteCommand::Approve { node: a, prefixes: vec![], expected: None }).unwrap();
    assert_eq!(primary(&world), Some(b));
    world.run(RouteCommand::Advertise { node: b, prefixes: vec![], expected: None }).unwrap();
    assert_eq!(primary(&world), None);
    assert!(world.state.routes().find(b, prefix("10.1.0.0/16")).unwrap().approved);
    world.run(RouteCommand::Advertise { node: a, prefixes: vec![], expected: None }).unwrap();
    assert!(world.state.routes().find(a, prefix("10.1.0.0/16")).is_none());
}

#[test]
fn what_nobody_approved_stands_for_no_election() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    let alice = world.state.nodes().get(a).unwrap().user.unwrap();
    for machine in 3..30 {
        let node = world.register(alice, machine).unwrap().id;
        online(&mut world, node, 1);
        let prefixes = world.prefixes(&["10.1.0.0/16", "10.2.0.0/16"]);
        world.run(RouteCommand::Advertise { node, prefixes, expected: None }).unwrap();
    }
    let routes = world.state.routes();
    assert_eq!(routes.of_prefix(prefix("10.1.0.0/16")).count(), 29);
    assert_eq!(routes.able_len(), 2);
    assert_eq!(routes.carrying().map(|route| route.node).collect::<Vec<_>>(), [a, b]);
    // Nor does one whose node is away.
    offline(&mut world, a, 1);
    assert_eq!((primary(&world), world.state.routes().able_len()), (Some(b), 1));
    world.run(NodeCommand::Delete { id: b }).unwrap();
    assert_eq!((primary(&world), world.state.routes().able_len()), (None, 0));
}

#[test]
fn exit_routes_have_no_primary() {
    let mut world = World::new();
    let alice = world.user("alice");
    let node = world.register(alice.id, 1).unwrap().id;
    online(&mut world, node, 1);
    let prefixes = world.prefixes(&["0.0.0.0/0", "::/0"]);
    world
        .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
        .unwrap();
    world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
    assert!(world.state.routes().iter().all(|route| !route.primary));
}

fn expire(world: &mut World, node: NodeId, at: Timestamp) {
    let part = crate::command::Part::WHOLE;
    world.run(NodeCommand::Expire { nodes: vec![node], at, part }).unwrap();
}

#[test]
fn a_key_that_expires_by_itself_waits_for_an_election() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    let soon = world.now.saturating_add(std::time::Duration::from_secs(60));
    expire(&mut world, a, soon);
    assert_eq!((primary(&world), world.state.due_elections(world.now).count()), (Some(a), 0));
    world.now = soon;
    let address = "10.1.2.3".parse().unwrap();
    assert_eq!(world.state.route_to(address, soon).map(|route| route.node), Some(b));
    assert_eq!(primary(&world), Some(a), "nobody was elected yet");
    let due: Vec<_> = world.state.due_elections(soon).collect();
    assert_eq!(due, [prefix("10.1.0.0/16")]);
    let elect = RouteCommand::Elect { prefixes: due };
    assert_eq!(world.run(elect.clone()).unwrap(), Reply::Count(1));
    assert_eq!(primary(&world), Some(b));
    assert_eq!(world.run(elect).unwrap(), Reply::Count(0));
    // None is left, and a prefix that nobody carries elects nobody.
    expire(&mut world, b, soon);
    assert_eq!((primary(&world), world.state.route_to(address, soon)), (None, None));
    let prefixes = vec![prefix("10.1.0.0/16"), prefix("10.9.0.0/16"), prefix("0.0.0.0/0")];
    assert_eq!(world.run(RouteCommand::Elect { prefixes }).unwrap(), Reply::Count(0));
    let too_many = vec![prefix("10.1.0.0/16"); MAX_PREFIXES + 1];
    let error = world.run(RouteCommand::Elect { prefixes: too_many }).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_lookup_knows_every_expiry_however_it_came() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    let after = |seconds| std::time::Duration::from_secs(seconds);
    let (begun, address) = (world.now, "10.1.2.3".parse().unwrap());
    let found = |state: &State, seconds| {
        let route = state.route_to(address, begun.saturating_add(after(seconds)));
        route.map(|route| route.node)
    };
    let loaded = |state: &State| {
        let mut loading = crate::state::Loading::default();
        state.images().for_each(|image| loading.add(image));
        loading.finish().unwrap()
    };
    expire(&mut world, b, begun.saturating_add(after(90)));
    assert_eq!((primary(&world), found(&world.state, 600)), (Some(a), Some(a)));
    expire(&mut world, a, begun.saturating_add(after(60)));
    for state in [&world.state, &loaded(&world.state)] {
        let nodes = [59, 60, 89, 90].map(|seconds| found(state, seconds));
        assert_eq!(nodes, [Some(a), Some(b), Some(b), None]);
    }
    // An election hands over, and the next primary's expiry counts.
    offline(&mut world, a, 1);
    for state in [&world.state, &loaded(&world.state)] {
        assert_eq!([89, 90].map(|seconds| found(state, seconds)), [Some(b), None]);
    }
    // Later is later, and never is never.
    let patch = |expires_at| NodePatch { expires_at, ..NodePatch::default() };
    let later = begun.saturating_add(after(600));
    for (expires_at, last) in [(Patch::Set(later), None), (Patch::Clear, Some(b))] {
        let patch = Box::new(patch(expires_at));
        world.run(NodeCommand::Update { id: b, patch, expected: None }).unwrap();
        for state in [&world.state, &loaded(&world.state)] {
            assert_eq!([599, 600].map(|seconds| found(state, seconds)), [Some(b), last]);
        }
    }
}

#[test]
fn an_election_is_due_where_a_repair_of_the_clock_left_none() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    let right = world.now;
    let soon = right.saturating_add(std::time::Duration::from_secs(3600));
    for node in [a, b] {
        expire(&mut world, node, soon);
    }
    // Under a clock that is ahead nobody could be primary.
    world.now = soon.saturating_add(std::time::Duration::from_secs(1));
    let prefixes: Vec<_> = world.state.due_elections(world.now).collect();
    world.run(RouteCommand::Elect { prefixes: prefixes.clone() }).unwrap();
    assert_eq!(primary(&world), None);
    assert_eq!(world.state.due_elections(right).collect::<Vec<_>>(), prefixes);
}

#[test]
fn the_lowest_metric_is_elected() {
    let mut world = World::new();
    let (a, b) = two_routers(&mut world);
    let cost = |world: &mut World, node, metric| {
        let id = world.state.routes().find(node, prefix("10.1.0.0/16")).unwrap().id;
        let metric = Update::Set(RouteMetric::new(metric));
        let patch = RoutePatch { metric, ..RoutePatch::default() };
        world.run(RouteCommand::Update { id, patch, expected: None }).unwrap();
    };
    cost(&mut world, b, 3);
    cost(&mut world, a, 3);
    assert_eq!(primary(&world), Some(a), "an equal metric does not take over");
    cost(&mut world, a, 4);
    assert_eq!(primary(&world), Some(b));
    cost(&mut world, a, 3);
    assert_eq!(primary(&world), Some(b));
    offline(&mut world, b, 1);
    assert_eq!(primary(&world), Some(a));
}

#[test]
fn the_longest_prefix_wins() {
    let mut world = World::new();
    let alice = world.user("alice");
    let node = world.register(alice.id, 1).unwrap().id;
    online(&mut world, node, 1);
    let prefixes = world.prefixes(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "fd01::/16"]);
    world
        .run(RouteCommand::Advertise { node, prefixes: prefixes.clone(), expected: None })
        .unwrap();
    world.run(RouteCommand::Approve { node, prefixes, expected: None }).unwrap();
    let lookup = |address: &str| {
        world.state.route_to(address.parse().unwrap(), world.now).map(|r| r.prefix.to_string())
    };
    assert_eq!(lookup("10.1.2.3").as_deref(), Some("10.1.2.0/24"));
    assert_eq!(lookup("10.1.9.9").as_deref(), Some("10.1.0.0/16"));
    assert_eq!(lookup("10.200.0.1").as_deref(), Some("10.0.0.0/8"));
    assert_eq!(lookup("11.0.0.1"), None);
    assert_eq!(lookup("fd01::9").as_deref(), Some("fd01::/16"));
}
