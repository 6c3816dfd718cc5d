//! Which file to open, and how.

use std::path::PathBuf;
use std::sync::Arc;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::Result;
use ghostwire_store_core::schema::Schema;

use crate::{Access, FileKind, LogLimits, StoreFile};

/// What the options of the backends have in common.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// The file. Its directory must exist.
    pub path: PathBuf,
    /// The identity that a new store gets, random bytes; one that exists keeps its own.
    pub store: StoreId,
    /// Whether to make a new store if there is none. Otherwise that is `NotFound`.
    pub create: bool,
    /// Whether to leave the file as it is. Several processes may read it at once, beside no writer.
    pub read_only: bool,
    /// The schema of a new store; older ones are for tests.
    pub schema: Schema,
    /// When something is done about the log; others are for tests.
    pub log_limits: LogLimits,
}

impl FileOptions {
    /// An existing file, to read and write.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store: StoreId) -> Self {
        Self {
            path: path.into(),
            store,
            create: false,
            read_only: false,
            schema: Schema::current(),
            log_limits: LogLimits::default(),
        }
    }

    /// Opens the file of a backend.
    ///
    /// # Errors
    /// As [`StoreFile::open`].
    pub fn open(&self, kind: FileKind) -> Result<Arc<StoreFile>> {
        let access = match (self.read_only, self.create) {
            (true, _) => Access::ReadOnly,
            (false, true) => Access::Create,
            (false, false) => Access::Existing,
        };
        let file = StoreFile::open(&self.path, kind, access)?;
        file.log().set_limits(self.log_limits);
        Ok(Arc::new(file))
    }
}
