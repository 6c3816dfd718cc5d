//! The self-test: the double passes it, and each way in which the double can be broken fails the step
//! that is meant for it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostwire_store_core::error::ErrorKind;
use ghostwire_store_zqlite_native::admission::{
    Effort, Examination, Outcome, Report, STEPS, Suite, SuiteRun, examine, require, verdict_path,
};
use ghostwire_store_zqlite_native::{LibraryFile, Program};
use ghostwire_zqlite_double::{Switch, install, install_without, vouch};

fn child() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_ghostwire-zqlite-native"))
}

fn examination(directory: &Path, library: PathBuf) -> Examination {
    let path = child();
    Examination {
        program: Program { path, arguments: Vec::new() },
        library,
        store: directory.join("store.db"),
        effort: Effort::REDUCED,
        limit: Duration::from_secs(60),
        suite: Suite::LeftOut,
    }
}

fn examined(directory: &Path, library: PathBuf) -> Report {
    examine(&examination(directory, library), |_| {}).unwrap()
}

/// The step that should fail does, those before it pass, and those after it are not done.
fn fails(report: &Report, expected: &str) {
    let failed: Vec<_> = report
        .steps
        .iter()
        .filter(|step| step.outcome == Outcome::Failed)
        .map(|step| (&*step.name, &*step.detail))
        .collect();
    assert!(matches!(failed[..], [(name, _)] if name == expected), "{expected}: {failed:#?}");
    let after = report.steps.iter().skip_while(|step| step.name != expected).skip(1);
    assert!(after.into_iter().all(|step| step.outcome == Outcome::Skipped));
    let error = report.require().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains(&format!("property={expected}")), "{error}");
    assert!(report.verdict.is_none());
}

/// `None`: it passes.
fn step_of(switch: Switch) -> Option<&'static str> {
    Some(match switch {
        Switch::RollbackJournal | Switch::StaleCode => return None,
        // They wait for a row that only another test writes.
        Switch::AbortsBeforeCommit | Switch::AbortsAfterCommit => return None,
        Switch::WrongAbi | Switch::AbortsAtOnce => "interface",
        Switch::OldCodes => "codes",
        Switch::SilentStep => "long-row",
        Switch::LosesOnReopen => "reopen",
        Switch::LosesOnKill => "without-close",
        Switch::FreedMemory | Switch::Aborts => "blobs",
        Switch::RollbackKeeps | Switch::RollbackFails => "rollback",
        Switch::Hangs | Switch::Leaks => "volume",
        Switch::Uncommitted => "kills-in-transaction",
        Switch::PartialCommit => "kills-in-commit",
        Switch::LogTail | Switch::JournalTail => "log-tail",
        Switch::TakesBack => "log-damage",
        Switch::FullDisk | Switch::AlwaysFull => "full-disk",
        Switch::SecondOpener | Switch::SecondAborts => "second-opener",
    })
}

#[test]
fn the_double_passes() {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let mut examination = examination(directory.path(), library.clone());
    if std::env::var_os("GHOSTWIRE_NATIVE_FULL").is_some() {
        examination.effort = Effort::FULL;
    }
    let report = examine(&examination, |_| {}).unwrap();
    let names: Vec<_> = report.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, STEPS.map(|step| step.name));
    for step in &report.steps {
        let expected = match &*step.name {
            "keys" => Outcome::Information,
            "conformance" => Outcome::NotRun,
            _ => Outcome::Passed,
        };
        assert_eq!(step.outcome, expected, "{step:?}");
    }
    // Nothing is left beside the store but what is asked for.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    let (store, sha256) =
        (directory.path().join("store.db"), LibraryFile::read(&library).unwrap().sha256());
    let error = require(&store, &library, sha256, &child()).unwrap_err();
    assert!(error.to_string().contains("was not tested"), "{error}");
    let verdict = report.require().unwrap();
    if verdict.is_full() {
        verdict.keep(&store).unwrap();
        assert_eq!(require(&store, &library, sha256, &child()).unwrap(), *verdict);
    } else {
        let error = verdict.keep(&store).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("too little"), "{error}");
        assert!(!verdict_path(&store).exists());
    }
}

