//! Executing an SQL dump that nobody vouches for, in a database of its own in memory.
//!
//! A dump by the `sqlite3` shell has few kinds of statements. Others are refused twice: by their
//! first words, and by SQLite's authorizer, which sees what a statement would really do.

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode};

use super::unistr::unistr;

/// What a statement of a dump begins with.
const ALLOWED: &[&[&str]] = &[
    &["PRAGMA", "FOREIGN_KEYS"],
    &["BEGIN"],
    &["COMMIT"],
    &["END"],
    &["CREATE", "TABLE"],
    &["CREATE", "INDEX"],
    &["CREATE", "UNIQUE", "INDEX"],
    &["INSERT", "INTO"],
    &["DELETE", "FROM", "SQLITE_SEQUENCE"],
    &["ANALYZE"],
];

/// Executes the dump.
pub(super) fn execute(connection: &Connection, bytes: Vec<u8>) -> Result<()> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        Error::invalid("neither a SQLite file nor an SQL dump in UTF-8").with("at_byte", valid)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if let Some(at) = text.find('\0') {
        return Err(Error::invalid("neither a SQLite file nor an SQL dump: it contains NUL")
            .with("at_byte", at));
    }
    if text.trim_start().starts_with("--") && text.contains("PostgreSQL database dump") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this is a PostgreSQL dump; only Headscale on SQLite can be imported",
        ));
    }
    let deterministic = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    connection
        .create_scalar_function("unistr", 1, deterministic, |context| {
            let text = context.get_raw(0).as_str()?;
            unistr(text).ok_or_else(|| rusqlite::Error::UserFunctionError("bad escape".into()))
        })
        .map_err(|_| Error::new(ErrorKind::Unexpected, "SQLite cannot be set up for reading"))?;
    connection.authorizer(Some(only_loading));
    for statement in Statements::of(text) {
        run(connection, &statement).map_err(|error| error.with("line", statement.line))?;
    }
    if !connection.is_autocommit() {
        return Err(Error::corrupt("the dump was cut off: its transaction is never committed")
            .with("lines", text.lines().count()));
    }
    Ok(())
}

fn run(connection: &Connection, statement: &Statement<'_>) -> Result<()> {
    let words = statement.words();
    let starts = |with: &[&str]| {
        with.len() <= words.len() && with.iter().zip(&words).all(|(with, word)| with == word)
    };
    if starts(&["ROLLBACK"]) {
        return Err(Error::corrupt("the dump ends in a rollback: it was made of a damaged file"));
    }
    if !ALLOWED.iter().any(|allowed| starts(allowed)) {
        if !statement.complete {
            return Err(cut_off());
        }
        let error = Error::invalid("not an SQL dump of Headscale: no such dump has this statement");
        // Words of SQL are shown, anything else might be data.
        let known =
            |word: &&String| word.len() <= 12 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        return Err(match words.first().filter(known) {
            Some(word) => error.with("statement", word),
            None => error,
        });
    }
    if !statement.complete {
        return Err(cut_off());
    }
    connection.execute_batch(statement.text).map_err(|error| refused(&error))
}

fn cut_off() -> Error {
    Error::corrupt("the dump was cut off: its last statement has no end")
}

/// An error without SQLite's message, which repeats parts of the statement.
fn refused(error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            Error::invalid("the statement does what no dump of Headscale does")
        }
        Some(ErrorCode::OperationInterrupted) => {
            Error::invalid("the dump takes too much work; it is made to do harm")
        }
        Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::TooBig) => {
            Error::invalid("the dump takes too much memory")
        }
        Some(ErrorCode::ConstraintViolation) => {
            Error::corrupt("a row breaks a constraint of its own table")
        }
        _ => Error::invalid("not SQL that SQLite understands"),
    }
}

