//! Stores that are not what they should be, and disks that are full.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use ghostwire_store::Opener;
use ghostwire_store::domain::NewUser;

use crate::support::{BACKENDS, Place, command_in, dump, places, portable, run_in, user};

/// Every command that opens a store.
const COMMANDS: [&str; 8] = [
    "status",
    "digest",
    "list nodes",
    "export out.jsonl",
    "upgrade",
    "import portable more.jsonl",
    "import headscale dump.sql",
    "doctor",
];

/// None of the commands works on it, all say why, and the file stays as it is.
#[track_caller]
fn refused_by_all(place: &Place, backend: &str, words: &[&str]) {
    place.write("more.jsonl", portable(&[&user(1, "ann")]));
    fs::copy(dump("request_tags_migration_test.sql"), place.file("dump.sql")).unwrap();
    let name = format!("{backend}.db");
    let before = place.read(&name);
    for command in COMMANDS {
        let mut ran = place.on(backend, command);
        // The doctor's findings are its result.
        ran.err.push_str(&ran.out);
        ran.refused(words);
        assert_eq!(place.read(&name), before, "{command}");
    }
    assert!(!place.file("out.jsonl").exists());
}

#[test]
fn a_truncated_store() {
    for (backend, place) in places() {
        place.filled(backend);
        let name = format!("{backend}.db");
        let whole = place.read(&name);
        place.write(&name, &whole[..whole.len() / 2]);
        refused_by_all(&place, backend, &["cut short", &name]);
    }
}

#[test]
fn a_flipped_byte_is_found_by_the_doctor_at_the_latest() {
    for (backend, place) in places() {
        place.filled(backend);
        let name = format!("{backend}.db");
        let mut bytes = place.read(&name);
        let at = bytes.windows(10).position(|window| window == b"ada-laptop");
        assert_eq!(at.is_none(), backend == "zqlite", "a sealed store shows no name");
        match at {
            Some(at) => bytes[at] ^= 1,
            // One in every page.
            None => bytes.iter_mut().skip(6_000).step_by(4_096).for_each(|byte| *byte ^= 1),
        }
        place.write(&name, bytes);
        place.on(backend, "doctor").ended(3).says(&["FAIL"]);
    }
}

/// Killed as soon as a file appears, a little later, and so on, until it gets to its end.
#[test]
fn an_init_that_is_killed_can_be_repeated() {
    for backend in BACKENDS {
        let name = format!("{backend}.db");
        let arguments = ["--backend", backend, "--path", name.as_str(), "init"];
        let keys: &[_] = match backend {
            "zqlite" => &[".root", ".keyring.lock", ".keyring.unused", ".keyring"],
            _ => &[".key"],
        };
        for suffix in [".lock", "", "-journal", "-wal", "-shm"].iter().chain(keys) {
            for patience in [0, 1_000, 100_000] {
                let place = Place::new();
                let file = place.file(&format!("{name}{suffix}"));
                let mut init = command_in(&place.file("."), &arguments).spawn().unwrap();
                let mut ended = false;
                while !ended && !file.exists() {
                    ended = init.try_wait().unwrap().is_some();
                }
                for _ in 0..patience {
                    std::hint::spin_loop();
                }
                init.kill().unwrap();
                init.wait().unwrap();
                let again = place.on(backend, "init");
                if again.code != 0 {
                    again.refused(&["left as it is"]);
                }
                place.on(backend, "status").ok();
                if backend == "zqlite" {
                    place.on(backend, "keys verify").ok().says(&["opens the store"]);
                    continue;
                }
                let key = String::from_utf8(place.read(&(name.clone() + ".key"))).unwrap();
                assert_eq!(key.trim().len(), 64, "after `{suffix}` and {patience}: {key:?}");
            }
        }
    }
}

#[test]
fn a_foreign_file() {
    for (backend, place) in places() {
        let name = format!("{backend}.db");
        place.init(backend);
        place.write(&name, "this is a shopping list, and quite a long one at that\n".repeat(10));
        refused_by_all(&place, backend, &["not a ghostwire-store file", &name]);
        place.on(backend, "init").refused(&["left as it is"]);
    }
}

#[test]
fn a_store_with_a_trigger_that_swallows_what_is_written() {
    // Other tests open stores in this process, and libsql sets SQLite up before anybody uses it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ghostwire_store::prepare_process()).unwrap();
    for (backend, table, words) in [
        ("libsql", "users", &["DROP TRIGGER \"swallow\"", "libsql.db"][..]),
        ("zqlite", "rows", &["layout", "zqlite.db"]),
    ] {
        let place = Place::new();
        place.init(backend);
        let connection = rusqlite::Connection::open(place.file(&format!("{backend}.db"))).unwrap();
        let trigger = format!(
            "CREATE TRIGGER swallow BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END"
        );
        connection.execute_batch(&trigger).unwrap();
        connection.close().unwrap();
        refused_by_all(&place, backend, words);
    }
}