fn write_verdict(store: &Path, text: &str) {
    let path = verdict_path(store);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_verdict_of_less_than_everything_opens_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let store = directory.path().join("store.db");
    let report = examined(directory.path(), library.clone());
    let sha256 = LibraryFile::read(&library).unwrap().sha256();
    let verdict = report.require().unwrap();
    assert!(!verdict.is_full());
    write_verdict(&store, &serde_json::to_string(verdict).unwrap());
    let error = require(&store, &library, sha256, &child()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("fewer kills or rows"), "{error}");
    vouch(verdict, &verdict_path(&store)).unwrap();
    require(&store, &library, sha256, &child()).unwrap();
    // Nor without the conformance suite, unless it was left out on purpose.
    let kept = fs::read_to_string(verdict_path(&store)).unwrap();
    for extent in ["part", "not-built", "under-way"] {
        let changed = kept.replacen("\"left-out\"", &format!("\"{extent}\""), 1);
        assert_ne!(changed, kept);
        write_verdict(&store, &changed);
        let error = require(&store, &library, sha256, &child()).unwrap_err();
        assert!(error.to_string().contains("less of the conformance suite"), "{extent}: {error}");
    }
    // While that is run, its own scratch stores are opened.
    let scratch = directory.path().join("store.db.native-test/conformance");
    fs::create_dir_all(&scratch).unwrap();
    let own = scratch.join("store.db");
    fs::rename(verdict_path(&store), verdict_path(&own)).unwrap();
    require(&own, &library, sha256, &child()).unwrap();
}

#[test]
fn the_conformance_suite_is_the_program_that_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let suite = |script: &str, limit: u64| {
        let mut examination = examination(directory.path(), library.clone());
        examination.effort = Effort { kills_in_transaction: 1, kills_in_commit: 1, rows: 1_000 };
        let arguments = vec!["-c".into(), script.into()];
        let program = Program { path: "/bin/sh".into(), arguments };
        let (is_whole, limit) = (true, Duration::from_secs(limit));
        examination.suite = Suite::Run(SuiteRun { program, is_whole, limit });
        examine(&examination, |_| {}).unwrap()
    };
    // A provisional verdict lies where it is run, and its last line is the step's.
    let report = suite("test -s store.db.verdict && echo table && echo 2 passed && echo", 60);
    let last = report.steps.last().unwrap();
    assert_eq!((last.outcome, &*last.detail), (Outcome::Passed, "2 passed"));
    vouch(report.require().unwrap(), &verdict_path(&directory.path().join("store.db"))).unwrap();
    let sha256 = LibraryFile::read(&library).unwrap().sha256();
    require(&directory.path().join("store.db"), &library, sha256, &child()).unwrap();
    for (script, limit, expected) in [
        ("echo note: a case failed >&2; echo note: another >&2; exit 3", 60, "a case failed"),
        ("exit 3", 60, "exit status: 3"),
        ("exec tail -f /dev/null", 1, "did not end within 1 s"),
    ] {
        let report = suite(script, limit);
        fails(&report, "conformance");
        let detail = &report.steps.last().unwrap().detail;
        assert!(detail.contains(expected), "{detail}");
    }
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "the library and the verdict: {left:?}");
}

#[test]
fn every_switch_fails_the_step_that_is_meant_for_it() {
    let is_waiting =
        |it: &&Switch| matches!(it, Switch::AbortsBeforeCommit | Switch::AbortsAfterCommit);
    for switch in Switch::ALL.iter().filter(|switch| !is_waiting(switch)) {
        let directory = tempfile::tempdir().unwrap();
        let library = install(directory.path(), Some(*switch)).unwrap();
        let mut examination = examination(directory.path(), library);
        match switch {
            Switch::Hangs => examination.limit = Duration::from_secs(20),
            Switch::Leaks => examination.effort.rows = 20_000,
            _ => examination.effort.rows = 2_000,
        }
        let report = examine(&examination, |_| {}).unwrap();
        match step_of(*switch) {
            Some(step) => fails(&report, step),
            None => drop(report.require().unwrap()),
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "{switch:?}");
    }
}

