//! A store that is served, as it looks from outside: opened, open, ended. Everybody who asks is answered from
//! here, over HTTP and the admin socket.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use ghostwire_store::admin::{AdminEvent, Hooks};
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, SystemClock, Timestamp};
use ghostwire_store::health::{Health, LoadProgress, Outcome};
use ghostwire_store::http::{Answered, Source};
use ghostwire_store::jobs::{Job, JobRun, Plan, Records};
use ghostwire_store::observe::{Event, Recorder};
use ghostwire_store::telemetry::{self, LogLevel, Telemetry, traces};
use ghostwire_store::{Error, Result, Store};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::Span;

use super::{notify, reload};
use crate::cli::GlobalOptions;
use crate::session::load_config;

/// A store that is served, and what is told of it.
pub(crate) struct Served {
    /// From which the configuration is read again.
    global: GlobalOptions,
    telemetry: Option<Telemetry>,
    recorder: Option<Arc<dyn Recorder>>,
    log_level: LogLevel,
    progress: Arc<LoadProgress>,
    plan: watch::Sender<Plan>,
    begun: Instant,
    started_at: Timestamp,
    /// Whether it was asked to end.
    is_ending: AtomicBool,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    config: Config,
    /// Whether this process does the jobs, and no other one in its place.
    does_jobs: bool,
    reloaded: Option<Reloaded>,
}

#[derive(Debug, Clone)]
enum Phase {
    Opening,
    Open(Arc<dyn Store>, Records),
    NotOpened(Error),
}

/// What came of reading the configuration again.
#[derive(Debug, Clone, serde::Serialize)]
struct Reloaded {
    at: Timestamp,
    #[serde(flatten)]
    plan: Option<reload::Plan>,
    error: Option<String>,
}

