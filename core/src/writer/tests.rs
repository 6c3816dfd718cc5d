//! The writer, driven by hand: one step at a time, on a backend that stores when it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::event_loop::DRAIN_LIMIT;
use super::in_flight::{Step, next_step};
use super::*;
use crate::backend::{BackendCounters, BackendInfo, Commit, Head, Scan, ScanPage};
use crate::block::EncodedBlock;
use crate::checkpoint::{FlushBacklog, UnflushedAudit};
use crate::command::{Submission, UserCommand};
use crate::domain::{Actor, NewUser, StoreId, Timestamp, UserId};
use crate::error::Result;
use crate::log::retention::Retained;
use crate::schema::Schema;

#[test]
fn the_next_step_follows_from_the_open_batch_and_the_commit_in_flight() {
    for nothing_more in [false, true] {
        // While a commit is in flight everything else gathers.
        assert_eq!(next_step(None, Some((9, false)), 0, nothing_more), Step::Gather);
        assert_eq!(next_step(Some(99), Some((9, false)), 0, nothing_more), Step::Gather);
        assert_eq!(next_step(None, None, 0, nothing_more), Step::Gather);
        // One that has ended is published, and a batch that is long enough is begun with that.
        assert_eq!(next_step(None, Some((9, true)), 0, nothing_more), Step::Publish);
        assert_eq!(next_step(Some(9), Some((9, true)), 0, nothing_more), Step::Rotate);
        // The first batch after a rest waits for nothing.
        assert_eq!(next_step(Some(1), None, 0, nothing_more), Step::Rotate);
    }
    // A shorter batch goes on growing, and nobody whose commit is stored waits for that.
    assert_eq!(next_step(Some(8), Some((9, true)), 0, false), Step::Publish);
    assert_eq!(next_step(Some(8), None, 9, false), Step::Gather);
    assert_eq!(next_step(Some(9), None, 9, false), Step::Rotate);
    // Unless nothing more waits.
    assert_eq!(next_step(Some(8), Some((9, true)), 0, true), Step::Rotate);
    assert_eq!(next_step(Some(8), None, 9, true), Step::Rotate);
}

/// Stores one commit for each permit, and moves its pin, if it has one, once for each.
#[derive(Debug)]
struct Permitting {
    commits: Semaphore,
    /// One for each commit that has begun.
    begun: Semaphore,
    /// Closed if it cannot be moved.
    pin: Option<Semaphore>,
    /// Whether one has a turn.
    turn: AtomicBool,
    /// Commits that began in a turn.
    begun_in_turn: AtomicUsize,
}

impl Permitting {
    fn new(pin: Option<Semaphore>) -> Self {
        let (commits, begun) = (Semaphore::new(0), Semaphore::new(0));
        let (turn, begun_in_turn) = Default::default();
        Self { commits, begun, pin, turn, begun_in_turn }
    }
}

fn genesis() -> Head {
    Head::genesis(StoreId::from_bytes([1; 16]), Schema::current())
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "this is about commits")
}

#[async_trait]
impl Backend for Permitting {
    fn info(&self) -> BackendInfo {
        BackendInfo {
            name: "permitting",
            engine: String::new(),
            location: None,
            durable: false,
            shared: false,
            sealed: false,
            pinned: self.pin.is_some(),
            signer: None,
            resealed: None,
            bytes: None,
            file: None,
            filesystem: None,
            clock_ahead_ms: None,
            pool: None,
            log: None,
            counters: BackendCounters::default(),
        }
    }

    async fn take_turn(&self) -> Result<bool> {
        assert!(!self.turn.swap(true, Ordering::SeqCst), "it is taken");
        Ok(true)
    }

    async fn end_turn(&self) -> Result<()> {
        self.turn.store(false, Ordering::SeqCst);
        Ok(())
    }

    async fn commit(&self, _: &Commit) -> Result<()> {
        self.begun.add_permits(1);
        if self.turn.swap(false, Ordering::SeqCst) {
            self.begun_in_turn.fetch_add(1, Ordering::SeqCst);
        }
        self.commits.acquire().await.map_err(|_| unsupported())?.forget();
        Ok(())
    }

    async fn confirm(&self) -> Result<()> {
        let pin = self.pin.as_ref().ok_or_else(unsupported)?.acquire().await;
        pin.map_err(|_| Error::new(ErrorKind::Unavailable, "the pin is gone"))?.forget();
        Ok(())
    }

    async fn head(&self) -> Result<Head> {
        Ok(genesis())
    }

    async fn migrate(&self, _: Schema) -> Result<()> {
        Err(unsupported())
    }

