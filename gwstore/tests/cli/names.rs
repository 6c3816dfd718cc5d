//! Names that other people chose, as the program takes and shows them.

use crate::support::{Place, dump, places, portable, user};

/// The first would look like another one, the second like what is printed of the first.
const ODD: [&str; 2] = ["admin\u{200b}", "\u{202e}admin\\u{200b}"];

#[test]
fn what_does_not_show_is_shown_as_an_escape() {
    for (backend, place) in places() {
        // As an earlier release stored them.
        let lines = [user(1, "admin"), user(2, ODD[0]), user(3, ODD[1])];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        place.write("old.jsonl", portable(&lines));
        place.on(backend, "import portable old.jsonl --create").ok();
        let table = place
            .on(backend, "list users")
            .ok()
            .says(&["admin\\u{200b}", "\\u{202e}admin\\\\u{200b}"]);
        let json = place.on(backend, "list users --json").ok();
        for text in [&table.out, &json.out] {
            assert!(
                text.chars().all(|shown| shown == '\n'
                    || !ODD.concat().contains(shown)
                    || shown.is_ascii())
            );
        }
        let second: serde_json::Value =
            serde_json::from_str(json.out.lines().nth(1).unwrap()).unwrap();
        assert_eq!(second["name"], ODD[0], "escapes are JSON's own");
        // The store opens, is in order, and moves to another with the same digest.
        place.on(backend, "doctor").says(&["rows and blocks are whole"]);
        place.on(backend, "export new.jsonl").ok();
        place.run("--backend libsql --path copy.db import portable new.jsonl --create").ok();
        let copy = place.run("--backend libsql --path copy.db digest --json").ok().json();
        assert_eq!(copy, place.digest(backend));
    }
}

#[test]
fn a_headscale_name_keeps_what_shows_and_says_so() {
    let place = Place::new();
    let whole = std::fs::read_to_string(dump("request_tags_migration_test.sql")).unwrap();
    let name = "user1@example.com";
    let odd = whole.replacen(&format!("'{name}'"), &format!("'{name}\u{200b}'"), 1);
    assert_ne!(whole, odd);
    place.write("odd.sql", odd);
    place.on("libsql", "import headscale odd.sql --create").ok().warns(&["do not show"]);
    place.on("libsql", "list users --json").ok().says(&[&format!("\"name\":\"{name}\"")]);
}

#[test]
fn a_user_whose_name_looks_like_an_id_can_be_named() {
    let place = Place::new();
    let name = "0190a5c8-7e1f-7000-8000-00000000beef";
    let lines = [user(1, "ann"), user(2, name)];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    place.write("users.jsonl", portable(&lines));
    place.on("libsql", "import portable users.jsonl --create").ok();
    place.on("libsql", &format!("list nodes --user {name}")).ok();
    let id = "0190a5c8-7e1f-7000-8000-000000000001";
    place.on("libsql", &format!("list nodes --user {id}")).ok();
    place
        .on("libsql", "list nodes --user 0190a5c8-7e1f-7000-8000-00000000dead")
        .refused(&["does not exist"]);
}
