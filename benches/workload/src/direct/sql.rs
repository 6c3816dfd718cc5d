//! A direct subject on SQLite, whichever crate wraps it: the same statements for all of them.

use std::future::Future;

use tokio::sync::{Mutex, MutexGuard};

pub use super::sql_reads::answer;
pub use super::sql_schema::{BEAT, COUNT_NODES, MOVE, TABLES};
pub use super::sql_writes::{Table, audit, blob, node, point, values};
use super::{Addresses, Engine, sql_writes};
use crate::subject::{Answer, Read, Result, Write};

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
}

/// The columns of one row.
pub trait Columns {
    fn get(&self, index: usize) -> Result<Value>;
}

/// Makes a value of a row.
pub type Decode<T> = fn(&dyn Columns) -> Result<T>;

/// A connection of a crate. It prepares a statement once and keeps it.
pub trait Connection: Send + 'static {
    fn execute(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
    ) -> impl Future<Output = Result<u64>> + Send;

    fn query<T: Send + 'static>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<T>,
    ) -> impl Future<Output = Result<Vec<T>>> + Send;
}

/// What a connection is told first: a write-ahead log, and an fsync with every commit.
pub const PRAGMAS: [&str; 2] = ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"];

/// SQLite with one connection that writes, and maybe others that read.
#[derive(Debug)]
pub struct Sql<C> {
    writer: Mutex<C>,
    readers: Vec<Mutex<C>>,
}

impl<C: Connection> Sql<C> {
    /// Makes the tables. Without `readers`, the writing connection reads, too.
    pub async fn new(mut writer: C, mut readers: Vec<C>) -> Result<Self> {
        for connection in std::iter::once(&mut writer).chain(&mut readers) {
            for pragma in PRAGMAS {
                connection.query(pragma, Vec::new(), ignore).await?;
            }
            check(connection).await?;
        }
        for table in TABLES {
            writer.execute(table, Vec::new()).await?;
        }
        let readers = readers.into_iter().map(Mutex::new).collect();
        Ok(Self { writer: Mutex::new(writer), readers })
    }

    /// A connection that nobody uses, or else the first one that will be free.
    async fn reader(&self) -> MutexGuard<'_, C> {
        match self.readers.iter().find_map(|reader| reader.try_lock().ok()) {
            Some(reader) => reader,
            None => self.readers.first().unwrap_or(&self.writer).lock().await,
        }
    }
}

fn ignore(_: &dyn Columns) -> Result<()> {
    Ok(())
}

fn first_column(row: &dyn Columns) -> Result<Value> {
    row.get(0)
}

async fn check(connection: &mut impl Connection) -> Result<()> {
    let expected = [
        ("PRAGMA journal_mode", Value::Text("wal".to_owned())),
        ("PRAGMA synchronous", Value::Integer(2)),
    ];
    for (pragma, expected) in expected {
        let found = connection.query(pragma, Vec::new(), first_column).await?;
        if found.first() != Some(&expected) {
            return Err(format!("{pragma} gives {found:?} instead of {expected:?}").into());
        }
    }
    Ok(())
}

impl<C: Connection> Engine for Sql<C> {
    async fn commit(
        &self,
        writes: Vec<Write>,
        addresses: &mut Addresses,
    ) -> Result<Vec<Result<()>>> {
        let mut connection = self.writer.lock().await;
        let connection = &mut *connection;
        connection.execute("BEGIN IMMEDIATE", Vec::new()).await?;
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            outcomes.push(sql_writes::write(connection, write, addresses).await);
        }
        if let Err(error) = connection.execute("COMMIT", Vec::new()).await {
            connection.execute("ROLLBACK", Vec::new()).await?;
            return Err(error);
        }
        Ok(outcomes)
    }

    async fn answer(&self, read: &Read<'_>) -> Result<Answer> {
        if matches!(read, Read::Nothing) {
            return Ok(Answer::Nothing);
        }
        answer(&mut *self.reader().await, read).await
    }

    async fn count_nodes(&self) -> Result<u64> {
        let mut connection = self.writer.lock().await;
        let found = connection.query(COUNT_NODES, Vec::new(), first_column).await?;
        match found.first() {
            Some(Value::Integer(count)) => Ok(u64::try_from(*count)?),
            other => Err(format!("counting nodes gave {other:?}").into()),
        }
    }

    async fn settle(&self) -> Result<()> {
        let mut connection = self.writer.lock().await;
        connection.query("PRAGMA wal_checkpoint(PASSIVE)", Vec::new(), ignore).await?;
        Ok(())
    }
}