    async fn scan(&self, _: Scan) -> Result<ScanPage> {
        Err(unsupported())
    }

    async fn blocks(&self, _: Serial, _: usize) -> Result<Vec<EncodedBlock>> {
        Err(unsupported())
    }

    async fn probe(&self, _: Epoch) -> Result<()> {
        Err(unsupported())
    }

    async fn adopt(&self, _: &Head) -> Result<()> {
        Err(unsupported())
    }

    async fn reopen(&self) -> Result<Head> {
        Err(unsupported())
    }

    async fn verify(&self) -> Result<()> {
        Err(unsupported())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

struct Bench {
    writer: Writer,
    backend: Arc<Permitting>,
    sender: mpsc::Sender<Request>,
    queue: mpsc::Receiver<Request>,
    sent: u128,
}

impl Bench {
    async fn new() -> Self {
        Self::on(Permitting::new(None)).await
    }

    async fn on(backend: Permitting) -> Self {
        let backend = Arc::new(backend);
        let head = Head::genesis(StoreId::from_bytes([1; 16]), Schema::current());
        let shared = Arc::new(Shared {
            head: arc_swap::ArcSwap::from_pointee(head),
            published: arc_swap::ArcSwap::from_pointee(Published::new(
                State::default(),
                UnflushedAudit::default(),
                Duration::ZERO,
            )),
            progress: tokio::sync::watch::Sender::new(Progress { serial: Serial::ZERO, end: None }),
            closing: Closing::default(),
            submitted: AtomicU64::new(0),
            digests: DigestCache::new(),
            holds: Holds::default(),
            vital: Vital::new(Serial::ZERO, true),
            counters: WriterCounters::default(),
            observed: Observed::default(),
        });
        let backlog = FlushBacklog::default();
        let checkpointer = Checkpointer::new(backlog, Retained::new(head.oldest_block), &head);
        let commit_thread = CommitThread::start(crate::threads::Waits::Timers).await.unwrap();
        let options = StoreOptions::default();
        let found = Found {
            head,
            checkpointer,
            sequences: HashMap::new(),
            consumers: Consumers::default(),
        };
        let writer = Writer::new(backend.clone(), shared, &options, found, commit_thread);
        let (sender, queue) = mpsc::channel(4096);
        Self { writer, backend, sender, queue, sent: 0 }
    }

    /// Puts commands into the queue.
    fn send(&mut self, count: u128) -> Vec<oneshot::Receiver<Result<Committed>>> {
        let send = |number: u128| {
            let user = NewUser::local(format!("user-{number}").parse().unwrap());
            let id = UserId::from_bytes((number + 1).to_be_bytes());
            let submission = Submission {
                at: Timestamp::EPOCH,
                actor: Arc::new(Actor::system()),
                seed: [0; 10],
                command: UserCommand::Create { id, user }.into(),
            };
            let origin = Origin::new(tracing::Span::none(), None);
            let (answer, answered) = Answer::new(None, origin);
            let request = Request::Submit(Box::new(submission), answer);
            self.sender.try_send(request).ok().unwrap();
            answered
        };
        let answers = (self.sent..self.sent + count).map(send).collect();
        self.sent += count;
        answers
    }

    async fn step(&mut self) {
        let mut idle_timeout = Duration::MAX;
        assert!(self.writer.step(&mut self.queue, &mut idle_timeout).await);
    }

    /// Lets the commit in flight be stored.
    async fn store(&mut self) {
        self.backend.commits.add_permits(1);
        self.writer.in_flight.as_mut().unwrap().ended().await;
    }

    fn open_and_in_flight(&self) -> (Option<usize>, Option<usize>) {
        (
            self.writer.batch.as_ref().map(Batch::len),
            self.writer.in_flight.as_ref().map(InFlight::len),
        )
    }
}

fn all_are_answered(answers: &mut [oneshot::Receiver<Result<Committed>>]) -> bool {
    answers.iter_mut().all(|answer| answer.try_recv().is_ok_and(|outcome| outcome.is_ok()))
}

#[tokio::test]
async fn callers_of_a_stored_commit_are_answered_within_one_drain_of_the_queue() {
    const LONG: usize = 5 * DRAIN_LIMIT;
    let mut bench = Bench::new().await;
    let mut answers = bench.send(1000);
    let (first, rest) = answers.split_at_mut(DRAIN_LIMIT);
    let (second, rest) = rest.split_at_mut(LONG);
    let (third, _) = rest.split_at_mut(LONG);
    bench.step().await;
    assert_eq!(bench.open_and_in_flight(), (None, Some(DRAIN_LIMIT)));
    for _ in 0..4 {
        bench.step().await;
    }
    assert_eq!(bench.open_and_in_flight(), (Some(LONG - DRAIN_LIMIT), Some(DRAIN_LIMIT)));
    bench.store().await;
    bench.step().await;
    assert_eq!(bench.open_and_in_flight(), (None, Some(LONG)));
    assert!(all_are_answered(first));
    // However long the next ones take.
    bench.store().await;
    bench.step().await;
    assert!(all_are_answered(second));
    assert_eq!(bench.writer.shared.published.load().state.users().len(), DRAIN_LIMIT + LONG);
    // The next commit begins only when its batch is as long as the last one.
    assert_eq!(bench.open_and_in_flight(), (Some(DRAIN_LIMIT), None));
    for _ in 0..4 {
        bench.step().await;
    }
    assert_eq!(bench.open_and_in_flight(), (None, Some(LONG)));
    bench.store().await;
    bench.step().await;
    assert!(all_are_answered(third));
}

#[tokio::test]
async fn nobody_is_told_before_the_pin_is_moved_and_the_next_commit_runs_meanwhile() {
    let mut bench = Bench::on(Permitting::new(Some(Semaphore::new(0)))).await;
    let backend = bench.backend.clone();
    let mut answers = bench.send(2 * DRAIN_LIMIT as u128);
    let (first, second) = answers.split_at_mut(DRAIN_LIMIT);
    bench.step().await;
    bench.store().await;
    {
        let step = bench.step();
        tokio::pin!(step);
        tokio::select! {
            biased;
            () = &mut step => panic!("nothing was confirmed"),
            begun = backend.begun.acquire_many(2) => drop(begun.unwrap()),
        }
        assert!(first.iter_mut().all(|answer| answer.try_recv().is_err()));
        backend.pin.as_ref().unwrap().add_permits(1);
        step.await;
    }
    assert!(all_are_answered(first));
    assert_eq!(bench.open_and_in_flight(), (None, Some(DRAIN_LIMIT)));
    assert!(second.iter_mut().all(|answer| answer.try_recv().is_err()));
    backend.pin.as_ref().unwrap().add_permits(1);
    bench.store().await;
    bench.step().await;
    assert!(all_are_answered(second));
}

#[tokio::test]
async fn what_cannot_be_confirmed_is_not_told_nor_is_what_builds_on_it() {
    let mut bench = Bench::on(Permitting::new(Some(Semaphore::new(0)))).await;
    let mut answers = bench.send(2 * DRAIN_LIMIT as u128);
    bench.step().await;
    bench.store().await;
    bench.backend.pin.as_ref().unwrap().close();
    // The second is stored, too.
    bench.backend.commits.add_permits(1);
    bench.step().await;
    for answer in &mut answers {
        let error = answer.try_recv().unwrap().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::OutcomeUnknown);
        assert!(error.to_string().contains("the pin is gone"), "{error}");
    }
    assert_eq!(bench.open_and_in_flight(), (None, None));
    assert_eq!(bench.writer.shared.published.load().state.users().len(), 0);
    // Nothing is accepted until it can be.
    let mut refused = bench.send(1).remove(0);
    let answer = tokio::select! {
        biased;
        () = bench.step() => None,
        answer = &mut refused => Some(answer),
    };
    let error = answer.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("was not stored"), "{error}");
}

