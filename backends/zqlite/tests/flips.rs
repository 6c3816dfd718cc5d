//! Whatever somebody does to the bytes of a sealed store, of its log, its log's index, its keyring or its
//! pin: it is refused or does no harm. Nothing else is ever read, and nothing panics.
//!
//! `GHOSTWIRE_FLIPS` says how many alterations are tried (400), `GHOSTWIRE_FLIPS_SEED` which (1).
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use ghostwire_store_core::backend::Backend;
use ghostwire_store_core::error::{Error, ErrorKind};
use ghostwire_store_core::schema::Table;
use ghostwire_store_crypto::SystemRandom;
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Rotation, Unlock};
use ghostwire_store_zqlite::{PinChoice, PinOptions, ZqliteBackend, ZqliteOptions};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

const SIDE: [u8; 16] = [9; 16];
const PAGE: usize = 4096;

/// What is altered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    File,
    Log,
    /// The log, whose checksums are then made anew: SQLite's have no key.
    LogWithChecksums,
    Index,
    Keyring,
    Pin,
}

#[derive(Debug, Clone)]
enum Alteration {
    Flip(Index, u8),
    Truncate(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Copy { from: Index, to: Index, length: usize },
    Swap { one: Index, other: Index, length: usize },
}

impl Alteration {
    fn any() -> impl Strategy<Value = Self> {
        // A piece of any length, or whole pages.
        let length = || prop_oneof![1..200_usize, Just(PAGE), Just(2 * PAGE)];
        prop_oneof![
            6 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Self::Flip(at, bit)),
            1 => any::<Index>().prop_map(Self::Truncate),
            1 => (any::<Index>(), length()).prop_map(|(at, length)| Self::Remove(at, length)),
            1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..40))
                .prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            2 => (any::<Index>(), any::<Index>(), length())
                .prop_map(|(from, to, length)| Self::Copy { from, to, length }),
            2 => (any::<Index>(), any::<Index>(), length())
                .prop_map(|(one, other, length)| Self::Swap { one, other, length }),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let whole = bytes.len();
        // Whole pages lie at their own places.
        let at = |index: &Index, length: usize| match length % PAGE {
            0 => index.index(whole) / PAGE * PAGE,
            _ => index.index(whole),
        };
        match self {
            Self::Flip(index, bit) => bytes[index.index(whole)] ^= 1 << bit,
            Self::Truncate(index) => bytes.truncate(index.index(whole)),
            Self::Remove(index, length) => {
                let from = at(index, *length);
                bytes.drain(from..(from + length).min(whole));
            }
            Self::Insert(index, inserted) => {
                let at = index.index(whole);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Copy { from, to, length } => {
                let (from, to) = (at(from, *length), at(to, *length));
                let length = (*length).min(whole - from.max(to));
                bytes.copy_within(from..from + length, to);
            }
            Self::Swap { one, other, length } => {
                let (one, other) = (at(one, *length), at(other, *length));
                let apart = one.abs_diff(other);
                let length = (*length).min(whole - one.max(other)).min(apart);
                (0..length).for_each(|offset| bytes.swap(one + offset, other + offset));
            }
        }
    }
}

/// Makes the checksums of a write-ahead log right again (SQLite's file format, section 4).
fn remake_checksums(log: &mut [u8]) {
    if log.len() < 32 {
        return;
    }
    let is_big = log[3] & 1 == 1;
    let sum = |[mut one, mut other]: [u32; 2], bytes: &[u8]| {
        for words in bytes.as_chunks::<8>().0 {
            let [first, second] = [0, 4].map(|at| {
                let word = [words[at], words[at + 1], words[at + 2], words[at + 3]];
                if is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
            });
            one = one.wrapping_add(first).wrapping_add(other);
            other = other.wrapping_add(second).wrapping_add(one);
        }
        [one, other]
    };
    let write = |sums: [u32; 2], into: &mut [u8]| {
        into[..4].copy_from_slice(&sums[0].to_be_bytes());
        into[4..8].copy_from_slice(&sums[1].to_be_bytes());
    };
    let (head, frames) = log.split_at_mut(32);
    let mut sums = sum([0, 0], &head[..24]);
    write(sums, &mut head[24..]);
    for frame in frames.chunks_exact_mut(24 + PAGE) {
        sums = sum(sums, &frame[..8]);
        sums = sum(sums, &frame[24..]);
        write(sums, &mut frame[16..24]);
    }
}

