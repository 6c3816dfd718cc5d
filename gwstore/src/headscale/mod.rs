//! Reading a network out of Headscale 0.23 to 0.29: its SQLite file, or an SQL dump of it.
//!
//! [`read`] gives whole entities to restore, in an order in which what is referred to comes first.
//! Identifiers are derived from what is read, and nothing depends on the clock or on chance: the
//! same source gives the same entities, today and tomorrow, in whatever store they end up. What
//! cannot be imported is listed row by row, with the reason; nothing is left out without a word.

#![allow(unreachable_pub, reason = "the tool's commands use it, whatever crate they are in")]

mod budget;
mod collect;
mod dump;
mod hujson;
mod keys;
mod mapping;
mod nodes;
mod policy;
mod release;
mod routes;
mod source;
mod tables;
mod time;
mod unistr;

use std::path::Path;

use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::SecretHash;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::Connection;

use collect::Collector;
pub use release::Origin;
pub use source::SourceKind;
use tables::Tables;

/// What was read.
#[derive(Debug)]
pub struct Import {
    /// The entities, ready for a restore: users, pre-auth keys, nodes, presence, routes, API keys,
    /// policies.
    pub images: Vec<EntityRecord>,
    /// What was left out.
    pub problems: Vec<Problem>,
    /// What an operator should know beyond that, a sentence each.
    pub notes: Vec<String>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A row, or a part of one, that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Headscale's table.
    pub table: &'static str,
    /// The row's `id`.
    pub id: i64,
    /// Why. Never shows a key or hash.
    pub reason: String,
}

/// Reads the file at `path`. `hasher` makes the hash under which the store will know a pre-auth key
/// that Headscale has in plain text.
///
/// # Errors
/// If the file cannot be read, is damaged or cut off, is not Headscale's, or is of a Headscale
/// before 0.23. Single rows that cannot be imported are no error but [`Import::problems`].
pub fn read(path: &Path, hasher: &dyn Fn(&str) -> SecretHash) -> Result<Import> {
    let import = || {
        let (connection, kind) = source::open(path)?;
        convert(connection, kind, hasher).map_err(|error| error.with("file", path.display()))
    };
    import().map_err(|error| error.during("import.headscale"))
}

fn convert(
    connection: Connection,
    kind: SourceKind,
    hasher: &dyn Fn(&str) -> SecretHash,
) -> Result<Import> {
    let tables = Tables::new(connection)?;
    check_tables(&tables)?;
    let mut collector = Collector::default();
    let origin = release::origin(&tables, kind, &mut collector)?;
    let users = mapping::users(&tables, &mut collector)?;
    let keys = keys::preauth_keys(&tables, hasher, &users.parents, &mut collector)?;
    let grants = mapping::tag_grants(&tables, &origin, &users.named, &mut collector)?;
    let nodes = nodes::nodes(&tables, &users.parents, &keys, &grants, &mut collector)?;
    routes::routes(&tables, &origin, nodes, &mut collector)?;
    mapping::api_keys(&tables, &users.parents, &mut collector)?;
    mapping::policies(&tables, &mut collector)?;
    for table in ["oauth_clients", "oauth_access_tokens"] {
        let count = tables.count(table)?;
        if count > 0 {
            collector
                .note(format!("{table}: {count} rows not imported: the store has no such thing"));
        }
    }
    let (images, problems, notes) = collector.finish();
    Ok(Import { images, problems, notes, origin })
}

/// Says of other databases what they are.
fn check_tables(tables: &Tables) -> Result<()> {
    // A dump of one, which has tables of the same names.
    if tables.has("ghostwire_meta") {
        return Err(source::own_store());
    }
    if tables.has("users") && tables.has("nodes") {
        return Ok(());
    }
    if tables.has("machines") || tables.has("namespaces") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a database of Headscale 0.22 or older (it has `machines` or `namespaces`): upgrade it \
             to 0.23 or later with Headscale first",
        ));
    }
    let missing = if tables.has("users") { "nodes" } else { "users" };
    Err(Error::invalid("not a database of Headscale: a table is missing").with("table", missing))
}

#[cfg(test)]
mod tests;
