//! Sending to a collector: OTLP over HTTP, in Protobuf.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ghostwire_store_core::error::Result;
use opentelemetry::Context;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{MeterProviderBuilder, PeriodicReader, Temporality};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanProcessor,
};

use crate::options::Options;
use crate::self_metrics::SelfMetrics;
use crate::{SCOPE, broken};

/// How long the collector may take for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Spans that may wait to be sent.
const QUEUE: usize = 2048;
/// A commit is linked to as many writes.
const LINKS: u32 = 1024;

/// Plain HTTP/1.1 by a blocking client: exports have threads of their own.
#[derive(Debug)]
struct Client(ureq::Agent);

impl Client {
    fn new() -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(agent.into())
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: Request<Bytes>,
    ) -> std::result::Result<Response<Bytes>, HttpError> {
        const LONGEST: u64 = 64 * 1024;
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = response.into_parts();
        let text = body.with_config().limit(LONGEST).read_to_vec()?;
        Ok(Response::from_parts(parts, text.into()))
    }
}

/// Adds what sends metrics.
pub(crate) fn metrics(
    meters: MeterProviderBuilder,
    endpoint: &str,
    options: &Options,
    own: Arc<SelfMetrics>,
) -> Result<MeterProviderBuilder> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(format!("{endpoint}/v1/metrics"))
        .build()
        .map_err(|error| broken("the exporter of metrics cannot be made", &error))?;
    let exporter = CountedPoints { exporter, own, told: Told::default() };
    Ok(meters
        .with_reader(PeriodicReader::builder(exporter).with_interval(options.interval).build()))
}

/// What takes spans and sends them.
pub(crate) fn traces(
    endpoint: &str,
    resource: Resource,
    own: Arc<SelfMetrics>,
) -> Result<Option<SdkTracerProvider>> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client::new())
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()
        .map_err(|error| broken("the exporter of spans cannot be made", &error))?;
    own.capacity.store(QUEUE as u64, Ordering::Relaxed);
    let exporter = CountedSpans { exporter, own: own.clone(), told: Told::default() };
    // It holds more than is admitted, so that it drops none by itself.
    let config = BatchConfigBuilder::default().with_max_queue_size(2 * QUEUE).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Admission { inner: batches, own })
        // What is followed is decided before a span is made.
        .with_sampler(opentelemetry_sdk::trace::Sampler::AlwaysOn)
        .with_max_links_per_span(LINKS)
        .with_resource(resource)
        .build();
    Ok(Some(provider))
}

/// The tracer that spans are made with.
pub(crate) fn tracer(provider: &SdkTracerProvider) -> opentelemetry_sdk::trace::Tracer {
    use opentelemetry::trace::TracerProvider;
    let scope = opentelemetry::InstrumentationScope::builder(SCOPE)
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(crate::catalogue::SCHEMA_URL)
        .build();
    provider.tracer_with_scope(scope)
}

/// Lets as many spans in as may wait, and counts the others.
#[derive(Debug)]
struct Admission {
    inner: BatchSpanProcessor,
    own: Arc<SelfMetrics>,
}

impl SpanProcessor for Admission {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.own.admits() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Why something could not be sent, in a word.
fn reason(outcome: &OTelSdkResult) -> Option<&'static str> {
    match outcome.as_ref().err()? {
        OTelSdkError::Timeout(_) => Some("timeout"),
        OTelSdkError::AlreadyShutdown => Some("shutdown"),
        OTelSdkError::InternalFailure(_) => Some("unavailable"),
    }
}

/// Whether the collector did not take what was sent last, as the log has it.
#[derive(Debug, Default)]
struct Told(AtomicBool);

impl Told {
    /// Whether that is news.
    fn turns(&self, fails: bool) -> bool {
        self.0.swap(fails, Ordering::Relaxed) != fails
    }

    /// One line for each change.
    fn tell(&self, signal: &'static str, outcome: &OTelSdkResult) {
        if !self.turns(outcome.is_err()) {
            return;
        }
        match outcome {
            Ok(()) => {
                tracing::info!(name: "export_resumed", signal, "the collector takes {signal} again")
            }
            Err(error) => tracing::warn!(
                name: "export_failing",
                signal,
                %error,
                error.type = reason(outcome),
                "the collector does not take {signal}; this is said once, until it does"
            ),
        }
    }
}

#[derive(Debug)]
struct CountedSpans {
    exporter: SpanExporter,
    own: Arc<SelfMetrics>,
    told: Told,
}

impl opentelemetry_sdk::trace::SpanExporter for CountedSpans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        self.own.spans_sent(count, reason(&outcome));
        self.told.tell("traces", &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

struct CountedPoints {
    exporter: MetricExporter,
    own: Arc<SelfMetrics>,
    told: Told,
}

impl PushMetricExporter for CountedPoints {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let count = points(metrics);
        let outcome = self.exporter.export(metrics).await;
        self.own.points_sent(count, reason(&outcome));
        self.told.tell("metrics", &outcome);
        outcome
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

fn points(metrics: &ResourceMetrics) -> u64 {
    fn count<T>(data: &MetricData<T>) -> usize {
        match data {
            MetricData::Gauge(gauge) => gauge.data_points().count(),
            MetricData::Sum(sum) => sum.data_points().count(),
            MetricData::Histogram(histogram) => histogram.data_points().count(),
            MetricData::ExponentialHistogram(histogram) => histogram.data_points().count(),
        }
    }
    let of = |data: &AggregatedMetrics| match data {
        AggregatedMetrics::F64(data) => count(data),
        AggregatedMetrics::U64(data) => count(data),
        AggregatedMetrics::I64(data) => count(data),
    };
    let scopes = metrics.scope_metrics().flat_map(|scope| scope.metrics());
    scopes.map(|metric| of(metric.data()) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_news() {
        let told = Told::default();
        let outcomes = [false, true, true, false, false, true];
        assert_eq!(
            outcomes.map(|fails| told.turns(fails)),
            [false, true, false, true, false, true]
        );
    }
}
