//! The `sqlx` crate on SQLite.

use std::path::Path;

use futures_util::TryStreamExt;
use ghostwire_store_bench_workload::direct::sql::{Columns, Connection, Decode, Sql, Value};
use ghostwire_store_bench_workload::subject::Result;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, SqliteConnection, TypeInfo, ValueRef};

/// A connection, which has a thread of its own and keeps prepared statements.
pub(super) struct Sqlx(SqliteConnection);

/// One connection that writes, and some that read.
pub(super) async fn open(directory: &Path, readers: usize) -> Result<Sql<Sqlx>> {
    let options = SqliteConnectOptions::new()
        .filename(directory.join("sqlx.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .statement_cache_capacity(64)
        .disable_statement_logging();
    let writer = Sqlx(options.connect().await?);
    let mut reading = Vec::new();
    for _ in 0..readers {
        reading.push(Sqlx(options.connect().await?));
    }
    Sql::new(writer, reading).await
}

type Query = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;

fn query(sql: &'static str, values: Vec<Value>) -> Query {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Integer(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
        Value::Text(text) => query.bind(text),
        Value::Blob(bytes) => query.bind(bytes),
    })
}

struct Found(SqliteRow);

impl Columns for Found {
    fn get(&self, index: usize) -> Result<Value> {
        let value = self.0.try_get_raw(index)?;
        let info = value.type_info();
        if value.is_null() {
            return Ok(Value::Null);
        }
        Ok(match info.name() {
            "INTEGER" => Value::Integer(self.0.try_get_unchecked(index)?),
            "REAL" => Value::Real(self.0.try_get_unchecked(index)?),
            "TEXT" => Value::Text(self.0.try_get_unchecked(index)?),
            _ => Value::Blob(self.0.try_get_unchecked(index)?),
        })
    }
}

impl Connection for Sqlx {
    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64> {
        Ok(query(sql, values).execute(&mut self.0).await?.rows_affected())
    }

    async fn query<T: Send + 'static>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> Result<Vec<T>> {
        let mut rows = query(sql, values).fetch(&mut self.0);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            found.push(decode(&Found(row))?);
        }
        Ok(found)
    }
}
