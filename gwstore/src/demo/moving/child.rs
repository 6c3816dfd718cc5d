//! The process that serves the network while it moves. It is asked on standard input and tells on standard output,
//! a line of JSON each; so whoever started it knows what was acknowledged, whatever becomes of it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ghostwire_store::domain::{
    Admission, Clock, MachineKey, ManualClock, NodeKey, RegisterMethod, Registration,
    SessionNumber, Update, UserId,
};
use ghostwire_store::entropy::{Entropy, SystemEntropy};
use ghostwire_store::migration::{Migrations, Status};
use ghostwire_store::{Error, ErrorKind, Result, Store};
use ghostwire_store_core::digest::Digests;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedRwLockWriteGuard, RwLock, mpsc};

use super::{broken, configuration};
use crate::demo::table::unwritable;
use crate::demo::{day, sample};
use crate::session::opener;

/// Who asks for each step.
const BY: &str = "demo";

/// Callers that write at once.
const CALLERS: usize = 8;

/// A caller does not come back at once.
const BETWEEN_CALLS: Duration = Duration::from_millis(40);

/// Names of machines that are registered while the network moves.
const PREFIX: &str = "move-";

/// After the day's beginning the store is opened again.
pub(super) const A_DAY: Duration = Duration::from_secs(86_400);

/// What the process is asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    Status,
    Start,
    Advance,
    Back,
    Finish,
    /// From now on nobody writes; then what is stored.
    Digests,
    /// Whoever waits writes again.
    Write,
    /// What [`names`] finds.
    Names,
    /// The store is closed, and the process ends.
    End,
}

/// What the process tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Told {
    /// The store is open, and callers write.
    Ready {
        nodes: usize,
        serial: u64,
    },
    /// A write of this name is durable: its caller waited so long, and it is in this commit or an earlier one.
    Acknowledged {
        name: String,
        serial: u64,
        micros: u64,
    },
    /// Where the migration stands, if one is under way, and the backend that is served.
    Stands {
        status: Option<Box<Status>>,
        backend: String,
    },
    /// It cannot be done now, but may be later.
    Refused {
        why: String,
    },
    Holds(Sums),
    Writing,
    Names(Vec<String>),
    Failed {
        why: String,
    },
    Ended,
}

impl Told {
    fn failed(error: &Error) -> Self {
        Self::Failed { why: error.to_string() }
    }
}

/// Digests, as they are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) state: String,
    pub(super) metrics: String,
    pub(super) audit: String,
}

impl From<Digests> for Sums {
    fn from(digests: Digests) -> Self {
        let Digests { state, metrics, audit } = digests;
        Self { state: state.to_string(), metrics: metrics.to_string(), audit: audit.to_string() }
    }
}

/// Serves the network in this directory until it is asked to end, or nobody asks any more.
///
/// # Errors
/// `Unavailable` if nobody can be told.
pub(in crate::demo) async fn serve(
    directory: &Path,
    seed: u64,
    scale: usize,
    out: &mut dyn io::Write,
) -> Result<()> {
    match live(directory, seed, scale, out).await {
        Ok(()) => Ok(()),
        // Whoever asks says so to people.
        Err(error) => tell(out, &Told::failed(&error)),
    }
}

async fn live(directory: &Path, seed: u64, scale: usize, out: &mut dyn io::Write) -> Result<()> {
    let (store, migrations) = open(directory, seed, scale).await?;
    let owner = store.view().users().iter().next().map(|user| user.id);
    let owner = owner.ok_or_else(|| broken("the network that is to move has no user"))?;
    let (nodes, serial) = (store.view().nodes().len(), store.view().serial().get());
    tell(out, &Told::Ready { nodes, serial })?;
    let (lines, mut told) = mpsc::unbounded_channel();
    let serving = Arc::new(Serving {
        store,
        migrations,
        turns: Arc::default(),
        held: Mutex::default(),
        lines,
    });
    for number in 0..CALLERS {
        let caller = serving.clone();
        // Another process that opens the store does so at a later serial.
        let prefix = format!("{PREFIX}{serial}-{number}");
        tokio::spawn(async move {
            if let Err(error) = caller.call(&prefix, owner).await {
                caller.tell(Told::failed(&error));
            }
        });
    }
    let mut asked = listen()?;
    loop {
        tokio::select! {
            line = told.recv() => {
                let Some(line) = line else { return Ok(()) };
                tell(out, &line)?;
                if matches!(line, Told::Ended) {
                    return Ok(());
                }
            }
            ask = asked.recv() => {
                // Whoever asked is gone.
                let Some(ask) = ask else { return Ok(()) };
                let serving = serving.clone();
                // What callers are told does not wait for it.
                tokio::spawn(async move {
                    let answer = serving.answer(ask).await;
                    serving.tell(answer.unwrap_or_else(|error| Told::failed(&error)));
                });
            }
        }
    }
}

/// Opens the network, on whichever side it is; the first time it lives through a day before.
async fn open(directory: &Path, seed: u64, scale: usize) -> Result<(Arc<dyn Store>, Migrations)> {
    let config = configuration(directory)?;
    let clock = ManualClock::new(sample::END.parse()?);
    let shown: Arc<dyn Clock> = Arc::new(clock.clone());
    let is_new = config.backend.path().is_some_and(|path| !path.exists());
    if is_new {
        // No store is made any more once a target is named.
        let mut alone = config.clone();
        alone.migration.target = None;
        opener(&alone).clock(shown.clone()).open().await?.close().await?;
    } else {
        clock.advance(A_DAY);
    }
    let (store, migrations) = opener(&config).clock(shown).open_movable().await?;
    if is_new {
        day::run(store.as_ref(), &clock, seed, scale).await?;
    }
    Ok((store, migrations))
}

