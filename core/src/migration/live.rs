//! The migration of an open store, as its owner sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::copy::CopyProgress;
use super::driver::{Driver, require_no_other_writers};
use super::mover::MoveOptions;
use super::plan::check_start;
use super::record::Part;
use super::seat::{Occupant, Seat};
use super::status::{CopyStatus, Running, SideStatus, Stage, Status};
use super::step::{Pair, Seen};
use crate::backend::Backend;
use crate::domain::MigrationId;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::StoreHandle;
use crate::store::{Store, WeakStore};
use crate::threads::{self, Waits};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    HandOver { to: Part },
    Abort,
    Complete,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HandOver { to: Part::Target } => "advance",
            Self::HandOver { to: Part::Source } => "back",
            Self::Abort => "abort",
            Self::Complete => "finish",
        }
    }
}

pub(super) type Asked = (Order, oneshot::Sender<Result<()>>);

/// The migration of an open store: what [`Mover`](super::Mover) does, beside the writer.
#[derive(Debug)]
pub struct Migration {
    store: WeakStore,
    seat: Arc<Seat>,
    orders: mpsc::Sender<Asked>,
    /// How it began, once that is known.
    begun: watch::Receiver<Option<Result<()>>>,
    shared: Arc<Shared>,
}

/// What the migration and its driver tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) copy: CopyProgress,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    running: Option<Running>,
    /// When this process took up the copy, and how many rows there were.
    pub(super) filling: Option<(Instant, u64)>,
    pub(super) last_stall: Option<Duration>,
    pub(super) last_error: Option<Error>,
    /// What each database was when it last answered.
    known: Vec<(Weak<dyn Backend>, Seen)>,
    /// There is no migration any more.
    pub(super) ended: bool,
}

impl Told {
    pub(super) fn note(&mut self, backend: &Arc<dyn Backend>, seen: Seen) {
        self.known.retain(|(known, _)| known.strong_count() > 0 && !is_of(known, backend));
        self.known.push((Arc::downgrade(backend), seen));
    }

    fn known(&self, backend: &Arc<dyn Backend>) -> Option<Seen> {
        self.known.iter().find(|(known, _)| is_of(known, backend)).map(|(_, seen)| *seen)
    }
}

fn is_of(known: &Weak<dyn Backend>, backend: &Arc<dyn Backend>) -> bool {
    std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(backend))
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Migration {
    /// Begins to move an open store to an empty database, which nobody else has open.
    ///
    /// # Errors
    /// `Unsupported` for a store that was not opened on a seat, or not on a [shared](super::SeatOptions::is_shared) one
    /// for a database that others write to, and if that one were to be kept in step; `Busy` if a migration is under
    /// way; what [`check_start`](super::check_start) refuses; those of any write. The other database is the caller's then.
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
        if target.info().shared && !seat.info().shared {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the store was opened for databases that one process writes to; open it with this target",
            )
            .with("backend", target.info().name));
        }
        if let Some(core) = store.downgrade().core() {
            require_no_other_writers(&core, &seat).await?;
        }
        check_start(&source.backend.head().await?, &target.head().await?)?;
        let standing = BesideFor::put(&seat, other)?;
        let begun = Self::drive(store, options, Some(migration)).await?;
        standing.stays();
        Ok(begun)
    }

    /// Refuses a store whose network cannot move yet, since other control planes write to its database, too.
    ///
    /// # Errors
    /// `Restricted`, with their names; those of reading.
    pub async fn check_writers(store: &dyn Store) -> Result<()> {
        let seat = seat_of(store)?;
        match store.downgrade().core() {
            Some(core) => require_no_other_writers(&core, &seat).await,
            None => Ok(()),
        }
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
        if options.synchronous && seat.info().shared {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a database that several processes write to is not kept in step with another one: a commit of \
                 another process would be on one side only",
            ));
        }
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
        let driver = Driver::new(store, seat, options, shared);
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

    /// Where it stands. A side that does not answer is what it was when it last did.
    ///
    /// # Errors
    /// `NotFound` if none is under way; `Unavailable` if the database that is served has not answered yet.
    pub async fn status(&self) -> Result<Status> {
        let sitting = self.seat.sitting();
        let (Some(beside), Some(known)) = (self.seat.beside(), self.seat.known_beside()) else {
            return Err(Error::new(ErrorKind::NotFound, "no migration of this store is under way"));
        };
        // In this order, or it would seem to lack less than it does.
        let (other, gone) = match self.look_at(&beside.backend, &known).await {
            Ok((other, gone)) => (Some(other), gone),
            Err(error) => (None, Some(error)),
        };
        let (served, down) = self.look_at(&sitting.backend, &sitting.backend).await?;
        let stage = Stage::of(&Pair { first: Some(served), second: other });
        let lag = other.filter(|_| down.is_none()).map(|other| {
            let [served, other] = [served, other].map(|seen| seen.place.position.get());
            served.saturating_sub(other)
        });
        let part = |seen: &Seen| seen.record.membership.map(|membership| membership.part);
        let served_is_target = part(&served) == Some(Part::Target)
            || other.as_ref().and_then(part) == Some(Part::Source);
        let other = match &other {
            Some(other) => SideStatus::of(&beside, other, gone.is_none()),
            None => SideStatus::unknown(&beside, &served),
        };
        let migration = served.record.membership.map(|it| it.migration.to_string());
        let served = SideStatus::of(&sitting, &served, down.is_none());
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
            in_step: self.seat.is_in_step(),
            copy,
            running: told.running.clone(),
            last_stall_ms: told
                .last_stall
                .map(|stall| u64::try_from(stall.as_millis()).unwrap_or(u64::MAX)),
            last_error: down.or(gone).or(told.last_error.clone()).map(|error| error.to_string()),
            fallbacks,
            last_fallback: last_fallback.map(|it| it.to_string()),
        })
    }

    /// What a database is or, while it does not answer, what it was when it last did, and why it does not. Fails if it
    /// never did. `backend` is what it is known by.
    async fn look_at(
        &self,
        asked: &Arc<dyn Backend>,
        backend: &Arc<dyn Backend>,
    ) -> Result<(Seen, Option<Error>)> {
        let head = asked.head().await;
        let mut told = self.shared.lock();
        match head {
            Ok(head) => {
                let seen = Seen::of(&head);
                told.note(backend, seen);
                Ok((seen, None))
            }
            Err(error) => match told.known(backend) {
                Some(seen) => Ok((seen, Some(error))),
                None => Err(error),
            },
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
            false if seat.is_closed() => {
                Err(Error::new(ErrorKind::Unavailable, "the store was closed"))
            }
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
