//! What a set of entities was when it was read.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{Id, Revision, serde_as_text, shown};
use crate::error::{Error, Result};

/// Tells a set of entities from every other that could stand in its place: it changes with each
/// member that comes, goes or changes. Reads give it; a write that is given it makes sure that
/// nobody else changed the set meanwhile. As text 32 lower-case hexadecimal digits.
///
/// ```
/// use ghostwire_store::domain::{DnsRecordId, Fingerprint, Revision};
///
/// let id = DnsRecordId::from_bytes([7; 16]);
/// let read = Fingerprint::of([(id, Revision::FIRST)]);
/// assert_ne!(Fingerprint::of([(id, Revision::FIRST.next())]), read);
/// assert_eq!(read.to_string().parse::<Fingerprint>()?, read);
/// # Ok::<(), ghostwire_store_core::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// That of a set with these members, in whatever order they come.
    pub fn of<I: Id>(members: impl IntoIterator<Item = (I, Revision)>) -> Self {
        // An id is never used again and a revision never falls, so both together name a member as it is.
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_unstable();
        let mut hash = Sha256::new();
        for (id, revision) in members {
            hash.update(id.as_bytes());
            hash.update(revision.get().to_be_bytes());
        }
        let mut bytes = [0; 16];
        for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
            *byte = hashed;
        }
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| {
                Error::invalid("a fingerprint is 32 lower-case hexadecimal digits")
                    .with("fingerprint", shown(text))
            })
    }
}

serde_as_text!(Fingerprint);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::DnsRecordId;

    #[test]
    fn every_change_of_a_set_changes_its_fingerprint() {
        let [a, b] = [1, 2].map(|number| DnsRecordId::from_bytes([number; 16]));
        let first = Revision::FIRST;
        let second = first.next();
        let sets: [&[_]; 6] = [
            &[],
            &[(a, first)],
            &[(b, first)],
            &[(a, second)],
            &[(a, first), (b, first)],
            &[(a, first), (b, second)],
        ];
        let all: std::collections::HashSet<_> =
            sets.iter().map(|set| Fingerprint::of(set.iter().copied())).collect();
        assert_eq!(all.len(), sets.len());
        let both = [(a, first), (b, first)];
        assert_eq!(Fingerprint::of(both), Fingerprint::of(both.into_iter().rev()));
    }

    #[test]
    fn fingerprints_are_text() {
        let of_nothing = Fingerprint::of::<DnsRecordId>([]);
        assert_eq!(of_nothing.to_string(), "e3b0c44298fc1c149afbf4c8996fb924");
        let json = serde_json::to_string(&of_nothing).unwrap();
        assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), of_nothing);
        for bad in
            ["", "e3b0", "E3B0C44298FC1C149AFBF4C8996FB924", &"x".repeat(32), &"0".repeat(34)]
        {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
