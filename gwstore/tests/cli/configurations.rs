//! Which configuration holds, and that no other is taken for it.

use std::os::unix::fs::symlink;

use crate::support::{Place, Ran, command_in};

fn with_variable(place: &Place, name: &str, value: &str, arguments: &[&str]) -> Ran {
    Ran::of(command_in(&place.file(""), arguments).env(name, value).output().unwrap())
}

#[test]
fn a_chosen_environment_needs_a_flag_file() {
    let place = Place::new();
    let words = ["no flag file", "production"];
    place.run("--environment production init").refused(&words);
    let variable = "GHOSTWIRE_STORE__ENVIRONMENT";
    with_variable(&place, variable, "production", &["init"]).refused(&words).warns(&[variable]);
    assert!(!place.file("data").exists(), "no store is made on the defaults");
    place.write("feature-flags.toml", "[production]\nlibsql.path = 's.db'\n");
    with_variable(&place, variable, "production", &["init"]).ok();
    assert!(place.file("s.db").exists());
}

#[test]
fn settings_hold_on_either_side_of_the_subcommand() {
    let place = Place::new();
    place.run("--set secret_key_file=here.key init --set=libsql.path=s.db").ok();
    assert!(place.file("here.key").exists() && place.file("s.db").exists());
}

#[test]
fn a_flag_file_that_leads_nowhere_is_an_error() {
    let place = Place::new();
    symlink("/nonexistent", place.file("feature-flags.toml")).unwrap();
    for command in ["init", "config show", "status"] {
        place.run(command).refused(&["leads nowhere", "feature-flags.toml"]);
    }
    place.run("doctor").ended(3).says(&["leads nowhere"]);
    assert!(!place.file("data").exists());
}

#[test]
fn the_flag_file_in_use_is_named() {
    let place = Place::new();
    place.run("init").ok();
    let shown = place.run("config show").ok();
    assert!(shown.out.lines().nth(1).unwrap().starts_with("flag_file"), "{shown:#?}");
    assert!(place.run("status").ok().out.contains("flag file     none"));
    assert!(place.run("status --json").ok().json()["flag_file"].is_null());
    assert!(place.run("doctor").ok().out.contains("no flag file: built-in defaults"));
    place.write("feature-flags.toml", "[development]\n");
    assert_eq!(place.run("status --json").ok().json()["flag_file"], "feature-flags.toml");
    assert!(place.run("doctor").ok().out.contains("flag file feature-flags.toml"));
    let shown = place.run("config show --json").ok().json();
    assert_eq!(shown[0]["key"], "flag_file");
    assert_eq!(shown[0]["value"], "feature-flags.toml");
}

#[test]
fn paths_that_are_none() {
    let place = Place::new();
    for option in ["--path", "--set libsql.path="] {
        let option = if option.ends_with('=') { option.to_owned() } else { format!("{option} ") };
        for address in ["libsql://db.turso.io", "http://127.0.0.1:8080"] {
            place
                .run(&format!("{option}{address} init"))
                .refused(&["remote mode is not there yet"]);
        }
        place.run(&format!("{option}~/x.db init")).refused(&["expanded by shells only"]);
    }
    let left = std::fs::read_dir(place.file("")).unwrap().count();
    assert_eq!(left, 0, "nothing is made");
    place.run("--path ./~x.db init").ok();
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let place = Place::new();
    place.init("libsql");
    place.init("zqlite");
    let on = "--backend libsql --path libsql.db";
    for (options, words) in [
        (format!("{on} --set libsql.path=zqlite.db"), ["--path", "--set libsql.path"]),
        (format!("{on} --set backend=zqlite"), ["--backend", "--set backend"]),
        (
            format!("{on} --environment staging --set environment=production"),
            ["--environment", "--set environment"],
        ),
        (
            format!("{on} --set writer.max_group=7 --set writer.max_group=8"),
            ["--set writer.max_group, --set writer.max_group", "leave one"],
        ),
    ] {
        for command in ["status", "doctor", "init", "config show"] {
            let ran = place.run(&format!("{options} {command}")).ended(2);
            ran.refused(&words);
        }
    }
    // The same twice is no contradiction, nor is a key of another backend.
    let absolute = place.file("libsql.db");
    for options in [
        format!("{on} --set libsql.path=libsql.db --set backend=libsql"),
        format!("{on} --set libsql.path={}", absolute.display()),
        format!("{on} --set zqlite.path=zqlite.db"),
    ] {
        place.run(&format!("{options} status")).ok();
    }
}

