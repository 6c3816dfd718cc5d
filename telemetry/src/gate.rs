//! Whether a span or an event is made at all.
//!
//! The registry of `tracing` makes each span that may be wanted, even if the filter of every layer turns it down:
//! filters of layers only keep it from that layer. So what nobody wants is stopped in front of all of them.

use std::cell::Cell;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use crate::traces::Sampled;

thread_local! {
    /// Whether the span that is being made begins a trace that is followed: decided here, so that the filter of
    /// the traces does not draw once more.
    static BEGINS: Cell<Option<bool>> = const { Cell::new(None) };
}

/// What was decided of the span that is being made, if anything was. Tells it once.
pub(crate) fn begins() -> Option<bool> {
    BEGINS.take()
}

/// Stands in front of the log and of the traces.
pub(crate) struct Gate {
    log: reload::Handle<Targets, Registry>,
    /// `None` if nothing takes traces.
    traces: Option<Sampled>,
}

impl Gate {
    pub(crate) fn new(log: reload::Handle<Targets, Registry>, traces: Option<Sampled>) -> Self {
        Self { log, traces }
    }

    fn is_logged(&self, metadata: &Metadata<'_>) -> bool {
        let wants = |log: &Targets| log.would_enable(metadata.target(), metadata.level());
        // A log that cannot be asked decides for itself.
        self.log.with_current(wants).unwrap_or(true)
    }
}

impl<S> Layer<S> for Gate
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let is_traced = self.traces.is_some() && Sampled::is_wanted(metadata);
        match (self.is_logged(metadata), is_traced) {
            (true, _) => Interest::always(),
            (false, true) => Interest::sometimes(),
            (false, false) => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        let Some(traces) = self.traces.filter(|_| Sampled::is_wanted(metadata)) else {
            return self.is_logged(metadata);
        };
        if context.lookup_current().is_some() {
            return true;
        }
        // Most spans of a busy store end here.
        let begins = metadata.is_span() && traces.begins();
        let is_made = begins || self.is_logged(metadata);
        BEGINS.set(is_made.then_some(begins));
        is_made
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let log = self.log.with_current(Layer::<Registry>::max_level_hint).ok()??;
        Some(if self.traces.is_some() { log.max(LevelFilter::DEBUG) } else { log })
    }
}
