//! Nodes that send heartbeats while something else is done.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ghostwire_store::command::Restore;
use ghostwire_store::domain::{NodeId, SessionNumber, Update};
use ghostwire_store::{Result, Store};
use ghostwire_store_benches::StateFixture;

/// So many nodes send heartbeats.
const ALIVE: usize = 1_000;

fn alive(fixture: &StateFixture) -> Vec<NodeId> {
    fixture.nodes.iter().take(ALIVE).map(|node| node.id).collect()
}

/// Stores what the fixture has, and connects those that will send heartbeats.
pub(crate) async fn fill(store: &dyn Store, fixture: &StateFixture) -> Result<()> {
    for part in fixture.images().chunks(10_000) {
        store.restore(Restore { images: part.to_vec(), skip_invalid: false }).await?;
    }
    for node in alive(fixture) {
        store.presence().connect(node, SessionNumber::new(1)?, Update::Keep).await?;
    }
    store.checkpoint().await.map(drop)
}

/// A store whose nodes send so many heartbeats a second, whether or not the ones before were answered.
pub(crate) struct Beating {
    store: Arc<dyn Store>,
    log: PathBuf,
    alive: Vec<NodeId>,
    rate: u64,
}

impl Beating {
    pub(crate) fn of(
        store: &Arc<dyn Store>,
        path: &Path,
        fixture: &StateFixture,
        rate: u64,
    ) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self { store: store.clone(), log: log.into(), alive: alive(fixture), rate }
    }

    /// Sends heartbeats for as long as the work takes, and prints how long they waited.
    pub(crate) async fn beside<T>(
        &self,
        what: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, Box<dyn Error>> {
        let ended = Arc::new(AtomicBool::new(false));
        let longest_log = Arc::new(AtomicU64::new(0));
        let beating = tokio::spawn({
            let (store, alive) = (self.store.clone(), self.alive.clone());
            let (ended, longest_log) = (ended.clone(), longest_log.clone());
            let (log, rate) = (self.log.clone(), self.rate);
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
        let done = work.await;
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
            "  beside {what:9} {:6.2} s, {:6} heartbeats: median {:.2?}, 99.9 % {:.2?}, longest {:.2?}; log {:.1} MiB",
            took.as_secs_f64(),
            waits.len(),
            at(0.5),
            at(0.999),
            at(1.0),
            longest_log.load(Ordering::Relaxed) as f64 / (1024.0 * 1024.0),
        );
        Ok(done)
    }
}
