//! `gwstore seal` and `gwstore unseal`.

use std::fs;
use std::path::{Path, PathBuf};

use ghostwire_store::Opener;
use ghostwire_store::config::Config;
use ghostwire_store::keys::Keys;
use ghostwire_store_sqlite::directory_of;
use serde_json::json;

use crate::failure::Outcome;
use crate::output::{Shell, shown};

pub(super) async fn seal(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let root = Keys::of(config).and_then(|keys| keys.development_root());
    let root = root.filter(|root| !root.exists());
    Opener::new(config).seal().await.map_err(|error| error.during("seal"))?;
    let (Some(keys), Some(path)) = (Keys::of(config), config.backend.path()) else { return Ok(()) };
    let plain = plain_copies(path);
    if shell.json {
        return shell.object(&json!({
            "path": path,
            "keyring": keys.path(),
            "root_secret_file": root,
            "plain": plain,
        }));
    }
    shell.say(format_args!("Sealed {} with the keyring {}", shown(path), shown(&keys.path())))?;
    super::keys::explain_root(&keys, root.as_deref(), shell)?;
    for copy in &plain {
        shell.caution(format_args!(
            "{} is as it was, and plain: remove it once you can",
            shown(copy)
        ));
    }
    shell.say("Blocks that the disk keeps of the old file, and backups elsewhere, are plain, too.")
}

pub(super) async fn unseal(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    Opener::new(config).unseal().await.map_err(|error| error.during("unseal"))?;
    let path = config.backend.path().unwrap_or(Path::new(""));
    if shell.json {
        return shell.object(&json!({ "path": path, "secret_key_file": config.secret_key_path() }));
    }
    shell.say(format_args!("{} is plain now: set zqlite.sealed = false to open it", shown(path)))
}

/// Copies that migrations left beside the store.
fn plain_copies(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let is_copy = |found: &Path| {
        let found = found.file_name().and_then(|found| found.to_str());
        found.and_then(|found| found.strip_prefix(name)).is_some_and(|end| end.starts_with(".v"))
    };
    let entries = fs::read_dir(directory_of(path)).into_iter().flatten().flatten();
    let mut copies: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| is_copy(path)).collect();
    copies.sort();
    copies
}
