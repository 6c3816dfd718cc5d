//! The table of keys for `docs/configuration.md`.

use std::fmt::Write as _;

use super::keys::{Access, KEYS, Key, Place};
use super::names::BackendKind;
use super::types::{Config, NamedStore};

/// The table of known keys in Markdown, as `docs/configuration.md` contains it.
#[must_use]
pub fn known_keys_markdown() -> String {
    let mut table = "| key | value | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for key in KEYS {
        let place = match key.place {
            Place::Everywhere => "",
            Place::FileOnly => " In the flag file only.",
            Place::OutsideFile => " Not in the flag file.",
        };
        let paths: Vec<_> = key.patterns().map(|path| path.replace('*', "NAME")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| `{}` | {} | {} | {}{place} |",
            paths.join("`, `"),
            key.kind.to_string().replace('"', "`"),
            default_of(key),
            key.help,
        );
    }
    table
}

fn default_of(key: &Key) -> String {
    if !key.unset.is_empty() {
        return key.unset.to_owned();
    }
    let store = NamedStore::with_backend(key.backend().unwrap_or(BackendKind::Libsql));
    let value = match key.access {
        Access::Field { get, .. } => get(&Config::default()),
        Access::Store { get, .. } => get(&store),
        Access::Switch => None,
    };
    value.map_or_else(String::new, |value| format!("`{value}`"))
}
