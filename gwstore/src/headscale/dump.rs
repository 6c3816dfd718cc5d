//! Executing an SQL dump that nobody vouches for, in a database of its own in memory.
//!
//! A dump by the `sqlite3` shell has few kinds of statements. Others are refused twice: by their
//! first words, and by SQLite's authorizer, which sees what a statement would really do. What it takes
//! to execute is in proportion to its length: an `INSERT` has literals, and no statement reads a table.

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, ErrorCode};

use super::budget::{Budget, cannot_prepare};
use super::unistr::unistr;

/// What a statement of a dump is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Only the shell that reads the dump needs it: settings, and the tables that SQLite keeps itself.
    Skip,
    Frame,
    Define,
    Fill,
}

/// Whether `.dump` or `.recover` of a shell writes this setting.
fn is_setting(name: &str, value: &str) -> bool {
    match name {
        "FOREIGN_KEYS" | "WRITABLE_SCHEMA" => matches!(value, "ON" | "OFF" | "RESET"),
        "ENCODING" => matches!(value, "UTF-8" | "UTF-16LE" | "UTF-16BE"),
        "PAGE_SIZE" | "AUTO_VACUUM" | "USER_VERSION" | "APPLICATION_ID" => {
            value.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    }
}

/// The first line of what `.recover` of newer shells writes.
const RECOVER_LINE: &str = ".dbconfig defensive off";

/// The tables that SQLite keeps itself.
fn is_internal(table: &str) -> bool {
    matches!(table, "SQLITE_SEQUENCE" | "SQLITE_STAT1" | "SQLITE_STAT3" | "SQLITE_STAT4")
}

/// What a statement with these first tokens is for; none that a dump has otherwise.
fn deed(tokens: &[&str]) -> Option<Deed> {
    Some(match tokens {
        ["PRAGMA", name, "=", value, ";"] if is_setting(name, value) => Deed::Skip,
        ["CREATE", "TABLE", "IF", "NOT", "EXISTS", table, ..] | ["CREATE", "TABLE", table, ..]
            if is_internal(table) =>
        {
            Deed::Skip
        }
        ["DELETE", "FROM", table, ";"] if is_internal(table) => Deed::Skip,
        ["INSERT", "INTO", table, ..] | ["INSERT", "OR", "IGNORE", "INTO", table, ..]
            if is_internal(table) =>
        {
            Deed::Skip
        }
        ["ANALYZE", "SQLITE_SCHEMA" | "SQLITE_MASTER", ";"] => Deed::Skip,
        ["BEGIN" | "COMMIT" | "END", ..] => Deed::Frame,
        ["CREATE", "TABLE" | "INDEX", ..] | ["CREATE", "UNIQUE", "INDEX", ..] => Deed::Define,
        ["INSERT", "INTO", ..] | ["INSERT", "OR", "IGNORE", "INTO", ..] => Deed::Fill,
        _ => return None,
    })
}

/// Executes the dump.
pub(super) fn execute(connection: &Connection, bytes: Vec<u8>, budget: &Budget) -> Result<()> {
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
        .map_err(|_| cannot_prepare())?;
    // Rows come in any order. Whether what they refer to is there is looked at later, row by row.
    connection.execute_batch("PRAGMA foreign_keys = OFF").map_err(|_| cannot_prepare())?;
    let mut deed = None;
    for statement in Statements::of(text) {
        let mut run = || {
            budget.check_time()?;
            let wanted = statement.deed()?;
            if wanted == Deed::Skip {
                return Ok(());
            }
            if deed.replace(wanted) != Some(wanted) {
                connection
                    .authorizer(Some(move |context: AuthContext<'_>| allows(wanted, context)));
            }
            connection.execute_batch(statement.text).map_err(|error| refused(&error, budget))
        };
        run().map_err(|error: Error| error.with("line", statement.line))?;
    }
    if !connection.is_autocommit() {
        return Err(Error::corrupt("the dump was cut off: its transaction is never committed")
            .with("lines", text.lines().count()));
    }
    Ok(())
}

fn does_too_much() -> Error {
    Error::invalid("the statement does what no dump of Headscale does")
}

/// An error without SQLite's message, which repeats parts of the statement.
fn refused(error: &rusqlite::Error, budget: &Budget) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::AuthorizationForStatementDenied) => does_too_much(),
        Some(ErrorCode::OperationInterrupted) => budget.too_much_work(),
        Some(ErrorCode::DiskFull | ErrorCode::OutOfMemory | ErrorCode::TooBig) => {
            budget.too_much_memory()
        }
        Some(ErrorCode::ConstraintViolation) => {
            Error::corrupt("a row breaks a constraint of its own table")
        }
        _ => Error::invalid("not SQL that SQLite understands"),
    }
}

