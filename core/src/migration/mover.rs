//! Carries out a migration: looks at both sides, and does what [`step`] says, one durable write after the
//! other.

use std::time::Duration;

use tokio::time::Instant;

use super::copy::{self, CopyOptions};
use super::record::Role;
use super::refusal::Refusal;
use super::side::{Side, follower};
use super::step::{Event, Pair, Seen, Service, Step, Which, Write, step};
use super::{apply, plan};
use crate::backend::{Backend, Commit};
use crate::domain::MigrationId;
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;

/// How a network is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveOptions {
    /// How much the side that is written keeps for the other one at most.
    pub max_kept_bytes: u64,
    /// How long nobody may be served while the network is handed over; a hand-over that takes longer is
    /// taken back.
    pub max_stall: Duration,
    /// How rows are copied.
    pub copy: CopyOptions,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            max_kept_bytes: 1 << 30,
            max_stall: Duration::from_millis(50),
            copy: CopyOptions::default(),
        }
    }
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What is seen of both sides.
    pub pair: Pair,
    /// What would be done next.
    pub next: Next,
}

/// What is left to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A step that was broken off.
    Resume,
    /// The copy.
    Fill,
    /// Nothing.
    Served(Service),
    /// Nothing can be done.
    Refused(Refusal),
}

/// Both sides of a migration, in one process that holds both.
#[derive(Debug, Clone)]
pub struct Mover {
    first: Side,
    second: Side,
    options: MoveOptions,
}

/// How many commits are read at once; one may have 256 MiB.
const ENTRIES_PER_READ: usize = 64;

impl Mover {
    /// Of these two databases, whichever of them is written.
    #[must_use]
    pub fn new(first: Side, second: Side, options: MoveOptions) -> Self {
        Self { first, second, options }
    }

    fn side(&self, which: Which) -> &Side {
        match which {
            Which::First => &self.first,
            Which::Second => &self.second,
        }
    }

    /// What is seen of both.
    ///
    /// # Errors
    /// `Unavailable`, `Corrupt`.
    pub async fn look(&self) -> Result<Pair> {
        let (first, second) = (self.first.head().await?, self.second.head().await?);
        plan::check_heads(&first, &second)?;
        Ok(Pair { first: Some(Seen::of(&first)), second: Some(Seen::of(&second)) })
    }

    /// Where the migration stands.
    ///
    /// # Errors
    /// Those of [`look`](Mover::look).
    pub async fn standing(&self) -> Result<Standing> {
        let pair = self.look().await?;
        let next = match step(&pair, Event::Resume) {
            Step::Write(_) | Step::Ship { .. } => Next::Resume,
            Step::Fill { .. } => Next::Fill,
            Step::Serve(service) => Next::Served(service),
            Step::Refuse(refusal) => Next::Refused(refusal),
        };
        Ok(Standing { pair, next })
    }

    /// Begins to move the network of the first side to the second, which is empty.
    ///
    /// # Errors
    /// What [`plan`](super::check_start) refuses; those of any write.
    pub async fn start(&self, migration: MigrationId) -> Result<()> {
        let (first, second) = (self.first.backend()?, self.second.backend()?);
        let heads = (first.head().await?, second.head().await?);
        plan::check_start(&heads.0, &first.info(), &heads.1, &second.info())?;
        self.take(Event::Start(migration)).await.map(drop)
    }

    /// Ends what was broken off.
    ///
    /// # Errors
    /// Those of any write; why nothing can be done.
    pub async fn resume(&self) -> Result<Next> {
        self.take(Event::Resume).await
    }

    /// Does what is asked for, and then whatever is left to be done. If it is broken off anywhere, the
    /// same or [`resume`](Mover::resume) goes on.
    ///
    /// # Errors
    /// Why it cannot be done now; `Conflict` if somebody else changes a record; those of any write.
    pub async fn take(&self, event: Event) -> Result<Next> {
        let mut event = event;
        loop {
            let pair = self.look().await?;
            match step(&pair, event) {
                Step::Write(writes) => {
                    self.write(&pair, &writes).await?;
                    event = Event::Resume;
                }
                Step::Ship { from } => self.ship_all(from).await?,
                Step::Fill { .. } => return Ok(Next::Fill),
                Step::Serve(service) => return Ok(Next::Served(service)),
                Step::Refuse(refusal) => return Err(refusal.error()),
            }
        }
    }

