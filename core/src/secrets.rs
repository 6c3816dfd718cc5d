//! Hashing secrets. Only tagged, keyed hashes are kept; the key lives outside the database, so a
//! stolen database alone verifies no guess.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::{SecretHash, SecretScheme, StoreId};
use crate::error::{Error, ErrorKind, Result};

/// bcrypt hashes above this cost are not verified: each step doubles the time, and 14 already
/// takes about a second.
const MAX_BCRYPT_COST: u32 = 14;

/// bcrypt reads no further, so that a longer secret would pass for its beginning.
const MAX_BCRYPT_SECRET: usize = 72;

/// The key for [HMAC-SHA-256](https://www.rfc-editor.org/rfc/rfc2104) over secrets.
pub struct HashKey {
    /// On the heap, so that moving it leaves no copy behind.
    key: Box<Zeroizing<[u8; 32]>>,
    id: [u8; 4],
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HashKey({})", data_encoding::HEXLOWER.encode(&self.id))
    }
}

/// Tells whether a key is the one that a network's credentials were hashed with, and nothing else about
/// it: a code under the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCheck([u8; 16]);

impl KeyCheck {
    /// The check with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes, which are no secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl HashKey {
    /// The key with these bytes. Its public id is cut from its SHA-256.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        let digest = Sha256::new().chain_update(b"ghostwire-store key id").chain_update(key);
        let digest: [u8; 32] = digest.finalize().into();
        let mut id = [0; 4];
        id.iter_mut().zip(digest).for_each(|(byte, digest)| *byte = digest);
        Self { key: Box::new(Zeroizing::new(key)), id }
    }

    /// Which key it is.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The tagged hash of a secret. `purpose` keeps hashes of different things apart.
    #[must_use]
    pub fn hash(&self, purpose: &str, secret: &str) -> SecretHash {
        SecretHash::hmac(self.id, self.code(purpose, secret.as_bytes()))
    }

    /// A code that nobody else can make for this message. `purpose` as for [`HashKey::hash`].
    pub(crate) fn code(&self, purpose: &str, message: &[u8]) -> [u8; 32] {
        self.mac(purpose, message).finalize().into_bytes().into()
    }

    /// Whether `code` is the one for this message; compared in constant time.
    pub(crate) fn is_code(&self, purpose: &str, message: &[u8], code: &[u8; 32]) -> bool {
        self.mac(purpose, message).verify_slice(code).is_ok()
    }

    /// A key for another purpose, which tells nothing about this one nor about that for any other.
    #[must_use]
    pub fn subkey(&self, purpose: &str) -> [u8; 32] {
        self.code("subkey", purpose.as_bytes())
    }

    /// By which a network's databases recognise this key.
    #[must_use]
    pub fn check(&self, store: StoreId) -> KeyCheck {
        let mut check = [0; 16];
        let code = self.code("credential key check", store.as_bytes());
        check.iter_mut().zip(code).for_each(|(byte, code)| *byte = code);
        KeyCheck(check)
    }

    fn mac(&self, purpose: &str, message: &[u8]) -> Hmac<Sha256> {
        // HMAC pads a short key with zeros to the hash's block (RFC 2104, section 2).
        let mut block = Zeroizing::new([0; 64]);
        block.iter_mut().zip(self.key.iter()).for_each(|(padded, key)| *padded = *key);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(&(purpose.len() as u64).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(message);
        mac
    }

    /// Whether `hash` was made from this secret; compared in constant time.
    ///
    /// # Errors
    /// `Crypto` if the hash was made with another key or is of a form this cannot check.
    pub(crate) fn verify(&self, purpose: &str, secret: &str, hash: &SecretHash) -> Result<Verdict> {
        match hash.scheme() {
            SecretScheme::Hmac { key_id } if key_id == self.id => {
                let expected = hash.as_hmac().unwrap_or_default();
                let matches = self.is_code(purpose, secret.as_bytes(), &expected);
                Ok(if matches { Verdict::Right } else { Verdict::Wrong })
            }
            SecretScheme::Hmac { key_id } => Err(Error::new(
                ErrorKind::Crypto,
                "this credential was hashed with another key; configure that key's file",
            )
            .with("key_id", data_encoding::HEXLOWER.encode(&key_id))
            .with("configured_key_id", data_encoding::HEXLOWER.encode(&self.id))),
            SecretScheme::Blake3 => {
                let expected = blake3::Hash::from_bytes(hash.as_blake3().unwrap_or_default());
                // The crate compares its hashes in constant time.
                let matches = blake3::hash(secret.as_bytes()) == expected;
                Ok(if matches { Verdict::RightByAnother } else { Verdict::Wrong })
            }
            SecretScheme::Bcrypt => {
                check_cost(hash)?;
                // bcrypt puts a zero after the secret and repeats both, so a secret with one in it
                // would pass for what is before it.
                let taken_for_another = secret.len() > MAX_BCRYPT_SECRET || secret.contains('\0');
                Ok(if taken_for_another { Verdict::Wrong } else { Verdict::NeedsBcrypt })
            }
        }
    }
}

