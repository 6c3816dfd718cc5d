//! What binds records to their time: a sum over the tags of all current ones, kept in the sealed
//! head.

use std::fmt;

use crate::hash::{MacKey, sha256};
use crate::keyring::Authority;
use crate::sealing::{Kind, Tag};
use crate::secret::equal;

/// Adds records to sums and takes them out.
///
/// A sum is the exclusive or of HMAC-SHA-256(key, kind, number, tag) over records (MSet-XOR-Hash of
/// Clarke et al., ASIACRYPT 2003). It tells sets apart as long as its key is secret and the sums
/// are sealed, hence a key of its own.
#[derive(Clone)]
pub struct Inventory(MacKey);

impl Inventory {
    /// With the key of a keyring.
    #[must_use]
    pub fn new(authority: &Authority) -> Self {
        Self(MacKey::new(authority.inventory().expose()))
    }

    /// Puts a record into a sum, or takes it out again: either is the same. A record that is
    /// replaced goes out with its old tag, and comes in with its new one.
    pub fn toggle(&self, sum: &mut Sum, kind: Kind, number: u64, tag: Tag) {
        let code = self.0.code(&[&[kind as u8], &number.to_be_bytes(), &tag.0]);
        sum.toggle(&code);
    }

    /// A code of a whole record, as it is stored. A tag binds its record only for who does not know the data
    /// key; this binds it for everybody who does not know the inventory's.
    #[must_use]
    pub fn code_of_record(&self, kind: Kind, number: u64, stored: &[u8]) -> [u8; 32] {
        self.0.code(&[&[kind as u8], &number.to_be_bytes(), &sha256(&[stored])])
    }
}

impl fmt::Debug for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inventory(..)")
    }
}

/// The sum over a set of records; all zeros over none. It belongs into the sealed head and nowhere
/// else.
#[derive(Clone, Copy, Default)]
pub struct Sum([u8; 32]);

impl Sum {
    /// The one with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Puts a code into it, or takes it out again.
    pub fn toggle(&mut self, code: &[u8; 32]) {
        self.0.iter_mut().zip(code).for_each(|(sum, code)| *sum ^= code);
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for Sum {}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum(..)")
    }
}
