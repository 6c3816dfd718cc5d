//! The `rusqlite` crate.

use std::path::Path;

use ghostwire_store_bench_workload::direct::sql::{Columns, Connection, Decode, Sql, Value};
use ghostwire_store_bench_workload::subject::Result;
use rusqlite::types::{Value as Stored, ValueRef};

/// A connection; the crate keeps prepared statements.
pub(super) struct Rusqlite(rusqlite::Connection);

/// One connection that writes, and some that read.
pub(super) async fn open(directory: &Path, readers: usize) -> Result<Sql<Rusqlite>> {
    let path = directory.join("rusqlite.db");
    let connect = || -> Result<Rusqlite> {
        let connection = rusqlite::Connection::open(&path)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Rusqlite(connection))
    };
    let writer = connect()?;
    let readers: Result<Vec<_>> = (0..readers).map(|_| connect()).collect();
    Sql::new(writer, readers?).await
}

fn bound(values: Vec<Value>) -> impl Iterator<Item = Stored> {
    values.into_iter().map(|value| match value {
        Value::Null => Stored::Null,
        Value::Integer(number) => Stored::Integer(number),
        Value::Real(number) => Stored::Real(number),
        Value::Text(text) => Stored::Text(text),
        Value::Blob(bytes) => Stored::Blob(bytes),
    })
}

struct Found<'r>(&'r rusqlite::Row<'r>);

impl Columns for Found<'_> {
    fn get(&self, index: usize) -> Result<Value> {
        Ok(match self.0.get_ref(index)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Real(number) => Value::Real(number),
            ValueRef::Text(text) => Value::Text(std::str::from_utf8(text)?.to_owned()),
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
        })
    }
}

impl Connection for Rusqlite {
    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64> {
        let mut statement = self.0.prepare_cached(sql)?;
        Ok(statement.execute(rusqlite::params_from_iter(bound(values)))? as u64)
    }

    async fn query<T: Send + 'static>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(bound(values)))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(decode(&Found(row))?);
        }
        Ok(found)
    }
}
