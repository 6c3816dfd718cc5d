//! Blocks as bytes.
//!
//! ```text
//! header   magic "GWB1" | serial u64 | id 16 | previous hash 32 | time i64 | schema u32
//!          | hash of changes 32 | hash of audit 32
//! sections length of changes u32 | changes | length of audit u32 (or 0xffffffff: erased) | audit
//! ```
//! Numbers are big-endian. The block's hash is SHA-256 (FIPS 180-4) of the header, which covers the
//! hashes of the sections: an erased audit section leaves the chain intact.

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::block::{Block, BlockHash, ChangeKind, RowChange, Serial};
use crate::domain::{AuditEntry, BlockId, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{
    MAX_KEY, Record, RowKey, Schema, Table, put_varint, take, take_length, take_varint,
};

const MAGIC: &[u8; 4] = b"GWB1";
const HEADER: usize = 4 + 8 + 16 + 32 + 8 + 4 + 32 + 32;
const ERASED: u32 = u32::MAX;
/// A block may be at most this long: 256 MiB.
pub const MAX_BLOCK: usize = 256 * 1024 * 1024;

/// A block as bytes, with what a backend needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBlock {
    /// The number of its commit.
    pub serial: Serial,
    /// Unique; tells an identical block from a different one with the same serial.
    pub id: BlockId,
    /// Its effective time.
    pub time: Timestamp,
    /// The hash of the block before it.
    pub previous: BlockHash,
    /// The hash of its header.
    pub hash: BlockHash,
    /// Header and sections.
    pub bytes: Bytes,
}

/// Collects the changes of a batch while its commands are applied, and encodes each row once.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    changes: BytesMut,
    spans: Vec<Span>,
    audit: BytesMut,
    audit_spans: Vec<Span>,
    entries: Vec<AuditEntry>,
    /// One entry's row, whose length is before it; kept for its room.
    row: BytesMut,
    most: Option<usize>,
}

/// How long the sections of a block are, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The rows that changed.
    pub changes: usize,
    /// The audit trail.
    pub audit: usize,
}

/// A closed block, and what is in it. Bodies are slices of the block's bytes.
#[derive(Debug)]
pub struct ClosedBlock {
    /// As bytes, and what a backend needs to know.
    pub block: EncodedBlock,
    /// The rows of the state that changed, in order.
    pub changes: Vec<RowChange>,
    /// The audit entries, as rows.
    pub audit_rows: Vec<RowChange>,
    /// The audit entries, readable.
    pub audit: Vec<AuditEntry>,
}

#[derive(Debug, Clone)]
struct Span {
    table: Table,
    kind: ChangeKind,
    key: RowKey,
    body: Option<(usize, usize)>,
}

impl BlockBuilder {
    /// A builder with room for about as much as a block of these sizes has, at most 1 MiB for each
    /// section.
    #[must_use]
    pub fn like(Sizes { changes, audit }: Sizes) -> Self {
        const MOST: usize = 1024 * 1024;
        let room = |bytes: usize| BytesMut::with_capacity((bytes + bytes / 4).min(MOST));
        Self { changes: room(changes), audit: room(audit), ..Self::default() }
    }