/// What a dump needs, and no more.
fn only_loading(context: AuthContext<'_>) -> Authorization {
    let is_internal = |table: &str| {
        matches!(
            table,
            "sqlite_master" | "sqlite_sequence" | "sqlite_stat1" | "sqlite_stat3" | "sqlite_stat4"
        )
    };
    let allowed = match context.action {
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Analyze { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Read { .. }
        | AuthAction::Select
        | AuthAction::Transaction { .. } => true,
        AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name } => {
            is_internal(table_name)
        }
        AuthAction::Pragma { pragma_name, .. } => pragma_name.eq_ignore_ascii_case("foreign_keys"),
        // The shell writes line breaks and other control characters with these.
        AuthAction::Function { function_name } => ["replace", "char", "unistr"]
            .iter()
            .any(|name| function_name.eq_ignore_ascii_case(name)),
        _ => false,
    };
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

/// One statement with its semicolon, and the line on which it begins.
struct Statement<'a> {
    text: &'a str,
    line: usize,
    complete: bool,
}

impl Statement<'_> {
    /// The first three words, in capitals.
    fn words(&self) -> Vec<String> {
        let is_word = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
        let words = self.text.split(|c: char| !is_word(c)).filter(|word| !word.is_empty());
        words
            .take(3)
            .map(|word| word.chars().take(32).collect::<String>().to_ascii_uppercase())
            .collect()
    }
}

/// Cuts a dump into statements. Triggers, whose bodies have semicolons, are refused anyway.
struct Statements<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Statements<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        self.line += taken.bytes().filter(|&byte| byte == b'\n').count();
        taken
    }

    /// Skips white space, comments and lone semicolons.
    fn skip(&mut self) {
        loop {
            let blank = self.rest.len()
                - self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ';').len();
            let length = if blank > 0 { Some(blank) } else { comment(self.rest) };
            match length {
                Some(length) => drop(self.take(length)),
                None => return,
            }
        }
    }
}

impl<'a> Iterator for Statements<'a> {
    type Item = Statement<'a>;

    fn next(&mut self) -> Option<Statement<'a>> {
        self.skip();
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut at = 0;
        loop {
            let Some(rest) = self.rest.get(at..).filter(|rest| !rest.is_empty()) else {
                return Some(Statement { text: self.take(at), line, complete: false });
            };
            if rest.starts_with(';') {
                return Some(Statement { text: self.take(at + 1), line, complete: true });
            }
            at += comment(rest).or_else(|| quoted(rest)).unwrap_or_else(|| plain(rest));
        }
    }
}

/// The length of the comment that `text` begins with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let body = text.strip_prefix("/*")?;
    Some(body.find("*/").map_or(text.len(), |end| end + 4))
}

/// The length of the string or name in quotes that `text` begins with. A doubled quote inside ends
/// one and begins the next, which comes to the same.
fn quoted(text: &str) -> Option<usize> {
    let end = match text.chars().next()? {
        '[' => ']',
        quote @ ('\'' | '"' | '`') => quote,
        _ => return None,
    };
    let body = text.get(1..)?;
    Some(body.find(end).map_or(text.len(), |at| at + 2))
}

/// The length up to what may matter, at least one character.
fn plain(text: &str) -> usize {
    let first = text.chars().next().map_or(1, char::len_utf8);
    let special = |c: char| matches!(c, ';' | '-' | '/' | '\'' | '"' | '`' | '[');
    text.get(first..).and_then(|rest| rest.find(special)).map_or(text.len(), |at| at + first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<(usize, &str, bool)> {
        Statements::of(text)
            .map(|statement| (statement.line, statement.text, statement.complete))
            .collect()
    }

    #[test]
    fn statements_end_at_semicolons_that_are_not_quoted() {
        let text = "-- a; b\nBEGIN;;\n/* ; \n */ INSERT INTO a VALUES('x;''\n;--', \"b;\", [c;], `d;`);\nEND -- ;\n;";
        assert_eq!(
            split(text),
            [
                (2, "BEGIN;", true),
                (4, "INSERT INTO a VALUES('x;''\n;--', \"b;\", [c;], `d;`);", true),
                (6, "END -- ;\n;", true)
            ]
        );
    }

    #[test]
    fn what_has_no_end_is_incomplete() {
        for text in ["INSERT INTO a VALUES('x;", "BEGIN", "BEGIN -- ;", "BEGIN /* ; "] {
            assert_eq!(split(text), [(1, text, false)]);
        }
        assert_eq!(split("  -- nothing\n /* open"), []);
        assert_eq!(split("é-/;"), [(1, "é-/;", true)]);
    }
}