#[test]
fn a_function_that_is_missing_fails_the_first_step() {
    let directory = tempfile::tempdir().unwrap();
    let library = install_without(directory.path(), "zqlite_errsql").unwrap();
    let report = examined(directory.path(), library);
    fails(&report, "interface");
    let error = report.require().unwrap_err().to_string();
    assert!(error.contains("lacks zqlite_errsql"), "{error}");
}

#[test]
fn a_verdict_holds_for_what_was_tested() {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let store = directory.path().join("store.db");
    let report = examined(directory.path(), library.clone());
    vouch(report.require().unwrap(), &verdict_path(&store)).unwrap();
    let sha256 = LibraryFile::read(&library).unwrap().sha256();
    let kept = fs::read_to_string(verdict_path(&store)).unwrap();
    let changed = |from: &str, to: &str, expected: &str| {
        assert!(kept.contains(from), "{kept}");
        fs::write(verdict_path(&store), kept.replacen(from, to, 1)).unwrap();
        let error = require(&store, &library, sha256, &child()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("gwstore native check"), "{error}");
    };
    changed("\"Linux ", "\"Lunix ", "changed=kernel");
    changed("\"type 0x", "\"type 1x", "changed=file system");
    changed("number 0x", "number 1x", "changed=file system");
    changed("\"machine\": \"", "\"machine\": \"0", "changed=machine");
    changed("\"program\": \"", "\"program\": \"0", "changed=program");
    let version = rustix::system::uname().version().to_str().unwrap().to_owned();
    changed(&version, "#1 of another day", "changed=kernel");
    changed("\"passed\"", "\"failed\"", "another one than this version's");
    changed("\"reopen\"", "\"reopened\"", "another one than this version's");
    changed("\"form\": 3", "\"form\": 2", "was not tested");
    changed("{", "", "was not tested");
    fs::write(verdict_path(&store), &kept).unwrap();
    let error = require(&store, &library, [0; 32], &child()).unwrap_err();
    assert!(error.to_string().contains("changed=library"), "{error}");
    require(&store, &library, sha256, &child()).unwrap();
}

#[test]
fn a_verdict_that_others_may_write_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let store = directory.path().join("store.db");
    let sha256 = LibraryFile::read(&library).unwrap().sha256();
    let path = verdict_path(&store);
    let refused = || {
        let error = require(&store, &library, sha256, &child()).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("nobody else may write"), "{error}");
    };
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    refused();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused();
    fs::remove_dir(&path).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "{}").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    refused();
    fs::remove_file(&path).unwrap();
    fs::rename(&elsewhere, &path).unwrap();
    for mode in [0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refused();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = require(&store, &library, sha256, &child()).unwrap_err();
    assert!(error.to_string().contains("was not tested"), "{error}");
}

#[test]
fn one_self_test_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let library = install(directory.path(), None).unwrap();
    let scratch = directory.path().join("store.db.native-test");
    fs::create_dir(&scratch).unwrap();
    fs::write(scratch.join("1.db"), "left").unwrap();
    fs::create_dir(scratch.join("conformance")).unwrap();
    let held = fs::File::open(&scratch).unwrap();
    held.lock().unwrap();
    let mut examination = examination(directory.path(), library);
    examination.effort = Effort { kills_in_transaction: 1, kills_in_commit: 1, rows: 1_000 };
    let error = examine(&examination, |_| {}).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Busy);
    assert!(scratch.join("1.db").exists());
    // One that was broken off holds it no more.
    drop(held);
    examine(&examination, |_| {}).unwrap().require().unwrap();
    assert!(!scratch.exists());
}
