//! What people do every day.

use std::fs;

use crate::support::{Place, key_file, places};

#[test]
fn a_new_store_is_there_once_and_healthy() {
    for (backend, place) in places() {
        place.on(backend, "status").refused(&["there is no store", "gwstore init"]);
        place.on(backend, "init").ok().says(&["Back the key"]);
        place.unchanged(backend, &["left as it is", ".db"], || place.on(backend, "init"));
        let status = place.on(backend, "status --json").ok().json();
        assert_eq!(status["backend"]["name"], backend);
        assert_eq!(status["schema"]["found"], status["schema"]["supported"]);
        assert_eq!(status["counts"]["node"], 0);
        let doctor = place.on(backend, "doctor --json").ok().json();
        assert!(doctor["findings"].as_array().unwrap().len() >= 10, "{doctor}");
        let migrate = place.on(backend, "upgrade --json").ok().json();
        assert_eq!(migrate["migrated"], false);
    }
}

#[test]
fn a_store_that_was_begun_is_completed_and_one_that_was_lost_is_not_replaced() {
    for (backend, place) in places() {
        let name = format!("{backend}.db");
        let [file, key, lock] =
            ["", key_file(backend), ".lock"].map(|end| place.file(&(name.clone() + end)));
        place.init(backend);
        // Broken off while the file was filled.
        fs::write(&file, "").unwrap();
        fs::remove_file(&key).unwrap();
        fs::remove_file(&lock).unwrap();
        place.init(backend);
        place.on(backend, "init").refused(&["left as it is"]);
        fs::rename(&file, place.file("aside")).unwrap();
        place.on(backend, "init").refused(&["its file is gone", &name, "restore"]);
        place.on(backend, "status").refused(&["a store was here", &name, "restore"]);
        place.on(backend, "doctor").ended(3).says(&["the lock last"]);
        assert!(!file.exists());
        fs::rename(place.file("aside"), &file).unwrap();
        place.on(backend, "doctor").ok();
    }
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    place.run("--backend zqlite --path data/z.db init").ok();
    place.run("--backend zqlite --path data/z.db export x.jsonl").ok();
    let mode = |name: &str| fs::metadata(place.file(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data"), 0o700);
    for end in ["", ".keyring", ".keyring.lock", ".root", ".lock"] {
        assert_eq!(mode(&format!("data/z.db{end}")), 0o600, "{end}");
    }
    assert_eq!(mode("x.jsonl"), 0o600);
    fs::set_permissions(place.file("data/z.db.root"), fs::Permissions::from_mode(0o644)).unwrap();
    place.run("--backend zqlite --path data/z.db doctor").ended(3).says(&["chmod 600"]);
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let place = Place::new();
    place.write(
        "feature-flags.toml",
        "[staging]\nbackend = \"zqlite\"\n[staging.writer]\nmax_group = 7\n",
    );
    let shown = place.run("--environment staging --set writer.max_dirty_rows=9 config show --json");
    let explained = shown.ok().json();
    let find = |key: &str| {
        let found = explained.as_array().unwrap().iter().find(|value| value["key"] == key);
        found.unwrap().clone()
    };
    assert_eq!(find("writer.max_group")["value"], "7");
    assert_eq!(find("writer.max_group")["origin"]["file"]["line"], 4);
    assert_eq!(find("writer.max_dirty_rows")["origin"], "command_line");
    assert_eq!(find("writer.queue_capacity")["origin"], "default");
}

#[test]
fn lists_page_filter_and_keep_secrets() {
    let place = Place::new();
    place.filled("zqlite");
    let lines =
        |arguments: &str| place.on("zqlite", &format!("list {arguments} --json")).ok().items();
    let all = lines("nodes --all --limit 7");
    assert_eq!(all.len(), 150);
    assert_eq!(lines("nodes --limit 1000"), all);
    let [online, offline] = [lines("nodes --all --online"), lines("nodes --all --online=false")];
    assert_eq!(online.len() + offline.len(), all.len());
    assert!(!online.is_empty() && !offline.is_empty());
    let tag = all.iter().find_map(|node| node["tags"][0].as_str()).unwrap();
    assert!(lines(&format!("nodes --all --tag {tag}")).len() < all.len());
    let ada = lines("nodes --all --user ada");
    let id = ada[0]["user"].as_str().unwrap();
    assert_eq!(lines(&format!("nodes --all --user {id}")), ada);

    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let ran = place.on("zqlite", &format!("list presence --json --limit 60 {cursor}")).ok();
        paged.extend(ran.items());
        let Some(next) = paged.last().and_then(|last| last["next"].as_str()) else { break };
        cursor = format!("--cursor {next}");
        paged.pop();
    }
    assert_eq!(paged, lines("presence --all"));
    place.on("zqlite", "list presence --limit 60 -q").ok().warns(&["--cursor"]);

    for entity in ["api-keys", "preauth-keys", "sessions"] {
        for form in ["", "--json"] {
            let ran = place.on("zqlite", &format!("list {entity} --all {form}")).ok();
            assert!(!ran.out.is_empty());
            // A hash has 64 hex digits at its end.
            let is_hex =
                |word: &str| word.len() >= 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(!ran.out.split(|c: char| !c.is_ascii_alphanumeric()).any(is_hex), "{ran:#?}");
        }
        assert_eq!(lines(&format!("{entity} --limit 1"))[0]["hash"], "hmac-sha256:…redacted");
    }
    for entity in ["users", "routes", "policies", "dns-records", "settings", "metrics", "audit"] {
        let table = place.on("zqlite", &format!("list {entity} --limit 3")).ok();
        assert!(table.out.lines().count() > 1, "{table:#?}");
        assert!(!lines(&format!("{entity} --limit 3")).is_empty());
    }
}

#[test]
fn an_older_schema_is_migrated_with_a_backup() {
    use ghostwire_store::Opener;
    use ghostwire_store_core::schema::Schema;
    for (backend, place) in places() {
        let config = place.config(backend);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let opener = Opener::new(&config).schema(Schema::at(1).unwrap());
            opener.open_backend().await.unwrap().close().await.unwrap();
        });
        place.on(backend, "status").refused(&["older schema", "gwstore upgrade"]);
        // A warning, and one failure: this store has no key yet.
        let doctor = place.on(backend, "doctor --json").json();
        assert!(doctor.to_string().contains("gwstore upgrade"), "{doctor}");
        let dry = place.on(backend, "upgrade --dry-run --json").ok().json();
        assert_eq!((&dry["found"], &dry["migrated"]), (&1.into(), &false.into()));
        let done = place.on(backend, "upgrade --json").ok().json();
        assert_eq!(done["migrated"], true);
        let backup = done["backups"][0].as_str().unwrap();
        assert!(fs::metadata(backup).unwrap().len() > 0);
        place.on(backend, "status").ok();
        assert_eq!(place.on(backend, "upgrade --json").ok().json()["migrated"], false);
    }
}

