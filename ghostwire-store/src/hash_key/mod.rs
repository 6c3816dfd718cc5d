//! The file with the key that hashes credentials: 32 bytes as hexadecimal text, 0600, outside the
//! database. Whoever loses it loses every API key, pre-auth key and session with it.

mod part;

use std::fmt::Write;
use std::io::Read;
use std::path::Path;

use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::HashKey;

use part::Part;

/// Longer files are not a key.
const MAX_BYTES: u64 = 1024;

/// Reads a key: 64 hexadecimal digits, white space around them.
///
/// # Errors
/// `NotFound`, `PermissionDenied`; `Crypto` if the file holds anything else, or if others than its
/// owner may read it.
pub fn read_hash_key(path: &Path) -> Result<HashKey> {
    let failed = |kind, message: &'static str| {
        Error::new(kind, message).with("secret_key_file", path.display())
    };
    let file = std::fs::File::open(path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        };
        failed(kind, "the hash key's file cannot be opened").because(error)
    })?;
    #[cfg(unix)]
    if let Ok(metadata) = file.metadata() {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(failed(
                ErrorKind::Crypto,
                "the hash key's file can be read by others; run `chmod 600` on it",
            ));
        }
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| {
        failed(ErrorKind::Crypto, "the hash key's file cannot be read as text").because(error)
    })?;
    let key = parse(text.trim());
    // Safe code cannot promise that no copy is left; it can keep this one short-lived.
    let mut bytes = text.into_bytes();
    bytes.fill(0);
    key.map(HashKey::new)
        .ok_or_else(|| failed(ErrorKind::Crypto, "the hash key's file must hold 64 hex digits"))
}

/// Makes a new key and its file. Whenever that is broken off, there is the whole file or none; a
/// file `<path>.<16 digits>.part` may be left then, which holds a key that was never used.
///
/// # Errors
/// `AlreadyExists` if there is such a file; `PermissionDenied`, `NotFound`, `Unavailable`.
pub fn create_hash_key(path: &Path, entropy: &dyn Entropy) -> Result<HashKey> {
    let (mut key, mut number) = ([0; 32], [0; 8]);
    entropy.fill(&mut key)?;
    entropy.fill(&mut number)?;
    let mut text = hexadecimal(&key);
    text.push('\n');
    let written = Part::begin(path, &hexadecimal(&number)).and_then(|mut part| {
        part.fill(text.as_bytes())?;
        part.publish()
    });
    let mut bytes = text.into_bytes();
    bytes.fill(0);
    written.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists { constraint: "path" },
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, "the hash key's file cannot be written")
            .with("secret_key_file", path.display())
            .because(error)
    })?;
    Ok(HashKey::new(key))
}

/// Whether an earlier release was broken off while it wrote the file, which it did in place.
pub(crate) fn is_cut_short(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() < 64)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len() + 1);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn parse(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use ghostwire_store_core::entropy::SystemEntropy;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = create_hash_key(&path, &SystemEntropy).unwrap();
        assert_eq!(read_hash_key(&path).unwrap().id(), made.id());
        assert!(create_hash_key(&path, &SystemEntropy).is_err());
    }

    #[test]
    fn a_file_with_anything_else_is_refused_without_showing_it() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("short", "abcd"), ("long", &"ab".repeat(40)), ("words", "hunter2")] {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            }
            let error = read_hash_key(&path).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::Crypto);
            assert!(!error.to_string().contains(text));
        }
    }

    /// Forgets what is in the making, as a kill does.
    #[test]
    fn whenever_it_is_broken_off_there_is_a_whole_key_or_none() {
        let text = "ab".repeat(32);
        for written in 0..=text.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("key");
            let mut part = Part::begin(&path, "0").unwrap();
            part.fill(&text.as_bytes()[..written]).unwrap();
            std::mem::forget(part);
            assert_eq!(*read_hash_key(&path).unwrap_err().kind(), ErrorKind::NotFound);
            let made = create_hash_key(&path, &SystemEntropy).unwrap();
            assert_eq!(read_hash_key(&path).unwrap().id(), made.id());
        }
    }

    #[test]
    fn a_key_that_is_there_is_never_replaced_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = create_hash_key(&path, &SystemEntropy).unwrap();
        for _ in 0..2 {
            let error = create_hash_key(&path, &SystemEntropy).map(drop).unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::AlreadyExists { constraint: "path" });
        }
        assert_eq!(read_hash_key(&path).unwrap().id(), made.id());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let missing = directory.path().join("missing/key");
        let error = create_hash_key(&missing, &SystemEntropy).map(drop).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create_hash_key(&path, &SystemEntropy).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(read_hash_key(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
