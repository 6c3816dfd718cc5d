//! That a sealed store shows nothing, and that nobody alters it or opens it by mistake.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::block::{BlockBuilder, Serial};
use ghostwire_store_core::domain::{AuditEntry, AuditId, BlockId, StoreId, Timestamp};
use ghostwire_store_core::error::{EntityKind, Error, ErrorKind};
use ghostwire_store_core::schema::{RowKey, Schema, Table};
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Keyring, Rotation};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

const OTHER: StoreId = StoreId::from_bytes([3; 16]);

async fn refusal(options: ZqliteOptions) -> Error {
    ZqliteBackend::open(options).await.unwrap_err()
}

/// A store with records of every kind, some of them compacted; closed.
async fn sample(options: ZqliteOptions) -> Everything {
    let backend = ZqliteBackend::open(options.compact_series_early()).await.unwrap();
    for round in 0..30u32 {
        let rows = |table, count| {
            (0..count).map(move |number| put(table, round * count + number, vec![7; 20]))
        };
        commit_block(&backend, rows(Table::Users, 5).chain(rows(Table::Metrics, 40)).collect())
            .await;
    }
    // So that there is more than one entry in the journal.
    for number in 0..2 {
        commit_block(&backend, vec![put(Table::Metrics, 9_000 + number, "m")]).await;
    }
    let everything = read(&backend).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    everything
}

#[tokio::test]
async fn a_sealed_and_a_plain_store_of_one_content_are_equal() {
    let (_directory, path) = directory();
    let plain = sample(options(&path)).await;
    let sealed = sample(sealed(&path.with_file_name("sealed.db"))).await;
    assert_eq!(plain, sealed);
}

#[tokio::test]
async fn each_mistake_with_a_keyring_has_an_error_of_its_own() {
    let (_directory, path) = directory();
    let plain_path = path.with_file_name("plain.db");
    sample(sealed(&path)).await;
    sample(options(&plain_path)).await;
    let mut messages = Vec::new();
    let mut expect = |error: Error, words: &str| {
        assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        messages.push(error.to_string());
    };
    expect(refusal(options(&path)).await, "name its keyring");
    expect(refusal(options(&path).sealed(keyring(OTHER))).await, "the keyring of this store");
    expect(refusal(sealed(&plain_path)).await, "set `zqlite.sealed = false`");
    // A keyring from before a change that the head has seen.
    let first = keyring(StoreId::from_bytes([9; 16]));
    let second = written(&first.rotate(Rotation::Routine, 0, &SystemRandom).unwrap());
    let opened = ZqliteBackend::open(options(&path).sealed(second.clone())).await.unwrap();
    commit_block(&opened, vec![put(Table::Users, 1, "a")]).await;
    let everything = read(&opened).await.unwrap();
    opened.close().await.unwrap();
    expect(refusal(options(&path).sealed(first)).await, "put back the newest copy of it");
    // Records of both versions are read, and a change that draws no keys is taken up, too.
    let third = second.finish_rotation().unwrap();
    let opened = ZqliteBackend::open(options(&path).sealed(third)).await.unwrap();
    assert_eq!(read(&opened).await.unwrap(), everything);
    opened.verify().await.unwrap();
    messages.sort();
    messages.dedup();
    assert_eq!(messages.len(), 4, "{messages:?}");
}

