//! What is exported is what the catalogue and the documentation say, with few values in each label.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::{Planted, Scrape};
use futures_util::StreamExt;
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::{MigrationId, StoreId};
use ghostwire_store_core::layer::{Chaos, FaultKind};
use ghostwire_store_core::migration::{Migration, MoveOptions, Occupant, Seat};
use ghostwire_store_core::observe::{Event, Phases, Recorder};
use ghostwire_store_core::options::{Materialize, StoreOptions};
use ghostwire_store_core::{Store, open};
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_memory::MemoryBackend;
use ghostwire_store_telemetry::catalogue::{Kind, METRICS, Metric};
use ghostwire_store_telemetry::{Health, Options, Telemetry};

/// Names that Prometheus' own libraries use, and that of the resource.
const CLASSIC: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
    "target_info",
];

/// So many values a label may have: commands are the most.
const MOST_VALUES: usize = 120;

/// What programs tell that is not in the store.
fn tell_the_rest(recorder: &dyn Recorder) {
    let took = Duration::from_millis(2);
    for job in ["reap", "sweep", "retention", "checkpoint"] {
        recorder.record(&Event::Job { job, took, items: 3, error: None });
    }
    recorder.record(&Event::Job { job: "sweep", took, items: 0, error: Some("unavailable") });
    recorder.record(&Event::Reload { error: None });
    recorder.record(&Event::AdminConnection { opened: true });
    recorder.record(&Event::AdminRequest { method: "status", took, error: None });
    recorder.record(&Event::AdminRejected { reason: "too_many" });
    recorder.record(&Event::HttpRequest { method: "GET", route: "/metrics", status: 200, took });
    recorder.record(&Event::QueueFull);
    recorder.record(&Event::UnknownOutcome);
    let (synced, compacted) = (None, Some(took));
    let (commands, bytes, points) = (1, 300, 0);
    recorder.record(&Event::Commit {
        commands,
        bytes,
        points,
        took,
        synced,
        compacted,
        error: None,
    });
    let phases = Phases::default();
    recorder.record(&Event::Slow {
        command: "user.create",
        took,
        phases: &phases,
        batch: 1,
        backlog: 0,
    });
}

struct Run {
    telemetry: Telemetry,
    text: String,
    scrape: Scrape,
    planted: Planted,
    store: Arc<dyn Store>,
    _directory: tempfile::TempDir,
}

/// Has another database follow, and waits until somebody has looked how far that is.
async fn move_on(store: &dyn Store) -> Arc<Migration> {
    let other = Occupant::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([2; 16]))));
    let (id, options) = (MigrationId::from_bytes([3; 16]), MoveOptions::default());
    let migration = Migration::begin(store, other, id, options).await.unwrap();
    while store.info().migration.and_then(|moving| moving.lag).is_none() {
        tokio::task::yield_now().await;
    }
    migration
}

/// Everything that a store can do, on a file, with a commit that fails.
async fn run() -> Run {
    let directory = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::start(Options::default()).unwrap();
    let recorder = telemetry.recorder("main");
    let store_id = StoreId::from_bytes([1; 16]);
    let path = directory.path().join("store.db");
    let backend =
        LibsqlBackend::open(LibsqlOptions::new(path, store_id).create(true)).await.unwrap();
    let chaos = Chaos::new(Arc::new(backend));
    let faults = chaos.faults();
    let options = StoreOptions {
        recorder: Some(recorder.clone()),
        materialize: Materialize::Checkpoint,
        ..common::options()
    };
    let seat = Seat::new(Occupant::new(Arc::new(chaos.clone())));
    let options = StoreOptions { seat: Some(seat.clone()), ..options };
    let store = open(seat, options).await.unwrap();
    let mut watched = store.watch(Serial::ZERO);
    let mut left = store.watch(Serial::ZERO);
    let planted = common::use_everything(&store).await;
    watched.next().await.unwrap().unwrap();
    left.next().await.unwrap().unwrap();
    drop(left);
    faults.fail_next_commits(1, FaultKind::Before);
    let new = ghostwire_store_core::domain::NewUser::local("erin".parse().unwrap());
    store.users().create(new).await.unwrap_err();
    let migration = move_on(store.as_ref()).await;
    tell_the_rest(recorder.as_ref());
    telemetry.plan_jobs(&[("sweep", Some(Duration::from_secs(600)))]);
    telemetry.set_health(Arc::new(|| {
        let checks = vec![("loaded", true), ("disk_space", false)];
        vec![Health { store: "main".to_owned(), state: "degraded", checks }]
    }));
    let text = telemetry.text();
    let scrape = Scrape::of(&text);
    // What it does by itself is no more than that.
    migration.abort("test").await.unwrap();
    Run { telemetry, text, scrape, planted, store, _directory: directory }
}

