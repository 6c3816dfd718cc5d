//! What one backend holds, the other holds after a move, and the first after the move back.

use serde_json::Value;

use crate::support::{BACKENDS, Place, dump};

/// Moves everything from one backend's store to a new one of the other, and compares.
#[track_caller]
fn moved(place: &Place, from: &str, from_path: &str, to: &str, to_path: &str) -> Value {
    let run = |backend: &str, path: &str, arguments: &str| {
        place.run(&format!(
            "--backend {backend} --path {path} --set secret_key_file=shared.key {arguments}"
        ))
    };
    let file = format!("{to_path}.jsonl");
    run(from, from_path, &format!("export {file}")).ok();
    run(to, to_path, &format!("import portable {file} --create")).ok();
    run(to, to_path, &format!("export again-{file}")).ok();
    assert_eq!(place.read(&file), place.read(&format!("again-{file}")));
    run(to, to_path, "doctor").ok();
    let digest = run(to, to_path, "digest --json").ok().json();
    assert_eq!(digest, run(from, from_path, "digest --json").ok().json());
    digest
}

#[test]
fn a_network_moves_from_libsql_to_zqlite_and_back() {
    let place = Place::new();
    place.sample();
    // The sample's credentials are hashed with another key than the one made here.
    let first =
        place.run("--backend libsql --path one.db import portable sample.jsonl --create").ok();
    assert!(first.err.contains("move that key too"), "{first:#?}");
    let exported = place.run("--backend libsql --path one.db export one.jsonl --json").ok().json();
    assert_eq!(exported["counts"]["node"], 150);
    let there =
        place.run("--backend zqlite --path two.db import portable one.jsonl --create --json");
    let there = there.ok();
    let json = there.out.lines().last().unwrap();
    let there: Value = serde_json::from_str(json).unwrap();
    let digests: Vec<Value> = [("libsql", "one.db"), ("zqlite", "two.db")]
        .iter()
        .map(|(backend, path)| {
            place.run(&format!("--backend {backend} --path {path} digest --json")).ok().json()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
    assert_eq!(there["digests"], digests[0]);
    place.run("--backend zqlite --path two.db export two.jsonl").ok();
    place.run("--backend libsql --path three.db import portable two.jsonl --create").ok();
    let back = place.run("--backend libsql --path three.db digest --json").ok().json();
    assert_eq!(back, digests[0]);
    // All but the last line, which says with which key it was written.
    let items = |name: &str| {
        let text = String::from_utf8(place.read(name)).unwrap();
        text.rsplit_once("{\"end\"").unwrap().0.to_owned()
    };
    assert!(items("one.jsonl") == items("two.jsonl"));
}

#[test]
fn headscale_networks_are_the_same_in_both_backends() {
    for name in [
        "headscale_0.26.1_dump.sql",
        "headscale_0.26.1_dump-litestream.sql",
        "request_tags_migration_test.sql",
    ] {
        let place = Place::new();
        let mut digests = Vec::new();
        for (backend, other) in [("libsql", "zqlite"), ("zqlite", "libsql")] {
            let run = |arguments: &str| {
                place.run(&format!(
                    "--backend {backend} --path {backend}.db --set secret_key_file=shared.key {arguments}"
                ))
            };
            let file = dump(name);
            let dry =
                run(&format!("import headscale {file} --create --dry-run --json")).ok().json();
            assert_eq!((&dry["written"], &dry["problems"]), (&false.into(), &Value::Array(vec![])));
            assert!(!place.file(&format!("{backend}.db")).exists());
            let imported = run(&format!("import headscale {file} --create --json")).ok();
            let imported: Value =
                serde_json::from_str(imported.out.lines().last().unwrap()).unwrap();
            assert_eq!(imported["release"], dry["release"]);
            let digest = run("digest --json").ok().json();
            assert_eq!(imported["digests"], digest);
            // The same again changes nothing.
            let again = run(&format!("import headscale {file} --json")).ok().json();
            assert_eq!(again["new_entities"], 0);
            assert_eq!(run("digest --json").ok().json(), digest);
            digests.push(digest);
            let from = format!("{backend}.db");
            digests.push(moved(
                &place,
                backend,
                &from,
                other,
                &format!("{other}-after-{backend}.db"),
            ));
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{name}: {digests:#?}");
    }
}

#[test]
fn an_import_that_was_interrupted_is_continued() {
    let place = Place::new();
    let sample = std::fs::read_to_string(place.sample()).unwrap();
    place.on("libsql", "import portable sample.jsonl --create").ok();
    // What an interrupted import leaves: the first entities, and none of the series.
    let is_early = |line: &&str| line.starts_with("{\"setting\"") || line.starts_with("{\"user\"");
    let first: Vec<&str> = sample.lines().filter(is_early).collect();
    place.write("part.jsonl", crate::support::portable(&first));
    place.on("zqlite", "import portable part.jsonl --create").ok();
    let continued = place.on("zqlite", "import portable sample.jsonl --json").ok().json();
    assert_eq!(continued["unchanged_entities"], first.len());
    let (digest, whole) = (place.digest("zqlite"), place.digest("libsql"));
    assert_eq!((&digest["state"], &digest["metrics"]), (&whole["state"], &whole["metrics"]));
    assert_ne!(digest["audit"], whole["audit"], "the trail says that somebody added to the store");
    let again = place.on("zqlite", "import portable sample.jsonl --json").ok().json();
    assert_eq!(again["new_entities"], 0);
    assert_eq!(place.digest("zqlite"), digest);
}

#[test]
fn standard_input_and_output_will_do() {
    let place = Place::new();
    place.filled("libsql");
    let exported = place.on("libsql", "export -").ok();
    place.on("libsql", "export file.jsonl").ok();
    assert_eq!(exported.out.as_bytes(), place.read("file.jsonl"));
    let arguments = "--backend zqlite --path zqlite.db import portable - --create";
    place.run_with(arguments, Some(exported.out.as_bytes())).ok();
    assert_eq!(place.digest("zqlite"), place.digest("libsql"));
    for backend in BACKENDS {
        let arguments = format!("--backend {backend} --path {backend}.db import portable -");
        place.unchanged(backend, &["not even a first line"], || {
            place.run_with(&arguments, Some(b""))
        });
    }
}
