//! The stores of an environment: which there are, which one is opened, what is set for each.
//!
//! Each has a table, `stores.NAME`. Keys without a store's name are those of the store
//! [`DEFAULT_STORE`]; a key of it that is given in both forms is refused, whichever source says so,
//! since one of the two would be overlooked.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::hint;
use super::keys::{self, Key};
use super::layer::{Layer, Setting};
use super::names::BackendKind;
use super::names::Role;
use super::origin::Origin;
use super::source::Node;
use super::types::{BackendChoice, Config, DEFAULT_STORE, Migration, NamedStore, Roles};
use super::value::{self, Kind, Value};

/// The key without which a store beside others does not exist.
const BACKEND: &str = "backend";

impl Layer {
    /// Declares the store that keys without a name belong to: where no other store is declared, or
    /// `backend` stands beside those that are. Its other keys do not suffice, or a forgotten one would
    /// put an empty store in the place of the declared ones.
    pub(super) fn declare_default(&mut self) {
        let backend = self.settings.get(BACKEND).map(|setting| setting.origin.clone());
        if backend.is_some() || self.stores.is_empty() {
            let origin = backend.unwrap_or(Origin::Default);
            self.stores.entry(DEFAULT_STORE.to_owned()).or_insert(origin);
        }
    }

    /// Whether a store has a key under its name.
    pub(super) fn names_stores(&self) -> bool {
        self.settings.keys().any(|path| path.starts_with("stores."))
    }

    /// What is set for an option of a store.
    pub(super) fn of_store(&self, name: &str, key: &Key) -> Option<&Setting> {
        let unnamed = (name == DEFAULT_STORE).then(|| self.settings.get(key.path)).flatten();
        unnamed.or_else(|| self.settings.get(&key.in_store(name)))
    }

    /// Refuses a key that is given in both forms.
    pub(super) fn refuse_both_forms(&self) -> Result<()> {
        for key in keys::of_stores() {
            let named = key.in_store(DEFAULT_STORE);
            if let Some(setting) = self.settings.get(key.path)
                && let Some(other) = self.settings.get(&named)
            {
                return Err(Error::invalid(
                    "two keys say the same of the store `main`: leave one of them out",
                )
                .with("key", key.path)
                .with("source", &setting.origin)
                .with("other_key", named)
                .with("other_source", &other.origin));
            }
        }
        Ok(())
    }

    /// Refuses keys without a name where the store that they belong to is not declared.
    pub(super) fn refuse_unnamed(&self) -> Result<()> {
        let Some(first) = self.stores.keys().next() else { return Ok(()) };
        if self.stores.contains_key(DEFAULT_STORE) {
            return Ok(());
        }
        let found = keys::of_stores()
            .find_map(|key| self.settings.get(key.path).map(|setting| (key, setting)));
        let Some((key, setting)) = found else { return Ok(()) };
        Err(Error::invalid(
            "without a store's name this is a key of the store `main`, which the flag file does not \
             declare: put it under the name of a store, or give `backend` there, too",
        )
        .with("key", key.path)
        .with("source", &setting.origin)
        .with("for_example", key.in_store(first))
        .with("known", self.known_stores()))
    }

    /// Refuses an option of another backend than the store `main` has, if the environment's own table has
    /// it: where `backend` was forgotten, another store would be made than the one described. Whoever
    /// chooses a backend outside of the file knows which one it is.
    pub(super) fn refuse_not_chosen(&self) -> Result<()> {
        if !self.stores.contains_key(DEFAULT_STORE) {
            return Ok(());
        }
        let chosen = keys::of_stores()
            .find(|key| key.path == BACKEND)
            .and_then(|key| self.of_store(DEFAULT_STORE, key));
        let is_outside = |setting: &Setting| !matches!(setting.origin, Origin::File { .. });
        if chosen.is_some_and(is_outside) {
            return Ok(());
        }
        let kind = chosen
            .and_then(|setting| BackendKind::from_name(setting.value.as_text()?))
            .unwrap_or_else(|| NamedStore::default().backend.kind());
        let foreign = keys::of_stores().filter(|key| !key.is_of(kind)).find_map(|key| {
            let setting = self.settings.get(key.path).filter(|_| self.own.contains(key.path))?;
            Some((key, key.backend()?, setting))
        });
        let Some((key, other, setting)) = foreign else { return Ok(()) };
        let error = Error::invalid("this is an option of a backend that is not the store's")
            .with("key", key.path)
            .with("source", &setting.origin)
            .with("backend", kind);
        let error = match chosen {
            Some(chosen) => error.with("backend_source", &chosen.origin),
            None => error.with("backend_source", Origin::Default),
        };
        Err(error.with(
            "help",
            format_args!(
                "set backend = \"{other}\" in the same environment, or leave the option out; what is for \
                 several environments belongs under `defaults`"
            ),
        ))
    }

