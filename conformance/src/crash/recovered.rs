//! What is found where a process was killed.

use ghostwire_store_core::digest::Digest;
use ghostwire_store_core::schema::Record as _;
use ghostwire_store_core::state::State;

use super::oracle::{AuditLine, Oracle, audit_line, by_key};
use crate::prelude::*;

pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) images: BTreeMap<(Table, RowKey), EntityRecord>,
    pub(super) audit: BTreeMap<AuditLine, usize>,
    pub(super) points: BTreeMap<RowKey, MetricPoint>,
    pub(super) digest: Digest,
}

impl Recovered {
    /// Reads everything. The rebuilt state has to match the stored rows, and be consistent.
    pub(super) async fn of(store: &Opened) -> Self {
        store.verify().await.expect("nothing is wrong with what was rebuilt");
        let view = store.view();
        check_addresses(&view);
        let points = range(store, &all_points(), 1000)
            .await
            .into_iter()
            .map(|point| (point.key(), point))
            .collect();
        let mut audit = BTreeMap::new();
        for entry in whole_trail(store).await {
            *audit.entry(audit_line(&entry)).or_default() += 1;
        }
        let digest = store.digests().await.expect("the digests can be computed").state;
        Self { images: by_key(&view), state: State::clone(&view), audit, points, digest }
    }
}

/// Batches that were acknowledged are known: repeating one with other points does nothing.
pub(super) async fn repeat_batches(store: &Opened, oracle: &Oracle) {
    for (writer, sequence) in &oracle.sequences {
        let point = point(None, "repeated", store.view().time(), 1.0);
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
