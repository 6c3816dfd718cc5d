//! Making the tables, carrying them forward, and comparing those that are there with what this program
//! makes. Every name is written with its schema.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ghostwire_store_core::backend::Head;
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::schema::{Column, ColumnKind, KeyKind, Schema, SchemaVersion, Table};
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnection, PgRow};

use crate::blocks::{self, BLOCKS, COMMITS};
use crate::connection::{change, read};
use crate::head::{self, META, StoredHead};
use crate::shape::{CHECK, Shapes};
use crate::wire::{Param, Storage, boolean_at, integer_at, text_at};

/// Begins a change of the layout, which does not wait for somebody's lock for long before it lets others go
/// first, and is undone by the server if whoever makes it stands still.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout TO '2s'; \
    SET LOCAL idle_in_transaction_session_timeout TO '3s'";
/// How often it tries.
pub(crate) const ATTEMPTS: usize = 5;

/// What a schema of the database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Nothing; `exists` if it is there.
    Nothing { exists: bool },
    /// A store.
    Store,
    /// Something else.
    Other,
}

/// Tells what a schema holds.
pub(crate) async fn holds(connection: &mut PgConnection, schema: &str) -> Result<Holds> {
    let sql = "SELECT n.oid IS NOT NULL, count(c.oid), coalesce(bool_or(c.relname = $2), false) \
               FROM (SELECT) AS one \
               LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = $1 \
               LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid GROUP BY n.oid";
    let rows = read(connection, sql, &[Param::text(schema), Param::text(META)]).await?;
    let row = rows.first().ok_or_else(crate::connection::no_row)?;
    Ok(match (boolean_at(row, 2)?, integer_at(row, 1)?) {
        (true, _) => Holds::Store,
        (false, 0) => Holds::Nothing { exists: boolean_at(row, 0)? },
        (false, _) => Holds::Other,
    })
}

/// The refusal of a schema that somebody else uses.
pub(crate) fn not_ours(schema: &str) -> Error {
    Error::invalid(
        "the schema holds tables of something else, and no store; name another schema, or drop this one \
         if nobody needs it",
    )
    .with("schema", schema)
}

/// Begins a transaction that changes the layout, alone in this schema.
pub(crate) async fn begin(connection: &mut PgConnection, schema: &str) -> Result<()> {
    change(connection, BEGIN).await?;
    let hash = Sha256::digest(format!("ghostwire-store {schema}"));
    let key = hash.iter().take(8).fold(0u64, |number, &byte| (number << 8) | u64::from(byte));
    let key = Param::integer(key.cast_signed());
    read(connection, "SELECT pg_catalog.pg_advisory_xact_lock($1)", &[key]).await.map(drop)
}

/// Makes every table and the row of the head; to be called in a transaction.
pub(crate) async fn create(
    connection: &mut PgConnection,
    namespace: &str,
    exists: bool,
    head: &Head,
    schema: Schema,
) -> Result<()> {
    let mut statements = Vec::new();
    if !exists {
        statements.push(format!("CREATE SCHEMA \"{namespace}\""));
    }
    statements.extend(head::create(namespace));
    statements.extend(blocks::create(namespace));
    statements.extend(schema.tables().flat_map(|table| create_table(namespace, table, schema)));
    change(connection, &statements.join(";\n")).await?;
    let (sql, params) = head::insert(namespace, head);
    read(connection, &sql, &params).await.map(drop)
}

/// Has nobody else read or write the table of the head until the transaction ends.
pub(crate) async fn lock_head(connection: &mut PgConnection, namespace: &str) -> Result<()> {
    let sql = format!("LOCK TABLE \"{namespace}\".\"{META}\" IN ACCESS EXCLUSIVE MODE");
    change(connection, &sql).await
}

/// Carries the tables from version `from` to `schema`, and the head with them; to be called in a
/// transaction that has the head locked.
pub(crate) async fn carry_forward(
    connection: &mut PgConnection,
    namespace: &str,
    from: &StoredHead,
    schema: Schema,
) -> Result<()> {
    let stored = from.head.schema.version;
    let statements: Vec<String> =
        schema.tables().flat_map(|table| steps(namespace, table, stored, schema)).collect();
    if !statements.is_empty() {
        change(connection, &statements.join(";\n")).await?;
    }
    let next = Head { schema: schema.version(), ..from.head };
    let rows = read(connection, &head::update(namespace), &from.to(&next, None, None)).await?;
    match rows.len() {
        1 => Ok(()),
        _ => Err(from.refusal(None)),
    }
}

fn definition(column: &Column) -> String {
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!("\"{}\" {}{null}", column.name, Storage::of(column.kind).definition())
}