    fn known_stores(&self) -> String {
        self.stores.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// The name of the store that is opened.
    pub(super) fn chosen_store(&self) -> Result<String> {
        let key = "store";
        let chosen = self.settings.get(key);
        let mut declared = self.stores.keys();
        let name = match chosen.and_then(|setting| setting.value.as_text()) {
            Some(name) => name,
            None => match (declared.next(), declared.next()) {
                (Some(only), None) => only,
                _ => DEFAULT_STORE,
            },
        };
        if self.stores.contains_key(name) {
            return Ok(name.to_owned());
        }
        Err(match chosen {
            Some(setting) => unknown(key, name, &setting.origin, self.stores.keys()),
            None => Error::invalid(
                "there are several stores, and none of them is `main`: `store` has to say which one is \
                 opened",
            )
            .with("key", key)
            .with("known", self.known_stores()),
        })
    }

    /// Sets the backend of a store from the command line, in the form that is used already.
    pub(super) fn set_backend(&mut self, store: &str, backend: &str) -> Result<()> {
        let Some(key) = keys::of_stores().find(|key| key.path == BACKEND) else { return Ok(()) };
        let named = key.in_store(store);
        let path = match store == DEFAULT_STORE && !self.settings.contains_key(&named) {
            true => key.path,
            false => &named,
        };
        let node = Node::Text(backend.to_owned());
        self.set(key, &path.split('.').collect::<Vec<_>>(), path, &node, Origin::CommandLine)
    }

    /// Every declared store; relative paths start at `directory`.
    pub(super) fn build_stores(&self, directory: &Path) -> Result<BTreeMap<String, NamedStore>> {
        let build = |name: &String| Ok((name.clone(), self.build_store(name, directory)?));
        self.stores.keys().map(build).collect()
    }

    fn build_store(&self, name: &str, directory: &Path) -> Result<NamedStore> {
        let mut store = NamedStore::default();
        for key in keys::of_stores() {
            if let Some(setting) = self.of_store(name, key) {
                key.set_in(&mut store, setting.value.clone())?;
            }
        }
        self.refuse_foreign(name, &store)?;
        for key in keys::of_stores() {
            key.resolve_in(&mut store, directory)?;
        }
        Ok(store)
    }

    /// Refuses an option in a store's own table that its backend does not have.
    fn refuse_foreign(&self, name: &str, store: &NamedStore) -> Result<()> {
        let kind = store.backend.kind();
        let options: Vec<_> =
            keys::of_stores().filter(|key| key.is_of(kind)).map(Key::option).collect();
        for key in keys::of_stores().filter(|key| !options.contains(&key.option())) {
            let path = key.in_store(name);
            if let Some(setting) = self.settings.get(&path) {
                return Err(Error::invalid("a store on this backend has no such option")
                    .with("key", path)
                    .with("backend", kind)
                    .with("source", &setting.origin)
                    .with("allowed", options.join(", ")));
            }
        }
        Ok(())
    }
}

fn unknown<N: AsRef<str>>(
    key: &str,
    name: &str,
    origin: &Origin,
    known: impl Iterator<Item = N>,
) -> Error {
    let known: Vec<N> = known.collect();
    let names: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
    Error::invalid("no store of this environment has this name")
        .with("key", key)
        .with("value", format_args!("{name:?}"))
        .with("known", names.join(", "))
        .with("source", origin)
        .with("nearest", hint::nearest(name, names).unwrap_or_default())
}

/// Where a file is, as far as its name tells: symbolic links are not followed.
fn place_of(path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    for component in std::path::absolute(path).as_deref().unwrap_or(path).components() {
        match component {
            Component::ParentDir => {
                place.pop();
            }
            other => place.push(other),
        }
    }
    place
}

impl Config {
    /// The store that is opened.
    #[must_use]
    pub fn opened_store(&self) -> NamedStore {
        NamedStore { backend: self.backend.clone(), secret_key_file: self.secret_key_file.clone() }
    }

    /// Every store by its name, with the one that is opened.
    #[must_use]
    pub fn stores(&self) -> BTreeMap<String, NamedStore> {
        let mut stores = self.other_stores.clone();
        stores.insert(self.store.clone(), self.opened_store());
        stores
    }

