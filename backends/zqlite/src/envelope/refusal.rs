//! What is refused, and how it is said.

use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_crypto::sealing::Kind;
use ghostwire_store_crypto::{self as crypto, Damage};

use crate::head::Prefix;

pub(super) fn keyless(prefix: &Prefix) -> Error {
    Error::new(
        ErrorKind::Crypto,
        "the store is sealed; name its keyring, and set `zqlite.sealed = true`",
    )
    .with("store", prefix.side)
    .with("generation", prefix.generation)
}

/// A record that is sound, and not the one that belongs there now.
pub(crate) fn older(kind: Kind, number: u64) -> Error {
    damaged(kind, number, "of another moment: a later write of it got lost")
}

/// A record that is sound, and should not be there: it was deleted, or is another one's second.
pub(crate) fn unexpected(kind: Kind, number: u64) -> Error {
    damaged(kind, number, "duplicated, or was deleted and put back")
}

/// A record that is not there.
pub(crate) fn missing(kind: Kind, number: u64) -> Error {
    damaged(kind, number, "missing")
}

/// A record with the right tag and other bytes than those that were there when a key was given up that leaked.
pub(crate) fn of_another_content(kind: Kind, number: u64) -> Error {
    damaged(
        kind,
        number,
        "not the one that was there when the keys were rotated because of a leak: it was made by somebody \
         who has the key that leaked",
    )
}

pub(super) fn damaged(kind: Kind, number: u64, damage: &'static str) -> Error {
    let error =
        Error::corrupt(format!("a stored record is {damage}; restore the store from a backup"))
            .with("record", kind.name());
    match kind {
        Kind::Head | Kind::Signature => error,
        Kind::Row => error.with("slot", number),
        Kind::Block | Kind::Audit => error.with("serial", number),
        Kind::Chunk | Kind::Directory | Kind::Journal => error.with("number", number),
    }
}

/// What the crate that seals refuses, as a kind that says what to do.
pub(crate) fn refused(error: &crypto::Error) -> Error {
    match error {
        crypto::Error::Record { damage, kind, number } => {
            let refused = damaged(*kind, *number, damage.name());
            match damage {
                Damage::Moved { from } => refused.with("from", from),
                Damage::UnknownFormat { format } => refused.with("format", format),
                Damage::Foreign { version } => refused.with("version", version),
                _ => refused,
            }
        }
        crypto::Error::Random(_) | crypto::Error::Library(_) => {
            Error::new(ErrorKind::Unavailable, error.to_string())
        }
        _ => Error::new(ErrorKind::Crypto, error.to_string()),
    }
}
