//! A store that is served, as it looks from outside: opened, open, ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use ghostwire_store::config::Config;
use ghostwire_store::domain::{Clock, SystemClock, Timestamp};
use ghostwire_store::health::{Health, LoadProgress};
use ghostwire_store::http::Source;
use ghostwire_store::jobs::Records;
use ghostwire_store::{Error, Store};
use serde_json::{Value, json};

use super::reload;

/// What everybody who asks is told from.
#[derive(Debug)]
pub(crate) struct Served {
    progress: Arc<LoadProgress>,
    begun: Instant,
    started_at: Timestamp,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    config: Config,
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
    pub(crate) fn new(config: &Config) -> Arc<Self> {
        let inner = Inner { phase: Phase::Opening, config: config.clone(), reloaded: None };
        Arc::new(Self {
            progress: Arc::default(),
            begun: Instant::now(),
            started_at: SystemClock.now(),
            inner: Mutex::new(inner),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is in there is whole at any time.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what is read while the store is opened.
    pub(crate) fn progress(&self) -> Arc<LoadProgress> {
        self.progress.clone()
    }

    pub(crate) fn opened(&self, store: &Arc<dyn Store>, records: Records) {
        self.lock().phase = Phase::Open(store.clone(), records);
    }

    pub(crate) fn not_opened(&self, error: &Error) {
        self.lock().phase = Phase::NotOpened(error.clone());
    }

    /// The configuration that holds.
    pub(crate) fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Takes up what may change, and remembers what came of it.
    pub(crate) fn reload(&self, read: Result<Config, String>) -> Result<reload::Plan, String> {
        let mut inner = self.lock();
        let at = SystemClock.now();
        match read {
            Ok(after) => {
                let plan = reload::plan(&inner.config, &after);
                inner.config = reload::merged(&inner.config, &after);
                inner.reloaded = Some(Reloaded { at, plan: Some(plan.clone()), error: None });
                Ok(plan)
            }
            Err(error) => {
                inner.reloaded = Some(Reloaded { at, plan: None, error: Some(error.clone()) });
                Err(error)
            }
        }
    }

    /// How far it is, in a line for people.
    pub(crate) fn summary(&self) -> String {
        summary(&self.health())
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
        match self.lock().phase.clone() {
            Phase::Opening => Health::loading(&self.progress),
            Phase::Open(store, _) => store.health(),
            Phase::NotOpened(error) => Health::not_opened(&error),
        }
    }

    async fn check_health(&self) -> Health {
        let phase = self.lock().phase.clone();
        match phase {
            Phase::Open(store, _) => store.check_health().await,
            _ => self.health(),
        }
    }

    async fn metrics(&self) -> Option<String> {
        None
    }

    fn status(&self) -> Value {
        let health = self.health();
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
}
