//! What can go wrong. No error ever holds a secret, or what was sealed.

use std::fmt;
use std::path::PathBuf;

use crate::keyring::Fingerprint;
use crate::pin::Mark;
use crate::sealing::Kind;
use crate::wire::hex;

/// Shorthand for a result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for each thing that somebody can do about it a variant of its own.
///
/// New ones may be added, hence `non_exhaustive`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system gave no randomness.
    Random(String),
    /// A primitive failed that does not fail on any input: memory ran out, most likely.
    Library(&'static str),
    /// The root secret cannot be had.
    Root {
        /// Where it should be, for people.
        place: String,
        /// What is wrong.
        fault: RootFault,
    },
    /// A passphrase that does not unlock the keyring.
    WrongKey {
        /// Whom the keyring is sealed to.
        recipients: Vec<Fingerprint>,
    },
    /// An identity that the keyring is not sealed to.
    WrongRecipient {
        /// The identity's own.
        presented: Fingerprint,
        /// Whom the keyring is sealed to.
        recipients: Vec<Fingerprint>,
    },
    /// A key's version that the keyring had once and has no more, or a record names one.
    MissingVersion {
        /// Of the data key.
        version: u32,
    },
    /// Bytes that no program wrote like this.
    Corrupt {
        /// What they should be.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A keyring, pin or record of another store.
    Foreign {
        /// What it is.
        what: &'static str,
        /// The store that it names, if it does.
        found: Option<[u8; 16]>,
        /// The store that it should belong to.
        expected: [u8; 16],
    },
    /// A keyring that was put together of parts of others.
    Spliced {
        /// The part that does not belong to the rest.
        part: &'static str,
    },
    /// A keyring from before a change that the store has already seen.
    Older {
        /// The keyring's generation.
        found: u64,
        /// The least one that the store needs.
        needed: u64,
    },
    /// Written by a later program, in a form that this one does not know.
    Newer {
        /// What it is.
        what: &'static str,
        /// The form that it names.
        found: String,
    },
    /// A record that does not open.
    Record {
        /// What is wrong with it.
        damage: Damage,
        /// What it should be.
        kind: Kind,
        /// Its number.
        number: u64,
    },
    /// A signature that does not hold.
    Unsigned {
        /// What should be signed.
        what: &'static str,
        /// Which check failed.
        why: &'static str,
    },
    /// A value that breaks a limit or a rule.
    Invalid {
        /// What it is for.
        what: &'static str,
        /// The rule.
        why: String,
    },
    /// A change of a keyring that cannot be made now.
    Refused {
        /// The change.
        what: &'static str,
        /// Why, and what to do.
        why: &'static str,
    },
    /// The pin holds a mark by another key than the store's: of a time before a rotation that replaced it, or
    /// after one; or somebody made it up.
    OtherPinKey {
        /// What it says, which nothing vouches for.
        mark: Box<Mark>,
    },
    /// The pin holds another mark than the one to advance from: somebody else runs this store, or a
    /// copy of it.
    Fenced {
        /// The commit that the pin stands at, if it has any.
        holds: Option<u64>,
        /// The commit that it was to advance from.
        expected: Option<u64>,
    },
    /// The pin cannot be asked.
    PinUnavailable {
        /// Why.
        why: String,
    },
    /// Another process uses the file.
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// A file or process could not be used.
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Why a root secret cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootFault {
    /// Nothing is there.
    Missing,
    /// Others than its owner may read or write the file.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else is there.
    Malformed {
        /// What is wrong with it.
        why: &'static str,
    },
    /// It cannot be read, or who has it does not answer.
    Unavailable {
        /// Why.
        why: String,
    },
}

impl fmt::Display for RootFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not there; put it back, or name its place"),
            Self::Exposed { path, mode } => write!(
                f,
                "can be read or written by others (mode {mode:04o}); run `chmod 600 {}`",
                path.display()
            ),
            Self::Malformed { why } => write!(f, "is not one: {why}"),
            Self::Unavailable { why } => write!(f, "cannot be had: {why}"),
        }
    }
}

/// What is wrong with a record. Each has its own name, by which it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Damage {
    /// The bytes are not what was sealed, or were sealed as something else.
    Altered,
    /// Sealed with this key, for another place.
    Moved {
        /// The place's number.
        from: u64,
    },
    /// Too short to be a record.
    Truncated,
    /// Not in a form that this program knows.
    UnknownFormat {
        /// The byte it begins with.
        format: u8,
    },
    /// Sealed under a version that the store never had.
    Foreign {
        /// The version that it names.
        version: u32,
    },
    /// Opened, but its length or filling is not as it is written.
    Misshapen,
}

