//! Verdicts by which stores on the double are opened.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

/// How much a verdict has to come from: `Effort::FULL` of the self-test.
const FULL: [(&str, u32); 3] =
    [("kills_in_transaction", 200), ("kills_in_commit", 500), ("rows", 50_000)];

/// Writes the verdict of a short self-test as if as much had been tried as a store needs. Only a full test,
/// which takes minutes, can keep one; `path` is where the store's is looked for.
///
/// # Errors
/// `InvalidData` if it is no verdict of a self-test; those of the file system.
pub fn vouch(verdict: &impl Serialize, path: &Path) -> io::Result<()> {
    let mut text = serde_json::to_value(verdict)?;
    for (key, number) in FULL {
        let Some(tried) = text.get_mut(key) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the verdict for {} does not say {key}", path.display()),
            ));
        };
        *tried = number.into();
    }
    fs::write(path, serde_json::to_vec_pretty(&text)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}
