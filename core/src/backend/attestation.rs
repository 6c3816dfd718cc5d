//! What a store says about its state to somebody who has no key of it.

use std::fmt;

use crate::block::{BlockHash, Serial};
use crate::digest::Digest;
use crate::domain::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::position::{Epoch, Position};

/// A state that a store was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttestedState {
    /// Who might write.
    pub epoch: Epoch,
    /// How many commits there were.
    pub position: Position,
    /// The newest block's serial.
    pub serial: Serial,
    /// Its hash.
    pub hash: BlockHash,
    /// When it is said.
    pub time: Timestamp,
    /// The digest of the state.
    pub digest: Digest,
}

/// A state that a store was in, signed. Its text is for whoever knows the signer's fingerprint, and for
/// nobody else a proof: anybody can make one with keys of his own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What is signed.
    pub state: AttestedState,
    /// The fingerprint of the keys that signed.
    pub signer: String,
    /// What leaves the store: all of this, both public keys and both signatures, in lines.
    pub text: String,
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The refusal of a backend that has no keys to sign with.
pub(super) fn unsigned() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "this store has no keys, so nothing that it says of itself convinces anybody else",
    )
    .with(
        "help",
        "only a sealed zqlite store signs: `gwstore seal` makes one of a plain zqlite store, and an \
         export imports into one from any other",
    )
}
