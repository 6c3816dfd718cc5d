//! What was found: the model that the reports and other programs share.

use serde::{Deserialize, Serialize};

use crate::Spread;
use crate::data::Content;
use crate::subject::{About, Progress};
use crate::{Kind, Operation};

/// Everything one call of the suite found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub settings: Settings,
    pub tables: Vec<Measured>,
    /// What each subject takes to open and to be kept open.
    pub openings: Vec<Opening>,
    /// What several processes on one database come to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<OfProcesses>,
    /// How fast one store on a database follows another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub following: Option<OfFollowing>,
    pub reach: Vec<Reach>,
}

/// What the machine tells about itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub kernel: String,
    /// Of the program that ran the suite.
    pub allocator: String,
    pub file_system: String,
    pub device: String,
    /// 4 KiB written over a file's beginning and made durable, microseconds.
    pub fdatasync_us: Spread,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `quick`, `default` or `full`.
    pub effort: String,
    pub rounds: usize,
    pub seconds: f64,
}

/// One thing to measure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub operation: Operation,
    /// By how many callers at once; for reads, on how many threads.
    pub callers: usize,
    pub content: Content,
    /// How long, at least.
    pub seconds: f64,
    /// How many checkpoints a registration run spans at least, where there are any.
    pub checkpoints: u64,
}

impl Case {
    pub fn title(&self) -> String {
        let by = match (self.operation.kind(), self.callers) {
            (Kind::Read, 1) => "1 thread".to_owned(),
            (Kind::Read, threads) => format!("{threads} threads"),
            (_, 1) => "1 caller".to_owned(),
            (_, callers) => format!("{} callers", grouped(callers as u64)),
        };
        let content = &self.content;
        let held = [
            (content.nodes, "nodes"),
            (u64::from(content.routes), "routes"),
            (content.points, "points"),
            (content.audit, "audit lines"),
        ];
        let held: Vec<String> = held
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", grouped(count)))
            .collect();
        let among = if held.is_empty() { "an empty store".to_owned() } else { held.join(", ") };
        format!("{}; {by}; {among}", self.operation.title())
    }
}

/// A whole number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What one run of one subject came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Run {
    pub seconds: f64,
    pub count: u64,
    /// How many rows one of them gave; 0 for writes.
    #[serde(default)]
    pub items: f64,
    /// Half of the calls took at most so many microseconds.
    pub p50_us: Option<f64>,
    /// 99 of 100 calls did. Calls that are too short to be timed one by one have none.
    pub p99_us: Option<f64>,
    /// Where the subject's background work stood at the beginning and at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<(Progress, Progress)>,
    /// Processor time, microseconds an operation: of the store's writer, and of all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<(f64, f64)>,
    /// The same of the database server's processes, where there is one on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpu_us: Option<f64>,
    /// Bytes of all files after it.
    #[serde(default)]
    pub bytes_on_disk: u64,
    /// Mean bytes of the blocks that made groups durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_bytes: Option<f64>,
    /// Median microseconds of appending as many bytes to a plain file and making them durable, right
    /// after this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bare_sync_us: Option<f64>,
    /// The pre-auth keys ran out before the time did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ran_out: bool,
}

impl Run {
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.count as f64 / self.seconds } else { 0.0 }
    }

    /// Commits of a subject that tells, in the measured time.
    pub fn groups(&self) -> u64 {
        self.progress.map_or(0, |(first, last)| last.groups.saturating_sub(first.groups))
    }

    /// Checkpoints of a subject that tells, in the measured time.
    pub fn checkpoints(&self) -> u64 {
        self.progress.map_or(0, |(first, last)| last.checkpoints.saturating_sub(first.checkpoints))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub case: Case,
    pub subjects: Vec<OfSubject>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfSubject {
    pub about: About,
    pub runs: Vec<Run>,
    /// Why there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

impl OfSubject {
    pub fn spread(&self, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure))
    }

    pub fn some(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        let figures: Vec<f64> = self.runs.iter().filter_map(figure).collect();
        (!figures.is_empty()).then(|| Spread::of(figures))
    }

    /// How many times as many operations a second as another subject did in the same round.
    pub fn ratio_to(&self, other: &Self) -> Option<Spread> {
        let pairs = self.runs.iter().zip(&other.runs);
        let ratios: Vec<f64> = pairs
            .filter(|(_, other)| other.rate() > 0.0)
            .map(|(run, other)| run.rate() / other.rate())
            .collect();
        (!ratios.is_empty()).then(|| Spread::of(ratios))
    }
}

