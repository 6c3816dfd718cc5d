//! What a pin refuses, each with the numbers and the next step.

use ghostwire_store_core::block::Serial;
use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_crypto::Error as CryptoError;
use ghostwire_store_crypto::pin::{Mark, Verdict};

use crate::head::Stored;

/// The key of the advice in an error.
const HELP: &str = "help";

/// The pin cannot be asked or moved, or what it holds is no mark of this store.
pub(super) fn unusable(error: CryptoError) -> Error {
    let kind = match &error {
        CryptoError::Corrupt { .. } | CryptoError::OtherPinKey { .. } => ErrorKind::Corrupt,
        CryptoError::Newer { .. } => ErrorKind::Unsupported,
        CryptoError::Locked { .. } => ErrorKind::Busy,
        CryptoError::Invalid { .. } => ErrorKind::InvalidArgument,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the store's pin cannot be used").because(error)
}

/// Somebody else moved the pin.
pub(super) fn overtaken(error: CryptoError, epoch: u64) -> Error {
    Error::new(ErrorKind::Fenced { epoch }, "this store answers nothing more").because(error)
}

/// No pin is configured for a store that has one.
pub(super) fn unconfigured(stored: &Stored) -> Error {
    Error::invalid("the store has a pin, and none is configured")
        .with("serial", stored.head.serial)
        .with(
            HELP,
            "set `pin` to `commit` and name the pin's place; if it is lost, `gwstore pin init \
             --accept-missing` makes a new one",
        )
}

/// The store that was put back has another serial than the one that was accepted.
pub(super) fn other_serial(stored: &Stored, accepted: Serial) -> Error {
    Error::new(ErrorKind::Restricted, "the serial to accept is not the store's own")
        .with("serial", stored.head.serial)
        .with("accepted", accepted)
        .with(HELP, "`gwstore pin verify` shows it, and what is missing after it")
}

/// Why a store is not served; `None` if it is.
pub(super) fn refusal(
    verdict: Verdict,
    stored: &Stored,
    mark: Option<&Mark>,
    place: &str,
) -> Option<Error> {
    let serial = stored.head.serial;
    let corrupt = |message: &'static str| {
        let help = format!(
            "put the newest copy back; or, to go on without what is missing, \
             `gwstore pin accept --serial {serial}`"
        );
        Error::corrupt(message).with(HELP, help)
    };
    let error = match verdict {
        Verdict::Unpinned
        | Verdict::First
        | Verdict::Equal
        | Verdict::Ahead { .. }
        | Verdict::Accepted => return None,
        Verdict::RolledBack { by } => {
            corrupt("the store is rolled back: its pin knows of later commits").with("missing", by)
        }
        Verdict::Superseded { epoch } => {
            corrupt("the store is rolled back: its pin is of a later epoch").with("pin_epoch", epoch)
        }
        Verdict::Forked => {
            corrupt("the store is forked: it has another history than the one that its pin knows")
        }
        Verdict::Missing => Error::new(ErrorKind::Restricted, "the store's pin is missing").with(
            HELP,
            "put it back, or mount its device. If it is lost and this is the newest copy of the store, \
             `gwstore pin init --accept-missing` makes a new one",
        ),
        Verdict::OtherStore => Error::invalid("the pin is another store's")
            .with(HELP, "name the pin of this store, or a place where there is none yet"),
        Verdict::OtherSigner => Error::corrupt(
            "the pin is of a time when other keys signed the store than those of its keyring: one of \
             the three is of another time",
        )
        .with(
            HELP,
            format!(
                "put store, keyring and pin of one time back (after a leak the newest keyring follows from \
                 the pin); or go on with what is here: `gwstore pin accept --serial {serial}`"
            ),
        ),
    };
    let error = error.with("pin", place).with("serial", serial).with("commit", stored.commits);
    Some(match mark {
        Some(mark) => error
            .with("pin_serial", mark.serial)
            .with("pin_commit", mark.commit)
            .with("pin_signer", mark.signer),
        None => error,
    })
}
