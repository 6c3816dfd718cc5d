//! Which library, and what loads it.

use std::path::PathBuf;
use std::time::Duration;

use ghostwire_store_zqlite_native::{DEADLINE, Program};

/// What the native engine needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NativeOptions {
    pub(super) library: PathBuf,
    pub(super) program: Program,
    pub(super) deadline: Duration,
}

impl NativeOptions {
    /// The library in this file, loaded by this program.
    #[must_use]
    pub fn new(library: impl Into<PathBuf>, program: Program) -> Self {
        Self { library: library.into(), program, deadline: DEADLINE }
    }

    /// How long one call of the library may take, 30 seconds by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}
