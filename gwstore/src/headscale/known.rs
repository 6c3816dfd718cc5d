//! Which tables and columns the importer knows, so that it can name what it does not read.

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::collect::Collector;
use super::findings::counted;
use super::release::{Origin, SCHEMA_RECREATED};
use super::tables::Tables;

/// The tables that are read, each with its columns in all releases from 0.23 on.
const READ: &[(&str, &str)] = &[
    ("migrations", "id"),
    ("database_versions", "id version updated_at"),
    (
        "users",
        "id name display_name email provider_identifier provider profile_pic_url created_at \
         updated_at deleted_at",
    ),
    (
        "pre_auth_keys",
        "id key prefix hash user_id description reusable ephemeral used tags expiration revoked \
         created_at updated_at deleted_at",
    ),
    ("pre_auth_key_acl_tags", "id pre_auth_key_id tag"),
    (
        "api_keys",
        "id prefix hash user_id expiration revoked last_seen created_at updated_at deleted_at",
    ),
    (
        "nodes",
        "id machine_key node_key disco_key endpoints host_info ipv4 ipv6 ip_addresses hostname \
         given_name user_id register_method tags forced_tags auth_key_id last_seen expiry \
         approved_routes created_at updated_at deleted_at",
    ),
    ("routes", "id node_id prefix advertised enabled is_primary created_at updated_at deleted_at"),
    ("policies", "id data created_at updated_at deleted_at"),
];

/// Tables that Headscale used before 0.23 and drops itself, and those of a tool that copies databases.
const UNUSED: &[&str] =
    &["namespaces", "machines", "shared_machines", "kvs", "_litestream_seq", "_litestream_lock"];

/// Tables of Headscale that have no place in the store, and why.
const WITHOUT_A_PLACE: &[(&str, &str)] = &[
    ("oauth_clients", "the store has no OAuth clients"),
    ("oauth_access_tokens", "they are short-lived"),
    (
        "credentials",
        "keys in one table, with Argon2id hashes, which no release of Headscale has yet and the store \
         cannot check; make new keys. Machines come in and need none, but none of them is ephemeral",
    ),
];

/// What Headscale, and the library that changes its tables, call a table from which, or into which, they
/// move rows.
const ASIDE: &[&str] = &["_old", "_new", "__temp"];

/// Refuses a database that Headscale began to migrate, and whose rows are partly elsewhere.
pub(super) fn refuse_half_migrated(tables: &Tables, origin: &Origin) -> Result<()> {
    let mut elsewhere = Vec::new();
    for (table, _) in READ {
        for suffix in ASIDE {
            let aside = format!("{table}{suffix}");
            if tables.count(&aside)? == 0 {
                continue;
            }
            // Those that a completed migration could not drop are left over.
            let is_completed = *suffix == "_old"
                && origin.migrations.contains(SCHEMA_RECREATED)
                && tables.count(table)? > 0;
            if !is_completed {
                elsewhere.push(aside);
            }
        }
    }
    for (aside, table) in [("machines", "nodes"), ("namespaces", "users")] {
        // Without the new table it is a database of 0.22, which is said elsewhere.
        if tables.has(table) && tables.count(table)? == 0 && tables.count(aside)? > 0 {
            elsewhere.push(aside.to_owned());
        }
    }
    if elsewhere.is_empty() {
        return Ok(());
    }
    let message = "the database is in the middle of a migration of Headscale: some of its rows are \
                   in tables that Headscale moves them to, or from, meanwhile";
    let help = "start Headscale on it, so that it completes the migration, or take the copy from \
                before the upgrade";
    Err(Error::new(ErrorKind::Restricted, message)
        .with("tables", elsewhere.join(", "))
        .with("help", help))
}

/// Names what has rows or values, and is not read.
pub(super) fn name_unread(tables: &Tables, collector: &mut Collector) -> Result<()> {
    for table in tables.names() {
        if READ.iter().any(|(read, _)| *read == table) {
            continue;
        }
        let count = tables.count(table)?;
        if count == 0 || table.starts_with("_litestream") {
            continue;
        }
        let rows = counted(count, "row", "rows");
        let is_aside = || {
            let mut mains = ASIDE.iter().filter_map(|suffix| table.strip_suffix(suffix));
            mains.any(|main| READ.iter().any(|(read, _)| *read == main))
        };
        collector.note(if UNUSED.contains(&table) || is_aside() {
            format!("{table}: {rows} ignored: Headscale uses this table no more")
        } else if let Some((_, why)) = WITHOUT_A_PLACE.iter().find(|(known, _)| *known == table) {
            format!("{table}: {rows} not imported: {why}")
        } else {
            format!(
                "{table}: {rows} not imported: the store has no such thing, or this importer does \
                 not know the table"
            )
        });
    }
    for (table, columns) in READ {
        let columns: Vec<&str> = columns.split_whitespace().collect();
        for (column, count) in tables.filled_columns(table, &columns)? {
            let rows = counted(count, "row has a value", "rows have values");
            collector.note(format!(
                "{table}: the column {column} is not imported: this importer does not know it \
                 ({rows} in it)"
            ));
        }
    }
    Ok(())
}
