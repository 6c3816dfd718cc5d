//! What the pure state machine costs, piece by piece, in groups of 256 as the writer makes them.
//!
//! `cargo bench -p ghostwire-store-benches --bench state`. The times of `group/...` are for 256
//! commands.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ghostwire_store::command::{Command, EntityRecord};
use ghostwire_store::domain::BlockId;
use ghostwire_store_benches::{StateFixture, apply, heartbeat, prefix, route};
use ghostwire_store_core::block::{BlockBuilder, BlockHash, ChangeKind, Serial};
use ghostwire_store_core::schema::Record;
use ghostwire_store_core::state::{Decision, StateChange};

const GROUP: u64 = 256;

fn encoded(decisions: &[Decision]) -> BlockBuilder {
    let mut builder = BlockBuilder::default();
    for change in decisions.iter().flat_map(|decision| &decision.changes) {
        if let StateChange::Put(image) = change {
            image.put_into(&mut builder, ChangeKind::Created);
        }
    }
    builder
}

fn registrations(fixture: &StateFixture, from: u64, count: u64) -> Vec<Command> {
    (from..from + count).map(|number| fixture.register(number).unwrap().1).collect()
}

fn register(c: &mut Criterion) {
    let mut group = c.benchmark_group("group of 256/register");
    group.throughput(Throughput::Elements(GROUP));
    for nodes in [1_000, 10_000, 100_000] {
        let fixture = StateFixture::with_nodes(nodes).unwrap();
        group.bench_function(BenchmarkId::new("queue to block", nodes), |bencher| {
            bencher.iter_custom(|iterations| {
                // Each group follows the last, as under load, for at most a tenth more nodes.
                let round = (nodes / 10 / GROUP).max(1);
                let mut published = fixture.state.clone();
                let mut spent = Duration::ZERO;
                for iteration in 0..iterations {
                    if iteration % round == 0 {
                        published = fixture.state.clone();
                    }
                    let from = nodes + (iteration % round) * GROUP;
                    let commands = registrations(&fixture, from, GROUP);
                    let began = Instant::now();
                    published = apply(&fixture, &published, &commands).unwrap();
                    spent += began.elapsed();
                }
                spent
            });
        });
        let commands = registrations(&fixture, nodes, GROUP);
        group.bench_function(BenchmarkId::new("decide alone", nodes), |bencher| {
            bencher.iter(|| {
                for command in &commands {
                    black_box(fixture.state.decide(command, &fixture.context()).unwrap());
                }
            });
        });
        let mut after = fixture.state.clone();
        let decisions: Vec<Decision> = commands
            .iter()
            .map(|command| {
                let decision = after.decide(command, &fixture.context()).unwrap();
                decision.changes.iter().cloned().for_each(|change| {
                    after.evolve(change);
                });
                decision
            })
            .collect();
        group.bench_function(BenchmarkId::new("evolve alone", nodes), |bencher| {
            bencher.iter(|| {
                let mut working = fixture.state.clone();
                for decision in &decisions {
                    for change in &decision.changes {
                        working.evolve(change.clone());
                    }
                }
                working
            });
        });
        if nodes == 10_000 {
            group.bench_function("encode rows", |bencher| bencher.iter(|| encoded(&decisions)));
            group.bench_function("encode rows and finish the block", |bencher| {
                bencher.iter(|| {
                    let id = BlockId::from_bytes([1; 16]);
                    let (serial, before) = (Serial::ZERO.next(), BlockHash::GENESIS);
                    encoded(&decisions).finish(serial, id, before, fixture.now).unwrap()
                });
            });
        }
    }
    group.finish();
}

fn heartbeats(c: &mut Criterion) {
    let mut group = c.benchmark_group("group of 256/heartbeat");
    group.throughput(Throughput::Elements(GROUP));
    let mut fixture = StateFixture::with_nodes(100_000).unwrap();
    for index in 0..fixture.nodes.len() {
        let beat = heartbeat(fixture.nodes[index].id, index as u64, fixture.now).unwrap();
        fixture.run(&beat.into()).unwrap();
    }
    let mut number = 0_usize;
    group.bench_function(BenchmarkId::new("queue to block", 100_000), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut published = fixture.state.clone();
            let mut spent = Duration::ZERO;
            for _ in 0..iterations {
                let commands: Vec<Command> = (0..GROUP)
                    .map(|_| {
                        number = number.wrapping_add(2_654_435_761) % fixture.nodes.len();
                        heartbeat(fixture.nodes[number].id, number as u64, fixture.now)
                            .unwrap()
                            .into()
                    })
                    .collect();
                let began = Instant::now();
                published = apply(&fixture, &published, &commands).unwrap();
                spent += began.elapsed();
            }
            spent
        });
    });
    group.finish();
}

fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("single");
    let mut fixture = StateFixture::with_nodes(10_000).unwrap();
    let node = fixture.nodes[5_000].clone();
    group.bench_function("encode a node's row", |bencher| bencher.iter(|| node.encode()));
    let (key, body) = (node.key(), node.encode());
    group.bench_function("decode a node's row", |bencher| {
        bencher.iter(|| <ghostwire_store::domain::Node as Record>::decode(&key, &body).unwrap());
    });
    let network = fixture.state.settings().network().clone();
    group.bench_function("lowest free address", |bencher| {
        let prefix = network.ipv4.unwrap();
        bencher
            .iter(|| fixture.state.addresses().lowest_free(black_box(prefix), &network.reserved));
    });
    for number in 0..100_000 {
        let owner = fixture.nodes[number as usize % 10_000].id;
        let route = route(owner, number, prefix(number).unwrap(), fixture.now).unwrap();
        fixture.put(EntityRecord::Route(Arc::new(route)));
    }
    let mut address = 0_u32;
    group.bench_function("route lookup among 100,000 prefixes", |bencher| {
        bencher.iter(|| {
            address = address.wrapping_add(2_654_435_761);
            let address = IpAddr::V4(Ipv4Addr::from(address));
            black_box(fixture.state.route_to(address, fixture.now))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = single, register, heartbeats
}
criterion_main!(benches);
