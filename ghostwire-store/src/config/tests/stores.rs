//! Named stores: their form, which one is opened, and what is refused.

use super::*;

const STORES: &str = "
[defaults.stores.archive]
backend = 'libsql'
[development]
store = 'live'
[development.stores.live]
backend = 'zqlite'
path = 'live.zq'
engine = 'embedded'
secret_key_file = '/run/live.key'
[development.stores.archive]
path = 'old/../archive.db'
[development.stores.cold-data]
path = '/srv/cold.db'
materialize = 'checkpoint'
";

fn without_source(mut config: Config) -> Config {
    config.origins = Origins::default();
    config.flag_file = None;
    config
}

#[test]
fn each_store_has_a_backend_and_its_options() {
    let config = from_toml(STORES).unwrap();
    assert_eq!(config.store, "live");
    let zqlite = ZqliteOptions { path: "/etc/gw/live.zq".into(), ..ZqliteOptions::default() };
    assert_eq!(config.backend, BackendChoice::Zqlite(zqlite));
    assert_eq!(config.secret_key_path().unwrap(), Path::new("/run/live.key"));
    assert_eq!(config.stores().into_keys().collect::<Vec<_>>(), ["archive", "cold-data", "live"]);

    let archive = config.for_store("archive").unwrap();
    archive.check().unwrap();
    assert_eq!(archive.backend.kind(), BackendKind::Libsql);
    assert_eq!(archive.secret_key_path().unwrap(), Path::new("/etc/gw/old/../archive.db.key"));
    assert_eq!(archive.store_key("path"), "stores.archive.path");
    assert_eq!(archive.for_store("live").unwrap().stores(), config.stores());
    let error = config.for_store("cold_data").unwrap_err().to_string();
    for part in ["\"cold_data\"", "known=archive, cold-data, live", "nearest=cold-data"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn every_store_is_explained() {
    let config = from_toml(STORES).unwrap();
    let at = |line: u32| format!("/etc/gw/flags.toml line {line}");
    for (key, value, origin) in [
        ("store", "live", at(5)),
        ("stores.live.backend", "zqlite", at(7)),
        ("stores.live.path", "/etc/gw/live.zq", at(8)),
        ("stores.live.materialize", "checkpoint", "default".to_owned()),
        ("stores.archive.backend", "libsql", at(3)),
        ("stores.archive.materialize", "commit", "default".to_owned()),
        ("stores.archive.secret_key_file", "/etc/gw/old/../archive.db.key", "default".to_owned()),
        ("stores.cold-data.materialize", "checkpoint", at(15)),
        ("roles.secrets", "live", "default".to_owned()),
    ] {
        assert_eq!(explained(&config, key), (value.to_owned(), origin), "{key}");
    }
    let keys: Vec<String> = config.explain().into_iter().map(|found| found.key).collect();
    let stores: Vec<_> = keys.iter().filter(|key| key.starts_with("stores.")).collect();
    assert!(stores.is_sorted_by_key(|key| key.split('.').nth(1)), "one store after the other");
    for absent in ["backend", "libsql.path", "secret_key_file", "stores.archive.engine"] {
        assert!(!keys.iter().any(|key| key == absent), "{absent}");
    }
    assert_eq!(config.origin_of(&config.store_key("engine")).to_string(), at(9));

    let chosen = config.for_store("archive").unwrap();
    assert_eq!(explained(&chosen, "stores.archive.backend").1, at(3));
    assert_eq!(explained(&chosen, "store"), ("archive".into(), "set in code".into()));
}

#[test]
fn keys_without_a_name_mean_the_store_main() {
    for (unnamed, named) in [
        ("", "stores.main = {}"),
        ("backend = 'zqlite'", "stores.main.backend = 'zqlite'"),
        ("libsql.path = 'x'", "stores.main.path = 'x'"),
        ("secret_key_file = 'k'", "stores.main.secret_key_file = 'k'"),
        (
            "backend = 'zqlite'\nzqlite = { path = 'x', engine = 'native', materialize = 'commit' }",
            "[development.stores.main]\nbackend = 'zqlite'\npath = 'x'\nengine = 'native'\nmaterialize = 'commit'",
        ),
        (
            "backend = 'postgres'\nsecret_key_file = 'k'\npostgres.password_file = 'u'",
            "store = 'main'\nstores.main.backend = 'postgres'\nstores.main.password_file = 'u'\nsecret_key_file = 'k'",
        ),
        ("backend = 'memory'", "stores.main.backend = 'memory'"),
    ] {
        let [unnamed, named] = [unnamed, named]
            .map(|text| from_toml(&format!("[development]\n{text}")).unwrap())
            .map(without_source);
        assert_eq!(unnamed, named);
        assert_eq!(unnamed.store, DEFAULT_STORE);
    }
    // The one form in which each is explained is the one that was used.
    let unnamed = from_toml("[development]\nlibsql.path = '/x'").unwrap();
    assert_eq!(explained(&unnamed, "libsql.path").1, "/etc/gw/flags.toml line 2");
    assert_eq!(unnamed.store_key("path"), "libsql.path");
    let named = from_toml("[development]\nstores.main.path = '/x'").unwrap();
    assert_eq!(explained(&named, "stores.main.path").1, "/etc/gw/flags.toml line 2");
    assert_eq!(named.store_key("path"), "stores.main.path");
    // Beside another store the name is needed, also where it was not written.
    let both = "[development]\nbackend = 'zqlite'\nzqlite.path = '/x'\nstores.b.path = '/y'";
    let both = from_toml(both).unwrap();
    assert_eq!(both.store, "main");
    let expected = ("/x".into(), "/etc/gw/flags.toml line 3".into());
    assert_eq!(explained(&both, "stores.main.path"), expected);
}

#[test]
fn a_key_in_both_forms_is_refused() {
    for (unnamed, named) in [
        ("backend", "stores.main.backend"),
        ("secret_key_file", "stores.main.secret_key_file"),
        ("libsql.path", "stores.main.path"),
        ("zqlite.path", "stores.main.path"),
    ] {
        let text = format!("[development]\n{unnamed} = 'libsql'\n{named} = 'libsql'");
        let (key, other) = (format!("key={unnamed}, "), format!("other_key={named}, "));
        let parts =
            ["leave one", &key, "source=/etc/gw/flags.toml line 2", &other, "flags.toml line 3"];
        invalid(from_toml(&text), &parts);
        // Also in an environment that does not run.
        let other = format!("{}\n[development]", text.replace("development", "other"));
        invalid(from_toml(&other), &parts);
    }
    let text = "[defaults]\nbackend = 'libsql'\n[development]\nstores.main.backend = 'libsql'";
    invalid(from_toml(text), &["flags.toml line 2", "flags.toml line 4"]);
    let variable = [("GHOSTWIRE_STORE__STORES__MAIN__PATH", "x")];
    invalid(
        from_all("[development]\nlibsql.path = 'y'", &variable, &[("stores.main.path", "x")]),
        &["source=/etc/gw/flags.toml line 2", "other_key=stores.main.path", "=command line"],
    );
}

#[test]
fn yaml_has_named_stores() {
    let yaml = "
defaults:
  stores: {archive: {backend: libsql}}
development:
  store: live
  stores:
    live: {backend: zqlite, path: live.zq, engine: embedded, secret_key_file: /run/live.key}
    archive:
      path: old/../archive.db
    cold-data: {path: /srv/cold.db, materialize: checkpoint}
";
    let request = LoadRequest::default();
    let config = resolve(Some(&file("f.yaml", yaml)), &request, &BTreeMap::new()).unwrap();
    assert_eq!(explained(&config, "stores.archive.path").1, "/etc/gw/f.yaml line 9");
    assert_eq!(explained(&config, "stores.archive.backend").1, "/etc/gw/f.yaml line 3");
    assert_eq!(without_source(config), without_source(from_toml(STORES).unwrap()));
}

#[test]
fn variables_and_the_command_line_change_declared_stores() {
    let path = ("GHOSTWIRE_STORE__STORES__COLD_DATA__PATH", "/v");
    let config = from_all(STORES, &[path], &[]).unwrap();
    let expected = ("/v".into(), format!("variable {}", path.0));
    assert_eq!(explained(&config, "stores.cold-data.path"), expected);
    let overrides = [("stores.cold-data.path", "/c"), ("store", "cold-data")];
    let config = from_all(STORES, &[path, ("GHOSTWIRE_STORE__STORE", "archive")], &overrides);
    let config = config.unwrap();
    assert_eq!(config.backend.path().unwrap(), Path::new("/c"));
    assert_eq!(explained(&config, "store"), ("cold-data".into(), "command line".into()));

    let unknown = [("stores.cold_data.path", "x")];
    invalid(from_all(STORES, &[], &unknown), &["unknown store", "nearest=cold-data"]);
    let unknown = [("GHOSTWIRE_STORE__STORES__LIFE__PATH", "x")];
    invalid(from_all(STORES, &unknown, &[]), &["unknown store", "key=life", "nearest=live"]);
    let twins = "[development.stores]\nmain = {}\na-b = { path = 'x' }\na_b = { path = 'y' }";
    let either = [("GHOSTWIRE_STORE__STORES__A_B__PATH", "z")];
    invalid(from_all(twins, &either, &[]), &["more than one store"]);
    // Without a file there is `main`.
    let variables = owned(&[("GHOSTWIRE_STORE__STORES__MAIN__PATH", "/x")]);
    let config = resolve(None, &LoadRequest::default(), &variables).unwrap();
    assert_eq!(config.backend.path().unwrap(), Path::new("/x"));
    let variables = owned(&[("GHOSTWIRE_STORE__STORES__B__PATH", "/x")]);
    invalid(resolve(None, &LoadRequest::default(), &variables), &["unknown store", "nearest=main"]);
}

#[test]
fn the_backend_of_the_opened_store_can_be_requested() {
    let request = LoadRequest { backend: Some("libsql".into()), ..LoadRequest::default() };
    let none = BTreeMap::new();
    for (text, key) in [
        ("[development]\nbackend = 'zqlite'", "backend"),
        ("[development.stores.main]\nbackend = 'zqlite'", "stores.main.backend"),
        ("[development.stores.a]\nbackend = 'zqlite'", "stores.a.backend"),
    ] {
        let config = resolve(Some(&file("f.toml", text)), &request, &none).unwrap();
        assert_eq!(explained(&config, key), ("libsql".into(), "command line".into()));
    }
    assert_eq!(explained(&resolve(None, &request, &none).unwrap(), "backend").0, "libsql");
    let request = LoadRequest { backend: Some("libsq".into()), ..LoadRequest::default() };
    invalid(resolve(None, &request, &none), &["key=backend", "nearest=libsql", "command line"]);
}

#[test]
fn the_store_that_is_opened() {
    let opened = |text: &str| from_toml(text).map(|config| config.store);
    assert_eq!(opened("[development]").unwrap(), "main");
    assert_eq!(opened("[development.stores.only]\npath = 'x'").unwrap(), "only");
    let two = "[development.stores]\nmain = {}\nb = { path = 'x' }\n";
    assert_eq!(opened(two).unwrap(), "main");
    assert_eq!(opened(&format!("{two}[development]\nstore = 'b'")).unwrap(), "b");
    invalid(
        from_toml("[development.stores]\na = { path = 'x' }\nb = { path = 'y' }"),
        &["several stores", "key=store", "known=a, b"],
    );
    invalid(
        from_toml(&format!("{two}[development]\nstore = 'mian'")),
        &["no store", "key=store", "value=\"mian\"", "known=b, main", "line 5", "nearest=main"],
    );
}

#[test]
fn keys_without_a_name_need_their_store() {
    // An empty store must not take the place of the declared one.
    for (key, example) in [
        ("secret_key_file", "stores.a.secret_key_file"),
        ("libsql.path", "stores.a.path"),
        ("zqlite.materialize", "stores.a.materialize"),
    ] {
        let value = if key.ends_with("materialize") { "commit" } else { "x" };
        let text = format!("[defaults]\n{key} = '{value}'\n[development.stores.a]");
        let (key, example) = (format!("key={key}"), format!("for_example={example}"));
        invalid(from_toml(&text), &["of the store `main`", &key, "line 2", &example, "known=a"]);
    }
    let variable = [("GHOSTWIRE_STORE__BACKEND", "zqlite")];
    let result = from_all("[development.stores.a]", &variable, &[]);
    invalid(result, &["of the store `main`", "variable GHOSTWIRE_STORE__BACKEND"]);
}

#[test]
fn an_option_of_a_backend_that_is_not_chosen_is_refused() {
    let sealed = "zqlite.path = '/x'\nzqlite.root_secret_file = '/root'";
    let parts = ["not the store's", "key=zqlite.path", "line 2", "backend=libsql", "\"zqlite\""];
    invalid(from_toml(&format!("[development]\n{sealed}")), &parts);
    let said = "[development]\nbackend = 'libsql'\nzqlite.path = '/x'";
    invalid(from_toml(said), &["key=zqlite.path", "backend_source=/etc/gw/flags.toml line 2"]);
    let by_name = "[development]\nstores.main.backend = 'libsql'\nzqlite.path = '/x'";
    invalid(from_toml(by_name), &["key=zqlite.path"]);
    invalid(from_toml("[development]\nbackend = 'memory'\nlibsql.path = 'x'"), &["backend=memory"]);
    // What environments share may be for one of them; and whoever chooses a backend elsewhere knows it.
    from_toml(&format!("[defaults]\n{sealed}\n[development]")).unwrap();
    from_toml(&format!("[development]\nbackend = 'zqlite'\n{sealed}")).unwrap();
    let sealed = format!("[development]\n{sealed}");
    for backend in ["zqlite", "libsql"] {
        from_all(&sealed, &[("GHOSTWIRE_STORE__BACKEND", backend)], &[]).unwrap();
        from_all(&sealed, &[], &[("backend", backend)]).unwrap();
    }
}

#[test]
fn names_of_stores() {
    for bad in ["A", "1a", "-a", "\"a.b\"", "\"\"", "größe", &"x".repeat(33)] {
        let bad = if bad.is_ascii() { bad.to_owned() } else { format!("'{bad}'") };
        invalid(
            from_toml(&format!("[development.stores.{bad}]\nbackend = 'libsql'")),
            &["a store cannot have this name", "path=development.stores.", "1 to 32", "line 1"],
        );
    }
    from_toml(&format!("[development.stores.{}]", "x".repeat(32))).unwrap();
    for key in ["store", "roles.core", "migration.target"] {
        let text = format!("[development]\n{key} = 'a b'");
        invalid(from_toml(&text), &["malformed", key, "lowercase letters", "line 2"]);
    }
}

#[test]
fn keys_of_stores_are_checked() {
    for (line, parts) in [
        ("pth = 'x'", ["unknown configuration key", "nearest=stores.a.path"]),
        ("bakend = 'x'", ["unknown configuration key", "nearest=stores.a.backend"]),
        ("libsql.path = 'x'", ["unknown configuration key", "path=development.stores.a.libsql"]),
        ("password = 'hunter2'", ["secrets do not belong", "key=password"]),
        ("path = 'libsql://db'", ["remote mode", "key=development.stores.a.path"]),
        ("backend = 'sqlite'", ["nearest=zqlite", "key=development.stores.a.backend"]),
        ("engine = 'native'", ["no such option", "key=stores.a.engine"]),
        ("pool_max = 3", ["no such option", "allowed=backend, path, materialize, secret_key_file"]),
    ] {
        let error = from_toml(&format!("[development.stores.a]\n{line}")).unwrap_err().to_string();
        for part in parts.into_iter().chain(["flags.toml line 2"]) {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert!(!error.contains("hunter2"), "{error}");
    }
    for (text, hint) in [
        ("[development.stores]\nbackend = 'libsql'", "a table has to follow"),
        ("[stores.a]\nbackend = 'libsql'", "for_example=defaults.stores"),
        ("store = 'a'", "for_example=defaults.store"),
    ] {
        invalid(from_toml(text), &[hint]);
    }
    invalid(
        from_toml("[development.stores.a]\nbackend = 'postgres'"),
        &["secret_key_file has to be set", "key=stores.a.backend", "line 2"],
    );
}

#[test]
fn two_stores_cannot_have_one_file() {
    let other = |path: &str| {
        let text = "[development.stores]\na = { path = 'data/x.db' }\nmain.path = ";
        from_toml(&format!("{text}'{path}'\nmain.backend = 'zqlite'"))
    };
    for path in ["data/x.db", "./data//x.db", "/etc/gw/data/x.db", "data/y/../x.db"] {
        invalid(
            other(path),
            &["cannot have one file", "=stores.a.path", "line 2", "=stores.main.path", "line 3"],
        );
    }
    other("data/x.dbx").unwrap();
    // Neither says where.
    let text = "[development.stores]\na = {}\nmain = {}";
    invalid(from_toml(text), &["cannot have one file", "source=default", "data/ghostwire.db"]);
    // Without a flag file, relative paths start at the working directory.
    let mut config = Config::default();
    let mut other = NamedStore::with_backend(BackendKind::Libsql);
    if let BackendChoice::Libsql(options) = &mut other.backend {
        options.path = std::path::absolute(&options.path).unwrap();
    }
    config.other_stores.insert("a".into(), other);
    assert!(config.check().unwrap_err().to_string().contains("cannot have one file"));
}

#[test]
fn a_config_built_in_code_has_good_names() {
    for (store, other) in [("main", "main"), ("main", "B"), ("", "b")] {
        let mut config = Config { store: store.into(), ..Config::default() };
        let memory = NamedStore::with_backend(BackendKind::Memory);
        config.other_stores.insert(other.into(), memory);
        assert!(config.check().is_err(), "{store} {other}");
    }
}

#[test]
fn roles_and_migrations_name_stores() {
    let with = |line: &str| from_toml(&format!("{STORES}[development.{line}"));
    for (line, key) in [
        ("roles]\ncore = 'achive'", "key=roles.core"),
        ("roles]\ntelemetry = 'achive'", "key=roles.telemetry"),
        ("migration]\ntarget = 'achive'", "key=migration.target"),
    ] {
        let known = "known=archive, cold-data, live";
        invalid(with(line), &["no store", key, known, "line 17", "nearest=archive"]);
        if key == "key=migration.target" {
            continue;
        }
        let parts = ["this version", key, "value=archive", "line 17"];
        refused(with(&line.replace("achive", "archive")), ErrorKind::Unsupported, &parts);
    }
    let config = with("roles]\nsecrets = 'live'").unwrap();
    assert_eq!(explained(&config, "roles.secrets").1, "/etc/gw/flags.toml line 17");
    assert_eq!(config.store_of(Role::Secrets), "live");
    // One that was chosen by name serves every role.
    config.for_store("archive").unwrap().check().unwrap();
}

#[test]
fn a_move_leads_from_one_store_that_stays_to_another() {
    let with = |target: &str| {
        let stores = "[development.stores.here]\nbackend = 'libsql'\npath = 'a.db'\n\
             [development.stores.there]\nbackend = 'zqlite'\npath = 'b.db'\n\
             [development.stores.server]\nbackend = 'postgres'\nsecret_key_file = 'k'\n[development.stores.nowhere]\nbackend = 'memory'\n";
        from_toml(&format!(
            "[development]\nstore = 'here'\n[development.migration]\ntarget = '{target}'\n{stores}"
        ))
    };
    let config = with("there").unwrap();
    assert_eq!(config.migration.target.as_deref(), Some("there"));
    assert_eq!(config.migration.stage.name(), "target-only");
    invalid(with("here"), &["to another one", "key=migration.target", "line 4"]);
    assert_eq!(with("server").unwrap().migration.target.as_deref(), Some("server"));
    refused(with("nowhere"), ErrorKind::Unsupported, &["in memory", "line 4"]);
    let in_step = with("server'\nsynchronous = true\nstage = 'target-only");
    refused(in_step, ErrorKind::Unsupported, &["migration.synchronous", "target=server"]);
    // The chosen store is another one then, and it moves nowhere.
    assert_eq!(config.for_store("there").unwrap().migration.target, None);
}
