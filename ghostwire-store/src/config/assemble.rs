//! From the merged layer to the typed [`Config`], and the rules that hold between its values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::ENVIRONMENT_KEY;
use super::hint;
use super::keys::{Access, KEYS, Key};
use super::layer::{Layer, Setting};
use super::names::{BackendKind, SwitchState};
use super::origin::{Held, Origin};
use super::source::Node;
use super::types::{Config, NamedStore, Switch};
use super::value::{self, Kind, Value};

/// Builds the configuration; relative paths resolve against the directory of the flag file.
pub(super) fn assemble(
    environment: (String, Origin),
    mut layer: Layer,
    flag_file: Option<&Path>,
) -> Result<Config> {
    let (name, origin) = environment;
    layer.settings.insert(ENVIRONMENT_KEY.to_owned(), Setting { value: Value::Text(name), origin });
    let flag_file = flag_file.map(Path::to_owned);
    let directory = flag_file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let mut stores = layer.build_stores(&directory)?;
    let store = layer.chosen_store()?;
    let NamedStore { backend, secret_key_file } = stores.remove(&store).unwrap_or_default();
    let mut config =
        Config { flag_file, backend, secret_key_file, other_stores: stores, ..Config::default() };
    for key in KEYS {
        if let Access::Field { set, .. } = key.access
            && let Some(setting) = layer.settings.get(key.path)
        {
            set(&mut config, setting.value.clone()).ok_or_else(|| misfit(key))?;
        }
    }
    config.store = store;
    for (name, declared) in &layer.switches {
        let switch = Switch::assemble(name, declared, &layer.settings)?;
        config.switches.insert(name.clone(), switch);
    }
    record_origins(&mut config, &layer);
    config.check()?;
    Ok(config)
}

fn misfit(key: &Key) -> Error {
    Error::new(ErrorKind::Unexpected, "a checked value does not fit its key").with("key", key.path)
}

impl Key {
    /// Sets an option of a store. One of another backend is checked like any other and then has no
    /// effect.
    pub(super) fn set_in(&self, store: &mut NamedStore, value: Value) -> Result<()> {
        let Access::Store { set, .. } = self.access else { return Ok(()) };
        set(store, value).ok_or_else(|| misfit(self))
    }

    /// Lets a relative path of a store start at this directory.
    pub(super) fn resolve_in(&self, store: &mut NamedStore, directory: &Path) -> Result<()> {
        let Access::Store { get, .. } = self.access else { return Ok(()) };
        match get(store) {
            Some(Value::Path(path)) if path.is_relative() => {
                // Component by component, which leaves out the `.` of `./data`.
                let resolved: PathBuf = directory.join(path).components().collect();
                self.set_in(store, Value::Path(resolved))
            }
            _ => Ok(()),
        }
    }
}

fn record_origins(config: &mut Config, layer: &Layer) {
    let origin_of =
        |found: Option<&Setting>| found.map_or(Origin::Default, |found| found.origin.clone());
    config.origins.by_name = layer.names_stores();
    for held in config.held() {
        let Some(value) = held.value else { continue };
        let setting = match &held.store {
            Some(store) => layer.of_store(store, held.key),
            None => layer.settings.get(&held.path),
        };
        config.origins.record(&held.path, value.to_string(), origin_of(setting));
    }
    for (name, switch) in &config.switches {
        for (key, value) in switch.settings(name) {
            let origin = origin_of(layer.settings.get(&key));
            config.origins.record(&key, value, origin);
        }
    }
}

impl Switch {
    fn assemble(
        name: &str,
        declared: &Origin,
        settings: &BTreeMap<String, Setting>,
    ) -> Result<Self> {
        let text = |key: &str| {
            settings.get(&format!("switches.{name}.{key}")).and_then(|found| found.value.as_text())
        };
        let default_variant = text("default_variant").ok_or_else(|| {
            Error::invalid("the switch needs a default_variant")
                .with("key", format_args!("switches.{name}.default_variant"))
                .with("source", declared)
        })?;
        let prefix = format!("switches.{name}.variants.");
        let mut variants: BTreeMap<String, bool> = settings
            .range(prefix.clone()..)
            .map_while(|(key, setting)| Some((key.strip_prefix(&prefix)?, setting)))
            .filter_map(|(variant, setting)| Some((variant.to_owned(), setting.value.boolean()?)))
            .collect();
        if variants.is_empty() {
            variants = Self::default_variants();
        }
        Ok(Self {
            state: text("state").and_then(SwitchState::from_name).unwrap_or(SwitchState::Enabled),
            default_variant: default_variant.to_owned(),
            variants,
        })
    }