#[test]
fn the_other_backends_file() {
    let place = Place::new();
    place.init("libsql");
    fs::copy(place.file("libsql.db"), place.file("zqlite.db")).unwrap();
    fs::copy(place.file("libsql.db.key"), place.file("zqlite.db.key")).unwrap();
    refused_by_all(&place, "zqlite", &["belongs to the libsql backend"]);
}

#[test]
fn a_store_that_another_process_holds() {
    let place = Place::new();
    place.init("zqlite");
    let config = place.config("zqlite");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let opener = Opener::new(&config).admin_socket_served(false);
    let store = runtime.block_on(opener.open()).unwrap();
    let held = place.on("zqlite", "status --json").refused(&[]);
    assert_eq!(held.code, 75, "a timer can try again");
    let held = held.error();
    assert_eq!(held["kind"], "busy");
    assert_eq!(held["context"]["pid"], std::process::id().to_string());
    assert!(held["help"][0].as_str().unwrap().contains("serves no admin socket"), "{held}");
    // That a store is in use is no fault of it, but nobody knows whether it is in order.
    for json in ["", " --json"] {
        place.on("zqlite", &format!("doctor{json}")).ended(75).says(&["another process"]);
    }
    runtime.block_on(store.close()).unwrap();
    place.on("zqlite", "status").ok();
}

/// What a process that is killed after six commits leaves.
fn left_by_a_kill(backend: &str, suffixes: &[&str]) -> Place {
    let (place, left) = (Place::new(), Place::new());
    place.init(backend);
    let config = place.config(backend);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Opener::new(&config).open().await.unwrap();
        for number in 0..6 {
            let user = NewUser::local(format!("user-{number}").parse().unwrap());
            store.users().create(user).await.unwrap();
        }
        copy_store(&place, &left, backend, suffixes);
        store.close().await.unwrap();
    });
    left
}

fn copy_store(from: &Place, to: &Place, backend: &str, suffixes: &[&str]) {
    let keys = if backend == "zqlite" { [".keyring", ".root"].as_slice() } else { &[".key"] };
    for suffix in suffixes.iter().chain(keys) {
        let name = format!("{backend}.db{suffix}");
        fs::copy(from.file(&name), to.file(&name)).unwrap();
    }
}

/// SQLite takes what is before the damage for all of it, and the store opens as an older one.
#[test]
fn a_log_that_lost_commits() {
    for backend in BACKENDS {
        let left = left_by_a_kill(backend, &["", "-wal"]);
        let status = left.on(backend, "status --json").ok().json();
        assert_eq!(status["backend"]["log"]["ended_early"], false, "{status}");
        assert_eq!(status["serial"], 6);
        let log = format!("{backend}.db-wal");
        let mut bytes = left.read(&log);
        bytes[100] ^= 1;
        left.write(&log, bytes);
        left.on(backend, "status")
            .ok()
            .says(&["acknowledged commits may be missing"])
            .warns(&["acknowledged commits may be missing"]);
        left.on(backend, "doctor").ended(3).says(&["FAIL  log: "]);
    }
}

/// Only the index beside it tells, which SQLite writes anew.
#[test]
fn a_log_that_was_cut_is_told_of_until_somebody_writes() {
    const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
    for backend in BACKENDS {
        let whole = left_by_a_kill(backend, &SUFFIXES);
        let log = format!("{backend}.db-wal");
        let length = whole.read(&log).len();
        for command in [
            "status",
            "digest",
            "doctor",
            "clock show",
            "import portable more.jsonl --dry-run",
            "import portable more.jsonl",
            "compact",
        ] {
            for (length, is_cut) in [(length, false), (length * 2 / 3, true)] {
                let left = Place::new();
                copy_store(&whole, &left, backend, &SUFFIXES);
                left.write("more.jsonl", portable(&[&user(1, "ann")]));
                let bytes = left.read(&log);
                left.write(&log, &bytes[..length]);
                // Nobody hears of it by that.
                left.on(backend, "digest --json").ok();
                let ran = left.on(backend, command);
                let is_told = ran.err.contains("acknowledged commits may be missing");
                assert_eq!(is_told, is_cut, "{ran:#?}");
                if command == "doctor" {
                    let found = if is_cut { "FAIL  log: " } else { "no commit is known" };
                    assert!(ran.out.contains(found), "{ran:#?}");
                }
            }
        }
        // There is nothing to compare it with.
        fs::remove_file(whole.file(&format!("{backend}.db-shm"))).unwrap();
        whole.on(backend, "doctor").ok().says(&["its index (-shm) is not there"]);
    }
}

