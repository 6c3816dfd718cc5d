//! What is read off stores whenever somebody wants the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ghostwire_store_core::backend::PoolInfo;
use ghostwire_store_core::domain::Timestamp;
use ghostwire_store_core::observe::{KeyStates, NodeStates, Reading, Readings};
use ghostwire_store_core::schema::Schema;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use opentelemetry::{KeyValue, StringValue};

use crate::catalogue::{self as m, Kind, Metric, attribute as key};
use crate::files;
use crate::lock;
use crate::options::Build;

/// The health of a store, as whoever looks after it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The store's name.
    pub store: String,
    /// The state that it is in; one of [`STATES`].
    pub state: &'static str,
    /// Checks by name, and whether each passes.
    pub checks: Vec<(&'static str, bool)>,
}

/// Gives the health of every store. It is asked on every export, so it answers from memory.
pub type HealthSource = dyn Fn() -> Vec<Health> + Send + Sync;

/// The states that a store can be in.
pub const STATES: [&str; 7] =
    ["loading", "ready", "read_only", "degraded", "poisoned", "draining", "stopped"];

/// All that reads have to look at.
pub(crate) struct Sources {
    stores: Mutex<Vec<Arc<StoreSource>>>,
    health: Mutex<Option<Arc<HealthSource>>>,
    jobs: Mutex<BTreeMap<&'static str, JobSource>>,
    reload: Mutex<Reload>,
    admin_connections: AtomicI64,
    build: Build,
}

/// One job in the background.
#[derive(Debug, Clone, Copy)]
struct JobSource {
    /// How often it is done, if that was said.
    every: Option<Duration>,
    /// When it last ended well, or else was planned, in seconds since the epoch.
    succeeded_at: f64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Reload {
    last: Option<bool>,
    succeeded_at: Option<f64>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("stores", &self.stores).finish_non_exhaustive()
    }
}

/// One store.
#[derive(Debug)]
pub(crate) struct StoreSource {
    name: StringValue,
    read: Mutex<Read>,
    checkpoint_at: Mutex<Option<f64>>,
}

#[derive(Debug, Default)]
struct Read {
    readings: Option<Readings>,
    last: Option<(Instant, Option<Arc<Reading>>)>,
}

/// One export asks many times; all of its gauges are of one moment.
const ONE_EXPORT: Duration = Duration::from_millis(500);

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl StoreSource {
    pub(crate) fn new(name: StringValue) -> Self {
        Self { name, read: Mutex::default(), checkpoint_at: Mutex::default() }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_str()
    }

    pub(crate) fn opened(&self, readings: Readings) {
        *lock(&self.read) = Read { readings: Some(readings), last: None };
        lock(&self.checkpoint_at).get_or_insert_with(now);
    }

    pub(crate) fn checkpointed(&self) {
        *lock(&self.checkpoint_at) = Some(now());
    }

    fn reading(&self) -> Option<Arc<Reading>> {
        let mut read = lock(&self.read);
        if let Some((at, reading)) = &read.last
            && at.elapsed() < ONE_EXPORT
        {
            return reading.clone();
        }
        let reading = read.readings.as_ref()?.read().map(Arc::new);
        read.last = Some((Instant::now(), reading.clone()));
        reading
    }
}

impl JobSource {
    fn begin() -> Self {
        Self { every: None, succeeded_at: now() }
    }
}

impl Sources {
    pub(crate) fn new(build: Build) -> Self {
        Self {
            stores: Mutex::default(),
            health: Mutex::default(),
            jobs: Mutex::default(),
            reload: Mutex::default(),
            admin_connections: AtomicI64::new(0),
            build,
        }
    }

    /// A store was opened; one of the same name takes the place of the one before.
    pub(crate) fn add(&self, store: &Arc<StoreSource>) {
        let mut stores = lock(&self.stores);
        stores.retain(|other| other.name != store.name);
        stores.push(store.clone());
    }

    /// What is read next is new. Stores that are gone are forgotten.
    pub(crate) fn refresh(&self) {
        let mut stores = lock(&self.stores);
        stores.iter().for_each(|store| lock(&store.read).last = None);
        stores.retain(|store| store.reading().is_some());
    }

    pub(crate) fn set_health(&self, source: Arc<HealthSource>) {
        *lock(&self.health) = Some(source);
    }

