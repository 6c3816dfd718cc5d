//! Keeps one store's log short, and knows what to say about it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ghostwire_store_core::backend::{LogIndex, LogInfo};
use ghostwire_store_core::error::{Error, ErrorKind, Result};

use super::gate::{Gate, Inside, Interrupt};
use super::policy::{Checkpoint, LogLimits, Notice, PATIENCE, Policy, Step};
use super::survey::Survey;
use super::tail::Tail;
use crate::{failed, has_log, sync_directory, with_suffix};

/// How to checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `PASSIVE`: waits for nobody.
    Passive,
    /// `TRUNCATE`, without waiting: a reader in the way is `busy` at once.
    TruncateAtOnce,
}

/// The connection that writes. SQLite 3.47.0 has a fault where several connections checkpoint, so no
/// other may.
pub(crate) trait Checkpointer {
    /// Runs `PRAGMA wal_checkpoint`.
    ///
    /// # Errors
    /// Those of SQLite; a reader that is in the way is none.
    fn checkpoint(&mut self, mode: Mode) -> Result<Checkpoint>;
}

/// What a store does about its log. It lives as long as the store is open, whatever becomes of
/// connections.
///
/// # Checkpoints that fail
/// SQLite remembers how much of a log it has moved before that is synchronised. If the disk then
/// fails, the kernel may drop a page that SQLite takes for moved, and a later checkpoint that
/// succeeds would let the log, which has the only copy, be overwritten. So after an error other than
/// a full disk nothing is moved any more through what SQLite remembers
/// (`require_trusted`), until every connection is closed, without a checkpoint, and the
/// log read anew: then all of it is moved again.
#[derive(Debug)]
pub struct LogKeeper {
    path: PathBuf,
    gate: Gate,
    /// What SQLite remembers of moved pages is not to be relied upon.
    distrusted: AtomicBool,
    /// The next connection will read the log anew.
    reads_anew: AtomicBool,
    /// It held commits before an engine opened it: whoever wrote them did not close the store.
    was_left: bool,
    state: Mutex<State>,
    /// Of its own, so that telling does not wait for a checkpoint.
    info: Mutex<LogInfo>,
}

#[derive(Debug)]
struct State {
    policy: Policy,
    tail: Tail,
    /// Whether the last checkpoint failed: only the first of several is told.
    is_failing: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogKeeper {
    /// Of the store at `path`, whose log was looked at before an engine opened it.
    pub(crate) fn new(path: &Path, found: Survey, index: LogIndex) -> Self {
        if let Some(missing) = found.missing {
            tracing::warn!(
                path = %path.display(),
                reason = missing.reason(),
                frames = found.frames,
                "the log ended before its last frame: acknowledged commits may be missing. Compare \
                 the serial with what others know of it; restore a backup if it is behind"
            );
        }
        let log = with_suffix(path, "-wal");
        Self {
            path: path.to_owned(),
            gate: Gate::default(),
            distrusted: AtomicBool::new(false),
            reads_anew: AtomicBool::new(false),
            was_left: found.frames > 0,
            state: Mutex::new(State {
                policy: Policy::new(LogLimits::default()),
                tail: Tail::new(log),
                is_failing: false,
            }),
            info: Mutex::new(LogInfo {
                ended_early: found.missing.is_some(),
                index,
                ..LogInfo::default()
            }),
        }
    }

    /// Other limits than the usual ones.
    pub fn set_limits(&self, limits: LogLimits) {
        lock(&self.state).policy = Policy::new(limits);
    }

    /// What there is to say about it now.
    #[must_use]
    pub fn info(&self) -> LogInfo {
        let bytes = fs::metadata(self.log()).map_or(0, |metadata| metadata.len());
        LogInfo { bytes, ..*lock(&self.info) }
    }

    /// Whether an earlier process left it, with commits in it.
    #[must_use]
    pub fn was_left(&self) -> bool {
        self.was_left
    }

    fn log(&self) -> PathBuf {
        with_suffix(&self.path, "-wal")
    }

    /// Lets a reader of this process in. It is to be held as long as the reader's transaction, and by
    /// nobody who is inside already.
    pub(crate) fn enter(&self) -> Inside<'_> {
        self.gate.enter(None)
    }

