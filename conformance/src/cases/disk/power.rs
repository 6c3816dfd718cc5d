//! Power that is lost at any moment.

use super::workload::{Workload, open, options, sound};
use crate::prelude::*;

const NO_DISK: Verdict = Verdict::Skipped("the place has no disk that loses power");

/// So many moments for each process that the checks kill.
const MOMENTS_PER_KILL: usize = 6;
/// Writes in one workload.
const STEPS: usize = 60;

/// A moment at which power is lost.
struct Loss {
    /// Before which operation of the disk.
    operation: usize,
    /// How many writes were acknowledged by then.
    acknowledged: usize,
    disk: Arc<dyn Frozen>,
}

impl Loss {
    /// What may be there: every write that was acknowledged, and maybe the one under way.
    fn allowed<'a>(&self, history: &'a [Digests]) -> &'a [Digests] {
        let last = history.len() - 1;
        &history[self.acknowledged..=(self.acknowledged + 1).min(last)]
    }
}

/// Somebody who follows the log of a workload from its beginning.
struct Follower {
    registered: Consumer,
    replica: Replica,
    taken: Vec<LogEntry>,
}

impl Follower {
    async fn register(store: &Opened) -> Self {
        let registered = follow(store, "mirror").await;
        let replica = Replica::since(&registered).await;
        Self { registered, replica, taken: Vec::new() }
    }

    async fn take_all(&mut self, store: &Opened, and_says_so: bool) {
        self.taken.extend(self.replica.take_all(store).await);
        if and_says_so {
            let position = self.replica.position().await;
            store.consumers().advance(&self.registered.name, position).await.unwrap();
        }
    }

    /// From where it is on the log is whole, and leads to what is there.
    async fn check(&self, left: &Opened, when: &str) {
        // It may have been registered later.
        for consumer in left.consumers().list().await.unwrap() {
            let replica = Replica::since(&self.registered).await;
            for entry in self.taken.iter().filter(|entry| entry.position <= consumer.position) {
                replica.take(entry).await;
            }
            replica.take_all(left).await;
            let (found, wanted) = (replica.digests().await, left.digests().await.unwrap());
            assert_eq!(found, wanted, "the log leads elsewhere: {when}");
        }
    }
}

/// What is known of a workload: what the store held after each write, what the disk did before each of its
/// operations, and who followed.
struct Record {
    history: Vec<Digests>,
    losses: Vec<Loss>,
    follower: Option<Follower>,
}

/// Remembers what the disk holds before each of its operations.
#[derive(Default)]
struct Recorder {
    losses: Mutex<Vec<Loss>>,
    acknowledged: AtomicUsize,
}

impl Recorder {
    fn record(&self, disk: &dyn Disk) {
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let disk = disk.freeze();
        let mut losses = self.losses.lock().unwrap();
        let operation = losses.len();
        losses.push(Loss { operation, acknowledged, disk });
    }
}

pub(super) async fn what_was_acknowledged_survives_whenever_power_is_lost(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let wanted = effort.kills as usize * MOMENTS_PER_KILL;
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let mut seed = effort.seed;
        let mut done = 0;
        while done < wanted {
            match lose_power_at_moments(factory.as_ref(), materialize, seed, wanted - done).await {
                Some(losses) => done += losses,
                None => return NO_DISK,
            }
            seed += 1;
        }
    }
    Verdict::Passed
}

/// One store from its first file to its end, and what is left of it at moments in between. Tells
/// how many; `None` if there is no disk.
async fn lose_power_at_moments(
    factory: &dyn Factory,
    materialize: Materialize,
    seed: u64,
    most: usize,
) -> Option<usize> {
    let place = factory.create().await.unwrap();
    // Every other workload is followed.
    let followed = (materialize == Materialize::Commit) == seed.is_multiple_of(2);
    let record = record(place.as_ref(), materialize, seed, followed).await?;
    let losses = &record.losses;
    let examined = losses.len().min(most);
    let rng = Rng::new(seed);
    for index in 0..examined {
        // One of each part of the workload.
        let part = index * losses.len() / examined..(index + 1) * losses.len() / examined;
        let loss = &losses[part.start + rng.below(part.len())];
        let (seed, first) = (rng.number(), seed);
        let image = place.after_power_loss(loss.disk.as_ref(), seed).await.unwrap();
        let when = format!(
            "{materialize:?}, workload {first}, operation {}, {} acknowledged, seed {seed}",
            loss.operation, loss.acknowledged
        );
        let allowed = loss.allowed(&record.history);
        examine(image.as_ref(), materialize, allowed, &record, &when).await;
    }
    Some(examined)
}

/// A process may die between writing and synchronising. What the next one shows must not be taken
/// back by the loss of power: callers may have been told that their write is there already.
pub(super) async fn what_a_new_process_finds_survives_the_loss_of_power(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    for materialize in [Materialize::Commit, Materialize::Checkpoint] {
        let place = factory.create().await.unwrap();
        let record = record(place.as_ref(), materialize, effort.seed, false).await;
        let Some(Record { history, losses, .. }) = record else { return NO_DISK };
        let rng = Rng::new(effort.seed);
        for _ in 0..effort.kills * 2 {
            let loss = &losses[rng.below(losses.len())];
            let when = format!("{materialize:?}, operation {}", loss.operation);
            let next = place.after_process_death(loss.disk.as_ref()).await.unwrap();
            let disk = next.disk().unwrap();
            let options = || options(materialize, &super::workload::clock(), 99);
            let (backend, store) = open(next.as_ref(), options())
                .await
                .unwrap_or_else(|error| panic!("{when}: {error:?}"));
            let warns = backend.info().log.is_some_and(|log| log.ended_early);
            assert!(!warns, "the death of a process is taken for damage of the log: {when}");
            let shown = store.digests().await.unwrap();
            assert!(loss.allowed(&history).contains(&shown), "{when}");
            let frozen = disk.freeze();
            for _ in 0..2 {
                let seed = rng.number();
                let image = next.after_power_loss(frozen.as_ref(), seed).await.unwrap();
                image.disk();
                let (_, left) = open(image.as_ref(), options())
                    .await
                    .unwrap_or_else(|error| panic!("{when}, seed {seed}: {error:?}"));
                let found = left.digests().await.unwrap();
                assert_eq!(found, shown, "shown, and taken back: {when}, seed {seed}");
                left.close().await.unwrap();
            }
            store.close().await.unwrap();
        }
    }
    Verdict::Passed
}