/// Whatever moment it is: one whole store has the name.
#[test]
fn a_compaction_that_is_killed_leaves_a_whole_store() {
    for (backend, place) in places() {
        place.filled(backend);
        let before = place.digest(backend);
        let name = format!("{backend}.db");
        for moment in 0..12 {
            let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gwstore"))
                .args(["--backend", backend, "--path", &name, "compact"])
                .current_dir(place.file(""))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(moment * 7));
            // It may have ended.
            let _ = child.kill();
            child.wait().unwrap();
            assert_eq!(place.digest(backend), before, "{moment}");
        }
        let done = place.on(backend, "compact --json").ok().json();
        assert!(done["after"].as_u64() <= done["before"].as_u64(), "{done}");
        assert_eq!(place.digest(backend), before);
        place.on(backend, "doctor").says(&["nothing unfinished", "rows and blocks are whole"]);
        assert!(place.on(backend, "compact").ok().out.contains("Compacted"));
    }
    Place::new().on("libsql", "compact").refused(&["gwstore init"]);
}

#[test]
fn the_demonstration_leaves_stores_that_can_be_looked_at() {
    let place = Place::new();
    let demo = place.run("demo --directory kept").ok();
    let names = fs::read_dir(place.file("kept")).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().all(|name| !name.starts_with("flipped")), "{names:?}");
    let calls: Vec<_> =
        demo.out.lines().filter_map(|line| line.strip_prefix("  gwstore ")).collect();
    assert_eq!(calls.len(), 2, "{demo:#?}");
    for call in calls {
        place.run(call).ok();
        // The day of the demonstration is long ago, so the clock is asked about before it is served.
        place.run(&call.replace(" status", " doctor")).says(&[
            "gwstore clock accept",
            " 0 not checked, 1 failed",
            "ok    credentials: the hash key fits",
        ]);
    }
}
