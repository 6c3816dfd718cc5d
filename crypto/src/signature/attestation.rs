//! What a store says about its state to somebody who has no key of it: a text that anybody can
//! check who knows the signer's fingerprint.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;

use crate::error::{Error, Result};
use crate::signature::succession::Former;
use crate::signature::{PublicKeys, Purpose, Signature, Signer, SignerId, Subject, Successions};
use crate::wire::{from_decimal, from_hex, hex};

const TITLE: &str = "ghostwire-store attestation 1";
/// More than any has: each former signer takes 7.2 KB.
const LONGEST: usize = 256 * 1024;

/// The state that an [`Attestation`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attested {
    /// The store's id.
    pub store: [u8; 16],
    /// Who may write.
    pub epoch: u64,
    /// How many commits there were.
    pub commit: u64,
    /// The newest block's serial in that state.
    pub serial: u64,
    /// Its hash.
    pub block_hash: [u8; 32],
    /// When it was signed, in microseconds since 1970.
    pub time: u64,
    /// The digest of the state.
    pub digest: [u8; 32],
}

impl Attested {
    fn encode(&self) -> Vec<u8> {
        let mut body = self.store.to_vec();
        for number in [self.epoch, self.commit, self.serial] {
            body.extend(number.to_be_bytes());
        }
        body.extend(self.block_hash);
        body.extend(self.time.to_be_bytes());
        body.extend(self.digest);
        body
    }
}

/// That a store was in some state, with both public keys and both signatures.
///
/// Its text form (`Display`, `FromStr`) has a line for each field, in a fixed order, and one way to
/// write each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    attested: Attested,
    keys: PublicKeys,
    signature: Signature,
    former: Successions,
}

/// What an [`Attestation`] comes to for somebody who knows a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'a> {
    /// What it says.
    pub attested: &'a Attested,
    /// Who signed it.
    pub signer: SignerId,
    /// How many keys lie between the signer that is known and this one, each signed by the one
    /// before: 0 if they are the same.
    pub successions: usize,
}

impl Attestation {
    /// Signs a statement. `former` lets those who know an earlier signer follow.
    ///
    /// # Errors
    /// `Library` if signing fails.
    pub fn sign(attested: Attested, signer: &Signer, former: Successions) -> Result<Self> {
        let signature = signer.sign(Subject::State, &attested.encode())?;
        Ok(Self { attested, keys: signer.public().clone(), signature, former })
    }

    /// Whose it says it is.
    #[must_use]
    pub fn signer(&self) -> SignerId {
        self.keys.id()
    }

    /// What it says, if the signer with this fingerprint signed it, or one that follows from that.
    ///
    /// # Errors
    /// `Unsigned` if not. The fingerprint has to be known from elsewhere: the text has that of
    /// whoever made it.
    pub fn verify(&self, known: SignerId) -> Result<Verified<'_>> {
        let successions = self.former.follow(known, &self.keys)?;
        let body = self.attested.encode();
        self.keys.verify("attestation", Subject::State, &body, &self.signature)?;
        Ok(Verified { attested: &self.attested, signer: self.keys.id(), successions })
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attested { store, epoch, commit, serial, block_hash, time, digest } = &self.attested;
        writeln!(f, "{TITLE}")?;
        writeln!(f, "store {}", hex(store))?;
        writeln!(f, "epoch {epoch}")?;
        writeln!(f, "commit {commit}")?;
        writeln!(f, "serial {serial}")?;
        writeln!(f, "block {}", hex(block_hash))?;
        writeln!(f, "time {time}")?;
        writeln!(f, "digest {}", hex(digest))?;
        writeln!(f, "purpose {}", self.keys.purpose().name())?;
        writeln!(f, "keys {}", BASE64.encode(&self.keys.to_bytes()))?;
        writeln!(f, "signature {}", BASE64.encode(&self.signature.to_bytes()))?;
        self.former.0.iter().try_for_each(|Former { keys, signature }| {
            let [keys, signature] = [keys.to_bytes(), signature.to_bytes()];
            writeln!(f, "former {} {}", BASE64.encode(&keys), BASE64.encode(&signature))
        })
    }
}

impl FromStr for Attestation {
    type Err = Error;

    /// Reads the text form; line ends of Windows and blank lines at the end do no harm.
    fn from_str(text: &str) -> Result<Self> {
        let misshapen =
            || Error::corrupt("attestation", "a line is missing, misshapen or misplaced");
        if text.len() > LONGEST {
            return Err(Error::corrupt("attestation", "it is too long"));
        }
        let mut lines = text.trim_end().lines();
        if lines.next() != Some(TITLE) {
            return Err(Error::corrupt("attestation", "it does not begin like one"));
        }
        let mut field = |name| {
            let line = lines.next()?.strip_prefix(name)?;
            line.strip_prefix(' ')
        };
        let mut read = || {
            let attested = Attested {
                store: from_hex(field("store")?)?,
                epoch: from_decimal(field("epoch")?)?,
                commit: from_decimal(field("commit")?)?,
                serial: from_decimal(field("serial")?)?,
                block_hash: from_hex(field("block")?)?,
                time: from_decimal(field("time")?)?,
                digest: from_hex(field("digest")?)?,
            };
            let purpose = Purpose::from_name(field("purpose")?)?;
            let keys = BASE64.decode(field("keys")?.as_bytes()).ok()?;
            let signature = BASE64.decode(field("signature")?.as_bytes()).ok()?;
            Some((attested, purpose, keys, signature))
        };
        let (attested, purpose, keys, signature) = read().ok_or_else(misshapen)?;
        let decoded = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| misshapen());
        let former = lines.map(|line| {
            let fields = line.strip_prefix("former ").and_then(|fields| fields.split_once(' '));
            let (keys, signature) = fields.ok_or_else(misshapen)?;
            let keys = PublicKeys::from_bytes(purpose, &decoded(keys)?)?;
            Ok(Former { keys, signature: Signature::from_bytes(&decoded(signature)?)? })
        });
        Ok(Self {
            attested,
            former: Successions(former.collect::<Result<_>>()?),
            keys: PublicKeys::from_bytes(purpose, &keys)?,
            signature: Signature::from_bytes(&signature)?,
        })
    }
}
