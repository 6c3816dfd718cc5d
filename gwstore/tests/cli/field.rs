//! Databases as they are found in the field, each with the one thing that its name says.

use std::path::Path;

use serde_json::{Value, json};

use crate::after_import::{Shown, everybody_has_what_they_had};
use crate::support::{BACKENDS, Place, Ran, dump, places};

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/field").join(name);
    path.to_str().unwrap().to_owned()
}

/// What an import says, for people and for programs.
struct Said {
    people: Ran,
    json: Value,
}

impl Said {
    /// Each of these words is said beside the result, and the file names it.
    #[track_caller]
    fn notes(&self, words: &[&str]) -> &Self {
        self.people_warn(words);
        let lines = [&self.json["repaired"], &self.json["left_over"], &self.json["notes"]];
        let lines = lines.map(Value::to_string).concat();
        for word in words {
            assert!(lines.contains(word), "{word:?} is not in {lines}");
        }
        self
    }

    #[track_caller]
    fn people_warn(&self, words: &[&str]) {
        for word in words {
            assert!(self.people.err.contains(word), "{word:?}: {:#?}", self.people);
        }
    }
}

/// Imports a file into both backends, of which nothing may be lost, and has everybody come back.
#[track_caller]
fn imported(name: &str, counts: (usize, usize)) -> Said {
    shown(name, counts, &Shown::default())
}

#[track_caller]
fn shown(name: &str, counts: (usize, usize), shown: &Shown) -> Said {
    with("", name, counts, shown)
}

/// With further options.
#[track_caller]
fn with(options: &str, name: &str, counts: (usize, usize), shown: &Shown) -> Said {
    let mut said = Vec::new();
    for (backend, place) in places() {
        let file = if name.contains('/') { name.to_owned() } else { data(name) };
        let file = format!("{file} {options}");
        let plan = place.on(backend, &format!("import headscale {file} --create --dry-run --json"));
        let json = plan.ok().json();
        assert_eq!(json["problems"], json!([]));
        assert_eq!(json["lost"], json!({ "machines": 0, "people": 0, "keys": 0, "other": 0 }));
        let people = place.on(backend, &format!("import headscale {file} --create")).ok();
        let people = match counts {
            // Of nobody nothing can be said.
            (0, 0) => people.hides(&["is lost"]),
            _ if json["notes"].to_string().contains("write-ahead log") => {
                people.says(&["Nothing of what the file holds is lost"])
            }
            _ => people.says(&["Nothing is lost"]),
        };
        let again = place.on(backend, &format!("import headscale {file} --json")).ok().json();
        assert_eq!(again["changed"], false);
        everybody_has_what_they_had(&place, backend, counts, shown);
        said.push(Said { people, json });
    }
    assert_eq!(said[0].json["notes"], said[1].json["notes"]);
    said.swap_remove(0)
}

/// The nodes of a store, by their addresses.
fn nodes(place: &Place, backend: &str) -> Vec<Value> {
    let mut nodes = place.on(backend, "list nodes --json").ok().items();
    nodes.sort_by_key(|node| node["ipv4"].to_string());
    nodes
}

#[test]
fn the_dumps_that_headscale_ships() {
    imported(&dump("headscale_0.26.1_dump.sql"), (0, 0));
    imported(&dump("headscale_0.26.1_dump-litestream.sql"), (0, 0));
    imported(&dump("request_tags_migration_test.sql"), (3, 7));
}

#[test]
fn dumps_of_other_shells() {
    imported("dump-newer-shell.sql", (1, 1));
    imported("dump-recover.sql", (1, 1));
}

#[test]
fn a_database_whose_log_was_not_copied() {
    imported("wal-main-only.db", (1, 1)).notes(&["write-ahead log", "`-wal`", ".dump"]);
}

