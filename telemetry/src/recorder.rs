//! From what a store tells to instruments.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ghostwire_store_core::observe::{
    ConnectionStep, Event, Phases, Readings, Recorder, system_name,
};
use opentelemetry::metrics::{BoundHistogram, Counter};
use opentelemetry::{KeyValue, StringValue};

use crate::catalogue::attribute as key;
use crate::gauges::{self, Sources, StoreSource};
use crate::instruments::Instruments;
use crate::lock;

/// Takes what one store tells. What comes with every write has its attributes looked up once.
#[derive(Debug)]
pub(crate) struct StoreRecorder {
    instruments: Arc<Instruments>,
    sources: Arc<Sources>,
    source: Arc<StoreSource>,
    namespace: KeyValue,
    slow_after: Option<Duration>,
    slow_lines: Mutex<Sparse>,
    waits: BoundHistogram<f64>,
    commits: BoundHistogram<f64>,
    syncs: BoundHistogram<f64>,
    groups: BoundHistogram<f64>,
    sizes: BoundHistogram<f64>,
    /// Of commands that were not refused, by their names.
    commands: ArcSwap<HashMap<&'static str, BoundHistogram<f64>>>,
}

/// At most one line a second.
#[derive(Debug, Default)]
struct Sparse {
    last: Option<Instant>,
    left_out: u64,
}

impl Sparse {
    /// How many had no line since the last one that had; `None` if this one has none either.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let every = Duration::from_secs(1);
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < every) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

impl StoreRecorder {
    pub(crate) fn new(
        store: &str,
        instruments: Arc<Instruments>,
        sources: Arc<Sources>,
        slow_after: Option<Duration>,
    ) -> Self {
        let name = StringValue::from(Arc::<str>::from(store));
        let namespace = KeyValue::new(key::NAMESPACE, name.clone());
        let of = std::slice::from_ref(&namespace);
        // Its first one has to be seen as an increase.
        instruments.unknown.add(0, of);
        Self {
            waits: instruments.waits.bind(of),
            commits: instruments.commits.bind(of),
            syncs: instruments.syncs.bind(of),
            groups: instruments.groups.bind(of),
            sizes: instruments.sizes.bind(of),
            commands: ArcSwap::default(),
            source: Arc::new(StoreSource::new(name)),
            namespace,
            instruments,
            sources,
            slow_after,
            slow_lines: Mutex::default(),
        }
    }

    fn count(&self, counter: &Counter<u64>, labels: &[KeyValue]) {
        counter.add(1, &self.with(labels));
    }

    fn with(&self, labels: &[KeyValue]) -> Vec<KeyValue> {
        let own = std::iter::once(self.namespace.clone());
        own.chain(labels.iter().cloned()).collect()
    }

    fn command(&self, command: &'static str, took: f64, error: Option<&'static str>) {
        let label = || KeyValue::new(key::COMMAND, command);
        if let Some(error) = error {
            let labels = self.with(&[label(), KeyValue::new(key::ERROR, error)]);
            return self.instruments.commands.record(took, &labels);
        }
        if let Some(bound) = self.commands.load().get(command) {
            return bound.record(took);
        }
        let bound = self.instruments.commands.bind(&self.with(&[label()]));
        bound.record(took);
        // There are fewer than a hundred kinds, so it is copied less often than that.
        self.commands.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(command).or_insert_with(|| bound.clone());
            known
        });
    }

    fn commit(&self, event: &Event<'_>) {
        let Event::Commit { commands, bytes, points, took, synced, compacted, error } = *event
        else {
            return;
        };
        match error {
            None => self.commits.record(took.as_secs_f64()),
            Some(error) => {
                let labels = self.with(&[KeyValue::new(key::ERROR, error)]);
                self.instruments.commits.record(took.as_secs_f64(), &labels);
            }
        }
        if let Some(synced) = synced {
            self.syncs.record(synced.as_secs_f64());
        }
        if let Some(compacted) = compacted {
            let of = std::slice::from_ref(&self.namespace);
            self.instruments.compactions.record(compacted.as_secs_f64(), of);
        }
        self.groups.record(commands as f64);
        if bytes > 0 {
            self.sizes.record(bytes as f64);
        }
        if points > 0 && error.is_none() {
            self.instruments.points.add(points as u64, std::slice::from_ref(&self.namespace));
        }
    }

    fn slow(&self, event: &Event<'_>) {
        let Event::Slow { command, took, phases, batch, backlog } = *event else { return };
        self.count(&self.instruments.slow, &[KeyValue::new(key::COMMAND, command)]);
        // After a disk that hung there are thousands.
        let Some(left_out) = lock(&self.slow_lines).admit(Instant::now()) else { return };
        let Phases { queue, decide, encode, commit, synced, publish } = *phases;
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        tracing::warn!(
            name: "slow_command",
            target: "ghostwire_store::slow",
            store = %self.source.name(),
            command,
            total_ms = millis(took),
            queue_ms = millis(queue),
            decide_ms = millis(decide),
            encode_ms = millis(encode),
            commit_ms = millis(commit),
            fsync_ms = synced.map(millis),
            publish_ms = millis(publish),
            batch,
            backlog,
            left_out = (left_out > 0).then_some(left_out),
            "a write took long"
        );
    }
}

