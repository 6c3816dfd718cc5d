//! Credentials as a control plane checks them: the public part finds the row, a keyed hash proves
//! the secret part.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::rows::CredentialRow;

/// The key of the hashes; a deployment keeps its own outside the database.
pub const HASH_KEY: [u8; 32] = *b"a key that every benchmark knows";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    PreAuthKey,
    ApiKey,
}

impl Purpose {
    fn mark(self) -> &'static str {
        match self {
            Self::PreAuthKey => "gwauth-",
            Self::ApiKey => "gwapi-",
        }
    }
}

/// The text that the holder presents.
pub fn text(purpose: Purpose, row: &CredentialRow) -> String {
    format!("{}{}-{}", purpose.mark(), row.prefix, row.secret)
}

/// The public part and the secret part of a text.
pub fn split(purpose: Purpose, text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(purpose.mark())?.split_once('-')
}

fn mac(purpose: Purpose, secret: &str) -> Hmac<Sha256> {
    // HMAC pads a short key with zeros to the hash's block.
    let mut block = [0; 64];
    block.iter_mut().zip(HASH_KEY).for_each(|(padded, key)| *padded = key);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(purpose.mark().as_bytes());
    mac.update(secret.as_bytes());
    mac
}

pub fn hash(purpose: Purpose, secret: &str) -> [u8; 32] {
    mac(purpose, secret).finalize().into_bytes().into()
}

/// Whether the hash is of this secret; compared in constant time.
pub fn proves(purpose: Purpose, secret: &str, stored: &[u8]) -> bool {
    mac(purpose, secret).verify_slice(stored).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_proves_its_own_hash_only() {
        let row = crate::data::api_key(3);
        let presented = text(Purpose::ApiKey, &row);
        let parts = split(Purpose::ApiKey, &presented);
        assert_eq!(parts, Some((row.prefix.as_str(), row.secret.as_str())));
        let stored = hash(Purpose::ApiKey, &row.secret);
        assert!(proves(Purpose::ApiKey, &row.secret, &stored));
        assert!(!proves(Purpose::PreAuthKey, &row.secret, &stored));
        assert_eq!(split(Purpose::PreAuthKey, &presented), None);
    }
}
