//! How a store follows what other processes commit, and how old it says that a view is.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use ghostwire_store_core::backend::{Backend, Commit, Head, Scan, ScanPage};
use ghostwire_store_core::block::{EncodedBlock, Serial};
use ghostwire_store_core::domain::{
    Clock, ManualClock, MetricPoint, MetricQuery, NewUser, PageRequest, Sample, StoreId, Timestamp,
    WriterId,
};
use ghostwire_store_core::error::{Error, Result};
use ghostwire_store_core::layer::{Chaos, Faults, Layer};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::{ErrorKind, Store, open};
use ghostwire_store_memory::MemoryBackend;
use tokio::sync::{Notify, Semaphore};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(86_400);

fn memory() -> MemoryBackend {
    MemoryBackend::new(StoreId::from_bytes([7; 16])).shared()
}

/// A backend far away: every question and every commit takes a second to get there and one to come back.
#[derive(Debug)]
struct Far {
    inner: MemoryBackend,
    clock: ManualClock,
    heads: AtomicUsize,
    /// One for each question, if they wait to be answered.
    answers: Option<Semaphore>,
    /// Says that somebody committed.
    heard: Notify,
    deaf: bool,
    /// It is a copy that may lag behind.
    lags: AtomicBool,
    lagging: AtomicU64,
}

