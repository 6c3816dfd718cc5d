//! An open store that moves to another database which fails, is slow or hangs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod hanging;
mod in_step;
mod shared;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use ghostwire_store_core::backend::{Backend, Commit, Head};
use ghostwire_store_core::domain::{MigrationId, NewUser, SideId, StoreId};
use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::migration::{
    Migration, MoveOptions, Occupant, Renewal, Role, Seat, SeatOptions, Stage, Status,
};
use ghostwire_store_core::options::StoreOptions;
use ghostwire_store_core::position::Epoch;
use ghostwire_store_core::{Store, open};
use ghostwire_store_memory::MemoryBackend;
use tokio::sync::Semaphore;

const MIGRATION: MigrationId = MigrationId::from_bytes([3; 16]);

/// What a database may hang in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Listen,
    /// A commit that changes content. It blocks its thread, as a file on a disk that hangs does.
    Content,
    /// Following later. It blocks its thread, too.
    Loosen,
    Probe,
    Adopt,
    Activate,
}

#[derive(Debug)]
struct Permits(Semaphore);

impl Default for Permits {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

/// What a database does wrong.
#[derive(Debug, Default)]
struct Wrongs {
    heads: AtomicBool,
    adopts: AtomicBool,
    commits: AtomicBool,
    probes: AtomicBool,
    /// The next activation is stored, and answered as if nobody knew.
    loses_answer: AtomicBool,
    /// What is not answered before a permit is given.
    hangs: Mutex<Option<Call>>,
    permits: Permits,
    goes_on: Condvar,
    /// Every commit, until it is opened anew.
    is_stuck: AtomicBool,
    /// It cannot be opened anew.
    reopens: AtomicBool,
    /// Opening it anew takes longer than anybody waits.
    reopens_slowly: AtomicBool,
    /// Its disk is full.
    is_full: AtomicBool,
    /// It takes a while for each commit.
    is_slow: AtomicBool,
    /// The next commits that change content are stored, and answered as if nobody knew.
    loses_answers: AtomicBool,
    /// Where commits that change content wait for those of the other side, and block their thread.
    meets: Mutex<Option<Arc<Barrier>>>,
    is_closed: AtomicBool,
    /// Every role that was written.
    roles: Mutex<Vec<Role>>,
}

/// A database that fails as it is told.
#[derive(Debug, Clone)]
struct Failing {
    inner: MemoryBackend,
    wrongs: Arc<Wrongs>,
}

impl Failing {
    fn new(number: u8) -> Self {
        let inner = MemoryBackend::new(StoreId::from_bytes([number; 16]));
        Self { inner, wrongs: Arc::default() }
    }

    fn fail(&self, which: impl Fn(&Wrongs) -> &AtomicBool, fails: bool) {
        which(&self.wrongs).store(fails, Ordering::SeqCst);
    }

    fn hang(&self, call: Call) {
        *self.wrongs.hangs.lock().unwrap() = Some(call);
    }

    fn go_on(&self) {
        *self.wrongs.hangs.lock().unwrap() = None;
        self.wrongs.goes_on.notify_all();
        self.wrongs.permits.0.add_permits(1);
    }

    async fn may_hang(&self, call: Call) {
        if *self.wrongs.hangs.lock().unwrap() == Some(call) {
            self.wrongs.permits.0.acquire().await.unwrap().forget();
        }
    }

    fn may_block(&self, call: Call) {
        let hangs = self.wrongs.hangs.lock().unwrap();
        drop(self.wrongs.goes_on.wait_while(hangs, |hangs| *hangs == Some(call)).unwrap());
    }

    async fn role(&self) -> Role {
        self.inner.head().await.unwrap().record().role
    }

    fn was(&self, role: Role) -> bool {
        self.wrongs.roles.lock().unwrap().contains(&role)
    }
}

fn check(fails: &AtomicBool) -> Result<()> {
    match fails.load(Ordering::SeqCst) {
        true => Err(Error::new(ErrorKind::Unavailable, "as it was told")),
        false => Ok(()),
    }
}

#[async_trait]
impl Layer for Failing {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    /// Where it may hang in this, it is told nothing in the end.
    async fn await_change(&self, at_most: Duration) -> Result<()> {
        if *self.wrongs.hangs.lock().unwrap() != Some(Call::Listen) {
            return self.inner.await_change(at_most).await;
        }
        self.may_hang(Call::Listen).await;
        Err(Error::new(ErrorKind::Unavailable, "as it was told"))
    }

