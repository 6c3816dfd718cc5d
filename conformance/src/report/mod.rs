//! What a run came to.

use crate::prelude::*;

mod html;

/// How one trial ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "message")]
pub enum Outcome {
    /// As it has to be.
    Passed,
    /// Skipped, for the reason that the file of exceptions gives.
    Excepted(String),
    /// Not as it has to be, with what was found.
    Failed(String),
}

/// A case or check that was run on one backend.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Trial {
    /// The backend.
    pub backend: String,
    /// The layers on top of it.
    pub stack: String,
    /// What happened to the store in between; `None` for a check, which sees to that itself.
    pub mode: Option<Mode>,
    /// The line of the contract.
    pub rule: String,
    /// What is shown of it.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, in seconds.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
}

impl Trial {
    /// The case: its rule and its name.
    #[must_use]
    pub fn case(&self) -> String {
        format!("{}/{}", self.rule, self.name)
    }
}

/// Everything that was run.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// In the order in which they ended.
    pub trials: Vec<Trial>,
}

impl Report {
    /// How many passed, failed, and were excepted.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let failed = self.failures().count();
        let is_excepted = |trial: &&Trial| matches!(trial.outcome, Outcome::Excepted(_));
        let excepted = self.trials.iter().filter(is_excepted).count();
        (self.trials.len() - failed - excepted, failed, excepted)
    }

    /// Those that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| matches!(trial.outcome, Outcome::Failed(_)))
    }
}

fn seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}
