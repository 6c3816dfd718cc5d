//! Moving the network to another database while the store is open. The writer does it between two commits:
//! whoever writes meanwhile waits in the queue, and is served by the side that is written then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::timeout;

use super::turns::Turns;
use super::{Identity, Moving, Writer, read_only};
use crate::backend::{BackendInfo, Head};
use crate::checkpoint::{FlushBacklog, UnflushedAudit};
use crate::error::{Error, ErrorKind, Result};
use crate::log::consumers::Consumers;
use crate::migration::{
    Event, Gate, Grounds, MoveOptions, Mover, Next, Role, Seat, Service, Side, Which, is_there,
};
use crate::observe::system_name;
use crate::threads::{self, Waits};

impl Writer {
    /// Gives how long nobody was served. What the other side does is waited for only as long as that may be.
    pub(super) async fn move_network(&mut self, moving: Moving) -> Result<Duration> {
        if self.read_only {
            return Err(read_only());
        }
        let (seat, mover) = self.both_sides(moving)?;
        if let Some(fenced) = &self.fenced {
            return Err(fenced.clone());
        }
        let began = Instant::now();
        let (options, was_in_step) = (moving.options(), seat.mirror().is_some());
        if self.poisoned {
            self.reopen().await?;
            if was_in_step && seat.mirror().is_none() {
                // One side is lost, and the other one goes on without it.
                self.is_settled(&seat);
                return Ok(began.elapsed());
            }
        }
        let late = self.require_ended()?;
        if let (Moving::Settle(_), Some((done, next @ Ok(_)))) = (moving, late)
            && self.moving.is_some()
        {
            // Nothing was written since.
            return self.end_move(moving, (done, next), &seat, began).await;
        }
        let gate = Arc::new(Gate::default());
        if matches!(moving, Moving::Settle(_)) {
            // Nobody is served before it has ended.
            gate.pass()?;
        }
        let (ended, mut answer) = oneshot::channel();
        let passes = gate.clone();
        let stays_in_step = match moving {
            Moving::Tighten(_) => true,
            Moving::Loosen(_) => false,
            // A step that is refused changes nothing.
            _ => was_in_step,
        };
        threads::start("ghostwire-store-move", Waits::Timers, move |runtime| {
            drop(ended.send(runtime.block_on(carry_out(mover, moving, &passes, stays_in_step))));
        })
        .await?;
        let mut outcome = timeout(options.max_stall, &mut answer).await;
        if outcome.is_err() && gate.close() {
            // Nothing of this side has changed, and nothing will: it serves on.
            self.under_way = Some(answer);
            self.serve_on().await?;
            return Err(options.too_long(began.elapsed(), 0));
        }
        if outcome.is_err() {
            outcome = timeout(grace(options), &mut answer).await;
        }
        let Ok(outcome) = outcome else {
            self.under_way = Some(answer);
            self.refuse_until_settled(&seat, &hangs());
            return Err(unsettled().because(hangs().to_string()));
        };
        let ended = outcome.unwrap_or_else(|_| (Err(panicked()), Err(panicked())));
        self.end_move(moving, ended, &seat, began).await
    }