    async fn head(&self) -> Result<Head> {
        check(&self.wrongs.heads)?;
        self.inner.head().await
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        check(&self.wrongs.commits)?;
        check(&self.wrongs.is_stuck)?;
        let is_content = commit.id().is_some();
        if is_content && self.wrongs.is_full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Exhausted, "as it was told"));
        }
        if self.wrongs.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if is_content {
            self.may_block(Call::Content);
        }
        let meets = self.wrongs.meets.lock().unwrap().clone();
        if let Some(meets) = meets.filter(|_| is_content) {
            meets.wait();
        }
        let record = commit.head.record;
        if record.is_some_and(|it| it.after.role == Role::PassiveAsync) {
            self.may_block(Call::Loosen);
            check(&self.wrongs.commits)?;
        }
        if record.is_some_and(|it| it.after.role == Role::ActiveSync) {
            self.may_hang(Call::Activate).await;
        }
        self.inner.commit(commit).await?;
        if is_content && self.wrongs.loses_answers.swap(false, Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::OutcomeUnknown, "as it was told"));
        }
        if let Some(record) = record {
            self.wrongs.roles.lock().unwrap().push(record.after.role);
            let is_activated = record.after.role == Role::ActiveSync;
            if is_activated && self.wrongs.loses_answer.swap(false, Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::OutcomeUnknown, "as it was told"));
            }
        }
        Ok(())
    }

    async fn probe(&self, epoch: Epoch) -> Result<()> {
        check(&self.wrongs.probes)?;
        self.may_hang(Call::Probe).await;
        self.inner.probe(epoch).await
    }

    async fn reopen(&self) -> Result<Head> {
        check(&self.wrongs.reopens)?;
        if self.wrongs.reopens_slowly.load(Ordering::SeqCst) {
            tokio::time::sleep(2 * hanging::ANSWERS_WITHIN).await;
        }
        self.fail(|it| &it.is_stuck, false);
        self.inner.reopen().await
    }

    async fn close(&self) -> Result<()> {
        self.fail(|it| &it.is_closed, true);
        self.inner.close().await
    }

    async fn adopt(&self, head: &Head) -> Result<()> {
        check(&self.wrongs.adopts)?;
        self.may_hang(Call::Adopt).await;
        self.inner.adopt(head).await
    }
}

/// As long as it takes.
fn patient() -> MoveOptions {
    MoveOptions { max_stall: Duration::from_secs(3600), ..MoveOptions::default() }
}

/// Makes one empty database after the other, and keeps the last. It takes its time.
#[derive(Debug, Default)]
struct Fresh(Mutex<Option<Failing>>);

impl Fresh {
    fn made(&self) -> Option<Failing> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Renewal for Fresh {
    async fn renew(&self, superseded: &Occupant, epoch: Epoch) -> Result<Occupant> {
        assert_eq!(epoch, superseded.backend.head().await?.epoch);
        superseded.backend.close().await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let fresh = Failing::new(3);
        *self.0.lock().unwrap() = Some(fresh.clone());
        Ok(Occupant::new(Arc::new(fresh)))
    }

    fn check(&self, _: &Occupant) -> Result<()> {
        Ok(())
    }

    async fn open_again(&self, _: &Occupant, _: SideId) -> Result<()> {
        Ok(())
    }
}

struct Moved {
    store: Arc<dyn Store>,
    source: Failing,
    target: Failing,
}

impl Moved {
    async fn new() -> Self {
        let source = Failing::new(1);
        let seat = Seat::new(Occupant::new(Arc::new(source.clone())));
        Self::on(seat, source).await
    }

    async fn on(seat: Arc<Seat>, source: Failing) -> Self {
        let target = Failing::new(2);
        let options = StoreOptions { seat: Some(seat.clone()), ..StoreOptions::default() };
        let moved = Self { store: open(seat, options).await.unwrap(), source, target };
        moved.add("first").await;
        moved
    }

    /// Where an empty database can be made in the place of another one.
    async fn renewable() -> (Self, Arc<Fresh>) {
        let source = Failing::new(1);
        let seat = Seat::new(Occupant::new(Arc::new(source.clone())));
        let fresh = Arc::new(Fresh::default());
        seat.set_renewal(fresh.clone());
        (Self::on(seat, source).await, fresh)
    }

