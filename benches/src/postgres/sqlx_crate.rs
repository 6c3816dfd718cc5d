//! The `sqlx` crate on PostgreSQL, as somebody who knows both would use it by hand: one statement, and so one
//! round trip, for each write.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use ghostwire_store_bench_workload::Subject;
use ghostwire_store_bench_workload::credential::{Purpose, hash};
use ghostwire_store_bench_workload::direct::sql::{self, Columns, Decode, Table, Value};
use ghostwire_store_bench_workload::direct::{Addresses, admitted, presented, refused, registered};
use ghostwire_store_bench_workload::machine::Postmaster;
use ghostwire_store_bench_workload::rows::{Id, Machine};
use ghostwire_store_bench_workload::subject::{Answer, Read, Result, Write};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row, TypeInfo, ValueRef};

use super::server::Server;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bytes,
    Integer,
    Real,
    Text,
}

use Kind::{Bytes as B, Integer as I, Real as R, Text as T};

const USERS: &[Kind] = &[B, T, I];
const NODES: &[Kind] = &[B, B, T, T, T, B, B, B, T, T, T, T, B, I, I, I, I, I];
const PRESENCE: &[Kind] = &[B, I, I, I, T];
const ROUTES: &[Kind] = &[B, B, B, I, I, I, I, I, I];
const PREAUTH_KEYS: &[Kind] = &[B, T, B, B, I, I, I];
const API_KEYS: &[Kind] = &[B, T, B, B, I, I];
const POLICIES: &[Kind] = &[I, T, I];
const AUDIT: &[Kind] = &[I, B, T, T, T, T];
const METRICS: &[Kind] = &[B, T, I, R];

/// Where the owner and the key that admitted it are among a node's columns.
const OWNER: usize = 1;
const KEY: usize = 12;

/// A machine whose user signed in.
const SIGN_IN: &str = "WITH node AS (INSERT INTO nodes VALUES \
    ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)) \
    INSERT INTO audit VALUES ($19, $20, $21, $22, $23, $24)";

/// A machine with a key, which is checked and used up; without one nothing is stored.
const REGISTER: &str = "WITH key AS (UPDATE preauth_keys SET used_at = $1 \
    WHERE prefix = $2 AND hash = $3 AND used_at IS NULL AND expires_at > $1 RETURNING id, \"user\"), \
    node AS (INSERT INTO nodes SELECT $4, key.\"user\", $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, key.id, \
    $15, $16, $17, $18, $19 FROM key) \
    INSERT INTO audit SELECT $20, $21, $22, $23, $24, $25 FROM key";

/// The numbers of nodes, from which their addresses follow: the lowest free one is next.
#[derive(Debug, Default)]
struct Numbers {
    next: u64,
    given_back: BTreeSet<u64>,
}

impl Numbers {
    fn take(&mut self) -> u64 {
        self.given_back.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}

/// A pool, and the addresses that it gives away.
pub(super) struct OfSqlx {
    pool: PgPool,
    numbers: Mutex<Numbers>,
    postmaster: Option<Postmaster>,
}

impl OfSqlx {
    /// Makes the tables, unless they are there.
    pub(super) async fn open(server: &Server, schema: &str, connections: u32) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .min_connections(connections)
            .max_connections(connections)
            .acquire_timeout(Duration::from_secs(60))
            .test_before_acquire(false)
            .connect_with(server.connect_options(schema))
            .await?;
        let create = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&pool).await?;
        for table in sql::TABLES {
            sqlx::raw_sql(translated(table)).execute(&pool).await?;
        }
        let nodes: i64 = sqlx::query_scalar(sql::COUNT_NODES).fetch_one(&pool).await?;
        let numbers = Numbers { next: u64::try_from(nodes)?, ..Numbers::default() };
        Ok(Self { pool, numbers: Mutex::new(numbers), postmaster: server.postmaster() })
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn register(&self, (machine, text, user): (Machine, Option<String>, Id)) -> Result<()> {
        let key = match &text {
            Some(text) => {
                let (prefix, secret) = presented(Purpose::PreAuthKey, text)?;
                Some((prefix.to_owned(), hash(Purpose::PreAuthKey, secret)))
            }
            None => None,
        };
        let number = self.numbers().take();
        let addresses = Addresses::after(number);
        // Whose it is only the database knows, of a key.
        let owner = (user, key.as_ref().map(|_| user));
        let node = admitted(machine, owner, &addresses);
        let (at, line) = (node.created_at, sql::audit(registered(&node)));
        let query = match key {
            None => bind(sqlx::query(SIGN_IN), NODES, sql::node(node)),
            Some((prefix, hash)) => {
                let query: Query<'_> = sqlx::query(REGISTER);
                let query = query.bind(at).bind(prefix).bind(hash.to_vec());
                let columns = NODES.iter().copied().zip(sql::node(node)).enumerate();
                let columns = columns.filter(|(index, _)| ![OWNER, KEY].contains(index));
                let (kinds, values): (Vec<Kind>, Vec<Value>) =
                    columns.map(|(_, column)| column).unzip();
                bind(query, &kinds, values)
            }
        };
        let stored = bind(query, AUDIT, line).execute(&self.pool).await?;
        if stored.rows_affected() == 1 {
            return Ok(());
        }
        self.numbers().given_back.insert(number);
        Err(refused())
    }

