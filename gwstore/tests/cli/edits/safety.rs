//! Trying, refusing, saving, and the trail.

use std::fs;

use super::network;
use crate::support::{Place, Ran, command_in, portable, stores};

/// Each of these says what it would do, does nothing, and is refused where nobody confirms it.
#[test]
fn dry_runs_and_refusals_change_nothing() {
    let edits = [
        "user create carol",
        "user edit alice --role owner",
        "user rename alice anna",
        "node edit laptop --hostname x",
        "node rename laptop traveller",
        "node expire laptop",
        "node expire --user alice",
        "node move laptop bob",
        "node tag laptop tag:a",
        "node approve-routes laptop 10.0.0.0/8",
        "node renumber laptop",
        "preauthkey create --user alice",
        "preauthkey expire --user alice",
        "apikey create",
        "apikey revoke --active",
        "session create --user alice",
        "dns create a.example A 10.0.0.1",
        "dns put a.example A 10.0.0.1",
        "policy set policy",
        "setting set network mtu=1280",
    ];
    let deletions = [
        "user delete alice --cascade",
        "node delete laptop",
        "node delete --user alice --online=false",
        "preauthkey delete --user alice",
        "apikey delete --active",
        "session end --user alice",
        "route delete --node server",
        "dns delete --name wiki.example",
        "setting reset dns",
        "policy prune --keep 1",
    ];
    for (backend, place) in stores() {
        network(&place, backend);
        place.write("policy", "{}");
        place.write("dns.json", "{\"magic_dns\":true}");
        for command in [
            "preauthkey create --user alice",
            "apikey create",
            "session create --user alice",
            "node approve-routes server 10.0.0.0/8",
            "dns create wiki.example A 10.0.0.9",
            "setting set dns -f dns.json",
            "policy set policy",
        ] {
            place.on(backend, command).ok();
        }
        place.write("policy", "{\"acls\": []}");
        let before = place.digest(backend);
        for edit in edits.iter().chain(&deletions) {
            let dry_run = place.on(backend, &format!("{edit} --dry-run")).ok();
            dry_run.warns(&["dry run"]);
            let json = place.on(backend, &format!("{edit} --dry-run -o json")).ok().json();
            let is_prune = edit.starts_with("policy prune");
            assert_eq!(json.as_array().unwrap().is_empty(), is_prune, "{edit}");
            assert_eq!(place.digest(backend), before, "{edit}");
        }
        for deletion in deletions {
            if deletion.starts_with("policy prune") {
                place.on(backend, deletion).ok().warns(&["nothing to do"]);
                continue;
            }
            let refused = place.on(backend, deletion).ended(5).warns(&["confirmation", "--yes"]);
            assert!(refused.out.is_empty(), "{refused:#?}");
            place.on(backend, &format!("{deletion} --yes --save dns.json")).ended(5);
            assert_eq!(place.digest(backend), before, "{deletion}");
        }
        place.on(backend, "node delete laptop --yes --dry-run").ended(2);
        place.on(backend, "user delete alice --yes").refused(&["user.delete"]).ended(5);
        for stale in [
            "node rename laptop x --expect-revision 9",
            "user delete bob --cascade --yes --expect-revision 9",
            "apikey expire --active --expect-revision 9",
            "route approve 10.0.0.0/8 --expect-revision 9",
        ] {
            place.on(backend, stale).ended(5).warns(&["changed by somebody else"]);
        }
        place.on(backend, "node expire laptop desk --expect-revision 1").ended(2);
        place.on(backend, "session end --user alice --yes --expect-revision 1").ended(2);
        assert_eq!(place.digest(backend), before);
        place.on(backend, "node rename laptop x --expect-revision 1").ok();
    }
}

#[test]
fn what_is_saved_can_be_brought_back() {
    for (backend, place) in stores() {
        network(&place, backend);
        for command in [
            "preauthkey create --user alice --tags tag:a",
            "apikey create --user alice",
            "session create --user alice --node laptop",
            "node approve-routes laptop 10.0.0.0/8 fd00::/8",
            "dns create wiki.example TXT words",
            "setting set network mtu=1280",
        ] {
            place.on(backend, command).ok();
        }
        for (number, deletion) in [
            "user delete alice --cascade",
            "node delete --user alice",
            "route delete --node laptop",
            "preauthkey delete --user alice",
            "apikey delete --user alice",
            "session end --user alice",
            "dns delete wiki.example",
            "setting reset network",
        ]
        .into_iter()
        .enumerate()
        {
            let before = place.digest(backend)["state"].clone();
            place.on(backend, &format!("{deletion} --yes --save gone-{number}")).ok();
            assert_ne!(place.digest(backend)["state"], before, "{deletion}");
            place.on(backend, &format!("import portable gone-{number}")).ok();
            assert_eq!(place.digest(backend)["state"], before, "{deletion}");
            // Again it would be in the way of itself.
            let again = format!("{deletion} --yes --save gone-{number}");
            place.on(backend, &again).ended(5).warns(&["gone-"]);
        }
    }
}

#[test]
fn an_import_of_what_was_saved_needs_no_more_than_the_stores_key() {
    let place = Place::new();
    place.write("old.jsonl", portable(&[&crate::support::user(1, "ann")]));
    place.on("libsql", "import portable old.jsonl --create").ok();
    fs::rename(place.file("libsql.db.key"), place.file("key")).unwrap();
    place.on("libsql", "user delete ann --yes --save gone").ok().warns(&["who wrote it"]);
    fs::rename(place.file("key"), place.file("libsql.db.key")).unwrap();
    place.on("libsql", "import portable gone").ok();
    place.on("libsql", "user show ann").ok();
}

#[test]
fn under_cron_the_trail_names_the_users_number() {
    let place = Place::new();
    place.init("libsql");
    let arguments = ["--backend", "libsql", "--path", "libsql.db", "user", "create", "ann"];
    let mut command = command_in(&place.file(""), &arguments);
    for variable in ["SUDO_USER", "USER", "LOGNAME"] {
        command.env_remove(variable);
    }
    Ran::of(command.output().unwrap()).ok();
    place.on("libsql", "list audit").ok().says(&["cli:uid-"]);
}
