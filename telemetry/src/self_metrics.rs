//! What telemetry says about itself: what was sent, what waits, and what was lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::catalogue::{self as m, attribute as key};
use crate::gauges::observe;
use crate::lock;

/// Counts of exports.
#[derive(Debug, Default)]
pub(crate) struct SelfMetrics {
    /// Spans that wait or are being sent.
    pub(crate) queued: AtomicU64,
    /// How many may; 0 if none are sent at all.
    pub(crate) capacity: AtomicU64,
    spans: Outcomes,
    points: Outcomes,
    processed: AtomicU64,
    dropped: AtomicU64,
}

/// How many were sent, and how many could not be and why.
#[derive(Debug, Default)]
struct Outcomes(Mutex<BTreeMap<Option<&'static str>, u64>>);

impl Outcomes {
    fn add(&self, error: Option<&'static str>, count: u64) {
        *lock(&self.0).entry(error).or_default() += count;
    }

    fn each(&self, mut tell: impl FnMut(Option<&'static str>, u64)) {
        lock(&self.0).iter().for_each(|(error, count)| tell(*error, *count));
    }
}

impl SelfMetrics {
    /// A span ended. Whether there is room for it.
    pub(crate) fn admits(&self) -> bool {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let room = |queued: u64| (queued < capacity).then_some(queued + 1);
        let admitted = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        let counter = if admitted { &self.processed } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
        admitted
    }

    /// So many spans were sent, or could not be.
    pub(crate) fn spans_sent(&self, count: u64, error: Option<&'static str>) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
        self.spans.add(error, count);
    }

    /// So many data points were sent, or could not be.
    pub(crate) fn points_sent(&self, count: u64, error: Option<&'static str>) {
        self.points.add(error, count);
    }
}

pub(crate) fn register(meter: &Meter, own: &Arc<SelfMetrics>) {
    let failure = |error: &'static str| KeyValue::new(key::ERROR, error);
    let of = own.clone();
    observe(meter, &m::SPANS_EXPORTED, move |to| {
        of.spans.each(|error, count| {
            to.observe(count as f64, error.map(failure).as_slice());
        });
    });
    let of = own.clone();
    observe(meter, &m::POINTS_EXPORTED, move |to| {
        of.points.each(|error, count| {
            to.observe(count as f64, error.map(failure).as_slice());
        });
    });
    let of = own.clone();
    observe(meter, &m::SPAN_QUEUE, move |to| {
        to.observe(of.queued.load(Ordering::Relaxed) as f64, &[]);
    });
    let of = own.clone();
    observe(meter, &m::SPAN_QUEUE_CAPACITY, move |to| {
        to.observe(of.capacity.load(Ordering::Relaxed) as f64, &[]);
    });
    let of = own.clone();
    observe(meter, &m::SPANS_DROPPED, move |to| {
        to.observe(of.processed.load(Ordering::Relaxed) as f64, &[]);
        to.observe(of.dropped.load(Ordering::Relaxed) as f64, &[failure("queue_full")]);
    });
    observe(meter, &m::LOG_EVENTS, |to| {
        for (level, count) in crate::logs::counts() {
            to.observe(count as f64, &[KeyValue::new(key::LEVEL, level)]);
        }
    });
    observe(meter, &m::LOG_DROPPED, |to| to.observe(crate::logs::dropped() as f64, &[]));
}
