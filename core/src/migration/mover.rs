//! Carries out a migration: looks at both sides, and does what [`step`] says, one durable write after the
//! other.

use std::cmp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::copy::{self, CopyOptions, CopyProgress};
use super::pace::Pace;
use super::record::Role;
use super::refusal::Refusal;
use super::side::{Side, follower};
use super::step::{Event, Grounds, Pair, Place, Seen, Service, Step, Which, Write, step};
use super::witness::Witness;
use super::{apply, plan};
use crate::backend::{Backend, Commit, Head, HeadChange, KeyChange};
use crate::domain::MigrationId;
use crate::error::{Error, ErrorKind, Result};
use crate::log::consumers::Consumers;
use crate::log::feed::{self, LogEntry};
use crate::position::Position;

/// How a network is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MoveOptions {
    /// How much the side that is written keeps for the other one at most.
    pub max_kept_bytes: u64,
    /// How long nobody may be served while the network is handed over; a hand-over that takes longer is
    /// taken back.
    pub max_stall: Duration,
    /// Whether an answer means that both sides have it, once the copy is complete.
    pub synchronous: bool,
    /// How long callers wait then for a side that does not answer. They are told that the outcome is not
    /// known, and nothing is written before both sides have what one of them has.
    pub mirror_timeout: Duration,
    /// How rows are copied.
    pub copy: CopyOptions,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            max_kept_bytes: 1 << 30,
            max_stall: Duration::from_millis(50),
            synchronous: false,
            mirror_timeout: Duration::from_secs(5),
            copy: CopyOptions::default(),
        }
    }
}

impl MoveOptions {
    /// In step the last entry is always kept, however long it is: no commit may be refused because of that.
    fn kept_bytes(&self) -> u64 {
        const IN_STEP: u64 = 1 << 30;
        match self.synchronous {
            true => self.max_kept_bytes.max(IN_STEP),
            false => self.max_kept_bytes,
        }
    }

    /// Why a hand-over was taken back.
    pub(crate) fn too_long(&self, took: Duration, behind: u64) -> Error {
        Error::new(
            ErrorKind::Busy,
            "handing over took too long and was taken back; do it while less is written, or raise \
             `migration.max_stall_ms`",
        )
        .with("took_ms", took.as_millis())
        .with(MAX_MS, self.max_stall.as_millis())
        .with("behind", behind)
    }

    /// Whether this is that.
    pub(super) fn is_too_long(error: &Error) -> bool {
        error.context().iter().any(|(key, _)| *key == MAX_MS)
    }
}

const MAX_MS: &str = "max_ms";

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
    /// A step that was interrupted.
    Resume,
    /// The copy.
    Fill,
    /// An empty database in the place of this one, which was superseded.
    Renew(Which),
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
    pub(super) options: MoveOptions,
    taken: Taken,
    /// What the first side is told of how the second one follows.
    pace: Option<Arc<Pace>>,
}

/// How many commits are read at once, and about how many bytes: one alone may have 256 MiB.
const ENTRIES_PER_READ: usize = 64;
const BYTES_PER_READ: u64 = 16 << 20;

/// So much may be kept for the other side that it has taken already.
const BYTES_KEPT: u64 = 16 << 20;

/// What the other side has taken, and the authority keeps still. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: u64,
    /// There is something.
    is_pending: bool,
    let_go_at: Option<Instant>,
}

impl Taken {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was taken, and tells whether it is much or was kept for long.
    fn is_due(&self, bytes: u64, bound: u64) -> bool {
        const LONGEST: Duration = Duration::from_secs(1);
        let mut kept = self.lock();
        kept.bytes = kept.bytes.saturating_add(bytes);
        kept.is_pending |= bytes > 0;
        let is_long = kept.let_go_at.is_none_or(|at| at.elapsed() >= LONGEST);
        kept.is_pending && (is_long || kept.bytes >= bound)
    }

    fn was_let_go(&self) {
        *self.lock() = Kept { let_go_at: Some(Instant::now()), ..Kept::default() };
    }
}

/// What was sent at once.
pub(super) struct Sent {
    pub(super) commits: u64,
    /// Where the other side stands.
    position: Position,
    /// Nothing was left when it was read.
    pub(super) is_all: bool,
}

impl Mover {
    /// Of these two databases, whichever of them is written.
    #[must_use]
    pub fn new(first: Side, second: Side, options: MoveOptions) -> Self {
        Self { first, second, options, taken: Taken::default(), pace: None }
    }

