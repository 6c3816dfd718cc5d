//! Reading the portable form.

use std::collections::BTreeMap;
use std::io;

use sha2::{Digest as _, Sha256};

use super::line::{AnyHeader, Header, Line, parse};
use super::{FORMAT_VERSION, Item, MAX_LINE, Summary, WITHOUT_MAC};
use crate::error::{EntityKind, Error, ErrorKind, Result};
use crate::schema::Schema;

/// Reads the portable form from `R`: an iterator over the items, with one line in memory.
///
/// Only once it has ended without an error are the items proven to be all there and as they were
/// written; [`Reader::summary`] is `Some` then. After an error it ends. Errors name the line.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    version: u32,
    schema: u32,
    line: Vec<u8>,
    number: u64,
    hash: Sha256,
    counts: BTreeMap<EntityKind, u64>,
    summary: Option<Summary>,
    ended: bool,
}

impl<R: io::BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// `Corrupt` if it is not that of a portable form, `Unsupported` for another version of the
    /// format, `SchemaMismatch` for entities of a schema newer than this build's, `Unavailable` if
    /// `from` fails.
    pub fn new(from: R) -> Result<Self> {
        let mut reader = Self {
            from,
            version: 0,
            schema: 0,
            line: Vec::new(),
            number: 0,
            hash: Sha256::new(),
            counts: BTreeMap::new(),
            summary: None,
            ended: false,
        };
        let header = reader.header();
        let header = reader.placed(header)?;
        (reader.version, reader.schema) = (header.ghostwire_store, header.schema);
        reader.hash.update(&reader.line);
        Ok(reader)
    }

    /// The schema version that the items were written with.
    #[must_use]
    pub fn schema(&self) -> u32 {
        self.schema
    }

    /// The number of the line that was read last, counted from 1.
    #[must_use]
    pub fn line_number(&self) -> u64 {
        self.number
    }

    /// How many bytes the line has that was read last, its line feed included.
    #[must_use]
    pub fn line_length(&self) -> usize {
        self.line.len()
    }

    /// The SHA-256 of the first line and of all items so far. Where two readings of one file agree on it,
    /// they have read the same.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// What the last line says. `None` until the iterator has ended without an error.
    #[must_use]
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    /// Reads to the end, keeping nothing: is everything there, and unaltered?
    ///
    /// # Errors
    /// The first one that reading gives.
    pub fn verify(mut self) -> Result<Summary> {
        for item in &mut self {
            item?;
        }
        self.summary.ok_or_else(|| truncated().during("portable.read"))
    }

    fn header(&mut self) -> Result<Header> {
        if !self.read_line()? {
            return Err(Error::corrupt("there is nothing to read, not even a first line"));
        }
        let foreign =
            |error| Error::corrupt("this is not the portable form of a store").because(error);
        let any: AnyHeader = parse(&self.line).map_err(foreign)?;
        if !(WITHOUT_MAC..=FORMAT_VERSION).contains(&any.ghostwire_store) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this build does not read this version of the portable form",
            )
            .with("found", any.ghostwire_store)
            .with("supported", FORMAT_VERSION));
        }
        let header: Header = self.parsed()?;
        let supported = Schema::current().version().version;
        if header.schema > supported {
            let kind = ErrorKind::SchemaMismatch { found: header.schema, supported };
            return Err(Error::new(kind, "the entities are of a newer schema; use a newer build")
                .with("found", header.schema)
                .with("supported", supported));
        }
        Schema::at(header.schema)?;
        Ok(header)
    }

    /// The next item, or `None` after a last line that is right.
    fn advance(&mut self) -> Result<Option<Item>> {
        if !self.read_line()? {
            return Err(truncated());
        }
        match self.parsed()? {
            Line::Item(item) => {
                self.hash.update(&self.line);
                let count = self.counts.entry(item.entity()).or_default();
                *count = count.saturating_add(1);
                Ok(Some(item))
            }
            Line::End(trailer) => {
                let summary = self.checked(trailer.into())?;
                if self.read_line()? {
                    return Err(Error::corrupt("there is more after the last line"));
                }
                self.summary = Some(summary);
                Ok(None)
            }
        }
    }

    /// The line as `T`. A line without a line feed that is not JSON was cut off.
    fn parsed<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T> {
        parse(&self.line).map_err(|error| {
            if self.line.ends_with(b"\n") { error } else { truncated().because(error) }
        })
    }

    fn checked(&self, summary: Summary) -> Result<Summary> {
        let kinds = summary.counts.keys().chain(self.counts.keys());
        for kind in kinds {
            let [said, found] = [&summary.counts, &self.counts]
                .map(|counts| counts.get(kind).copied().unwrap_or_default());
            if said != found {
                return Err(Error::corrupt("the last line counts other items than there are")
                    .about(*kind)
                    .with("counted", said)
                    .with("found", found));
            }
        }
        let sha256: [u8; 32] = self.hash.clone().finalize().into();
        if sha256 != summary.sha256 {
            return Err(Error::corrupt(
                "the lines were altered: their SHA-256 is not the one in the last line",
            ));
        }
        if summary.mac.is_some() != (self.version > WITHOUT_MAC) {
            return Err(Error::corrupt("the last line has a `mac` in version 2, and only there")
                .with("version", self.version));
        }
        Ok(summary)
    }

    /// Reads a line with its line feed, which only the last may lack; `false` at the end.
    fn read_line(&mut self) -> Result<bool> {
        self.line.clear();
        self.number = self.number.saturating_add(1);
        loop {
            let available = match self.from.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(Error::new(ErrorKind::Unavailable, "cannot be read").because(error));
                }
            };
            if available.is_empty() {
                return Ok(!self.line.is_empty());
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let piece = match end {
                Some(at) => available.get(..=at).unwrap_or(available),
                None => available,
            };
            if self.line.len().saturating_add(piece.len()) > MAX_LINE {
                return Err(Error::corrupt("a line is too long").with("limit", MAX_LINE));
            }
            self.line.extend_from_slice(piece);
            let taken = piece.len();
            self.from.consume(taken);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// Says where.
    fn placed<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with("line", self.number).during("portable.read"))
    }
}

impl<R: io::BufRead> Iterator for Reader<R> {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let advanced = self.advance();
        let item = self.placed(advanced).transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl<R: io::BufRead> std::iter::FusedIterator for Reader<R> {}

fn truncated() -> Error {
    Error::corrupt("the last line is missing: the file was cut off, or its writer did not finish")
}
