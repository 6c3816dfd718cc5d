//! Sealed records: XChaCha20-Poly1305 under a subkey for each purpose, bound to store, purpose,
//! number, key version and form, in steps of length that hide the true one.
//!
//! A commit makes one [`CommitSealer`], which draws the first 16 bytes of all its nonces; the last
//! 8 count its records. Readers make an [`Opener`] each. What binds records to their time is the
//! [`Inventory`].

mod frame;
mod inventory;
mod opener;
mod padding;
mod sealer;

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::error::{Damage, Error, Result};
use crate::hash::derive;
use crate::keyring::Keyring;
use crate::secret::{Secret, on_cleared_stack};

pub use frame::{FRAME, Tag, tag_of, version_of};
pub use inventory::{Inventory, Sum};
pub use opener::Opener;
pub use padding::sealed_length;
pub use sealer::CommitSealer;

/// What a record is. Each kind has keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Where the store stands.
    Head = 1,
    /// A row of the state; its number is its slot.
    Row = 2,
    /// Rows of a series; its number is the chunk's.
    Chunk = 3,
    /// A leaf of the directory of chunks.
    Directory = 4,
    /// A block's header and changes; its number is its serial.
    Block = 5,
    /// A block's audit section; its number is its serial.
    Audit = 6,
    /// An entry of the journal.
    Journal = 7,
    /// A signed manifest.
    Signature = 8,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Row,
        Self::Chunk,
        Self::Directory,
        Self::Block,
        Self::Audit,
        Self::Journal,
        Self::Signature,
    ];

    /// The word for it, which its subkeys are derived with, too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Row => "row",
            Self::Chunk => "chunk",
            Self::Directory => "directory",
            Self::Block => "block",
            Self::Audit => "audit",
            Self::Journal => "journal",
            Self::Signature => "signature",
        }
    }

    const fn place(self) -> usize {
        self as usize - 1
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The subkeys of all versions in a keyring. Cloning shares them.
#[derive(Clone)]
pub struct SealingKeys(Arc<Keys>);

struct Keys {
    store: [u8; 16],
    active: u32,
    next_version: u32,
    versions: Vec<Subkeys>,
}

/// The subkeys of one version, in the order of [`Kind::ALL`].
struct Subkeys {
    version: u32,
    keys: Box<[[u8; 32]; 8]>,
}

impl Drop for Subkeys {
    fn drop(&mut self) {
        self.keys.zeroize();
    }
}

impl SealingKeys {
    /// Derived from a keyring's data keys; the newest version seals.
    ///
    /// # Errors
    /// `Library` if deriving fails.
    pub fn new(keyring: &Keyring) -> Result<Self> {
        on_cleared_stack(|| Self::derive(keyring))
    }

    fn derive(keyring: &Keyring) -> Result<Self> {
        let store = *keyring.store();
        let subkeys = |key: &crate::keyring::DataKey| {
            let mut subkeys = Subkeys { version: key.version(), keys: Box::new([[0; 32]; 8]) };
            for (subkey, kind) in subkeys.keys.iter_mut().zip(Kind::ALL) {
                subkey.copy_from_slice(subkey_of(key.key(), &store, kind)?.expose());
            }
            Ok(subkeys)
        };
        let versions = keyring.data_keys().iter().map(subkeys).collect::<Result<_>>()?;
        Ok(Self(Arc::new(Keys {
            store,
            active: keyring.active()?.version(),
            next_version: keyring.next_version(),
            versions,
        })))
    }

    /// The version that seals.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.0.active
    }

    /// The store that they are for.
    #[must_use]
    pub fn store(&self) -> &[u8; 16] {
        &self.0.store
    }

    fn subkey(&self, version: u32, kind: Kind) -> Option<&[u8; 32]> {
        let versions = &self.0.versions;
        let place = versions.binary_search_by_key(&version, |subkeys| subkeys.version).ok()?;
        versions.get(place)?.keys.get(kind.place())
    }

    /// What to say of a record under a version that there is no key for.
    fn unknown(&self, version: u32, kind: Kind, number: u64) -> Error {
        if (1..self.0.next_version).contains(&version) {
            Error::MissingVersion { version }
        } else {
            Error::Record { damage: Damage::Foreign { version }, kind, number }
        }
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKeys(version {})", self.0.active)
    }
}

fn subkey_of(key: &Secret, store: &[u8; 16], kind: Kind) -> Result<Secret> {
    derive(key.expose(), store, &[b"ghostwire-store sealed 1 ", kind.name().as_bytes()])
}

#[cfg(test)]
mod tests;
