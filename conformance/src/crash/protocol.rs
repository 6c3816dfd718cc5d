//! The protocol of a process that will be killed: its job as an argument, and a message on each
//! line of its output.

use crate::prelude::*;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

/// What a child does at a place until it is killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    /// The name of the backend's factory.
    pub(super) factory: String,
    /// What [`Place::location`](crate::Place::location) gave.
    pub(super) location: String,
    /// Whether rows are written with each commit.
    pub(super) at_once: bool,
    /// The seed of its random choices.
    pub(super) seed: u64,
    pub(super) task: Task,
}

impl Job {
    pub(super) fn new(
        factory: &dyn Factory,
        location: &str,
        at_once: bool,
        effort: Effort,
        task: Task,
    ) -> Self {
        let (factory, location) = (factory.name().to_owned(), location.to_owned());
        Self { factory, location, at_once, seed: effort.seed, task }
    }

    pub(super) fn materialize(&self) -> Materialize {
        if self.at_once { Materialize::Commit } else { Materialize::Checkpoint }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Several callers make random writes.
    Work {
        /// How often a process was started here before; later rounds are at later times.
        round: u32,
    },
    /// The same beside another process that does so, too: callers whose numbers begin with `first`, and nothing that
    /// concerns everybody.
    Share {
        round: u32,
        first: u8,
        /// The server is going to be killed: a call that failed then may have happened.
        loses_server: bool,
    },
    /// Only opens the store.
    Open,
    /// Brings in this file.
    Import { file: String },
    /// Writes, and exports into this directory meanwhile.
    Export { directory: String, round: u32 },
}

/// A message of a child.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Message {
    /// The process runs.
    Here,
    /// The store is open.
    Opened,
    /// This call is next.
    Intent { caller: u8, op: Op },
    /// It was acknowledged, with this result.
    Done { caller: u8, done: Done },
    /// It was refused: the name of the error's kind.
    Refused { caller: u8, kind: String },
    /// This many batches of an import are acknowledged.
    Imported { batches: usize },
    /// The export of this number begins.
    Exporting { number: u32 },
    /// It is complete.
    Exported { number: u32 },
    /// There is nothing left to do.
    Finished,
}

impl Message {
    /// Writes the line at once.
    pub(super) fn send(&self) {
        let mut line = serde_json::to_vec(self).expect("a line has a JSON form");
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // The parent is gone.
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(0);
        }
    }
}

/// One call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Op {
    /// A write to the state. Ids that the store draws are not the ones in here.
    Write(Command),
    /// All or none of these. They name their ids themselves.
    Transact(Vec<Command>),
    Record(Vec<MetricPoint>),
    Batch {
        writer: WriterId,
        sequence: u64,
        points: Vec<MetricPoint>,
    },
    Append(Vec<AuditEntry>),
    PruneMetrics(Timestamp),
    PruneAudit(Timestamp),
    Checkpoint,
    Verify,
}

/// The result of a call that was acknowledged.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Done {
    /// The command with the ids that the store drew.
    pub(super) command: Option<Command>,
    /// The addresses that new nodes were given.
    pub(super) addresses: Vec<(NodeId, Addresses)>,
}

pub(super) type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);