    /// Limits the length of the block; without this the limit is [`MAX_BLOCK`].
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.most = Some(bytes.min(MAX_BLOCK));
        self
    }

    /// How many bytes there are so far.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes { changes: self.changes.len(), audit: self.audit.len() }
    }

    /// The audit entries so far.
    #[must_use]
    pub fn audit_entries(&self) -> &[AuditEntry] {
        &self.entries
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty() && self.entries.is_empty()
    }

    /// How many bytes the rows and the audit trail take so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len() + self.audit.len()
    }

    /// Adds a row that was created or updated.
    pub fn put<R: Record>(&mut self, kind: ChangeKind, record: &R) {
        let key = record.key();
        self.begin(R::SCHEMA.table, kind, &key);
        let length_at = self.changes.len();
        self.changes.put_bytes(0, 4);
        let body_at = self.changes.len();
        record.encode_into(&mut self.changes);
        let end = self.changes.len();
        let length = u32::try_from(end - body_at).unwrap_or(u32::MAX);
        if let Some(slot) = self.changes.get_mut(length_at..body_at) {
            slot.copy_from_slice(&length.to_be_bytes());
        }
        self.spans.push(Span { table: R::SCHEMA.table, kind, key, body: Some((body_at, end)) });
    }

    /// Adds that a row is gone.
    pub fn delete(&mut self, table: Table, key: RowKey) {
        self.begin(table, ChangeKind::Deleted, &key);
        self.spans.push(Span { table, kind: ChangeKind::Deleted, key, body: None });
    }

    /// Adds an entry to the audit trail.
    pub fn audit(&mut self, entry: AuditEntry) {
        let key = entry.key();
        put_varint(&mut self.audit, key.as_bytes().len() as u64);
        self.audit.put_slice(key.as_bytes());
        self.row.clear();
        entry.encode_into(&mut self.row);
        put_varint(&mut self.audit, self.row.len() as u64);
        let start = self.audit.len();
        self.audit.put_slice(&self.row);
        let body = Some((start, self.audit.len()));
        self.audit_spans.push(Span { table: Table::Audit, kind: ChangeKind::Created, key, body });
        self.entries.push(entry);
    }

    fn begin(&mut self, table: Table, kind: ChangeKind, key: &RowKey) {
        self.changes.put_u8(table.number());
        self.changes.put_u8(match kind {
            ChangeKind::Created => 0,
            ChangeKind::Updated => 1,
            ChangeKind::Deleted => 2,
        });
        put_varint(&mut self.changes, key.as_bytes().len() as u64);
        self.changes.put_slice(key.as_bytes());
    }

    /// Ends and hashes the block.
    ///
    /// # Errors
    /// `Exhausted` if it is longer than it may be.
    pub fn finish(
        self,
        serial: Serial,
        id: BlockId,
        previous: BlockHash,
        time: Timestamp,
    ) -> Result<ClosedBlock> {
        let total = HEADER + 8 + self.len();
        let most = self.most.unwrap_or(MAX_BLOCK);
        if total > most {
            return Err(Error::new(
                ErrorKind::Exhausted,
                "one commit would take more bytes than a block may have; split the call",
            )
            .with("bytes", total)
            .with("allowed", most));
        }
        let mut bytes = BytesMut::with_capacity(total);
        bytes.put_slice(MAGIC);
        bytes.put_u64(serial.get());
        bytes.put_slice(id.as_bytes());
        bytes.put_slice(previous.as_bytes());
        bytes.put_i64(time.as_micros());
        bytes.put_u32(Schema::current().version().version);
        bytes.put_slice(&Sha256::digest(&self.changes));
        bytes.put_slice(&Sha256::digest(&self.audit));
        let hash = BlockHash::from_bytes(Sha256::digest(&bytes).into());
        put_section(&mut bytes, &self.changes);
        let changes_end = bytes.len();
        put_section(&mut bytes, &self.audit);
        let bytes = bytes.freeze();
        let rows = |spans: Vec<Span>, base: usize| {
            let row = |span: Span| RowChange {
                table: span.table,
                kind: span.kind,
                key: span.key,
                body: span.body.map(|(start, end)| bytes.slice(base + start..base + end)),
            };
            spans.into_iter().map(row).collect()
        };
        Ok(ClosedBlock {
            changes: rows(self.spans, changes_end - self.changes.len()),
            audit_rows: rows(self.audit_spans, bytes.len() - self.audit.len()),
            audit: self.entries,
            block: EncodedBlock { serial, id, time, previous, hash, bytes },
        })
    }
}

fn put_section(bytes: &mut BytesMut, section: &[u8]) {
    // Bounded by MAX_BLOCK, which fits.
    bytes.put_u32(u32::try_from(section.len()).unwrap_or(ERASED - 1));
    bytes.put_slice(section);
}

