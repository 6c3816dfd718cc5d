//! What a command writes replaces nothing that it must not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::support::{Place, key_file, stores};

/// Each way to name a file that is written, where this store is configured.
fn outputs(backend: &str, file: &str) -> Vec<String> {
    let on = format!("--backend {backend} --path {backend}.db");
    vec![
        format!("{on} export {file}"),
        format!("demo --write-sample {file}"),
        format!("--json bench {file} --quick --subject nosuch"),
        format!("bench --html {file} --quick --subject nosuch"),
        format!("{on} conformance nosuchcase --html {file}"),
    ]
}

/// Everything in the directory: names, and what they hold or lead to.
fn content(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(place.file("")).unwrap().flatten().map(|entry| entry.path());
    entries
        .map(|path| {
            let held = fs::read(&path).or_else(|_| {
                fs::read_link(&path).map(|target| target.into_os_string().into_encoded_bytes())
            });
            (path, held.unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_files_of_stores_are_not_replaced_by_any_output() {
    for (backend, place) in stores() {
        let other = if backend == "libsql" { "zqlite" } else { "libsql" };
        place.init(other);
        fs::copy(place.file(&format!("{other}.db")), place.file("renamed")).unwrap();
        let key = format!("{other}.db{}", key_file(other));
        fs::rename(place.file(&key), place.file("secret")).unwrap();
        // Where a log, or what is meant to be one, would be of the greatest harm.
        place.write(&format!("{backend}.db-journal"), "");
        place.write(&format!("{backend}.db.v1.bak"), "");
        symlink(place.file(&format!("{other}.db")), place.file("link")).unwrap();
        symlink(place.file("nowhere"), place.file("dangling")).unwrap();
        fs::create_dir(place.file("directory")).unwrap();
        let own = [
            "",
            "-wal",
            "-shm",
            "-journal",
            ".lock",
            ".key",
            ".keyring",
            ".keyring.new",
            ".root",
            ".v1.bak",
            ".v1.bak.part",
            ".compact.part-wal",
            ".compact.part-journal",
            ".compact.part.lock",
        ];
        let victims = own
            .map(|suffix| format!("{backend}.db{suffix}"))
            .into_iter()
            .chain([format!("{other}.db"), format!("{other}.db-wal"), format!("{other}.db.lock")])
            .chain(["renamed", "secret", "link", "dangling", "directory"].map(str::to_owned));
        for victim in victims {
            let before = content(&place);
            for output in outputs(backend, &victim) {
                for force in ["", " --force"] {
                    let ran = place.run(&format!("{output}{force}"));
                    assert_eq!(content(&place), before, "{output}{force}: {ran:#?}");
                    let is_file = !["link", "dangling", "directory"].contains(&victim.as_str());
                    assert_eq!(ran.code, if is_file { 5 } else { 1 }, "{output}{force}: {ran:#?}");
                    assert!(ran.err.contains(&victim), "{output}{force}: {ran:#?}");
                }
            }
        }
    }
}

#[test]
fn the_configured_hash_key_is_not_replaced_wherever_it_is() {
    let place = Place::new();
    let on = "--backend libsql --path s.db --set secret_key_file=elsewhere";
    place.run(&format!("{on} init")).ok();
    let before = content(&place);
    place.run(&format!("{on} export elsewhere --force")).refused(&["belongs to a store"]);
    assert_eq!(content(&place), before);
}

#[test]
fn other_files_are_replaced_on_request_and_only_by_what_is_whole() {
    let place = Place::new();
    place.init("libsql");
    for output in outputs("libsql", "there") {
        place.write("there", "keep me");
        let before = content(&place);
        place.run(&output).refused(&["there", "--force"]);
        assert_eq!(content(&place), before, "{output}");
        let ran = place.run(&format!("{output} --force"));
        if output.contains("nosuch") {
            ran.refused(&["nosuch"]);
            assert_eq!(place.read("there"), b"keep me", "{output}");
        } else {
            ran.ok();
            assert_ne!(place.read("there"), b"keep me", "{output}");
            let mode = fs::metadata(place.file("there")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{output}");
        }
        let left: Vec<_> = content(&place).into_keys().collect();
        assert_eq!(left, before.into_keys().collect::<Vec<_>>(), "{output} leaves nothing else");
    }
}

#[test]
fn the_demonstration_replaces_nothing_in_its_directory() {
    let place = Place::new();
    place.write("fsync.tmp", "mine");
    place.write("sample.key", "mine");
    place.run("demo --directory .").refused(&["sample.key"]);
    assert_eq!(place.read("sample.key"), b"mine");
    fs::remove_file(place.file("sample.key")).unwrap();
    place.write("demo.db", "mine");
    place.run("demo --directory .").refused(&["demo.db"]);
    assert_eq!(place.read("fsync.tmp"), b"mine");
}

#[test]
fn what_would_be_ignored_is_refused() {
    let place = Place::new();
    for options in
        ["--path s.db", "--backend libsql", "--set writer.max_group=1", "--config x.toml"]
    {
        place.run(&format!("demo {options}")).refused(&["stores of its own"]);
        if cfg!(feature = "bench") {
            place.run(&format!("bench --quick {options}")).refused(&["stores of their own"]);
        }
    }
}

#[test]
fn a_standard_output_that_is_closed_takes_no_export() {
    let place = Place::new();
    place.init("libsql");
    let shell = |redirection: &str| {
        let script =
            format!("exec \"$0\" --backend libsql --path libsql.db export - {redirection}");
        std::process::Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_gwstore")])
            .current_dir(place.file(""))
            .output()
            .unwrap()
    };
    for command in ["list users", "status", "--help"] {
        let script = format!("exec \"$0\" --backend libsql --path libsql.db {command} >&-");
        let ended = std::process::Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_gwstore")])
            .current_dir(place.file(""))
            .status()
            .unwrap();
        assert_eq!(ended.code(), Some(1), "{command}");
    }
    let closed = shell(">&-");
    assert_eq!(closed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&closed.stderr).contains("standard output is closed"));
    assert!(shell(">/dev/null").status.success());
    assert!(shell("| cat").status.success());
}