#[tokio::test]
async fn where_turns_are_taken_no_write_is_served_outside_of_one() {
    let mut bench = Bench::new().await;
    for _ in 0..2 {
        bench.writer.turns.lost(Instant::now());
    }
    // One that arrives when the queue was just found to be empty.
    let mut answers = bench.send(1);
    assert!(!bench.writer.drain(&mut bench.queue).await);
    assert_eq!(bench.open_and_in_flight(), (None, None));
    bench.backend.commits.add_permits(1);
    bench.step().await;
    assert!(all_are_answered(&mut answers));
    assert_eq!(bench.backend.begun_in_turn.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_write_behind_something_else_waits_for_its_turn_too() {
    let mut bench = Bench::new().await;
    for _ in 0..2 {
        bench.writer.turns.lost(Instant::now());
    }
    let (answer, mut followed) = Answer::new(None, Origin::new(tracing::Span::none(), None));
    bench.sender.try_send(Request::Follow(genesis().position, answer)).ok().unwrap();
    let mut answers = bench.send(1);
    bench.backend.commits.add_permits(1);
    for _ in 0..2 {
        bench.step().await;
    }
    followed.try_recv().unwrap().unwrap();
    assert!(all_are_answered(&mut answers));
    assert_eq!(bench.backend.begun_in_turn.load(Ordering::SeqCst), 1);
}
