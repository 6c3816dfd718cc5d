//! Whatever is handed to it, the program says what is wrong and where, and changes nothing.

use std::fs;

use crate::support::{Place, Ran, dump, permissions_hold, places, portable, stores, user};

/// A store that holds something, and a try to import `content` into it.
#[track_caller]
fn import(content: impl AsRef<[u8]>, words: &[&str]) {
    for (backend, place) in places() {
        place.write("first.jsonl", portable(&[&user(1, "ann")]));
        place.on(backend, "import portable first.jsonl --create").ok();
        place.write("bad.jsonl", content.as_ref());
        let ran =
            place.unchanged(backend, words, || place.on(backend, "import portable bad.jsonl"));
        assert!(matches!(ran.code, 1 | 5), "{ran:#?}");
        assert!(ran.err.contains("bad.jsonl"), "{ran:#?}");
        let as_json = place.on(backend, "import portable bad.jsonl --json").error();
        assert!(as_json["kind"].is_string() && as_json["message"].is_string(), "{as_json}");
        let help = as_json["help"].as_array().unwrap();
        assert!(!help.is_empty(), "it says what to do: {as_json}");
    }
}

#[test]
fn portable_files_that_are_damaged() {
    import("", &["not even a first line"]);
    import("hello\n", &["not the portable form", "line: 1"]);
    let newer = ["supported: ", "import it with that one, or with a newer one"];
    import("{\"ghostwire_store\":3,\"schema\":1}\n", &[&newer[..], &["version"]].concat());
    import("{\"ghostwire_store\":1,\"schema\":99}\n", &[&newer[..], &["found: 99"]].concat());
    import([0xff, 0xfe, b'\n'], &["line: 1"]);
    import(portable(&["{\"user\":{\"id\":"]), &["line: 2", "column"]);
    import(portable(&["{\"user\":{}}"]), &["line: 2", "missing field"]);
    import(portable(&["{\"pet\":{}}"]), &["line: 2", "pet"]);
    let whole = portable(&[&user(2, "bo")]);
    import(&whole[..whole.len() - 40], &["cut off", "help: ", "copy it again"]);
    let text = String::from_utf8(whole).unwrap();
    import(text.replace("\"bo\"", "\"bu\""), &["altered", "help: ", "export the store once more"]);
    import(text.clone() + "{}\n", &["after the last line"]);
    let nested = "[".repeat(100_000);
    import(portable(&[&format!("{{\"user\":{nested}}}")]), &["line: 2"]);
}

#[test]
fn portable_files_that_break_rules() {
    import(portable(&[&user(2, "ann")]), &["already exists", "name"]);
    import(portable(&[&user(1, "other")]), &["another version of it", "first_line: 2"]);
    import(portable(&[&user(2, "bo"), &user(2, "cy")]), &["first_line: 3"]);
    import(portable(&[&user(2, "a\0b")]), &["line: 2"]);
    import(portable(&[&user(2, &"x".repeat(1 << 20))]), &["line: 2"]);
    let twice = user(2, "bo").replacen("\"name\":\"bo\"", "\"name\":\"bo\",\"name\":\"cy\"", 1);
    import(portable(&[&twice]), &["line: 2", "same key twice"]);
    let orphan = concat!(
        "{\"presence\":{\"node\":\"0190a5c8-7e1f-7000-8000-000000000009\",\"session\":1,",
        "\"online\":true}}"
    );
    import(portable(&[&user(2, "bo"), orphan]), &["first_line: 3", "does not exist"]);
    // One that would be refused in the second batch keeps the first from being written.
    let mut many: Vec<String> =
        (0..1500).map(|number| user(number + 100, &format!("user-{number}"))).collect();
    many.push(user(2, "ann"));
    let lines: Vec<&str> = many.iter().map(String::as_str).collect();
    import(portable(&lines), &["first_line: 1502"]);
    // The digest in the last line is checked before anything is written.
    let place = Place::new();
    place.init("libsql");
    let wrong = format!("\"state_digest\":\"{}\",\"sha256\"", "0".repeat(64));
    let text = String::from_utf8(portable(&[&user(2, "bo")])).unwrap();
    place.write("bad.jsonl", text.replacen("\"sha256\"", &wrong, 1));
    place.unchanged("libsql", &["digest", "nothing was written"], || {
        place.on("libsql", "import portable bad.jsonl")
    });
}