#[tokio::test]
async fn after_a_leak_the_next_opening_counts_under_the_new_key() {
    let (_directory, path) = directory();
    let everything = sample(sealed(&path)).await;
    let first = keyring(StoreId::from_bytes([9; 16]));
    let rotated = written(&first.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
    let opened = |keyring: &Keyring| options(&path).sealed(keyring.clone()).compact_series_early();
    // A reader leaves the file as it is.
    let content = fs::read(&path).unwrap();
    let reader = ZqliteBackend::open(opened(&rotated).read_only(true)).await.unwrap();
    assert_eq!(read(&reader).await.unwrap(), everything);
    reader.verify().await.unwrap();
    reader.close().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    for keyring in [&rotated, &rotated, &rotated.finish_rotation().unwrap()] {
        let backend = ZqliteBackend::open(opened(keyring)).await.unwrap();
        backend.verify().await.unwrap();
        commit_block(&backend, vec![put(Table::Users, 1, "a"), put(Table::Metrics, 1, "b")]).await;
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
    }
    assert_eq!(*refusal(sealed(&path)).await.kind(), ErrorKind::Crypto);
}

#[tokio::test]
async fn a_head_under_a_version_that_was_given_up_is_refused() {
    let (_directory, path) = directory();
    sample(sealed(&path)).await;
    let rotated = keyring(StoreId::from_bytes([9; 16]))
        .rotate(Rotation::Routine, 0, &SystemRandom)
        .and_then(|keyring| keyring.finish_rotation())
        .unwrap();
    let error = refusal(options(&path).sealed(rotated)).await;
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("given up"), "{error}");
}

#[tokio::test]
async fn a_keyring_of_the_same_store_with_other_keys_opens_nothing() {
    let (_directory, path) = directory();
    sample(sealed(&path)).await;
    let root = ghostwire_store_crypto::keyring::Identity::draw(&SystemRandom).unwrap();
    let forged = Keyring::first([9; 16], root.recipient().clone(), None, 0, &SystemRandom).unwrap();
    let error = refusal(options(&path).sealed(forged)).await;
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_sealed_store_is_migrated_adopted_probed_and_compacted() {
    let (_directory, path) = directory();
    let first = Schema::at(1).unwrap();
    let backend = ZqliteBackend::open(sealed(&path).schema(first)).await.unwrap();
    commit_block(&backend, vec![put(Table::DnsRecords, 1, "a")]).await;
    backend.migrate(Schema::current()).await.unwrap();
    backend.probe(backend.head().await.unwrap().epoch).await.unwrap();
    let before = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    ZqliteBackend::compact(sealed(&path)).await.unwrap();
    let error = ZqliteBackend::compact(options(&path)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto);
    let backend = ZqliteBackend::open(sealed(&path).read_only(true)).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    let copy = path.with_file_name("copy.db");
    let options = || ZqliteOptions::new(&copy, OTHER).create(true).sealed(keyring(OTHER));
    let copy = ZqliteBackend::open(options()).await.unwrap();
    copy.adopt(&before.head).await.unwrap();
    let adopted = copy.head().await.unwrap();
    assert_eq!((adopted.store, adopted.side.as_bytes()), (before.head.store, OTHER.as_bytes()));
    copy.close().await.unwrap();
    let copy = ZqliteBackend::open(options()).await.unwrap();
    assert_eq!(copy.head().await.unwrap(), adopted);
    let backup = path.with_file_name("store.db.v1.bak");
    let backup = ZqliteBackend::open(sealed(&backup)).await.unwrap();
    assert_eq!(read(&backup).await.unwrap().rows, before.rows);
}

/// What is planted: it must not be found in any file in any of these forms.
const NAME: &str = "planted-name-of-somebody";
const SUBJECT: &str = "planted-subject-of-an-audit-line";
const METRIC: &str = "planted_metric";
const NODE: [u8; 16] = *b"planted-node's-i";

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    forms.push(HEXLOWER.encode(secret).into_bytes());
    forms.push(HEXUPPER.encode(secret).into_bytes());
    // Whatever stands before it, and without what depends on what stands behind it.
    for shift in 0..3 {
        let padded = [&vec![0; shift][..], secret].concat();
        let text = BASE64.encode(&padded).into_bytes();
        forms.push(text[4..text.len() - 4].to_vec());
    }
    forms
}

