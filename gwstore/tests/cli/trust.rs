//! Whose word an import goes by, and what it says of the credentials that it puts in force.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Place, dump, edited, places, portable, stores, user};

const BCRYPT: &str = "$2b$04$ABCDEFGHIJKLMNOPQRSTUu5pUYnC0pESokJLt705oY3/ycNDD4BIW";
const USER: &str = "0190a5c8-7e1f-7000-8000-000000000001";

fn api_key(prefix: &str, hash: &str) -> String {
    json!({ "api_key": {
        "id": "0190a5c8-7e1f-7000-8000-0000000000aa",
        "prefix": prefix,
        "hash": hash,
        "created_at": "2024-02-29T12:00:00.000000Z",
        "revision": 1,
    }})
    .to_string()
}

fn session(hash: &str) -> String {
    json!({ "session": {
        "id": "0190a5c8-7e1f-7000-8000-0000000000dd",
        "owner": { "user": USER },
        "hash": hash,
        "created_at": "2024-02-29T12:00:00.000000Z",
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "last_seen": "2024-02-29T12:00:00.000000Z",
    }})
    .to_string()
}

fn forged(cost: u32) -> String {
    format!("bcrypt:{}", BCRYPT.replacen("$04$", &format!("${cost:02}$"), 1))
}

/// A store of one user, and its export.
fn exported(place: &Place, backend: &str) -> String {
    place.write("first.jsonl", portable(&[&user(1, "ada")]));
    place.on(backend, "import portable first.jsonl --create").ok();
    place.on(backend, "export all.jsonl").ok();
    String::from_utf8(place.read("all.jsonl")).unwrap()
}

#[test]
fn a_key_that_was_edited_into_an_export_is_not_let_in() {
    for (backend, place) in places() {
        let export = exported(&place, backend);
        let import = |more: &str| place.on(backend, &format!("import portable new.jsonl{more}"));
        // Whoever edits a file can compute its SHA-256, but not its code.
        place.write("new.jsonl", edited(&export, &[&api_key("evil", &forged(4))]));
        for more in ["", " --dry-run", " --unsigned"] {
            let words = ["was edited", "new.jsonl", "help: ", "nothing was written"];
            assert_eq!(place.unchanged(backend, &words, || import(more)).code, 5);
        }
        // A code of another key, or none, says nothing.
        let text = String::from_utf8(place.read("new.jsonl")).unwrap();
        let at = text.rfind("\"key_id\":\"").unwrap() + 10;
        let others = [&text[..at], "00000000", &text[at + 8..]].concat();
        for text in [others.into_bytes(), portable(&[&api_key("evil", &forged(4))])] {
            place.write("new.jsonl", text);
            for more in ["", " --dry-run"] {
                let words = ["nobody known", "bcrypt_keys: 1", "--unsigned", "nothing was written"];
                place.unchanged(backend, &words, || import(more));
            }
        }
        let plan = import(" --unsigned --dry-run --json").ok().json();
        assert_eq!(plan["written_by"], "unknown");
        assert_eq!(
            (&plan["credentials"]["new"]["bcrypt"], &plan["changed"]),
            (&1.into(), &true.into())
        );
        import(" --unsigned").ok().says(&["nobody known", "1 imported with bcrypt"]);
        place.on(backend, "doctor").ok().says(&["1 imported with bcrypt"]);
        let trail = place.on(backend, "list audit --all --json").ok().out;
        assert!(trail.contains("import.portable") && trail.contains("\"api_key\""), "{trail}");
        // It is there, and so nobody has to be asked.
        let again = import(" --json").ok().json();
        assert_eq!(again["changed"], false);
    }
}

#[test]
fn a_session_with_a_hash_that_anybody_can_make_is_refused_always() {
    for (backend, place) in places() {
        exported(&place, backend);
        place.write("new.jsonl", portable(&[&session(&forged(4))]));
        for more in ["", " --unsigned", " --dry-run"] {
            place.unchanged(backend, &["the store's key", "first_line: 2"], || {
                place.on(backend, &format!("import portable new.jsonl{more}"))
            });
        }
        let keyed = format!("hmac-sha256:00000001:{}", "5e".repeat(32));
        place.write("new.jsonl", portable(&[&session(&keyed)]));
        place.on(backend, "import portable new.jsonl").ok();
    }
}

