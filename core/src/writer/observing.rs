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

/// Has the backend store a commit, in its span. If it panics, the outcome is unknown.
pub(super) async fn store(backend: &dyn Backend, commit: &Commit, span: &Span) -> Stored {
    let began = Instant::now();
    let storing = uninterrupted(async { backend.commit(commit).await });
    let (outcome, told) = listening(storing.instrument(span.clone())).await;
    spans::ended(span, &outcome);
    Stored { outcome, took: began.elapsed(), told }
}

/// When a batch came how far.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    sealed_at: Instant,
    encoded_at: Instant,
    took: Duration,
    synced: Option<Duration>,
}

impl Timing {
    /// A batch that took no more writes at a moment, and whose block is encoded now.
    pub(super) fn encoded(sealed_at: Instant) -> Self {
        Self { sealed_at, encoded_at: Instant::now(), took: Duration::ZERO, synced: None }
    }

    /// Its commit ended.
    pub(super) fn stored(&mut self, stored: &Stored) {
        (self.took, self.synced) = (stored.took, stored.told.synced);
    }

    /// How its writes spent their time until now.
    fn phases(self, queued_at: Instant, taken_at: Instant, now: Instant) -> Phases {
        let Self { sealed_at, encoded_at, took, synced } = self;
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

    /// Tells which writes took too long.
    pub(super) fn tell_slow(&self, in_flight: &InFlight) {
        let Some(recorder) = &self.recorder else { return };
        let Some(limit) = recorder.slow_after() else { return };
        let now = Instant::now();
        let (batch, backlog) = (in_flight.len(), self.checkpointer.backlog.len() as u64);
        for (command, queued_at, taken_at, span) in in_flight.callers.slow(limit, now) {
            let phases = in_flight.timing.phases(queued_at, taken_at, now);
            let took = now.saturating_duration_since(queued_at);
            let slow = Event::Slow { command, took, phases: &phases, batch, backlog };
            span.in_scope(|| recorder.record(&slow));
        }
    }
}
