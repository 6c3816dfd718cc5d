//! How the series are read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{Backend, Commit, Scan, ScanPage};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::layer::{Chaos, FaultKind, Layer};
use ghostwire_store_core::observe::{Event, Recorder};
use ghostwire_store_core::options::{Materialize, StoreOptions, WriterOptions};
use ghostwire_store_core::{ErrorKind, Result, Store, open};
use ghostwire_store_memory::MemoryBackend;
use tokio::sync::Semaphore;

/// Counts scans.
#[derive(Debug, Default)]
struct Scans(AtomicUsize);

impl Recorder for Scans {
    fn record(&self, event: &Event<'_>) {
        if let Event::Call { operation: "scan", .. } = event {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn one_metric_of_all_nodes_takes_two_scans_a_node() {
    const NODES: u8 = 50;
    let backend = MemoryBackend::new(StoreId::from_bytes([1; 16]));
    let counted = Arc::new(Scans::default());
    let options = StoreOptions { recorder: Some(counted.clone()), ..StoreOptions::default() };
    let store = open(Arc::new(backend), options).await.unwrap();
    let at = |seconds| Timestamp::from_secs(seconds).unwrap();
    let mut points = Vec::new();
    for node in 1..=NODES {
        for metric in ["handshakes", "received", "sent"] {
            points.extend((0..20).map(|second| MetricPoint {
                node: Some(NodeId::from_bytes([node; 16])),
                metric: metric.parse().unwrap(),
                at: at(second),
                value: Sample::new(f64::from(node)).unwrap(),
            }));
        }
    }
    store.metrics().record_many(points).await.unwrap();
    let before = counted.0.load(Ordering::Relaxed);
    let metric = Some("received".parse().unwrap());
    let query = MetricQuery { node: None, metric, from: at(5), to: at(15) };
    let sum = store.metrics().aggregate(&query).await.unwrap().unwrap();
    assert_eq!(sum.count, u64::from(NODES) * 10);
    let scans = counted.0.load(Ordering::Relaxed) - before;
    assert!(scans <= usize::from(NODES) * 2 + 2, "{scans} scans");
}

/// Counts the rows that scans give.
#[derive(Debug)]
struct CountRows {
    inner: MemoryBackend,
    read: AtomicUsize,
}

#[async_trait]
impl Layer for CountRows {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let page = self.inner.scan(scan).await?;
        self.read.fetch_add(page.rows.len(), Ordering::Relaxed);
        Ok(page)
    }
}

#[tokio::test]
async fn a_page_of_the_audit_trail_reads_a_page_of_rows() {
    let backend = MemoryBackend::new(StoreId::from_bytes([1; 16]));
    let rows = Arc::new(CountRows { inner: backend, read: AtomicUsize::new(0) });
    let store = open(rows.clone(), StoreOptions::default()).await.unwrap();
    for number in 0..300 {
        let name = format!("user-{number}").parse().unwrap();
        store.users().create(NewUser::local(name)).await.unwrap();
    }
    store.checkpoint().await.unwrap();
    rows.read.store(0, Ordering::Relaxed);
    let page = PageRequest::first(Limit::new(10).unwrap());
    let query = AuditQuery { newest_first: true, ..AuditQuery::default() };
    assert_eq!(store.audit().query(&query, &page).await.unwrap().items.len(), 10);
    assert_eq!(rows.read.load(Ordering::Relaxed), 11);
    // What a filter leaves out does not make it read row by row.
    let subject = Some("nobody".parse().unwrap());
    let query = AuditQuery { subject, ..query };
    assert!(store.audit().query(&query, &page).await.unwrap().items.is_empty());
    assert_eq!(rows.read.load(Ordering::Relaxed), 11 + 300);
}

/// Lets something be recorded behind every scan of metrics.
#[derive(Debug)]
struct RecordsMeanwhile {
    inner: MemoryBackend,
    store: OnceLock<Arc<dyn Store>>,
    batches: AtomicUsize,
}

/// Two nodes' series, each as long as it may be and still be read at once by a sum, but too long
/// together. Every batch begins a second earlier than the one before it.
fn batch(number: usize) -> Vec<MetricPoint> {
    let point = |node: u8, index: usize| MetricPoint {
        node: Some(NodeId::from_bytes([node; 16])),
        metric: "load".parse().unwrap(),
        // Of one node in one hour, of the other in the next.
        at: Timestamp::from_secs(i64::from(node) * 3600 + 1000 - number as i64 + index as i64)
            .unwrap(),
        value: Sample::new(number as f64).unwrap(),
    };
    [1, 2].into_iter().flat_map(|node| (0..600 + number).map(move |i| point(node, i))).collect()
}

#[async_trait]
impl Layer for RecordsMeanwhile {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        let page = self.inner.scan(scan).await?;
        if let Some(store) = self.store.get() {
            let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
            store.metrics().record_many(batch(number)).await?;
        }
        Ok(page)
    }
}

#[tokio::test]
async fn a_series_of_up_to_1000_points_is_added_up_as_of_one_moment() {
    let inner = MemoryBackend::new(StoreId::from_bytes([1; 16]));
    let backend = RecordsMeanwhile { inner, store: OnceLock::new(), batches: AtomicUsize::new(0) };
    let backend = Arc::new(backend);
    let store = open(backend.clone(), StoreOptions::default()).await.unwrap();
    store.metrics().record_many(batch(0)).await.unwrap();
    backend.store.set(store.clone()).unwrap();
    let at = |hour: i64| Timestamp::from_secs(hour * 3600).unwrap();
    let metric = Some("load".parse().unwrap());
    let query = MetricQuery { node: None, metric, from: at(1), to: at(3) };
    let hours = store.metrics().rollup(&query, Rollup::Hour).await.unwrap();
    assert_eq!(hours.len(), 2);
    for hour in &hours {
        assert_eq!(hour.min.to_bits(), hour.max.to_bits(), "{hour:?}");
        assert_eq!(hour.count, 600 + hour.max as u64, "{hour:?}");
    }
    assert!(hours[0].max < hours[1].max, "the second series was read later");
}

/// Stores commits at once, and says so only when it may.
#[derive(Debug)]
struct AnswersLate {
    inner: MemoryBackend,
    stored: Semaphore,
    answers: Semaphore,
}

#[async_trait]
impl Layer for AnswersLate {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.inner.commit(commit).await?;
        self.stored.add_permits(1);
        self.answers.acquire().await.unwrap().forget();
        Ok(())
    }
}

