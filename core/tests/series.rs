//! How the series are read.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use ghostwire_store_core::domain::*;
use ghostwire_store_core::layer::Observe;
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
