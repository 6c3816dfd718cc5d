#![allow(clippy::unwrap_used)]

use ghostwire_store_core::domain::SideId;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_sqlite::{Access, FileKind, Role, check_structure, connect};

use super::*;
use crate::engine::Write;

fn engine() -> (tempfile::TempDir, Arc<StoreFile>, Embedded) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a%b?c#d e.db");
    let file = Arc::new(StoreFile::open(&path, FileKind::ZQLITE, Access::Create).unwrap());
    create(&file, || Ok(First { head: b"one".to_vec(), signature: None })).unwrap();
    let engine = Embedded::open(&file, |_, _| Ok([0]), |_| Ok(())).unwrap();
    file.opened(SideId::from_bytes([1; 16]), || engine.settle()).unwrap();
    (directory, file, engine)
}

fn rows_of(bytes: usize) -> Batch<'static> {
    let mut batch = Batch::new(b"one".to_vec(), b"two".to_vec());
    batch.bytes = vec![1; bytes];
    batch.writes.push(Write::PutRow { slot: 1, body: 0..bytes });
    batch
}

fn head(engine: &Embedded) -> Vec<u8> {
    engine.snapshot().unwrap().head().to_vec()
}

#[test]
fn a_full_disk_stores_nothing_and_goes_on_when_there_is_room() {
    let (_directory, _file, engine) = engine();
    let limit = |pages: u32| {
        engine.0.writer().unwrap().run(&format!("PRAGMA max_page_count={pages}")).unwrap();
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
    let other = rusqlite::Connection::open(file.path()).unwrap();
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
    assert_eq!(before.head(), b"one");
    assert_eq!(*before.rows(&[1], &mut |_, _| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(head(&engine), b"two");
    drop(before);
    assert_eq!(head(&engine), b"two");
}

#[test]
fn odd_paths_are_read_too() {
    let (_directory, file, engine) = engine();
    engine.write(&rows_of(10)).unwrap();
    Box::new(engine).close().unwrap();
    let path = file.path().to_owned();
    drop(file);
    let file = StoreFile::open(&path, FileKind::ZQLITE, Access::ReadOnly).unwrap();
    let engine = Embedded::open(&Arc::new(file), |_, _| Ok([0]), |_| Ok(())).unwrap();
    assert_eq!(head(&engine), b"two");
    assert_eq!(*engine.write(&rows_of(1)).unwrap_err().kind(), ErrorKind::ReadOnly);
}

#[test]
fn no_connection_checkpoints_by_itself() {
    let (_directory, _file, engine) = engine();
    let check = |link: &mut Link| -> Result<()> {
        assert_eq!(link.integers("PRAGMA wal_autocheckpoint")?, [0]);
        assert_eq!(link.integers("PRAGMA synchronous")?, [2]);
        Ok(())
    };
    check(&mut engine.0.writer().unwrap()).unwrap();
    engine.0.read(check).unwrap();
}

#[test]
fn a_check_of_structures_can_be_interrupted() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (_directory, file, engine) = engine();
    engine.write(&rows_of(4 << 20)).unwrap();
    let mut link: Link = connect(file.path(), Role::Reader).unwrap();
    let (interrupt, has_ended) = (link.interrupter(), AtomicBool::new(false));
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                interrupt();
            }
        });
        let error = loop {
            if let Err(error) = check_structure(&mut link) {
                break error;
            }
        };
        has_ended.store(true, Ordering::Relaxed);
        error
    });
    assert!(error.to_string().contains("sqlite_code=9"), "{error}");
    check_structure(&mut link).unwrap();
}
