//! Whether a store can do its work: in which condition it is, why, and what helps.
//!
//! [`Store::health`](crate::Store::health) tells it from memory, and
//! [`Store::check_health`](crate::Store::check_health) after a probe of the disk. What follows from what is
//! a pure function (`rules`); what is to be known comes from the writer (`vital`).
//!
//! Two questions, which are not the same:
//! - **Ready** ([`Health::is_ready`]): may requests be sent here? Every check has to pass.
//! - **Live** ([`Health::is_live`]): would a restart of the process help? Only a writer that is dead or
//!   stuck says no, and a store whose files were moved away and are back. A full disk, a slow one, damage and a file that somebody else holds are no better after
//!   one.

mod loading;
mod probe;
mod rules;
mod vital;

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::block::Serial;
use crate::domain::Timestamp;
use crate::error::Error;
use crate::position::{Epoch, Position};

pub use loading::LoadProgress;
pub(crate) use probe::Prober;
pub(crate) use rules::{Ended, Facts, assess};
pub(crate) use vital::{Commits, Vital};

/// What a store can do right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// It is being opened.
    Loading,
    /// Everything.
    Ready,
    /// It may only be read: so it was opened, or another database has taken over.
    ReadOnly,
    /// Some check does not pass, for none of the other reasons.
    Degraded,
    /// How the last commit ended is not known: nothing is written until the backend was reopened and
    /// compared. Reads go on.
    Poisoned,
    /// It is being closed: what was accepted is completed, and nothing more is.
    Draining,
    /// It has ended: it was closed, its writer failed, or another copy of it runs.
    Stopped,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Loading,
        Self::Ready,
        Self::ReadOnly,
        Self::Degraded,
        Self::Poisoned,
        Self::Draining,
        Self::Stopped,
    ];

    /// A stable name in snake case, fit for a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::ReadOnly => "read_only",
            Self::Degraded => "degraded",
            Self::Poisoned => "poisoned",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// What has to be so for a store to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// It is opened.
    Loaded,
    /// The last probe or commit was stored; see [`Store::probe`](crate::Store::probe). What is older than three
    /// intervals of probes and a deadline says nothing any more.
    Writable,
    /// The file system has room for more than the next commits: 16 MiB.
    DiskSpace,
    /// It is known how every commit ended.
    NotPoisoned,
    /// The view is new enough to trust that a revoked credential is revoked.
    ViewFresh,
    /// It is not being closed.
    NotDraining,
}

impl CheckName {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 6] = [
        Self::Loaded,
        Self::Writable,
        Self::DiskSpace,
        Self::NotPoisoned,
        Self::ViewFresh,
        Self::NotDraining,
    ];

    /// A stable name in snake case, fit for a path and a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Writable => "writable",
            Self::DiskSpace => "disk_space",
            Self::NotPoisoned => "not_poisoned",
            Self::ViewFresh => "view_fresh",
            Self::NotDraining => "not_draining",
        }
    }

    /// The check of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is as it has to be.
    Passed,
    /// It is not.
    Failed,
    /// There is nothing to check: a store that was opened to be read need not be writable.
    NotApplicable,
    /// It was not looked at yet, or not of late.
    Unknown,
}

/// A check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which one.
    pub name: CheckName,
    /// What came of it.
    pub outcome: Outcome,
    /// If it failed, why: without paths and other facts about the machine, so that it may be shown to
    /// whoever asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// If it failed, what helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_step: Option<&'static str>,
}

impl Check {
    /// Whether it keeps the store from being ready.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.outcome == Outcome::Failed
    }
}

/// The last thing that went wrong in what the store does by itself: a commit, a flush, upkeep. A command
/// that is refused by a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// What was done: `commit`, `probe`, `confirm`, `flush`, `maintain`.
    pub operation: &'static str,
    /// [`ErrorKind::name`](crate::ErrorKind::name).
    pub kind: &'static str,
    /// The whole error, with its facts.
    pub message: String,
}

/// The last probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Probed {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, as a write would have; in seconds where it is serialised.
    #[serde(rename = "took_seconds", serialize_with = "seconds")]
    pub took: Duration,
    /// Why it was not stored; `None` if it was.
    pub error: Option<String>,
}

/// Where a store stands. None of it makes it more or less healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The backend's name in configuration.
    pub backend: &'static str,
    /// What does the storing.
    pub engine: String,
    /// The version of the stored schema.
    pub schema: u32,
    /// The epoch in which it writes.
    pub epoch: Epoch,
    /// How many commits changed what is stored.
    pub position: Position,
    /// The last durable block.
    pub serial: Serial,
    /// The serial up to which the tables are complete.
    pub checkpoint: Serial,
    /// When the checkpoint was last moved; since it was opened, where nothing was left to flush then.
    pub checkpoint_at: Option<Timestamp>,
    /// Dirty rows that wait to be flushed.
    pub dirty_rows: u64,
    /// How many of them may wait before writers are slowed down.
    pub max_dirty_rows: u64,
    /// How long ago the view was known to be the newest; 0 unless other processes may write.
    #[serde(rename = "view_age_seconds", serialize_with = "seconds")]
    pub view_age: Duration,
    /// Free bytes of the file system, where there is one.
    pub free_bytes: Option<u64>,
}

/// Whether a store can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What it can do.
    pub state: Condition,
    /// Whether every check passes.
    pub ready: bool,
    /// Whether a restart would not help.
    pub live: bool,
    /// Why it is not ready, or only to be read; empty for a store that is.
    pub reason: Option<String>,
    /// What helps.
    pub next_step: Option<&'static str>,
    /// What was checked, in the order of [`CheckName::ALL`].
    pub checks: Vec<Check>,
    /// How far it is opened, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_rows: Option<u64>,
    /// Where it stands, once it is opened.
    pub store: Option<Standing>,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// The last probe.
    pub probe: Option<Probed>,
}

impl Health {
    /// Whether requests may be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether a restart would not help.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// What came of a check.
    #[must_use]
    pub fn check(&self, name: CheckName) -> Option<&Check> {
        self.checks.iter().find(|check| check.name == name)
    }

    /// The same of a store that is going to be closed, and takes requests for a little longer.
    #[must_use]
    pub fn draining(mut self) -> Self {
        if self.state == Condition::Stopped {
            return self;
        }
        let drained = assess(&Facts { is_closing: true, ..Facts::default() });
        self.checks.retain(|check| check.name != CheckName::NotDraining);
        self.checks.extend(drained.check(CheckName::NotDraining).cloned());
        let Self { state, ready, reason, next_step, .. } = drained;
        Self { state, ready, reason, next_step, ..self }
    }

    /// Of a store that is being opened.
    #[must_use]
    pub fn loading(progress: &LoadProgress) -> Self {
        let facts = Facts { loading: Some(progress.rows()), ..Facts::default() };
        Self { loaded_rows: Some(progress.rows()), ..assess(&facts) }
    }

    /// Of a store that could not be opened.
    #[must_use]
    pub fn not_opened(error: &Error) -> Self {
        assess(&Facts { ended: Some(Ended::NotOpened(told(error))), ..Facts::default() })
    }
}

/// An error without the facts that belong to this machine.
fn told(error: &Error) -> String {
    format!("{}: {}", error.kind().name(), error.message())
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
