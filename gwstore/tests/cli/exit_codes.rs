//! How the program ends, row by row of the table in `docs/command-line.md`.

use std::process::{Command, Stdio};

use crate::support::{BACKENDS, Place, command_in, dump, edited, portable, user};

const PAGE: &str = include_str!("../../../docs/command-line.md");

/// Ends as one row of the table says.
fn ended(name: &str) -> i32 {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        Some((cells.next()?.parse::<i32>().ok()?, cells.next()?))
    });
    let found: Vec<_> = rows.filter(|(_, row)| *row == name).collect();
    assert_eq!(found.len(), 1, "{name} has one row");
    found[0].0
}

#[test]
fn the_table_has_every_code() {
    let names = [
        ("done", 0),
        ("failed", 1),
        ("usage", 2),
        ("found", 3),
        ("missing", 4),
        ("refused", 5),
        ("partly", 6),
        ("ambiguous", 7),
        ("busy", 75),
        ("reader gone", 141),
    ];
    for (name, code) in names {
        assert_eq!(ended(name), code);
    }
}

#[test]
fn done_and_nothing_to_do() {
    let place = Place::new();
    place.init("libsql");
    for arguments in ["status", "doctor", "upgrade", "list users", "clock repair --dry-run"] {
        assert_eq!(place.on("libsql", arguments).code, ended("done"), "{arguments}");
    }
    place.on("libsql", "list users").ok().warns(&["nothing to list"]);
    place.on("libsql", "upgrade").ok().says(&["nothing to do"]);
}

#[test]
fn failed() {
    let place = Place::new();
    place.init("libsql");
    for arguments in ["--set writer.max_group=0 status", "import portable libsql.db.key"] {
        assert_eq!(place.on("libsql", arguments).code, ended("failed"), "{arguments}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        let mut child = command_in(&place.file(""), &["--help"]);
        let child = child.stdout(full).status().unwrap();
        assert_eq!(child.code(), Some(ended("failed")));
    }
}

#[test]
fn usage() {
    let place = Place::new();
    for arguments in [
        "nonsense",
        "status --nonsense",
        "list nodes --all --cursor x",
        "list routes --online",
        "demo --path x",
        "export - --force",
        "demo --write-sample x --keep",
        "conformance --list --path x",
        "conformance --list --seed 1",
    ] {
        assert_eq!(place.run(arguments).code, ended("usage"), "{arguments}");
    }
}

#[test]
fn something_is_not_in_order() {
    let place = Place::new();
    place.init("libsql");
    std::fs::remove_file(place.file("libsql.db.key")).unwrap();
    assert_eq!(place.on("libsql", "doctor").code, ended("found"));
    assert_eq!(place.on("libsql", "doctor --json").code, ended("found"));
}

#[test]
fn what_is_named_is_missing() {
    let place = Place::new();
    place.init("libsql");
    for arguments in [
        "--path nosuch.db status",
        "--path libsql.db import portable nosuch.jsonl",
        "--path libsql.db list nodes --user nobody",
        "--config nosuch.toml status",
        "--environment production status",
    ] {
        place.run(arguments).ended(ended("missing"));
    }
}

#[test]
fn what_is_there_refuses() {
    let place = Place::new();
    place.init("libsql");
    place.write("there.jsonl", "keep me");
    place.write("ann.jsonl", portable(&[&user(1, "ann")]));
    place.on("libsql", "import portable ann.jsonl").ok();
    place.write("other.jsonl", portable(&[&user(1, "bob")]));
    place.on("libsql", "export own.jsonl").ok();
    let own = String::from_utf8(place.read("own.jsonl")).unwrap();
    place.write("edited.jsonl", edited(&own, &[&user(2, "eve")]));
    let refused = [
        "init",
        "export there.jsonl",
        "export libsql.db --force",
        "import portable other.jsonl",
        "import portable edited.jsonl",
    ];
    for arguments in refused {
        place.on("libsql", arguments).ended(ended("refused"));
    }
}

#[test]
fn what_is_named_is_several() {
    let place = Place::new();
    let lines = [user(1, "ann"), user(2, "bob")];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    place.write("two.jsonl", portable(&lines));
    place.on("libsql", "import portable two.jsonl --create").ok();
    place.on("libsql", "user show 0190a5c8").ended(ended("ambiguous")).warns(&["ann", "bob"]);
}

#[test]
fn some_was_left_out() {
    let place = Place::new();
    place.init("libsql");
    let whole = std::fs::read_to_string(dump("request_tags_migration_test.sql")).unwrap();
    place.write("bad.sql", whole.replacen("mkey:", "nokey:", 1));
    for arguments in ["--skip-invalid --dry-run", "--skip-invalid"] {
        place
            .on("libsql", &format!("import headscale bad.sql {arguments}"))
            .ended(ended("partly"))
            .says(&["problem: nodes"]);
    }
    // Refused, it changes nothing, and says so.
    let refused = place.on("libsql", "import headscale bad.sql --json").ended(ended("refused"));
    assert_eq!(refused.json()["changed"], false);
}

#[test]
fn a_check_could_not_be_made() {
    use ghostwire_store::Opener;
    use ghostwire_store_core::schema::Schema;
    let place = Place::new();
    let config = place.config("libsql");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let opener = Opener::new(&config).schema(Schema::at(1).unwrap());
        opener.open().await.unwrap().close().await.unwrap();
        // Only the key was wanted: opening has migrated the store.
        std::fs::remove_file(place.file("libsql.db")).unwrap();
        std::fs::remove_file(place.file("libsql.db.lock")).unwrap();
        std::fs::rename(place.file("libsql.db.key"), place.file("key")).unwrap();
        opener.open_backend().await.unwrap().close().await.unwrap();
        std::fs::rename(place.file("key"), place.file("libsql.db.key")).unwrap();
    });
    place
        .on("libsql", "doctor")
        .ended(ended("partly"))
        .says(&["skip  integrity", "gwstore upgrade"]);
    let json = place.on("libsql", "doctor --json").json();
    assert_eq!(json["verdict"], "unchecked");
}

