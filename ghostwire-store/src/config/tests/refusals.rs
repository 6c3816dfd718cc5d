//! What is refused, with which kind of error and which help.

use super::*;

#[test]
fn postgres_needs_a_key_file() {
    let postgres = ("backend", "postgres");
    invalid(from_all("[development]", &[], &[postgres]), &["secret_key_file has to be set"]);
    from_all("[development]", &[], &[postgres, ("secret_key_file", "k")]).unwrap();
}

#[test]
fn an_unknown_key_is_named_with_source_and_nearest() {
    invalid(
        from_toml("[development]\n\n[development.writer]\nmax_gruop = 5\n"),
        &[
            "unknown configuration key",
            "key=max_gruop",
            "path=development.writer.max_gruop",
            "source=/etc/gw/flags.toml line 4",
            "nearest=writer.max_group",
        ],
    );
    for (text, nearest) in [
        ("[development]\nbakend = 'libsql'", "nearest=backend"),
        ("[development.wirter]\nmax_group = 1", "nearest=writer"),
        ("[development]\nmax_group = 1", "nearest=writer.max_group"),
        ("[development.switches.x]\ndefaultVariant = 'on'", "switches.x.default_variant"),
        ("[development.memory]\nsize = 1", "path=development.memory.size"),
        ("[defaults]\ncolour = 1\n[development]", "path=defaults.colour"),
        ("[development]\n\"<<\" = 1", "key=<<"),
        // Also where it would not be used.
        ("[development]\n[production]\nbakend = 'zqlite'", "path=production.bakend"),
    ] {
        invalid(from_toml(text), &["unknown configuration key", nearest]);
    }
    invalid(
        from_all(FLAGS, &[("GHOSTWIRE_STORE__WRITTER__MAX_GROUP", "5")], &[]),
        &["key=max_group", "source=variable GHOSTWIRE_STORE__WRITTER", "nearest=writer.max_group"],
    );
    for name in ["GHOSTWIRE_STORE__", "GHOSTWIRE_STORE____", "GHOSTWIRE_STORE__MAX_GROUP"] {
        invalid(from_all(FLAGS, &[(name, "5")], &[]), &["unknown configuration key", name]);
    }
    invalid(
        from_all(FLAGS, &[], &[("writer.max_gruop", "5")]),
        &["path=writer.max_gruop", "source=command line", "nearest=writer.max_group"],
    );
}

#[test]
fn keys_in_the_wrong_place() {
    for (text, hint) in [
        ("backend = 'libsql'", "for_example=defaults.backend"),
        ("[writer]\nmax_group = 1", "for_example=defaults.writer"),
        ("[development]\nenvironment = 'x'", "GHOSTWIRE_STORE__ENVIRONMENT"),
        ("environment = 'x'", "GHOSTWIRE_STORE__ENVIRONMENT"),
        ("colour = 1", "unknown configuration key"),
        ("development = 1", "unknown configuration key"),
        ("[development]\nwriter = 5", "a table has to follow"),
        ("[development]\nswitches.x = 5", "a table has to follow"),
        ("[\"a b\"]", "an environment cannot have this name"),
        ("[development.switches.\"a.b\"]", "a switch or variant cannot have this name"),
    ] {
        invalid(from_toml(text), &[hint, "source=/etc/gw/flags.toml line"]);
    }
    let section = [("GHOSTWIRE_STORE__WRITER", "5")];
    invalid(from_all(FLAGS, &section, &[]), &["one of its keys has to follow"]);
    invalid(from_all(FLAGS, &[], &[("writer", "5")]), &["one of its keys has to follow"]);
    let variant = [("switches.new-dns.variants.on", "true")];
    invalid(from_all(FLAGS, &[], &variant), &["only be given in the flag file"]);
}

#[test]
fn an_unknown_environment_lists_the_known_ones() {
    let variables = [("GHOSTWIRE_STORE__ENVIRONMENT", "prodcution")];
    refused(
        from_all(FLAGS, &variables, &[]),
        ErrorKind::NotFound,
        &["known=development, production", "nearest=production", "variable GHOSTWIRE_STORE__ENV"],
    );
    for text in ["", "[defaults]", "[staging]"] {
        refused(from_toml(text), ErrorKind::NotFound, &["environment=development"]);
    }
    let overrides = [("environment", "defaults")];
    refused(from_all(FLAGS, &[], &overrides), ErrorKind::NotFound, &["environment=defaults"]);
}

