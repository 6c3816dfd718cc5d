//! `gwstore seal` and `gwstore unseal`.

use std::path::Path;

use ghostwire_store::Opener;
use ghostwire_store::config::Config;
use ghostwire_store::keys::Keys;
use serde_json::json;

use crate::cli::UnsealArgs;
use crate::confirm::{self, Advice};
use crate::failure::Outcome;
use crate::output::{Shell, shown};

pub(super) async fn seal(config: &Config, shell: &mut Shell<'_>) -> Outcome {
    let root = Keys::of(config).and_then(|keys| keys.development_root());
    let root = root.filter(|root| !root.exists());
    Opener::new(config).seal().await.map_err(|error| error.during("seal"))?;
    let (Some(keys), Some(path)) = (Keys::of(config), config.backend.path()) else { return Ok(()) };
    let plain = Opener::new(config).plaintext_beside().await?;
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

pub(super) async fn unseal(config: &Config, args: &UnsealArgs, shell: &mut Shell<'_>) -> Outcome {
    if !args.yes {
        let path = config.backend.path().map(shown).unwrap_or_default();
        let question = format!("Shall {path} be plain, for whoever has the file?");
        confirm::ask(&question, Advice::Confirm, shell)?;
    }
    Opener::new(config).unseal().await.map_err(|error| error.during("unseal"))?;
    let path = config.backend.path().unwrap_or(Path::new(""));
    if shell.json {
        return shell.object(&json!({ "path": path, "secret_key_file": config.secret_key_path() }));
    }
    shell.say(format_args!("{} is plain now: set zqlite.sealed = false to open it", shown(path)))
}
