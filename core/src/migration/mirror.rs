//! Commits that go to both sides: nobody is told of one before both have it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::apply;
use super::copy;
use super::detached::Detached;
use super::refusal::Refusal;
use super::settle::{Outcome, Verdict, is_there, settle};
use super::step::{Seen, Which};
use crate::backend::{Backend, Commit, Head};
use crate::error::{Error, ErrorKind, Result};
use crate::log::feed::{self, LogEntry};

/// The side that follows, and how both sides do. The side that is written is handed in with each call: it is
/// the first one.
#[derive(Debug)]
pub(crate) struct Mirror {
    follower: Detached,
    timeout: Duration,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// Where the follower stands.
    head: Head,
    /// What one side may have and the other one lacks. Nothing else is sent to either before both have it.
    open: Option<Arc<Commit>>,
    troubles: [Trouble; 2],
}

/// How a side failed, since it last was opened.
#[derive(Debug, Default)]
struct Trouble {
    failed_at: VecDeque<Instant>,
    is_corrupt: bool,
}

/// So often a side has to fail to open, within so long, to count as lost.
const FAILURES: usize = 3;
const WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

impl Trouble {
    fn note(&mut self, opened: &Result<Head>) {
        match opened {
            Ok(_) => *self = Self::default(),
            Err(error) if *error.kind() == ErrorKind::Corrupt => self.is_corrupt = true,
            Err(error) if is_there(error) => {}
            Err(_) => {
                self.failed_at.push_back(Instant::now());
                if self.failed_at.len() > FAILURES {
                    self.failed_at.pop_front();
                }
            }
        }
    }

    fn is_there(&self) -> bool {
        self.failed_at.is_empty() && !self.is_corrupt
    }

    fn is_lost(&self) -> bool {
        let often = self.failed_at.len() == FAILURES;
        let quickly = self.failed_at.front().is_some_and(|first| first.elapsed() <= WITHIN);
        self.is_corrupt || often && quickly
    }
}

/// What is asked of a side.
#[derive(Debug)]
enum Ask {
    Store(Arc<Commit>),
    /// What is stored already.
    Confirm,
}

async fn carry_out(side: &dyn Backend, ask: &Ask) -> Result<()> {
    if let Ask::Store(commit) = ask {
        side.commit(commit).await?;
    }
    side.confirm().await.map_err(|error| {
        Error::new(ErrorKind::OutcomeUnknown, "it is stored, but the pin does not have it")
            .because(error.to_string())
    })
}

