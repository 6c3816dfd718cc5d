//! From the merged layer to the typed [`Config`], and the rules that hold between its values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::ENVIRONMENT_KEY;
use super::hint;
use super::keys::{Access, KEYS, Key};
use super::layer::{Layer, Setting};
use super::names::{BackendKind, Role, SwitchState};
use super::origin::Origin;
use super::source::Node;
use super::types::{Config, Switch};
use super::value::{self, Kind, Value};

/// Whoever asks for it needs to know what there is instead.
pub(crate) const NO_POSTGRES: &str =
    "this release has no postgres backend yet: choose libsql or zqlite";

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
    let mut config = Config { flag_file, ..Config::default() };
    for key in KEYS {
        if let Some(setting) = layer.settings.get(key.path) {
            set(&mut config, key, setting.value.clone())?;
        }
    }
    resolve_paths(&mut config, &directory)?;
    for (name, declared) in &layer.switches {
        let switch = Switch::assemble(name, declared, &layer.settings)?;
        config.switches.insert(name.clone(), switch);
    }
    record_origins(&mut config, &layer.settings);
    config.check()?;
    Ok(config)
}

fn set(config: &mut Config, key: &Key, value: Value) -> Result<()> {
    let Access::Field { set, .. } = key.access else { return Ok(()) };
    set(config, value).ok_or_else(|| {
        Error::new(ErrorKind::Unexpected, "a checked value does not fit its key")
            .with("key", key.path)
    })
}

fn resolve_paths(config: &mut Config, directory: &Path) -> Result<()> {
    for key in KEYS.iter().filter(|key| matches!(key.kind, Kind::Path)) {
        let Access::Field { get, .. } = key.access else { continue };
        if let Some(Value::Path(path)) = get(config)
            && path.is_relative()
        {
            // Component by component, which leaves out the `.` of `./data`.
            let resolved: PathBuf = directory.join(path).components().collect();
            set(config, key, Value::Path(resolved))?;
        }
    }
    Ok(())
}

fn record_origins(config: &mut Config, settings: &BTreeMap<String, Setting>) {
    let origin_of =
        |key: &str| settings.get(key).map_or(Origin::Default, |setting| setting.origin.clone());
    for key in KEYS {
        if let Access::Field { get, .. } = key.access
            && let Some(value) = get(config)
        {
            config.origins.record(key.path, value.to_string(), origin_of(key.path));
        }
    }
    for (name, switch) in &config.switches {
        for (key, value) in switch.settings(name) {
            let origin = origin_of(&key);
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
        let defaults = Self::with_backend(self.backend.kind());
        for key in KEYS {
            let Access::Field { get, .. } = key.access else { continue };
            let Some(value) = get(self) else { continue };
            key.kind.check(&value).map_err(|refusal| {
                let default = get(&defaults).map(|default| default.to_string());
                let origin = self.origins.of(key.path, &value.to_string(), default.as_deref());
                value::refused(key, key.path, &Node::from(&value), &origin, refusal)
            })?;
        }
        self.check_roles()?;
        self.check_switches()?;
        if self.backend.kind() == BackendKind::Postgres && self.secret_key_file.is_none() {
            return Err(Error::invalid(
                "secret_key_file has to be set with the postgres backend: there is no store file \
                 to keep the key beside, and every process needs the same one",
            )
            .with("key", "backend")
            .with("value", self.backend.kind())
            .with("source", self.origin_of("backend"))
            .with("help", NO_POSTGRES));
        }
        Ok(())
    }

    fn check_roles(&self) -> Result<()> {
        let backend = self.backend.kind();
        for role in Role::ALL {
            let wanted = self.backend_of(*role);
            if wanted != backend {
                let key = format!("roles.{role}");
                let origin = self.origins.of(&key, wanted.name(), None);
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this version serves all roles from one backend: leave the role out, or give it \
                     the same backend",
                )
                .with("key", key)
                .with("value", wanted)
                .with("allowed", backend)
                .with("source", origin));
            }
        }
        Ok(())
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
