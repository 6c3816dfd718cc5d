//! What reading a file that nobody vouches for may cost, in proportion to its length.

use std::time::{Duration, Instant};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::Connection;
use rusqlite::limits::Limit;

/// The longest text, row or statement: 16 MiB, four times the longest policy. None is longer than its
/// file, but a short dump still needs some room.
const MAX_TEXT: u64 = 16 << 20;
const MIN_TEXT: u64 = 1 << 20;

/// A dump makes a database of about its own size; this many bytes, and four times as many as it has.
const LEAST_ROOM: u64 = 16 << 20;
const PAGE: u64 = 4096;

/// Steps of SQLite's virtual machine: this many, and twenty for each byte.
const LEAST_STEPS: u64 = 100_000_000;
/// So many are counted at once.
const STRIDE: u16 = 10_000;

/// A hundred times what a large file takes on a slow machine: so long, and a second more for each MiB.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a file may cost. Steps are counted, so that the outcome is always the same; but a step may
/// take long, so there is an end to that, too, which is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    length: u64,
    patience: Duration,
    deadline: Instant,
}

impl Budget {
    /// For a file of so many bytes. Its time begins now.
    pub(super) fn of(length: u64) -> Self {
        let patience = PATIENCE + Duration::from_secs(length >> 20);
        Self { length, patience, deadline: Instant::now() + patience }
    }

    /// One that was used up at this moment.
    #[cfg(test)]
    pub(super) fn spent(length: u64, deadline: Instant) -> Self {
        Self { deadline, ..Self::of(length) }
    }

    fn longest_text(&self) -> u64 {
        self.length.clamp(MIN_TEXT, MAX_TEXT)
    }

    fn pages(&self) -> u64 {
        (self.length.saturating_mul(4) + LEAST_ROOM) / PAGE
    }

    fn steps(&self) -> u64 {
        LEAST_STEPS + self.length.saturating_mul(20)
    }

    /// Holds what SQLite does on this connection to it.
    pub(super) fn impose(&self, connection: &Connection) -> Result<()> {
        let longest = i32::try_from(self.longest_text()).unwrap_or(i32::MAX);
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_LENGTH, longest),
            (Limit::SQLITE_LIMIT_SQL_LENGTH, longest),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 50),
            (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
            (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 0),
            (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
        ] {
            connection.set_limit(limit, value);
        }
        connection
            .execute_batch(&format!(
                "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;
                 PRAGMA ignore_check_constraints = ON;
                 PRAGMA temp_store = MEMORY; PRAGMA max_page_count = {};",
                self.pages()
            ))
            .map_err(|_| cannot_prepare())?;
        let (mut left, deadline) = (self.steps() / u64::from(STRIDE), self.deadline);
        let spend = move || {
            left = left.saturating_sub(1);
            left == 0 || Instant::now() > deadline
        };
        connection.progress_handler(STRIDE.into(), Some(spend));
        Ok(())
    }

    /// Refuses to go on when the time is over.
    pub(super) fn check_time(&self) -> Result<()> {
        if Instant::now() > self.deadline { Err(self.too_much_work()) } else { Ok(()) }
    }

    pub(super) fn too_much_work(&self) -> Error {
        Error::invalid("the file takes too much work; it is made to do harm")
            .with("seconds_allowed", self.patience.as_secs())
            .with("steps_allowed", self.steps())
    }

    pub(super) fn too_much_memory(&self) -> Error {
        Error::invalid("the file takes too much memory")
            .with("bytes_allowed", self.pages().saturating_mul(PAGE))
            .with("longest_text_allowed", self.longest_text())
    }
}

pub(super) fn cannot_prepare() -> Error {
    Error::new(ErrorKind::Unexpected, "SQLite cannot be set up for reading")
}
