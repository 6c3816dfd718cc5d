//! The names that Prometheus' own client libraries give to what a process uses: stock panels and rules look
//! for them.

use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

use crate::process::Process;

/// Their names, and what they say.
const NAMES: [(&str, MetricType, &str); 6] = [
    ("process_cpu_seconds_total", MetricType::COUNTER, "Processor time of user and system."),
    ("process_resident_memory_bytes", MetricType::GAUGE, "Resident memory."),
    ("process_virtual_memory_bytes", MetricType::GAUGE, "Address space."),
    ("process_open_fds", MetricType::GAUGE, "Open file descriptors."),
    ("process_max_fds", MetricType::GAUGE, "How many file descriptors there may be."),
    ("process_start_time_seconds", MetricType::GAUGE, "When the process began, since the epoch."),
];

/// This process, under the classic names.
pub(crate) fn families() -> impl Iterator<Item = MetricFamily> {
    let now = Process::now();
    let count = |count: Option<u64>| count.map(|count| count as f64);
    let values = [
        now.cpu.map(|(user, system)| user + system),
        count(now.resident),
        count(now.virtual_memory),
        count(now.descriptors),
        count(now.max_descriptors),
        now.started,
    ];
    let family = |((name, kind, help), value): ((&str, MetricType, &str), Option<f64>)| {
        let mut metric = Metric::default();
        if kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value?);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value?);
            metric.set_gauge(gauge);
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![metric]);
        Some(family)
    };
    NAMES.into_iter().zip(values).filter_map(family)
}
