//! Whoever only looks leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::support::{Place, places};

/// Commands that look at what the configured path names, or refuse to replace it.
const LOOKING: [&str; 10] = [
    "status",
    "doctor",
    "digest",
    "list users",
    "export -",
    "clock show",
    "upgrade",
    "compact",
    "import portable sample.jsonl",
    "import portable sample.jsonl --dry-run",
];

/// Everything in the directory, and what it holds.
fn content(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(place.file("")).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
}

#[track_caller]
fn leaves_nothing(place: &Place, backend: &str, commands: &[&str]) {
    let before = content(place);
    for command in commands {
        let ran = place.on(backend, command);
        assert!(matches!(ran.code, 1..=5), "{command}: {ran:#?}");
        assert_eq!(content(place), before, "{command}");
    }
}

#[test]
fn a_foreign_file_gets_no_lock() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ghostwire_store::prepare_process()).unwrap();
    for (backend, place) in places() {
        place.sample();
        let name = format!("{backend}.db");
        let mut commands = LOOKING.to_vec();
        commands.extend(["init", "import portable sample.jsonl --create"]);
        place.write(&name, "this is a shopping list\n");
        leaves_nothing(&place, backend, &commands);
        place.write(&name, [0; 4096]);
        leaves_nothing(&place, backend, &commands);
        fs::remove_file(place.file(&name)).unwrap();
        let database = rusqlite::Connection::open(place.file(&name)).unwrap();
        database.execute_batch("CREATE TABLE things (id INTEGER)").unwrap();
        database.close().unwrap();
        leaves_nothing(&place, backend, &commands);
    }
}

#[test]
fn an_empty_or_missing_file_gets_no_lock() {
    for (backend, place) in places() {
        place.sample();
        leaves_nothing(&place, backend, &LOOKING);
        place.write(&format!("{backend}.db"), "");
        leaves_nothing(&place, backend, &LOOKING);
    }
}

#[test]
fn the_other_backends_store_gets_no_lock() {
    for (backend, other) in [("libsql", "zqlite"), ("zqlite", "libsql")] {
        let place = Place::new();
        place.sample();
        place.init(other);
        fs::rename(place.file(&format!("{other}.db")), place.file(&format!("{backend}.db")))
            .unwrap();
        leaves_nothing(&place, backend, &LOOKING);
    }
}

/// An empty file is what many programs lock.
#[test]
fn another_programs_lock_stays_empty() {
    for (backend, place) in places() {
        place.sample();
        place.write(&format!("{backend}.db"), "this is a shopping list\n");
        place.write(&format!("{backend}.db.lock"), "");
        leaves_nothing(&place, backend, &LOOKING);
    }
}
