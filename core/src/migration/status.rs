//! Where a migration stands, in words for people.

use serde::{Deserialize, Serialize};

use super::record::{Part, Role};
use super::seat::Occupant;
use super::step::{Pair, Seen};
use crate::domain::Timestamp;
use crate::position::{Epoch, Position};

/// How far a migration is, in words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The source is served, and no migration is under way.
    SourceOnly,
    /// The target is becoming a copy.
    Filling,
    /// The target follows the source, which is served.
    Mirror,
    /// The target is served, and the source follows.
    TargetReads,
    /// The target is served alone: there is no way back.
    TargetOnly,
    /// A step was interrupted, and is ended as soon as both sides answer.
    Between,
    /// One side is served, and the other one has not answered since this process opened both. Only its own record tells
    /// how complete its copy is.
    Unknown,
}

impl Stage {
    /// What two records say. The first side is the source, unless one says otherwise.
    pub(super) fn of(pair: &Pair) -> Self {
        let records = [pair.first, pair.second].map(|seen| seen.map(|seen| seen.record));
        let active = records.iter().flatten().find(|record| record.role.is_active());
        let follower = records.iter().flatten().find(|record| !record.role.is_active());
        let Some(active) = active else { return Self::Between };
        let is_source = active.membership.is_none_or(|membership| membership.part == Part::Source);
        match (active.role, follower.map(|record| record.role)) {
            (Role::ActiveAlone, Some(Role::Retired)) => Self::TargetOnly,
            // It went on without the other one, which is there again and becomes a copy.
            (Role::ActiveAlone, Some(_)) if active.membership.is_some() => Self::Filling,
            (Role::ActiveAlone, None) if active.membership.is_some() => Self::Unknown,
            (Role::ActiveAlone, _) => Self::SourceOnly,
            (_, Some(Role::Filling | Role::None)) => Self::Filling,
            (_, Some(Role::PassiveAsync | Role::PassiveSync)) if is_source => Self::Mirror,
            (_, Some(Role::PassiveAsync | Role::PassiveSync)) => Self::TargetReads,
            (_, None) => Self::Unknown,
            _ => Self::Between,
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceOnly => "source-only",
            Self::Filling => "filling",
            Self::Mirror => "mirror",
            Self::TargetReads => "target-reads",
            Self::TargetOnly => "target-only",
            Self::Between => "between",
            Self::Unknown => "unknown",
        }
    }
}

/// A migration, for dashboards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MigrationInfo {
    /// Whether one is under way.
    pub under_way: bool,
    /// Whether an answer means that both databases have it.
    pub in_step: bool,
    /// How many commits the one that follows lacks of these, as far as is known: one that cannot be reached has
    /// what it had. `None` before anybody has looked.
    pub lag: Option<u64>,
    /// How often one side went on without the other one by itself since the store was opened.
    pub fallbacks: u64,
}

/// One of the two databases.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SideStatus {
    /// Which.
    pub side: String,
    /// Its backend.
    pub backend: String,
    /// Where it is.
    pub location: Option<String>,
    /// Whether it answers. What follows is what it was when it last did, if not.
    pub answers: bool,
    /// What it says of itself; [`UNKNOWN`](Self::UNKNOWN) if it has not answered so far.
    pub role: String,
    /// In which epoch.
    pub epoch: Epoch,
    /// How many commits it has.
    pub position: Position,
}

impl SideStatus {
    /// The role of a side that has not answered since this process has it open.
    pub const UNKNOWN: &str = "unknown";

    /// What it says.
    pub(super) fn of(side: &Occupant, seen: &Seen, answers: bool) -> Self {
        let info = side.backend.info();
        Self {
            side: seen.side.to_string(),
            backend: info.name.to_owned(),
            location: info.location,
            answers,
            role: seen.record.role.name().to_owned(),
            epoch: seen.record.epoch,
            position: seen.place.position,
        }
    }

    /// The other side of `served` where nobody has seen it yet.
    pub(super) fn unknown(side: &Occupant, served: &Seen) -> Self {
        let info = side.backend.info();
        Self {
            side: served.record.membership.map_or_else(String::new, |it| it.peer.to_string()),
            backend: info.name.to_owned(),
            location: info.location,
            answers: false,
            role: Self::UNKNOWN.to_owned(),
            epoch: served.record.epoch,
            position: Position::ZERO,
        }
    }
}

/// How far the copy is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct CopyStatus {
    /// Rows that were copied.
    pub rows: u64,
    /// Rows that there were when it began; 0 while they are counted.
    pub total: u64,
    /// Rows a second since this process took it up.
    pub per_second: u64,
    /// How long the rest takes at that rate.
    pub seconds_left: Option<u64>,
}

/// What is being done, and for whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Running {
    /// What.
    pub what: String,
    /// Who asked for it.
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

/// Where a migration stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The stage.
    pub stage: Stage,
    /// Which migration; none before it began and after it ended.
    pub migration: Option<String>,
    /// Where the network was.
    pub source: SideStatus,
    /// Where it is to be.
    pub target: SideStatus,
    /// Which of the two is served.
    pub served: String,
    /// At most how many commits the other one lacks: while it does not answer, it is taken for what it was when it last
    /// did. `None` if it has not answered so far, or if the one that is served does not.
    pub lag: Option<u64>,
    /// Whether an answer means that both have it.
    pub in_step: bool,
    /// How far the copy is, while it is made.
    pub copy: Option<CopyStatus>,
    /// What is being done at the moment.
    pub running: Option<Running>,
    /// How long nobody was served at the last hand-over, in milliseconds.
    pub last_stall_ms: Option<u64>,
    /// Why the copy has fallen behind, or is not made, at the moment.
    pub last_error: Option<String>,
    /// How often one side went on by itself, since the other one was lost.
    pub fallbacks: u64,
    /// Which one was lost then, and why, the last time.
    pub last_fallback: Option<String>,
}
