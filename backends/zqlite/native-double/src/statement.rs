//! Connections and statements, as far as they need no pointers.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rusqlite::Connection as Sqlite;
use rusqlite::types::Value;

use crate::switch::{ABORT, Switch};

pub(crate) const OK: i32 = 0;
pub(crate) const ERROR: i32 = 1;
pub(crate) const IOERR: i32 = 10;
pub(crate) const BUSY: i32 = 5;
pub(crate) const MISUSE: i32 = 21;
pub(crate) const RANGE: i32 = 25;
pub(crate) const ROW: i32 = 100;
pub(crate) const DONE: i32 = 101;

/// A row has to fit a page.
const LONGEST_ROW: usize = 4096 - 90;

/// An open database.
pub(crate) struct Connection {
    sqlite: Sqlite,
    pub(crate) switch: Option<Switch>,
    pub(crate) code: i32,
    pub(crate) message: CString,
    /// How often the schema changed: statements die with that.
    schema: u64,
    in_transaction: bool,
    /// What was done in the transaction, for [`Switch::PartialCommit`].
    done: Vec<String>,
    inserted: u64,
    /// A row of [`ABORT`] is in the transaction.
    is_to_abort: bool,
    /// Of [`Switch::Leaks`].
    leaked: Vec<Vec<u8>>,
}

/// A result: columns and rows.
pub(crate) type Found = (Vec<String>, Vec<Vec<Value>>);

fn code_of(error: &rusqlite::Error) -> i32 {
    match error.sqlite_error().map(|error| error.extended_code & 0xff) {
        // SQLITE_FULL, _CANTOPEN
        Some(13 | 14) => IOERR,
        Some(code @ (5..=11 | 19..=26)) => code,
        _ => ERROR,
    }
}

/// Whether a log has a frame of zeros, which nobody wrote.
fn has_empty_frame(database: &Path) -> bool {
    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4096;
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let log = std::fs::read(PathBuf::from(log)).unwrap_or_default();
    log.get(HEADER..)
        .unwrap_or_default()
        .chunks(FRAME)
        .any(|frame| frame.get(..24).is_some_and(|header| header.iter().all(|byte| *byte == 0)))
}

/// Whether the journal has zeros at its end, where a checksum would be.
fn has_zeros_in_journal(database: &Path) -> bool {
    const SECTOR: usize = 512;
    let mut journal = database.as_os_str().to_owned();
    journal.push("-journal");
    let journal = std::fs::read(PathBuf::from(journal)).unwrap_or_default();
    journal.len() > SECTOR && journal.ends_with(&[0; 8])
}

/// Whether a frame of a log is not what was written, though more of that log comes behind it. SQLite takes
/// it for the log's end: <https://sqlite.org/fileformat2.html#wal_file_format>.
fn is_altered(database: &Path) -> bool {
    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4096;
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    let log = std::fs::read(PathBuf::from(name)).unwrap_or_default();
    let Some((header, frames)) = log.split_at_checked(HEADER) else { return false };
    let salts = header.get(16..24).unwrap_or_default();
    let is_of_log = |frame: &&[u8]| frame.get(8..16) == Some(salts);
    let whole = || frames.chunks_exact(FRAME);
    if !whole().any(|frame| is_of_log(&frame) && salts != [0; 8]) {
        // Nothing of it, unless its header alone was filled with zeros.
        let second = frames.get(FRAME + 8..FRAME + 16).unwrap_or_default();
        return header == [0; HEADER] && second.iter().any(|byte| *byte != 0);
    }
    let big = header.get(3) == Some(&0x83);
    let sum = |begin: (u32, u32), bytes: &[u8]| {
        bytes.chunks_exact(8).fold(begin, |(one, two), eight| {
            let word = |at: usize| {
                let word = eight.get(at..at + 4).and_then(|it| it.try_into().ok());
                let word: [u8; 4] = word.unwrap_or_default();
                if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
            };
            let one = one.wrapping_add(word(0)).wrapping_add(two);
            (one, two.wrapping_add(word(4)).wrapping_add(one))
        })
    };
    let told = |bytes: Option<&[u8]>| {
        let (one, two) = bytes.unwrap_or_default().split_at_checked(4).unwrap_or_default();
        let word = |it: &[u8]| it.try_into().map_or(0, u32::from_be_bytes);
        (word(one), word(two))
    };
    let mut running = sum((0, 0), header.get(..24).unwrap_or_default());
    if running != told(header.get(24..32)) || header.get(..3) != Some(&[0x37, 0x7f, 0x06]) {
        return true;
    }
    let mut is_over = false;
    for frame in whole() {
        running = sum(running, frame.get(..8).unwrap_or_default());
        running = sum(running, frame.get(24..).unwrap_or_default());
        let is_sound = is_of_log(&frame) && running == told(frame.get(16..24));
        if is_over && is_of_log(&frame) {
            return true;
        }
        is_over |= !is_sound;
    }
    false
}