/// What a dump needs, and no more.
fn allows(deed: Deed, context: AuthContext<'_>) -> Authorization {
    let is_own = |table: &str| matches!(table, "sqlite_master" | "sqlite_sequence");
    let allowed = match context.action {
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Insert { .. }
        | AuthAction::Transaction { .. } => true,
        // `CREATE TABLE … AS SELECT` could multiply what is there; so could `INSERT … SELECT`, which to
        // SQLite is no other than `INSERT … VALUES` with several rows.
        AuthAction::Select => deed == Deed::Fill,
        // An index reads its own table, row by row.
        AuthAction::Read { table_name, .. } => deed != Deed::Fill || is_own(table_name),
        AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name } => {
            is_own(table_name)
        }
        // The shell writes line breaks and other control characters with these.
        AuthAction::Function { function_name } => {
            let known = ["replace", "char", "unistr"];
            deed == Deed::Fill && known.iter().any(|name| function_name.eq_ignore_ascii_case(name))
        }
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
    /// What it does, if a dump has such a statement, to its end.
    fn deed(&self) -> Result<Deed> {
        let tokens = self.tokens();
        let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
        if words.first() == Some(&"ROLLBACK") {
            let message = "the dump ends in a rollback: it was made of a damaged file";
            return Err(Error::corrupt(message));
        }
        let deed = deed(&words);
        if !self.complete {
            return Err(Error::corrupt("the dump was cut off: its last statement has no end"));
        }
        if deed == Some(Deed::Fill) && self.has_word("SELECT") {
            return Err(does_too_much());
        }
        deed.ok_or_else(|| {
            let message = "not an SQL dump of Headscale: no such dump has this statement";
            let error = Error::invalid(message);
            // Words of SQL are shown, anything else might be data.
            let known = |word: &&&str| {
                word.len() <= 12 && word.bytes().all(|byte| byte.is_ascii_uppercase())
            };
            match words.first().filter(known) {
                Some(word) => error.with("statement", word),
                None => error,
            }
        })
    }

    /// Whether it has this word of SQL, in capitals, anywhere but in texts, quoted names and comments.
    fn has_word(&self, word: &str) -> bool {
        let mut rest = self.text;
        while !rest.is_empty() {
            let skipped = comment(rest).or_else(|| quoted(rest));
            let (piece, behind) =
                rest.split_at_checked(skipped.unwrap_or_else(|| plain(rest))).unwrap_or((rest, ""));
            let mut words = piece.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            if skipped.is_none() && words.any(|found| found.eq_ignore_ascii_case(word)) {
                return true;
            }
            rest = behind;
        }
        false
    }

    /// The first six tokens: words and quoted names in capitals, without their quotes, and other
    /// characters, each by itself.
    fn tokens(&self) -> Vec<String> {
        let mut tokens = Vec::new();
        let mut rest = self.text;
        while tokens.len() < 6 && !rest.is_empty() {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
            let (length, token) = if let Some(length) = comment(rest) {
                (length, None)
            } else if let Some(length) = quoted(rest) {
                (length, rest.get(1..length.saturating_sub(1)))
            } else if word > 0 {
                (word, rest.get(..word))
            } else {
                let first = rest.chars().next().map_or(1, char::len_utf8);
                (first, rest.get(..first).filter(|token| !token.trim().is_empty()))
            };
            let short =
                |token: &str| token.chars().take(32).collect::<String>().to_ascii_uppercase();
            tokens.extend(token.map(short));
            rest = rest.get(length..).unwrap_or_default();
        }
        tokens
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
            let is_recover_line =
                self.rest.lines().next().is_some_and(|line| line.trim_end() == RECOVER_LINE);
            let length = match (blank, is_recover_line) {
                (0, true) => Some(RECOVER_LINE.len()),
                (0, false) => comment(self.rest),
                _ => Some(blank),
            };
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
    fn words_of_sql_are_told_from_texts_and_names() {
        let has = |text| Statement { text, line: 1, complete: true }.has_word("SELECT");
        for text in
            ["SELECT", "x(select)", "a--\nSelect 1", "'a'SELECT'b'", "1-SELECT", "[a]select"]
        {
            assert!(has(text), "{text}");
        }
        for text in [
            "'SELECT'",
            "\"select\"",
            "[SELECT]",
            "`select`",
            "-- select",
            "/* select */",
            "selected",
            "a_select",
            "",
        ] {
            assert!(!has(text), "{text}");
        }
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
