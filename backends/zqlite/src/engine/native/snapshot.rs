//! What was stored at one moment.

use std::ops::ControlFlow::Continue;
use std::sync::Arc;

use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::Native;
use super::index::{Header, Index, PIECE, Rows};
use crate::engine::{Snapshot, Visit, VisitNumbered, VisitUntil};
use crate::envelope::{BLOCK_FRAME, Kind, StoredBlock, missing};
use crate::inner::locked;

/// How many rows are asked for at once. A writer waits for no more.
const AT_ONCE: usize = 96;

/// How much of a record says under which key it is sealed.
const FRAME: usize = 45;

/// Where that begins in the head.
const HEAD_FRAME: usize = 40;

pub(super) struct NativeSnapshot<'e> {
    engine: &'e Native,
    index: Index,
    head: Arc<[u8]>,
    version: u64,
}

impl Drop for NativeSnapshot<'_> {
    fn drop(&mut self) {
        let mut shared = locked(&self.engine.shared);
        let shared = &mut *shared;
        if let Some(count) = shared.live.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                shared.live.remove(&self.version);
            }
        }
        // Who reads an earlier version still needs what a later one is without.
        let oldest = shared.live.keys().next().copied().unwrap_or(u64::MAX);
        shared.kept.forget_before(oldest);
    }
}

impl<'e> NativeSnapshot<'e> {
    pub(super) fn new(engine: &'e Native, index: Index, head: Arc<[u8]>, version: u64) -> Self {
        Self { engine, index, head, version }
    }

    /// The values of rows, in this order.
    fn values(&self, ids: &[u64]) -> Result<Vec<Option<Box<[u8]>>>> {
        let mut shared = locked(&self.engine.shared);
        if !shared.kept.has(self.version) {
            return Err(Error::new(
                ErrorKind::Busy,
                "too much was written while this was read; read it again",
            ));
        }
        let kept = |id: &u64| shared.kept.get(*id).map(Box::from);
        let mut values: Vec<Option<Box<[u8]>>> = ids.iter().map(kept).collect();
        let asked: Vec<(usize, u64)> = values
            .iter()
            .zip(ids)
            .enumerate()
            .filter(|(_, (value, _))| value.is_none())
            .map(|(at, (_, id))| (at, *id))
            .collect();
        let wanted: Vec<u64> = asked.iter().map(|(_, id)| *id).collect();
        let mut places = asked.iter().map(|(at, _)| *at);
        self.engine.with(&mut shared, |session| {
            session.read(&wanted, |_, value| {
                if let Some(place) = places.next().and_then(|at| values.get_mut(at)) {
                    *place = value.map(Box::from);
                }
                Ok(())
            })
        })??;
        Ok(values)
    }