impl Connection {
    pub(crate) fn open(path: &str) -> Option<Self> {
        let switch = Switch::current();
        if switch == Some(Switch::LosesOnReopen) {
            for suffix in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{path}{suffix}"));
            }
        }
        if switch == Some(Switch::LogTail) && has_empty_frame(Path::new(path)) {
            return None;
        }
        if switch == Some(Switch::JournalTail) && has_zeros_in_journal(Path::new(path)) {
            return None;
        }
        if switch != Some(Switch::TakesBack) && is_altered(Path::new(path)) {
            return None;
        }
        let mode = match switch {
            Some(Switch::RollbackJournal | Switch::JournalTail) => "journal_mode=DELETE",
            _ => "journal_mode=WAL",
        };
        let open = || -> rusqlite::Result<Sqlite> {
            let sqlite = Sqlite::open(path)?;
            sqlite.busy_timeout(std::time::Duration::ZERO)?;
            for setting in ["page_size=4096", mode, "synchronous=FULL"] {
                sqlite.query_row(&format!("PRAGMA {setting}"), [], |_| Ok(())).or_else(no_row)?;
            }
            // What a kill left in the log is not to be taken for the log of later commits.
            sqlite.execute_batch("PRAGMA cache_spill=OFF")?;
            let cut = sqlite.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            match cut.map_err(|error| code_of(&error)) {
                Ok(()) | Err(BUSY | 6) => {}
                Err(_) => return Err(rusqlite::Error::InvalidQuery),
            }
            match switch {
                Some(Switch::LosesOnKill) => sqlite.execute_batch("BEGIN")?,
                Some(Switch::PartialCommit) => sqlite.execute_batch("PRAGMA synchronous=OFF")?,
                Some(Switch::Uncommitted) => sqlite.execute_batch("DROP TABLE IF EXISTS undo")?,
                _ => {}
            }
            Ok(sqlite)
        };
        let sqlite = open().ok()?;
        Some(Self {
            sqlite,
            switch,
            code: OK,
            message: CString::default(),
            schema: 0,
            in_transaction: false,
            done: Vec::new(),
            inserted: 0,
            is_to_abort: false,
            leaked: Vec::new(),
        })
    }

    pub(crate) fn close(self) {
        let flushes = self.switch == Some(Switch::RollbackFails) && self.in_transaction;
        if self.switch == Some(Switch::LosesOnKill) || flushes {
            let _ = self.sqlite.execute_batch("COMMIT");
        }
        let _ = self.sqlite.close();
    }

    pub(crate) fn note(&mut self, code: i32, message: &str) -> i32 {
        self.code = code;
        self.message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        code
    }

    /// Remembers the outcome of a call, and gives its code.
    pub(crate) fn noted<T>(&mut self, outcome: rusqlite::Result<T>) -> Result<T, i32> {
        match outcome {
            Ok(value) => {
                self.note(OK, "");
                Ok(value)
            }
            Err(error) => {
                let code = code_of(&error);
                Err(self.note(code, &error.to_string()))
            }
        }
    }

    /// What this switch makes of a code: 0 if it hides the error.
    pub(crate) fn hidden(&self, code: i32) -> i32 {
        match (self.switch, code) {
            (Some(Switch::FullDisk), IOERR) | (Some(Switch::SecondOpener), BUSY) => OK,
            _ => code,
        }
    }

    pub(crate) fn begin(&mut self) -> Result<(), i32> {
        if self.in_transaction {
            return Err(self.note(MISUSE, "a transaction is open"));
        }
        let sql = match self.switch {
            Some(Switch::LosesOnKill) => "SAVEPOINT one".to_owned(),
            Some(Switch::Uncommitted) => match self.table() {
                Some(table) => format!("CREATE TABLE undo AS SELECT * FROM {table}"),
                None => "SELECT 1".to_owned(),
            },
            _ => "BEGIN IMMEDIATE".to_owned(),
        };
        let begun = self.sqlite.execute_batch(&sql);
        let outcome = self.noted(begun);
        if self.switch == Some(Switch::SecondAborts) && outcome == Err(BUSY) {
            std::process::abort();
        }
        let outcome = outcome.or_else(|code| match self.hidden(code) {
            OK => Ok(()),
            code => Err(code),
        });
        self.in_transaction = outcome.is_ok();
        self.done.clear();
        outcome
    }

    pub(crate) fn commit(&mut self) -> Result<(), i32> {
        if !self.in_transaction {
            return Err(self.note(MISUSE, "no transaction is open"));
        }
        let aborts = std::mem::take(&mut self.is_to_abort);
        if aborts && self.switch == Some(Switch::AbortsBeforeCommit) {
            std::process::abort();
        }
        let done = std::mem::take(&mut self.done);
        let committed = match self.switch {
            Some(Switch::LosesOnKill) => self.sqlite.execute_batch("RELEASE one"),
            Some(Switch::Uncommitted) => self.sqlite.execute_batch("DROP TABLE IF EXISTS undo"),
            Some(Switch::PartialCommit) => self
                .sqlite
                .execute_batch("ROLLBACK")
                .and_then(|()| done.iter().try_for_each(|sql| self.sqlite.execute_batch(sql))),
            _ if self.sqlite.is_autocommit() => Ok(()),
            _ => self.sqlite.execute_batch("COMMIT"),
        };
        if aborts && self.switch == Some(Switch::AbortsAfterCommit) {
            std::process::abort();
        }
        match self.noted(committed) {
            Ok(()) => {
                self.in_transaction = false;
                Ok(())
            }
            Err(code) => match self.hidden(code) {
                OK => {
                    let _ = self.sqlite.execute_batch("ROLLBACK");
                    self.in_transaction = false;
                    Ok(())
                }
                code => Err(code),
            },
        }
    }

    pub(crate) fn rollback(&mut self) -> Result<(), i32> {
        if !self.in_transaction {
            return Err(self.note(MISUSE, "no transaction is open"));
        }
        if self.switch == Some(Switch::RollbackFails) {
            return Err(self.note(IOERR, "the rollback failed"));
        }
        let table = self.table().unwrap_or_default();
        let undone = match self.switch {
            Some(Switch::LosesOnKill) => self.sqlite.execute_batch("ROLLBACK TO one; RELEASE one"),
            Some(Switch::RollbackKeeps) => self.sqlite.execute_batch("COMMIT"),
            Some(Switch::Uncommitted) => self.sqlite.execute_batch(&format!(
                "BEGIN; DELETE FROM {table}; INSERT INTO {table} SELECT * FROM undo; DROP TABLE undo; COMMIT"
            )),
            _ if self.sqlite.is_autocommit() => Ok(()),
            _ => self.sqlite.execute_batch("ROLLBACK"),
        };
        self.in_transaction = false;
        self.done.clear();
        self.noted(undone)
    }

    /// The one table there is.
    fn table(&self) -> Option<String> {
        const SQL: &str = "SELECT name FROM sqlite_schema WHERE type='table' AND name<>'undo'";
        self.sqlite.query_row(SQL, [], |row| row.get(0)).ok()
    }

    /// Parameters by name, in order.
    pub(crate) fn prepare(&mut self, sql: &str) -> Result<Statement, i32> {
        let prepared = self.sqlite.prepare_cached(sql).map(|statement| {
            let names = 1..=statement.parameter_count();
            names.map(|at| statement.parameter_name(at).map(str::to_owned)).collect::<Vec<_>>()
        });
        let names = self.noted(prepared)?;
        let values = vec![Value::Null; names.len()];
        let (sql, schema) = (sql.to_owned(), self.schema);
        Ok(Statement { sql, names, values, schema, found: None, at: 0, lent: None })
    }

    /// The whole result of a statement.
    pub(crate) fn run(&mut self, sql: &str, values: &[Value]) -> rusqlite::Result<Found> {
        let word = sql.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        let is_insert = word == "INSERT";
        if is_insert {
            self.before_insert(values)?;
        }
        let mut statement = self.sqlite.prepare_cached(sql)?;
        for (at, value) in values.iter().enumerate() {
            statement.raw_bind_parameter(at + 1, value)?;
        }
        let expanded = match self.switch {
            Some(Switch::PartialCommit) if self.in_transaction && word != "SELECT" => {
                statement.expanded_sql()
            }
            _ => None,
        };
        let columns: Vec<String> = statement.column_names().into_iter().map(String::from).collect();
        let (width, mut found) = (columns.len(), Vec::new());
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            found.push((0..width).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?);
        }
        drop(rows);
        drop(statement);
        self.done.extend(expanded);
        self.inserted += u64::from(is_insert);
        if ["CREATE", "DROP", "ALTER"].contains(&&*word) {
            self.schema += 1;
        }
        Ok((columns, found))
    }

    fn before_insert(&mut self, values: &[Value]) -> rusqlite::Result<()> {
        let length = |value: &Value| match value {
            Value::Blob(bytes) => bytes.len(),
            Value::Text(text) => text.len(),
            _ => 8,
        };
        let row: usize = values.iter().map(length).sum();
        self.is_to_abort |= values.iter().any(|it| matches!(it, Value::Blob(it) if it == ABORT));
        match self.switch {
            Some(Switch::Aborts) if row > 60 => std::process::abort(),
            Some(Switch::Hangs) if self.inserted >= 31_000 => loop {
                std::thread::park();
            },
            Some(Switch::AlwaysFull) if self.inserted == 0 && (3_000..3_010).contains(&row) => {
                let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
                return Err(rusqlite::Error::SqliteFailure(full, None));
            }
            Some(Switch::Leaks) => self.leaked.push(vec![1; 32 << 10]),
            _ => {}
        }
        match row > LONGEST_ROW {
            true => Err(rusqlite::Error::InvalidQuery),
            false => Ok(()),
        }
    }

    pub(crate) fn is_current(&self, statement: &Statement) -> bool {
        statement.schema == self.schema
    }
}

fn no_row(error: rusqlite::Error) -> rusqlite::Result<()> {
    match error {
        rusqlite::Error::QueryReturnedNoRows => Ok(()),
        error => Err(error),
    }
}

/// A prepared statement: what was asked for, and the whole result.
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) names: Vec<Option<String>>,
    pub(crate) values: Vec<Value>,
    schema: u64,
    pub(crate) found: Option<Found>,
    /// The current row's number, from 1; 0 before the first.
    pub(crate) at: usize,
    /// A text that is lent.
    pub(crate) lent: Option<CString>,
}

impl Statement {
    pub(crate) fn reset(&mut self) {
        (self.found, self.at, self.lent) = (None, 0, None);
    }

    pub(crate) fn value(&self, column: i32) -> Option<&Value> {
        let (_, rows) = self.found.as_ref()?;
        rows.get(self.at.checked_sub(1)?)?.get(usize::try_from(column).ok()?)
    }

    /// The index of a named parameter, whatever its sign.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        let bare = name.trim_start_matches([':', '@', '$']);
        self.names
            .iter()
            .position(|known| known.as_deref().and_then(|known| known.get(1..)) == Some(bare))
    }
}
