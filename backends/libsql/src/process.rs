//! The first call to SQLite in a process has to be libsql's.
//!
//! libsql configures the SQLite that it shares with `libsql-rusqlite`, and panics if something called that
//! before. So [`prepare_process`] makes libsql call it; a store of this backend does so when it is opened.
//! A program that opens a store of the zqlite backend first, or uses `libsql-rusqlite` itself, calls it
//! before that.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use libsql::Builder;

use crate::link::ready;

/// Sets up the SQLite that libsql and `libsql-rusqlite` share the way libsql needs it. Call it
/// before anything else in the process uses that SQLite; calling it again does nothing.
///
/// # Errors
/// `Unsupported` if something used it already.
pub async fn prepare_process() -> Result<()> {
    set_up_engine()
}

pub(crate) fn set_up_engine() -> Result<()> {
    let build = || ready(Builder::new_local(":memory:").build()).map(drop);
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::Unsupported,
            "something in this process used SQLite before libsql was set up; call \
             ghostwire_store_libsql::prepare_process first",
        ))
    })
}
