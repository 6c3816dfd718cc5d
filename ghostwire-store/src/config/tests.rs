//! Loading as a whole: precedence, origins, formats, paths and switches.
#![allow(clippy::unwrap_used)]

mod refusals;
mod stores;

use super::*;
use ghostwire_store_core::error::ErrorKind;
use std::path::Path;

const FLAGS: &str = r#"
[defaults]
backend = "libsql"
[defaults.writer]
max_group = 10
queue_capacity = 20
[defaults.switches.new-dns]
default_variant = "off"
variants = { on = true, off = false }

[development]

[production]
backend = "zqlite"
[production.zqlite]
path = "./data/store.zq"
[production.writer]
max_group = 30
[production.switches.new-dns]
default_variant = "on"
"#;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn owned<C: FromIterator<(String, String)>>(pairs: Pairs<'_>) -> C {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn file(name: &str, text: &str) -> FlagFile {
    FlagFile { path: Path::new("/etc/gw").join(name), text: text.to_owned() }
}

fn from_all(text: &str, variables: Pairs<'_>, overrides: Pairs<'_>) -> Result<Config> {
    let request = LoadRequest { overrides: owned(overrides), ..LoadRequest::default() };
    resolve(Some(&file("flags.toml", text)), &request, &owned(variables))
}

fn from_toml(text: &str) -> Result<Config> {
    from_all(text, &[], &[])
}

fn explained(config: &Config, key: &str) -> (String, String) {
    let found = config.explain().into_iter().find(|found| found.key == key).unwrap();
    (found.value, found.origin.to_string())
}