#[test]
fn a_holder_of_the_same_key_is_known_and_others_are_not() {
    for (backend, place) in places() {
        let on = |path: &str, key: &str, arguments: &str| {
            place.run(&format!(
                "--backend {backend} --path {path} --set secret_key_file={key} {arguments}"
            ))
        };
        place.write("first.jsonl", portable(&[&api_key("old", &forged(4))]));
        let first = "import portable first.jsonl --create";
        assert_eq!(on("one.db", "one.key", first).refused(&["--unsigned"]).code, 5);
        assert!(!place.file("one.db").exists() && !place.file("one.key").exists());
        on("one.db", "one.key", &format!("{first} --unsigned")).ok();
        let export = on("one.db", "one.key", "export all.jsonl --json").ok().json();
        let status = on("one.db", "one.key", "status --json").ok().json();
        assert_eq!(export["mac_key_id"], status["credentials"]["key_id"]);

        on("two.db", "one.key", "import portable all.jsonl --create")
            .ok()
            .says(&["written by a holder of this store's hash key"]);
        let again = on("two.db", "one.key", "import portable all.jsonl --json").ok().json();
        assert_eq!(again["written_by"], "key_holder");

        let elsewhere = "import portable all.jsonl --create";
        on("three.db", "three.key", elsewhere).refused(&["nobody known", "--unsigned"]);
        on("three.db", "three.key", &format!("{elsewhere} --unsigned"))
            .ok()
            .says(&["no hash key before"]);
        on("three.db", "three.key", "import portable all.jsonl")
            .ok()
            .says(&["of another hash key"]);
    }
}

#[test]
fn an_export_without_a_hash_key_says_that_it_proves_nothing() {
    let place = Place::new();
    exported(&place, "libsql");
    fs::rename(place.file("libsql.db.key"), place.file("away")).unwrap();
    place.on("libsql", "export without.jsonl").ok().warns(&["does not prove who wrote it"]);
    assert!(place.read("without.jsonl").starts_with(b"{\"ghostwire_store\":1,"));
    fs::rename(place.file("away"), place.file("libsql.db.key")).unwrap();
    place.on("libsql", "import portable without.jsonl").ok().says(&["no code of a hash key"]);
}

#[test]
fn everybody_says_whether_the_hash_key_fits() {
    for (backend, place) in places() {
        exported(&place, backend);
        let keyed = format!("hmac-sha256:00000001:{}", "5e".repeat(32));
        place.write("new.jsonl", portable(&[&session(&keyed), &api_key("costly", &forged(15))]));
        place
            .on(backend, "import portable new.jsonl --unsigned")
            .ok()
            .warns(&["1 with key 00000001"])
            .says(&["1 of them never usable"]);
        place.on(backend, "status").ok().says(&["another key hashed 1 with key 00000001"]);
        place.on(backend, "doctor").ended(3).says(&["FAIL  credentials"]);
        let wanted = json!({ "total": 2, "bcrypt": 1, "bcrypt_too_costly": 1, "blake3": 0, "other_keys": { "00000001": 1 } });
        let json = place.on(backend, "import portable new.jsonl --json").ok().json();
        assert_eq!(json["credentials"]["all"], wanted);
        assert_eq!(json["credentials"]["new"]["total"], 0);
        let mut status = place.on(backend, "status --json").ok().json();
        assert!(
            status["credentials"].as_object_mut().unwrap().remove("key_id").unwrap().is_string()
        );
        assert_eq!(status["credentials"], wanted);
        // What has nothing to do with credentials does not speak of them.
        place.write("more.jsonl", portable(&[&user(2, "bo")]));
        place.on(backend, "import portable more.jsonl").ok().omits("WARN");
        place.on(backend, "user edit bo --role auditor").ok().omits("another key");
        place.on(backend, "apikey create").ok().warns(&["note: ", "another key"]).omits("WARN");
    }
}

/// A Headscale dump with a plain pre-auth key and API keys with bcrypt hashes of cost 4 and 15.
fn headscale(place: &Place) {
    let whole = fs::read_to_string(dump("request_tags_migration_test.sql")).unwrap();
    let keys = format!(
        "INSERT INTO pre_auth_keys(id, key, user_id, created_at) VALUES(1, 'plain', 1, '2024-01-01');
         INSERT INTO api_keys(id, prefix, hash, created_at) VALUES(1, 'one', '{BCRYPT}', '2024-01-01');
         INSERT INTO api_keys(id, prefix, hash, created_at) VALUES(2, 'two', '{}', '2024-01-01');\nCOMMIT;",
        BCRYPT.replacen("$04$", "$15$", 1)
    );
    place.write("dump.sql", whole.replacen("COMMIT;", &keys, 1));
}