impl Far {
    fn new(inner: &MemoryBackend) -> Self {
        Self {
            inner: inner.clone(),
            clock: ManualClock::new(Timestamp::EPOCH),
            heads: AtomicUsize::new(0),
            answers: None,
            heard: Notify::new(),
            deaf: false,
            lags: AtomicBool::new(false),
            lagging: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Layer for Far {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn head(&self) -> Result<Head> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        self.clock.advance(SECOND);
        let head = self.inner.head().await?;
        self.lagging.fetch_add(self.lags.load(Ordering::SeqCst).into(), Ordering::SeqCst);
        if let Some(answers) = &self.answers {
            answers.acquire().await.unwrap().forget();
        }
        self.clock.advance(SECOND);
        Ok(head)
    }

    fn lagging_answers(&self) -> u64 {
        self.lagging.load(Ordering::SeqCst)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.clock.advance(SECOND);
        self.inner.commit(commit).await?;
        self.clock.advance(SECOND);
        Ok(())
    }

    async fn await_change(&self, at_most: Duration) -> Result<()> {
        if self.deaf {
            return Err(Error::new(ErrorKind::Unavailable, "nothing is heard"));
        }
        // The time is that of the test, where it waits at all.
        tokio::time::timeout(at_most, self.heard.notified()).await.ok();
        Ok(())
    }
}

fn options(far: &Far) -> StoreOptions {
    let clock = Arc::new(far.clock.clone());
    StoreOptions { clock, max_view_age: NEVER, ..StoreOptions::default() }
}

async fn create(store: &Arc<dyn Store>, name: &str) {
    store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_view_is_never_older_than_it_says() {
    let memory = memory();
    let far = Arc::new(Far::new(&memory));
    let alone = StoreOptions { follows: false, ..options(&far) };
    let store = open(far.clone(), alone).await.unwrap();
    // What was read when it was opened is as old as the first question.
    assert!(store.view().age() >= 2 * SECOND);
    let fresh = store.fresh_view().await.unwrap();
    assert_eq!(fresh.age(), 2 * SECOND, "a question counts from when it was sent");
    create(&store, "alice").await;
    assert_eq!(store.view().age(), 2 * SECOND, "so does a commit");
    far.clock.advance(10 * SECOND);
    assert_eq!(store.view().age(), 12 * SECOND);
    let other = open(Arc::new(memory.clone()), options(&far)).await.unwrap();
    create(&other, "bob").await;
    let fresh = store.fresh_view().await.unwrap();
    assert_eq!(fresh.users().len(), 2);
    // The writer asked, too, and its question was the later one.
    assert_eq!(fresh.age(), 2 * SECOND);
    store.metrics().prune(Timestamp::MAX).await.unwrap();
    assert!(store.view().age() <= 4 * SECOND);
}

#[tokio::test]
async fn what_may_lag_behind_feeds_a_view_and_does_not_make_it_fresh() {
    let memory = memory();
    let far = Arc::new(Far::new(&memory));
    let store = open(far.clone(), options(&far)).await.unwrap();
    let other = open(Arc::new(memory.clone()), StoreOptions::default()).await.unwrap();
    let age = store.fresh_view().await.unwrap().age();
    far.lags.store(true, Ordering::SeqCst);
    let since = far.clock.elapsed();
    for (count, name) in (1..).zip(["alice", "bob"]) {
        create(&other, name).await;
        let error = store.fresh_view().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(store.view().users().len(), count);
        assert!(store.view().age() >= far.clock.elapsed() - since, "since {age:?}");
    }
    far.lags.store(false, Ordering::SeqCst);
    let fresh = store.fresh_view().await.unwrap();
    assert!(fresh.age() <= 4 * SECOND, "{:?}", fresh.age());
}

#[tokio::test]
async fn a_change_that_is_heard_of_is_followed_without_looking() {
    let memory = memory();
    let far = Arc::new(Far::new(&memory));
    let store = open(far.clone(), options(&far)).await.unwrap();
    let mut changes = store.watch(store.view().serial());
    let other = open(Arc::new(memory.clone()), StoreOptions::default()).await.unwrap();
    for name in ["alice", "bob", "carol"] {
        create(&other, name).await;
        far.heard.notify_one();
        changes.next().await.unwrap().unwrap();
        assert_eq!(store.view().users().len(), other.view().users().len());
    }
    store.close().await.unwrap();
}

/// A backend with turns, on which others are faster so many times.
#[derive(Debug)]
struct Turning {
    inner: MemoryBackend,
    other: Arc<dyn Store>,
    faster: AtomicUsize,
    calls: Mutex<Vec<String>>,
}

impl Turning {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }
}

#[async_trait]
impl Layer for Turning {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn head(&self) -> Result<Head> {
        self.note("head");
        self.inner.head().await
    }

    async fn scan(&self, scan: Scan) -> Result<ScanPage> {
        self.note(format!("scan {} {}", scan.range.table.name(), scan.limit));
        self.inner.scan(scan).await
    }

    async fn blocks(&self, after: Serial, limit: usize) -> Result<Vec<EncodedBlock>> {
        self.note("blocks");
        self.inner.blocks(after, limit).await
    }

    async fn take_turn(&self) -> Result<bool> {
        self.note("take_turn");
        Ok(true)
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.note("commit");
        let faster = self.faster.load(Ordering::SeqCst);
        if faster > 0 {
            self.faster.store(faster - 1, Ordering::SeqCst);
            create(&self.other, &format!("other-{faster}")).await;
        }
        self.inner.commit(commit).await
    }
}

/// All others wait meanwhile.
#[tokio::test]
async fn in_a_turn_only_what_came_since_it_was_asked_for_is_learnt() {
    let memory = memory();
    let other = open(Arc::new(memory.clone()), StoreOptions::default()).await.unwrap();
    let (inner, other_too) = (memory.clone(), other.clone());
    let turning = Arc::new(Turning {
        inner,
        other: other_too,
        faster: AtomicUsize::new(0),
        calls: Mutex::default(),
    });
    let alone = StoreOptions { follows: false, ..StoreOptions::default() };
    let store = open(turning.clone(), alone).await.unwrap();
    turning.calls.lock().unwrap().clear();
    turning.faster.store(2, Ordering::SeqCst);
    create(&store, "alice").await;
    let calls = std::mem::take(&mut *turning.calls.lock().unwrap());
    let mut in_turn = calls.iter().skip_while(|call| *call != "take_turn").skip(1);
    let before_commit: Vec<_> = in_turn.by_ref().take_while(|call| *call != "commit").collect();
    assert_eq!(before_commit, ["head"], "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains("writer_positions")), "{calls:?}");
    assert_eq!(store.view().users().len(), 3);
    // How far a writer of series has come is read when it is needed, and of that one.
    let writer = WriterId::from_bytes([9; 16]);
    let at = |second| Timestamp::from_secs(second).unwrap();
    let point = |second| MetricPoint {
        node: None,
        metric: "load".parse().unwrap(),
        at: at(second),
        value: Sample::new(1.0).unwrap(),
    };
    for sequence in [1, 2] {
        let points = vec![point(sequence)];
        other.metrics().record_batch(writer, sequence.unsigned_abs(), points).await.unwrap();
    }
    store.fresh_view().await.unwrap();
    store.metrics().record_batch(writer, 2, vec![point(3)]).await.unwrap();
    store.metrics().record_batch(writer, 3, vec![point(4)]).await.unwrap();
    let calls = std::mem::take(&mut *turning.calls.lock().unwrap());
    let positions = calls.iter().filter(|call| call.contains("writer_positions"));
    assert_eq!(positions.collect::<Vec<_>>(), ["scan writer_positions 1"], "{calls:?}");
    let query =
        MetricQuery { node: None, metric: None, from: Timestamp::EPOCH, to: Timestamp::MAX };
    let stored = other.metrics().range(&query, &PageRequest::default()).await.unwrap();
    let times: Vec<_> = stored.items.iter().map(|point| point.at).collect();
    assert_eq!(times, [at(1), at(2), at(4)], "the second one was a repetition");
}

#[tokio::test]
async fn a_store_that_hears_nothing_looks() {
    let memory = memory();
    let deaf = Arc::new(Far { deaf: true, ..Far::new(&memory) });
    let other = open(Arc::new(memory.clone()), StoreOptions::default()).await.unwrap();
    // One cannot listen, and one has nothing to listen to.
    let backends: [Arc<dyn Backend>; 2] = [deaf.clone(), Arc::new(memory.clone())];
    for (number, backend) in backends.into_iter().enumerate() {
        let options = StoreOptions { max_view_age: Duration::ZERO, ..options(&deaf) };
        let store = open(backend, options).await.unwrap();
        let mut changes = store.watch(store.view().serial());
        create(&other, &format!("user{number}")).await;
        changes.next().await.unwrap().unwrap();
        assert_eq!(store.view().users().len(), number + 1);
    }
}

#[tokio::test]
async fn a_follower_does_not_keep_a_store_open() {
    let memory = memory();
    let far = Arc::new(Far::new(&memory));
    let store = open(far.clone(), options(&far)).await.unwrap();
    drop(store);
    // Every handle on the backend but this one is dropped.
    while Arc::strong_count(&far) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn those_who_ask_at_once_share_a_question() {
    let memory = memory();
    let far = Arc::new(Far { answers: Some(Semaphore::new(100)), ..Far::new(&memory) });
    let options = StoreOptions { follows: false, ..options(&far) };
    let store = open(far.clone(), options).await.unwrap();
    let answers = far.answers.as_ref().unwrap();
    answers.forget_permits(100);
    far.heads.store(0, Ordering::SeqCst);
    let ask = || {
        let store = store.clone();
        tokio::spawn(async move { store.fresh_view().await.unwrap() })
    };
    let first = ask();
    while far.heads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..20).map(|_| ask()).collect();
    // On this one thread all of them have asked before this goes on.
    tokio::task::yield_now().await;
    answers.add_permits(20);
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    assert!(far.heads.load(Ordering::SeqCst) < 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_asks_waits_for_a_commit_that_is_not_stored_yet() {
    let memory = memory();
    let faults = Arc::new(Faults::default());
    let chaos = Arc::new(Chaos::with(Arc::new(memory.clone()), faults.clone()));
    let options = StoreOptions { follows: false, ..StoreOptions::default() };
    let store = open(chaos, options.clone()).await.unwrap();
    let other = open(Arc::new(memory.clone()), options).await.unwrap();
    let hold = faults.hold_commits();
    let writing = store.clone();
    let write = tokio::spawn(async move { create(&writing, "alice").await });
    while faults.held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(store.fresh_view().await.unwrap().users().is_empty());
    // What others have stored comes with the commit that is under way, which comes second.
    create(&other, "bob").await;
    let asking = store.clone();
    let asked = tokio::spawn(async move { asking.fresh_view().await.unwrap() });
    drop(hold);
    let fresh = asked.await.unwrap();
    assert!(fresh.users().iter().any(|user| user.name.as_str() == "bob"));
    write.await.unwrap();
    assert_eq!(store.view().users().len(), 2);
}