#[test]
fn wrong_values_are_named_with_range_and_source() {
    invalid(
        from_toml("[development.writer]\nqueue_capacity = 0"),
        &[
            "out of range",
            "key=development.writer.queue_capacity",
            "value=0",
            "allowed=an integer from 1 to 1000000",
            "source=/etc/gw/flags.toml line 2",
        ],
    );
    for (line, parts) in [
        ("writer.max_group = '5'", ["wrong type", "found=text", "value=\"5\""]),
        ("writer.max_group = 1.5", ["wrong type", "found=a number with a fraction", "integer"]),
        ("writer.max_group = [1]", ["wrong type", "found=a list", "integer"]),
        ("writer.max_group = {}", ["wrong type", "found=a table", "integer"]),
        ("writer.max_group = -1", ["out of range", "value=-1", "integer"]),
        ("series.audit_retention_days = 0", ["out of range", "value=0", "from 1 to 36500"]),
        ("libsql.path = 5", ["wrong type", "found=an integer", "a path"]),
        ("libsql.path = ''", ["malformed", "value=\"\"", "a path"]),
        ("backend = 'sqlite'", ["not one of", "nearest=zqlite", "\"zqlite\", \"libsql\""]),
        ("backend = true", ["wrong type", "found=a boolean", "value=true"]),
        ("libsql.materialize = 'comit'", ["not one of", "nearest=commit", "\"checkpoint\""]),
        ("zqlite.engine = 'Native'", ["not one of", "nearest=native", "\"embedded\""]),
        ("postgres.password_variable = 'A-B'", ["malformed", "value=\"A-B\"", "variable"]),
        ("postgres.host = 'db:5432'", ["malformed", "value=\"db:5432\"", "a host"]),
        ("postgres.tls = 'require'", ["not one of", "value=\"require\"", "\"verify-full\""]),
    ] {
        invalid(from_toml(&format!("[development]\n{line}")), &parts);
    }
    let variables = [("GHOSTWIRE_STORE__WRITER__MAX_GROUP", "many")];
    invalid(
        from_all(FLAGS, &variables, &[]),
        &[
            "wrong type",
            "key=writer.max_group",
            "value=\"many\"",
            "source=variable GHOSTWIRE_STORE",
        ],
    );
    // Wrong is wrong, also if it is overridden.
    let overrides = [("writer.max_group", "5")];
    invalid(from_all("[development]\nwriter.max_group = 0", &[], &overrides), &["out of range"]);
    invalid(from_all(FLAGS, &[("GHOSTWIRE_STORE__BACKEND", "")], &[]), &["not one of"]);
}

#[test]
fn yaml_without_a_value_is_no_value() {
    let flags = file("f.yml", "development:\n  backend:\n  writer:\n");
    let result = resolve(Some(&flags), &LoadRequest::default(), &BTreeMap::new());
    invalid(result, &["wrong type", "found=nothing", "source=/etc/gw/f.yml"]);
}

#[test]
fn what_is_planned_is_refused_as_unsupported() {
    for stage in ["none", "mirror", "target-reads", "target-only"] {
        from_toml(&format!("[development]\nmigration.stage = '{stage}'")).unwrap();
    }
    invalid(
        from_toml("[development]\nmigration.stage = 'dual-write'"),
        &["migration.stage", "dual-write", "target-reads"],
    );
    for role in ["core", "secrets", "telemetry"] {
        let stores = "[development.stores]\nmain = {}\nother = { path = 'x' }\n";
        refused(
            from_toml(&format!("{stores}[development.roles]\n{role} = 'other'")),
            ErrorKind::Unsupported,
            &["one store", &format!("key=roles.{role}"), "value=other", "allowed=main", "line 5"],
        );
        from_toml(&format!("[development.roles]\n{role} = 'main'")).unwrap();
    }
    // Only the environment that runs has to be supported in this respect.
    from_toml("[development]\n[production.roles]\ncore = 'other'").unwrap();
}