    async fn begin(&self, options: MoveOptions) -> Arc<Migration> {
        let other = Occupant::new(Arc::new(self.target.clone()));
        Migration::begin(self.store.as_ref(), other, MIGRATION, options).await.unwrap()
    }

    async fn add(&self, name: &str) {
        self.try_to_add(name).await.unwrap();
    }

    async fn try_to_add(&self, name: &str) -> Result<()> {
        let user = NewUser::local(name.parse().unwrap());
        self.store.users().create(user).await.map(drop)
    }
}

async fn until(migration: &Migration, holds: impl Fn(&Status) -> bool) -> Status {
    const MOST: usize = 3_000;
    for _ in 0..MOST {
        let status = migration.status().await.unwrap();
        if holds(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{:#?}", migration.status().await);
}

async fn mirrored(migration: &Migration) {
    until(migration, |status| status.stage == Stage::Mirror && status.lag == Some(0)).await;
}

#[tokio::test]
async fn a_target_that_cannot_be_begun_stops_no_write() {
    let moved = Moved::new().await;
    moved.target.fail(|it| &it.adopts, true);
    let migration = moved.begin(patient()).await;
    until(&migration, |status| status.last_error.is_some()).await;
    moved.add("while-it-fails").await;
    moved.target.fail(|it| &it.adopts, false);
    mirrored(&migration).await;
    moved.add("after").await;
    mirrored(&migration).await;
}

#[tokio::test]
async fn a_target_that_fails_when_it_is_given_up_stops_no_write() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.commits, true);
    migration.abort("somebody").await.unwrap();
    assert!(migration.has_ended());
    moved.add("after").await;
    assert_eq!(moved.source.role().await, Role::ActiveAlone);
    assert!(moved.store.consumers().list().await.unwrap().is_empty());
}

/// A network whose every commit had a block, and none of them is purged.
#[tokio::test]
async fn a_network_of_blocks_alone_moves() {
    let moved = Moved::new().await;
    let head = moved.source.inner.head().await.unwrap();
    assert_eq!((head.position.get(), head.serial.get(), head.oldest_block.get()), (1, 1, 1));
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.add("second").await;
    let digests = moved.store.digests().await.unwrap();
    migration.advance("somebody").await.unwrap();
    assert_eq!(moved.store.digests().await.unwrap(), digests);
    moved.store.verify().await.unwrap();
    migration.finish("somebody").await.unwrap();
    moved.store.close().await.unwrap();
}

/// Each is a commit, and a busy source keeps many more.
#[tokio::test]
async fn a_copy_gets_the_last_blocks_and_everything_that_is_stored() {
    const MOST_BLOCKS: u64 = 4096;
    let moved = Moved::new().await;
    for number in 0..MOST_BLOCKS + 10 {
        moved.add(&format!("user-{number}")).await;
    }
    moved.store.checkpoint().await.unwrap();
    moved.add("last").await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    let head = moved.target.inner.head().await.unwrap();
    assert_eq!(head.serial.get() - head.oldest_block.get() + 1, MOST_BLOCKS);
    let digests = moved.store.digests().await.unwrap();
    migration.advance("somebody").await.unwrap();
    assert_eq!(moved.store.digests().await.unwrap(), digests);
    moved.store.verify().await.unwrap();
    moved.store.close().await.unwrap();
}

/// Complete or not, it is let go of, and another one made in its place.
#[tokio::test]
async fn a_copy_that_fell_too_far_behind_is_made_anew() {
    const ROOM: u64 = 4_000;
    for is_complete in [true, false] {
        let (moved, fresh) = Moved::renewable().await;
        moved.target.fail(|it| &it.commits, !is_complete);
        let migration = moved.begin(MoveOptions { max_kept_bytes: ROOM, ..patient() }).await;
        if is_complete {
            mirrored(&migration).await;
            moved.target.fail(|it| &it.commits, true);
        } else {
            until(&migration, |status| status.last_error.is_some()).await;
        }
        let is_outgrown = async || {
            let consumers = moved.store.consumers().list().await.unwrap();
            fresh.made().is_some() || consumers.iter().any(|consumer| consumer.resync)
        };
        for number in 0.. {
            moved.add(&format!("user-{number}")).await;
            if is_outgrown().await {
                break;
            }
        }
        // Orders that come meanwhile are refused, and change nothing of it.
        while fresh.made().is_none() {
            let kept = migration.back("somebody").await;
            assert!(kept.is_err(), "{kept:?}");
            tokio::task::yield_now().await;
        }
        assert_eq!(moved.source.inner.head().await.unwrap().epoch.get(), 1);
        moved.target.fail(|it| &it.commits, false);
        mirrored(&migration).await;
        moved.add("last").await;
        let [follower] = &moved.store.consumers().list().await.unwrap()[..] else { panic!() };
        assert!(!follower.resync, "{follower:?}");
        let digests = moved.store.digests().await.unwrap();
        migration.advance("somebody").await.unwrap();
        assert_eq!(moved.store.digests().await.unwrap(), digests);
        moved.store.verify().await.unwrap();
        assert_eq!(fresh.made().unwrap().role().await, Role::ActiveAsync);
        moved.store.close().await.unwrap();
    }
}

/// There is no way back then in any case.
#[tokio::test]
async fn a_target_is_left_alone_without_a_source_that_is_gone() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    migration.advance("somebody").await.unwrap();
    moved.source.fail(|it| &it.reopens, true);
    moved.source.inner.close().await.unwrap();
    moved.add("second").await;
    migration.finish("somebody").await.unwrap();
    assert_eq!(moved.target.role().await, Role::ActiveAlone);
    assert!(moved.target.inner.head().await.unwrap().membership.is_none());
    assert!(moved.store.consumers().list().await.unwrap().is_empty());
    moved.add("third").await;
    moved.store.close().await.unwrap();
}

#[tokio::test]
async fn a_target_that_failed_once_is_opened_anew() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.is_stuck, true);
    moved.add("second").await;
    mirrored(&migration).await;
    until(&migration, |status| status.last_error.is_none()).await;
}

