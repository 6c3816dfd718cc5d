//! Who can open a keyring: hybrid post-quantum recipients and identities of age
//! (C2SP age, `mlkem768x25519`), which are X-Wing's public and secret keys.
//!
//! The key encapsulation is X-Wing (draft-connolly-cfrg-xwing-kem: ML-KEM-768 of FIPS 203 and
//! X25519 of RFC 7748), used by HPKE in base mode (RFC 9180) with HKDF-SHA-256 and
//! ChaCha20-Poly1305, all by the `hpke` crate.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::agreement;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem as _, XWing};
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::hash::sha256;
use crate::keyring::bech32::{self, Case};
use crate::random::Random;
use crate::secret::{Secret, on_cleared_stack};
use crate::wire::hex;

/// The length of an X-Wing public key.
pub(crate) const PUBLIC: usize = 1216;
/// The length of an X-Wing ciphertext.
pub(crate) const ENCAPSULATED: usize = 1120;
/// The length of age's file key.
pub(crate) const FILE_KEY: usize = 16;
/// A wrapped file key: itself and a tag.
pub(crate) const WRAPPED: usize = FILE_KEY + 16;

const INFO: &[u8] = b"age-encryption.org/mlkem768x25519";
const RECIPIENT_PREFIX: &str = "age1pq";
const IDENTITY_PREFIX: &str = "age-secret-key-pq-";
/// Longer texts are not looked at.
const LONGEST_TEXT: usize = 4096;

type PublicKey = <XWing as hpke::Kem>::PublicKey;
type PrivateKey = <XWing as hpke::Kem>::PrivateKey;
type Encapsulated = <XWing as hpke::Kem>::EncappedKey;

/// The 8 bytes by which a recipient is called: the beginning of SHA-256 over a label and its public
/// key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The one with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Whom a keyring can be sealed to: an X-Wing public key, checked. Its text form is a line
/// `age1pq1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(Box<[u8; PUBLIC]>);

impl Recipient {
    /// The recipient with this public key.
    ///
    /// # Errors
    /// `Invalid` for what is no key: a coefficient of ML-KEM's part out of range (FIPS 203, section
    /// 7.2), or a point of low order for X25519's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes: Box<[u8; PUBLIC]> =
            bytes.to_vec().into_boxed_slice().try_into().map_err(|_| {
                Error::invalid("recipient", "it has another length than 1216 bytes")
            })?;
        let usable = PublicKey::from_bytes(bytes.as_slice()).is_ok() && contributes(&*bytes);
        if usable {
            Ok(Self(bytes))
        } else {
            Err(Error::invalid("recipient", "it is no X-Wing public key"))
        }
    }

    /// The public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC] {
        &self.0
    }

    /// By which it is called.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = sha256(&[b"ghostwire-store recipient 1", self.0.as_slice()]);
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(digest).for_each(|(byte, digest)| *byte = digest);
        Fingerprint(bytes)
    }

    /// A file key for this recipient: what is encapsulated, and the wrapped key.
    pub(crate) fn wrap(
        &self,
        file_key: &[u8; FILE_KEY],
        random: &dyn Random,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let refused = |_| Error::Library("X-Wing");
        let key = PublicKey::from_bytes(self.0.as_slice()).map_err(refused)?;
        let mut random = Drawing { random, failed: None };
        let sealed = hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &key,
            INFO,
            file_key,
            &[],
            &mut random,
        );
        if let Some(error) = random.failed {
            return Err(error);
        }
        let (encapsulated, wrapped) = sealed.map_err(refused)?;
        Ok((encapsulated.to_bytes().to_vec(), wrapped))
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::encode(RECIPIENT_PREFIX, self.0.as_slice(), Case::Lower))
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", self.fingerprint())
    }
}

impl FromStr for Recipient {
    type Err = Error;

    /// From a line `age1pq1…`, without blanks.
    fn from_str(text: &str) -> Result<Self> {
        let bytes = Some(text)
            .filter(|text| text.len() <= LONGEST_TEXT)
            .and_then(|text| bech32::decode(RECIPIENT_PREFIX, text.as_bytes(), Case::Lower))
            .ok_or_else(|| Error::invalid("recipient", "it is no line of the form age1pq1…"))?;
        Self::from_bytes(&bytes)
    }
}