    pub(crate) fn job_succeeded(&self, job: &'static str) {
        lock(&self.jobs).entry(job).or_insert_with(JobSource::begin).succeeded_at = now();
    }

    /// How often each job is done from now on; `None` is never.
    pub(crate) fn plan_jobs(&self, plan: &[(&'static str, Option<Duration>)]) {
        let mut jobs = lock(&self.jobs);
        for (job, every) in plan {
            match every {
                Some(every) => {
                    jobs.entry(*job).or_insert_with(JobSource::begin).every = Some(*every)
                }
                None => drop(jobs.remove(job)),
            }
        }
    }

    pub(crate) fn reloaded(&self, accepted: bool) {
        let mut reload = lock(&self.reload);
        reload.last = Some(accepted);
        if accepted {
            reload.succeeded_at = Some(now());
        }
    }

    pub(crate) fn admin_connection(&self, opened: bool) {
        self.admin_connections.fetch_add(if opened { 1 } else { -1 }, Ordering::Relaxed);
    }

    fn each(&self, mut read: impl FnMut(&StoreSource, &Reading)) {
        let stores = lock(&self.stores).clone();
        for store in stores {
            if let Some(reading) = store.reading() {
                read(&store, &reading);
            }
        }
    }
}

/// Where a gauge is written to.
struct Sink<'s> {
    store: KeyValue,
    to: &'s dyn AsyncInstrument<f64>,
}

impl Sink<'_> {
    fn one(&self, value: f64) {
        self.to.observe(value, std::slice::from_ref(&self.store));
    }

    fn of(&self, key: &'static str, name: &'static str, value: f64) {
        self.to.observe(value, &[self.store.clone(), KeyValue::new(key, name)]);
    }

    fn pool(&self, reading: &Reading, read: fn(&PoolInfo) -> u64) {
        if let Some(pool) = &reading.info.backend.pool {
            self.of(key::POOL, POOL, read(pool) as f64);
        }
    }

    fn nodes(&self, nodes: NodeStates) {
        let NodeStates { online, offline, expired } = nodes;
        for (state, count) in [("online", online), ("offline", offline), ("expired", expired)] {
            self.of(key::STATE, state, count as f64);
        }
    }

