//! A network that moves from one file to another while it is served, from the configuration: forth, back, to the end,
//! and every way in which it is refused.
#![cfg(all(feature = "libsql", feature = "zqlite"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod in_step;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostwire_store::config::{
    BackendChoice, Config, LibsqlOptions, MigrationStage, NamedStore, RootOptions, ZqliteOptions,
};
use ghostwire_store::domain::{
    ConsumerName, MetricPoint, NewPreAuthKey, NewUser, Sample, Timestamp,
};
use ghostwire_store::migration::{Migrations, Stage, Status};
use ghostwire_store::{Error, ErrorKind, Opener, Result, Store};

const BY: &str = "ops";

/// A network in a libsql file, that may move to a zqlite file.
fn config(directory: &Path) -> Config {
    let secret_key_file = Some(directory.join("key"));
    let source = LibsqlOptions { path: directory.join("source.db"), ..LibsqlOptions::default() };
    let path = directory.join("target.db");
    let target = ZqliteOptions { path, sealed: false, ..ZqliteOptions::default() };
    let target = NamedStore {
        backend: BackendChoice::Zqlite(target),
        secret_key_file: secret_key_file.clone(),
    };
    let mut config = Config {
        backend: BackendChoice::Libsql(source),
        secret_key_file,
        other_stores: BTreeMap::from([("next".to_owned(), target)]),
        ..Config::default()
    };
    config.migration.target = Some("next".to_owned());
    // A busy machine is no reason for a test to fail.
    config.migration.max_stall_ms = 60_000;
    config.migration.copy_share = 100;
    config
}

/// The store is made before it is said where it is to move.
async fn open(config: &Config) -> (Arc<dyn Store>, Migrations) {
    if !config.backend.path().unwrap().exists() {
        let before = Config { migration: Config::default().migration, ..config.clone() };
        Opener::new(&before).open().await.unwrap().close().await.unwrap();
    }
    Opener::new(config).admin_socket_served(false).open_movable().await.unwrap()
}

fn point(second: i64) -> MetricPoint {
    let at = Timestamp::from_millis(1_700_000_000_000 + second * 1_000).unwrap();
    MetricPoint {
        node: None,
        metric: "load".parse().unwrap(),
        at,
        value: Sample::new(1.0).unwrap(),
    }
}

async fn add(store: &dyn Store, name: &str) {
    store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
}

async fn filled(store: &dyn Store) {
    for number in 0..50 {
        add(store, &format!("user-{number}")).await;
    }
    store.metrics().record_many((0..500).map(point).collect()).await.unwrap();
}

