//! Where which record lies.

use std::ops::Bound::{Excluded, Included, Unbounded};

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_zqlite_native::child::HEAD;
use ghostwire_store_zqlite_native::message::VALUE_HEADER;
use ghostwire_store_zqlite_native::{MAX_VALUE, Session};
use imbl::OrdMap;

use crate::envelope::Kind;

/// How much of a record goes into one value.
pub(super) const PIECE: usize = MAX_VALUE - VALUE_HEADER;

/// What stands before a piece of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) number: u64,
    /// Which piece it is.
    pub(super) part: u32,
    /// Of how many.
    pub(super) parts: u32,
}

impl Header {
    /// That of the head.
    pub(super) const HEAD: Self = Self { kind: Kind::Head, number: 1, part: 0, parts: 1 };

    pub(super) fn encode(self, into: &mut Vec<u8>) {
        into.push(self.kind as u8);
        into.extend(self.number.to_be_bytes());
        into.extend(self.part.to_be_bytes());
        into.extend(self.parts.to_be_bytes());
    }

    /// The header of a value, and the piece behind it.
    pub(super) fn split(value: &[u8]) -> Option<(Self, &[u8])> {
        let (kind, rest) = value.split_first()?;
        let kind = Kind::ALL.into_iter().find(|it| *it as u8 == *kind)?;
        let (number, rest) = rest.split_first_chunk()?;
        let (part, rest) = rest.split_first_chunk()?;
        let (parts, rest) = rest.split_first_chunk()?;
        let header = Self {
            kind,
            number: u64::from_be_bytes(*number),
            part: u32::from_be_bytes(*part),
            parts: u32::from_be_bytes(*parts),
        };
        Some((header, rest))
    }
}

/// A value of one piece.
pub(super) fn value(header: Header, content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE_HEADER + content.len());
    header.encode(&mut value);
    value.extend(content);
    value
}

/// The piece in a value, if it is this one.
pub(super) fn content(header: Header, value: &[u8]) -> Option<&[u8]> {
    Header::split(value).filter(|(found, _)| *found == header).map(|(_, content)| content)
}

/// The rows of a record: consecutive ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) first: u64,
    pub(super) parts: u32,
}

impl Rows {
    pub(super) fn ids(self) -> impl Iterator<Item = u64> {
        (0..u64::from(self.parts)).map(move |part| self.first + part)
    }
}

/// Every record but the head. Cloning it costs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    records: OrdMap<(Kind, u64), Rows>,
    last: u64,
}

fn unsound(what: &'static str, id: u64) -> Error {
    Error::corrupt(format!("{what}; restore the store from a backup")).with("row", id)
}

impl Index {
    /// From what is stored.
    pub(super) fn read(session: &mut Session) -> Result<Self> {
        let mut index = Self { records: OrdMap::new(), last: HEAD };
        // A record of which not all pieces were met.
        let mut under_way: Option<(Header, u64)> = None;
        session.scan(|id, _, beginning| {
            let (found, _) = Header::split(beginning)
                .ok_or_else(|| unsound("a stored value has no header", id))?;
            index.last = id.max(index.last);
            let expected = match under_way.take() {
                Some((before, last)) => {
                    (id == last + 1).then_some(Header { part: before.part + 1, ..before })
                }
                None => Some(Header { part: 0, ..found }),
            };
            if expected != Some(found) || found.part >= found.parts {
                return Err(unsound("pieces of a record are missing or out of order", id));
            }
            if found.part + 1 < found.parts {
                under_way = Some((found, id));
                return Ok(());
            }
            let first = id - u64::from(found.part);
            if id == HEAD {
                return match found {
                    Header::HEAD => Ok(()),
                    _ => Err(unsound("there is another record in the head's place", id)),
                };
            }
            if found.kind == Kind::Head {
                return Err(unsound("there is a second head", id));
            }
            match index.insert(found.kind, found.number, Rows { first, parts: found.parts }) {
                None => Ok(()),
                Some(_) => Err(unsound("a record is there twice", id)),
            }
        })?;
        match under_way {
            None => Ok(index),
            Some((_, id)) => Err(unsound("pieces of a record are missing", id)),
        }
    }

    /// The number that the next row gets.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    pub(super) fn get(&self, kind: Kind, number: u64) -> Option<Rows> {
        self.records.get(&(kind, number)).copied()
    }

    pub(super) fn insert(&mut self, kind: Kind, number: u64, rows: Rows) -> Option<Rows> {
        self.records.insert((kind, number), rows)
    }

    pub(super) fn remove(&mut self, kind: Kind, number: u64) -> Option<Rows> {
        self.records.remove(&(kind, number))
    }

    /// Records of a kind after a number, in order.
    pub(super) fn after(
        &self,
        kind: Kind,
        after: Option<u64>,
    ) -> impl Iterator<Item = (u64, Rows)> + '_ {
        let from = match after {
            Some(after) => Excluded((kind, after)),
            None => Included((kind, 0)),
        };
        let found = self.records.range((from, Unbounded));
        found
            .take_while(move |((of, _), _)| *of == kind)
            .map(|((_, number), rows)| (*number, *rows))
    }

    /// The numbers of a kind before one.
    pub(super) fn before(&self, kind: Kind, before: u64) -> Vec<u64> {
        self.after(kind, None).map(|(number, _)| number).take_while(|it| *it < before).collect()
    }
}