    /// The same, if it goes on with what another one has sent, and tells the first side how the second one follows.
    pub(super) fn going_on(self, taken: Taken, pace: Option<Arc<Pace>>) -> Self {
        Self { taken, pace, ..self }
    }

    pub(super) fn side(&self, which: Which) -> &Side {
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
            Step::Renew { superseded } => Next::Renew(superseded),
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
        plan::check_start(&heads.0, &heads.1)?;
        self.take(Event::Start(migration)).await.map(drop)
    }

    /// Ends what was interrupted.
    ///
    /// # Errors
    /// Those of any write; why nothing can be done.
    pub async fn resume(&self) -> Result<Next> {
        self.take(Event::Resume).await
    }

    /// Does what is asked for, and then whatever is left to be done. If it is interrupted anywhere, the
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
                Step::Renew { superseded } => return Ok(Next::Renew(superseded)),
                Step::Serve(service) => return Ok(Next::Served(service)),
                Step::Refuse(refusal) => return Err(refusal.error()),
            }
        }
    }

    /// Ends it by the first side alone: the second one does not answer, or lacks what is not kept any longer. It
    /// learns of it when it is opened beside the first one; by itself it cannot be opened as a store.
    pub(crate) async fn end_alone(&self, event: Event) -> Result<()> {
        let first = Some(Seen::of(&self.first.head().await?));
        let pair = Pair { first, second: None };
        match step(&pair, event) {
            Step::Write(writes) => self.write(&pair, &writes).await,
            Step::Refuse(refusal) => Err(refusal.error()),
            _ => Err(Error::new(ErrorKind::Conflict, "somebody else changes the migration")),
        }
    }

    pub(super) async fn write(&self, pair: &Pair, writes: &[Write]) -> Result<()> {
        for write in writes {
            tracing::info!(
                name: "migration_record",
                side = %write.before.side,
                before = %write.before.record,
                after = %write.after,
                "the migration moves on"
            );
            let side = self.side(write.to);
            if write.after.role == Role::Filling {
                let backend = side.backend()?;
                copy::adopt(self.side(write.to.other()), backend.as_ref(), write).await?;
                continue;
            }
            // The second of two writes may have been planned before the first one moved its side.
            let before = pair.get(write.to).unwrap_or(write.before);
            side.write(&Write { before, ..*write }, self.options.kept_bytes()).await?;
        }
        Ok(())
    }

    /// Copies the network, as far as there is something left to copy, and sends what is written meanwhile
    /// until the copy is complete. May be interrupted and called again.
    ///
    /// # Errors
    /// `Conflict` if the target fell too far behind; those of any write.
    pub async fn fill(&self) -> Result<Next> {
        self.fill_counting(&CopyProgress::default()).await
    }

    /// The same, and tells how far it is.
    ///
    /// # Errors
    /// Those of [`fill`](Mover::fill).
    pub async fn fill_counting(&self, progress: &CopyProgress) -> Result<Next> {
        let pair = self.look().await?;
        let Step::Fill { from } = step(&pair, Event::Resume) else {
            return self.resume().await;
        };
        let (source, target) = (self.side(from), self.side(from.other()).backend()?);
        copy::copy(source, target.as_ref(), self.options.copy, progress).await?;
        // How far it is behind makes a complete copy no less complete.
        self.catch_up(from).await?;
        self.take(Event::Filled).await
    }

    /// Sends what the other side lacks until that is little. Tells whether it is, or would be sent within
    /// [`max_stall`](MoveOptions::max_stall) while nobody writes.
    pub(super) async fn catch_up(&self, from: Which) -> Result<bool> {
        const PATIENCE: usize = 8;
        let (mut least, mut in_vain) = (u64::MAX, 0);
        let (began, mut commits) = (Instant::now(), 0);
        loop {
            let sent = self.ship_until(from, None).await?;
            if sent.is_all {
                return Ok(true);
            }
            commits += sent.commits;
            let lag = self.lag().await?;
            in_vain = if lag < least { 0 } else { in_vain + 1 };
            least = least.min(lag);
            if in_vain > PATIENCE {
                let each = began.elapsed().as_nanos() / u128::from(commits.max(1));
                return Ok(each * u128::from(lag) <= self.options.max_stall.as_nanos());
            }
        }
    }

    /// Sends to the other side what it lacks of this one, but not without end. Tells how many commits that
    /// were.
    ///
    /// # Errors
    /// `Compacted` if they are not kept; those of any write.
    pub async fn ship(&self, from: Which) -> Result<u64> {
        self.ship_some(from).await.map(|sent| sent.commits)
    }

    pub(super) async fn ship_some(&self, from: Which) -> Result<Sent> {
        self.ship_until(from, None).await
    }

    /// Both have everything up to a position.
    pub(super) async fn let_go_in_step(&self, position: Position, is_new: bool) -> Result<()> {
        self.let_go(&self.first, position, u64::from(is_new)).await
    }

    /// The same, and begins with no commit after that time.
    pub(super) async fn ship_until(&self, from: Which, ends: Option<Instant>) -> Result<Sent> {
        let began = Instant::now();
        let sent = self.send_until(from, ends).await?;
        if let Some(pace) = self.pace.as_ref().filter(|_| from == Which::First) {
            let written = self.side(from).position().await?;
            let lag = written.get().saturating_sub(sent.position.get());
            pace.follows(sent.commits, began.elapsed(), lag);
        }
        Ok(sent)
    }

    async fn send_until(&self, from: Which, ends: Option<Instant>) -> Result<Sent> {
        let (source, target) = (self.side(from), self.side(from.other()).backend()?);
        let mut head = target.head().await?;
        require_follower(source, &head).await?;
        if head.checkpoint < head.serial {
            // It was written before, and what it had not flushed is only in its blocks.
            copy::fold(target.as_ref()).await?;
            head = target.head().await?;
        }
        let limits = (ENTRIES_PER_READ, BYTES_PER_READ);
        let sender = source.head().await?;
        let is_follower = matches!(sender.record().role, Role::PassiveAsync | Role::PassiveSync);
        if let Some(after) = sender.credential_key
            && !is_follower
            && head.credential_key != Some(after)
        {
            // No entry tells of it, and the one that is served next is opened with that key.
            let key = KeyChange { before: head.credential_key, after };
            let change = HeadChange { credential_key: Some(key), ..HeadChange::default() };
            target.commit(&Commit { head: change, ..Commit::on(&head) }).await?;
            head = target.head().await?;
        }
        let entries = source.entries(head.position, limits).await?;
        let bytes = entries.iter().map(LogEntry::bytes).sum::<u64>();
        let is_all = entries.len() < ENTRIES_PER_READ && bytes < BYTES_PER_READ;
        if entries.is_empty() {
            self.let_go(source, head.position, 0).await?;
            return Ok(Sent { commits: 0, position: head.position, is_all });
        }
        let mut sent = 0;
        for entry in &entries {
            if ends.is_some_and(|ends| Instant::now() > ends) {
                break;
            }
            let commit = apply::apply(&head, entry, sender.oldest_block)?;
            send(target.as_ref(), &commit).await?;
            head = head.after(&commit)?;
            sent += 1;
            // A commit may block its thread.
            tokio::task::yield_now().await;
        }
        target.confirm().await?;
        self.let_go(source, head.position, bytes.max(1)).await?;
        let is_all = is_all && sent == entries.len() as u64;
        Ok(Sent { commits: sent, position: head.position, is_all })
    }

    /// Has the authority keep nothing any longer that the other side has taken. That is a commit of its own, so
    /// not after every one that was sent.
    async fn let_go(&self, source: &Side, taken: Position, bytes: u64) -> Result<()> {
        let bound = BYTES_KEPT.min(self.options.max_kept_bytes / 4);
        if !self.taken.is_due(bytes, bound) {
            return Ok(());
        }
        let head = source.head().await?;
        let Some(membership) = head.membership else { return Ok(()) };
        let name = follower(&membership)?;
        let consumers = Consumers::read(source.backend()?.as_ref(), &head).await?;
        // The last one stays, so that the two can be compared.
        let taken = Position::new(taken.get().saturating_sub(1));
        if feed::row_at(source.backend()?.as_ref(), taken).await?.is_none() {
            // The side took it from the other one, and keeps no entry of it.
            return Ok(());
        }
        if consumers.require(&name).is_ok_and(|consumer| taken > consumer.position) {
            source.let_go(&name, taken).await?;
        }
        self.taken.was_let_go();
        Ok(())
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

    /// Whether the first side no longer keeps what the other one lacks, and that one answers.
    ///
    /// # Errors
    /// Those of [`look`](Mover::look).
    pub(crate) async fn is_outgrown(&self) -> Result<bool> {
        let Step::Write(_) = step(&self.look().await?, Event::Resync) else { return Ok(false) };
        let head = self.first.head().await?;
        let Some(membership) = head.membership else { return Ok(false) };
        let consumers = Consumers::read(self.first.backend()?.as_ref(), &head).await?;
        Ok(consumers.require(&follower(&membership)?).is_ok_and(|consumer| consumer.resync))
    }

    /// How many commits the side that follows lacks.
    ///
    /// # Errors
    /// Those of [`look`](Mover::look).
    pub async fn lag(&self) -> Result<u64> {
        let pair = self.look().await?;
        let positions = |(first, second): (Seen, Seen)| {
            first.place.position.get().abs_diff(second.place.position.get())
        };
        Ok(pair.first.zip(pair.second).map_or(0, positions))
    }

    /// Has a witness grant the side that is left its next epoch.
    ///
    /// # Errors
    /// `Restricted` if the other side has it; those of asking.
    pub(crate) async fn ask(&self, witness: &dyn Witness, which: Which) -> Result<Grounds> {
        let head = self.side(which).head().await?;
        let next = head.epoch.next();
        match witness.grant(head.store, next, head.side).await? {
            true => Ok(Grounds::Granted(next)),
            false => Err(Error::new(
                ErrorKind::Restricted,
                "the witness has granted the next epoch to the other database, which is the network by now",
            )
            .with("side", head.side)
            .with("epoch", next)),
        }
    }

    /// Has the side that is left go on alone. By an epoch of its own it supersedes the other one, whatever that
    /// has.
    pub(crate) async fn go_on(&self, which: Which, grounds: Grounds) -> Result<()> {
        let seen = Some(Seen::of(&self.side(which).head().await?));
        let pair = match which {
            Which::First => Pair { first: seen, second: None },
            Which::Second => Pair { first: None, second: seen },
        };
        match step(&pair, Event::Lost(grounds)) {
            Step::Write(writes) => self.write(&pair, &writes).await,
            Step::Refuse(refusal) => Err(refusal.error()),
            _ => Err(Error::new(ErrorKind::Conflict, "somebody else changes the migration")),
        }
    }

    /// Ends what was interrupted, so that one side is written and the other one follows: later, unless
    /// both are to stay in step.
    pub(crate) async fn settle(&self, stays_in_step: bool) -> Result<Next> {
        let pair = self.look().await?;
        let roles = [pair.first, pair.second].map(|seen| seen.map(|seen| seen.record.role));
        let is_half =
            roles.contains(&Some(Role::ActiveSync)) && roles.contains(&Some(Role::PassiveAsync));
        if is_half && !stays_in_step {
            // That needs no write to the one that follows, which may be what failed.
            return self.take(Event::Loosen).await;
        }
        match self.resume().await? {
            Next::Served(Service::Both { .. }) if !stays_in_step => self.take(Event::Loosen).await,
            next => Ok(next),
        }
    }

    /// The same after an error that leaves open what is stored.
    pub(crate) async fn settle_anew(&self, stays_in_step: bool) -> Result<Next> {
        self.first.backend()?.reopen().await?;
        self.second.backend()?.reopen().await?;
        self.settle(stays_in_step).await
    }
}

