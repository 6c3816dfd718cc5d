//! The native engine, on the double of its library.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use common::{Everything, all, commit_block, delete, options, put, read, sealed};
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_zqlite::{EngineChoice, NativeOptions, ZqliteBackend, ZqliteOptions};
use ghostwire_store_zqlite_native::Program;
use ghostwire_store_zqlite_native::admission::{
    Effort, Examination, LIMIT, Suite, Verdict, examine, verdict_path,
};
use ghostwire_zqlite_double::{Switch, install, vouch};
use libtest_mimic::{Arguments, Trial};
use tempfile::TempDir;

const CHILD: &str = "--zqlite-native";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(CHILD) {
        return ghostwire_store_zqlite_native::child::run();
    }
    macro_rules! trials {
        ($($name:ident,)+) => { vec![$(Trial::test(stringify!($name), || {
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on($name());
            Ok(())
        })),+] };
    }
    let trials = trials![
        what_is_stored_is_there_again,
        engines_refuse_each_others_files,
        without_a_verdict_nothing_is_made,
        another_library_opens_nothing,
        a_library_is_replaced_while_the_store_is_open,
        a_child_that_is_killed_is_replaced,
        a_child_that_is_killed_while_it_commits_loses_nothing,
        a_snapshot_stays_while_others_write,
        a_copy_from_before_a_migration_needs_no_library,
        a_database_that_is_gone_is_not_made_anew,
        a_flipped_bit_is_refused_or_reads_the_same,
        a_database_whose_store_file_is_gone_is_left_alone,
        what_only_works_on_one_file_is_refused,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The double, found fit for the directory for temporary files.
struct Double {
    library: PathBuf,
    verdict: Verdict,
    _directory: TempDir,
}

static DOUBLE: LazyLock<Double> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let examination = Examination {
        program: program(),
        library: library.clone(),
        store: directory.path().join("store.db"),
        effort: Effort { kills_in_transaction: 1, kills_in_commit: 1, rows: 1_000 },
        limit: LIMIT,
        suite: Suite::LeftOut,
    };
    let report = examine(&examination, |_| {}).unwrap();
    Double { library, verdict: report.require().unwrap().clone(), _directory: directory }
});

fn program() -> Program {
    Program { path: std::env::current_exe().unwrap(), arguments: vec![CHILD.into()] }
}

/// A place for a store that the double may be used for.
fn place() -> (TempDir, PathBuf) {
    let (directory, path) = common::directory();
    vouch(&DOUBLE.verdict, &verdict_path(&path)).unwrap();
    (directory, path)
}

fn on_native(options: ZqliteOptions) -> ZqliteOptions {
    options.native(NativeOptions::new(&DOUBLE.library, program()))
}

async fn open(path: &Path) -> ZqliteBackend {
    ZqliteBackend::open(on_native(sealed(path))).await.unwrap()
}

fn database(path: &Path) -> PathBuf {
    path.with_file_name("store.db.native")
}

/// The child that has this store open.
fn child_of(path: &Path) -> u32 {
    let database = database(path).canonicalize().unwrap();
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let own = std::process::id();
    let mut found = numbers.filter(|number| *number != own).filter(|number| {
        let files = fs::read_dir(format!("/proc/{number}/fd")).into_iter().flatten().flatten();
        files.map(|file| fs::read_link(file.path())).any(|it| it.is_ok_and(|it| it == database))
    });
    found.next().unwrap()
}

fn kill(child: u32) {
    let ended = std::process::Command::new("kill").args(["-9", &child.to_string()]).status();
    assert!(ended.unwrap().success());
}

