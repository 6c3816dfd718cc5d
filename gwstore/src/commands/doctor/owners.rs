//! Whose the files are, and what others may do with them.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use ghostwire_store::config::Config;
use ghostwire_store_sqlite::{LOCK_FILE, RESERVE_FILE, directory_of, files_of, with_suffix};

use super::{Checkup, Finding};
use crate::failure::Outcome;
use crate::keyring;
use crate::permissions::{mode, owner, this_user, writable_by_others};

/// The files of a store that are there, and why others cannot be looked up.
struct Files {
    found: Vec<(PathBuf, Metadata)>,
    unknown: Vec<String>,
}

impl Files {
    fn of(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut files = Self { found: Vec::new(), unknown: Vec::new() };
        for path in paths {
            match fs::metadata(&path) {
                Ok(metadata) => files.found.push((path, metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => files.unknown.push(format!("{}: {error}", path.display())),
            }
        }
        files
    }
}

fn beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    files_of(path).chain([LOCK_FILE, RESERVE_FILE].map(|suffix| with_suffix(path, suffix)))
}

/// A store is used by one user, and what belongs to another keeps that one out, such as a lock that root
/// left.
pub(super) fn check_owners(config: &Config, path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "owners";
    // Another check says why it cannot be looked up.
    let Some(user) = fs::metadata(path).ok().as_ref().and_then(owner) else { return Ok(()) };
    let keys = config.secret_key_path().into_iter().chain(keyring::files(config));
    let files = Files::of(beside(path).chain(keys));
    let named = |path: &Path, owner: u32| format!("{} to user {owner}", path.display());
    let mut others = files.unknown;
    for (file, metadata) in &files.found {
        if let Some(owner) = owner(metadata).filter(|owner| *owner != user) {
            others.push(named(file, owner));
        }
    }
    let directory = directory_of(path);
    if let Ok(metadata) = fs::metadata(directory)
        && let Some(owner) = owner(&metadata).filter(|owner| *owner != user)
        // Where the store's user may not write, or where another may replace the files.
        && (owner != 0 || (user != 0 && mode(&metadata).is_some_and(|mode| mode & 0o022 == 0)))
    {
        others.push(named(directory, owner));
    }
    if others.is_empty() {
        let mut found = format!("the store and all that belongs to it are user {user}'s");
        if let Some(own) = this_user().filter(|own| *own != user) {
            found.push_str(&format!("; this is user {own}"));
        }
        return checkup.add(Finding::ok(CHECK, found));
    }
    let found = format!("the store belongs to user {user}, but {}", others.join(", "));
    let advice = format!("run `chown {user}` on them: each keeps the store's user out");
    checkup.add(if user == 0 {
        Finding::warn(CHECK, found, advice)
    } else {
        Finding::fail(CHECK, found, advice)
    })
}

pub(super) fn check_modes(path: &Path, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "file modes";
    let files = Files::of(beside(path));
    let is_of_store = |(file, _): &(PathBuf, Metadata)| file == path;
    if !files.unknown.is_empty() {
        let found = files.unknown.join(", ");
        return checkup.add(Finding::fail(CHECK, found, "let this process's user look at them"));
    }
    if !files.found.iter().any(is_of_store) {
        return Ok(());
    }
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for (file, metadata) in &files.found {
        let Some(mode) = mode(metadata).filter(|_| metadata.is_file()) else { continue };
        let shown = format!("{} ({:o})", file.display(), mode & 0o777);
        if mode & 0o077 != 0 {
            open.push(shown);
        } else if mode & 0o600 != 0o600 {
            closed.push(shown);
        }
    }
    if !open.is_empty() {
        let found = format!("open to others: {}", open.join(", "));
        return checkup.add(Finding::fail(CHECK, found, "run `chmod 600` on them"));
    }
    if !closed.is_empty() {
        // One such journal is enough for every write to fail.
        let found = format!("their owner may not write: {}", closed.join(", "));
        return checkup.add(Finding::warn(CHECK, found, "run `chmod 600` on all of them"));
    }
    checkup.add(Finding::ok(CHECK, "only their owner may read the store's files"))
}

/// The flag file decides which store and key are used, the key's directory which key is found: whoever
/// can write one of them decides that.
pub(super) fn check_influence(config: &Config, checkup: &mut Checkup<'_, '_>) -> Outcome {
    const CHECK: &str = "influence";
    let store = config.backend.path();
    let key = config.secret_key_path();
    let key_directory = key.as_deref().map(directory_of);
    let key_directory = key_directory.filter(|found| store.map(directory_of) != Some(*found));
    let trusted = [Some(0), this_user(), store.and_then(|store| owner(&fs::metadata(store).ok()?))];
    let decisive = config.flag_file.as_deref().into_iter().chain(key_directory);
    for path in decisive {
        // What cannot be looked up was not read, or another check says so.
        let Ok(metadata) = fs::metadata(path) else { continue };
        let owner = owner(&metadata);
        if let Some(mode) = writable_by_others(&metadata) {
            let found = format!("{} can be written by others (mode {mode:o})", path.display());
            let advice =
                "run `chmod go-w` on it: whoever writes it decides which store and key are used";
            checkup.add(Finding::warn(CHECK, found, advice))?;
        } else if let Some(user) = owner.filter(|_| !trusted.contains(&owner)) {
            let found = format!("{} belongs to user {user}", path.display());
            let advice = "whoever owns it decides which store and key are used: `chown` it";
            checkup.add(Finding::warn(CHECK, found, advice))?;
        }
    }
    Ok(())
}
