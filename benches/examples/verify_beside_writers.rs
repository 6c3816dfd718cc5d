//! How long writes wait while `verify` and `digests` read everything, and how long SQLite's log gets.
//!
//! ```text
//! cargo run --release -p ghostwire-store-benches --example verify_beside_writers -- [NODES] [HEARTBEATS A SECOND] [STORE]
//! ```
//! 100,000 nodes and 1,000 heartbeats a second, if nothing else is said, on each store whose name contains
//! STORE. Each phase shows how many
//! heartbeats were answered, the median wait, the wait of 999 in 1,000, the longest, and the most bytes that the log had on disk.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ghostwire_store::command::Restore;
use ghostwire_store::domain::{NodeId, SessionNumber, Update};
use ghostwire_store::{Result, Store};
use ghostwire_store_benches::{StateFixture, Target, open};

/// So many nodes send heartbeats.
const ALIVE: usize = 1_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (nodes, rate) = (number(100_000)?, number(1_000)?);
    let only = arguments.next().unwrap_or_default();
    let fixture = StateFixture::with_nodes(nodes)?;
    let images = fixture.images();
    let alive: Vec<NodeId> = fixture.nodes.iter().take(ALIVE).map(|node| node.id).collect();
    drop(fixture);
    let targets =
        [Target::Zqlite, Target::ZqliteSealed, Target::LibsqlCheckpoint, Target::LibsqlCommit];
    for target in targets.into_iter().filter(|target| target.name().contains(&only)) {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("store.db");
        let store = open(target, &path).await?;
        for part in images.chunks(10_000) {
            let restore = Restore { images: part.to_vec(), skip_invalid: false };
            store.restore(restore).await?;
        }
        for node in &alive {
            store.presence().connect(*node, SessionNumber::new(1)?, Update::Keep).await?;
        }
        store.checkpoint().await?;
        println!("{}, {nodes} nodes, {rate} heartbeats a second", target.name());
        let beat = |what, work| beside(what, work, (&store, &path), &alive, rate);
        beat("nothing", Box::pin(tokio::time::sleep(Duration::from_secs(10)))).await?;
        let verify = async { show("verify", store.verify().await) };
        beat("verify", Box::pin(verify)).await?;
        let digests = async { show("digests", store.digests().await.map(drop)) };
        beat("digests", Box::pin(digests)).await?;
        store.close().await?;
    }
    Ok(())
}

fn show(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        println!("  {what} failed: {error}");
    }
}

type Work<'w> = std::pin::Pin<Box<dyn Future<Output = ()> + 'w>>;

/// Sends heartbeats for as long as the work takes, and prints how long they waited.
async fn beside(
    what: &str,
    work: Work<'_>,
    (store, path): (&Arc<dyn Store>, &Path),
    alive: &[NodeId],
    rate: u64,
) -> Result<(), Box<dyn Error>> {
    let ended = Arc::new(AtomicBool::new(false));
    let longest_log = Arc::new(AtomicU64::new(0));
    let log = path.with_file_name("store.db-wal");
    let beating = tokio::spawn({
        let (store, alive) = (store.clone(), alive.to_vec());
        let (ended, longest_log) = (ended.clone(), longest_log.clone());
        async move {
            let mut due = tokio::time::interval(Duration::from_micros(1_000_000 / rate.max(1)));
            let (mut beats, mut node) = (tokio::task::JoinSet::new(), alive.iter().cycle());
            let mut waits = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                due.tick().await;
                let bytes = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
                longest_log.fetch_max(bytes, Ordering::Relaxed);
                let (store, node) = (store.clone(), node.next().copied());
                beats.spawn(async move {
                    let began = Instant::now();
                    if let Some(node) = node {
                        let session = SessionNumber::new(1)?;
                        store.presence().heartbeat(node, session, Update::Keep).await?;
                    }
                    Ok::<_, ghostwire_store::Error>(began.elapsed())
                });
                while let Some(wait) = beats.try_join_next() {
                    waits.push(wait);
                }
            }
            waits.extend(beats.join_all().await.into_iter().map(Ok));
            waits
        }
    });
    let began = Instant::now();
    work.await;
    let took = began.elapsed();
    ended.store(true, Ordering::Relaxed);
    let mut waits = Vec::new();
    for wait in beating.await? {
        waits.push(wait??);
    }
    waits.sort();
    let at = |share: f64| {
        let last = waits.len().saturating_sub(1);
        waits.get(((last as f64) * share) as usize).copied().unwrap_or_default()
    };
    println!(
        "  beside {what:8} {:6.2} s, {:6} heartbeats: median {:.2?}, 99.9 % {:.2?}, longest {:.2?}; log {:.1} MiB",
        took.as_secs_f64(),
        waits.len(),
        at(0.5),
        at(0.999),
        at(1.0),
        longest_log.load(Ordering::Relaxed) as f64 / (1024.0 * 1024.0),
    );
    Ok(())
}