impl Mirror {
    /// The two are in step: both records say so, and both stand where `head` says.
    ///
    /// # Errors
    /// `Unavailable` if the system gives no thread; those of any write.
    pub(super) async fn new(follower: &Detached, timeout: Duration) -> Result<Self> {
        // What it wrote itself, before it followed.
        copy::fold(follower).await?;
        let head = Backend::head(follower).await?;
        let known = Known { head, open: None, troubles: Default::default() };
        Ok(Self { follower: follower.within(timeout), timeout, known: Mutex::new(known) })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is open, or a side failed when it was last opened.
    pub(crate) fn is_troubled(&self) -> bool {
        let known = self.lock();
        known.open.is_some() || known.troubles.iter().any(|trouble| !trouble.is_there())
    }

    /// The side that the other one may go on without: it failed to open again and again, and the other one
    /// did not.
    pub(crate) fn lost(&self) -> Option<Which> {
        let known = self.lock();
        let [first, second] = &known.troubles;
        match (first.is_lost(), second.is_lost()) {
            (true, false) if second.is_there() => Some(Which::First),
            (false, true) if first.is_there() => Some(Which::Second),
            _ => None,
        }
    }

    /// Has the follower do something.
    async fn ask(&self, ask: Ask, until: Instant) -> Result<()> {
        let asked = self.follower.call(ErrorKind::OutcomeUnknown, |follower| async move {
            carry_out(follower.as_ref(), &ask).await
        });
        timeout_at(until, asked).await.unwrap_or_else(|_| Err(slow(ErrorKind::OutcomeUnknown)))
    }

    async fn reopened(
        &self,
        which: Which,
        authority: &dyn Backend,
        until: Instant,
    ) -> Result<Head> {
        let opened = match which {
            Which::First => authority.reopen().await,
            Which::Second => {
                let opened = timeout_at(until, Backend::reopen(&self.follower)).await;
                // One that takes long is there.
                opened.unwrap_or_else(|_| Err(slow(ErrorKind::Busy)))
            }
        };
        if let Some(trouble) = self.lock().troubles.get_mut(index(which)) {
            trouble.note(&opened);
        }
        opened
    }

    /// Stores a commit on both sides, at the same time. Callers wait for whoever lacks it, at most
    /// [`mirror_timeout`](super::MoveOptions::mirror_timeout).
    ///
    /// # Errors
    /// As [`Backend::commit`]. `OutcomeUnknown` if only one side has it, or that is not known.
    pub(crate) async fn commit(&self, authority: &dyn Backend, commit: &Commit) -> Result<()> {
        // What changes no content is each side's own.
        let Some(entry) = feed::entry_in(commit)? else { return authority.commit(commit).await };
        let until = self.deadline();
        let head = self.lock().head;
        let is_there = (head.position, head.commit) == (entry.position, entry.commit);
        let theirs = match is_there {
            true => None,
            false => {
                let purge_before = commit.purge_before.unwrap_or_default();
                Some(Arc::new(apply::apply_in_step(&head, &entry, purge_before)?))
            }
        };
        let other = async {
            match theirs.clone() {
                Some(theirs) => self.ask(Ask::Store(theirs), until).await,
                None => Ok(()),
            }
        };
        // The authority may block this thread, so the other one is told first.
        let (other, ours) = tokio::join!(biased; other, authority.commit(commit));
        let mut outcomes = [&ours, &other].map(outcome_of);
        let mut error = ours.err().or(other.err());
        loop {
            let failed = || error.clone().unwrap_or_else(undecided);
            match settle(outcomes) {
                Verdict::Stored => {
                    let head = match &theirs {
                        Some(theirs) => head.after(theirs)?,
                        None => head,
                    };
                    self.are_level(head);
                    return Ok(());
                }
                Verdict::NotStored => {
                    self.lock().open = None;
                    return Err(failed());
                }
                // Somebody else holds one of them, and the other one has it.
                Verdict::Fenced if outcomes.contains(&Outcome::Stored) => {
                    return Err(undecided().because(failed().to_string()));
                }
                Verdict::Fenced => return Err(failed()),
                Verdict::Corrupt => {
                    return Err(Error::corrupt(
                        "somebody else writes to one of the two databases of the migration",
                    )
                    .because(failed().to_string()));
                }
                Verdict::Again(lacking) => {
                    self.lock().open.get_or_insert_with(|| Arc::new(commit.clone()));
                    let is_over = until.saturating_duration_since(Instant::now()) <= PAUSE;
                    if is_over || self.lost().is_some() {
                        return Err(undecided().because(failed().to_string()));
                    }
                    sleep(PAUSE).await;
                    for which in [Which::First, Which::Second] {
                        let at = index(which);
                        if !lacking.get(at).copied().unwrap_or_default() {
                            continue;
                        }
                        let theirs = match which {
                            Which::First => Ask::Store(Arc::new(commit.clone())),
                            Which::Second => match &theirs {
                                Some(theirs) => Ask::Store(theirs.clone()),
                                None => continue,
                            },
                        };
                        let again = self.again(which, (authority, &entry), theirs, until).await;
                        if let Some(outcome) = outcomes.get_mut(at) {
                            *outcome = outcome.then(outcome_of(&again));
                        }
                        error = again.err().or(error);
                    }
                }
            }
        }
    }

    /// Sends the identical commit to a side again, unless it has it.
    async fn again(
        &self,
        which: Which,
        (authority, entry): (&dyn Backend, &LogEntry),
        ask: Ask,
        until: Instant,
    ) -> Result<()> {
        let head = self.reopened(which, authority, until).await.map_err(|error| {
            Error::new(ErrorKind::OutcomeUnknown, "a side of the migration cannot be opened")
                .because(error)
        })?;
        let ask = match (head.position, head.commit) == (entry.position, entry.commit) {
            true => Ask::Confirm,
            false => ask,
        };
        match which {
            Which::First => carry_out(authority, &ask).await,
            Which::Second => self.ask(ask, until).await,
        }
    }

    /// Opens both sides anew, and has whoever lacks the last commit take it. Gives the head of the side that is
    /// written.
    ///
    /// # Errors
    /// Why one of them cannot be opened; `Corrupt` if they have different histories; those of any write.
    pub(crate) async fn reopen(&self, authority: &dyn Backend) -> Result<Head> {
        let until = self.deadline();
        let ours = self.reopened(Which::First, authority, until).await;
        let theirs = self.reopened(Which::Second, authority, until).await;
        let ours = ours?;
        let theirs = theirs.map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "the other side of the migration, which has to have every commit, cannot be opened",
            )
            .because(error)
        })?;
        let (here, there) = (Seen::of(&ours).place, Seen::of(&theirs).place);
        if here == there {
            self.are_level(theirs);
            return Ok(ours);
        }
        let forked = || Refusal::Forked(here, there).error();
        let open = self.lock().open.clone();
        if here.position == there.position.next() {
            let entries = feed::read(authority, theirs.position, ours.position, 1).await?;
            let entry = entries.first().ok_or_else(forked)?;
            let commit = apply::apply_in_step(&theirs, entry, ours.oldest_block)?;
            let head = theirs.after(&commit)?;
            self.ask(Ask::Store(Arc::new(commit)), until).await?;
            self.are_level(head);
            return Ok(ours);
        }
        // Only what this process sent to both can be there alone.
        let open = open.filter(|open| open.id() == Some(theirs.commit)).ok_or_else(forked)?;
        if open.expected != ours.position || there.position != here.position.next() {
            return Err(forked());
        }
        authority.commit(&open).await?;
        self.are_level(theirs);
        authority.head().await
    }

    /// Both have everything, and the follower stands here.
    fn are_level(&self, head: Head) {
        let mut known = self.lock();
        (known.head, known.open) = (head, None);
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.timeout).unwrap_or(now)
    }
}

fn index(which: Which) -> usize {
    match which {
        Which::First => 0,
        Which::Second => 1,
    }
}

fn outcome_of(stored: &Result<()>) -> Outcome {
    match stored {
        Ok(()) => Outcome::Stored,
        Err(error) => Outcome::of(error.kind()),
    }
}

fn slow(kind: ErrorKind) -> Error {
    Error::new(kind, "the other side of the migration does not answer in time")
}

fn undecided() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "not both databases of the migration are known to have the commit; nothing else is written before they \
         do",
    )
}
