//! Traces as a collector gets them, from the caller's span to the commit. Alone in its process, since `tracing`
//! remembers for all of it which spans anybody wants.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod collector;
mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector::{Collector, Received};
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::layer::{Chaos, Faults};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{Store, open};
use ghostwire_store_memory::MemoryBackend;
use ghostwire_store_telemetry::logs::{self, Format, LogOptions};
use ghostwire_store_telemetry::{Options, Telemetry, traces};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tracing::Instrument;

const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of the log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn named<'r>(received: &'r Received, name: &str) -> Vec<&'r Span> {
    received.spans.iter().filter(|span| span.name == name).collect()
}

/// One commit for several writes: it is held while they come in.
async fn write_together(store: &Arc<dyn Store>, faults: &Faults) {
    let create = |name: &str| {
        let (store, new) = (store.clone(), NewUser::local(name.parse().unwrap()));
        async move { store.users().create(new).await }
    };
    let hold = faults.hold_commits();
    let first = tokio::spawn(create("first"));
    while faults.held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    let caller = tracing::info_span!("request of a caller");
    let group: Vec<_> = ["second", "third", "fourth"]
        .map(|name| tokio::spawn(create(name).instrument(caller.clone())))
        .into_iter()
        .collect();
    drop(caller);
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    first.await.unwrap().unwrap();
    for write in group {
        write.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_trace_leads_from_the_caller_to_the_commit_and_shows_no_secret() {
    let (collector, lines) = (Collector::start(), Lines::default());
    let options = Options {
        endpoint: Some(collector.endpoint.clone()),
        sampled: 1.0,
        slow_after: Some(Duration::ZERO),
        ..Options::default()
    };
    let telemetry = Telemetry::start(options).unwrap();
    let log = LogOptions { format: Format::Json, level: "debug".to_owned() };
    let (to, writer) = (lines.clone(), lines.clone());
    let (dispatch, level) = logs::dispatch(&log, Some(&telemetry), move || writer.clone()).unwrap();
    tracing::dispatcher::set_global_default(dispatch).unwrap();

    let chaos = Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
    let faults = chaos.faults();
    let recorder = Some(telemetry.recorder("main"));
    let store = open(Arc::new(chaos.clone()), StoreOptions { recorder, ..common::options() })
        .await
        .unwrap();
    write_together(&store, faults).await;
    let planted = common::use_everything(&store).await;
    let far = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let local = traces::below(far, || tracing::info_span!("from another process"));
    let (probed, shown) =
        async { (store.probe().await, traces::traceparent()) }.instrument(local.clone()).await;
    probed.unwrap();
    drop(local);
    store.close().await.unwrap();
    drop(store);
    telemetry.shutdown(PATIENCE).unwrap();

    collector.with(|received| {
        check_tree(received);
        check_transaction(received);
        let remote = named(received, "from another process");
        assert_eq!(hex(&remote[0].trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(hex(&remote[0].parent_span_id), "b7ad6b7169203331");
        let shown = shown.unwrap();
        assert!(shown.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{shown}");
        assert!(received.schema_urls.iter().all(|url| url.ends_with("/1.44.0")));
        planted.check_absent(&String::from_utf8_lossy(&received.raw));
        assert!(!received.metrics.is_empty());
    });
    let text = String::from_utf8(to.0.lock().unwrap().clone()).unwrap();
    planted.check_absent(&text);
    check_log(&text, &collector);
    level.set("off").unwrap();
    let before = to.0.lock().unwrap().len();
    tracing::error!("nobody sees this");
    assert_eq!(to.0.lock().unwrap().len(), before);
    level.set("error").unwrap();
    tracing::error!("somebody sees this");
    assert!(to.0.lock().unwrap().len() > before);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Call, batch, commit, with links from the commit to every call.
fn check_tree(received: &Received) {
    let callers = named(received, "request of a caller");
    let caller = callers[0];
    let creates = named(received, "create users");
    let of_caller: Vec<&&Span> =
        creates.iter().filter(|span| span.parent_span_id == caller.span_id).collect();
    assert_eq!(of_caller.len(), 3);
    for span in &of_caller {
        assert_eq!(span.trace_id, caller.trace_id);
        assert_eq!(span.kind, SpanKind::Internal as i32);
        assert_eq!(attribute(span, "db.operation.name").as_deref(), Some("create"));
        assert_eq!(attribute(span, "db.collection.name").as_deref(), Some("users"));
        assert_eq!(attribute(span, "ghostwire.store.command").as_deref(), Some("user.create"));
        assert_eq!(attribute(span, "error.type"), None);
    }
    let commits = named(received, "commit");
    let grouped: Vec<_> = commits.iter().filter(|span| span.links.len() == 3).collect();
    assert_eq!(grouped.len(), 1, "one commit for three writes");
    let commit = grouped[0];
    assert_eq!(commit.kind, SpanKind::Client as i32);
    assert_eq!(attribute(commit, "db.system.name").as_deref(), Some("memory"));
    assert_eq!(attribute(commit, "db.operation.batch.size"), None, "a group is no batch");
    let mut linked: Vec<_> = commit.links.iter().map(|link| link.span_id.clone()).collect();
    let mut wanted: Vec<_> = of_caller.iter().map(|span| span.span_id.clone()).collect();
    linked.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(linked, wanted);
    let batch = received.spans.iter().find(|span| span.span_id == commit.parent_span_id).unwrap();
    assert_eq!(
        (batch.name.as_str(), attribute(batch, "ghostwire.store.commands").as_deref()),
        ("batch", Some("3"))
    );
    assert!(of_caller.iter().any(|span| span.span_id == batch.parent_span_id));
    let refused = creates.iter().filter_map(|span| attribute(span, "error.type"));
    assert_eq!(refused.collect::<Vec<_>>(), ["already_exists"]);
}

fn check_transaction(received: &Received) {
    let both = named(received, "transact");
    assert_eq!(attribute(both[0], "db.operation.batch.size").as_deref(), Some("2"));
    assert!(!named(received, "scan metrics").is_empty());
}

/// Slow writes have their phases and their trace.
fn check_log(text: &str, collector: &Collector) {
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let slow: Vec<_> = lines.iter().filter(|line| line["event"] == "slow_command").collect();
    assert!(!slow.is_empty());
    for line in &slow {
        for phase in ["queue_ms", "decide_ms", "encode_ms", "commit_ms", "publish_ms", "total_ms"] {
            assert!(line[phase].is_number(), "{line}");
        }
        assert_eq!((&line["level"], &line["store"]), (&"warn".into(), &"main".into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    let create = slow.iter().find(|line| line["command"] == "user.create").unwrap();
    let trace = create["trace_id"].as_str().unwrap();
    collector.with(|received| {
        let is_there = received.spans.iter().any(|span| hex(&span.trace_id) == trace);
        assert!(is_there, "{trace} was not sent");
    });
}
