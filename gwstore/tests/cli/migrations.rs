//! `gwstore migrate`, on a network that is served and on one that is not.

use std::time::Duration;
use std::{fs, thread};

use rustix::process::Signal;
use serde_json::Value;

use crate::serve::Server;
use crate::support::Place;

/// A network on libsql that may move to a sealed zqlite store.
fn place() -> Place {
    let place = Place::new();
    place.init("libsql");
    // Under a name of neither store, since it outlives the one that it was made with.
    fs::rename(place.file("libsql.db.key"), place.file("hash.key")).unwrap();
    place.write(
        "feature-flags.toml",
        "[development.stores.main]\n\
         backend = 'libsql'\n\
         path = 'libsql.db'\n\
         secret_key_file = 'hash.key'\n\
         [development.stores.next]\n\
         backend = 'zqlite'\n\
         path = 'next.db'\n\
         secret_key_file = 'hash.key'\n\
         [development.migration]\n\
         target = 'next'\n\
         max_stall_ms = 60000\n",
    );
    place
}

fn status(place: &Place) -> Value {
    place.run("migrate status --json").ok().json()
}

#[track_caller]
fn stands(place: &Place, stage: &str, served: &str) {
    let status = status(place);
    assert_eq!((&status["stage"], &status["served"]), (&stage.into(), &served.into()), "{status}");
}

fn add(place: &Place, name: &str) {
    place.run(&format!("user create {name}")).ok();
}

