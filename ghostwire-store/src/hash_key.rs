//! The file with the key that hashes credentials: 32 bytes as hexadecimal text, 0600, outside the
//! database. Whoever loses it loses every API key, pre-auth key and session with it.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;

use ghostwire_store_core::entropy::Entropy;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::secrets::HashKey;

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

/// Makes a new key and its file.
///
/// # Errors
/// `AlreadyExists` if there is such a file; `PermissionDenied`, `NotFound`, `Unavailable`.
pub fn create_hash_key(path: &Path, entropy: &dyn Entropy) -> Result<HashKey> {
    let mut key = [0; 32];
    entropy.fill(&mut key)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        for byte in key {
            write!(file, "{byte:02x}")?;
        }
        file.write_all(b"\n")?;
        file.sync_all()
    });
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
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // The name must survive a loss of power, too.
        let _ = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(HashKey::new(key))
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
#[allow(clippy::unwrap_used)]
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
