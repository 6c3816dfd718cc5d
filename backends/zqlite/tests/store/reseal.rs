//! That everything is sealed anew under a newer version of the data key, in slices, while the store is used.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use crate::common::*;
use ghostwire_store_core::backend::{Backend, Budget, Commit, Resealed};
use ghostwire_store_core::block::Serial;
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Keyring, Rotation};
use ghostwire_store_zqlite::ZqliteBackend;

/// One record a slice.
const LEAST: Budget = Budget { time: Duration::ZERO, bytes: 0 };
/// A few.
const SOME: Budget = Budget { time: Duration::from_secs(60), bytes: 8 * 1024 };

fn first() -> Keyring {
    keyring(StoreId::from_bytes([9; 16]))
}

fn rotated() -> Keyring {
    written(&first().rotate(Rotation::Routine, 0, &SystemRandom).unwrap())
}

/// Without the version that the store began with.
fn without_first(rotated: &Keyring) -> Keyring {
    let finished = written(&rotated.finish_rotation().unwrap());
    written(&finished.destroy(1).unwrap())
}

/// Gives the store records of every kind, some of them compacted.
async fn fill(backend: &dyn Backend, rounds: std::ops::Range<u32>) {
    for round in rounds {
        let rows = |table, count| {
            (0..count).map(move |number| put(table, round * count + number, vec![7; 20]))
        };
        let rows = rows(Table::Users, 5).chain(rows(Table::Metrics, 40)).collect();
        commit_block(backend, rows).await;
    }
}

async fn open_with(path: &std::path::Path, keyring: &Keyring) -> ZqliteBackend {
    let options = options(path).sealed(keyring.clone()).compact_series_early();
    ZqliteBackend::open(options).await.unwrap()
}

fn progress(backend: &dyn Backend) -> Resealed {
    backend.info().resealed.unwrap()
}

#[tokio::test]
async fn every_record_is_sealed_anew_and_the_old_key_is_needed_no_more() {
    for budget in [LEAST, SOME, Budget::default()] {
        let (_directory, path) = directory();
        let backend = open_with(&path, &first()).await;
        fill(&backend, 0..30).await;
        assert!(!backend.maintain(budget).await.unwrap());
        assert_eq!(progress(&backend).percent(), 100);
        let before = read(&backend).await.unwrap();
        backend.close().await.unwrap();
        let rotated = rotated();
        let backend = open_with(&path, &rotated).await;
        let all = progress(&backend);
        assert_eq!((all.version, all.records), (2, 0));
        let mut slices = 0;
        while backend.maintain(budget).await.unwrap() {
            slices += 1;
            let now = progress(&backend);
            assert_eq!(now.of, all.of);
            assert!(slices <= all.of + 10, "{now:?}");
        }
        assert_eq!(progress(&backend), Resealed { records: all.of, ..all }, "{budget:?}");
        assert_eq!(read(&backend).await.unwrap(), before);
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
        let backend = open_with(&path, &without_first(&rotated)).await;
        assert_eq!(read(&backend).await.unwrap(), before);
        backend.verify().await.unwrap();
        assert_eq!(progress(&backend).percent(), 100);
        backend.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_store_is_used_and_opened_anew_meanwhile() {
    let (_directory, path) = directory();
    let backend = open_with(&path, &first()).await;
    fill(&backend, 0..30).await;
    backend.close().await.unwrap();
    let rotated = rotated();
    let mut backend = open_with(&path, &rotated).await;
    let mut round = 30;
    loop {
        let is_left = backend.maintain(SOME).await.unwrap();
        // Rows that are there are replaced and deleted, series grow and are compacted, blocks are purged.
        fill(&backend, round..round + 1).await;
        let head = backend.head().await.unwrap();
        let rows = vec![
            put(Table::Users, round * 3, "anew"),
            delete(Table::Users, round * 2),
            delete(Table::Metrics, round * 11),
        ];
        let purge_before = (round % 4 == 0).then(|| Serial::new(u64::from(round) - 25));
        let checkpoint = Some(head.serial);
        let commit = Commit { rows, checkpoint, purge_before, ..Commit::on(&head) };
        backend.commit(&commit).await.unwrap();
        if round % 5 == 0 {
            backend.close().await.unwrap();
            backend = open_with(&path, &rotated).await;
        }
        round += 1;
        if !is_left {
            break;
        }
    }
    assert!(round > 35, "{round}");
    let now = progress(&backend);
    assert_eq!((now.percent(), now.records), (100, now.of));
    backend.verify().await.unwrap();
    let everything = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    let backend = open_with(&path, &without_first(&rotated)).await;
    // What was counted is what there is: with one key it is counted anew.
    assert_eq!(progress(&backend).of, now.of);
    assert_eq!(read(&backend).await.unwrap(), everything);
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
}

#[tokio::test]
async fn readers_and_a_plain_store_have_nothing_to_do() {
    let (_directory, path) = directory();
    let backend = open_with(&path, &first()).await;
    fill(&backend, 0..3).await;
    backend.close().await.unwrap();
    let options = options(&path).sealed(rotated()).read_only(true);
    let reader = ZqliteBackend::open(options).await.unwrap();
    assert!(!reader.maintain(SOME).await.unwrap());
    assert_eq!(progress(&reader).records, 0);
    reader.close().await.unwrap();
    let plain = open(&path.with_file_name("plain.db")).await;
    fill(&plain, 0..3).await;
    assert!(!plain.maintain(SOME).await.unwrap());
    assert_eq!(plain.info().resealed, None);
    plain.close().await.unwrap();
}

/// A mounted file system of 16 MiB, to be filled in earnest. Mounting takes rights that not everybody has.
#[cfg(target_os = "linux")]
struct SmallDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(directory.path());
        let status = mount.stderr(std::process::Stdio::null()).status().ok()?;
        status.success().then(|| Self(directory))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_leaves_the_cursor_and_the_rest_follows_once_there_is_room() {
    use ghostwire_store_core::error::ErrorKind;
    // The simulated disk of the conformance suite shows the same of commits everywhere.
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.0.path().join("store.db");
    let backend = open_with(&path, &first()).await;
    fill(&backend, 0..30).await;
    let before = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    let rotated = rotated();
    let backend = open_with(&path, &rotated).await;
    assert!(backend.maintain(SOME).await.unwrap());
    let ballast = disk.0.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1; 16 << 20]);
    let mut error = None;
    // The log has some room still.
    while error.is_none() {
        error = backend.maintain(SOME).await.err();
        assert!(progress(&backend).is_under_way());
    }
    assert_eq!(*error.unwrap().kind(), ErrorKind::Exhausted);
    let stands = progress(&backend);
    assert_eq!(*backend.maintain(SOME).await.unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(progress(&backend), stands);
    assert_eq!(read(&backend).await.unwrap(), before);
    std::fs::remove_file(ballast).unwrap();
    // Nothing was opened anew: writers go on, and so does this.
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    while backend.maintain(SOME).await.unwrap() {}
    assert_eq!(progress(&backend).percent(), 100);
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
}

/// Their tags change, and nobody who reads them may take that for damage.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_read_while_they_are_sealed_anew() {
    let (_directory, path) = directory();
    let backend = std::sync::Arc::new(open_with(&path, &first()).await);
    fill(&*backend, 0..150).await;
    let before = backend.blocks(Serial::ZERO, 1_000).await.unwrap();
    backend.take_up(rotated()).await.unwrap();
    let sealing = {
        let backend = backend.clone();
        tokio::spawn(async move { while backend.maintain(LEAST).await.unwrap() {} })
    };
    while !sealing.is_finished() {
        assert_eq!(backend.blocks(Serial::ZERO, 1_000).await.unwrap(), before);
        backend.verify().await.unwrap();
    }
    sealing.await.unwrap();
    assert_eq!(progress(&*backend).percent(), 100);
    backend.close().await.unwrap();
}

