//! Checks of what is around the store: its directory, its files, its key.

use std::fs;
use std::path::Path;

use ghostwire_store::config::Config;
use ghostwire_store::{ErrorKind, Opener, read_hash_key};
use ghostwire_store_sqlite::directory_of;

use super::{Checkup, Finding, disk, leftovers, owners};
use crate::failure::{Outcome, one_line};
use crate::permissions::writable_by_others;
use crate::session::store_exists;

pub(super) async fn check(config: &Config, path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    // Through a symbolic link: beside what it leads to lies all the rest.
    let resolved = fs::canonicalize(path);
    let path = resolved.as_deref().unwrap_or(path);
    let directory = directory_of(path);
    let is_usable = check_directory(directory, checkup)?;
    let is_store = check_opening(config, checkup)?;
    if is_store {
        owners::check_owners(config, path, checkup)?;
        owners::check_modes(path, checkup)?;
    }
    owners::check_influence(config, checkup)?;
    check_key(config, checkup)?;
    leftovers::check(config, path, checkup).await?;
    disk::check_log_size(path, checkup)?;
    if is_usable {
        disk::check_space(directory, path, checkup)?;
        disk::check_sync(directory, checkup)?;
    }
    Ok(())
}

/// Tells whether further checks can use it.
fn check_directory(directory: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome<bool> {
    const CHECK: &str = "directory";
    let shown = directory.display();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => metadata,
        Ok(_) => {
            let found = format!("{shown} is no directory");
            checkup.add(Finding::fail(CHECK, found, "correct the path"))?;
            return Ok(false);
        }
        Err(error) => {
            let found = format!("{shown}: {error}");
            let advice = "correct the path, or run `gwstore init`";
            checkup.add(Finding::fail(CHECK, found, advice))?;
            return Ok(false);
        }
    };
    if let Err(error) = tempfile::tempfile_in(directory) {
        let found = format!("{shown} cannot be written: {error}");
        let advice = "let the control plane's user write it; journals and locks go there";
        checkup.add(Finding::fail(CHECK, found, advice))?;
        return Ok(false);
    }
    let finding = match writable_by_others(&metadata) {
        Some(mode) => Finding::warn(
            CHECK,
            format!("{shown} can be written by others (mode {mode:o})"),
            "run `chmod go-w` on it: others could replace the store",
        ),
        None => Finding::ok(CHECK, format!("{shown} can be written")),
    };
    checkup.add(finding)?;
    Ok(true)
}

/// Whether a control plane could open the files as they are. What is stored is read later, and only read.
/// Tells whether they are a store's at all: what is none is not for this program to judge.
fn check_opening(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome<bool> {
    const CHECK: &str = "opening";
    if !store_exists(config) {
        return Ok(false);
    }
    let probed = Opener::new(config).create(false).probe();
    let is_store = !matches!(&probed, Err(error) if *error.kind() == ErrorKind::InvalidArgument);
    checkup.add(match probed {
        Ok(()) => Finding::ok(CHECK, "lock, file and log can be opened to be written"),
        Err(error) => {
            Finding::error(CHECK, &error, "no control plane can open the store like this")
        }
    })?;
    Ok(is_store)
}

fn check_key(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "hash key";
    let Some(path) = config.secret_key_path() else { return Ok(()) };
    if config.is_sealed() && config.secret_key_file.is_none() {
        return Ok(());
    }
    checkup.add(match read_hash_key(&path) {
        Ok(keys) => {
            let id = data_encoding::HEXLOWER.encode(&keys.current().id());
            let found = format!("{} is in order (id {id})", path.display());
            let is_beside = config.backend.path().and_then(Path::parent) == path.parent();
            if is_beside && config.environment == "production" {
                let advice = "keep it apart from the store: set secret_key_file";
                Finding::warn(CHECK, format!("{found}, but beside the store"), advice)
            } else {
                Finding::ok(CHECK, found)
            }
        }
        Err(error) if *error.kind() != ErrorKind::NotFound => Finding::error(
            CHECK,
            &error,
            "without it no API key, pre-auth key or session can be checked",
        ),
        Err(_) if !store_exists(config) => Finding::warn(
            CHECK,
            format!("{} is not there, nor is the store", path.display()),
            "if there was none yet, `gwstore init` makes both; otherwise restore both",
        ),
        Err(error) => Finding::fail(
            CHECK,
            one_line(&error),
            "put it back from its own backup, or name its place as secret_key_file; if nothing was \
             stored yet, `gwstore init` makes one",
        ),
    })
}