/// The subject that the others are compared with.
pub const DIRECT: &str = "libsql-crate";

/// Those on a PostgreSQL server: this store, and the `sqlx` crate with 16 connections and with one.
pub const ON_POSTGRES: &str = "postgres";
pub const SQLX_POOL: &str = "sqlx-postgres-16";
pub const SQLX_ONE: &str = "sqlx-postgres-1";

pub const ALL_ON_POSTGRES: [&str; 3] = [ON_POSTGRES, SQLX_POOL, SQLX_ONE];

impl About {
    /// Whether it keeps nothing in files of its own.
    pub fn is_on_a_server(&self) -> bool {
        ALL_ON_POSTGRES.contains(&self.name.as_str())
    }
}

impl Measured {
    pub fn of(&self, name: &str) -> Option<&OfSubject> {
        self.subjects.iter().find(|of| of.about.name == name && !of.runs.is_empty())
    }
}

/// What a subject takes to open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    pub about: About,
    pub nodes: u64,
    /// Until it could be used.
    pub seconds: Spread,
    /// The whole process, resident, before it was opened.
    pub resident_before_bytes: Spread,
    pub resident_bytes: Spread,
    pub bytes_on_disk: u64,
}

/// Several processes that write to one store at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfProcesses {
    pub processes: usize,
    /// Of each process.
    pub callers: usize,
    /// Writes a second of all of them together.
    pub rate: Spread,
    /// Writes of a commit.
    pub group: Spread,
    /// The share of the process that wrote least, of an equal one.
    pub least_share: Spread,
    /// Processor time of all processes, microseconds a write.
    pub cpu_us: Spread,
    pub server_cpu_us: Option<Spread>,
}

/// How long after a commit was acknowledged by one store another one on the same database has it in its view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfFollowing {
    /// In each round.
    pub commits: u64,
    /// Half of the commits took at most so many microseconds.
    pub p50_us: Spread,
    /// 99 of 100 did.
    pub p99_us: Spread,
}

/// A goal, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    pub target: String,
    /// What was measured; why not, if it was not.
    pub measured: String,
    /// Whether it was; `None` if it was not measured.
    pub reached: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: f64, count: u64) -> Run {
        Run { seconds, count, ..Run::default() }
    }

    fn of(runs: Vec<Run>) -> OfSubject {
        let about = About {
            name: "a".to_owned(),
            backend: "b".to_owned(),
            materialize: "-".to_owned(),
            durability: "fsync".to_owned(),
            shares_commits: false,
            allocator: "glibc".to_owned(),
        };
        OfSubject { about, runs, left_out: None }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let fast = of(vec![run(1.0, 30), run(2.0, 200)]);
        let slow = of(vec![run(1.0, 10), run(1.0, 20), run(0.0, 0)]);
        let ratio = fast.ratio_to(&slow);
        assert_eq!(ratio, Some(Spread { least: 3.0, median: 4.0, most: 5.0 }));
        assert_eq!(fast.ratio_to(&of(vec![run(0.0, 0)])), None);
    }

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn results_survive_json() {
        let run = Run { p50_us: Some(1.5), progress: Some(Default::default()), ..run(1.0, 2) };
        let text = serde_json::to_string(&of(vec![run.clone()])).unwrap_or_default();
        let back: OfSubject = serde_json::from_str(&text).unwrap_or_else(|_| of(Vec::new()));
        assert_eq!(back.runs, [run]);
    }
}
