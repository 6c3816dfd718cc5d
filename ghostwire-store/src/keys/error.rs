//! What goes wrong with a keyring, as the store's errors.

use std::path::Path;

use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_crypto::Error as CryptoError;
use ghostwire_store_sqlite::failed;

/// What the crate says, with the keyring that it is about.
pub(super) fn of(keyring: &Path, error: CryptoError) -> Error {
    let kind = match error {
        CryptoError::Io { doing, path, error } => {
            return failed("the keyring's files cannot be used", &path, error).with("doing", doing);
        }
        CryptoError::Locked { .. } => ErrorKind::Busy,
        CryptoError::Refused { .. } => ErrorKind::Restricted,
        CryptoError::Invalid { .. } => ErrorKind::InvalidArgument,
        CryptoError::Newer { .. } => ErrorKind::Unsupported,
        CryptoError::Random(_) | CryptoError::Library(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Crypto,
    };
    Error::new(kind, error.to_string()).with("keyring", keyring.display())
}

/// A keyring that is not there. None is made anew beside a store: nothing of it would open.
pub(super) fn missing(keyring: &Path) -> Error {
    Error::new(
        ErrorKind::Crypto,
        "the store's keyring is not there, and without it nothing of the store can be read",
    )
    .with("keyring", keyring.display())
    .with("help", "put it back from its own backup, or name its place as keyring_file")
}