impl EncodedBlock {
    /// Reads the header and checks the hashes of the sections.
    ///
    /// # Errors
    /// `Corrupt` if anything is not as it was written.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let damaged = |what: &'static str| Error::corrupt("a block is damaged").with("part", what);
        if bytes.len() > MAX_BLOCK {
            return Err(damaged("length").with("bytes", bytes.len()));
        }
        let header = bytes.get(..HEADER).ok_or_else(|| damaged("header"))?;
        let mut rest = header;
        if take(&mut rest, 4)? != MAGIC {
            return Err(damaged("magic"));
        }
        let serial = u64::from_be_bytes(take_array(&mut rest)?);
        if i64::try_from(serial).is_err() {
            return Err(damaged("serial"));
        }
        let id = BlockId::from_bytes(take_array(&mut rest)?);
        let previous = BlockHash::from_bytes(take_array(&mut rest)?);
        let time = Timestamp::from_micros(i64::from_be_bytes(take_array(&mut rest)?))
            .map_err(|error| damaged("time").because(error))?;
        take(&mut rest, 4)?;
        let changes_hash: [u8; 32] = take_array(&mut rest)?;
        let audit_hash: [u8; 32] = take_array(&mut rest)?;
        let hash = BlockHash::from_bytes(Sha256::digest(header).into());
        let block =
            Self { serial: Serial::new(serial), id, time, previous, hash, bytes: bytes.clone() };
        let (changes, audit) = block.sections()?;
        if Sha256::digest(changes)[..] != changes_hash {
            return Err(damaged("changes").with("serial", serial));
        }
        if audit.is_some_and(|audit| Sha256::digest(audit)[..] != audit_hash) {
            return Err(damaged("audit").with("serial", serial));
        }
        Ok(block)
    }

    /// Its bytes in two parts: header and changes; and the audit section with its length, which can be
    /// erased by itself. A block that is misshapen has no second part.
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let mut rest = self.bytes.get(HEADER..).unwrap_or_default();
        let changes = take_array(&mut rest).map_or(usize::MAX, |length| {
            usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX)
        });
        let audit = changes.saturating_add(HEADER + 4);
        self.bytes.split_at_checked(audit).unwrap_or((&self.bytes, &[]))
    }

    fn sections(&self) -> Result<(&[u8], Option<&[u8]>)> {
        let mut rest = self.bytes.get(HEADER..).unwrap_or_default();
        let length = u32::from_be_bytes(take_array(&mut rest)?);
        let changes = take(&mut rest, length as usize)?;
        let audit = match u32::from_be_bytes(take_array(&mut rest)?) {
            ERASED => None,
            length => Some(take(&mut rest, length as usize)?),
        };
        if !rest.is_empty() {
            return Err(Error::corrupt("a block has bytes after its end")
                .with("serial", self.serial)
                .with("bytes", rest.len()));
        }
        Ok((changes, audit))
    }

    /// Decodes the block.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read.
    pub fn decode(&self) -> Result<Block> {
        let schema_at = 4 + 8 + 16 + 32 + 8;
        let mut schema = self.bytes.get(schema_at..schema_at + 4).unwrap_or_default();
        let schema = u32::from_be_bytes(take_array(&mut schema)?);
        let (changes, audit) = self.sections()?;
        let block = Block {
            serial: self.serial,
            id: self.id,
            previous: self.previous,
            time: self.time,
            schema,
            changes: self.decode_changes(changes)?,
            audit: audit.map(decode_audit).transpose()?,
        };
        Ok(block)
    }

    fn decode_changes(&self, section: &[u8]) -> Result<Vec<RowChange>> {
        let mut changes = Vec::new();
        let mut rest = section;
        while !rest.is_empty() {
            let table = Table::from_number(take_byte(&mut rest)?)?;
            let kind = match take_byte(&mut rest)? {
                0 => ChangeKind::Created,
                1 => ChangeKind::Updated,
                2 => ChangeKind::Deleted,
                other => {
                    return Err(Error::corrupt("a block has a change of unknown kind")
                        .with("kind", other)
                        .with("serial", self.serial));
                }
            };
            let key = take_key(&mut rest)?;
            let body = if kind == ChangeKind::Deleted {
                None
            } else {
                let length = u32::from_be_bytes(take_array(&mut rest)?);
                Some(self.bytes.slice_ref(take(&mut rest, length as usize)?))
            };
            changes.push(RowChange { table, kind, key, body });
        }
        Ok(changes)
    }
}

fn decode_audit(section: &[u8]) -> Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    let mut rest = section;
    while !rest.is_empty() {
        let key = take_key(&mut rest)?;
        let length = take_length(&mut rest)?;
        entries.push(AuditEntry::decode(&key, take(&mut rest, length)?)?);
    }
    Ok(entries)
}

fn take_key(rest: &mut &[u8]) -> Result<RowKey> {
    let length = usize::try_from(take_varint(rest)?).unwrap_or(usize::MAX);
    if length > MAX_KEY {
        return Err(Error::corrupt("a block has a key longer than 512 bytes"));
    }
    RowKey::from_bytes(take(rest, length)?)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8> {
    let [byte] = take_array(rest)?;
    Ok(byte)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    <[u8; N]>::try_from(take(rest, N)?).map_err(|_| Error::corrupt("stored bytes end too early"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::{Actor, AuditId, Text};
    use crate::error::EntityKind;

    #[test]
    fn a_block_whose_audit_section_was_erased_is_the_same_link_of_the_chain() {
        let mut builder = BlockBuilder::default();
        builder.delete(Table::Users, RowKey::new().id(&[1; 16]));
        builder.audit(AuditEntry::new(
            (Timestamp::EPOCH, AuditId::from_bytes([1; 16])),
            Actor::system(),
            Text::new("user.delete").unwrap(),
            EntityKind::User,
            Text::new("ann").unwrap(),
        ));
        let (serial, id) = (Serial::new(1), BlockId::from_bytes([2; 16]));
        let closed = builder.finish(serial, id, BlockHash::GENESIS, Timestamp::EPOCH).unwrap();
        let (changes, audit) = closed.block.sections().unwrap();
        let kept = HEADER + 4 + changes.len();
        let mut bytes = BytesMut::from(&closed.block.bytes[..kept]);
        bytes.put_u32(ERASED);
        let erased = EncodedBlock::parse(bytes.freeze()).unwrap();
        assert!(audit.is_some_and(|audit| !audit.is_empty()));
        let (whole, without) = (closed.block.parts(), erased.parts());
        assert_eq!(
            (whole.0, [whole.0, whole.1].concat()),
            (without.0, closed.block.bytes.to_vec())
        );
        assert_eq!((whole.0.len(), without.1), (kept, &ERASED.to_be_bytes()[..]));
        assert_eq!(erased.hash, closed.block.hash);
        let (erased, whole) = (erased.decode().unwrap(), closed.block.decode().unwrap());
        assert_eq!((erased.changes, erased.audit), (whole.changes, None));
        assert_eq!(whole.audit, Some(closed.audit));
    }
}
