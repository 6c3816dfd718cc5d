//! What a store tells of itself while it works, and what can be read off it at any time. The core
//! exports nothing by itself: whoever wants figures hands in a [`Recorder`].
//!
//! Without one nothing is counted, and no clock is read for it.

mod connections;
mod counts;
mod event;
mod readings;
mod reads;
pub(crate) mod spans;
mod told;
mod views;
mod watchers;

use std::fmt::Debug;
use std::time::{Duration, Instant};

pub use counts::{KeyStates, NodeStates, RouteStates, StateCounts};
pub use event::{ConnectionStep, Event, Phases};
pub use readings::{QueueReading, Reading, Readings, ViewReading, WatchReading};
pub use told::{compacted, synced};

pub(crate) use connections::ConnectionEvents;
pub(crate) use counts::CountsCache;
pub(crate) use reads::Reads;
pub(crate) use told::{Told, listening};
pub(crate) use views::KeptViews;
pub(crate) use watchers::{Watcher, Watchers};

use crate::error::Error;

/// Takes what a store tells of itself. It is called on the threads that do the work, so it returns at
/// once, takes no lock that is held for long, and does not panic.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use ghostwire_store_core::observe::{Event, Recorder};
/// use ghostwire_store_core::options::StoreOptions;
///
/// #[derive(Debug, Default)]
/// struct Commits(AtomicU64);
///
/// impl Recorder for Commits {
///     fn record(&self, event: &Event<'_>) {
///         if let Event::Commit { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let commits = Arc::new(Commits::default());
/// let options = StoreOptions { recorder: Some(commits.clone()), ..StoreOptions::default() };
/// # let _ = options;
/// ```
pub trait Recorder: Send + Sync + Debug + 'static {
    /// Something happened.
    fn record(&self, event: &Event<'_>);

    /// A store was opened with this recorder: from now on its state can be read. Does nothing by
    /// default.
    fn opened(&self, readings: Readings) {
        let _ = readings;
    }

    /// What the store is called, which its spans say.
    fn namespace(&self) -> Option<&str> {
        None
    }

    /// From how long on an answered command is told as [`Event::Slow`]; `None`, the default, tells none.
    fn slow_after(&self) -> Option<Duration> {
        None
    }
}

/// Takes everything and keeps nothing.
impl Recorder for () {
    fn record(&self, _: &Event<'_>) {}
}

/// What OpenTelemetry's conventions call the database that a backend stores in.
#[must_use]
pub fn system_name(backend: &'static str) -> &'static str {
    match backend {
        "libsql" | "zqlite" => "sqlite",
        "postgres" => "postgresql",
        other => other,
    }
}

/// The failure of a call that was dropped before it ended.
pub const CANCELLED: &str = "cancelled";

/// A command under way. It is told of when it is dropped, so also if its caller gives up.
pub(crate) struct CommandCall<'r> {
    recorder: &'r dyn Recorder,
    command: &'static str,
    began: Instant,
    failure: Option<&'static str>,
}

impl<'r> CommandCall<'r> {
    pub(crate) fn begin(recorder: &'r dyn Recorder, command: &'static str) -> Self {
        Self { recorder, command, began: Instant::now(), failure: Some(CANCELLED) }
    }

    /// Its answer has come.
    pub(crate) fn end<T>(mut self, outcome: &Result<T, Error>) {
        self.failure = outcome.as_ref().err().map(|error| error.kind().name());
    }
}

impl Drop for CommandCall<'_> {
    fn drop(&mut self) {
        let (command, took, error) = (self.command, self.began.elapsed(), self.failure);
        self.recorder.record(&Event::Command { command, took, error });
    }
}
