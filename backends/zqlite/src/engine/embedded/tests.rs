#![allow(clippy::unwrap_used)]

use ghostwire_store_sqlite::Access;

use super::*;
use crate::engine::Write;

fn engine() -> (tempfile::TempDir, Arc<StoreFile>, Embedded) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a%b?c#d e.db");
    let file = Arc::new(StoreFile::open(&path, FileKind::ZQLITE, Access::Create).unwrap());
    let engine = Embedded::open(&file, false, Some(&|| b"one".to_vec())).unwrap();
    (directory, file, engine)
}

fn rows_of(bytes: usize) -> Batch<'static> {
    let mut batch = Batch::new(b"one".to_vec(), b"two".to_vec());
    batch.bytes = vec![1; bytes];
    batch.writes.push(Write::PutRow { slot: 1, body: 0..bytes });
    batch
}

fn head(engine: &Embedded) -> Vec<u8> {
    engine.snapshot().unwrap().head().unwrap()
}

#[test]
fn a_full_disk_stores_nothing_and_goes_on_when_there_is_room() {
    let (_directory, _file, engine) = engine();
    let limit = |pages: u32| {
        let writer = engine.writer.as_ref().unwrap().lock().unwrap();
        set(&writer, "max_page_count", pages).unwrap();
    };
    limit(8);
    let error = engine.write(&rows_of(100_000)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Exhausted);
    assert_eq!(head(&engine), b"one");
    limit(8000);
    engine.write(&rows_of(100_000)).unwrap();
    assert_eq!(head(&engine), b"two");
}

#[test]
fn a_head_that_somebody_else_moved_is_a_conflict() {
    let (_directory, file, engine) = engine();
    let other = Connection::open(file.path()).unwrap();
    other.execute("UPDATE meta SET body=x'00'", []).unwrap();
    let error = engine.write(&rows_of(1)).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Conflict);
    other.execute("UPDATE meta SET body=?1", [b"one"]).unwrap();
    engine.write(&rows_of(1)).unwrap();
}

#[test]
fn a_snapshot_stays_and_is_not_in_the_way() {
    let (_directory, _file, engine) = engine();
    let mut before = engine.snapshot().unwrap();
    engine.write(&rows_of(10)).unwrap();
    assert_eq!(before.head().unwrap(), b"one");
    assert_eq!(*before.rows(&[1], &mut |_, _| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(head(&engine), b"two");
    drop(before);
    assert_eq!(engine.readers.lock().unwrap().len(), 2);
    assert_eq!(head(&engine), b"two");
}

#[test]
fn odd_paths_are_read_too() {
    let (_directory, file, engine) = engine();
    engine.write(&rows_of(10)).unwrap();
    Box::new(engine).close().unwrap();
    let engine = Embedded::open(&file, true, None).unwrap();
    assert_eq!(head(&engine), b"two");
    assert_eq!(*engine.write(&rows_of(1)).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn only_the_writer_checkpoints() {
    let (_directory, _file, engine) = engine();
    let pages = |connection: &Connection| -> i64 {
        connection.pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0)).unwrap()
    };
    // And that only when it is asked to.
    assert_eq!(pages(&engine.writer.as_ref().unwrap().lock().unwrap()), 0);
    let reader = engine.readers.lock().unwrap().pop().unwrap();
    assert_eq!(pages(&reader), 0);
    assert!(reader.db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE).unwrap());
    let synchronous: i64 =
        reader.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 2);
}
