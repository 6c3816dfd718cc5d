//! Where the effective values came from, for `gwstore config show` and for error messages.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::keys::{Access, KEYS, Key};
use super::types::{Config, NamedStore};
use super::value::Value;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// Built in, or derived from another value.
    Default,
    /// The flag file.
    File {
        /// Its path, as it was given.
        path: PathBuf,
        /// The line; unknown for what a file does not say itself.
        line: Option<usize>,
    },
    /// The environment variable of this name.
    Variable(String),
    /// An override on the command line.
    CommandLine,
    /// The program itself: the value was set or changed in code.
    Code,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{} line {line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::CommandLine => f.write_str("command line"),
            Self::Code => f.write_str("set in code"),
        }
    }
}

/// The origin of each value of a [`Config`].
///
/// The value is remembered beside its origin: once code changes the value, the origin no longer
/// holds and [`Config::explain`] says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    values: BTreeMap<String, (String, Origin)>,
    /// Whether keys of stores were given under the stores' names.
    pub(super) by_name: bool,
}

impl Origins {
    pub(super) fn record(&mut self, key: &str, value: String, origin: Origin) {
        self.values.insert(key.to_owned(), (value, origin));
    }

    /// The origin of this value of this key; `default` is the key's built-in value.
    pub(super) fn of(&self, key: &str, value: &str, default: Option<&str>) -> Origin {
        match self.values.get(key) {
            Some((recorded, origin)) if recorded == value => origin.clone(),
            None if default == Some(value) => Origin::Default,
            _ => Origin::Code,
        }
    }
}

/// One effective value, as `gwstore config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explained {
    /// The key's path, for example `writer.max_group`.
    pub key: String,
    /// The effective value. It is never a secret, since none is accepted.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// A key of a [`Config`] and what it holds.
pub(super) struct Held {
    pub(super) key: &'static Key,
    /// The store whose key it is.
    pub(super) store: Option<String>,
    /// As errors and `explain` name it.
    pub(super) path: String,
    pub(super) value: Option<Value>,
    default: Option<Value>,
    /// What holds without a value.
    derived: Option<Value>,
}

impl Held {
    /// Where its value came from.
    pub(super) fn origin(&self, config: &Config) -> Origin {
        let Some(value) = &self.value else { return Origin::Default };
        let default = self.default.as_ref().map(Value::to_string);
        config.origins.of(&self.path, &value.to_string(), default.as_deref())
    }
}

impl Config {
    /// The flag file that was read, as `flag_file`, then every effective value and where it came
    /// from, in the order of the documentation. Options of backends that are not chosen have no effect
    /// and are left out. The keys of stores have the stores' names in them, unless there is only
    /// `main` and no key was given so.
    #[must_use]
    pub fn explain(&self) -> Vec<Explained> {
        let mut explained = vec![self.explain_flag_file()];
        explained.extend(self.held().into_iter().map(|held| {
            let value = held.value.as_ref().or(held.derived.as_ref());
            let value = value.map_or_else(|| "none".to_owned(), Value::to_string);
            Explained { value, origin: held.origin(self), key: held.path }
        }));
        for (name, switch) in &self.switches {
            for (key, value) in switch.settings(name) {
                let origin = self.origins.of(&key, &value, None);
                explained.push(Explained { key, value, origin });
            }
        }
        explained
    }

    /// Where the effective value of a key came from, for example of `writer.max_group`;
    /// [`Config::store_key`] has the keys of the store that is opened.
    #[must_use]
    pub fn origin_of(&self, key: &str) -> Origin {
        let found = self.explain().into_iter().find(|explained| explained.key == key);
        found.map_or(Origin::Default, |explained| explained.origin)
    }

    /// Every key but those of switches, in the order of the documentation.
    pub(super) fn held(&self) -> Vec<Held> {
        let (stores, defaults) = (self.stores(), Self::default());
        let mut all = Vec::new();
        for keys in KEYS.chunk_by(|one, next| one.is_of_store() && next.is_of_store()) {
            let of_field = keys.iter().filter_map(|key| {
                let Access::Field { get, derive, .. } = key.access else { return None };
                let (value, default) = (get(self), get(&defaults));
                let path = key.path.to_owned();
                Some(Held { key, store: None, path, value, default, derived: derive(self) })
            });
            all.extend(of_field);
            for (name, store) in &stores {
                let kind = store.backend.kind();
                let defaults = NamedStore::with_backend(kind);
                all.extend(keys.iter().filter(|key| key.is_of(kind)).filter_map(|key| {
                    let Access::Store { get, derive, .. } = key.access else { return None };
                    let (value, default) = (get(store), get(&defaults));
                    let path = self.path_in(name, key);
                    let (store, derived) = (Some(name.clone()), derive(store));
                    Some(Held { key, store, path, value, default, derived })
                }));
            }
        }
        all
    }

    fn explain_flag_file(&self) -> Explained {
        let key = "flag_file".to_owned();
        match &self.flag_file {
            Some(path) => {
                let origin = Origin::File { path: path.clone(), line: None };
                Explained { key, value: path.display().to_string(), origin }
            }
            None => Explained { key, value: "none".to_owned(), origin: Origin::Default },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::*;
    use super::*;

    fn origin_of(config: &Config, key: &str) -> (String, Origin) {
        let found = config.explain().into_iter().find(|explained| explained.key == key).unwrap();
        (found.value, found.origin)
    }

    #[test]
    fn a_config_built_in_code_says_so_where_it_differs() {
        let mut config = Config::with_backend(BackendKind::Zqlite);
        config.writer.max_group = 9;
        assert_eq!(origin_of(&config, "writer.max_group"), ("9".into(), Origin::Code));
        assert_eq!(origin_of(&config, "writer.queue_capacity"), ("4096".into(), Origin::Default));
        assert_eq!(
            origin_of(&config, "secret_key_file"),
            ("data/ghostwire.zqlite.key".into(), Origin::Default)
        );
        assert_eq!(origin_of(&config, "roles.secrets"), ("main".into(), Origin::Default));
        assert_eq!(
            origin_of(&config, "series.audit_retention_days"),
            ("none".into(), Origin::Default)
        );
    }

    #[test]
    fn only_the_chosen_backend_is_explained() {
        let keys: Vec<String> = Config::default().explain().into_iter().map(|e| e.key).collect();
        assert!(keys.contains(&"libsql.path".to_owned()));
        assert!(!keys.iter().any(|key| key.starts_with("zqlite.") || key.starts_with("postgres.")));
    }

    #[test]
    fn a_value_changed_after_loading_loses_its_origin() {
        let request = LoadRequest {
            overrides: vec![("writer.max_group".into(), "7".into())],
            ..LoadRequest::default()
        };
        let mut config = load(&request, &BTreeMap::new()).unwrap();
        assert_eq!(origin_of(&config, "writer.max_group"), ("7".into(), Origin::CommandLine));
        config.writer.max_group = 8;
        assert_eq!(origin_of(&config, "writer.max_group"), ("8".into(), Origin::Code));
    }

    #[test]
    fn origins_read_well() {
        let path = PathBuf::from("flags.toml");
        let line = Origin::File { path: path.clone(), line: Some(3) };
        assert_eq!(line.to_string(), "flags.toml line 3");
        assert_eq!(Origin::File { path, line: None }.to_string(), "flags.toml");
        assert_eq!(Origin::Variable("X".into()).to_string(), "variable X");
    }
}
