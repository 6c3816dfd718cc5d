//! Every metric that is exported: the one place where its name, unit and attributes are written.
//! `docs/observability.md` has the same for people, and a test compares the two.

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Is what it is at the moment.
    Gauge,
    /// How often values came up to each bound.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Its name, as the documentation has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// How far a metric can be relied upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Stays. One that is renamed is exported under both names for a release.
    Stable,
    /// May still change in any release, which the change log says.
    Development,
}

impl Stability {
    /// Its name, as the documentation has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Development => "development",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name over OTLP.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its unit by UCUM: `s`, `By`, or what is counted, in braces.
    pub unit: &'static str,
    /// The names of its attributes. Each has few values.
    pub attributes: &'static [&'static str],
    /// Whether it stays.
    pub stability: Stability,
    /// What it says, in a sentence.
    pub help: &'static str,
}

impl Metric {
    /// What the Prometheus exporter makes of its name.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut name = self.name.replace('.', "_");
        let suffix = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        if !name.ends_with(suffix) {
            name.push_str(suffix);
        }
        if self.kind == Counter {
            name.push_str("_total");
        }
        name
    }
}

/// The version of OpenTelemetry's semantic conventions that the names are of.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The bounds of the conventions, of calls of databases.
pub const CONVENTIONAL: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Ours, from 10 microseconds on, each twice the one before: a commit takes less than the first bound of the
/// conventions.
pub const DURATIONS: &[f64] = &[
    0.000_01, 0.000_02, 0.000_04, 0.000_08, 0.000_16, 0.000_32, 0.000_64, 0.001_28, 0.002_56,
    0.005_12, 0.010_24, 0.020_48, 0.040_96, 0.081_92, 0.163_84, 0.327_68, 0.655_36, 1.310_72,
    2.621_44, 5.242_88, 10.485_76,
];

const GROUPS: &[f64] = &[
    0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16_384.0,
    65_536.0,
];

const SIZES: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// Attributes.
pub mod attribute {
    /// The store's name in the configuration.
    pub const NAMESPACE: &str = "db.namespace";
    /// Which database does the storing, by the conventions.
    pub const SYSTEM: &str = "db.system.name";
    /// A method of the backend.
    pub const OPERATION: &str = "db.operation.name";
    /// A table.
    pub const COLLECTION: &str = "db.collection.name";
    /// The name of an error's kind; missing where all went well.
    pub const ERROR: &str = "error.type";
    /// The backend by its name in the configuration.
    pub const BACKEND: &str = "ghostwire.store.backend";
    /// A pool of connections, by the conventions.
    pub const POOL: &str = "db.client.connection.pool.name";
    /// Whether a connection is idle or used, by the conventions.
    pub const CONNECTION_STATE: &str = "db.client.connection.state";
    /// A kind of write.
    pub const COMMAND: &str = "ghostwire.store.command";
    /// A kind of entity.
    pub const ENTITY: &str = "ghostwire.store.entity";
    /// What something is at present.
    pub const STATE: &str = "ghostwire.store.state";
    /// A kind of credential.
    pub const CREDENTIAL: &str = "ghostwire.store.credential";
    /// A family of addresses.
    pub const FAMILY: &str = "ghostwire.store.family";
    /// One of a store's files.
    pub const FILE: &str = "ghostwire.store.file";
    /// Why something ended or was refused.
    pub const REASON: &str = "ghostwire.store.reason";
    /// A job in the background.
    pub const JOB: &str = "ghostwire.store.job";
    /// A check of the health.
    pub const CHECK: &str = "ghostwire.store.check";
    /// A method of the admin socket.
    pub const METHOD: &str = "ghostwire.store.admin.method";
    /// A level of the log.
    pub const LEVEL: &str = "ghostwire.store.log.level";
    /// The version of the program.
    pub const VERSION: &str = "service.version";
    /// The engine of a backend.
    pub const ENGINE: &str = "ghostwire.store.engine";
    /// The version of the schema.
    pub const SCHEMA: &str = "ghostwire.store.schema";
    /// The Cargo features of the program.
    pub const FEATURES: &str = "ghostwire.store.features";
    /// By the conventions of HTTP.
    pub const HTTP_METHOD: &str = "http.request.method";
    /// By the conventions of HTTP.
    pub const HTTP_ROUTE: &str = "http.route";
    /// By the conventions of HTTP.
    pub const HTTP_STATUS: &str = "http.response.status_code";
    /// By the conventions of processes.
    pub const CPU_MODE: &str = "cpu.mode";
}
use attribute::*;

macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, $unit:literal, [$($attribute:ident),*], $stability:ident, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub static $constant: Metric = Metric {
                name: $name,
                kind: $kind,
                unit: $unit,
                attributes: &[$($attribute),*],
                stability: Stability::$stability,
                help: $help,
            };
        )+

        /// All of them.
        pub static METRICS: &[&Metric] = &[$(&$constant),+];
    };
}

use Kind::{Counter, Gauge, Histogram};

metrics! {
    CALLS: Histogram(CONVENTIONAL), "db.client.operation.duration", "s", [NAMESPACE, SYSTEM, BACKEND, OPERATION, COLLECTION, ERROR], Stable, "Calls of the backend, whoever makes them.";

    CONNECTIONS: Gauge, "db.client.connection.count", "{connection}", [NAMESPACE, POOL, CONNECTION_STATE], Development, "Connections that read the store's file or database, idle and used. Only for backends that have a pool of them, like all of these.";
    CONNECTIONS_MAX: Gauge, "db.client.connection.max", "{connection}", [NAMESPACE, POOL], Development, "How many there may be.";
    CONNECTIONS_IDLE_MAX: Gauge, "db.client.connection.idle.max", "{connection}", [NAMESPACE, POOL], Development, "How many are kept at most while nobody uses them.";
    CONNECTIONS_IDLE_MIN: Gauge, "db.client.connection.idle.min", "{connection}", [NAMESPACE, POOL], Development, "How many are kept, however long nobody uses them.";
    CONNECTIONS_PENDING: Gauge, "db.client.connection.pending_requests", "{request}", [NAMESPACE, POOL], Development, "Reads that wait for one.";
    CONNECTION_TIMEOUTS: Counter, "db.client.connection.timeouts", "{timeout}", [NAMESPACE, POOL], Development, "Reads that waited in vain, and were refused.";
    CONNECTION_CREATE: Histogram(CONVENTIONAL), "db.client.connection.create_time", "s", [NAMESPACE, POOL], Development, "How long making one took.";
    CONNECTION_WAIT: Histogram(CONVENTIONAL), "db.client.connection.wait_time", "s", [NAMESPACE, POOL], Development, "How long reads waited for room.";
    CONNECTION_USE: Histogram(CONVENTIONAL), "db.client.connection.use_time", "s", [NAMESPACE, POOL], Development, "How long reads had one.";

    COMMAND_DURATION: Histogram(DURATIONS), "ghostwire.store.command.duration", "s", [NAMESPACE, COMMAND, ERROR], Development, "Writes, from call to answer.";
    COMMANDS_SLOW: Counter, "ghostwire.store.command.slow", "{command}", [NAMESPACE, COMMAND], Development, "Writes that took longer than log.slow_ms. The log has the phases of one of them each second.";
    READS: Counter, "ghostwire.store.reads", "{read}", [NAMESPACE], Development, "Reads by the repositories. Those on a view are not counted, and none is timed.";

    QUEUE_SIZE: Gauge, "ghostwire.store.queue.size", "{command}", [NAMESPACE], Development, "Writes that wait for the writer.";
    QUEUE_LIMIT: Gauge, "ghostwire.store.queue.limit", "{command}", [NAMESPACE], Development, "How many writes may wait.";
    QUEUE_BYTES: Gauge, "ghostwire.store.queue.bytes", "By", [NAMESPACE], Development, "Memory that large writes own until they are answered.";
    QUEUE_BYTES_LIMIT: Gauge, "ghostwire.store.queue.limit.bytes", "By", [NAMESPACE], Development, "How much of that there may be.";
    QUEUE_WAIT: Histogram(DURATIONS), "ghostwire.store.queue.wait.duration", "s", [NAMESPACE], Development, "How long writes waited until the writer took them.";
    QUEUE_REJECTIONS: Counter, "ghostwire.store.queue.rejections", "{command}", [NAMESPACE], Development, "Writes that were refused because the queue stayed full.";

    COMMIT_DURATION: Histogram(DURATIONS), "ghostwire.store.commit.duration", "s", [NAMESPACE, ERROR], Development, "Commits of the writer, those that only flush included.";
    FSYNC: Histogram(DURATIONS), "ghostwire.store.fsync.duration", "s", [NAMESPACE], Development, "SQLite's COMMIT: it appends pages to the log and synchronises that. Only for backends that keep a file.";
    COMMIT_COMMANDS: Histogram(GROUPS), "ghostwire.store.commit.commands", "{command}", [NAMESPACE], Development, "Writes that shared a commit.";
    COMMIT_SIZE: Histogram(SIZES), "ghostwire.store.commit.size", "By", [NAMESPACE], Development, "Bytes of a commit's block.";
    UNKNOWN_OUTCOMES: Counter, "ghostwire.store.commit.unknown_outcomes", "{commit}", [NAMESPACE], Development, "Commits of which it was not known whether they were stored.";
    RECOVERIES: Counter, "ghostwire.store.recoveries", "{recovery}", [NAMESPACE], Development, "How often the backend was reopened and compared with what was acknowledged.";

    BACKLOG: Gauge, "ghostwire.store.flush.backlog", "{row}", [NAMESPACE], Development, "Rows that blocks changed and the tables do not have yet.";
    CHECKPOINT_DURATION: Histogram(DURATIONS), "ghostwire.store.checkpoint.duration", "s", [NAMESPACE], Development, "Checkpoints in the background, from their first slice to their last.";
    CHECKPOINT_LAST: Gauge, "ghostwire.store.checkpoint.last_success.timestamp", "s", [NAMESPACE], Development, "When the tables last became complete up to some serial; until then, when the store was opened.";

    SERIAL: Gauge, "ghostwire.store.serial", "{block}", [NAMESPACE], Development, "The last durable block.";
    POSITION: Gauge, "ghostwire.store.position", "{commit}", [NAMESPACE], Development, "Commits that changed content, those of series included.";
    BLOCK_OLDEST: Gauge, "ghostwire.store.block.oldest.serial", "{block}", [NAMESPACE], Development, "The oldest block that is kept.";
    BLOCK_BYTES: Gauge, "ghostwire.store.block.bytes", "By", [NAMESPACE], Development, "Bytes of the blocks that are kept for those who follow.";

    MIGRATION_LAG: Gauge, "ghostwire.store.migration.lag", "{commit}", [NAMESPACE], Development, "While the network moves, commits that the database which follows has still to take.";
    MIGRATION_IN_STEP: Gauge, "ghostwire.store.migration.in_step", "{migration}", [NAMESPACE], Development, "While the network moves, 1 if an answer means that both databases have it.";
    MIGRATION_FALLBACKS: Counter, "ghostwire.store.migration.fallbacks", "{fallback}", [NAMESPACE], Development, "How often one database went on by itself since the other one was lost.";

    FILE_SIZE: Gauge, "ghostwire.store.file.size", "By", [NAMESPACE, FILE], Development, "The store's files: main, wal, key, lock.";
    FILE_FREE: Gauge, "ghostwire.store.file.free", "By", [NAMESPACE, FILE], Development, "Bytes within the store's file, main, that hold nothing and that later commits use.";
    FILESYSTEM_FREE: Gauge, "ghostwire.store.filesystem.free", "By", [NAMESPACE], Development, "What the file system of the store has left for this user.";
    FILESYSTEM_LIMIT: Gauge, "ghostwire.store.filesystem.limit", "By", [NAMESPACE], Development, "The size of that file system.";

    ENTITIES: Gauge, "ghostwire.store.entity.count", "{entity}", [NAMESPACE, ENTITY], Development, "Entities of each kind.";
    NODES: Gauge, "ghostwire.store.node.count", "{node}", [NAMESPACE, STATE], Development, "Nodes that stay, by state: online, offline, expired.";
    EPHEMERAL_NODES: Gauge, "ghostwire.store.node.ephemeral.count", "{node}", [NAMESPACE, STATE], Development, "Ephemeral nodes, by state.";
    ROUTES: Gauge, "ghostwire.store.route.count", "{route}", [NAMESPACE, STATE], Development, "Routes: approved, waiting for approval, primary. A primary one is approved, too.";
    CREDENTIALS: Gauge, "ghostwire.store.credential.count", "{credential}", [NAMESPACE, CREDENTIAL, STATE], Development, "Credentials by kind and state: valid, used, expired, revoked.";
    NEXT_EXPIRY: Gauge, "ghostwire.store.credential.next_expiry.timestamp", "s", [NAMESPACE, CREDENTIAL], Development, "When the next one of each kind expires that is valid; missing if none does.";
    ADDRESS_USAGE: Gauge, "ghostwire.store.address.usage", "{address}", [NAMESPACE, FAMILY], Development, "Addresses that nodes have.";
    ADDRESS_LIMIT: Gauge, "ghostwire.store.address.limit", "{address}", [NAMESPACE, FAMILY], Development, "Addresses that can be given out; 0 for a family that is not configured.";

    VERIFICATIONS: Counter, "ghostwire.store.credential.verifications", "{verification}", [NAMESPACE, CREDENTIAL, ERROR], Development, "Checks of credentials.";
    VERIFICATION_DURATION: Histogram(DURATIONS), "ghostwire.store.credential.verification.duration", "s", [NAMESPACE, CREDENTIAL], Development, "How long they took; tens of milliseconds for an imported hash.";

    WATCHERS: Gauge, "ghostwire.store.watch.active", "{watcher}", [NAMESPACE], Development, "Who follows the commits.";
    WATCH_LAG: Gauge, "ghostwire.store.watch.lag", "{commit}", [NAMESPACE], Development, "How many commits the slowest of them has still to take.";
    WATCH_ENDED: Counter, "ghostwire.store.watch.ended", "{watcher}", [NAMESPACE, REASON], Development, "Those who left (dropped), were closed with the store, or were ended by an error.";
    VIEW_AGE: Gauge, "ghostwire.store.view.age", "s", [NAMESPACE], Development, "How old a view is that is taken now; 0 unless others write to the backend.";
    VIEW_OLDEST: Gauge, "ghostwire.store.view.oldest.age", "s", [NAMESPACE], Development, "How long ago the oldest state was replaced that a view still keeps, with its memory.";

    POINTS: Counter, "ghostwire.store.series.point.count", "{point}", [NAMESPACE], Development, "Rows of series that commits brought.";
    POINTS_REMOVED: Counter, "ghostwire.store.series.points.removed", "{point}", [NAMESPACE], Development, "Rows of series that were removed by pruning.";
    SERIES_REPLACED: Histogram(DURATIONS), "ghostwire.store.series.prune.duration", "s", [NAMESPACE, ERROR], Development, "Commits that remove rows of series by ranges.";

    COMPACTION: Histogram(DURATIONS), "ghostwire.store.series.compaction.duration", "s", [NAMESPACE], Development, "Merging rows of series within a commit; zqlite only.";

    JOB_RUNS: Counter, "ghostwire.store.job.runs", "{run}", [JOB, ERROR], Development, "Runs of the jobs in the background: reap, sweep, retention, checkpoint.";
    JOB_DURATION: Histogram(DURATIONS), "ghostwire.store.job.duration", "s", [JOB], Development, "How long they took.";
    JOB_LAST: Gauge, "ghostwire.store.job.last_success.timestamp", "s", [JOB], Development, "When each last ended well; until then, when it was first planned. Missing for a job that is never done, or by another process.";
    JOB_INTERVAL: Gauge, "ghostwire.store.job.interval", "s", [JOB], Development, "How often each is done. Missing for a job that is never done, or by another process.";
    JOB_ITEMS: Counter, "ghostwire.store.job.items", "{item}", [JOB], Development, "What they dealt with: nodes, credentials, rows.";

    STATE_NOW: Gauge, "ghostwire.store.state", "{store}", [NAMESPACE, STATE], Development, "1 for the state that the store is in, 0 for the others.";
    HEALTHCHECKS: Gauge, "ghostwire.store.healthcheck.status", "{check}", [NAMESPACE, CHECK], Development, "1 for a check that passes, 0 for one that fails.";
    CLOCK_AHEAD: Gauge, "ghostwire.store.clock.ahead", "s", [NAMESPACE], Development, "How far the time of the last commit is ahead of the clock.";

    RELOAD_SUCCESS: Gauge, "ghostwire.store.config.reload.success", "{reload}", [], Development, "1 if the last reload of the configuration was accepted, else 0; missing before the first.";
    RELOAD_LAST: Gauge, "ghostwire.store.config.reload.last_success.timestamp", "s", [], Development, "When one was last accepted; missing until then.";
    BUILD: Gauge, "ghostwire.store.build.info", "{build}", [NAMESPACE, VERSION, BACKEND, ENGINE, SCHEMA, FEATURES], Development, "Always 1; its attributes say what runs.";

    ADMIN_DURATION: Histogram(DURATIONS), "ghostwire.store.admin.request.duration", "s", [METHOD, ERROR], Development, "Requests of the admin socket.";
    ADMIN_CONNECTIONS: Gauge, "ghostwire.store.admin.connection.count", "{connection}", [], Development, "Clients that are connected to the admin socket.";
    ADMIN_REJECTIONS: Counter, "ghostwire.store.admin.rejections", "{connection}", [REASON], Development, "Connections and messages that the admin socket refused.";
    HTTP_DURATION: Histogram(CONVENTIONAL), "http.server.request.duration", "s", [HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS], Stable, "Requests of the HTTP listener.";

    CPU: Counter, "process.cpu.time", "s", [CPU_MODE], Development, "Processor time of this process, user and system together.";
    MEMORY: Gauge, "process.memory.usage", "By", [], Development, "Resident memory.";
    DESCRIPTORS: Gauge, "process.unix.file_descriptor.count", "{file_descriptor}", [], Development, "Open file descriptors.";
    UPTIME: Gauge, "process.uptime", "s", [], Development, "How long this process has run.";
    THREADS: Gauge, "process.thread.count", "{thread}", [], Development, "Threads.";

    SPANS_EXPORTED: Counter, "otel.sdk.exporter.span.exported", "{span}", [ERROR], Development, "Spans that were sent to the collector, or could not be.";
    POINTS_EXPORTED: Counter, "otel.sdk.exporter.metric_data_point.exported", "{data_point}", [ERROR], Development, "Data points of metrics that were sent to the collector, or could not be.";
    SPAN_QUEUE: Gauge, "otel.sdk.processor.span.queue.size", "{span}", [], Development, "Spans that wait to be sent.";
    SPAN_QUEUE_CAPACITY: Gauge, "otel.sdk.processor.span.queue.capacity", "{span}", [], Development, "How many may wait.";
    SPANS_DROPPED: Counter, "otel.sdk.processor.span.processed", "{span}", [ERROR], Development, "Spans that ended; error.type is queue_full for those that were dropped.";
    LOG_EVENTS: Counter, "ghostwire.store.log.events", "{event}", [LEVEL], Development, "Lines of the log by level.";
    LOG_DROPPED: Counter, "ghostwire.store.log.dropped", "{event}", [], Development, "Lines that could not be written to standard error.";
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dotted_and_without_a_unit_and_units_are_none_of_ratios() {
        for metric in METRICS {
            let Metric { name, unit, help, .. } = metric;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)), "{name}");
            assert!(!name.ends_with("_total") && !name.ends_with("seconds"), "{name}");
            let is_counted = unit.starts_with('{') && unit.ends_with('}');
            assert!(is_counted || ["s", "By"].contains(unit), "{name}: {unit}");
            assert!(help.ends_with('.'), "{name}");
        }
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.prometheus()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn our_bounds_begin_where_a_commit_does_and_double() {
        assert_eq!(DURATIONS.first(), Some(&0.000_01));
        assert!(DURATIONS.last().is_some_and(|last| *last > 10.0));
        for pair in DURATIONS.windows(2) {
            assert!((pair[1] / pair[0] - 2.0).abs() < 1e-9, "{pair:?}");
        }
    }
}
