//! How many blocks are kept for those who follow the log.

use std::collections::VecDeque;

use super::block::Serial;

/// The newest blocks, up to a limit of bytes.
#[derive(Debug)]
pub(crate) struct Retained {
    blocks: VecDeque<(Serial, u64)>,
    bytes: u64,
    oldest: Serial,
}

impl Retained {
    /// No blocks yet; the first will be `oldest`.
    pub(crate) fn new(oldest: Serial) -> Self {
        Self { blocks: VecDeque::new(), bytes: 0, oldest }
    }

    /// Adds a block; then the oldest ones go until all together are within `limit` bytes.
    pub(crate) fn add(&mut self, serial: Serial, bytes: u64, limit: u64) {
        self.blocks.push_back((serial, bytes));
        self.bytes += bytes;
        while self.bytes > limit
            && let Some((serial, bytes)) = self.blocks.pop_front()
        {
            self.bytes -= bytes;
            self.oldest = serial.next();
        }
    }

    /// How many bytes those within the limit have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first block within the limit.
    pub(crate) fn oldest(&self) -> Serial {
        self.oldest
    }
}