/// The versions of a store's hash key: the one that hashes, and those that did before, which verify
/// until everything they hashed was hashed anew or has expired.
#[derive(Debug)]
pub struct HashKeys {
    current: Arc<HashKey>,
    former: Vec<HashKey>,
}

impl From<HashKey> for HashKeys {
    fn from(current: HashKey) -> Self {
        Self { current: Arc::new(current), former: Vec::new() }
    }
}

impl HashKeys {
    /// From the versions in the order in which they came into use; the last one hashes.
    ///
    /// # Errors
    /// `InvalidArgument` if there is none, or if two have the same id, by which hashes name them.
    pub fn new(versions: impl IntoIterator<Item = HashKey>) -> Result<Self> {
        let mut former: Vec<HashKey> = versions.into_iter().collect();
        let current = former.pop().ok_or_else(|| Error::invalid("there is no hash key"))?;
        let mut ids: Vec<_> = former.iter().map(HashKey::id).chain([current.id()]).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(Error::invalid("two versions of the hash key have the same id"));
        }
        Ok(Self { current: Arc::new(current), former })
    }

    /// The one that hashes.
    #[must_use]
    pub fn current(&self) -> &Arc<HashKey> {
        &self.current
    }

    /// The one that came into use first.
    #[must_use]
    pub fn first(&self) -> &HashKey {
        self.former.first().unwrap_or(&self.current)
    }

    /// All of them, the one that hashes first.
    pub fn iter(&self) -> impl Iterator<Item = &HashKey> {
        std::iter::once(&*self.current).chain(&self.former)
    }

    /// As [`HashKey::verify`], with the version that the hash names.
    pub(crate) fn verify(&self, purpose: &str, secret: &str, hash: &SecretHash) -> Result<Verdict> {
        let SecretScheme::Hmac { key_id } = hash.scheme() else {
            return self.current.verify(purpose, secret, hash);
        };
        match self.former.iter().find(|key| key.id == key_id) {
            None => self.current.verify(purpose, secret, hash),
            Some(former) => Ok(match former.verify(purpose, secret, hash)? {
                Verdict::Right => Verdict::RightByAnother,
                other => other,
            }),
        }
    }
}

/// What comparing a secret says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    /// Right by an imported hash or one under a former key, which one under the current key is to
    /// replace.
    RightByAnother,
    /// An imported hash that takes long to check; see [`verify_bcrypt`].
    NeedsBcrypt,
}

fn unusable(why: &'static str) -> Error {
    Error::new(ErrorKind::Crypto, why).with("scheme", "bcrypt")
}

fn check_cost(hash: &SecretHash) -> Result<()> {
    if is_too_costly(hash) {
        return Err(unusable("an imported hash has a cost above 14; issue a new key instead"));
    }
    Ok(())
}

/// Whether no secret is ever compared with this imported hash.
pub(crate) fn is_too_costly(hash: &SecretHash) -> bool {
    let cost = hash.as_bcrypt().and_then(|text| text.split('$').nth(2)?.parse::<u32>().ok());
    cost.is_none_or(|cost| cost > MAX_BCRYPT_COST)
}

/// The BLAKE3 hash of a credential's text, by which an imported key is found.
pub(crate) fn blake3_of(text: &str) -> [u8; 32] {
    blake3::hash(text.as_bytes()).into()
}