/// What opens a keyring: the 32 bytes that an X-Wing key pair is made of.
#[derive(Clone)]
pub struct Identity {
    seed: Secret,
    recipient: Recipient,
}

impl Identity {
    /// The length of its text: the prefix, `1`, 52 symbols for 32 bytes, and the checksum's 6.
    pub const TEXT_LENGTH: usize = IDENTITY_PREFIX.len() + 1 + 52 + 6;

    /// Whether its secret is kept out of the swap; see [`Secret::is_locked`].
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.seed.is_locked()
    }

    /// The identity with this secret.
    ///
    /// # Errors
    /// `Library` if X-Wing fails.
    pub fn new(seed: Secret) -> Result<Self> {
        let recipient = on_cleared_stack(|| {
            let key = private_key(&seed)?;
            Recipient::from_bytes(&XWing::sk_to_pk(&key).to_bytes())
        });
        Ok(Self { recipient: recipient?, seed })
    }

    /// A new one.
    ///
    /// # Errors
    /// As [`Secret::draw`].
    pub fn draw(random: &dyn Random) -> Result<Self> {
        Self::new(Secret::draw(random)?)
    }

    /// From a line `AGE-SECRET-KEY-PQ-1…`, without blanks; in a time that does not depend on the
    /// secret.
    ///
    /// # Errors
    /// `Invalid` for anything else. What was given is not repeated.
    pub fn from_text(text: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = Some(text.as_ref())
            .filter(|text| text.len() <= LONGEST_TEXT)
            .and_then(|text| bech32::decode(IDENTITY_PREFIX, text, Case::Upper));
        let invalid =
            || Error::invalid("identity", "it is no line of the form AGE-SECRET-KEY-PQ-1…");
        let bytes = bytes.ok_or_else(invalid)?;
        let seed = bytes.as_slice().try_into().map_err(|_| invalid())?;
        Self::new(Secret::copy_of(seed))
    }

    /// The line `AGE-SECRET-KEY-PQ-1…`, to be kept where nobody else reads it.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        bech32::encode(IDENTITY_PREFIX, self.seed.expose(), Case::Upper)
    }

    /// Whom to seal to so that this identity opens it.
    #[must_use]
    pub fn recipient(&self) -> &Recipient {
        &self.recipient
    }

    /// The file key, if it was wrapped for this identity.
    pub(crate) fn unwrap(
        &self,
        encapsulated: &[u8; ENCAPSULATED],
        wrapped: &[u8; WRAPPED],
    ) -> Result<Option<Zeroizing<[u8; FILE_KEY]>>> {
        let opened = on_cleared_stack(|| {
            let key = private_key(&self.seed)?;
            let Ok(encapsulated) = Encapsulated::from_bytes(encapsulated) else { return Ok(None) };
            let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
                &OpModeR::Base,
                &key,
                &encapsulated,
                INFO,
                wrapped,
                &[],
            );
            Ok(opened.ok())
        });
        let Some(mut opened) = opened? else { return Ok(None) };
        let file_key = opened.as_slice().try_into().ok().map(Zeroizing::new);
        opened.zeroize();
        Ok(file_key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.recipient.fingerprint())
    }
}

fn private_key(seed: &Secret) -> Result<PrivateKey> {
    PrivateKey::from_bytes(seed.expose()).map_err(|_| Error::Library("X-Wing"))
}

/// Whether the X25519 key that these bytes end with takes part in what is agreed. The few points of
/// low order give zero whatever the other key is (RFC 7748, section 6.1), and age refuses them;
/// `hpke` does not.
pub(crate) fn contributes(bytes: &[u8]) -> bool {
    // Any key tells.
    let Ok(key) = agreement::PrivateKey::from_private_key(&agreement::X25519, &[9; 32]) else {
        return false;
    };
    bytes.last_chunk::<32>().is_some_and(|point| {
        let point = agreement::UnparsedPublicKey::new(&agreement::X25519, point);
        agreement::agree(&key, point, (), |_| Ok(())).is_ok()
    })
}

/// Hands our randomness to `hpke`, which cannot be told that there is none: what it makes then is
/// not used.
struct Drawing<'a> {
    random: &'a dyn Random,
    failed: Option<Error>,
}

impl TryRng for Drawing<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        if let Err(error) = self.random.fill(bytes) {
            self.failed = Some(error);
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawing<'_> {}
