//! When the network maps of a store share what they have in common.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;

use ghostwire_store_core::domain::*;
use ghostwire_store_core::netmap::Network;
use ghostwire_store_core::open;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_memory::MemoryBackend;

fn registration(n: u8, user: UserId) -> Registration {
    Registration {
        machine_key: MachineKey::from_bytes([n; 32]).unwrap(),
        node_key: NodeKey::from_bytes([n; 32]).unwrap(),
        disco_key: None,
        hostname: format!("machine-{n}").parse().unwrap(),
        host_info: HostInfo::default(),
        admission: Admission::User { user, method: RegisterMethod::Cli },
        expires_at: None,
        families: None,
    }
}

#[tokio::test]
async fn maps_share_the_network_until_it_changes() {
    let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
    let store = open(backend, StoreOptions::default()).await.unwrap();
    let user = store.users().create(NewUser::local("alice".parse().unwrap())).await.unwrap().id;
    let first = store.nodes().register(registration(1, user)).await.unwrap().id;
    let second = store.nodes().register(registration(2, user)).await.unwrap().id;
    let map = store.view().netmap(first).unwrap();
    let other = store.view().netmap(second).unwrap();
    assert!(std::ptr::eq::<Network>(&*map, &*other));
    assert!(map.peers().map(|peer| peer.node.id).eq([second]));
    assert!(other.peers().map(|peer| peer.node.id).eq([first]));
    // Neither series nor flushing change it.
    let point = MetricPoint {
        node: None,
        metric: "load".parse().unwrap(),
        at: Timestamp::EPOCH,
        value: Sample::new(1.0).unwrap(),
    };
    store.metrics().record(point).await.unwrap();
    store.checkpoint().await.unwrap();
    assert!(std::ptr::eq::<Network>(&*map, &*store.view().netmap(second).unwrap()));
    store.nodes().register(registration(3, user)).await.unwrap();
    let later = store.view().netmap(first).unwrap();
    assert_eq!((map.peer_count(), later.peer_count()), (1, 2));
}
