//! Keys in memory: zeroized when dropped, compared in constant time, never shown.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroize;

use crate::error::Result;
use crate::random::Random;

/// 32 secret bytes, on the heap, so that moving them leaves no copy behind.
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    /// A copy of these bytes. They are zeroized where they came from.
    #[must_use]
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let secret = Self::copy_of(bytes);
        bytes.zeroize();
        secret
    }

    /// A copy of these bytes, for whoever zeroizes them.
    pub(crate) fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Self(Box::new([0; 32]));
        secret.0.copy_from_slice(bytes);
        secret
    }

    /// Drawn from `random`.
    ///
    /// # Errors
    /// [`Error::Random`](crate::Error::Random) if it gives none.
    pub fn draw(random: &dyn Random) -> Result<Self> {
        let mut secret = Self(Box::new([0; 32]));
        random.fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self::copy_of(&self.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        equal(self.expose(), other.expose())
    }
}

impl Eq for Secret {}

/// Whether both are the same, in a time that tells only the lengths.
#[must_use]
pub(crate) fn equal(one: &[u8], other: &[u8]) -> bool {
    verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_leaves_where_it_came_from() {
        let mut bytes = [0xa5; 32];
        let secret = Secret::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(secret.expose(), &[0xa5; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret, secret.clone());
        assert_ne!(secret, Secret::copy_of(&[0xa4; 32]));
    }
}
