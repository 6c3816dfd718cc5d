//! Stores of both backends that keep one SQLite file, for tests that are about that file.

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_core::Store;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::error::Result;
use ghostwire_store_libsql::{LibsqlBackend, LibsqlOptions};
use ghostwire_store_sqlite::LogLimits;
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

/// The backends, by name.
pub(crate) const BACKENDS: [&str; 2] = ["libsql", "zqlite"];

const STORE: StoreId = StoreId::from_bytes([7; 16]);

pub(crate) async fn backend(
    name: &str,
    path: &Path,
    limits: LogLimits,
) -> Result<Arc<dyn Backend>> {
    Ok(match name {
        "libsql" => {
            let options = LibsqlOptions::new(path, STORE).create(true).log_limits(limits);
            Arc::new(LibsqlBackend::open(options).await?)
        }
        _ => {
            let options = ZqliteOptions::new(path, STORE).create(true).log_limits(limits);
            Arc::new(ZqliteBackend::open(options).await?)
        }
    })
}

pub(crate) async fn compact(name: &str, path: &Path) -> Result<()> {
    match name {
        "libsql" => LibsqlBackend::compact(LibsqlOptions::new(path, STORE)).await.map(drop),
        _ => ZqliteBackend::compact(ZqliteOptions::new(path, STORE)).await.map(drop),
    }
}

/// Stores some 2 KiB.
pub(crate) async fn create_user(store: &dyn Store, number: u32) -> Result<()> {
    let mut user = NewUser::local(format!("user-{number}").parse()?);
    user.picture_url = Some("x".repeat(2000).parse()?);
    store.users().create(user).await.map(drop)
}
