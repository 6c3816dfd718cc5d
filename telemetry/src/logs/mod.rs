//! The log: lines on standard error, as text or JSON. Its level can be changed while the program runs.

mod format;
mod level;
mod queue;

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ghostwire_store_core::error::{Error, ErrorKind, Result};
use tracing::dispatcher::WeakDispatch;
use tracing::{Dispatch, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

pub use format::Format;
pub use level::LogLevel;

use queue::Queue;

use crate::gate::Gate;
use crate::traces::Sampled;
use crate::{Telemetry, traces};

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, or several for parts of the program, as in
    /// `info,ghostwire_store_core::writer=debug`.
    pub level: String,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".to_owned() }
    }
}

/// The lines of this process that are still to be written.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Begins to log to standard error, and to hand spans to the collector if `telemetry` has one. Once for a
/// process.
///
/// A thread writes the lines, so nobody waits for whoever reads them. A mebibyte of them may wait; what comes
/// on top is dropped and counted. [`flush`] waits for what is still to be written.
///
/// # Errors
/// `InvalidArgument` for a level that is none; `Restricted` if the program logs already; `Unavailable` if
/// the system gives no thread.
pub fn init(options: &LogOptions, telemetry: Option<&Telemetry>) -> Result<LogLevel> {
    let queue = Queue::start(io::stderr()).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "no thread can be started to write the log")
            .because(error)
    })?;
    let (dispatch, level) = dispatch(options, telemetry, queue.clone())?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| {
        Error::new(ErrorKind::Restricted, "this process logs already; set it up once")
    })?;
    let _ = QUEUE.set(queue);
    Ok(level)
}

/// Waits until the lines that [`init`] has written are all there, but no longer than this; before a process
/// ends. Tells whether they are.
pub fn flush(patience: Duration) -> bool {
    QUEUE.get().is_none_or(|queue| queue.flush(patience))
}

/// What [`init`] sets up, for a part of a program, with lines going to `writer`.
///
/// # Errors
/// `InvalidArgument` for a level that is none.
pub fn dispatch<W>(
    options: &LogOptions,
    telemetry: Option<&Telemetry>,
    writer: W,
) -> Result<(Dispatch, LogLevel)>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(level::parse(&options.level)?);
    let this = Arc::new(OnceLock::<WeakDispatch>::new());
    let lines = fmt::layer()
        .event_format(format::Lines { format: options.format, dispatch: this.clone() })
        .with_writer(Counted(writer))
        .with_ansi(false)
        .with_filter(filter.and(filter_fn(|of| !is_told_otherwise(of))));
    let spans = telemetry.and_then(traces::layer);
    let gate = Gate::new(handle.clone(), telemetry.and_then(Sampled::of));
    let dispatch = Dispatch::new(Registry::default().with(lines).with(spans).with(gate));
    let _ = this.set(dispatch.downgrade());
    Ok((dispatch, LogLevel::new(handle, options.level.clone())))
}

/// OpenTelemetry's library says in its own words, and at each attempt, that a collector does not answer. This
/// crate says it once, when it begins and when it ends. Whoever debugs sees all the rest.
fn is_told_otherwise(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("opentelemetry") && *metadata.level() <= tracing::Level::INFO
}

/// Levels by name, and how many lines each had.
static LINES: [(&str, AtomicU64); 5] = [
    ("error", AtomicU64::new(0)),
    ("warn", AtomicU64::new(0)),
    ("info", AtomicU64::new(0)),
    ("debug", AtomicU64::new(0)),
    ("trace", AtomicU64::new(0)),
];
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many lines there were of each level.
pub(crate) fn counts() -> impl Iterator<Item = (&'static str, u64)> {
    LINES.iter().map(|(level, count)| (*level, count.load(Ordering::Relaxed)))
}

/// How many lines could not be written.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A line cannot be written.
fn drop_line() {
    DROPPED.fetch_add(1, Ordering::Relaxed);
}

/// A line is written.
fn count(level: tracing::Level) {
    let name = level_name(level);
    if let Some((_, count)) = LINES.iter().find(|(known, _)| *known == name) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

/// Counts what cannot be written, instead of failing: whoever does the work cannot help it.
struct Counted<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Counted<W> {
    type Writer = CountedWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        CountedWriter(self.0.make_writer())
    }
}

struct CountedWriter<W>(W);

impl<W: Write> Write for CountedWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            drop_line();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Options, lock};

    /// `tracing` keeps one greatest level for the whole process, which two threads that set up logs at once can
    /// leave too low. A program has one log; these tests have many, so they run one after the other.
    pub(super) static ONE_LOG: Mutex<()> = Mutex::new(());

    fn is_made(level: &str, sampled: Option<f64>) -> bool {
        // A port that refuses: what is sent does not matter here.
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        let start = |sampled| {
            Telemetry::start(Options { endpoint: endpoint.clone(), sampled, ..Options::default() })
        };
        let telemetry = sampled.map(|sampled| start(sampled).unwrap());
        let log = LogOptions { level: level.to_owned(), ..LogOptions::default() };
        let (dispatch, _level) = dispatch(&log, telemetry.as_ref(), io::sink).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            !tracing::debug_span!(target: "ghostwire_store_core", "a write").is_disabled()
        })
    }

    #[test]
    fn a_span_is_only_made_for_somebody() {
        let _one_log = lock(&ONE_LOG);
        assert!(!is_made("info", None), "neither logged nor traced");
        assert!(!is_made("info", Some(0.0)), "not followed");
        assert!(is_made("info", Some(1.0)), "followed");
        assert!(is_made("debug", Some(0.0)) && is_made("debug", None), "logged");
    }

    #[test]
    fn below_a_span_that_is_logged_only_nothing_is_made_for_traces() {
        let _one_log = lock(&ONE_LOG);
        let is_made_below = |sampled| {
            let endpoint = Some("http://127.0.0.1:1".to_owned());
            let options = Options { endpoint, sampled, ..Options::default() };
            let telemetry = Telemetry::start(options).unwrap();
            let (dispatch, _level) =
                dispatch(&LogOptions::default(), Some(&telemetry), io::sink).unwrap();
            tracing::dispatcher::with_default(&dispatch, || {
                let above = tracing::info_span!(target: "ghostwire_store_core", "a request");
                assert!(!above.is_disabled(), "it is logged");
                above.in_scope(|| {
                    !tracing::debug_span!(target: "ghostwire_store_core", "a write").is_disabled()
                })
            })
        };
        assert!(!is_made_below(0.0));
        assert!(is_made_below(1.0));
    }

    #[test]
    fn a_changed_level_is_obeyed() {
        let _one_log = lock(&ONE_LOG);
        let (dispatch, level) = dispatch(&LogOptions::default(), None, io::sink).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            let is_made =
                || !tracing::debug_span!(target: "ghostwire_store_core", "a write").is_disabled();
            assert!(!is_made());
            level.set("debug").unwrap();
            assert!(is_made());
            level.set("info").unwrap();
            assert!(!is_made());
        });
    }
}