/// The files that can be removed, as the last command names them.
fn removable(out: &str) -> Vec<String> {
    let lines = out.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn has(place: &Place, names: &[&str]) {
    place.run("list users").ok().says(names);
}

#[test]
fn a_served_network_moves_is_killed_goes_back_and_moves_for_good() {
    let place = place();
    add(&place, "anna");
    let server = Server::ready(&place, "libsql", "");
    place.run("migrate status").ok().says(&["No migration", "next"]);
    place.run("migrate plan").ok().says(&[
        "main (libsql)",
        "next (zqlite, sealed)",
        "It can begin",
    ]);
    assert!(!place.file("next.db").exists());
    for early in ["migrate advance", "migrate back", "migrate finish --yes", "migrate abort --yes"]
    {
        place.run(early).refused(&["no migration of this store is under way"]);
    }
    place.run("migrate start --wait").ok().says(&["mirror", "migrate advance"]);
    place.run("migrate start").refused(&["a migration of this store is under way"]);
    stands(&place, "mirror", "source");
    place.run("migrate finish").refused(&["confirmation"]);
    place.run("migrate advance").ok().says(&["target-reads", "nobody was served for"]);
    stands(&place, "target-reads", "target");
    add(&place, "berta");
    has(&place, &["anna", "berta"]);
    // Killed, the records say which one is served.
    server.signal(Signal::KILL);
    drop(server);
    has(&place, &["anna", "berta"]);
    add(&place, "carla");
    stands(&place, "target-reads", "target");
    let server = Server::ready(&place, "libsql", "");
    stands(&place, "target-reads", "target");
    place.run("migrate back").ok().says(&["mirror"]);
    add(&place, "doris");
    place.run("migrate abort").refused(&["confirmation"]);
    place.run("migrate advance").ok();
    let finished = place.run("migrate finish --yes").ok();
    let left = removable(&finished.out);
    finished.says(&["target alone", "migration.target", "Keep", "hash.key"]);
    assert!(left.iter().any(|file| file.ends_with("libsql.db")), "{left:?}");
    has(&place, &["anna", "berta", "carla", "doris"]);
    for late in ["migrate back", "migrate plan", "migrate start"] {
        place.run(late).refused(&["has moved", "moved_to: next", "leave migration.target out"]);
    }
    let moved = ["has moved to next", "store = \"next\""];
    place.run("migrate status").ok().says(&moved);
    place.run("verify").ok();
    server.end();
    place.run("migrate status").ok().says(&moved);
    place.run("migrate plan").refused(&["has moved", "moved_to: next"]);
    assert_eq!(status(&place)["stage"], "target-only");
    has(&place, &["anna", "berta", "carla", "doris"]);
    // As the last command says.
    let flags = fs::read_to_string(place.file("feature-flags.toml")).unwrap();
    let flags = flags.replace("target = 'next'\n", "");
    place.write("feature-flags.toml", flags);
    place.run("--store next list users").ok().says(&["doris"]);
    place.run("--store main list users").refused(&["retired"]);
    // Once what it names is removed, the network is what it was, and its credentials are good.
    for file in left {
        fs::remove_file(file).unwrap();
    }
    place.run("--store next user create emil").ok();
    place.run("--store next verify").ok();
    for action in ["start", "advance", "back", "finish"] {
        place.run("--store next list audit").ok().says(&[&format!("migration.{action}")]);
    }
}

#[test]
fn a_network_that_nobody_serves_moves_by_the_command_itself() {
    let place = place();
    add(&place, "anna");
    place.run("migrate start").ok().says(&["mirror"]);
    place.run("migrate advance").ok().says(&["target-reads"]);
    add(&place, "berta");
    place.run("migrate back").ok();
    place.run("migrate abort --yes").ok().says(&["aborted"]);
    has(&place, &["anna", "berta"]);
    for action in ["start", "advance", "back", "abort"] {
        place.run("list audit").ok().says(&[&format!("migration.{action}")]);
    }
    place.run("migrate plan").refused(&["not empty"]);
    place.run("migrate start").refused(&["not empty"]);
    place.run("migrate status").ok().says(&["No migration"]);
}

#[test]
fn a_source_is_shredded_with_its_copies_and_nothing_else() {
    let place = place();
    add(&place, "anna");
    place.run("migrate start").ok();
    place.run("migrate advance").ok();
    for name in ["libsql.db.v1.bak", "libsql.db.superseded-3", "libsql.db2", "notes.txt"] {
        place.write(name, "something");
    }
    let finished = place.run("migrate finish --yes --shred-source").ok();
    finished.says(&["overwritten and removed", "superseded-3", "v1.bak", "Keep", "hash.key"]);
    for (name, stays) in [
        ("libsql.db", false),
        ("libsql.db.lock", false),
        ("libsql.db.v1.bak", false),
        ("libsql.db.superseded-3", false),
        ("libsql.db2", true),
        ("notes.txt", true),
        ("hash.key", true),
    ] {
        assert_eq!(place.file(name).exists(), stays, "{name}");
    }
    place.run("list users").ok().says(&["anna"]);
    place.run("verify").ok();
}

/// Both files had to have every write, and one is lost while nobody runs.
#[test]
fn one_store_goes_on_without_the_other_one_by_command() {
    let place = place();
    let flags = fs::read_to_string(place.file("feature-flags.toml")).unwrap();
    place.write("feature-flags.toml", flags + "synchronous = true\n");
    add(&place, "anna");
    let server = Server::ready(&place, "libsql", "");
    place.run("migrate start --wait").ok();
    // It is said once both are in step.
    while status(&place)["in_step"] != true {}
    add(&place, "berta");
    let lost = status(&place)["source"]["side"].as_str().unwrap().to_owned();
    let go_on = format!("migrate go-on --yes --the-other-side-is-down {lost}");
    assert_ne!(place.run(&go_on).code, 0);
    server.end();
    place.run(&go_on).refused(&["is there"]);
    fs::rename(place.file("libsql.db"), place.file("away")).unwrap();
    let refused = place.run("user create nobody");
    assert!(refused.code != 0 && refused.err.contains("go-on") && refused.err.contains(&lost));
    place.run("migrate go-on --yes --the-other-side-is-down nothing").ended(2);
    place.run(&go_on).ok().says(&["next is the network", "copied anew"]);
    has(&place, &["anna", "berta"]);
    add(&place, "carla");
    fs::rename(place.file("away"), place.file("libsql.db")).unwrap();
    let server = Server::ready(&place, "libsql", "");
    while status(&place)["in_step"] != true {}
    assert!(place.file("libsql.db.superseded-0").exists());
    add(&place, "doris");
    server.end();
    has(&place, &["anna", "berta", "carla", "doris"]);
}

/// Its keyring goes with it, and the copy has one of its own.
#[test]
fn a_sealed_target_that_is_lost_is_gone_on_without_and_copied_anew() {
    let place = place();
    let flags = fs::read_to_string(place.file("feature-flags.toml")).unwrap();
    place.write("feature-flags.toml", flags + "synchronous = true\n");
    add(&place, "anna");
    let server = Server::ready(&place, "libsql", "");
    place.run("migrate start --wait").ok();
    while status(&place)["in_step"] != true {}
    fs::rename(place.file("next.db"), place.file("away")).unwrap();
    // Whether this one was stored its caller may not be told.
    place.run("user create berta");
    while status(&place)["fallbacks"] != 1 {}
    place.run("migrate status").ok().says(&["went on without one"]);
    add(&place, "carla");
    fs::rename(place.file("away"), place.file("next.db")).unwrap();
    while status(&place)["in_step"] != true {}
    for file in ["next.db.superseded-0", "next.db.superseded-0.keyring", "next.db.keyring"] {
        assert!(place.file(file).exists(), "{file}");
    }
    place.run("migrate advance").ok();
    server.end();
    has(&place, &["anna", "carla"]);
    place.run("verify").ok();
}

/// The process that gave up had opened the store where it was going.
#[test]
fn a_network_that_went_back_and_gave_up_has_not_moved() {
    let place = place();
    add(&place, "anna");
    place.run("migrate start").ok();
    place.run("migrate advance").ok();
    let server = Server::ready(&place, "libsql", "");
    stands(&place, "target-reads", "target");
    place.run("migrate back").ok();
    place.run("migrate abort --yes").ok();
    place.run("migrate status").ok().says(&["No migration", "migrate start"]);
    place.run("migrate plan").refused(&["not empty"]);
    has(&place, &["anna"]);
    server.end();
}

#[test]
fn without_a_target_nothing_moves() {
    let place = Place::new();
    place.init("libsql");
    place.on("libsql", "user create anna").ok();
    place.on("libsql", "migrate status").ok().says(&["migration.target"]);
    for command in ["migrate plan", "migrate start"] {
        place.on("libsql", command).refused(&["migration.target", "names no target"]);
    }
    // The key of the source is the target's, or credentials would fail.
    place.write(
        "feature-flags.toml",
        "[development.stores.main]\nbackend = 'libsql'\npath = 'libsql.db'\n\
         [development.stores.next]\nbackend = 'zqlite'\npath = 'next.db'\n\
         [development.migration]\ntarget = 'next'\n",
    );
    place.run("migrate plan").refused(&["stores.next.secret_key_file"]);
    place.run("migrate start").refused(&["stores.next.secret_key_file"]);
    assert!(!place.file("next.db").exists() && !place.file("next.db.keyring").exists());
}

/// Wherever the kill comes, in the copy or a hand-over, the next process finds out who is served.
#[test]
fn a_server_that_is_killed_while_it_moves_loses_nothing() {
    let place = place();
    add(&place, "anna");
    let mut names = vec!["anna".to_owned()];
    for round in 0..10_u64 {
        let server = Server::ready(&place, "libsql", "");
        let status = place.run("migrate status --json").ok().json();
        let action = match status["served"].as_str() {
            None => "migrate start",
            Some("source") => "migrate advance",
            Some(_) => "migrate back",
        };
        let name = format!("killed-{round}");
        thread::scope(|scope| {
            let acting = scope.spawn(|| place.run(action));
            let adding = scope.spawn(|| place.run(&format!("user create {name}")));
            // A different moment each time.
            thread::sleep(Duration::from_millis(round * 9));
            server.signal(Signal::KILL);
            drop(server);
            acting.join().unwrap();
            if adding.join().unwrap().code == 0 {
                names.push(name.clone());
            }
        });
        add(&place, &format!("after-{round}"));
        names.push(format!("after-{round}"));
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        has(&place, &names);
        place.run("verify").ok();
    }
}
