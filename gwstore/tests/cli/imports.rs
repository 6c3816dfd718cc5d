//! What an import says of itself, and what it does not do without being told to.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Place, places, portable, user};

/// The sample network in a store of its own, and the lines of its export without the first and last.
fn network(place: &Place, backend: &str) -> Vec<String> {
    place.filled(backend);
    place.on(backend, "export all.jsonl").ok();
    let text = String::from_utf8(place.read("all.jsonl")).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[1..lines.len() - 1].to_vec()
}

fn file(place: &Place, lines: &[String]) {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    place.write("new.jsonl", portable(&lines));
}

/// Changes a field of the first line of a kind.
fn changed(lines: &mut [String], kind: &str, field: &str, to: Value) -> usize {
    let at = lines.iter().position(|line| line.starts_with(&format!("{{\"{kind}\""))).unwrap();
    let mut line: Value = serde_json::from_str(&lines[at]).unwrap();
    line[kind][field] = to;
    lines[at] = line.to_string();
    at
}

#[test]
fn a_line_of_the_audit_trail_is_not_rewritten() {
    for (backend, place) in places() {
        let mut lines = network(&place, backend);
        let at = changed(&mut lines, "audit", "actor", "nobody".into());
        file(&place, &lines);
        let line = format!("first_line: {}", at + 2);
        for dry in ["", " --dry-run"] {
            place.unchanged(backend, &["another version", &line, "nothing was written"], || {
                place.on(backend, &format!("import portable new.jsonl{dry}"))
            });
        }
        // Nor by a file that has it twice.
        place.on(backend, "import portable all.jsonl").ok();
        lines.retain(|line| line.starts_with("{\"audit\""));
        let mut twin: Value = serde_json::from_str(&lines[0]).unwrap();
        twin["audit"]["id"] = "0190a5c8-7e1f-7000-8000-0000000000ff".into();
        let mut other = twin.clone();
        other["audit"]["actor"] = "somebody".into();
        file(&place, &[twin.to_string(), other.to_string()]);
        place.unchanged(backend, &["another version", "first_line: 3"], || {
            place.on(backend, "import portable new.jsonl")
        });
    }
}

#[test]
fn points_that_are_replaced_are_counted() {
    for (backend, place) in places() {
        let mut lines = network(&place, backend);
        changed(&mut lines, "metric", "value", 4711.5.into());
        file(&place, &lines);
        let plan = place.on(backend, "import portable new.jsonl --dry-run --json").ok().json();
        assert_eq!((&plan["replaced_metrics"], &plan["new_metrics"]), (&1.into(), &0.into()));
        place
            .on(backend, "import portable new.jsonl")
            .ok()
            .says(&["points that get another value: 1"]);
        let again = place.on(backend, "import portable new.jsonl --json").ok().json();
        assert_eq!(again["replaced_metrics"], 0);
    }
}

#[test]
fn series_are_compared_wherever_their_items_lie() {
    for (backend, place) in places() {
        let lines = network(&place, backend);
        // A few that lie far apart, among others that are not there.
        let series = |kind: &str| {
            let start = format!("{{\"{kind}\"");
            lines.iter().filter(move |line| line.starts_with(&start)).cloned().collect::<Vec<_>>()
        };
        let (points, entries) = (series("metric"), series("audit"));
        let mut few = Vec::new();
        for (number, line) in
            points.iter().step_by(97).chain(entries.iter().step_by(31)).enumerate()
        {
            few.push(line.clone());
            let mut other: Value = serde_json::from_str(line).unwrap();
            if line.starts_with("{\"metric\"") {
                other["metric"]["metric"] = format!("other_{number}").into();
            } else {
                other["audit"]["id"] = format!("0190a5c8-7e1f-7000-8000-{number:012x}").into();
            }
            few.push(other.to_string());
        }
        few.reverse();
        file(&place, &few);
        let counted = [points.len().div_ceil(97), entries.len().div_ceil(31)];
        let plan = place.on(backend, "import portable new.jsonl --dry-run --json").ok().json();
        assert_eq!(plan["replaced_metrics"], 0);
        assert_eq!([&plan["new_metrics"], &plan["new_audit"]], counted.map(Value::from).each_ref());
        place.on(backend, "import portable new.jsonl").ok();
        let again = place.on(backend, "import portable new.jsonl --json").ok().json();
        assert_eq!(again["changed"], false);
    }
}

#[test]
fn what_an_import_adds_to_a_store_is_in_its_trail() {
    for (backend, place) in places() {
        network(&place, backend);
        let lines = |place: &Place| {
            let mut lines = place.on(backend, "list audit --all --json").ok().items();
            lines.retain(|line| line["action"] == "import.portable");
            lines
        };
        assert_eq!(lines(&place), [] as [Value; 0], "a store that an import made is a copy");
        place.write("new.jsonl", portable(&[&user(1, "zoe"), &user(2, "zac")]));
        let imported = place.on(backend, "import portable new.jsonl --json").ok().json();
        let [line] = lines(&place).try_into().unwrap();
        assert_eq!(line["entity"], "user");
        let subject = line["subject"].as_str().unwrap();
        assert!(subject.starts_with("2 "), "{line}");
        assert!(subject.contains(imported["sha256"].as_str().unwrap()), "{line}");
        assert!(line["actor"].as_str().unwrap().starts_with("cli:"), "{line}");
        // Nothing new, and so nothing to say.
        place.on(backend, "import portable new.jsonl").ok();
        assert_eq!(lines(&place).len(), 1);
    }
}

