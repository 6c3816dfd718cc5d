//! Copies the network of an open store to the other database, keeps that close behind, and hands over when it is
//! told to, on a thread beside the writer.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::live::{Asked, Order, Shared};
use super::mirror::Mirror;
use super::mover::{MoveOptions, Mover, Next, Standing, Taken};
use super::record::{Part, Role};
use super::refusal::Refusal;
use super::seat::{Occupant, Renewal, Seat};
use super::settle::is_there;
use super::side::Side;
use super::step::{Event, Pair, Service, Which};
use crate::backend::{Backend, Displaced};
use crate::domain::MigrationId;
use crate::error::{Error, ErrorKind, Result};
use crate::handle::{Core, StoreHandle};
use crate::position::{Epoch, Position};
use crate::store::WeakStore;
use crate::threads::{self, Waits};
use crate::writer::{Moving, Request};

/// What does it, on a thread of its own.
pub(super) struct Driver {
    store: WeakStore,
    seat: Arc<Seat>,
    options: MoveOptions,
    shared: Arc<Shared>,
    /// Something failed, so the other side is opened anew before it is asked again.
    is_doubtful: Cell<bool>,
    /// What is under way may have asked the other side for something.
    is_asking: Cell<bool>,
    taken: Taken,
    /// While both are in step, up to where this has looked for what need not be kept.
    let_go_to: Cell<Position>,
    /// An empty database is being made in the place of the other side.
    renewing: tokio::sync::Mutex<Option<oneshot::Receiver<Result<()>>>>,
}

