//! Under which names a store keeps its files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::with_suffix;

/// SQLite's own files beside a store's, by what is appended to its name. The log, the first, holds
/// acknowledged commits.
pub const ENGINE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The file that keeps other processes out.
pub const LOCK_FILE: &str = ".lock";

/// The hash key's file, where no other place is configured.
pub const KEY_FILE: &str = ".key";

/// Room that is kept for a full disk.
pub const RESERVE_FILE: &str = ".reserve";

/// A smaller copy that is to take the store's place.
pub(crate) const COPY_FILE: &str = ".compact.part";

/// Whether a store keeps a file whose name is its own with this appended. **Every file that a store
/// makes beside itself belongs here**: nothing that is named so is ever replaced by an export.
fn is_kept(suffix: &str) -> bool {
    ENGINE_FILES.contains(&suffix)
        || [LOCK_FILE, KEY_FILE, RESERVE_FILE, COPY_FILE].contains(&suffix)
        || suffix
            .strip_prefix(KEY_FILE)
            .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".part"))
        || is_backup(suffix).unwrap_or(false)
}

/// `.v<version>.bak`, then perhaps `.<number>`, then perhaps `.part`.
fn is_backup(suffix: &str) -> Option<bool> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (version, rest) = suffix.strip_prefix(".v")?.split_once(".bak")?;
    let rest = rest.strip_suffix(".part").unwrap_or(rest);
    let is_counted = rest.is_empty() || rest.strip_prefix('.').is_some_and(is_number);
    Some(is_number(version) && is_counted)
}

/// The stores that would keep a file under this name, whether they are there or not: first the one
/// whose own file it would be.
pub fn possible_stores_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let splits = name.char_indices().filter_map(move |(at, _)| name.split_at_checked(at));
    let stores = splits.filter(|(store, suffix)| !store.is_empty() && is_kept(suffix));
    std::iter::once(file.to_owned()).chain(stores.map(|(store, _)| file.with_file_name(store)))
}

/// The store's file and SQLite's files beside it.
pub fn files_of(store: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = ENGINE_FILES.into_iter().map(|suffix| with_suffix(store, suffix));
    std::iter::once(store.to_owned()).chain(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_store() {
        let stores = |name: &str| -> Vec<_> {
            let file = Path::new("/data").join(name);
            let found = possible_stores_of(&file).skip(1);
            found.map(|path| path.strip_prefix("/data").map(Path::to_owned)).collect()
        };
        let store = [Ok(PathBuf::from("s.db"))];
        for suffix in [
            "-wal",
            "-shm",
            "-journal",
            ".lock",
            ".key",
            ".key.0123456789abcdef.part",
            ".reserve",
            ".compact.part",
            ".v1.bak",
            ".v12.bak.3",
            ".v1.bak.part",
            ".v1.bak.2.part",
        ] {
            assert_eq!(stores(&format!("s.db{suffix}")), store, "{suffix}");
        }
        for other in
            ["s.db", "-wal", ".lock", "s.db-wall", "s.db.v.bak", "s.db.v1.bak.x", "s.jsonl"]
        {
            assert_eq!(stores(other), [], "{other}");
        }
        // A backup is a store of its own.
        assert_eq!(stores("s.db.v1.bak-wal"), [Ok(PathBuf::from("s.db.v1.bak"))]);
    }
}