#[test]
fn paths_that_would_be_taken_literally_by_mistake() {
    let unsupported = |result| {
        refused(result, ErrorKind::Unsupported, &["remote mode is not there yet", "libsql.path"]);
    };
    unsupported(from_toml("[development]\nlibsql.path = 'libsql://db.turso.io'"));
    let http = [("libsql.path", "http://127.0.0.1:8080")];
    unsupported(from_all(FLAGS, &[], &http));
    let home = [("GHOSTWIRE_STORE__LIBSQL__PATH", "~/x.db")];
    invalid(from_all(FLAGS, &home, &[]), &["expanded by shells only", "value=\"~/x.db\""]);
    let options = LibsqlOptions { path: "~/x.db".into(), ..LibsqlOptions::default() };
    let config = Config { backend: BackendChoice::Libsql(options), ..Config::default() };
    assert!(config.check().is_err());
}

#[test]
fn secrets_are_refused_and_never_shown() {
    for line in [
        "password = 'hunter2'",
        "postgres.password = 'hunter2'",
        "libsql.auth_token = 'hunter2'",
        "postgres.url = 'postgres://me:hunter2@db/net'",
        "postgres.host = 'postgres://me:hunter2@db/net'",
        "postgres.password_file = 'postgres://me:hunter2@db/net'",
        "libsql.path = 'libsql://db?authToken=hunter2'",
        "backend = 'host=db password=hunter2'",
        "writer.max_group = 'https://me:hunter2@db'",
        "vault = { token = 'hunter2' }",
        "switches.x.variants.on = 'password=hunter2'",
    ] {
        for table in ["[development]", "[defaults]"] {
            let error = from_toml(&format!("{table}\n{line}")).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(
                line.starts_with("vault") || error.contains("postgres.password_file"),
                "{error}"
            );
        }
    }
    invalid(from_toml("password = 'hunter2'"), &["secrets do not belong", "nearest="]);
    let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    invalid(from_toml(&format!("[development]\nsecret_key_file = '{key}'")), &["secrets do not"]);
    for (name, value) in [
        ("GHOSTWIRE_STORE__POSTGRES__PASSWORD", "hunter2"),
        ("GHOSTWIRE_STORE__POSTGRES__URL", "postgres://me:hunter2@db"),
        ("GHOSTWIRE_STORE__LIBSQL__PATH", "libsql://me:hunter2@db"),
    ] {
        let error = from_all(FLAGS, &[(name, value)], &[]).unwrap_err().to_string();
        assert!(error.contains("secrets do not belong") && !error.contains("hunter2"), "{error}");
    }
    invalid(from_toml("[development.postgres]\npassword = 'x'"), &["postgres.password_file"]);
    // Names are free, also if they sound like one.
    from_toml("[development.switches.token-rotation]\ndefault_variant = 'on'").unwrap();
}

#[test]
fn bad_switches_are_refused() {
    for (line, parts) in [
        ("state = 'ENABLED'", ["needs a default_variant", "line 1"]),
        ("", ["needs a default_variant", "key=switches.x.default_variant"]),
        ("default_variant = 'onn'", ["not one of the variants", "nearest=on"]),
        ("default_variant = true", ["wrong type", "found=a boolean"]),
        ("default_variant = 'on'\nstate = 'enabled'", ["not one of", "nearest=ENABLED"]),
        ("default_variant = 'a'\nvariants = { a = 1 }", ["wrong type", "true or false"]),
        ("default_variant = 'a'\nvariants = { 'a b' = true }", ["cannot have this name", "a b"]),
    ] {
        invalid(from_toml(&format!("[development.switches.x]\n{line}")), &parts);
    }
    let unknown = [("switches.new-dms.state", "DISABLED")];
    invalid(from_all(FLAGS, &[], &unknown), &["unknown switch", "nearest=new-dns"]);
    let unknown = [("GHOSTWIRE_STORE__SWITCHES__X__STATE", "DISABLED")];
    invalid(from_all("[development]", &unknown, &[]), &["unknown switch", "key=x"]);
    let twins =
        "[development.switches]\na-b = {default_variant='on'}\na_b = {default_variant='on'}";
    let either = [("GHOSTWIRE_STORE__SWITCHES__A_B__STATE", "DISABLED")];
    invalid(from_all(twins, &either, &[]), &["more than one switch"]);
}
