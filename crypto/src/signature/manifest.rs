//! The constant-size statement about a store that is signed at each checkpoint.

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::signature::{PublicKeys, Signature, Signer, SignerId, Subject};
use crate::wire::Reader;

/// How many records there are of each kind that the inventory has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows of the state.
    pub rows: u64,
    /// Blocks.
    pub blocks: u64,
    /// Entries of the journal.
    pub journal: u64,
    /// Leaves of the directory.
    pub leaves: u64,
}

/// Where a store stands: what its backend knows without reading anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The store's id.
    pub store: [u8; 16],
    /// Who may write.
    pub epoch: u64,
    /// How many commits there were.
    pub commit: u64,
    /// The newest block's serial.
    pub serial: u64,
    /// Its id.
    pub block: [u8; 16],
    /// Its hash.
    pub block_hash: [u8; 32],
    /// The serial up to which rows were written.
    pub checkpoint: u64,
    /// When, in microseconds since 1970.
    pub time: u64,
    /// How many records there are.
    pub counts: Counts,
    /// SHA-256 over the inventory's sums, as the head has them.
    pub inventory: [u8; 32],
    /// [`SignedManifest::hash`] of the one before; zeros for the first.
    pub before: [u8; 32],
}

impl Manifest {
    /// Its length in bytes.
    pub const LENGTH: usize = 16 + 8 + 8 + 8 + 16 + 32 + 8 + 8 + 4 * 8 + 32 + 32;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let Counts { rows, blocks, journal, leaves } = self.counts;
        let mut into = Vec::with_capacity(Self::LENGTH);
        into.extend(self.store);
        for number in [self.epoch, self.commit, self.serial] {
            into.extend(number.to_be_bytes());
        }
        into.extend(self.block);
        into.extend(self.block_hash);
        for number in [self.checkpoint, self.time, rows, blocks, journal, leaves] {
            into.extend(number.to_be_bytes());
        }
        into.extend(self.inventory);
        into.extend(self.before);
        into
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            store: *reader.array()?,
            epoch: reader.u64()?,
            commit: reader.u64()?,
            serial: reader.u64()?,
            block: *reader.array()?,
            block_hash: *reader.array()?,
            checkpoint: reader.u64()?,
            time: reader.u64()?,
            counts: Counts {
                rows: reader.u64()?,
                blocks: reader.u64()?,
                journal: reader.u64()?,
                leaves: reader.u64()?,
            },
            inventory: *reader.array()?,
            before: *reader.array()?,
        })
    }
}

/// A manifest with its signature, as the store keeps it (sealed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    pub(super) manifest: Manifest,
    signer: SignerId,
    signature: Signature,
}

impl SignedManifest {
    /// The length of its bytes.
    pub const LENGTH: usize = Manifest::LENGTH + 32 + Signature::LENGTH;

    /// Signs a manifest.
    ///
    /// # Errors
    /// `Library` if signing fails.
    pub fn sign(manifest: Manifest, signer: &Signer) -> Result<Self> {
        let signature = signer.sign(Subject::Manifest, &manifest.encode())?;
        Ok(Self { manifest, signer: signer.public().id(), signature })
    }

    /// Reads one, which may be signed by anybody: see [`SignedManifest::verify`].
    ///
    /// # Errors
    /// `Corrupt` for bytes of another length.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        const MISSHAPEN: Error = Error::corrupt("signature record", "it has another length");
        let mut reader = Reader::new(bytes);
        let manifest = Manifest::decode(&mut reader).ok_or(MISSHAPEN)?;
        let signer = reader.array().map(|id| SignerId::from_bytes(*id)).ok_or(MISSHAPEN)?;
        let signature = reader.bytes(Signature::LENGTH).ok_or(MISSHAPEN)?;
        reader.finished().ok_or(MISSHAPEN)?;
        Ok(Self { manifest, signer, signature: Signature::from_bytes(signature)? })
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.manifest.encode();
        bytes.extend(self.signer.as_bytes());
        bytes.extend(self.signature.to_bytes());
        bytes
    }

    /// What the next one names as the one before.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&self.to_bytes()])
    }

    /// Whose it says it is.
    #[must_use]
    pub const fn signer(&self) -> SignerId {
        self.signer
    }

    /// The signature.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The manifest, if these keys signed it.
    ///
    /// # Errors
    /// `Unsigned` if they did not.
    pub fn verify(&self, keys: &PublicKeys) -> Result<&Manifest> {
        if self.signer != keys.id() {
            return Err(Error::Unsigned { what: "manifest", why: "it names another key" });
        }
        keys.verify("manifest", Subject::Manifest, &self.manifest.encode(), &self.signature)?;
        Ok(&self.manifest)
    }
}