async fn what_is_stored_is_there_again() {
    for by in [options, sealed] {
        let (_directory, path) = place();
        let backend = ZqliteBackend::open(on_native(by(&path))).await.unwrap();
        assert_eq!(backend.info().engine, "native (double (SQLite))");
        for number in 0..40 {
            let long = vec![7; usize::try_from(number).unwrap() * 1_000];
            commit_block(&backend, vec![put(Table::Users, number, long)]).await;
        }
        commit_block(&backend, vec![delete(Table::Users, 3), put(Table::Users, 4, "other")]).await;
        backend.verify().await.unwrap();
        let before = read(&backend).await.unwrap();
        backend.close().await.unwrap();
        let backend = ZqliteBackend::open(on_native(by(&path)).create(false)).await.unwrap();
        assert_eq!(read(&backend).await.unwrap(), before);
        assert_eq!(before.rows.len(), 39);
        backend.close().await.unwrap();
        // Read only, too, by two at once.
        let only = || on_native(by(&path)).create(false).read_only(true);
        let one = ZqliteBackend::open(only()).await.unwrap();
        let two = ZqliteBackend::open(only()).await.unwrap();
        assert_eq!(read(&one).await.unwrap(), before);
        assert_eq!(read(&two).await.unwrap(), before);
    }
}

async fn engines_refuse_each_others_files() {
    let (_directory, path) = place();
    open(&path).await.close().await.unwrap();
    let native = fs::read(&path).unwrap();
    let error = ZqliteBackend::open(sealed(&path)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("set zqlite.engine to `native`"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), native);

    let (_directory, path) = place();
    ZqliteBackend::open(sealed(&path)).await.unwrap().close().await.unwrap();
    let embedded = fs::read(&path).unwrap();
    let error = ZqliteBackend::open(on_native(sealed(&path))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("set zqlite.engine to `embedded`"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), embedded);
    assert!(!database(&path).exists());
}

async fn without_a_verdict_nothing_is_made() {
    let (directory, path) = common::directory();
    let error = ZqliteBackend::open(on_native(sealed(&path))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("was not tested"), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let error = ZqliteBackend::open(sealed(&path).engine(EngineChoice::Native)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("zqlite.library"), "{error}");
}

async fn another_library_opens_nothing() {
    let (directory, path) = place();
    open(&path).await.close().await.unwrap();
    let other = install(directory.path(), Some(Switch::RollbackKeeps)).unwrap();
    let options = sealed(&path).native(NativeOptions::new(other, program()));
    let error = ZqliteBackend::open(options).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("changed=library"), "{error}");
    open(&path).await.close().await.unwrap();
}

async fn a_library_is_replaced_while_the_store_is_open() {
    let (directory, path) = place();
    let library = install(directory.path(), None).unwrap();
    let options = || sealed(&path).native(NativeOptions::new(&library, program()));
    let backend = ZqliteBackend::open(options()).await.unwrap();
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    install(directory.path(), Some(Switch::LosesOnReopen)).unwrap();
    // What is loaded goes on.
    commit_block(&backend, vec![put(Table::Users, 2, "b")]).await;
    let before = read(&backend).await.unwrap();
    kill(child_of(&path));
    let error = read(&backend).await.unwrap_err();
    assert!(error.to_string().contains("the process of the ZQLite library"), "{error}");
    // Another child is not started with other bytes.
    let error = read(&backend).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("was replaced"), "{error}");
    let error = backend.reopen().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    drop(backend);
    install(directory.path(), None).unwrap();
    let backend = ZqliteBackend::open(options()).await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
}

async fn a_child_that_is_killed_is_replaced() {
    let (_directory, path) = place();
    let backend = open(&path).await;
    commit_block(&backend, vec![put(Table::Users, 1, "a")]).await;
    let before = read(&backend).await.unwrap();
    kill(child_of(&path));
    let error = read(&backend).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable);
    assert_eq!(read(&backend).await.unwrap(), before);
    kill(child_of(&path));
    backend.reopen().await.unwrap();
    assert_eq!(read(&backend).await.unwrap(), before);
    commit_block(&backend, vec![put(Table::Users, 2, "b")]).await;
    // A commit that has not begun is not stored; one that had, nobody knows of.
    kill(child_of(&path));
    let head = backend.head().await.unwrap();
    let block = common::block_after(&head, 100);
    let commit = ghostwire_store_core::backend::Commit {
        block: Some(block),
        ..ghostwire_store_core::backend::Commit::on(&head)
    };
    let error = backend.commit(&commit).await.unwrap_err();
    let kinds = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
    assert!(kinds.contains(error.kind()), "{error}");
    // The child was gone before it was told to commit.
    assert_eq!(backend.reopen().await.unwrap(), head);
    backend.commit(&commit).await.unwrap();
    backend.close().await.unwrap();
}

