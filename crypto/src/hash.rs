//! SHA-256 (FIPS 180-4), HMAC (RFC 2104) and HKDF (RFC 5869), by AWS-LC.

use aws_lc_rs::{digest, hkdf, hmac};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// SHA-256 of the parts, one behind the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    array(context.finish().as_ref())
}

/// A key for HMAC-SHA-256 whose schedule is made once.
#[derive(Clone)]
pub(crate) struct MacKey(hmac::Key);

impl MacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The code of the parts, one behind the other.
    pub(crate) fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        array(context.sign().as_ref())
    }
}

/// HKDF-SHA-256, 32 bytes long.
pub(crate) fn derive(key: &[u8], salt: &[u8], info: &[&[u8]]) -> Result<Secret> {
    let mut derived = Secret::copy_of(&[0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(key)
        .expand(info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(derived.expose_mut().as_mut_slice()))
        .map_err(|_| Error::Library("HKDF-SHA-256"))?;
    Ok(derived)
}

/// The first bytes of a digest, which has at least as many.
fn array<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(digest).for_each(|(byte, digest)| *byte = *digest);
    bytes
}