/// Whoever listens to a database that is left, and closed, is not told of an error: another one is served.
#[tokio::test]
async fn listening_to_a_database_that_is_left_ends_without_an_error() {
    const LONG: Duration = Duration::from_secs(3600);
    let source = Failing::new(1);
    let seat = Seat::new(Occupant::new(Arc::new(source.clone())));
    let moved = Moved::on(seat.clone(), source).await;
    for (served, is_left) in [(&moved.source, true), (&moved.target, false)] {
        served.hang(Call::Listen);
        let mut listening = seat.await_change(LONG);
        let is_done = poll_fn(|context| Poll::Ready(listening.as_mut().poll(context).is_ready()));
        assert!(!is_done.await);
        if is_left {
            let migration = moved.begin(patient()).await;
            mirrored(&migration).await;
            migration.advance("somebody").await.unwrap();
        }
        served.go_on();
        assert_eq!(listening.await.is_ok(), is_left);
    }
    moved.store.close().await.unwrap();
}

/// Writers that wait for nobody make more commits than it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_slower_than_the_source_catches_up_while_others_write() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.is_slow, true);
    let (store, ended) = (moved.store.clone(), Arc::new(AtomicBool::new(false)));
    let ends = ended.clone();
    let writing = tokio::spawn(async move {
        let mut written = 0_u32;
        while !ends.load(Ordering::SeqCst) {
            let name = format!("writer-{written}");
            store.users().create(NewUser::local(name.parse().unwrap())).await.unwrap();
            written += 1;
        }
        written
    });
    for _ in 0..3 {
        let before = moved.source.inner.head().await.unwrap().position;
        while moved.source.inner.head().await.unwrap().position.get() < before.get() + 200 {
            tokio::task::yield_now().await;
        }
        while migration.status().await.unwrap().lag.unwrap() >= 64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    ended.store(true, Ordering::SeqCst);
    assert!(writing.await.unwrap() > 600);
    moved.store.close().await.unwrap();
}

