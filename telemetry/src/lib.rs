//! What a store does, told by OpenTelemetry: metrics as Prometheus text and over OTLP, traces over OTLP, and
//! the log. The core knows nothing of it; a [`Telemetry`] gives [`Recorder`]s to open stores with.
//!
//! ```
//! use std::sync::Arc;
//!
//! use ghostwire_store_core::domain::StoreId;
//! use ghostwire_store_core::options::StoreOptions;
//! use ghostwire_store_memory::MemoryBackend;
//! use ghostwire_store_telemetry::{Options, Telemetry};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ghostwire_store_core::Result<()> {
//! let telemetry = Telemetry::start(Options::default())?;
//! let backend = Arc::new(MemoryBackend::new(StoreId::from_bytes([1; 16])));
//! let recorder = Some(telemetry.recorder("main"));
//! let store =
//!     ghostwire_store_core::open(backend, StoreOptions { recorder, ..StoreOptions::default() }).await?;
//! assert!(telemetry.text().contains("ghostwire_store_serial{db_namespace=\"main\"} 0"));
//! store.close().await
//! # }
//! ```
//!
//! [`Recorder`]: ghostwire_store_core::observe::Recorder

pub mod catalogue;
mod classic;
mod export;
mod files;
mod gate;
mod gauges;
mod instruments;
pub mod logs;
mod options;
mod process;
mod recorder;
mod self_metrics;
mod text;
pub mod traces;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use ghostwire_store_core::observe::Recorder;
use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

pub use gauges::{Health, HealthSource, STATES};
pub use options::{Build, Options};

use gauges::Sources;
use instruments::Instruments;
use recorder::StoreRecorder;

/// The scope of everything that is measured here.
const SCOPE: &str = "ghostwire-store";

/// Metrics and traces of the stores of this process. Clones are handles on the same.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: prometheus::Registry,
    meters: SdkMeterProvider,
    /// `None` if nothing takes traces.
    tracer: Option<SdkTracerProvider>,
    instruments: Arc<Instruments>,
    sources: Arc<Sources>,
    options: Options,
    /// Whether it was shut down.
    ended: Mutex<bool>,
}

impl Telemetry {
    /// Begins to count, and to send to the collector if one is configured. What is sent waits in bounded
    /// queues; threads of their own send it.
    ///
    /// # Errors
    /// `InvalidArgument` for an endpoint that cannot be used; `Unavailable` if the system gives no thread.
    pub fn start(options: Options) -> Result<Self> {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(|error| broken("the Prometheus exporter cannot be made", &error))?;
        let resource = resource(&options);
        let own = Arc::new(self_metrics::SelfMetrics::default());
        let mut meters =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader);
        let mut tracer = None;
        if let Some(endpoint) = options.endpoint()? {
            meters = export::metrics(meters, &endpoint, &options, own.clone())?;
            tracer = export::traces(&endpoint, resource, own.clone())?;
        }
        let meters = meters.build();
        let scope = InstrumentationScope::builder(SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(catalogue::SCHEMA_URL)
            .build();
        let meter = meters.meter_with_scope(scope);
        let sources = Arc::new(Sources::new(options.build.clone()));
        gauges::register(&meter, &sources);
        process::register(&meter);
        self_metrics::register(&meter, &own);
        let instruments = Arc::new(Instruments::new(&meter));
        let ended = Mutex::new(false);
        Ok(Self(Arc::new(Inner { registry, meters, tracer, instruments, sources, options, ended })))
    }

    /// What to open a store with, so that it is counted under this name.
    #[must_use]
    pub fn recorder(&self, store: &str) -> Arc<dyn Recorder> {
        let Inner { instruments, sources, options, .. } = &*self.0;
        Arc::new(StoreRecorder::new(
            store,
            instruments.clone(),
            sources.clone(),
            options.slow_after,
        ))
    }

    /// Everything as text in the format of Prometheus, version 0.0.4.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.sources.refresh();
        let measured = self.0.registry.gather();
        text::of(measured.into_iter().chain(classic::families()).collect())
    }

    /// From where the health of the stores comes: it is asked for whenever somebody reads the metrics, so it
    /// answers from memory.
    pub fn set_health(&self, source: Arc<HealthSource>) {
        self.0.sources.set_health(source);
    }

    /// How often each job in the background is done from now on; `None` is never. The age of the last success
    /// counts from when a job was first planned.
    pub fn plan_jobs(&self, plan: &[(&'static str, Option<Duration>)]) {
        self.0.sources.plan_jobs(plan);
    }

    /// What sends spans, if anything does.
    pub(crate) fn tracer(&self) -> Option<&SdkTracerProvider> {
        self.0.tracer.as_ref()
    }

    /// Which share of traces is followed.
    pub(crate) fn sampled(&self) -> f64 {
        self.0.options.sampled
    }

    /// Sends what waits, within a time, and stops sending. The counts can still be read.
    ///
    /// # Errors
    /// `Unavailable` if the collector did not take all of it.
    pub fn shutdown(&self, patience: Duration) -> Result<()> {
        let mut ended = lock(&self.0.ended);
        if std::mem::replace(&mut *ended, true) {
            return Ok(());
        }
        drop(ended);
        let Some(tracer) = &self.0.tracer else { return Ok(()) };
        let half = patience / 2;
        let spans = tracer.shutdown_with_timeout(half);
        let points = self.flush(half);
        spans.and(points).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                "the collector did not take the last spans and metrics",
            )
            .because(error)
        })
    }
}

impl Telemetry {
    /// Sends the metrics once more. A collector that hangs keeps the thread that sends, not this one.
    fn flush(&self, patience: Duration) -> OTelSdkResult {
        let (sent, outcome) = std::sync::mpsc::channel();
        let meters = self.0.meters.clone();
        let flush = move || drop(sent.send(meters.force_flush()));
        let thread = std::thread::Builder::new().name("telemetry-flush".to_owned()).spawn(flush);
        thread.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
        outcome.recv_timeout(patience).unwrap_or(Err(OTelSdkError::Timeout(patience)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(what: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unexpected, what).because(error.to_string())
}

fn resource(options: &Options) -> Resource {
    let resource = Resource::builder();
    // What the environment says takes precedence: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`.
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
    let resource =
        if named { resource } else { resource.with_service_name(options.service.clone()) };
    resource.with_schema_url([options.build.version_attribute()], catalogue::SCHEMA_URL).build()
}