    /// The same configuration with another store as the one that is opened. It serves every role.
    ///
    /// ```
    /// use ghostwire_store::config::{BackendKind, Config, NamedStore};
    ///
    /// let mut config = Config::default();
    /// let archive = NamedStore::with_backend(BackendKind::Zqlite);
    /// config.other_stores.insert("archive".to_owned(), archive);
    ///
    /// let archive = config.for_store("archive")?; // for `Opener::new(&archive)`
    /// assert_eq!(archive.backend.kind(), BackendKind::Zqlite);
    /// # Ok::<(), ghostwire_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` if no store has this name; the error lists those that there are.
    pub fn for_store(&self, name: &str) -> Result<Self> {
        let mut stores = self.stores();
        let Some(NamedStore { backend, secret_key_file }) = stores.remove(name) else {
            return Err(unknown("store", name, &Origin::Code, stores.keys()));
        };
        Ok(Self {
            store: name.to_owned(),
            backend,
            secret_key_file,
            other_stores: stores,
            roles: Roles::default(),
            // What moves is the store that the configuration chose.
            migration: Migration { target: None, ..self.migration.clone() },
            ..self.clone()
        })
    }

    /// The key of an option of the store that is opened, for example `libsql.path` or
    /// `stores.archive.path` for `path`. An option that its backend does not have is given back.
    #[must_use]
    pub fn store_key(&self, option: &str) -> String {
        let kind = self.backend.kind();
        let key = keys::of_stores().find(|key| key.is_of(kind) && key.option() == option);
        key.map_or_else(|| option.to_owned(), |key| self.path_in(&self.store, key))
    }

    /// The path of a store's option, without the store's name if there are no names to tell apart.
    pub(super) fn path_in(&self, store: &str, key: &Key) -> String {
        let is_only = self.store == DEFAULT_STORE && self.other_stores.is_empty();
        match is_only && !self.origins.by_name {
            true => key.path.to_owned(),
            false => key.in_store(store),
        }
    }

    /// Checks the names of the stores and that no two have one file.
    pub(super) fn check_stores(&self) -> Result<()> {
        if let Some(name) = self
            .stores()
            .keys()
            .find(|name| !value::is_store_name(name) || self.other_stores.contains_key(&self.store))
        {
            return Err(Error::invalid("a store cannot have this name, or two stores have it")
                .with("key", format_args!("{name:?}"))
                .with("allowed", Kind::StoreName));
        }
        let held = self.held();
        let mut places = BTreeMap::new();
        for here in held.iter().filter(|held| held.key.option() == "path") {
            let Some(Value::Path(path)) = &here.value else { continue };
            if let Some(there) = places.insert(place_of(path), here) {
                return Err(Error::invalid(
                    "two stores cannot have one file: give one of them another path",
                )
                .with("key", &there.path)
                .with("source", there.origin(self))
                .with("other_key", &here.path)
                .with("other_source", here.origin(self))
                .with("path", path.display()));
            }
        }
        Ok(())
    }

    /// Checks that the stores which others keys name are there, and can be what they are to be.
    pub(super) fn check_store_names(&self) -> Result<()> {
        let stores = self.stores();
        let known = |key: &str, name: &str| {
            let origin = self.origins.of(key, name, None);
            match stores.contains_key(name) {
                true => Ok(origin),
                false => Err(unknown(key, name, &origin, stores.keys())),
            }
        };
        for role in Role::ALL {
            let (key, wanted) = (format!("roles.{role}"), self.store_of(*role));
            let origin = known(&key, wanted)?;
            if wanted != self.store {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "this version serves all roles from one store: leave the role out, or give it the \
                     same store",
                )
                .with("key", key)
                .with("value", wanted)
                .with("allowed", &self.store)
                .with("source", origin));
            }
        }
        let Some(target) = &self.migration.target else { return Ok(()) };
        let key = "migration.target";
        let origin = known(key, target)?;
        if *target == self.store {
            return Err(Error::invalid(
                "a move leads from the store that is opened to another one",
            )
            .with("key", key)
            .with("value", target)
            .with("source", origin));
        }
        let sides = [Some(&self.backend), stores.get(target).map(|store| &store.backend)];
        let mut kinds = sides.into_iter().flatten().map(BackendChoice::kind);
        if kinds.clone().any(|kind| kind == BackendKind::Memory) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a store in memory is gone with its process, so nothing moves from or to it",
            )
            .with("key", key)
            .with("value", target)
            .with("source", origin));
        }
        if self.migration.synchronous && kinds.any(|kind| kind == BackendKind::Postgres) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a database that several processes write to is not kept in step with another one: a commit of \
                 another process would be on one side only",
            )
            .with("key", "migration.synchronous")
            .with("target", target)
            .with("help", "leave migration.synchronous out; the other store then follows moments later"));
        }
        Ok(())
    }
}