#[tokio::test]
async fn what_is_exported_is_in_the_catalogue_and_all_of_that_is_exported() {
    let run = run().await;
    let known: BTreeMap<String, &Metric> =
        METRICS.iter().map(|metric| (metric.prometheus(), *metric)).collect();
    // Nothing is sent in this test.
    let silent = [
        "otel_sdk_exporter_span_exported_total",
        "otel_sdk_exporter_metric_data_point_exported_total",
    ];
    for (name, metric) in &known {
        let family = run.scrape.families.get(name);
        if silent.contains(&name.as_str()) {
            continue;
        }
        let (kind, help) =
            family.unwrap_or_else(|| panic!("{name} is not exported:\n{}", run.text));
        assert_eq!((kind.as_str(), help.as_str()), (metric.kind.name(), metric.help), "{name}");
    }
    for (name, labels, _) in &run.scrape.series {
        let family = run.scrape.family(name);
        if CLASSIC.contains(&family.as_str()) {
            continue;
        }
        let metric =
            known.get(&family).unwrap_or_else(|| panic!("{family} is not in the catalogue"));
        let declared: BTreeSet<String> =
            metric.attributes.iter().map(|attribute| attribute.replace('.', "_")).collect();
        let used = labels.keys().filter(|label| *label != "le");
        used.for_each(|label| assert!(declared.contains(label), "{name} has a label {label}"));
    }
    assert!(!run.text.contains("otel_scope"), "scopes would cost three labels a series");
}

#[tokio::test]
async fn labels_have_few_values_and_none_of_a_network() {
    let run = run().await;
    run.planted.check_absent(&run.text);
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut series: BTreeMap<String, usize> = BTreeMap::new();
    for (name, labels, _) in &run.scrape.series {
        *series.entry(run.scrape.family(name)).or_default() += 1;
        for (label, value) in labels.iter().filter(|(label, _)| *label != "le") {
            values.entry(label).or_default().insert(value);
        }
    }
    for (label, values) in &values {
        assert!(values.len() <= MOST_VALUES, "{label} has {} values: {values:?}", values.len());
    }
    // Another thousand nodes are no series more.
    let before = Scrape::of(&run.telemetry.text()).series.len();
    for number in 0..200_u32 {
        let name = format!("user{number}");
        run.store
            .users()
            .create(ghostwire_store_core::domain::NewUser::local(name.parse().unwrap()))
            .await
            .unwrap();
    }
    let after = Scrape::of(&run.telemetry.text()).series.len();
    assert_eq!(after, before, "the number of series follows the number of users");
}

#[tokio::test]
async fn figures_are_those_of_the_store() {
    let run = run().await;
    let main = [("db_namespace", "main")];
    let value = |name: &str, labels: &[(&str, &str)]| run.scrape.value(name, labels);
    let view = run.store.view();
    assert_eq!(value("ghostwire_store_serial", &main), Some(view.serial().get() as f64));
    assert_eq!(
        value("ghostwire_store_entity_count", &[("ghostwire_store_entity", "node")]),
        Some(8.0)
    );
    assert_eq!(
        value("ghostwire_store_node_count", &[("ghostwire_store_state", "online")]),
        Some(8.0)
    );
    assert_eq!(
        value("ghostwire_store_route_count", &[("ghostwire_store_state", "waiting")]),
        Some(8.0)
    );
    let revoked = [("ghostwire_store_credential", "api_key"), ("ghostwire_store_state", "revoked")];
    assert_eq!(value("ghostwire_store_credential_count", &revoked), Some(1.0));
    assert_eq!(
        value("ghostwire_store_address_usage", &[("ghostwire_store_family", "ipv4")]),
        Some(8.0)
    );
    let registered = [("ghostwire_store_command", "node.register")];
    assert_eq!(value("ghostwire_store_command_duration_seconds_count", &registered), Some(8.0));
    let refused = [("ghostwire_store_command", "user.create"), ("error_type", "already_exists")];
    assert_eq!(value("ghostwire_store_command_duration_seconds_count", &refused), Some(1.0));
    let wrong = [("ghostwire_store_credential", "api_key"), ("error_type", "permission_denied")];
    assert_eq!(value("ghostwire_store_credential_verifications_total", &wrong), Some(1.0));
    assert_eq!(value("ghostwire_store_watch_active", &main), Some(1.0));
    assert_eq!(
        value("ghostwire_store_watch_ended_total", &[("ghostwire_store_reason", "dropped")]),
        Some(1.0)
    );
    assert!(value("ghostwire_store_reads_total", &main).unwrap() >= 8.0);
    assert!(value("ghostwire_store_recoveries_total", &main).unwrap() >= 1.0);
    assert_eq!(value("ghostwire_store_state", &[("ghostwire_store_state", "degraded")]), Some(1.0));
    assert_eq!(
        value("ghostwire_store_healthcheck_status", &[("ghostwire_store_check", "disk_space")]),
        Some(0.0)
    );
    let file = [("ghostwire_store_file", "main")];
    assert!(value("ghostwire_store_file_size_bytes", &file).unwrap() > 0.0);
    assert!(value("ghostwire_store_filesystem_free_bytes", &main).unwrap() > 0.0);
    // Commits of a file are synchronised, and each is a call of the backend, counted once.
    let commits = value("ghostwire_store_commit_duration_seconds_count", &main).unwrap();
    assert!(value("ghostwire_store_fsync_duration_seconds_count", &main).unwrap() > 0.0);
    let calls =
        value("db_client_operation_duration_seconds_count", &[("db_operation_name", "commit")])
            .unwrap();
    assert!(calls >= commits && calls <= commits + 4.0, "{calls} calls, {commits} commits");
    let system = [("db_system_name", "sqlite"), ("ghostwire_store_backend", "libsql")];
    assert!(value("db_client_operation_duration_seconds_count", &system).unwrap() > 0.0);
}