    /// Serves from whichever side is written then.
    async fn end_move(
        &mut self,
        moving: Moving,
        (done, next): Ended,
        seat: &Arc<Seat>,
        began: Instant,
    ) -> Result<Duration> {
        let (options, was_in_step) = (moving.options(), seat.mirror().is_some());
        if was_in_step
            && matches!(moving, Moving::Settle(_) | Moving::Loosen(_))
            && let Err(error) = &next
        {
            // Both stay in step. Whether one of them is lost decides whoever opens them anew.
            self.poison(true);
            return Err(done.err().unwrap_or_else(|| error.clone()));
        }
        let is_other =
            matches!(next, Ok(Next::Served(Service::Alone { authority: Which::Second })));
        let is_in_step =
            matches!(next, Ok(Next::Served(Service::Both { authority: Which::First })));
        let is_let_go = matches!(next, Ok(Next::Renew(Which::Second)));
        if !is_in_step {
            seat.end_mirror();
        }
        let served = match next {
            Ok(Next::Served(Service::Both { authority: Which::First })) => {
                self.serve_both(seat, options).await
            }
            Ok(
                Next::Served(Service::Alone { authority: Which::First })
                | Next::Fill
                | Next::Renew(Which::Second),
            ) => self.serve_on().await,
            Ok(Next::Served(Service::Alone { authority: Which::Second })) => {
                self.serve_from_other(seat).await
            }
            Ok(_) => self.serve_by_itself(unsettled(), seat).await,
            Err(error) => self.serve_by_itself(error, seat).await,
        };
        if let Err(error) = served {
            self.refuse_until_settled(seat, &error);
            return Err(unsettled().because(done.err().unwrap_or(error)));
        }
        self.is_settled(seat);
        // What is served says whether it was done, not what was answered on the way.
        let is_done = match moving {
            Moving::HandOver(_) => is_other,
            Moving::Complete(_) => self.shared.head.load().membership.is_none(),
            Moving::Tighten(_) => is_in_step,
            Moving::Loosen(_) => !is_in_step,
            Moving::Resync(_) => is_let_go,
            Moving::Settle(_) => true,
        };
        match done {
            Err(error) if is_done => {
                tracing::warn!(%error, "what was asked for holds, though one side failed meanwhile");
            }
            done => done?,
        }
        Ok(began.elapsed())
    }

    fn is_settled(&mut self, seat: &Seat) {
        seat.set_settled(true);
        if self.moving.take().is_some() {
            tracing::info!("the network is on one database again; writes are accepted");
        }
    }

    /// What hung before has to have ended, or two would change the same records. Gives what came of it.
    fn require_ended(&mut self) -> Result<Option<Ended>> {
        let Some(under_way) = &mut self.under_way else { return Ok(None) };
        let ended = match under_way.try_recv() {
            Err(TryRecvError::Empty) => return Err(hangs()),
            ended => ended.ok(),
        };
        self.under_way = None;
        Ok(ended)
    }

    fn both_sides(&self, moving: Moving) -> Result<(Arc<Seat>, Mover)> {
        let options = moving.options();
        let missing = || {
            Error::new(
                ErrorKind::Restricted,
                "no other database stands beside the store; begin a migration first",
            )
        };
        let seat = self.seat.clone().ok_or_else(missing)?;
        let other = seat.beside().ok_or_else(missing)?;
        let served = seat.sitting().backend.clone();
        Ok((seat, Mover::new(Side::closed(served), Side::closed(other.backend), options)))
    }

    /// The same database is served, and every commit goes to the other one, too.
    async fn serve_both(&mut self, seat: &Seat, options: MoveOptions) -> Result<()> {
        self.serve_on().await?;
        if seat.mirror().is_none() {
            seat.begin_mirror(options.mirror_timeout).await?;
            tracing::info!(
                name: "migration_in_step",
                "an answer means from now on that both databases have it"
            );
        }
        Ok(())
    }

    /// Opens the backend anew. If it is two databases in step, and one of them is lost, the other one goes on
    /// alone: it has everything that was answered.
    pub(super) async fn reopen_backend(&mut self) -> Result<Head> {
        let error = match self.backend.reopen().await {
            Ok(head) => return Ok(head),
            Err(error) => error,
        };
        let Some(seat) = self.seat.clone() else { return Err(error) };
        let Some(lost) = seat.mirror().and_then(|mirror| mirror.lost()) else { return Err(error) };
        tracing::error!(
            name: "migration_fallback",
            %error,
            lost = match lost { Which::First => "served", Which::Second => "following" },
            "one of two databases in step cannot be opened again; the other one goes on alone"
        );
        self.go_on_without(lost, &seat).await.map_err(|failed| {
            tracing::error!(error = %failed, "the other database cannot go on alone");
            failed
        })?;
        seat.fell_back(lost, &error);
        self.backend.reopen().await
    }