/// Which of two databases is the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// This one.
    pub served: Which,
    /// Whether the other one follows it, or is becoming a copy.
    pub is_followed: bool,
}

/// Looks at two databases that nobody else has open, ends what was interrupted, and tells which one is to be
/// served. Two that have nothing to do with each other are no migration: the first is served.
///
/// # Errors
/// Why neither can be served, with both records; those of any write.
pub async fn find_served(
    first: Arc<dyn Backend>,
    second: Arc<dyn Backend>,
    options: MoveOptions,
) -> Result<Found> {
    let (one, other) = (first.head().await?, second.head().await?);
    let names = |of: &Head, other: &Head| of.membership.is_some_and(|it| it.peer == other.side);
    let is_left = |head: &Head| head.record().role == Role::Retired;
    let is_written =
        |head: &Head| head.record().role == Role::ActiveAlone && head.membership.is_none();
    // An empty one stands already in the place of the one that was lost.
    let goes_on =
        |head: &Head| head.record().role == Role::ActiveAlone && head.membership.is_some();
    for (served, head, lost) in [(Which::First, &one, &other), (Which::Second, &other, &one)] {
        if goes_on(head) && Seen::of(lost).is_blank() {
            return Ok(Found { served, is_followed: true });
        }
    }
    // A side that was left says so, and the one that was not no longer names it.
    if !names(&one, &other) && !names(&other, &one) {
        let alone = |served| Found { served, is_followed: false };
        return match one.record().role.serves_alone() || one.membership.is_none() {
            true => Ok(alone(Which::First)),
            false => Err(Refusal::Strangers(Seen::of(&one), Seen::of(&other)).error()),
        };
    }
    if is_written(&one) && is_left(&other) {
        return Ok(Found { served: Which::First, is_followed: false });
    }
    if is_left(&one) && is_written(&other) {
        return Ok(Found { served: Which::Second, is_followed: false });
    }
    let mover = Mover::new(Side::closed(first), Side::closed(second), options);
    // A process that keeps both in step begins so anew, once it has opened the store.
    let next = mover.settle(false).await?;
    let pair = mover.look().await?;
    let is_followed = |which: Which| {
        let other = pair.get(which.other()).map(|seen| seen.record.role);
        matches!(other, Some(Role::Filling | Role::PassiveAsync | Role::PassiveSync))
    };
    match next {
        Next::Served(Service::Alone { authority }) => {
            Ok(Found { served: authority, is_followed: is_followed(authority) })
        }
        Next::Fill => {
            let is_active = pair.first.is_some_and(|seen| seen.record.role.is_active());
            let served = if is_active { Which::First } else { Which::Second };
            Ok(Found { served, is_followed: true })
        }
        Next::Renew(superseded) => Ok(Found { served: superseded.other(), is_followed: true }),
        Next::Served(Service::Both { .. }) | Next::Resume => {
            Err(Error::new(ErrorKind::Conflict, "somebody else changes the migration"))
        }
        Next::Refused(refusal) => Err(refusal.error()),
    }
}

