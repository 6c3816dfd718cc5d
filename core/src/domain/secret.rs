//! Secrets that are shown once, and the hashes that are kept of them.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::error::{Error, Result};

/// A secret that is shown to its owner once, such as a new API key.
///
/// It has no `Display`, no `Clone` and no serde form, and `Debug` does not show it. When dropped, its
/// bytes are overwritten; that is the best safe code can do, and no promise: copies that the
/// allocator, the compiler or the caller made before are not reached.
///
/// ```
/// use ghostwire_store::domain::Secret;
///
/// let secret = Secret::new("hunter2".to_owned());
/// assert_eq!(secret.expose(), "hunter2");
/// assert_eq!(format!("{secret:?}"), "Secret(…)");
/// ```
pub struct Secret(String);

impl Secret {
    /// Takes the text into custody.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text. Do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How a [`SecretHash`] was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SecretScheme {
    /// HMAC-SHA-256 under a key that is kept outside the database.
    Hmac {
        /// Tells which hash key it was made with.
        key_id: [u8; 4],
    },
    /// bcrypt, imported from Headscale.
    Bcrypt,
    /// BLAKE3 of a key's whole text, imported from Ghostwire.
    Blake3,
}

/// The hash of a secret, with a tag that says how it was made; at most 255 bytes of text:
///
/// - `hmac-sha256:<key id, 8 hex digits>:<64 hex digits>`, in lower case,
/// - `bcrypt:` and a bcrypt string that begins with `$2a$`, `$2b$` or `$2y$`,
/// - `blake3:<64 hex digits>`, in lower case.
///
/// `Debug` shows the scheme only, there is no `Display`, and no error repeats the text. Comparing two
/// with `==` takes no constant time: it is for comparing states, not for checking a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash(Box<str>);

const HMAC_TAG: &str = "hmac-sha256:";
const BCRYPT_TAG: &str = "bcrypt:";
const BLAKE3_TAG: &str = "blake3:";

impl SecretHash {
    /// The greatest length, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The hash that HMAC-SHA-256 gave under the key with this identifier.
    #[must_use]
    pub fn hmac(key_id: [u8; 4], mac: [u8; 32]) -> Self {
        let (key_id, mac) = (HEXLOWER.encode(&key_id), HEXLOWER.encode(&mac));
        Self(format!("{HMAC_TAG}{key_id}:{mac}").into())
    }

    /// An imported bcrypt hash, such as `$2a$10$…`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text is not a bcrypt hash.
    pub fn bcrypt(text: &str) -> Result<Self> {
        Self::parse(&format!("{BCRYPT_TAG}{text}"))
    }

    /// An imported BLAKE3 hash of a key's whole text.
    #[must_use]
    pub fn blake3(hash: [u8; 32]) -> Self {
        Self(format!("{BLAKE3_TAG}{}", HEXLOWER.encode(&hash)).into())
    }

    /// Checks the text form and takes it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when the text has none of the forms above.
    pub fn parse(text: &str) -> Result<Self> {
        let has_form =
            parse_hmac(text).is_some() || is_bcrypt(text) || parse_blake3(text).is_some();
        if text.len() <= Self::MAX_BYTES && has_form {
            return Ok(Self(text.into()));
        }
        Err(Error::invalid(
            "a hash of a secret must be `hmac-sha256:<8 hex digits>:<64 hex digits>` in lower case, \
             `bcrypt:` and a bcrypt string, or `blake3:<64 hex digits>` in lower case",
        )
        .with("length", text.len()))
    }

    /// How it was made.
    #[must_use]
    pub fn scheme(&self) -> SecretScheme {
        match parse_hmac(&self.0) {
            Some((key_id, _)) => SecretScheme::Hmac { key_id },
            None if self.0.starts_with(BLAKE3_TAG) => SecretScheme::Blake3,
            None => SecretScheme::Bcrypt,
        }
    }

    /// The code, if it was made with HMAC. Compare it in constant time.
    #[must_use]
    pub fn as_hmac(&self) -> Option<[u8; 32]> {
        parse_hmac(&self.0).map(|(_, mac)| mac)
    }

    /// The bcrypt string, if it was made with bcrypt.
    #[must_use]
    pub fn as_bcrypt(&self) -> Option<&str> {
        self.0.strip_prefix(BCRYPT_TAG)
    }

