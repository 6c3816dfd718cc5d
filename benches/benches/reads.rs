//! Reads of one entity among 10,000 nodes, over `Arc<dyn Store>`: the async methods, and a view.
//!
//! `cargo bench -p ghostwire-store-benches --bench reads`. With two threads the time is that of one
//! read on one of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ghostwire_store::Store;
use ghostwire_store::command::Restore;
use ghostwire_store::domain::Node;
use ghostwire_store_benches::{StateFixture, Target, open};
use tokio::runtime::{Builder, Runtime};

const NODES: u64 = 10_000;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn store() -> (Arc<dyn Store>, Arc<[Arc<Node>]>) {
    let fixture = StateFixture::with_nodes(NODES).unwrap();
    let store = runtime().block_on(async {
        let store = open(Target::Memory, Path::new("")).await.unwrap();
        let restore = Restore { images: fixture.images(), skip_invalid: false };
        store.restore(restore).await.unwrap();
        store
    });
    // In no order that a cache could foresee.
    let mut nodes = fixture.nodes;
    for index in 0..nodes.len() {
        nodes.swap(index, index.wrapping_mul(2_654_435_761) % NODES as usize);
    }
    (store, nodes.into())
}

/// Lets `threads` threads do `work(iterations)` each, and gives the time until all are done.
fn together<W>(threads: usize, iterations: u64, work: W) -> Duration
where
    W: Fn(u64) + Send + Sync,
{
    let barrier = std::sync::Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    work(iterations);
                })
            })
            .collect();
        barrier.wait();
        let began = Instant::now();
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        began.elapsed()
    })
}

fn reads(c: &mut Criterion) {
    let (store, nodes) = store();
    let mut group = c.benchmark_group("reads");
    for threads in [1, 2] {
        let mut bench = |name: &str, read: &(dyn Fn(u64) + Send + Sync)| {
            group.bench_function(format!("{name}/{threads} threads"), |bencher| {
                bencher.iter_custom(|iterations| together(threads, iterations, read));
            });
        };
        let at = |index: u64| &nodes[(index % NODES) as usize];
        bench("nodes().get", &|iterations| {
            runtime().block_on(async {
                for index in 0..iterations {
                    let found = store.nodes().get(at(index).id).await.unwrap();
                    black_box(found.unwrap());
                }
            });
        });
        bench("nodes().get_by_node_key", &|iterations| {
            runtime().block_on(async {
                for index in 0..iterations {
                    let found = store.nodes().get_by_node_key(&at(index).node_key).await.unwrap();
                    black_box(found.unwrap());
                }
            });
        });
        bench("view().nodes().get", &|iterations| {
            for index in 0..iterations {
                black_box(store.view().nodes().get(at(index).id).unwrap());
            }
        });
        bench("view().nodes().by_node_key", &|iterations| {
            for index in 0..iterations {
                black_box(store.view().nodes().by_node_key(&at(index).node_key).unwrap());
            }
        });
        bench("one view, nodes().get", &|iterations| {
            let view = store.view();
            for index in 0..iterations {
                black_box(view.nodes().get(at(index).id).unwrap());
            }
        });
        bench("one view, nodes().by_node_key", &|iterations| {
            let view = store.view();
            for index in 0..iterations {
                black_box(view.nodes().by_node_key(&at(index).node_key).unwrap());
            }
        });
    }
    group.finish();
    runtime().block_on(store.close()).unwrap();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = reads
}
criterion_main!(benches);
