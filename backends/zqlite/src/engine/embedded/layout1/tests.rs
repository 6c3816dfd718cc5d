//! A store of this version, taken back to layout 1 as it is documented, is carried forward to what it
//! was.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::Path;

use bytes::BufMut;
use ghostwire_store_core::backend::{Backend, Commit, KeyRange, Row, Scan};
use ghostwire_store_core::block::{BlockBuilder, ChangeKind, RowChange};
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{RowKey, Table};
use rusqlite::params;

use super::*;
use crate::engine::embedded::sql;
use crate::{ZqliteBackend, ZqliteOptions};

const STORE: StoreId = StoreId::from_bytes([1; 16]);

fn options(path: &Path) -> ZqliteOptions {
    ZqliteOptions::new(path, STORE).create(true).compact_series_early()
}

/// Everything that a store holds.
#[derive(Debug, PartialEq)]
struct Content(Head, Vec<Row>, Vec<EncodedBlock>);

async fn content(backend: &ZqliteBackend) -> Content {
    let (head, mut rows) = (backend.head().await.unwrap(), Vec::new());
    for table in Table::ALL {
        let scan = Scan { range: KeyRange::all(table), reverse: false, limit: usize::MAX };
        rows.extend(backend.scan(scan).await.unwrap().rows);
    }
    let blocks = backend.blocks(Serial::new(head.oldest_block.get() - 1), usize::MAX).await;
    Content(head, rows, blocks.unwrap())
}

/// Makes a store with records of every kind.
async fn make(path: &Path) -> Content {
    let backend = ZqliteBackend::open(options(path)).await.unwrap();
    for round in 0..40u8 {
        let head = backend.head().await.unwrap();
        let (serial, id) = (head.serial.next(), BlockId::from_bytes([round; 16]));
        let block = BlockBuilder::default().finish(serial, id, head.hash, head.time).unwrap();
        let row = |(table, number): (Table, u32)| RowChange {
            table,
            kind: ChangeKind::Updated,
            key: RowKey::new().id(&[3; 16]).integer(number.into()),
            body: Some(Bytes::from(vec![round; 40])),
        };
        let users = (0..9).map(|number| (Table::Users, number * u32::from(round)));
        let points = (0..60).map(|number| (Table::Metrics, number * 97 % 400 + u32::from(round)));
        let commit = Commit {
            block: Some(block.block),
            rows: users.chain(points).map(row).collect(),
            checkpoint: Some(head.serial),
            purge_before: Some(Serial::new(serial.get().saturating_sub(20))),
            ..Commit::on(&head)
        };
        backend.commit(&commit).await.unwrap();
    }
    let made = content(&backend).await;
    backend.close().await.unwrap();
    made
}

