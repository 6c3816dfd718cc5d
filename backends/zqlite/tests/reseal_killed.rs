//! Processes that are killed while they seal anew, between slices and within: what was answered is there, and
//! the next one goes on.
//!
//! `GHOSTWIRE_RESEAL_KILLS` says how many; there are some in any case.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::killed::{run_and_kill, tell};
use common::*;
use ghostwire_store_core::backend::{Backend, Budget};
use ghostwire_store_core::domain::StoreId;
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Rotation, Unlock};
use ghostwire_store_zqlite::{ZqliteBackend, ZqliteOptions};

const DIRECTORY: &str = "GHOSTWIRE_RESEAL_CHILD";
const KILLS: &str = "GHOSTWIRE_RESEAL_KILLS";

fn options_in(directory: &Path) -> ZqliteOptions {
    let root = fs::read_to_string(directory.join("root")).unwrap();
    let root = Identity::from_text(root).unwrap();
    let file = fs::read(directory.join("keyring")).unwrap();
    let keyring = Keyring::open(&file, Unlock::Identity(&root), &Expected::default()).unwrap();
    options(&directory.join("store.db")).sealed(keyring).compact_series_early()
}

/// Not a test: the child, which seals anew in small slices, writes between them, and ends when it is killed.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let backend = ZqliteBackend::open(options_in(&directory)).await.unwrap();
        let budget = Budget { time: Duration::from_secs(1), bytes: 2_000 };
        for _ in 0.. {
            backend.maintain(budget).await.unwrap();
            tell("slice");
            let number =
                u32::try_from(backend.head().await.unwrap().serial.get()).unwrap() + 10_000;
            let rows = vec![
                put(Table::Users, number, "u"),
                put(Table::Users, number % 50, "again"),
                put(Table::Metrics, number, "m"),
            ];
            commit_block(&backend, rows).await;
            tell(&format!("row {number}"));
        }
    });
}

/// Runs a child until it has told so many lines, and kills it. Gives the rows that it answered.
fn kill(directory: &Path, lines: usize) -> Vec<u32> {
    let (mut rows, mut told) = (Vec::new(), 0);
    run_and_kill(&[(DIRECTORY, directory.as_os_str())], |what| {
        rows.extend(what.strip_prefix("row ").map(|row| row.parse::<u32>().unwrap()));
        told += 1;
        told > lines
    });
    rows
}

#[tokio::test]
async fn a_killed_process_leaves_what_it_answered_and_the_next_goes_on() {
    let kills: usize = std::env::var(KILLS).map_or(24, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let root = Identity::draw(&SystemRandom).unwrap();
    fs::write(directory.join("root"), root.to_text().as_bytes()).unwrap();
    let write = |keyring: &Keyring| {
        let file = keyring.seal(&SystemRandom).unwrap();
        fs::write(directory.join("keyring"), &file).unwrap();
        Keyring::open(&file, Unlock::Identity(&root), &Expected::default()).unwrap()
    };
    let store = *StoreId::from_bytes([9; 16]).as_bytes();
    let first = Keyring::first(store, root.recipient().clone(), None, 0, &SystemRandom).unwrap();
    let mut keyring = write(&first);
    let backend = ZqliteBackend::open(options_in(directory)).await.unwrap();
    for round in 0..20 {
        let rows = |table, count| (0..count).map(move |it| put(table, round * count + it, "x"));
        commit_block(&backend, rows(Table::Users, 5).chain(rows(Table::Metrics, 40)).collect())
            .await;
    }
    backend.close().await.unwrap();
    let (mut answered, mut rounds) = (BTreeSet::new(), 0);
    for round in 0..kills {
        let is_complete = {
            let backend = ZqliteBackend::open(options_in(directory)).await.unwrap();
            let resealed = backend.info().resealed.unwrap();
            backend.close().await.unwrap();
            !resealed.is_under_way()
        };
        if is_complete {
            rounds += 1;
            if keyring.leaving().is_some() {
                keyring = write(&keyring.finish_rotation().unwrap());
            }
            // Every record is read without the keys from before.
            for version in keyring.data_keys().iter().map(|key| key.version()).collect::<Vec<_>>() {
                if keyring.active().unwrap().version() != version {
                    keyring = write(&keyring.destroy(version).unwrap());
                }
            }
            let reason = if rounds % 2 == 0 { Rotation::Leaked } else { Rotation::Routine };
            keyring = write(&keyring.rotate(reason, 0, &SystemRandom).unwrap());
        }
        answered.extend(kill(directory, 1 + round * 7 % 60));
        let backend = ZqliteBackend::open(options_in(directory)).await.unwrap();
        let rows = backend.scan(all(Table::Users)).await.unwrap().rows;
        let stored: BTreeSet<_> = rows.into_iter().map(|row| row.key).collect();
        let lost: Vec<_> = answered.iter().filter(|row| !stored.contains(&key(**row))).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
        backend.verify().await.unwrap();
        backend.close().await.unwrap();
    }
    assert!(rounds > 1 || kills < 24, "{rounds} rotations in {kills} kills");
}