/// The files in which a secret is found, and in which form.
fn found(directory: &Path, secrets: &[&[u8]]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut content = fs::read(&path).unwrap();
        // The room that is kept for a full disk is nothing but zeros.
        let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        content.truncate(end);
        for form in secrets.iter().flat_map(|secret| forms(secret)) {
            let mut starts = content.windows(form.len()).filter(|window| window[0] == form[0]);
            if starts.any(|window| window == form) {
                found.push((path.clone(), String::from_utf8_lossy(&form).into_owned()));
            }
        }
    }
    found
}

async fn plant(options: ZqliteOptions, directory: &Path, secrets: &[&[u8]]) -> usize {
    let options = options.compact_series_early();
    let backend = ZqliteBackend::open(options.clone()).await.unwrap();
    let mut places = 0;
    for round in 0..40u32 {
        let head = backend.head().await.unwrap();
        let (serial, time) = (head.serial.next(), Timestamp::from_micros(1).unwrap());
        let mut builder = BlockBuilder::default();
        builder.audit(AuditEntry::new(
            (time, AuditId::time_ordered(time, [1; 10])),
            "somebody".parse().unwrap(),
            "user.create".parse().unwrap(),
            EntityKind::User,
            SUBJECT.parse().unwrap(),
        ));
        let id = BlockId::from_bytes([u8::try_from(round).unwrap(); 16]);
        let block = builder.finish(serial, id, head.hash, time).unwrap().block;
        let mut rows: Vec<_> =
            (0..30).map(|number| put(Table::Users, number, format!("{NAME}{round}"))).collect();
        for number in 0..30 {
            let mut point = put(Table::Metrics, 0, "1");
            point.key = RowKey::new().id(&NODE).text(METRIC).integer((round * 30 + number).into());
            rows.push(point);
        }
        let commit = Commit {
            block: Some(block),
            rows,
            checkpoint: Some(head.serial),
            purge_before: Some(Serial::new(serial.get().saturating_sub(10))),
            ..Commit::on(&head)
        };
        backend.commit(&commit).await.unwrap();
        if round == 20 {
            // The log and the shared memory are there now.
            places += found(directory, secrets).len();
        }
    }
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    ZqliteBackend::compact(options).await.unwrap();
    places + found(directory, secrets).len()
}

#[tokio::test]
async fn nothing_that_was_planted_is_in_a_sealed_stores_files() {
    let (directory, path) = directory();
    let keyring = keyring(StoreId::from_bytes([9; 16]));
    let planted = [NAME.as_bytes(), SUBJECT.as_bytes(), METRIC.as_bytes(), &NODE];
    let mut secrets = planted.to_vec();
    let keys: Vec<[u8; 32]> = keyring.data_keys().iter().map(|key| *key.key().expose()).collect();
    let authority = keyring.authority();
    secrets.extend(keys.iter().map(|key| &key[..]));
    secrets.extend([&authority.inventory().expose()[..], authority.pin().expose()]);
    assert_eq!(plant(sealed(&path), directory.path(), &secrets).await, 0);
    // The same search finds all of it where nothing is sealed.
    for secret in planted {
        let (directory, path) = crate::common::directory();
        let places = plant(options(&path), directory.path(), &[secret]).await;
        assert!(places > 0, "{}", String::from_utf8_lossy(secret));
    }
}

