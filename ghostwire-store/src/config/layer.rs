//! Layers of settings: what the file, the variables and the command line each say, checked against
//! the table of known keys and flattened to `path -> value`, so that merging is one map over another.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::Path;

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::hint;
use super::keys::{Key, Place};
use super::lookup::{self, Found};
use super::origin::Origin;
use super::source::{Entry, Node};
use super::value::{self, Kind, Value};
use super::{ENVIRONMENT_KEY, RESERVED_PREFIX, VARIABLE_PREFIX};

/// The table of the file that all environments share.
const DEFAULTS: &str = "defaults";

/// A checked value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What one source says, or several merged.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub(super) settings: BTreeMap<String, Setting>,
    /// The switches that are declared, also those of which nothing is set.
    pub(super) switches: BTreeMap<String, Origin>,
    /// The stores that are declared, likewise.
    pub(super) stores: BTreeMap<String, Origin>,
    /// The keys that the environment's own table of the file sets, and not what all environments share.
    pub(super) own: BTreeSet<String>,
}

impl Layer {
    /// Puts another layer on top.
    pub(super) fn merge(&mut self, upper: Self) {
        self.settings.extend(upper.settings);
        self.switches.extend(upper.switches);
        self.stores.extend(upper.stores);
    }

    /// Checks and adds one value; `shown` is its path as messages give it.
    pub(super) fn set(
        &mut self,
        key: &Key,
        path: &[&str],
        shown: &str,
        node: &Node,
        origin: Origin,
    ) -> Result<()> {
        // Only a file has types of its own.
        let from_text = !matches!(origin, Origin::File { .. });
        let value = key
            .kind
            .read(node, from_text)
            .map_err(|refusal| value::refused(key, shown, node, &origin, refusal))?;
        self.settings.insert(path.join("."), Setting { value, origin });
        Ok(())
    }
}

/// The tables of a flag file. All are checked, not only the one that will be used: a mistake in
/// production's table should not wait for production to be found.
#[derive(Debug, Default)]
pub(super) struct Environments {
    defaults: Layer,
    named: BTreeMap<String, Layer>,
}

impl Environments {
    /// Checks the parsed file.
    pub(super) fn read(entries: &[Entry], file: &Path) -> Result<Self> {
        let mut environments = Self::default();
        for entry in entries {
            let origin = Origin::File { path: file.to_owned(), line: entry.line };
            let name = entry.name.as_str();
            let inner = match (&entry.node, lookup::find(&[name])) {
                (_, Found::Key(key)) if key.place == Place::OutsideFile => {
                    return Err(lookup::unknown(name, &[name], &origin));
                }
                (_, Found::Key(_) | Found::Section) => return Err(misplaced(name, &origin)),
                (Node::Table(inner), _) if value::is_name(name) => inner.as_slice(),
                (Node::Null, _) if value::is_name(name) => &[],
                (Node::Table(_) | Node::Null, _) => {
                    return Err(bad_name("an environment", Kind::Name, name, &origin));
                }
                _ => return Err(lookup::unknown(name, &[name], &origin)),
            };
            let mut layer = Layer::default();
            walk(&mut layer, inner, &[], name, file)?;
            layer.refuse_both_forms()?;
            if name == DEFAULTS {
                environments.defaults = layer;
            } else {
                environments.named.insert(name.to_owned(), layer);
            }
        }
        Ok(environments)
    }

    /// The shared defaults with one environment's table on top.
    pub(super) fn choose(mut self, name: &str, chosen_by: &Origin, file: &Path) -> Result<Layer> {
        let Some(chosen) = self.named.remove(name) else {
            let known: Vec<&str> = self.named.keys().map(String::as_str).collect();
            let error = Error::new(
                ErrorKind::NotFound,
                "the flag file has no table for this environment: add one, or choose another",
            )
            .with("environment", name)
            .with("source", chosen_by)
            .with("path", file.display())
            .with("known", known.join(", "));
            return Err(match hint::nearest(name, known) {
                Some(nearest) => error.with("nearest", nearest),
                None => error,
            });
        };
        let mut layer = self.defaults;
        layer.own = chosen.settings.keys().cloned().collect();
        layer.merge(chosen);
        Ok(layer)
    }
}

fn misplaced(name: &str, origin: &Origin) -> Error {
    Error::invalid(
        "the top level of the flag file holds environments: put this under `defaults`, which all \
         environments share, or under one of them",
    )
    .with("key", name)
    .with("source", origin)
    .with("for_example", format_args!("{DEFAULTS}.{name}"))
}

fn bad_name(what: &str, allowed: Kind, shown: &str, origin: &Origin) -> Error {
    Error::invalid(format!("{what} cannot have this name"))
        .with("path", shown)
        .with("allowed", allowed)
        .with("source", origin)
}

