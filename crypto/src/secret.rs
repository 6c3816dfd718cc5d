//! Keys in memory: zeroized when dropped, compared in constant time, never shown, and kept out of
//! the swap where the system allows it.

use std::fmt;
use std::hint::black_box;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroize;

use crate::error::Result;
use crate::random::Random;

/// Bytes on a page of their own: the system locks whole pages, and unlocking one that two secrets
/// share would unlock both.
#[repr(align(4096))]
struct Page<const N: usize>([u8; N]);

/// `N` secret bytes, on the heap, so that moving them leaves no copy behind.
pub(crate) struct Locked<const N: usize> {
    // Dropped first: memory is unlocked before it is given back.
    lock: Option<region::LockGuard>,
    page: Box<Page<N>>,
}

impl<const N: usize> Locked<N> {
    /// Zeros. They are not locked if the system refuses, as it does above `RLIMIT_MEMLOCK`.
    pub(crate) fn zeros() -> Self {
        let page = Box::new(Page([0; N]));
        Self { lock: region::lock(page.0.as_ptr(), N).ok(), page }
    }

    pub(crate) fn bytes(&self) -> &[u8; N] {
        &self.page.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; N] {
        &mut self.page.0
    }

    pub(crate) const fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}

impl<const N: usize> Drop for Locked<N> {
    fn drop(&mut self) {
        self.page.0.zeroize();
    }
}

/// 32 secret bytes.
pub struct Secret(Locked<32>);

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
        let mut secret = Self(Locked::zeros());
        secret.expose_mut().copy_from_slice(bytes);
        secret
    }

    /// Drawn from `random`.
    ///
    /// # Errors
    /// [`Error::Random`](crate::Error::Random) if it gives none.
    pub fn draw(random: &dyn Random) -> Result<Self> {
        let mut secret = Self(Locked::zeros());
        random.fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.bytes()
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8; 32] {
        self.0.bytes_mut()
    }

    /// Whether the system keeps the bytes out of the swap. It refuses where a process may lock less
    /// memory than it has secrets, a page for each.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self::copy_of(self.expose())
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

/// How far below its caller a stack is overwritten: more than X-Wing, the deepest of what runs there, uses.
const CLEARED: usize = 128 * 1024;

/// Runs `work`, and then overwrites what it left on the stack: copies of keys that libraries moved
/// about. They would not only stay there: whoever later moves something with gaps in it from there
/// to the heap takes what was in them along.
pub fn on_cleared_stack<T>(work: impl FnOnce() -> T) -> T {
    let outcome = below(work);
    clear();
    outcome
}

/// In a frame of its own, which `clear` covers.
#[inline(never)]
fn below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn clear() {
    // Written, as somebody might look at it.
    black_box(&mut [0_u8; CLEARED]);
}

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

    /// One that is gone does not unlock another one's page.
    #[test]
    fn each_secret_has_a_page_of_its_own() {
        let (one, other) = (Secret::copy_of(&[1; 32]), Secret::copy_of(&[2; 32]));
        let page = |secret: &Secret| secret.expose().as_ptr() as usize;
        assert_eq!((page(&one) % 4096, page(&other) % 4096), (0, 0));
        assert!(page(&one).abs_diff(page(&other)) >= 4096);
    }
}