#[tokio::test]
async fn a_store_that_is_gone_has_no_gauges_and_keeps_its_counts() {
    let telemetry = Telemetry::start(Options::default()).unwrap();
    let recorder = Some(telemetry.recorder("main"));
    let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
    let store = open(backend, StoreOptions { recorder, ..common::options() }).await.unwrap();
    store
        .users()
        .create(ghostwire_store_core::domain::NewUser::local("a".parse().unwrap()))
        .await
        .unwrap();
    assert!(telemetry.text().contains("ghostwire_store_serial{"));
    store.close().await.unwrap();
    drop(store);
    let text = telemetry.text();
    assert!(!text.contains("ghostwire_store_serial{"), "{text}");
    assert!(text.contains("ghostwire_store_command_duration_seconds_count{"));
}

#[test]
fn the_documentation_lists_what_is_exported_and_nothing_else() {
    let page = include_str!("../../docs/observability.md");
    let rows = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    });
    let documented: BTreeMap<String, Vec<String>> =
        rows.filter(|cells| cells.len() == 7).map(|cells| (cells[0].clone(), cells)).collect();
    for metric in METRICS {
        let attributes: Vec<String> = metric.attributes.iter().map(|a| format!("`{a}`")).collect();
        let wanted = vec![
            format!("`{}`", metric.name),
            format!("`{}`", metric.prometheus()),
            metric.kind.name().to_owned(),
            format!("`{}`", metric.unit),
            attributes.join(" "),
            metric.stability.name().to_owned(),
            metric.help.trim_end_matches('.').to_owned(),
        ];
        let row = documented.get(&wanted[0]);
        let line = format!("| {} |", wanted.join(" | "));
        assert_eq!(row, Some(&wanted), "docs/observability.md has to have this line:\n{line}");
    }
    for name in documented.keys() {
        let is_known = METRICS.iter().any(|metric| format!("`{}`", metric.name) == *name);
        assert!(is_known, "docs/observability.md lists {name}, which is not exported");
    }
    for metric in METRICS {
        if let Kind::Histogram(bounds) = metric.kind {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{}", metric.name);
        }
    }
}

/// What has not happened yet can be alerted on.
#[tokio::test]
async fn what_never_happened_is_told() {
    let telemetry = Telemetry::start(Options::default()).unwrap();
    let recorder = Some(telemetry.recorder("main"));
    let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
    let store = open(backend, StoreOptions { recorder, ..common::options() }).await.unwrap();
    let hour = Some(Duration::from_secs(3600));
    telemetry.plan_jobs(&[("sweep", hour), ("reap", None)]);
    let text = telemetry.text();
    let unknown = text.lines().find(|line| line.starts_with("ghostwire_store_commit_unknown"));
    assert!(unknown.is_some_and(|line| line.ends_with(" 0")), "{unknown:?}");
    let starts = |text: &str, start: &str| text.lines().any(|line| line.starts_with(start));
    let last = "ghostwire_store_job_last_success_timestamp_seconds";
    let interval = "ghostwire_store_job_interval_seconds";
    assert!(starts(&text, "ghostwire_store_checkpoint_last_success_timestamp_seconds{"));
    assert!(starts(&text, &format!("{last}{{ghostwire_store_job=\"sweep\"")), "{text}");
    assert!(starts(&text, &format!("{interval}{{ghostwire_store_job=\"sweep\"")));
    assert!(!text.contains("ghostwire_store_job=\"reap\""));
    telemetry.plan_jobs(&[("sweep", None)]);
    let text = telemetry.text();
    assert!(!starts(&text, last) && !starts(&text, interval), "{text}");
    store.close().await.unwrap();
}