impl Recorder for StoreRecorder {
    fn namespace(&self) -> Option<&str> {
        match &self.namespace.value {
            opentelemetry::Value::String(name) => Some(name.as_str()),
            _ => None,
        }
    }

    fn record(&self, event: &Event<'_>) {
        let instruments = &*self.instruments;
        let label = |key: &'static str, value: &'static str| KeyValue::new(key, value);
        let failure = |labels: &mut Vec<KeyValue>, error: Option<&'static str>| {
            labels.extend(error.map(|error| label(key::ERROR, error)));
        };
        match *event {
            Event::Command { command, took, error } => {
                self.command(command, took.as_secs_f64(), error);
            }
            Event::Waited(waited) => self.waits.record(waited.as_secs_f64()),
            Event::Commit { .. } => self.commit(event),
            Event::Slow { .. } => self.slow(event),
            Event::Call { backend, operation, collection, took, error } => {
                let mut labels = self.with(&[
                    label(key::SYSTEM, system_name(backend)),
                    label(key::BACKEND, backend),
                    label(key::OPERATION, operation),
                ]);
                labels.extend(collection.map(|table| label(key::COLLECTION, table)));
                failure(&mut labels, error);
                instruments.calls.record(took.as_secs_f64(), &labels);
            }
            Event::QueueFull => self.count(&instruments.rejections, &[]),
            Event::UnknownOutcome => self.count(&instruments.unknown, &[]),
            Event::Recovery => self.count(&instruments.recoveries, &[]),
            Event::Checkpoint { took } => {
                self.source.checkpointed();
                if let Some(took) = took {
                    instruments.checkpoints.record(took.as_secs_f64(), &self.with(&[]));
                }
            }
            Event::Verification { kind, took, error } => {
                let mut labels = self.with(&[label(key::CREDENTIAL, kind)]);
                instruments.verification_times.record(took.as_secs_f64(), &labels);
                failure(&mut labels, error);
                instruments.verifications.add(1, &labels);
            }
            Event::WatchEnded { reason } => {
                self.count(&instruments.watch_ended, &[label(key::REASON, reason)]);
            }
            Event::SeriesReplaced { took, error, .. } => {
                let mut labels = self.with(&[]);
                failure(&mut labels, error);
                instruments.series_replaced.record(took.as_secs_f64(), &labels);
            }
            Event::SeriesRemoved { points } => instruments.removed.add(points, &self.with(&[])),
            Event::Job { job, took, items, error } => {
                let mut labels = vec![label(key::JOB, job)];
                instruments.job_times.record(took.as_secs_f64(), &labels);
                instruments.job_items.add(items, &labels);
                failure(&mut labels, error);
                instruments.job_runs.add(1, &labels);
                if error.is_none() {
                    self.sources.job_succeeded(job);
                }
            }
            Event::Reload { error } => self.sources.reloaded(error.is_none()),
            Event::AdminRequest { method, took, error } => {
                let mut labels = vec![label(key::METHOD, method)];
                failure(&mut labels, error);
                instruments.admin_requests.record(took.as_secs_f64(), &labels);
            }
            Event::AdminConnection { opened } => self.sources.admin_connection(opened),
            Event::AdminRejected { reason } => {
                instruments.admin_rejections.add(1, &[label(key::REASON, reason)]);
            }
            Event::Connection { step, took } => {
                let times = match step {
                    ConnectionStep::Created => &instruments.connection_create,
                    ConnectionStep::Waited => &instruments.connection_wait,
                    ConnectionStep::Used => &instruments.connection_use,
                };
                times.record(took.as_secs_f64(), &self.with(&[label(key::POOL, gauges::POOL)]));
            }
            Event::HttpRequest { method, route, status, took } => {
                let labels = [
                    label(key::HTTP_METHOD, method),
                    label(key::HTTP_ROUTE, route),
                    KeyValue::new(key::HTTP_STATUS, i64::from(status)),
                ];
                instruments.http_requests.record(took.as_secs_f64(), &labels);
            }
            _ => {}
        }
    }

    fn opened(&self, readings: Readings) {
        self.source.opened(readings);
        self.sources.add(&self.source);
    }

    fn slow_after(&self) -> Option<Duration> {
        self.slow_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_line_and_the_next_one_tells_how_many_had_none() {
        let begun = Instant::now();
        let mut lines = Sparse::default();
        let told = [0, 1, 999, 1000, 1001, 9000].map(|millis| {
            let now = begun + Duration::from_millis(millis);
            lines.admit(now)
        });
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