fn alice() -> NewUser {
    NewUser::local("alice".parse().unwrap())
}

/// Rows are written with each commit.
fn at_once() -> StoreOptions {
    StoreOptions { materialize: Materialize::Commit, ..StoreOptions::default() }
}

async fn lines(store: &dyn Store) -> Result<usize> {
    let (query, page) = (AuditQuery::default(), PageRequest::default());
    store.audit().query(&query, &page).await.map(|page| page.items.len())
}

#[tokio::test]
async fn what_the_audit_trail_shows_the_state_shows_too() {
    for digests in [false, true] {
        let inner = MemoryBackend::new(StoreId::from_bytes([1; 16]));
        let backend = AnswersLate { inner, stored: Semaphore::new(0), answers: Semaphore::new(0) };
        let backend = Arc::new(backend);
        let store = open(backend.clone(), at_once()).await.unwrap();
        let create = tokio::spawn({
            let store = store.clone();
            async move { store.users().create(alice()).await }
        });
        backend.stored.acquire().await.unwrap().forget();
        let mut reading = Box::pin(async {
            if digests { store.digests().await.map(|_| 1) } else { lines(store.as_ref()).await }
        });
        // It is stored, but not told to anybody, and nobody sees it in the state.
        for _ in 0..10_000 {
            tokio::select! {
                biased;
                read = &mut reading => panic!("{read:?} without the user"),
                () = tokio::task::yield_now() => {}
            }
        }
        backend.answers.add_permits(1);
        assert_eq!(reading.await.unwrap(), 1);
        assert_eq!(store.view().users().len(), 1);
        create.await.unwrap().unwrap();
        // Nothing is waited for where nothing is under way.
        assert_eq!(lines(store.as_ref()).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn the_audit_trail_does_not_wait_for_a_state_that_nobody_knows() {
    let backend = Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
    let faults = backend.faults().clone();
    let store = open(Arc::new(backend), at_once()).await.unwrap();
    faults.fail_next_commits(1, FaultKind::After);
    faults.fail_next_reopens(2);
    let error = store.users().create(alice()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
    // The line is stored. Whether the user is can only be told once the backend was reopened.
    let error = lines(store.as_ref()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(lines(store.as_ref()).await.unwrap(), 1);
    assert_eq!(store.view().users().len(), 1);
}

#[tokio::test]
async fn pruning_flushes_only_where_it_removes_lines_that_are_not_flushed() {
    let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
    let writer =
        WriterOptions { idle_before_flush: Duration::from_secs(3600), ..WriterOptions::default() };
    let options = StoreOptions { writer, ..StoreOptions::default() };
    let store = open(backend.clone(), options).await.unwrap();
    store.users().create(alice()).await.unwrap();
    let (metric, value) = ("m".parse().unwrap(), Sample::new(1.0).unwrap());
    let point = MetricPoint { node: None, metric, at: Timestamp::EPOCH, value };
    store.metrics().record(point).await.unwrap();
    let debt = store.info().dirty_rows;
    assert!(debt > 0);
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    store.audit().prune(Timestamp::from_secs(1).unwrap()).await.unwrap();
    assert_eq!(store.info().dirty_rows, debt);
    store.audit().prune(Timestamp::MAX).await.unwrap();
    assert_eq!((store.info().dirty_rows, lines(store.as_ref()).await.unwrap()), (0, 0));
    store.verify().await.unwrap();
}
