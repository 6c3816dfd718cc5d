//! Processes with a pin that are killed: at each step of the protocol, with commits that overlap and
//! without, and at any moment. Whatever was answered is there, nothing else raises an alarm, and each older
//! state that is put back is refused.
//!
//! `GHOSTWIRE_PIN_KILLS` says how many; there are a few in any case.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::killed::{run_and_kill, tell};
use ghostwire_store_core::backend::{Backend, Commit};
use ghostwire_store_core::domain::{NewUser, StoreId};
use ghostwire_store_core::error::{ErrorKind, Result};
use ghostwire_store_core::layer::Layer;
use ghostwire_store_core::options::{StoreOptions, WriterOptions};
use ghostwire_store_core::{Store, open};
use ghostwire_store_crypto::keyring::{Expected, Identity, Keyring, Unlock};
use ghostwire_store_crypto::{Secret, SystemRandom};
use ghostwire_store_zqlite::{PinChoice, PinOptions, ZqliteBackend, ZqliteOptions};

const DIRECTORY: &str = "GHOSTWIRE_PIN_CHILD";
const PLAN: &str = "GHOSTWIRE_PIN_PLAN";
const KILLS: &str = "GHOSTWIRE_PIN_KILLS";
const FILES: [&str; 3] = ["store.db", "store.db-wal", "store.db-shm"];

fn options(directory: &Path) -> ZqliteOptions {
    let pin = PinOptions::file(directory.join("pin")).same_device(true);
    let options = ZqliteOptions::new(directory.join("store.db"), StoreId::from_bytes([9; 16]))
        .create(true)
        .pin(PinChoice::Commit(pin.key(Secret::take(&mut [7; 32]))));
    match fs::read(directory.join("keyring")) {
        Ok(file) => {
            let identity = fs::read_to_string(directory.join("identity")).unwrap();
            let identity = Identity::from_text(&identity).unwrap();
            let keyring = Keyring::open(&file, Unlock::Identity(&identity), &Expected::default());
            options.sealed(keyring.unwrap())
        }
        Err(_) => options,
    }
}

/// Lets the store in this directory be a sealed one.
fn seal(directory: &Path) {
    let identity = Identity::draw(&SystemRandom).unwrap();
    let root = identity.recipient().clone();
    let keyring = Keyring::first([9; 16], root, None, 0, &SystemRandom).unwrap();
    fs::write(directory.join("keyring"), keyring.seal(&SystemRandom).unwrap()).unwrap();
    fs::write(directory.join("identity"), identity.to_text().as_bytes()).unwrap();
}

/// Where a child stops for ever, so that it can be killed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    BeforeCommit,
    /// The commit is stored, the pin does not have it.
    AfterCommit,
    BeforePin,
    /// The pin has it, nobody is told.
    AfterPin,
}

impl Step {
    const ALL: [Self; 4] = [Self::BeforeCommit, Self::AfterCommit, Self::BeforePin, Self::AfterPin];
}

/// What a child does: `callers` at once, and stops when a step is reached for the given time. Without a
/// step it goes on until it is killed.
#[derive(Debug, Clone, Copy)]
struct Plan {
    round: u32,
    callers: u32,
    stop: Option<(Step, u32)>,
}

impl Plan {
    fn of(round: u32) -> Self {
        // Each step with and without overlap, early and late, and every fifth at any moment.
        let step = Step::ALL[(round as usize / 2) % 4];
        let stop = (round % 5 != 4).then_some((step, 1 + round / 8 % 7));
        Self { round, callers: if round.is_multiple_of(2) { 1 } else { 16 }, stop }
    }

    fn to_text(self) -> String {
        let (step, time) = self.stop.map_or((4, 0), |(step, time)| {
            (Step::ALL.iter().position(|it| *it == step).unwrap(), time)
        });
        format!("{} {} {step} {time}", self.round, self.callers)
    }

    fn parse(text: &str) -> Self {
        let numbers: Vec<u32> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let step = Step::ALL.get(numbers[2] as usize).copied();
        Self { round: numbers[0], callers: numbers[1], stop: step.map(|step| (step, numbers[3])) }
    }
}

/// Stops at a step.
#[derive(Debug)]
struct Stopping {
    inner: ZqliteBackend,
    plan: Plan,
    reached: AtomicU32,
}

impl Stopping {
    fn reach(&self, step: Step) {
        let Some((wanted, time)) = self.plan.stop else { return };
        if step == wanted && self.reached.fetch_add(1, Ordering::SeqCst) + 1 == time {
            tell("stopped");
            loop {
                std::thread::park();
            }
        }
    }
}

#[async_trait]
impl Layer for Stopping {
    fn inner(&self) -> &dyn Backend {
        &self.inner
    }

    async fn commit(&self, commit: &Commit) -> Result<()> {
        self.reach(Step::BeforeCommit);
        let outcome = self.inner.commit(commit).await;
        self.reach(Step::AfterCommit);
        outcome
    }

    async fn confirm(&self) -> Result<()> {
        self.reach(Step::BeforePin);
        let outcome = self.inner.confirm().await;
        self.reach(Step::AfterPin);
        outcome
    }
}

