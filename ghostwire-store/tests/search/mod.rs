//! Looks for planted bytes in every form in which somebody may have written them down.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aho_corasick::AhoCorasick;
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};

/// Finds what was planted, each by its name.
pub struct Search {
    automaton: AhoCorasick,
    /// The name and the form of each pattern.
    patterns: Vec<(String, &'static str)>,
}

/// What was found: its name, its form, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub name: String,
    pub form: &'static str,
    pub place: String,
}

impl Search {
    pub fn of<N: Into<String>, B: AsRef<[u8]>>(planted: impl IntoIterator<Item = (N, B)>) -> Self {
        let (mut patterns, mut bytes) = (Vec::new(), Vec::new());
        for (name, planted) in planted {
            let name = name.into();
            for (form, pattern) in forms(planted.as_ref()) {
                patterns.push((name.clone(), form));
                bytes.push(pattern);
            }
        }
        Self { automaton: AhoCorasick::new(bytes).unwrap(), patterns }
    }

    /// The names and forms that are in these bytes, and where they begin.
    pub fn in_bytes(&self, bytes: &[u8]) -> Vec<(&str, &'static str, usize)> {
        let found = self.automaton.find_overlapping_iter(bytes).map(|found| {
            let (name, form) = &self.patterns[found.pattern().as_usize()];
            (name.as_str(), *form, found.start())
        });
        found.collect()
    }

    /// Searches every file below a directory, whose names count, too.
    pub fn in_files(&self, directory: &Path) -> BTreeSet<Found> {
        let mut all = BTreeSet::new();
        for path in files_below(directory) {
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            // One that is gone by now was searched before or holds nothing any more.
            let Ok(content) = fs::read(&path) else { continue };
            for bytes in [content.as_slice(), name.as_bytes()] {
                all.extend(self.in_bytes(bytes).into_iter().map(|(planted, form, _)| Found {
                    name: planted.to_owned(),
                    form,
                    place: name.clone(),
                }));
            }
        }
        all
    }

    /// The names of everything that was planted.
    pub fn names(&self) -> BTreeSet<&str> {
        self.patterns.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Every file below a directory.
pub fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

fn forms(planted: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut forms = vec![
        ("raw", planted.to_vec()),
        ("hex", HEXLOWER.encode(planted).into_bytes()),
        ("upper-case hex", HEXUPPER.encode(planted).into_bytes()),
    ];
    // Behind none, one or two other bytes, and without the symbols that those, or what follows, decide.
    for (before, undecided) in [(0, 0), (1, 2), (2, 3)] {
        let padded = [&vec![0; before], planted].concat();
        let decided = padded.len() * 8 / 6;
        for (form, text) in [
            ("base64", BASE64_NOPAD.encode(&padded)),
            ("base64 of URLs", BASE64URL_NOPAD.encode(&padded)),
        ] {
            forms.push((form, text.as_bytes()[undecided..decided].to_vec()));
        }
    }
    forms
}

#[test]
fn each_form_is_found_wherever_it_begins() {
    let planted = b"planted-and-found";
    let search = Search::of([("it", planted)]);
    let mut texts = vec![HEXLOWER.encode(planted), HEXUPPER.encode(planted)];
    for before in 0..4 {
        for behind in 0..4 {
            let around = [&vec![b'<'; before], &planted[..], &vec![b'>'; behind]].concat();
            texts.push(BASE64_NOPAD.encode(&around));
            texts.push(BASE64URL_NOPAD.encode(&around));
            texts.push(String::from_utf8(around).unwrap());
        }
    }
    for text in texts {
        assert!(!search.in_bytes(format!("...{text}...").as_bytes()).is_empty(), "{text}");
    }
    assert!(search.in_bytes(b"planted-and-fount").is_empty());
}