/// Checks an imported bcrypt hash. Takes tens of milliseconds of CPU; run it where blocking is
/// allowed, and after [`HashKey::verify`] asked for it.
pub(crate) fn verify_bcrypt(secret: &str, hash: &SecretHash) -> Result<bool> {
    let text = hash.as_bcrypt().ok_or_else(|| unusable("is not a bcrypt hash"))?;
    bcrypt::verify(secret, text).map_err(|_| unusable("an imported hash cannot be read"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn former_keys_verify_and_are_to_be_replaced() {
        let hash = HashKey::new([7; 32]).hash("api_key", "hunter2");
        let keys = HashKeys::new([[6; 32], [7; 32], [8; 32]].map(HashKey::new)).unwrap();
        let verify = |secret: &str| keys.verify("api_key", secret, &hash).unwrap();
        assert_eq!(verify("hunter2"), Verdict::RightByAnother);
        assert_eq!(verify("hunter3"), Verdict::Wrong);
        assert_eq!(keys.current().id(), HashKey::new([8; 32]).id());
        let current = keys.current().hash("api_key", "hunter2");
        assert_eq!(keys.verify("api_key", "hunter2", &current).unwrap(), Verdict::Right);
        let unknown = HashKey::new([9; 32]).hash("api_key", "hunter2");
        let error = keys.verify("api_key", "hunter2", &unknown).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Crypto);
    }

    #[test]
    fn hashes_name_one_key_only() {
        assert!(HashKeys::new([]).is_err());
        assert!(HashKeys::new([[7; 32], [8; 32], [7; 32]].map(HashKey::new)).is_err());
    }

    #[test]
    fn the_right_secret_for_the_right_purpose_under_the_right_key() {
        let key = HashKey::new([7; 32]);
        let hash = key.hash("api_key", "s3cret");
        assert_eq!(key.verify("api_key", "s3cret", &hash).unwrap(), Verdict::Right);
        assert_eq!(key.verify("api_key", "s3cret ", &hash).unwrap(), Verdict::Wrong);
        assert_eq!(key.verify("session", "s3cret", &hash).unwrap(), Verdict::Wrong);
        let other = HashKey::new([8; 32]);
        assert_eq!(
            *other.verify("api_key", "s3cret", &hash).unwrap_err().kind(),
            ErrorKind::Crypto
        );
    }

    #[test]
    fn an_imported_bcrypt_hash_is_checked_up_to_a_cost() {
        let key = HashKey::new([7; 32]);
        let text = bcrypt::hash("s3cret", 4).unwrap();
        let hash = SecretHash::bcrypt(&text).unwrap();
        assert_eq!(key.verify("api_key", "s3cret", &hash).unwrap(), Verdict::NeedsBcrypt);
        assert!(verify_bcrypt("s3cret", &hash).unwrap());
        assert!(!verify_bcrypt("other", &hash).unwrap());
        let verify = |cost| {
            let hash = SecretHash::bcrypt(&text.replacen("$04$", cost, 1)).unwrap();
            key.verify("api_key", "s3cret", &hash)
        };
        assert_eq!(verify("$14$").unwrap(), Verdict::NeedsBcrypt);
        for cost in ["$15$", "$31$"] {
            assert_eq!(*verify(cost).unwrap_err().kind(), ErrorKind::Crypto);
        }
    }

    #[test]
    fn an_imported_blake3_hash_is_of_the_text_alone() {
        let key = HashKey::new([7; 32]);
        // The empty text, from the vectors of BLAKE3's authors.
        let empty = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let hash = SecretHash::parse(empty).unwrap();
        assert_eq!(hash, SecretHash::blake3(blake3_of("")));
        for (secret, verdict) in [("", Verdict::RightByAnother), ("s3cret", Verdict::Wrong)] {
            assert_eq!(key.verify("api_key", secret, &hash).unwrap(), verdict);
        }
    }

    #[test]
    fn what_bcrypt_would_take_for_another_secret_is_wrong() {
        let key = HashKey::new([7; 32]);
        let longest = "0123456789ab".repeat(6);
        for (secret, passes_for_it) in
            [(longest.as_str(), format!("{longest}!")), ("s3cret", "s3cret\0s3cret".to_owned())]
        {
            let hash = SecretHash::bcrypt(&bcrypt::hash(secret, 4).unwrap()).unwrap();
            let verdict = |secret: &str| key.verify("api_key", secret, &hash).unwrap();
            assert_eq!(verdict(secret), Verdict::NeedsBcrypt);
            assert!(verify_bcrypt(&passes_for_it, &hash).unwrap());
            assert_eq!(verdict(&passes_for_it), Verdict::Wrong);
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", HashKey::new([0xab; 32]));
        assert!(!shown.contains("abab") && !shown.contains("171"));
    }
}