#[test]
fn a_policy_comes_into_force_only_on_request() {
    for (backend, place) in places() {
        let mut lines = network(&place, backend);
        let policies = lines.iter().filter(|line| line.starts_with("{\"policy\"")).count();
        changed(&mut lines, "policy", "version", 99.into());
        lines.retain(|line| line.contains("\"version\":99"));
        file(&place, &lines);
        for dry in ["", " --dry-run"] {
            place.unchanged(backend, &["--policy", "in_file: 99", "nothing was written"], || {
                place.on(backend, &format!("import portable new.jsonl{dry}"))
            });
        }
        place.on(backend, "import portable new.jsonl --policy --dry-run").ok().says(&["policy 99"]);
        let done = place.on(backend, "import portable new.jsonl --policy --json").ok().json();
        assert_eq!(done["policy"], serde_json::json!({ "from": policies, "to": 99 }));
        // It is in force, and nothing changes.
        place.on(backend, "import portable new.jsonl").ok();
    }
}

#[test]
fn a_backend_that_keeps_nothing_imports_and_exports_nothing() {
    let place = Place::new();
    place.sample();
    place.write("last.jsonl", "the last good backup");
    for command in [
        "import portable sample.jsonl",
        "import portable sample.jsonl --dry-run",
        "import headscale sample.jsonl",
        "export last.jsonl --force",
        "export -",
        "upgrade",
    ] {
        let ran = place.run(&format!("--backend memory {command}")).refused(&["keeps nothing"]);
        assert_eq!(ran.out, "", "{command}");
    }
    assert_eq!(place.read("last.jsonl"), b"the last good backup");
    place.run("--backend memory doctor").ok().says(&["warn  backend"]);
}

#[test]
fn nonsense_without_an_end_is_not_kept() {
    const MUCH: usize = 256 << 20;
    let place = Place::new();
    place.init("libsql");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gwstore"))
        .args(["--backend", "libsql", "--path", "libsql.db", "import", "portable", "-"])
        .current_dir(place.file(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let piece = b"yes\n".repeat(16 * 1024);
    let written = (0..MUCH / piece.len()).take_while(|_| input.write_all(&piece).is_ok()).count();
    drop(input);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("not the portable form"), "{said}");
    assert!(written < MUCH / piece.len(), "all of it was read");
}

#[test]
fn an_import_that_changes_nothing_writes_nothing() {
    for (backend, place) in places() {
        place.filled(backend);
        let name = format!("{backend}.db");
        let before = (place.read(&name), place.digest(backend));
        let again = place.on(backend, "import portable sample.jsonl --json").ok().json();
        assert_eq!(again["changed"], false, "{again}");
        assert_eq!(again["digests"], before.1);
        assert!(place.read(&name) == before.0, "the file changed");
        place.on(backend, "import portable sample.jsonl").ok().says(&["Nothing changes"]);
    }
}

/// One ephemeral machine, which was last seen long ago; it may be connected, and quiet.
const EPHEMERAL: &str = "\
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE migrations(id text PRIMARY KEY);
INSERT INTO migrations(id) VALUES('202511101554-drop-old-idx');
CREATE TABLE users(id integer PRIMARY KEY AUTOINCREMENT, name text, created_at datetime);
INSERT INTO users(id,name,created_at) VALUES(1,'ann','2026-01-02 03:04:05+00:00');
CREATE TABLE nodes(id integer PRIMARY KEY AUTOINCREMENT, machine_key text, node_key text, ipv4 text, hostname text, given_name text, user_id integer, register_method text, created_at datetime, auth_key_id integer, last_seen datetime);
INSERT INTO nodes(id,machine_key,node_key,ipv4,hostname,given_name,user_id,register_method,created_at,auth_key_id,last_seen) VALUES(1,'mkey:0101010101010101010101010101010101010101010101010101010101010101','nodekey:8181818181818181818181818181818181818181818181818181818181818181','100.64.0.1','host1','host1',1,'authkey','2026-01-02 03:04:05+00:00',1,'2026-01-02 03:04:05+00:00');
CREATE TABLE pre_auth_keys(id integer PRIMARY KEY, key text, user_id integer, reusable text, ephemeral text, used text, tags text, created_at datetime);
INSERT INTO pre_auth_keys(id,key,user_id,reusable,ephemeral,used,tags,created_at) VALUES(1,'000000000000000000000000000000000000000000000abd',1,1,1,1,'[]','2026-01-02 03:04:05+00:00');
COMMIT;
";

#[test]
fn absence_of_imported_ephemeral_machines_begins_with_the_import() {
    for (backend, place) in places() {
        let quiet = EPHEMERAL.replace(",auth_key_id,last_seen)", ",auth_key_id)");
        let quiet = quiet.replace(
            ",1,'2026-01-02 03:04:05+00:00');\nCREATE TABLE pre",
            ",1);\nCREATE TABLE pre",
        );
        for (dump, seen) in [(EPHEMERAL, Some("2026-01-02T03:04:05.000000Z")), (&quiet, None)] {
            let name = if seen.is_some() { "seen" } else { "never" };
            place.write("dump.sql", dump);
            let run = |arguments: &str| {
                place.run(&format!("--backend {backend} --path {name}.db {arguments}"))
            };
            run("import headscale dump.sql --create").ok();
            let presence = run("list presence --json").ok().items().remove(0);
            assert_eq!(presence["last_seen"].as_str(), seen);
            let since = presence["absent_since"].as_str().unwrap();
            assert!(since > "2026-01-02T03:04:05.000000Z", "{since}");
            // The same again changes nothing.
            let again = run("import headscale dump.sql --json").ok().json();
            assert_eq!(again["new_entities"], 0);
        }
    }
}
