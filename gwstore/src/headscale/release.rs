//! Which Headscale wrote a database: each release adds its migrations to a list in it.

use std::collections::BTreeSet;

use ghostwire_store_core::error::Result;

use super::SourceKind;
use super::collect::Collector;
use super::tables::Tables;

/// Moved approved routes from the table `routes` to the nodes.
const ROUTES_MOVED: &str = "202502131714";
/// Made tags of those that nodes asked for.
const TAGS_GRANTED: &str = "202601121700-migrate-hostinfo-request-tags";

/// The last migration of each release, oldest first.
const RELEASES: &[(&str, &str)] = &[
    ("202406021630", "0.23"),
    ("202408181235", "0.24"),
    ("202502070949", "0.25"),
    ("202505141324", "0.26"),
    ("202507021200", "0.27.0"),
    ("202511101554-drop-old-idx", "0.27.1"),
    (TAGS_GRANTED, "0.28"),
    ("202605221435-clear-zero-time-node-expiry", "0.29.0"),
    ("202606181200-recover-null-tags-node-user-id", "0.29.2"),
];

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
    let found = RELEASES.iter().rev().find(|(last, _)| migrations.contains(*last));
    let release = found.map(|(_, release)| *release);
    match release {
        None => collector.note(
            "migrations: none that this importer knows; the database may be of a Headscale that is \
             older or much newer than 0.23 to 0.29"
                .into(),
        ),
        Some(release) => {
            let newest = RELEASES.last().map_or("", |(last, _)| last);
            let unknown = migrations.iter().filter(|id| newest < id.as_str()).count();
            if unknown > 0 {
                collector.note(format!(
                    "migrations: {unknown} newer than this importer knows (it knows 0.23 to 0.29); \
                     compare the result with care. Last known release: {release}"
                ));
            }
        }
    }
    Ok(Origin { kind, release, version, migrations })
}
