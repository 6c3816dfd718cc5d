//! What stands in a file's schema: the store's tables as this program makes them, and nothing that
//! would run with them or restrict them.

use std::fmt::Write as _;

use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::schema::{Column, ColumnKind, KeyKind, Schema, SchemaVersion, Table};

use crate::blocks::{BLOCKS, CREATE_BLOCKS};
use crate::link::{Link, integer, text};
use crate::meta::{META, MetaLayout};
use crate::shape::{CHECK, column_storage, key_storage};

fn column_definition(column: &Column) -> String {
    let storage = column_storage(column.kind).sql();
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!("\"{}\" {storage}{null}", column.name)
}

fn column_comment(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Bool => " -- 0 or 1",
        ColumnKind::Time => " -- microseconds since 1970-01-01 UTC",
        ColumnKind::Json => " -- JSON",
        ColumnKind::Bytes => " -- docs/file-formats.md",
        ColumnKind::Integer
        | ColumnKind::Real
        | ColumnKind::Text
        | ColumnKind::Id
        | ColumnKind::Key(_) => "",
    }
}

/// The statement that makes `table` as of `schema`.
pub(crate) fn create_table(table: Table, schema: Schema) -> String {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS \"{}\" (\n", table.name());
    let keys = schema.key(table);
    for key in keys {
        let comment = match key.kind {
            KeyKind::OptionalId => " -- empty for none",
            KeyKind::Integer if key.name == "at" => " -- microseconds since 1970-01-01 UTC",
            KeyKind::Id | KeyKind::Integer | KeyKind::Text => "",
        };
        let storage = key_storage(key.kind).sql();
        let _ = writeln!(sql, "  \"{}\" {storage} NOT NULL,{comment}", key.name);
    }
    for column in schema.columns(table) {
        let comment = column_comment(column.kind);
        let _ = writeln!(sql, "  {},{comment}", column_definition(column));
    }
    let keys: Vec<String> = keys.iter().map(|key| format!("\"{}\"", key.name)).collect();
    let _ = write!(
        sql,
        "  {CHECK} INTEGER NOT NULL, -- of the other columns: rows edited by hand are refused\n  \
         PRIMARY KEY ({})\n) STRICT, WITHOUT ROWID",
        keys.join(", ")
    );
    sql
}

/// The statements that carry `table` from version `from` to `schema`.
pub(crate) fn carry_forward(table: Table, from: u32, schema: Schema) -> Vec<String> {
    if table.schema().since > from {
        return vec![create_table(table, schema)];
    }
    schema
        .columns(table)
        .filter(|column| column.since > from)
        .map(|column| {
            format!("ALTER TABLE \"{}\" ADD COLUMN {}", table.name(), column_definition(column))
        })
        .collect()
}

/// Compares a file's schema with that of a store. A trigger, view or virtual table would run
/// somebody else's SQL, and an index over a table of ours can refuse rows, so none may be there.
/// Other tables, with their own indexes, are let be: nothing here ever reads or writes them.
///
/// # Errors
/// `InvalidArgument` names an object that has to go, and `Corrupt` a table that is not as it was
/// made, or is missing.
pub(crate) fn check_layout(link: &mut Link, stored: SchemaVersion) -> Result<()> {
    let current = Schema::current();
    let is_newer = stored.version > current.version().version;
    let schema = if is_newer { current } else { Schema::at(stored.version)? };
    let meta = MetaLayout::of(stored).create;
    let mut expected = vec![(META, meta.to_owned()), (BLOCKS, CREATE_BLOCKS.to_owned())];
    expected.extend(schema.tables().map(|table| (table.name(), create_table(table, schema))));
    let mut missing: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let sql = "SELECT CAST(type AS BLOB), CAST(name AS BLOB), CAST(tbl_name AS BLOB), \
               coalesce(rootpage, 0), CAST(coalesce(sql, '') AS BLOB) FROM sqlite_schema";
    link.query(sql, Vec::new(), |row| {
        let object = Object {
            kind: text(row, 0)?,
            name: text(row, 1)?,
            table: text(row, 2)?,
            has_pages: integer(row, 3)? != 0,
            sql: text(row, 4)?,
        };
        let is_ours = |(name, _): &&(&str, String)| object.table.eq_ignore_ascii_case(name);
        let ours = expected.iter().find(is_ours);
        let Some((name, created)) = ours.filter(|_| object.kind == "table") else {
            return object.check_foreign(ours.is_some());
        };
        missing.retain(|other| other != name);
        // A newer schema may have appended columns to the core's tables.
        let may_have_more = is_newer && ![META, BLOCKS].contains(name);
        if is_same_table(&object.sql, created, may_have_more) {
            return Ok(());
        }
        Err(Error::corrupt(
            "a table of the store was altered; restore the file from a backup, or undo it",
        )
        .with("table", name))
    })?;
    match missing.first() {
        None => Ok(()),
        Some(name) => {
            Err(Error::corrupt("a table of the store is missing; restore the file from a backup")
                .with("table", name))
        }
    }
}

/// A row of `sqlite_schema`.
struct Object {
    kind: String,
    name: String,
    table: String,
    has_pages: bool,
    sql: String,
}

impl Object {
    fn check_foreign(&self, is_on_ours: bool) -> Result<()> {
        let why = match self.kind.as_str() {
            "trigger" => "it would run with the store's own writes",
            "view" => "a store has none",
            "table" if !self.has_pages => "it is virtual, and would run code",
            // One that SQLite makes itself for a constraint is seen in the table.
            "index" if is_on_ours && !self.sql.is_empty() => {
                "it could keep the store from writing a row"
            }
            "index" | "table" => return Ok(()),
            _ => "no store has such a thing",
        };
        let quoted = self.name.replace('"', "\"\"");
        let remove = format!("DROP {} \"{quoted}\"", self.kind.to_ascii_uppercase());
        let kind = &self.kind;
        Err(Error::invalid(format!(
            "the file's schema has a {kind} that this program did not make: {why}; find out who \
             made it, then remove it with `{remove}`"
        ))
        .with(if self.kind == "table" { "table" } else { "on" }, &self.table))
    }
}