async fn a_child_that_is_killed_while_it_commits_loses_nothing() {
    let (_directory, path) = place();
    let backend = open(&path).await;
    let mut acknowledged = 0;
    for round in 0..12_u32 {
        let child = child_of(&path);
        let killer = std::thread::spawn(move || {
            // At some moment of the commits below.
            std::thread::sleep(Duration::from_micros(u64::from(round) * 700));
            kill(child);
        });
        let mut is_unknown = false;
        for number in 0.. {
            let head = backend.head().await.unwrap();
            let rows = (0..20).map(|row| put(Table::Users, row, vec![7; 3_000])).collect();
            let block = Some(common::block_after(&head, 20_000));
            let on = ghostwire_store_core::backend::Commit::on(&head);
            let commit = ghostwire_store_core::backend::Commit { block, rows, ..on };
            match backend.commit(&commit).await {
                Ok(()) => acknowledged = head.serial.next().get(),
                Err(error) => {
                    let kinds = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown];
                    assert!(kinds.contains(error.kind()), "{round} {number}: {error}");
                    is_unknown = *error.kind() == ErrorKind::OutcomeUnknown;
                    break;
                }
            }
        }
        killer.join().unwrap();
        let found = backend.reopen().await.unwrap().serial.get();
        // What is unavailable is not stored, and says so.
        let is_right = found == acknowledged || (is_unknown && found == acknowledged + 1);
        assert!(is_right, "{found} {acknowledged} {is_unknown}");
        acknowledged = found;
        backend.verify().await.unwrap();
    }
}

async fn a_snapshot_stays_while_others_write() {
    let (_directory, path) = place();
    let backend = std::sync::Arc::new(open(&path).await);
    let rows = |body: u8| (0..300).map(|row| put(Table::Users, row, vec![body; 500])).collect();
    commit_block(&*backend, rows(0)).await;
    let reader = {
        let backend = std::sync::Arc::clone(&backend);
        tokio::spawn(async move {
            for _ in 0..40 {
                let rows = backend.scan(all(Table::Users)).await.unwrap().rows;
                assert_eq!(rows.len(), 300);
                let first = rows[0].body[0];
                assert!(rows.iter().all(|row| row.body == vec![first; 500]));
            }
        })
    };
    for body in 1..40 {
        commit_block(&*backend, rows(body)).await;
    }
    reader.await.unwrap();
    backend.verify().await.unwrap();
}

async fn a_copy_from_before_a_migration_needs_no_library() {
    let (_directory, path) = place();
    let older = on_native(sealed(&path)).schema(Schema::at(1).unwrap());
    let backend = ZqliteBackend::open(older).await.unwrap();
    for number in 0..10 {
        commit_block(&backend, vec![put(Table::Users, number, vec![7; 9_000])]).await;
    }
    let before = read(&backend).await.unwrap();
    backend.migrate(Schema::current()).await.unwrap();
    backend.close().await.unwrap();
    let copy = path.with_file_name("store.db.v1.bak");
    let embedded = ZqliteBackend::open(sealed(&copy).create(false)).await.unwrap();
    let Everything { head, rows, blocks } = read(&embedded).await.unwrap();
    assert_eq!((head.serial, rows, blocks), (before.head.serial, before.rows, before.blocks));
    embedded.verify().await.unwrap();
}

