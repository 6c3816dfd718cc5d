//! `gwstore upgrade`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store::Result;
use ghostwire_store::config::Config;
use ghostwire_store_core::schema::{Migration, Schema};
use ghostwire_store_sqlite::{directory_of, resolved};
use serde_json::json;

use super::clock;
use crate::cli::UpgradeArgs;
use crate::failure::{Outcome, file_error};
use crate::output::{Shell, shown};
use crate::session::{open_to_read, open_to_write, refuse_to_forget};

/// Shows what a migration would do, or does it.
pub(super) async fn run(config: &Config, args: &UpgradeArgs, shell: &mut Shell<'_>) -> Outcome {
    refuse_to_forget(config)?;
    let backend = open_to_read(config).await?;
    let head = backend.head().await;
    backend.close().await?;
    let head = head?;
    let stored = head.schema;
    let current = Schema::current();
    let steps = current.steps_from(stored)?;
    if !steps.is_empty() {
        clock::require_openable(clock::Standing::of_head(&head), config)?;
    }
    let backups = if steps.is_empty() || args.dry_run {
        Vec::new()
    } else {
        migrate(config, stored.version).await?
    };
    if shell.json {
        return shell.object(&json!({
            "found": stored.version,
            "supported": current.version().version,
            "steps": steps.iter().map(step).collect::<Vec<_>>(),
            "migrated": !steps.is_empty() && !args.dry_run,
            "backups": backups,
        }));
    }
    shell.pairs(&[
        ("stored schema", stored.version.to_string()),
        ("supported schema", current.version().version.to_string()),
    ])?;
    for step in steps {
        shell.line(format_args!("to version {}: {}", step.to.version, step.summary))?;
    }
    if steps.is_empty() {
        return shell.say("There is nothing to do.");
    }
    if args.dry_run {
        return shell.say("Nothing was changed.");
    }
    for backup in &backups {
        shell.line(format_args!("The store as it was: {}", shown(backup)))?;
    }
    shell.say("Migrated.")
}

fn step(step: &Migration) -> serde_json::Value {
    json!({ "to": step.to.version, "summary": step.summary })
}

/// Opening migrates. Gives the backups that were made.
async fn migrate(config: &Config, from: u32) -> Outcome<Vec<PathBuf>> {
    let before = backups(config.backend.path(), from)?;
    let store = open_to_write(config).await?;
    store.close().await?;
    let after = backups(config.backend.path(), from)?;
    Ok(after.difference(&before).cloned().collect())
}

/// The backups of a schema version beside the store: `<path>.v1.bak`, `<path>.v1.bak.1` and so on.
fn backups(path: Option<&Path>, version: u32) -> Result<BTreeSet<PathBuf>> {
    let Some(path) = path.map(resolved) else { return Ok(BTreeSet::new()) };
    let directory = directory_of(&path);
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(format!(".v{version}.bak"));
    let list = || {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                found.insert(entry.path());
            }
        }
        Ok(found)
    };
    list().map_err(|error| file_error("the backups cannot be listed", Some(directory), error))
}
