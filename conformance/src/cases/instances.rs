//! Several control planes: who holds which connection, and what becomes of it.

use crate::prelude::*;

cases! {
    stored {
        "instances" => [
            a_restart_disconnects_its_former_self_alone,
            an_instance_that_is_not_seen_is_lost_with_its_nodes,
            an_instance_that_is_over_holds_nothing,
            the_nodes_of_one_instance_can_be_disconnected,
            a_sign_of_life_is_a_row_once_in_five_seconds,
            heartbeats_elsewhere_do_not_move_a_connection,
        ],
        "restore" => [an_instance_comes_before_what_it_holds],
        "session-drawn" => [a_connection_without_a_number_gets_the_next_one],
        "quiet-heartbeat" => [
            a_heartbeat_that_says_nothing_new_is_no_write,
            what_is_new_is_written_within_the_interval,
        ],
        "touch" => [
            a_node_is_seen_without_a_connection,
            who_was_seen_since_is_not_written,
        ],
    }
    stored_unopened {
        "instances" => [a_restart_goes_on_in_parts],
    }
}

async fn begin(store: &Opened, name: &str) -> InstanceId {
    store.instances().begin(name.parse().unwrap()).await.unwrap().id
}

/// A handle of the instance, and a node that it holds.
async fn held(store: &Opened, instance: InstanceId, node: NodeId) -> Arc<Presence> {
    store.as_instance(instance).presence().open(node, Update::Keep).await.unwrap()
}

async fn get(store: &Opened, node: NodeId) -> Arc<Presence> {
    store.presence().get(node).await.unwrap().unwrap()
}

async fn a_restart_disconnects_its_former_self_alone(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let mut nodes = Vec::new();
    for number in 1..=3 {
        nodes.push(node(&store, alice, number).await.id);
    }
    let (one, two) = (begin(&store, "one").await, begin(&store, "two").await);
    assert_eq!(held(&store, one, nodes[0]).await.instance, Some(one));
    carry(&store, nodes[0], &["10.1.0.0/16"]).await;
    env.advance(1);
    assert_eq!(held(&store, two, nodes[1]).await.instance, Some(two));
    carry(&store, nodes[1], &["10.1.0.0/16"]).await;
    assert_eq!(connect(&store, nodes[2], 1).await.instance, None);
    let store = env.reload(store).await;
    let store = env.crash(store).await;
    env.advance(60);
    let again = store.instances().begin("one".parse().unwrap()).await.unwrap();
    let now = env.clock().now();
    assert_eq!((again.started_at, again.last_seen), (now, now));
    let store = env.reload(store).await;
    assert_eq!(store.instances().get(one).await.unwrap(), None);
    assert_eq!(store.instances().get(again.id).await.unwrap(), Some(again));
    let gone = get(&store, nodes[0]).await;
    assert_eq!((gone.online, gone.instance, gone.absent_since), (false, None, Some(now)));
    assert!(get(&store, nodes[1]).await.online && get(&store, nodes[2]).await.online);
    assert_eq!(primary(&store, "10.1.0.0/16").await, Some(nodes[1]));
}

async fn an_instance_that_is_not_seen_is_lost_with_its_nodes(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    let (one, two) = (begin(&store, "one").await, begin(&store, "two").await);
    held(&store, one, a).await;
    held(&store, two, b).await;
    env.advance(29);
    store.instances().beat(two).await.unwrap();
    let unseen_for = Duration::from_secs(30);
    env.advance(1);
    assert_eq!(idle(&store, store.presence().disconnect_lost(unseen_for)).await, 0);
    let store = env.reload(store).await;
    env.advance(1);
    // Not its own, though it has not been seen for as long.
    let of_one = store.as_instance(one);
    assert_eq!(idle(&store, of_one.presence().disconnect_lost(unseen_for)).await, 0);
    // Nor one that may only not have come to be recorded yet.
    let hasty = Instance::LEAST_UNSEEN - MICROSECOND;
    refused(&store, store.presence().disconnect_lost(hasty), InvalidArgument).await;
    assert_eq!(store.presence().disconnect_lost(unseen_for).await.unwrap(), 1);
    let store = env.reload(store).await;
    let left: Vec<_> = store.view().instances().iter().map(|instance| instance.id).collect();
    assert_eq!(left, [two]);
    assert!(!get(&store, a).await.online && get(&store, b).await.online);
    // It is there all the same, and learns of it.
    refused(&store, store.instances().beat(one), NotFound).await;
    refused(&store, store.instances().end(one), NotFound).await;
}

