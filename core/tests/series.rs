//! How the series are read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ghostwire_store_core::Result;
use ghostwire_store_core::backend::{Backend, Row, Scan};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::layer::{Layer, Observe};
use ghostwire_store_core::open;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_memory::MemoryBackend;

#[tokio::test]
async fn one_metric_of_all_nodes_takes_two_scans_a_node() {
    const NODES: u8 = 50;
    let backend = MemoryBackend::new(StoreId::from_bytes([1; 16]));
    let observe = Arc::new(Observe::new(Arc::new(backend)));
    let store = open(observe.clone(), StoreOptions::default()).await.unwrap();
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
    let before = observe.snapshot().operations["scan"].calls;
    let metric = Some("received".parse().unwrap());
    let query = MetricQuery { node: None, metric, from: at(5), to: at(15) };
    let sum = store.metrics().aggregate(&query).await.unwrap().unwrap();
    assert_eq!(sum.count, u64::from(NODES) * 10);
    let scans = observe.snapshot().operations["scan"].calls - before;
    assert!(scans <= u64::from(NODES) * 2 + 2, "{scans} scans");
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

    async fn scan(&self, scan: Scan) -> Result<Vec<Row>> {
        let rows = self.inner.scan(scan).await?;
        self.read.fetch_add(rows.len(), Ordering::Relaxed);
        Ok(rows)
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
