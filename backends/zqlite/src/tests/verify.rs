//! That everything is checked while commits go on, and nothing whole is taken for damaged.

use std::cell::RefCell;

use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::domain::{BlockId, Timestamp};

use super::*;
use crate::verify::verify;

/// A store in which something is done before every page.
struct Between<'i, W> {
    inner: &'i Inner,
    work: RefCell<W>,
}

impl<W: FnMut()> Opened for Between<'_, W> {
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        (self.work.borrow_mut())();
        self.inner.with_open(work)
    }
}

fn verify_beside(backend: &ZqliteBackend, work: impl FnMut()) -> Result<Stored> {
    verify(&Between { inner: &backend.0, work: RefCell::new(work) })
}

fn key(number: u32) -> RowKey {
    RowKey::new().id(&[3; 16]).integer(number.into())
}

fn row(table: Table, number: u32, body: Option<Vec<u8>>) -> RowChange {
    let kind = if body.is_some() { ChangeKind::Updated } else { ChangeKind::Deleted };
    RowChange { table, kind, key: key(number), body: body.map(Bytes::from) }
}

/// One of many commits: rows and points that come, change and go, a block, and the end of older ones.
fn commit(head: &Head, round: u32) -> Commit {
    let scattered = |count: u32, below: u32| {
        (0..count).map(move |number| (round * 7919 + number * 104_729) % below)
    };
    let mut id = [1; 16];
    id[..4].copy_from_slice(&round.to_be_bytes());
    let (serial, id) = (head.serial.next(), BlockId::from_bytes(id));
    let block = BlockBuilder::default().finish(serial, id, head.hash, Timestamp::EPOCH).unwrap();
    let body = |number: u32| vec![u8::try_from((round + number) % 251).unwrap(); 1_200];
    let users = scattered(40, 3_000)
        .map(|number| row(Table::Users, number, (!number.is_multiple_of(5)).then(|| body(number))));
    let old =
        scattered(20, round * 60 + 1).map(|number| row(Table::Metrics, number, Some(body(1))));
    let new = (0..60).map(|number| row(Table::Metrics, round * 60 + number, Some(body(number))));
    let range = |table, from, to| KeyRange { table, from: key(from), to: Some(key(to)) };
    let pruned = [range(Table::Metrics, round * 20, round * 21), range(Table::Users, 0, round)];
    Commit {
        block: Some(block.block),
        rows: users.chain(old).chain(new).collect(),
        prune: if round.is_multiple_of(9) { pruned.to_vec() } else { Vec::new() },
        checkpoint: Some(head.serial),
        purge_before: Some(Serial::new(serial.get().saturating_sub(30))),
        ..Commit::on(head)
    }
}

/// A store after so many such commits, and its head.
async fn filled(options: ZqliteOptions, rounds: u32) -> (ZqliteBackend, Head) {
    let backend = ZqliteBackend::open(options).await.unwrap();
    let mut head = backend.head().await.unwrap();
    for round in 0..rounds {
        let commit = commit(&head, round);
        backend.commit(&commit).await.unwrap();
        head = head.after(&commit).unwrap();
    }
    (backend, head)
}

#[tokio::test]
async fn what_commits_change_between_two_pages_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, mut head) = filled(sealed(&directory.path().join("store.db")), 100).await;
    assert!(backend.0.status().unwrap().stored.series.data_blocks > 1_000);
    for _ in 0..3 {
        let mut round = 100;
        verify_beside(&backend, || {
            let commit = commit(&head, round);
            backend.0.commit(&commit).unwrap();
            head = head.after(&commit).unwrap();
            round += 1;
        })
        .unwrap();
        assert!(round > 115, "{round}");
        backend.verify().await.unwrap();
    }
}

#[tokio::test]
async fn the_log_stays_short_whatever_is_written_between_two_pages() {
    const MOST: u64 = 16 << 20;
    let directory = tempfile::tempdir().unwrap();
    let (backend, mut head) = filled(sealed(&directory.path().join("store.db")), 60).await;
    let rows: Vec<_> = (0..16).map(|number| put(Table::Nodes, number, &[7; 64 << 10])).collect();
    let (mut pages, mut longest) = (0, 0);
    verify_beside(&backend, || {
        pages += 1;
        // Among rows, and among data blocks.
        if [4, 9].contains(&pages) {
            for _ in 0..80 {
                let commit = Commit { rows: rows.clone(), ..Commit::on(&head) };
                backend.0.commit(&commit).unwrap();
                head = head.after(&commit).unwrap();
                longest = backend.info().log.unwrap().bytes.max(longest);
            }
        }
    })
    .unwrap();
    assert!(pages > 9, "{pages}");
    assert!(longest < MOST, "{longest}");
    assert_eq!(backend.info().log.unwrap().held, 0);
}

