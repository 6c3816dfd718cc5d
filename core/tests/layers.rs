//! What the layers do to a backend.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{Backend, BackendInfo, Commit, Head, KeyRange, Row, Scan};
use ghostwire_store_core::block::{BlockBuilder, EncodedBlock, Serial};
use ghostwire_store_core::domain::*;
use ghostwire_store_core::entropy::{Entropy, SeededEntropy};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::{
    Chaos, DURATION_BOUNDS, FaultKind, Observe, OperationStats, Retry, RetryPolicy,
};
use ghostwire_store_core::schema::{Schema, Table};
use ghostwire_store_memory::MemoryBackend;
use tokio::time::Instant;

fn chaos() -> Chaos {
    Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))))
}

fn block_after(head: &Head) -> EncodedBlock {
    let id = BlockId::from_bytes([1; 16]);
    let builder = BlockBuilder::default();
    builder.finish(head.serial.next(), id, head.hash, head.time).unwrap().block
}

#[tokio::test]
async fn commits_fail_as_told() {
    let chaos = chaos();
    chaos.faults().fail_next_commits(1, FaultKind::Before);
    chaos.faults().fail_next_commits(2, FaultKind::DiskFull);
    chaos.faults().fail_next_commits(1, FaultKind::After);
    let head = chaos.head().await.unwrap();
    let commit = Commit { block: Some(block_after(&head)), ..Commit::default() };
    for (kind, serial) in [
        (ErrorKind::Unavailable, 0),
        (ErrorKind::Exhausted, 0),
        (ErrorKind::Exhausted, 0),
        (ErrorKind::OutcomeUnknown, 1),
        (ErrorKind::Conflict, 1),
    ] {
        assert_eq!(*chaos.commit(&commit).await.unwrap_err().kind(), kind);
        assert_eq!(chaos.head().await.unwrap().serial.get(), serial);
    }
    chaos.faults().fail_next_reopens(1);
    assert_eq!(*chaos.reopen().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chaos.reopen().await.unwrap().serial.get(), 1);
}

#[tokio::test]
async fn commits_wait_while_held() {
    let chaos = chaos();
    let hold = chaos.faults().hold_commits();
    let second = chaos.faults().hold_commits();
    let handle = chaos.clone();
    let waiting = tokio::spawn(async move { handle.commit(&Commit::default()).await });
    while chaos.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(second);
    waiting.await.unwrap().unwrap();
    assert_eq!(chaos.faults().held_commits(), 0);
}

/// Fails as told, whatever is called, and counts the calls. Each takes some time.
#[derive(Debug)]
struct Scripted {
    memory: MemoryBackend,
    failures: Mutex<VecDeque<ErrorKind>>,
    calls: Mutex<Vec<&'static str>>,
    took: Mutex<Duration>,
}