#[test]
fn a_named_store_is_one_of_several() {
    let place = Place::new();
    place.write(
        "feature-flags.toml",
        "[development]\nstore = 'a'\n[development.stores]\n\
         a = { backend = 'zqlite', path = 'a.db' }\n\
         b = { backend = 'zqlite', path = 'b.db', secret_key_file = 'apart' }\n",
    );
    place.run("init").ok();
    place.run("--store b init").ok();
    for name in ["a.db", "a.db.keyring", "b.db", "b.db.keyring", "apart"] {
        assert!(place.file(name).exists(), "{name}");
    }
    assert_eq!(place.run("status --json").ok().json()["store_name"], "a");
    assert_eq!(place.run("--store b status --json").ok().json()["store_name"], "b");
    let shown = place.run("config show").ok().out;
    assert!(shown.contains("stores.a.path") && shown.contains("stores.b.path"), "{shown}");
    place.run("--store c status").refused(&["known: a, b"]);
    place.run("export apart --force").refused(&["belongs to a store"]);

    // `--backend` and `--path` are about the store that is opened.
    place.run("--backend libsql --path c.db init").ok();
    assert!(place.file("c.db").exists());
    for options in [
        "--path c.db --set stores.a.path=d.db",
        "--backend libsql --set stores.a.backend=zqlite",
        "--store a --set store=b",
    ] {
        let ran = place.run(&format!("{options} status"));
        assert_eq!(ran.code, 2, "{ran:#?}");
        ran.refused(&["leave one"]);
    }
}

#[test]
fn a_sealed_store_without_its_backend_is_not_made_plain() {
    let place = Place::new();
    let table = "[production.zqlite]\npath = 's.db'\nroot_secret_file = 'root'\n";
    place.write("feature-flags.toml", table);
    place.run("keys identity new root").ok();
    let words = ["key: zqlite.path", "line 2", "backend: libsql", "backend = \"zqlite\""];
    for command in ["init", "status", "config show"] {
        place.run(&format!("--environment production {command}")).refused(&words);
    }
    assert!(!place.file("data").exists() && !place.file("s.db").exists());
    place.write("feature-flags.toml", format!("[production]\nbackend = 'zqlite'\n{table}"));
    place.run("--environment production init").ok().says(&["Made a zqlite store"]);
}

#[test]
fn a_variable_with_an_underscore_too_few_is_refused() {
    let place = Place::new();
    let ran = with_variable(&place, "GHOSTWIRE_STORE_LIBSQL_PATH", "/x", &["init"]);
    ran.refused(&["GHOSTWIRE_STORE_LIBSQL_PATH", "GHOSTWIRE_STORE__LIBSQL__PATH"]);
    assert!(!place.file("data").exists());
}

/// What the program's sources read of the environment is documented, and nothing else is.
#[test]
fn every_variable_is_documented() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut read: Vec<String> = Vec::new();
    for part in [
        "core/src",
        "backends/sqlite/src",
        "backends/libsql/src",
        "backends/zqlite/src",
        "backends/memory/src",
        "ghostwire-store/src",
        "conformance/src",
        "benches/src",
        "benches/workload/src",
        "gwstore/src",
    ] {
        names_in(&root.join(part), &mut read);
    }
    // Of the suite where it runs as a test, and not of this program.
    read.retain(|name| !name.starts_with("GHOSTWIRE_CONFORMANCE_"));
    assert!(read.iter().any(|name| name == "GHOSTWIRE_BENCH_DIR"), "{read:?}");
    let page = std::fs::read_to_string(root.join("docs/command-line.md")).unwrap();
    for name in &read {
        let name = if name.starts_with("GHOSTWIRE_STORE_") { "GHOSTWIRE_STORE__" } else { name };
        assert!(page.contains(&format!("`{name}")), "{name} is not in docs/command-line.md");
    }
    for row in page.lines().filter_map(|line| line.strip_prefix("| `GHOSTWIRE_")) {
        let name = format!("GHOSTWIRE_{}", row.split(['`', '…']).next().unwrap());
        assert!(read.contains(&name), "nothing reads {name}");
    }
}

/// The names of variables that stand as texts of their own in sources, but not in tests.
fn names_in(directory: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            names_in(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("mod tests {").next().unwrap();
            found.extend(source.split('"').filter(|text| is_variable(text)).map(str::to_owned));
        }
    }
}

fn is_variable(text: &str) -> bool {
    text.starts_with("GHOSTWIRE_")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_' || byte.is_ascii_digit())
}