    /// The hash, if it was made with BLAKE3. Compare it in constant time.
    #[must_use]
    pub fn as_blake3(&self) -> Option<[u8; 32]> {
        parse_blake3(&self.0)
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parse_blake3(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    decode(text.strip_prefix(BLAKE3_TAG)?, &mut hash)?;
    Some(hash)
}

fn parse_hmac(text: &str) -> Option<([u8; 4], [u8; 32])> {
    let (key_id, mac) = text.strip_prefix(HMAC_TAG)?.split_once(':')?;
    let mut bytes = ([0; 4], [0; 32]);
    decode(key_id, &mut bytes.0)?;
    decode(mac, &mut bytes.1)?;
    Some(bytes)
}

/// Decodes lower-case hex of exactly the length wanted, without an allocation.
fn decode(text: &str, to: &mut [u8]) -> Option<()> {
    if text.len() != to.len() * 2 {
        return None;
    }
    HEXLOWER.decode_mut(text.as_bytes(), to).ok().map(|_| ())
}

/// `bcrypt:$2b$<cost, 04 to 31>$<53 characters of salt and hash>`.
fn is_bcrypt(text: &str) -> bool {
    let parts = || {
        let rest = text.strip_prefix(BCRYPT_TAG)?.strip_prefix("$2")?;
        rest.strip_prefix(['a', 'b', 'y'])?.strip_prefix('$')?.split_once('$')
    };
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    parts().is_some_and(|(cost, digits)| {
        cost.len() == 2
            && cost.bytes().all(|byte| byte.is_ascii_digit())
            && cost.parse().is_ok_and(|cost: u8| (4..=31).contains(&cost))
            && digits.len() == 53
            && digits.bytes().all(is_digit)
    })
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme() {
            SecretScheme::Hmac { key_id } => {
                write!(f, "SecretHash(hmac-sha256:{}:…)", HEXLOWER.encode_display(&key_id))
            }
            SecretScheme::Bcrypt => f.write_str("SecretHash(bcrypt:…)"),
            SecretScheme::Blake3 => f.write_str("SecretHash(blake3:…)"),
        }
    }
}

impl FromStr for SecretHash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SecretHash {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hash.0.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BCRYPT: &str = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(secret.expose(), "hunter2");
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
    }

    #[test]
    fn hmac_hashes() {
        let hash = SecretHash::hmac([0, 1, 2, 0xff], [0xab; 32]);
        assert_eq!(hash.as_str(), format!("hmac-sha256:000102ff:{}", "ab".repeat(32)));
        assert_eq!(hash.scheme(), SecretScheme::Hmac { key_id: [0, 1, 2, 0xff] });
        assert_eq!(hash.as_hmac(), Some([0xab; 32]));
        assert_eq!(hash.as_bcrypt(), None);
        assert_eq!(SecretHash::parse(hash.as_str()).unwrap(), hash);
        assert_eq!(format!("{hash:?}"), "SecretHash(hmac-sha256:000102ff:…)");
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!(json, format!("\"{}\"", hash.as_str()));
        assert_eq!(serde_json::from_str::<SecretHash>(&json).unwrap(), hash);
    }

    #[test]
    fn bcrypt_hashes() {
        let hash = SecretHash::bcrypt(BCRYPT).unwrap();
        assert_eq!(hash.scheme(), SecretScheme::Bcrypt);
        assert_eq!(hash.as_bcrypt(), Some(BCRYPT));
        assert_eq!(hash.as_hmac(), None);
        assert_eq!(format!("{hash:?}"), "SecretHash(bcrypt:…)");
        for kind in ["$2b$", "$2y$"] {
            assert!(SecretHash::bcrypt(&BCRYPT.replace("$2a$", kind)).is_ok());
        }
    }

    #[test]
    fn blake3_hashes() {
        let hash = SecretHash::blake3([0xab; 32]);
        assert_eq!(hash.as_str(), format!("blake3:{}", "ab".repeat(32)));
        assert_eq!((hash.scheme(), hash.as_blake3()), (SecretScheme::Blake3, Some([0xab; 32])));
        assert_eq!((hash.as_hmac(), hash.as_bcrypt()), (None, None));
        assert_eq!(SecretHash::parse(hash.as_str()).unwrap(), hash);
        assert_eq!(format!("{hash:?}"), "SecretHash(blake3:…)");
        assert!(SecretHash::parse(&hash.as_str().to_uppercase()).is_err());
        assert!(SecretHash::parse(&format!("blake3:{}", "ab".repeat(31))).is_err());
    }

    #[test]
    fn refuses_other_text_without_repeating_it() {
        let mac = "ab".repeat(32);
        for bad in [
            String::new(),
            "hunter2".into(),
            BCRYPT.into(),
            format!("hmac-sha256:000102ff:{}", mac.to_uppercase()),
            format!("hmac-sha256:000102:{mac}"),
            format!("hmac-sha256:000102ff:{mac}00"),
            format!("hmac-sha256:{mac}"),
            format!("hmac-sha512:000102ff:{mac}"),
            format!("bcrypt:{BCRYPT}a"),
            format!("bcrypt:{}", BCRYPT.replace("$2a$", "$2x$")),
            format!("bcrypt:{}", BCRYPT.replace("$10$", "$32$")),
            format!("bcrypt:{}", BCRYPT.replace("$10$", "$+9$")),
            format!("bcrypt:{}", BCRYPT.replace("$10$", "$9$")),
            format!("bcrypt:{}", BCRYPT.replace('N', "!")),
        ] {
            let error = SecretHash::parse(&bad).unwrap_err().to_string();
            assert!(!error.contains("abab") && !error.contains("N9qo"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
