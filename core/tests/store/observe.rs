//! What a store tells a recorder, and what can be read off it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ghostwire_store_core::domain::*;
use ghostwire_store_core::layer::{Chaos, FaultKind};
use ghostwire_store_core::observe::{Event, Readings, Recorder};
use ghostwire_store_core::options::{StoreOptions, WriterOptions};
use ghostwire_store_core::{Store, open};
use ghostwire_store_memory::MemoryBackend;

/// Remembers what it is told, as text, and reads the store off.
#[derive(Debug, Default)]
struct Remembers {
    told: Mutex<Vec<String>>,
    readings: Mutex<Option<Readings>>,
    slow_after: Option<Duration>,
}

impl Recorder for Remembers {
    fn record(&self, event: &Event<'_>) {
        let text = match *event {
            Event::Command { command, error, .. } => format!("command {command} {error:?}"),
            // One that only flushes comes when it likes.
            Event::Commit { commands: 0, .. } => return,
            Event::Commit { commands, error, .. } => format!("commit of {commands} {error:?}"),
            Event::Waited(_) => "waited".to_owned(),
            Event::QueueFull => "queue full".to_owned(),
            Event::Recovery => "recovery".to_owned(),
            Event::UnknownOutcome => "unknown outcome".to_owned(),
            Event::Slow { command, took, phases, .. } => {
                let parts =
                    [phases.queue, phases.decide, phases.encode, phases.commit, phases.publish];
                assert!(
                    parts.iter().sum::<Duration>() <= took + Duration::from_millis(1),
                    "{phases:?}"
                );
                format!("slow {command}")
            }
            _ => return,
        };
        self.told.lock().unwrap().push(text);
    }

    fn opened(&self, readings: Readings) {
        *self.readings.lock().unwrap() = Some(readings);
    }

    fn slow_after(&self) -> Option<Duration> {
        self.slow_after
    }
}

impl Remembers {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

async fn observed(recorder: &Arc<Remembers>, writer: WriterOptions) -> (Arc<dyn Store>, Chaos) {
    let chaos = Chaos::new(Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16]))));
    let recorder: Arc<dyn Recorder> = recorder.clone();
    let options = StoreOptions { recorder: Some(recorder), writer, ..StoreOptions::default() };
    (open(Arc::new(chaos.clone()), options).await.unwrap(), chaos)
}

fn user(name: &str) -> NewUser {
    NewUser::local(name.parse().unwrap())
}

#[tokio::test]
async fn each_write_is_told_with_its_outcome_and_each_commit_once() {
    let recorder = Arc::new(Remembers::default());
    let (store, chaos) = observed(&recorder, WriterOptions::default()).await;
    recorder.take();
    store.users().create(user("alice")).await.unwrap();
    assert_eq!(recorder.take(), ["waited", "commit of 1 None", "command user.create None"]);
    // What is refused needs no commit.
    store.users().create(user("alice")).await.unwrap_err();
    assert_eq!(recorder.take(), ["waited", "command user.create Some(\"already_exists\")"]);
    chaos.faults().fail_next_commits(1, FaultKind::After);
    store.users().create(user("bob")).await.unwrap();
    let told = recorder.take();
    assert_eq!(
        told,
        [
            "waited",
            "commit of 1 Some(\"outcome_unknown\")",
            "recovery",
            "unknown outcome",
            "command user.create None"
        ]
    );
}

