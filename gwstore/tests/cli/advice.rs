//! What the program says to do: it fits, and following it leads out.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::{Place, key_file, places, portable, stores, user};

#[test]
fn a_link_that_leads_nowhere_is_not_made_by_init() {
    for (backend, place) in places() {
        symlink("nowhere", place.file(&format!("{backend}.db"))).unwrap();
        for command in ["status", "init", "export -"] {
            let ran = place.on(backend, command).ended(4);
            let words = ["leads nowhere", "leads_to: nowhere", "help: ", "remove the link"];
            assert!(!ran.refused(&words).err.contains("gwstore init"));
        }
        let doctor = place.on(backend, "doctor").ended(3).says(&["remove the link"]);
        assert!(!doctor.out.contains("`gwstore init` makes the configured"), "{doctor:#?}");
        fs::remove_file(place.file(&format!("{backend}.db"))).unwrap();
        place.init(backend);
    }
}

#[test]
fn a_lost_store_can_be_begun_anew_by_what_is_said() {
    for (backend, place) in stores() {
        fs::remove_file(place.file(&format!("{backend}.db"))).unwrap();
        let doctor = place.on(backend, "doctor");
        for suffix in [key_file(backend), ".reserve", ".lock"] {
            assert!(doctor.out.contains(&format!("{backend}.db{suffix}")), "{doctor:#?}");
        }
        assert!(doctor.out.contains("secret_key_file"), "{doctor:#?}");
        // Whatever of it is left, no command sends to an init that refuses.
        for suffix in [".reserve", ".lock", key_file(backend)] {
            for command in ["status", "init"] {
                let key = format!("{backend}.db.key");
                place
                    .on(backend, command)
                    .refused(&[&key, "restore", "begin anew"])
                    .omits("gwstore init");
            }
            fs::remove_file(place.file(&format!("{backend}.db{suffix}"))).unwrap();
        }
        place.init(backend);
        // Nor beside an empty file.
        fs::remove_file(place.file(&format!("{backend}.db.lock"))).unwrap();
        place.write(&format!("{backend}.db"), "");
        place.on(backend, "status").refused(&[".db.key", "begin anew"]);
        let doctor = place.on(backend, "doctor").says(&["warn  leftovers: "]);
        assert!(!doctor.out.contains("chmod"), "{doctor:#?}");
    }
}

#[test]
fn before_the_first_init_nothing_is_to_be_restored() {
    for (backend, place) in places() {
        let check = if backend == "zqlite" { "warn  sealing" } else { "warn  hash key" };
        place.on(backend, "doctor").ended(3).says(&[check, "`gwstore init` makes both"]);
        // A directory that is not there yet is made by init.
        let ran = place.run(&format!("--backend {backend} --path new/s.db status"));
        ran.refused(&["directory does not exist", "gwstore init"]).omits("make it first");
        place.run(&format!("--backend {backend} --path new/s.db init")).ok();
    }
}

#[test]
fn advice_on_a_hash_key_is_about_what_is_wrong_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.init("libsql");
    let key = place.file("libsql.db.key");
    let said = |wanted: &str| {
        let doctor = place.on("libsql", "doctor").ended(3);
        let mut lines = doctor.out.lines().skip_while(|line| !line.starts_with("FAIL  hash key"));
        let advice = lines.nth(1).unwrap_or_default().to_owned();
        assert!(advice.contains(wanted), "{wanted}: {doctor:#?}");
        advice
    };
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!said("run `chmod 600` on it").contains("backup"));
    fs::rename(&key, place.file("away")).unwrap();
    said("put it back");
    fs::create_dir(&key).unwrap();
    assert!(!said("name a file inside it").contains("backup"));
    fs::remove_dir(&key).unwrap();
    place.write("libsql.db.key", "not a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    said("restore it from its own backup");
}

