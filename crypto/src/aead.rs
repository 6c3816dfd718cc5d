//! ChaCha20-Poly1305 (RFC 8439) by AWS-LC, and XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) as
//! HChaCha20 once for many records, then ChaCha20-Poly1305 for each.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::R20;
use zeroize::Zeroize;

use crate::error::{Error, Result};

/// The length of a tag.
pub(crate) const TAG: usize = 16;

/// A key for ChaCha20-Poly1305. The caller sees to it that no nonce is used twice under it.
pub(crate) struct Key(LessSafeKey);

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key)
            .map_err(|_| Error::Library("ChaCha20-Poly1305"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// The key for all XChaCha20-Poly1305 nonces that begin with `prefix`.
    pub(crate) fn extended(key: &[u8; 32], prefix: &[u8; 16]) -> Result<Self> {
        let mut subkey = chacha20::hchacha::<R20>(key.into(), prefix.into());
        let extended = Self::new(subkey.as_ref());
        subkey.as_mut_slice().zeroize();
        extended
    }

    /// Seals in place; gives the tag.
    pub(crate) fn seal(&self, nonce: [u8; 12], aad: &[u8], in_out: &mut [u8]) -> Result<[u8; TAG]> {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce_of(nonce), Aad::from(aad), in_out)
            .map_err(|_| Error::Library("sealing with ChaCha20-Poly1305"))?;
        tag.as_ref().try_into().map_err(|_| Error::Library("a tag of another length"))
    }

    /// Opens `sealed` into `plain`, which is as long. Whether the tag was right; if not, `plain`
    /// has nothing that may be used.
    #[must_use]
    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG],
        plain: &mut [u8],
    ) -> bool {
        self.0.open_separate_gather(nonce_of(nonce), Aad::from(aad), sealed, tag, plain).is_ok()
    }
}

fn nonce_of(nonce: [u8; 12]) -> Nonce {
    Nonce::assume_unique_for_key(nonce)
}

/// The nonce of ChaCha20-Poly1305 for the last 8 bytes of an XChaCha20-Poly1305 nonce.
pub(crate) fn inner_nonce(last: [u8; 8]) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce.iter_mut().skip(4).zip(last).for_each(|(to, from)| *to = from);
    nonce
}
