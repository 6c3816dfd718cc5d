//! Which file to open, and how.

use std::path::PathBuf;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::LogLimits;

use crate::series::pending::Limits;

/// What stores the blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The SQLite that is linked into the program.
    #[default]
    Embedded,
    /// The ZQLite library. Not in this release: opening gives `Unsupported`.
    Native,
}

/// Which file to open, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ZqliteOptions {
    /// The file.
    pub path: PathBuf,
    /// What stores the blobs.
    pub engine: EngineChoice,
    /// The identity that a new store gets; one that exists keeps its own.
    pub store: StoreId,
    /// Whether to make a new store if there is none.
    pub create: bool,
    /// Whether to leave the file as it is.
    pub read_only: bool,
    /// The schema of a new store; older ones are for tests.
    pub schema: Schema,
    /// When series are folded; others are for tests.
    pub(crate) limits: Limits,
    /// When something is done about the log; others are for tests.
    pub(crate) log_limits: Option<LogLimits>,
}

impl ZqliteOptions {
    /// An existing file, to read and write, with the embedded engine.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store: StoreId) -> Self {
        Self {
            path: path.into(),
            engine: EngineChoice::default(),
            store,
            create: false,
            read_only: false,
            schema: Schema::current(),
            limits: Limits::default(),
            log_limits: None,
        }
    }

    /// Chooses what stores the blobs.
    #[must_use]
    pub fn engine(self, engine: EngineChoice) -> Self {
        Self { engine, ..self }
    }

    /// Whether to make a new store if there is none.
    #[must_use]
    pub fn create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Whether to leave the file as it is.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// Folds series after a few rows instead of some megabytes, so that tests meet every place where
    /// a row may lie.
    #[doc(hidden)]
    #[must_use]
    pub fn fold_series_early(self) -> Self {
        Self { limits: Limits { frozen: 2_500, slice: 300, chunks: 6_000 }, ..self }
    }

    /// Other limits for the log, so that tests reach them.
    #[doc(hidden)]
    #[must_use]
    pub fn log_limits(self, limits: LogLimits) -> Self {
        Self { log_limits: Some(limits), ..self }
    }

    /// The schema of a new store.
    #[must_use]
    pub fn schema(self, schema: Schema) -> Self {
        Self { schema, ..self }
    }
}