#[tokio::test]
async fn a_plain_store_is_sealed_and_made_plain_again() {
    let (directory, path) = directory();
    let planted = [NAME.as_bytes(), SUBJECT.as_bytes(), METRIC.as_bytes(), &NODE];
    assert!(plant(options(&path), directory.path(), &planted).await > 0);
    let plain = open_whole(options(&path)).await.unwrap();
    let with = |keyring| options(&path).sealed(keyring);
    let error = ZqliteBackend::seal(with(keyring(OTHER))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    let error = ZqliteBackend::seal(options(&path)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    let error = ZqliteBackend::unseal(sealed(&path)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    assert_eq!(open_whole(options(&path)).await.unwrap(), plain);
    ZqliteBackend::seal(sealed(&path)).await.unwrap();
    assert!(found(directory.path(), &planted).is_empty());
    assert_eq!(*refusal(options(&path)).await.kind(), ErrorKind::Crypto);
    assert_eq!(open_whole(sealed(&path)).await.unwrap(), plain);
    // It is written to like any other.
    let backend = ZqliteBackend::open(sealed(&path).compact_series_early()).await.unwrap();
    for round in 0..20 {
        let points = (0..40).map(|number| put(Table::Metrics, round * 40 + number, "m"));
        commit_block(&backend, points.collect()).await;
    }
    backend.close().await.unwrap();
    let later = open_whole(sealed(&path)).await.unwrap();
    let error = ZqliteBackend::seal(sealed(&path)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Crypto, "{error}");
    ZqliteBackend::unseal(sealed(&path)).await.unwrap();
    assert_eq!(open_whole(options(&path)).await.unwrap(), later);
    assert!(found(directory.path(), &planted).len() > 2);
}

/// The file as it was, and nothing beside it that a refused opening left.
fn put_back(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
}

/// Runs a statement on the file of a closed store, which has to change so many rows.
fn run(path: &Path, statement: &str, changed: usize) {
    let file = rusqlite::Connection::open(path).unwrap();
    assert_eq!(file.execute(statement, []).unwrap(), changed, "{statement}");
    file.close().unwrap();
}

/// Opens, reads and verifies.
async fn open_whole(options: ZqliteOptions) -> Result<Everything, Error> {
    let backend = ZqliteBackend::open(options.compact_series_early()).await?;
    let everything = read(&backend).await?;
    backend.verify().await?;
    backend.close().await?;
    Ok(everything)
}

#[tokio::test]
async fn a_record_is_bound_to_its_place_its_kind_and_its_store() {
    let (_directory, path) = directory();
    let other = path.with_file_name("other.db");
    let everything = sample(sealed(&path)).await;
    sample(options(&other).sealed(keyring(OTHER))).await;
    let whole = fs::read(&path).unwrap();
    let take = |table: &str, column: &str, key: &str| {
        format!(
            "UPDATE {table} SET {column}=(SELECT {column} FROM other.{table} WHERE {key}=\
             (SELECT min({key}) FROM other.{table})) WHERE {key}=(SELECT min({key}) FROM {table})"
        )
    };
    let of_other = [
        take("rows", "body", "slot"),
        take("journal", "body", "number"),
        take("chunks", "body", "number"),
        take("directory", "body", "number"),
        take("blocks", "changes", "serial"),
        take("blocks", "audit", "serial"),
        take("blocks", "frame", "serial"),
        take("meta", "body", "id"),
    ];
    let moved = |table: &str, column: &str, key: &str| {
        format!(
            "UPDATE {table} SET {column}=(SELECT {column} FROM {table} WHERE {key}=(SELECT max({key}) \
             FROM {table})) WHERE {key}=(SELECT min({key}) FROM {table})"
        )
    };
    let of_itself = [
        (moved("rows", "body", "slot"), "moved"),
        (moved("journal", "body", "number"), "moved"),
        (moved("chunks", "body", "number"), "moved"),
        ("UPDATE directory SET number=number+1".to_owned(), "moved"),
        (moved("blocks", "changes", "serial"), "moved"),
        (moved("blocks", "audit", "serial"), "moved"),
        (moved("blocks", "frame", "serial"), "moment"),
    ];
    let of_another_kind = [
        ("UPDATE blocks SET changes=audit", 32),
        ("UPDATE chunks SET body=(SELECT body FROM directory) WHERE number=1", 1),
        ("UPDATE directory SET body=(SELECT body FROM chunks WHERE number=1) WHERE number=1", 1),
        ("UPDATE rows SET body=(SELECT body FROM journal) WHERE slot=1", 1),
    ];
    for (statement, changed, damage) in of_itself
        .iter()
        .map(|(statement, damage)| (&statement[..], 1, Some(*damage)))
        .chain(of_another_kind.map(|(statement, changed)| (statement, changed, None)))
    {
        put_back(&path, &whole);
        run(&path, statement, changed);
        let opened = open_whole(sealed(&path)).await;
        assert!(opened.is_err(), "{statement}");
        let error = opened.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{statement}: {error}");
        assert!(damage.is_none_or(|damage| error.to_string().contains(damage)), "{error}");
    }
    for statement in &of_other {
        put_back(&path, &whole);
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute("ATTACH ?1 AS other", [other.to_str().unwrap()]).unwrap();
        assert_eq!(file.execute(statement, []).unwrap(), 1, "{statement}");
        file.close().unwrap();
        let opened = open_whole(sealed(&path)).await;
        assert!(opened.is_err(), "{statement}");
        let error = opened.unwrap_err();
        let kinds = [ErrorKind::Corrupt, ErrorKind::Crypto];
        assert!(kinds.contains(error.kind()), "{statement}: {error}");
    }
    put_back(&path, &whole);
    assert_eq!(open_whole(sealed(&path)).await.unwrap(), everything);
}

#[tokio::test]
async fn each_byte_in_front_of_the_head_and_of_its_frame_is_bound() {
    let (_directory, path) = directory();
    sample(sealed(&path)).await;
    let head = {
        let file = rusqlite::Connection::open(&path).unwrap();
        let head =
            file.query_row("SELECT body FROM meta WHERE id=1", [], |row| row.get::<_, Vec<u8>>(0));
        head.unwrap()
    };
    // Side, epoch, commits, generation; format, version, nonce; a piece of the rest.
    for at in 0..40 + 1 + 4 + 24 + 8 {
        let mut altered = head.clone();
        altered[at] ^= 1;
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute("UPDATE meta SET body=?1 WHERE id=1", [&altered]).unwrap();
        file.close().unwrap();
        let error = refusal(sealed(&path)).await;
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{at}: {error}");
    }
}

#[tokio::test]
async fn a_record_that_was_current_once_is_refused() {
    let (_directory, path) = directory();
    let options = || sealed(&path).compact_series_early();
    sample(options()).await;
    let kept = path.with_file_name("kept.db");
    fs::copy(&path, &kept).unwrap();
    let backend = ZqliteBackend::open(options()).await.unwrap();
    for round in 0..4 {
        let rows = (0..400).map(|number| put(Table::Metrics, number * 3, [round; 30]));
        let rows = rows.chain([put(Table::Users, 0, "new"), delete(Table::Users, 1)]);
        commit_block(&backend, rows.collect()).await;
    }
    backend.close().await.unwrap();
    let newer = fs::read(&path).unwrap();
    for (table, key) in
        [("rows", "slot"), ("chunks", "number"), ("directory", "number"), ("rows", "slot, 1")]
    {
        put_back(&path, &newer);
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute("ATTACH ?1 AS kept", [kept.to_str().unwrap()]).unwrap();
        let statement = match key.strip_suffix(", 1") {
            // One that was deleted comes back.
            Some(key) => format!(
                "INSERT INTO {table} SELECT * FROM kept.{table} WHERE {key} NOT IN (SELECT {key} FROM {table})"
            ),
            None => format!(
                "UPDATE {table} SET body=old.body FROM kept.{table} old WHERE old.{key}={table}.{key} \
                 AND {table}.{key}=(SELECT {key} FROM kept.{table} o JOIN main.{table} n USING ({key}) \
                 WHERE o.body<>n.body LIMIT 1)"
            ),
        };
        assert_eq!(file.execute(&statement, []).unwrap(), 1, "{statement}");
        file.close().unwrap();
        let error = open_whole(options()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{statement}: {error}");
        let words = ["moment", "too many"];
        assert!(words.iter().any(|word| error.to_string().contains(word)), "{error}");
    }
}
