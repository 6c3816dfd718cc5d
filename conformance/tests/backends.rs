//! The suite, on every backend of this repository.
#![allow(missing_docs, clippy::expect_used)]

mod keyrings;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use ghostwire_store_conformance::{Disk, InMemory, LocalFiles, Opening, Suite};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_faulty_disk::FaultyDisk;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_sqlite::LogLimits;
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

/// So small that what the checks write passes them.
const LIMITS: LogLimits = LogLimits { checkpoint: 200 << 10, hold_out: 2 << 20, warn: 32 << 20 };

fn main() -> ExitCode {
    // The SQLite that both of them link is set up by libsql, or not at all.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(ghostwire_store_libsql::prepare_process()).expect("SQLite is not in use yet");
    ghostwire_store_faulty_disk::install();
    Suite::new()
        .backend(InMemory::new())
        .backend(InMemory::shared())
        .backend(
            LocalFiles::new("libsql", |path, opening: Opening| async move {
                let options = LibsqlOptions::new(path, opening.store)
                    .create(!opening.read_only)
                    .read_only(opening.read_only)
                    .schema(opening.schema)
                    .log_limits(LIMITS);
                Ok(Arc::new(LibsqlBackend::open(options).await?) as Arc<dyn Backend>)
            })
            .disk(faulty_disk),
        )
        .backend(
            LocalFiles::new("zqlite", |path, opening: Opening| async move {
                let opened = keyrings::open(zqlite(path, &opening), opening.store).await?;
                Ok(Arc::new(opened) as Arc<dyn Backend>)
            })
            .disk(faulty_disk),
        )
        // It differs in its frames alone, and damage is what those are for.
        .backend_for(
            &["backend-damage"],
            LocalFiles::new("zqlite-plain", |path, opening: Opening| async move {
                let options = zqlite(path, &opening);
                Ok(Arc::new(ZqliteBackend::open(options).await?) as Arc<dyn Backend>)
            }),
        )
        .exceptions(include_str!("exceptions.toml"))
        .main()
}

fn zqlite(path: PathBuf, opening: &Opening) -> ZqliteOptions {
    ZqliteOptions::new(path, opening.store)
        .create(!opening.read_only)
        .read_only(opening.read_only)
        .schema(opening.schema)
        .compact_series_early()
        .log_limits(LIMITS)
}

fn faulty_disk(directory: &Path) -> std::io::Result<Box<dyn Disk>> {
    Ok(Box::new(FaultyDisk::under(directory)?))
}
