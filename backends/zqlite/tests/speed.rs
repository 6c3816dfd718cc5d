//! How fast the backend is; `cargo test --release -p ghostwire-store-zqlite --test speed -- \
//! --ignored --nocapture --test-threads 1`.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use ghostwire_store_core::backend::{Backend, Budget, Commit, KeyRange, Scan};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Keyring, Rotation};
use ghostwire_store_zqlite::ZqliteBackend;

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
    let sealed = ZqliteBackend::open(sealed(&path)).await.unwrap();
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

/// As the writer does: a slice between two commits, every 50 ms at most.
#[tokio::test]
#[ignore = "a measurement; cargo test --release -p ghostwire-store-zqlite --test speed -- --ignored --nocapture"]
async fn sealing_anew_between_commits() {
    const ROWS: u32 = 100_000;
    for reason in [Rotation::Routine, Rotation::Leaked] {
        let first = keyring(StoreId::from_bytes([9; 16]));
        let (_directory, path) = directory();
        let (still, rotated) = (path.with_file_name("still.db"), path);
        let with =
            |path: &std::path::Path, keyring: &Keyring| options(path).sealed(keyring.clone());
        for path in [&still, &rotated] {
            let backend = ZqliteBackend::open(with(path, &first)).await.unwrap();
            for slice in (0..ROWS).collect::<Vec<_>>().chunks(1_000) {
                let users = slice.iter().map(|number| put(Table::Nodes, *number, vec![3; 320]));
                let metrics = slice.iter().map(|number| put(Table::Metrics, *number, vec![3; 10]));
                let rows = users.chain(metrics).collect();
                backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
            }
            backend.close().await.unwrap();
        }
        let began = Instant::now();
        let still = ZqliteBackend::open(with(&still, &first)).await.unwrap();
        let opening = began.elapsed();
        let backend = ZqliteBackend::open(with(&rotated, &first)).await.unwrap();
        let rotating = written(&first.rotate(reason, 0, &SystemRandom).unwrap());
        let finished = written(&rotating.finish_rotation().unwrap());
        let began = Instant::now();
        backend.take_up(rotating).await.unwrap();
        backend.take_up(finished.clone()).await.unwrap();
        let bytes = backend.info().bytes.unwrap();
        println!(
            "{reason:?}: rotation of {ROWS} rows and metrics, {bytes} bytes: {:?}",
            began.elapsed()
        );
        backend.close().await.unwrap();
        let began = Instant::now();
        let backend = ZqliteBackend::open(with(&rotated, &finished)).await.unwrap();
        println!("opening: {opening:?}, and {:?} before anything is sealed anew", began.elapsed());
        // Of this store's own time: the other one's commits do not count.
        let (mut since, mut slices) = (Duration::ZERO, Vec::new());
        let mut times = [const { Vec::new() }; 2];
        let (mut is_left, mut round) = (true, 0_u32);
        while is_left {
            for (which, backend) in [&still, &backend].into_iter().enumerate() {
                let head = backend.head().await.unwrap();
                let block = block_after(&head, 20_000);
                let rows =
                    (0..200).map(|it| put(Table::Nodes, (round * 200 + it) % ROWS, vec![4; 320]));
                let commit =
                    Commit { block: Some(block), rows: rows.collect(), ..Commit::on(&head) };
                let began = Instant::now();
                backend.commit(&commit).await.unwrap();
                times[which].push(began.elapsed());
            }
            since += times[1].last().copied().unwrap();
            if since >= Duration::from_millis(50) {
                let began = Instant::now();
                is_left = backend.maintain(Budget::default()).await.unwrap();
                slices.push(began.elapsed());
                since = Duration::ZERO;
            }
            round += 1;
        }
        let total = |times: &[Duration]| times.iter().sum::<Duration>();
        let [before, meanwhile] = [&times[0], &times[1]].map(|times| total(times));
        println!(
            "commits of ~20 kB and 200 rows: median {:?}, and {:?} meanwhile; {} slices, median {:?}; throughput {:.3} \
             of what it is otherwise",
            median(times[0].clone()),
            median(times[1].clone()),
            slices.len(),
            median(slices.clone()),
            before.as_secs_f64() / (meanwhile + total(&slices)).as_secs_f64(),
        );
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
        still.close().await.unwrap();
    }
    let (_directory, path) = directory();
    let first = keyring(StoreId::from_bytes([9; 16]));
    let backend = ZqliteBackend::open(options(&path).sealed(first.clone())).await.unwrap();
    for slice in (0..ROWS).collect::<Vec<_>>().chunks(1_000) {
        let rows = slice.iter().map(|number| put(Table::Nodes, *number, vec![3; 320])).collect();
        backend.commit(&Commit { rows, ..Commit::default() }).await.unwrap();
    }
    backend
        .take_up(written(&first.rotate(Rotation::Routine, 0, &SystemRandom).unwrap()))
        .await
        .unwrap();
    let (began, mut slices) = (Instant::now(), 0);
    while backend.maintain(Budget::default()).await.unwrap() {
        slices += 1;
    }
    println!("idle: {ROWS} rows in {slices} slices and {:?}", began.elapsed());
    backend.close().await.unwrap();
}