/// The records of a plain store, by number; without their frames, if they have one.
fn records(file: &Connection, query: &str, frame: usize) -> Vec<(u64, Vec<u8>)> {
    let mut statement = file.prepare(query).unwrap();
    let rows = statement.query_map([], |row| {
        let body: Vec<u8> = row.get(1)?;
        Ok((u64::try_from(row.get::<_, i64>(0)?).unwrap(), body[frame..].to_vec()))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn frame(place: &[u8], content: &[u8]) -> Vec<u8> {
    let side = SideId::from_bytes(*STORE.as_bytes());
    [&frame_for(place, Some(side), &[content])[..], content].concat()
}

/// Takes a store back to layout 1. With `sums` its head has them.
fn take_back(path: &Path, sums: bool) {
    let file = Connection::open(path).unwrap();
    let head: Vec<u8> = file.query_row("SELECT body FROM meta", [], |row| row.get(0)).unwrap();
    let stored = Envelope::new(None).unwrap().open_head(&head).unwrap();
    let rows = records(&file, "SELECT slot,body FROM rows", 17);
    let journal = records(&file, "SELECT number,body FROM journal", 17);
    let chunks = records(&file, "SELECT number,body FROM chunks", 17);
    let blocks = records(&file, "SELECT serial,CAST(changes||audit AS BLOB) FROM blocks", 0);
    for table in ["meta", "blocks", "rows", "journal", "chunks", "directory"] {
        file.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
    for (_, sql) in SCHEMA {
        file.execute(sql, []).unwrap();
    }
    let insert = |table: &str, number: u64, body: &[u8]| {
        let key = if table == "rows" { "slot" } else { "number" };
        let statement = format!("INSERT INTO {table}({key},body) VALUES(?1,?2)");
        file.execute(&statement, params![sql(number), body]).unwrap();
    };
    let mut total = [0u64; 3];
    for (slot, content) in rows {
        let body = frame(&place(1, slot), &content);
        total[0] = total[0].wrapping_add(summand(&body));
        insert("rows", slot, &body);
    }
    for (number, content) in journal {
        insert("journal", number, &frame(&place(4, number), &content));
    }
    for (_, content) in chunks {
        let (table, length) =
            (content[0], usize::from(u16::from_be_bytes([content[1], content[2]])));
        let (key, rows) = content[3..].split_at(length);
        let place = place_of_data_block(table, key);
        let body = frame(&place, rows);
        total[1] = total[1].wrapping_add(summand(&body));
        total[2] = total[2].wrapping_add(summand(&frame(&place, &[])));
        file.execute(
            "INSERT INTO chunks(tbl,key,body) VALUES(?1,?2,?3)",
            params![table, key, body],
        )
        .unwrap();
    }
    for (serial, body) in blocks {
        let block = EncodedBlock::parse(body.clone().into()).unwrap();
        let content = [&block.hash.as_bytes()[..], &(body.len() as u64).to_be_bytes()].concat();
        let frame = &frame(&place(3, serial), &content)[..17];
        file.execute(
            "INSERT INTO blocks(serial,frame,body) VALUES(?1,?2,?3)",
            params![sql(serial), frame, body],
        )
        .unwrap();
    }
    let head = old_head(&stored, total, sums);
    let head = [&frame_for(&[0], None, &[&head])[..], &head].concat();
    file.execute("INSERT INTO meta(id,body) VALUES(1,?1)", [head]).unwrap();
    file.close().unwrap();
}

fn old_head(stored: &Stored, sums: [u64; 3], has_sums: bool) -> Vec<u8> {
    let Stored { head, rows, next_slot, series, .. } = stored;
    let mut bytes = Vec::new();
    bytes.put_slice(head.store.as_bytes());
    bytes.put_u64(head.serial.get());
    bytes.put_slice(head.block.as_bytes());
    bytes.put_slice(head.hash.as_bytes());
    bytes.put_i64(head.time.as_micros());
    bytes.put_u64(head.checkpoint.get());
    bytes.put_u64(head.oldest_block.get());
    bytes.put_u32(head.schema.version);
    bytes.put_u32(head.schema.oldest_reader);
    let series = [series.first, series.immutable_until, series.next, series.data_blocks];
    let numbers = [*rows, *next_slot].into_iter().chain(series).chain(sums);
    numbers.for_each(|number| bytes.put_u64(number));
    bytes.put_slice(head.side.as_bytes());
    bytes.put_slice(head.lineage.as_bytes());
    bytes.put_u64(head.epoch.get());
    bytes.put_u64(head.position.get());
    bytes.put_slice(head.commit.as_bytes());
    bytes.put_slice(&[0; 16]);
    bytes.put_u8(if has_sums { 4 } else { 0 });
    bytes
}

#[tokio::test]
async fn a_store_of_layout_1_is_carried_forward_when_it_is_opened_to_be_written() {
    for sums in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let made = make(&path).await;
        take_back(&path, sums);
        let old = std::fs::read(&path).unwrap();
        let error = ZqliteBackend::open(options(&path).read_only(true)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::ReadOnly, "{error}");
        assert!(error.to_string().contains("open it once"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), old);
        let backend = ZqliteBackend::open(options(&path)).await.unwrap();
        assert_eq!(content(&backend).await, made);
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
        let backend = ZqliteBackend::open(options(&path).read_only(true)).await.unwrap();
        assert_eq!(content(&backend).await, made);
        // The copy is of layout 1, and can be carried forward, too.
        let copy = directory.path().join("store.db.v5.bak");
        let backend = ZqliteBackend::open(options(&copy)).await.unwrap();
        assert_eq!(content(&backend).await, made);
    }
}

#[tokio::test]
async fn a_damaged_store_of_layout_1_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    make(&path).await;
    take_back(&path, true);
    let whole = std::fs::read(&path).unwrap();
    for damage in [
        "DELETE FROM rows WHERE slot=(SELECT max(slot) FROM rows)",
        "DELETE FROM chunks WHERE id=(SELECT max(id) FROM chunks)",
        "DELETE FROM journal WHERE number=(SELECT max(number) FROM journal)",
        "DELETE FROM blocks WHERE serial=(SELECT max(serial) FROM blocks)",
        "UPDATE rows SET body=(SELECT body FROM rows WHERE slot=2) WHERE slot=1",
        "UPDATE chunks SET body=zeroblob(99) WHERE id=1",
        "UPDATE journal SET body=zeroblob(99)",
        "UPDATE blocks SET frame=zeroblob(17)",
        "UPDATE meta SET body=zeroblob(17)",
    ] {
        std::fs::write(&path, &whole).unwrap();
        let file = Connection::open(&path).unwrap();
        assert!(file.execute(damage, []).unwrap() > 0, "{damage}");
        file.close().unwrap();
        let error = ZqliteBackend::open(options(&path)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{damage}: {error}");
    }
}

/// The copy from before has to be looked after by whoever seals; nothing else shows what there was.
#[tokio::test]
async fn once_it_is_sealed_only_the_copy_shows_what_a_store_of_layout_1_held() {
    use ghostwire_store_crypto::SystemRandom;
    use ghostwire_store_crypto::keyring::{Identity, Keyring};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let made = make(&path).await;
    take_back(&path, true);
    ZqliteBackend::open(options(&path)).await.unwrap().close().await.unwrap();
    let root = Identity::draw(&SystemRandom).unwrap().recipient().clone();
    let keyring = Keyring::first(*STORE.as_bytes(), root, None, 0, &SystemRandom).unwrap();
    // Of every key, and of bodies of several rounds.
    let planted = [vec![3; 16], vec![17; 40], vec![39; 40]];
    let shown_in = || {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        let shows = |content: Vec<u8>| {
            planted.iter().any(|bytes| content.windows(bytes.len()).any(|window| window == bytes))
        };
        let mut names: Vec<_> = files
            .filter(|entry| shows(std::fs::read(entry.path()).unwrap()))
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(shown_in(), ["store.db", "store.db.v5.bak"]);
    ZqliteBackend::seal(options(&path).sealed(keyring.clone())).await.unwrap();
    assert_eq!(shown_in(), ["store.db.v5.bak"]);
    let sealed = ZqliteBackend::open(options(&path).sealed(keyring)).await.unwrap();
    assert_eq!(content(&sealed).await, made);
    sealed.close().await.unwrap();
    assert_eq!(shown_in(), ["store.db.v5.bak"]);
}
