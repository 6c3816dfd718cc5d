//! Traces: which of them are followed, and how one goes on in another process.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use opentelemetry::Context as TraceContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use crate::{Telemetry, export, gate};

/// Hands spans to the collector; `None` if there is none. For programs that put their own subscriber
/// together; [`logs::init`](crate::logs::init) has it in.
#[must_use]
pub fn layer<S>(telemetry: &Telemetry) -> Option<impl Layer<S> + Send + Sync + 'static>
where
    S: Subscriber + for<'s> LookupSpan<'s> + Send + Sync + 'static,
{
    let sampled = Sampled::of(telemetry)?;
    let tracer = export::tracer(telemetry.tracer()?);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        // A refusal that is to be expected is no failure of the program.
        .with_error_events_to_status(false)
        .with_error_events_to_exceptions(false)
        .with_error_fields_to_exceptions(false)
        .with_error_records_to_exceptions(false);
    Some(layer.with_filter(sampled))
}

/// Follows a share of traces, and of each all or nothing. It is decided before a span is made, so what is not
/// followed costs next to nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampled {
    share: f64,
}

impl Sampled {
    pub(crate) fn of(telemetry: &Telemetry) -> Option<Self> {
        telemetry.tracer().map(|_| Self { share: telemetry.sampled() })
    }

    /// Whether anybody could want to see it: what the store does in detail, and what else in large.
    pub(crate) fn is_wanted(metadata: &Metadata<'_>) -> bool {
        let ours =
            metadata.target().starts_with("ghostwire") || metadata.target().starts_with("gwstore");
        *metadata.level() <= if ours { Level::DEBUG } else { Level::INFO }
    }

    /// Whether a span that has none above it here is followed: as its caller in another process says, otherwise by
    /// the share.
    pub(crate) fn begins(self) -> bool {
        let caller = TraceContext::map_current(|context| {
            let span = context.span();
            let context = span.span_context();
            context.is_valid().then(|| context.is_sampled())
        });
        caller.unwrap_or_else(|| draw() < self.share)
    }
}

impl<S> Filter<S> for Sampled
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        if !Sampled::is_wanted(metadata) {
            return false;
        }
        let is_within = context.lookup_current().is_some();
        if !metadata.is_span() || is_within {
            return is_within;
        }
        // Where no gate stands in front, nothing is decided yet.
        gate::begins().unwrap_or_else(|| self.begins())
    }

    fn callsite_enabled(
        &self,
        metadata: &'static Metadata<'static>,
    ) -> tracing::subscriber::Interest {
        match Sampled::is_wanted(metadata) {
            true => tracing::subscriber::Interest::sometimes(),
            false => tracing::subscriber::Interest::never(),
        }
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::DEBUG)
    }
}

/// A number from 0 to 1, without 1. Nothing but sampling depends on it.
fn draw() -> f64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
    }
    let mut x = STATE.get();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    STATE.set(x);
    (x >> 11) as f64 / (1_u64 << 53) as f64
}

/// The trace that the current span belongs to, as the header `traceparent` of W3C Trace Context; `None` if it
/// is not followed.
#[must_use]
pub fn traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let of = span.span_context();
    let flags = of.trace_flags().to_u8();
    of.is_valid().then(|| format!("00-{}-{}-{flags:02x}", of.trace_id(), of.span_id()))
}

/// Makes spans below one of another process: those that `make` makes, if it makes them at once, without
/// anything above them here. What is no `traceparent` changes nothing.
pub fn below<T>(traceparent: &str, make: impl FnOnce() -> T) -> T {
    let Some(above) = parse(traceparent) else { return make() };
    let _within = TraceContext::new().with_remote_span_context(above).attach();
    make()
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sizes = (version.len(), trace.len(), span.len(), flags.len());
    if sizes != (2, 32, 16, 2) || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_strictly() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(parse(good).is_some_and(|context| context.is_sampled() && context.is_remote()));
        assert!(parse(&good.replace("-01", "-00")).is_some_and(|context| !context.is_sampled()));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn draws_are_spread() {
        let mut below = 0;
        for _ in 0..10_000 {
            let drawn = draw();
            assert!((0.0..1.0).contains(&drawn));
            below += u32::from(drawn < 0.25);
        }
        assert!((2000..3000).contains(&below), "{below}");
    }

    #[test]
    fn a_callers_trace_decides_and_a_share_otherwise() {
        let (all, none) = (Sampled { share: 1.0 }, Sampled { share: 0.0 });
        assert!(all.begins() && !none.begins());
        let followed = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(below(followed, || none.begins()));
        assert!(!below(&followed.replace("-01", "-00"), || all.begins()));
    }
}