async fn a_flipped_bit_is_refused_or_reads_the_same() {
    let (_directory, path) = place();
    let backend = ZqliteBackend::open(on_native(sealed(&path))).await.unwrap();
    for number in 0..40 {
        commit_block(&backend, vec![put(Table::Users, number, vec![7; 300])]).await;
    }
    let before = read(&backend).await.unwrap();
    backend.close().await.unwrap();
    let database = database(&path);
    let whole = fs::read(&database).unwrap();
    let (mut refused, mut same) = (0, 0);
    for at in (0..whole.len()).step_by(whole.len() / 200) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&database, flipped).unwrap();
        match ZqliteBackend::open(on_native(sealed(&path)).create(false)).await {
            Ok(backend) => {
                match read(&backend).await {
                    Ok(found) => {
                        assert!(found == before, "byte {at}");
                        same += 1;
                    }
                    Err(_) => refused += 1,
                }
                let _ = backend.close().await;
            }
            Err(_) => refused += 1,
        }
        // What the library has made of it.
        for suffix in ["-wal", "-shm", "-journal"] {
            let mut beside = database.clone().into_os_string();
            beside.push(suffix);
            let _ = fs::remove_file(beside);
        }
    }
    assert!(refused > 50 && same > 0, "{refused} refused, {same} the same");
}

async fn a_database_that_is_gone_is_not_made_anew() {
    let (directory, path) = place();
    open(&path).await.close().await.unwrap();
    fs::rename(database(&path), directory.path().join("away")).unwrap();
    let error = ZqliteBackend::open(on_native(sealed(&path))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("is missing"), "{error}");
    assert!(!database(&path).exists());
    fs::rename(directory.path().join("away"), database(&path)).unwrap();
    open(&path).await.close().await.unwrap();
    // What is in the library's file is checked by its seal.
    let backend = open(&path).await;
    commit_block(&backend, vec![put(Table::Users, 1, vec![7; 2_000])]).await;
    let displaced = directory.path().join("away");
    fs::rename(database(&path), &displaced).unwrap();
    let head = backend.head().await.unwrap();
    let block = Some(common::block_after(&head, 100));
    let on = ghostwire_store_core::backend::Commit::on(&head);
    let commit = ghostwire_store_core::backend::Commit { block, ..on };
    let error = backend.commit(&commit).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
}

async fn a_database_whose_store_file_is_gone_is_left_alone() {
    let (directory, path) = place();
    open(&path).await.close().await.unwrap();
    let marker = fs::read(&path).unwrap();
    let stored = fs::read(database(&path)).unwrap();
    // Without what says which store was here, too.
    for gone in [&path, &path.with_file_name("store.db.lock")] {
        fs::remove_file(gone).unwrap();
    }
    for options in [on_native(sealed(&path)), sealed(&path)] {
        let error = ZqliteBackend::open(options).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("here lies the database"), "{error}");
        assert_eq!(fs::read(database(&path)).unwrap(), stored);
    }
    fs::write(&path, marker).unwrap();
    open(&path).await.close().await.unwrap();
    // What was being made is removed, and nothing else.
    let (_other, path) = place();
    for left in ["store.db.native.new", "store.db.native.new-wal"] {
        fs::write(path.with_file_name(left), "left").unwrap();
    }
    open(&path).await.close().await.unwrap();
    assert!(!path.with_file_name("store.db.native.new").exists());
    // What is no file of the library's is not opened.
    let aside = directory.path().join("aside");
    fs::rename(database(&path), &aside).unwrap();
    std::os::unix::fs::symlink(&aside, database(&path)).unwrap();
    let error = ZqliteBackend::open(on_native(sealed(&path))).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidArgument);
}

async fn what_only_works_on_one_file_is_refused() {
    let (_directory, path) = place();
    open(&path).await.close().await.unwrap();
    let options = || on_native(sealed(&path)).create(false);
    for refused in [
        ZqliteBackend::compact(options()).await.map(drop),
        ZqliteBackend::seal(options()).await.map(drop),
        ZqliteBackend::unseal(options()).await.map(drop),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("export the store"), "{error}");
    }
    assert!(verdict_path(&path).exists());
}