#[test]
fn the_store_is_busy() {
    use ghostwire_store::Opener;
    let place = Place::new();
    place.init("libsql");
    let config = place.config("libsql");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opener = Opener::new(&config).admin_socket_served(false);
    let store = runtime.block_on(opener.open()).unwrap();
    assert_eq!(place.on("libsql", "status").code, ended("busy"));
    place.on("libsql", "doctor").ended(ended("busy")).says(&["skip  store", "1 not checked"]);
    // What failed counts more.
    let key = place.file("libsql.db.key");
    std::fs::rename(&key, place.file("away")).unwrap();
    assert_eq!(place.on("libsql", "doctor").code, ended("found"));
    std::fs::rename(place.file("away"), &key).unwrap();
    runtime.block_on(store.close()).unwrap();
    place.on("libsql", "status").ok();
}

#[test]
fn a_reader_that_goes_away_is_told_by_the_code_alone() {
    let place = Place::new();
    place.sample();
    for backend in BACKENDS {
        place.on(backend, "import portable sample.jsonl --create").ok();
        for command in ["doctor", "list metrics --all --json", "config show", "export -", "digest"]
        {
            let path = format!("{backend}.db");
            let arguments: Vec<&str> = ["--backend", backend, "--path", &path]
                .into_iter()
                .chain(command.split(' '))
                .collect();
            let mut child: Command = command_in(&place.file(""), &arguments);
            let ended_so = child.stdout(gone()).stderr(Stdio::piped()).output().unwrap();
            assert_eq!(ended_so.status.code(), Some(ended("reader gone")), "{command}");
            assert!(ended_so.stderr.is_empty(), "{command}: {ended_so:?}");
        }
    }
}

/// A pipe that nobody reads any more.
fn gone() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}