fn walk(
    layer: &mut Layer,
    entries: &[Entry],
    above: &[&str],
    environment: &str,
    file: &Path,
) -> Result<()> {
    for entry in entries {
        let mut path = above.to_vec();
        path.push(&entry.name);
        let shown = format!("{environment}.{}", path.join("."));
        let origin = Origin::File { path: file.to_owned(), line: entry.line };
        if let Some((what, allowed)) = lookup::free_name(&path)
            && allowed.check(&Value::text(&entry.name)).is_err()
        {
            return Err(bad_name(what, allowed, &shown, &origin));
        }
        match lookup::find(&path) {
            Found::Key(key) if key.place != Place::OutsideFile => {
                layer.set(key, &path, &shown, &entry.node, origin)?;
            }
            Found::Section => {
                let inner = match &entry.node {
                    Node::Table(inner) => inner.as_slice(),
                    // What YAML makes of a section with nothing beneath it.
                    Node::Null => &[],
                    _ => return Err(not_a_table(&entry.name, &shown, &origin)),
                };
                match path.as_slice() {
                    ["switches", name] => layer.switches.insert((*name).to_owned(), origin),
                    ["stores", name] => layer.stores.insert((*name).to_owned(), origin),
                    _ => None,
                };
                walk(layer, inner, &path, environment, file)?;
            }
            Found::Key(_) | Found::Unknown => {
                return Err(lookup::unknown(shown, &path, &origin));
            }
        }
    }
    Ok(())
}

fn not_a_table(name: &str, shown: &str, origin: &Origin) -> Error {
    // The value stays unsaid: nothing is known about what it is.
    Error::invalid("this is the name of a section, so a table has to follow")
        .with("key", name)
        .with("path", shown)
        .with("source", origin)
}

/// What the variables say that start with the prefix. One that misses it by an underscore is refused;
/// all others are somebody else's. The file's layer has `declared` the switches and stores.
pub(super) fn from_variables(
    variables: &BTreeMap<String, String>,
    declared: &Layer,
) -> Result<Layer> {
    let mut layer = Layer::default();
    let from_prefix = (Bound::Included(RESERVED_PREFIX), Bound::Unbounded);
    let reserved = variables.range::<str, _>(from_prefix);
    for (name, text) in reserved.take_while(|(name, _)| name.starts_with(RESERVED_PREFIX)) {
        let origin = Origin::Variable(name.clone());
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else {
            return Err(lookup::unknown_variable(name, &origin));
        };
        if rest.chars().any(char::is_lowercase) {
            // Else two variables could mean the same key.
            return Err(Error::invalid("the variable's name has to be in capitals")
                .with("source", &origin)
                .with("nearest", name.to_uppercase()));
        }
        let path = rest.to_lowercase();
        let path: Vec<&str> = path.split("__").collect();
        if path != [ENVIRONMENT_KEY] {
            let same = |declared: &str| declared.to_lowercase().replace('-', "_");
            add(&mut layer, &path, text, origin, declared, same)?;
        }
    }
    Ok(layer)
}

/// What the command line says; the last one wins.
pub(super) fn from_overrides(overrides: &[(String, String)], declared: &Layer) -> Result<Layer> {
    let mut layer = Layer::default();
    for (path, text) in overrides {
        let path: Vec<&str> = path.split('.').collect();
        if path != [ENVIRONMENT_KEY] {
            add(&mut layer, &path, text, Origin::CommandLine, declared, str::to_owned)?;
        }
    }
    Ok(layer)
}

/// Adds a setting that is given as text. `spelling` is how a declared name is written here.
fn add(
    layer: &mut Layer,
    path: &[&str],
    text: &str,
    origin: Origin,
    declared: &Layer,
    spelling: impl Fn(&str) -> String,
) -> Result<()> {
    let key = match lookup::find(path) {
        Found::Key(key) if key.place != Place::FileOnly => key,
        _ => return Err(lookup::unknown(path.join("."), path, &origin)),
    };
    let mut path = path.to_vec();
    if let [section @ ("switches" | "stores"), name, ..] = path.as_mut_slice() {
        let (what, declared) = match *section {
            "stores" => ("store", &declared.stores),
            _ => ("switch", &declared.switches),
        };
        let mut matching = declared.keys().filter(|declared| spelling(declared) == *name);
        *name = match (matching.next(), matching.next()) {
            (Some(only), None) => only,
            (found, _) => {
                // A name that is only misspelt must not make a new switch or store.
                let message = if found.is_some() {
                    format!("more than one {what} of the flag file could be meant: rename one")
                } else {
                    format!("unknown {what}: the flag file has to declare it")
                };
                let error = Error::invalid(message).with("key", *name).with("source", &origin);
                return Err(match hint::nearest(name, declared.keys()) {
                    Some(nearest) => error.with("nearest", nearest),
                    None => error,
                });
            }
        };
    }
    layer.set(key, &path, &path.join("."), &Node::Text(text.to_owned()), origin)
}
