//! `gwstore clock`, and what the others say about a clock.

use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::Opener;
use ghostwire_store::domain::{
    BlockId, Clock, ManualClock, NewUser, SystemClock, Timestamp, UserId,
};
use ghostwire_store_core::backend::Commit;
use ghostwire_store_core::block::{BlockBuilder, BlockHash, ChangeKind, RowChange, Serial};
use ghostwire_store_core::schema::Schema;

use serde_json::Value;

use crate::support::{Place, dump, places, portable, user};

const DAY: Duration = Duration::from_secs(86_400);

/// Makes users under clocks that show these times, one after the other.
fn written_under(place: &Place, backend: &str, times: &[Timestamp]) {
    let config = place.config(backend);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for (n, at) in times.iter().enumerate() {
            let clock = Arc::new(ManualClock::new(*at));
            let store = Opener::new(&config).clock(clock).accept_clock(true).open().await.unwrap();
            let name = format!("user-{n}").parse().unwrap();
            store.users().create(NewUser::local(name)).await.unwrap();
            store.close().await.unwrap();
        }
    });
}

/// Makes a store of the first schema, under a clock that showed this time.
fn first_schema_under(place: &Place, backend: &str, at: Timestamp) {
    let config = place.config(backend);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let schema = Schema::at(1).unwrap();
        let backend = Opener::new(&config).schema(schema).open_backend().await.unwrap();
        let mut builder = BlockBuilder::default();
        let alice = NewUser::local("alice".parse().unwrap());
        let user = alice.created(UserId::time_ordered(at, [1; 10]), at);
        builder.put(ChangeKind::Created, &user);
        let (serial, id) = (Serial::ZERO.next(), BlockId::time_ordered(at, [2; 10]));
        let closed = builder.finish(serial, id, BlockHash::GENESIS, at).unwrap();
        let rows = closed.changes.into_iter().map(|change| RowChange {
            body: change.body.map(|body| schema.fit(change.table, &body).unwrap()),
            ..change
        });
        let (rows, block) = (rows.collect(), Some(closed.block));
        let commit = Commit { block, rows, checkpoint: Some(serial), ..Commit::default() };
        backend.commit(&commit).await.unwrap();
        backend.close().await.unwrap();
    });
}

fn ahead() -> Timestamp {
    "2086-11-13T02:09:50Z".parse().unwrap()
}

#[test]
fn what_a_clock_that_was_ahead_has_dated_is_brought_back() {
    for (backend, place) in places() {
        written_under(&place, backend, &[SystemClock.now().saturating_sub(DAY), ahead()]);
        place.on(backend, "doctor").ended(3).says(&["gwstore clock repair"]);
        let show = place.on(backend, "clock show --json").ok().json();
        assert_eq!(show["store"], "2086-11-13T02:09:50.000000Z");
        assert_eq!(show["entities_beyond"], serde_json::json!({ "users": 1 }));
        assert_eq!((&show["audit_beyond"], &show["metrics_beyond"]), (&1.into(), &0.into()));
        assert!(show["store_ahead_seconds"].as_i64().unwrap() > 0);
        assert_eq!(show["needs"], "repair");
        place
            .on(backend, "clock show")
            .ok()
            .says(&["days ahead of the clock", "`gwstore clock repair`"]);

        place.unchanged(backend, &["confirmation", "--dry-run"], || {
            place.on(backend, "clock repair")
        });
        let before = place.digest(backend);
        let plan = place.on(backend, "clock repair --dry-run --json").ok().json();
        assert_eq!((&plan["needed"], &plan["repaired"]), (&true.into(), &Value::Null));
        assert_eq!(place.digest(backend), before);

        let done = place.on(backend, "clock repair --yes --json").ok().json();
        let repaired = serde_json::json!({ "entities": 1, "audit": 1, "metrics": 0 });
        assert_eq!(done["repaired"], repaired);
        place.on(backend, "doctor").ok();
        let show = place.on(backend, "clock show --json").ok().json();
        assert_eq!(show["entities_beyond"], serde_json::json!({}));
        assert!(show["store_ahead_seconds"].as_i64().unwrap() <= 0);
        place.on(backend, "clock repair --yes").ok().says(&["nothing to do"]);
        let lines = place.on(backend, "list audit --all --json").ok().items();
        assert!(lines.iter().any(|line| line["action"] == "clock.repair"), "{lines:#?}");
        assert!(lines.iter().all(|line| !line["at"].as_str().unwrap().starts_with("2086")));
    }
}

#[test]
fn an_import_says_that_its_times_will_be_those_of_a_clock_that_was_ahead() {
    for (backend, place) in places() {
        written_under(&place, backend, &[SystemClock.now().saturating_sub(DAY), ahead()]);
        place.write("new.jsonl", portable(&[&user(1, "zoe")]));
        let headscale = format!("headscale {}", dump("request_tags_migration_test.sql"));
        for import in ["portable new.jsonl --dry-run", "portable new.jsonl", &headscale] {
            place
                .on(backend, &format!("import {import}"))
                .ok()
                .warns(&["2086-11-13", "clock show"]);
        }
    }
}

#[test]
fn a_store_that_was_not_written_for_long_is_opened_once_the_clock_is_accepted() {
    for (backend, place) in places() {
        written_under(&place, backend, &[SystemClock.now().saturating_sub(40 * DAY)]);
        let sample = place.sample();
        let import = format!("import portable {}", sample.display());
        place.unchanged(backend, &["clock", "gwstore clock accept"], || place.on(backend, &import));
        let dry_run = format!("{import} --dry-run");
        place
            .unchanged(backend, &["clock", "gwstore clock accept"], || place.on(backend, &dry_run));
        place.on(backend, "status").ok();
        place.on(backend, "doctor").ended(3).says(&["gwstore clock accept"]);

        place.on(backend, "clock show").ok().says(&["`gwstore clock accept`"]);
        assert_eq!(place.on(backend, "clock show --json").ok().json()["needs"], "accept");

        place.unchanged(backend, &["confirmation"], || place.on(backend, "clock accept"));
        let plan = place.on(backend, "clock accept --dry-run --json").ok().json();
        assert_eq!((&plan["needed"], &plan["accepted"]), (&true.into(), &false.into()));
        let done = place.on(backend, "clock accept --yes --json").ok().json();
        assert_eq!(done["accepted"], true);
        place.on(backend, &import).ok();
        place.on(backend, "clock accept --yes").ok().says(&["nothing to do"]);
        assert!(place.on(backend, "clock show --json").ok().json()["needs"].is_null());
    }
}

#[test]
fn a_store_that_also_needs_a_migration_can_be_accepted() {
    for (backend, place) in places() {
        first_schema_under(&place, backend, SystemClock.now().saturating_sub(40 * DAY));
        for migrate in ["upgrade", "upgrade --dry-run"] {
            place.on(backend, migrate).refused(&["gwstore clock accept"]);
        }
        place.on(backend, "clock accept --yes").ok();
        place.on(backend, "upgrade").ok();
        let show = place.on(backend, "clock show --json").ok().json();
        assert!(show["store_ahead_seconds"].as_i64().unwrap() > -3600, "{show}");
    }
}

#[test]
fn a_longer_gap_can_be_configured() {
    let place = Place::new();
    written_under(&place, "libsql", &[SystemClock.now().saturating_sub(40 * DAY)]);
    let import = format!("import portable {}", place.sample().display());
    place.on("libsql", &format!("--set clock.max_gap_days=50 {import}")).ok();
}