async fn open_store(backend: Arc<dyn Backend>) -> Arc<dyn Store> {
    // Everything is flushed and purged soon, so that commits which only flush are among those that land.
    let writer = WriterOptions {
        max_dirty_rows: 4,
        retain_block_bytes: 0,
        idle_before_flush: Duration::from_millis(1),
        ..WriterOptions::default()
    };
    open(backend, StoreOptions { writer, ..StoreOptions::default() }).await.unwrap()
}

/// Not a test: the child, which ends when it is killed.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let plan = Plan::parse(&std::env::var(PLAN).unwrap());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let inner = ZqliteBackend::open_blocking(options(&directory)).unwrap();
        let backend = Stopping { inner, plan, reached: AtomicU32::new(0) };
        let store = open_store(Arc::new(backend)).await;
        let work = |caller: u32| {
            let store = store.clone();
            async move {
                for number in 0.. {
                    let name = format!("u{}-{caller}-{number}", plan.round);
                    let user = NewUser::local(name.parse().unwrap());
                    store.users().create(user).await.unwrap();
                    tell(&format!("{} {name}", store.view().position()));
                }
            }
        };
        let callers: Vec<_> = (0..plan.callers).map(|caller| tokio::spawn(work(caller))).collect();
        for caller in callers {
            caller.await.unwrap();
        }
    });
}

/// Runs a child until it stops or has answered enough, and kills it. Gives the names that it answered, and
/// the last position that it showed.
fn kill(directory: &Path, plan: Plan) -> (Vec<String>, u64) {
    let (mut names, mut position) = (Vec::new(), 0);
    let enough = plan.round as usize * 7 % 40;
    let text = plan.to_text();
    run_and_kill(&[(DIRECTORY, directory.as_os_str()), (PLAN, text.as_ref())], |what| {
        if let Some((shown, name)) = what.split_once(' ') {
            position = position.max(shown.parse().unwrap());
            names.push(name.to_owned());
        }
        what == "stopped" || (plan.stop.is_none() && names.len() > enough)
    });
    (names, position)
}

type State = Vec<(&'static str, Option<Vec<u8>>)>;

fn state_of(directory: &Path) -> State {
    FILES.into_iter().map(|name| (name, fs::read(directory.join(name)).ok())).collect()
}

fn put_back(directory: &Path, state: &State) {
    for (name, content) in state {
        match content {
            Some(content) => fs::write(directory.join(name), content).unwrap(),
            None => drop(fs::remove_file(directory.join(name))),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_leaves_what_it_answered_and_no_false_alarm() {
    const FRESH_EVERY: u32 = 20;
    let kills = std::env::var(KILLS).map_or(40, |kills| kills.parse().unwrap());
    let mut round = 0;
    while round < kills {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        // Of plain and of sealed stores, in turn.
        if (round / FRESH_EVERY).is_multiple_of(2) {
            seal(directory);
        }
        let (mut answered, mut states) = (BTreeSet::new(), Vec::new());
        let mut verdicts = BTreeSet::new();
        for _ in 0..FRESH_EVERY.min(kills - round) {
            let plan = Plan::of(round);
            round += 1;
            let (names, position) = kill(directory, plan);
            answered.extend(names);
            let state = state_of(directory);
            let report = ZqliteBackend::compare_with_pin(options(directory)).await.unwrap();
            assert!(report.refusal.is_none(), "{plan:?}: {report:?}");
            verdicts.insert(report.verdict);
            states.push((report.store.commit, state));
            let backend = ZqliteBackend::open(options(directory)).await.unwrap();
            let store = open_store(Arc::new(backend)).await;
            assert!(store.view().position().get() >= position, "{plan:?}");
            let stored: BTreeSet<_> =
                store.view().users().iter().map(|user| user.name.to_string()).collect();
            let lost: Vec<_> = answered.difference(&stored).collect();
            assert!(lost.is_empty(), "{plan:?}: {lost:?}");
            store.close().await.unwrap();
        }
        if kills >= 8 {
            assert!(verdicts.contains("equal") && verdicts.contains("ahead"), "{verdicts:?}");
        }
        // So that every state before is older.
        let backend = ZqliteBackend::open(options(directory)).await.unwrap();
        let store = open_store(Arc::new(backend)).await;
        store.users().create(NewUser::local("last".parse().unwrap())).await.unwrap();
        store.close().await.unwrap();
        refuse_older(directory, &states).await;
    }
}

/// Puts each older state back.
async fn refuse_older(directory: &Path, states: &[(u64, State)]) {
    let newest = state_of(directory);
    for (commit, state) in states {
        put_back(directory, state);
        let report = ZqliteBackend::compare_with_pin(options(directory)).await.unwrap();
        assert_eq!(report.store.commit, *commit);
        let error = ZqliteBackend::open(options(directory)).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("rolled back"), "{error}");
    }
    put_back(directory, &newest);
    let backend = ZqliteBackend::open(options(directory)).await.unwrap();
    backend.close().await.unwrap();
}
