//! What a batch writes.

use std::ops::Range;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_zqlite_native::child::HEAD;
use ghostwire_store_zqlite_native::{Change, NotStored};

use super::index::{self, Header, Index, PIECE, Rows};
use super::kept::Removed;
use super::{Native, Shared, not_stored};
use crate::engine::{Batch, Write};
use crate::envelope::{Kind, Part};

/// The changes of a batch.
struct Changes {
    index: Index,
    /// Rows from this number on are of this batch.
    first: u64,
    next: u64,
    /// Values of new rows, one behind the other.
    bytes: Vec<u8>,
    put: Vec<(u64, Range<usize>)>,
    deleted: Vec<u64>,
}

impl Changes {
    fn delete(&mut self, kind: Kind, number: u64) {
        match self.index.remove(kind, number) {
            // Of this very batch: it is not even written.
            Some(rows) if rows.first >= self.first => {
                let ids = rows.first..rows.first + u64::from(rows.parts);
                self.put.retain(|(id, _)| !ids.contains(id));
            }
            Some(rows) => self.deleted.extend(rows.ids()),
            None => {}
        }
    }

    fn delete_before(&mut self, kind: Kind, before: u64) {
        self.index.before(kind, before).into_iter().for_each(|number| self.delete(kind, number));
    }

    /// Puts a record, in place of an earlier one.
    fn put(&mut self, kind: Kind, number: u64, content: &[&[u8]]) -> Result<()> {
        self.delete(kind, number);
        let length: usize = content.iter().map(|part| part.len()).sum();
        let parts = length.div_ceil(PIECE).max(1);
        let parts = u32::try_from(parts).map_err(|_| Error::invalid("a record is too long"))?;
        let first = self.next;
        let mut rest = content.iter().copied().flatten();
        for part in 0..parts {
            let begin = self.bytes.len();
            Header { kind, number, part, parts }.encode(&mut self.bytes);
            self.bytes.extend(rest.by_ref().take(PIECE));
            self.put.push((self.next, begin..self.bytes.len()));
            self.next += 1;
        }
        self.index.insert(kind, number, Rows { first, parts });
        Ok(())
    }

    /// Puts a record that there is none of yet.
    fn put_new(&mut self, kind: Kind, number: u64, content: &[&[u8]]) -> Result<()> {
        if self.index.get(kind, number).is_some() {
            return Err(Error::corrupt(
                "what is stored contradicts itself: a new record is there already",
            )
            .with("record", kind.name())
            .with("number", number));
        }
        self.put(kind, number, content)
    }

    /// Puts a record in place of one, if there is one.
    fn replace(&mut self, kind: Kind, number: u64, content: &[&[u8]]) -> Result<()> {
        match self.index.get(kind, number) {
            Some(_) => self.put(kind, number, content),
            None => Ok(()),
        }
    }

    fn apply(&mut self, batch: &Batch<'_>) -> Result<()> {
        let made = |range: &Range<usize>| {
            batch.bytes.get(range.clone()).ok_or_else(|| {
                Error::new(ErrorKind::Unexpected, "a write refers to bytes that are not there")
            })
        };
        let part = |part: &Part<'_>| match part {
            Part::Given(bytes) => Ok(bytes.to_vec()),
            Part::Made(range) => made(range).map(<[u8]>::to_vec),
        };
        for write in &batch.writes {
            match write {
                Write::Block { serial, frame, changes, audit } => {
                    self.put_new(Kind::Block, *serial, &[frame, &part(changes)?])?;
                    self.put_new(Kind::Audit, *serial, &[&part(audit)?])?;
                }
                Write::ReplaceBlock { serial, frame, changes, audit } => {
                    self.replace(Kind::Block, *serial, &[frame, made(changes)?])?;
                    self.replace(Kind::Audit, *serial, &[made(audit)?])?;
                }
                Write::PutRow { slot, body } => self.put(Kind::Row, *slot, &[made(body)?])?,
                Write::DeleteRow { slot } => self.delete(Kind::Row, *slot),
                Write::Journal { number, body } => {
                    self.put_new(Kind::Journal, *number, &[made(body)?])?;
                }
                Write::ReplaceJournal { number, body } => {
                    self.replace(Kind::Journal, *number, &[made(body)?])?;
                }
                Write::CutJournal { before } => self.delete_before(Kind::Journal, *before),
                Write::PutChunk { number, body } => {
                    self.put(Kind::Chunk, *number, &[made(body)?])?;
                }
                Write::DeleteChunk { number } => self.delete(Kind::Chunk, *number),
                Write::PutLeaf { number, body } => {
                    self.put(Kind::Directory, *number, &[made(body)?])?;
                }
                Write::DeleteLeaf { number } => self.delete(Kind::Directory, *number),
                Write::PurgeBlocks { before } => {
                    self.delete_before(Kind::Block, *before);
                    self.delete_before(Kind::Audit, *before);
                }
                Write::BesideHead { id, body } => {
                    self.put(Kind::Signature, *id, &[made(body)?])?;
                }
            }
        }
        Ok(())
    }
}

impl Native {
    pub(super) fn write_locked(&self, shared: &mut Shared, batch: &Batch<'_>) -> Result<()> {
        let (index, next) = (shared.index.clone(), shared.next);
        let mut changes = Changes {
            index,
            first: next,
            next,
            bytes: Vec::new(),
            put: Vec::new(),
            deleted: Vec::new(),
        };
        changes.apply(batch)?;
        if batch.head.len() > PIECE {
            return Err(Error::new(ErrorKind::Unexpected, "the head does not fit one row"));
        }
        let removed = self.still_read(shared, &changes.deleted)?;
        let expected = index::value(Header::HEAD, &batch.expected_head);
        let head = index::value(Header::HEAD, &batch.head);
        let outcome = self.with(shared, |session| {
            let head = [Change::Delete(HEAD), Change::Put(HEAD, &head)];
            let deleted = changes.deleted.iter().map(|id| Change::Delete(*id));
            let put = changes.put.iter().map(|(id, range)| {
                Change::Put(*id, changes.bytes.get(range.clone()).unwrap_or_default())
            });
            session.write(&expected, head.into_iter().chain(deleted).chain(put))
        })?;
        match outcome {
            Ok(()) => {}
            Err(error) => {
                shared.is_unknown |= matches!(error, NotStored::Unknown(_));
                return Err(not_stored(error, &self.file));
            }
        }
        (shared.index, shared.next) = (changes.index, changes.next);
        shared.head = batch.head.clone().into();
        shared.version += 1;
        shared.kept.apply(removed, shared.version);
        // What is written to a file that the path does not lead to any more nobody finds again.
        self.file.require_in_place().map_err(|error| {
            shared.is_unknown = true;
            ghostwire_store_sqlite::unconfirmed(error)
        })
    }

    /// The values that are about to be removed, if somebody still reads.
    fn still_read(&self, shared: &mut Shared, ids: &[u64]) -> Result<Removed> {
        let mut removed = shared.kept.begin();
        if shared.live.is_empty() || ids.is_empty() {
            return Ok(removed);
        }
        self.with(shared, |session| {
            session.read(ids, |id, value| {
                value.into_iter().for_each(|value| removed.add(id, value));
                Ok(())
            })
        })??;
        Ok(removed)
    }
}