/// Has a database go on without the other side of its migration, since an operator says that the other one is
/// down and will not be written: from then on its epoch supersedes the other one's.
///
/// # Errors
/// `Restricted` for one that is complete without its other side, or never was, and if the witness granted the
/// other one; those of asking it, and of any write.
pub async fn go_on_alone(survivor: Arc<dyn Backend>, witness: Option<&dyn Witness>) -> Result<()> {
    let side = Side::closed(survivor);
    let mover = Mover::new(side.clone(), side, MoveOptions::default());
    if let Some(witness) = witness {
        // Its register has to know, or it would grant the epoch to the other one.
        mover.ask(witness, Which::First).await?;
    }
    mover.go_on(Which::First, Grounds::Operator).await
}

/// Refuses to send anything to a side that has a commit which the authority lacks: one of them was put back
/// to an earlier state, and written since.
///
/// # Errors
/// Why the two are no longer one network.
async fn require_follower(authority: &Side, follower: &Head) -> Result<()> {
    let backend = authority.backend()?;
    let head = backend.head().await?;
    let (ours, theirs) = (Seen::of(&head).place, Seen::of(follower).place);
    let forked = |ours| Err(Refusal::Forked(ours, theirs).error());
    match ours.position.cmp(&theirs.position) {
        cmp::Ordering::Equal if ours == theirs => return Ok(()),
        cmp::Ordering::Equal | cmp::Ordering::Less => return forked(ours),
        cmp::Ordering::Greater => {}
    }
    let is_begin = head.membership.is_some_and(|it| copy::begin_id(&it) == theirs.commit);
    // Of the position at which it was copied, or at which the other side took over, there is none.
    let Some(row) = feed::row_at(backend.as_ref(), theirs.position).await? else { return Ok(()) };
    match (row.commit, row.serial) == (theirs.commit, theirs.serial) || is_begin {
        true => Ok(()),
        false => forked(Place { position: row.position, commit: row.commit, ..ours }),
    }
}

/// Stores a commit of which it may not be known whether it is there, or whether it was sent before and arrives late.
async fn send(target: &dyn Backend, commit: &Commit) -> Result<()> {
    let Err(error) = target.commit(commit).await else { return Ok(()) };
    if !matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Conflict) {
        return Err(error);
    }
    let Ok(head) = target.reopen().await else { return Err(error) };
    if head.position == commit.expected.next() && Some(head.commit) == commit.id() {
        return Ok(());
    }
    match error.kind() {
        ErrorKind::Conflict => Err(error),
        _ => target.commit(commit).await,
    }
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
