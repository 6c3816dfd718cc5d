//! The write-ahead log of a backend that has one: it stays short, and a missing end is told.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::fs;
use std::path::PathBuf;

use ghostwire_store_core::backend::LogInfo;

use super::faults::is_of_a_disk;
use super::workload::{Workload, clock, open, options};
use crate::disk::Fault;
use crate::prelude::*;

const NO_LOG: Verdict = Verdict::Skipped("the backend has no write-ahead log");
const STEPS: usize = 60;
/// So many damages for each process that the checks kill.
const DAMAGES_PER_KILL: usize = 4;

fn log_of(backend: &dyn Backend) -> LogInfo {
    backend.info().log.expect("it had a log before")
}

fn log_file(place: &dyn Place) -> PathBuf {
    let is_log = |file: &PathBuf| file.to_string_lossy().ends_with("-wal");
    place.files().into_iter().find(is_log).expect("a store in use has a log")
}

/// A byte of the log is flipped, and SQLite drops what follows. If that is more than the last
/// commit it is told, and it is not told of a log that is whole.
pub(super) async fn a_log_that_lost_commits_is_told_of(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let place = factory.create().await.unwrap();
        let mut workload = Workload::new(effort.seed);
        let made = options(materialize, &workload.clock, effort.seed);
        let (backend, store) = open(place.as_ref(), made).await.unwrap();
        if backend.info().log.is_none() {
            return NO_LOG;
        }
        let mut history = vec![store.digests().await.unwrap()];
        for _ in 0..STEPS {
            workload.step(&store).await.unwrap();
            history.push(store.digests().await.unwrap());
        }
        let rng = Rng::new(effort.seed);
        let again = || options(materialize, &workload.clock, 99);
        let mut noticed = 0;
        for round in 0..effort.kills as usize * DAMAGES_PER_KILL {
            let copy = place.after_crash().await.unwrap();
            copy.disk();
            let log = log_file(copy.as_ref());
            let mut bytes = fs::read(&log).unwrap();
            let is_damaged = round % 4 > 0;
            let at = rng.below(bytes.len() / 2);
            if is_damaged {
                bytes[at] ^= 1 << rng.below(8);
                fs::write(&log, bytes).unwrap();
            }
            let when = format!("{materialize:?}, seed {}, round {round}, at {at}", effort.seed);
            let (backend, left) = match open(copy.as_ref(), again()).await {
                Ok(opened) => opened,
                // What is left does not fit together.
                Err(error) if is_damaged && *error.kind() == Corrupt => continue,
                Err(error) => panic!("{when}: {error:?}"),
            };
            let found = left.digests().await.unwrap();
            let position = history.iter().rposition(|digests| *digests == found);
            let lost =
                STEPS - position.unwrap_or_else(|| panic!("something is half there: {when}"));
            let told = log_of(backend.as_ref()).ended_early;
            // Of the last one nobody can tell. The mark of another may be what is damaged.
            assert!(told || lost <= 2, "{lost} writes are lost: {when}");
            assert!(is_damaged || (lost == 0 && !told), "{when}");
            noticed += u32::from(told);
            left.close().await.unwrap();
        }
        assert!(noticed > 0, "no damage had commits behind it");
        store.close().await.unwrap();
    }
    Verdict::Passed
}

/// Somebody of this process reads at every moment, and somebody verifies.
pub(super) async fn own_readers_do_not_keep_the_log_growing(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    /// Some 150 MiB of log in all.
    const SWAPS: usize = 300;
    const DOCUMENT: usize = 256 << 10;
    const MOST: u64 = 48 << 20;
    const READERS: usize = 8;
    let place = factory.create().await.unwrap();
    let made = options(Materialize::Commit, &clock(), effort.seed);
    let (backend, store) = open(place.as_ref(), made).await.unwrap();
    if backend.info().log.is_none() {
        return NO_LOG;
    }
    for number in 0..100 {
        user(&store, &format!("user-{number}")).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let readers = (0..READERS).map(|_| {
        let (backend, stop) = (backend.clone(), stop.clone());
        tokio::spawn(async move {
            let scan = Scan { range: KeyRange::all(Table::Audit), reverse: false, limit: 4096 };
            while !stop.load(Ordering::Acquire) {
                backend.scan(scan.clone()).await.unwrap();
            }
        })
    });
    let verifier = {
        let (store, stop) = (store.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Acquire) {
                store.verify().await.unwrap();
            }
        })
    };
    let readers: Vec<_> = readers.chain([verifier]).collect();
    let (mut policy, mut longest) = (None, 0);
    for number in 0..SWAPS {
        let document = format!("{number:08}{}", "p".repeat(DOCUMENT));
        let document = DocumentText::new(document).unwrap();
        policy = Some(store.policies().swap(policy, document).await.unwrap().version);
        if number % 10 == 9 {
            store.policies().prune(1).await.unwrap();
        }
        longest = longest.max(log_of(backend.as_ref()).bytes);
    }
    stop.store(true, Ordering::Release);
    for reader in readers {
        reader.await.unwrap();
    }
    let log = log_of(backend.as_ref());
    assert!(longest < MOST, "the log had {longest} bytes: {log:?}");
    assert_eq!((log.held, log.failed_checkpoints, log.ended_early), (0, 0, false));
    store.close().await.unwrap();
    Verdict::Passed
}