#[tokio::test]
async fn a_status_tells_of_a_side_that_does_not_answer_what_it_was() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    // Nobody has asked so far; whoever follows has been seen.
    while moved.target.role().await != Role::PassiveAsync {
        tokio::task::yield_now().await;
    }
    moved.add("second").await;
    let written = moved.source.inner.head().await.unwrap().position;
    while moved.target.inner.head().await.unwrap().position != written {
        tokio::task::yield_now().await;
    }
    moved.source.fail(|it| &it.heads, true);
    moved.target.fail(|it| &it.heads, true);
    let status = migration.status().await.unwrap();
    assert_eq!((status.stage, status.lag), (Stage::Mirror, None));
    assert!(!status.source.answers && !status.target.answers);
    moved.source.fail(|it| &it.heads, false);
    moved.target.fail(|it| &it.heads, false);
    mirrored(&migration).await;
    let status = migration.advance("somebody").await.unwrap();
    assert_eq!((status.stage, &*status.served), (Stage::TargetReads, "target"));
    for down in [&moved.source, &moved.target] {
        down.fail(|it| &it.heads, true);
        let status = migration.status().await.unwrap();
        assert_eq!((status.stage, &*status.served), (Stage::TargetReads, "target"));
        assert_eq!(status.lag.is_some(), status.target.answers);
        assert_ne!(status.source.answers, status.target.answers);
        let error = status.last_error.unwrap();
        assert!(error.contains("as it was told"), "{error}");
        down.fail(|it| &it.heads, false);
    }
    until(&migration, |status| status.last_error.is_none()).await;
}

/// It has all there is to send, so that nothing else tells.
#[tokio::test]
async fn a_source_is_not_fenced_for_a_target_that_cannot_store_anything() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.probes, true);
    let error = migration.advance("somebody").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!moved.source.was(Role::Fenced));
    moved.add("after").await;
    moved.target.fail(|it| &it.probes, false);
    migration.advance("somebody").await.unwrap();
    assert!(moved.source.was(Role::Fenced));
    moved.add("there").await;
}

/// It was opened or made while the store was being closed, and would stay locked.
#[tokio::test]
async fn what_is_put_beside_a_closed_store_is_closed() {
    let seat = Seat::new(Occupant::new(Arc::new(Failing::new(1))));
    let [first, second, late] = [2, 3, 4].map(|number| Arc::new(Failing::new(number)));
    seat.put_beside(Some(Occupant::new(first.clone())));
    let (before, beside) = (first.clone(), seat.beside().unwrap());
    seat.take_place_of(before.as_ref(), Occupant::new(second.clone())).await.unwrap();
    // It stands there no longer, by whichever name it is called.
    for left in [before.as_ref(), beside.backend.as_ref()] {
        let late = Occupant::new(late.clone());
        let error = seat.take_place_of(left, late).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let beside = seat.beside().unwrap();
    seat.close().await.unwrap();
    let error = seat.take_place_of(beside.backend.as_ref(), Occupant::new(late.clone())).await;
    assert_eq!(*error.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(seat.beside().is_none());
    for closed in [second, late] {
        assert!(closed.inner.head().await.is_err());
    }
    first.inner.head().await.unwrap();
}

#[tokio::test]
async fn a_hand_over_that_happened_is_reported_as_done() {
    let moved = Moved::new().await;
    let migration = moved.begin(patient()).await;
    mirrored(&migration).await;
    moved.target.fail(|it| &it.loses_answer, true);
    let status = migration.advance("somebody").await.unwrap();
    assert_eq!((status.stage, status.served.as_str()), (Stage::TargetReads, "target"));
    assert!(status.last_stall_ms.is_some());
    moved.add("there").await;
}

/// Whoever asked for it is gone before it has begun.
#[tokio::test]
async fn a_migration_begins_whoever_waits_for_it() {
    let moved = Moved::new().await;
    moved.target.hang(Call::Adopt);
    let other = Occupant::new(Arc::new(moved.target.clone()));
    {
        let begin = Migration::begin(moved.store.as_ref(), other.clone(), MIGRATION, patient());
        tokio::pin!(begin);
        while moved.source.role().await != Role::ActiveAsync {
            tokio::select! {
                biased;
                begun = &mut begin => panic!("{begun:?}"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }
    let again = Migration::begin(moved.store.as_ref(), other, MIGRATION, patient()).await;
    assert!(matches!(again.unwrap_err().kind(), ErrorKind::Busy | ErrorKind::Restricted));
    moved.target.go_on();
    while moved.target.role().await != Role::PassiveAsync {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    moved.add("after").await;
}