impl Driver {
    pub(super) fn new(
        store: WeakStore,
        seat: Arc<Seat>,
        options: MoveOptions,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            store,
            seat,
            options,
            shared,
            is_doubtful: Cell::new(false),
            is_asking: Cell::new(false),
            taken: Taken::default(),
            let_go_to: Cell::new(Position::ZERO),
            renewing: tokio::sync::Mutex::default(),
        }
    }

    /// Writes the first records. Interrupted after the source's it is under way, and is resumed; where
    /// that cannot be told it is found out later.
    pub(super) async fn begin(&self, migration: MigrationId) -> Result<()> {
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
    pub(super) async fn run(self, mut asked: mpsc::Receiver<Asked>) {
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
            let done = self.obey(order).await;
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

    async fn obey(&self, order: Order) -> Result<()> {
        match self.end_renewal(Some(self.seat.answers_within())).await {
            Ok(()) => {}
            Err(error) if *error.kind() == ErrorKind::Busy && order != Order::Abort => {
                return Err(error);
            }
            Err(error) => self.tell(Some(error)),
        }
        if self.is_asking.replace(false) {
            // Nobody heard what became of it.
            self.is_doubtful.set(true);
        }
        if !self.seat.is_settled() {
            // What was begun is ended by the writer, and not by what comes next.
            self.settle().await?;
        }
        match self.end_doubt().await {
            Ok(()) => self.carry_out(order).await,
            // A migration is ended without the other side, too.
            Err(_) if order == Order::Abort => self.carry_out(order).await,
            Err(error) if order == Order::Complete && !is_there(&error) => {
                self.complete_alone(&error).await
            }
            Err(error) => Err(error),
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
        // Others would not wait, and a commit that waits comes second to theirs.
        let is_shared = self.seat.sitting().backend.info().shared;
        Ok(mover.going_on(self.taken.clone(), (!is_shared).then(|| self.seat.pace())))
    }

    /// Does what is left to do, or some of it. Tells how many commits were sent.
    async fn work(&self) -> Result<u64> {
        if self.seat.is_settled()
            && let Some(mirror) = self.seat.mirror()
        {
            return self.keep_in_step(&mirror).await;
        }
        self.is_asking.set(true);
        let worked = self.work_beside().await;
        self.is_asking.set(false);
        worked
    }

    async fn work_beside(&self) -> Result<u64> {
        if !self.seat.is_settled() {
            // The writer opens both anew, and may go on without one.
            return self.settle().await;
        }
        self.end_doubt().await?;
        let mover = self.mover()?;
        let worked = self.work_by(&mover).await;
        if let Err(error) = &worked {
            self.doubt(error);
            if let Some(other) = self.seat.beside() {
                // What a store by itself says of a file that is away is no advice here.
                self.open_again(&other).await?;
            }
            if mover.is_outgrown().await.unwrap_or(false) {
                return self.resync(error).await;
            }
        }
        worked
    }

    /// Lets go of a copy that fell too far behind; the next one is begun where it is [refilled](Self::refill).
    async fn resync(&self, error: &Error) -> Result<u64> {
        let Some((renewal, other)) = self.seat.renewal().zip(self.seat.beside()) else {
            return Err(error.clone());
        };
        renewal.check(&other).map_err(|cannot| cannot.because(error.to_string()))?;
        // It begins another epoch, in which nobody else writes.
        self.require_no_other_writers().await?;
        tracing::warn!(
            name: "migration_resync",
            %error,
            "the copy fell too far behind, and what it lacks is not kept any longer: it is set aside and made anew"
        );
        self.ask_writer(Moving::Resync(self.options)).await.map(|_| 1)
    }

    /// The writer sends both what there is. What fails there is tried again, also while nobody writes.
    async fn keep_in_step(&self, mirror: &Mirror) -> Result<u64> {
        if mirror.is_troubled() {
            return self.settle().await;
        }
        let position = self.seat.head().await?.position;
        self.seat.set_followed_to(position);
        let is_new = self.let_go_to.replace(position) != position;
        self.mover()?.let_go_in_step(position, is_new).await.map(|()| 0)
    }

    async fn tighten(&self, mover: &Mover) -> Result<u64> {
        mover.probe(Which::Second).await?;
        match self.ask_writer(Moving::Tighten(self.options)).await {
            Ok(_) => Ok(1),
            // More is written than goes to the other side in that time: later.
            Err(error) if MoveOptions::is_too_long(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// One side went on without the other one, which is there again: what that has is set aside, and it
    /// becomes a copy from the beginning.
    async fn refill(&self, pair: &Pair) -> Result<u64> {
        let renewal = self.seat.renewal().zip(self.seat.beside()).zip(pair.second);
        let Some(((renewal, other), seen)) = renewal else { return Err(superseded()) };
        let epoch = seen.record.epoch;
        // What is told of the copy is not of the last one.
        self.shared.copy.reset();
        self.shared.lock().filling = None;
        let mut renewing = self.renewing.lock().await;
        if renewing.is_none() {
            *renewing = Some(begin_renewal(renewal, self.seat.clone(), other, epoch).await?);
        }
        drop(renewing);
        self.end_renewal(None).await?;
        self.mover()?.take(Event::Refill).await.map(|_| 1)
    }

    /// Waits until the empty database that is being made, if one is, stands beside the store.
    async fn end_renewal(&self, within: Option<Duration>) -> Result<()> {
        let mut renewing = self.renewing.lock().await;
        let Some(renewed) = renewing.as_mut() else { return Ok(()) };
        let renewed = match within {
            None => renewed.await,
            Some(within) => tokio::time::timeout(within, renewed).await.map_err(|_| {
                Error::new(
                    ErrorKind::Busy,
                    "an empty database is being made in place of one that was superseded",
                )
            })?,
        };
        *renewing = None;
        renewed.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unexpected, "making an empty database panicked; report this"))
        })
    }

    async fn end_doubt(&self) -> Result<()> {
        while self.is_doubtful.get()
            && let Some(other) = self.seat.beside()
        {
            let Err(error) = other.backend.reopen().await else {
                self.is_doubtful.set(false);
                return Ok(());
            };
            let is_replaced = !self.seat.is_beside(other.backend.as_ref());
            if !is_replaced && !self.open_again(&other).await? {
                return Err(error);
            }
        }
        Ok(())
    }

    /// If the file of the other side was away and is back, has something stand in its place that opens it, and tells so.
    /// Meanwhile somebody else may have written to it, so nothing that is known of it holds any longer.
    ///
    /// # Errors
    /// `Unavailable` while the file is away; why it is not known how to open it.
    async fn open_again(&self, other: &Occupant) -> Result<bool> {
        let info = other.backend.info();
        let displaced = info.file.and_then(|it| it.displaced);
        let Some((displaced, renewal)) = displaced.zip(self.seat.renewal()) else {
            return Ok(false);
        };
        let Some(membership) = self.seat.sitting().backend.head().await?.membership else {
            return Ok(false);
        };
        if displaced == Displaced::Back {
            return renewal.open_again(other, membership.peer).await.map(|()| true);
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the file of the other side was moved, removed or replaced while it was open; it is opened again once \
             it is back. If a copy of it lies there, start the process anew",
        )
        .with("location", info.location.unwrap_or_default()))
    }

    /// A backend may want to be opened anew after any error of its disk, whatever became of the disk.
    fn doubt(&self, error: &Error) {
        use ErrorKind::{Exhausted, OutcomeUnknown, Unavailable};
        if matches!(error.kind(), Unavailable | OutcomeUnknown | Exhausted) {
            self.is_doubtful.set(true);
        }
    }

    async fn work_by(&self, mover: &Mover) -> Result<u64> {
        let (sitting, beside) = (self.seat.sitting(), self.seat.known_beside());
        let Standing { pair, next } = mover.standing().await?;
        if let (Some(first), Some(second), Some(beside)) = (pair.first, pair.second, beside)
            && Arc::ptr_eq(&sitting, &self.seat.sitting())
            && self.seat.is_beside(beside.as_ref())
        {
            let mut told = self.shared.lock();
            told.note(&sitting.backend, first);
            told.note(&beside, second);
        }
        if let Some(second) = pair.second {
            self.seat.set_followed_to(second.place.position);
        }
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
            && second.is_blank()
        {
            return mover.take(Event::Refill).await.map(|_| 1);
        }
        match next {
            Next::Served(Service::Alone { authority: Which::First }) => {
                let sent = mover.ship_some(Which::First).await?;
                let follows =
                    pair.second.is_some_and(|seen| seen.record.role == Role::PassiveAsync);
                match self.options.synchronous && sent.is_all && follows {
                    true => self.tighten(mover).await,
                    false => Ok(sent.commits),
                }
            }
            Next::Fill => {
                let rows = self.shared.copy.copied();
                self.shared.lock().filling.get_or_insert((Instant::now(), rows));
                mover.fill_counting(&self.shared.copy).await.map(|_| 1)
            }
            Next::Renew(Which::Second) => self.refill(&pair).await,
            // The other one is the network by now: the writer looks, and writes nothing any more.
            Next::Refused(_) if supersedes(&pair) => self.settle().await,
            Next::Refused(refusal) => Err(refusal.error()),
            // Nobody has to wait for what is left to do at the other side.
            Next::Resume if serves_alone => mover.resume().await.map(|_| 1),
            // Whoever writes has to wait for that, so it is the writer's.
            Next::Resume | Next::Renew(_) | Next::Served(_) => self.settle().await,
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
        self.require_no_other_writers().await?;
        let looked = mover.look().await;
        let went_on =
            looked.as_ref().ok().and_then(|pair| pair.first).is_some_and(|served| {
                served.is_target() && served.record.role == Role::ActiveAlone
            });
        if order == Order::Complete
            && (went_on
                || looked.as_ref().is_err_and(|error| !is_there(error))
                || mover.is_outgrown().await.unwrap_or(false))
        {
            let outgrown = Error::new(
                ErrorKind::Conflict,
                "the source fell too far behind, or the target went on without it",
            );
            return self.complete_alone(looked.as_ref().err().unwrap_or(&outgrown)).await;
        }
        let pair = looked?;
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
                let mut prepared = mover.prepare().await;
                if prepared.is_ok() {
                    // One that has begun meanwhile, too.
                    prepared = self.require_no_other_writers().await;
                }
                let handed = match prepared {
                    Ok(()) => self.ask_writer(Moving::HandOver(self.options)).await,
                    Err(error) => Err(error),
                };
                let stall = match handed {
                    Ok(stall) => stall,
                    Err(error) if *error.kind() == ErrorKind::Busy => {
                        // The other side may be what it was too slow for.
                        let after = mover.side(Which::First).position().await?;
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
                mover.probe(Which::Second).await?;
                self.ask_writer(Moving::Complete(self.options)).await.map(drop)
            }
        }
    }

    async fn require_no_other_writers(&self) -> Result<()> {
        match self.store.core() {
            Some(core) => require_no_other_writers(&core, &self.seat).await,
            None => Ok(()),
        }
    }

    /// Without the source, which is not told of it. There is no way back in any case.
    async fn complete_alone(&self, error: &Error) -> Result<()> {
        self.require_no_other_writers().await?;
        self.mover()?.end_alone(Event::Complete).await?;
        tracing::warn!(%error, "the migration was completed without the source");
        Ok(())
    }

    /// Once the source's record says that the migration is aborted, it is, whether or not the target could be
    /// told. Opened beside the source it learns of it.
    async fn abort(&self, mover: &Mover) -> Result<()> {
        let aborted = match mover.look().await {
            Ok(_) => mover.take(Event::Abort).await.map(drop),
            // Without its source it is nothing by itself.
            Err(_) => mover.end_alone(Event::Abort).await,
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

/// On a thread of its own, since its disk may hang. What is made stands beside the store, or is closed.
async fn begin_renewal(
    renewal: Arc<dyn Renewal>,
    seat: Arc<Seat>,
    superseded: Occupant,
    epoch: Epoch,
) -> Result<oneshot::Receiver<Result<()>>> {
    let (tell, told) = oneshot::channel();
    threads::start("ghostwire-store-renew", Waits::Timers, move |runtime| {
        let renewed = runtime.block_on(async {
            let made = renewal.renew(&superseded, epoch).await?;
            seat.take_place_of(superseded.backend.as_ref(), made).await
        });
        drop(tell.send(renewed));
    })
    .await?;
    Ok(told)
}

/// A process that writes to a database which is left would have to be told where the network is, and one that writes
/// while a record changes is fenced or makes the change come second. So there may be none.
pub(super) async fn require_no_other_writers(core: &Arc<Core>, seat: &Seat) -> Result<()> {
    if !seat.sitting().backend.info().shared {
        return Ok(());
    }
    core.refresh().await?;
    let now = StoreHandle::of(core.clone()).now()?;
    let published = core.shared.published.load_full();
    let others = core.instances_elsewhere(&published.state, now);
    if others.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = others.iter().map(|it| it.name.to_string()).collect();
    Err(Error::new(
        ErrorKind::Restricted,
        "other control planes write to the database, and have to end first",
    )
    .with("instances", names.join(", ")))
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
