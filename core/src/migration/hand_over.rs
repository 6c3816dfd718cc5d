//! Handing the network over to the side that follows, while whoever writes waits.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::mover::{Mover, Next};
use super::refusal::Refusal;
use super::step::{Event, Service, Step, Which, step};
use crate::error::{Error, ErrorKind, Result};

/// The time in which nobody is served.
struct Stall {
    began: Instant,
    ends: Instant,
    /// How many commits the other side lacked when it began.
    behind: u64,
}

/// What a hand-over has to pass before it changes the side that is written. Whoever waits for it may close
/// it instead, and then serves on; never both.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicU8);

impl Gate {
    const OPEN: u8 = 0;
    const PASSED: u8 = 1;
    const CLOSED: u8 = 2;

    /// # Errors
    /// `Busy` if it was closed.
    pub(crate) fn pass(&self) -> Result<()> {
        match self.turn(Self::PASSED) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Busy, "the hand-over was given up meanwhile")),
        }
    }

    /// Tells whether it is closed: nothing that was begun goes any further.
    pub(crate) fn close(&self) -> bool {
        self.turn(Self::CLOSED)
    }

    fn turn(&self, to: u8) -> bool {
        let turned = self.0.compare_exchange(Self::OPEN, to, Ordering::AcqRel, Ordering::Acquire);
        turned.is_ok() || turned == Err(to)
    }
}

impl Mover {
    /// Hands the network over to the side that follows: ends what is under way, fences, drains and
    /// activates. From the fence on nobody is served. A store that was open stays as it is, and writes
    /// nothing any more: close it, and open one on the other side. Tells how long nobody was served.
    ///
    /// A store on a [`Seat`](super::Seat) is moved while it is open by a [`Migration`](super::Migration).
    ///
    /// # Errors
    /// `Busy` if it took longer than [`max_stall`](super::MoveOptions::max_stall), and was taken back: less has to
    /// be written meanwhile. Why it cannot be done now; those of any write.
    pub async fn hand_over(&self) -> Result<Duration> {
        self.prepare().await?;
        self.switch(&Gate::default()).await
    }

    /// Brings the side that follows so close that what is left is a moment's.
    ///
    /// # Errors
    /// `Busy` if more is written than it takes; `Restricted` while the copy is not complete.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let authority = self.authority().await?;
        if self.catch_up(authority).await? {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Busy,
            "more is written than the other side takes; hand over while less is written",
        )
        .with("behind", self.lag().await?))
    }

    /// Has a side show that it can write: one that cannot would hold whoever writes.
    ///
    /// # Errors
    /// Those of probing it.
    pub(crate) async fn probe(&self, which: Which) -> Result<()> {
        let backend = self.side(which).backend()?;
        backend.probe(backend.head().await?.epoch).await
    }

    async fn authority(&self) -> Result<Which> {
        match self.resume().await? {
            Next::Served(Service::Alone { authority } | Service::Both { authority }) => {
                Ok(authority)
            }
            _ => Err(Error::new(
                ErrorKind::Restricted,
                "the copy is not complete yet; `gwstore migrate status` tells how far it is",
            )),
        }
    }

    /// Sends everything that is left, as long as there is time.
    async fn drain(&self, from: Which, stall: &Stall) -> Result<()> {
        loop {
            let sent = self.ship_until(from, Some(stall.ends)).await?;
            self.require_time(stall)?;
            if sent.commits == 0 {
                return Ok(());
            }
        }
    }

    fn begin_stall(&self) -> Stall {
        let began = Instant::now();
        // A time that cannot be told is none that passes.
        let ends = began.checked_add(self.options.max_stall).unwrap_or(began);
        Stall { began, ends, behind: 0 }
    }

    fn require_time(&self, stall: &Stall) -> Result<()> {
        match Instant::now() > stall.ends {
            true => Err(self.options.too_long(stall.began.elapsed(), stall.behind)),
            false => Ok(()),
        }
    }

    /// The hand-over itself, while whoever writes to the authority waits. Until `gate` is passed nothing but
    /// the other side changes.
    pub(crate) async fn switch(&self, gate: &Gate) -> Result<Duration> {
        let mut stall = self.begin_stall();
        let authority = self.authority().await?;
        stall.behind = self.lag().await?;
        // If nobody writes meanwhile there is nothing to be taken back when this takes too long.
        self.drain(authority, &stall).await?;
        let pair = self.look().await?;
        let fence = match step(&pair, Event::HandOver) {
            Step::Write(writes) => writes,
            Step::Refuse(refusal) => return Err(refusal.error()),
            _ => {
                return Err(Error::new(
                    ErrorKind::Busy,
                    "the other side has yet to catch up; again",
                ));
            }
        };
        // Once the one is fenced, nobody is served before the other can store something.
        self.probe(authority.other()).await?;
        self.require_time(&stall)?;
        gate.pass()?;
        self.write(&pair, &fence).await?;
        let drained = self.drain(authority, &stall).await;
        if let Err(error) = drained.and_then(|()| self.require_time(&stall)) {
            self.take(Event::Undo).await?;
            return Err(error);
        }
        // Activates, and lets the other side follow; what is answered need not be on both.
        let pair = self.look().await?;
        let Step::Write(writes) = step(&pair, Event::Resume) else {
            return Err(Error::new(ErrorKind::Conflict, "somebody else changes the migration"));
        };
        self.write(&pair, &writes).await?;
        self.take(Event::Loosen).await?;
        Ok(stall.began.elapsed())
    }

    /// Leaves the side that follows, for good, while nobody writes. It has everything first, so that the last
    /// thing it says is true.
    pub(crate) async fn complete(&self, gate: &Gate) -> Result<Duration> {
        let mut stall = self.begin_stall();
        let authority = self.authority().await?;
        let pair = self.look().await?;
        let is_target = pair.get(authority).is_some_and(|seen| seen.is_target());
        if let (false, Some(first), Some(second)) = (is_target, pair.first, pair.second) {
            return Err(Refusal::NotNow(first, second).error());
        }
        stall.behind = self.lag().await?;
        self.drain(authority, &stall).await?;
        gate.pass()?;
        if self.resume().await? == Next::Served(Service::Alone { authority }) {
            self.take(Event::Tighten).await?;
        }
        self.take(Event::Complete).await?;
        Ok(stall.began.elapsed())
    }

    /// Has every answer mean that both sides have it, while nobody writes.
    pub(crate) async fn tighten(&self, gate: &Gate) -> Result<()> {
        let stall = self.begin_stall();
        let authority = self.authority().await?;
        self.drain(authority, &stall).await?;
        gate.pass()?;
        self.take(Event::Tighten).await.map(drop)
    }
}