    /// All rows, in one statement.
    async fn insert(&self, (table, kinds): (&str, &[Kind]), rows: Vec<Vec<Value>>) -> Result<()> {
        let arrays: Vec<String> = kinds
            .iter()
            .enumerate()
            .map(|(index, kind)| {
                let kind = match kind {
                    B => "bytea",
                    I => "int8",
                    R => "float8",
                    T => "text",
                };
                format!("${}::{kind}[]", index + 1)
            })
            .collect();
        let mut insert = format!("INSERT INTO {table} SELECT * FROM UNNEST({})", arrays.join(", "));
        if table == "metrics" {
            insert += " ON CONFLICT (node, metric, at) DO UPDATE SET value = excluded.value";
        }
        let mut columns: Vec<Vec<Value>> = kinds.iter().map(|_| Vec::new()).collect();
        for row in rows {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        let mut query: Query<'_> = sqlx::query(AssertSqlSafe(insert));
        for (kind, column) in kinds.iter().zip(columns) {
            query = bind_array(query, *kind, column);
        }
        query.execute(&self.pool).await?;
        Ok(())
    }

    async fn execute(
        &self,
        sql: &'static str,
        (kinds, values): (&[Kind], Vec<Value>),
    ) -> Result<u64> {
        let done = bind(sqlx::query(translated(sql)), kinds, values).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

type Query<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// In PostgreSQL a NULL has a type, too.
fn bind<'q>(query: Query<'q>, kinds: &[Kind], values: Vec<Value>) -> Query<'q> {
    kinds.iter().zip(values).fold(query, |query, (kind, value)| match (kind, value) {
        (_, Value::Integer(number)) => query.bind(number),
        (_, Value::Real(number)) => query.bind(number),
        (_, Value::Text(text)) => query.bind(text),
        (_, Value::Blob(bytes)) => query.bind(bytes),
        (B, Value::Null) => query.bind(None::<Vec<u8>>),
        (I, Value::Null) => query.bind(None::<i64>),
        (R, Value::Null) => query.bind(None::<f64>),
        (T, Value::Null) => query.bind(None::<String>),
    })
}

fn bind_array(query: Query<'_>, kind: Kind, column: Vec<Value>) -> Query<'_> {
    fn all<T>(column: Vec<Value>, with: fn(Value) -> Option<T>) -> Vec<Option<T>> {
        column.into_iter().map(with).collect()
    }
    match kind {
        B => query.bind(all(column, |value| match value {
            Value::Blob(bytes) => Some(bytes),
            _ => None,
        })),
        I => query.bind(all(column, |value| match value {
            Value::Integer(number) => Some(number),
            _ => None,
        })),
        R => query.bind(all(column, |value| match value {
            Value::Real(number) => Some(number),
            _ => None,
        })),
        T => query.bind(all(column, |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })),
    }
}

/// A statement for SQLite as PostgreSQL takes it. There are a few dozen, which are kept.
fn translated(sql: &'static str) -> &'static str {
    static KNOWN: OnceLock<Mutex<HashMap<&'static str, &'static str>>> = OnceLock::new();
    let known = KNOWN.get_or_init(Mutex::default);
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry(sql).or_insert_with(|| &*Box::leak(translate(sql).into_boxed_str()))
}

fn translate(sql: &str) -> String {
    let mut translated = String::new();
    let mut parameters = 0;
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut rest = sql.split(") STRICT").next().unwrap_or(sql);
    while let Some(first) = rest.chars().next() {
        let length = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(if length > 0 { length } else { first.len_utf8() });
        rest = after;
        match token {
            "?" => {
                parameters += 1;
                translated.push_str(&format!("${parameters}"));
            }
            // A word of the language there.
            "user" => translated.push_str("\"user\""),
            "BLOB" => translated.push_str("bytea"),
            "INTEGER" => translated.push_str("bigint"),
            "REAL" => translated.push_str("double precision"),
            token => translated.push_str(token),
        }
    }
    if sql.contains(") STRICT") {
        translated.push(')');
        // Room for the next version of a row that changes often, so that no index changes with it.
        if sql.contains("EXISTS presence") {
            translated.push_str(" WITH (fillfactor = 70)");
        }
    }
    translated
}

struct Found(PgRow);

impl Columns for Found {
    fn get(&self, index: usize) -> Result<Value> {
        let value = self.0.try_get_raw(index)?;
        if value.is_null() {
            return Ok(Value::Null);
        }
        let info = value.type_info();
        Ok(match info.name() {
            "INT8" => Value::Integer(self.0.try_get_unchecked(index)?),
            "FLOAT8" => Value::Real(self.0.try_get_unchecked(index)?),
            "TEXT" => Value::Text(self.0.try_get_unchecked(index)?),
            _ => Value::Blob(self.0.try_get_unchecked(index)?),
        })
    }
}

/// A connection that reads.
struct Reading(PoolConnection<Postgres>);

fn kinds(values: &[Value]) -> Vec<Kind> {
    let kind = |value: &Value| match value {
        Value::Integer(_) => I,
        Value::Real(_) => R,
        Value::Text(_) => T,
        Value::Blob(_) | Value::Null => B,
    };
    values.iter().map(kind).collect()
}

impl sql::Connection for Reading {
    async fn execute(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64> {
        let query = bind(sqlx::query(translated(sql)), &kinds(&values), values);
        Ok(query.execute(&mut *self.0).await?.rows_affected())
    }

    async fn query<V: Send + 'static>(
        &mut self,
        sql: &'static str,
        values: Vec<Value>,
        decode: Decode<V>,
    ) -> Result<Vec<V>> {
        let query = bind(sqlx::query(translated(sql)), &kinds(&values), values);
        let mut rows = query.fetch(&mut *self.0);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await? {
            found.push(decode(&Found(row))?);
        }
        Ok(found)
    }
}

#[async_trait]
impl Subject for OfSqlx {
    async fn write(&self, write: Write) -> Result<()> {
        match write {
            Write::Register { machine, preauth_key, user } => {
                self.register((*machine, preauth_key, user)).await
            }
            Write::Heartbeat { node, at, endpoints } => {
                let (at, node) = (Value::Integer(at), sql::blob(&node));
                let changed = match endpoints {
                    Some(endpoints) => {
                        let endpoints = Value::Text(serde_json::to_string(&endpoints)?);
                        let values = vec![at, endpoints, node];
                        self.execute(sql::MOVE, (&[I, T, B], values)).await?
                    }
                    None => self.execute(sql::BEAT, (&[I, B], vec![at, node])).await?,
                };
                if changed == 1 { Ok(()) } else { Err("the node is not connected".into()) }
            }
            Write::Audit(line) => self.insert(("audit", AUDIT), vec![sql::audit(line)]).await,
            Write::LoadAudit(lines) => {
                self.insert(("audit", AUDIT), lines.into_iter().map(sql::audit).collect()).await
            }
            Write::Metrics(points) => {
                self.insert(("metrics", METRICS), points.into_iter().map(sql::point).collect())
                    .await
            }
            Write::Load(rows) => {
                let (table, rows) = sql::values(rows)?;
                let table = match table {
                    Table::Users => ("users", USERS),
                    Table::Nodes => ("nodes", NODES),
                    Table::Presence => ("presence", PRESENCE),
                    Table::Routes => ("routes", ROUTES),
                    Table::PreAuthKeys => ("preauth_keys", PREAUTH_KEYS),
                    Table::ApiKeys => ("api_keys", API_KEYS),
                    Table::Policies => ("policies", POLICIES),
                };
                if table.0 == "nodes" {
                    self.numbers().next += rows.len() as u64;
                }
                self.insert(table, rows).await
            }
        }
    }

    async fn read(&self, read: &Read<'_>) -> Result<u64> {
        Ok(black_box(self.answer(read).await?).items())
    }

    async fn answer(&self, read: &Read<'_>) -> Result<Answer> {
        if matches!(read, Read::Nothing) {
            return Ok(Answer::Nothing);
        }
        sql::answer(&mut Reading(self.pool.acquire().await?), read).await
    }

    fn server_cpu(&self) -> Option<Duration> {
        self.postmaster.map(Postmaster::cpu)
    }

    /// Nothing is put off.
    async fn settle(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.pool.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_translated() {
        assert_eq!(
            translate("SELECT id, user FROM users u WHERE u.user = ? AND at < ?"),
            "SELECT id, \"user\" FROM users u WHERE u.\"user\" = $1 AND at < $2"
        );
        assert_eq!(
            translate(
                "CREATE TABLE IF NOT EXISTS presence (node BLOB, at INTEGER) STRICT, WITHOUT ROWID"
            ),
            "CREATE TABLE IF NOT EXISTS presence (node bytea, at bigint) WITH (fillfactor = 70)"
        );
        assert_eq!(
            translate("CREATE TABLE t (v REAL) STRICT"),
            "CREATE TABLE t (v double precision)"
        );
    }
}
