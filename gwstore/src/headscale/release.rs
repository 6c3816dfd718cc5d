//! Which Headscale wrote a database: each release adds its migrations to a list in it.

use std::collections::BTreeSet;

use ghostwire_store_core::error::Result;

use super::SourceKind;
use super::collect::Collector;
use super::findings::counted;
use super::tables::Tables;

/// Moved approved routes from the table `routes` to the nodes.
const ROUTES_MOVED: &str = "202502131714";
/// Made all tables anew, and moved their rows.
pub(super) const SCHEMA_RECREATED: &str = "202507021200";
/// Made tags of those that nodes asked for.
const TAGS_GRANTED: &str = "202601121700-migrate-hostinfo-request-tags";

/// Every migration whose outcome is understood, in their order, and the release of which it is the last.
/// Those behind 0.29.3 are of 0.30 as it is being made.
const MIGRATIONS: &[(&str, Option<&str>)] = &[
    // A new database, which has no need of any.
    ("SCHEMA_INIT", None),
    ("202312101416", None),
    ("202312101430", None),
    ("202402151347", None),
    ("2024041121742", None),
    ("202406021630", Some("0.23")),
    ("202409271400", None),
    ("202407191627", None),
    ("202408181235", Some("0.24")),
    ("202501221827", None),
    ("202501311657", None),
    ("202502070949", Some("0.25")),
    (ROUTES_MOVED, None),
    ("202502171819", None),
    ("202505091439", None),
    ("202505141324", Some("0.26")),
    (SCHEMA_RECREATED, Some("0.27.0")),
    ("202510311551", None),
    ("202511101554-drop-old-idx", Some("0.27.1")),
    ("202511011637-preauthkey-bcrypt", None),
    ("202511122344-remove-newline-index", None),
    ("202511131445-node-forced-tags-to-tags", None),
    (TAGS_GRANTED, Some("0.28")),
    ("202602201200-clear-tagged-node-user-id", None),
    ("202605221435-clear-zero-time-node-expiry", Some("0.29.0")),
    ("202606181200-recover-null-tags-node-user-id", Some("0.29.2")),
    ("202607241200-clear-tagged-node-expiry", Some("0.29.3")),
    ("202606191500-api-key-user-id", None),
    ("202606191501-pre-auth-key-description", None),
    ("202606201200-pre-auth-key-revoked", None),
    ("202606211200-oauth-clients-and-tokens", None),
];

/// So many unknown migrations are named.
const NAMED: usize = 20;

/// Where an import comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What kind of file it was.
    pub kind: SourceKind,
    /// The newest release of Headscale whose migrations the database has all seen, such as `0.26`;
    /// the last part is given where the database can tell.
    pub release: Option<&'static str>,
    /// The version that the database says it was last used with; only newer ones say.
    pub version: Option<String>,
    /// Every migration that the database has seen.
    pub migrations: BTreeSet<String>,
}

impl Origin {
    /// Whether the table `routes`, if it is there, is in use.
    pub(super) fn has_routes_table(&self) -> bool {
        !self.migrations.contains(ROUTES_MOVED)
    }

    /// Whether tags that nodes ask for still have to be granted.
    pub(super) fn lacks_granted_tags(&self) -> bool {
        !self.migrations.contains(TAGS_GRANTED)
    }
}

/// Reads what the database says about itself.
pub(super) fn origin(
    tables: &Tables,
    kind: SourceKind,
    collector: &mut Collector,
) -> Result<Origin> {
    let mut migrations = BTreeSet::new();
    tables.each("migrations", "id", |row| {
        migrations.extend(row.filled("id").ok().flatten());
        Ok(())
    })?;
    let mut version = None;
    tables.each("database_versions", "id", |row| {
        version = row.filled("version").ok().flatten();
        Ok(())
    })?;
    let last_of =
        |(id, release): &(&str, Option<&'static str>)| release.filter(|_| migrations.contains(*id));
    let release = MIGRATIONS.iter().rev().find_map(last_of);
    let is_known = |id: &str| MIGRATIONS.iter().any(|(known, _)| *known == id);
    let unknown: Vec<&str> =
        migrations.iter().map(String::as_str).filter(|id| !is_known(id)).collect();
    if release.is_none() {
        collector.note(
            "migrations: no release that this importer knows; the database may be of a Headscale \
             that is older or much newer than 0.23 to 0.29"
                .into(),
        );
    }
    if !unknown.is_empty() {
        let short = |id: &&str| id.chars().take(100).collect::<String>();
        let named: Vec<_> = unknown.iter().take(NAMED).map(short).collect();
        let more = if unknown.len() > NAMED { ", …" } else { "" };
        collector.note(format!(
            "migrations: {} that this importer does not know (it knows those of 0.23 to 0.29.3): \
             {}{more}; compare the result with care",
            counted(unknown.len(), "migration", "migrations"),
            named.join(", ")
        ));
    }
    Ok(Origin { kind, release, version, migrations })
}