impl Served {
    pub(crate) fn new(
        global: &GlobalOptions,
        config: &Config,
        telemetry: Option<Telemetry>,
        log_level: LogLevel,
    ) -> Arc<Self> {
        let inner = Inner {
            phase: Phase::Opening,
            config: config.clone(),
            does_jobs: true,
            reloaded: None,
        };
        let recorder = telemetry.as_ref().map(|telemetry| telemetry.recorder(&config.store));
        // Gone or not, it is the file that is read again: without it defaults would hold.
        let mut global = global.clone();
        global.config.clone_from(&config.flag_file);
        let served = Arc::new(Self {
            global,
            telemetry,
            recorder,
            log_level,
            progress: Arc::default(),
            plan: watch::Sender::new(Plan::of(config)),
            begun: Instant::now(),
            started_at: SystemClock.now(),
            is_ending: AtomicBool::new(false),
            inner: Mutex::new(inner),
        });
        if let Some(telemetry) = &served.telemetry {
            plan_jobs(telemetry, &Plan::of(config), true);
            let (name, weak) = (config.store.clone(), Arc::downgrade(&served));
            telemetry.set_health(Arc::new(move || {
                let health = weak.upgrade().map(|served| Source::health(&*served));
                health.map(|health| measured(&name, &health)).into_iter().collect()
            }));
        }
        served
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is in there is whole at any time.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is read while the store is opened.
    pub(crate) fn progress(&self) -> Arc<LoadProgress> {
        self.progress.clone()
    }

    pub(crate) fn recorder(&self) -> Option<Arc<dyn Recorder>> {
        self.recorder.clone()
    }

    pub(crate) fn plan(&self) -> watch::Sender<Plan> {
        self.plan.clone()
    }

    pub(crate) fn opened(&self, store: &Arc<dyn Store>, records: Records) {
        self.lock().phase = Phase::Open(store.clone(), records);
    }

    pub(crate) fn not_opened(&self, error: &Error) {
        self.lock().phase = Phase::NotOpened(error.clone());
    }

    /// From now on it says that it is not ready.
    pub(crate) fn ending(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    fn unless_ending(&self, health: Health) -> Health {
        if self.is_ending.load(Ordering::Relaxed) { health.draining() } else { health }
    }

    /// The configuration that holds.
    pub(crate) fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Sends what waits to the collector, within this time.
    pub(crate) async fn flush(&self, patience: Duration) {
        let Some(telemetry) = self.telemetry.clone() else { return };
        let sent = tokio::task::spawn_blocking(move || telemetry.shutdown(patience));
        if let Ok(Ok(Err(error))) = tokio::time::timeout(patience, sent).await {
            tracing::warn!(%error, "the last metrics and traces are lost");
        }
    }

    fn record(&self, event: &Event<'_>) {
        if let Some(recorder) = &self.recorder {
            recorder.record(event);
        }
    }

    /// A job ended.
    pub(crate) fn job_ended(&self, run: &JobRun) {
        let error = run.outcome.as_ref().err().map(|error| error.kind().name());
        let items = run.outcome.as_ref().ok().copied().flatten().unwrap_or(0);
        self.record(&Event::Job { job: run.job.name(), took: run.took, items, error });
    }

    /// Whether this process does the jobs from now on. What another one does is not measured here: it would look
    /// late.
    pub(crate) fn on_duty(&self, does_jobs: bool) {
        let mut inner = self.lock();
        inner.does_jobs = does_jobs;
        if let Some(telemetry) = &self.telemetry {
            plan_jobs(telemetry, &Plan::of(&inner.config), does_jobs);
        }
    }

    /// Reads the configuration again, takes up what may change while the store is open, and tells what
    /// came of it.
    ///
    /// # Errors
    /// Those of reading it; then nothing changes.
    pub(crate) fn take_up(&self) -> Result<reload::Plan> {
        notify::reloading();
        let read = load_config(&self.global).map_err(crate::failure::Failure::into_error);
        let taken = match &read {
            Ok(after) => Ok(self.merge(after)),
            Err(error) => Err(error.clone()),
        };
        match &taken {
            Ok(changes) => tell_changes(changes),
            Err(error) => tracing::error!(
                name: "reload_refused",
                %error,
                error.type = error.kind().name(),
                "the configuration cannot be read; what held before holds on"
            ),
        }
        let error = taken.as_ref().err();
        self.record(&Event::Reload { error: error.map(|error| error.kind().name()) });
        self.lock().reloaded = Some(Reloaded {
            at: SystemClock.now(),
            plan: taken.as_ref().ok().cloned(),
            error: error.map(ToString::to_string),
        });
        notify::ready(&self.summary());
        taken
    }

    fn merge(&self, after: &Config) -> reload::Plan {
        let mut inner = self.lock();
        let plan = reload::plan(&inner.config, after);
        inner.config = reload::merged(&inner.config, after);
        let jobs = Plan::of(&inner.config);
        if let Some(telemetry) = &self.telemetry {
            plan_jobs(telemetry, &jobs, inner.does_jobs);
        }
        self.plan.send_replace(jobs);
        if plan.applied.iter().any(|change| change.key == "log.level")
            && let Err(error) = self.log_level.set(inner.config.log.level.name())
        {
            tracing::warn!(%error, "the level of the log stays as it is");
        }
        plan
    }

    /// How far it is, in a line for people.
    pub(crate) fn summary(&self) -> String {
        summary(&Source::health(self))
    }
}

fn plan_jobs(telemetry: &Telemetry, plan: &Plan, does_jobs: bool) {
    let every = |job| plan.every(job).filter(|_| does_jobs);
    telemetry.plan_jobs(&Job::ALL.map(|job| (job.name(), every(job))));
}

fn tell_changes(changes: &reload::Plan) {
    for change in &changes.refused {
        tracing::warn!(
            name: "reload_deferred",
            key = change.key,
            before = change.before,
            after = change.after,
            "this key holds only once the process is started anew"
        );
    }
    let applied: Vec<_> = changes.applied.iter().map(|change| change.key.as_str()).collect();
    tracing::info!(name: "reloaded", applied = applied.join(","), "the configuration was read again");
}

/// What metrics have of it.
fn measured(store: &str, health: &Health) -> telemetry::Health {
    // What nobody has looked at is left out, and neither passes nor fails.
    let known = health.checks.iter().filter(|check| check.outcome != Outcome::Unknown);
    let checks = known.map(|check| (check.name.name(), check.outcome != Outcome::Failed));
    telemetry::Health {
        store: store.to_owned(),
        state: health.state.name(),
        checks: checks.collect(),
    }
}

/// A line for people.
pub(crate) fn summary(health: &Health) -> String {
    let state = health.state.name();
    match (&health.reason, health.loaded_rows) {
        (_, Some(rows)) => format!("{state}: {rows} rows read"),
        (Some(reason), _) => format!("{state}: {reason}"),
        (None, _) => state.to_owned(),
    }
}

#[async_trait]
impl Source for Served {
    fn health(&self) -> Health {
        let phase = self.lock().phase.clone();
        match phase {
            Phase::Opening => Health::loading(&self.progress),
            Phase::Open(store, _) => self.unless_ending(store.health()),
            Phase::NotOpened(error) => Health::not_opened(&error),
        }
    }

    async fn check_health(&self) -> Health {
        let phase = self.lock().phase.clone();
        match phase {
            Phase::Open(store, _) => self.unless_ending(store.check_health().await),
            _ => Source::health(self),
        }
    }

    async fn metrics(&self) -> Option<String> {
        self.telemetry.as_ref().map(Telemetry::text)
    }

    fn status(&self) -> Value {
        let health = Source::health(self);
        let inner = self.lock();
        let (info, jobs) = match &inner.phase {
            Phase::Open(store, records) => (Some(store.info()), Some(records.snapshot())),
            _ => (None, None),
        };
        json!({
            "health": health,
            "jobs": jobs,
            "info": info,
            "process": {
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "started_at": self.started_at,
                "uptime_seconds": self.begun.elapsed().as_secs(),
            },
            "configuration": {
                "flag_file": inner.config.flag_file,
                "environment": inner.config.environment,
                "store": inner.config.store,
                "last_reload": inner.reloaded,
            },
        })
    }

    fn answered(&self, answered: &Answered) {
        let Answered { method, route, status, took } = *answered;
        self.record(&Event::HttpRequest { method, route, status, took });
    }
}

#[async_trait]
impl Hooks for Served {
    async fn health(&self) -> Result<Value> {
        let health = serde_json::to_value(self.check_health().await);
        health.map_err(|error| {
            Error::new(ghostwire_store::ErrorKind::Unexpected, "health is no JSON").because(error)
        })
    }

    async fn metrics(&self) -> Result<String> {
        match &self.telemetry {
            Some(telemetry) => Ok(telemetry.text()),
            None => Err(Error::new(
                ghostwire_store::ErrorKind::Unsupported,
                "nothing is counted: `telemetry.enabled` is off",
            )),
        }
    }

    async fn reload(&self) -> Result<Value> {
        let plan = self.take_up()?;
        Ok(json!({ "applied": plan.applied, "refused": plan.refused }))
    }

    fn observe(&self, event: AdminEvent) {
        match event {
            AdminEvent::Request { method, took, error } => {
                self.record(&Event::AdminRequest { method, took, error });
            }
            AdminEvent::Connection { opened } => self.record(&Event::AdminConnection { opened }),
            AdminEvent::Rejected { reason } => self.record(&Event::AdminRejected { reason }),
            _ => {}
        }
    }

    fn span(&self, method: &'static str, traceparent: &str) -> Span {
        traces::below(traceparent, || tracing::info_span!("admin.request", method))
    }

    async fn set_log_level(&self, level: &str, period: Option<Duration>) -> Result<()> {
        match period {
            Some(period) => self.log_level.set_for(level, period),
            None => self.log_level.set(level),
        }?;
        tracing::info!(name: "log_level", level, ?period, "the level of the log was changed");
        Ok(())
    }
}
