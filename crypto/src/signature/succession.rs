//! Keys that follow others, signed by those: whoever knows the old ones finds the new.

use crate::error::{Error, Result};
use crate::signature::{PUBLIC, PublicKeys, Purpose, Signature, SignerId};
use crate::wire::Reader;

/// That signing keys follow others, signed by those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Succession {
    /// The keys that go.
    pub from: PublicKeys,
    /// The keys that follow.
    pub to: PublicKeys,
    /// By those that go, over those that follow.
    pub signature: Signature,
}

/// Keys that signed before, and what each signed of the one that followed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Former {
    pub(super) keys: PublicKeys,
    pub(super) signature: Signature,
}

/// All keys that signed for a purpose before those that do now, oldest first.
///
/// It proves as much as the oldest key that is trusted: whoever stole that one can name a successor of
/// his own. After a leak the new fingerprint is better asked for than followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Successions(pub(super) Vec<Former>);

impl Successions {
    /// More are forgotten, the oldest first.
    pub const MOST: usize = 32;

    const ENTRY: usize = PUBLIC + Signature::LENGTH;

    /// Those of manifests and states, as [`Successions::to_bytes`] gives them.
    ///
    /// # Errors
    /// `Corrupt` for another length.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        const MISSHAPEN: Error =
            Error::corrupt("record of former signers", "it has another length");
        if !bytes.len().is_multiple_of(Self::ENTRY) || bytes.len() / Self::ENTRY > Self::MOST {
            return Err(MISSHAPEN);
        }
        let former = bytes.chunks_exact(Self::ENTRY).map(|entry| {
            let mut reader = Reader::new(entry);
            let keys = reader.bytes(PUBLIC).ok_or(MISSHAPEN)?;
            let signature = reader.bytes(Signature::LENGTH).ok_or(MISSHAPEN)?;
            Ok(Former {
                keys: PublicKeys::from_bytes(Purpose::Manifest, keys)?,
                signature: Signature::from_bytes(signature)?,
            })
        });
        former.collect::<Result<_>>().map(Self)
    }

    /// Keys, then what they signed of those that followed, one entry behind the other.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries = self.0.iter();
        entries.flat_map(|it| [it.keys.to_bytes(), it.signature.to_bytes()]).flatten().collect()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the newest. Tells whether it was not there yet.
    pub fn note(&mut self, succession: Succession) -> bool {
        let Succession { from: keys, signature, .. } = succession;
        if self.0.iter().any(|former| former.keys == keys) {
            return false;
        }
        let too_many = (self.0.len() + 1).saturating_sub(Self::MOST);
        self.0.drain(..too_many.min(self.0.len()));
        self.0.push(Former { keys, signature });
        true
    }

    /// How often a key was signed by the one before it on the way from the signer that is `known` to
    /// these keys: 0 if it is theirs.
    ///
    /// # Errors
    /// `Unsigned` if no such way leads there.
    pub fn follow(&self, known: SignerId, keys: &PublicKeys) -> Result<usize> {
        if keys.id() == known {
            return Ok(0);
        }
        let unknown = Error::Unsigned { what: "attestation", why: "another key signed it" };
        let at = self.0.iter().position(|former| former.keys.id() == known).ok_or(unknown)?;
        let way = self.0.get(at..).unwrap_or_default();
        let following = way.iter().skip(1).map(|former| &former.keys).chain([keys]);
        for (former, next) in way.iter().zip(following) {
            former.keys.verify_successor(next, &former.signature)?;
        }
        Ok(way.len())
    }
}
