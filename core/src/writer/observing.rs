//! What the writer tells of commits and of writes that took long.

use std::time::{Duration, Instant};

use tracing::{Instrument, Span};

use super::Writer;
use super::in_flight::{InFlight, uninterrupted};
use crate::backend::{Backend, Commit};
use crate::error::Result;
use crate::observe::{Event, Phases, Told, listening, spans};

/// How storing a commit went.
pub(super) struct Stored {
    pub(super) outcome: Result<()>,
    pub(super) took: Duration,
    /// What the backend told meanwhile.
    told: Told,
}

impl From<Result<()>> for Stored {
    fn from(outcome: Result<()>) -> Self {
        Self { outcome, took: Duration::ZERO, told: Told::default() }
    }
}

/// Has the backend store a commit, in its span. If it panics, the outcome is unknown. Nobody reads the clock
/// if it is not `timed`.
pub(super) async fn store(
    backend: &dyn Backend,
    commit: &Commit,
    span: &Span,
    timed: bool,
) -> Stored {
    let began = timed.then(Instant::now);
    let storing = uninterrupted(async { backend.commit(commit).await });
    let (outcome, told) = listening(storing.instrument(span.clone())).await;
    spans::ended(span, &outcome);
    Stored { outcome, took: began.map(|began| began.elapsed()).unwrap_or_default(), told }
}

/// A write that took too long.
pub(super) struct SlowWrite {
    command: &'static str,
    took: Duration,
    phases: Phases,
    batch: usize,
    span: Span,
}

/// When a batch came how far, if anybody wants to know.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    encoded: Option<Encoded>,
    took: Duration,
    synced: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Encoded {
    sealed_at: Instant,
    encoded_at: Instant,
}

impl Timing {
    /// A batch that took no more writes at a moment, and whose block is encoded now.
    pub(super) fn encoded(sealed_at: Option<Instant>) -> Self {
        let encoded = sealed_at.map(|sealed_at| Encoded { sealed_at, encoded_at: Instant::now() });
        Self { encoded, took: Duration::ZERO, synced: None }
    }

    pub(super) fn is_wanted(self) -> bool {
        self.encoded.is_some()
    }

    /// Its commit ended.
    pub(super) fn stored(&mut self, stored: &Stored) {
        (self.took, self.synced) = (stored.took, stored.told.synced);
    }

    /// How its writes spent their time until now.
    fn phases(self, queued_at: Instant, taken_at: Instant, now: Instant) -> Phases {
        let Self { encoded, took, synced } = self;
        let unknown = Encoded { sealed_at: taken_at, encoded_at: taken_at };
        let Encoded { sealed_at, encoded_at } = encoded.unwrap_or(unknown);
        let between = |from: Instant, to: Instant| to.saturating_duration_since(from);
        Phases {
            queue: between(queued_at, taken_at),
            decide: between(taken_at, sealed_at),
            encode: between(sealed_at, encoded_at),
            commit: took,
            synced,
            publish: between(encoded_at + took, now),
        }
    }
}

impl Writer {
    /// The moment, if anybody is told of it.
    pub(super) fn moment(&self) -> Option<Instant> {
        self.recorder.is_some().then(Instant::now)
    }

    /// Tells how a commit ended, and how many points of series it brought.
    pub(super) fn tell_commit(&self, stored: &Stored, commit: &Commit, counts: (usize, usize)) {
        let (commands, points) = counts;
        self.record(&Event::Commit {
            commands,
            bytes: commit.block.as_ref().map_or(0, |block| block.bytes.len()),
            points,
            took: stored.took,
            synced: stored.told.synced,
            compacted: stored.told.compacted,
            error: stored.outcome.as_ref().err().map(|error| error.kind().name()),
        });
    }

    /// Which writes took too long.
    pub(super) fn slow(&self, in_flight: &InFlight) -> Vec<SlowWrite> {
        let Some(limit) = self.recorder.as_ref().and_then(|recorder| recorder.slow_after()) else {
            return Vec::new();
        };
        let now = Instant::now();
        let slow =
            in_flight.callers.slow(limit, now).map(|(command, queued_at, taken_at, span)| {
                SlowWrite {
                    command,
                    took: now.saturating_duration_since(queued_at),
                    phases: in_flight.timing.phases(queued_at, taken_at, now),
                    batch: in_flight.len(),
                    span: span.clone(),
                }
            });
        slow.collect()
    }

    pub(super) fn tell_slow(&self, slow: Vec<SlowWrite>) {
        let backlog = self.checkpointer.backlog.len() as u64;
        for SlowWrite { command, took, phases, batch, span } in slow {
            let event = Event::Slow { command, took, phases: &phases, batch, backlog };
            span.in_scope(|| self.record(&event));
        }
    }
}
