//! `gwstore pin`, and what the others say of a store whose pin does not know it.

use std::fs;

use crate::support::{Place, Ran, portable, user};

/// Runs the program on a zqlite store with a pin beside it.
fn pinned(place: &Place, arguments: &str) -> Ran {
    let pin = place.file("pin");
    let set = format!(
        "--set zqlite.pin=commit --set zqlite.pin_same_device=true --set zqlite.pin_file={}",
        pin.display()
    );
    place.on("zqlite", &format!("{set} {arguments}"))
}

/// Brings a user in.
#[track_caller]
fn bring(place: &Place, number: u32, name: &str) {
    place.write("more.jsonl", portable(&[&user(number, name)]));
    pinned(place, "import portable more.jsonl").ok();
}

const FILES: [&str; 3] = ["zqlite.db", "zqlite.db-wal", "zqlite.db-shm"];

fn copy(place: &Place) -> Vec<Option<Vec<u8>>> {
    FILES.iter().map(|name| fs::read(place.file(name)).ok()).collect()
}

fn put_back(place: &Place, copy: &[Option<Vec<u8>>]) {
    for (name, content) in FILES.iter().zip(copy) {
        match content {
            Some(content) => drop(place.write(name, content)),
            None => drop(fs::remove_file(place.file(name))),
        }
    }
}

#[test]
fn a_pin_is_made_shown_and_compared() {
    let place = Place::new();
    place.init("zqlite");
    pinned(&place, "pin show").ok().says(&["none"]);
    pinned(&place, "doctor").ok().says(&["warn  pin: it has no mark yet", "gwstore pin init"]);
    pinned(&place, "pin verify").ok().says(&["first"]);
    pinned(&place, "pin init").ok().says(&["Made the pin"]);
    pinned(&place, "pin init").ok().says(&["nothing to do"]);
    let pin = place.file("pin");
    pinned(&place, "pin show").ok().says(&[pin.to_str().unwrap(), "epoch", "commit", "serial"]);
    let shown = pinned(&place, "pin show --json").ok().json();
    assert_eq!(shown["place"], pin.to_str().unwrap());
    let compared = pinned(&place, "pin verify --json").ok().json();
    assert_eq!(compared["verdict"], "equal");
    assert_eq!((&compared["served"], &compared["pin"]), (&true.into(), &shown["pin"]));
    assert_eq!(compared["store"], shown["pin"]);
    assert_eq!(pinned(&place, "pin init --json").ok().json()["made"], false);
    // Everything else works as without.
    bring(&place, 1, "ann");
    pinned(&place, "list users").ok().says(&["ann"]);
    pinned(&place, "compact").ok();
    pinned(&place, "doctor").ok().says(&["ok    pin: equal"]);
    assert_eq!(pinned(&place, "pin verify --json").ok().json()["verdict"], "equal");
}

#[test]
fn pins_that_are_not_configured_or_not_possible_are_refused() {
    let place = Place::new();
    place.init("libsql");
    place.on("libsql", "pin show").refused(&["only zqlite stores have pins", "libsql"]);
    pinned(&place, "pin show").ended(4);
    place.init("zqlite");
    place.on("zqlite", "pin show").refused(&["no pin is configured", "zqlite.pin"]);
    let without = "--set zqlite.pin=commit";
    place.on("zqlite", &format!("{without} status")).refused(&["a pin needs a place"]);
    let elsewhere = format!("{without} --set zqlite.pin_file={}", place.file("pin").display());
    place
        .on("zqlite", &format!("{elsewhere} pin init"))
        .refused(&["own device", "pin_same_device"]);
    place
        .on("zqlite", &format!("{elsewhere} --set zqlite.pin_command=/bin/cat status"))
        .refused(&["either a file or a program"]);
    pinned(&place, "pin init").ok();
    place.on("zqlite", "status").refused(&["none is configured"]);
    place.on("zqlite", "pin init").refused(&["no pin is configured"]);
    place.on("zqlite", &format!("{elsewhere} doctor")).ended(3).says(&["FAIL  pin", "own device"]);
    let nowhere = format!("{without} --set zqlite.pin_file=nowhere/pin");
    place.on("zqlite", &format!("{nowhere} doctor")).ended(3).says(&["FAIL  pin", "nowhere/pin"]);
    pinned(&place, "pin accept --serial 0").ended(5).warns(&["nothing to accept"]);
}

#[test]
fn an_older_copy_is_refused_until_it_is_accepted() {
    let place = Place::new();
    pinned(&place, "init").ok();
    bring(&place, 1, "ann");
    let older = copy(&place);
    bring(&place, 2, "bob");
    put_back(&place, &older);
    for command in ["status", "list users", "import portable more.jsonl", "pin init"] {
        pinned(&place, command).refused(&["rolled back", "pin accept --serial"]);
    }
    pinned(&place, "doctor").ended(3).says(&["FAIL  pin", "rolled back"]);
    let compared = pinned(&place, "pin verify --json").ended(3).json();
    assert_eq!((&compared["verdict"], &compared["served"]), (&"rolled back".into(), &false.into()));
    pinned(&place, "pin verify")
        .ended(3)
        .says(&["rolled back"])
        .warns(&["put the newest copy back"]);
    let serial = compared["store"]["serial"].as_u64().unwrap();
    let accept = |serial: u64| pinned(&place, &format!("pin accept --serial {serial} --json"));
    accept(serial + 1).ended(5).warns(&["not the store's own"]);
    let accepted = accept(serial).ok().json();
    assert_eq!(accepted["given_up"], compared["pin"]);
    assert_eq!(accepted["store"]["epoch"], compared["store"]["epoch"].as_u64().unwrap() + 1);
    assert_eq!(pinned(&place, "pin verify --json").ok().json()["verdict"], "equal");
    let users = pinned(&place, "list users").ok().says(&["ann"]);
    assert!(!users.out.contains("bob"), "{users:?}");
    pinned(&place, "list audit").ok().says(&["pin.accept"]);
    // It goes on, and the copy from before is as old as ever.
    bring(&place, 3, "cid");
    put_back(&place, &older);
    pinned(&place, "status").refused(&["rolled back"]);
    assert_eq!(pinned(&place, "pin verify --json").ended(3).json()["verdict"], "superseded");
}

#[test]
fn a_pin_that_is_missing_is_made_anew_only_if_that_is_accepted() {
    let place = Place::new();
    pinned(&place, "init").ok();
    bring(&place, 1, "ann");
    fs::remove_file(place.file("pin")).unwrap();
    pinned(&place, "status").ended(5).warns(&["pin is missing", "--accept-missing"]);
    pinned(&place, "pin init").ended(5);
    assert_eq!(pinned(&place, "pin verify --json").ended(3).json()["verdict"], "missing");
    assert!(!place.file("pin").exists());
    pinned(&place, "pin init --accept-missing").ok().says(&["Made the pin"]);
    pinned(&place, "list users").ok().says(&["ann"]);
}

#[test]
fn the_doctor_warns_of_a_store_without_a_pin() {
    let place = Place::new();
    let flags = |more: &str| {
        let text = format!(
            "[production]\nbackend = 'zqlite'\n[production.zqlite]\npath = 'zqlite.db'\nsealed = false\n{more}"
        );
        place.write("feature-flags.toml", text);
    };
    flags("");
    place.run("--environment production init").ok();
    let doctor = || place.run("--environment production doctor");
    doctor().says(&["an older copy of the store that is put back is not noticed"]);
    flags("pin = 'commit'\npin_file = 'pin'\npin_same_device = true\n");
    place.run("--environment production pin init").ok();
    doctor().says(&["on the store's own device"]);
}
