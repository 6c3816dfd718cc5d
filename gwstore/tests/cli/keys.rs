//! The keyring of a sealed store: made, listed, changed, and refused.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Place, Ran, command_in, portable, user};

const PASSPHRASE: &str = "correct horse battery staple";

impl Place {
    fn keys(&self, arguments: &str) -> Ran {
        self.on("zqlite", &format!("keys {arguments}"))
    }

    fn sealed() -> Self {
        let place = Self::new();
        place.init("zqlite");
        place
    }

    /// Makes an identity, and gives its fingerprint and its line.
    fn identity(&self, name: &str) -> (String, String) {
        let made = self.run(&format!("keys identity new {name} --json")).ok().json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("fingerprint"), text("recipient"))
    }

    fn listed(&self) -> Value {
        self.keys("list --json").ok().json()
    }

    fn generation(&self) -> u64 {
        self.listed()["generation"].as_u64().unwrap()
    }

    fn keyring(&self) -> PathBuf {
        self.file("zqlite.db.keyring")
    }

    /// Every secret that has a file here.
    fn secrets(&self) -> Vec<String> {
        let mut found = vec![PASSPHRASE.to_owned()];
        for entry in fs::read_dir(self.file("")).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let lines = text.iter().flat_map(|text| text.lines());
            found.extend(lines.filter(|it| it.starts_with("AGE-SECRET-KEY-")).map(str::to_owned));
        }
        found
    }

    /// Refused with this exit code and these words, without a secret and without a change.
    #[track_caller]
    fn refuses(&self, code: i32, arguments: &str, words: &[&str]) -> Ran {
        let before = fs::read(self.keyring()).ok();
        let ran = self.keys(arguments).ended(code);
        for word in words {
            assert!(ran.err.contains(word), "{word:?}: {ran:#?}");
        }
        for secret in self.secrets() {
            assert!(!ran.err.contains(&secret) && !ran.out.contains(&secret), "{ran:#?}");
        }
        assert_eq!(fs::read(self.keyring()).ok(), before, "{arguments}");
        ran
    }
}