/// Checks the kind of a refusal and that its message has all these parts.
#[track_caller]
fn refused(result: Result<Config>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    let message = error.to_string();
    assert_eq!(error.kind(), &kind, "{message}");
    assert!(message.starts_with("config.load: "), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[track_caller]
fn invalid(result: Result<Config>, parts: &[&str]) {
    refused(result, ErrorKind::InvalidArgument, parts);
}

#[test]
fn nothing_given_is_the_default() {
    let mut config = load(&LoadRequest::default(), &BTreeMap::new()).unwrap();
    assert!(config.explain().iter().all(|explained| explained.origin == Origin::Default));
    config.origins = Origins::default();
    assert_eq!(config, Config::default());
    config.check().unwrap();
    assert_eq!(config.environment, "development");
    assert_eq!(config.backend.kind(), BackendKind::Libsql);
    assert_eq!(config.secret_key_path().unwrap(), Path::new("data/ghostwire.db.key"));
}

#[test]
fn each_source_overrides_the_one_before() {
    let config = from_toml(FLAGS).unwrap();
    assert_eq!(
        explained(&config, "writer.max_group"),
        ("10".into(), "/etc/gw/flags.toml line 5".into())
    );
    assert_eq!(explained(&config, "writer.max_view_age_ms"), ("2000".into(), "default".into()));
    assert_eq!(explained(&config, "environment"), ("development".into(), "default".into()));

    let production = ("GHOSTWIRE_STORE__ENVIRONMENT", "production");
    let config = from_all(FLAGS, &[production], &[]).unwrap();
    assert_eq!(
        explained(&config, "writer.max_group"),
        ("30".into(), "/etc/gw/flags.toml line 18".into())
    );
    assert_eq!(explained(&config, "writer.queue_capacity").0, "20");
    assert_eq!(
        explained(&config, "environment"),
        ("production".into(), "variable GHOSTWIRE_STORE__ENVIRONMENT".into())
    );

    let group = ("GHOSTWIRE_STORE__WRITER__MAX_GROUP", "100");
    let config = from_all(FLAGS, &[production, group], &[]).unwrap();
    assert_eq!(
        explained(&config, "writer.max_group"),
        ("100".into(), "variable GHOSTWIRE_STORE__WRITER__MAX_GROUP".into())
    );

    let overrides = [("writer.max_group", "7"), ("writer.max_group", "8")];
    let config = from_all(FLAGS, &[production, group], &overrides).unwrap();
    assert_eq!(explained(&config, "writer.max_group"), ("8".into(), "command line".into()));
    assert_eq!(config.writer.max_group, 8);
}

#[test]
fn the_command_line_chooses_the_environment_first() {
    let variables = owned(&[("GHOSTWIRE_STORE__ENVIRONMENT", "staging")]);
    let mut request = LoadRequest {
        overrides: owned(&[("environment", "development")]),
        ..LoadRequest::default()
    };
    let flags = file("f.toml", FLAGS);
    let config = resolve(Some(&flags), &request, &variables).unwrap();
    assert_eq!(config.environment, "development");
    request.environment = Some("production".into());
    let config = resolve(Some(&flags), &request, &variables).unwrap();
    assert_eq!(config.backend.kind(), BackendKind::Zqlite);
    request.environment = Some("pro.duction".into());
    invalid(resolve(None, &request, &variables), &["an environment cannot have this name"]);
}

#[test]
fn yaml_says_the_same_as_toml() {
    let yaml = "
defaults:
  backend: libsql
  writer: {max_group: 10, queue_capacity: 20}
  switches:
    new-dns:
      default_variant: off
      variants: {on: true, off: false}
development:
production:
  backend: zqlite
  zqlite: {path: ./data/store.zq}
  writer: {max_group: 30}
  switches: {new-dns: {default_variant: on}}
";
    for environment in ["development", "production"] {
        let request =
            LoadRequest { environment: Some(environment.into()), ..LoadRequest::default() };
        let mut configs = [file("f.toml", FLAGS), file("f.yaml", yaml)]
            .map(|file| resolve(Some(&file), &request, &BTreeMap::new()).unwrap());
        let origin = explained(&configs[1], "writer.max_group").1;
        assert!(origin.starts_with("/etc/gw/f.yaml line "), "{origin}");
        configs.iter_mut().for_each(|config| {
            config.origins = Origins::default();
            config.flag_file = None;
        });
        assert_eq!(configs[0], configs[1]);
    }
}

#[test]
fn paths_start_at_the_flag_files_directory() {
    let variables = [("GHOSTWIRE_STORE__ENVIRONMENT", "production")];
    let config = from_all(FLAGS, &variables, &[]).unwrap();
    assert_eq!(config.backend.path().unwrap(), Path::new("/etc/gw/data/store.zq"));
    assert_eq!(config.secret_key_path().unwrap(), Path::new("/etc/gw/data/store.zq.key"));
    assert_eq!(explained(&config, "zqlite.path").0, "/etc/gw/data/store.zq");

    let absolute = [("zqlite.path", "/srv/x"), ("secret_key_file", "keys/k")];
    let config = from_all(FLAGS, &variables, &absolute).unwrap();
    assert_eq!(config.backend.path().unwrap(), Path::new("/srv/x"));
    assert_eq!(config.secret_key_path().unwrap(), Path::new("/etc/gw/keys/k"));

    let config = from_toml("[development]").unwrap();
    assert_eq!(config.backend.path().unwrap(), Path::new("/etc/gw/data/ghostwire.db"));
}

#[test]
fn every_backend_takes_its_options() {
    let all = "
[development.zqlite]
path = 'z'
engine = 'native'
materialize = 'commit'
[development.libsql]
path = 'l'
materialize = 'checkpoint'
[development.postgres]
host = '/run/postgresql'
password_file = 'u'
tls = 'off'
pool_max = 3
[development.memory]
[development]
secret_key_file = 'k'
";
    let with = |backend| from_all(all, &[("GHOSTWIRE_STORE__BACKEND", backend)], &[]).unwrap();
    let path = |name: &str| Path::new("/etc/gw").join(name);
    assert_eq!(
        with("zqlite").backend,
        BackendChoice::Zqlite(ZqliteOptions {
            path: path("z"),
            engine: ZqliteEngine::Native,
            materialize: Materialize::Commit,
            ..ZqliteOptions::default()
        })
    );
    assert_eq!(
        with("libsql").backend,
        BackendChoice::Libsql(LibsqlOptions {
            path: path("l"),
            materialize: Materialize::Checkpoint
        })
    );
    let options = PostgresOptions {
        host: "/run/postgresql".to_owned(),
        password_file: Some(path("u")),
        tls: Some(PostgresTls::Off),
        pool_max: 3,
        ..PostgresOptions::default()
    };
    assert_eq!(with("postgres").backend, BackendChoice::Postgres(options));
    assert_eq!(with("memory").backend, BackendChoice::Memory);
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [("PATH", "/bin"), ("GHOSTWIRE_STORE", "x"), ("GHOSTWIRE_STORES", "x"), ("H", "")];
    from_all(FLAGS, &others, &[]).unwrap();
    invalid(
        from_all(FLAGS, &[("GHOSTWIRE_STORE__backend", "memory")], &[]),
        &["in capitals", "nearest=GHOSTWIRE_STORE__BACKEND"],
    );
}

#[test]
fn a_variable_with_an_underscore_too_few_is_named_with_the_nearest() {
    for (name, nearest) in [
        ("GHOSTWIRE_STORE_LIBSQL_PATH", "GHOSTWIRE_STORE__LIBSQL__PATH"),
        ("GHOSTWIRE_STORE_LIBSQL__PATH", "GHOSTWIRE_STORE__LIBSQL__PATH"),
        ("GHOSTWIRE_STORE_WRITER_MAX_GROUP", "GHOSTWIRE_STORE__WRITER__MAX_GROUP"),
        ("GHOSTWIRE_STORE_ENVIRONMENT", "GHOSTWIRE_STORE__ENVIRONMENT"),
        ("GHOSTWIRE_STORE_", "GHOSTWIRE_STORE__"),
    ] {
        let nearest = format!("nearest={nearest}");
        invalid(from_all(FLAGS, &[(name, "x")], &[]), &["two underscores", name, &nearest]);
    }
}

#[test]
fn a_chosen_environment_needs_a_flag_file() {
    let production = LoadRequest { environment: Some("production".into()), ..Default::default() };
    let overridden =
        LoadRequest { overrides: owned(&[("environment", "production")]), ..Default::default() };
    for request in [production, overridden] {
        let parts = ["no flag file", "environment=production", "source=command line"];
        refused(resolve(None, &request, &BTreeMap::new()), ErrorKind::NotFound, &parts);
    }
    let variables = owned(&[("GHOSTWIRE_STORE__ENVIRONMENT", "development")]);
    refused(
        resolve(None, &LoadRequest::default(), &variables),
        ErrorKind::NotFound,
        &["no flag file", "source=variable GHOSTWIRE_STORE__ENVIRONMENT"],
    );
    let config = resolve(None, &LoadRequest::default(), &BTreeMap::new()).unwrap();
    assert_eq!(explained(&config, "flag_file"), ("none".into(), "default".into()));
    let config = from_toml(FLAGS).unwrap();
    let name = "/etc/gw/flags.toml".to_owned();
    assert_eq!(config.flag_file.as_deref(), Some(Path::new(&name)));
    assert_eq!(explained(&config, "flag_file"), (name.clone(), name));
}

#[test]
fn switches_have_states_and_variants() {
    let production = ("GHOSTWIRE_STORE__ENVIRONMENT", "production");
    let config = from_toml(FLAGS).unwrap();
    assert_eq!((config.switch("new-dns"), config.switch("other")), (Some(false), None));
    let config = from_all(FLAGS, &[production], &[]).unwrap();
    assert_eq!(config.switch("new-dns"), Some(true));
    let explained = explained(&config, "switches.new-dns.default_variant");
    assert_eq!(explained, ("on".into(), "/etc/gw/flags.toml line 20".into()));

    let off = ("GHOSTWIRE_STORE__SWITCHES__NEW_DNS__DEFAULT_VARIANT", "off");
    assert_eq!(from_all(FLAGS, &[production, off], &[]).unwrap().switch("new-dns"), Some(false));
    let disabled = ("switches.new-dns.state", "DISABLED");
    assert_eq!(from_all(FLAGS, &[off], &[disabled]).unwrap().switch("new-dns"), None);

    let turned = "[development.switches.x]\ndefault_variant = 'yes'\nvariants = { yes = false }";
    assert_eq!(from_toml(turned).unwrap().switch("x"), Some(false));
}

#[test]
fn a_config_built_in_code_is_checked() {
    let mut config = Config { backend: BackendChoice::Memory, ..Config::default() };
    config.check().unwrap();
    config.writer.max_group = 0;
    let error = config.check().unwrap_err().to_string();
    assert!(error.contains("key=writer.max_group") && error.contains("set in code"), "{error}");

    let mut config = Config::default();
    config.roles.telemetry = Some("memory".into());
    assert_eq!(config.check().unwrap_err().kind(), &ErrorKind::InvalidArgument);

    let mut config = Config::default();
    let variants = Switch::default_variants();
    let switch = Switch { state: SwitchState::Enabled, default_variant: "maybe".into(), variants };
    config.switches.insert("x".into(), switch);
    assert!(config.check().is_err());
}

#[test]
fn the_file_is_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("feature-flags.toml");
    let request = LoadRequest { path: Some(path.clone()), ..LoadRequest::default() };
    refused(load(&request, &BTreeMap::new()), ErrorKind::NotFound, &["does not exist"]);
    std::fs::write(&path, FLAGS).unwrap();
    let config = load(&request, &BTreeMap::new()).unwrap();
    assert_eq!(config.backend.path().unwrap(), directory.path().join("data/ghostwire.db"));
}

fn in_repository(path: &str) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::fs::read_to_string(Path::new(root).join(path)).unwrap()
}