/// A store as a process leaves it that was killed, and all that belongs to it.
#[derive(Clone)]
struct Files {
    file: Vec<u8>,
    log: Vec<u8>,
    index: Vec<u8>,
    keyring: Vec<u8>,
    pin: Vec<u8>,
}

struct Subject {
    files: Files,
    root: Identity,
    expected: Everything,
}

fn with_pin(path: &Path, keyring: Keyring) -> ZqliteOptions {
    let pin = PinOptions::file(path.with_file_name("pin")).same_device(true);
    options(path).sealed(keyring).pin(PinChoice::Commit(pin)).compact_series_early()
}

impl Subject {
    /// With `rotated`, one whose key leaked: records are under two versions, and another signed before.
    async fn make(rotated: bool) -> Self {
        let (_directory, path) = directory();
        let root = Identity::draw(&SystemRandom).unwrap();
        let first = Keyring::first(SIDE, root.recipient().clone(), None, 0, &SystemRandom).unwrap();
        let mut keyring = first.seal(&SystemRandom).unwrap();
        let open = |bytes: &[u8]| {
            Keyring::open(bytes, Unlock::Identity(&root), &Expected::default()).unwrap()
        };
        // Most of it lies in the file, and some in the log.
        let mut expected = None;
        for rounds in [0..12_u32, 12..17] {
            let backend = ZqliteBackend::open(with_pin(&path, open(&keyring))).await.unwrap();
            for round in rounds {
                let rows = |table, count: u32, length| {
                    (0..count)
                        .map(move |number| put(table, round * count + number, vec![7; length]))
                };
                let rows = rows(Table::Users, 6, 90)
                    .chain(rows(Table::Metrics, 120, 20))
                    .chain(rows(Table::Policies, 1, 5_000))
                    .chain([delete(Table::Users, round * 6)]);
                commit_block(&backend, rows.collect()).await;
                backend.confirm().await.unwrap();
            }
            if expected.is_none() {
                expected = Some(read(&backend).await.unwrap());
                backend.close().await.unwrap();
                if rotated {
                    let before = open(&keyring);
                    let next = before.rotate(Rotation::Leaked, 0, &SystemRandom).unwrap();
                    let rotating = open(&next.seal(&SystemRandom).unwrap());
                    let backend = ZqliteBackend::open(with_pin(&path, rotating.clone())).await;
                    backend.unwrap().close().await.unwrap();
                    let finished = rotating.finish_rotation().unwrap();
                    keyring = finished.seal(&SystemRandom).unwrap();
                }
                continue;
            }
            let expected = read(&backend).await.unwrap();
            let bytes = |suffix: &str| fs::read(format!("{}{suffix}", path.display())).unwrap();
            let pin = fs::read(path.with_file_name("pin")).unwrap();
            let (file, log, index) = (bytes(""), bytes("-wal"), bytes("-shm"));
            return Self { files: Files { file, log, index, keyring, pin }, root, expected };
        }
        unreachable!("the second round returns")
    }

    /// Whether the files are read as they were; an error refuses them.
    async fn try_out(&self, files: &Files) -> Result<bool, Error> {
        // In memory: nothing here has to outlive the machine.
        let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = scratch.path().join("store.db");
        let beside = |suffix: &str| format!("{}{suffix}", path.display());
        fs::write(&path, &files.file).unwrap();
        fs::write(beside("-wal"), &files.log).unwrap();
        fs::write(beside("-shm"), &files.index).unwrap();
        fs::write(path.with_file_name("pin"), &files.pin).unwrap();
        let unlock = Unlock::Identity(&self.root);
        let expected = Expected { store: Some(SIDE), generation: 1 };
        let keyring = Keyring::open(&files.keyring, unlock, &expected)
            .map_err(|error| Error::new(ErrorKind::Crypto, error.to_string()))?;
        let backend = ZqliteBackend::open(with_pin(&path, keyring).create(false)).await?;
        let everything = read(&backend).await?;
        if everything != self.expected {
            return Ok(false);
        }
        backend.verify().await?;
        backend.close().await?;
        Ok(true)
    }
}

