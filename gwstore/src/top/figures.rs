//! From two texts of metrics to what happened between them. Pure.

use std::time::Duration;

use serde::Serialize;

use super::text::Samples;

/// So many kinds of writes are shown.
const MOST_COMMANDS: usize = 12;

/// What happened between two moments, and how things stand at the second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// The seconds between the two.
    pub(super) seconds: f64,
    pub(super) store: Option<String>,
    pub(super) version: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) state: Option<String>,
    pub(super) failed_checks: Vec<String>,
    pub(super) serial: Option<f64>,
    pub(super) commits_per_second: Option<f64>,
    pub(super) commands_per_second: Option<f64>,
    pub(super) refused_per_second: Option<f64>,
    pub(super) rejected_by_queue_per_second: Option<f64>,
    /// Writes in a commit, on average.
    pub(super) batch_size: Option<f64>,
    pub(super) latency: Vec<Latency>,
    pub(super) queue_size: Option<f64>,
    pub(super) queue_limit: Option<f64>,
    pub(super) backlog_rows: Option<f64>,
    pub(super) checkpoint_age_seconds: Option<f64>,
    pub(super) watchers: Option<f64>,
    pub(super) watch_lag_commits: Option<f64>,
    pub(super) view_age_seconds: Option<f64>,
    pub(super) unknown_outcomes: Option<f64>,
    pub(super) recoveries: Option<f64>,
    pub(super) nodes_online: Option<f64>,
    pub(super) nodes: Option<f64>,
    pub(super) file_bytes: Option<f64>,
    pub(super) free_bytes: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    /// Errors of any kind, by kind, with the most frequent first.
    pub(super) errors_per_second: Vec<(String, f64)>,
    /// Kinds of writes, the most frequent first.
    pub(super) commands: Vec<CommandRate>,
    pub(super) jobs: Vec<JobAge>,
}

