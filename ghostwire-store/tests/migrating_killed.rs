//! Processes that are killed while they move a network from one database to another and write to it: what was
//! answered is in the target, and the next process goes on with the copy.
//!
//! `GHOSTWIRE_MIGRATING_KILLS` says how many at least; there are some in any case.
#![cfg(all(feature = "libsql", feature = "zqlite"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ghostwire_store::config::{BackendChoice, Config, LibsqlOptions, ZqliteOptions};
use ghostwire_store::domain::{MetricPoint, NewUser, Sample, Timestamp};
use ghostwire_store::{Opener, Store};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::domain::MigrationId;
use ghostwire_store_core::migration::{CopyOptions, MoveOptions, Mover, Next, Role, Side};

const DIRECTORY: &str = "GHOSTWIRE_MIGRATING_CHILD";
const KILLS: &str = "GHOSTWIRE_MIGRATING_KILLS";
const MIGRATION: MigrationId = MigrationId::from_bytes([3; 16]);

/// Two stores with one hash key.
fn config(directory: &Path, backend: BackendChoice) -> Config {
    let secret_key_file = Some(directory.join("key"));
    Config { backend, secret_key_file, ..Config::default() }
}

fn source(directory: &Path) -> Config {
    let options = LibsqlOptions { path: directory.join("source.db"), ..LibsqlOptions::default() };
    config(directory, BackendChoice::Libsql(options))
}

fn target(directory: &Path) -> Config {
    let path = directory.join("target.db");
    let options = ZqliteOptions { path, sealed: false, ..ZqliteOptions::default() };
    config(directory, BackendChoice::Zqlite(options))
}

async fn open(directory: &Path) -> (Arc<dyn Store>, Arc<dyn Backend>) {
    let store = Opener::new(&source(directory)).open().await.unwrap();
    (store, Opener::new(&target(directory)).open_backend().await.unwrap())
}

fn mover(store: &Arc<dyn Store>, target: &Arc<dyn Backend>) -> Mover {
    let copy = CopyOptions { page: 7, share: 100 };
    let max_stall = std::time::Duration::from_secs(60);
    let options = MoveOptions { copy, max_stall, ..MoveOptions::default() };
    Mover::new(Side::open(store.as_ref()), Side::closed(target.clone()), options)
}

fn point(second: i64) -> MetricPoint {
    let at = Timestamp::from_millis(1_700_000_000_000 + second * 1_000).unwrap();
    let value = Sample::new(second as f64).unwrap();
    MetricPoint { node: None, metric: "load".parse().unwrap(), at, value }
}

#[allow(clippy::print_stdout)]
fn tell(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {what}").unwrap();
    out.flush().unwrap();
}

/// Not a test: the child, which copies, and writes meanwhile, until it is killed.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, target) = open(&directory).await;
        let mover = mover(&store, &target);
        let first = i64::try_from(store.view().users().len()).unwrap();
        let mut copying = Some(tokio::spawn(async move {
            let filled = mover.fill().await.unwrap();
            assert!(matches!(filled, Next::Served(_)), "{filled:?}");
            tell("filled");
        }));
        for number in first.. {
            let name = format!("user-{number}");
            store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
            store.metrics().record(point(number)).await.unwrap();
            if number % 5 == 0 {
                store.metrics().prune(point(number / 2).at).await.unwrap();
            }
            if number % 7 == 0 {
                store.audit().prune(point(0).at).await.unwrap();
            }
            tell(&format!("user {name}"));
            if let Some(copied) = copying.take_if(|copying| copying.is_finished()) {
                copied.await.unwrap();
            }
        }
    });
}

/// Runs a child until it has told so many lines, and kills it. Gives the users that it answered.
fn kill(directory: &Path, after: usize) -> BTreeSet<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut users, mut told) = (BTreeSet::new(), 0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        let Some((_, what)) = line.split_once("child: ") else { continue };
        users.extend(what.strip_prefix("user ").map(str::to_owned));
        told += 1;
        if told == after {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(told >= after, "the child ended by itself");
    users
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_killed_while_a_network_moves_loses_nothing_of_it() {
    let kills: usize = std::env::var(KILLS).map_or(8, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let (store, backend) = open(directory).await;
    let mut answered = BTreeSet::new();
    for number in 0..120 {
        let name = format!("user-{number}");
        store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
        answered.insert(name);
    }
    let points = (0..400).map(point).collect();
    store.metrics().record_many(points).await.unwrap();
    mover(&store, &backend).start(MIGRATION).await.unwrap();
    store.close().await.unwrap();
    backend.close().await.unwrap();
    for round in 0..kills {
        answered.extend(kill(directory, 1 + round * 5 % 23));
        // A target that is not complete is nobody's store.
        let target = Opener::new(&target(directory)).open_backend().await.unwrap();
        let role = target.head().await.unwrap().record().role;
        assert!([Role::Filling, Role::PassiveAsync].contains(&role), "{role}");
        target.verify().await.unwrap();
        target.close().await.unwrap();
    }
    let (store, backend) = open(directory).await;
    let mover = mover(&store, &backend);
    mover.fill().await.unwrap();
    mover.hand_over().await.unwrap();
    let (wanted, position) = (store.digests().await.unwrap(), store.view().position());
    drop(mover);
    // What it would still have to write is the other one's now.
    let _ = store.close().await;
    backend.close().await.unwrap();
    let moved = Opener::new(&target(directory)).open().await.unwrap();
    assert_eq!((moved.digests().await.unwrap(), moved.view().position()), (wanted, position));
    let stored: BTreeSet<_> =
        moved.view().users().iter().map(|user| user.name.to_string()).collect();
    let lost: Vec<_> = answered.difference(&stored).collect();
    assert!(lost.is_empty(), "{lost:?}");
    moved.verify().await.unwrap();
    moved.close().await.unwrap();
    // The source is not opened as a store any more.
    let error = Opener::new(&source(directory)).open().await.unwrap_err();
    assert!(error.to_string().contains("passive(async)"), "{error}");
}
