//! The library's interface, made safe, over the double.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_zqlite_native::{
    Category, Library, LibraryFile, LoadError, Value, ValueRef, code_name,
};
use ghostwire_zqlite_double::{Switch, install, install_without};

fn library(directory: &Path) -> Library {
    loaded(&install(directory, None).unwrap()).unwrap()
}

fn loaded(path: &Path) -> Result<Library, LoadError> {
    LibraryFile::read(path).unwrap().load()
}

#[test]
fn a_library_says_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    assert_eq!((library.abi(), library.functions()), (10_000, 51));
    assert_eq!(library.version(), "double (SQLite)");
}

#[test]
fn what_is_not_this_interface_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let load = |path: &Path| loaded(path).unwrap_err();
    let other = install(at, Some(Switch::WrongAbi)).unwrap();
    assert_eq!(load(&other), LoadError::OtherAbi(20_000));
    // Each under a name of its own: a library that is loaded is not loaded again.
    for (function, expected) in [
        ("zqlite_column_blob", LoadError::Missing("zqlite_column_blob")),
        ("zqlite_errsql", LoadError::Missing("zqlite_errsql")),
        ("zqlite_abi_version", LoadError::BeforeAbi),
        ("zqlite_open", LoadError::OtherLibrary),
    ] {
        let place = at.join(function);
        std::fs::create_dir(&place).unwrap();
        assert_eq!(load(&install_without(&place, function).unwrap()), expected);
    }
    // An ELF header alone is for this machine, and nothing that the system loads.
    let header = std::fs::read(&other).unwrap()[..64].to_vec();
    std::fs::write(at.join("header.so"), header).unwrap();
    assert!(matches!(load(&at.join("header.so")), LoadError::NotLoaded(_)));
}

/// Nothing else tells that what is read was freed.
#[test]
#[ignore = "the address sanitizer has to end it; .ci/long native"]
fn freed_memory_is_for_the_sanitizer() {
    let directory = tempfile::tempdir().unwrap();
    let library = loaded(&install(directory.path(), Some(Switch::FreedMemory)).unwrap()).unwrap();
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    connection.execute("CREATE TABLE t (value)").unwrap();
    connection
        .prepare("INSERT INTO t VALUES (?)")
        .unwrap()
        .execute(&[Value::Blob(&[7; 200])])
        .unwrap();
    let mut query = connection.prepare("SELECT value FROM t").unwrap();
    let mut row = query.step().unwrap().unwrap();
    assert_ne!(row.get(0).unwrap(), ValueRef::Blob(&[7; 200]));
}

#[test]
fn values_of_every_type_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value)").unwrap();
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(0.5),
        Value::Text("text"),
        Value::Text(""),
        Value::Blob(b"\0bytes\0"),
        Value::Blob(b""),
    ];
    let mut insert = connection.prepare("INSERT INTO t (id, value) VALUES (?, ?)").unwrap();
    for (id, value) in (0..).zip(values) {
        insert.execute(&[Value::Integer(id), value]).unwrap();
    }
    let mut select = connection.prepare("SELECT value, id FROM t ORDER BY id").unwrap();
    for (id, value) in (0..).zip(values) {
        let mut row = select.step().unwrap().unwrap();
        let expected = match value {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(number),
            Value::Real(number) => ValueRef::Real(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        };
        assert_eq!(row.columns(), 2);
        assert_eq!(row.get(0).unwrap(), expected);
        assert_eq!(row.integer(1).unwrap(), id);
        assert_eq!(row.name(1).unwrap().as_deref(), Some("id"));
        assert_eq!(code_name(row.get(2).unwrap_err().code), Some("RANGE"));
        assert_eq!(code_name(row.blob(1).unwrap_err().code), Some("MISMATCH"));
    }
    assert!(select.step().unwrap().is_none());
    // After the end the next step begins anew.
    assert!(select.step().unwrap().is_some());
}

#[test]
fn two_texts_of_a_row_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    let mut select = connection.prepare("SELECT 'one', 'other', 'one more'").unwrap();
    let mut row = select.step().unwrap().unwrap();
    // Whoever needs both copies them: the next call ends what the last one lent.
    let texts: Vec<Vec<u8>> = (0..3)
        .map(|column| match row.get(column).unwrap() {
            ValueRef::Text(text) => text.to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, [&b"one"[..], b"other", b"one more"]);
}

