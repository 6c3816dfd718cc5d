//! Beside a process that has the store open: this one, or one that is started for it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ghostwire_store::config::Config;
use ghostwire_store::domain::NewUser;
use ghostwire_store::{Opener, Store};
use tokio::runtime::Runtime;

use crate::support::{BACKENDS, Place, command_in};

/// What the line on standard error says.
const SAID: &str = "has the store open; asking it by";

/// A store that this process has open.
struct Held {
    runtime: Runtime,
    store: Arc<dyn Store>,
}

impl Held {
    fn of(config: &Config) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(Opener::new(config).create(false).open()).unwrap();
        Self { runtime, store }
    }

    fn at(place: &Place, backend: &str) -> Self {
        Self::of(&place.config(backend))
    }

    fn close(self) {
        self.runtime.block_on(self.store.close()).unwrap();
    }
}

/// What only reads, and gives the same as long as nothing is written.
const LOOKS: &[&str] = &[
    "digest",
    "digest --json",
    "export -",
    "list users --json --all",
    "list nodes --all --absolute-times",
    "list nodes -o json",
    "list presence --json",
    "list routes --json",
    "list sessions --json",
    "list metrics --all --json",
    "list metrics --limit 7 --json",
    "audit list --all --json",
    "audit list --limit 3 --absolute-times",
    "policy get",
    "policy list --json",
    "setting get network",
    "dns list --json",
    "preauthkey list --json",
    "apikey list --json",
    "consumers show",
    "user show nobody-of-this-name",
    "user list --name alice --json",
    "user list --name nobody-of-this-name --json",
    "node list --limit 2 --json",
    "node list --limit 1 --absolute-times",
    "node list --user alice --json",
    "node list --user nobody-of-this-name",
    "node list --online --json",
    "node list --not-seen-since 1s --json",
    "node list --expired=false --limit 1 --json",
    "node show nothing-of-this-name",
    "route list --approved --limit 1 --json",
    "route list --limit 1 --json",
    "preauthkey list --active --json",
    "session list --expired=false --json",
    "dns list --limit 1 --json",
    "policy list --limit 1 --json",
    "list instances --limit 1 --json",
    "list presence --limit 1 --json",
    "list metrics --network --limit 2 --json",
    "audit list --subject alice --json",
    "audit list --newest-first --limit 2 --json",
    "node delete --expired --dry-run --json",
    "verify",
];

#[test]
fn a_store_that_is_open_looks_as_it_does_when_it_is_closed() {
    for backend in BACKENDS {
        let place = Place::new();
        place.filled(backend);
        let look = |command: &&str| place.on(backend, command);
        // Whatever opening to write does to a store has been done before.
        Held::at(&place, backend).close();
        let closed: Vec<_> = LOOKS.iter().map(look).collect();
        let held = Held::at(&place, backend);
        let open: Vec<_> = LOOKS.iter().map(look).collect();
        held.close();
        for ((command, closed), open) in LOOKS.iter().zip(closed).zip(open) {
            assert_eq!(closed.out, open.out, "{backend}: {command}");
            assert_eq!(closed.code, open.code, "{backend}: {command}");
            assert!(open.err.contains(SAID), "{backend}: {command}: {open:#?}");
            assert!(!closed.err.contains(SAID), "{backend}: {command}: {closed:#?}");
        }
    }
}

#[test]
fn what_depends_on_the_moment_works_beside_the_process_too() {
    for backend in BACKENDS {
        let place = Place::new();
        place.filled(backend);
        let held = Held::at(&place, backend);
        let serial = held.store.view().serial().get();
        let status = place.on(backend, "status --json").ok().json();
        assert_eq!(status["serial"], serial);
        assert_eq!(status["counts"]["node"], held.store.view().nodes().len());
        place.on(backend, "doctor").says(&["rows and blocks are whole"]).warns(&[SAID]);
        place.on(backend, "clock show --json").ok();
        let checkpoint = place.on(backend, "checkpoint --json").ok().json();
        assert_eq!(checkpoint["checkpoint"], serial);
        if backend == "zqlite" {
            place.on(backend, "attest").ok().says(&["attestation"]);
        }
        let quiet = place.on(backend, "digest --quiet").ok();
        assert_eq!(quiet.err, "", "the quiet are told nothing");
        let watched = place.on(backend, "watch --after 0 --count 1 --json").ok().items();
        assert_eq!((watched.len(), &watched[0]["serial"]), (1, &1.into()));
        held.close();
        place.on(backend, "checkpoint").ok().says(&["everything up to serial"]).omits(SAID);
        place.on(backend, "watch").ended(4).warns(&["nobody who serves", "gwstore serve"]);
    }
}