#[test]
fn sources_that_are_none() {
    let place = Place::new();
    place.init("libsql");
    let refused = |arguments: &str, words: &[&str]| {
        place.unchanged("libsql", words, || place.on("libsql", arguments));
    };
    fs::create_dir(place.file("directory")).unwrap();
    refused("import portable directory", &["is a directory", "directory"]);
    refused("import headscale directory", &["directory"]);
    refused("import portable absent.jsonl", &["absent.jsonl", "help: correct the path"]);
    refused("import headscale absent.sql", &["absent.sql", "No such file", "correct the path"]);
    refused("import headscale -", &["standard input", "write it to a file"]);
    place.write("words.txt", "these are words");
    refused("import headscale words.txt", &["words.txt"]);
    place.write("empty.sql", "");
    refused("import headscale empty.sql", &["empty.sql"]);
    let whole = fs::read(dump("request_tags_migration_test.sql")).unwrap();
    place.write("cut.sql", &whole[..whole.len() / 2]);
    refused("import headscale cut.sql", &["cut off", "cut.sql"]);
    // Another store of our own is not a Headscale database.
    place.init("zqlite");
    for store in ["zqlite.db", "libsql.db"] {
        let words = [store, "gwstore's own", "import portable"];
        refused(&format!("import headscale {store}"), &words);
    }
}

#[test]
fn a_dump_with_a_bad_row_is_imported_without_it_only_on_request() {
    let place = Place::new();
    place.init("libsql");
    let whole = fs::read_to_string(dump("request_tags_migration_test.sql")).unwrap();
    // A node whose machine key is none.
    let line = whole.lines().find(|line| line.starts_with("INSERT INTO nodes VALUES")).unwrap();
    let bad = line.replacen("mkey:", "nokey:", 1);
    assert_ne!(line, bad);
    place.write("bad.sql", whole.replacen(line, &bad, 1));
    let ran = place.unchanged("libsql", &["nothing was written", "--skip-invalid"], || {
        place.on("libsql", "import headscale bad.sql")
    });
    assert!(ran.out.contains("problem: nodes 1:"), "{ran:#?}");
    let ran = place.on("libsql", "import headscale bad.sql --skip-invalid --json");
    assert_eq!(ran.code, 6, "some was left out");
    let ran = ran.json();
    assert_eq!(ran["problems"][0]["table"], "nodes");
    assert_eq!(ran["counts"]["node"], 6);
}

#[test]
fn configurations() {
    let place = Place::new();
    place.write(
        "typo.toml",
        "[development]\nbackend = \"libsql\"\n[development.writer]\nmax_grup = 1\n",
    );
    let refused = |arguments: &str, words: &[&str]| place.run(arguments).refused(words);
    refused("--config typo.toml status", &["max_grup", "max_group", "typo.toml line 4"]);
    refused("--config absent.toml status", &["absent.toml"]);
    refused("--config . status", &["."]);
    place.write("broken.toml", "[development\n");
    refused("--config broken.toml status", &["broken.toml"]);
    place.write("flags.toml", "[development]\n[production]\n");
    refused("--config flags.toml --environment prodcution status", &["prodcution", "production"]);
    refused("--environment a/b status", &["environment"]);
    let postgres = "--backend postgres --set secret_key_file=k --set postgres.host=/nowhere status";
    match cfg!(feature = "postgres") {
        true => refused(postgres, &["cannot be reached", "/nowhere"]),
        false => refused(postgres, &["not compiled in", "libsql"]),
    };
    refused("--backend sqlite status", &["sqlite", "zqlite"]);
    refused("--set writer.max_group=0 status", &["writer.max_group", "65536"]);
    refused("--set nonsense status", &["key=value"]);
    refused("--backend memory --path x status", &["no store file"]);
    refused("--backend memory init", &["no files"]);
    refused("--path . status", &["is a directory"]);
    refused("--path no/such/place.db init", &["no/such"]);
    let error = place.run("--json --config typo.toml status").refused(&[]).error();
    assert_eq!(error["kind"], "invalid_argument");
    assert_eq!(error["context"]["nearest"], "writer.max_group", "{error}");
    place.run("--config typo.toml doctor").ended(3).says(&["max_group"]);
}