#[tokio::test]
async fn slow_writes_and_full_queues_are_told() {
    let slow_after = Some(Duration::ZERO);
    let recorder = Arc::new(Remembers { slow_after, ..Remembers::default() });
    let options = WriterOptions {
        queue_capacity: 1,
        queue_timeout: Duration::from_millis(1),
        ..WriterOptions::default()
    };
    let (store, chaos) = observed(&recorder, options).await;
    let hold = chaos.faults().hold_commits();
    let create = |name: &'static str| {
        let store = store.clone();
        tokio::spawn(async move { store.users().create(user(name)).await })
    };
    let first = create("a");
    while chaos.faults().held_commits() == 0 {
        tokio::task::yield_now().await;
    }
    // One waits in the queue; of the others none has room.
    let others: Vec<_> = ["b", "c", "d"].map(create).into_iter().collect();
    let mut refused = 0;
    let mut waiting = Vec::new();
    for other in others {
        if other.is_finished() {
            refused += u32::from(other.await.unwrap().is_err());
        } else {
            waiting.push(other);
        }
    }
    while recorder.told.lock().unwrap().iter().filter(|told| *told == "queue full").count() < 2 {
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(hold);
    first.await.unwrap().unwrap();
    for other in waiting {
        refused += u32::from(other.await.unwrap().is_err());
    }
    assert_eq!(refused, 2);
    // Told once they are answered.
    store.close().await.unwrap();
    assert!(recorder.take().contains(&"slow user.create".to_owned()));
}

/// Is told of a slow write only once its caller has seen the answer.
#[derive(Debug)]
struct AfterAnswer {
    answered: Mutex<Receiver<()>>,
    in_time: Mutex<Vec<bool>>,
}

impl Recorder for AfterAnswer {
    fn record(&self, event: &Event<'_>) {
        if let Event::Slow { .. } = event {
            let answered = self.answered.lock().unwrap().recv_timeout(Duration::from_secs(10));
            self.in_time.lock().unwrap().push(answered.is_ok());
        }
    }

    fn slow_after(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

#[tokio::test]
async fn nobody_waits_for_what_is_told_of_slow_writes() {
    let (seen, answered) = channel();
    let recorder = AfterAnswer { answered: Mutex::new(answered), in_time: Mutex::default() };
    let recorder = Arc::new(recorder);
    let backend = MemoryBackend::new(StoreId::from_bytes([1; 16]));
    let options = StoreOptions { recorder: Some(recorder.clone()), ..StoreOptions::default() };
    let store = open(Arc::new(backend), options).await.unwrap();
    store.users().create(user("alice")).await.unwrap();
    seen.send(()).unwrap();
    store.close().await.unwrap();
    assert_eq!(*recorder.in_time.lock().unwrap(), [true]);
}

#[tokio::test]
async fn a_store_is_read_off_until_it_is_gone() {
    let recorder = Arc::new(Remembers::default());
    let (store, _) = observed(&recorder, WriterOptions::default()).await;
    let alice = store.users().create(user("alice")).await.unwrap();
    let hour = Duration::from_secs(3600);
    let now = store.clock().now().unwrap();
    for (number, expires_at) in [(1, None), (2, Some(now.saturating_add(hour)))] {
        let keys = (MachineKey::from_bytes([number; 32]), NodeKey::from_bytes([number + 9; 32]));
        let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
        let new =
            Registration::new(keys.0.unwrap(), keys.1.unwrap(), "host".parse().unwrap(), admission);
        let node = store.nodes().register(Registration { expires_at, ..new }).await.unwrap();
        if number == 1 {
            store.presence().open(node.id, Update::Keep).await.unwrap();
        }
    }
    let readings = recorder.readings.lock().unwrap().clone().unwrap();
    let kept = store.view();
    store.users().create(user("bob")).await.unwrap();
    let reading = readings.read().unwrap();
    let nodes = reading.counts.nodes;
    assert_eq!((nodes.online, nodes.offline, nodes.expired), (1, 1, 0));
    assert!(reading.counts.next_node_expiry.is_some());
    assert_eq!(reading.addresses.map(|(taken, _)| taken), [2, 2]);
    assert!(reading.addresses.iter().all(|(_, limit)| *limit > 1000.0));
    assert_eq!(reading.queue.size, 0);
    assert!(reading.views.oldest_age > Duration::ZERO, "a view is kept");
    drop(kept);
    // The writer lets go of a state after it has answered.
    while readings.read().unwrap().views.oldest_age > Duration::ZERO {
        tokio::task::yield_now().await;
    }
    store.close().await.unwrap();
    drop(store);
    assert!(readings.read().is_none());
}
