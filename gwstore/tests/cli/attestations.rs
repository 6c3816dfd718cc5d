//! What a store attests, and who checks it without the store.

use std::fs;

use crate::support::{Place, portable, user};

/// A sealed store with a user.
fn place() -> Place {
    let place = Place::new();
    place.init("zqlite");
    grow(&place, 1, "ann");
    place
}

#[track_caller]
fn grow(place: &Place, number: u32, name: &str) {
    place.write("more.jsonl", portable(&[&user(number, name)]));
    place.on("zqlite", "import portable more.jsonl").ok();
}

fn signer(place: &Place) -> String {
    let listed = place.on("zqlite", "keys list --json").ok().json();
    listed["signer"].as_str().unwrap().to_owned()
}

#[test]
fn an_attestation_is_checked_elsewhere_with_nothing_but_the_fingerprint() {
    let place = place();
    let signer = signer(&place);
    let status = place.on("zqlite", "status --json").ok().json();
    assert_eq!(status["backend"]["signer"], signer.as_str());
    place.on("zqlite", "status").ok().says(&["signer", &signer]);
    place.on("zqlite", "keys list").ok().says(&["signer", &signer]);
    let exported = place.on("zqlite", "keys export-signer").ok();
    assert!(exported.out.starts_with("ghostwire-store signer 1 manifest "), "{exported:?}");
    assert!(exported.err.contains(&signer), "{exported:?}");
    let digest = place.on("zqlite", "digest --json").ok().json()["state"].clone();
    place.on("zqlite", "attest signed.txt").ok().says(&["signed.txt", &signer]);
    place.on("zqlite", "attest signed.txt").ended(5).warns(&["--force"]);
    place.on("zqlite", "attest signed.txt --force").ok();
    let printed = place.on("zqlite", "attest").ok().out;
    assert!(printed.starts_with("ghostwire-store attestation 1\n"), "{printed}");
    assert!(printed.contains(digest.as_str().unwrap()), "{printed}");

    // Somewhere else: no store, no keys, no configuration.
    let elsewhere = Place::new();
    fs::copy(place.file("signed.txt"), elsewhere.file("signed.txt")).unwrap();
    elsewhere.write("signer.txt", &exported.out);
    elsewhere.write("fingerprint.txt", format!("{signer}\n"));
    for known in [&signer[..], "signer.txt", "fingerprint.txt"] {
        let verify = format!("verify-attestation signed.txt --public-key {known}");
        elsewhere.run(&verify).ok().says(&["signed by whom it should be", &signer]);
        let verified = elsewhere.run(&format!("{verify} --json")).ok().json();
        assert_eq!(verified["digest"], digest);
        assert_eq!((&verified["serial"], &verified["side"]), (&status["serial"], &status["side"]));
        assert_eq!((&verified["valid"], &verified["successions"]), (&true.into(), &0.into()));
    }
    let files: Vec<_> = fs::read_dir(elsewhere.file("")).unwrap().collect();
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn what_was_not_signed_by_whom_it_should_be_is_told_from_what_is_no_attestation() {
    let place = place();
    let signer = signer(&place);
    place.on("zqlite", "attest signed.txt").ok();
    let text = fs::read_to_string(place.file("signed.txt")).unwrap();
    let verify = |name: &str, known: &str| {
        place.run(&format!("verify-attestation {name} --public-key {known}"))
    };
    verify("signed.txt", &"0".repeat(64)).ended(3).warns(&["not signed by whom", "another key"]);
    let serial = text.lines().find(|line| line.starts_with("serial ")).unwrap().to_owned();
    place.write("altered.txt", text.replace(&serial, "serial 999"));
    verify("altered.txt", &signer).ended(3).warns(&["not signed by whom", "Ed25519"]);
    for (name, content) in [
        ("cut.txt", text[..text.len() - 100].to_owned()),
        ("none.txt", "nothing of the kind".to_owned()),
        ("empty.txt", String::new()),
        ("more.txt", format!("{text}more\n")),
    ] {
        place.write(name, content);
        verify(name, &signer).ended(1).warns(&["no attestation", name]);
    }
    verify("absent.txt", &signer).ended(4).warns(&["absent.txt"]);
    verify("signed.txt", "absent.txt").ended(4).warns(&["64 hexadecimal digits", "absent.txt"]);
    verify("signed.txt", "none.txt").ended(1).warns(&["export-signer"]);
    place.run("verify-attestation signed.txt").ended(2);
    let why = ["--compare", "--path"];
    place
        .run(&format!("verify-attestation signed.txt --public-key {signer} --path zqlite.db"))
        .ended(2)
        .warns(&why);
    // A file of the store's is not overwritten.
    place.on("zqlite", "attest zqlite.db.keyring --force").ended(5).warns(&["belongs to a store"]);
    place.on("zqlite", "attest - --force").ended(2);
}

#[test]
fn a_store_that_is_asked_says_whether_it_was_in_that_state() {
    let place = place();
    let signer = signer(&place);
    let compare = |place: &Place| {
        place
            .on("zqlite", &format!("verify-attestation signed.txt --public-key {signer} --compare"))
    };
    place.on("zqlite", "attest signed.txt").ok();
    compare(&place).ok().says(&["is in that state"]);
    let older = fs::read(place.file("zqlite.db")).unwrap();
    grow(&place, 2, "bob");
    compare(&place).ok().says(&["went on from there"]);
    place.on("zqlite", "attest signed.txt --force").ok();
    fs::write(place.file("zqlite.db"), older).unwrap();
    compare(&place).ended(3).warns(&["put back"]);
    // Gone on otherwise from there.
    grow(&place, 3, "eve");
    compare(&place).ended(3).warns(&["another history"]);
    let other = self::place();
    fs::copy(place.file("signed.txt"), other.file("signed.txt")).unwrap();
    compare(&other).ended(3).warns(&["another store"]);
}

#[test]
fn a_store_without_keys_attests_nothing() {
    let place = Place::new();
    place.init("libsql");
    place.on("libsql", "attest").ended(1).warns(&["has no keys", "sealed zqlite store"]);
    place.on("libsql", "status").ok().says(&["signer"]);
}

#[test]
fn a_configured_file_has_the_newest_state_when_the_store_is_closed() {
    let place = place();
    let signer = signer(&place);
    let set = "--set zqlite.attestation_file=newest.txt";
    place.write("more.jsonl", portable(&[&user(2, "bob")]));
    place.on("zqlite", &format!("import portable more.jsonl {set}")).ok();
    let digest = place.on("zqlite", "digest --json").ok().json()["state"].clone();
    let verified = place
        .run(&format!("verify-attestation newest.txt --public-key {signer} --json"))
        .ok()
        .json();
    assert_eq!(verified["digest"], digest);
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(place.file("newest.txt")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!place.file("newest.txt.part").exists());
    place.write("more.jsonl", portable(&[&user(3, "eve")]));
    place.write("notes.txt", "not to be lost");
    let other = "--set zqlite.attestation_file=notes.txt";
    place
        .on("zqlite", &format!("import portable more.jsonl {other}"))
        .ended(5)
        .warns(&["something else", "notes.txt"]);
    assert_eq!(place.read("notes.txt"), b"not to be lost");
    let own = "--set zqlite.attestation_file=zqlite.db.keyring";
    place.on("zqlite", &format!("import portable more.jsonl {own}")).ended(1).warns(&["itself"]);
}