impl Damage {
    /// The name that tools print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Moved { .. } => "moved",
            Self::Truncated => "truncated",
            Self::UnknownFormat { .. } => "unknown format",
            Self::Foreign { .. } => "foreign",
            Self::Misshapen => "misshapen",
        }
    }
}

impl Error {
    pub(crate) const fn corrupt(what: &'static str, why: &'static str) -> Self {
        Self::Corrupt { what, why }
    }

    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }
}

fn list(f: &mut fmt::Formatter<'_>, recipients: &[Fingerprint]) -> fmt::Result {
    for (place, recipient) in recipients.iter().enumerate() {
        write!(f, "{}{recipient}", if place == 0 { "" } else { ", " })?;
    }
    Ok(())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(why) => {
                write!(f, "the operating system gave no random bytes ({why}); nothing was written")
            }
            Self::Library(what) => write!(f, "{what} failed; is there enough memory?"),
            Self::Root { place, fault } => write!(f, "the root secret ({place}) {fault}"),
            Self::WrongKey { recipients } => {
                f.write_str("the passphrase does not unlock this keyring, which is sealed to ")?;
                list(f, recipients)?;
                f.write_str("; use the passphrase that was set last, or an identity of these")
            }
            Self::WrongRecipient { presented, recipients } => {
                write!(
                    f,
                    "the identity of {presented} does not unlock this keyring, which is sealed to "
                )?;
                list(f, recipients)?;
                f.write_str("; use an identity of these")
            }
            Self::MissingVersion { version } => write!(
                f,
                "version {version} of the data key is not in the keyring: it was destroyed; \
                 what only it sealed needs a keyring from before that"
            ),
            Self::Corrupt { what, why } => {
                write!(f, "the {what} is damaged ({why}); put back a copy of it")
            }
            Self::Foreign { what, found, expected } => {
                write!(f, "the {what} belongs to ")?;
                match found {
                    Some(found) => write!(f, "store {}", hex(found))?,
                    None => f.write_str("another store")?,
                }
                write!(f, ", not to {}; name the one of this store", hex(expected))
            }
            Self::Spliced { part } => write!(
                f,
                "the keyring was put together of parts that do not belong to each other ({part}); \
                 somebody changed it: put back a copy of it, and find out who"
            ),
            Self::Older { found, needed } => write!(
                f,
                "the keyring is of generation {found}, but this store needs {needed} or later; \
                 put back the newest copy of it"
            ),
            Self::Newer { what, found } => {
                write!(
                    f,
                    "the {what} is of form {found}, which a later program wrote; use that one"
                )
            }
            Self::Record { damage, kind, number } => {
                write!(f, "{kind} {number} is {}", damage.name())?;
                match damage {
                    Damage::Moved { from } => write!(f, " from {from}")?,
                    Damage::UnknownFormat { format } => write!(f, " ({format})")?,
                    Damage::Foreign { version } => {
                        write!(f, " (version {version} of a key that this store never had)")?;
                    }
                    Damage::Altered | Damage::Truncated | Damage::Misshapen => {}
                }
                f.write_str("; restore the store from a backup")
            }
            Self::Unsigned { what, why } => {
                write!(f, "the {what} is not signed by the key that it names ({why})")
            }
            Self::Invalid { what, why } => write!(f, "{what}: {why}"),
            Self::Refused { what, why } => write!(f, "cannot {what}: {why}"),
            Self::OtherPinKey { mark } => write!(
                f,
                "the pin is by another key than the store's (it names the signer {} and commit {}): pin and \
                 keyring are of different times, or it was altered",
                mark.signer, mark.commit
            ),
            Self::Fenced { holds, expected } => {
                f.write_str("the pin stands at ")?;
                commit(f, *holds)?;
                f.write_str(", not at ")?;
                commit(f, *expected)?;
                f.write_str(
                    ": another process or a copy of this store runs; stop one of them, and open this one again",
                )
            }
            Self::PinUnavailable { why } => {
                write!(f, "the pin cannot be asked ({why}); no write is accepted until it can")
            }
            Self::Locked { path } => {
                write!(
                    f,
                    "{} is in use by another process; try again when it has ended",
                    path.display()
                )
            }
            Self::Io { doing, path, error } => write!(f, "{doing} {}: {error}", path.display()),
        }
    }
}

fn commit(f: &mut fmt::Formatter<'_>, commit: Option<u64>) -> fmt::Result {
    match commit {
        Some(commit) => write!(f, "commit {commit}"),
        None => f.write_str("no commit"),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
