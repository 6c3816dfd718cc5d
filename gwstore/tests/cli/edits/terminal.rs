//! On a terminal and in a pipe.

use std::io::Write;
use std::process::Stdio;

use super::network;
use crate::support::{Place, Ran, stores};

#[test]
fn a_listing_in_a_pipe_is_whole() {
    let place = Place::new();
    place.filled("libsql");
    let on = |arguments: &str| place.on("libsql", arguments);
    for command in ["list nodes --json -q", "node list --json", "nodes list -o jsonl"] {
        assert_eq!(on(command).ok().items().len(), 150, "{command}");
    }
    assert_eq!(on("node ls -o json").ok().json().as_array().unwrap().len(), 150);
    assert_eq!(on("node list --tag tag:nobody -o json -q").ok().json(), serde_json::json!([]));
    assert_eq!(on("node list --user ada -q").ok().out.lines().count(), {
        on("node list --user ada --json").ok().items().len() + 1
    });
    let part = on("node list --limit 60 -o json").ok().warns(&["--cursor"]);
    assert_eq!(part.json().as_array().unwrap().len(), 60);
    on("node list --json -o json").ended(2);
    on("-o json node show nobody").ended(4).error();
    on("-o json node show").ended(2).error();
    // Every column of a table has its field.
    for (listing, names) in [
        ("nodes", ["user_name", "online", "last_seen", "expired"]),
        ("routes", ["node_label", "primary", "metric", "description"]),
        ("preauth-keys", ["user_name", "state", "expires_at", "reusable"]),
        ("sessions", ["owner_name", "client", "expires_at", "node_label"]),
        ("policies", ["in_force", "bytes", "author", "version"]),
    ] {
        let items = on(&format!("list {listing} --limit 1 --json")).ok().items();
        for name in names {
            assert!(items[0].as_object().unwrap().contains_key(name), "{listing}: {}", items[0]);
        }
    }
    let table = on("node list --columns label,last-seen").ok();
    assert!(table.out.starts_with("LABEL") && table.out.contains(" ago"), "{table:#?}");
    let exact = on("node list --columns last-seen --absolute-times").ok();
    assert!(exact.out.contains("Z\n") && !exact.out.contains(" ago"), "{exact:#?}");
    assert!(!table.out.contains('\u{1b}'));
}

/// Runs the program on a terminal, where somebody types this answer. What it prints has both outputs.
fn on_terminal(place: &Place, variables: &str, arguments: &str, answer: &str) -> Ran {
    let program = env!("CARGO_BIN_EXE_gwstore");
    let line = format!("env {variables} '{program}' {arguments}");
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.current_dir(place.file("")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn a_person_is_asked() {
    for (backend, place) in stores() {
        network(&place, backend);
        let answered = |arguments: &str, answer: &str| {
            let on = format!("--backend {backend} --path {backend}.db {arguments}");
            on_terminal(&place, "TERM=xterm", &on, answer)
        };
        let before = place.digest(backend);
        for no in ["n\n", "\n", "what\n"] {
            let declined = answered("node delete laptop", no).ended(5);
            declined.says(&["would delete node laptop", "[y/N]", "Nothing was changed"]);
            assert_eq!(place.digest(backend), before);
        }
        // A program does not answer.
        answered("node delete laptop --json", "y\n").ended(5).says(&["confirmation"]);
        assert_eq!(place.digest(backend), before);
        answered("node delete laptop", "y\n").ok().says(&["deleted node laptop"]);
        assert_ne!(place.digest(backend), before);
    }
}

#[test]
fn a_terminal_gets_colours_and_a_page() {
    let place = Place::new();
    place.filled("libsql");
    let list = "--backend libsql --path libsql.db node list";
    let table = on_terminal(&place, "-u NO_COLOR TERM=xterm", list, "").ok();
    assert!(table.out.starts_with("\u{1b}[1mID"), "{table:#?}");
    let table = table.says(&["there is more", "--cursor"]);
    // The titles, a page, and that there is more.
    assert_eq!(table.out.lines().count(), 102, "{table:#?}");
    let plain = on_terminal(&place, "NO_COLOR=1 TERM=xterm", list, "").ok();
    assert!(!plain.out.contains('\u{1b}'), "{plain:#?}");
    let whole = on_terminal(&place, "TERM=dumb", &format!("{list} --all"), "").ok();
    assert!(!whole.out.contains('\u{1b}'), "{whole:#?}");
    assert_eq!(whole.out.lines().count(), 151);
}

#[test]
fn completions_and_manual_pages() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        place.run(&format!("completions {shell}")).ok().says(&["preauthkey", "approve-routes"]);
    }
    place.run("completions tcsh").ended(2);
    place.run("man pages").ok();
    place.run("man pages").ok();
    place.run("man nowhere/pages").ended(4).warns(&["nowhere/pages"]);
    assert!(!place.file("nowhere").exists());
    let page = String::from_utf8(place.read("pages/gwstore-node-tag.1")).unwrap();
    assert!(page.contains("Replaces"), "{page}");
    for (verb, words) in [
        ("node tag", "Replaces a node's tags"),
        ("node approve-routes", "Replaces what is approved"),
        ("route approve", "Adds to what is approved"),
        ("dns put", "Replaces what a name has"),
        ("dns create", "Adds a record"),
        ("setting set", "Replaces the fields"),
    ] {
        let help = place.run(&format!("{verb} --help")).ok();
        assert!(help.out.lines().next().unwrap().starts_with(words), "{help:#?}");
    }
}