async fn reaches(migrations: &Migrations, stage: Stage) -> Status {
    loop {
        let status = migrations.status().await.unwrap();
        assert_eq!(status.last_error, None);
        if status.stage == stage {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn refused<T>(outcome: Result<T>, kind: ErrorKind, says: &str) -> Error {
    let Err(error) = outcome else { panic!("it was not refused: {says}") };
    assert_eq!(*error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    error
}

/// Somebody who writes all the time, and of whom no write is refused.
struct Writing {
    ends: Arc<AtomicBool>,
    written: tokio::task::JoinHandle<Vec<String>>,
}

impl Writing {
    fn begin(store: &Arc<dyn Store>) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (store, until) = (store.clone(), ends.clone());
        let written = tokio::spawn(async move {
            let mut written = Vec::new();
            while !until.load(Ordering::Relaxed) {
                let name = format!("busy-{}", written.len());
                add(store.as_ref(), &name).await;
                store.metrics().record(point(1_000 + written.len() as i64)).await.unwrap();
                if written.len() % 9 == 0 {
                    store.metrics().prune(point(written.len() as i64).at).await.unwrap();
                }
                written.push(name);
            }
            written
        });
        Self { ends, written }
    }

    async fn end(self) -> Vec<String> {
        self.ends.store(true, Ordering::Relaxed);
        self.written.await.unwrap()
    }
}

fn has(store: &dyn Store, name: &str) -> bool {
    store.view().users().iter().any(|user| user.name.as_str() == name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_moves_under_load_goes_back_and_moves_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    let user = store.view().users().iter().next().map(|user| user.id);
    let key = NewPreAuthKey { user, ..NewPreAuthKey::default() };
    let (_, secret) = store.preauth_keys().create(key).await.unwrap();
    let writing = Writing::begin(&store);
    let watched = store.view().serial();
    assert_eq!(migrations.plan().await.unwrap().refused, None);
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    // The same handle, before and after: nobody has to open anything.
    for (stage, backend) in [(Stage::TargetReads, "zqlite"), (Stage::Mirror, "libsql")] {
        let status = match stage {
            Stage::TargetReads => migrations.advance(BY).await.unwrap(),
            _ => migrations.back(BY).await.unwrap(),
        };
        assert_eq!(status.stage, stage);
        let info = store.info();
        assert_eq!(info.backend.name, backend);
        assert_eq!(info.epoch.get(), if backend == "zqlite" { 1 } else { 2 });
        add(store.as_ref(), &format!("on-{backend}")).await;
        store.verify().await.unwrap();
    }
    migrations.advance(BY).await.unwrap();
    let written = writing.end().await;
    assert!(written.len() > 3, "{}", written.len());
    // Every commit came once and in order, whichever side had it.
    let mut commits = store.watch(watched);
    let last = store.view().serial();
    let mut next = watched;
    while next < last {
        let commit = futures_util::StreamExt::next(&mut commits).await.unwrap().unwrap();
        next = next.next();
        assert_eq!(commit.serial, next);
    }
    drop(commits);
    migrations.finish(BY).await.unwrap();
    refused(migrations.back(BY).await, ErrorKind::NotFound, "has moved");
    refused(migrations.status().await, ErrorKind::NotFound, "has moved");
    add(store.as_ref(), "alone").await;
    let digests = store.digests().await.unwrap();
    store.close().await.unwrap();
    // The same configuration: the records say which one is served.
    let (store, migrations) = open(&config).await;
    assert_eq!(store.info().backend.name, "zqlite");
    refused(migrations.status().await, ErrorKind::NotFound, "has moved");
    assert_eq!(store.digests().await.unwrap(), digests);
    for name in written.iter().map(String::as_str).chain(["on-zqlite", "on-libsql", "alone"]) {
        assert!(has(store.as_ref(), name), "{name}");
    }
    store.preauth_keys().authenticate(secret.expose()).await.unwrap();
    store.verify().await.unwrap();
    store.close().await.unwrap();
    // The target alone, as the configuration is once the source is gone.
    let alone =
        Config { migration: Config::default().migration, ..config.for_store("next").unwrap() };
    let store = Opener::new(&alone).open().await.unwrap();
    assert_eq!(store.digests().await.unwrap(), digests);
    store.close().await.unwrap();
    // The source is nobody's store.
    let source = Config { migration: Config::default().migration, ..config.clone() };
    refused(Opener::new(&source).open().await, ErrorKind::Restricted, "retired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_both_goes_on_where_it_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (mut store, mut migrations) = open(&config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    // Closed while it copies, and at each stage.
    for (stage, backend) in
        [(Stage::Mirror, "libsql"), (Stage::TargetReads, "zqlite"), (Stage::Mirror, "libsql")]
    {
        store.close().await.unwrap();
        (store, migrations) = open(&config).await;
        let found = store.info().backend.name;
        match (stage, found) {
            (Stage::Mirror, "zqlite") => drop(migrations.back(BY).await.unwrap()),
            (Stage::TargetReads, _) => drop(migrations.advance(BY).await.unwrap()),
            _ => {}
        }
        reaches(&migrations, stage).await;
        assert_eq!(store.info().backend.name, backend);
        add(store.as_ref(), &format!("at-{}-{found}", stage.name())).await;
        store.verify().await.unwrap();
    }
    let digests = store.digests().await.unwrap();
    migrations.advance(BY).await.unwrap();
    assert_eq!(store.digests().await.unwrap(), digests);
    store.close().await.unwrap();
    // One side alone: the one that follows cannot be opened as a store, and the other serves.
    let without =
        |config: &Config| Config { migration: Config::default().migration, ..config.clone() };
    let error = refused(
        Opener::new(&without(&config)).open().await,
        ErrorKind::Restricted,
        "passive(async)",
    );
    assert!(error.to_string().contains("other side"), "{error}");
    let target = without(&config.for_store("next").unwrap());
    let alone = Opener::new(&target).open().await.unwrap();
    add(alone.as_ref(), "alone").await;
    alone.close().await.unwrap();
    // Read-only it is the side that is served, too.
    let reader = Opener::new(&config).read_only(true).open().await.unwrap();
    assert_eq!(reader.info().backend.name, "zqlite");
    assert!(has(reader.as_ref(), "alone"));
    reader.close().await.unwrap();
    // What was written alone is sent once both are there.
    let (store, migrations) = open(&config).await;
    migrations.back(BY).await.unwrap();
    assert_eq!(store.info().backend.name, "libsql");
    assert!(has(store.as_ref(), "alone"));
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_given_up_is_not_taken_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    migrations.abort(BY).await.unwrap();
    add(store.as_ref(), "goes-on").await;
    refused(migrations.start(BY).await, ErrorKind::Restricted, "not empty");
    assert!(migrations.plan().await.unwrap().refused.unwrap().contains("not empty"));
    store.close().await.unwrap();
    let (store, migrations) = open(&config).await;
    assert_eq!(store.info().backend.name, "libsql");
    refused(migrations.advance(BY).await, ErrorKind::NotFound, "no migration");
    for file in ["target.db", "target.db-wal", "target.db-shm", "target.db.lock"] {
        let _ = std::fs::remove_file(directory.path().join(file));
    }
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    migrations.advance(BY).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_at_a_stage_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    for outcome in [migrations.advance(BY).await, migrations.back(BY).await] {
        refused(outcome, ErrorKind::NotFound, "no migration");
    }
    migrations.start(BY).await.unwrap();
    refused(migrations.start("somebody").await, ErrorKind::Busy, "under way");
    reaches(&migrations, Stage::Mirror).await;
    refused(migrations.back(BY).await, ErrorKind::Restricted, "another stage");
    refused(migrations.finish(BY).await, ErrorKind::Restricted, "another stage");
    migrations.advance(BY).await.unwrap();
    refused(migrations.advance(BY).await, ErrorKind::Restricted, "another stage");
    refused(migrations.abort(BY).await, ErrorKind::Restricted, "cannot be aborted");
    store.close().await.unwrap();
    // The furthest stage of the configuration holds.
    config.migration.stage = MigrationStage::TargetReads;
    let (store, migrations) = open(&config).await;
    refused(migrations.finish(BY).await, ErrorKind::Restricted, "migration.stage");
    store.close().await.unwrap();
}

/// Every one of them leaves the source as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_target_is_refused_before_anything_changes() {
    let directory = tempfile::tempdir().unwrap();
    let good = config(directory.path());
    let (store, _) = open(&good).await;
    filled(store.as_ref()).await;
    store.close().await.unwrap();
    let at = |change: &dyn Fn(&mut NamedStore)| {
        let mut config = good.clone();
        config.other_stores.values_mut().for_each(change);
        config
    };
    // The same database by another name.
    let link = directory.path().join("link.db");
    #[cfg(unix)]
    std::os::unix::fs::symlink(directory.path().join("source.db"), &link).unwrap();
    let same = at(&|target| {
        let options = LibsqlOptions { path: link.clone(), ..LibsqlOptions::default() };
        target.backend = BackendChoice::Libsql(options);
    });
    let (store, migrations) = open(&same).await;
    let planned = migrations.plan().await.unwrap();
    assert!(planned.refused.is_some(), "{planned:?}");
    let error = migrations.start(BY).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Restricted), "{error}");
    add(store.as_ref(), "by-its-own-name").await;
    store.close().await.unwrap();
    // A network of its own.
    let other = directory.path().join("other.db");
    let foreign = at(&|target| {
        let options = LibsqlOptions { path: other.clone(), ..LibsqlOptions::default() };
        target.backend = BackendChoice::Libsql(options);
    });
    let owner =
        Config { migration: Config::default().migration, ..foreign.for_store("next").unwrap() };
    let store = Opener::new(&owner).open().await.unwrap();
    add(store.as_ref(), "somebody-else").await;
    store.close().await.unwrap();
    // Another hash key, and none.
    let wrong = directory.path().join("wrong");
    std::fs::write(&wrong, "0123456789abcdef".repeat(4) + "\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let other_key = at(&|target| target.secret_key_file = Some(wrong.clone()));
    let no_key = at(&|target| target.secret_key_file = Some(directory.path().join("none")));
    let own_key = at(&|target| target.secret_key_file = None);
    for (config, kind, says) in [
        (&foreign, ErrorKind::Restricted, "not empty"),
        (&other_key, ErrorKind::Crypto, "another hash key"),
        (&no_key, ErrorKind::Crypto, "not there"),
        (&own_key, ErrorKind::Crypto, "secret_key_file"),
    ] {
        let (store, migrations) = open(config).await;
        let planned = migrations.plan().await.unwrap().refused.unwrap();
        assert!(planned.contains(says), "{says}: {planned}");
        refused(migrations.start(BY).await, kind, says);
        assert!(store.consumers().list().await.unwrap().is_empty());
        add(store.as_ref(), &format!("after-{}", store.view().users().len())).await;
        store.close().await.unwrap();
    }
    assert!(!directory.path().join("target.db").exists());
    // No target is configured.
    let none = Config { migration: Config::default().migration, ..good.clone() };
    let (store, migrations) = open(&none).await;
    refused(migrations.start(BY).await, ErrorKind::Restricted, "migration.target");
    store.close().await.unwrap();
    // What was not written to has nothing to move.
    let empty = tempfile::tempdir().unwrap();
    let (store, migrations) = open(&config(empty.path())).await;
    refused(migrations.start(BY).await, ErrorKind::Unsupported, "nothing was written");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_plan_tries_the_keys_of_a_sealed_target() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    let root = directory.path().join("root");
    let options = ZqliteOptions {
        path: directory.path().join("target.db"),
        root: RootOptions { secret_file: Some(root.clone()), ..RootOptions::default() },
        ..ZqliteOptions::default()
    };
    config.other_stores.get_mut("next").unwrap().backend = BackendChoice::Zqlite(options);
    let (store, migrations) = open(&config).await;
    let refused = migrations.plan().await.unwrap().refused.unwrap();
    assert!(refused.contains("gwstore keys identity new"), "{refused}");
    // Without a root secret of its own it is made beside the store, later.
    let mut beside = config.clone();
    let Some(target) = beside.other_stores.get_mut("next") else { panic!() };
    let BackendChoice::Zqlite(options) = &mut target.backend else { panic!() };
    options.root = RootOptions::default();
    store.close().await.unwrap();
    let (store, migrations) = open(&beside).await;
    assert_eq!(migrations.plan().await.unwrap().refused, None);
    assert!(!root.exists() && files_of(directory.path(), "target.db").is_empty());
    // What an earlier one left.
    std::fs::write(directory.path().join("target.db.keyring"), "left").unwrap();
    let refused = migrations.plan().await.unwrap().refused.unwrap();
    assert!(refused.contains("here lies the keyring of a store"), "{refused}");
    store.close().await.unwrap();
}

/// Until the other side is refused.
async fn errs(migrations: &Migrations) -> String {
    loop {
        if let Some(error) = migrations.status().await.unwrap().last_error {
            return error;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn files_of(directory: &Path, name: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_of =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(name);
    files.filter(is_of).collect()
}

/// Commits of series have no block, so no hash tells of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_was_put_back_is_told_from_what_the_target_follows() {
    let directory = tempfile::tempdir().unwrap();
    let saved = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    store.close().await.unwrap();
    for file in files_of(directory.path(), "source.db") {
        std::fs::copy(&file, saved.path().join(file.file_name().unwrap())).unwrap();
    }
    let (store, migrations) = open(&config).await;
    for second in 5_000..5_010 {
        store.metrics().record(point(second)).await.unwrap();
    }
    while reaches(&migrations, Stage::Mirror).await.lag != Some(0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close().await.unwrap();
    for file in files_of(directory.path(), "source.db") {
        std::fs::remove_file(file).unwrap();
    }
    for file in files_of(saved.path(), "source.db") {
        std::fs::copy(&file, directory.path().join(file.file_name().unwrap())).unwrap();
    }
    let (store, migrations) = open(&config).await;
    // The target is ahead; then it has other commits at the same positions.
    for seconds in [0..0, 6_000..6_030] {
        for second in seconds {
            store.metrics().record(point(second)).await.unwrap();
        }
        let error = errs(&migrations).await;
        assert!(error.contains("different histories"), "{error}");
        refused(migrations.advance(BY).await, ErrorKind::Corrupt, "different histories");
    }
    assert_eq!(store.info().backend.name, "libsql");
    migrations.abort(BY).await.unwrap();
    add(store.as_ref(), "goes-on").await;
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

/// What one of the two stores lacks, and how it gets it back.
fn spoil(directory: &Path, how: &str) -> Box<dyn FnOnce()> {
    let (file, aside) = (directory.join("target.db"), directory.join("aside"));
    match how {
        "gone" => {
            std::fs::rename(&file, &aside).unwrap();
            Box::new(move || std::fs::rename(aside, file).unwrap())
        }
        "cut short" => {
            std::fs::copy(&file, &aside).unwrap();
            std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(100).unwrap();
            Box::new(move || std::fs::rename(aside, file).unwrap())
        }
        how => panic!("{how}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_served_while_the_one_that_follows_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    store.close().await.unwrap();
    for how in ["gone", "cut short"] {
        let mend = spoil(directory.path(), how);
        let (store, migrations) = open(&config).await;
        add(store.as_ref(), &format!("while-{}", how.replace(' ', "-"))).await;
        let error = errs(&migrations).await;
        assert!(error.contains("cannot be opened"), "{how}: {error}");
        let status = migrations.status().await.unwrap();
        assert_eq!((status.stage, status.lag), (Stage::Unknown, None), "{how}");
        let target = status.target.location.unwrap();
        assert!(Path::new(&target).is_absolute(), "{how}: {target}");
        assert!(migrations.advance(BY).await.is_err(), "{how}");
        let reader = Opener::new(&config).read_only(true).open().await;
        drop(reader);
        mend();
        // It is taken up by itself.
        loop {
            let status = migrations.status().await.unwrap();
            if status.stage == Stage::Mirror && status.lag == Some(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.close().await.unwrap();
    }
    // Somebody else has it open.
    let target =
        Config { migration: Config::default().migration, ..config.for_store("next").unwrap() };
    let held = Opener::new(&target).create(false).open_backend().await.unwrap();
    let (store, migrations) = open(&config).await;
    add(store.as_ref(), "while-held").await;
    errs(&migrations).await;
    held.close().await.unwrap();
    while migrations.advance(BY).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(store.info().backend.name, "zqlite");
    assert!(has(store.as_ref(), "while-held") && has(store.as_ref(), "while-gone"));
    store.verify().await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_gone_for_good_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    store.close().await.unwrap();
    for file in files_of(directory.path(), "target.db") {
        std::fs::remove_file(file).unwrap();
    }
    let (store, migrations) = open(&config).await;
    errs(&migrations).await;
    migrations.abort(BY).await.unwrap();
    assert!(store.consumers().list().await.unwrap().is_empty());
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    store.close().await.unwrap();
}

/// Where a network that has moved was, no other is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_where_neither_store_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    refused(Opener::new(&config).open().await, ErrorKind::NotFound, "migration.target");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_a_move_would_lose_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (store, migrations) = open(&config).await;
    filled(store.as_ref()).await;
    let name: ConsumerName = "backup".parse().unwrap();
    store.consumers().register(name.clone(), 1 << 20).await.unwrap();
    assert!(migrations.plan().await.unwrap().refused.unwrap().contains("backup"));
    refused(migrations.start(BY).await, ErrorKind::Restricted, "backup");
    store.consumers().remove(&name).await.unwrap();
    migrations.start(BY).await.unwrap();
    reaches(&migrations, Stage::Mirror).await;
    store.consumers().register(name.clone(), 1 << 20).await.unwrap();
    refused(migrations.advance(BY).await, ErrorKind::Restricted, "backup");
    store.consumers().remove(&name).await.unwrap();
    migrations.advance(BY).await.unwrap();
    store.close().await.unwrap();
}