/// Every moment of making a store, several times: there are not many.
pub(super) async fn a_store_that_was_being_made_can_be_made_again(
    factory: Arc<dyn Factory>,
    effort: Effort,
) -> Verdict {
    let place = factory.create().await.unwrap();
    let Some(disk) = place.disk() else { return NO_DISK };
    let recorder = Arc::new(Recorder::default());
    let watcher = recorder.clone();
    disk.watch(Some(Arc::new(move |disk| watcher.record(disk))));
    let made = options(Materialize::Commit, &super::workload::clock(), effort.seed);
    let (_, store) = open(place.as_ref(), made).await.unwrap();
    disk.watch(None);
    let empty = store.digests().await.unwrap();
    let mut losses = std::mem::take(&mut *recorder.losses.lock().unwrap());
    losses.push(Loss { operation: losses.len(), acknowledged: 0, disk: disk.freeze() });
    let record = Record { history: vec![empty], losses: Vec::new(), follower: None };
    let rng = Rng::new(effort.seed);
    let tries = (effort.kills as usize * 2 * MOMENTS_PER_KILL).div_ceil(losses.len());
    for loss in losses {
        for _ in 0..tries {
            let seed = rng.number();
            let image = place.after_power_loss(loss.disk.as_ref(), seed).await.unwrap();
            let when = format!("operation {}, seed {seed}", loss.operation);
            examine(image.as_ref(), Materialize::Commit, &record.history, &record, &when).await;
        }
    }
    Verdict::Passed
}

/// The workload of one store. `None` if there is no disk.
async fn record(
    place: &dyn Place,
    materialize: Materialize,
    seed: u64,
    followed: bool,
) -> Option<Record> {
    let disk = place.disk()?;
    let recorder = Arc::new(Recorder::default());
    let watcher = recorder.clone();
    disk.watch(Some(Arc::new(move |disk| watcher.record(disk))));
    let acknowledged = &recorder.acknowledged;
    let (history, follower) = write(place, materialize, seed, acknowledged, followed).await;
    disk.watch(None);
    let losses = std::mem::take(&mut *recorder.losses.lock().unwrap());
    assert!(losses.len() > STEPS, "the disk was used {} times only", losses.len());
    Some(Record { history, losses, follower })
}

/// Writes, and gives what the store held before the first write and after each, and who followed.
async fn write(
    place: &dyn Place,
    materialize: Materialize,
    seed: u64,
    acknowledged: &AtomicUsize,
    followed: bool,
) -> (Vec<Digests>, Option<Follower>) {
    let mut workload = Workload::new(seed);
    let (mut history, mut follower) = (Vec::new(), None);
    let mut store = None;
    for step in 0..STEPS {
        // Closing flushes, moves logs into files and deletes them; opening makes them anew.
        let opened = match store.take() {
            Some(opened) => opened,
            None => {
                let options = options(materialize, &workload.clock, seed + step as u64);
                open(place, options).await.unwrap()
            }
        };
        if history.is_empty() {
            history.push(opened.1.digests().await.unwrap());
            if followed {
                follower = Some(Follower::register(&opened.1).await);
            }
        }
        workload.step(&opened.1).await.unwrap();
        acknowledged.fetch_add(1, Ordering::SeqCst);
        history.push(opened.1.digests().await.unwrap());
        if let Some(follower) = &mut follower {
            follower.take_all(&opened.1, step % 8 == 7).await;
        }
        if step % 20 == 19 {
            opened.1.close().await.unwrap();
        } else {
            store = Some(opened);
        }
    }
    (history, follower)
}

/// Opens what is left, compares, and goes on writing.
async fn examine(
    image: &dyn Place,
    materialize: Materialize,
    allowed: &[Digests],
    Record { history, follower, .. }: &Record,
    when: &str,
) {
    // Asked for before it is opened, so that nothing waits for this machine's disk.
    image.disk();
    let opened = open(image, options(materialize, &super::workload::clock(), 99)).await;
    let (backend, store) =
        opened.unwrap_or_else(|error| panic!("cannot be opened: {when}: {error:?}"));
    let warns = backend.info().log.is_some_and(|log| log.ended_early);
    assert!(!warns, "a loss of power is taken for damage of the log: {when}");
    let found = sound(&store).await;
    let found = found.unwrap_or_else(|error| panic!("is not sound: {when}: {error:?}"));
    if !allowed.contains(&found) {
        match history.iter().position(|digests| *digests == found) {
            Some(older) => panic!("acknowledged writes are lost: {older} are there: {when}"),
            None => panic!("something is half there: {when}"),
        }
    }
    user(&store, "afterwards").await;
    if let Some(follower) = follower {
        follower.check(&store, when).await;
    }
    store.close().await.unwrap();
}
