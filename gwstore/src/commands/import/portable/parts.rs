//! What the first reading proves of each part of a file, so that the second writes nothing else.

use std::io::BufRead;

use ghostwire_store::portable::{Item, Reader, Summary};
use ghostwire_store::{Error, ErrorKind, Result};

/// A part has at most so many items and so many bytes, unless it has but one item.
const MOST_ITEMS: usize = 1000;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The SHA-256 of all lines up to the end of each part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(Vec<[u8; 32]>);

/// Cuts what a reader gives into parts.
pub(super) struct Cutter<R> {
    reader: Reader<R>,
    parts: usize,
}

/// Some items, each with the number of its line.
pub(super) type Part = Vec<(u64, Item)>;

impl<R: BufRead> Cutter<R> {
    pub(super) fn new(reader: Reader<R>) -> Self {
        Self { reader, parts: 0 }
    }

    /// The next part; an empty one at the end, which the reader has proven then.
    fn read(&mut self) -> Result<Part> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while part.len() < MOST_ITEMS && bytes < MOST_BYTES {
            let Some(item) = self.reader.next() else { break };
            part.push((self.reader.line_number(), item?));
            bytes += self.reader.line_length();
        }
        Ok(part)
    }

    /// The first time.
    pub(super) fn next_new(&mut self, parts: &mut Parts) -> Result<Part> {
        let part = self.read()?;
        parts.0.push(self.reader.sha256());
        Ok(part)
    }

    /// Once more. A part that is not as it was the first time is an error.
    pub(super) fn next_again(&mut self, parts: &Parts) -> Result<Part> {
        // Whatever is wrong now was right before.
        let part = self.read().map_err(|error| self.changed().because(error))?;
        if parts.0.get(self.parts) != Some(&self.reader.sha256()) {
            return Err(self.changed());
        }
        self.parts += 1;
        Ok(part)
    }

    fn changed(&self) -> Error {
        let message = "the file was changed between its two readings; nothing was written of what \
                       changed, nor of what follows";
        Error::new(ErrorKind::Conflict, message).with("up_to_line", self.reader.line_number())
    }

    /// What the last line said. `None` before the end.
    pub(super) fn summary(&self) -> Option<&Summary> {
        self.reader.summary()
    }
}
