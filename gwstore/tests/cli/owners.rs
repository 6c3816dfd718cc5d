//! A service's store that root looks after. Needs root, and is skipped without.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{BACKENDS, Place, Ran, portable, user};

const SERVICE: u32 = 65534;

/// A directory that the service owns, and a program that it may run.
struct Machine {
    place: Place,
    program: PathBuf,
}

impl Machine {
    fn new() -> Option<Self> {
        let place = Place::new();
        let directory = place.file("");
        if chown(&directory, Some(SERVICE), Some(SERVICE)).is_err() {
            eprintln!("skipped: only root can give files to others");
            return None;
        }
        let built = PathBuf::from(env!("CARGO_BIN_EXE_gwstore"));
        let program = match command(&built, &directory).arg("--version").output() {
            Ok(ran) if ran.status.success() => built,
            // It lies where only root can go.
            _ => {
                let copy = place.file("program");
                fs::copy(built, &copy).unwrap();
                copy
            }
        };
        Some(Self { place, program })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.place.file(name)
    }

    /// Runs the program as the service.
    fn service(&self, arguments: &str) -> Ran {
        let mut command = command(&self.program, &self.file(""));
        Ran::of(command.args(arguments.split_whitespace()).output().unwrap())
    }

    fn owner(&self, name: &str) -> u32 {
        fs::metadata(self.file(name)).unwrap().uid()
    }
}

fn command(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(SERVICE).gid(SERVICE).current_dir(directory).stdin(Stdio::null());
    command
}

#[test]
fn what_root_makes_is_the_services() {
    for backend in BACKENDS {
        let Some(machine) = Machine::new() else { return };
        let on = format!("--backend {backend} --path new/s.db");
        machine.place.run(&format!("{on} init")).ok().says(&["belongs to user 65534"]);
        let keys = match backend {
            "zqlite" => [".keyring", ".keyring.lock", ".root"].as_slice(),
            _ => &[".key"],
        };
        for end in ["", ".lock"].iter().chain(keys) {
            assert_eq!(machine.owner(&format!("new/s.db{end}")), SERVICE, "{end}");
        }
        assert_eq!(machine.owner("new"), SERVICE);
        machine.place.write("more.jsonl", portable(&[&user(1, "ann")]));
        machine.service(&format!("{on} import portable more.jsonl")).ok();
        // A restored backup has no lock.
        fs::remove_file(machine.file("new/s.db.lock")).unwrap();
        machine.place.run(&format!("{on} status")).ok();
        machine.place.run(&format!("{on} compact")).ok();
        machine.place.run(&format!("{on} doctor")).ok();
        machine.service(&format!("{on} digest")).ok();
        machine.service(&format!("{on} import portable more.jsonl")).ok();
        machine.service(&format!("{on} doctor")).ok().says(&["are user 65534's"]);
    }
}

#[test]
fn a_key_elsewhere_is_made_for_the_stores_user() {
    let Some(machine) = Machine::new() else { return };
    fs::create_dir(machine.file("etc")).unwrap();
    let on = "--backend libsql --path s.db --set secret_key_file=etc/key";
    machine.place.run(&format!("{on} init")).ok();
    assert_eq!((machine.owner("etc"), machine.owner("etc/key")), (0, SERVICE));
    machine.service(&format!("{on} doctor")).ok();
}