#[tokio::test]
async fn a_store_that_is_reopened_meanwhile_is_verified_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, _) = filled(sealed(&directory.path().join("store.db")), 30).await;
    let mut pages = 0;
    verify_beside(&backend, || {
        pages += 1;
        if pages == 4 {
            backend.0.reopen().unwrap();
        }
    })
    .unwrap();
    assert!(pages > 4, "{pages}");
}

#[tokio::test]
async fn two_at_once_check_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, _) = filled(sealed(&directory.path().join("store.db")), 30).await;
    let (one, two) = tokio::join!(backend.verify(), backend.verify());
    one.unwrap();
    two.unwrap();
}

/// Whatever of the file is not what the store wrote last, though each record by itself is sound.
#[tokio::test]
async fn damage_that_comes_while_the_store_is_open_is_found() {
    for options in BOTH {
        require_that_damage_is_found(options).await;
    }
}

async fn require_that_damage_is_found(options: fn(&Path) -> ZqliteOptions) {
    const TABLES: [&str; 6] = ["rows", "chunks", "directory", "journal", "blocks", "meta"];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let (backend, head) = filled(options(&path), 40).await;
    let file = rusqlite::Connection::open(&path).unwrap();
    let run = |sql: &str| file.execute(sql, []).unwrap();
    for table in TABLES {
        run(&format!("CREATE TEMP TABLE old_{table} AS SELECT * FROM main.{table}"));
    }
    backend.commit(&commit(&head, 45)).await.unwrap();
    backend.verify().await.unwrap();
    for table in TABLES {
        run(&format!("CREATE TEMP TABLE new_{table} AS SELECT * FROM main.{table}"));
    }
    for damage in [
        "UPDATE rows SET body=old.body FROM old_rows old WHERE old.slot=rows.slot AND rows.slot=\
         (SELECT slot FROM old_rows o JOIN new_rows n USING (slot) WHERE o.body<>n.body LIMIT 1)",
        "DELETE FROM rows WHERE slot=(SELECT max(slot) FROM rows)",
        "INSERT INTO rows SELECT * FROM old_rows WHERE slot NOT IN (SELECT slot FROM rows) LIMIT 1",
        "UPDATE chunks SET body=old.body FROM old_chunks old WHERE old.number=chunks.number AND \
         chunks.number=(SELECT number FROM old_chunks o JOIN new_chunks n USING (number) WHERE \
         o.body<>n.body LIMIT 1)",
        "DELETE FROM chunks WHERE number=(SELECT max(number) FROM chunks)",
        "INSERT INTO chunks SELECT 999999,body FROM chunks LIMIT 1",
        "UPDATE chunks SET body=zeroblob(40) WHERE number=(SELECT max(number) FROM chunks)",
        "UPDATE directory SET body=old.body FROM old_directory old WHERE old.number=directory.number \
         AND directory.number=(SELECT number FROM old_directory o JOIN new_directory n USING (number) \
         WHERE o.body<>n.body LIMIT 1)",
        "DELETE FROM directory WHERE number=(SELECT max(number) FROM directory)",
        "INSERT INTO directory SELECT 999999,body FROM directory LIMIT 1",
        "DELETE FROM journal WHERE number=(SELECT max(number) FROM journal)",
        "INSERT INTO journal SELECT 999999,body FROM journal LIMIT 1",
        "DELETE FROM blocks WHERE serial=30",
        "DELETE FROM blocks WHERE serial=(SELECT max(serial) FROM blocks)",
        "INSERT INTO blocks SELECT 1,frame,changes,audit FROM blocks LIMIT 1",
        "INSERT INTO blocks SELECT 999999,frame,changes,audit FROM blocks LIMIT 1",
        "UPDATE blocks SET changes=other.changes FROM new_blocks other WHERE other.serial=31 AND \
         blocks.serial=30",
        "UPDATE meta SET body=(SELECT body FROM old_meta WHERE id=1) WHERE id=1",
    ] {
        assert_eq!(run(damage), 1, "{damage}");
        let verified = backend.verify().await;
        assert!(verified.is_err(), "{damage}");
        let error = verified.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{damage}: {error}");
        for table in TABLES {
            run(&format!("DELETE FROM main.{table}"));
            run(&format!("INSERT INTO main.{table} SELECT * FROM new_{table}"));
        }
        backend.verify().await.unwrap();
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends_with_the_next_page() {
    let directory = tempfile::tempdir().unwrap();
    let (backend, _) = filled(sealed(&directory.path().join("store.db")), 1).await;
    let asked = Asked::default();
    let wanted = asked.wanted();
    backend.0.verify(&wanted).unwrap();
    drop(asked);
    let error = backend.0.verify(&wanted).unwrap_err();
    assert!(error.to_string().contains("nobody waits"), "{error}");
}
