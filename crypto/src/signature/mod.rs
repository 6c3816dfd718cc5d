//! Hybrid signatures: Ed25519 (RFC 8032) and ML-DSA-65 (FIPS 204) over the same bytes. Both must
//! hold, so a forger has to break both.

mod attestation;
mod manifest;
mod succession;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use data_encoding::BASE64;

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::random::Random;
use crate::secret::Secret;
use crate::wire::{Reader, from_hex, hex};

pub use attestation::{Attestation, Attested, Verified};
pub use manifest::{Counts, Manifest, SignedManifest};
pub use succession::{Succession, Successions};

/// Of the line of public keys.
const TITLE: &str = "ghostwire-store signer 1";
const ED25519_PUBLIC: usize = 32;
const ED25519_SIGNATURE: usize = 64;
const ML_DSA_PUBLIC: usize = 1952;
const ML_DSA_SIGNATURE: usize = 3309;
const PUBLIC: usize = ED25519_PUBLIC + ML_DSA_PUBLIC;

/// What a key pair is for. What was signed for one purpose is not valid for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// The keyring, and the keys that follow.
    Store = 1,
    /// Manifests and state digests.
    Manifest = 2,
    /// Heads of logs.
    TreeHead = 3,
}

impl Purpose {
    /// All of them, in the order in which a keyring has them.
    pub const ALL: [Self; 3] = [Self::Store, Self::Manifest, Self::TreeHead];

    /// The word for it in text.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Manifest => "manifest",
            Self::TreeHead => "tree-head",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }
}

/// What was signed. Statements of one kind are not valid as another, under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Subject {
    Keyring = 1,
    Manifest = 2,
    State = 3,
    Successor = 4,
}

/// By which a signer's public keys are known: SHA-256 over a label, the purpose and both of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignerId([u8; 32]);

impl SignerId {
    /// What stands for the signer of what nothing signs.
    pub const NONE: Self = Self([0; 32]);

    /// The one with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for SignerId {
    type Err = Error;

    /// Reads 64 hexadecimal digits, in small letters.
    fn from_str(text: &str) -> Result<Self> {
        let bytes = from_hex(text);
        bytes.map(Self).ok_or_else(|| {
            Error::invalid("fingerprint of a signer", "it is not 64 hexadecimal digits".to_owned())
        })
    }
}

impl fmt::Debug for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerId({self})")
    }
}

/// What checks signatures: an Ed25519 and an ML-DSA-65 public key, for one purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKeys {
    purpose: Purpose,
    ed25519: [u8; ED25519_PUBLIC],
    ml_dsa: Box<[u8; ML_DSA_PUBLIC]>,
}

impl PublicKeys {
    /// From 32 bytes of Ed25519 and 1,952 of ML-DSA-65, as [`PublicKeys::to_bytes`] gives them.
    ///
    /// # Errors
    /// `Invalid` for another length. A key that is none verifies nothing.
    pub fn from_bytes(purpose: Purpose, bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let keys = reader.array().copied().and_then(|ed25519| {
            let ml_dsa = Box::new(*reader.array()?);
            reader.finished()?;
            Some(Self { purpose, ed25519, ml_dsa })
        });
        keys.ok_or_else(|| {
            Error::invalid("public keys", format!("they are not {PUBLIC} bytes long"))
        })
    }

    /// The keys, one behind the other.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.ed25519.as_slice(), self.ml_dsa.as_slice()].concat()
    }

    /// What they are for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// By which they are known.
    #[must_use]
    pub fn id(&self) -> SignerId {
        let label = TITLE.as_bytes();
        SignerId(sha256(&[label, &[self.purpose as u8], &self.ed25519, self.ml_dsa.as_slice()]))
    }

    /// The bytes that both algorithms sign. They name purpose, subject and both keys, so that
    /// neither signature means anything without the other.
    fn message(&self, subject: Subject, body: &[u8]) -> Vec<u8> {
        let mut message = b"ghostwire-store signed 1".to_vec();
        message.extend([self.purpose as u8, subject as u8]);
        message.extend(sha256(&[&self.ed25519]));
        message.extend(sha256(&[self.ml_dsa.as_slice()]));
        message.extend_from_slice(body);
        message
    }

    pub(crate) fn verify(
        &self,
        what: &'static str,
        subject: Subject,
        body: &[u8],
        signature: &Signature,
    ) -> Result<()> {
        let message = self.message(subject, body);
        UnparsedPublicKey::new(&ED25519, self.ed25519)
            .verify(&message, &signature.ed25519)
            .map_err(|_| Error::Unsigned { what, why: "Ed25519" })?;
        UnparsedPublicKey::new(&ML_DSA_65, self.ml_dsa.as_slice())
            .verify(&message, signature.ml_dsa.as_slice())
            .map_err(|_| Error::Unsigned { what, why: "ML-DSA-65" })
    }

    /// Whether `successor` was signed by these keys as the one that follows them.
    ///
    /// # Errors
    /// `Unsigned` if not.
    pub fn verify_successor(&self, successor: &Self, signature: &Signature) -> Result<()> {
        self.verify("new key", Subject::Successor, successor.id().as_bytes(), signature)
    }
}

