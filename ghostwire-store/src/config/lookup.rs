//! Finding a key in the table, and saying what is wrong with one that is not there.

use std::collections::BTreeSet;
use std::fmt;

use ghostwire_store_core::error::Error;

use super::hint;
use super::keys::{KEYS, Key, Place};
use super::names::BackendKind;
use super::origin::Origin;
use super::value::Kind;
use super::{RESERVED_PREFIX, VARIABLE_PREFIX};

/// What a path stands for.
pub(super) enum Found {
    Key(&'static Key),
    Section,
    Unknown,
}

/// Looks a path up in the table of known keys.
pub(super) fn find(path: &[&str]) -> Found {
    let mut section = is_section_without_keys(path);
    for (key, pattern) in KEYS.iter().flat_map(|key| key.patterns().map(move |it| (key, it))) {
        let mut pattern = pattern.split('.');
        let fits = path.iter().all(|part| pattern.next().is_some_and(|p| p == "*" || p == *part));
        if fits {
            if pattern.next().is_none() {
                return Found::Key(key);
            }
            section = true;
        }
    }
    if section { Found::Section } else { Found::Unknown }
}

/// memory takes no options, yet its table may be written for the sake of uniformity.
fn is_section_without_keys(path: &[&str]) -> bool {
    matches!(path, [section] if *section == BackendKind::Memory.name())
}

/// What the last part of this path names and which names it can have, if it is a name that the user
/// chose.
pub(super) fn free_name(path: &[&str]) -> Option<(&'static str, Kind)> {
    match path {
        ["switches", _] | ["switches", _, "variants", _] => {
            Some(("a switch or variant", Kind::Name))
        }
        ["stores", _] => Some(("a store", Kind::StoreName)),
        _ => None,
    }
}

/// Every key and section that may stand where `path` does. Free names are taken from `path`, so that
/// they do not count as differences.
fn known_like(path: &[&str], in_file: bool) -> BTreeSet<String> {
    let elsewhere = if in_file { Place::OutsideFile } else { Place::FileOnly };
    let mut known = BTreeSet::new();
    for pattern in KEYS.iter().filter(|key| key.place != elsewhere).flat_map(Key::patterns) {
        let is_here = path.first().copied() == pattern.split('.').next();
        let mut prefix = String::new();
        for (index, part) in pattern.split('.').enumerate() {
            if !prefix.is_empty() {
                // A file's walk stops at the first unknown part, which may well be a section.
                if in_file {
                    known.insert(prefix.clone());
                }
                prefix.push('.');
            }
            let free_name = path.get(index).filter(|_| is_here).copied().unwrap_or("NAME");
            prefix.push_str(if part == "*" { free_name } else { part });
        }
        known.insert(prefix);
    }
    known
}

/// The error for a key that is not in the table, or not allowed in this place. `shown` is the whole
/// path where it was found, `path` the path within the configuration.
pub(super) fn unknown(shown: impl fmt::Display, path: &[&str], origin: &Origin) -> Error {
    let in_file = matches!(origin, Origin::File { .. });
    let dotted = path.join(".");
    let known = known_like(path, in_file);
    let message = match find(path) {
        Found::Key(key) if key.place == Place::FileOnly => {
            "this key can only be given in the flag file"
        }
        Found::Key(key) if key.place == Place::OutsideFile => {
            "this key cannot be given in the flag file: the environment is chosen by the variable \
             GHOSTWIRE_STORE__ENVIRONMENT or on the command line"
        }
        Found::Section => "this is the name of a section, so one of its keys has to follow",
        _ if hint::names_a_secret(&dotted, &known) => hint::NO_SECRETS,
        _ => "unknown configuration key",
    };
    let error = Error::invalid(message)
        .with("key", path.last().copied().unwrap_or_default())
        .with("path", shown)
        .with("source", origin);
    // A key in the wrong place is right as it is spelt.
    match find(path) {
        Found::Key(_) => error,
        _ => error.with("nearest", hint::nearest(&dotted, &known).unwrap_or_default()),
    }
}

/// The error for a variable that has the reserved prefix without its second underscore.
pub(super) fn unknown_variable(name: &str, origin: &Origin) -> Error {
    let path = name.strip_prefix(RESERVED_PREFIX).unwrap_or(name).to_lowercase();
    // The sections are unknown as long as the underscores are; so the whole is compared.
    let known = known_like(&[], false);
    let nearest = hint::nearest(&path.replace("__", "."), &known).unwrap_or_default();
    let nearest = nearest.to_uppercase().replace('.', "__");
    Error::invalid(
        "the variable is no configuration key: those have two underscores behind the prefix, and \
         wherever a key has a dot",
    )
    .with("source", origin)
    .with("nearest", format_args!("{VARIABLE_PREFIX}{nearest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_keys_and_sections() {
        assert!(matches!(find(&["backend"]), Found::Key(key) if key.path == "backend"));
        assert!(matches!(find(&["writer", "max_group"]), Found::Key(_)));
        assert!(matches!(find(&["switches", "x", "variants", "on"]), Found::Key(_)));
        assert!(
            matches!(find(&["stores", "x", "engine"]), Found::Key(key) if key.path == "zqlite.engine")
        );
        for section in
            [&["writer"][..], &["memory"], &["switches"], &["switches", "x"], &["stores", "x"]]
        {
            assert!(matches!(find(section), Found::Section), "{section:?}");
        }
        for unknown in
            [&["wrtier"][..], &["backend", "x"], &["memory", "x"], &["stores", "x", "libsql"]]
        {
            assert!(matches!(find(unknown), Found::Unknown), "{unknown:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest() {
        let origin = Origin::CommandLine;
        let path = ["switches", "new-dns", "defaultVariant"];
        let error = unknown(path.join("."), &path, &origin);
        assert_eq!(
            error.to_string(),
            "unknown configuration key [key=defaultVariant, path=switches.new-dns.defaultVariant, \
             source=command line, nearest=switches.new-dns.default_variant]"
        );
    }

    #[test]
    fn every_key_is_listed_once_and_explained() {
        let paths: BTreeSet<&str> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        for key in KEYS {
            assert!(key.help.ends_with('.'), "{}", key.path);
            assert!(matches!(find(&key.path.split('.').collect::<Vec<_>>()), Found::Key(found)
                if found.path == key.path));
        }
    }
}
