//! The checksums of a store without keys.

use std::fmt;

use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::domain::SideId;
use ghostwire_store_crypto::sealing::{Kind, Tag};
use sha2::{Digest, Sha256};

use super::CHECKSUM;

/// Hashes that have taken in what plain records have in common.
#[derive(Clone)]
pub(crate) struct Checksums {
    /// The head's: which database it is of is read from it.
    head: Sha256,
    /// Those of all other records of a database.
    of_database: Sha256,
}

impl fmt::Debug for Checksums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checksums")
    }
}

impl Checksums {
    /// For heads, before it is known which database it is.
    pub(super) fn of_heads() -> Self {
        let head = Sha256::new_with_prefix(b"ghostwire-store zqlite plain 2");
        Self { of_database: head.clone(), head }
    }

    pub(super) fn of_database(&self, side: SideId) -> Self {
        let of_database = self.head.clone().chain_update(side.as_bytes());
        Self { head: self.head.clone(), of_database }
    }

    pub(super) fn of(&self, kind: Kind, number: u64, content: &[&[u8]]) -> Tag {
        let context = if kind == Kind::Head { &self.head } else { &self.of_database };
        let mut hash = context.clone().chain_update([kind as u8]);
        hash.update(number.to_be_bytes());
        content.iter().for_each(|part| hash.update(part));
        let hash: [u8; 32] = hash.finalize().into();
        let mut tag = [0; CHECKSUM];
        tag.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Tag(tag)
    }

    /// Of the parts of a block.
    pub(super) fn of_block(&self, block: &EncodedBlock) -> [Tag; 2] {
        let (changes, audit) = block.parts();
        let serial = block.serial.get();
        // The hash does not tell whether the audit section was erased; its length does.
        let of = |kind, part: &[u8]| {
            self.of(kind, serial, &[block.hash.as_bytes(), &(part.len() as u64).to_be_bytes()])
        };
        [of(Kind::Block, changes), of(Kind::Audit, audit)]
    }
}
