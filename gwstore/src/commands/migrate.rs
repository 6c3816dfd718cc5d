//! `gwstore migrate`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ghostwire_store::config::Config;
use ghostwire_store::schema::{Migration, Schema};
use serde_json::json;

use crate::cli::MigrateArgs;
use crate::failure::Outcome;
use crate::output::Shell;
use crate::session::{open_to_read, open_to_write, refuse_to_forget};

/// Shows what a migration would do, or does it.
pub(super) async fn run(config: &Config, args: &MigrateArgs, shell: &mut Shell<'_>) -> Outcome {
    refuse_to_forget(config)?;
    let backend = open_to_read(config).await?;
    let head = backend.head().await;
    backend.close().await?;
    let stored = head?.schema;
    let current = Schema::current();
    let steps = current.steps_from(stored)?;
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
        shell.line(format_args!("The store as it was: {}", backup.display()))?;
    }
    shell.say("Migrated.")
}

fn step(step: &Migration) -> serde_json::Value {
    json!({ "to": step.to.version, "summary": step.summary })
}

/// Opening migrates. Gives the backups that were made.
async fn migrate(config: &Config, from: u32) -> Outcome<Vec<PathBuf>> {
    let before = backups(config.backend.path(), from);
    let store = open_to_write(config).await?;
    store.close().await?;
    let after = backups(config.backend.path(), from);
    Ok(after.difference(&before).cloned().collect())
}

/// The backups of a schema version beside the store: `<path>.v1.bak`, `<path>.v1.bak.1` and so on.
fn backups(path: Option<&Path>, version: u32) -> BTreeSet<PathBuf> {
    let Some(path) = path.and_then(|path| path.canonicalize().ok()) else {
        return BTreeSet::new();
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return BTreeSet::new();
    };
    let mut prefix = name.to_owned();
    prefix.push(format!(".v{version}.bak"));
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()))
        .map(|entry| entry.path())
        .collect()
}
