//! Sealing the records of one commit.

use std::fmt;

use crate::aead::{Key, inner_nonce};
use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::random::{Random, draw};
use crate::sealing::frame::{Bound, PLACE, Tag, write_before};
use crate::sealing::padding::padded;
use crate::sealing::{FRAME, Kind, SealingKeys};

/// Seals the records of one commit, then is dropped.
///
/// Its nonces begin with 16 bytes drawn for it and end with a count of its records. No part of them
/// depends on anything that a file holds, so that no older copy of a store, no crash and no clone
/// makes one come twice.
pub struct CommitSealer {
    keys: SealingKeys,
    version: u32,
    prefix: [u8; 16],
    sealed: u64,
    bound: Bound,
    /// Made when first needed: HChaCha20 once a kind and commit.
    extended: [Option<Key>; 8],
}

impl CommitSealer {
    /// Draws the nonces' beginning: SHA-256 over 32 bytes of the operating system, the hash of the
    /// commit's block (zeros if it has none) and the wall clock in microseconds, cut to 16 bytes.
    /// The latter two only help where the first fails: a machine that is resumed twice from one
    /// image of its memory.
    ///
    /// # Errors
    /// `Random` if there is no randomness.
    pub fn new(
        keys: &SealingKeys,
        block_hash: &[u8; 32],
        clock: u64,
        random: &dyn Random,
    ) -> Result<Self> {
        let drawn: [u8; 32] = draw(random)?;
        let digest = sha256(&[&drawn, block_hash, &clock.to_be_bytes()]);
        let mut prefix = [0; 16];
        prefix.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Ok(Self {
            version: keys.active(),
            bound: Bound::new(keys.store()),
            keys: keys.clone(),
            prefix,
            sealed: 0,
            extended: [const { None }; 8],
        })
    }

    /// The version that it seals under.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Appends a sealed record to `into`: the parts of its content, one behind the other, for this
    /// kind and number. `prefix` stands in plain beside it and is bound to it (that of a head;
    /// otherwise nothing). The content is copied once, to where it is sealed.
    ///
    /// # Errors
    /// `Invalid` for more than 4 GiB; `Library` if sealing fails. `into` then is as it was.
    pub fn seal(
        &mut self,
        kind: Kind,
        number: u64,
        prefix: &[u8],
        content: &[&[u8]],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        let length = content.iter().map(|part| part.len()).sum();
        let stated = u32::try_from(length).map_err(|_| {
            Error::invalid("record", format!("its {length} bytes are more than 4 GiB"))
        })?;
        let start = into.len();
        let padded = padded(kind, length);
        into.reserve(FRAME + padded);
        write_before(self.version, &self.prefix, self.sealed, into);
        let sealed = into.len();
        into.extend(number.to_be_bytes());
        into.extend(stated.to_be_bytes());
        for part in content {
            into.extend_from_slice(part);
        }
        into.resize(sealed + padded.max(PLACE + length), 0);
        let tag = self.seal_in_place(kind, prefix, into.get_mut(sealed..).unwrap_or_default());
        match tag {
            Ok(tag) => {
                into.extend(tag);
                Ok(Tag(tag))
            }
            Err(error) => {
                into.truncate(start);
                Err(error)
            }
        }
    }

    fn seal_in_place(&mut self, kind: Kind, prefix: &[u8], plain: &mut [u8]) -> Result<[u8; 16]> {
        let counter = self.sealed;
        // Used up even if sealing fails.
        self.sealed = counter.checked_add(1).ok_or(Error::Library("counting records"))?;
        let Some(place) = self.extended.get_mut(kind.place()) else {
            return Err(Error::Library("a key for each kind"));
        };
        if place.is_none() {
            let subkey = self.keys.subkey(self.version, kind);
            let subkey = subkey.ok_or(Error::MissingVersion { version: self.version })?;
            *place = Some(Key::extended(subkey, &self.prefix)?);
        }
        let key = place.as_ref().ok_or(Error::Library("a key for each kind"))?;
        let bound = self.bound.set(self.version, kind, prefix);
        key.seal(inner_nonce(counter.to_be_bytes()), bound, plain)
    }
}

impl fmt::Debug for CommitSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitSealer(version {}, {} records)", self.version, self.sealed)
    }
}
