//! A rotation because of a leak of a store with a pin, broken off at each step of its order: keyring, commit,
//! pin, keyring.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use crate::common::*;
use ghostwire_store_core::backend::{Backend, Commit, HeadChange};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Keyring, Rotation};
use ghostwire_store_zqlite::{PinChoice, PinOptions, ZqliteBackend, ZqliteOptions};

const FILES: [&str; 4] = ["store.db", "store.db-wal", "store.db-shm", "pin"];

fn pinned(path: &Path, keyring: &Keyring) -> ZqliteOptions {
    let pin = PinOptions::file(path.with_file_name("pin")).same_device(true);
    options(path).sealed(keyring.clone()).pin(PinChoice::Commit(pin))
}

type State = Vec<(&'static str, Option<Vec<u8>>)>;

fn state_of(path: &Path) -> State {
    FILES.into_iter().map(|name| (name, fs::read(path.with_file_name(name)).ok())).collect()
}

fn put_back(path: &Path, state: &State, names: &[&str]) {
    for (name, content) in state.iter().filter(|(name, _)| names.contains(name)) {
        match content {
            Some(content) => fs::write(path.with_file_name(name), content).unwrap(),
            None => drop(fs::remove_file(path.with_file_name(name))),
        }
    }
}

async fn commit(path: &Path, keyring: &Keyring, number: u32) {
    let backend = ZqliteBackend::open(pinned(path, keyring)).await.unwrap();
    commit_block(&backend, vec![put(Table::Users, number, "a")]).await;
    backend.confirm().await.unwrap();
    backend.close().await.unwrap();
}

struct Rotated {
    first: Keyring,
    rotating: Keyring,
    finished: Keyring,
}

fn rotated() -> Rotated {
    let first = keyring(StoreId::from_bytes([9; 16]));
    let rotating = written(&first.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap());
    let finished = written(&rotating.finish_rotation().unwrap());
    Rotated { first, rotating, finished }
}

#[tokio::test]
async fn each_step_is_completed_by_the_next_opening() {
    let (_directory, path) = directory();
    let Rotated { first, rotating, finished } = rotated();
    commit(&path, &first, 1).await;
    let before = state_of(&path);
    // The keyring, and nothing more.
    let report = ZqliteBackend::compare_with_pin(pinned(&path, &rotating)).await.unwrap();
    assert_eq!((report.verdict, report.refusal.is_none()), ("equal", true));
    assert_eq!(state_of(&path)[0], before[0]);
    // The commit, and not the pin: it stands where it did, by the key before.
    let backend = ZqliteBackend::open(pinned(&path, &rotating)).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    let after = state_of(&path);
    put_back(&path, &before, &["pin"]);
    let report = ZqliteBackend::compare_with_pin(pinned(&path, &rotating)).await.unwrap();
    assert_eq!((report.verdict, report.refusal.is_none()), ("ahead", true));
    let backend = ZqliteBackend::open(pinned(&path, &rotating)).await.unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    // The pin, and not yet the keyring.
    let report = ZqliteBackend::compare_with_pin(pinned(&path, &rotating)).await.unwrap();
    assert_eq!(report.verdict, "equal");
    // The keyring.
    commit(&path, &finished, 2).await;
    commit(&path, &finished, 3).await;
    // What is written by the keys that were given up counts no more: neither a pin nor a store.
    let last = state_of(&path);
    put_back(&path, &before, &["pin"]);
    let error = ZqliteBackend::open(pinned(&path, &finished)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("other keys signed"), "{error}");
    put_back(&path, &last, &["pin"]);
    put_back(&path, &before, &["store.db", "store.db-wal", "store.db-shm"]);
    let error = ZqliteBackend::open(pinned(&path, &finished)).await.unwrap_err();
    assert!(error.to_string().contains("given up"), "{error}");
    put_back(&path, &after, &["store.db", "store.db-wal", "store.db-shm"]);
    let error = ZqliteBackend::open(pinned(&path, &finished)).await.unwrap_err();
    assert!(error.to_string().contains("rolled back"), "{error}");
    put_back(&path, &last, &FILES);
    commit(&path, &finished, 4).await;
}

/// The pin is asked before anything is written.
#[tokio::test]
async fn a_store_that_was_put_back_during_a_rotation_is_refused_as_it_is() {
    let (_directory, path) = directory();
    let Rotated { first, rotating, .. } = rotated();
    commit(&path, &first, 1).await;
    let before = state_of(&path);
    commit(&path, &first, 2).await;
    put_back(&path, &before, &["store.db", "store.db-wal", "store.db-shm"]);
    let error = ZqliteBackend::open(pinned(&path, &rotating)).await.unwrap_err();
    assert!(error.to_string().contains("rolled back"), "{error}");
    assert_eq!(state_of(&path)[0], before[0]);
}

#[tokio::test]
async fn an_open_store_moves_its_pin_by_the_new_key() {
    let (_directory, path) = directory();
    let Rotated { first, rotating, finished } = rotated();
    let backend = ZqliteBackend::open(pinned(&path, &first)).await.unwrap();
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    backend.confirm().await.unwrap();
    backend.take_up(rotating).await.unwrap();
    commit_block(&backend, vec![put(Table::Users, 2, "a")]).await;
    backend.confirm().await.unwrap();
    backend.take_up(finished.clone()).await.unwrap();
    let budget = ghostwire_store_core::backend::Budget::default();
    while backend.maintain(budget).await.unwrap() {}
    commit_block(&backend, vec![put(Table::Users, 3, "a")]).await;
    backend.confirm().await.unwrap();
    backend.probe(backend.head().await.unwrap().epoch).await.unwrap();
    let everything = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    let report = ZqliteBackend::compare_with_pin(pinned(&path, &finished)).await.unwrap();
    assert_eq!(report.verdict, "equal");
    let backend = ZqliteBackend::open(pinned(&path, &finished)).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), everything);
    backend.close().await.unwrap();
}

