//! Ranges of keys as conditions of SQL.

use std::fmt::Write as _;

use ghostwire_store_core::backend::KeyRange;
use ghostwire_store_core::schema::{KeyColumn, KeyKind, RowKey};
use libsql::Value;

use crate::shape::id_text;

/// The condition that a row lies in `range`, and its parameters; `None` if none can. `names` are
/// those of the key's columns.
///
/// SQLite seeks by a comparison of several columns only as far as they are compared with values of
/// their own type, and then compares row by row all the same. So the columns that both ends have
/// in common are compared one by one.
pub(crate) fn condition(
    keys: &[KeyColumn],
    names: &[String],
    range: &KeyRange,
) -> Option<(String, Vec<Value>)> {
    let lower = bound(keys, &range.from);
    let upper = range.to.as_ref().map(|to| bound(keys, to));
    if upper.as_ref().is_some_and(|upper| upper.values.is_empty()) {
        return None;
    }
    let shared = upper.as_ref().map_or(0, |upper| columns_in_common(&lower, upper));
    let mut condition = Condition::default();
    for (name, value) in names.iter().zip(&lower.values).take(shared) {
        condition.compare(&[(name, value)], "=");
    }
    let mut compare = |bound: &Bound, operator| {
        let columns: Vec<_> = names.iter().zip(&bound.values).skip(shared).collect();
        condition.compare(&columns, operator);
    };
    compare(&lower, if lower.begins_before { ">" } else { ">=" });
    if let Some(upper) = &upper {
        compare(upper, if upper.begins_before { "<=" } else { "<" });
    }
    Some((condition.sql, condition.parameters))
}

/// Which rows lie beyond an end of a range, `key`: conditions, those of rows that are nearer to it
/// first, and their parameters. Each is one that SQLite can seek by.
pub(crate) fn beyond(
    keys: &[KeyColumn],
    names: &[String],
    key: &RowKey,
    end: End,
) -> (Vec<String>, Vec<Value>) {
    let bound = bound(keys, key);
    let compare = |column: usize, operator: &str| {
        let name = names.get(column).map_or("", String::as_str);
        let value = bound.values.get(column);
        format!("{name} {operator} {}", mark(column + 1, value.unwrap_or(&Value::Null)))
    };
    let condition = |last: usize| {
        let is_whole = last + 1 == bound.values.len();
        let operator = match (end, is_whole && bound.begins_before == (end == End::From)) {
            (End::From, false) => "<",
            (End::From, true) => "<=",
            (End::To, false) => ">",
            (End::To, true) => ">=",
        };
        let equal = (0..last).map(|column| compare(column, "="));
        equal.chain([compare(last, operator)]).collect::<Vec<_>>().join(" AND ")
    };
    ((0..bound.values.len()).rev().map(condition).collect(), bound.values.clone())
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    From,
    To,
}

/// A comparison of a table's leading key columns with values, and those values.
#[derive(Debug, PartialEq)]
struct Bound {
    values: Vec<Value>,
    /// A key that begins with these values lies before the bound; otherwise behind it.
    begins_before: bool,
}

/// Translates a position between keys, given as bytes that need not be a whole key. Keys are at
/// or behind it if and only if their columns are.
fn bound(columns: &[KeyColumn], key: &RowKey) -> Bound {
    let mut rest = key.as_bytes();
    let mut bound = Bound { values: Vec::new(), begins_before: false };
    for column in columns {
        if rest.is_empty() {
            return bound;
        }
        match column.kind {
            KeyKind::Id | KeyKind::OptionalId => {
                let id = take_padded::<16>(&mut rest);
                let is_none = column.kind == KeyKind::OptionalId && id == [0; 16];
                let text = if is_none { String::new() } else { id_text(id) };
                bound.values.push(Value::Text(text));
            }
            KeyKind::Integer => {
                let number = u64::from_be_bytes(take_padded(&mut rest));
                let Ok(number) = i64::try_from(number) else {
                    // Behind every number that there is.
                    bound.values.push(Value::Integer(i64::MAX));
                    bound.begins_before = true;
                    return bound;
                };
                bound.values.push(Value::Integer(number));
            }
            KeyKind::Text => {
                let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
                let (text, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                // Part of a key may end within a character.
                bound.values.push(match std::str::from_utf8(text) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::Blob(text.to_owned()),
                });
                rest = tail.get(1..).unwrap_or_default();
            }
        }
    }
    bound.begins_before = !rest.is_empty();
    bound
}

/// How many leading columns have one value in the whole range. Each bound keeps one to compare.
fn columns_in_common(lower: &Bound, upper: &Bound) -> usize {
    let most = lower.values.len().min(upper.values.len()).saturating_sub(1);
    let columns = lower.values.iter().zip(&upper.values).take(most);
    columns.take_while(|(from, to)| from == to).count()
}

/// A WHERE clause in the making.
#[derive(Default)]
struct Condition {
    sql: String,
    parameters: Vec<Value>,
}

impl Condition {
    /// One more comparison; of no columns it says nothing.
    fn compare(&mut self, columns: &[(&String, &Value)], operator: &str) {
        if columns.is_empty() {
            return;
        }
        let word = if self.sql.is_empty() { "WHERE" } else { "AND" };
        let (mut names, mut marks) = (Vec::new(), Vec::new());
        for (name, value) in columns {
            self.parameters.push((*value).clone());
            let number = self.parameters.len();
            names.push(name.as_str());
            marks.push(mark(number, value));
        }
        let (names, marks) = (names.join(", "), marks.join(", "));
        let _ = write!(self.sql, " {word} ({names}) {operator} ({marks})");
    }
}

/// How a statement refers to a parameter.
fn mark(number: usize, value: &Value) -> String {
    match value {
        // Text that is not UTF-8 cannot be passed as text.
        Value::Blob(_) => format!("CAST(?{number} AS TEXT)"),
        _ => format!("?{number}"),
    }
}

fn take_padded<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_at_checked(N).unwrap_or((rest, &[]));
    *rest = tail;
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(head) {
        *to = *from;
    }
    bytes
}
