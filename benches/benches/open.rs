//! Opening a store of 100,000 nodes: time, resident memory, bytes on disk.
//!
//! `cargo bench -p ghostwire-store-benches --bench open -- [--quick] [--nodes 100000]`. Every
//! opening is in a process of its own, which the operating system charges for its memory alone.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::path::Path;
use std::time::Instant;

use ghostwire_store::command::Restore;
use ghostwire_store_bench_workload::Spread;
use ghostwire_store_bench_workload::machine::{self, files_in, resident_bytes, scratch};
use ghostwire_store_benches::{Target, World, open};
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Opens the store, and prints seconds, memory before, memory after, nodes.
fn child(target: Target, path: &Path) {
    runtime().block_on(async {
        let before = resident_bytes();
        let began = Instant::now();
        let store = open(target, path).await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        println!("{seconds} {before} {} {}", resident_bytes(), store.view().nodes().len());
        // What is in memory is let go without work on the file.
        std::process::exit(0);
    });
}

fn fill(target: Target, path: &Path, nodes: u64) {
    let world = World::with_nodes(nodes).unwrap();
    runtime().block_on(async {
        let store = open(target, path).await.unwrap();
        for images in world.images().chunks(10_000) {
            let restore = Restore { images: images.to_vec(), skip_invalid: false };
            store.restore(restore).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

fn open_in_child(target: Target, path: &Path) -> [f64; 4] {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args(["--child", target.name()])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let figures: Vec<f64> = text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    figures.try_into().unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--child") {
        let target = Target::named(&arguments[at + 1]).unwrap();
        return child(target, Path::new(&arguments[at + 2]));
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let at = arguments.iter().position(|argument| argument == "--nodes");
    let wanted = at.map(|at| arguments[at + 1].parse().unwrap());
    let nodes: u64 = wanted.unwrap_or(if quick { 5_000 } else { 100_000 });
    let rounds = if quick { 1 } else { 5 };
    println!("{nodes} nodes, {rounds} openings each; medians\n");
    println!(
        "| store | open, ms | range | resident MiB | bytes of memory a node | MiB on disk | bytes on disk a node |"
    );
    println!("|---|---|---|---|---|---|---|");
    for target in [Target::Zqlite, Target::LibsqlCommit] {
        let directory = scratch(&machine::directory()).unwrap();
        let empty = scratch(&machine::directory()).unwrap();
        let (path, empty) = (directory.path().join("store.db"), empty.path().join("store.db"));
        fill(target, &path, nodes);
        fill(target, &empty, 0);
        let disk = files_in(directory.path()) as f64;
        let runs: Vec<[f64; 4]> = (0..rounds).map(|_| open_in_child(target, &path)).collect();
        assert!(runs.iter().all(|run| run[3] as u64 == nodes));
        let bare = Spread::of((0..rounds).map(|_| open_in_child(target, &empty)[2])).median;
        let time = Spread::of(runs.iter().map(|run| run[0] * 1e3));
        let memory = Spread::of(runs.iter().map(|run| run[2])).median;
        let mebibyte = 1024.0 * 1024.0;
        println!(
            "| {} | {:.0} | {:.0} to {:.0} | {:.0} (an empty store: {:.0}) | {:.0} | {:.0} | {:.0} |",
            target.name().split(',').next().unwrap(),
            time.median,
            time.least,
            time.most,
            memory / mebibyte,
            bare / mebibyte,
            (memory - bare) / nodes as f64,
            disk / mebibyte,
            disk / nodes as f64,
        );
    }
}
