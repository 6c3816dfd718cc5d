//! The suite, on stores that are between two backends.
#![allow(missing_docs, clippy::expect_used)]

mod files;
mod keyrings;

use std::process::ExitCode;

use ghostwire_store_conformance::{InMemory, Migrating, Suite};

fn main() -> ExitCode {
    // The SQLite that both of them link is set up by libsql, or not at all.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(ghostwire_store_libsql::prepare_process()).expect("SQLite is not in use yet");
    Suite::new()
        .backend_of_stores(Migrating::in_step(InMemory::new(), InMemory::new()))
        .backend_of_stores(Migrating::following(InMemory::new(), InMemory::new()))
        .backend_of_stores(Migrating::in_step(files::libsql(), files::zqlite()))
        .backend_of_stores(Migrating::following(files::libsql(), files::zqlite()))
        .exceptions(include_str!("exceptions.toml"))
        .main()
}
