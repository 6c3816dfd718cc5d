//! A connection of `libsql-rusqlite`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store_core::error::Result;
use ghostwire_store_sqlite::{Connection, Interrupt};
use rusqlite::OpenFlags;
use rusqlite::config::DbConfig;

use super::errors::unusable;

#[derive(Debug)]
pub(crate) struct Link(pub(super) rusqlite::Connection);

impl Connection for Link {
    fn open(name: &Path, writes: bool) -> Result<Self> {
        let access = match writes {
            true => OpenFlags::SQLITE_OPEN_READ_WRITE,
            false => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let open = || {
            let connection = rusqlite::Connection::open_with_flags(name, flags)?;
            connection.set_prepared_statement_cache_capacity(32);
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            // The layout is compared at open; this is for a trigger that another program adds meanwhile.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
            Ok(Self(connection))
        };
        open().map_err(unusable)
    }

    fn set_busy_timeout(&self, timeout: Duration) -> Result<()> {
        self.0.busy_timeout(timeout).map_err(unusable)
    }

    fn run(&mut self, sql: &str) -> Result<()> {
        let run = || {
            let mut statement = self.0.prepare(sql)?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        run().map_err(unusable)
    }

    fn run_prepared(&mut self, sql: &str) -> Result<()> {
        let run = || self.0.prepare_cached(sql)?.execute([]);
        run().map(drop).map_err(unusable)
    }

    fn integers<const N: usize>(&mut self, sql: &str) -> Result<[i64; N]> {
        let read = || {
            self.0.prepare_cached(sql)?.query_row([], |row| {
                let mut values = [0; N];
                for (index, value) in values.iter_mut().enumerate() {
                    *value = row.get(index)?;
                }
                Ok(values)
            })
        };
        read().map_err(unusable)
    }

    fn blob(&mut self, sql: &str) -> Result<Vec<u8>> {
        let read = || self.0.prepare_cached(sql)?.query_row([], |row| row.get(0));
        read().map_err(unusable)
    }

    fn interrupter(&self) -> Interrupt {
        let handle = self.0.get_interrupt_handle();
        Arc::new(move || handle.interrupt())
    }

    fn is_idle(&self) -> bool {
        self.0.is_autocommit()
    }
}