#[test]
fn usage() {
    let place = Place::new();
    for arguments in ["", "nonsense", "list", "list nonsense", "status --nonsense", "import"] {
        assert_eq!(place.run(arguments).code, 2, "{arguments}");
    }
    let error = place.run("list nonsense --json").refused(&[]).error();
    assert_eq!(error["kind"], "usage");
    for help in ["--help", "list --help", "import portable --help", "--version"] {
        assert!(!place.run(help).ok().out.is_empty());
    }
}

#[test]
fn listings() {
    let place = Place::new();
    place.filled("libsql");
    let refused = |arguments: &str, words: &[&str]| -> Ran {
        place.unchanged("libsql", words, || place.on("libsql", &format!("list {arguments}")))
    };
    assert_eq!(refused("nodes --limit 0", &["1 to 1000"]).code, 2);
    assert_eq!(refused("nodes --limit 1000000", &["1 to 1000"]).code, 2);
    let page = place.on("libsql", "list nodes --limit 1").ok();
    let cursor = page.err.trim().rsplit_once("--cursor ").unwrap().1.to_owned();
    for other in ["users", "presence", "settings", "metrics", "audit", "nodes --online"] {
        refused(&format!("{other} --cursor {cursor}"), &["another query"]);
    }
    refused("nodes --cursor nonsense", &["cursor"]);
    refused("nodes --user nobody", &["does not exist", "nobody"]);
    refused("nodes --user 00000000-0000-0000-0000-000000000000", &["does not exist"]);
    refused("nodes --tag web", &["tag"]);
    refused("users --tag tag:web", &["--tag"]);
    refused("routes --online", &["--online"]);
}

#[test]
fn exports() {
    let place = Place::new();
    place.init("libsql");
    let refused = |target: &str, words: &[&str]| {
        let arguments = format!("export {target}");
        place.unchanged("libsql", words, || place.on("libsql", &arguments));
    };
    place.write("there.jsonl", "keep me");
    refused("there.jsonl", &["--force", "there.jsonl"]);
    assert_eq!(place.read("there.jsonl"), b"keep me");
    refused(".", &["is a directory"]);
    refused("no/such/directory.jsonl", &["no/such"]);
    refused("libsql.db --force", &["belongs to a store"]);
    refused("libsql.db.key --force", &["belongs to a store"]);
    refused("/dev/null --force", &["not a regular file"]);
    place.on("libsql", "export there.jsonl --force").ok();
    let leftovers = fs::read_dir(place.file(".")).unwrap().flatten();
    assert!(
        leftovers
            .into_iter()
            .all(|entry| !entry.file_name().to_string_lossy().contains(".gwstore"))
    );
}

#[test]
fn files_that_may_not_be_touched() {
    use std::os::unix::fs::PermissionsExt;
    if !permissions_hold() {
        eprintln!("skipped: this user may read and write everything");
        return;
    }
    for (backend, place) in stores() {
        place.write("more.jsonl", portable(&[&user(1, "ann")]));
        // An engine gives its side files the mode of the store's.
        let set = |mode| {
            for suffix in ["", "-wal", "-shm"] {
                let path = place.file(&format!("{backend}.db{suffix}"));
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
            }
        };
        set(0o400);
        place.on(backend, "import portable more.jsonl").refused(&[".db"]);
        place.on(backend, "doctor").ok().says(&["chmod 600"]);
        set(0o000);
        place.on(backend, "status").refused(&[".db"]);
        set(0o600);
        place.on(backend, "import portable more.jsonl").ok();
    }
}