fn from_environment(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[test]
fn whatever_is_altered_is_refused_or_does_no_harm() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.unwrap();
    let subjects = [false, true].map(|rotated| runtime.block_on(Subject::make(rotated)));
    for subject in &subjects {
        assert!(runtime.block_on(subject.try_out(&subject.files)).unwrap(), "nothing was altered");
    }
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&from_environment("GHOSTWIRE_FLIPS_SEED", 1).to_be_bytes());
    let config = Config {
        cases: from_environment("GHOSTWIRE_FLIPS", 400),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let target = prop::sample::select(vec![
        Target::File,
        Target::File,
        Target::Log,
        Target::LogWithChecksums,
        Target::LogWithChecksums,
        Target::Index,
        Target::Keyring,
        Target::Pin,
    ]);
    let (tried, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let outcome =
        runner.run(&(0..2_usize, target, Alteration::any()), |(which, target, alteration)| {
            let subject = &subjects[which];
            let mut files = subject.files.clone();
            let bytes = match target {
                Target::File => &mut files.file,
                Target::Log | Target::LogWithChecksums => &mut files.log,
                Target::Index => &mut files.index,
                Target::Keyring => &mut files.keyring,
                Target::Pin => &mut files.pin,
            };
            alteration.apply(bytes);
            if target == Target::LogWithChecksums {
                remake_checksums(bytes);
            }
            tried.set(tried.get() + 1);
            match runtime.block_on(subject.try_out(&files)) {
                Ok(true) => Ok(()),
                Ok(false) => Err(TestCaseError::fail("something else was read")),
                Err(error) => {
                    refused.set(refused.get() + 1);
                    let expected = matches!(
                        error.kind(),
                        ErrorKind::Corrupt
                        | ErrorKind::Crypto
                        // No SQLite file any more; or one that this SQLite must not write, or read.
                        | ErrorKind::InvalidArgument
                        | ErrorKind::ReadOnly
                        | ErrorKind::Unsupported
                        // A pin of nothing is none.
                        | ErrorKind::Restricted
                    );
                    prop_assert!(expected, "{:?}", error);
                    Ok(())
                }
            }
        });
    outcome.unwrap();
    // Free pages, zeros behind what is written, and what the log's index repeats do no harm.
    assert!(refused.get() * 3 > tried.get(), "{} of {} refused", refused.get(), tried.get());
}

/// Every row is unreadable, and nobody gets so far as to notice.
#[tokio::test]
async fn foreign_objects_in_the_schema_are_refused_before_any_row_is_read() {
    let (_directory, path) = directory();
    let backend = ZqliteBackend::open(sealed(&path)).await.unwrap();
    commit_block(&backend, (0..20).map(|number| put(Table::Users, number, "user")).collect()).await;
    backend.close().await.unwrap();
    let whole = fs::read(&path).unwrap();
    for statement in [
        "CREATE TRIGGER t AFTER INSERT ON rows BEGIN DELETE FROM blocks; END",
        "CREATE TRIGGER t BEFORE UPDATE ON meta BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW v AS SELECT body FROM rows",
        "CREATE INDEX i ON rows(body)",
        "CREATE UNIQUE INDEX i ON journal(length(body))",
        "CREATE TABLE more(id INTEGER PRIMARY KEY)",
        "CREATE VIRTUAL TABLE v USING fts5(body)",
        "ALTER TABLE rows ADD COLUMN more",
        "ALTER TABLE rows RENAME TO other_rows",
        "DROP TABLE directory",
        "ANALYZE",
        "DROP TABLE rows; CREATE VIEW rows AS SELECT 1 AS slot, x'00' AS body",
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=sql||' STRICT' WHERE name='rows'",
        "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=NULL WHERE name='rows'",
    ] {
        fs::write(&path, &whole).unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch("UPDATE rows SET body=x'00'; UPDATE blocks SET changes=x'00'").unwrap();
        file.execute_batch(statement).unwrap();
        file.close().unwrap();
        let error = ZqliteBackend::open(sealed(&path)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{statement}: {error}");
        let text = error.to_string();
        assert!(!text.contains("slot=") && !text.contains("serial="), "{statement}: {error}");
        if !statement.contains("writable_schema") {
            assert!(text.contains("layout"), "{statement}: {error}");
        }
    }
}
