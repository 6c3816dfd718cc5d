//! What a store needs done now and then, on a schedule: ephemeral nodes reaped, what expired swept away,
//! series kept as short as configured, rows brought up to the last block.
//!
//! The store has no timers. A control plane that holds one runs [`Jobs`] beside it, as `gwstore serve`
//! does:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use ghostwire_store::config::Config;
//! use ghostwire_store::jobs::{Jobs, Plan};
//! use ghostwire_store::{Opener, shutdown};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ghostwire_store::Result<()> {
//! let config = Config::default();
//! let store = Opener::new(&config).open().await?;
//! let jobs = Jobs::new(store.clone(), Plan::of(&config));
//! let records = jobs.records();
//! let mut signals = shutdown::Signals::listen()?;
//! tokio::select! {
//!     () = jobs.run() => {}
//!     _ = signals.next() => {}
//! }
//! println!("{:?}", records.snapshot());
//! shutdown::drain(store.as_ref(), std::time::Duration::from_secs(30)).await
//! # }
//! ```
//!
//! Where several control planes share a store, one of them does the jobs: of the
//! [instances](crate::Store::instances) that live the one that began first. Each says which one it is
//! ([`Jobs::instance`], or [`Jobs::following_instance`] for a process that begins anew), and has to beat.
//! Before a job that is due it looks whether another instance began before; the job is left to that one then,
//! and looked at again after its interval, or after a minute if that is shorter. So the next one takes over as soon
//! as it looks after the first has ended, or was not seen for
//! [30 seconds](crate::domain::Instance::LOST_AFTER). One that has just started looks first when the job is due
//! first, after a tenth of its interval. Nothing is lost in between, and nothing goes wrong if two
//! do a job for a moment: each job is a series of ordinary commands, which find nothing to do the second time.
//! But every instance on the store has to do its jobs so: one that lives and runs none keeps the others from them.

mod duty;
mod records;
mod run;
mod schedule;

use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, SeriesOptions};

pub use duty::{Duty, whose_turn};
pub use records::{JobRecord, Records};
pub use run::{JobRun, Jobs};

/// What is done now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Removes ephemeral nodes that have been absent for longer than the network settings say.
    Reap,
    /// Removes sessions and sign-ins that expired, and keys that have been expired or revoked for as long
    /// as [`Plan::keep_expired`].
    Sweep,
    /// Prunes the series; see [`apply_retention`](crate::apply_retention).
    Retention,
    /// Brings every block into rows; see [`Store::checkpoint`](crate::Store::checkpoint).
    Checkpoint,
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reap, Self::Sweep, Self::Retention, Self::Checkpoint];

    /// A stable name in snake case, fit for a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reap => "reap",
            Self::Sweep => "sweep",
            Self::Retention => "retention",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// How often each job is done, and by which rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// See [`Job::Reap`]; `None` is never.
    pub reap: Option<Duration>,
    /// See [`Job::Sweep`]; `None` is never.
    pub sweep: Option<Duration>,
    /// See [`Job::Retention`]; `None` is never.
    pub retention: Option<Duration>,
    /// See [`Job::Checkpoint`]; `None` is never.
    pub checkpoint: Option<Duration>,
    /// For how long keys that no longer work are kept to be looked at.
    pub keep_expired: Duration,
    /// How long series are kept.
    pub series: SeriesOptions,
}

impl Plan {
    /// As the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let every = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        let jobs = &config.jobs;
        Self {
            reap: every(jobs.reap_seconds),
            sweep: every(jobs.sweep_seconds),
            retention: every(jobs.retention_seconds),
            checkpoint: every(jobs.checkpoint_seconds),
            keep_expired: Duration::from_secs(jobs.keep_expired_days.saturating_mul(86_400)),
            series: config.series.clone(),
        }
    }

    /// How often this job is done.
    #[must_use]
    pub fn every(&self, job: Job) -> Option<Duration> {
        match job {
            Job::Reap => self.reap,
            Job::Sweep => self.sweep,
            Job::Retention => self.retention,
            Job::Checkpoint => self.checkpoint,
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::of(&Config::default())
    }
}