/// What a column is, where its type does not say it.
fn comment(kind: ColumnKind) -> Option<&'static str> {
    match kind {
        ColumnKind::Bytes => Some("docs/file-formats.md"),
        ColumnKind::Key(_) => Some("a prefix and 64 hexadecimal digits"),
        _ => None,
    }
}

/// The statements that make a table.
fn create_table(namespace: &str, table: Table, schema: Schema) -> Vec<String> {
    let name = format!("\"{namespace}\".\"{}\"", table.name());
    let mut sql = format!("CREATE TABLE {name} (\n");
    let keys = schema.key(table);
    for key in keys {
        let storage = Storage::of_key(key.kind).definition();
        let _ = writeln!(sql, "  \"{}\" {storage} NOT NULL,", key.name);
    }
    for column in schema.columns(table) {
        let _ = writeln!(sql, "  {},", definition(column));
    }
    let key_names: Vec<String> = keys.iter().map(|key| format!("\"{}\"", key.name)).collect();
    // Rows that are updated most often find room beside themselves.
    let options = if table == Table::Presence { " WITH (fillfactor = 70)" } else { "" };
    let _ = write!(
        sql,
        "  \"{CHECK}\" bigint NOT NULL,\n  PRIMARY KEY ({})\n){options}",
        key_names.join(", ")
    );
    let note =
        |column: &str, what: &str| format!("COMMENT ON COLUMN {name}.\"{column}\" IS '{what}'");
    let of_keys = keys.iter().filter_map(|key| match key.kind {
        KeyKind::OptionalId => Some(note(key.name, "all zero for none")),
        KeyKind::Integer if key.name == "at" => {
            Some(note(key.name, "microseconds since 1970-01-01 UTC"))
        }
        _ => None,
    });
    let of_columns = schema
        .columns(table)
        .filter_map(|column| comment(column.kind).map(|what| note(column.name, what)));
    let check = note(CHECK, "of the other columns: rows edited by hand are refused");
    [sql].into_iter().chain(of_keys).chain(of_columns).chain([check]).collect()
}

/// The statements that carry a table forward. A column that is added may be null, so no row is written.
fn steps(namespace: &str, table: Table, from: u32, schema: Schema) -> Vec<String> {
    if table.schema().since > from {
        return create_table(namespace, table, schema);
    }
    schema
        .columns(table)
        .filter(|column| column.since > from)
        .map(|column| {
            let name = format!("\"{namespace}\".\"{}\"", table.name());
            format!("ALTER TABLE {name} ADD COLUMN {}", definition(column))
        })
        .collect()
}

/// A column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    storage: Option<Storage>,
    required: bool,
    by_bytes: bool,
}

const FIND_COLUMNS: &str = "SELECT c.relname::text, c.relkind = 'r' AND c.relpersistence = 'p' \
    AND NOT c.relrowsecurity AND NOT c.relispartition \
    AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite AS w WHERE w.ev_class = c.oid) \
    AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_inherits AS i WHERE c.oid IN (i.inhrelid, i.inhparent)), \
    a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
    a.attcollation IN (0, 950) AND a.attgenerated = '' AND a.attidentity = '' \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid \
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attnum > 0 \
    AND NOT a.attisdropped ORDER BY c.relname, a.attnum";

/// What would run with the store's statements, or keep it from writing a row, and by what to remove it.
const FIND_ADDED: &str = "SELECT c.relname::text, x.kind, x.name FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN (SELECT tgrelid AS of, 'trigger' AS kind, tgname::text AS name FROM pg_catalog.pg_trigger \
    WHERE NOT tgisinternal \
    UNION ALL SELECT conrelid, 'constraint', conname::text FROM pg_catalog.pg_constraint \
    WHERE contype NOT IN ('p', 'n') \
    UNION ALL SELECT confrelid, 'constraint', conrelid::regclass::text || ' ' || conname::text \
    FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid <> conrelid \
    UNION ALL SELECT indrelid, 'index', indexrelid::regclass::text FROM pg_catalog.pg_index \
    WHERE NOT indisprimary) AS x ON x.of = c.oid WHERE n.nspname = $1 \
    AND (c.relname, x.name) <> ('ghostwire_meta', 'ghostwire_meta_one_check') ORDER BY 1, 2, 3";

const FIND_KEYS: &str = "SELECT c.relname::text, string_agg(a.attname::text, ',' ORDER BY k.at) \
    FROM pg_catalog.pg_constraint AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.conrelid \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    CROSS JOIN LATERAL unnest(p.conkey) WITH ORDINALITY AS k (number, at) \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number \
    WHERE n.nspname = $1 AND p.contype = 'p' GROUP BY c.relname";

/// A table as this program makes it: its columns, each with whether it may not be null, and its key.
struct Expected {
    name: &'static str,
    columns: Vec<(String, Storage, bool)>,
    key: Vec<&'static str>,
    /// Whether a newer schema may have appended columns.
    grows: bool,
}

