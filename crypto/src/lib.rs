//! The cryptography of ghostwire-store: keyrings, sealed records, signatures and pins.
//!
//! This crate writes protocols, not primitives, and knows no backend: a record is bytes with a kind
//! and a number. Randomness, the clock and everything that is stored are handed in; only
//! [`Place`](root::Place), [`KeyringFile`](keyring::KeyringFile), [`FilePin`](pin::FilePin) and
//! [`CommandPin`](pin::CommandPin) touch the system. `docs/cryptography.md` has every construction
//! with its bytes; `crypto/tests/reader.py` is a second reader, written from that.
//!
//! Read in this order:
//!
//! | module | what it has |
//! |---|---|
//! | [`root`] | what unlocks a keyring, and where it is kept |
//! | [`keyring`] | all secrets of a store, sealed to recipients, and how they change |
//! | [`sealing`] | records under those keys, and the inventory that binds them to their time |
//! | [`signature`] | what convinces somebody who has no key |
//! | [`pin`] | what notices that a store was put back |
//!
//! # Example
//! ```
//! use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Unlock};
//! use ghostwire_store_crypto::sealing::{CommitSealer, Kind, Opener, SealingKeys};
//! use ghostwire_store_crypto::SystemRandom;
//!
//! # fn main() -> ghostwire_store_crypto::Result<()> {
//! let store = [7; 16];
//! let root = Identity::draw(&SystemRandom)?;
//! let keyring = Keyring::first(store, root.recipient().clone(), None, 0, &SystemRandom)?;
//! let file = keyring.seal(&SystemRandom)?; // Goes to the disk; `KeyringFile` does that.
//!
//! let expected = Expected { store: Some(store), generation: 1 };
//! let keyring = Keyring::open(&file, Unlock::Identity(&root), &expected)?;
//! let keys = SealingKeys::new(&keyring)?;
//! let mut stored = Vec::new();
//! CommitSealer::new(&keys, &[0; 32], 0, &SystemRandom)?
//!     .seal(Kind::Row, 42, &[], &[b"a row"], &mut stored)?;
//!
//! let mut plain = Vec::new();
//! let row = Opener::new(&keys).open(Kind::Row, 42, &[], &stored, &mut plain)?;
//! assert_eq!(row, b"a row");
//! # Ok(())
//! # }
//! ```

mod aead;
#[cfg(all(test, feature = "constant-time"))]
mod constant_time;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
pub mod keyring;
#[cfg(test)]
mod known_answers;
pub mod pin;
mod random;
pub mod root;
pub mod sealing;
mod secret;
pub mod signature;
mod wire;

pub use error::{Damage, Error, Result, RootFault};
pub use random::{Random, SystemRandom};
pub use secret::{Secret, on_cleared_stack};