/// What is put back is older than the pin, and cannot even read it: it is named, and can be accepted.
#[tokio::test]
async fn a_store_and_keyring_from_before_a_leak_are_named_beside_the_pin_after_it() {
    let (_directory, path) = directory();
    let Rotated { first, rotating, finished } = rotated();
    commit(&path, &first, 1).await;
    let before = state_of(&path);
    ZqliteBackend::open(pinned(&path, &rotating)).await.unwrap().close().await.unwrap();
    commit(&path, &finished, 2).await;
    let after = state_of(&path);
    put_back(&path, &before, &FILES[..3]);
    let report = ZqliteBackend::compare_with_pin(pinned(&path, &first)).await.unwrap();
    assert_eq!((report.verdict, report.store.serial.get()), ("other signer", 1));
    assert_eq!(report.pin.unwrap().serial.get(), 2);
    for read_only in [false, true] {
        let options = pinned(&path, &first).read_only(read_only);
        let error = ZqliteBackend::open(options).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        for part in ["other keys signed", "of one time", "pin accept --serial 1", "pin_serial=2"] {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }
    assert_eq!(state_of(&path)[3], after[3]);
    let with = |change: fn(PinOptions) -> PinOptions| {
        let pin = PinOptions::file(path.with_file_name("pin")).same_device(true);
        options(&path).sealed(first.clone()).pin(PinChoice::Commit(change(pin)))
    };
    // As if the pin were lost.
    let accepting = with(PinOptions::accept_missing);
    ZqliteBackend::open(accepting).await.unwrap().close().await.unwrap();
    commit(&path, &first, 3).await;
    // Or as a store that was put back: one commit, which gives up what the pin knew.
    put_back(&path, &before, &FILES[..3]);
    put_back(&path, &after, &["pin"]);
    let accepting = with(|pin| pin.accept_rollback(Serial::new(1)));
    let backend = ZqliteBackend::open(accepting).await.unwrap();
    let head = backend.head().await.unwrap();
    let raised = HeadChange { epoch: Some(head.epoch.next()), ..HeadChange::default() };
    backend.commit(&Commit { head: raised, ..Commit::on(&head) }).await.unwrap();
    let unconfirmed = state_of(&path);
    backend.confirm().await.unwrap();
    backend.close().await.unwrap();
    commit(&path, &first, 4).await;
    // Killed before the new mark: it is accepted without being asked again.
    put_back(&path, &unconfirmed, &FILES);
    commit(&path, &first, 5).await;
    // Another store's pin, and one that was altered, are none of that.
    let mut altered = fs::read(path.with_file_name("pin")).unwrap();
    for end in (1..altered.len()).filter(|end| altered[*end] == b'\n').collect::<Vec<_>>() {
        altered[end - 1] = if altered[end - 1] == b'0' { b'1' } else { b'0' };
    }
    fs::write(path.with_file_name("pin"), altered).unwrap();
    let error = ZqliteBackend::open(pinned(&path, &first)).await.unwrap_err();
    assert!(error.to_string().contains("altered"), "{error}");
}

/// The new key has moved the pin already, so the head that the rotation leaves is older.
#[tokio::test]
async fn a_head_that_was_given_up_beside_a_mark_by_the_new_keys_is_forked() {
    let (_directory, path) = directory();
    let Rotated { first, rotating, .. } = rotated();
    commit(&path, &first, 1).await;
    let before = state_of(&path);
    commit(&path, &rotating, 2).await;
    put_back(&path, &before, &FILES[..3]);
    let report = ZqliteBackend::compare_with_pin(pinned(&path, &rotating)).await.unwrap();
    assert_eq!(report.verdict, "forked");
    let error = ZqliteBackend::open(pinned(&path, &rotating)).await.unwrap_err();
    assert!(error.to_string().contains("forked"), "{error}");
}

/// A head of that schema cannot say that it has a pin, which the new keys would have to move.
#[tokio::test]
async fn keys_are_not_changed_before_a_migration() {
    let (_directory, path) = directory();
    let Rotated { first, rotating, .. } = rotated();
    let old = options(&path).sealed(first.clone()).schema(Schema::at(2).unwrap());
    ZqliteBackend::open(old).await.unwrap().close().await.unwrap();
    let backend = ZqliteBackend::open(pinned(&path, &first)).await.unwrap();
    let error = backend.take_up(rotating.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("migrates"), "{error}");
    backend.migrate(Schema::current()).await.unwrap();
    backend.take_up(rotating).await.unwrap();
    backend.close().await.unwrap();
}
