//! How the secrets of credentials were hashed.

use std::collections::BTreeMap;

use super::State;
use crate::domain::{KeyPrefix, SecretHash, SecretScheme};
use crate::error::{Error, Result};
use crate::secrets::is_too_costly;

/// A key that is known by the BLAKE3 hash of its text is found by the beginning of that hash, and by
/// nothing else.
pub(super) fn check_found_by_hash(hash: &SecretHash, prefix: Option<&KeyPrefix>) -> Result<()> {
    match hash.as_blake3() {
        Some(hash) if prefix != Some(&KeyPrefix::of_blake3(hash)) => Err(Error::invalid(
            "the public part of a key with a BLAKE3 hash must be `b3-` and the hash's first 24 digits",
        )),
        _ => Ok(()),
    }
}

/// How many API keys, pre-auth keys and sessions were hashed in which way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialHashes {
    /// With a hash key, by its id.
    pub keyed: BTreeMap<[u8; 4], u64>,
    /// With bcrypt: imported, and not used since.
    pub bcrypt: u64,
    /// Those of them whose cost is too great for them ever to be checked.
    pub too_costly: u64,
    /// With BLAKE3: imported, and not used since.
    pub blake3: u64,
}

impl CredentialHashes {
    /// Those of a state. Takes time in proportion to all of them.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let mut hashes = Self::default();
        state.api_keys().iter().for_each(|key| hashes.add(&key.hash));
        state.preauth_keys().iter().for_each(|key| hashes.add(&key.hash));
        state.sessions().iter().for_each(|session| hashes.add(&session.hash));
        hashes
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.keyed.values().sum::<u64>() + self.imported()
    }

    /// Those that anybody can make, without a hash key.
    #[must_use]
    pub fn imported(&self) -> u64 {
        self.bcrypt + self.blake3
    }

    /// What there is more of than `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = |(id, count): (&[u8; 4], &u64)| {
            let known = before.keyed.get(id).copied().unwrap_or_default();
            Some((*id, count.checked_sub(known).filter(|more| *more > 0)?))
        };
        Self {
            keyed: self.keyed.iter().filter_map(more).collect(),
            bcrypt: self.bcrypt.saturating_sub(before.bcrypt),
            too_costly: self.too_costly.saturating_sub(before.too_costly),
            blake3: self.blake3.saturating_sub(before.blake3),
        }
    }

    fn add(&mut self, hash: &SecretHash) {
        match hash.scheme() {
            SecretScheme::Hmac { key_id } => *self.keyed.entry(key_id).or_default() += 1,
            SecretScheme::Blake3 => self.blake3 += 1,
            SecretScheme::Bcrypt => {
                self.bcrypt += 1;
                self.too_costly += u64::from(is_too_costly(hash));
            }
        }
    }
}