/// How long something took, of that which ended between the two moments; `None` if nothing did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) of: &'static str,
    pub(super) p50: Option<f64>,
    pub(super) p90: Option<f64>,
    pub(super) p99: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CommandRate {
    pub(super) command: String,
    pub(super) per_second: f64,
    pub(super) refused_per_second: f64,
    pub(super) p99: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct JobAge {
    pub(super) job: String,
    /// Since it last ended well; `None` if it did not.
    pub(super) success_age_seconds: Option<f64>,
    pub(super) failures: f64,
}

const STATE: &str = "ghostwire_store_state";
const ERROR: &str = "error_type";
const COMMAND: &str = "ghostwire_store_command";
const COMMAND_DURATION: &str = "ghostwire_store_command_duration_seconds";
const LATENCIES: [(&str, &str); 4] = [
    ("command", COMMAND_DURATION),
    ("queue wait", "ghostwire_store_queue_wait_duration_seconds"),
    ("commit", "ghostwire_store_commit_duration_seconds"),
    ("fsync", "ghostwire_store_fsync_duration_seconds"),
];

impl Figures {
    /// `now` is seconds since the epoch at the second moment.
    pub(super) fn between(before: &Samples, after: &Samples, elapsed: Duration, now: f64) -> Self {
        let span = Span { before, after, seconds: elapsed.as_secs_f64() };
        let label = |name: &str, label: &str| after.values_of(name, label).into_iter().next();
        let build = "ghostwire_store_build_info";
        let is_of = |value| move |labels: &Labels| labels.get(STATE).is_some_and(|of| of == value);
        let nodes = "ghostwire_store_node_count";
        let ephemeral = "ghostwire_store_node_ephemeral_count";
        let both = |of: &dyn Fn(&str) -> Option<f64>| add(of(nodes), of(ephemeral));
        Self {
            seconds: span.seconds,
            store: label(build, "db_namespace"),
            version: label(build, "service_version"),
            backend: label(build, "ghostwire_store_backend"),
            state: named(after, STATE, STATE, 1.0).into_iter().next(),
            failed_checks: named(
                after,
                "ghostwire_store_healthcheck_status",
                "ghostwire_store_check",
                0.0,
            ),
            serial: after.sum("ghostwire_store_serial"),
            commits_per_second: span.rate("ghostwire_store_commit_duration_seconds_count"),
            commands_per_second: span.rate(&count(COMMAND_DURATION)),
            refused_per_second: span.rate_where(&count(COMMAND_DURATION), has_error),
            rejected_by_queue_per_second: span.rate("ghostwire_store_queue_rejections_total"),
            batch_size: span.mean("ghostwire_store_commit_commands"),
            latency: LATENCIES.map(|(of, name)| span.latency(of, name)).into(),
            queue_size: after.sum("ghostwire_store_queue_size"),
            queue_limit: after.sum("ghostwire_store_queue_limit"),
            backlog_rows: after.sum("ghostwire_store_flush_backlog"),
            checkpoint_age_seconds: after
                .sum("ghostwire_store_checkpoint_last_success_timestamp_seconds")
                .map(|at| (now - at).max(0.0)),
            watchers: after.sum("ghostwire_store_watch_active"),
            watch_lag_commits: after.sum("ghostwire_store_watch_lag"),
            view_age_seconds: after.sum("ghostwire_store_view_age_seconds"),
            unknown_outcomes: after.sum("ghostwire_store_commit_unknown_outcomes_total"),
            recoveries: after.sum("ghostwire_store_recoveries_total"),
            nodes_online: both(&|name| after.sum_where(name, is_of("online"))),
            nodes: both(&|name| after.sum(name)),
            file_bytes: after.sum("ghostwire_store_file_size_bytes"),
            free_bytes: after.sum("ghostwire_store_filesystem_free_bytes"),
            memory_bytes: after.sum("process_resident_memory_bytes"),
            errors_per_second: span.errors(),
            commands: span.commands(),
            jobs: span.jobs(now),
        }
    }
}

type Labels = std::collections::BTreeMap<String, String>;

fn add(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

fn count(name: &str) -> String {
    format!("{name}_count")
}

fn has_error(labels: &Labels) -> bool {
    labels.get(ERROR).is_some_and(|error| !error.is_empty())
}

/// The values of a label where the sample is as wanted.
fn named(samples: &Samples, name: &str, label: &str, wanted: f64) -> Vec<String> {
    let is = samples.all(name).filter(|(_, value)| (value - wanted).abs() < 0.5);
    is.filter_map(|(labels, _)| labels.get(label).cloned()).collect()
}

/// Two moments.
struct Span<'s> {
    before: &'s Samples,
    after: &'s Samples,
    seconds: f64,
}

impl Span<'_> {
    /// How much a counter grew. One that is smaller than before began anew meanwhile.
    fn growth(&self, name: &str, is_wanted: impl Fn(&Labels) -> bool) -> Option<f64> {
        let after = self.after.sum_where(name, &is_wanted)?;
        let before = self.before.sum_where(name, &is_wanted).unwrap_or(0.0);
        Some(if after < before { after } else { after - before })
    }

    fn rate(&self, name: &str) -> Option<f64> {
        self.rate_where(name, |_| true)
    }

    fn rate_where(&self, name: &str, is_wanted: impl Fn(&Labels) -> bool) -> Option<f64> {
        let growth = self.growth(name, is_wanted)?;
        (self.seconds > 0.0).then(|| growth / self.seconds)
    }

    /// The mean of a histogram's values between the two.
    fn mean(&self, name: &str) -> Option<f64> {
        let sum = self.growth(&format!("{name}_sum"), |_| true)?;
        let count = self.growth(&count(name), |_| true)?;
        (count > 0.0).then(|| sum / count)
    }

    fn latency(&self, of: &'static str, name: &str) -> Latency {
        let buckets = self.buckets(name, |_| true);
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|quantile| quantile_of(&buckets, quantile));
        Latency { of, p50, p90, p99 }
    }

    /// Upper bounds, and how many of the values between the two came up to each, in order.
    fn buckets(&self, name: &str, is_wanted: impl Fn(&Labels) -> bool) -> Vec<(f64, f64)> {
        let name = format!("{name}_bucket");
        let bounds = self.after.values_of(&name, "le");
        let mut buckets: Vec<_> = bounds
            .iter()
            .filter_map(|le| {
                let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().ok()? };
                let is_of = |labels: &Labels| labels.get("le") == Some(le) && is_wanted(labels);
                Some((bound, self.growth(&name, is_of)?))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        buckets
    }

    fn errors(&self) -> Vec<(String, f64)> {
        let sources = [count(COMMAND_DURATION), count("ghostwire_store_commit_duration_seconds")];
        let mut errors: Vec<(String, f64)> = Vec::new();
        for name in &sources {
            for error in self.after.values_of(name, ERROR).into_iter().filter(|e| !e.is_empty()) {
                let is_of = |labels: &Labels| labels.get(ERROR) == Some(&error);
                let rate = self.rate_where(name, is_of).unwrap_or(0.0);
                match errors.iter_mut().find(|(known, _)| *known == error) {
                    Some((_, sum)) => *sum += rate,
                    None => errors.push((error, rate)),
                }
            }
        }
        errors.retain(|(_, rate)| *rate > 0.0);
        errors.sort_by(|one, other| other.1.total_cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        errors
    }

    fn commands(&self) -> Vec<CommandRate> {
        let name = count(COMMAND_DURATION);
        let mut commands: Vec<_> = self
            .after
            .values_of(&name, COMMAND)
            .into_iter()
            .filter_map(|command| {
                let is_of = |labels: &Labels| labels.get(COMMAND) == Some(&command);
                let per_second = self.rate_where(&name, is_of).filter(|rate| *rate > 0.0)?;
                let is_refused = |labels: &Labels| is_of(labels) && has_error(labels);
                let refused_per_second = self.rate_where(&name, is_refused).unwrap_or(0.0);
                let p99 = quantile_of(&self.buckets(COMMAND_DURATION, is_of), 0.99);
                Some(CommandRate { command, per_second, refused_per_second, p99 })
            })
            .collect();
        commands.sort_by(|one, other| {
            other
                .per_second
                .total_cmp(&one.per_second)
                .then_with(|| one.command.cmp(&other.command))
        });
        commands.truncate(MOST_COMMANDS);
        commands
    }

    fn jobs(&self, now: f64) -> Vec<JobAge> {
        const JOB: &str = "ghostwire_store_job";
        let runs = "ghostwire_store_job_runs_total";
        let last = "ghostwire_store_job_last_success_timestamp_seconds";
        let of = |job: String| {
            let is_of = |labels: &Labels| labels.get(JOB) == Some(&job);
            let is_failed = |labels: &Labels| is_of(labels) && has_error(labels);
            let at = self.after.sum_where(last, is_of);
            let failures = self.after.sum_where(runs, is_failed).unwrap_or(0.0);
            let success_age_seconds = at.map(|at| (now - at).max(0.0));
            JobAge { job, success_age_seconds, failures }
        };
        self.after.values_of(runs, JOB).into_iter().map(of).collect()
    }
}

/// The value that so large a part of the values does not exceed, as Prometheus estimates it: within a bucket
/// they are taken to be spread evenly, and one beyond the last bound is taken for that.
fn quantile_of(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
    let rank = quantile * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for &(upper, count) in buckets {
        if count >= rank {
            let share = if count > below { (rank - below) / (count - below) } else { 1.0 };
            return Some(if upper.is_finite() { lower + (upper - lower) * share } else { lower });
        }
        (lower, below) = (upper, count);
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::sample;
    use super::*;

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-9)
    }

    #[test]
    fn rates_are_what_grew() {
        let figures = sample::figures();
        assert!(near(figures.commands_per_second, 105.0), "{figures:?}");
        assert!(near(figures.refused_per_second, 5.0));
        assert!(near(figures.commits_per_second, 20.0));
        assert!(near(figures.batch_size, 5.0));
        assert_eq!(figures.state.as_deref(), Some("ready"));
        assert_eq!(figures.failed_checks, ["disk_space"]);
        assert_eq!(figures.errors_per_second, [("conflict".to_owned(), 5.0)]);
        let commands: Vec<_> = figures.commands.iter().map(|of| of.command.as_str()).collect();
        assert_eq!(commands, ["presence.heartbeat", "node.register"]);
        assert!(near(figures.checkpoint_age_seconds, 12.0));
        assert!(near(figures.nodes_online, 70.0) && near(figures.nodes, 100.0));
    }

    #[test]
    fn a_process_that_began_anew_counts_from_nothing() {
        let before = Samples::parse("ghostwire_store_command_duration_seconds_count 900\n");
        let after = Samples::parse("ghostwire_store_command_duration_seconds_count 30\n");
        let figures = Figures::between(&before, &after, Duration::from_secs(3), 0.0);
        assert!(near(figures.commands_per_second, 10.0));
    }

    #[test]
    fn percentiles_lie_within_their_bucket() {
        let buckets = [(0.001, 50.0), (0.002, 90.0), (0.004, 100.0), (f64::INFINITY, 100.0)];
        assert!(near(quantile_of(&buckets, 0.5), 0.001));
        assert!(near(quantile_of(&buckets, 0.7), 0.0015));
        assert!(near(quantile_of(&buckets, 0.95), 0.003));
        let beyond = [(0.001, 1.0), (f64::INFINITY, 100.0)];
        assert!(near(quantile_of(&beyond, 0.99), 0.001));
        assert_eq!(quantile_of(&[(0.1, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile_of(&[], 0.5), None);
    }

    #[test]
    fn what_nobody_measured_is_not_made_up() {
        let nothing = Samples::default();
        let figures = Figures::between(&nothing, &nothing, Duration::ZERO, 0.0);
        assert_eq!(figures.commands_per_second, None);
        assert!(figures.latency.iter().all(|latency| latency.p99.is_none()));
        assert!(figures.commands.is_empty() && figures.jobs.is_empty());
    }
}