    /// Visits records, whole, in this order.
    fn read(
        &self,
        kind: Kind,
        records: impl Iterator<Item = (u64, Rows)>,
        visit: VisitUntil<'_>,
    ) -> Result<()> {
        let mut records = records.peekable();
        while records.peek().is_some() {
            let (mut taken, mut rows) = (Vec::new(), 0);
            while rows < AT_ONCE
                && let Some(record) = records.next()
            {
                rows += record.1.parts as usize;
                taken.push(record);
            }
            let ids: Vec<u64> = taken.iter().flat_map(|(_, rows)| rows.ids()).collect();
            let values = self.values(&ids)?;
            let mut rest = &values[..];
            for (number, rows) in taken {
                let Some((parts, others)) = rest.split_at_checked(rows.parts as usize) else {
                    return Err(missing(kind, number));
                };
                rest = others;
                if visit(number, &joined(kind, number, parts)?)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn each(&self, kind: Kind, after: Option<u64>, visit: VisitNumbered<'_>) -> Result<()> {
        self.read(kind, self.index.after(kind, after), &mut |number, bytes| {
            visit(number, bytes).map(Continue)
        })
    }

    /// One record, whole.
    fn one(&self, kind: Kind, number: u64) -> Result<Option<Vec<u8>>> {
        let Some(rows) = self.index.get(kind, number) else { return Ok(None) };
        let mut record = None;
        self.read(kind, std::iter::once((number, rows)), &mut |_, bytes| {
            record = Some(bytes.to_vec());
            Ok(Continue(()))
        })?;
        Ok(record)
    }

    /// The beginnings of records, of their first pieces.
    fn beginnings(
        &self,
        kind: Kind,
        after: Option<u64>,
        limit: usize,
        visit: VisitNumbered<'_>,
    ) -> Result<()> {
        let records: Vec<_> = self.index.after(kind, after).take(limit).collect();
        for records in records.chunks(AT_ONCE) {
            let ids: Vec<u64> = records.iter().map(|(_, rows)| rows.first).collect();
            for ((number, rows), value) in records.iter().zip(self.values(&ids)?) {
                let piece = piece(kind, *number, (0, rows.parts), value.as_deref())?;
                visit(*number, piece)?;
            }
        }
        Ok(())
    }
}

/// The piece of a record that a value should be.
fn piece(kind: Kind, number: u64, place: (u32, u32), value: Option<&[u8]>) -> Result<&[u8]> {
    let value = value.ok_or_else(|| missing(kind, number))?;
    let (part, parts) = place;
    match Header::split(value) {
        Some((found, content)) if found == (Header { kind, number, part, parts }) => Ok(content),
        _ => {
            Err(Error::corrupt("a stored value is another one's; restore the store from a backup")
                .with("record", kind.name())
                .with("number", number))
        }
    }
}

/// A record of its pieces.
fn joined(kind: Kind, number: u64, values: &[Option<Box<[u8]>>]) -> Result<Vec<u8>> {
    let parts = u32::try_from(values.len()).unwrap_or(u32::MAX);
    let mut record = Vec::with_capacity(values.len() * PIECE);
    for (part, value) in (0..).zip(values) {
        record.extend(piece(kind, number, (part, parts), value.as_deref())?);
    }
    Ok(record)
}

/// What stands beside a block, and the block.
fn split_block(serial: u64, record: &[u8]) -> Result<(&[u8], &[u8])> {
    record.split_at_checked(BLOCK_FRAME).ok_or_else(|| {
        Error::corrupt("a stored block is cut short; restore the store from a backup")
            .with("serial", serial)
    })
}

fn beginning(bytes: &[u8]) -> &[u8] {
    bytes.get(..FRAME).unwrap_or(bytes)
}

impl Snapshot for NativeSnapshot<'_> {
    fn head(&self) -> &[u8] {
        &self.head
    }

    fn beside_head(&mut self, id: u64) -> Result<Option<Vec<u8>>> {
        self.one(Kind::Signature, id)
    }

    fn record(&mut self, kind: Kind, number: u64, visit: Visit<'_>) -> Result<()> {
        if kind == Kind::Head {
            return visit(&self.head);
        }
        let record = self.one(kind, number)?.ok_or_else(|| missing(kind, number))?;
        match kind {
            Kind::Block => visit(split_block(number, &record)?.1),
            _ => visit(&record),
        }
    }

    fn frames(
        &mut self,
        kind: Kind,
        after: u64,
        limit: usize,
        visit: VisitNumbered<'_>,
    ) -> Result<()> {
        // Numbers begin with 1.
        match kind {
            Kind::Head if after == 0 && limit > 0 => {
                visit(1, beginning(self.head.get(HEAD_FRAME..).unwrap_or_default()))
            }
            Kind::Head => Ok(()),
            Kind::Block => self.beginnings(kind, Some(after), limit, &mut |number, piece| {
                visit(number, beginning(split_block(number, piece)?.1))
            }),
            kind => self.beginnings(kind, Some(after), limit, &mut |number, piece| {
                visit(number, beginning(piece))
            }),
        }
    }

    fn rows(&mut self, slots: &[u64], visit: VisitNumbered<'_>) -> Result<()> {
        let rows = |slot: &u64| {
            let rows = self.index.get(Kind::Row, *slot);
            rows.map(|rows| (*slot, rows)).ok_or_else(|| missing(Kind::Row, *slot))
        };
        let records = slots.iter().map(rows).collect::<Result<Vec<_>>>()?;
        self.read(Kind::Row, records.into_iter(), &mut |slot, bytes| {
            visit(slot, bytes).map(Continue)
        })
    }

    fn every_row(&mut self, after: Option<u64>, visit: VisitUntil<'_>) -> Result<()> {
        self.read(Kind::Row, self.index.after(Kind::Row, after), visit)
    }

    fn journal(&mut self, visit: VisitNumbered<'_>) -> Result<()> {
        self.each(Kind::Journal, None, visit)
    }

    fn chunk(&mut self, number: u64, visit: Visit<'_>) -> Result<()> {
        self.record(Kind::Chunk, number, visit)
    }

    fn every_chunk(&mut self, after: Option<u64>, visit: VisitUntil<'_>) -> Result<()> {
        self.read(Kind::Chunk, self.index.after(Kind::Chunk, after), visit)
    }

    fn leaves(&mut self, visit: VisitNumbered<'_>) -> Result<()> {
        self.each(Kind::Directory, None, visit)
    }

    fn block_frames(&mut self, visit: VisitNumbered<'_>) -> Result<()> {
        self.beginnings(Kind::Block, None, usize::MAX, &mut |serial, piece| {
            visit(serial, split_block(serial, piece)?.0)
        })
    }

    fn blocks(
        &mut self,
        first: u64,
        last: u64,
        limit: usize,
        visit: &mut dyn FnMut(StoredBlock<'_>) -> Result<()>,
    ) -> Result<()> {
        let blocks = self
            .index
            .after(Kind::Block, first.checked_sub(1))
            .take_while(|(serial, _)| *serial <= last)
            .take(limit);
        let mut both: Vec<(u64, Rows, Rows)> = Vec::new();
        for (serial, rows) in blocks {
            let audit = self.index.get(Kind::Audit, serial);
            both.push((serial, rows, audit.ok_or_else(|| missing(Kind::Audit, serial))?));
        }
        for some in both.chunks(AT_ONCE) {
            let mut audits = Vec::new();
            let wanted = some.iter().map(|(serial, _, rows)| (*serial, *rows));
            self.read(Kind::Audit, wanted, &mut |_, bytes| {
                audits.push(bytes.to_vec());
                Ok(Continue(()))
            })?;
            let mut audits = audits.into_iter();
            let wanted = some.iter().map(|(serial, rows, _)| (*serial, *rows));
            self.read(Kind::Block, wanted, &mut |serial, record| {
                let (frame, changes) = split_block(serial, record)?;
                let audit = audits.next().unwrap_or_default();
                visit(StoredBlock { serial, frame, changes, audit: &audit })?;
                Ok(Continue(()))
            })?;
        }
        Ok(())
    }
}

/// Unless a piece holds what stands beside a block, that cannot be read from the first alone.
const _: () = assert!(BLOCK_FRAME + FRAME <= PIECE);