    fn keys(&self, kind: &'static str, keys: KeyStates) {
        let KeyStates { valid, used, expired, revoked, .. } = keys;
        let states = [("valid", valid), ("used", used), ("expired", expired), ("revoked", revoked)];
        for (state, count) in states {
            let (kind, state) =
                (KeyValue::new(key::CREDENTIAL, kind), KeyValue::new(key::STATE, state));
            self.to.observe(count as f64, &[self.store.clone(), kind, state]);
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

type Gauge = (&'static Metric, fn(&StoreSource, &Reading, &Sink<'_>));

/// The only pool of a store: the connections that read its file or database.
pub(crate) const POOL: &str = "readers";

/// What is read of each store.
const GAUGES: &[Gauge] = &[
    (&m::CONNECTIONS, |_, r, s| {
        if let Some(pool) = r.info.backend.pool {
            for (state, count) in [("idle", pool.idle), ("used", pool.used)] {
                let state = KeyValue::new(key::CONNECTION_STATE, state);
                let pool = KeyValue::new(key::POOL, POOL);
                s.to.observe(count as f64, &[s.store.clone(), pool, state]);
            }
        }
    }),
    (&m::CONNECTIONS_MAX, |_, r, s| s.pool(r, |pool| pool.max)),
    (&m::CONNECTIONS_IDLE_MAX, |_, r, s| s.pool(r, |pool| pool.idle_max)),
    (&m::CONNECTIONS_IDLE_MIN, |_, r, s| s.pool(r, |pool| pool.idle_min)),
    (&m::CONNECTIONS_PENDING, |_, r, s| s.pool(r, |pool| pool.pending)),
    (&m::CONNECTION_TIMEOUTS, |_, r, s| s.pool(r, |pool| pool.timeouts)),
    (&m::READS, |_, r, s| s.one(r.reads as f64)),
    (&m::QUEUE_SIZE, |_, r, s| s.one(r.queue.size as f64)),
    (&m::QUEUE_LIMIT, |_, r, s| s.one(r.queue.limit as f64)),
    (&m::QUEUE_BYTES, |_, r, s| s.one(r.queue.bytes as f64)),
    (&m::QUEUE_BYTES_LIMIT, |_, r, s| s.one(r.queue.bytes_limit as f64)),
    (&m::BACKLOG, |_, r, s| s.one(r.info.dirty_rows as f64)),
    (&m::CHECKPOINT_LAST, |store, _, s| {
        if let Some(at) = *lock(&store.checkpoint_at) {
            s.one(at);
        }
    }),
    (&m::SERIAL, |_, r, s| s.one(r.info.serial.get() as f64)),
    (&m::POSITION, |_, r, s| s.one(r.info.position.get() as f64)),
    (&m::BLOCK_OLDEST, |_, r, s| s.one(r.oldest_block as f64)),
    (&m::BLOCK_BYTES, |_, r, s| s.one(r.block_bytes as f64)),
    (&m::MIGRATION_LAG, |_, r, s| {
        if let Some(lag) = r.info.migration.and_then(|moving| moving.lag) {
            s.one(lag as f64);
        }
    }),
    (&m::MIGRATION_IN_STEP, |_, r, s| {
        if let Some(moving) = r.info.migration.filter(|moving| moving.under_way) {
            s.one(if moving.in_step { 1.0 } else { 0.0 });
        }
    }),
    (&m::MIGRATION_FALLBACKS, |_, r, s| {
        if let Some(moving) = r.info.migration {
            s.one(moving.fallbacks as f64);
        }
    }),
    (&m::FILE_SIZE, |_, r, s| {
        for (file, bytes) in files::sizes(&r.info.backend) {
            s.of(key::FILE, file, bytes as f64);
        }
    }),
    (&m::FILE_FREE, |_, r, s| {
        if let Some(free) = r.info.backend.file.and_then(|file| file.free) {
            s.of(key::FILE, "main", free as f64);
        }
    }),
    (&m::FILESYSTEM_FREE, |_, r, s| {
        if let Some(disk) = r.info.backend.filesystem {
            s.one(disk.free as f64);
        }
    }),
    (&m::FILESYSTEM_LIMIT, |_, r, s| {
        if let Some(disk) = r.info.backend.filesystem {
            s.one(disk.total as f64);
        }
    }),
    (&m::ENTITIES, |_, r, s| {
        for (kind, count) in &r.entities {
            s.of(key::ENTITY, kind.name(), *count as f64);
        }
    }),
    (&m::NODES, |_, r, s| s.nodes(r.counts.nodes)),
    (&m::EPHEMERAL_NODES, |_, r, s| s.nodes(r.counts.ephemeral)),
    (&m::ROUTES, |_, r, s| {
        s.of(key::STATE, "approved", r.counts.routes.approved as f64);
        s.of(key::STATE, "waiting", r.counts.routes.waiting as f64);
        s.of(key::STATE, "primary", r.counts.routes.primary as f64);
    }),
    (&m::CREDENTIALS, |_, r, s| {
        s.keys("api_key", r.counts.api_keys);
        s.keys("preauth_key", r.counts.preauth_keys);
        s.keys("session", r.counts.sessions);
    }),
    (&m::NEXT_EXPIRY, |_, r, s| {
        let next = [
            ("api_key", r.counts.api_keys.next_expiry),
            ("preauth_key", r.counts.preauth_keys.next_expiry),
            ("session", r.counts.sessions.next_expiry),
            ("node_key", r.counts.next_node_expiry),
        ];
        for (kind, at) in next {
            if let Some(at) = at {
                s.of(key::CREDENTIAL, kind, seconds(at));
            }
        }
    }),
    (&m::ADDRESS_USAGE, |_, r, s| {
        let [(v4, _), (v6, _)] = r.addresses;
        s.of(key::FAMILY, "ipv4", v4 as f64);
        s.of(key::FAMILY, "ipv6", v6 as f64);
    }),
    (&m::ADDRESS_LIMIT, |_, r, s| {
        let [(_, v4), (_, v6)] = r.addresses;
        s.of(key::FAMILY, "ipv4", v4);
        s.of(key::FAMILY, "ipv6", v6);
    }),
    (&m::WATCHERS, |_, r, s| s.one(r.watchers.active as f64)),
    (&m::WATCH_LAG, |_, r, s| s.one(r.watchers.lag as f64)),
    (&m::VIEW_AGE, |_, r, s| s.one(r.views.age.as_secs_f64())),
    (&m::VIEW_OLDEST, |_, r, s| s.one(r.views.oldest_age.as_secs_f64())),
    (&m::CLOCK_AHEAD, |_, r, s| s.one(r.clock_ahead.as_secs_f64())),
];

/// Has every gauge read when metrics are exported.
pub(crate) fn register(meter: &Meter, sources: &Arc<Sources>) {
    for (metric, read) in GAUGES {
        let sources = sources.clone();
        observe(meter, metric, move |to| {
            sources.each(|store, reading| {
                let name = KeyValue::new(key::NAMESPACE, store.name.clone());
                read(store, reading, &Sink { store: name, to });
            });
        });
    }
    let of = sources.clone();
    observe(meter, &m::BUILD, move |to| {
        of.each(|store, reading| to.observe(1.0, &of.built(store, reading)))
    });
    let of = sources.clone();
    observe(meter, &m::STATE_NOW, move |to| {
        of.health(|name, health| {
            for state in STATES {
                let value = f64::from(u8::from(state == health.state));
                to.observe(value, &[name.clone(), KeyValue::new(key::STATE, state)]);
            }
        });
    });
    let of = sources.clone();
    observe(meter, &m::HEALTHCHECKS, move |to| {
        of.health(|name, health| {
            for (check, passes) in &health.checks {
                let value = f64::from(u8::from(*passes));
                to.observe(value, &[name.clone(), KeyValue::new(key::CHECK, *check)]);
            }
        });
    });
    register_process_wide(meter, sources);
}

fn register_process_wide(meter: &Meter, sources: &Arc<Sources>) {
    let of = sources.clone();
    observe(meter, &m::JOB_LAST, move |to| {
        for (name, job) in &*lock(&of.jobs) {
            to.observe(job.succeeded_at, &[KeyValue::new(key::JOB, *name)]);
        }
    });
    let of = sources.clone();
    observe(meter, &m::JOB_INTERVAL, move |to| {
        for (name, job) in &*lock(&of.jobs) {
            if let Some(every) = job.every {
                to.observe(every.as_secs_f64(), &[KeyValue::new(key::JOB, *name)]);
            }
        }
    });
    let of = sources.clone();
    observe(meter, &m::RELOAD_SUCCESS, move |to| {
        if let Some(accepted) = lock(&of.reload).last {
            to.observe(f64::from(u8::from(accepted)), &[]);
        }
    });
    let of = sources.clone();
    observe(meter, &m::RELOAD_LAST, move |to| {
        if let Some(at) = lock(&of.reload).succeeded_at {
            to.observe(at, &[]);
        }
    });
    let of = sources.clone();
    observe(meter, &m::ADMIN_CONNECTIONS, move |to| {
        to.observe(of.admin_connections.load(Ordering::Relaxed) as f64, &[]);
    });
}

impl Sources {
    fn health(&self, mut read: impl FnMut(&KeyValue, &Health)) {
        let Some(source) = lock(&self.health).clone() else { return };
        for health in source() {
            read(&KeyValue::new(key::NAMESPACE, health.store.clone()), &health);
        }
    }

    fn built(&self, store: &StoreSource, reading: &Reading) -> [KeyValue; 6] {
        let backend = &reading.info.backend;
        [
            KeyValue::new(key::NAMESPACE, store.name.clone()),
            KeyValue::new(key::VERSION, self.build.version.clone()),
            KeyValue::new(key::BACKEND, backend.name),
            KeyValue::new(key::ENGINE, backend.engine.clone()),
            KeyValue::new(key::SCHEMA, i64::from(Schema::current().version().version)),
            KeyValue::new(key::FEATURES, self.build.features.clone()),
        ]
    }
}

/// Has a metric read at every export.
pub(crate) fn observe(
    meter: &Meter,
    metric: &'static Metric,
    read: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static,
) {
    let (name, unit, help) = (metric.name, metric.unit, metric.help);
    match metric.kind {
        Kind::Counter => {
            let builder = meter.f64_observable_counter(name).with_unit(unit);
            builder.with_description(help).with_callback(read).build();
        }
        Kind::Gauge | Kind::Histogram(_) => {
            let builder = meter.f64_observable_gauge(name).with_unit(unit);
            builder.with_description(help).with_callback(read).build();
        }
    }
}
