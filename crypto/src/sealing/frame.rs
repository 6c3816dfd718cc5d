//! The bytes around what is sealed.

use crate::sealing::Kind;

/// The first byte of a sealed record. 1 is a plain frame of zqlite, which this crate does not read.
const SEALED: u8 = 2;
const NONCE: usize = 24;
const TAG: usize = 16;
/// What stands before the ciphertext: form, version, nonce.
pub(crate) const BEFORE: usize = 1 + 4 + NONCE;
/// What a sealed record has more than what is sealed in it: form, version, nonce, tag.
pub const FRAME: usize = BEFORE + TAG;
/// The place in front of the content, sealed with it: its number and its length.
pub(crate) const PLACE: usize = 8 + 4;

const LABEL: &[u8] = b"ghostwire-store zqlite sealed 1";

/// The last 16 bytes of a sealed record, which nothing else has. The inventory takes them for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; TAG]);

/// The tag of a stored record; `None` if it is too short.
#[must_use]
pub fn tag_of(stored: &[u8]) -> Option<Tag> {
    Frame::of(stored).map(|frame| Tag(*frame.tag))
}

/// The version of the data key that a stored record names, whether it was sealed under it or not;
/// `None` if it is no sealed record.
#[must_use]
pub fn version_of(stored: &[u8]) -> Option<u32> {
    Frame::of(stored).filter(|frame| frame.is_sealed()).map(|frame| frame.version)
}

/// A stored record, taken apart.
pub(crate) struct Frame<'a> {
    pub(crate) form: u8,
    pub(crate) version: u32,
    pub(crate) prefix: &'a [u8; 16],
    pub(crate) counter: [u8; 8],
    pub(crate) ciphertext: &'a [u8],
    pub(crate) tag: &'a [u8; TAG],
}

impl<'a> Frame<'a> {
    /// `None` if it is too short.
    pub(crate) fn of(stored: &'a [u8]) -> Option<Self> {
        let (&[form], rest) = stored.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (prefix, rest) = rest.split_first_chunk()?;
        let (&counter, rest) = rest.split_first_chunk()?;
        let (ciphertext, tag) = rest.split_last_chunk()?;
        Some(Self { form, version: u32::from_be_bytes(*version), prefix, counter, ciphertext, tag })
    }

    pub(crate) const fn is_sealed(&self) -> bool {
        self.form == SEALED
    }
}

/// Writes what stands before the ciphertext.
pub(crate) fn write_before(version: u32, prefix: &[u8; 16], counter: u64, into: &mut Vec<u8>) {
    into.push(SEALED);
    into.extend(version.to_be_bytes());
    into.extend(prefix);
    into.extend(counter.to_be_bytes());
}

/// The associated data: what a record is bound to besides its key.
pub(crate) struct Bound(Vec<u8>);

impl Bound {
    pub(crate) fn new(store: &[u8; 16]) -> Self {
        let mut bytes = Vec::with_capacity(LABEL.len() + 1 + 4 + 16 + 1 + 64);
        bytes.extend(LABEL);
        bytes.extend([SEALED, 0, 0, 0, 0]);
        bytes.extend(store);
        bytes.push(0);
        Self(bytes)
    }

    /// For a record of this version and kind, behind `prefix`, which stands in plain beside it.
    pub(crate) fn set(&mut self, version: u32, kind: Kind, prefix: &[u8]) -> &[u8] {
        const VERSION: usize = LABEL.len() + 1;
        const KIND: usize = VERSION + 4 + 16;
        self.0.truncate(KIND);
        if let Some(field) = self.0.get_mut(VERSION..VERSION + 4) {
            field.copy_from_slice(&version.to_be_bytes());
        }
        self.0.push(kind as u8);
        self.0.extend_from_slice(prefix);
        &self.0
    }
}
