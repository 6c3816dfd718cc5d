//! The network map of one node: 10,000 nodes with presences, 2,000 routes, a policy of 1,000 rules.
//!
//! `cargo bench -p ghostwire-store-benches --bench netmap`.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ghostwire_store::command::{Image, Restore};
use ghostwire_store_benches::{Target, World, heartbeat, open, policy, prefix, route};

const NODES: u64 = 10_000;
const ROUTES: u32 = 2_000;
const RULES: u32 = 1_000;

fn netmap(c: &mut Criterion) {
    let mut world = World::with_nodes(NODES).unwrap();
    for index in 0..world.nodes.len() {
        let id = world.nodes[index].id;
        let beat = heartbeat(id, index as u64, world.now).unwrap();
        world.run(&beat.into()).unwrap();
    }
    for number in 0..ROUTES {
        let id = world.nodes[(number as usize * 7) % NODES as usize].id;
        let route = route(id, number, prefix(number).unwrap(), world.now).unwrap();
        world.put(Image::Route(Arc::new(route)));
    }
    world.put(Image::Policy(Arc::new(policy(RULES, world.now).unwrap())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let store = open(Target::Memory, Path::new("")).await.unwrap();
        let restore = Restore { images: world.images(), skip_invalid: true };
        let restored = store.restore(restore).await.unwrap().value;
        assert!(restored.restored > NODES * 2, "{restored:?}");
        store
    });
    let id = world.nodes[NODES as usize / 2].id;
    let map = store.view().netmap(id).unwrap();
    assert_eq!(map.peer_count() as u64, NODES - 1);
    assert!(map.peers().all(|peer| peer.presence.is_some()));
    assert!(map.policy.is_some() && !map.routes.is_empty());
    drop(map);
    c.bench_function("netmap/10,000 nodes", |bencher| {
        bencher.iter(|| black_box(store.view().netmap(black_box(id)).unwrap()));
    });
    runtime.block_on(store.close()).unwrap();
}

criterion_group!(benches, netmap);
criterion_main!(benches);