    async fn go_on_without(&mut self, lost: Which, seat: &Arc<Seat>) -> Result<()> {
        let (_, mover) = self.both_sides(Moving::Settle(MoveOptions::default()))?;
        let which = lost.other();
        let grounds = match seat.witness() {
            None => Grounds::InSync,
            Some(witness) => mover.ask(witness.as_ref(), which).await?,
        };
        let left = match which {
            Which::First => seat.sitting().backend.head().await?,
            Which::Second => match seat.beside() {
                Some(other) => other.backend.head().await?,
                None => return Err(unsettled()),
            },
        };
        let state = self.state();
        let is_same = left.position > state.position() || left.hash == state.hash();
        if left.position < state.position() || left.serial < state.serial() || !is_same {
            return Err(Error::corrupt("the side that is left lacks what was answered")
                .with("side", left.side)
                .with("stored_position", left.position)
                .with("position", state.position()));
        }
        mover.go_on(which, grounds).await?;
        seat.end_mirror();
        if which == Which::First {
            let head = self.backend.head().await?;
            return self.take_over(&head).await;
        }
        let Some(other) = seat.beside() else { return Err(unsettled()) };
        let head = other.backend.head().await?;
        self.sit_down(seat, &head).await
    }

    /// Serves on if the record of the database that is served says so by itself, whatever became of the
    /// other one.
    async fn serve_by_itself(&mut self, reason: Error, seat: &Arc<Seat>) -> Result<()> {
        let head = seat.sitting().backend.reopen().await?;
        let other = seat.beside();
        let theirs = match &other {
            Some(other) => other.backend.head().await.ok(),
            None => None,
        };
        if let Some(theirs) = theirs
            && theirs.record().role.is_active()
            && theirs.epoch > head.epoch
            && theirs.membership.is_some_and(|it| it.peer == head.side)
        {
            return Err(self.fence(theirs.fenced()));
        }
        if head.record().role == Role::ActiveSync && !is_there(&reason) {
            // It has everything that was answered, and this process holds the other one.
            self.go_on_without(Which::Second, seat).await?;
            seat.fell_back(Which::Second, &reason);
        } else if !head.record().role.serves_alone() {
            return Err(reason);
        }
        tracing::warn!(
            error = %reason,
            "the other side of the migration fails; the side that is served goes on alone"
        );
        self.serve_on().await
    }

    fn refuse_until_settled(&mut self, seat: &Seat, error: &Error) {
        tracing::error!(%error, "the network is between two databases; nothing is written until that is settled");
        self.shared.vital.note("migrate", error);
        self.moving = Some(unsettled().because(error.to_string()));
        seat.set_settled(false);
    }

    /// The same database is served; what its record says may be new.
    async fn serve_on(&mut self) -> Result<()> {
        let head = self.backend.head().await?;
        self.require_same(&head)?;
        self.take_over(&head).await?;
        self.catch_up_with_others().await
    }

    /// The other database is served from here on. It has what this one had, to the last commit.
    async fn serve_from_other(&mut self, seat: &Seat) -> Result<()> {
        let Some(other) = seat.beside() else { return Err(unsettled()) };
        let head = other.backend.head().await?;
        self.require_same(&head)?;
        if head.checkpoint != head.serial {
            return Err(Error::corrupt("the other side of the migration has blocks without rows")
                .with("checkpoint", head.checkpoint)
                .with("serial", head.serial));
        }
        other.backend.confirm().await?;
        self.sit_down(seat, &head).await
    }

