//! Files that are moved, removed or replaced while a store is open, and before it is opened again.

use std::fs;
use std::path::{Path, PathBuf};

use super::workload::{clock, open, options};
use crate::prelude::*;

const NO_FILE: Verdict = Verdict::Skipped("the place is no file");
const MATERIALIZE: [Materialize; 2] = [Materialize::Commit, Materialize::Checkpoint];
/// Users that are made before anything happens to the files.
const USERS: usize = 5;

/// What is done to a file while the store is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Remove,
    Rename,
    /// Another store's file is moved over it.
    Replace,
    Link,
}

/// Which file it is done to: what is appended to the name of the store's.
const FILES: [(&str, &[Move]); 3] = [
    ("", &[Move::Remove, Move::Rename, Move::Replace, Move::Link]),
    ("-wal", &[Move::Remove, Move::Rename, Move::Replace, Move::Link]),
    (".lock", &[Move::Remove, Move::Rename, Move::Replace, Move::Link]),
];

impl Move {
    fn make(self, file: &Path, other: &Path) {
        let done = match self {
            Self::Remove => fs::remove_file(file),
            Self::Rename => fs::rename(file, aside(file)),
            Self::Replace => fs::copy(other, beside(file, ".new"))
                .and_then(|_| fs::rename(beside(file, ".new"), file)),
            Self::Link => fs::hard_link(file, aside(file)),
        };
        done.unwrap();
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn aside(file: &Path) -> PathBuf {
    beside(file, ".aside")
}

async fn create(store: &Opened, number: usize) -> Result<()> {
    let name = format!("user-{number}").parse().unwrap();
    store.users().create(NewUser::local(name)).await.map(drop)
}

fn users(store: &Opened) -> usize {
    store.view().users().iter().count()
}

async fn filled(
    place: &dyn Place,
    materialize: Materialize,
    seed: u64,
) -> (Arc<dyn Backend>, Arc<dyn Store>) {
    let (backend, store) = open(place, options(materialize, &clock(), seed)).await.unwrap();
    for number in 0..USERS {
        create(&store, number).await.unwrap();
    }
    (backend, store)
}

/// The file of a closed store.
async fn another(factory: &dyn Factory) -> Option<(Box<dyn Place>, PathBuf)> {
    let place = factory.create().await.unwrap();
    let file = place.file()?;
    let (_, store) = filled(place.as_ref(), Materialize::Commit, 77).await;
    store.close().await.unwrap();
    Some((place, file))
}

pub(super) async fn a_write_into_a_file_that_was_moved_is_not_acknowledged(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let Some((_other_place, other)) = another(factory.as_ref()).await else { return NO_FILE };
    for materialize in MATERIALIZE {
        for (suffix, moves) in FILES {
            for &how in moves {
                let when = format!("{materialize:?}, {how:?} of `{suffix}`");
                let place = factory.create().await.unwrap();
                let path = place.file().unwrap();
                let (backend, store) = filled(place.as_ref(), materialize, effort.seed).await;
                let file = beside(&path, suffix);
                if !file.exists() {
                    continue;
                }
                how.make(&file, &other);
                refuses_everything(&store, &when).await;
                let again = backend.reopen().await.err();
                assert_eq!(again.map(|error| error.kind().clone()), Some(Corrupt));
                assert_eq!(users(&store), USERS, "{when}: what is shown");
                let closed = store.close().await;
                assert!(closed.is_err(), "{when}: closing says that all is well");
                drop((backend, store));
                open_again(place.as_ref(), suffix, how, &when).await;
            }
        }
    }
    Verdict::Passed
}

pub(super) async fn a_probe_finds_files_that_were_moved(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let Some((_other_place, other)) = another(factory.as_ref()).await else { return NO_FILE };
    for (suffix, moves) in FILES {
        for &how in moves {
            let when = format!("{how:?} of `{suffix}`");
            let place = factory.create().await.unwrap();
            let path = place.file().unwrap();
            let (_, store) = filled(place.as_ref(), Materialize::Commit, effort.seed).await;
            store.probe().await.unwrap();
            let file = beside(&path, suffix);
            if !file.exists() {
                continue;
            }
            how.make(&file, &other);
            for _ in 0..2 {
                let error = store.probe().await.err();
                let error = error.unwrap_or_else(|| panic!("{when}: the probe succeeds"));
                assert!([OutcomeUnknown, Corrupt].contains(error.kind()), "{when}: {error:?}");
            }
            refuses_everything(&store, &when).await;
            assert!(store.close().await.is_err(), "{when}: closing says that all is well");
        }
    }
    Verdict::Passed
}

/// Neither the first write nor a later one is acknowledged.
async fn refuses_everything(store: &Opened, when: &str) {
    for attempt in 0..3 {
        let error = create(store, USERS + attempt).await.err();
        let error = error.unwrap_or_else(|| panic!("{when}: write {attempt} is acknowledged"));
        let expected = [OutcomeUnknown, Corrupt];
        assert!(expected.contains(error.kind()), "{when}: {error:?}");
        assert!(error.to_string().contains("store.db"), "{when}: which file? {error}");
    }
    assert!(store.verify().await.is_err(), "{when}: nothing is found");
}

/// What a later process finds: everything that was acknowledged, or a refusal.
async fn open_again(place: &dyn Place, suffix: &str, how: Move, when: &str) {
    let path = place.file().unwrap();
    match (suffix, how) {
        ("", Move::Remove | Move::Rename) => {
            assert_eq!(refusal(place).await, NotFound, "{when}");
            assert!(!path.exists(), "{when}: a file was made");
            return;
        }
        ("" | ".lock", Move::Link) => {
            assert_eq!(refusal(place).await, InvalidArgument, "{when}");
            fs::remove_file(aside(&beside(&path, suffix))).unwrap();
        }
        // It is no lock, and somebody may need it.
        (".lock", Move::Replace) => {
            assert_eq!(refusal(place).await, InvalidArgument, "{when}");
            fs::remove_file(beside(&path, suffix)).unwrap();
        }
        // Where the other store's file is now, that one is found, and has as many users.
        _ => {}
    }
    holds_everything(place, when).await;
}

async fn again(place: &dyn Place) -> Result<Arc<dyn Store>> {
    Ok(open(place, options(Materialize::Commit, &clock(), 5)).await?.1)
}

async fn refusal(place: &dyn Place) -> ErrorKind {
    let refused = again(place).await.map(drop);
    refused.expect_err("the store is opened").kind().clone()
}

async fn holds_everything(place: &dyn Place, when: &str) {
    let store = again(place).await.unwrap_or_else(|error| panic!("{when}: {error}"));
    // The first write that was refused may be there, since nobody knew.
    let found = users(&store);
    assert!((USERS..=USERS + 1).contains(&found), "{when}: {found} users");
    store.verify().await.unwrap();
    create(&store, 100).await.unwrap();
    store.close().await.unwrap();
}

/// Whoever moves a file back may have let somebody write to it meanwhile. So the process that had
/// it open does not trust it any more; one that reads everything anew does.
pub(super) async fn files_that_were_put_back_count_from_the_next_opening_on(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in MATERIALIZE {
        let place = factory.create().await.unwrap();
        let Some(path) = place.file() else { return NO_FILE };
        let (backend, store) = filled(place.as_ref(), materialize, effort.seed).await;
        fs::rename(&path, aside(&path)).unwrap();
        assert!(create(&store, USERS).await.is_err());
        fs::rename(aside(&path), &path).unwrap();
        refuses_everything(&store, "put back").await;
        let put_back = fs::read(&path).unwrap();
        store.close().await.unwrap_err();
        // What somebody wrote meanwhile would be lost.
        assert!(fs::read(&path).unwrap() == put_back, "closing writes to it");
        drop((backend, store));
        holds_everything(place.as_ref(), "put back and opened").await;
    }
    Verdict::Passed
}

pub(super) async fn no_empty_store_is_made_where_one_was(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let place = factory.create().await.unwrap();
    let Some(path) = place.file() else { return NO_FILE };
    let (backend, store) = filled(place.as_ref(), Materialize::Commit, effort.seed).await;
    let id = backend.head().await.unwrap().store;
    store.close().await.unwrap();
    drop((backend, store));
    fs::rename(&path, aside(&path)).unwrap();
    for _ in 0..2 {
        let error = again(place.as_ref()).await.map(drop).expect_err("the store is opened");
        assert_eq!(*error.kind(), NotFound, "{error}");
        assert!(error.to_string().contains(&id.to_string()), "what was here? {error}");
        assert!(!path.exists(), "a file was made");
    }
    // Not even where somebody made room for one.
    fs::write(&path, "").unwrap();
    assert_eq!(refusal(place.as_ref()).await, NotFound);
    fs::rename(aside(&path), &path).unwrap();
    holds_everything(place.as_ref(), "restored").await;
    // A log without its file holds what somebody was told is stored.
    fs::remove_file(beside(&path, ".lock")).unwrap();
    fs::rename(&path, aside(&path)).unwrap();
    fs::write(beside(&path, "-wal"), [1; 64]).unwrap();
    assert_eq!(refusal(place.as_ref()).await, NotFound);
    assert!(!path.exists(), "a file was made");
    // Whoever wants to begin anew says so by removing what is left.
    fs::remove_file(beside(&path, "-wal")).unwrap();
    let _ = fs::remove_file(beside(&path, ".native"));
    assert!(!beside(&path, ".lock").exists(), "a lock was made");
    let store = again(place.as_ref()).await.unwrap();
    assert_eq!(users(&store), 0);
    store.close().await.unwrap();
    Verdict::Passed
}