#[test]
fn the_flag_file_of_the_repository_loads() {
    let flags = file("feature-flags.toml", &in_repository("feature-flags.toml"));
    for (environment, backend) in
        [("development", "libsql"), ("staging", "libsql"), ("production", "zqlite")]
    {
        let request =
            LoadRequest { environment: Some(environment.into()), ..LoadRequest::default() };
        let config = resolve(Some(&flags), &request, &BTreeMap::new()).unwrap();
        assert_eq!(config.backend.kind().name(), backend);
    }
}

#[test]
fn the_documentation_is_current_and_its_examples_load() {
    let page = in_repository("docs/configuration.md");
    let table = known_keys_markdown();
    assert!(page.contains(&table), "docs/configuration.md has to contain this table:\n\n{table}");
    let mut examples = 0;
    for block in page.split("\n```").filter(|block| !block.starts_with('\n')) {
        let (language, text) = block.split_once('\n').unwrap();
        if matches!(language, "toml" | "yaml") {
            let flags = file(&format!("f.{language}"), text);
            let request =
                LoadRequest { environment: Some("production".into()), ..LoadRequest::default() };
            resolve(Some(&flags), &request, &BTreeMap::new()).unwrap();
            examples += 1;
        }
    }
    assert_eq!(examples, 4);
}

#[test]
fn only_our_variables_are_taken() {
    let os = |pairs: Pairs<'_>| {
        pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect::<Vec<_>>()
    };
    let ours = ("GHOSTWIRE_STORE__BACKEND", "memory");
    let taken = own_variables(os(&[("PATH", "/bin"), ours]).into_iter()).unwrap();
    assert_eq!(taken, owned(&[ours]));
    process_variables().unwrap();
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let broken = || OsString::from_vec(vec![0xff]);
    let theirs = (OsString::from("PATH"), broken());
    own_variables(std::iter::once(theirs)).unwrap();
    let ours = (OsString::from("GHOSTWIRE_STORE__BACKEND"), broken());
    let error = own_variables(std::iter::once(ours)).unwrap_err().to_string();
    assert!(error.contains("source=variable GHOSTWIRE_STORE__BACKEND"), "{error}");
}
