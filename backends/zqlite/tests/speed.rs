//! How fast the backend is; `cargo test --release -p ghostwire-store-zqlite --test speed -- \
//! --ignored --nocapture --test-threads 1`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use ghostwire_store_core::backend::{Backend, Commit, KeyRange, Scan};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::schema::Table;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
#[ignore = "a measurement; cargo test --release -p ghostwire-store-zqlite --test speed -- --ignored --nocapture"]
async fn durable_blocks() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    for size in [600, 20_000, 150_000] {
        let mut times = Vec::new();
        let all = Instant::now();
        for _ in 0..300 {
            let head = backend.head().await.unwrap();
            let block = block_after(&head, size * 11 / 10);
            let commit = Commit { block: Some(block), ..Commit::on(&head) };
            let began = Instant::now();
            backend.commit(&commit).await.unwrap();
            times.push(began.elapsed());
        }
        let bytes = backend.info().counters.block_bytes;
        let slowest = times.iter().max().copied().unwrap();
        let total: Duration = times.iter().sum();
        println!(
            "block of ~{size} B: median {:?}, mean {:?}, slowest {slowest:?} ({bytes} B so far, {:?} with encoding)",
            median(times.clone()),
            total / 300,
            all.elapsed()
        );
    }
    // What one synchronisation of the disk costs.
    let mut file = std::fs::File::create(path.with_extension("raw")).unwrap();
    let times = (0..300)
        .map(|_| {
            let began = Instant::now();
            std::io::Write::write_all(&mut file, &[1; 150_000]).unwrap();
            file.sync_data().unwrap();
            began.elapsed()
        })
        .collect();
    println!("write and fdatasync of 150 kB: median {:?}", median(times));
}

#[tokio::test]
#[ignore = "a measurement; cargo test --release -p ghostwire-store-zqlite --test speed -- --ignored --nocapture"]
async fn folding_opening_and_scanning() {
    let (_directory, path) = directory();
    let backend = open(&path).await;
    let count = 100_000u32;
    for (what, rows) in [
        ("new rows", (0..count).collect::<Vec<_>>()),
        ("random updates", (0..20_000u32).map(|n| n.wrapping_mul(2_654_435_761) % count).collect()),
    ] {
        let began = Instant::now();
        for slice in rows.chunks(1000) {
            let rows = slice.iter().map(|n| put(Table::Nodes, *n, vec![3; 320])).collect();
            backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
        }
        println!("{} {what} of 320 B: {:?} a row", rows.len(), began.elapsed() / rows.len() as u32);
    }
    let began = Instant::now();
    for slice in (0..count).collect::<Vec<_>>().chunks(1000) {
        let rows = slice.iter().map(|n| put(Table::Metrics, *n, vec![3; 10])).collect();
        backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
    }
    println!("{count} metrics: {:?} a row", began.elapsed() / count);
    backend.close().await.unwrap();
    let began = Instant::now();
    let backend = open(&path).await;
    println!("opening with {count} rows: {:?}", began.elapsed());
    for table in [Table::Nodes, Table::Metrics] {
        let began = Instant::now();
        let mut scan = Scan { range: KeyRange::all(table), reverse: false, limit: 4096 };
        let mut found = 0;
        loop {
            let rows = backend.scan(scan.clone()).await.unwrap().rows;
            let Some(last) = rows.last() else { break };
            found += rows.len();
            scan.range.from = last.key.clone().successor();
        }
        println!("scanning {found} rows of {}: {:?}", table.name(), began.elapsed());
    }
    let began = Instant::now();
    backend.verify().await.unwrap();
    println!("verifying: {:?}; {} bytes", began.elapsed(), backend.info().bytes.unwrap());
    assert_eq!(backend.head().await.unwrap().serial, Serial::ZERO);
}

#[tokio::test]
#[ignore = "a measurement; cargo test --release -p ghostwire-store-zqlite --test speed -- --ignored --nocapture"]
async fn signing_checkpoints() {
    let (_directory, path) = directory();
    let plain = open(&path.with_file_name("plain.db")).await;
    let sealed = ghostwire_store_zqlite::ZqliteBackend::open(sealed(&path)).await.unwrap();
    let mut times = [const { Vec::new() }; 4];
    // In turn, so that a disk that is busy for a while is so for all of them.
    for round in 0..1200u32 {
        let kind = round as usize % 4;
        let backend = if kind < 2 { &plain } else { &sealed };
        let head = backend.head().await.unwrap();
        let block = block_after(&head, 20_000);
        let rows = (0..200).map(|number| put(Table::Nodes, round / 4 * 7 + number, vec![3; 320]));
        let (checkpoint, rows) = ((kind % 2 == 1).then_some(block.serial), rows.collect());
        let commit = Commit { block: Some(block), rows, checkpoint, ..Commit::on(&head) };
        let began = Instant::now();
        backend.commit(&commit).await.unwrap();
        times[kind].push(began.elapsed());
    }
    let names = ["plain", "plain, checkpoint", "sealed", "sealed and signed, checkpoint"];
    for (name, times) in names.into_iter().zip(times) {
        println!("{name}: block of ~20 kB and 200 rows of 320 B: median {:?}", median(times));
    }
}
