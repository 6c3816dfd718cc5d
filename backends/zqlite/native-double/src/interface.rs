//! The functions of the interface.
//!
//! Safety of all of them: as `zqlite.h` has it, pointers are null or what the interface gave, texts end
//! with NUL, and a connection and its statements are used by one thread at a time.

use std::ffi::{CStr, CString, c_char, c_double, c_int, c_void};
use std::ptr;

use rusqlite::types::Value;

use crate::ABI;
use crate::handles::{borrow, give, take};
use crate::statement::{
    Connection, DONE, ERROR, Found, MISUSE, OK, RANGE, ROW, Statement as Prepared,
};
use crate::switch::Switch;

/// A statement, and whose it is.
pub struct Statement {
    connection: *mut Connection,
    prepared: Prepared,
}

/// The result of `zqlite_query`.
pub struct QueryResult {
    columns: Vec<CString>,
    rows: Vec<Vec<Value>>,
}

/// # Safety
/// `text` is null or ends with NUL, and outlives the call.
unsafe fn utf8<'t>(text: *const c_char) -> Option<&'t str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by this function's own contract.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// What the versions before ABI 1.0.0 called it.
fn told(switch: Option<Switch>, code: i32) -> c_int {
    match (switch, code) {
        (Some(Switch::OldCodes), 5) => 2,
        (Some(Switch::OldCodes), 19) => 12,
        (Some(Switch::OldCodes), 21 | 25) => 6,
        (Some(Switch::OldCodes), 11) => 15,
        (Some(Switch::OldCodes), ROW | DONE) => OK,
        (_, code) => code,
    }
}

fn c_text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

fn shown(value: &Value) -> Option<CString> {
    match value {
        Value::Null | Value::Blob(_) => None,
        Value::Integer(number) => Some(c_text(&number.to_string())),
        Value::Real(number) => Some(c_text(&number.to_string())),
        Value::Text(text) => Some(c_text(text)),
    }
}

fn type_of(value: &Value) -> c_int {
    match value {
        Value::Integer(_) => 1,
        Value::Real(_) => 2,
        Value::Text(_) => 3,
        Value::Blob(_) => 4,
        Value::Null => 5,
    }
}

