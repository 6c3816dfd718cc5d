//! Moves the network of an open store: copies it to the other database, keeps that close behind, and hands
//! over when it is told to, on a thread beside the writer.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::copy::CopyProgress;
use super::mirror::Mirror;
use super::mover::{MoveOptions, Mover, Next, Standing, Taken};
use super::plan::check_start;
use super::record::{Part, Role};
use super::refusal::Refusal;
use super::seat::{Occupant, Seat};
use super::side::Side;
use super::step::{Event, Pair, Service, Which};
use crate::backend::{Backend, Head};
use crate::domain::{MigrationId, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::StoreHandle;
use crate::position::{Epoch, Position};
use crate::store::{Store, WeakStore};
use crate::threads::{self, Waits};
use crate::writer::{Moving, Request};

/// How far a migration is, in words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The source is served, and no migration is under way.
    SourceOnly,
    /// The target is becoming a copy.
    Filling,
    /// The target follows the source, which is served.
    Mirror,
    /// The target is served, and the source follows.
    TargetReads,
    /// The target is served alone: there is no way back.
    TargetOnly,
    /// A step was interrupted, and is ended as soon as both sides answer.
    Between,
}

impl Stage {
    /// What two records say. The first side is the source, unless one says otherwise.
    fn of(pair: &Pair) -> Self {
        let records = [pair.first, pair.second].map(|seen| seen.map(|seen| seen.record));
        let active = records.iter().flatten().find(|record| record.role.is_active());
        let follower = records.iter().flatten().find(|record| !record.role.is_active());
        let Some(active) = active else { return Self::Between };
        let is_source = active.membership.is_none_or(|membership| membership.part == Part::Source);
        match (active.role, follower.map(|record| record.role)) {
            (Role::ActiveAlone, Some(Role::Retired)) => Self::TargetOnly,
            (Role::ActiveAlone, _) if is_source => Self::SourceOnly,
            (Role::ActiveAlone, _) => Self::TargetOnly,
            (_, Some(Role::Filling | Role::None)) => Self::Filling,
            (_, Some(Role::PassiveAsync | Role::PassiveSync)) if is_source => Self::Mirror,
            (_, Some(Role::PassiveAsync | Role::PassiveSync)) => Self::TargetReads,
            _ => Self::Between,
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceOnly => "source-only",
            Self::Filling => "filling",
            Self::Mirror => "mirror",
            Self::TargetReads => "target-reads",
            Self::TargetOnly => "target-only",
            Self::Between => "between",
        }
    }
}

/// One of the two databases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SideStatus {
    /// Which.
    pub side: String,
    /// Its backend.
    pub backend: String,
    /// Where it is.
    pub location: Option<String>,
    /// What it says of itself.
    pub role: String,
    /// In which epoch.
    pub epoch: Epoch,
    /// How many commits it has.
    pub position: Position,
}

/// How far the copy is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Rows that were copied.
    pub rows: u64,
    /// Rows that there were when it began; 0 while they are counted.
    pub total: u64,
    /// Rows a second since this process took it up.
    pub per_second: u64,
    /// How long the rest takes at that rate.
    pub seconds_left: Option<u64>,
}

/// What is being done, and for whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// What.
    pub what: String,
    /// Who asked for it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// Where a migration stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The stage.
    pub stage: Stage,
    /// Which migration; none before it began and after it ended.
    pub migration: Option<String>,
    /// Where the network was.
    pub source: SideStatus,
    /// Where it is to be.
    pub target: SideStatus,
    /// Which of the two is served.
    pub served: String,
    /// Commits that the other one lacks, as far as that is known.
    pub lag: u64,
    /// Whether an answer means that both have it.
    pub in_step: bool,
    /// How far the copy is, while it is made.
    pub copy: Option<CopyStatus>,
    /// What is being done at the moment.
    pub running: Option<Running>,
    /// How long nobody was served at the last hand-over, in milliseconds.
    pub last_stall_ms: Option<u64>,
    /// Why the copy has fallen behind, or is not made, at the moment.
    pub last_error: Option<String>,
    /// How often one side went on by itself, since the other one was lost.
    pub fallbacks: u64,
    /// Which one was lost then, and why, the last time.
    pub last_fallback: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    HandOver { to: Part },
    Abort,
    Complete,
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::HandOver { to: Part::Target } => "advance",
            Self::HandOver { to: Part::Source } => "back",
            Self::Abort => "abort",
            Self::Complete => "finish",
        }
    }
}

