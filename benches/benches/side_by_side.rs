//! This store beside the `libsql` crate called directly, with criterion: point reads and a listing
//! among 10,000 nodes, a heartbeat and a registration of one caller.
//!
//! `cargo bench -p ghostwire-store-benches --bench side_by_side`; the page is
//! `target/criterion/report/index.html`. `gwstore bench` measures more, and many callers at once.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ghostwire_store_bench_workload::machine::directory;
use ghostwire_store_bench_workload::subject::Candidate;
use ghostwire_store_bench_workload::targets::Targets;
use ghostwire_store_bench_workload::{Content, Operation, Session};
use ghostwire_store_benches::candidates;
use tokio::runtime::Runtime;

const CONTENT: Content = Content {
    nodes: 10_000,
    routes: 2_000,
    rules: 1_000,
    api_keys: 100,
    // More than one caller uses up.
    preauth_keys: 100_000,
    points: 0,
    audit: 0,
};

const READS: [Operation; 4] =
    [Operation::NodeById, Operation::NodeByKey, Operation::NodeByLabel, Operation::ListOnline];
const WRITES: [Operation; 2] = [Operation::Heartbeat, Operation::Register];

fn bench(c: &mut Criterion, runtime: &Runtime, targets: &Targets, session: &Session, name: &str) {
    let subject = session.subject();
    for operation in READS.into_iter().chain(WRITES) {
        let mut turn = 0;
        let mut group = c.benchmark_group(operation.name());
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| {
                turn += 1;
                match targets.read(operation, turn) {
                    Some(read) => {
                        black_box(runtime.block_on(subject.read(&read)).unwrap());
                    }
                    None => {
                        let write = targets.write(operation, turn - 1).unwrap();
                        runtime.block_on(subject.write(write)).unwrap();
                    }
                }
            });
        });
        // What was put off shall not disturb what follows.
        runtime.block_on(subject.settle()).unwrap();
    }
}

fn side_by_side(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let targets = Arc::new(Targets::new(CONTENT));
    for candidate in candidates() {
        let Candidate { about, .. } = &candidate;
        let session = runtime.block_on(Session::open(&candidate, CONTENT, &directory())).unwrap();
        bench(c, &runtime, &targets, &session, &about.name);
        runtime.block_on(session.end()).unwrap();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = side_by_side
}
criterion_main!(benches);