async fn an_instance_that_is_over_holds_nothing(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let one = begin(&store, "one").await;
    let first = held(&store, one, id).await;
    assert_eq!(store.instances().end(one).await.unwrap(), 1);
    let store = env.reload(store).await;
    let late = store.as_instance(one);
    let (presence, number) = (late.presence(), session(first.session.get() + 1));
    refused(&store, presence.open(id, Update::Keep), NotFound).await;
    refused(&store, presence.connect(id, number, Update::Keep), NotFound).await;
    refused(&store, presence.heartbeat(id, number, Update::Keep), NotFound).await;
    assert_eq!(presence.disconnect(id, first.session).await.unwrap(), get(&store, id).await);
    assert!(!get(&store, id).await.online && store.view().instances().is_empty());
}

async fn the_nodes_of_one_instance_can_be_disconnected(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let (a, b) = (node(&store, alice, 1).await.id, node(&store, alice, 2).await.id);
    let (one, two) = (begin(&store, "one").await, begin(&store, "two").await);
    held(&store, one, a).await;
    held(&store, two, b).await;
    let store = env.reload(store).await;
    assert_eq!(store.presence().disconnect_all_of(one).await.unwrap(), 1);
    assert_eq!(idle(&store, store.presence().disconnect_all_of(one)).await, 0);
    let store = env.reload(store).await;
    assert!(!get(&store, a).await.online && get(&store, b).await.online);
    // It is there still, and goes on.
    assert_eq!(held(&store, one, a).await.instance, Some(one));
    assert_eq!(store.presence().disconnect_all().await.unwrap(), 2);
    assert_eq!(env.reload(store).await.view().instances().len(), 2);
}

async fn a_sign_of_life_is_a_row_once_in_five_seconds(env: &mut TestEnv, store: Opened) {
    let one = begin(&store, "one").await;
    let begun = env.clock().now();
    env.advance(4);
    assert_eq!(idle(&store, store.instances().beat(one)).await.last_seen, begun);
    let store = env.reload(store).await;
    env.advance(1);
    let serial = store.view().serial();
    let seen = store.instances().beat(one).await.unwrap();
    assert_eq!((seen.started_at, seen.last_seen), (begun, env.clock().now()));
    assert_eq!(store.view().serial(), serial.next());
    let store = env.reload(store).await;
    assert_eq!(store.instances().get(one).await.unwrap(), Some(seen));
}

async fn heartbeats_elsewhere_do_not_move_a_connection(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let (one, two) = (begin(&store, "one").await, begin(&store, "two").await);
    let number = held(&store, one, id).await.session;
    env.advance(1);
    let other = store.as_instance(two);
    let told = other.presence().heartbeat(id, number, Update::Keep).await.unwrap();
    assert_eq!((told.instance, told.last_seen), (Some(one), Some(env.clock().now())));
    // A newer connection does.
    let store = env.reload(store).await;
    assert_eq!(held(&store, two, id).await.instance, Some(two));
    assert_eq!(store.presence().disconnect_all_of(one).await.unwrap(), 0);
}