#[test]
fn init_makes_keyring_and_root_secret_and_says_what_that_does_not_protect() {
    let place = Place::new();
    place.on("zqlite", "init").ok().says(&["zqlite.db.keyring", "zqlite.db.root", "lies beside"]);
    for name in ["zqlite.db.keyring", "zqlite.db.root"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(place.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    for name in ["zqlite.db.key", "zqlite.db.keyring.unused", "zqlite.db.keyring.new"] {
        assert!(!place.file(name).exists(), "{name}");
    }
    let status = place.on("zqlite", "status --json").ok().json();
    let listed = place.listed();
    assert_eq!(status["store"], listed["store"]);
    assert_eq!(status["keyring"]["generation"], 1);
    assert_eq!(status["keyring"]["data_key_versions"], serde_json::json!([1]));
    assert_eq!(status["keyring"]["recipients"][0], listed["recipients"][0]["fingerprint"]);
    assert_eq!(listed["hash_keys"].as_array().unwrap().len(), 1);
    place.on("zqlite", "status").ok().says(&["keyring", "generation 1"]);
    place.keys("list").ok().says(&["data key", "hash key", "seals", "unlocks the store"]);
    place.keys("verify").ok().says(&["in order", "opens the store"]);
    place.on("zqlite", "doctor").ok().says(&["sealing", "for development"]);
}

#[test]
fn another_environment_has_to_say_where_the_root_secret_is() {
    let place = Place::new();
    let flags = "[production]\nbackend = 'zqlite'\n[production.zqlite]\npath = 'zqlite.db'\n";
    place.write("feature-flags.toml", flags);
    let on = |arguments: &str| place.run(&format!("--environment production {arguments}"));
    on("init").ended(1).warns(&["root secret", "production", "keys identity new"]);
    assert!(!place.keyring().exists() && !place.file("zqlite.db").exists());
    let doctor = on("doctor").ended(3).says(&["FAIL  sealing", "does not say where it is kept"]);
    assert!(!doctor.out.contains("makes both"), "{doctor:#?}");
    place.write("feature-flags.toml", format!("{flags}root_secret_file = 'root.txt'\n"));
    let doctor = on("doctor").ended(3).says(&["FAIL  sealing", "root.txt"]);
    assert!(!doctor.out.contains("makes both"), "{doctor:#?}");
    place.identity("root.txt");
    on("doctor").says(&["warn  sealing", "`gwstore init` makes both"]);
    on("init").ok().says(&["Made its keyring", "Back the keyring up"]);
    on("status").ok();
    assert!(!place.file("zqlite.db.root").exists());
    // It is not read by others, though it is right.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(place.file("root.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    on("status").ended(1).warns(&["mode 0644", "chmod 600"]);
    fs::remove_file(place.file("root.txt")).unwrap();
    on("status").ended(1).warns(&["root.txt", "is not there"]);
    let two = format!("{flags}root_secret_file = 'a'\nroot_passphrase_file = 'b'\n");
    place.write("feature-flags.toml", two);
    on("status").ended(1).warns(&["one place", "root_secret_file", "root_passphrase_file"]);
}

#[test]
fn a_variable_a_credential_or_a_passphrase_unlocks_a_store() {
    let place = Place::new();
    place.identity("root.txt");
    let line = String::from_utf8(place.read("root.txt")).unwrap();
    let line = line.lines().last().unwrap().to_owned();
    place.write("pass.txt", format!("{PASSPHRASE}\n"));
    for name in ["pass.txt", "root.txt"] {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(place.file(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    for (path, setting) in [
        ("v.db", "root_secret_variable=TEST_ROOT"),
        ("c.db", "root_secret_credential=root.txt"),
        ("c.db", "root_secret_credential=ghostwire-root"),
        ("p.db", "root_passphrase_file=pass.txt"),
    ] {
        let run = |command: &str, with_root: bool| {
            let arguments =
                format!("--backend zqlite --path {path} --set zqlite.{setting} {command}");
            let arguments: Vec<_> = arguments.split_whitespace().collect();
            let mut command = command_in(&place.file(""), &arguments);
            if with_root {
                command.env("TEST_ROOT", &line).env("CREDENTIALS_DIRECTORY", place.file(""));
            }
            Ran::of(command.output().unwrap())
        };
        if setting.ends_with("root.txt") {
            // A name without a dot is all that the configuration takes.
            run("init", true).ended(1).warns(&["malformed"]);
            fs::copy(place.file("root.txt"), place.file("ghostwire-root")).unwrap();
            continue;
        }
        run("init", true).ok();
        run("status", true).ok();
        if !setting.contains("passphrase") {
            run("status", false).ended(1).warns(&["root secret"]);
        }
        assert!(!place.file(&format!("{path}.root")).exists());
    }
    place.write("pass.txt", "correct horse");
    let wrong = "--backend zqlite --path p.db --set zqlite.root_passphrase_file=pass.txt status";
    place.run(wrong).ended(1).warns(&["passphrase does not unlock"]).omits("horse");
}

#[test]
fn a_store_can_have_recipients_before_it_is_made() {
    let place = Place::new();
    place.keys("init").ok().says(&["Made a keyring"]);
    place.refuses(5, "init", &["already"]);
    let (fingerprint, line) = place.identity("escrow.txt");
    place.keys(&format!("add-recipient {line} --label escrow")).ok();
    place.keys("verify").ok().says(&["2 recipients", "still to be made"]);
    let store = place.listed()["store"].clone();
    place.init("zqlite");
    assert_eq!(place.on("zqlite", "status --json").ok().json()["store"], store);
    assert_eq!(place.listed()["recipients"][1]["fingerprint"], fingerprint.as_str());
    place.refuses(5, "init", &["made before its store"]);
}

#[test]
fn an_escrow_holder_opens_and_recovers_a_store() {
    let place = Place::sealed();
    let (fingerprint, line) = place.identity("escrow.txt");
    place.refuses(1, "list --identity escrow.txt", &["does not unlock", &fingerprint]);
    place.write("line.txt", format!("# escrow\n{line}\n"));
    let added = place.keys("add-recipient line.txt --label escrow").ok();
    added.says(&[&fingerprint, "generation 2"]);
    assert_eq!(place.keys(&format!("export-recipient {fingerprint}")).ok().out.trim(), line);
    place.keys("list --identity escrow.txt").ok().says(&["escrow"]);
    // The root secret is lost.
    fs::remove_file(place.file("zqlite.db.root")).unwrap();
    place.refuses(1, "list", &["zqlite.db.root", "is not there"]);
    place.keys("verify --identity escrow.txt").ok().says(&["opens the store"]);
    place.identity("new.txt");
    place.keys("change-root --file new.txt --identity escrow.txt").ok().says(&["new.txt"]);
    let set = "--set zqlite.root_secret_file=new.txt";
    place.on("zqlite", &format!("{set} status")).ok();
    place.on("zqlite", &format!("{set} keys list")).ok().says(&["escrow"]);
}

#[test]
fn recipients_are_checked() {
    let place = Place::sealed();
    let (fingerprint, line) = place.identity("other.txt");
    let root = place.keys("export-recipient").ok().out.trim().to_owned();
    assert!(root.starts_with("age1pq1"));
    place.refuses(5, &format!("add-recipient {root}"), &["already"]);
    place.refuses(1, &format!("add-recipient {}", &line[..line.len() - 1]), &["age1pq1"]);
    place.refuses(1, "add-recipient age1xyz", &["age1pq1"]);
    place.refuses(4, "add-recipient nowhere", &["no line age1pq1", "nowhere"]);
    place.refuses(1, "add-recipient other.txt", &["is secret"]);
    place.write("empty.txt", "# nothing\n");
    place.refuses(1, "add-recipient empty.txt", &["no line age1pq1"]);
    let label = "x".repeat(65);
    place.refuses(1, &format!("add-recipient {line} --label {label}"), &["64"]);
    place.refuses(4, &format!("export-recipient {fingerprint}"), &["not sealed to this"]);
    place.refuses(2, "add-recipient", &["recipient"]);
    place.refuses(5, "identity new other.txt", &["other.txt"]);
}

#[test]
fn the_root_secret_changes_and_the_old_one_opens_nothing_new() {
    let place = Place::sealed();
    place.refuses(2, "change-root", &["--file"]);
    place.refuses(1, "change-root --file nowhere", &["nowhere", "is not there"]);
    place.refuses(5, "change-root --file zqlite.db.root", &["already"]);
    place.write("pass.txt", PASSPHRASE);
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(place.file("pass.txt"), fs::Permissions::from_mode(0o644)).unwrap();
    place.refuses(1, "change-root --passphrase-file pass.txt", &["chmod 600"]);
    fs::set_permissions(place.file("pass.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    place.keys("change-root --passphrase-file pass.txt").ok();
    place.refuses(1, "list", &["does not unlock"]);
    let set = "--set zqlite.root_passphrase_file=pass.txt";
    let status = place.on("zqlite", &format!("{set} status --json")).ok().json();
    assert_eq!(status["keyring"]["passphrase"], true);
    place.on("zqlite", &format!("{set} keys verify")).ok();
}

#[test]
fn keys_rotate_and_what_was_there_stays_readable() {
    let place = Place::new();
    place.filled("zqlite");
    let before = place.digest("zqlite");
    place.keys("rotate").ok().says(&["new data key"]);
    let listed = place.listed();
    let versions = listed["data_keys"].as_array().unwrap().iter();
    assert_eq!(versions.map(|key| key["version"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(listed["rotating_from"], Value::Null);
    assert_eq!(place.digest("zqlite"), before);
    place.keys("rotate --hash-key").ok().says(&["new hash key"]);
    let listed = place.listed();
    let ids: Vec<_> = listed["hash_keys"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids.len(), 2);
    let credentials = &place.on("zqlite", "status --json").ok().json()["credentials"];
    assert_eq!(&credentials["key_id"], ids[1]);
    assert_eq!(place.digest("zqlite"), before);
    place.on("zqlite", "doctor").says(&["opens, generation"]);
}

#[test]
fn the_hash_key_in_the_keyring_is_not_rotated_where_another_hashes() {
    let place = Place::new();
    let on =
        |arguments: &str| place.on("zqlite", &format!("--set secret_key_file=apart {arguments}"));
    on("init").ok();
    let before = fs::read(place.keyring()).unwrap();
    on("keys rotate --hash-key").ended(5).warns(&[
        "key in a file",
        "secret_key_file: ",
        "apart",
        "append a line of 64 hex digits",
    ]);
    assert_eq!(fs::read(place.keyring()).unwrap(), before);
    let listed = on("keys list").ok().says(&["unused"]);
    assert!(!listed.out.contains("hashes"), "{listed:#?}");
    on("keys rotate").ok();
}

#[test]
fn an_identity_is_not_printed() {
    let place = Place::new();
    place.run("keys identity new -").ended(2).warns(&["name a file"]);
    assert!(!place.file("-").exists());
}

#[test]
fn advice_on_sealing_fits_the_backend() {
    let place = Place::new();
    place.init("libsql");
    place
        .on("libsql", "seal")
        .ended(1)
        .warns(&["backend: libsql", "gwstore export", "import portable"])
        .omits("sealed = false");
    place.on("zqlite", "--set zqlite.sealed=false init").ok();
    place
        .on("zqlite", "--set zqlite.sealed=false seal")
        .ended(1)
        .warns(&["leave zqlite.sealed = false out"]);
}

#[test]
fn a_keyring_that_is_not_the_stores_is_refused_with_the_reason() {
    let place = Place::sealed();
    let first = fs::read(place.keyring()).unwrap();
    let (_, line) = place.identity("escrow.txt");
    place.keys("rotate").ok();
    place.keys(&format!("add-recipient {line}")).ok();
    let newest = fs::read(place.keyring()).unwrap();
    // Of before the rotation: the head knows a later one.
    fs::write(place.keyring(), &first).unwrap();
    place.on("zqlite", "status").ended(1).warns(&["keyring", "older"]);
    place.refuses(3, "verify", &["older"]);
    place.refuses(1, "rotate", &["older"]);
    // Another store's.
    let other = Place::sealed();
    fs::write(place.keyring(), fs::read(other.keyring()).unwrap()).unwrap();
    place.on("zqlite", "status").ended(1).warns(&["does not unlock"]);
    let root = place.read("zqlite.db.root");
    fs::write(place.file("zqlite.db.root"), other.read("zqlite.db.root")).unwrap();
    place.on("zqlite", "status").ended(1).warns(&["keyring"]);
    place.refuses(3, "verify", &["keyring"]);
    fs::write(place.file("zqlite.db.root"), root).unwrap();
    // Damaged, and from the future.
    for at in [0, 30, newest.len() / 2, newest.len() - 1] {
        let mut damaged = newest.clone();
        damaged[at] ^= 1;
        fs::write(place.keyring(), &damaged).unwrap();
        place.refuses(1, "list", &["keyring"]);
    }
    let at = newest.windows(25).position(|it| it == b"ghostwire-store/keyring 1").unwrap();
    let mut newer = newest.clone();
    newer[at + 24] = b'2';
    fs::write(place.keyring(), &newer).unwrap();
    place.refuses(1, "list", &["later program"]);
    fs::write(place.keyring(), vec![0; 300_000]).unwrap();
    place.refuses(1, "list", &["too long"]);
    // Gone: none is made anew beside the store.
    fs::remove_file(place.keyring()).unwrap();
    place.on("zqlite", "status").ended(1).warns(&["keyring is not there"]);
    place.on("zqlite", "init").refused(&[]);
    assert!(!place.keyring().exists());
    fs::write(place.keyring(), &newest).unwrap();
}

#[test]
fn a_store_that_is_gone_is_not_begun_anew_beside_its_keyring() {
    let place = Place::sealed();
    fs::remove_file(place.file("zqlite.db")).unwrap();
    for arguments in ["init", "status", "import portable nothing --create"] {
        place.on("zqlite", arguments).refused(&[]);
        assert!(!place.file("zqlite.db").exists(), "{arguments}");
    }
    place.on("zqlite", "init").refused(&["keyring of a store", "restore"]);
    place.refuses(3, "verify", &["its store is not there"]);
}

#[test]
fn a_plain_store_is_opened_as_one_and_not_otherwise() {
    let place = Place::new();
    let plain = "--set zqlite.sealed=false";
    place.on("zqlite", &format!("{plain} init")).ok();
    assert!(place.file("zqlite.db.key").exists() && !place.keyring().exists());
    let status = place.on("zqlite", &format!("{plain} status --json")).ok().json();
    assert_eq!((&status["keyring"], &status["backend"]["sealed"]), (&Value::Null, &false.into()));
    place.on("zqlite", &format!("{plain} doctor")).ok().says(&["warn  sealing"]);
    for arguments in ["status", "init", "keys list", "keys rotate"] {
        place.on("zqlite", arguments).refused(&[]);
        assert!(!place.keyring().exists());
    }
    place.on("zqlite", "status").refused(&["plain", "zqlite.sealed = false"]);
    place.on("zqlite", &format!("{plain} keys list")).refused(&["not sealed"]);
    place.on("libsql", "keys list").refused(&["not sealed"]);
    // And the reverse.
    let sealed = Place::sealed();
    sealed.on("zqlite", &format!("{plain} status")).refused(&["sealed"]);
}

#[test]
fn a_plain_store_is_sealed_and_made_plain_again() {
    let place = Place::new();
    let plain = "--set zqlite.sealed=false";
    place.sample();
    let import = "import portable sample.jsonl --create";
    place.on("zqlite", &format!("{plain} {import}")).ok();
    let digest = place.on("zqlite", &format!("{plain} digest --json")).ok().json();
    place.on("zqlite", "status").refused(&["gwstore seal"]);
    place.write("zqlite.db.v3.bak", "an old one");
    place.on("zqlite", "seal").ok().says(&["zqlite.db.keyring"]).warns(&["zqlite.db.v3.bak"]);
    assert_eq!(place.digest("zqlite"), digest);
    assert!(!place.file("zqlite.db.key").exists());
    let shows = |place: &Place| {
        let sought = b"ada-laptop";
        place.read("zqlite.db").windows(sought.len()).any(|found| found == sought)
    };
    assert!(!shows(&place));
    place.on("zqlite", "seal").ended(5).warns(&["sealed already"]);
    place.on("zqlite", "doctor").says(&["opens, generation"]);
    let asked = ["confirmation", "zqlite.db be plain", "say --yes"];
    place.unchanged("zqlite", &asked, || place.on("zqlite", "unseal").ended(5));
    assert!(!shows(&place));
    place.on("zqlite", "unseal --yes").ok();
    assert!(shows(&place) && place.file("zqlite.db.key").exists());
    assert_eq!(place.on("zqlite", &format!("{plain} digest --json")).ok().json(), digest);
    place.on("zqlite", &format!("{plain} status")).ok().says(&["credentials"]);
    // With the keyring that is there still.
    place.on("zqlite", "seal").ok();
    assert_eq!(place.digest("zqlite"), digest);
    place.on("libsql", "seal").refused(&["zqlite"]);
    place.on("zqlite", &format!("{plain} seal")).refused(&["zqlite.sealed"]);
}

#[test]
fn of_two_who_change_a_keyring_at_once_one_waits_or_is_told() {
    let place = Place::sealed();
    let lines: Vec<_> = (0..6).map(|it| place.identity(&format!("{it}.txt")).1).collect();
    let arguments = |line: &String| {
        ["--backend", "zqlite", "--path", "zqlite.db", "keys", "add-recipient", line.as_str()]
            .map(str::to_owned)
    };
    let children: Vec<_> = lines
        .iter()
        .map(|line| {
            let arguments = arguments(line);
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            let mut command = command_in(&place.file(""), &arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ran: Vec<_> =
        children.into_iter().map(|child| Ran::of(child.wait_with_output().unwrap())).collect();
    let done = ran.iter().filter(|ran| ran.code == 0).count();
    for ran in ran.iter().filter(|ran| ran.code != 0) {
        assert_eq!(ran.code, 75, "{ran:#?}");
        assert!(ran.err.contains("another process"), "{ran:#?}");
    }
    assert!(done > 0);
    assert_eq!(place.listed()["recipients"].as_array().unwrap().len(), 1 + done);
    assert_eq!(place.generation(), 1 + done as u64);
}

#[test]
fn the_hash_key_of_a_plain_store_moves_into_the_keyring() {
    let place = Place::sealed();
    let versions = ["0123456789abcdef", "fedcba9876543210"].map(|part| part.repeat(4) + "\n");
    place.write("zqlite.db.key", versions.concat());
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(place.file("zqlite.db.key"), fs::Permissions::from_mode(0o600)).unwrap();
    // Whoever only reads leaves it where it is.
    place.on("zqlite", "status").ok();
    assert!(place.file("zqlite.db.key").exists());
    place.write("more.jsonl", portable(&[&user(1, "ann")]));
    place.on("zqlite", "import portable more.jsonl").ok();
    assert!(!place.file("zqlite.db.key").exists());
    let listed = place.listed();
    assert_eq!(listed["hash_keys"].as_array().unwrap().len(), 3);
    assert_eq!(listed["generation"], 2);
}
