//! The backends that keep a store in one file.

use std::path::PathBuf;
use std::sync::Arc;

use ghostwire_store_conformance::{LocalFiles, Opening};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_sqlite::LogLimits;
use ghostwire_store_zqlite::ZqliteOptions;

use crate::keyrings;

/// So small that what the checks write passes them.
const LIMITS: LogLimits = LogLimits { checkpoint: 200 << 10, hold_out: 2 << 20, warn: 32 << 20 };

pub(crate) fn libsql() -> LocalFiles {
    LocalFiles::new("libsql", |path, opening: Opening| async move {
        let options = LibsqlOptions::new(path, opening.store)
            .create(!opening.read_only)
            .read_only(opening.read_only)
            .schema(opening.schema)
            .log_limits(LIMITS);
        Ok(Arc::new(LibsqlBackend::open(options).await?) as Arc<dyn Backend>)
    })
}

/// Sealed.
pub(crate) fn zqlite() -> LocalFiles {
    LocalFiles::new("zqlite", |path, opening: Opening| async move {
        let opened = keyrings::open(zqlite_options(path, &opening), opening.store).await?;
        Ok(Arc::new(opened) as Arc<dyn Backend>)
    })
}

pub(crate) fn zqlite_options(path: PathBuf, opening: &Opening) -> ZqliteOptions {
    ZqliteOptions::new(path, opening.store)
        .create(!opening.read_only)
        .read_only(opening.read_only)
        .schema(opening.schema)
        .compact_series_early()
        .log_limits(LIMITS)
}
