//! Under which names a store keeps its files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::{directory_of, with_suffix};

/// SQLite's own files beside a store's, by what is appended to its name. The log, the first, holds
/// acknowledged commits.
pub const ENGINE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Of a zqlite store on the native engine: the library's database.
pub const NATIVE_FILE: &str = ".native";

/// What that is called until it is whole.
pub const NEW_NATIVE_FILE: &str = ".native.new";

/// The lock of the process that has it open. It stays.
pub const NATIVE_LOCK_FILE: &str = ".native.lock";

/// The lock of the process that opens it. It stays, too.
pub const NATIVE_OPENING_FILE: &str = ".native.opening";

/// That database, the library's own files beside it, and those of SQLite, for the double that stands in
/// for the library.
const NATIVE_FILES: [&str; 6] = ["", "-wal", "-lock", "-writer", "-journal", "-shm"];

/// Of such a store: what the self-test of the library found, and the test's scratch directory.
pub const VERDICT_FILE: &str = ".verdict";
/// Likewise.
pub const TEST_DIRECTORY: &str = ".native-test";

/// The file that keeps other processes out.
pub const LOCK_FILE: &str = ".lock";

/// The hash key's file, where no other place is configured.
pub const KEY_FILE: &str = ".key";

/// The keyring of a sealed store, where no other place is configured. [`KEYRING_FILES`] lie beside it.
pub const KEYRING_FILE: &str = ".keyring";

/// What lies beside a keyring: its lock, the next one until it takes its place, and the sign that its
/// store is still to be made.
pub const KEYRING_FILES: [&str; 3] = [".lock", ".new", ".unused"];

/// The root secret of a store that was made in development.
pub const ROOT_FILE: &str = ".root";

/// The admin socket of a store that is open, and what it is called until it is ready.
pub const SOCKET_FILE: &str = ".sock";
const UNREADY_SOCKET: &str = ".sock.new";

/// Room that is kept for a full disk.
pub const RESERVE_FILE: &str = ".reserve";

/// A smaller copy that is to take the store's place.
pub const COPY_FILE: &str = ".compact.part";

/// What the names of files begin with that commands write, until they are whole.
pub const EXPORT_PREFIX: &str = ".gwstore-";

/// What the names of directories begin with in which the conformance suite makes stores.
pub const SCRATCH_PREFIX: &str = "ghostwire-conformance-";

/// Whether a store keeps a file whose name is its own with this appended. **Every file that a store
/// makes beside itself belongs here**: nothing that is named so is ever replaced by an export. Its
/// copies are opened as stores, which have such files of their own.
fn is_kept(suffix: &str) -> bool {
    let is_of_copy = |at| {
        let (copy, rest) = suffix.split_at_checked(at)?;
        let is_copy = copy == COPY_FILE || is_backup(copy).unwrap_or(false);
        Some(is_copy && is_kept(rest))
    };
    ENGINE_FILES.contains(&suffix)
        || [NATIVE_FILE, NEW_NATIVE_FILE]
            .iter()
            .filter_map(|kept| suffix.strip_prefix(kept))
            .any(|rest| NATIVE_FILES.contains(&rest))
        || [NATIVE_LOCK_FILE, NATIVE_OPENING_FILE].contains(&suffix)
        || suffix.strip_prefix(VERDICT_FILE).is_some_and(|rest| ["", ".part"].contains(&rest))
        || suffix == TEST_DIRECTORY
        || [LOCK_FILE, KEY_FILE, KEYRING_FILE, ROOT_FILE, RESERVE_FILE, COPY_FILE].contains(&suffix)
        || [SOCKET_FILE, UNREADY_SOCKET].contains(&suffix)
        || suffix.strip_prefix(KEYRING_FILE).is_some_and(|rest| KEYRING_FILES.contains(&rest))
        || (1..suffix.len()).any(|at| is_of_copy(at).unwrap_or(false))
        || [KEY_FILE, ROOT_FILE]
            .iter()
            .filter_map(|kept| suffix.strip_prefix(kept))
            .any(|rest| rest.starts_with('.') && rest.ends_with(".part"))
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
/// whose own file it would be, and then the others by the length of their names.
pub fn possible_stores_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let splits = name.char_indices().filter_map(move |(at, _)| name.split_at_checked(at));
    let stores = splits.filter(|(store, suffix)| !store.is_empty() && is_kept(suffix));
    std::iter::once(file.to_owned()).chain(stores.map(|(store, _)| file.with_file_name(store)))
}

