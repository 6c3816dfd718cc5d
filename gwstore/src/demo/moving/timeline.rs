//! What happened while the network moved, and how long those who wrote waited.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use ghostwire_store::migration::{Stage, Status};
use serde::Serialize;

use super::child::Sums;
use crate::demo::table::time;

/// For how long a bar of the page stands.
pub(super) const BUCKET_MS: u64 = 100;

/// What happened, and how it stood right after.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Event {
    /// Since the beginning.
    pub(super) at_ms: u64,
    pub(super) what: String,
    pub(super) stage: &'static str,
    /// The backend that is served.
    pub(super) backend: String,
    /// Commits that the other side lacks, while there is one.
    pub(super) lag: Option<u64>,
    /// Writes that were acknowledged until then.
    pub(super) acknowledged: usize,
    /// Of those since the event before, what somebody waited for longest.
    pub(super) longest_wait_micros: u64,
}

/// Where the network is.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) status: Option<Box<Status>>,
    pub(super) backend: String,
}

impl Standing {
    fn stage(&self) -> Stage {
        match &self.status {
            Some(status) => status.stage,
            None if self.backend == "libsql" => Stage::SourceOnly,
            None => Stage::TargetOnly,
        }
    }
}

/// The events so far, and the writes.
#[derive(Debug)]
pub(super) struct Timeline {
    begun: Instant,
    pub(super) events: Vec<Event>,
    acknowledged: Vec<String>,
    /// The newest commit that anybody knows of who was answered.
    pub(super) serial: u64,
    longest_micros: u64,
    longest_since_event: u64,
    /// The longest wait of those that ended in each [`BUCKET_MS`].
    waits: Vec<u64>,
}

impl Timeline {
    pub(super) fn begin() -> Self {
        Self {
            begun: Instant::now(),
            events: Vec::new(),
            acknowledged: Vec::new(),
            serial: 0,
            longest_micros: 0,
            longest_since_event: 0,
            waits: Vec::new(),
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(super) fn acknowledge(&mut self, at: Instant, name: String, serial: u64, micros: u64) {
        self.acknowledged.push(name);
        self.serial = self.serial.max(serial);
        self.longest_micros = self.longest_micros.max(micros);
        self.longest_since_event = self.longest_since_event.max(micros);
        let at = millis(at.saturating_duration_since(self.begun)) / BUCKET_MS;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if at >= self.waits.len() {
            self.waits.resize(at.saturating_add(1), 0);
        }
        if let Some(wait) = self.waits.get_mut(at) {
            *wait = (*wait).max(micros);
        }
    }

    pub(super) fn happened(&mut self, what: String, standing: &Standing) {
        self.events.push(Event {
            at_ms: millis(self.begun.elapsed()),
            what,
            stage: standing.stage().name(),
            backend: standing.backend.clone(),
            lag: standing.status.as_ref().and_then(|status| status.lag),
            acknowledged: self.acknowledged.len(),
            longest_wait_micros: std::mem::take(&mut self.longest_since_event),
        });
    }

    /// What was acknowledged and is not there.
    pub(super) fn missing(&self, known: usize, found: Vec<String>) -> Vec<&str> {
        let found: HashSet<String> = found.into_iter().collect();
        let acknowledged = self.acknowledged.iter().take(known).map(String::as_str);
        acknowledged.filter(|name| !found.contains(*name)).collect()
    }

    pub(super) fn end(self, killed: Killed, digests: Sums) -> Moved {
        Moved {
            millis: millis(self.begun.elapsed()),
            acknowledged: self.acknowledged.len(),
            missing: 0,
            killed,
            longest_wait_micros: self.longest_micros,
            digests,
            timeline: self.events,
            longest_waits_per_100_ms_micros: self.waits,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When the process was killed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Killed {
    /// How far the copy was.
    pub(super) during: String,
    /// Writes that were acknowledged before.
    pub(super) acknowledged: usize,
}

/// What the move came to.
#[derive(Debug, Clone, Serialize)]
pub(in crate::demo) struct Moved {
    pub(super) millis: u64,
    pub(super) acknowledged: usize,
    /// Writes that were acknowledged and are not there: one would have ended the demonstration.
    pub(super) missing: usize,
    pub(super) killed: Killed,
    /// Whoever was being served when the process was killed had no answer, and does not count.
    pub(super) longest_wait_micros: u64,
    pub(super) digests: Sums,
    pub(super) timeline: Vec<Event>,
    pub(super) longest_waits_per_100_ms_micros: Vec<u64>,
}

impl Moved {
    pub(in crate::demo) fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "\nA network that moves from libsql to zqlite while it is served:\n")?;
        let heads = ("time", "event", "stage", "served", "lag", "written", "longest wait");
        let (at, what, stage, served, lag, written, wait) = heads;
        writeln!(out, "{at:>8}  {what:<38} {stage:<12} {served:<6}{lag:>5}{written:>9}{wait:>14}")?;
        writeln!(out, "{}", "-".repeat(95))?;
        for event in &self.timeline {
            let at = seconds(event.at_ms);
            let lag = event.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string());
            let wait = shown(event.longest_wait_micros);
            let Event { what, stage, backend, acknowledged, .. } = event;
            writeln!(
                out,
                "{at:>8}  {what:<38} {stage:<12} {backend:<6}{lag:>5}{acknowledged:>9}{wait:>14}"
            )?;
        }
        writeln!(out)?;
        for (name, value) in self.facts() {
            writeln!(out, "{name:<24}{value}")?;
        }
        Ok(())
    }

    /// What is said of the move as a whole.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        vec![
            ("killed", format!("with SIGKILL, {}", self.killed.during)),
            (
                "after the kill",
                format!("{} acknowledged writes, 0 missing", self.killed.acknowledged),
            ),
            (
                "at the end",
                format!(
                    "{} acknowledged writes, {} missing, after {}",
                    self.acknowledged,
                    self.missing,
                    seconds(self.millis)
                ),
            ),
            (
                "longest write wait",
                format!("{}, apart from the kill", shown(self.longest_wait_micros)),
            ),
            ("digests", "equal on both sides, and after reopening the target alone".to_owned()),
            ("state", self.digests.state.clone()),
            ("metrics", self.digests.metrics.clone()),
            ("audit", self.digests.audit.clone()),
        ]
    }
}

