//! Whether what is ours takes the same path whatever the secret. Memcheck is told that a secret is
//! not initialised, and then complains of every branch and every address that depends on it.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

mod timing;

use std::hint::black_box;
use std::process::Command;

use crabgrind::memcheck::{MemState, mark_mem};
use crabgrind::{RunMode, run_mode};

use crate::SystemRandom;
use crate::keyring::bech32::{self, Case};
use crate::keyring::{Identity, Keyring};
use crate::random::draw;
use crate::root::line_in;
use crate::secret::equal;

/// What valgrind ends with if it complained.
const COMPLAINED: i32 = 99;
const SUPPRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/constant-time.supp");

fn secret(bytes: &mut [u8]) {
    mark(bytes, MemState::Undefined);
}

/// An outcome that everybody may see.
fn public(bytes: &mut [u8]) {
    mark(bytes, MemState::Defined);
}

fn mark(bytes: &mut [u8], state: MemState) {
    assert!(matches!(run_mode(), RunMode::Valgrind), "valgrind marks the bytes");
    // This version gives its outcome the wrong way round; the controls show that it works.
    let _ = mark_mem(bytes.as_mut_ptr().cast(), bytes.len(), state);
}

/// Runs a test of this module under valgrind; gives its exit code and what it said.
fn under_valgrind(test: &str) -> (Option<i32>, String) {
    let ran = Command::new("valgrind")
        .args(["--tool=memcheck", "--leak-check=no", &format!("--error-exitcode={COMPLAINED}")])
        .arg(format!("--suppressions={SUPPRESSIONS}"))
        .arg(std::env::current_exe().expect("the test's own path"))
        .args(["--exact", &format!("constant_time::{test}"), "--ignored", "--test-threads=1"])
        .output()
        .expect("valgrind is installed");
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (ran.status.code(), said.concat())
}

#[test]
fn nothing_of_ours_depends_on_a_secret() {
    let (code, said) = under_valgrind("ours");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn what_does_depend_on_a_secret_is_found() {
    for control in ["a_branch", "an_address"] {
        let (code, said) = under_valgrind(control);
        assert_eq!(code, Some(COMPLAINED), "{said}");
        assert!(said.contains("1 passed"), "{said}");
    }
}

#[test]
#[ignore = "run under valgrind by the two tests above; cargo test --release -p ghostwire-store-crypto --lib --features constant-time constant_time"]
fn ours() {
    let text = Identity::draw(&SystemRandom).expect("an identity").to_text();
    let prefix = "AGE-SECRET-KEY-PQ-1".len();

    // Parsing a root secret looks at no symbol of it.
    let mut content = format!("# a comment\n{}\n", &*text).into_bytes();
    let begin = "# a comment\n".len() + prefix;
    let end = begin + Identity::TEXT_LENGTH - prefix;
    secret(&mut content[begin..end]);
    let line = line_in(&content).expect("the line");
    assert_eq!(line.len(), Identity::TEXT_LENGTH);

    // Nor does parsing an identity, of which only the verdict shows. One symbol is wrong the second
    // time.
    for altered in [0, 1] {
        let mut line = text.as_bytes().to_vec();
        line[30] ^= altered;
        secret(&mut line[prefix..]);
        let decoded = bech32::decode_blindly("age-secret-key-pq-", &line, Case::Upper);
        let (bytes, wrong) = decoded.expect("the form is right");
        assert_eq!(bytes.len(), 32);
        let mut verdict = [wrong];
        public(&mut verdict);
        assert_eq!(verdict[0] != 0, altered != 0);
    }

    // Comparing shows the verdict, and not where two differ.
    let one: [u8; 32] = draw(&SystemRandom).expect("bytes");
    for differs_at in [None, Some(0), Some(31)] {
        let (mut one, mut other) = (one, one);
        if let Some(at) = differs_at {
            other[at] ^= 1;
        }
        secret(&mut one);
        secret(&mut other);
        let mut verdict = [u8::from(black_box(equal(&one, &other)))];
        public(&mut verdict);
        assert_eq!(verdict[0] == 1, differs_at.is_none());
    }

    // A version is found by its number.
    let root = Identity::draw(&SystemRandom).expect("an identity");
    let keyring = Keyring::first([7; 16], root.recipient().clone(), None, 0, &SystemRandom);
    let mut keyring = keyring.expect("a keyring");
    keyring.mark_data_keys(secret);
    assert_eq!(keyring.data_key(1).expect("version 1").version(), 1);
    assert!(keyring.data_key(2).is_err());
    assert_eq!(keyring.active().expect("the newest").version(), 1);
    keyring.mark_data_keys(public);
}

#[test]
#[ignore = "run under valgrind by the two tests above; cargo test --release -p ghostwire-store-crypto --lib --features constant-time constant_time"]
fn a_branch() {
    let mut bytes: [u8; 32] = draw(&SystemRandom).expect("bytes");
    secret(&mut bytes);
    let mut first = bytes.iter().position(|&byte| byte == 7).map_or(0, |at| at.to_le_bytes()[0]);
    public(std::slice::from_mut(&mut first));
    black_box(first);
}

#[test]
#[ignore = "run under valgrind by the two tests above; cargo test --release -p ghostwire-store-crypto --lib --features constant-time constant_time"]
fn an_address() {
    let mut bytes: [u8; 1] = draw(&SystemRandom).expect("bytes");
    let table: [u8; 256] = std::array::from_fn(|at| at.to_le_bytes()[0]);
    secret(&mut bytes);
    let mut found = [black_box(&table)[usize::from(bytes[0])]];
    public(&mut found);
    black_box(found);
}
