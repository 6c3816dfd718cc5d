//! zqlite on the double of the ZQLite library.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostwire_store::native::{Effort, Examination, Program, Suite, examine, verdict_path};
use ghostwire_zqlite_double::{Switch, install, vouch};

use crate::support::{Place, Ran, portable, user};

const FEW: &str = "--kills-in-transaction 2 --kills-in-commit 3 --rows 1000";

const REDUCED: &str =
    "--kills-in-transaction 2 --kills-in-commit 3 --rows 1000 --conformance-filter one-time-retry";

fn on(place: &Place, arguments: &str) -> Ran {
    let library = place.file("libzqlite_c.so");
    let set = format!("--set zqlite.engine=native --set zqlite.library={}", library.display());
    place.on("zqlite", &format!("{set} {arguments}"))
}

fn with(switch: Option<Switch>) -> (Place, PathBuf) {
    let place = Place::new();
    let library = install(place.file("x").parent().unwrap(), switch).unwrap();
    (place, library)
}

/// Keeps the verdict of a short test.
fn forge(place: &Place, library: &Path) {
    let program = Program {
        path: env!("CARGO_BIN_EXE_gwstore").into(),
        arguments: vec![ghostwire_store::native::CHILD.into()],
    };
    let store = place.file("zqlite.db");
    let effort = Effort { kills_in_transaction: 1, kills_in_commit: 1, rows: 1_000 };
    let (library, limit) = (library.to_owned(), Duration::from_secs(120));
    let (path, suite) = (verdict_path(&store), Suite::LeftOut);
    let examination = Examination { program, library, store, effort, limit, suite };
    let report = examine(&examination, |_| {}).unwrap();
    vouch(report.require().unwrap(), &path).unwrap();
}

#[test]
fn a_network_moves_to_the_native_engine_and_back() {
    let (place, library) = with(None);
    let checked = on(&place, &format!("native check {REDUCED}")).ok();
    checked.says(&[
        "interface",
        "kills-in-commit",
        "second-opener",
        "conformance",
        " 0 failed",
        "passed",
        "no verdict is kept",
    ]);
    on(&place, "list users").refused(&["there is no store"]);
    forge(&place, &library);
    on(&place, "init").ok().says(&["Made a zqlite store"]);
    place.write("new.jsonl", portable(&[&user(1, "ada"), &user(2, "bob")]));
    on(&place, "import portable new.jsonl").ok();
    on(&place, "list users").ok().says(&["ada", "bob"]);
    on(&place, "status").ok().says(&["native (double (SQLite))"]);
    on(&place, "verify").ok();
    let digest = on(&place, "digest --json").ok().json();
    on(&place, "export all.jsonl").ok();
    place.on("libsql", "import portable all.jsonl --create").ok();
    assert_eq!(place.digest("libsql"), digest);
    // The other engine leaves it alone.
    place.on("zqlite", "status").refused(&["set zqlite.engine to `native`"]);
    on(&place, "compact").refused(&["export it, and import it into a new one"]);
    // Another library is not used, whatever it is.
    let kept = fs::read(&library).unwrap();
    install(library.parent().unwrap(), Some(Switch::LosesOnReopen)).unwrap();
    on(&place, "list users").refused(&["changed: library", "gwstore native check"]);
    on(&place, &format!("native check {REDUCED}")).ended(3).refused(&["property: reopen"]);
    on(&place, "list users").refused(&["changed: library"]);
    fs::write(&library, kept).unwrap();
    on(&place, "list users").ok().says(&["ada", "bob"]);
}

#[test]
fn a_library_that_fails_is_named_with_its_property() {
    let (place, library) = with(Some(Switch::RollbackKeeps));
    let named = format!("native check {} {REDUCED}", library.display());
    let ran = on(&place, &named).ended(3);
    ran.refused(&["did not pass the self-test", "property: rollback", "`embedded`"]);
    let ran = on(&place, &format!("--json {named}")).ended(3);
    let found = ran.json();
    assert_eq!((&found["passed"], &found["verdict_kept"]), (&false.into(), &false.into()));
    let steps = found["steps"].as_array().unwrap();
    let outcome = |name: &str| {
        let step = steps.iter().find(|step| step["name"] == name).unwrap();
        step["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome("blobs"), "passed");
    assert_eq!(outcome("rollback"), "failed");
    assert_eq!(outcome("kills-in-commit"), "skipped");
    assert_eq!(outcome("conformance"), "skipped");
    assert!(!place.file("zqlite.db.verdict").exists());
    // `init` tests it, too, and makes nothing.
    on(&place, "init").refused(&["property: rollback"]);
    assert!(!place.file("zqlite.db").exists());
}

#[test]
fn the_conformance_suite_is_the_last_step() {
    let (place, _library) = with(None);
    let step = |ran: &Ran| {
        let found = ran.json();
        let last = found["steps"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["name"], "conformance");
        (last["outcome"].as_str().unwrap().to_owned(), last["detail"].as_str().unwrap().to_owned())
    };
    // Processes that are killed find the library, too.
    let killed = format!("--json native check {FEW} --conformance-filter an_import_that_is_killed");
    let (outcome, detail) = step(&on(&place, &killed).ok());
    assert_eq!(outcome, "passed", "{detail}");
    assert!(detail.ends_with(" 0 failed, 0 excepted"), "{detail}");
    let unknown = format!("--json native check {FEW} --conformance-filter no-such-case");
    let ran = on(&place, &unknown).ended(3);
    let (outcome, detail) = step(&ran);
    assert_eq!(outcome, "failed");
    assert!(detail.contains("nothing has this in its name"), "{detail}");
    assert_eq!(ran.error()["context"]["property"], "conformance");
    let without = format!("native check {FEW} --without-conformance");
    let (outcome, detail) = step(&on(&place, &format!("--json {without}")).ok());
    assert_eq!(outcome, "not run");
    assert!(detail.contains("left out"), "{detail}");
    on(&place, &without).ok().says(&["conformance", "not run", "left out", "no verdict is kept"]);
    on(&place, &format!("{without} --conformance-filter x")).ended(2);
    // Neither a verdict nor what it was tried on is left.
    let left: Vec<_> = fs::read_dir(place.file("")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "only the library is left: {left:?}");
    // By hand the suite takes the verdict that is kept.
    forge(&place, &place.file("libzqlite_c.so"));
    let ran = on(&place, "conformance one-time-retry").ok();
    assert!(ran.out.contains(" 0 failed, 0 excepted"), "{ran:#?}");
}

#[test]
fn a_file_that_is_no_library_to_load_is_refused() {
    let (place, library) = with(None);
    let check = |place: &Place| on(place, &format!("native check {REDUCED}"));
    fs::set_permissions(&library, fs::Permissions::from_mode(0o775)).unwrap();
    check(&place).refused(&["may write the ZQLite library", "chmod go-w"]);
    fs::rename(&library, place.file("real.so")).unwrap();
    check(&place).refused(&["there is no ZQLite library"]);
    std::os::unix::fs::symlink(place.file("real.so"), &library).unwrap();
    check(&place).refused(&["symbolic link"]);
    fs::remove_file(&library).unwrap();
    fs::write(&library, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&library, fs::Permissions::from_mode(0o755)).unwrap();
    check(&place).refused(&["ELF"]);
    place.on("libsql", "native check").refused(&["choose that backend"]);
    place.on("zqlite", "native check").refused(&["name it"]);
}
