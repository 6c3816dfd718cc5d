//! Blocks: what one durable commit holds. The unit of replication, of `watch` and of recovery.
//!
//! ```text
//! header   magic "GWB1" | serial u64 | id 16 | previous hash 32 | time i64 | schema u32
//!          | hash of changes 32 | hash of audit 32
//! sections length of changes u32 | changes | length of audit u32 (or 0xffffffff: erased) | audit
//! ```
//! Numbers are big-endian. The block's hash is SHA-256 (FIPS 180-4) of the header, which covers the
//! hashes of the sections: an erased audit section leaves the chain intact.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::domain::{AuditEntry, BlockId, Timestamp};
use crate::error::{Error, Result};
use crate::schema::{
    MAX_KEY, Record, RowKey, Schema, Table, put_varint, take, take_length, take_varint,
};

const MAGIC: &[u8; 4] = b"GWB1";
const HEADER: usize = 4 + 8 + 16 + 32 + 8 + 4 + 32 + 32;
const ERASED: u32 = u32::MAX;
/// A block may be at most this long: 256 MiB.
pub const MAX_BLOCK: usize = 256 * 1024 * 1024;

/// A commit's number: 0 is the empty store, then 1, 2, 3 without gaps. At most `i64::MAX`.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Serial(u64);

impl Serial {
    /// Before the first commit.
    pub const ZERO: Self = Self(0);

    /// The serial with this number, cut to `i64::MAX`.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number.min(i64::MAX as u64))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The serial after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self::new(self.0.saturating_add(1))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

impl BlockHash {
    /// What the first block names as its predecessor.
    pub const GENESIS: Self = Self([0; 32]);

    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Created,
    /// It replaced an older one.
    Updated,
    /// It is gone.
    Deleted,
}

/// A row's image after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Which table.
    pub table: Table,
    /// What happened.
    pub kind: ChangeKind,
    /// Which row.
    pub key: RowKey,
    /// Its new body; `None` if and only if it is gone.
    pub body: Option<Bytes>,
}

/// What one commit holds, readable.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its number.
    pub serial: Serial,
    /// Unique; tells an identical block from a different one with the same serial.
    pub id: BlockId,
    /// The hash of the block before it.
    pub previous: BlockHash,
    /// The effective time of its commands; before that of the previous block only if it repairs what
    /// a clock that was ahead has written.
    pub time: Timestamp,
    /// The schema version of its rows.
    pub schema: u32,
    /// The rows that changed, in the order in which they did.
    pub changes: Vec<RowChange>,
    /// Who did what; `None` if retention erased it.
    pub audit: Option<Vec<AuditEntry>>,
}

/// A block as bytes, with what a backend needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBlock {
    /// Its number.
    pub serial: Serial,
    /// Its unique id.
    pub id: BlockId,
    /// Its effective time.
    pub time: Timestamp,
    /// The hash of the block before it.
    pub previous: BlockHash,
    /// Its hash.
    pub hash: BlockHash,
    /// The bytes.
    pub bytes: Bytes,
}

/// Collects the changes of a group while its commands are applied, and encodes each row once.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    changes: BytesMut,
    spans: Vec<Span>,
    audit: BytesMut,
    audit_spans: Vec<Span>,
    entries: Vec<AuditEntry>,
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
    /// The block.
    pub block: EncodedBlock,
    /// The rows of the state that changed, in order.
    pub changes: Vec<RowChange>,
    /// The lines of the audit trail, as rows.
    pub audit_rows: Vec<RowChange>,
    /// The same lines, readable.
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
    /// With room for about as much as a block of these sizes has, at most 1 MiB for each section.
    #[must_use]
    pub fn like(Sizes { changes, audit }: Sizes) -> Self {
        const MOST: usize = 1024 * 1024;
        let room = |bytes: usize| BytesMut::with_capacity((bytes + bytes / 4).min(MOST));
        Self { changes: room(changes), audit: room(audit), ..Self::default() }
    }

    /// The block will have at most so many bytes, or else [`MAX_BLOCK`].
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

    /// Adds a line to the audit trail.
    pub fn audit(&mut self, entry: AuditEntry) {
        let key = entry.key();
        put_varint(&mut self.audit, key.as_bytes().len() as u64);
        self.audit.put_slice(key.as_bytes());
        let body = entry.encode();
        put_varint(&mut self.audit, body.len() as u64);
        let start = self.audit.len();
        self.audit.put_slice(&body);
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

    /// Closes the block.
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
                crate::error::ErrorKind::Exhausted,
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
        let hash = BlockHash(Sha256::digest(&bytes).into());
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
        let previous = BlockHash(take_array(&mut rest)?);
        let time = Timestamp::from_micros(i64::from_be_bytes(take_array(&mut rest)?))
            .map_err(|error| damaged("time").because(error))?;
        take(&mut rest, 4)?;
        let changes_hash: [u8; 32] = take_array(&mut rest)?;
        let audit_hash: [u8; 32] = take_array(&mut rest)?;
        let hash = BlockHash(Sha256::digest(header).into());
        let block = Self { serial: Serial(serial), id, time, previous, hash, bytes: bytes.clone() };
        let (changes, audit) = block.sections()?;
        if Sha256::digest(changes)[..] != changes_hash {
            return Err(damaged("changes").with("serial", serial));
        }
        if audit.is_some_and(|audit| Sha256::digest(audit)[..] != audit_hash) {
            return Err(damaged("audit").with("serial", serial));
        }
        Ok(block)
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
            return Err(Error::corrupt("a block has bytes behind its end")
                .with("serial", self.serial)
                .with("bytes", rest.len()));
        }
        Ok((changes, audit))
    }

    /// The block without its audit section; its hash stays the same.
    ///
    /// # Errors
    /// `Corrupt` if the block cannot be read.
    pub fn without_audit(&self) -> Result<Self> {
        let (changes, _) = self.sections()?;
        let mut bytes = BytesMut::with_capacity(HEADER + 8 + changes.len());
        bytes.put_slice(self.bytes.get(..HEADER).unwrap_or_default());
        put_section(&mut bytes, changes);
        bytes.put_u32(ERASED);
        Ok(Self { bytes: bytes.freeze(), ..self.clone() })
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