#[test]
fn edits_go_through_the_process_that_has_the_store_open() {
    for backend in BACKENDS {
        let place = Place::new();
        place.filled(backend);
        let held = Held::at(&place, backend);
        let before = held.store.view().serial().get();
        place.on(backend, "user create zoe").ok().says(&["created user zoe"]).warns(&[SAID]);
        place.on(backend, "user create zoe").ended(5).warns(&["already exists", "name"]);
        place.on(backend, "user rename zoe zora --dry-run").ok().says(&["zoe -> zora"]);
        place.on(backend, "user rename zoe zora").ok().says(&["name: zoe -> zora"]);
        let made = place.on(backend, "preauthkey create --user zora --json").ok().json();
        assert!(made["secret"].as_str().unwrap().len() > 20);
        place.on(backend, "apikey create").ok();
        place.on(backend, "dns create zora.example.com A 192.0.2.7").ok();
        place.on(backend, "dns delete zora.example.com --yes").ok().says(&["deleted"]);
        place.on(backend, "user delete zora --yes --expect-revision 99").ended(5);
        let view = held.store.view();
        assert!(view.users().iter().any(|user| user.name.as_str() == "zora"));
        assert!(
            view.preauth_keys()
                .iter()
                .any(|key| Some(key.id.to_string()) == made["id"].as_str().map(str::to_owned))
        );
        assert!(view.serial().get() > before);
        let trail = place.on(backend, "audit list --all --json").ok().items();
        let newest = trail.last().unwrap();
        assert_eq!(newest["action"], "dns_record.delete", "{newest}");
        assert!(newest["actor"].as_str().unwrap().starts_with("cli:"), "{newest}");
        assert!(newest["user_agent"].as_str().unwrap().starts_with("admin socket, user "));
        // What it brings is there for others at once, and stays.
        let created = NewUser::local("yves".parse().unwrap());
        held.runtime.block_on(held.store.users().create(created)).unwrap();
        place.on(backend, "user show yves").ok();
        let digest = place.digest(backend);
        held.close();
        assert_eq!(place.digest(backend), digest);
    }
}

#[test]
fn commits_are_watched_while_they_come() {
    let place = Place::new();
    place.init("libsql");
    let held = Held::at(&place, "libsql");
    let after = held.store.view().serial().get().to_string();
    let arguments =
        ["--backend", "libsql", "--path", "libsql.db", "watch", "--after", &after, "--quiet"];
    let mut watching = command_in(&place.file(""), &arguments).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for name in ["ann", "bea"] {
        place.on("libsql", &format!("user create {name}")).ok();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("created user"), "{line}");
    }
    held.close();
    assert!(lines.next().is_none(), "it ends with the store");
    assert!(watching.wait().unwrap().success());
}

#[test]
fn what_the_program_does_not_do_is_refused() {
    let place = Place::new();
    place.init("libsql");
    let held = Held::at(&place, "libsql");
    for command in ["config reload", "log level debug --for 10m"] {
        place.on("libsql", command).ended(1).warns(&["does not do this on its admin socket"]);
    }
    place.on("libsql", "log level debug --for now").ended(1).warns(&["longer time"]);
    place.write("new.jsonl", crate::support::portable(&[&crate::support::user(1, "ada")]));
    for (command, why) in [
        ("import portable new.jsonl", "many commits"),
        ("compact", "written anew"),
        ("upgrade", "older schema"),
    ] {
        place.on("libsql", command).ended(75).warns(&[why, "systemctl stop"]);
    }
    // What only looks says what it found, also to the quiet.
    place.on("libsql", "--quiet verify").ok().says(&["whole"]);
    place.on("libsql", "--quiet checkpoint").ok().says(&["serial"]);
    place.on("libsql", "--quiet consumers show").ok().says(&["Nobody follows"]);
    held.close();
}

