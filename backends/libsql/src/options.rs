//! Which file to open, and how.

use std::path::PathBuf;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::{FileOptions, LogLimits};

/// Which file to open, and how.
#[derive(Debug, Clone)]
pub struct LibsqlOptions {
    pub(crate) file: FileOptions,
    pub(crate) check_structure: bool,
}

impl LibsqlOptions {
    /// An existing file, to read and write, which is checked. A new store gets the identity `store`,
    /// random bytes; one that exists keeps its own.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store: StoreId) -> Self {
        Self { file: FileOptions::new(path, store), check_structure: true }
    }

    /// Whether SQLite checks the structure of the whole file when it is opened, as it does by default.
    /// Without that, a damaged page may hide rows until [`verify`] runs. It reads the file once: about
    /// a second for a gigabyte.
    ///
    /// [`verify`]: ghostwire_store_core::backend::Backend::verify
    #[must_use]
    pub fn check_structure(mut self, check: bool) -> Self {
        self.check_structure = check;
        self
    }

    /// Whether to make a new store if there is none; not by default. Otherwise that is `NotFound`.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.file.create = create;
        self
    }

    /// Whether to leave the file as it is; not by default. Several processes may read it at once, beside
    /// no writer.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.file.read_only = read_only;
        self
    }

    /// The schema of a new store, which is the current one by default; older ones are for tests.
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.file.schema = schema;
        self
    }

    /// Other limits for the log, so that tests reach them.
    #[doc(hidden)]
    #[must_use]
    pub fn log_limits(mut self, limits: LogLimits) -> Self {
        self.file.log_limits = limits;
        self
    }
}
