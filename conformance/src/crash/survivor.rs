//! What is found where a process was killed.

use std::collections::{BTreeMap, BTreeSet};

use ghostwire_store_core::Store;
use ghostwire_store_core::command::Image;
use ghostwire_store_core::digest::Digest;
use ghostwire_store_core::domain::{
    AuditEntry, AuditQuery, Limit, MetricPoint, MetricQuery, PageRequest, Sample, Timestamp,
};
use ghostwire_store_core::schema::{Record as _, RowKey, Table};
use ghostwire_store_core::state::State;

use super::oracle::{AuditLine, Oracle, audit_line, by_key};

pub(super) struct Survivor {
    pub(super) state: State,
    pub(super) images: BTreeMap<(Table, RowKey), Image>,
    pub(super) audit: BTreeMap<AuditLine, usize>,
    pub(super) points: BTreeMap<RowKey, MetricPoint>,
    pub(super) digest: Digest,
}

impl Survivor {
    /// Reads everything. What was rebuilt has to be what is stored, and to hang together.
    pub(super) async fn of(store: &dyn Store) -> Self {
        store.verify().await.expect("nothing is wrong with what was rebuilt");
        let view = store.view();
        check_addresses(&view);
        let points = points(store).await.into_iter().map(|point| (point.key(), point)).collect();
        let mut audit = BTreeMap::new();
        for entry in audit_entries(store).await {
            *audit.entry(audit_line(&entry)).or_default() += 1;
        }
        let digest = store.digests().await.expect("the digests can be computed").state;
        Self { images: by_key(&view), state: State::clone(&view), audit, points, digest }
    }
}

/// Batches that were acknowledged are known: repeating one with other points does nothing.
pub(super) async fn repeat_batches(store: &dyn Store, oracle: &Oracle) {
    for (writer, sequence) in &oracle.sequences {
        let point = MetricPoint {
            node: None,
            metric: "repeated".parse().unwrap(),
            at: store.view().time(),
            value: Sample::new(1.0).unwrap(),
        };
        let repeated = store.metrics().record_batch(*writer, *sequence, vec![point]).await;
        repeated.expect("a repetition is no error");
    }
}

/// Each node has addresses of its own, and is found by them.
fn check_addresses(state: &State) {
    let mut taken = BTreeSet::new();
    for node in state.nodes().iter() {
        let ipv4 = node.ipv4.expect("every node has an IPv4 address").into();
        let ipv6 = node.ipv6.expect("every node has an IPv6 address").into();
        for address in [ipv4, ipv6] {
            assert!(taken.insert(address), "{address} was given twice");
            let found = state.node_by_address(address).map(|node| node.id);
            assert_eq!(found, Some(node.id));
        }
    }
}

pub(super) async fn points(store: &dyn Store) -> Vec<MetricPoint> {
    let from = Timestamp::from_micros(0).unwrap();
    let query = MetricQuery { node: None, metric: None, from, to: Timestamp::MAX };
    let mut request = PageRequest::first(Limit::MAX);
    let mut points = Vec::new();
    loop {
        let page = store.metrics().range(&query, &request).await.expect("points can be read");
        points.extend(page.items);
        let Some(next) = page.next else { return points };
        request = PageRequest::after(Limit::MAX, next);
    }
}

pub(super) async fn audit_entries(store: &dyn Store) -> Vec<AuditEntry> {
    let mut request = PageRequest::first(Limit::MAX);
    let mut entries = Vec::new();
    loop {
        let page = store.audit().query(&AuditQuery::default(), &request).await;
        let page = page.expect("the audit trail can be read");
        entries.extend(page.items.iter().map(|entry| AuditEntry::clone(entry)));
        let Some(next) = page.next else { return entries };
        request = PageRequest::after(Limit::MAX, next);
    }
}