#[test]
fn the_clock_is_put_right_and_keys_are_looked_at_beside_the_process() {
    for backend in BACKENDS {
        let place = Place::new();
        place.filled(backend);
        let held = Held::at(&place, backend);
        place.on(backend, "clock repair --yes").ok().says(&["nothing to do"]).warns(&[SAID]);
        place.on(backend, "clock accept").ended(5).warns(&["confirmation"]);
        let accepted = place.on(backend, "clock accept --yes --json").ok().json();
        assert_eq!(accepted["accepted"], true);
        let trail = place.on(backend, "audit list --newest-first --limit 1 --json").ok().items();
        assert_eq!(trail[0]["action"], "clock.accept");
        assert!(trail[0]["actor"].as_str().unwrap().starts_with("cli:"));
        if backend == "zqlite" {
            place.on(backend, "keys verify").ok().says(&["opens the store"]).warns(&[SAID]);
            let older = place.read("zqlite.db.keyring");
            place.on(backend, "keys rotate").ok();
            let newest = place.read("zqlite.db.keyring");
            place.write("zqlite.db.keyring", &older);
            place.on(backend, "keys verify").ended(3).warns(&["newest copy"]);
            place.write("zqlite.db.keyring", &newest);
            place.on(backend, "keys verify").ok();
            place.on(backend, "keys reseal").ok().says(&["records are sealed"]);
            let lines = place.on(backend, "audit list --entity keyring --json").ok().items();
            assert_eq!(lines[0]["action"], "keyring.rotate");
            assert!(lines[0]["actor"].as_str().unwrap().starts_with("cli:"));
            place.on(backend, "pin show").ended(75).warns(&["moves the pin"]);
        }
        held.close();
    }
}

#[test]
fn a_process_that_serves_no_socket_keeps_others_out_and_they_are_told() {
    let place = Place::new();
    place.init("libsql");
    let mut config = place.config("libsql");
    config.admin.socket = false;
    let held = Held::of(&config);
    for command in ["status", "user create ann", "digest", "verify", "checkpoint"] {
        let ran = place.on("libsql", command).ended(75);
        ran.warns(&["another process", "serves no admin socket", "libsql.db.sock"]);
    }
    held.close();
}

#[test]
fn the_socket_is_where_the_configuration_says() {
    let place = Place::new();
    place.init("libsql");
    let deep = format!("{}/elsewhere.sock", "d".repeat(150));
    std::fs::create_dir(place.file(&"d".repeat(150))).unwrap();
    let mut config = place.config("libsql");
    config.admin.path = Some(place.file(&deep));
    let held = Held::of(&config);
    assert!(!place.file("libsql.db.sock").exists());
    place.on("libsql", "status").ended(75);
    place.on("libsql", &format!("--set admin.path={deep} status")).ok().warns(&[SAID]);
    // A second store has to have a socket of its own.
    place.init("zqlite");
    let mut other = place.config("zqlite");
    other.admin.path = config.admin.path;
    let refused = held.runtime.block_on(Opener::new(&other).create(false).open()).unwrap_err();
    assert!(refused.to_string().contains("another process serves"), "{refused}");
    held.close();
    place.on("zqlite", "status").ok();
}

/// Holds a store until it is killed. Started by other tests, as a process of its own.
#[test]
#[ignore = "a process that other tests start"]
#[allow(clippy::print_stdout)]
fn holder() {
    let path = std::env::var("HELD_STORE").unwrap();
    let overrides =
        vec![("backend".to_owned(), "libsql".to_owned()), ("libsql.path".to_owned(), path)];
    let request = ghostwire_store::config::LoadRequest { overrides, ..Default::default() };
    let config = ghostwire_store::config::load(&request, &Default::default()).unwrap();
    let _held = Held::of(&config);
    println!("held");
    loop {
        std::thread::park();
    }
}

fn start_holder(place: &Place) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["live::holder", "--exact", "--ignored", "--nocapture"]);
    command.env("HELD_STORE", place.file("libsql.db")).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().contains("held")));
    child
}

