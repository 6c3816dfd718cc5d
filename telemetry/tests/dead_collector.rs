//! A collector that takes connections and never answers costs a bounded queue and a counter. Alone in its
//! process, as `traces.rs`.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use common::Scrape;
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::open;
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_memory::MemoryBackend;
use ghostwire_store_telemetry::logs::{self, LogOptions};
use ghostwire_store_telemetry::{Options, Telemetry};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_waits_for_it_and_what_is_lost_is_counted() {
    // Connections wait in its backlog for ever.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let options = Options { endpoint: Some(endpoint), sampled: 1.0, ..Options::default() };
    let telemetry = Telemetry::start(options).unwrap();
    let quiet = LogOptions { level: "off".to_owned(), ..LogOptions::default() };
    logs::init(&quiet, Some(&telemetry)).unwrap();
    let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
    let recorder = Some(telemetry.recorder("main"));
    let store = open(backend, StoreOptions { recorder, ..common::options() }).await.unwrap();
    let queue = "otel_sdk_processor_span_queue_size";
    let capacity =
        Scrape::of(&telemetry.text()).value("otel_sdk_processor_span_queue_capacity", &[]);
    let capacity = capacity.unwrap();
    let full = [("error_type", "queue_full")];
    for number in 0..3000_u32 {
        let name = format!("user{number}");
        store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
    }
    let scrape = Scrape::of(&telemetry.text());
    assert!(scrape.value(queue, &[]).unwrap() <= capacity);
    assert!(scrape.value("otel_sdk_processor_span_processed_total", &full).unwrap() > 0.0);
    assert_eq!(
        scrape.value("ghostwire_store_entity_count", &[("ghostwire_store_entity", "user")]),
        Some(3000.0)
    );
    store.close().await.unwrap();
    // It does not keep the program from ending.
    telemetry.shutdown(Duration::from_millis(200)).unwrap_err();
}
