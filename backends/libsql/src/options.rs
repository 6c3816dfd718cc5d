//! How to open a store.

use std::path::PathBuf;

use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Schema;
use ghostwire_store_sqlite::LogLimits;

/// How to open a store.
#[derive(Debug, Clone)]
pub struct LibsqlOptions {
    /// The file. Its directory must exist.
    pub path: PathBuf,
    /// The identity of the store if it is made now; random bytes.
    pub store_id: StoreId,
    /// Make the file if there is none. Otherwise that is `NotFound`.
    pub create: bool,
    /// Only read; several processes may do that at once, beside no writer.
    pub read_only: bool,
    /// The schema of a store that is made now; `None` is the current one. An older one is for
    /// tests of migrations.
    pub schema: Option<Schema>,
    /// Have SQLite check the structure of the whole file when it is opened. Without that, a
    /// damaged page may hide rows until [`verify`] runs. It reads the file once: about a second for
    /// a gigabyte.
    ///
    /// [`verify`]: ghostwire_store_core::backend::Backend::verify
    pub check_structure: bool,
    /// Other limits for the log, so that tests reach them.
    #[doc(hidden)]
    pub log_limits: Option<LogLimits>,
}

impl LibsqlOptions {
    /// Reads and writes `path`, makes it with `store_id` if there is none, and checks it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, store_id: StoreId) -> Self {
        Self {
            path: path.into(),
            store_id,
            create: true,
            read_only: false,
            schema: None,
            check_structure: true,
            log_limits: None,
        }
    }
}