#[test]
fn a_lock_of_roots_keeps_the_service_out_and_everybody_is_told() {
    for backend in BACKENDS {
        let Some(machine) = Machine::new() else { return };
        let on = format!("--backend {backend} --path s.db");
        machine.place.run(&format!("{on} init")).ok();
        machine.place.write("more.jsonl", portable(&[&user(1, "ann")]));
        let lock = machine.file("s.db.lock");
        chown(&lock, Some(0), Some(0)).unwrap();
        for command in ["status", "export -", "import portable more.jsonl", "digest"] {
            let ran = machine.service(&format!("{on} {command}"));
            ran.refused(&["s.db.lock", "belongs to another user", "chown"]);
        }
        for doctor in
            [machine.service(&format!("{on} doctor")), machine.place.run(&format!("{on} doctor"))]
        {
            assert_eq!(doctor.code, 3, "{doctor:#?}");
            assert!(doctor.out.contains("FAIL  owners"), "{doctor:#?}");
            assert!(doctor.out.contains("s.db.lock to user 0"), "{doctor:#?}");
            assert!(doctor.out.contains("chown 65534"), "{doctor:#?}");
        }
        machine.service(&format!("{on} doctor")).says(&["FAIL  opening"]);
    }
}

#[test]
fn a_key_that_cannot_be_looked_up_is_not_taken_for_none() {
    let Some(machine) = Machine::new() else { return };
    fs::create_dir(machine.file("keys")).unwrap();
    let on = "--backend zqlite --path s.db --set secret_key_file=keys/key";
    machine.place.run(&format!("{on} init")).ok();
    fs::set_permissions(machine.file("keys"), fs::Permissions::from_mode(0o700)).unwrap();
    machine.place.write("more.jsonl", portable(&[&user(1, "ann")]));
    machine.service(&format!("{on} import portable more.jsonl")).refused(&["keys/key"]);
    machine.service(&format!("{on} doctor")).ended(3).says(&["FAIL  hash key"]);
}

#[test]
fn a_file_that_may_not_be_read_is_not_imported_and_the_advice_fits() {
    for backend in BACKENDS {
        let Some(machine) = Machine::new() else { return };
        let on = format!("--backend {backend} --path s.db");
        machine.place.run(&format!("{on} init")).ok();
        let own = machine.place.write("own.jsonl", portable(&[&user(1, "ann")]));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
        for import in ["portable", "headscale"] {
            let ran = machine.service(&format!("{on} import {import} own.jsonl")).ended(5);
            ran.refused(&[
                "own.jsonl",
                "Permission denied",
                "help: let this process's user read it",
            ]);
        }
        // Nor is a store damaged that this user may not read.
        chown(machine.file("s.db"), Some(0), Some(0)).unwrap();
        let doctor = machine.service(&format!("{on} doctor")).ended(3);
        assert!(!doctor.says(&["run this as the store's user"]).out.contains("backup"));
    }
}

#[test]
fn a_directory_that_cannot_be_listed_is_a_check_that_was_not_made() {
    let Some(machine) = Machine::new() else { return };
    let on = "--backend libsql --path s.db";
    machine.place.run(&format!("{on} init")).ok();
    fs::set_permissions(machine.file(""), fs::Permissions::from_mode(0o300)).unwrap();
    machine.service(&format!("{on} doctor")).ended(6).says(&["skip  leftovers"]);
    fs::set_permissions(machine.file(""), fs::Permissions::from_mode(0o700)).unwrap();
    machine.service(&format!("{on} doctor")).ok();
}

#[test]
fn a_reader_without_rights_does_not_read_beside_a_writer() {
    for backend in BACKENDS {
        let Some(machine) = Machine::new() else { return };
        let on = format!("--backend {backend} --path data/s.db");
        machine.place.run(&format!("{on} init")).ok();
        // Root's own, which others may read: a writer may come at any time.
        chown(machine.file("data"), Some(0), Some(0)).unwrap();
        for (name, mode) in [("data", 0o755), ("data/s.db", 0o644)] {
            fs::set_permissions(machine.file(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::remove_file(machine.file("data/s.db.lock")).unwrap();
        machine.service(&format!("{on} status")).refused(&["no lock", "s.db.lock", "read a copy"]);
        fs::set_permissions(machine.file("data"), fs::Permissions::from_mode(0o555)).unwrap();
        machine.service(&format!("{on} status")).ok().warns(&["without a lock"]);
        assert!(!machine.file("data/s.db.lock").exists());
    }
}
