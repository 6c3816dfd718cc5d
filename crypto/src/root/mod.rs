//! The root secret: what unlocks a keyring when a store is opened, and where it is kept.
//!
//! It is an identity, a line `AGE-SECRET-KEY-PQ-1…` as `age-keygen -pq` writes it, or a passphrase
//! that becomes one. It comes from a [`Place`], or from whatever else implements [`KeySource`].

mod place;

use std::fmt;

use async_trait::async_trait;

use crate::error::{Error, Result, RootFault};
use crate::keyring::{Identity, Unlock};
use crate::secret::Locked;

pub use place::Place;

/// Longer contents are no root secret, and are not read.
const LONGEST: usize = 4096;

/// What unlocks a keyring.
pub enum RootSecret {
    /// The identity of a recipient.
    Identity(Identity),
    /// A passphrase; the keyring's header says how it becomes an identity.
    Passphrase(Passphrase),
}

impl RootSecret {
    /// To open a keyring with.
    #[must_use]
    pub fn unlock(&self) -> Unlock<'_> {
        match self {
            Self::Identity(identity) => Unlock::Identity(identity),
            Self::Passphrase(passphrase) => Unlock::Passphrase(passphrase.expose()),
        }
    }
}

impl RootSecret {
    /// The identity in the content of a file as `age-keygen -pq` writes it: its line, and perhaps blank
    /// lines and comments, which begin with `#`, around it. What the line has behind its prefix decides
    /// nothing but the outcome: its length is known, so nobody looks for its end.
    ///
    /// # Errors
    /// `Invalid`. What was given is not repeated.
    pub fn from_identity_file(content: &[u8]) -> Result<Self> {
        identity_in(content).map(Self::Identity).map_err(|why| Error::invalid("root secret", why))
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.unlock().fmt(f)
    }
}

/// A passphrase: 1 to 4,095 bytes.
pub struct Passphrase {
    content: Content,
    length: usize,
}

impl Passphrase {
    /// A copy of these bytes, for whoever zeroizes them.
    ///
    /// # Errors
    /// `Invalid` if there is none, or there are too many.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let invalid = || Error::invalid("passphrase", "it is 1 to 4095 bytes long");
        let mut content: Content = Locked::zeros();
        let room = content.bytes_mut().get_mut(..bytes.len());
        let room = room.filter(|room| !room.is_empty() && room.len() < LONGEST);
        room.ok_or_else(invalid)?.copy_from_slice(bytes);
        Ok(Self { content, length: bytes.len() })
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.content.bytes().get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Gives the root secret when a store is opened: a place on this machine, or a key management
/// service that is asked for it. It is asked once each time a store is opened and never by a store
/// that is open, so a service that is gone later stops nothing.
#[async_trait]
pub trait KeySource: fmt::Debug + Send + Sync {
    /// What it is called in messages, such as `the file /etc/ghostwire/root`. No secret.
    fn name(&self) -> String;

    /// The root secret. Whoever opens a store waits for it a limited time only.
    ///
    /// # Errors
    /// [`Error::Root`] with what is wrong. No error repeats what it found.
    async fn root_secret(&self) -> Result<RootSecret>;
}

/// What was read from a place: at most so many bytes, and zeros behind them.
type Content = Locked<LONGEST>;

fn identity_in(content: &[u8]) -> Result<Identity, &'static str> {
    const NONE: &str = "it has no line AGE-SECRET-KEY-PQ-1…";
    let line = line_in(content)?;
    Identity::from_text(line).map_err(|_| NONE)
}

/// The line of an identity, whose symbols are not looked at.
pub(crate) fn line_in(content: &[u8]) -> Result<&[u8], &'static str> {
    const NONE: &str = "it has no line AGE-SECRET-KEY-PQ-1…";
    let rest = skip_comments(content);
    let line = rest.get(..Identity::TEXT_LENGTH).ok_or(NONE)?;
    let behind = rest.get(Identity::TEXT_LENGTH..).unwrap_or_default();
    if behind.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
        return Err(NONE);
    }
    if !skip_comments(behind).is_empty() {
        return Err("it has more than one line AGE-SECRET-KEY-PQ-1…");
    }
    Ok(line)
}

/// What is behind blanks, blank lines and comments.
fn skip_comments(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        if text.first() != Some(&b'#') {
            return text;
        }
        let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
        text = text.get(end..).unwrap_or_default();
    }
}

/// The passphrase in the first `length` bytes: all of them but line ends behind it.
fn passphrase_in(content: Content, length: usize) -> Result<Passphrase, &'static str> {
    let text = content.bytes().get(..length).unwrap_or_default();
    let ends = text.iter().rev().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    match length - ends {
        0 => Err("it is empty"),
        length => Ok(Passphrase { content, length }),
    }
}

fn malformed(place: &dyn KeySource, why: &'static str) -> Error {
    Error::Root { place: place.name(), fault: RootFault::Malformed { why } }
}

#[cfg(test)]
mod tests;