async fn an_instance_comes_before_what_it_holds(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let now = env.clock().now();
    let name: InstanceName = "one".parse().unwrap();
    let instance = |number: u8| Instance {
        id: InstanceId::from_bytes([number; 16]),
        name: name.clone(),
        started_at: now,
        last_seen: now,
    };
    let held = Presence {
        online: true,
        instance: Some(instance(1).id),
        last_seen: Some(now),
        ..Presence::new(id)
    };
    let restore =
        |image: EntityRecord| store.restore(Restore { images: vec![image], skip_invalid: false });
    refused(&store, restore(held.clone().into()), NotFound).await;
    restore(instance(1).into()).await.unwrap();
    refused(&store, restore(instance(2).into()), AlreadyExists { constraint: "name" }).await;
    // Nobody holds who is offline, and who is online is not absent.
    let offline = Presence { online: false, ..held.clone() };
    let absent = Presence { absent_since: Some(now), ..held.clone() };
    for wrong in [offline, absent] {
        refused(&store, restore(wrong.into()), InvalidArgument).await;
    }
    restore(held.clone().into()).await.unwrap();
    let store = env.reload(store).await;
    assert_eq!(*get(&store, id).await, held);
    assert_eq!(store.presence().disconnect_all_of(instance(1).id).await.unwrap(), 1);
}

async fn a_restart_goes_on_in_parts(env: &mut TestEnv) {
    let mut options = env.options();
    options.writer.max_block_bytes = 64 * 1024;
    let store = env.open_with(options).await;
    let alice = user(&store, "alice").await;
    let one = begin(&store, "one").await;
    let seen_at = env.clock().now();
    let endpoint = |port: u16| Endpoint::new(([192, 0, 2, 1], port).into(), seen_at);
    let endpoints =
        EndpointList::new((1..=EndpointList::MAX_ENDPOINTS as u16).map(endpoint)).unwrap();
    let holder = store.as_instance(one);
    for number in 1..=80 {
        let id = node(&store, alice, number).await.id;
        let known = Update::Set(endpoints.clone());
        holder.presence().connect(id, session(1), known).await.unwrap();
    }
    let serial = store.view().serial();
    let again = begin(&store, "one").await;
    assert!(store.view().serial() > serial.next(), "in one part");
    let store = env.reload(store).await;
    assert!(store.view().presence().iter().all(|presence| !presence.online));
    let left: Vec<_> = store.view().instances().iter().map(|instance| instance.id).collect();
    assert_eq!(left, [again]);
}

async fn a_connection_without_a_number_gets_the_next_one(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let open = |store: &Opened| {
        let store = store.clone();
        async move { store.presence().open(id, Update::Keep).await.unwrap() }
    };
    for number in [1, 2] {
        let opened = open(&store).await;
        assert_eq!((opened.session, opened.online), (session(number), true));
    }
    let store = env.reload(store).await;
    // Many at once: each has a number of its own.
    let opened = join_all((0..16).map(|_| open(&store))).await;
    let numbers: BTreeSet<_> = opened.iter().map(|presence| presence.session.get()).collect();
    assert!(numbers.into_iter().eq(3..19));
    connect(&store, id, 40).await;
    disconnect(&store, id, 40).await;
    let store = env.reload(store).await;
    assert_eq!(open(&store).await.session, session(41));
    connect(&store, id, i64::MAX as u64).await;
    refused(&store, store.presence().open(id, Update::Keep), Exhausted).await;
}

async fn put_interval(store: &Opened, seconds: u32) {
    let network =
        NetworkSettings { heartbeat_interval_seconds: seconds, ..NetworkSettings::default() };
    store.settings().put(SettingDocument::Network(network), None).await.unwrap();
}

fn told(env: &TestEnv, addr: &str) -> Update<EndpointList> {
    let endpoint = Endpoint::new(addr.parse().unwrap(), env.clock().now());
    Update::Set(EndpointList::new([endpoint]).unwrap())
}

