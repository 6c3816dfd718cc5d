//! A passphrase as root secret: Argon2id (RFC 9106) makes the identity's 32 bytes of it.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::error::{Error, Result};
use crate::keyring::recipient::Identity;
use crate::random::{Random, draw};
use crate::secret::{Secret, on_cleared_stack};
use crate::wire::Reader;

const MEMORY: std::ops::RangeInclusive<u32> = 64 * 1024..=1024 * 1024;
const PASSES: std::ops::RangeInclusive<u32> = 3..=16;
const LANES: std::ops::RangeInclusive<u32> = 4..=16;

/// How a passphrase is stretched. It stands in the keyring's header and its bounds are checked
/// there, before anything is computed: a header of somebody else's making costs at most 1 GiB and
/// 16 passes, and never less than 64 MiB and 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    salt: [u8; 16],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Stretch {
    /// With a new salt, 64 MiB, 3 passes and 4 lanes, as RFC 9106 recommends where memory is short.
    ///
    /// # Errors
    /// As [`Random::fill`].
    pub fn draw(random: &dyn Random) -> Result<Self> {
        Self::new(draw(random)?, *MEMORY.start(), *PASSES.start(), *LANES.start())
    }

    /// With these figures.
    ///
    /// # Errors
    /// `Invalid` outside of 65,536 to 1,048,576 KiB, 3 to 16 passes, 4 to 16 lanes.
    pub fn new(salt: [u8; 16], memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        for (what, figure, bounds) in [
            ("memory of Argon2id in KiB", memory_kib, MEMORY),
            ("passes of Argon2id", passes, PASSES),
            ("lanes of Argon2id", lanes, LANES),
        ] {
            if !bounds.contains(&figure) {
                let (least, most) = bounds.into_inner();
                return Err(Error::invalid(
                    what,
                    format!("{figure} is not within {least} and {most}"),
                ));
            }
        }
        Ok(Self { salt, memory_kib, passes, lanes })
    }

    /// The identity that this passphrase stands for. Takes about a second and the memory that it
    /// says.
    ///
    /// # Errors
    /// `Invalid` for an empty passphrase; `Library` if there is not enough memory.
    pub fn identity(&self, passphrase: &[u8]) -> Result<Identity> {
        if passphrase.is_empty() {
            return Err(Error::invalid("passphrase", "it is empty"));
        }
        let failed = |_| Error::Library("Argon2id");
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut seed = Secret::copy_of(&[0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        on_cleared_stack(|| argon2.hash_password_into(passphrase, &self.salt, seed.expose_mut()))
            .map_err(failed)?;
        Identity::new(seed)
    }

    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        into.extend(self.salt);
        for figure in [self.memory_kib, self.passes, self.lanes] {
            into.extend(figure.to_be_bytes());
        }
    }

    /// `None` if the bytes end early, or the figures are out of bounds.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let salt = *reader.array()?;
        Self::new(salt, reader.u32()?, reader.u32()?, reader.u32()?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn figures_out_of_bounds_are_refused_before_anything_is_computed() {
        for (memory, passes, lanes) in [
            (64 * 1024 - 1, 3, 4),
            (1024 * 1024 + 1, 3, 4),
            (64 * 1024, 2, 4),
            (64 * 1024, 17, 4),
            (64 * 1024, 3, 3),
            (64 * 1024, 3, 17),
            (u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert!(Stretch::new([0; 16], memory, passes, lanes).is_err());
        }
        assert!(Stretch::new([0; 16], 1024 * 1024, 16, 16).is_ok());
    }

    #[test]
    fn a_passphrase_gives_the_same_identity_again_and_another_one_another() {
        let stretch = Stretch::new([7; 16], 64 * 1024, 3, 4).unwrap();
        let fingerprint =
            |passphrase: &[u8]| stretch.identity(passphrase).unwrap().recipient().fingerprint();
        assert_eq!(fingerprint(b"correct horse"), fingerprint(b"correct horse"));
        assert_ne!(fingerprint(b"correct horse"), fingerprint(b"correct horsf"));
        assert!(stretch.identity(b"").is_err());
    }
}
