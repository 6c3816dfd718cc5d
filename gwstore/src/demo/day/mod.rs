//! A day of a control plane: the same calls, with the same ids and times, on whatever store.

mod access;
mod machines;
mod network;
mod watcher;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use ghostwire_store::command::{EntityRecord, Restore};
use ghostwire_store::domain::{AuditQuery, Limit, ManualClock, MetricQuery, PageRequest, Rollup};
use ghostwire_store::entropy::{Entropy, SeededEntropy};
use ghostwire_store::portable::{Item, Reader};
use ghostwire_store::{Error, ErrorKind, Result, Store};

use super::lanes::as_caller;
use super::measure::Measurements;
use super::sample;

/// Calls that are made at once.
const WAVE: usize = 256;

/// Entities of one restore, and rows of one batch.
const BATCH: usize = 64;
const SERIES_BATCH: usize = 1000;

/// What a day on one store came to.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) measurements: Measurements,
    /// Commits that the watching stream reported.
    pub(super) watched: u64,
    pub(super) nodes: usize,
}

/// The day in progress.
struct Day<'s> {
    store: &'s dyn Store,
    clock: ManualClock,
    random: SeededEntropy,
    scale: usize,
    measure: Measurements,
}

/// Lives through a day.
///
/// # Errors
/// The first call that did not do what it must.
pub(super) async fn run(
    store: &dyn Store,
    clock: &ManualClock,
    seed: u64,
    scale: usize,
) -> Result<Report> {
    let watcher = watcher::Watcher::start(store);
    let random = SeededEntropy::new(seed ^ 0x6d61_6368_696e_6573);
    let measure = Measurements::default();
    let mut day = Day { store, clock: clock.clone(), random, scale, measure };
    as_caller(day.live()).await?;
    let watched = watcher.finish(store.view().serial()).await?;
    Ok(Report { watched, nodes: store.view().nodes().len(), measurements: day.measure })
}

impl Day<'_> {
    async fn live(&mut self) -> Result<()> {
        self.load_sample().await?;
        self.admit_people_and_machines().await?;
        self.heartbeats(5).await?;
        self.rotate_keys().await?;
        self.policies().await?;
        self.routes_and_failovers().await?;
        self.dns().await?;
        self.credentials().await?;
        self.metrics().await?;
        self.heartbeats(5).await?;
        self.reap().await?;
        self.netmaps()?;
        self.reads().await
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn draw<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes)?;
        Ok(bytes)
    }

    async fn load_sample(&mut self) -> Result<()> {
        let (mut images, mut points, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = Reader::new(sample::FILE)?;
        for item in &mut reader {
            match item? {
                Item::Entity(image) => images.push(image),
                Item::Metric(point) => points.push(point),
                Item::Audit(entry) => entries.push(entry),
            }
        }
        let summary = reader.summary().cloned().unwrap_or_default();
        let store = self.store;
        for batch in images.chunks(BATCH) {
            let images: Vec<EntityRecord> = batch.to_vec();
            let restore = Restore { images, skip_invalid: false };
            self.measure.call("restore (64 entities)", store.restore(restore)).await?;
        }
        for batch in points.chunks(SERIES_BATCH) {
            let recorded = store.metrics().record_many(batch.to_vec());
            self.measure.call("metrics (1000 points)", recorded).await?;
        }
        for batch in entries.chunks(SERIES_BATCH) {
            store.audit().append(batch.to_vec()).await?;
        }
        // From here on what is stored came through the same rules as everything else.
        let loaded = *store.digests().await?.state.as_bytes();
        check(summary.state_digest == Some(loaded), "the sample network was not loaded as it is")
    }

    /// Many calls, [`WAVE`] at a time.
    async fn waves<T, F: Future<Output = Result<T>>>(
        &mut self,
        name: &'static str,
        calls: impl IntoIterator<Item = F>,
    ) -> Result<Vec<T>> {
        let mut calls = calls.into_iter().peekable();
        let mut values = Vec::new();
        while calls.peek().is_some() {
            let wave: Vec<_> = calls.by_ref().take(WAVE).collect();
            values.extend(self.measure.all(name, wave).await?);
            self.pass(1);
        }
        Ok(values)
    }

    fn netmaps(&mut self) -> Result<()> {
        let view = self.store.view();
        let peers = view.nodes().len().saturating_sub(1);
        for node in view.nodes().iter() {
            let map = self.measure.read("netmap", || view.netmap(node.id));
            let map = map.ok_or_else(|| broken("a node has no network map"))?;
            check(
                map.peer_count() == peers && map.serial == view.serial() && map.policy.is_some(),
                "a network map is not of its snapshot",
            )?;
        }
        Ok(())
    }

    /// What dashboards ask for.
    async fn reads(&mut self) -> Result<()> {
        let store = self.store;
        let from = sample::END.parse::<ghostwire_store::domain::Timestamp>()?;
        let query = MetricQuery {
            node: None,
            metric: Some("rx_bytes_total".parse()?),
            from: from.saturating_sub(Duration::from_secs(3600)),
            to: from,
        };
        for _ in 0..8 {
            let rollup = store.metrics().rollup(&query, Rollup::Minute);
            let buckets = self.measure.call("metric rollup", rollup).await?;
            check(buckets.len() == 12, "a rollup misses points")?;
        }
        let query = AuditQuery { newest_first: true, ..AuditQuery::default() };
        let mut page = PageRequest::first(Limit::new(100)?);
        for _ in 0..8 {
            let found = self.measure.call("audit page (100)", store.audit().query(&query, &page));
            let Some(next) = found.await?.next else { break };
            page = PageRequest::after(Limit::new(100)?, next);
        }
        Ok(())
    }
}

type Call<'s, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 's>>;

/// Something did not come out as it must.
fn broken(what: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, what).during("demo.day")
}

fn check(holds: bool, otherwise: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(broken(otherwise)) }
}

/// A call that has to be refused for this reason.
fn refused<T>(result: &Result<T>, kind: &ErrorKind, otherwise: &'static str) -> Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(broken(otherwise).with("instead", error)),
        Ok(_) => Err(broken(otherwise)),
    }
}
