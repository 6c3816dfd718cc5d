//! The `libsql` crate, called directly.

use std::collections::HashMap;
use std::path::Path;

use ghostwire_store_bench_workload::direct::sql::{Columns, Connection, Decode, Sql, Value};
use ghostwire_store_bench_workload::subject::Result;

/// A connection and the statements it prepared.
pub(super) struct LibsqlConnection {
    connection: libsql::Connection,
    statements: HashMap<&'static str, libsql::Statement>,
}

/// One connection that writes and, without `readers`, reads.
pub(super) async fn open(directory: &Path, readers: usize) -> Result<Sql<LibsqlConnection>> {
    ghostwire_store::prepare_process().await?;
    let database = libsql::Builder::new_local(directory.join("direct.db")).build().await?;
    let connect = || -> Result<LibsqlConnection> {
        Ok(LibsqlConnection { connection: database.connect()?, statements: HashMap::new() })
    };
    let reading: Result<Vec<_>> = (0..readers).map(|_| connect()).collect();
    Sql::new(connect()?, reading?).await
}

impl LibsqlConnection {
    async fn statement(&mut self, sql: &'static str) -> Result<&libsql::Statement> {
        if !self.statements.contains_key(sql) {
            let statement = self.connection.prepare(sql).await?;
            self.statements.insert(sql, statement);
        }
        let statement = self.statements.get(sql).ok_or("a prepared statement is missing")?;
        statement.reset();
        Ok(statement)
    }
}

fn bound(values: Vec<Value>) -> Vec<libsql::Value> {
    let of = |value| match value {
        Value::Null => libsql::Value::Null,
        Value::Integer(number) => libsql::Value::Integer(number),
        Value::Real(number) => libsql::Value::Real(number),
        Value::Text(text) => libsql::Value::Text(text),
        Value::Blob(bytes) => libsql::Value::Blob(bytes),
    };
    values.into_iter().map(of).collect()
}

struct Found(libsql::Row);

impl Columns for Found {
    fn get(&self, index: usize) -> Result<Value> {
        Ok(match self.0.get_value(i32::try_from(index)?)? {
            libsql::Value::Null => Value::Null,
            libsql::Value::Integer(number) => Value::Integer(number),
            libsql::Value::Real(number) => Value::Real(number),
            libsql::Value::Text(text) => Value::Text(text),
            libsql::Value::Blob(bytes) => Value::Blob(bytes),
        })
    }
}

impl Connection for LibsqlConnection {
    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64> {
        let statement = self.statement(sql).await?;
        let changed = statement.execute(bound(values)).await;
        // A statement that is not reset keeps its transaction open.
        statement.reset();
        Ok(changed? as u64)
    }

    async fn query<T: Send + 'static>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> Result<Vec<T>> {
        let statement = self.statement(sql).await?;
        let mut rows = statement.query(bound(values)).await?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().await? {
            found.push(decode(&Found(row))?);
        }
        statement.reset();
        Ok(found)
    }
}