#[test]
fn a_migration_that_was_not_completed() {
    for (backend, place) in places() {
        let file = data("half-migrated-0.27.sql");
        let words = ["middle of a migration", "users_old", "nodes_old", "start Headscale"];
        for more in ["", " --skip-invalid", " --dry-run"] {
            let import = format!("import headscale {file} --create{more}");
            place.on(backend, &import).refused(&words);
            assert!(!place.file(&format!("{backend}.db")).exists());
        }
    }
}

#[test]
fn nodes_that_belong_to_tags_never_expire() {
    imported("tagged-node-expired.sql", (1, 2)).notes(&["never expires"]);
    for (backend, place) in places() {
        let file = data("tagged-node-expired.sql");
        place.on(backend, &format!("import headscale {file} --create")).ok();
        let expired: Vec<_> =
            nodes(&place, backend).iter().map(|node| node["expires_at"].clone()).collect();
        assert_eq!(expired, [Value::Null, "2020-06-01T00:00:00.000000Z".into()]);
    }
}

#[test]
fn machines_show_the_keys_that_admitted_them() {
    let key = Shown {
        preauth_keys: &["000000000000000000000000000000000000000000000abd"],
        ..Shown::default()
    };
    shown("tagged-node-reusable-key.sql", (1, 1), &key).notes(&["as the nodes"]);
    shown("reusable-key-expired.sql", (1, 1), &key);
    shown("ephemeral-import.sql", (1, 1), &key);
    imported("missing-preauth-key.sql", (1, 1)).notes(&["without the pre-auth key"]);
}