fn expected(schema: Schema) -> Vec<Expected> {
    let own = |name, columns: Vec<_>, key| Expected { name, columns, key: vec![key], grows: false };
    let mut tables = vec![
        own(META, head::columns().collect(), "one"),
        own(BLOCKS, blocks::columns(BLOCKS).collect(), "serial"),
        own(COMMITS, blocks::columns(COMMITS).collect(), "position"),
    ];
    tables.extend(schema.tables().map(|table| {
        let keys = schema.key(table);
        let of_key = keys.iter().map(|key| (key.name.to_owned(), Storage::of_key(key.kind), true));
        let of_body = schema
            .columns(table)
            .map(|column| (column.name.to_owned(), Storage::of(column.kind), !column.nullable));
        let check = [(CHECK.to_owned(), Storage::Integer, true)];
        Expected {
            name: table.name(),
            columns: of_key.chain(of_body).chain(check).collect(),
            key: keys.iter().map(|key| key.name).collect(),
            grows: true,
        }
    }));
    tables
}

type Tables = BTreeMap<String, (bool, Vec<(String, Found)>)>;

fn found_tables(rows: &[PgRow]) -> Result<Tables> {
    let mut tables = Tables::new();
    for row in rows {
        let column = Found {
            storage: Storage::named(text_at(row, 3)?),
            required: boolean_at(row, 4)?,
            by_bytes: boolean_at(row, 5)?,
        };
        let (plain, columns) =
            tables.entry(text_at(row, 0)?.to_owned()).or_insert_with(|| (true, Vec::new()));
        *plain &= boolean_at(row, 1)?;
        columns.push((text_at(row, 2)?.to_owned(), column));
    }
    Ok(tables)
}

/// Compares the tables that are there with those of a store at this schema, and tells what they look like.
/// Other tables in the schema are let be.
///
/// # Errors
/// `Corrupt` names a table that is not as it was made, or is missing; `InvalidArgument` something that was
/// added and has to go.
pub(crate) async fn check(
    connection: &mut PgConnection,
    namespace: &str,
    stored: SchemaVersion,
) -> Result<Shapes> {
    let current = Schema::current();
    current.steps_from(stored)?;
    let is_newer = stored.version > current.version().version;
    let schema = if is_newer { current } else { Schema::at(stored.version)? };
    let namespace_param = [Param::text(namespace)];
    let tables = found_tables(&read(connection, FIND_COLUMNS, &namespace_param).await?)?;
    let mut keys = BTreeMap::new();
    for row in read(connection, FIND_KEYS, &namespace_param).await? {
        keys.insert(text_at(&row, 0)?.to_owned(), text_at(&row, 1)?.to_owned());
    }
    let expected = expected(schema);
    let mut unknown: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in &expected {
        let Some((plain, columns)) = tables.get(table.name) else {
            return Err(altered("a table of the store is missing", table.name));
        };
        let key = keys.get(table.name).is_some_and(|key| *key == table.key.join(","));
        let added = compare(table, columns, is_newer);
        match added.filter(|_| *plain && key) {
            Some(added) => drop(unknown.insert(table.name, added)),
            None => return Err(altered("a table of the store was altered", table.name)),
        }
    }
    for row in read(connection, FIND_ADDED, &namespace_param).await? {
        let table = text_at(&row, 0)?;
        if expected.iter().any(|expected| expected.name == table) {
            return Err(Error::invalid(
                "a table of the store has something that this program did not make, and that runs with its \
                 statements or restricts them; find out who made it, then drop it",
            )
            .with("table", table)
            .with(if text_at(&row, 1)? == "index" { "index" } else { "added" }, text_at(&row, 2)?));
        }
    }
    Shapes::new(stored, namespace, |table| unknown.get(table.name()).cloned().unwrap_or_default())
}

/// The columns that a newer schema added; `None` if the table is not the expected one.
fn compare(table: &Expected, columns: &[(String, Found)], is_newer: bool) -> Option<Vec<String>> {
    let is_expected = |(name, storage, required): &(String, Storage, bool)| {
        let expected = Found { storage: Some(*storage), required: *required, by_bytes: true };
        columns.iter().any(|(other, found)| other == name && *found == expected)
    };
    let added: Vec<String> = columns
        .iter()
        .filter(|(name, _)| !table.columns.iter().any(|(known, ..)| known == name))
        .map(|(name, found)| (!found.required && is_identifier(name)).then(|| name.clone()))
        .collect::<Option<_>>()?;
    let all_there = table.columns.iter().all(is_expected);
    let fits = all_there && (added.is_empty() || is_newer && table.grows);
    fits.then_some(added)
}

fn is_identifier(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn altered(message: &'static str, table: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{message}; restore the database from a backup, or undo it"),
    )
    .with("table", table)
}