#[test]
fn failures_say_what_they_are_about() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    let failure = connection.execute("SELEKT 1").unwrap_err();
    assert_eq!((failure.operation, failure.category), ("zqlite_execute", Category::Sql));
    assert!(
        failure.to_string().contains("zqlite_execute of the ZQLite library gave 1 (ERROR, sql)")
    );
    assert_eq!(connection.prepare("SELECT * FROM absent").unwrap_err().operation, "zqlite_prepare");
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    connection.execute("INSERT INTO t VALUES (1)").unwrap();
    let failure = connection.execute("INSERT INTO t VALUES (1)").unwrap_err();
    assert_eq!((failure.code, failure.category), (19, Category::Constraint));
    let mut insert = connection.prepare("INSERT INTO t VALUES (?)").unwrap();
    assert_eq!(insert.bind(1, Value::Null).unwrap_err().code, 25);
    assert_eq!(insert.bind(usize::MAX, Value::Null).unwrap_err().code, 25);
    assert_eq!(insert.bind(0, Value::Text("with\0NUL")).unwrap_err().code, 21);
    // A step that fails has no code of its own.
    let failure = insert.execute(&[Value::Integer(1)]).unwrap_err();
    assert_eq!((failure.operation, failure.code), ("zqlite_step", 1));
    assert_eq!(connection.execute("SELECT '\0'").unwrap_err().code, 21);
    assert!(library.open(Path::new("/absent/directory/one.db")).is_err());
}

#[test]
fn a_step_that_fails_is_not_told_by_the_code_of_another_call() {
    let directory = tempfile::tempdir().unwrap();
    let library = loaded(&install(directory.path(), Some(Switch::StaleCode)).unwrap()).unwrap();
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    connection.execute("INSERT INTO t VALUES (1)").unwrap();
    let mut insert = connection.prepare("INSERT INTO t VALUES (zeroblob(5000))").unwrap();
    assert_eq!(connection.execute("INSERT INTO t VALUES (1)").unwrap_err().code, 19);
    let failure = insert.step().unwrap_err();
    assert_eq!((failure.operation, failure.code), ("zqlite_step", 1));
    assert_eq!((failure.category, &*failure.message), (Category::Unknown, ""));
    let error = failure.into_error("a row cannot be stored");
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    // A constraint is the statement's fault, not the file's.
    let failure = connection.execute("INSERT INTO t VALUES (1)").unwrap_err();
    let error = failure.into_error("a row cannot be stored");
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains("damaged"), "{error}");
}

#[test]
fn statements_die_with_the_schema() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    let mut select = connection.prepare("SELECT id FROM t").unwrap();
    assert!(select.step().unwrap().is_none());
    connection.execute("CREATE TABLE u (id INTEGER PRIMARY KEY)").unwrap();
    assert_eq!(select.step().unwrap_err().code, 1);
}

#[test]
fn a_transaction_that_is_dropped_is_undone() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
    let count = || {
        let mut select = connection.prepare("SELECT count(*) FROM t").unwrap();
        select.step().unwrap().unwrap().integer(0).unwrap()
    };
    let transaction = connection.begin().unwrap();
    assert!(connection.begin().is_err());
    connection.execute("INSERT INTO t VALUES (1)").unwrap();
    drop(transaction);
    assert_eq!(count(), 0);
    let transaction = connection.begin().unwrap();
    connection.execute("INSERT INTO t VALUES (1)").unwrap();
    transaction.rollback().unwrap();
    assert_eq!(count(), 0);
    let transaction = connection.begin().unwrap();
    connection.execute("INSERT INTO t VALUES (1)").unwrap();
    transaction.commit().unwrap();
    assert_eq!(count(), 1);
}

#[test]
fn connections_go_from_thread_to_thread() {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path());
    let connection = library.open(&directory.path().join("one.db")).unwrap();
    let connection = std::thread::scope(|scope| {
        let made = scope.spawn(move || {
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").unwrap();
            connection
        });
        made.join().unwrap()
    });
    connection.execute("INSERT INTO t VALUES (1)").unwrap();
}
