//! Files that a served store was opened with, and that are moved or removed meanwhile.

use std::fs;

use rustix::process::Signal;

use crate::serve::{HTTP, Server};
use crate::support::{Place, stores};

#[test]
fn a_file_that_was_moved_and_is_back_asks_for_a_restart() {
    for (backend, place) in stores() {
        let server = Server::ready(&place, backend, HTTP);
        let (file, away) = (place.file(&format!("{backend}.db")), place.file("away.db"));
        fs::rename(&file, &away).unwrap();
        place.on(backend, "user create ann").refused(&["moved away"]);
        // Each command that asks for all of it says what happened and what to do.
        let pid = format!("restart of process {}", server.id());
        for command in ["user create ann", "user list", "export -"] {
            let ran = place.on(backend, command);
            // SQLite still reads what it has open, and finds what it was not sure to have stored.
            if backend == "zqlite" {
                ran.ended(1).refused(&["moved away", "path=", "put the store's files back", &pid]);
            }
        }
        let doctor = place.on(backend, "doctor").ended(3);
        assert!(doctor.out.contains("remove nothing"), "{doctor:#?}");
        assert!(!doctor.out.contains("To begin anew remove them"), "{doctor:#?}");
        let next_step = || server.status()["health"]["next_step"].as_str().unwrap().to_owned();
        assert_eq!(server.get("/readyz").0, 503);
        assert!(next_step().contains("put the store's files back"), "{}", next_step());
        assert_eq!(server.get("/livez").0, 200, "a restart would find no store");
        fs::rename(&away, &file).unwrap();
        assert_eq!(server.get("/livez").0, 503, "a restart opens it");
        assert!(next_step().contains("open the store anew"), "{}", next_step());
        let (_, text) = server.get("/readyz");
        assert!(text.contains("the files are back") && !text.contains("restore"), "{text}");
        assert_eq!(server.get("/readyz").0, 503, "somebody may have had the file meanwhile");
        server.signal(Signal::TERM);
        server.ended();
        let server = Server::ready(&place, backend, HTTP);
        assert_eq!((server.get("/livez").0, server.get("/readyz").0), (200, 200));
        place.on(backend, "user create bea").ok();
        server.end();
    }
}

#[test]
fn a_log_or_a_lock_that_is_gone_asks_for_an_end_in_order_and_nothing_is_lost() {
    for (suffix, live) in [("-wal", 200), (".lock", 503)] {
        for (backend, place) in stores() {
            let server = Server::ready(&place, backend, HTTP);
            place.on(backend, "user create ann").ok();
            fs::remove_file(place.file(&format!("{backend}.db{suffix}"))).unwrap();
            assert_ne!(place.on(backend, "user create bea").code, 0, "{suffix}");
            let status = server.status();
            let next_step = status["health"]["next_step"].as_str().unwrap();
            assert!(next_step.contains("SIGTERM, never kill -9"), "{suffix}: {next_step}");
            assert_eq!(server.get("/livez").0, live, "{suffix}");
            server.signal(Signal::TERM);
            server.ended();
            let server = Server::ready(&place, backend, HTTP);
            place.on(backend, "user show ann").ok();
            place.on(backend, "user create cay").ok();
            server.end();
        }
    }
}

#[test]
fn a_flag_file_that_is_gone_is_refused_and_what_held_holds_on() {
    let (backend, place) = stores().next().unwrap();
    place.write("feature-flags.toml", "[development.jobs]\nreap_seconds = 7\n");
    let server = Server::ready(&place, backend, HTTP);
    fs::remove_file(place.file("feature-flags.toml")).unwrap();
    server.signal(Signal::HUP);
    server.hear("RELOADING=1");
    server.hear("READY=1");
    let status = server.status();
    let error = status["configuration"]["last_reload"]["error"].as_str().unwrap();
    assert!(error.contains("feature-flags.toml"), "{error}");
    assert_eq!(status["jobs"][0]["every_seconds"], 7.0);
    server.end();
}

#[test]
fn a_keyring_that_is_away_is_told_by_a_status_that_tells_the_rest() {
    let place = Place::new();
    place.init("zqlite");
    let server = Server::ready(&place, "zqlite", "");
    let (keyring, away) = (place.file("zqlite.db.keyring"), place.file("away"));
    fs::rename(&keyring, &away).unwrap();
    let ran = place.on("zqlite", "status").ok();
    ran.says(&["serial", "credentials", "keyring"])
        .warns(&["keyring cannot be read", "put it back"]);
    let status = place.on("zqlite", "status --json").ok().json();
    assert!(status["serial"].is_u64() && status["keyring"]["error"].is_string(), "{status}");
    fs::rename(&away, &keyring).unwrap();
    server.end();
}
