#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use std::fs;
use std::path::Path;

use super::*;
use crate::hash::sha256;
use crate::random::SystemRandom;
use crate::wire::{from_hex, hex};

/// One of the C2SP's vectors for age: what to expect, and a file.
struct Vector {
    name: String,
    fields: Vec<(String, String)>,
    file: Vec<u8>,
}

impl Vector {
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/cctv-age");
        let mut files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let fields = std::str::from_utf8(&bytes[..end]).unwrap().lines();
        let fields = fields.map(|line| line.split_once(": ").unwrap());
        Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            fields: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            file: bytes[end + 2..].to_vec(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// How an attempt to open ended, in the vectors' words, and the SHA-256 of what came out.
fn open(
    file: &[u8],
    file_key: impl FnOnce(&File<'_>) -> Option<[u8; 16]>,
) -> (&'static str, String) {
    let Ok(file) = File::parse(file) else { return ("header failure", String::new()) };
    let Some(file_key) = file_key(&file) else { return ("no match", String::new()) };
    if !file.is_header_of(&file_key).unwrap() {
        return ("HMAC failure", String::new());
    }
    match file.open(&file_key).unwrap() {
        Some(payload) => ("success", hex(&sha256(&[&payload]))),
        None => ("payload failure", String::new()),
    }
}

/// By the file key that each vector names: everything but the recipients, whatever their kind. Of
/// those with one of a kind that we do not know, what is wrong with it does not show.
#[test]
fn headers_and_payloads_are_those_of_the_vectors() {
    let mut count = 0;
    for vector in Vector::all() {
        let expected = vector.field("expect").unwrap();
        let of_recipient = vector.name.starts_with("x25519_") || vector.name.starts_with("hybrid_");
        if of_recipient && expected != "success" {
            continue;
        }
        let Some(file_key) = vector.field("file key") else { continue };
        let Some(file_key) = from_hex::<16>(file_key) else { continue };
        let (ended, payload) = open(&vector.file, |_| Some(file_key));
        assert_eq!(ended, expected, "{}: {:?}", vector.name, vector.field("comment"));
        if ended == "success" {
            assert_eq!(Some(payload.as_str()), vector.field("payload"), "{}", vector.name);
        }
        count += 1;
    }
    assert!(count >= 30, "{count} vectors");
}

/// All vectors of hybrid recipients, with the identity that they name.
#[test]
fn hybrid_recipients_are_those_of_the_vectors() {
    let mut count = 0;
    for vector in Vector::all().into_iter().filter(|vector| vector.name.starts_with("hybrid")) {
        let identities = vector.fields.iter().filter(|(name, _)| name == "identity");
        let identity = identities
            .filter(|(_, text)| text.starts_with("AGE-SECRET-KEY-PQ-"))
            .map(|(_, text)| Identity::from_text(text).unwrap())
            .next()
            .unwrap();
        let mut refused = false;
        let (ended, payload) = open(&vector.file, |file| match file.file_key(&identity) {
            Ok(file_key) => file_key.map(|file_key| *file_key),
            Err(_) => {
                refused = true;
                None
            }
        });
        let ended = if refused { "header failure" } else { ended };
        let expected = match (vector.name.as_str(), vector.field("expect").unwrap()) {
            // Wrong in a stanza of X25519, which is not for us.
            ("hybrid_x25519_arg", _) => "no match",
            (_, expected) => expected,
        };
        assert_eq!(ended, expected, "{}: {:?}", vector.name, vector.field("comment"));
        if ended == "success" {
            assert_eq!(Some(payload.as_str()), vector.field("payload"), "{}", vector.name);
        }
        count += 1;
    }
    assert!(count >= 15, "{count} vectors");
}

/// What is read is written as it was.
#[test]
fn headers_come_back() {
    for vector in Vector::all() {
        let Ok(file) = File::parse(&vector.file) else { continue };
        let mut draft = Draft::new();
        file.stanzas.iter().for_each(|(_, stanza)| draft.push(stanza));
        assert_eq!([draft.as_bytes(), b"---"].concat(), file.header, "{}", vector.name);
    }
}

#[test]
fn payloads_of_every_length_come_back() {
    let identity = Identity::draw(&SystemRandom).unwrap();
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 5] {
        let plain: Vec<u8> = (0..length).map(|place| place as u8).collect();
        let file_key = [3; FILE_KEY];
        let payload = seal(&file_key, &plain, &SystemRandom).unwrap();
        let mut draft = Draft::new();
        draft.push_recipient(identity.recipient(), &file_key, &SystemRandom).unwrap();
        let bytes = draft.finish(&file_key, &payload).unwrap();
        let file = File::parse(&bytes).unwrap();
        assert_eq!(*file.file_key(&identity).unwrap().unwrap(), file_key);
        assert!(file.is_header_of(&file_key).unwrap());
        assert_eq!(*file.open(&file_key).unwrap().unwrap(), plain);
        for cut in [1, TAG, TAG + 1, CHUNK + TAG] {
            let least = bytes.len() - payload.len() + NONCE;
            let cut = &bytes[..bytes.len().saturating_sub(cut).max(least)];
            assert!(File::parse(cut).unwrap().open(&file_key).unwrap().is_none());
        }
    }
}

#[test]
fn the_texts_of_the_specification_are_read() {
    let identity = "AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR";
    let recipient = include_str!("../../tests/vectors/c2sp-age-recipient.txt");
    let read = Identity::from_text(identity).unwrap();
    assert_eq!(read.recipient().to_string(), recipient.trim());
    assert_eq!(*read.to_text(), identity);
    assert_eq!(&recipient.trim().parse::<Recipient>().unwrap(), read.recipient());
    for wrong in [
        identity.to_lowercase(),
        identity.replace("PQ-1XX", "PQ-1XY"),
        identity.replace("-PQ-", "-"),
        format!("{identity} "),
        identity[..60].to_owned(),
        recipient.trim().to_owned(),
    ] {
        assert!(matches!(Identity::from_text(&wrong), Err(Error::Invalid { .. })));
        assert!(wrong.to_uppercase().parse::<Recipient>().is_err());
    }
}