    async fn write(&self, pair: &Pair, writes: &[Write]) -> Result<()> {
        for write in writes {
            tracing::info!(
                name: "migration_record",
                side = %write.before.side,
                before = %write.before.record,
                after = %write.after,
                "the migration moves on"
            );
            let side = self.side(write.to);
            if write.empties() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "a side that is to be copied anew is to be emptied first: move its file aside",
                )
                .with("side", write.before.side));
            }
            if write.after.role == Role::Filling {
                let backend = side.backend()?;
                copy::adopt(self.side(write.to.other()), backend.as_ref(), write).await?;
                continue;
            }
            // The second of two writes may have been planned before the first one moved its side.
            let before = pair.get(write.to).unwrap_or(write.before);
            side.write(&Write { before, ..*write }, self.options.max_kept_bytes).await?;
        }
        Ok(())
    }

    /// Copies the network, as far as there is something left to copy, and sends what is written meanwhile
    /// until the copy is complete. May be broken off and called again.
    ///
    /// # Errors
    /// `Conflict` if the target fell too far behind; those of any write.
    pub async fn fill(&self) -> Result<Next> {
        let pair = self.look().await?;
        let Step::Fill { from } = step(&pair, Event::Resume) else {
            return self.resume().await;
        };
        let (source, target) = (self.side(from), self.side(from.other()).backend()?);
        copy::copy(source, target.as_ref(), self.options.copy).await?;
        // How far it is behind makes a complete copy no less complete.
        self.catch_up(from).await?;
        self.take(Event::Filled).await
    }

    /// Sends what the other side lacks until that is little. Tells whether it is, or whether more is written
    /// than the other side takes.
    async fn catch_up(&self, from: Which) -> Result<bool> {
        const PATIENCE: usize = 8;
        let (mut least, mut in_vain) = (u64::MAX, 0);
        while self.ship(from).await? >= ENTRIES_PER_READ as u64 {
            let lag = self.lag().await?;
            in_vain = if lag < least { 0 } else { in_vain + 1 };
            least = least.min(lag);
            if in_vain > PATIENCE {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Sends to the other side what it lacks of this one, but not without end. Tells how many commits that
    /// were.
    ///
    /// # Errors
    /// `Compacted` if they are not kept; those of any write.
    pub async fn ship(&self, from: Which) -> Result<u64> {
        let (source, target) = (self.side(from), self.side(from.other()).backend()?);
        let mut head = target.head().await?;
        let entries = source.entries(head.position, ENTRIES_PER_READ).await?;
        if entries.is_empty() {
            return Ok(0);
        }
        let oldest = source.head().await?.oldest_block;
        for entry in &entries {
            let commit = apply::apply(&head, entry, oldest)?;
            send(target.as_ref(), &commit).await?;
            head = head.after(&commit)?;
            // A commit may block its thread.
            tokio::task::yield_now().await;
        }
        target.confirm().await?;
        if let Some(membership) = source.head().await?.membership {
            source.let_go(&follower(&membership)?, head.position).await?;
        }
        Ok(entries.len() as u64)
    }

    async fn ship_all(&self, from: Which) -> Result<()> {
        let wanted = self.side(from).head().await?.position;
        while self.side(from.other()).head().await?.position < wanted {
            if self.ship(from).await? == 0 {
                return Err(Error::corrupt("commits are missing between two sides of a migration")
                    .with("wanted", wanted));
            }
        }
        Ok(())
    }

    /// How many commits the side that follows lacks.
    ///
    /// # Errors
    /// Those of [`look`](Mover::look).
    pub async fn lag(&self) -> Result<u64> {
        let pair = self.look().await?;
        let position = |seen: Option<Seen>| seen.map_or(Position::ZERO, |seen| seen.place.position);
        Ok(position(pair.first).get().abs_diff(position(pair.second).get()))
    }

    /// Hands the network over to the side that follows: ends what is under way, fences, drains and
    /// activates. From the fence on nobody is served. The store that was open stays as it is, and writes
    /// nothing any more: close it, and open one on the other side. Tells how long nobody was served.
    ///
    /// # Errors
    /// `Busy` if it took longer than [`max_stall`](MoveOptions::max_stall), and was taken back: less has to
    /// be written meanwhile. Why it cannot be done now; those of any write.
    pub async fn hand_over(&self) -> Result<Duration> {
        let Next::Served(Service::Alone { authority } | Service::Both { authority }) =
            self.resume().await?
        else {
            return Err(Error::new(ErrorKind::Restricted, "the copy is not complete yet"));
        };
        // What is left is then a moment's.
        if !self.catch_up(authority).await? {
            return Err(Error::new(
                ErrorKind::Busy,
                "more is written than the other side takes; hand over while less is written",
            )
            .with("behind", self.lag().await?));
        }
        let before = self.lag().await?;
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
        let fenced_at = Instant::now();
        self.write(&pair, &fence).await?;
        let late = |elapsed: Duration| {
            Error::new(
                ErrorKind::Busy,
                "handing over took too long and was taken back; do it while less is written, or raise \
                 `migration.max_stall_ms`",
            )
            .with("took_ms", elapsed.as_millis())
            .with("max_ms", self.options.max_stall.as_millis())
            .with("behind", before)
        };
        loop {
            if fenced_at.elapsed() > self.options.max_stall {
                let elapsed = fenced_at.elapsed();
                self.take(Event::Undo).await?;
                return Err(late(elapsed));
            }
            if self.ship(authority).await? == 0 {
                break;
            }
        }
        // Activates, and lets the other side follow; what is answered need not be on both.
        let pair = self.look().await?;
        let Step::Write(writes) = step(&pair, Event::Resume) else {
            return Err(Error::new(ErrorKind::Conflict, "somebody else changes the migration"));
        };
        self.write(&pair, &writes).await?;
        self.take(Event::Loosen).await?;
        Ok(fenced_at.elapsed())
    }
}

/// Stores a commit of which it may not be known whether it is there.
async fn send(target: &dyn Backend, commit: &Commit) -> Result<()> {
    let Err(error) = target.commit(commit).await else { return Ok(()) };
    if *error.kind() != ErrorKind::OutcomeUnknown {
        return Err(error);
    }
    let head = target.reopen().await?;
    if head.position == commit.expected.next() && Some(head.commit) == commit.id() {
        return Ok(());
    }
    target.commit(commit).await
}

/// Keeps the side that follows close behind, until it is told to end or cannot go on.
///
/// # Errors
/// Those of [`Mover::ship`].
pub async fn follow(
    mover: &Mover,
    from: Which,
    mut end: tokio::sync::watch::Receiver<bool>,
) -> Result<()> {
    // Commits of series alone wake nobody.
    const LOOKS_AGAIN: Duration = Duration::from_millis(20);
    loop {
        if mover.ship(from).await? > 0 {
            continue;
        }
        tokio::select! {
            ended = end.wait_for(|ended| *ended) => return ended.map(drop).or(Ok(())),
            () = tokio::time::sleep(LOOKS_AGAIN) => {}
        }
    }
}