macro_rules! interface {
    ($($(#[doc = $doc:literal])+ fn $name:ident($($argument:ident: $type:ty),*) $(-> $gives:ty)? $body:block)+) => {
        $(
            $(#[doc = $doc])+
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) $(-> $gives)? $body
        )+
    };
}

macro_rules! alive {
    ($handle:expr, $otherwise:expr) => {
        // SAFETY: the caller gives what it was given, or what is refused.
        match unsafe { borrow($handle) } {
            Some(alive) => alive,
            None => return $otherwise,
        }
    };
}

macro_rules! text_of {
    ($text:expr, $otherwise:expr) => {
        // SAFETY: the caller's text ends with NUL.
        match unsafe { utf8($text) } {
            Some(text) => text,
            None => return $otherwise,
        }
    };
}

fn bind(statement: &mut Statement, index: usize, value: Value) -> c_int {
    // SAFETY: the statement's connection is given back after it.
    let switch = unsafe { borrow(statement.connection) }.and_then(|it| it.switch);
    statement.prepared.reset();
    match statement.prepared.values.get_mut(index) {
        Some(place) => {
            *place = value;
            OK
        }
        None => told(switch, RANGE),
    }
}

fn bind_at(statement: *mut Statement, index: c_int, value: Value) -> c_int {
    let statement = alive!(statement, MISUSE);
    bind(statement, usize::try_from(index).unwrap_or(usize::MAX), value)
}

fn bind_named(statement: *mut Statement, name: *const c_char, value: Value) -> c_int {
    let statement = alive!(statement, MISUSE);
    let name = text_of!(name, MISUSE);
    let index = statement.prepared.named(name).unwrap_or(usize::MAX);
    bind(statement, index, value)
}

/// # Safety
/// So many bytes are there, or none are asked for.
unsafe fn blob(bytes: *const c_void, length: usize) -> Value {
    if bytes.is_null() || length == 0 {
        return Value::Blob(Vec::new());
    }
    // SAFETY: by this function's own contract.
    Value::Blob(unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.to_vec())
}

fn text_value(text: *const c_char) -> Option<Value> {
    let text = text_of!(text, None);
    Some(Value::Text(text.to_owned()))
}

fn outcome(connection: &Connection, outcome: Result<(), i32>) -> c_int {
    told(connection.switch, outcome.err().unwrap_or(OK))
}

fn step(statement: &mut Statement) -> c_int {
    let connection = alive!(statement.connection, MISUSE);
    let prepared = &mut statement.prepared;
    prepared.lent = None;
    let switch = connection.switch;
    if prepared.found.is_none() {
        let ran = match connection.is_current(prepared) {
            true => connection.run(&prepared.sql, &prepared.values),
            false => Err(rusqlite::Error::InvalidQuery),
        };
        // Nothing is told of a step that fails.
        let before = connection.code;
        let found = connection.noted(ran);
        connection.note(if switch == Some(Switch::StaleCode) { before } else { OK }, "");
        match found {
            Ok(found) => prepared.found = Some(found),
            Err(code) => {
                let code = match switch {
                    Some(Switch::SilentStep) => OK,
                    _ => connection.hidden(code),
                };
                return told(switch, if code == OK { DONE } else { ERROR });
            }
        }
    }
    let rows = prepared.found.as_ref().map_or(0, |(_, rows)| rows.len());
    if prepared.at < rows {
        prepared.at += 1;
        return told(switch, ROW);
    }
    prepared.reset();
    told(switch, DONE)
}

interface! {
    /// Opens a database.
    fn zqlite_open(path: *const c_char) -> *mut Connection {
        let path = text_of!(path, ptr::null_mut());
        Connection::open(path).map_or(ptr::null_mut(), give)
    }
    /// Closes it.
    fn zqlite_close(connection: *mut Connection) {
        // SAFETY: the caller gives what it was given, or what is refused.
        if let Some(connection) = unsafe { take(connection) } {
            connection.close();
        }
    }
    /// Runs one statement.
    fn zqlite_execute(connection: *mut Connection, sql: *const c_char) -> c_int {
        let connection = alive!(connection, MISUSE);
        let sql = text_of!(sql, MISUSE);
        let ran = connection.run(sql, &[]).map(drop);
        let noted = connection.noted(ran);
        let noted = noted.or_else(|code| match connection.hidden(code) {
            OK => Ok(()),
            code => Err(code),
        });
        outcome(connection, noted)
    }
    /// Gives a result also when it failed.
    fn zqlite_query(connection: *mut Connection, sql: *const c_char) -> *mut QueryResult {
        let connection = alive!(connection, ptr::null_mut());
        let sql = text_of!(sql, ptr::null_mut());
        let ran = connection.run(sql, &[]);
        let (columns, rows): Found = connection.noted(ran).unwrap_or_default();
        let columns = columns.iter().map(|name| c_text(name)).collect();
        give(QueryResult { columns, rows })
    }
    /// How many rows.
    fn zqlite_result_row_count(result: *mut QueryResult) -> c_int {
        i32::try_from(alive!(result, -1).rows.len()).unwrap_or(i32::MAX)
    }
    /// How many columns.
    fn zqlite_result_column_count(result: *mut QueryResult) -> c_int {
        i32::try_from(alive!(result, -1).columns.len()).unwrap_or(i32::MAX)
    }
    /// Borrowed.
    fn zqlite_result_column_name(result: *mut QueryResult, column: c_int) -> *const c_char {
        let result = alive!(result, ptr::null());
        let name = usize::try_from(column).ok().and_then(|column| result.columns.get(column));
        name.map_or(ptr::null(), |name| name.as_ptr())
    }
    /// The type of a value.
    fn zqlite_result_get_type(result: *mut QueryResult, row: c_int, column: c_int) -> c_int {
        let result = alive!(result, -1);
        let row = usize::try_from(row).ok().and_then(|row| result.rows.get(row));
        let value = row.and_then(|row| row.get(usize::try_from(column).ok()?));
        value.map_or(-1, type_of)
    }
    /// Allocated.
    fn zqlite_result_get_text(result: *mut QueryResult, row: c_int, column: c_int) -> *mut c_char {
        let result = alive!(result, ptr::null_mut());
        let row = usize::try_from(row).ok().and_then(|row| result.rows.get(row));
        let value = row.and_then(|row| row.get(usize::try_from(column).ok()?));
        value.and_then(shown).map_or(ptr::null_mut(), CString::into_raw)
    }
    /// Frees a result.
    fn zqlite_result_free(result: *mut QueryResult) {
        // SAFETY: the caller gives what it was given, or what is refused.
        drop(unsafe { take(result) });
    }
    /// Frees a text that was allocated.
    fn zqlite_free_string(text: *mut c_char) {
        if !text.is_null() {
            // SAFETY: it was allocated by this library, and not changed.
            drop(unsafe { CString::from_raw(text) });
        }
    }
    /// Prepares a statement.
    fn zqlite_prepare(connection: *mut Connection, sql: *const c_char) -> *mut Statement {
        let alive = alive!(connection, ptr::null_mut());
        let sql = text_of!(sql, ptr::null_mut());
        match alive.prepare(sql) {
            Ok(prepared) => give(Statement { connection, prepared }),
            Err(_) => ptr::null_mut(),
        }
    }
    /// Binds a number.
    fn zqlite_bind_int(statement: *mut Statement, index: c_int, value: i64) -> c_int {
        bind_at(statement, index, Value::Integer(value))
    }
    /// Binds a number with a fraction.
    fn zqlite_bind_real(statement: *mut Statement, index: c_int, value: c_double) -> c_int {
        bind_at(statement, index, Value::Real(value))
    }
    /// Binds a text.
    fn zqlite_bind_text(statement: *mut Statement, index: c_int, value: *const c_char) -> c_int {
        text_value(value).map_or(MISUSE, |value| bind_at(statement, index, value))
    }
    /// Binds no value.
    fn zqlite_bind_null(statement: *mut Statement, index: c_int) -> c_int {
        bind_at(statement, index, Value::Null)
    }
    /// Binds bytes.
    fn zqlite_bind_blob(
        statement: *mut Statement, index: c_int, bytes: *const c_void, length: usize
    ) -> c_int {
        // SAFETY: the caller says so.
        let value = unsafe { blob(bytes, length) };
        bind_at(statement, index, value)
    }
    /// Binds a number.
    fn zqlite_bind_int_named(statement: *mut Statement, name: *const c_char, value: i64) -> c_int {
        bind_named(statement, name, Value::Integer(value))
    }
    /// Binds a number with a fraction.
    fn zqlite_bind_real_named(
        statement: *mut Statement, name: *const c_char, value: c_double
    ) -> c_int {
        bind_named(statement, name, Value::Real(value))
    }
    /// Binds a text.
    fn zqlite_bind_text_named(
        statement: *mut Statement, name: *const c_char, value: *const c_char
    ) -> c_int {
        text_value(value).map_or(MISUSE, |value| bind_named(statement, name, value))
    }
    /// Binds no value.
    fn zqlite_bind_null_named(statement: *mut Statement, name: *const c_char) -> c_int {
        bind_named(statement, name, Value::Null)
    }
    /// Binds bytes.
    fn zqlite_bind_blob_named(
        statement: *mut Statement, name: *const c_char, bytes: *const c_void, length: usize
    ) -> c_int {
        // SAFETY: the caller says so.
        let value = unsafe { blob(bytes, length) };
        bind_named(statement, name, value)
    }
    /// The next row.
    fn zqlite_step(statement: *mut Statement) -> c_int {
        step(alive!(statement, MISUSE))
    }
    /// How many columns; 0 before the first row.
    fn zqlite_column_count(statement: *mut Statement) -> c_int {
        let statement = alive!(statement, 0);
        let found = statement.prepared.found.as_ref();
        found.map_or(0, |(columns, _)| i32::try_from(columns.len()).unwrap_or(i32::MAX))
    }
    /// Lent until the next call.
    fn zqlite_column_name(statement: *mut Statement, column: c_int) -> *const c_char {
        let prepared = &mut alive!(statement, ptr::null()).prepared;
        let names = prepared.found.as_ref().map(|(columns, _)| columns);
        let name = names.and_then(|names| names.get(usize::try_from(column).ok()?));
        prepared.lent = name.map(|name| c_text(name));
        prepared.lent.as_ref().map_or(ptr::null(), |text| text.as_ptr())
    }
    /// The type of a value.
    fn zqlite_column_type(statement: *mut Statement, column: c_int) -> c_int {
        alive!(statement, 5).prepared.value(column).map_or(5, type_of)
    }
    /// A number.
    fn zqlite_column_int64(statement: *mut Statement, column: c_int) -> i64 {
        match alive!(statement, 0).prepared.value(column) {
            Some(Value::Integer(number)) => *number,
            _ => 0,
        }
    }
    /// A number with a fraction.
    fn zqlite_column_double(statement: *mut Statement, column: c_int) -> c_double {
        match alive!(statement, 0.0).prepared.value(column) {
            Some(Value::Real(number)) => *number,
            _ => 0.0,
        }
    }
    /// Lent until the next step, and cut at a NUL.
    fn zqlite_column_text(statement: *mut Statement, column: c_int) -> *const c_char {
        let prepared = &mut alive!(statement, ptr::null()).prepared;
        prepared.lent = prepared.value(column).and_then(shown);
        prepared.lent.as_ref().map_or(ptr::null(), |text| text.as_ptr())
    }
    /// Lent until the next step; null if it is empty.
    fn zqlite_column_blob(statement: *mut Statement, column: c_int) -> *const c_void {
        let statement = alive!(statement, ptr::null());
        // SAFETY: the statement's connection is given back after it.
        let switch = unsafe { borrow(statement.connection) }.and_then(|it| it.switch);
        match statement.prepared.value(column) {
            Some(Value::Blob(bytes)) if bytes.is_empty() => ptr::null(),
            Some(Value::Blob(bytes))
                if switch == Some(Switch::FreedMemory) && bytes.len() > 52 =>
            {
                // Whoever frees it may write over it before that.
                let freed = vec![0xdd_u8; bytes.len()];
                let pointer = freed.as_ptr();
                drop(freed);
                pointer.cast()
            }
            Some(Value::Blob(bytes)) => bytes.as_ptr().cast(),
            _ => ptr::null(),
        }
    }
    /// The length of bytes or of a text.
    fn zqlite_column_bytes(statement: *mut Statement, column: c_int) -> usize {
        match alive!(statement, 0).prepared.value(column) {
            Some(Value::Blob(bytes)) => bytes.len(),
            Some(Value::Text(text)) => text.len(),
            _ => 0,
        }
    }
    /// Begins anew.
    fn zqlite_reset(statement: *mut Statement) -> c_int {
        alive!(statement, MISUSE).prepared.reset();
        OK
    }
    /// Gives a statement back.
    fn zqlite_finalize(statement: *mut Statement) -> c_int {
        // SAFETY: the caller gives what it was given, or what is refused.
        match unsafe { take(statement) } {
            Some(_) => OK,
            None => MISUSE,
        }
    }
    /// Begins a transaction.
    fn zqlite_begin_transaction(connection: *mut Connection) -> c_int {
        let connection = alive!(connection, MISUSE);
        let begun = connection.begin();
        outcome(connection, begun)
    }
    /// Commits it.
    fn zqlite_commit_transaction(connection: *mut Connection) -> c_int {
        let connection = alive!(connection, MISUSE);
        let committed = connection.commit();
        outcome(connection, committed)
    }
    /// Undoes it.
    fn zqlite_rollback_transaction(connection: *mut Connection) -> c_int {
        let connection = alive!(connection, MISUSE);
        let undone = connection.rollback();
        outcome(connection, undone)
    }
    /// Never null; until the next call.
    fn zqlite_errmsg(connection: *mut Connection) -> *const c_char {
        alive!(connection, c"".as_ptr()).message.as_ptr()
    }
    /// The code of the last error.
    fn zqlite_errcode(connection: *mut Connection) -> c_int {
        let connection = alive!(connection, MISUSE);
        told(connection.switch, connection.code)
    }
    /// What the last error is about.
    fn zqlite_errcategory(connection: *mut Connection) -> c_int {
        match alive!(connection, 4).code {
            OK => 0,
            ERROR | 20 => 1,
            19 => 2,
            8 | 10 => 3,
            7 => 5,
            23 => 6,
            11 | 24 | 26 => 7,
            5 | 6 | 9 | 21 | 25 => 4,
            _ => 255,
        }
    }
    /// The caller's own pointer, which may dangle: this one gives none.
    fn zqlite_errsql(_connection: *mut Connection) -> *const c_char {
        ptr::dangling()
    }
    /// What the library calls itself.
    fn zqlite_version() -> *const c_char {
        c"double (SQLite)".as_ptr()
    }
    /// The number of the interface.
    fn zqlite_abi_version() -> c_int {
        match Switch::current() {
            Some(Switch::WrongAbi) => 2 * ABI,
            Some(Switch::AbortsAtOnce) => std::process::abort(),
            _ => ABI,
        }
    }
    /// Its first part.
    fn zqlite_abi_version_major() -> c_int {
        ABI / 10_000
    }
    /// Its second part.
    fn zqlite_abi_version_minor() -> c_int {
        ABI / 100 % 100
    }
    /// Its third part.
    fn zqlite_abi_version_patch() -> c_int {
        ABI % 100
    }
    /// It has no such cryptography.
    fn zqlite_pq_available() -> c_int {
        0
    }
    /// As above.
    fn zqlite_pq_status() -> c_int {
        0
    }
    /// As above.
    fn zqlite_pq_backend() -> *const c_char {
        c"none".as_ptr()
    }
    /// As above.
    fn zqlite_pq_liboqs_status() -> c_int {
        0
    }
    /// Allocated.
    fn zqlite_pq_diagnostics_json() -> *mut c_char {
        c"{}".to_owned().into_raw()
    }
    /// Nothing is torn down here.
    fn zqlite_shutdown() {}
}