/// Whether two statements make the same table: the same columns and constraints in any order, since
/// a column that was added stands at the end, and the same options. `with_more` admits further
/// columns, of which only a name and a type are said.
fn is_same_table(found: &str, expected: &str, with_more: bool) -> bool {
    let (Some(mut found), Some(expected)) = (Definition::of(found), Definition::of(expected))
    else {
        return false;
    };
    let all_there = expected.parts.iter().all(|part| {
        let at = found.parts.iter().position(|other| other == part);
        at.map(|at| found.parts.swap_remove(at)).is_some()
    });
    let is_plain = |part: &Vec<String>| match part.as_slice() {
        [_, kind] => ["INTEGER", "REAL", "TEXT", "BLOB"].contains(&kind.as_str()),
        _ => false,
    };
    all_there
        && found.options == expected.options
        && (found.parts.is_empty() || with_more && found.parts.iter().all(is_plain))
}

/// The words of a `CREATE TABLE`.
#[derive(Debug, PartialEq, Eq)]
struct Definition {
    /// Between the outer parentheses, cut at the commas.
    parts: Vec<Vec<String>>,
    /// Behind them.
    options: Vec<String>,
}

impl Definition {
    fn of(sql: &str) -> Option<Self> {
        let mut words = words(sql)?.into_iter();
        words.by_ref().find(|word| word == "(")?;
        let mut parts = vec![Vec::new()];
        let mut depth = 1_usize;
        for word in words.by_ref() {
            match word.as_str() {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
            match (depth, word.as_str()) {
                (0, _) => break,
                (1, ",") => parts.push(Vec::new()),
                _ => parts.last_mut()?.push(word),
            }
        }
        (depth == 0).then(|| Self { parts, options: words.collect() })
    }
}

/// SQL as words and single characters, without white space and comments. A name has no quotes, whichever
/// it was written with; a text keeps its own. `None` for what has no end.
fn words(sql: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/")? + 2
        } else if let '"' | '`' | '[' | '\'' = first {
            let end = if first == '[' { ']' } else { first };
            let length = rest.get(1..)?.find(end)? + 2;
            let range = if first == '\'' { 0..length } else { 1..length - 1 };
            words.push(rest.get(range)?.to_owned());
            length
        } else {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len()).max(first.len_utf8());
            words.push(rest.get(..length)?.to_owned());
            length
        };
        rest = rest.get(length..)?.trim_start();
    }
    Some(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_same_however_it_is_written() {
        let made = "CREATE TABLE \"t\" (\n  \"a\" TEXT NOT NULL, -- why, and (how)\n  row_check INTEGER,\n \
                    PRIMARY KEY (\"a\")\n) STRICT, WITHOUT ROWID";
        for same in [
            made,
            "CREATE TABLE [t]([a] TEXT NOT NULL,row_check INTEGER,PRIMARY KEY(a)) STRICT, WITHOUT ROWID",
            "CREATE TABLE t (row_check /* , */ INTEGER, `a` TEXT NOT NULL, PRIMARY KEY (\"a\")) STRICT,WITHOUT ROWID",
        ] {
            assert!(is_same_table(same, made, false), "{same}");
        }
        for (other, with_more) in [
            ("a TEXT, row_check INTEGER, PRIMARY KEY (a)", false),
            ("a TEXT NOT NULL, row_check INTEGER CHECK (row_check < 9), PRIMARY KEY (a)", false),
            ("a TEXT NOT NULL COLLATE NOCASE, row_check INTEGER, PRIMARY KEY (a)", false),
            ("a TEXT NOT NULL, row_check INTEGER, PRIMARY KEY (a), UNIQUE (row_check)", true),
            ("a TEXT NOT NULL, row_check INTEGER, PRIMARY KEY (a DESC)", true),
            ("a TEXT NOT NULL, row_check INTEGER, PRIMARY KEY (a), b INTEGER", false),
            ("a TEXT NOT NULL, row_check INTEGER, PRIMARY KEY (a), b INTEGER DEFAULT 1", true),
            ("a TEXT NOT NULL, row_check INTEGER, PRIMARY KEY (a), b AS (1)", true),
            ("a TEXT NOT NULL, row_check INTEGER", true),
        ] {
            let other = format!("CREATE TABLE t ({other}) STRICT, WITHOUT ROWID");
            assert!(!is_same_table(&other, made, with_more), "{other}");
        }
        let more = made.replace("row_check INTEGER", "row_check INTEGER, b INTEGER");
        assert!(is_same_table(&more, made, true));
        for option in ["", "STRICT", "WITHOUT ROWID"] {
            let other = made.replace("STRICT, WITHOUT ROWID", option);
            assert!(!is_same_table(&other, made, true), "{other}");
        }
    }

    #[test]
    fn what_has_no_end_is_no_table() {
        for sql in ["", "CREATE TABLE t", "CREATE TABLE t (a", "CREATE TABLE t ('a)", "t (a /* )"] {
            assert_eq!(Definition::of(sql), None, "{sql}");
        }
        assert_eq!(words("a('--')--b").unwrap(), ["a", "(", "'--'", ")"]);
        assert_eq!(words("é\u{a0}=1").unwrap(), ["é", "=", "1"]);
    }
}