    /// As [`LogKeeper::enter`], for a transaction that takes longer than a page does: it is interrupted
    /// when the log is so long that readers are held out.
    pub(crate) fn enter_until_held(&self, interrupt: Interrupt) -> Inside<'_> {
        self.gate.enter(Some(interrupt))
    }

    /// Interrupts those that take long, because somebody waits for all readers to end.
    pub(crate) fn end_long_reads(&self) {
        drop(self.gate.hold(PATIENCE));
    }

    /// Refuses after a checkpoint that failed, until [`LogKeeper::settle`] succeeds on connections
    /// that were opened since.
    pub(crate) fn require_trusted(&self) -> Result<()> {
        if self.is_trusted() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the disk failed while the log was moved into the file; the store has to be reopened, \
             nothing is lost",
        ))
    }

    /// Whether connections may move the log when they are closed.
    pub(crate) fn is_trusted(&self) -> bool {
        !self.distrusted.load(Ordering::Acquire)
    }

    /// To be called when the last connection of this process was closed, and before the next is
    /// opened. If no other process has one, SQLite will read the log anew, and forget which of its
    /// pages it has moved.
    pub(crate) fn all_closed(&self) {
        let index = with_suffix(&self.path, "-shm");
        self.reads_anew.store(is_used_by_nobody(&index), Ordering::Release);
    }

    /// Whether the file alone is the store: to be asked when the last connection of this process was
    /// closed.
    ///
    /// # Errors
    /// `Busy` if another program has the store open, or its log was not moved.
    pub(crate) fn require_unused(&self) -> Result<()> {
        if !has_log(&self.path) && is_used_by_nobody(&with_suffix(&self.path, "-shm")) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Busy,
            "another program has the store open, so that its log cannot be moved into the file; \
             `lsof` on the file of this name with `-shm` behind it names the program: end it",
        )
        .with("path", self.path.display()))
    }

    /// To be called when the connection that writes was opened: the log may be another file now.
    pub(crate) fn connected(&self) {
        lock(&self.state).tail.forget();
    }

    /// To be called after a commit that was stored: moves the log when it is time. What fails is
    /// counted and told, and no error of the commit, which is durable in the log.
    pub(crate) fn after_commit(&self, writer: &mut dyn Checkpointer) {
        if !self.is_trusted() {
            return;
        }
        let mut state = lock(&self.state);
        let State { policy, tail, .. } = &mut *state;
        // Mostly it is short, and how short does not matter.
        if tail.reaches(policy.checkpoint_at()).is_ok_and(|reaches| !reaches) {
            return;
        }
        let bytes = tail.measure().unwrap_or_else(|error| {
            tracing::debug!(path = %self.path.display(), %error, "the log cannot be measured");
            tail.forget();
            self.info().bytes
        });
        if policy.committed(bytes) == Step::Rest {
            return;
        }
        let notice = match writer.checkpoint(Mode::Passive) {
            Ok(outcome) => match policy.moved(outcome) {
                (Step::Cut, _) => self.cut(policy, writer),
                (_, notice) => Ok(notice),
            },
            Err(error) => Err(error),
        };
        self.note(&mut state, &notice);
    }

    /// Checkpoints while no reader of this process is in the way.
    fn cut(&self, policy: &mut Policy, writer: &mut dyn Checkpointer) -> Result<Option<Notice>> {
        let outcome = match self.gate.hold(policy.patience()) {
            Some(_held) => Some(writer.checkpoint(Mode::TruncateAtOnce)?),
            None => None,
        };
        Ok(policy.cut(outcome))
    }

    fn note(&self, state: &mut State, notice: &Result<Option<Notice>>) {
        let path = self.path.display();
        match notice {
            Ok(Some(Notice::Held { bytes })) => tracing::warn!(
                %path,
                bytes,
                "somebody's open transaction keeps the store's log growing: another program's, such \
                 as a shell or a backup. `lsof` on the file of this name with `-shm` behind it names the \
                 programs; end that transaction before the disk is full"
            ),
            Ok(Some(Notice::Released { commits })) => {
                tracing::info!(%path, commits, "the store's log is no longer held");
            }
            Ok(None) => {}
            Err(error) => self.failed(state.is_failing, error),
        }
        state.is_failing = notice.is_err();
        let mut info = lock(&self.info);
        (info.held, info.held_commits) = (state.policy.held, state.policy.held_commits);
        info.failed_checkpoints += u64::from(notice.is_err());
    }

    fn failed(&self, is_known: bool, error: &Error) {
        // Whether a write finds room is known at once, and a lock is not about pages.
        let is_harmless = matches!(error.kind(), ErrorKind::Exhausted | ErrorKind::Busy);
        if !is_harmless {
            self.distrusted.store(true, Ordering::Release);
        }
        if !is_known {
            tracing::warn!(
                path = %self.path.display(),
                %error,
                "the store's log cannot be moved into its file; it grows meanwhile"
            );
        }
    }

    /// See [`Database::settle`](crate::Database::settle).
    pub(crate) fn settle(&self, writer: &mut dyn Checkpointer) -> Result<()> {
        const WHAT: &str = "what an earlier process wrote cannot be made durable";
        // By its name: a checkpoint synchronises the log only if there is something to move that
        // no reader is in the way of. Nobody locks the log, so closing it harms nobody.
        if !self.is_trusted() && !self.reads_anew.swap(false, Ordering::AcqRel) {
            return Err(Error::new(
                ErrorKind::Busy,
                "the disk failed while the log was moved into the file, and another program has the \
                 store open; end that program, so that the log can be read anew",
            ));
        }
        let log = self.log();
        match File::open(&log).and_then(|log| log.sync_all()) {
            Ok(()) => sync_directory(&log)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(WHAT, &log, error)),
        }
        let mut state = lock(&self.state);
        state.tail.forget();
        self.distrusted.store(false, Ordering::Release);
        let settled = writer.checkpoint(Mode::Passive).map(|_| None);
        self.note(&mut state, &settled);
        match settled {
            Err(error) if *error.kind() != ErrorKind::Exhausted => Err(error),
            _ => Ok(()),
        }
    }

    /// Moves all of the log at the end, if it may be moved.
    ///
    /// # Errors
    /// Those of the disk; then the log has to be left to the next opening, as after
    /// [`LogKeeper::require_trusted`].
    pub(crate) fn finish(&self, move_all: impl FnOnce() -> Result<()>) -> Result<()> {
        self.require_trusted()?;
        let moved = move_all();
        if let Err(error) = &moved {
            self.failed(false, error);
        }
        moved
    }
}

/// Whether no process has the index of a log locked, as every connection does. Only for a process
/// that has none: its locks would end with this.
#[cfg(unix)]
pub(super) fn is_used_by_nobody(index: &Path) -> bool {
    use rustix::fs::{FlockOperation, fcntl_lock};
    match File::options().write(true).open(index) {
        Ok(index) => fcntl_lock(&index, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(not(unix))]
pub(super) fn is_used_by_nobody(_: &Path) -> bool {
    true
}
