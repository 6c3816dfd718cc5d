//! What the documentation shows of configurations can be used as it stands.

use std::fs;
use std::process::Stdio;

use crate::support::{Place, Ran, command_in};

const PAGE: &str = include_str!("../../../docs/configuration.md");
const FLAGS: &str = include_str!("../../../feature-flags.toml");

/// The configurations of the page, each with the ending of its file's name.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut found = vec![("toml", FLAGS)];
    let mut rest = PAGE;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (language, body) = after.split_once('\n').unwrap();
        let (block, behind) = body.split_once("\n```").unwrap();
        rest = behind;
        if ["toml", "yaml"].contains(&language) {
            found.push((language, block));
        }
    }
    found
}

/// The environments that it has, and the stores of each; none if it names none.
fn environments(language: &str, block: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        let table = match language {
            "toml" => line.strip_prefix('[').and_then(|line| line.split(']').next()),
            _ => line.strip_suffix(':').filter(|line| !line.starts_with(' ')),
        };
        let Some(table) = table else { continue };
        let mut parts = table.split('.');
        let name = parts.next().unwrap();
        if name == "defaults" {
            continue;
        }
        if found.iter().all(|(known, _)| known != name) {
            found.push((name.to_owned(), Vec::new()));
        }
        if let (Some("stores"), Some(store)) = (parts.next(), parts.next()) {
            found.last_mut().unwrap().1.push(store.to_owned());
        }
    }
    found
}

#[test]
fn every_configuration_makes_its_stores() {
    let blocks = blocks();
    assert!(blocks.len() >= 5, "{blocks:?}");
    for (language, block) in blocks {
        let place = Place::new();
        let directory = place.file("").to_str().unwrap().trim_end_matches('/').to_owned();
        for name in ["etc", "var", "srv", "credentials"] {
            fs::create_dir(place.file(name)).unwrap();
        }
        let mut text = block.to_owned();
        for (shown, here) in
            [("/etc/ghostwire", "etc"), ("/var/lib/ghostwire", "var"), ("/srv/ghostwire", "srv")]
        {
            text = text.replace(shown, &format!("{directory}/{here}"));
        }
        let file = format!("flags.{language}");
        place.write(&file, &text);
        place.run("keys identity new etc/root").ok();
        fs::copy(place.file("etc/root"), place.file("credentials/ghostwire-root")).unwrap();
        let environments = environments(language, block);
        assert!(!environments.is_empty(), "{block}");
        for (environment, stores) in environments {
            let run = |store: &str, command: &str| {
                let mut arguments = vec!["--config", &file, "--environment", &environment];
                if !store.is_empty() {
                    arguments.extend(["--store", store]);
                }
                arguments.push(command);
                let mut command = command_in(&place.file(""), &arguments);
                command.env("CREDENTIALS_DIRECTORY", place.file("credentials"));
                Ran::of(command.stdin(Stdio::null()).output().unwrap())
            };
            let stores = if stores.is_empty() { vec![String::new()] } else { stores };
            for store in stores {
                run(&store, "init").ok();
                let status = run(&store, "status").ok();
                // What says that it is sealed is.
                if environment == "production" && store != "next" {
                    status.says(&["sealed        yes"]);
                }
            }
        }
    }
}
