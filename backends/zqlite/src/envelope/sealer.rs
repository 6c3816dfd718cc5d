//! Records on their way to the engine.

use std::ops::Range;

use ghostwire_store_core::block::EncodedBlock;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{RowKey, Table};
use ghostwire_store_crypto::sealing::{CommitSealer, Kind, Tag};
use ghostwire_store_crypto::signature::Signer;

use super::refusal::refused;
use super::{BLOCK_FRAME, Envelope, HEAD, PLAIN, Placed};
use crate::head::{Prefix, Stored};

/// Frames the records of one commit.
#[derive(Debug)]
pub(crate) struct Sealer<'e> {
    envelope: &'e Envelope,
    commit: Option<CommitSealer>,
}

/// Bytes to write: those of the commit, or among those that were made for it.
#[derive(Debug)]
pub(crate) enum Part<'c> {
    Given(&'c [u8]),
    Made(Range<usize>),
}

/// A block, ready to be written.
#[derive(Debug)]
pub(crate) struct FramedBlock<'c> {
    pub(crate) tags: [Tag; 2],
    pub(crate) changes: Part<'c>,
    pub(crate) audit: Part<'c>,
}

impl<'e> Sealer<'e> {
    pub(super) fn new(envelope: &'e Envelope, commit: Option<CommitSealer>) -> Self {
        Self { envelope, commit }
    }

    /// What signs; `None` of a plain store.
    pub(crate) fn signer(&self) -> Option<&'e Signer> {
        self.envelope.signer()
    }

    /// Appends a record to `into`.
    pub(crate) fn seal(
        &mut self,
        kind: Kind,
        number: u64,
        content: &[&[u8]],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        self.seal_beside(kind, number, &[], content, into)
    }

    fn seal_beside(
        &mut self,
        kind: Kind,
        number: u64,
        prefix: &[u8],
        content: &[&[u8]],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        match (self.envelope, &mut self.commit) {
            (Envelope::Sealed(_), Some(commit)) => {
                commit.seal(kind, number, prefix, content, into).map_err(|error| refused(&error))
            }
            (Envelope::Plain(checksums), _) => {
                let parts: Vec<&[u8]> =
                    [prefix].into_iter().chain(content.iter().copied()).collect();
                let tag = checksums.of(kind, number, &parts);
                into.push(PLAIN);
                into.extend_from_slice(&tag.0);
                content.iter().for_each(|part| into.extend_from_slice(part));
                Ok(tag)
            }
            (Envelope::Sealed(_), None) => {
                Err(Error::new(ErrorKind::Unexpected, "a sealed store is written without a sealer"))
            }
        }
    }

    /// The head, sealed last: it has the sums over all other records.
    pub(crate) fn seal_head(&mut self, stored: &Stored) -> Result<Vec<u8>> {
        let prefix = Prefix::of(stored, self.envelope.generation()).encode();
        let mut into = prefix.to_vec();
        self.seal_beside(Kind::Head, HEAD, &prefix, &[&stored.encode()], &mut into)?;
        Ok(into)
    }

    /// A head as an earlier build had it, which knew less.
    #[cfg(test)]
    pub(crate) fn seal_shorter_head(&mut self, stored: &Stored, length: usize) -> Result<Vec<u8>> {
        let prefix = Prefix::of(stored, self.envelope.generation()).encode();
        let (mut into, mut content) = (prefix.to_vec(), stored.encode());
        content.truncate(length);
        self.seal_beside(Kind::Head, HEAD, &prefix, &[&content], &mut into)?;
        Ok(into)
    }

    /// A row, or rows of a series.
    pub(crate) fn seal_placed(
        &mut self,
        kind: Kind,
        number: u64,
        placed: &Placed<'_>,
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        let Placed { table, key, body } = placed;
        // At most MAX_KEY, which fits.
        let length = u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes();
        self.seal(kind, number, &[&[*table], &length, key, body], into)
    }

    pub(crate) fn seal_row(
        &mut self,
        slot: u64,
        table: Table,
        key: &RowKey,
        body: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<Tag> {
        let placed = Placed { table: table.number(), key: key.as_bytes(), body };
        self.seal_placed(Kind::Row, slot, &placed, into)
    }

    pub(crate) fn seal_block<'c>(
        &mut self,
        block: &'c EncodedBlock,
        into: &mut Vec<u8>,
    ) -> Result<FramedBlock<'c>> {
        let (changes, audit) = block.parts();
        if let Envelope::Plain(checksums) = self.envelope {
            let tags = checksums.of_block(block);
            let (changes, audit) = (Part::Given(changes), Part::Given(audit));
            return Ok(FramedBlock { tags, changes, audit });
        }
        let mut part = |kind, content: &[u8]| {
            let start = into.len();
            let tag = self.seal(kind, block.serial.get(), &[content], into)?;
            Ok::<_, Error>((tag, Part::Made(start..into.len())))
        };
        let (changes_tag, changes) = part(Kind::Block, changes)?;
        let (audit_tag, audit) = part(Kind::Audit, audit)?;
        Ok(FramedBlock { tags: [changes_tag, audit_tag], changes, audit })
    }
}

/// What stands beside a block.
pub(crate) fn frame_of(tags: [Tag; 2]) -> [u8; BLOCK_FRAME] {
    let mut frame = [0; BLOCK_FRAME];
    let bytes = tags.iter().flat_map(|tag| tag.0);
    frame.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    frame
}