type Asked = (Order, oneshot::Sender<Result<()>>);

/// The migration of an open store: what [`Mover`] does, beside the writer.
#[derive(Debug)]
pub struct Migration {
    store: WeakStore,
    seat: Arc<Seat>,
    orders: mpsc::Sender<Asked>,
    /// How it began, once that is known.
    begun: watch::Receiver<Option<Result<()>>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    copy: CopyProgress,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    running: Option<Running>,
    /// When this process took up the copy, and how many rows there were.
    filling: Option<(Instant, u64)>,
    last_stall: Option<Duration>,
    last_error: Option<Error>,
    /// Both sides, when both answered.
    heads: [Option<Head>; 2],
    /// There is no migration any more.
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Migration {
    /// Begins to move an open store to an empty database, which nobody else has open.
    ///
    /// # Errors
    /// `Unsupported` for a store that was not opened on a seat; `Busy` if a migration is under way; what
    /// [`check_start`](super::check_start) refuses; those of any write. The other database is the caller's then.
    pub async fn begin(
        store: &dyn Store,
        other: Occupant,
        migration: MigrationId,
        options: MoveOptions,
    ) -> Result<Arc<Self>> {
        let begun = Self::launch(store, other, migration, options).await?;
        begun.has_begun().await?;
        Ok(begun)
    }

    /// The same, and does not wait for the first write: from here on it begins, whoever waits for it.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), but for those of any write, which [`has_begun`](Self::has_begun) gives.
    pub async fn launch(
        store: &dyn Store,
        other: Occupant,
        migration: MigrationId,
        options: MoveOptions,
    ) -> Result<Arc<Self>> {
        let seat = seat_of(store)?;
        let (source, target) = (seat.sitting(), other.backend.clone());
        let heads = (source.backend.head().await?, target.head().await?);
        check_start(&heads.0, &source.backend.info(), &heads.1, &target.info())?;
        let standing = BesideFor::put(&seat, other)?;
        let begun = Self::drive(store, options, Some(migration)).await?;
        standing.stays();
        Ok(begun)
    }

    /// Waits until the first record of a migration that was [launched](Self::launch) is written.
    ///
    /// # Errors
    /// Why it was not; the migration has ended then, and the other database is the caller's.
    pub async fn has_begun(&self) -> Result<()> {
        let mut begun = self.begun.clone();
        let outcome = begun.wait_for(Option::is_some).await;
        let outcome = outcome.map(|outcome| outcome.clone());
        outcome.ok().flatten().unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Unavailable,
                "the store was closed before its migration began",
            ))
        })
    }

    /// Goes on with the migration of a store that was opened on the side which is served, with the other one
    /// beside it.
    ///
    /// # Errors
    /// `Unsupported` for a store that was not opened on a seat; `Unavailable` if the system gives no thread.
    pub async fn attach(store: &dyn Store, options: MoveOptions) -> Result<Arc<Self>> {
        Self::drive(store, options, None).await
    }

    async fn drive(
        store: &dyn Store,
        options: MoveOptions,
        begins: Option<MigrationId>,
    ) -> Result<Arc<Self>> {
        let seat = seat_of(store)?;
        let (orders, asked) = mpsc::channel(1);
        let (tells, begun) = watch::channel(begins.is_none().then_some(Ok(())));
        let shared = Arc::new(Shared::default());
        let store = store.downgrade();
        let migration = Self {
            store: store.clone(),
            seat: seat.clone(),
            orders,
            begun,
            shared: shared.clone(),
        };
        let driver = Driver {
            store,
            seat,
            options,
            shared,
            is_doubtful: Cell::new(false),
            taken: Taken::default(),
            let_go_to: Cell::new(Position::ZERO),
        };
        threads::start("ghostwire-store-migrate", Waits::Timers, move |runtime| {
            runtime.block_on(async {
                if let Some(migration) = begins {
                    let outcome = driver.begin(migration).await;
                    let is_over = outcome.is_err();
                    tells.send_replace(Some(outcome));
                    if is_over {
                        return;
                    }
                }
                driver.run(asked).await;
            });
        })
        .await?;
        Ok(Arc::new(migration))
    }

    /// Whether it has ended, so that another one may begin.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.lock().ended
    }

    /// Where it stands.
    ///
    /// # Errors
    /// `Unavailable` if the database that is served does not answer.
    pub async fn status(&self) -> Result<Status> {
        let (sitting, beside) = (self.seat.sitting(), self.seat.beside());
        let Some(beside) = beside else {
            return Err(Error::new(ErrorKind::NotFound, "no migration of this store is under way"));
        };
        let served = sitting.backend.head().await?;
        let (other, error) = self.other_head(&served, beside.backend.head().await);
        let pair = Pair {
            first: Some(super::Seen::of(&served)),
            second: other.as_ref().map(super::Seen::of),
        };
        let stage = Stage::of(&pair);
        let lag = other.map_or(served.position, |other| other.position);
        let lag = served.position.get().abs_diff(lag.get());
        let part = |head: &Head| head.membership.map(|membership| membership.part);
        let served_is_target = part(&served) == Some(Part::Target)
            || other.as_ref().and_then(part) == Some(Part::Source);
        let other = match &other {
            Some(other) => side_status(&beside, other),
            None => unknown_side(&beside, &served),
        };
        let migration = served.membership.map(|it| it.migration.to_string());
        let served = side_status(&sitting, &served);
        let [source, target] = match served_is_target {
            true => [other, served],
            false => [served, other],
        };
        let (fallbacks, last_fallback) = self.seat.fallbacks();
        let told = self.shared.lock();
        let copy = (stage == Stage::Filling).then(|| self.copy_status(&told));
        Ok(Status {
            stage,
            migration,
            source,
            target,
            served: if served_is_target { Part::Target } else { Part::Source }.name().to_owned(),
            lag,
            in_step: self.seat.is_settled()
                && self.seat.mirror().is_some_and(|mirror| !mirror.is_troubled()),
            copy,
            running: told.running.clone(),
            last_stall_ms: told
                .last_stall
                .map(|stall| u64::try_from(stall.as_millis()).unwrap_or(u64::MAX)),
            last_error: error.or(told.last_error.clone()).map(|error| error.to_string()),
            fallbacks,
            last_fallback: last_fallback.map(|it| it.to_string()),
        })
    }

    /// The head of the other side or, while that does not answer, what it was when it did.
    fn other_head(&self, served: &Head, other: Result<Head>) -> (Option<Head>, Option<Error>) {
        let mut told = self.shared.lock();
        match other {
            Ok(other) => {
                told.heads = [Some(*served), Some(other)];
                (Some(other), None)
            }
            Err(error) => {
                let mut known = told.heads.iter().flatten();
                (known.find(|head| head.side != served.side).copied(), Some(error))
            }
        }
    }

    fn copy_status(&self, told: &Told) -> CopyStatus {
        let (rows, total) = (self.shared.copy.copied(), self.shared.copy.total());
        let since = told.filling.map(|(at, before)| (at.elapsed(), rows.saturating_sub(before)));
        let per_second = since.map_or(0, |(took, done)| {
            let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
            done.saturating_mul(1000) / millis
        });
        let left = total.saturating_sub(rows);
        let seconds_left = (total > 0).then(|| left.checked_div(per_second)).flatten();
        CopyStatus { rows, total, per_second, seconds_left }
    }

    /// Serves from the target: from then on the source follows.
    ///
    /// # Errors
    /// `Busy` if somebody else is changing the migration, or if it took longer than
    /// [`max_stall`](MoveOptions::max_stall) and was taken back; `Restricted` while the copy is not complete;
    /// those of any write.
    pub async fn advance(&self, by: &str) -> Result<Status> {
        self.order(Order::HandOver { to: Part::Target }, by).await?;
        self.status().await
    }

    /// Serves from the source again.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    pub async fn back(&self, by: &str) -> Result<Status> {
        self.order(Order::HandOver { to: Part::Source }, by).await?;
        self.status().await
    }

    /// Aborts it: the target cannot be opened as a store then.
    ///
    /// # Errors
    /// `Restricted` once the target is served; as [`advance`](Self::advance).
    pub async fn abort(&self, by: &str) -> Result<()> {
        self.order(Order::Abort, by).await
    }

    /// Leaves the source for good.
    ///
    /// # Errors
    /// `Restricted` while the source is served; as [`advance`](Self::advance).
    pub async fn finish(&self, by: &str) -> Result<()> {
        self.order(Order::Complete, by).await
    }

    async fn order(&self, order: Order, by: &str) -> Result<()> {
        let _running = self.run_alone(order.name(), by)?;
        let (answer, answered) = oneshot::channel();
        let gone = || {
            Error::new(ErrorKind::Unavailable, "the migration has ended, or its store was closed")
        };
        self.orders.send((order, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// One at a time.
    fn run_alone(&self, what: &str, by: &str) -> Result<RunsAlone> {
        let core = self.store.core().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the store that is being migrated was closed")
        })?;
        let mut told = self.shared.lock();
        if let Some(running) = &told.running {
            return Err(Error::new(ErrorKind::Busy, "somebody else is changing the migration")
                .with("what", &running.what)
                .with("by", &running.by)
                .with("since", running.since));
        }
        let since = StoreHandle::of(core).wall_clock();
        told.running = Some(Running { what: what.to_owned(), by: by.to_owned(), since });
        Ok(RunsAlone(self.shared.clone()))
    }
}