#[test]
fn an_import_of_headscale_says_which_credentials_it_takes_over() {
    for (backend, place) in stores() {
        headscale(&place);
        let plan = place.on(backend, "import headscale dump.sql --dry-run --json").ok().json();
        let wanted = json!({ "total": 3, "bcrypt": 2, "bcrypt_too_costly": 1, "blake3": 0, "other_keys": {} });
        assert_eq!((&plan["credentials"]["new"], &plan["changed"]), (&wanted, &true.into()));
        let done = place.on(backend, "import headscale dump.sql").ok();
        let told = "new credentials: 3; 2 imported with bcrypt and not used since, 1 of them never";
        assert!(done.out.contains(told), "{done:#?}");
        let trail = place.on(backend, "list audit --all --json").ok().items();
        for kind in ["api_key", "preauth_key"] {
            let is_its =
                |line: &Value| line["action"] == "import.headscale" && line["entity"] == kind;
            assert!(trail.iter().any(is_its), "{kind}: {trail:#?}");
        }
        place.on(backend, "import headscale dump.sql").ok().says(&["Nothing changes"]);
        place.on(backend, "doctor").ok().says(&["warn  credentials"]);
    }
}

#[test]
fn plain_keys_are_not_hashed_with_a_key_unlike_the_stores() {
    for (backend, place) in places() {
        exported(&place, backend);
        let keyed = format!("hmac-sha256:00000001:{}", "5e".repeat(32));
        place.write("new.jsonl", portable(&[&session(&keyed)]));
        place.on(backend, "import portable new.jsonl").ok();
        headscale(&place);
        for more in ["", " --dry-run"] {
            let words =
                ["not the one of the store's", "00000001", "--other-key", "secret_key_file"];
            place.unchanged(backend, &words, || {
                place.on(backend, &format!("import headscale dump.sql{more}"))
            });
        }
        let done = place.on(backend, "import headscale dump.sql --other-key --json").ok().json();
        assert_eq!(done["credentials"]["all"]["other_keys"], json!({ "00000001": 1 }));
        // Now it is one of the store's.
        place.on(backend, "import headscale dump.sql").ok();
    }
}

#[test]
fn what_imports_nothing_says_so() {
    for (backend, place) in places() {
        exported(&place, backend);
        place.write("empty.jsonl", portable(&[]));
        let empty = dump("headscale_0.26.1_dump.sql");
        for import in ["portable empty.jsonl".to_owned(), format!("headscale {empty}")] {
            for more in ["", "--dry-run", "--quiet"] {
                place
                    .on(backend, &format!("import {import} {more}"))
                    .ok()
                    .warns(&["holds nothing"]);
            }
            let told = place.on(backend, &format!("import {import} --json")).ok();
            assert_eq!(told.json()["changed"], false);
            assert!(told.error()["note"].as_str().unwrap().contains("holds nothing"));
        }
        let again = place.on(backend, "import portable all.jsonl").ok();
        assert!(again.out.contains("Nothing changes") && again.err.is_empty(), "{again:#?}");
        // All of it is left out.
        let whole = fs::read_to_string(dump("headscale_0.26.1_dump.sql")).unwrap();
        let bad = "INSERT INTO policies(id, data) VALUES(1, '');\nCOMMIT;";
        place.write("bad.sql", whole.replacen("COMMIT;", bad, 1));
        place.unchanged(backend, &["nothing of it can be imported", "left_out: 1"], || {
            place.on(backend, "import headscale bad.sql --skip-invalid")
        });
    }
}

#[test]
fn a_policy_of_headscale_comes_into_force_only_on_request() {
    for (backend, place) in places() {
        let policy = json!({ "policy": {
            "version": 1,
            "document": "{}",
            "author": "ada",
            "created_at": "2024-02-29T12:00:00.000000Z",
        }});
        place.write("first.jsonl", portable(&[&policy.to_string()]));
        place.on(backend, "import portable first.jsonl --create").ok();
        let whole = fs::read_to_string(dump("request_tags_migration_test.sql")).unwrap();
        let second = "INSERT INTO policies VALUES(2,'2024-01-02 00:00:00+00:00',\
                      '2024-01-02 00:00:00+00:00',NULL,'{\"acls\": []}');\nCOMMIT;";
        place.write("dump.sql", whole.replacen("COMMIT;", second, 1));
        let import = "import headscale dump.sql --skip-invalid";
        for more in ["", " --dry-run"] {
            let words = ["--policy", "in_force: 1", "in_file: 2", "nothing was written"];
            place.unchanged(backend, &words, || place.on(backend, &format!("{import}{more}")));
        }
        place
            .on(backend, &format!("{import} --policy"))
            .says(&["policy 2 of the file, in place of policy 1"]);
        assert_eq!(place.on(backend, "status --json").ok().json()["counts"]["policy"], 2);
    }
}