impl fmt::Display for PublicKeys {
    /// One line, without an end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TITLE} {} {}", self.purpose.name(), BASE64.encode(&self.to_bytes()))
    }
}

impl FromStr for PublicKeys {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (purpose, keys) = text.strip_prefix(TITLE)?.strip_prefix(' ')?.split_once(' ')?;
            let keys = BASE64.decode(keys.as_bytes()).ok()?;
            Some((Purpose::from_name(purpose)?, keys))
        };
        let (purpose, keys) =
            read().ok_or(Error::corrupt("public key", "it is no line of a signer"))?;
        Self::from_bytes(purpose, &keys)
    }
}

impl fmt::Debug for PublicKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKeys({}, {})", self.purpose.name(), self.id())
    }
}

/// 64 bytes of Ed25519 and 3,309 of ML-DSA-65.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    ed25519: [u8; ED25519_SIGNATURE],
    ml_dsa: Box<[u8; ML_DSA_SIGNATURE]>,
}

impl Signature {
    /// Its length in bytes.
    pub const LENGTH: usize = ED25519_SIGNATURE + ML_DSA_SIGNATURE;

    /// From its bytes.
    ///
    /// # Errors
    /// `Corrupt` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let signature = reader.array().copied().and_then(|ed25519| {
            let ml_dsa = Box::new(*reader.array()?);
            reader.finished()?;
            Some(Self { ed25519, ml_dsa })
        });
        signature.ok_or(Error::corrupt("signature", "it has another length"))
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.ed25519.as_slice(), self.ml_dsa.as_slice()].concat()
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// The two seeds that a [`Signer`] is made of.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seeds {
    pub(crate) ed25519: Secret,
    pub(crate) ml_dsa: Secret,
}

impl Seeds {
    pub(crate) fn draw(random: &dyn Random) -> Result<Self> {
        Ok(Self { ed25519: Secret::draw(random)?, ml_dsa: Secret::draw(random)? })
    }
}

/// What signs for one purpose.
pub struct Signer {
    ed25519: Ed25519KeyPair,
    ml_dsa: PqdsaKeyPair,
    public: PublicKeys,
}

impl Signer {
    pub(crate) fn new(purpose: Purpose, seeds: &Seeds) -> Result<Self> {
        let ed25519 = Ed25519KeyPair::from_seed_unchecked(seeds.ed25519.expose())
            .map_err(|_| Error::Library("Ed25519"))?;
        let ml_dsa = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, seeds.ml_dsa.expose())
            .map_err(|_| Error::Library("ML-DSA-65"))?;
        let public = [ed25519.public_key().as_ref(), ml_dsa.public_key().as_ref()].concat();
        let public = PublicKeys::from_bytes(purpose, &public)?;
        Ok(Self { ed25519, ml_dsa, public })
    }

    /// What checks its signatures.
    #[must_use]
    pub fn public(&self) -> &PublicKeys {
        &self.public
    }

    pub(crate) fn sign(&self, subject: Subject, body: &[u8]) -> Result<Signature> {
        let message = self.public.message(subject, body);
        let failed = |_| Error::Library("signing");
        let mut ml_dsa = Box::new([0; ML_DSA_SIGNATURE]);
        let length = self.ml_dsa.sign(&message, ml_dsa.as_mut_slice()).map_err(failed)?;
        let ed25519 = self.ed25519.try_sign(&message).map_err(failed)?;
        match ed25519.as_ref().try_into() {
            Ok(ed25519) if length == ML_DSA_SIGNATURE => Ok(Signature { ed25519, ml_dsa }),
            _ => Err(Error::Library("a signature of another length")),
        }
    }

    /// Signs the keys that follow these.
    ///
    /// # Errors
    /// `Library` if signing fails.
    pub fn sign_successor(&self, successor: &PublicKeys) -> Result<Signature> {
        self.sign(Subject::Successor, successor.id().as_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, {})", self.public.purpose.name(), self.public.id())
    }
}

#[cfg(test)]
mod tests;