impl Scripted {
    fn new(failures: &[ErrorKind]) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryBackend::new(StoreId::from_bytes([1; 16])),
            failures: Mutex::new(failures.iter().cloned().collect()),
            calls: Mutex::default(),
            took: Mutex::default(),
        })
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    async fn call(&self, operation: &'static str) -> Result<()> {
        self.calls.lock().unwrap().push(operation);
        let took = *self.took.lock().unwrap();
        tokio::time::sleep(took).await;
        match self.failures.lock().unwrap().pop_front() {
            Some(kind) => Err(Error::new(kind, "as told").with("key", "mkey:secret")),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Scripted {
    fn info(&self) -> BackendInfo {
        self.memory.info()
    }

    async fn head(&self) -> Result<Head> {
        self.call("head").await?;
        self.memory.head().await
    }

    async fn migrate(&self, target: Schema) -> Result<()> {
        self.call("migrate").await?;
        self.memory.migrate(target).await
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Row>> {
        self.call("scan").await?;
        self.memory.scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.call("blocks").await?;
        self.memory.blocks(after, limit).await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.call("commit").await?;
        self.memory.commit(commit).await
    }

    async fn reopen(&self) -> Result<Head> {
        self.call("reopen").await?;
        self.memory.reopen().await
    }

    async fn verify(&self) -> Result<()> {
        self.call("verify").await?;
        self.memory.verify().await
    }

    async fn close(&self) -> Result<()> {
        self.call("close").await
    }
}

/// Random numbers that are always the largest, so that every wait is the longest.
struct Largest;

impl Entropy for Largest {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0xff);
        Ok(())
    }
}

struct NoEntropy;

impl Entropy for NoEntropy {
    fn fill(&self, _: &mut [u8]) -> Result<()> {
        Err(Error::new(ErrorKind::Unavailable, "none"))
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy {
        retries: 3,
        commit_retries: 2,
        first_delay: Duration::from_millis(100),
        max_delay: Duration::from_millis(300),
    }
}

fn users() -> Scan {
    Scan { range: KeyRange::all(Table::Users), reverse: false, limit: 9 }
}

/// Calls one operation by its name.
async fn call(backend: &dyn Backend, operation: &str) -> Result<()> {
    match operation {
        "head" => backend.head().await.map(drop),
        "migrate" => backend.migrate(Schema::current()).await,
        "scan" => backend.scan(users()).await.map(drop),
        "blocks" => backend.blocks(Serial::ZERO, 9).await.map(drop),
        "commit" => backend.commit(&Commit::default()).await,
        "reopen" => backend.reopen().await.map(drop),
        "verify" => backend.verify().await,
        _ => backend.close().await,
    }
}

fn kind<T: Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind().clone()
}

const REPEATED: [&str; 5] = ["head", "migrate", "scan", "blocks", "reopen"];

#[tokio::test(start_paused = true)]
async fn what_fails_for_a_moment_is_tried_again() {
    let failures = [ErrorKind::Unavailable, ErrorKind::Busy, ErrorKind::Timeout];
    for operation in REPEATED {
        let scripted = Scripted::new(&failures);
        let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
        let began = Instant::now();
        call(&retry, operation).await.unwrap();
        assert_eq!(scripted.calls(), [operation; 4]);
        // 100, 200, and 300 instead of 400.
        assert_eq!(began.elapsed(), Duration::from_millis(600), "{operation}");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_come_to_an_end() {
    for operation in REPEATED {
        let scripted = Scripted::new(&[const { ErrorKind::Busy }; 9]);
        let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
        assert_eq!(kind(call(&retry, operation).await), ErrorKind::Busy);
        assert_eq!(scripted.calls(), [operation; 4]);
    }
    let none = RetryPolicy { retries: 0, ..policy() };
    let scripted = Scripted::new(&[ErrorKind::Busy]);
    let retry = Retry::new(scripted.clone(), none, Arc::new(Largest));
    assert_eq!(kind(retry.head().await), ErrorKind::Busy);
    assert_eq!(scripted.calls(), ["head"]);
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_not_tried_again() {
    for failure in [
        ErrorKind::Corrupt,
        ErrorKind::Conflict,
        ErrorKind::OutcomeUnknown,
        ErrorKind::Exhausted,
        ErrorKind::ReadOnly,
        ErrorKind::InvalidArgument,
        ErrorKind::SchemaMismatch { found: 9, supported: 2 },
        ErrorKind::Compacted { oldest: 4 },
        ErrorKind::Unexpected,
    ] {
        for operation in REPEATED.into_iter().chain(["commit", "verify", "close"]) {
            let scripted = Scripted::new(std::slice::from_ref(&failure));
            let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
            let began = Instant::now();
            assert_eq!(kind(call(&retry, operation).await), failure);
            assert_eq!(scripted.calls(), [operation]);
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_repeated_only_if_nothing_was_stored() {
    for certain in [ErrorKind::Unavailable, ErrorKind::Busy] {
        let scripted = Scripted::new(&[certain.clone(), certain.clone()]);
        let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
        retry.commit(&Commit::default()).await.unwrap();
        assert_eq!(scripted.calls(), ["commit"; 3]);
        let scripted = Scripted::new(&[certain.clone(), ErrorKind::Conflict]);
        let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
        // What is in its way may be itself: the answer may have been wrong.
        assert_eq!(kind(retry.commit(&Commit::default()).await), ErrorKind::OutcomeUnknown);
        assert_eq!(scripted.calls(), ["commit"; 2]);
        // Where every failure is to be seen.
        let scripted = Scripted::new(std::slice::from_ref(&certain));
        let visible = RetryPolicy { commit_retries: 0, ..policy() };
        let retry = Retry::new(scripted.clone(), visible, Arc::new(Largest));
        assert_eq!(kind(retry.commit(&Commit::default()).await), certain);
        assert_eq!(scripted.calls(), ["commit"]);
    }
    // It may have been stored all the same.
    for uncertain in [ErrorKind::Timeout, ErrorKind::OutcomeUnknown] {
        let scripted = Scripted::new(std::slice::from_ref(&uncertain));
        let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
        assert_eq!(kind(retry.commit(&Commit::default()).await), uncertain);
        assert_eq!(scripted.calls(), ["commit"]);
    }
}

#[tokio::test(start_paused = true)]
async fn waits_are_random_within_bounds_that_grow() {
    let mut waits = Vec::new();
    let entropy = Arc::new(SeededEntropy::new(7));
    for _ in 0..200 {
        let scripted = Scripted::new(&[ErrorKind::Busy]);
        let retry = Retry::new(scripted, policy(), entropy.clone());
        let began = Instant::now();
        retry.head().await.unwrap();
        waits.push(began.elapsed());
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(101)));
    assert!(waits.iter().any(|wait| *wait < Duration::from_millis(20)));
    assert!(waits.iter().any(|wait| *wait > Duration::from_millis(80)));
    // A source of random numbers that fails leaves the longest wait.
    let retry = Retry::new(Scripted::new(&[ErrorKind::Busy]), policy(), Arc::new(NoEntropy));
    let began = Instant::now();
    retry.head().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    // Bounds do not overflow.
    let long = RetryPolicy { retries: 70, ..policy() };
    let scripted = Scripted::new(&[const { ErrorKind::Busy }; 70]);
    let retry = Retry::new(scripted, long, Arc::new(Largest));
    let began = Instant::now();
    retry.head().await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_millis(100 + 200 + 68 * 300));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_once_it_is_closed() {
    let scripted = Scripted::new(&[]);
    let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
    retry.close().await.unwrap();
    scripted.failures.lock().unwrap().extend([ErrorKind::Unavailable, ErrorKind::Unavailable]);
    assert_eq!(kind(retry.head().await), ErrorKind::Unavailable);
    assert_eq!(kind(retry.commit(&Commit::default()).await), ErrorKind::Unavailable);
    assert_eq!(scripted.calls(), ["close", "head", "commit"]);
    // Nor is what waited when it was closed.
    let scripted = Scripted::new(&[ErrorKind::Busy]);
    let retry = Retry::new(scripted.clone(), policy(), Arc::new(Largest));
    let (read, closed) = tokio::join!(retry.head(), retry.close());
    assert_eq!(kind(read), ErrorKind::Busy);
    closed.unwrap();
    assert_eq!(scripted.calls(), ["head", "close"]);
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_and_timed() {
    let scripted = Scripted::new(&[]);
    let observe = Observe::new(scripted.clone());
    assert!(observe.snapshot().operations.is_empty());
    let operations = ["blocks", "close", "commit", "head", "migrate", "reopen", "scan", "verify"];
    for operation in operations {
        call(&observe.clone(), operation).await.unwrap();
    }
    let seen = observe.snapshot().operations;
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), operations);
    let mut once = OperationStats { calls: 1, ..OperationStats::default() };
    once.durations.counts[0] = 1;
    assert!(seen.values().all(|stats| *stats == once), "{seen:?}");
    assert_eq!(scripted.calls().len(), 8);
    // Each bound belongs to what is no longer than it.
    for bound in DURATION_BOUNDS {
        for slower in [0, 1] {
            let took = Duration::from_secs_f64(bound) + Duration::from_millis(slower);
            *scripted.took.lock().unwrap() = took;
            observe.scan(users()).await.unwrap();
        }
    }
    let scans = &observe.snapshot().operations["scan"];
    assert_eq!(scans.durations.counts, [2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    assert_eq!(scans.calls, 19);
    let wanted = DURATION_BOUNDS.iter().sum::<f64>() * 2.0 + 0.009;
    assert!((scans.durations.sum - wanted).abs() < 1e-6, "{}", scans.durations.sum);
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_by_their_kind() {
    let compacted = ErrorKind::Compacted { oldest: 3 };
    let failures = [ErrorKind::Busy, ErrorKind::Busy, compacted, ErrorKind::Conflict];
    let scripted = Scripted::new(&failures);
    let observe = Observe::new(scripted.clone());
    for failure in failures {
        let error = observe.blocks(Serial::ZERO, 1).await.unwrap_err();
        assert_eq!(*error.kind(), failure);
        assert_eq!(error.message(), "as told");
    }
    observe.blocks(Serial::ZERO, 1).await.unwrap();
    // A call that was given up counts, too.
    *scripted.took.lock().unwrap() = Duration::from_secs(3);
    let patience = Duration::from_secs(2);
    tokio::time::timeout(patience, observe.blocks(Serial::ZERO, 1)).await.unwrap_err();
    let stats = &observe.snapshot().operations["blocks"];
    assert_eq!(stats.calls, 6);
    let wanted = [("busy", 2), ("cancelled", 1), ("compacted", 1), ("conflict", 1)];
    assert_eq!(stats.failures, BTreeMap::from(wanted));
    assert_eq!((stats.durations.counts[0], stats.durations.counts[7]), (5, 1));
    assert!((stats.durations.sum - 2.0).abs() < 1e-6);
}

#[tokio::test]
async fn a_retry_is_seen_from_above_as_one_call_and_from_below_as_two() {
    let below = Observe::new(Scripted::new(&[ErrorKind::Unavailable]));
    let policy = RetryPolicy { first_delay: Duration::ZERO, ..policy() };
    let retry = Retry::new(Arc::new(below.clone()), policy, Arc::new(Largest));
    let above = Observe::new(Arc::new(retry));
    above.head().await.unwrap();
    assert_eq!(above.snapshot().operations["head"].calls, 1);
    assert_eq!(above.snapshot().operations["head"].failures, BTreeMap::new());
    assert_eq!(below.snapshot().operations["head"].calls, 2);
    assert_eq!(below.snapshot().operations["head"].failures["unavailable"], 1);
    assert_eq!(above.info(), below.info());
}
