//! Reading a network out of Headscale 0.23 to 0.29: its SQLite file, or an SQL dump of it.
//!
//! [`read`] gives whole entities to restore, in an order in which what is referred to comes first.
//! Identifiers are derived from what is read, and nothing depends on chance: the same source gives the
//! same entities, today and tomorrow, in whatever store they end up. (The clock only decides which of
//! two nodes stays that cannot both come in.) Each row that is not imported as it is, is listed, at one
//! of three levels: [`Findings`]. Nothing is left out without a word, and what cannot be understood is
//! named.

#![allow(unreachable_pub, reason = "the tool's commands use it, whatever crate they are in")]

mod budget;
mod collect;
mod dump;
mod findings;
pub mod hujson;
mod identity;
mod keys;
mod known;
mod mapping;
mod nodes;
mod policy;
mod release;
mod routes;
mod source;
mod tables;
mod time;
mod unistr;

use std::collections::BTreeSet;
use std::path::Path;

use collect::Collector;
pub use findings::{Finding, Findings, counted, grouped};
use ghostwire_store_core::command::EntityRecord;
use ghostwire_store_core::domain::{
    Identity, Issuer, RegisterMethod, SecretHash, Timestamp, UserId,
};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
pub use release::Origin;
use source::Source;
pub use source::SourceKind;
use tables::Tables;

/// What was read.
#[derive(Debug)]
pub struct Import {
    /// The entities, ready for a restore: users, pre-auth keys, nodes, presence, routes, API keys,
    /// policies.
    pub images: Vec<EntityRecord>,
    /// What is to be said of rows.
    pub findings: Findings,
    /// Whether the last changes may be in a log that was not beside the file.
    pub lacks_log: bool,
    /// Local users among the entities, who have no identity of a provider yet.
    pub without_identity: usize,
    /// Where it comes from.
    pub origin: Origin,
}

/// Reads the file at `path` as it is at the moment `now`. `issuers` are those whose tokens its users sign in
/// with, as far as somebody says. `hasher` makes the hash under which the store will know a pre-auth key that
/// Headscale has in plain text.
///
/// # Errors
/// If the file cannot be read, is damaged or cut off, is not Headscale's, is of a Headscale before 0.23,
/// or is in the middle of a migration. What is wrong with single rows is no error: [`Import::findings`].
pub fn read(
    path: &Path,
    now: Timestamp,
    issuers: &[Issuer],
    hasher: &dyn Fn(&str) -> SecretHash,
) -> Result<Import> {
    let import = || {
        let source = source::open(path)?;
        convert(source, now, issuers, hasher).map_err(|error| error.with("file", path.display()))
    };
    import().map_err(|error| error.during("import.headscale"))
}

fn convert(
    source: Source,
    now: Timestamp,
    issuers: &[Issuer],
    hasher: &dyn Fn(&str) -> SecretHash,
) -> Result<Import> {
    let Source { connection, kind, keeps_log } = source;
    let tables = Tables::new(connection)?;
    // A dump of one, which has tables of the same names.
    if tables.has("ghostwire_meta") {
        return Err(source::own_store());
    }
    let mut collector = Collector::default();
    let origin = release::origin(&tables, kind, &mut collector)?;
    known::refuse_half_migrated(&tables, &origin)?;
    check_tables(&tables, keeps_log)?;
    let users = mapping::users(&tables, issuers, &mut collector)?;
    let keys = keys::preauth_keys(&tables, now, hasher, &users.parents, &mut collector)?;
    let grants = mapping::tag_grants(&tables, &origin, &users.named, &mut collector)?;
    let nodes = nodes::nodes(&tables, now, &users.parents, &keys, &grants, &mut collector)?;
    routes::routes(&tables, &origin, nodes, &mut collector)?;
    mapping::api_keys(&tables, now, &users.parents, &mut collector)?;
    mapping::policies(&tables, &mut collector)?;
    known::name_unread(&tables, &mut collector)?;
    if keeps_log {
        collector.note(format!(
            "the file's header says that Headscale keeps a write-ahead log beside it, and none is \
             there: if the file was copied without its `-wal` while Headscale ran, the last changes \
             are missing. {COPY_WITH_LOG}"
        ));
    }
    let without_identity = name_those_without_identity(&mut collector);
    let (images, findings) = collector.finish();
    Ok(Import { images, findings, lacks_log: keeps_log, without_identity, origin })
}

/// How to come by all that a database with a write-ahead log holds.
const COPY_WITH_LOG: &str =
    "`sqlite3 FILE .dump`, run where Headscale has the file, gives all of it";

/// So many users are named.
const MOST_NAMED: usize = 10;

/// Counts the users without an identity of a provider. Those whose machines signed in through one will
/// not be known at their next sign-in, unless they are given theirs.
fn name_those_without_identity(collector: &mut Collector) -> usize {
    let (mut local, mut signed_in) = (BTreeSet::<UserId>::new(), BTreeSet::new());
    for image in collector.images() {
        match image {
            EntityRecord::User(user) if user.identity == (Identity::Local {}) => {
                local.insert(user.id);
            }
            EntityRecord::Node(node) if node.register_method == RegisterMethod::Oidc => {
                signed_in.extend(node.user);
            }
            _ => {}
        }
    }
    let affected: Vec<UserId> = local.intersection(&signed_in).copied().collect();
    if !affected.is_empty() {
        let mut names: Vec<String> = collector
            .images()
            .iter()
            .filter_map(|image| match image {
                EntityRecord::User(user) if affected.contains(&user.id) => {
                    Some(user.name.to_string())
                }
                _ => None,
            })
            .take(MOST_NAMED)
            .collect();
        if affected.len() > MOST_NAMED {
            names.push(format!("and {} more", affected.len() - MOST_NAMED));
        }
        collector.note(format!(
            "users: {} machines that signed in through an identity provider, and no identity of one: \
             Headscale before 0.24 did not keep it ({}). Give each theirs (`gwstore user edit NAME \
             --provider ISSUER --subject SUB`), or have the control plane link the first sign-in by a \
             verified e-mail address; otherwise a sign-in makes a second user",
            counted(affected.len(), "user has", "users have"),
            names.join(", ")
        ));
    }
    local.len()
}

/// Says of other databases what they are.
fn check_tables(tables: &Tables, keeps_log: bool) -> Result<()> {
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
    let error = Error::invalid("not a database of Headscale: a table is missing");
    let error = error.with("table", missing);
    if !keeps_log {
        return Err(error);
    }
    let likely = "the file's header says that it has a write-ahead log, and none lies beside it: all of \
                  it may be in the `-wal` that was not copied";
    Err(error.with("likely", likely).with("help", COPY_WITH_LOG))
}

#[cfg(test)]
mod tests;