async fn a_heartbeat_that_says_nothing_new_is_no_write(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    put_interval(&store, 60).await;
    let first = store.presence().connect(id, session(1), told(env, "192.0.2.1:1")).await.unwrap();
    let store = env.reload(store).await;
    env.advance(59);
    // Whoever sends it, and whenever it saw the endpoints.
    for _ in 0..2 {
        let beat = store.presence().heartbeat(id, session(1), Update::Keep);
        assert_eq!(idle(&store, beat).await, first);
        let beat = store.presence().heartbeat(id, session(1), told(env, "192.0.2.1:1"));
        assert_eq!(idle(&store, beat).await, first);
    }
    let store = env.reload(store).await;
    env.advance(1);
    let beat = heartbeat(&store, id, 1).await;
    assert_eq!(beat.last_seen, Some(env.clock().now()));
    let store = env.reload(store).await;
    assert_eq!(get(&store, id).await, beat);
    // By default each is one.
    put_interval(&store, 0).await;
    env.advance(1);
    assert_eq!(heartbeat(&store, id, 1).await.last_seen, Some(env.clock().now()));
    let too_long =
        NetworkSettings { heartbeat_interval_seconds: 86_401, ..NetworkSettings::default() };
    let put = store.settings().put(SettingDocument::Network(too_long), None);
    refused(&store, put, InvalidArgument).await;
}

async fn what_is_new_is_written_within_the_interval(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    put_interval(&store, 60).await;
    let mut now = None;
    let mut tick = |env: &mut TestEnv| {
        env.advance(1);
        now = Some(env.clock().now());
        now
    };
    let seen = tick(env);
    assert_eq!(heartbeat(&store, id, 1).await.last_seen, seen);
    let seen = tick(env);
    let beat = store.presence().heartbeat(id, session(1), told(env, "192.0.2.1:1"));
    assert_eq!(beat.await.unwrap().last_seen, seen);
    let store = env.reload(store).await;
    let seen = tick(env);
    assert_eq!(disconnect(&store, id, 1).await.last_seen, seen);
    let seen = tick(env);
    assert_eq!(heartbeat(&store, id, 2).await.last_seen, seen);
    let store = env.reload(store).await;
    assert_eq!(get(&store, id).await.last_seen, seen);
}

async fn a_node_is_seen_without_a_connection(env: &mut TestEnv, store: Opened) {
    let alice = user(&store, "alice").await;
    let key = ephemeral_key(&store, alice).await;
    let id = register(&store, 1, with(&key)).await.id;
    env.advance(1799);
    let now = env.clock().now();
    let seen = store.presence().touch(id, now).await.unwrap();
    assert_eq!(*seen, Presence { last_seen: Some(now), ..Presence::new(id) });
    let store = env.reload(store).await;
    assert_eq!(get(&store, id).await, seen);
    // Its cutoff counts from then, and no connection was opened.
    env.advance(1799);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    let opened = connect(&store, id, 1).await;
    env.advance(5);
    let now = env.clock().now();
    let seen = store.presence().touch(id, now).await.unwrap();
    assert_eq!(*seen, Presence { last_seen: Some(now), ..Presence::clone(&opened) });
    let store = env.reload(store).await;
    assert_eq!(store.presence().disconnect_all().await.unwrap(), 1);
    env.advance(1799);
    store.presence().touch(id, env.clock().now()).await.unwrap();
    env.advance(1);
    assert_eq!(idle(&store, store.nodes().reap_ephemeral()).await, []);
    store.nodes().delete(id).await.unwrap();
    let store = env.reload(store).await;
    refused(&store, store.presence().touch(id, env.clock().now()), NotFound).await;
}

async fn who_was_seen_since_is_not_written(env: &mut TestEnv, store: Opened) {
    let id = some_node(&store).await.id;
    let first = connect(&store, id, 1).await;
    let seen = env.clock().now();
    let store = env.reload(store).await;
    env.advance(60);
    assert_eq!(idle(&store, store.presence().touch(id, seen)).await, first);
    let later = seen.saturating_add(Duration::from_micros(1));
    let touched = store.presence().touch(id, later).await.unwrap();
    assert_eq!(touched.last_seen, Some(env.clock().now()));
    // Two that report the same: one writes.
    assert_eq!(idle(&store, store.presence().touch(id, later)).await, touched);
}