    /// The switch as key paths and values.
    pub(super) fn settings(&self, name: &str) -> Vec<(String, String)> {
        let mut settings = vec![
            (format!("switches.{name}.state"), self.state.to_string()),
            (format!("switches.{name}.default_variant"), self.default_variant.clone()),
        ];
        settings.extend(self.variants.iter().map(|(variant, value)| {
            (format!("switches.{name}.variants.{variant}"), value.to_string())
        }));
        settings
    }
}

impl Config {
    /// Checks every value and the rules between them. [`load`](super::load) has done so; a program
    /// that builds or changes a `Config` in code should.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that its key does not allow, `Unsupported` for one that this
    /// version cannot serve yet.
    pub fn check(&self) -> Result<()> {
        for held in self.held() {
            let Some(value) = &held.value else { continue };
            held.key.kind.check(value).map_err(|refusal| {
                let origin = held.origin(self);
                value::refused(held.key, &held.path, &Node::from(value), &origin, refusal)
            })?;
        }
        self.check_stores()?;
        self.check_store_names()?;
        self.check_switches()?;
        self.check_roots()?;
        self.check_postgres()
    }

    /// One of two places of a root secret would be overlooked.
    fn check_roots(&self) -> Result<()> {
        let held = self.held();
        let is_root = |held: &&Held| held.key.option().starts_with("root_") && held.value.is_some();
        for one in held.iter().filter(is_root) {
            let is_other = |other: &&Held| other.store == one.store && other.path != one.path;
            if let Some(other) = held.iter().filter(is_root).find(is_other) {
                return Err(Error::invalid(
                    "a root secret has one place: leave all but one of these keys out",
                )
                .with("key", &one.path)
                .with("source", one.origin(self))
                .with("other_key", &other.path)
                .with("other_source", other.origin(self)));
            }
        }
        Ok(())
    }

    fn check_postgres(&self) -> Result<()> {
        let stores = self.stores();
        let lacks_key = |name: &String| {
            stores.get(name).is_some_and(|store| {
                store.backend.kind() == BackendKind::Postgres && store.secret_key_file.is_none()
            })
        };
        let held = self.held();
        let mut backends = held.iter().filter(|held| held.key.option() == "backend");
        match backends.find(|held| held.store.as_ref().is_some_and(lacks_key)) {
            None => Ok(()),
            Some(held) => Err(Error::invalid(
                "secret_key_file has to be set with the postgres backend: there is no store file \
                 to keep the key beside, and every process needs the same one",
            )
            .with("key", &held.path)
            .with("value", BackendKind::Postgres)
            .with("source", held.origin(self))),
        }
    }

    fn check_switches(&self) -> Result<()> {
        for (name, switch) in &self.switches {
            if let Some(bad) = std::iter::once(name)
                .chain(switch.variants.keys())
                .find(|name| !value::is_name(name))
            {
                return Err(Error::invalid("a switch or variant cannot have this name")
                    .with("key", format_args!("{bad:?}"))
                    .with("allowed", Kind::Name));
            }
            if !switch.variants.contains_key(&switch.default_variant) {
                let key = format!("switches.{name}.default_variant");
                let known: Vec<&str> = switch.variants.keys().map(String::as_str).collect();
                let origin = self.origins.of(&key, &switch.default_variant, None);
                return Err(Error::invalid("the default variant is not one of the variants")
                    .with("key", key)
                    .with("value", format_args!("{:?}", switch.default_variant))
                    .with("allowed", known.join(", "))
                    .with("source", origin)
                    .with(
                        "nearest",
                        hint::nearest(&switch.default_variant, known).unwrap_or_default(),
                    ));
            }
        }
        Ok(())
    }
}
