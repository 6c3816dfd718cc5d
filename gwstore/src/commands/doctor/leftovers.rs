//! What lies beside a store and should not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ghostwire_store::config::Config;
use ghostwire_store_sqlite::{
    ENGINE_FILES, LOCK_FILE, RESERVE_FILE, directory_of, is_unfinished, resolved, with_suffix,
};

use super::{Checkup, Finding};
use crate::failure::Outcome;
use crate::live::{self, Found};
use crate::session::{lost_key, store_exists};

const CHECK: &str = "leftovers";

/// The lock's file stays when a store is closed; without a store it says that one was lost, as a log
/// does. What is unfinished has no use either way.
pub(super) async fn check(config: &Config, path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    let found = orphans(config, path).and_then(|orphans| Ok((orphans, unfinished(config, path)?)));
    let (orphans, unfinished) = match found {
        Ok(found) => found,
        Err(error) => {
            let found = format!("{} cannot be listed: {error}", directory_of(path).display());
            let advice = "let this process's user read it";
            return checkup.add(Finding::unchecked(CHECK, found, advice));
        }
    };
    let names = |files: &[PathBuf]| {
        let names: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    };
    let served = live::find(config, checkup.shell).await;
    if let (false, Ok(Found::Served(client))) = (orphans.is_empty(), served) {
        let pid = client.welcome().pid;
        let found = format!("the store's file is away while process {pid} serves it");
        let advice = format!(
            "put the file back where it was, then restart that process; remove nothing: {} is in use",
            names(&orphans)
        );
        checkup.add(Finding::fail(CHECK, found, advice))?;
    } else if !orphans.is_empty() {
        let advice = "was the store lost, or moved without them? Restore it: a log holds commits, and no \
                      new store is made beside them. To begin anew remove them, the lock last; a key \
                      may stay if it is named as secret_key_file";
        checkup.add(Finding::warn(CHECK, names(&orphans), advice))?;
    }
    if !unfinished.is_empty() {
        let advice = "remove them once no process uses the store";
        checkup.add(Finding::warn(CHECK, names(&unfinished), advice))?;
    }
    if orphans.is_empty() && unfinished.is_empty() {
        let found = "no orphaned lock, log or journal, nothing unfinished";
        return checkup.add(Finding::ok(CHECK, found));
    }
    Ok(())
}

/// What belongs to a store that is not there.
fn orphans(config: &Config, path: &Path) -> io::Result<Vec<PathBuf>> {
    if is_there(path)? && store_exists(config) {
        return Ok(Vec::new());
    }
    let mut left: Vec<_> = lost_key(config).into_iter().map(|(_, file)| file).collect();
    for suffix in ENGINE_FILES.into_iter().chain([RESERVE_FILE, LOCK_FILE]) {
        let file = with_suffix(path, suffix);
        if is_there(&file)? {
            left.push(file);
        }
    }
    Ok(left)
}

fn is_there(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn unfinished(config: &Config, path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) = path.file_name() else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(directory_of(path)) {
        // The check of the directory says so.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    // Whatever its name, it is in use: the check of opening says that it needs another.
    let key = config.secret_key_path().map(|key| resolved(&key));
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry?;
        if is_unfinished(name, &entry.file_name()) && key != Some(resolved(&entry.path())) {
            left.push(entry.path());
        }
    }
    left.sort_unstable();
    Ok(left)
}