/// A time since the beginning.
pub(super) fn seconds(millis: u64) -> String {
    format!("{}.{:02} s", millis / 1000, millis % 1000 / 10)
}

/// A wait.
#[allow(clippy::cast_precision_loss)] // Nobody waits for 2^53 microseconds.
pub(super) fn shown(micros: u64) -> String {
    match micros {
        0 => "-".to_owned(),
        micros => time(micros as f64),
    }
}

/// A move with some of everything.
#[cfg(test)]
pub(super) fn example() -> Moved {
    let mut timeline = Timeline::begin();
    let standing = Standing { status: None, backend: "libsql".to_owned() };
    let at = timeline.begun + Duration::from_millis(250);
    timeline.acknowledge(at, "move-1-0-0".to_owned(), 7, 1_500);
    timeline.happened("opened <\"&'> again".to_owned(), &standing);
    let standing = Standing { status: None, backend: "zqlite".to_owned() };
    timeline.happened("the target is left alone".to_owned(), &standing);
    let digest = "0".repeat(64);
    let digests = Sums { state: digest.clone(), metrics: digest.clone(), audit: digest };
    let during = "while 12345678 of 123456789 rows were copied".to_owned();
    timeline.end(Killed { during, acknowledged: 1 }, digests)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_named() {
        let mut timeline = Timeline::begin();
        for (name, serial) in [("b", 9), ("a", 8), ("c", 3)] {
            timeline.acknowledge(Instant::now(), name.to_owned(), serial, 1);
        }
        assert_eq!((timeline.acknowledged(), timeline.serial), (3, 9));
        let found = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(timeline.missing(3, found(&["c", "other"])), ["b", "a"]);
        // What came after what is asked about.
        assert_eq!(timeline.missing(1, found(&["other"])), ["b"]);
        // What was written and not answered may be there.
        assert!(timeline.missing(3, found(&["a", "b", "c", "other"])).is_empty());
    }

    #[test]
    fn waits_count_for_their_event_and_for_their_tenth_of_a_second() {
        let moved = example();
        assert_eq!(moved.longest_waits_per_100_ms_micros, [0, 0, 1_500]);
        let waits = moved.timeline.iter().map(|event| event.longest_wait_micros);
        assert_eq!(waits.collect::<Vec<_>>(), [1_500, 0]);
        let stages = moved.timeline.iter().map(|event| event.stage);
        assert_eq!(stages.collect::<Vec<_>>(), ["source-only", "target-only"]);
        assert_eq!(seconds(61_239), "61.23 s");
    }

    #[test]
    fn it_fits_100_columns() {
        let mut out = Vec::new();
        example().write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for wanted in ["SIGKILL", "0 missing", "1.50 ms", "target-only"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
