//! Where randomness comes from.

use crate::error::{Error, Result};

/// A source of random bytes.
///
/// Keys and nonces are drawn through it, so that nothing here reads a global. [`SystemRandom`] is
/// the only implementation to run with; others are for tests. Never derive a nonce or a key from
/// anything that a file can hold, nor from a generator that somebody can seed.
pub trait Random {
    /// Fills `bytes`.
    ///
    /// # Errors
    /// [`Error::Random`] if the source gives none.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The operating system's randomness, asked anew each time and kept in no buffer, so that copies of
/// a process do not share what is drawn after they part.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| Error::Random(error.to_string()))
    }
}

/// `N` bytes of `random`.
pub(crate) fn draw<const N: usize>(random: &dyn Random) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}
