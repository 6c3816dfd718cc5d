//! The instruments that events are written to.

use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::catalogue::{self as m, Kind, Metric};

/// One for each metric that is not read off at the moment of export.
#[derive(Debug)]
pub(crate) struct Instruments {
    pub(crate) calls: Histogram<f64>,
    pub(crate) commands: Histogram<f64>,
    pub(crate) slow: Counter<u64>,
    pub(crate) waits: Histogram<f64>,
    pub(crate) rejections: Counter<u64>,
    pub(crate) commits: Histogram<f64>,
    pub(crate) syncs: Histogram<f64>,
    pub(crate) groups: Histogram<f64>,
    pub(crate) sizes: Histogram<f64>,
    pub(crate) unknown: Counter<u64>,
    pub(crate) recoveries: Counter<u64>,
    pub(crate) checkpoints: Histogram<f64>,
    pub(crate) verifications: Counter<u64>,
    pub(crate) verification_times: Histogram<f64>,
    pub(crate) watch_ended: Counter<u64>,
    pub(crate) points: Counter<u64>,
    pub(crate) series_replaced: Histogram<f64>,
    pub(crate) removed: Counter<u64>,
    pub(crate) compactions: Histogram<f64>,
    pub(crate) job_runs: Counter<u64>,
    pub(crate) job_times: Histogram<f64>,
    pub(crate) job_items: Counter<u64>,
    pub(crate) admin_requests: Histogram<f64>,
    pub(crate) admin_rejections: Counter<u64>,
    pub(crate) http_requests: Histogram<f64>,
    pub(crate) connection_create: Histogram<f64>,
    pub(crate) connection_wait: Histogram<f64>,
    pub(crate) connection_use: Histogram<f64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let histogram = |metric| histogram(meter, metric);
        let counter = |metric| counter(meter, metric);
        Self {
            calls: histogram(&m::CALLS),
            commands: histogram(&m::COMMAND_DURATION),
            slow: counter(&m::COMMANDS_SLOW),
            waits: histogram(&m::QUEUE_WAIT),
            rejections: counter(&m::QUEUE_REJECTIONS),
            commits: histogram(&m::COMMIT_DURATION),
            syncs: histogram(&m::FSYNC),
            groups: histogram(&m::COMMIT_COMMANDS),
            sizes: histogram(&m::COMMIT_SIZE),
            unknown: counter(&m::UNKNOWN_OUTCOMES),
            recoveries: counter(&m::RECOVERIES),
            checkpoints: histogram(&m::CHECKPOINT_DURATION),
            verifications: counter(&m::VERIFICATIONS),
            verification_times: histogram(&m::VERIFICATION_DURATION),
            watch_ended: counter(&m::WATCH_ENDED),
            points: counter(&m::POINTS),
            series_replaced: histogram(&m::SERIES_REPLACED),
            removed: counter(&m::POINTS_REMOVED),
            compactions: histogram(&m::COMPACTION),
            job_runs: counter(&m::JOB_RUNS),
            job_times: histogram(&m::JOB_DURATION),
            job_items: counter(&m::JOB_ITEMS),
            admin_requests: histogram(&m::ADMIN_DURATION),
            admin_rejections: counter(&m::ADMIN_REJECTIONS),
            http_requests: histogram(&m::HTTP_DURATION),
            connection_create: histogram(&m::CONNECTION_CREATE),
            connection_wait: histogram(&m::CONNECTION_WAIT),
            connection_use: histogram(&m::CONNECTION_USE),
        }
    }
}

fn histogram(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    let bounds = match metric.kind {
        Kind::Histogram(bounds) => bounds.to_vec(),
        Kind::Counter | Kind::Gauge => Vec::new(),
    };
    let builder = meter.f64_histogram(metric.name).with_unit(metric.unit);
    builder.with_description(metric.help).with_boundaries(bounds).build()
}

fn counter(meter: &Meter, metric: &Metric) -> Counter<u64> {
    meter.u64_counter(metric.name).with_unit(metric.unit).with_description(metric.help).build()
}