#[test]
fn every_credential_proves_what_it_did() {
    const SHOWN: Shown = Shown {
        api_keys: &[
            "hskey-api-abcdefABC-_3-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ],
        preauth_keys: &[
            "hskey-auth-abcdefABC-_1-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "hskey-auth-abcdefABC-_2-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "000000000000000000000000000000000000000000000abd",
        ],
        people: &[("bob", "https://auth.example", "bob")],
    };
    let said = with("--issuer https://auth.example", "credentials.sql", (2, 4), &SHOWN);
    assert_eq!(said.json["release"], "0.29.3");
    assert_eq!(said.json["notes"], json!([]));
    assert_eq!(said.json["users_without_identity"], 1);
}

#[test]
fn people_who_signed_in_elsewhere() {
    const ANN: Shown = Shown {
        api_keys: &[],
        preauth_keys: &[],
        people: &[("ann", "https://auth.example/application/o/vpn", "5f00aa")],
    };
    shown("oidc-issuer-slash.sql", (1, 1), &ANN).notes(&[
        "before the last slash",
        "https://auth.example/application/o/vpn (1 user)",
        "--issuer",
    ]);
    let said = imported("oidc-user-of-0.23.sql", (1, 1));
    said.notes(&["1 user has machines that signed in", "gwstore user edit NAME"]);
    assert_eq!(said.json["users_without_identity"], 1);
    assert!(said.people.out.contains("1 user has no identity of a provider"), "{:#?}", said.people);
}

#[test]
fn people_sign_in_as_their_providers_call_them() {
    const PEOPLE: Shown = Shown {
        api_keys: &[],
        preauth_keys: &[],
        people: &[
            ("ann", "https://id.example/realms/x", "team/ann"),
            ("bob", "https://id.example/realms/x", "auth0|7f"),
            ("cat", "accounts.example", "1234"),
        ],
    };
    let issuers = "--issuer https://id.example/realms/x/ --issuer accounts.example";
    let said = with(issuers, "oidc-identifiers.sql", (3, 3), &PEOPLE);
    assert_eq!(said.json["notes"], json!([]));
    // Without a word ann would be somebody else at her next sign-in, and the import says so.
    for (backend, place) in places() {
        let file = data("oidc-identifiers.sql");
        place.on(backend, &format!("import headscale {file} --create")).ok().warns(&[
            "https://id.example/realms/x (1 user)",
            "https://id.example/realms/x/team (1 user)",
            "accounts.example (1 user)",
        ]);
    }
}

#[test]
fn keys_that_have_ended_refuse_nothing() {
    let said = imported("keys-of-no-use.sql", (1, 1));
    said.notes(&["hash: not a bcrypt hash; the key has ended"]);
    assert_eq!(said.json["left_over"].as_array().unwrap().len(), 3);
    assert_eq!(said.json["problems"], json!([]));
}

#[test]
fn a_key_that_still_works_is_lost_and_said_to_be() {
    for backend in BACKENDS {
        let place = Place::new();
        let import = format!("import headscale {} --create", data("key-nobody-can-check.sql"));
        let refused = place.on(backend, &import).refused(&["keys_lost: 1", "machines_lost: 0"]);
        assert!(refused.out.starts_with("Lost: 0 machines, 0 people, 1 key."), "{refused:#?}");
        let partly = place.on(backend, &format!("{import} --skip-invalid")).ended(6);
        partly.says(&["Lost: 0 machines, 0 people, 1 key."]).hides(&["Nothing is lost"]);
        everybody_has_what_they_had(&place, backend, (1, 1), &Shown::default());
    }
}

#[test]
fn machines_of_one_address_all_come_in() {
    imported("address-twice.sql", (1, 3)).notes(&["another node has its address 100.64.0.1"]);
    for (backend, place) in places() {
        let file = data("address-twice.sql");
        place.on(backend, &format!("import headscale {file} --create")).ok();
        let addresses = |place: &Place| -> Vec<Value> {
            nodes(place, backend).iter().map(|node| node["ipv4"].clone()).collect()
        };
        assert_eq!(addresses(&place), ["100.64.0.1".into(), "100.64.0.3".into(), Value::Null]);
        place.on(backend, "node backfillips").ok();
        let given = addresses(&place);
        assert_eq!(given, ["100.64.0.1", "100.64.0.2", "100.64.0.3"].map(Value::from));
    }
}

#[test]
fn decorations_cost_no_machine() {
    imported("register-method-authKey.sql", (1, 1)).notes(&["another spelling"]);
    let said = imported("tags-headscale-admits.sql", (1, 2));
    said.notes(&["belongs to its tags"]);
    imported("given-name-twice.sql", (2, 2)).notes(&["another node is called laptop"]);
    imported("logout-expiry-zones.sql", (1, 2));
    for (backend, place) in places() {
        let import = |name| {
            place.on(backend, &format!("import headscale {} --create", data(name))).ok();
        };
        import("tags-headscale-admits.sql");
        let tags: Vec<_> = nodes(&place, backend).iter().map(|node| node["tags"].clone()).collect();
        assert_eq!(tags, [json!(["tag:location:site1"]), json!(["tag:prod_db"])]);
    }
}

#[test]
fn leftovers_refuse_nothing() {
    let said = imported("orphan-route-0.25.sql", (1, 1));
    said.notes(&["its node (nodes 55) does not exist"]);
    let left =
        json!({ "table": "routes", "id": 1, "reason": "its node (nodes 55) does not exist" });
    assert_eq!(said.json["left_over"], json!([left]));
}

#[test]
fn of_one_machine_with_two_nodes_the_living_one_stays() {
    for backend in BACKENDS {
        let place = Place::new();
        let import = format!("import headscale {} --create", data("machine-of-two-users.sql"));
        let refused = place.on(backend, &import).refused(&["machines_lost: 1", "--skip-invalid"]);
        assert!(refused.out.starts_with("Lost: 1 machine, 0 people."), "{refused:#?}");
        let partly = place.on(backend, &format!("{import} --skip-invalid")).ended(6);
        partly.says(&["Lost: 1 machine, 0 people.", "problem: nodes 1", "nodes 2 stays"]);
        let there = nodes(&place, backend);
        assert_eq!(there.len(), 1);
        assert_eq!(there[0]["ipv4"], "100.64.0.2");
        everybody_has_what_they_had(&place, backend, (2, 1), &Shown::default());
    }
}