/// Whether a store keeps something else than a hash key under this name.
#[must_use]
pub fn is_beside(store: &Path, file: &Path) -> bool {
    let (store, file) = (resolved(store), resolved(file));
    let is_key = file.as_os_str().as_encoded_bytes().ends_with(KEY_FILE.as_bytes());
    store == file || (!is_key && possible_stores_of(&file).any(|found| found == store))
}

/// Whether a file of this name is in the making beside the store of that name, or was left by what was
/// broken off: a backup, a smaller copy, a key, an export, scratch stores of the conformance suite.
#[must_use]
pub fn is_unfinished(store: &OsStr, name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let beside = name.strip_prefix(store.as_encoded_bytes());
    beside.is_some_and(|suffix| {
        suffix.ends_with(b".part") || suffix.starts_with(COPY_FILE.as_bytes())
    }) || [EXPORT_PREFIX, SCRATCH_PREFIX].iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Without symbolic links, also if there is no such file yet.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let in_directory = || {
        let directory = directory_of(path).canonicalize().ok()?;
        Some(directory.join(path.file_name()?))
    };
    path.canonicalize().ok().or_else(in_directory).unwrap_or_else(|| path.to_owned())
}

/// The library's files of a store on the native engine.
pub fn native_files_of(store: &Path) -> impl Iterator<Item = PathBuf> {
    native_files(with_suffix(store, NATIVE_FILE))
}

/// The same, of one that is being made.
pub fn new_native_files_of(store: &Path) -> impl Iterator<Item = PathBuf> {
    native_files(with_suffix(store, NEW_NATIVE_FILE))
}

fn native_files(native: PathBuf) -> impl Iterator<Item = PathBuf> {
    NATIVE_FILES.into_iter().map(move |suffix| with_suffix(&native, suffix))
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
        let store = Some(&Ok(PathBuf::from("s.db")));
        for suffix in [
            "-wal",
            "-shm",
            "-journal",
            ".native",
            ".native-wal",
            ".native-writer",
            ".native.new",
            ".native.new-wal",
            ".native.lock",
            ".native.opening",
            ".verdict",
            ".verdict.part",
            ".native-test",
            ".lock",
            ".key",
            ".key.0123456789abcdef.part",
            ".keyring",
            ".keyring.lock",
            ".keyring.new",
            ".keyring.unused",
            ".root",
            ".root.0123456789abcdef.part",
            ".reserve",
            ".sock",
            ".sock.new",
            ".compact.part",
            ".v1.bak",
            ".v12.bak.3",
            ".v1.bak.part",
            ".v1.bak.2.part",
            ".compact.part-wal",
            ".compact.part-journal",
            ".compact.part.lock",
        ] {
            assert_eq!(stores(&format!("s.db{suffix}")).first(), store, "{suffix}");
        }
        for other in
            ["s.db", "-wal", ".lock", "s.db-wall", "s.db.v.bak", "s.db.v1.bak.x", "s.jsonl"]
        {
            assert_eq!(stores(other), [], "{other}");
        }
        // A copy is a store of its own.
        for copy in ["s.db.v1.bak", "s.db.compact.part"] {
            let both = ["s.db", copy].map(|name| Ok(PathBuf::from(name)));
            assert_eq!(stores(&format!("{copy}-wal")), both);
        }
    }

    #[test]
    fn what_is_broken_off_is_known_by_its_name() {
        let is = |name: &str| is_unfinished(OsStr::new("s.db"), OsStr::new(name));
        for left in [
            "s.db.v1.bak.part",
            "s.db.compact.part",
            "s.db.compact.part.lock",
            "s.db.key.0123456789abcdef.part",
            ".gwstore-Xy12",
            "ghostwire-conformance-Xy12",
        ] {
            assert!(is(left), "{left}");
        }
        for other in ["s.db", "s.db-wal", "s.db.lock", "s.db.v1.bak", "other.part", "gwstore-x"] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_key_has_no_name_that_the_store_uses() {
        let store = Path::new("/nowhere/s.db");
        for name in [
            "s.db",
            "s.db-wal",
            "s.db.lock",
            "s.db.reserve",
            "s.db.v1.bak",
            "s.db.v1.bak.part-journal",
            "s.db.compact.part-wal",
            "s.db.compact.part.lock",
        ] {
            assert!(is_beside(store, &store.with_file_name(name)), "{name}");
        }
        for name in ["s.db.key", "s.db.v1.bak.key", "t.db", "t.db.lock", "s.db.old"] {
            assert!(!is_beside(store, &store.with_file_name(name)), "{name}");
        }
        assert!(!is_beside(store, Path::new("/elsewhere/s.db-wal")));
    }
}