/// One operation of the disk fails, whichever: of a commit, or of moving the log into the file.
pub(super) async fn a_disk_that_fails_once_loses_nothing(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let Some(whole) = write_with_a_failure(factory.as_ref(), materialize, usize::MAX).await
        else {
            return Verdict::Skipped("the place has no disk that fails");
        };
        let rng = Rng::new(effort.seed);
        let mut failed_checkpoints = 0;
        for _ in 0..effort.kills * 2 {
            let trial =
                write_with_a_failure(factory.as_ref(), materialize, rng.below(whole.operations))
                    .await;
            failed_checkpoints += trial.map_or(0, |trial| trial.failed_checkpoints);
        }
        assert!(failed_checkpoints > 0, "the log was never being moved: {materialize:?}");
    }
    Verdict::Passed
}

/// The outcome of one workload.
struct Ended {
    operations: usize,
    failed_checkpoints: u64,
}

/// Writes while the disk's operation of this number fails; `None` if there is no such disk.
async fn write_with_a_failure(
    factory: &dyn Factory,
    materialize: Materialize,
    fails_at: usize,
) -> Option<Ended> {
    const USERS: u32 = 60;
    let when = format!("{materialize:?}, operation {fails_at}");
    let place = factory.create().await.unwrap();
    let disk = place.disk()?;
    let (backend, store) = open(place.as_ref(), options(materialize, &clock(), 1)).await.unwrap();
    let operations = Arc::new(AtomicUsize::new(0));
    let count = operations.clone();
    disk.watch(Some(Arc::new(move |disk| {
        match count.fetch_add(1, Ordering::SeqCst).cmp(&fails_at) {
            Less => {}
            Equal => {
                disk.fail(Fault::WritesFail(1));
                disk.fail(Fault::SyncsFail(1));
            }
            Greater => disk.heal(),
        }
    })));
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    for number in 0..USERS {
        let mut user = local(&format!("user-{number}"));
        user.picture_url = Some("x".repeat(2000).parse().unwrap());
        let name = user.name.clone();
        match store.users().create(user).await {
            Ok(_) => stored.push(name),
            Err(error) if *error.kind() == OutcomeUnknown => {}
            Err(error) => {
                assert!(is_of_a_disk(&error), "{when}: {error:?}");
                refused.push(name);
            }
        }
    }
    disk.watch(None);
    disk.heal();
    // One that is refused has the backend reopened.
    assert!(refused.len() <= 2, "{when}: {} were refused", refused.len());
    let check = |store: &Opened| {
        let view = store.view();
        let is_there = |name: &UserName| view.users().iter().any(|user| user.name == *name);
        assert!(stored.iter().all(is_there), "an acknowledged write is lost: {when}");
        assert!(!refused.iter().any(is_there), "a refused write is there: {when}");
    };
    check(&store);
    store.verify().await.unwrap();
    let frozen = disk.freeze();
    for seed in 0..2 {
        let image = place.after_power_loss(frozen.as_ref(), seed).await.unwrap();
        image.disk();
        let (_, left) = open(image.as_ref(), options(materialize, &clock(), 99)).await.unwrap();
        check(&left);
        left.verify().await.unwrap();
        left.close().await.unwrap();
    }
    let failed_checkpoints =
        backend.info().log.expect("what has such a disk has a log").failed_checkpoints;
    store.close().await.unwrap();
    Some(Ended { operations: operations.load(Ordering::SeqCst), failed_checkpoints })
}