fn tell(out: &mut dyn io::Write, told: &Told) -> Result<()> {
    let line = serde_json::to_string(told).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "what is told has no JSON form").because(error)
    })?;
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(unwritable)
}

/// What is asked on standard input. It ends with that, and with a line that is no question.
fn listen() -> Result<mpsc::UnboundedReceiver<Ask>> {
    let (sends, asked) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name("gwstore-demo-asked".to_owned());
    let started = thread.spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { return };
            let Ok(ask) = serde_json::from_str(&line) else { return };
            if sends.send(ask).is_err() {
                return;
            }
        }
    });
    started.map_err(|error| {
        Error::new(
            ErrorKind::Unavailable,
            "there is no thread to read standard input; raise the limit of threads",
        )
        .because(error)
    })?;
    Ok(asked)
}

struct Serving {
    store: Arc<dyn Store>,
    migrations: Migrations,
    /// Callers share it while they write.
    turns: Arc<RwLock<()>>,
    /// While it is held nobody writes.
    held: Mutex<Option<OwnedRwLockWriteGuard<()>>>,
    lines: mpsc::UnboundedSender<Told>,
}

impl Serving {
    fn tell(&self, told: Told) {
        // Nobody reads what is told to a process that is ending.
        let _ = self.lines.send(told);
    }

    /// Registers machines that connect at once, for ever. No write may be refused.
    async fn call(&self, prefix: &str, owner: UserId) -> Result<()> {
        for number in 0_u64.. {
            let name = format!("{prefix}-{number}");
            let turn = self.turns.read().await;
            let admission = Admission::User { user: owner, method: RegisterMethod::Cli };
            let (machine, key) = (MachineKey::from_bytes(draw()?)?, NodeKey::from_bytes(draw()?)?);
            let machine = Registration::new(machine, key, name.parse()?, admission);
            let begun = Instant::now();
            let node = self.store.nodes().register(machine).await?;
            self.acknowledge(name.clone(), begun);
            let begun = Instant::now();
            let session = SessionNumber::new(1)?;
            self.store.presence().connect(node.id, session, Update::Keep).await?;
            self.acknowledge(connected(&name), begun);
            drop(turn);
            tokio::time::sleep(BETWEEN_CALLS).await;
        }
        Ok(())
    }

    fn acknowledge(&self, name: String, begun: Instant) {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let serial = self.store.view().serial().get();
        self.tell(Told::Acknowledged { name, serial, micros });
    }

    async fn answer(&self, ask: Ask) -> Result<Told> {
        match ask {
            Ask::Status => match self.migrations.status().await {
                Ok(status) => Ok(self.stands(Some(status))),
                Err(error) if *error.kind() == ErrorKind::NotFound => Ok(self.stands(None)),
                Err(error) => Err(error),
            },
            Ask::Start => self.stepped(self.migrations.start(BY).await.map(Some)),
            Ask::Advance => self.stepped(self.migrations.advance(BY).await.map(Some)),
            Ask::Back => self.stepped(self.migrations.back(BY).await.map(Some)),
            Ask::Finish => self.stepped(self.migrations.finish(BY).await.map(|()| None)),
            Ask::Digests => {
                self.hold().await;
                Ok(Told::Holds(self.store.digests().await?.into()))
            }
            Ask::Write => {
                *self.held.lock().await = None;
                Ok(Told::Writing)
            }
            Ask::Names => Ok(Told::Names(names(self.store.as_ref()))),
            Ask::End => {
                self.hold().await;
                self.store.close().await?;
                Ok(Told::Ended)
            }
        }
    }

    async fn hold(&self) {
        let mut held = self.held.lock().await;
        if held.is_none() {
            *held = Some(self.turns.clone().write_owned().await);
        }
    }

    fn stepped(&self, outcome: Result<Option<Status>>) -> Result<Told> {
        match outcome {
            Ok(status) => Ok(self.stands(status)),
            Err(error) if *error.kind() == ErrorKind::Busy => {
                Ok(Told::Refused { why: error.to_string() })
            }
            Err(error) => Err(error),
        }
    }

    fn stands(&self, status: Option<Status>) -> Told {
        let backend = self.store.info().backend.name.to_owned();
        Told::Stands { status: status.map(Box::new), backend }
    }
}

fn draw() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes)?;
    Ok(bytes)
}

/// The write by which a machine connected.
fn connected(name: &str) -> String {
    format!("{name} connected")
}

/// What is there of the writes that were made while the network moved, by the names they are acknowledged under.
pub(super) fn names(store: &dyn Store) -> Vec<String> {
    let view = store.view();
    let mut names = Vec::new();
    for node in view.nodes().iter() {
        let name = node.hostname.as_str();
        if !name.starts_with(PREFIX) {
            continue;
        }
        names.push(name.to_owned());
        // 0 is that of a machine which never connected.
        if view.presence().get(node.id).is_some_and(|presence| presence.session.get() > 0) {
            names.push(connected(name));
        }
    }
    names
}
