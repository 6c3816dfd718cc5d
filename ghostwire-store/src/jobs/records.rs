//! What came of the jobs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ghostwire_store_core::domain::Timestamp;
use serde::{Serialize, Serializer};

use super::{Job, JobRun};

/// What came of one job since the process began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobRecord {
    /// Which one.
    pub job: Job,
    /// How often it is done; `None` is never. In seconds where it is serialised, like all durations here.
    #[serde(rename = "every_seconds", serialize_with = "seconds")]
    pub every: Option<Duration>,
    /// How often it ended.
    pub runs: u64,
    /// How often it failed.
    pub failures: u64,
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// How long it took when it last ended.
    #[serde(rename = "last_duration_seconds", serialize_with = "seconds")]
    pub last_duration: Option<Duration>,
    /// How many entities or rows the last run that succeeded was about. Of retention it is not known.
    pub last_items: Option<u64>,
    /// All of them together.
    pub items: u64,
    /// Why the last run failed; `None` if it did not.
    pub last_error: Option<String>,
    /// Since when it is being done.
    pub running_since: Option<Timestamp>,
    /// How often it was due and left to another instance, or not done because this one was over. Those are no
    /// runs.
    pub skipped: u64,
    /// When that was so last.
    pub last_skipped: Option<Timestamp>,
}

impl JobRecord {
    fn new(job: Job) -> Self {
        Self {
            job,
            every: None,
            runs: 0,
            failures: 0,
            last_success: None,
            last_duration: None,
            last_items: None,
            items: 0,
            last_error: None,
            running_since: None,
            skipped: 0,
            last_skipped: None,
        }
    }

    fn note(&mut self, run: &JobRun) {
        self.runs += 1;
        self.running_since = None;
        self.last_duration = Some(run.took);
        match &run.outcome {
            Ok(items) => {
                self.last_success = Some(run.at);
                self.last_items = *items;
                self.items += items.unwrap_or(0);
                self.last_error = None;
            }
            Err(error) => {
                self.failures += 1;
                self.last_error = Some(error.to_string());
            }
        }
    }
}

/// What came of all jobs. Clones share it.
#[derive(Debug, Clone)]
pub struct Records(Arc<Mutex<[JobRecord; Job::ALL.len()]>>);

impl Records {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Job::ALL.map(JobRecord::new))))
    }

    fn lock(&self) -> MutexGuard<'_, [JobRecord; Job::ALL.len()]> {
        // What is in there is whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As it is now, in the order of [`Job::ALL`].
    #[must_use]
    pub fn snapshot(&self) -> Vec<JobRecord> {
        self.lock().to_vec()
    }

    fn change(&self, job: Job, change: impl FnOnce(&mut JobRecord)) {
        if let Some(record) = self.lock().iter_mut().find(|record| record.job == job) {
            change(record);
        }
    }

    pub(super) fn planned(&self, job: Job, every: Option<Duration>) {
        self.change(job, |record| record.every = every);
    }

    pub(super) fn begun(&self, job: Job, at: Timestamp) {
        self.change(job, |record| record.running_since = Some(at));
    }

    pub(super) fn skipped(&self, job: Job, at: Timestamp) {
        self.change(job, |record| {
            record.skipped += 1;
            record.last_skipped = Some(at);
        });
    }

    pub(super) fn ended(&self, run: &JobRun) {
        self.change(run.job, |record| record.note(run));
    }
}

fn seconds<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}