    /// The two databases change places. Every row of the other one is in its tables.
    async fn sit_down(&mut self, seat: &Seat, head: &Head) -> Result<()> {
        let Some(other) = seat.beside() else { return Err(unsettled()) };
        seat.change_places();
        let BackendInfo { name, pinned, location, .. } = self.backend.info();
        self.system = system_name(name);
        self.is_pinned = pinned;
        if !self.is_shared {
            self.materialize = other.materialize;
        }
        self.identity = Identity::of(head);
        self.turns = Turns::default();
        self.checkpointer.backlog = FlushBacklog::default();
        self.checkpointer.set_checkpoint(head.checkpoint);
        self.checkpointer.set_oldest(head.oldest_block);
        self.shared.vital.checkpointed(head.checkpoint);
        self.wake_upkeep();
        self.take_over(head).await?;
        let published = self.shared.published.load_full();
        let fresh_at = self.elapsed();
        self.publish_state(published.state.clone(), UnflushedAudit::default(), fresh_at);
        tracing::info!(
            name: "migration_served",
            backend = name,
            location = location.as_deref(),
            epoch = head.epoch.get(),
            position = head.position.get(),
            "the store is served from the other database"
        );
        self.catch_up_with_others().await
    }

    async fn catch_up_with_others(&mut self) -> Result<()> {
        if self.is_shared { self.catch_up().await } else { Ok(()) }
    }

    fn require_same(&self, head: &Head) -> Result<()> {
        let state = self.state();
        let (position, serial, hash) = (state.position(), state.serial(), state.hash());
        let have_others_written = self.is_shared && head.position > position;
        if have_others_written
            || (head.position, head.serial, head.hash) == (position, serial, hash)
        {
            return Ok(());
        }
        Err(Error::corrupt("the database does not stand where the store does")
            .with("stored_position", head.position)
            .with("position", position)
            .with("stored_serial", head.serial)
            .with("serial", serial))
    }

    async fn take_over(&mut self, head: &Head) -> Result<()> {
        self.epoch = head.epoch;
        match self.is_shared {
            true => self.read_consumers().await?,
            false => self.consumers = Consumers::read(self.backend.as_ref(), head).await?,
        }
        self.shared.head.store(Arc::new(*head));
        Ok(())
    }
}

/// What became of what was asked for, and of both sides after it.
pub(super) type Ended = (Result<()>, Result<Next>);

/// On a thread of its own, which may hang.
async fn carry_out(mover: Mover, moving: Moving, gate: &Gate, stays_in_step: bool) -> Ended {
    let done = match moving {
        Moving::HandOver(_) => mover.switch(gate).await.map(drop),
        Moving::Complete(_) => mover.complete(gate).await.map(drop),
        Moving::Tighten(_) => mover.tighten(gate).await,
        Moving::Loosen(_) => match gate.pass() {
            Ok(()) => mover.take(Event::Loosen).await.map(drop),
            Err(error) => Err(error),
        },
        // Whoever hangs does so before anything is done.
        Moving::Resync(_) => match mover.look().await.and_then(|_| gate.pass()) {
            Ok(()) => mover.take(Event::Resync).await.map(drop),
            Err(error) => Err(error),
        },
        Moving::Settle(_) => mover.settle_anew(stays_in_step).await.map(drop),
    };
    // Whoever closed it serves on, and looks at both sides by itself.
    if let Err(error) = gate.pass() {
        return (Err(error.clone()), Err(error));
    }
    let stays_in_step = stays_in_step && (done.is_ok() || !matches!(moving, Moving::Tighten(_)));
    // Whatever came of it, the records say who is written.
    let next = match &done {
        Ok(()) => mover.settle(stays_in_step).await,
        // Refused before anything was written, or taken back.
        Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Restricted) => {
            mover.settle(stays_in_step).await
        }
        Err(_) => mover.settle_anew(stays_in_step).await,
    };
    (done, next)
}

/// How long is waited for a hand-over that cannot be given up any more.
fn grace(options: MoveOptions) -> Duration {
    options.max_stall.max(Duration::from_secs(1))
}

fn hangs() -> Error {
    Error::new(
        ErrorKind::Busy,
        "the other side of the migration does not answer; what was begun there is ended first",
    )
}

fn panicked() -> Error {
    Error::new(ErrorKind::Unexpected, "moving the network panicked; report this")
}

fn unsettled() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the network is between two databases, and one of them does not answer; writes are accepted again \
         once it does, see `gwstore migrate status`",
    )
}
