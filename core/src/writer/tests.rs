//! The writer, driven by hand: one step at a time, on a backend that stores when it is told to.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::flight::{Step, next_step};
use super::*;
use crate::backend::{BackendCounters, BackendInfo, Row, Scan};
use crate::block::EncodedBlock;
use crate::command::{Submission, UserCommand};
use crate::domain::{ActorName, NewUser, Timestamp, UserId};
use crate::schema::Schema;
use crate::unfolded::UnfoldedAudit;

#[test]
fn the_next_step_follows_from_what_is_open_and_what_is_over() {
    for nothing_more in [false, true] {
        // While a commit is under way everything else gathers.
        assert_eq!(next_step(None, Some((9, false)), 0, nothing_more), Step::Gather);
        assert_eq!(next_step(Some(99), Some((9, false)), 0, nothing_more), Step::Gather);
        assert_eq!(next_step(None, None, 0, nothing_more), Step::Gather);
        // One that is over is told of, and a group that is long enough begins with it.
        assert_eq!(next_step(None, Some((9, true)), 0, nothing_more), Step::Publish);
        assert_eq!(next_step(Some(9), Some((9, true)), 0, nothing_more), Step::Begin);
        // The first group after a rest waits for nobody.
        assert_eq!(next_step(Some(1), None, 0, nothing_more), Step::Begin);
    }
    // A shorter group grows on, and nobody waits for that who is stored.
    assert_eq!(next_step(Some(8), Some((9, true)), 0, false), Step::Publish);
    assert_eq!(next_step(Some(8), None, 9, false), Step::Gather);
    assert_eq!(next_step(Some(9), None, 9, false), Step::Begin);
    // Unless there is nothing to grow by.
    assert_eq!(next_step(Some(8), Some((9, true)), 0, true), Step::Begin);
    assert_eq!(next_step(Some(8), None, 9, true), Step::Begin);
}

/// Stores one commit for each permit.
#[derive(Debug)]
struct Permitting(Semaphore);

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
            bytes: None,
            log: None,
            counters: BackendCounters::default(),
        }
    }

    async fn commit(&self, _: &Commit) -> Result<()> {
        self.0.acquire().await.map_err(|_| unsupported())?.forget();
        Ok(())
    }

    async fn head(&self) -> Result<Head> {
        Err(unsupported())
    }

    async fn migrate(&self, _: Schema) -> Result<()> {
        Err(unsupported())
    }

    async fn scan(&self, _: Scan) -> Result<Vec<Row>> {
        Err(unsupported())
    }

    async fn blocks(&self, _: Serial, _: usize) -> Result<Vec<EncodedBlock>> {
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
        let backend = Arc::new(Permitting(Semaphore::new(0)));
        let shared = Arc::new(Shared {
            published: arc_swap::ArcSwap::from_pointee(Published::new(
                State::default(),
                UnfoldedAudit::default(),
            )),
            progress: tokio::sync::watch::Sender::new(Progress { serial: Serial::ZERO, end: None }),
            closing: Closing::default(),
            storing: AtomicU64::new(0),
            digests: DigestCache::new(),
            counters: WriterCounters::default(),
        });
        let start = Start {
            positions: HashMap::new(),
            fold: FoldDebt::default(),
            retained: Retained::new(Serial::new(1)),
            checkpoint: Serial::ZERO,
        };
        let disk = Disk::start(crate::threads::Waits::Timers).await.unwrap();
        let options = StoreOptions::default();
        let writer = Writer::new(backend.clone(), shared, &options, start, disk);
        let (sender, queue) = mpsc::channel(4096);
        Self { writer, backend, sender, queue, sent: 0 }
    }

    /// Puts so many commands into the queue.
    fn send(&mut self, count: u128) -> Vec<oneshot::Receiver<Result<Committed>>> {
        let send = |number: u128| {
            let user = NewUser::local(format!("user-{number}").parse().unwrap());
            let id = UserId::from_bytes((number + 1).to_be_bytes());
            let submission = Submission {
                at: Timestamp::EPOCH,
                actor: ActorName::system(),
                seed: [0; 10],
                command: UserCommand::Create { id, user }.into(),
            };
            let (answer, answered) = Answer::new(None);
            let request = Request::Submit(Box::new(submission), answer);
            self.sender.try_send(request).ok().unwrap();
            answered
        };
        let answers = (self.sent..self.sent + count).map(send).collect();
        self.sent += count;
        answers
    }

    async fn step(&mut self) {
        let mut patience = Duration::MAX;
        assert!(self.writer.step(&mut self.queue, &mut patience).await);
    }

    /// Lets the commit under way be stored.
    async fn store(&mut self) {
        self.backend.0.add_permits(1);
        self.writer.flight.as_mut().unwrap().ended().await;
    }

    fn open_and_under_way(&self) -> (Option<usize>, Option<usize>) {
        (self.writer.group.as_ref().map(Group::len), self.writer.flight.as_ref().map(Flight::len))
    }
}

fn all_are_told(answers: &mut [oneshot::Receiver<Result<Committed>>]) -> bool {
    answers.iter_mut().all(|answer| answer.try_recv().is_ok_and(|outcome| outcome.is_ok()))
}

#[tokio::test]
async fn whoever_is_stored_is_told_within_one_bite_of_what_waits() {
    const LONG: usize = 5 * BITE;
    let mut bench = Bench::new().await;
    let mut answers = bench.send(1000);
    let (first, rest) = answers.split_at_mut(BITE);
    let (second, rest) = rest.split_at_mut(LONG);
    let (third, _) = rest.split_at_mut(LONG);
    bench.step().await;
    assert_eq!(bench.open_and_under_way(), (None, Some(BITE)));
    for _ in 0..4 {
        bench.step().await;
    }
    assert_eq!(bench.open_and_under_way(), (Some(LONG - BITE), Some(BITE)));
    bench.store().await;
    bench.step().await;
    assert_eq!(bench.open_and_under_way(), (None, Some(LONG)));
    assert!(all_are_told(first));
    // Whatever comes next may take as long as it likes.
    bench.store().await;
    bench.step().await;
    assert!(all_are_told(second));
    assert_eq!(bench.writer.shared.published.load().state.users().len(), BITE + LONG);
    // Its commit begins only when there are as many as before.
    assert_eq!(bench.open_and_under_way(), (Some(BITE), None));
    for _ in 0..4 {
        bench.step().await;
    }
    assert_eq!(bench.open_and_under_way(), (None, Some(LONG)));
    bench.store().await;
    bench.step().await;
    assert!(all_are_told(third));
}