#[test]
fn a_store_without_its_key_has_no_other_key() {
    for (backend, place) in stores().filter(|(backend, _)| *backend == "libsql") {
        let session = json!({ "session": {
            "id": "0190a5c8-7e1f-7000-8000-0000000000dd",
            "owner": { "user": "0190a5c8-7e1f-7000-8000-000000000001" },
            "hash": format!("hmac-sha256:00000001:{}", "5e".repeat(32)),
            "created_at": "2024-02-29T12:00:00.000000Z",
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "last_seen": "2024-02-29T12:00:00.000000Z",
        }})
        .to_string();
        place.write("new.jsonl", portable(&[&user(1, "ada"), &session]));
        place.on(backend, "import portable new.jsonl").ok();
        place.on(backend, "export all.jsonl").ok();
        fs::rename(place.file(&format!("{backend}.db.key")), place.file("away")).unwrap();
        place
            .on(backend, "import portable all.jsonl")
            .ok()
            .warns(&["note: the hash key is missing", "put the key's file back"])
            .omits("another key")
            .says(&["key is missing, and only that could tell"]);
        place
            .on(backend, "doctor")
            .says(&["FAIL  credentials: the hash key is missing", "1 with key 00000001"]);
        place.on(backend, "status").ok().says(&["the hash key is missing"]);
    }
}

#[test]
fn readers_that_keep_a_writer_out_can_be_found() {
    use ghostwire_store::Opener;
    let place = Place::new();
    place.init("libsql");
    place.write("new.jsonl", portable(&[&user(1, "ada")]));
    let config = place.config("libsql");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opener = Opener::new(&config).create(false).read_only(true);
    let reader = runtime.block_on(opener.open_backend()).unwrap();
    place.on("libsql", "status").ok();
    let ran = place.on("libsql", "import portable new.jsonl").ended(75);
    ran.refused(&["only read", "lsof", "the lock beside it"]);
    runtime.block_on(reader.close()).unwrap();
    place.on("libsql", "import portable new.jsonl").ok();
}

#[test]
fn a_backend_that_is_not_there_says_which_ones_are() {
    let place = Place::new();
    place.write("flags.toml", "[development]\nbackend = \"postgres\"\n");
    place.write("keyed.toml", "[development]\nbackend = \"postgres\"\nsecret_key_file = \"k\"\n");
    for command in ["init", "status", "export -", "doctor", "upgrade"] {
        if cfg!(feature = "postgres") {
            let mut ran = place.run(&format!("--config flags.toml {command}"));
            ran.err.push_str(&ran.out);
            ran.refused(&["flags.toml line 2", "secret_key_file has to be set"]);
            continue;
        }
        for file in ["flags.toml", "keyed.toml"] {
            let mut ran = place.run(&format!("--config {file} {command}"));
            assert!(matches!(ran.code, 1 | 3), "{ran:#?}");
            ran.err.push_str(&ran.out);
            ran.refused(&["libsql", "zqlite", "line 2"]);
        }
    }
    place.write("native.toml", "[development]\nbackend = \"zqlite\"\nzqlite.engine = \"native\"\n");
    place.run("--config native.toml init").refused(&["zqlite.library", "native.toml line 3"]);
    place.write("memory.toml", "[development]\nbackend = \"memory\"\n");
    place.run("--config memory.toml status").refused(&["keeps nothing", "memory.toml line 2"]);
}

#[test]
fn the_environment_in_a_flag_file_has_no_nearest_key() {
    let place = Place::new();
    for text in ["environment = 'x'\n[development]\n", "[development]\nenvironment = 'x'\n"] {
        place.write("flags.toml", text);
        let ran = place.run("--config flags.toml status");
        ran.refused(&["chosen by the variable GHOSTWIRE_STORE__ENVIRONMENT"]).omits("nearest");
    }
    place.run("--environment production status").refused(&["--config FILE"]);
}

#[test]
fn options_without_a_use_say_why() {
    let place = Place::new();
    let mut calls = vec![("demo --path x", "--directory says where")];
    if cfg!(feature = "conformance") {
        calls.push(("conformance --list --path x", "the same of every store"));
    }
    if cfg!(feature = "bench") {
        calls.push(("bench --backend libsql", "--dir says where"));
    }
    for (call, why) in calls {
        let ran = place.run(call).ended(2);
        ran.refused(&[why, "help: leave the option out"]);
    }
}