#[tokio::test]
async fn a_keyring_is_taken_up_while_the_store_is_open() {
    use ghostwire_store_core::error::ErrorKind;
    let (_directory, path) = directory();
    let backend = open_with(&path, &first()).await;
    fill(&backend, 0..20).await;
    let before = read(&backend).await.unwrap();
    let mut newest = first();
    // Version 3 because of a leak.
    for reason in [Rotation::Routine, Rotation::Leaked] {
        let rotating = written(&newest.rotate(reason, 0, &SystemRandom).unwrap());
        backend.take_up(rotating.clone()).await.unwrap();
        assert_eq!(progress(&backend).version, newest.active().unwrap().version() + 1);
        // What is new is sealed under it, what is old is read, before anything was sealed anew.
        assert_eq!(read(&backend).await.unwrap().rows, before.rows);
        backend.verify().await.unwrap();
        // Once more changes nothing, and an older one is refused.
        backend.take_up(rotating.clone()).await.unwrap();
        let error = backend.take_up(newest.clone()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Crypto);
        newest = written(&rotating.finish_rotation().unwrap());
        backend.take_up(newest.clone()).await.unwrap();
        backend.reopen().await.unwrap();
        assert_eq!(read(&backend).await.unwrap().rows, before.rows);
    }
    for version in [1, 3] {
        let error = backend.require_unused(version).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Restricted, "{error}");
    }
    while backend.maintain(SOME).await.unwrap() {}
    for version in [1, 2] {
        backend.require_unused(version).await.unwrap();
        newest = written(&newest.destroy(version).unwrap());
    }
    backend.take_up(newest.clone()).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
    let backend = open_with(&path, &newest).await;
    assert_eq!(read(&backend).await.unwrap(), before);
    backend.close().await.unwrap();
    let other = keyring(StoreId::from_bytes([3; 16]));
    let backend = open_with(&path, &newest).await;
    assert_eq!(*backend.take_up(other).await.unwrap_err().kind(), ErrorKind::Crypto);
    backend.close().await.unwrap();
    let plain = open(&path.with_file_name("plain.db")).await;
    assert_eq!(*plain.take_up(newest).await.unwrap_err().kind(), ErrorKind::Unsupported);
    plain.close().await.unwrap();
}

#[tokio::test]
async fn more_versions_than_are_counted_are_refused_before_they_are_drawn() {
    use ghostwire_store_core::error::ErrorKind;
    let (_directory, path) = directory();
    let backend = open_with(&path, &first()).await;
    let mut newest = first();
    for number in 0..7 {
        backend.require_room_for_version().unwrap();
        commit_block(&backend, vec![put(Table::Users, number, "a")]).await;
        let rotating = written(&newest.rotate(Rotation::Routine, 0, &SystemRandom).unwrap());
        backend.take_up(rotating.clone()).await.unwrap();
        newest = written(&rotating.finish_rotation().unwrap());
        backend.take_up(newest.clone()).await.unwrap();
    }
    commit_block(&backend, vec![put(Table::Users, 7, "a")]).await;
    let error = backend.require_room_for_version().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Restricted);
    while backend.maintain(SOME).await.unwrap() {}
    backend.require_room_for_version().unwrap();
    backend.verify().await.unwrap();
    backend.close().await.unwrap();
}