#[test]
fn a_lost_or_foreign_key() {
    let place = Place::new();
    place.init("libsql");
    fs::remove_file(place.file("libsql.db.key")).unwrap();
    let file = dump("request_tags_migration_test.sql");
    place.unchanged("libsql", &["libsql.db.key"], || {
        place.on("libsql", &format!("import headscale {file}"))
    });
    place.on("libsql", "doctor").ended(3).says(&["FAIL  hash key"]);
    place.write("libsql.db.key", "not a key");
    place.unchanged("libsql", &["key"], || place.on("libsql", &format!("import headscale {file}")));
}

/// A small file system that goes with it.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills the file system up to so many bytes.
fn fill_but(filler: &Path, left: u64) {
    let mut file = fs::File::create(filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let length = file.metadata().unwrap().len();
    file.set_len(length - left).unwrap();
}

#[test]
fn a_full_disk() {
    for (backend, place) in places() {
        let small = place.file("small");
        fs::create_dir(&small).unwrap();
        let Some(_tmpfs) = Tmpfs::mount(&small, "1m") else {
            eprintln!("skipped: no file system can be mounted here");
            return;
        };
        place.sample();
        let run = |arguments: &str| {
            let options = format!("--backend {backend} --path s.db {arguments}");
            run_in(&small, &options.split_whitespace().collect::<Vec<_>>(), None)
        };
        run("init").ok();
        let before = run("digest --json").ok().json();
        // Room for the engine's side files, but not for the sample's entities.
        fill_but(&small.join("filler"), 128 * 1024);
        let failed = run("import portable ../sample.jsonl --json").refused(&[]).error();
        assert_eq!(failed["kind"], "exhausted", "{failed}");
        place.on(backend, "import portable sample.jsonl --create").ok();
        let full = place.on(backend, "export small/out.jsonl --json").refused(&["out.jsonl"]);
        assert_eq!(full.error()["kind"], "exhausted");
        let left: Vec<_> = fs::read_dir(&small).unwrap().flatten().map(|e| e.file_name()).collect();
        let is_ours = |name: &std::ffi::OsString| name.to_string_lossy().contains(".gwstore");
        assert!(!left.iter().any(is_ours), "{left:?}");
        fs::remove_file(small.join("filler")).unwrap();
        // The trail says that it was begun.
        let after = run("digest --json").ok().json();
        assert_eq!((&after["state"], &after["metrics"]), (&before["state"], &before["metrics"]));
    }
}

#[test]
fn a_disk_without_room_for_a_store_is_named_so_and_stays_empty() {
    for (backend, size) in
        BACKENDS.into_iter().flat_map(|backend| [(backend, "32k"), (backend, "40k")])
    {
        let place = Place::new();
        let small = place.file("small");
        fs::create_dir(&small).unwrap();
        let Some(_tmpfs) = Tmpfs::mount(&small, size) else {
            eprintln!("skipped: no file system can be mounted here");
            return;
        };
        let arguments = ["--json", "--backend", backend, "--path", "s.db", "init"];
        let ran = run_in(&small, &arguments, None);
        assert_eq!(ran.refused(&[]).error()["kind"], "exhausted");
        assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    }
}

#[test]
fn a_read_only_file_system() {
    for (backend, place) in places() {
        let small = place.file("small");
        fs::create_dir(&small).unwrap();
        let Some(_tmpfs) = Tmpfs::mount(&small, "1m") else {
            eprintln!("skipped: no file system can be mounted here");
            return;
        };
        let run = |arguments: &str| {
            let options = format!("--backend {backend} --path s.db {arguments}");
            run_in(&small, &options.split_whitespace().collect::<Vec<_>>(), None)
        };
        run("init").ok();
        place.write("small/more.jsonl", portable(&[&user(1, "ann")]));
        let before = run("digest --json").ok().json();
        let remount = |how: &str| {
            let mut command = Command::new("mount");
            let done = command.args(["-o", &format!("remount,{how}")]).arg(&small).status();
            assert!(done.unwrap().success());
        };
        remount("ro");
        run("import portable more.jsonl").refused(&["read-only", "s.db"]);
        run("export out.jsonl").refused(&["out.jsonl"]);
        run("doctor").ended(3).says(&["FAIL  directory"]);
        // Reading needs no more than reading.
        assert_eq!(run("digest --json").ok().json(), before);
        remount("rw");
        assert_eq!(run("digest --json").ok().json(), before);
    }
}
