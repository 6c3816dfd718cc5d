//! Keys that are rotated, sealed anew, destroyed; recipients who leave.

use std::fs;

use serde_json::Value;

use crate::support::{Place, Ran, portable, user};

fn keys(place: &Place, arguments: &str) -> Ran {
    place.on("zqlite", &format!("keys {arguments}"))
}

fn versions(place: &Place) -> Vec<u64> {
    let listed = keys(place, "list --json").ok().json();
    let of = |key: &Value| key["version"].as_u64().unwrap();
    listed["data_keys"].as_array().unwrap().iter().map(of).collect()
}

fn resealed(place: &Place) -> Value {
    place.on("zqlite", "status --json").ok().json()["backend"]["resealed"].clone()
}

#[test]
fn a_closed_store_is_sealed_anew_and_the_old_key_destroyed() {
    let place = Place::new();
    place.filled("zqlite");
    let before = place.digest("zqlite");
    place.on("zqlite", "status").ok().says(&["re-sealed", "100% under version 1"]);
    keys(&place, "rotate").ok().says(&["new data key", "keys reseal"]);
    place.on("zqlite", "status").ok().says(&["0% under version 2", "keys reseal"]);
    assert_eq!(resealed(&place)["version"], 2);
    // A record that names it keeps a version, and nothing else is done unasked.
    keys(&place, "destroy 1").ended(5).warns(&["say --yes"]);
    keys(&place, "destroy 1 --yes").ended(5).warns(&["sealed under this version", "sealed anew"]);
    keys(&place, "destroy 2 --yes").ended(5).warns(&["the one that seals"]);
    keys(&place, "destroy 7 --yes").ended(4).warns(&["never was"]);
    keys(&place, "reseal").ok().says(&["sealed under version 2"]);
    keys(&place, "reseal").ok().says(&["sealed under version 2"]);
    let now = resealed(&place);
    assert_eq!(now["records"], now["of"]);
    fs::copy(place.file("zqlite.db.keyring"), place.file("older-keyring")).unwrap();
    keys(&place, "destroy 1 --yes").ok().says(&["older copy of the keyring", "change-root"]);
    assert_eq!(versions(&place), [2]);
    assert_eq!(place.digest("zqlite"), before);
    keys(&place, "destroy 1 --yes").ended(1).warns(&["version 1"]);
    keys(&place, "rotate --leaked --wait").ok().says(&["has sealed everything"]);
    assert_eq!(versions(&place), [2, 3]);
    assert_eq!(resealed(&place)["version"], 3);
    assert_eq!(place.digest("zqlite"), before);
    keys(&place, "rotate --hash-key --leaked").ended(2);
}

#[test]
fn copies_that_become_unreadable_are_listed() {
    let place = Place::new();
    place.filled("zqlite");
    // As a migration leaves it.
    fs::copy(place.file("zqlite.db"), place.file("zqlite.db.v3.bak")).unwrap();
    keys(&place, "rotate --wait").ok();
    let destroyed = keys(&place, "destroy 1 --yes --json").ok().json();
    let unreadable = destroyed["unreadable"].as_array().unwrap();
    assert!(unreadable[0].as_str().unwrap().ends_with("zqlite.db.v3.bak"), "{unreadable:?}");
    assert_eq!(unreadable.len(), 1);
    assert!(place.file("zqlite.db.v3.bak").exists());
}

#[test]
fn who_leaves_opens_the_keyring_no_more_and_keeps_what_he_had() {
    let place = Place::new();
    place.init("zqlite");
    let made = place.run("keys identity new escrow.txt --json").ok().json();
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    let (fingerprint, line) = (text("fingerprint"), text("recipient"));
    keys(&place, &format!("add-recipient {line}")).ok();
    let before = fs::read(place.file("zqlite.db.keyring")).unwrap();
    keys(&place, "list --identity escrow.txt").ok();
    keys(&place, "remove-recipient nobody").ended(4).warns(&["not sealed to this recipient"]);
    let said = ["Who leaves keeps", "older copy"];
    keys(&place, &format!("remove-recipient {fingerprint} --wait")).ok().says(&said);
    assert_eq!(versions(&place), [1, 2]);
    assert_eq!(resealed(&place)["version"], 2);
    keys(&place, "list --identity escrow.txt").ended(1).warns(&["does not unlock"]);
    // What he kept opens still, and is refused beside the store by its number.
    fs::write(place.file("zqlite.db.keyring"), before).unwrap();
    keys(&place, "list --identity escrow.txt").ok();
    place.on("zqlite", "status").ended(1).warns(&["older"]);
    place.write("more.jsonl", portable(&[&user(1, "ann")]));
    place.on("zqlite", "import portable more.jsonl").ended(1).warns(&["older"]);
}

#[test]
fn the_keys_of_an_open_store_are_changed_by_whoever_has_it_open() {
    let place = Place::new();
    place.filled("zqlite");
    let before = place.digest("zqlite");
    let config = place.config("zqlite");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(ghostwire_store::Opener::new(&config).open()).unwrap();
    keys(&place, "rotate --wait").ok().says(&["has sealed everything"]).warns(&["asking it by"]);
    assert_eq!(versions(&place), [1, 2]);
    let now = resealed(&place);
    assert_eq!((&now["version"], &now["records"]), (&2.into(), &now["of"]));
    keys(&place, "destroy 2 --yes").ended(5).warns(&["the one that seals"]);
    keys(&place, "destroy 1 --yes").ok();
    assert_eq!(versions(&place), [2]);
    keys(&place, "remove-recipient nobody").ended(4);
    runtime.block_on(store.close()).unwrap();
    let after = place.digest("zqlite");
    assert_eq!((&after["state"], &after["metrics"]), (&before["state"], &before["metrics"]));
    let lines = place.on("zqlite", "audit list --entity keyring --json").ok().items();
    let lines: Vec<_> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(lines, ["keyring.rotate", "keyring.destroy"], "what was refused leaves no line");
    place.on("zqlite", "doctor").says(&["rows and blocks are whole"]);
}