/// Dropped, somebody else may do something.
struct RunsAlone(Arc<Shared>);

impl Drop for RunsAlone {
    fn drop(&mut self) {
        self.0.lock().running = None;
    }
}

/// The other side stands beside the store; dropped, it does not any more.
struct BesideFor<'s>(Option<&'s Seat>);

impl<'s> BesideFor<'s> {
    fn put(seat: &'s Seat, other: Occupant) -> Result<Self> {
        match seat.put_if_free(other) {
            true => Ok(Self(Some(seat))),
            false => Err(Error::new(ErrorKind::Busy, "a migration of this store is under way")),
        }
    }

    fn stays(mut self) {
        self.0 = None;
    }
}

impl Drop for BesideFor<'_> {
    fn drop(&mut self) {
        if let Some(seat) = self.0 {
            seat.put_beside(None);
        }
    }
}

fn seat_of(store: &dyn Store) -> Result<Arc<Seat>> {
    let core = store.downgrade().core();
    core.and_then(|core| core.options.seat.clone()).ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            "this store was not opened so that it can move; open it with `Opener`, or on a `Seat`",
        )
    })
}

fn side_status(side: &Occupant, head: &Head) -> SideStatus {
    let (info, record) = (side.backend.info(), head.record());
    SideStatus {
        side: head.side.to_string(),
        backend: info.name.to_owned(),
        location: info.location,
        role: record.role.name().to_owned(),
        epoch: record.epoch,
        position: head.position,
    }
}