#[test]
fn what_a_killed_process_leaves_is_in_nobodys_way() {
    let place = Place::new();
    place.init("libsql");
    let mut holder = start_holder(&place);
    place.on("libsql", "user create ann").ok().warns(&[SAID]);
    let mut second = Command::new(std::env::current_exe().unwrap());
    second.args(["live::holder", "--exact", "--ignored"]);
    let second = second.env("HELD_STORE", place.file("libsql.db")).output().unwrap();
    assert!(!second.status.success(), "of two holders the second is refused");
    place.on("libsql", "user show ann").ok().warns(&[SAID]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(place.file("libsql.db.sock").exists(), "it was killed");
    place.on("libsql", "user show ann").ok().omits(SAID);
    place.on("libsql", "user create bea").ok().omits(SAID);
    let held = Held::at(&place, "libsql");
    place.on("libsql", "user show bea").ok().warns(&[SAID]);
    held.close();
    assert!(!place.file("libsql.db.sock").exists());
}

/// Whom nothing belongs.
const STRANGER: u32 = 65534;

#[test]
fn another_user_is_told_what_would_let_him_in() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let place = Place::new();
    if chown(place.file(""), Some(0), Some(0)).is_err() {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    place.init("libsql");
    let open = |name: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.file(name), permissions).unwrap();
    };
    open("", 0o755);
    std::fs::copy(env!("CARGO_BIN_EXE_gwstore"), place.file("program")).unwrap();
    let stranger = |arguments: &str| {
        let mut command = Command::new(place.file("program"));
        command.uid(STRANGER).gid(STRANGER).current_dir(place.file("")).stdin(Stdio::null());
        command.args(["--backend", "libsql", "--path", "libsql.db"]);
        crate::support::Ran::of(command.args(arguments.split(' ')).output().unwrap())
    };
    let held = Held::at(&place, "libsql");
    for command in ["status", "user create ann"] {
        let ran = stranger(command).ended(5);
        let words = ["libsql.db.sock", "socket_user: 0", "socket_group: 0", "0600", "admin.group"];
        ran.warns(&words);
    }
    // Whatever mode the file has, the kernel says who it is.
    open("libsql.db.sock", 0o666);
    stranger("status").ended(5).warns(&["does not answer this user", "user: 65534", "help:"]);
    held.close();
    let mut config = place.config("libsql");
    config.admin.group = Some(STRANGER.to_string());
    // As the unit has it: the group goes through, and reads nothing.
    chown(place.file(""), Some(0), Some(STRANGER)).unwrap();
    open("", 0o710);
    let held = Held::of(&config);
    stranger("status").ok().warns(&[SAID]);
    stranger("user create ann").ok();
    stranger("doctor").ended(6).says(&["skip  files", "ok    integrity", " 0 failed"]);
    held.close();
}

/// Copies a store that nobody has open, with what lies beside it.
fn copied(place: &Place, from: &str, to: &str) {
    for entry in std::fs::read_dir(place.file("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(rest) = name.strip_prefix(from) {
            std::fs::copy(place.file(&name), place.file(&format!("{to}{rest}"))).unwrap();
        }
    }
}

#[test]
fn a_socket_at_a_place_of_its_own_speaks_for_the_store_that_it_serves() {
    for backend in BACKENDS {
        let place = Place::new();
        place.init(backend);
        place.on(backend, "user create alice").ok();
        let live = format!("{backend}.db");
        copied(&place, &live, "copy.db");
        std::os::unix::fs::symlink(place.file(&live), place.file("link.db")).unwrap();
        place.write("bad.db", b"no store at all, but more than nothing".repeat(300));
        let mut config = place.config(backend);
        config.admin.path = Some(place.file("admin.sock"));
        let held = Held::of(&config);
        let on = |path: &str, command: &str| {
            let options = format!("--backend {backend} --path {path} --set admin.path=admin.sock");
            place.run(&format!("{options} {command}"))
        };
        let other = "serves another store";
        on(&live, "user show alice").ok().warns(&[SAID]).omits(other);
        on("copy.db", "verify").ok().warns(&[other, &live]).omits(SAID);
        on("copy.db", "user delete alice --yes").ok().warns(&[other]);
        on("copy.db", "user show alice").ended(4);
        on(&live, "user show alice").ok();
        on("link.db", "user show alice").ok().warns(&[SAID]);
        let bad = on("bad.db", "verify").warns(&[other]);
        assert!(bad.code != 0 && !bad.out.contains("whole"), "{bad:#?}");
        for command in ["watch", "config reload", "log level debug", "health", "metrics"] {
            on("copy.db", command).ended(5).warns(&[other, "copy.db", &live, "--set admin.path"]);
        }
        held.close();
    }
}

#[test]
fn of_two_stores_that_name_one_socket_each_is_edited_in_its_own_files() {
    let place = Place::new();
    place.write(
        "feature-flags.toml",
        "[development]\nstore = \"live\"\nadmin.path = \"admin.sock\"\n\
         [development.stores.live]\nbackend = \"libsql\"\npath = \"libsql.db\"\n\
         [development.stores.next]\nbackend = \"zqlite\"\npath = \"next.db\"\n",
    );
    place.run("init").ok();
    place.run("--store next init").ok();
    let mut config = place.config("libsql");
    config.admin.path = Some(place.file("admin.sock"));
    let held = Held::of(&config);
    place.run("user create ann").ok().warns(&[SAID]);
    place.run("--store next user create bea").ok().omits(SAID);
    place.run("user show bea").ended(4);
    held.close();
    place.run("--store next user show bea").ok();
    place.run("--store next user show ann").ended(4);
}