/// The other side of `served` where nobody has seen it yet.
fn unknown_side(side: &Occupant, served: &Head) -> SideStatus {
    let info = side.backend.info();
    SideStatus {
        side: served.membership.map_or_else(String::new, |it| it.peer.to_string()),
        backend: info.name.to_owned(),
        location: info.location,
        role: "unknown".to_owned(),
        epoch: served.epoch,
        position: Position::ZERO,
    }
}

/// Whether the second side was told to go on without the first one.
fn supersedes(pair: &Pair) -> bool {
    let (Some(first), Some(second)) = (pair.first, pair.second) else { return false };
    let names = second.record.membership.is_some_and(|it| it.peer == first.side);
    names && second.record.role.is_active() && second.record.epoch > first.record.epoch
}

fn superseded() -> Error {
    Error::new(
        ErrorKind::Restricted,
        "the other database was superseded while it was away; set its files aside, and begin a migration to \
         an empty one",
    )
}

/// What does it, on a thread of its own.
struct Driver {
    store: WeakStore,
    seat: Arc<Seat>,
    options: MoveOptions,
    shared: Arc<Shared>,
    /// Something failed, so the other side is opened anew before it is asked again.
    is_doubtful: Cell<bool>,
    taken: Taken,
    /// While both are in step, up to where this has looked for what need not be kept.
    let_go_to: Cell<Position>,
}

impl Driver {
    /// Writes the first records. Interrupted after the source's it is under way, and is resumed; where
    /// that cannot be told it is found out later.
    async fn begin(&self, migration: MigrationId) -> Result<()> {
        let started = match self.mover() {
            Ok(mover) => mover.start(migration).await,
            Err(error) => Err(error),
        };
        let Err(error) = started else { return Ok(()) };
        let source = self.seat.sitting().backend.clone();
        if source.head().await.is_ok_and(|head| head.membership.is_none()) {
            self.leave();
            return Err(error);
        }
        self.doubt(&error);
        self.tell(Some(error));
        Ok(())
    }

    /// Until the migration ends, or the store does.
    async fn run(self, mut asked: mpsc::Receiver<Asked>) {
        const AFTER_FAILURE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
        const LOOKS_AGAIN: Duration = Duration::from_millis(20);
        let mut backoff = AFTER_FAILURE[0];
        let (mut pause, mut is_deaf) = (Duration::ZERO, false);
        loop {
            if !self.is_open() || self.shared.lock().ended {
                return;
            }
            let order = tokio::select! {
                biased;
                order = asked.recv(), if !is_deaf => order,
                worked = async { tokio::time::sleep(pause).await; self.work().await } => {
                    pause = match worked {
                        Ok(0) => LOOKS_AGAIN,
                        Ok(_) => Duration::ZERO,
                        Err(_) if !self.is_open() => return,
                        Err(error) => {
                            self.tell(Some(error));
                            backoff = (backoff * 2).min(AFTER_FAILURE[1]);
                            backoff
                        }
                    };
                    if pause <= LOOKS_AGAIN {
                        backoff = AFTER_FAILURE[0];
                        self.tell(None);
                    }
                    continue;
                }
            };
            // Nobody is left to ask for anything; the copy is sent what it lacks all the same.
            let Some((order, answer)) = order else {
                is_deaf = true;
                continue;
            };
            let done = match self.end_doubt().await {
                Ok(()) => self.carry_out(order).await,
                // A migration is aborted without the target, too.
                Err(_) if order == Order::Abort => self.carry_out(order).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &done {
                self.doubt(error);
            }
            let has_ended = done.is_ok() && matches!(order, Order::Abort | Order::Complete);
            if has_ended {
                self.end().await;
            }
            let _ = answer.send(done);
            if has_ended {
                return;
            }
            pause = Duration::ZERO;
        }
    }

    fn is_open(&self) -> bool {
        self.store.core().is_some_and(|core| !core.shared.closing.has_begun())
    }

    /// Says once why the copy has fallen behind, and once that it is sent what it lacks again.
    fn tell(&self, error: Option<Error>) {
        let mut told = self.shared.lock();
        match (&told.last_error, &error) {
            (None, Some(error)) => {
                tracing::warn!(%error, "the copy has fallen behind; trying again");
            }
            (Some(_), None) => {
                tracing::info!("the copy is sent what it lacks again")
            }
            _ => {}
        }
        told.last_error = error;
    }

    fn mover(&self) -> Result<Mover> {
        let (Some(core), Some(other)) = (self.store.core(), self.seat.beside()) else {
            return Err(Error::new(ErrorKind::Unavailable, "the store was closed"));
        };
        let store = StoreHandle::of(core);
        let mover = Mover::new(Side::open(&store), Side::closed(other.backend), self.options);
        Ok(mover.going_on(self.taken.clone()))
    }

    /// Does what is left to do, or some of it. Tells how many commits were sent.
    async fn work(&self) -> Result<u64> {
        if self.seat.is_settled()
            && let Some(mirror) = self.seat.mirror()
        {
            return self.keep_in_step(&mirror).await;
        }
        self.end_doubt().await?;
        let worked = self.work_by(&self.mover()?).await;
        if let Err(error) = &worked {
            self.doubt(error);
        }
        worked
    }

    /// The writer sends both what there is. What fails there is tried again, also while nobody writes.
    async fn keep_in_step(&self, mirror: &Mirror) -> Result<u64> {
        if mirror.is_troubled() {
            return self.settle().await;
        }
        let position = self.seat.head().await?.position;
        let is_new = self.let_go_to.replace(position) != position;
        self.mover()?.let_go_in_step(position, is_new).await.map(|()| 0)
    }

    async fn tighten(&self) -> Result<u64> {
        match self.ask_writer(Moving::Tighten(self.options)).await {
            Ok(_) => Ok(1),
            // More is written than goes to the other side in that time: later.
            Err(error) if *error.kind() == ErrorKind::Busy => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// One side went on without the other one, which is there again: what that has is set aside, and it
    /// becomes a copy from the beginning.
    async fn refill(&self, epoch: Epoch) -> Result<u64> {
        let renewal = self.seat.renewal().zip(self.seat.beside());
        let Some((renewal, other)) = renewal else { return Err(superseded()) };
        let fresh = renewal.renew(&other, epoch).await?;
        self.seat.put_beside(Some(fresh));
        self.mover()?.take(Event::Refill).await.map(|_| 1)
    }

    async fn end_doubt(&self) -> Result<()> {
        if self.is_doubtful.get()
            && let Some(other) = self.seat.beside()
        {
            other.backend.reopen().await?;
            self.is_doubtful.set(false);
        }
        Ok(())
    }

    /// A backend may want to be opened anew after any error of its disk, whatever became of the disk.
    fn doubt(&self, error: &Error) {
        use ErrorKind::{Exhausted, OutcomeUnknown, Unavailable};
        if matches!(error.kind(), Unavailable | OutcomeUnknown | Exhausted) {
            self.is_doubtful.set(true);
        }
    }

    async fn work_by(&self, mover: &Mover) -> Result<u64> {
        if !self.seat.is_settled() {
            return self.settle().await;
        }
        let Standing { pair, next } = mover.standing().await?;
        if pair.first.is_some_and(|seen| seen.record.membership.is_none())
            && next == Next::Served(Service::Alone { authority: Which::First })
        {
            // Aborted or not begun, and both know it.
            self.end().await;
            return Ok(0);
        }
        let serves_alone = pair.first.is_some_and(|seen| seen.record.role.serves_alone());
        if let (Some(first), Some(second)) = (pair.first, pair.second)
            && first.record.role == Role::ActiveAlone
            && first.record.membership.is_some()
        {
            match second.record.role {
                Role::None if second.is_blank() => {
                    return mover.take(Event::Refill).await.map(|_| 1);
                }
                Role::None | Role::Filling => {}
                _ if second.record.epoch < first.record.epoch => {
                    return self.refill(second.record.epoch).await;
                }
                _ => {}
            }
        }
        match next {
            Next::Served(Service::Alone { authority: Which::First }) => {
                let sent = mover.ship_some(Which::First).await?;
                let follows =
                    pair.second.is_some_and(|seen| seen.record.role == Role::PassiveAsync);
                match self.options.synchronous && sent.is_all && follows {
                    true => self.tighten().await,
                    false => Ok(sent.commits),
                }
            }
            Next::Fill => {
                let rows = self.shared.copy.copied();
                self.shared.lock().filling.get_or_insert((Instant::now(), rows));
                mover.fill_counting(&self.shared.copy).await.map(|_| 1)
            }
            // The other one is the network by now: the writer looks, and writes nothing any more.
            Next::Refused(_) if supersedes(&pair) => self.settle().await,
            Next::Refused(refusal) => Err(refusal.error()),
            // Nobody has to wait for what is left to do at the other side.
            Next::Resume if serves_alone => mover.resume().await.map(|_| 1),
            // Whoever writes has to wait for that, so it is the writer's.
            Next::Resume | Next::Served(_) => self.settle().await,
        }
    }

    async fn settle(&self) -> Result<u64> {
        self.ask_writer(Moving::Settle(self.options)).await.map(|_| 1)
    }

    async fn ask_writer(&self, moving: Moving) -> Result<Duration> {
        let Some(core) = self.store.core() else {
            return Err(Error::new(ErrorKind::Unavailable, "the store was closed"));
        };
        StoreHandle::of(core).send(0, |answer| Request::Move(moving, answer)).await
    }

    async fn carry_out(&self, order: Order) -> Result<()> {
        if !self.seat.is_settled() {
            // What was begun is ended by the writer, and not by what comes next.
            self.settle().await?;
        }
        if let Some(mirror) = self.seat.mirror() {
            if mirror.is_troubled() {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "one of the two databases does not answer; that is settled first",
                ));
            }
            // Every step begins with one side served and the other one following later. Afterwards both are
            // brought in step again.
            self.ask_writer(Moving::Loosen(self.options)).await?;
        }
        let mover = self.mover()?;
        if order == Order::Abort {
            return self.abort(&mover).await;
        }
        let pair = mover.look().await?;
        let (Some(first), Some(second)) = (pair.first, pair.second) else {
            return Err(Refusal::NobodyThere.error());
        };
        let is_target =
            first.record.membership.is_some_and(|membership| membership.part == Part::Target);
        tracing::info!(name: "migration_ordered", order = order.name(), "a step of the migration was asked for");
        match order {
            Order::HandOver { to } if (to == Part::Target) == is_target => {
                Err(Refusal::NotNow(first, second).error())
            }
            Order::HandOver { .. } => {
                let (before, began) = (first.place.position, Instant::now());
                let prepared = mover.prepare().await;
                let handed = match prepared {
                    Ok(()) => self.ask_writer(Moving::HandOver(self.options)).await,
                    Err(error) => Err(error),
                };
                let stall = match handed {
                    Ok(stall) => stall,
                    Err(error) if *error.kind() == ErrorKind::Busy => {
                        let after =
                            mover.look().await?.first.map_or(before, |it| it.place.position);
                        let commits = after.get().saturating_sub(before.get());
                        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                        let rate = commits.saturating_mul(1000) / millis.max(1);
                        return Err(error.with("commits_per_second", rate));
                    }
                    Err(error) => return Err(error),
                };
                self.shared.lock().last_stall = Some(stall);
                tracing::info!(
                    name: "migration_handed_over",
                    stall_us = u64::try_from(stall.as_micros()).unwrap_or(u64::MAX),
                    "the network was handed over"
                );
                Ok(())
            }
            Order::Abort => self.abort(&mover).await,
            Order::Complete if !is_target => Err(Refusal::NotNow(first, second).error()),
            Order::Complete => {
                mover.prepare().await?;
                self.ask_writer(Moving::Complete(self.options)).await.map(drop)
            }
        }
    }

    /// Once the source's record says that the migration is aborted, it is, whether or not the target could be
    /// told. Opened beside the source it learns of it.
    async fn abort(&self, mover: &Mover) -> Result<()> {
        let aborted = match mover.look().await {
            Ok(_) => mover.take(Event::Abort).await.map(drop),
            // Without its source it is nothing by itself.
            Err(_) => mover.abort_alone().await,
        };
        if self.seat.sitting().backend.head().await?.membership.is_some() {
            let moved_on =
                || Error::new(ErrorKind::Conflict, "somebody else changes the migration");
            return Err(aborted.err().unwrap_or_else(moved_on));
        }
        if let Err(error) = aborted {
            tracing::warn!(%error, "the migration was aborted, and the target could not be told");
        }
        Ok(())
    }

    /// The other side is let go of.
    async fn end(&self) {
        if let Some(other) = self.leave()
            && let Err(error) = other.backend.close().await
        {
            tracing::warn!(%error, "the other side of the migration is not closed in order");
        }
    }

    fn leave(&self) -> Option<Occupant> {
        {
            let mut told = self.shared.lock();
            (told.ended, told.filling) = (true, None);
        }
        self.seat.put_beside(None)
    }
}
